package hearth

import (
	"bytes"
	"math/bits"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
)

// Status is the outcome of an operation. A miss is a result, not an error.
type Status uint8

const (
	OK         Status = iota // found, stored, deleted, touched
	Miss                     // there is no item of this key
	Exists                   // the item's CAS is another
	NotStored                // add found an item; replace, append or prepend found none, or the sum was too large
	TooLarge                 // the item would exceed MaxItemSize
	NoMemory                 // no chunk could be had
	NonNumeric               // incr or decr of a value that is no number
)

// Session is one worker's way into the cache. It is not safe for concurrent use; any number of sessions are, beside each other.
//
// Begin opens a read-side section and End closes it: items that were handed out in between stay readable until the next call on the
// same session, or until End, unless pinned; Get alone leaves earlier items readable. Every call but Close, Discard and Unpin needs an open section. While a
// session is in a section no memory that was freed since Begin is reused, so sections must be short: one iteration of a worker's loop.
type Session struct {
	c      *Cache
	slot   *slot
	hasher *mmapslab.Hasher
	now    uint32 // the cache's time at Begin
	limbo  []mmapslab.Ref
	left   []lru.Leaver // see leave
	ring   lru.Ring
	counts tally
	number [20]byte // for incr

	renewals uint64 // see renew

	ahead struct {
		keys  [][]byte
		hints [ExpectMost]index.Hint
		lines []int64
		next  int
	}
}

// ExpectMost is how many keys Expect takes: with each some six lines of memory on their way, more than any processor asks for at a time.
const ExpectMost = 32

// Expect tells which keys, at most ExpectMost, the session is going to be asked for, in this order. It fetches the memory that they lead to into the
// processor's cache, for all of them at a time: the buckets, then the items. Otherwise each operation waits for both by itself, which is most of what it
// takes. What is asked for in fact, and what comes out, is not changed. The keys' bytes must stay as they are until the section ends, or until the next call:
// Expect(nil) forgets them.
func (s *Session) Expect(keys [][]byte) {
	a := &s.ahead
	a.keys, a.next = keys, 0
	if len(keys) == 0 {
		return
	}
	if a.lines == nil {
		a.lines = make([]int64, 0, 8*ExpectMost)
	}
	ix, store, lines := s.c.index, s.c.store, a.lines[:0]
	for i, key := range keys {
		var home int64
		a.hints[i], home = ix.Hint(s.hasher.Sum(key))
		lines = append(lines, home)
	}
	store.Arena().Prefetch(lines)
	lines = lines[:0]
	elsewhere := uint32(0) // a bit for each key that its home bucket has not
	for i := range keys {
		if ref := a.hints[i].Home(); ref != 0 {
			lines = store.AppendLines(lines, ref)
		} else {
			elsewhere |= 1 << i
			lines = ix.AppendOther(lines, &a.hints[i])
		}
	}
	store.Arena().Prefetch(lines)
	lines = lines[:0]
	for ; elsewhere != 0; elsewhere &= elsewhere - 1 {
		if ref := a.hints[bits.TrailingZeros32(elsewhere)].Other(); ref != 0 {
			lines = store.AppendLines(lines, ref)
		}
	}
	store.Arena().Prefetch(lines)
}

// Expected returns the key that is to come next by what Expect was told, the very slice, nil when none is.
func (s *Session) Expected() []byte {
	if a := &s.ahead; a.next < len(a.keys) {
		return a.keys[a.next]
	}
	return nil
}

// told returns the hint that Expect has of key if it is the very slice that comes next, else nil.
func (s *Session) told(key []byte) *index.Hint {
	if next := s.Expected(); next != nil {
		if a := &s.ahead; len(next) == len(key) && len(key) > 0 && &next[0] == &key[0] {
			hint := &a.hints[a.next]
			a.next++
			if invariants.Enabled && hint.Hash() != s.hasher.Sum(key) {
				panic("hearth: a key has changed since Expect")
			}
			return hint
		}
		s.Expect(nil) // something else came: the rest is a bad guess, too
	}
	return nil
}

// sum returns the hash of key.
func (s *Session) sum(key []byte) uint64 {
	if hint := s.told(key); hint != nil {
		return hint.Hash()
	}
	return s.hasher.Sum(key)
}

// leftMost is how many items a session has unlinked at a time.
const leftMost = 32

// limboMost is how many retired items a session keeps to itself within a section.
const limboMost = 64

// NewSession returns a session, to be closed by Close.
func (c *Cache) NewSession() *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newSessionLocked()
}

func (c *Cache) newSessionLocked() *Session {
	s := &Session{c: c, slot: c.recl.addSlot(c.store.NewMagazine()), hasher: c.store.Hasher(), limbo: make([]mmapslab.Ref, 0, limboMost), left: make([]lru.Leaver, 0, leftMost)}
	c.sessions[s] = true
	return s
}

// Close gives the session up. It must not be in a section, and its pins must be undone.
func (s *Session) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.dropLocked(s)
}

func (c *Cache) dropLocked(s *Session) {
	s.counts.publish()
	c.past.add(&s.counts.published)
	delete(c.sessions, s)
	c.recl.removeSlot(s.slot)
}

// Begin opens a section. The time of the section is that of its begin.
func (s *Session) Begin() {
	s.c.recl.enter(s.slot)
	s.now = s.c.now.Load()
}

// Tick reads the clock now, for this section and for those that begin later, instead of when the cache next does: for a clock that was shifted.
func (s *Session) Tick() {
	s.c.tick()
	s.now = s.c.now.Load()
}

// End closes the section: nothing handed out in it may be used any more, pinned items apart.
func (s *Session) End() {
	s.unlinkLeft()
	s.c.recl.leave(s.slot, s.limbo)
	s.limbo = s.limbo[:0]
	s.counts.publish()
	s.Expect(nil)
}

// pauseFrom is how many items a session has retired when Pause pauses.
const pauseFrom = 16

// Pause is End and Begin once some items have been replaced or removed: their memory is used again while it is in the processor's cache, and nearly always by way of the
// session's own magazine.
func (s *Session) Pause() {
	if len(s.left)+len(s.limbo) >= pauseFrom {
		s.End()
		s.Begin()
	}
}

// renew leaves the section and enters a new one, so that what this session retired can be freed. Whoever calls it must look everything up anew.
func (s *Session) renew() {
	s.flushLimbo()
	s.Expect(nil) // its hints are of the section that ends
	s.c.recl.enter(s.slot)
	s.c.recl.collect(s.slot)
	s.renewals++
}

func (s *Session) flushLimbo() {
	s.unlinkLeft()
	if len(s.limbo) > 0 {
		s.c.recl.retire(s.slot, s.limbo)
		s.limbo = s.limbo[:0]
	}
}

// retire gives back an item that this session took out of the index and its list.
func (s *Session) retire(ref mmapslab.Ref) {
	if len(s.limbo) == limboMost {
		s.flushLimbo()
	}
	s.limbo = append(s.limbo, ref)
}

// owner answers what the lru asks about items.
type owner Cache

// Dead is lru.Owner's.
func (c *owner) Dead(ref mmapslab.Ref, now uint32) bool {
	it, ok := c.store.Item(ref)
	if !ok {
		return false
	}
	return (*Cache)(c).fate(&it, mmapslab.Meta(c.store.Meta(ref).Load()), now) != alive
}

// Reap is lru.Owner's.
func (c *owner) Reap(ref mmapslab.Ref) {
	(*Cache)(c).keeper.session.evict(ref)
}

// fate says whether an item may still be given out.
type fate uint8

const (
	absent fate = iota
	alive
	expired
	flushed
)

func (c *Cache) fate(it *mmapslab.Item, m mmapslab.Meta, now uint32) fate {
	if t := m.Exptime(); t != 0 && t <= now {
		return expired
	}
	if laterEpoch(c.epoch(now), it.Epoch()) {
		return flushed
	}
	return alive
}

// laterEpoch tells whether flush epoch a is later than b. They may wrap.
func laterEpoch(a, b uint32) bool { return int32(a-b) > 0 }

// epoch returns the flush epoch: items of an earlier one are flushed (R7). A flush with a delay counts from its moment on.
func (c *Cache) epoch(now uint32) uint32 {
	w := c.store.FlushWord().Load()
	epoch, deadline := uint32(w>>32), uint32(w)
	if deadline != 0 && deadline <= now {
		epoch++
	}
	return epoch
}

// FlushAll makes every item stored so far a miss, now or from the moment that exptime names (protocol terms; 0 or negative: now). Only one
// flush can be waiting: a later one replaces it.
func (s *Session) FlushAll(exptime int64) {
	word := s.c.store.FlushWord()
	for {
		old := word.Load()
		epoch := s.c.epoch(s.c.now.Load()) // not the section's time: others may have stored under the epoch of a moment that came since
		next := uint64(epoch+1) << 32
		if exptime > 0 {
			// memcached's oldest_live is a second earlier than the time given.
			if at := s.absolute(exptime) - 1; at > s.now {
				next = uint64(epoch)<<32 | uint64(at)
			}
		}
		fault.Point("hearth.flush.before")
		if word.CompareAndSwap(old, next) {
			fault.Point("hearth.flush.after")
			s.counts.inc(nFlushes)
			return
		}
	}
}

// month is the longest relative exptime of the protocol in seconds.
const month = 30 * 24 * 60 * 60

// absolute turns an exptime of the protocol into the cache's time, as memcached's realtime does: 0 never, negative at once, up to 30 days
// relative, above that absolute.
func (s *Session) absolute(exptime int64) uint32 {
	switch {
	case exptime == 0:
		return 0
	case exptime < 0:
		return 1
	case exptime <= month:
		return s.now + uint32(exptime)
	}
	return uint32(min(exptime, 1<<32-1))
}

// found is what a lookup found.
type found struct {
	hash uint64
	ref  mmapslab.Ref
	item mmapslab.Item
	meta mmapslab.Meta
	fate fate
}

// look finds the item of key, dead or alive. It counts nothing.
func (s *Session) look(f *found, key []byte) {
	if hint := s.told(key); hint == nil {
		f.hash = s.hasher.Sum(key)
	} else {
		f.hash = hint.Hash()
		if ref := hint.Find(); ref != 0 && s.c.store.Look(&f.item, ref) && bytes.Equal(f.item.Key(), key) {
			s.judge(f, key, ref)
			return
		}
	}
	s.lookAgain(f, key)
}

// lookAgain is look for a hash that is known.
func (s *Session) lookAgain(f *found, key []byte) {
	ref, ok := s.c.index.Find(f.hash, key)
	if !ok || !s.c.store.Look(&f.item, ref) { // the latter cannot be: Find has matched the key
		f.ref, f.fate = ref, absent
		return
	}
	s.judge(f, key, ref)
}

// judge sets the rest of f, whose item is that of key.
func (s *Session) judge(f *found, key []byte, ref mmapslab.Ref) {
	f.ref, f.meta = ref, mmapslab.Meta(s.c.store.Meta(ref).Load())
	f.fate = s.c.fate(&f.item, f.meta, s.now)
	if v := s.c.verifier.Load(); v != nil && !s.sound(v, f) {
		s.lookAgain(f, key)
	}
}

// remove takes a found item out of the index, and its list, and retires it; false when somebody else was faster.
func (s *Session) remove(f *found) bool {
	if !s.c.index.Delete(f.hash, f.ref) {
		return false
	}
	s.discard(f.ref, &f.item)
	return true
}

// leave is discard for an item that a new one has replaced. It stays in its list until the end of the section, or until what was done is told (Publish): to unlink many
// at a time costs a third. Nobody else unlinks it meanwhile, since this session has its word, and nobody reuses it, since the section is open; an eviction that
// meets it finds no word, as it does for each item between steps 3 and 5.
func (s *Session) leave(ref mmapslab.Ref, it *mmapslab.Item) {
	if s.c.sweeper.Load() != nil { // none begins later
		s.discard(ref, it)
		return
	}
	if len(s.left) == cap(s.left) {
		s.unlinkLeft()
	}
	s.left = append(s.left, lru.Leaver{Ref: ref, Size: it.Size()})
}

// unlinkLeft unlinks and retires what has left.
func (s *Session) unlinkLeft() {
	if len(s.left) == 0 {
		return
	}
	s.c.order.UnlinkAll(s.left)
	fault.Point("hearth.discard.unlinked")
	left := s.left
	s.left = left[:0]
	for _, it := range left {
		s.retire(it.Ref)
	}
}

// discard unlinks and retires an item whose index word this session took away.
func (s *Session) discard(ref mmapslab.Ref, it *mmapslab.Item) {
	sweeper := s.c.sweeper.Load()
	if sweeper != nil && sweeper.Disown(ref) {
		return
	}
	s.c.order.Unlink(ref, it.Size())
	fault.Point("hearth.discard.unlinked")
	if sweeper == nil || !sweeper.Keep(ref) {
		s.retire(ref)
	}
}

// dropped retires an item that the index gave up while it grew.
func (c *Cache) dropped(ref mmapslab.Ref) {
	it, ok := c.store.Item(ref)
	if !ok {
		return
	}
	c.events[c.store.ListClass(ref)].inc(evEvicted)
	c.observeEviction(ref, &it, mmapslab.Meta(c.store.Meta(ref).Load()), c.Now())
	sweeper := c.sweeper.Load()
	if sweeper != nil && sweeper.Disown(ref) {
		return
	}
	c.order.Unlink(ref, it.Size())
	if sweeper == nil || !sweeper.Keep(ref) {
		c.recl.retire(nil, []mmapslab.Ref{ref})
	}
}

// Item is a view of a stored item. Its slices point into the cache's memory: they must not be written, and live as Session tells.
type Item struct {
	Key     []byte
	Flags   uint32
	CAS     uint64 // 0 with Options.NoCAS
	Exptime uint32 // seconds since 1970; 0: never
	ClassID int    // memcached's slab class id

	Fetched   bool   // it was fetched before
	Age       uint32 // seconds since its last bump
	Size      int    // bytes of header, key and value
	Stale     bool   // it was invalidated by MetaDelete, or stored with a CAS that was too low
	TokenSent bool   // somebody has won the right to recache it
	KeyBinary bool   // the key was given in base64

	c    *Cache
	ref  mmapslab.Ref
	item mmapslab.Item
}

// Len returns the length of the value in bytes.
func (it *Item) Len() int { return it.item.ValueLen() }

// Value returns the value if it lies in one piece, as all values do that fit a chunk, and ok false otherwise.
func (it *Item) Value() (value []byte, ok bool) {
	if it.ref&mmapslab.Chained != 0 {
		return nil, false
	}
	return it.item.Value(), true
}

// AppendValue appends the value to dst, however many chunks it lies in.
func (it *Item) AppendValue(dst []byte) []byte {
	if v, ok := it.Value(); ok {
		return append(dst, v...)
	}
	it.c.store.Chain(&it.item, func(_ mmapslab.Ref, data []byte) { dst = append(dst, data...) })
	return dst
}

// Pieces appends the pieces of the value, in order and without copying, to dst.
func (it *Item) Pieces(dst [][]byte) [][]byte {
	if v, ok := it.Value(); ok {
		return append(dst, v)
	}
	it.c.store.Chain(&it.item, func(_ mmapslab.Ref, data []byte) { dst = append(dst, data) })
	return dst
}

// Pin is the right to read an item's bytes. The zero Pin holds nothing.
type Pin struct{ ref mmapslab.Ref }

// Pin keeps an item's bytes as they are over the end of the section, until Unpin, even when the item is deleted or replaced. It costs a
// lock: it is for replies that could not be written at once.
func (s *Session) Pin(it *Item) Pin {
	s.c.recl.pin(it.ref)
	return Pin{it.ref}
}

// Unpin gives the right back. It needs no open section.
func (s *Session) Unpin(p Pin) {
	if p.ref != 0 {
		s.c.recl.unpin(p.ref)
	}
}

// PinnedDead returns how many bytes of the memory limit are with items that were deleted, replaced or evicted, and wait for their last Unpin.
func (c *Cache) PinnedDead() int64 { return c.recl.dead.Load() }

// view sets all of it, field by field: see mmapslab's Look.
func (s *Session) view(it *Item, f *found) {
	flags := f.item.Flags()
	it.Key, it.Flags, it.CAS, it.Exptime, it.ClassID = f.item.Key(), f.item.ClientFlags(), 0, f.meta.Exptime(), s.c.store.ListClass(f.ref)
	it.Fetched, it.Age, it.Size = f.meta&mmapslab.Fetched != 0, f.meta.Age(s.now), f.item.Size()
	it.Stale, it.TokenSent, it.KeyBinary = flags&itemStale != 0, flags&itemTokenSent != 0, flags&itemKeyBinary != 0
	it.c, it.ref = s.c, f.ref
	it.item.Set(&f.item)
	if !s.c.opts.NoCAS {
		it.CAS = f.item.CAS()
	}
}

// hit marks a fetched item for the LRU.
func (s *Session) hit(f *found) {
	if !s.c.order.Hit(s.c.store.Meta(f.ref), f.meta, s.now) {
		return
	}
	if !s.ring.Put(f.ref) {
		s.counts.inc(nBumpsDropped)
		s.c.order.Forget(f.ref)
	}
}

// Get looks key up and fills it on OK. It counts cmd_get and a hit or miss and marks the item as fetched. Miss leaves *it alone.
func (s *Session) Get(key []byte, it *Item) Status {
	s.counts.inc(nGets)
	var f found
	s.look(&f, key)
	if f.fate != alive {
		s.missed(&f)
		return Miss
	}
	s.view(it, &f)
	s.counts.inClass(it.ClassID, classGets)
	s.counts.inClass(it.ClassID, hitHot+classCounter(f.meta.Segment()))
	s.hit(&f)
	return OK
}

// missed counts and removes what a lookup found dead. As in memcached these counters are of all lookups, those of stores, deletes and incr included.
func (s *Session) missed(f *found) {
	if f.fate == expired || f.fate == flushed {
		s.countDead(f)
		s.remove(f)
	}
}

func (s *Session) countDead(f *found) {
	switch f.fate {
	case expired:
		s.counts.inc(nGetExpired)
	case flushed:
		s.counts.inc(nGetFlushed)
	}
}

// GetAndTouch is Get with a new exptime, in protocol terms as in Prepare; it counts as touch.
func (s *Session) GetAndTouch(key []byte, exptime int64, it *Item) Status {
	return s.touch(key, exptime, it)
}

// Touch sets a new exptime, in protocol terms as in Prepare: OK, Miss or NoMemory.
func (s *Session) Touch(key []byte, exptime int64) Status { return s.touch(key, exptime, nil) }

// touch changes the exptime in the item's Meta, unless an operation is copying the item: that one has set Copying before it read the exptime, and
// would publish a copy with the old one after our change, even after our reply. So a touch that finds Copying set goes the same way, with a copy that it
// puts in the index in the item's place: whichever of the two changes the index word first, the other starts over (R6).
func (s *Session) touch(key []byte, exptime int64, it *Item) Status {
	s.counts.inc(nTouches)
	var f found
	s.look(&f, key)
	st := Miss
	if f.fate == alive {
		st = s.setExptime(&f, key, s.absolute(exptime))
	}
	switch st {
	case OK:
		class := s.c.store.ListClass(f.ref)
		s.counts.inClass(class, classTouches)
		s.counts.inClass(class, hitHot+classCounter(f.meta.Segment()))
		s.hit(&f)
		if it != nil {
			s.view(it, &f)
		}
	case Miss:
		s.missed(&f)
		s.counts.inc(nTouchMisses)
	}
	return st
}

// Delete removes the item: OK or Miss.
func (s *Session) Delete(key []byte) Status { return s.MetaDelete(key, &DeleteOptions{}) }
