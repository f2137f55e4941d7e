package lru

import (
	"sync"
	"sync/atomic"

	"hearth/mmapslab"
)

// Segments of a class's LRU, in memcached's order.
const (
	Hot = iota
	Warm
	Cold
	Temp
	segments
)

// Settings are memcached's tuning values; see Defaults.
type Settings struct {
	HotPct, WarmPct             int     // share of the class's bytes in percent, together at most 80
	HotMaxFactor, WarmMaxFactor float64 // times the age of COLD's tail, above 0
	Flat                        bool    // one list a class, COLD, in order of use
	Temp                        bool    // items that expire within TempTTL go to TEMP
	TempTTL                     uint32  // seconds
}

// Defaults are memcached's.
var Defaults = Settings{HotPct: 20, WarmPct: 40, HotMaxFactor: 0.2, WarmMaxFactor: 2.0, TempTTL: 61}

// Owner is who the items belong to: the root package.
type Owner interface {
	// Dead tells whether the item is expired or flushed. The item is linked and its list's lock is held.
	Dead(ref mmapslab.Ref, now uint32) bool
	// Reap removes a dead item if it is still there; no lock is held.
	Reap(ref mmapslab.Ref)
}

// Order is the LRU of all classes.
type Order struct {
	store    *mmapslab.Store
	owner    Owner
	settings atomic.Pointer[Settings] // replaced as a whole
	sizes    []atomic.Int32           // items in lists by size, see CountSizes; nil: not counted
	classes  [mmapslab.ClassIDs]classOrder
}

// classOrder holds a class's four lists. One short lock guards them all rather than one for each: a move between two lists needs no lock order,
// and an item's segment cannot change while its class is locked.
type classOrder struct {
	mu    sync.Mutex
	lists [segments]list
	next  [segments]uint32 // chunk ids of the items that a crawl looks at next; 0: none
	moves Moves

	estimate atomic.Bool // of lists' bytes

	_ [64]byte // keep the locks of neighbours on lines of their own
}

type list struct {
	head, tail   uint32 // chunk ids; 0: empty
	count, bytes uint64
}

// Moves counts what the maintainer and bumps did in one class.
type Moves struct{ ToCold, ToWarm, WithinLRU uint64 }

// New returns an empty order.
func New(store *mmapslab.Store, owner Owner, settings Settings) *Order {
	o := &Order{store: store, owner: owner}
	o.Tune(settings)
	return o
}

// Tune changes the settings. What is in lists moves as the maintainer comes by.
func (o *Order) Tune(settings Settings) { o.settings.Store(&settings) }

// Settings returns the settings of now.
func (o *Order) Settings() Settings { return *o.settings.Load() }

// Entry returns the segment that a new item enters. An exptime that is over is as far away as can be, which is memcached's unsigned arithmetic.
func (o *Order) Entry(m mmapslab.Meta, now uint32) int {
	switch s := o.settings.Load(); {
	case s.Temp && m.Exptime()-now <= s.TempTTL:
		return Temp
	case s.Flat:
		return Cold
	}
	return Hot
}

// sizeUnit is the width of a row of `stats sizes` in bytes.
const sizeUnit = 32

// CountSizes begins to count the items in lists by size, those that are in one already included; before anybody else uses the order.
func (o *Order) CountSizes(maxItem int) {
	o.sizes = make([]atomic.Int32, maxItem/sizeUnit+2)
	o.countLists()
}

func (o *Order) countLists() {
	if o.sizes == nil {
		return
	}
	for class := range o.classes {
		for segment := range segments {
			o.Walk(class, segment, func(id, _ uint32) bool {
				it, ok := o.store.Item(o.store.ItemRef(id))
				if ok {
					o.countSize(it.Size(), 1)
				}
				return ok
			})
		}
	}
}

func (o *Order) countSize(size int, by int32) {
	if o.sizes != nil {
		o.sizes[min((size+sizeUnit-1)/sizeUnit, len(o.sizes)-1)].Add(by)
	}
}

// Sizes calls row for each size, rounded up to a multiple of 32 bytes, that items have; counted is false when CountSizes was not called.
func (o *Order) Sizes(row func(size, items int)) (counted bool) {
	for i := range o.sizes {
		if n := o.sizes[i].Load(); n > 0 {
			row(i*sizeUnit, int(n))
		}
	}
	return o.sizes != nil
}

// Link puts an item that is in no list at the head of a segment. The item must be protected: its owner links it before it publishes it,
// so that whoever removes it from the index finds it linked.
func (o *Order) Link(ref mmapslab.Ref, segment, size int) {
	c := &o.classes[o.store.ListClass(ref)]
	c.mu.Lock()
	o.pushLocked(c, ref, segment, uint64(size), nil)
	c.mu.Unlock()
	o.countSize(size, 1)
}

// LinkBeside links ref, a copy of the item old in another chunk, right behind old, so that once old is unlinked the copy is where old was. The copy gets
// old's Meta, which is returned, but for Copying. False, with nothing changed, when old is in no list any more.
func (o *Order) LinkBeside(ref, old mmapslab.Ref, size int) (m mmapslab.Meta, ok bool) {
	c := &o.classes[o.store.ListClass(old)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if m = mmapslab.Meta(o.store.Meta(old).Load()); m&mmapslab.Linked == 0 {
		return m, false
	}
	l, id, oldID := &c.lists[m.Segment()], o.store.ID(ref), o.store.ID(old)
	link := o.store.Link(oldID)
	*o.store.Link(id) = mmapslab.Link{Prev: oldID, Next: link.Next}
	if link.Next != 0 {
		o.store.Link(link.Next).Prev = id
	} else {
		l.tail = id
	}
	link.Next = id
	l.count++
	l.bytes += uint64(size)
	o.store.Meta(ref).Store(uint64(m &^ mmapslab.Copying))
	o.countSize(size, 1)
	return m, true
}

// Unlink takes an item out of its list; false when it is in none. Whoever won the removal of its index word calls it, once.
func (o *Order) Unlink(ref mmapslab.Ref, size int) bool {
	c := &o.classes[o.store.ListClass(ref)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if mmapslab.Meta(o.store.Meta(ref).Load())&mmapslab.Linked == 0 {
		return false
	}
	o.pullLocked(c, ref, uint64(size))
	o.countSize(size, -1)
	return true
}

// Leaver is an item, and its size.
type Leaver struct {
	Ref  mmapslab.Ref
	Size int
}

// UnlinkAll is Unlink for several items, each of which must be in a list. It takes a class's lock once for those of the class that are in a row. To wait for the neighbours' links is
// most of what an Unlink takes, and others wait for the lock meanwhile: so it asks for the memory of all of them before it changes the first one.
func (o *Order) UnlinkAll(items []Leaver) {
	const most = 64
	var ids [most]uint32
	var buf [2 * most]int64
	for len(items) > 0 {
		n, class, lines := 0, o.store.ListClass(items[0].Ref), buf[:0]
		for ; n < min(len(items), most) && o.store.ListClass(items[n].Ref) == class; n++ {
			ids[n] = o.store.ID(items[n].Ref)
			lines = append(lines, o.store.LinkOffset(ids[n]))
		}
		arena := o.store.Arena()
		arena.Prefetch(lines)
		c := &o.classes[class]
		c.mu.Lock()
		lines = buf[:0]
		for _, id := range ids[:n] {
			link := o.store.Link(id)
			lines = append(lines, o.store.LinkOffset(link.Prev), o.store.LinkOffset(link.Next))
		}
		arena.Prefetch(lines)
		for _, it := range items[:n] {
			o.pullLocked(c, it.Ref, uint64(it.Size))
		}
		c.mu.Unlock()
		for _, it := range items[:n] {
			o.countSize(it.Size, -1)
		}
		items = items[n:]
	}
}

// UnlinkDamaged is Unlink for an item whose size, as all of it, may not be what it was: from then on the bytes of the class's lists are an estimate.
func (o *Order) UnlinkDamaged(ref mmapslab.Ref, size int) bool {
	o.classes[o.store.ListClass(ref)].estimate.Store(true)
	return o.Unlink(ref, size)
}

// Estimated tells whether the bytes of a class's lists are an estimate, since damaged items left them.
func (o *Order) Estimated(class int) bool { return o.classes[class].estimate.Load() }

// pushLocked links at the head of segment and sets the bits of Meta accordingly, changed by change.
func (o *Order) pushLocked(c *classOrder, ref mmapslab.Ref, segment int, size uint64, change func(mmapslab.Meta) mmapslab.Meta) {
	l, id := &c.lists[segment], o.store.ID(ref)
	*o.store.Link(id) = mmapslab.Link{Next: l.head}
	if l.head != 0 {
		o.store.Link(l.head).Prev = id
	} else {
		l.tail = id
	}
	l.head = id
	l.count++
	l.bytes += size
	o.update(ref, func(m mmapslab.Meta) mmapslab.Meta {
		if change != nil {
			m = change(m)
		}
		if ref&mmapslab.Chained != 0 {
			m |= mmapslab.ListedApart
		}
		return m.WithSegment(segment) | mmapslab.Linked
	})
}

// pullLocked unlinks from the segment that Meta names, and clears Linked.
func (o *Order) pullLocked(c *classOrder, ref mmapslab.Ref, size uint64) {
	m := mmapslab.Meta(o.store.Meta(ref).Load())
	l, id := &c.lists[m.Segment()], o.store.ID(ref)
	link := o.store.Link(id)
	if link.Prev != 0 {
		o.store.Link(link.Prev).Next = link.Next
	} else {
		l.head = link.Next
	}
	if link.Next != 0 {
		o.store.Link(link.Next).Prev = link.Prev
	} else {
		l.tail = link.Prev
	}
	if c.next[m.Segment()] == id {
		c.next[m.Segment()] = link.Prev
	}
	l.count--
	l.bytes -= min(l.bytes, size) // a damaged item's may be too large
	o.update(ref, func(m mmapslab.Meta) mmapslab.Meta { return m &^ (mmapslab.Linked | mmapslab.ListedApart) })
}

// update changes Meta in one atomic step, if there is anything to change. Others change it at any time: readers their bits, touches the exptime.
func (o *Order) update(ref mmapslab.Ref, change func(mmapslab.Meta) mmapslab.Meta) {
	w := o.store.Meta(ref)
	for {
		old := w.Load()
		if to := uint64(change(mmapslab.Meta(old))); to == old || w.CompareAndSwap(old, to) {
			return
		}
	}
}

// Tail appends to dst up to cap(dst)-len(dst) items from the end of a segment, the oldest first. The caller is in a read-side section; the items may
// be gone from the index by the time it looks.
func (o *Order) Tail(class, segment int, dst []mmapslab.Ref) []mmapslab.Ref {
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := c.lists[segment].tail; id != 0 && len(dst) < cap(dst); id = o.store.Link(id).Prev {
		dst = append(dst, o.store.ItemRef(id))
	}
	return dst
}

// Head appends to dst up to most items from the head of a segment, the newest first; otherwise as Tail.
func (o *Order) Head(class, segment, most int, dst []mmapslab.Ref) []mmapslab.Ref {
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := c.lists[segment].head; id != 0 && most > 0; id = o.store.Link(id).Next {
		dst = append(dst, o.store.ItemRef(id))
		most--
	}
	return dst
}

// BeginCrawl has Crawl start over at the end of a segment, and returns how many items are in it.
func (o *Order) BeginCrawl(class, segment int) (items uint64) {
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next[segment] = c.lists[segment].tail
	return c.lists[segment].count
}

// Crawl appends to dst the next items of a segment, up to cap(dst)-len(dst), from where the call before left off towards the head; otherwise as Tail. Where it
// left off holds while items come and go: an item that leaves the segment first passes its turn on. So each item that stays is met once, and whoever wants
// an end bounds the items by what BeginCrawl returned, since what is bumped meanwhile comes again. There is one crawl of a segment at a time.
func (o *Order) Crawl(class, segment int, dst []mmapslab.Ref) []mmapslab.Ref {
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; c.next[segment] != 0 && len(dst) < cap(dst); c.next[segment] = o.store.Link(c.next[segment]).Prev {
		dst = append(dst, o.store.ItemRef(c.next[segment]))
	}
	return dst
}

// Hit marks a fetched item, by the settings as the function Hit or HitFlat does.
func (o *Order) Hit(w *mmapslab.Word, m mmapslab.Meta, now uint32) (note bool) {
	if o.settings.Load().Flat {
		return HitFlat(w, m, now)
	}
	return Hit(w, m, now)
}

// flatInterval is how many seconds an item of a flat LRU stays where it is, however often it is fetched; memcached's ITEM_UPDATE_INTERVAL.
const flatInterval = 60

// HitFlat marks a fetched item of a flat LRU. It returns true when the item has not moved for a minute: the caller notes it for Bump. The time is set
// here, so that there is one note and not one a hit; a note that gets lost costs the item its move until the next minute.
func HitFlat(w *mmapslab.Word, m mmapslab.Meta, now uint32) (note bool) {
	if m.Age(now) > flatInterval && w.CompareAndSwap(uint64(m), uint64((m|mmapslab.Fetched).WithTime(now))) {
		return true
	}
	if m&mmapslab.Fetched == 0 {
		w.Or(uint64(mmapslab.Fetched))
	}
	return false
}

// Hit marks a fetched item as memcached does (do_item_bump): the first fetch sets FETCHED; the second sets ACTIVE and, outside COLD, the time;
// further ones do nothing. It returns true when the item is in COLD and has just become active: the caller notes it for Bump.
//
// FETCHED is what clients can ask for, so it is set whatever else changes in Meta at the time; ACTIVE may get lost to another change, which costs the
// item no more than a mark that the next hit sets.
func Hit(w *mmapslab.Word, m mmapslab.Meta, now uint32) (note bool) {
	switch {
	case m&mmapslab.Fetched == 0:
		w.Or(uint64(mmapslab.Fetched))
	case m&mmapslab.Active == 0:
		next := m | mmapslab.Active
		if m.Segment() != Cold {
			next = next.WithTime(now)
		}
		return w.CompareAndSwap(uint64(m), uint64(next)) && m.Segment() == Cold
	}
	return false
}

// Forget clears ACTIVE again when a note could not be kept, so that a later hit tries anew.
func (o *Order) Forget(ref mmapslab.Ref) {
	o.update(ref, func(m mmapslab.Meta) mmapslab.Meta { return m &^ mmapslab.Active })
}

// Bump moves a noted item from COLD to the head of WARM, or, in a flat LRU, to the head of its list (do_item_update). The note may be old: if the chunk holds something else by now
// that is linked, active and in COLD of the same class, that is moved, which is no harm.
func (o *Order) Bump(ref mmapslab.Ref, now uint32) {
	class := o.store.ListClass(ref)
	if o.store.ChunkSize(ref) == 0 { // the page is another class's by now
		return
	}
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	m := mmapslab.Meta(o.store.Meta(ref).Load())
	apart := ref&mmapslab.Chained != 0
	if m&mmapslab.Linked == 0 || (m&mmapslab.ListedApart != 0) != apart || !o.store.Swept(ref) {
		return
	}
	if o.settings.Load().Flat {
		o.moveLocked(c, ref, m.Segment(), nil)
		return
	}
	if m&mmapslab.Active == 0 || m.Segment() != Cold {
		return
	}
	o.moveLocked(c, ref, Warm, func(m mmapslab.Meta) mmapslab.Meta { return (m &^ mmapslab.Active).WithTime(now) })
	c.moves.ToWarm++
}

// SetAside moves an item of COLD to the head of COLD, with everything else as it was.
func (o *Order) SetAside(ref mmapslab.Ref) {
	c := &o.classes[o.store.ListClass(ref)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := mmapslab.Meta(o.store.Meta(ref).Load()); m&mmapslab.Linked != 0 && m.Segment() == Cold {
		o.moveLocked(c, ref, Cold, nil)
	}
}

// Touched sets the time of an item that add found: memcached calls do_item_update then, which counts as a use.
func (o *Order) Touched(ref mmapslab.Ref, now uint32) {
	o.update(ref, func(m mmapslab.Meta) mmapslab.Meta { return m.WithTime(now) })
}

func (o *Order) moveLocked(c *classOrder, ref mmapslab.Ref, segment int, change func(mmapslab.Meta) mmapslab.Meta) {
	it, ok := o.store.Item(ref)
	if !ok {
		return
	}
	size := uint64(it.Size())
	o.pullLocked(c, ref, size)
	o.pushLocked(c, ref, segment, size, change)
}

func inactive(m mmapslab.Meta) mmapslab.Meta { return m &^ mmapslab.Active }

// pullTail looks at up to five items at the end of HOT or WARM, or one at the end of COLD or TEMP, and moves or reaps them by memcached's rules
// (lru_pull_tail). It returns whether it did anything. total is the bytes of HOT, WARM and COLD.
func (o *Order) pullTail(class, segment int, total uint64, maxAge, now uint32) (did bool) {
	const tries = 5
	settings := o.settings.Load()
	var dead [tries]mmapslab.Ref
	reap, gone := dead[:0], uint64(0) // gone: bytes of those
	c := &o.classes[class]
	c.mu.Lock()
	l := &c.lists[segment]
	for id, i := l.tail, 0; id != 0 && i < tries; i++ {
		ref := o.store.ItemRef(id)
		id = o.store.Link(id).Prev
		if o.owner.Dead(ref, now) {
			if it, ok := o.store.Item(ref); ok {
				gone += uint64(it.Size())
			}
			reap = append(reap, ref)
			continue
		}
		m := mmapslab.Meta(o.store.Meta(ref).Load())
		active := m&mmapslab.Active != 0
		switch segment {
		case Hot, Warm:
			limit := total * uint64(settings.HotPct) / 100
			if segment == Warm {
				limit = total * uint64(settings.WarmPct) / 100
			}
			switch {
			case active:
				o.moveLocked(c, ref, Warm, inactive)
				if did = true; segment == Warm {
					c.moves.WithinLRU++
					continue // memcached goes on looking after a move within WARM
				}
				c.moves.ToWarm++
			case l.bytes-gone > limit || m.Age(now) > maxAge:
				o.moveLocked(c, ref, Cold, nil)
				c.moves.ToCold++
				did = true
			}
		case Cold:
			if active {
				o.moveLocked(c, ref, Warm, inactive)
				c.moves.ToWarm++
				did = true
			}
		}
		break
	}
	c.mu.Unlock()
	for _, ref := range reap {
		o.owner.Reap(ref)
	}
	return did || len(reap) > 0
}

// Juggle does the maintainer's work for one class: up to 500 rounds of HOT, WARM and COLD tails (lru_maintainer_juggle). It returns how many
// rounds moved something. The caller is in a read-side section, which Juggle keeps for all of them.
func (o *Order) Juggle(class int, now uint32) (rounds int) {
	const most = 500
	settings := o.settings.Load()
	c := &o.classes[class]
	temp := 0
	if settings.Temp {
		for temp < most && o.pullTail(class, Temp, 0, 0, now) {
			temp++
		}
	}
	c.mu.Lock()
	var total, coldAge uint64
	for _, segment := range []int{Hot, Warm, Cold} {
		total += c.lists[segment].bytes
	}
	if tail := c.lists[Cold].tail; tail != 0 {
		coldAge = uint64(mmapslab.Meta(o.store.Meta(o.store.RefOf(tail)).Load()).Age(now))
	}
	empty := total == 0
	c.mu.Unlock()
	if empty {
		return temp
	}
	hotAge, warmAge := maxAge(coldAge, settings.HotMaxFactor), maxAge(coldAge, settings.WarmMaxFactor)
	if settings.Flat { // HOT and WARM drain into COLD
		total, hotAge, warmAge = 0, 0, 0
	}
	for ; rounds < most; rounds++ {
		did := o.pullTail(class, Hot, total, hotAge, now) || o.pullTail(class, Warm, total, warmAge, now)
		if (settings.Flat || !o.pullTail(class, Cold, total, 0, now)) && !did {
			break
		}
	}
	return temp + rounds
}

// maxAge is the age from which an item counts as idle. Factors may be anything an operator types.
func maxAge(coldAge uint64, factor float64) uint32 {
	return uint32(min(float64(coldAge)*factor, 1<<31))
}

// Cool moves one item from the end of HOT to COLD, or where that is empty of WARM or TEMP, whatever their limits: for an allocation that finds nothing
// to evict. As in memcached, active ones at the end of HOT go to WARM instead, up to the rounds of an allocation there. memcached stops at HOT, and so answers out of
// memory while all items are active or in WARM.
func (o *Order) Cool(class int) bool {
	const rounds = 10
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	for range rounds {
		ref := o.store.ItemRef(c.lists[Hot].tail)
		if ref == 0 || mmapslab.Meta(o.store.Meta(ref).Load())&mmapslab.Active == 0 {
			break
		}
		o.moveLocked(c, ref, Warm, inactive)
		c.moves.ToWarm++
	}
	for _, segment := range []int{Hot, Warm, Temp} {
		if id := c.lists[segment].tail; id != 0 {
			o.moveLocked(c, o.store.ItemRef(id), Cold, inactive)
			c.moves.ToCold++
			return true
		}
	}
	return false
}

// ClassInfo is the state of one class's lists, by segment.
type ClassInfo struct {
	Count, Bytes [segments]uint64
	Age          [segments]uint32 // seconds since the tail's last bump
	Moves        Moves
}

// Class returns the state of one class.
func (o *Order) Class(class int, now uint32) (info ClassInfo) {
	c := &o.classes[class]
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.lists {
		l := &c.lists[i]
		info.Count[i], info.Bytes[i] = l.count, l.bytes
		if l.tail != 0 {
			info.Age[i] = mmapslab.Meta(o.store.Meta(o.store.RefOf(l.tail)).Load()).Age(now)
		}
	}
	info.Moves = c.moves
	return info
}

// ResetMoves sets the counters of moves to zero.
func (o *Order) ResetMoves() {
	for class := range o.classes {
		c := &o.classes[class]
		c.mu.Lock()
		c.moves = Moves{}
		c.mu.Unlock()
	}
}

// Save writes the lists into a checkpoint; nobody may use the order any more.
func (o *Order) Save(cp *mmapslab.Checkpoint) {
	for class := range o.classes {
		for segment := range segments {
			l := &o.classes[class].lists[segment]
			cp.Lists[class*segments+segment] = mmapslab.ListRecord{Head: l.head, Tail: l.tail, Count: l.count, Bytes: l.bytes}
		}
	}
}

// Load takes the lists of a checkpoint up. The links themselves are in the file. It takes time with the number of items only when sizes are counted.
func (o *Order) Load(cp *mmapslab.Checkpoint) {
	for class := range o.classes {
		for segment := range segments {
			r := &cp.Lists[class*segments+segment]
			o.classes[class].lists[segment] = list{r.Head, r.Tail, r.Count, r.Bytes}
		}
	}
	o.countLists()
}

// Relinker rebuilds lists at start-up: it links items among themselves, and puts them into the lists at the end, all of a list under one lock. The items are of one slab
// class. Nobody else may use their Links before Done.
type Relinker struct {
	o     *Order
	lists [2]struct { // of the items' own class, and of those that are listed apart
		class int
		lists [segments]list
	}
}

// Relinker returns one for items of a slab class.
func (o *Order) Relinker(class int) *Relinker {
	r := &Relinker{o: o}
	r.lists[0].class, r.lists[1].class = class, o.store.Largest()
	return r
}

// Add puts an item, of the chunk with this id, at the head of the segment that its Meta names, whatever its Linked bit says.
func (r *Relinker) Add(ref mmapslab.Ref, id uint32, size int) {
	o, to := r.o, &r.lists[0]
	if ref&mmapslab.Chained != 0 {
		to = &r.lists[1]
	}
	m := mmapslab.Meta(o.store.Meta(ref).Load())
	l := &to.lists[m.Segment()]
	*o.store.Link(id) = mmapslab.Link{Next: l.head}
	if l.head != 0 {
		o.store.Link(l.head).Prev = id
	} else {
		l.tail = id
	}
	l.head = id
	l.count++
	l.bytes += uint64(size)
	// Most are as they were before a kill: not written to, a page of memory stays clean, which on a disk would be written back, all of them after each kill.
	linked := mmapslab.Linked
	if ref&mmapslab.Chained != 0 {
		linked |= mmapslab.ListedApart
	}
	if m&(mmapslab.Linked|mmapslab.ListedApart) != linked {
		o.update(ref, func(m mmapslab.Meta) mmapslab.Meta { return m&^mmapslab.ListedApart | linked })
	}
	o.countSize(size, 1)
}

// Done puts what was added before the items that are in the lists.
func (r *Relinker) Done() {
	for i := range r.lists {
		from := &r.lists[i]
		c := &r.o.classes[from.class]
		c.mu.Lock()
		for segment := range from.lists {
			add, l := &from.lists[segment], &c.lists[segment]
			if add.head == 0 {
				continue
			}
			r.o.store.Link(add.tail).Next = l.head
			if l.head != 0 {
				r.o.store.Link(l.head).Prev = add.tail
			} else {
				l.tail = add.tail
			}
			l.head = add.head
			l.count += add.count
			l.bytes += add.bytes
		}
		c.mu.Unlock()
	}
}

// Walk visits the items of one list from the head, for checking: a quiet order only. It stops when visit returns false.
func (o *Order) Walk(class, segment int, visit func(id, prev uint32) bool) (count, bytes uint64, tail uint32) {
	l := &o.classes[class].lists[segment]
	for id, prev := l.head, uint32(0); id != 0; id = o.store.Link(id).Next {
		if !visit(id, prev) {
			break
		}
		prev = id
	}
	return l.count, l.bytes, l.tail
}
