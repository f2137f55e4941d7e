package restore

import (
	"math/bits"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// Parts are the pieces of a cache that a sweep or a check works on.
type Parts struct {
	Store *mmapslab.Store
	Index *index.Index
	Order *lru.Order
}

// Swept says what a sweep found.
type Swept struct {
	Items     int64 // live ones, which stay
	Duplicate int64 // second words of an item that had one already
	Invalid   int64 // words that name no item, or one that does not belong there
	Dropped   int64 // items in pages that had to go
	Pages     int   // pages that had to go: damaged, or over the memory limit
	Cleared   int   // words of inserts that were under way
}

func (s *Swept) add(o *Swept) {
	s.Items += o.Items
	s.Duplicate += o.Duplicate
	s.Invalid += o.Invalid
	s.Dropped += o.Dropped
	s.Pages += o.Pages
	s.Cleared += o.Cleared
}

// chunkSet is a bit for each chunk, made a page at a time. Any number of goroutines may use it.
type chunkSet []atomic.Pointer[[]atomic.Uint64]

func (c chunkSet) add(page, slot uint32, perPage int) (added bool) {
	words := c[page].Load()
	if words == nil {
		fresh := make([]atomic.Uint64, (perPage+63)/64)
		c[page].CompareAndSwap(nil, &fresh)
		words = c[page].Load()
	}
	bit := uint64(1) << (slot % 64)
	return (*words)[slot/64].Or(bit)&bit == 0
}

func (c chunkSet) remove(page, slot uint32) {
	(*c[page].Load())[slot/64].And(^(uint64(1) << (slot % 64)))
}

func (c chunkSet) has(page, slot uint32) bool { return c.word(page, slot/64)>>(slot%64)&1 == 1 }

// word returns 64 bits of a page.
func (c chunkSet) word(page, i uint32) uint64 {
	if words := c[page].Load(); words != nil {
		return (*words)[i].Load()
	}
	return 0
}

// chain returns the data chunks of a chained item; ok is false when there is no such item, or its chain is broken.
func (p Parts) chain(ref mmapslab.Ref) (chunks []mmapslab.Ref, ok bool) {
	it, ok := p.Store.Item(ref)
	ok = ok && p.Store.Chain(&it, func(data mmapslab.Ref, _ []byte) { chunks = append(chunks, data) })
	return chunks, ok
}

// Sweeper makes lists, free chunks and counters anew out of the index: after a kill, or when pages or classes changed. It can do so while the cache serves:
//
//   - Pages that were there at the start are unswept until their turn comes. Their chunks are in no free list and their items in no LRU list, so nothing there is
//     allocated, evicted or moved; what Meta says about lists is a leftover. New items go to new pages.
//   - Gets need the index alone. Who takes an item out of the index asks Disown: in an unswept page the item is the sweep's to free; in any other it is the
//     taker's, as always. Both sides hold the page's lock, so a page does not become swept in between.
//
// It works in steps, each in read-side sections, and in each step all workers share the index's ranges of buckets, or the pages:
//
//  1. A growth that was under way is finished, and none begins before the end, so words do not move.
//  2. Each live word marks its chunk, and writes its own place into the chunk's Link, which means nothing in an unswept page. That is done for many words of neighbouring
//     pages at a time, see groupPages, under a lock of these pages: bits that others change at the same time would take a locked instruction each. The slab pages are not
//     read, but for chained items, whose data chunks are marked too, behind the rest. Then everybody who was in a section leaves it: an item whose word was taken away before
//     its mark has been disowned after that. Without the wait its taker might stand between the two, and step 4 would free a chunk that the taker then frees again.
//  3. Chunks that several words name keep the first that may name it: a growth leaves a word in each table, and damage anything. And words of chained items whose
//     chain is not whole, or lies in part in pages that must go, are taken out: behind step 4, which frees their chunks, a kill would leave them live.
//  4. Page by page, so that memory is read in order, each marked chunk that nobody disowned is linked into its segment, if the word's place is one to which the item's key leads; the
//     disowned ones are retired, since somebody may be reading them; all others become free; and the page is swept. A page without any item goes to the global page pool: while a
//     sweep runs each class that is written to takes a new page, and a server that is killed over and over would end with all of them in the class that is written to most.
//     Marked chunks that hold no item, or another than their word says, for which it takes a fault of the disk or of ours, are taken out of the index by a pass of their own.
//
// A kill in the middle costs nothing: the next start does it again.
type Sweeper struct {
	p       Parts
	drop    map[uint32]bool // pages that must go
	quiet   bool            // nobody else uses the parts
	torn    bool            // two items of one key may be live: see Verdict
	buckets uint32          // of the table, from step 2 on

	locks [64]sync.Mutex // a page's is that of its number modulo their number
	// Chunks of unswept pages. live: a word names it. data: it is part of a chain, or must be left alone. heads: a chain starts there.
	live, heads, data chunkSet
	// An item was there that somebody took out of the index since the start; likewise.
	dead, deadHeads, deadData chunkSet

	marks      [][]uint64   // during step 2: live, by group of pages
	groupLocks []sync.Mutex // likewise: of a group's marks, and of the Links of its chunks
	groupWords int

	mu      sync.Mutex
	strays  map[mmapslab.Ref]bool // chunks that several words name; true once one was kept
	broken  map[mmapslab.Ref]bool // chained items whose chain is not one
	invalid map[mmapslab.Ref]bool // Refs that no word may name
	chained []mmapslab.Ref        // disowned and kept chained items, to be freed when the pages of all their chunks are swept

	fault atomic.Pointer[any] // what a worker panicked with

	steps, done atomic.Int64 // ranges and pages, see Progress
}

// Worker is one of those who sweep at the same time.
type Worker struct {
	// Section runs a step inside a read-side section of the worker's own.
	Section func(step func())
	// Retire gives an item's memory back once nobody can be reading it. It is called inside Section.
	Retire func(ref mmapslab.Ref)
}

// SweepWorkers is how many workers a sweep is worth: it waits for memory more than it computes, and shares the processors with those who serve.
func SweepWorkers() int {
	const most = 16
	return min(runtime.NumCPU(), runtime.GOMAXPROCS(0), most)
}

// sweeping is what a worker has to itself during a step.
type sweeping struct {
	*Sweeper
	Worker
	hasher *mmapslab.Hasher
	swept  Swept
	// Words of items that were there at the start, and words that were taken out: the index counts one less for each, but had not counted it yet.
	kept, gone int64
	heads      []mmapslab.Ref // the chained items among those that it marked
	groups     [][]putBy      // by group of pages, the words that are to be marked
	links      [linksAtOnce]int64
	room       index.LiveWords
}

// Words name chunks in no order. What marking them one by one would wait for is less their memory than its address: a processor knows those of some 1500 pages of 4 KiB, and
// looks each other one up in tables that are themselves out in memory. So words are put by, each with those for the same neighbouring slab pages, whose Links are on fewer
// pages than that, until there are several for each of these. With the marks that takes 10 KiB for a slab page until the step is done.
const (
	groupBits      = 5
	groupPages     = 1 << groupBits
	groupChunkBits = groupBits + mmapslab.SlotBits
	groupChunks    = 1 << groupChunkBits
	groupMask      = groupChunks - 1
	groupWords     = 32 << 10 // of all workers together

	linksAtOnce = 32 // to be fetched
)

// mark tells the places of words, a bucket and a tag, apart: in a table of up to 2^24 buckets exactly, in a larger one by the lower bits of the bucket's number.
type mark uint64

const markBits = 44

func markOf(bucket, tag uint32) mark {
	return mark(uint64(bucket)<<index.TagBits|uint64(tag)) & (1<<markBits - 1)
}

func (m mark) tag() uint32 { return uint32(m) & index.TagMask }

// inPair tells whether its bucket is one of a pair's, see index.Pairs.
func (m mark) inPair(pair uint32) bool {
	return m>>(index.TagBits+1) == markOf(pair<<1, 0)>>(index.TagBits+1)
}

// link and markIn keep a mark in a chunk's Link.
func (m mark) link() mmapslab.Link    { return mmapslab.Link{Prev: uint32(m), Next: uint32(m >> 32)} }
func markIn(link *mmapslab.Link) mark { return mark(link.Next)<<32 | mark(link.Prev) }

// putBy is a word that is to be marked: its mark, whether its item is chained, and the lower bits of its chunk's id, the upper ones being its group's number.
//
//	63     20     19    18     0
//	│ mark │ chained │ chunk │
type putBy uint64

const putByChained = 1 << groupChunkBits

// The widths fill the word: this does not compile when they do not.
var _ [0]struct{} = [64 - markBits - 1 - groupChunkBits]struct{}{}

const (
	bucketsAtOnce = 1024    // they bound step 2's sections to some hundred microseconds
	bucketsMore   = 1 << 15 // claimed by a worker at a time
)

// NewSweeper begins a sweep: all assigned pages are unswept from here on. Nobody may use the parts yet; free lists and LRU lists must be empty.
func NewSweeper(p Parts) *Sweeper {
	room := p.Store.Room() + 1
	s := &Sweeper{p: p, drop: map[uint32]bool{}, strays: map[mmapslab.Ref]bool{}, invalid: map[mmapslab.Ref]bool{},
		dead: make(chunkSet, room), deadHeads: make(chunkSet, room), deadData: make(chunkSet, room)}
	s.forgetMarks()
	for page := uint32(1); page < uint32(room); page++ {
		if p.Store.PageClass(page) != 0 {
			p.Store.SetSwept(page, false)
			s.steps.Add(1)
		}
	}
	s.steps.Add(int64(p.Index.SweepBuckets()/bucketsMore) + 1)
	return s
}

func (s *Sweeper) forgetMarks() {
	room := s.p.Store.Room() + 1
	s.live, s.heads, s.data = make(chunkSet, room), make(chunkSet, room), make(chunkSet, room)
}

// Progress tells how much of the work is done, 0 to 1.
func (s *Sweeper) Progress() float64 {
	return min(float64(s.done.Load())/float64(s.steps.Load()), 1)
}

// Sweep is a whole sweep before anybody else uses the parts, and the only one that can drop pages: damaged are those that Attach could not read; excess is
// how many must go since the memory limit was lowered: the highest ones. torn is for what a power loss left: it looks for keys that have two items, too.
func Sweep(p Parts, damaged []uint32, excess int, torn bool) (Swept, error) {
	s := NewSweeper(p)
	s.quiet, s.torn = true, torn
	for _, page := range damaged {
		s.drop[page] = true
	}
	for page := uint32(p.Store.Room()); page > 0 && excess > 0; page-- {
		if p.Store.PageClass(page) != 0 {
			s.drop[page] = true
			excess--
		}
	}
	worker := Worker{func(step func()) { step() }, func(ref mmapslab.Ref) { p.Store.Free(ref) }}
	swept := s.Run(slices.Repeat([]Worker{worker}, SweepWorkers()), func() {})
	swept.Pages = len(s.drop)
	for page := range s.drop {
		if err := p.Store.DropPage(page); err != nil {
			return swept, err
		}
	}
	return swept, nil
}

func (s *Sweeper) lock(page uint32) *sync.Mutex { return &s.locks[page%uint32(len(s.locks))] }

// Disown tells the sweep that the caller took the item at ref out of the index. It returns true if the item's memory is left to the sweep, false if the item is
// in a swept page and the caller unlinks and retires it. The caller is in a section, and was in it when it took the item.
func (s *Sweeper) Disown(ref mmapslab.Ref) bool {
	if s.p.Store.Swept(ref) {
		return false
	}
	page := s.p.Store.PageOf(ref)
	s.lock(page).Lock()
	defer s.lock(page).Unlock()
	if s.p.Store.Swept(ref) {
		return false
	}
	s.add(s.dead, ref)
	if ref&mmapslab.Chained != 0 {
		s.add(s.deadHeads, ref)
		// Without their pages' locks: either the word was marked before it was taken, and its parts with it, or step 4 waits for this section.
		chain, _ := s.p.chain(ref)
		for _, part := range chain {
			s.add(s.deadData, part)
		}
	}
	return true
}

// Keep tells the sweep that the caller took the chained item at ref out of the index and its list; Disown was false, its page is swept. It returns true if the
// item's memory is left to the sweep all the same, since a page of its chain is not swept: freed now, a chunk there could be another item's by the time that the
// sweep comes and takes it for a part of the chain. The caller is in a section, which the sweep waits for once all pages are swept.
func (s *Sweeper) Keep(ref mmapslab.Ref) bool {
	if ref&mmapslab.Chained == 0 {
		return false
	}
	chain, _ := s.p.chain(ref)
	if !slices.ContainsFunc(chain, func(part mmapslab.Ref) bool { return !s.p.Store.Swept(part) }) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chained = append(s.chained, ref)
	return true
}

func (s *Sweeper) add(set chunkSet, ref mmapslab.Ref) (added bool) {
	page, slot := s.p.Store.Place(ref)
	return set.add(page, slot, s.p.Store.PerPage(page))
}

// together has all workers do work at once, and returns when they have. A fault of the memory in one of them goes on in the caller, so that nothing is made out of work
// half done.
func (s *Sweeper) together(workers []*sweeping, work func(w *sweeping)) {
	var wait sync.WaitGroup
	for _, w := range workers[1:] {
		wait.Go(func() {
			debug.SetPanicOnFault(true)
			defer func() {
				if r := recover(); r != nil {
					if _, bad := r.(interface{ Addr() uintptr }); !bad {
						panic(r)
					}
					s.fault.CompareAndSwap(nil, &r)
				}
			}()
			work(w)
		})
	}
	func() {
		defer wait.Wait()
		work(workers[0])
	}()
	if r := s.fault.Load(); r != nil {
		panic(*r)
	}
}

// Run does all of it. grace returns when everybody who is in a section has left it. It returns what it found.
func (s *Sweeper) Run(team []Worker, grace func()) (swept Swept) {
	s.p.Index.HoldGrowth(true)
	defer s.p.Index.HoldGrowth(false)
	workers := make([]*sweeping, len(team))
	for i := range workers {
		workers[i] = &sweeping{Sweeper: s, Worker: team[i], hasher: s.p.Store.Hasher()}
	}
	first := workers[0]
	for {
		const buckets = 64
		for growing := true; growing; {
			first.Section(func() { growing = s.p.Index.Help(buckets) })
		}
		if s.mark(workers) {
			break
		}
		// A writer that was past the check for held growth began one.
	}
	grace()
	if len(s.strays) > 0 {
		first.ranges(first.settle)
	}
	// Before the pages: their chunks come free there, Meta cleared, and a kill in between would leave a live item that never expires, should its chain be whole for the
	// next start, which may have room for the pages that this one drops.
	if len(s.broken) > 0 {
		first.ranges(func(ref mmapslab.Ref, _, _, _ uint32) bool { return !s.broken[ref] })
	}
	var next atomic.Uint32
	s.together(workers, func(w *sweeping) {
		for page := next.Add(1); page <= uint32(s.p.Store.Room()); page = next.Add(1) {
			if s.p.Store.PageClass(page) != 0 && !s.p.Store.PageSwept(page) && !s.drop[page] {
				fault.Point("restore.sweep.page")
				w.p.Store.WantPage(page)
				w.page(page)
				s.done.Add(1)
			}
		}
	})
	grace() // or somebody might still be about to add one
	first.Section(func() {
		for _, ref := range s.chained {
			first.Retire(ref)
		}
	})
	if len(s.invalid) > 0 {
		first.ranges(func(ref mmapslab.Ref, _, _, _ uint32) bool { return !s.invalid[ref] })
		first.Section(func() {
			for ref := range s.invalid {
				first.swept.Invalid++
				first.Retire(ref &^ mmapslab.Chained) // its chain, if it had one, is lost
			}
		})
	}
	for _, w := range workers {
		swept.add(&w.swept)
	}
	return swept
}

// mark is step 2; false when the index grew meanwhile.
func (s *Sweeper) mark(workers []*sweeping) bool {
	s.forgetMarks()
	s.strays, s.broken = map[mmapslab.Ref]bool{}, map[mmapslab.Ref]bool{}
	s.groupLocks = make([]sync.Mutex, s.p.Store.Room()/groupPages+1)
	s.marks = make([][]uint64, len(s.groupLocks))
	s.groupWords = groupWords / len(workers)
	s.buckets = s.p.Index.SweepBuckets()
	s.done.Store(0)
	fault.Point("restore.sweep.mark")
	var next, marked, deleted atomic.Int64
	var grew atomic.Bool
	s.together(workers, func(w *sweeping) {
		w.swept, w.kept, w.gone, w.heads, w.groups = Swept{}, 0, 0, nil, make([][]putBy, len(s.groupLocks))
		visit := func(from, to uint32) (int, bool) { return w.p.Index.SweepMany(from, to, &w.room, w.visit) }
		for at := next.Add(bucketsMore) - bucketsMore; at < int64(s.buckets) && !grew.Load(); at = next.Add(bucketsMore) - bucketsMore {
			if !w.rangesOf(uint32(at), uint32(min(at+bucketsMore, int64(s.buckets))), visit) {
				grew.Store(true)
			}
			s.done.Add(1)
		}
		for group := range w.groups {
			w.markGroup(uint32(group))
		}
		w.groups = nil
		marked.Add(w.kept)
		deleted.Add(w.gone)
	})
	if grew.Load() {
		s.p.Index.AddLen(deleted.Load())
		return false
	}
	s.p.Index.AddLen(marked.Load() + deleted.Load())
	for page := range s.live {
		marks := s.marks[page/groupPages]
		perPage := s.p.Store.PerPage(uint32(page))
		if marks == nil || perPage == 0 {
			continue
		}
		live := make([]atomic.Uint64, (perPage+63)/64)
		for i, word := range marks[page%groupPages*(groupChunks/groupPages/64):][:len(live)] {
			live[i].Store(word)
		}
		s.live[page].Store(&live)
	}
	s.marks = nil
	s.together(workers, func(w *sweeping) {
		for ; len(w.heads) > 0; w.heads = w.heads[1:] {
			w.Section(func() { w.chain(w.heads[0]) })
		}
	})
	return true
}

// ranges goes over the index in sections.
func (w *sweeping) ranges(visit func(ref mmapslab.Ref, bucket, tag, _ uint32) (keep bool)) {
	w.rangesOf(0, w.buckets, func(from, to uint32) (int, bool) { return w.p.Index.Sweep(from, to, visit) })
}

// rangesOf sweeps a part of the index in sections; false when the index grew meanwhile.
func (w *sweeping) rangesOf(from, end uint32, sweep func(from, to uint32) (cleared int, ok bool)) bool {
	ok := true
	for ; from < end && ok; from += bucketsAtOnce {
		w.Section(func() {
			var cleared int
			cleared, ok = sweep(from, min(from+bucketsAtOnce, end))
			w.swept.Cleared += cleared
		})
	}
	return ok
}

// fits tells whether a word for the item may be at this place: whether its key leads there.
func (w *sweeping) fits(it *mmapslab.Item, at mark) bool {
	h := w.hasher.Sum(it.Key())
	if uint32(h>>32) != it.Hash() || at.tag() != uint32(h)&index.TagMask {
		return false
	}
	home, other := index.Pairs(uint32(h>>32), w.buckets)
	return at.inPair(home) || at.inPair(other)
}

// visit is step 2 for words of the index. It returns which of them must go.
func (w *sweeping) visit(words []index.LiveWord, _ uint32) (drop []int) {
	store := w.p.Store
	for i := range words {
		at := &words[i]
		page, slot, ok := store.Locate(at.Ref)
		if !ok || store.PageSwept(page) || len(w.drop) > 0 && w.drop[page] {
			if !w.stays(at, page, ok) {
				drop = append(drop, i)
			}
			continue
		}
		w.kept++
		word := putBy(markOf(at.Bucket, at.Tag))<<(64-markBits) | putBy(mmapslab.ChunkID(page, slot)&groupMask)
		if at.Ref&mmapslab.Chained != 0 {
			word |= putByChained
		}
		group := &w.groups[page/groupPages]
		if *group == nil {
			*group = make([]putBy, 0, w.groupWords)
		}
		if *group = append(*group, word); len(*group) == cap(*group) {
			w.markGroup(page / groupPages)
		}
	}
	return drop
}

// stays tells what becomes of a word that is not to be marked: it stays if its item was stored since the start.
func (w *sweeping) stays(at *index.LiveWord, page uint32, isChunk bool) bool {
	var it mmapslab.Item
	switch {
	case w.drop[page]:
		w.swept.Dropped++
	case isChunk && w.p.Store.Look(&it, at.Ref) && w.fits(&it, markOf(at.Bucket, at.Tag)):
		return true
	default:
		w.swept.Invalid++
	}
	w.gone++
	return false
}

// markGroup marks the chunks of words that were put by.
func (w *sweeping) markGroup(group uint32) {
	w.groupLocks[group].Lock()
	defer w.groupLocks[group].Unlock()
	store := w.p.Store
	first := group << groupChunkBits
	marks := w.marks[group]
	if marks == nil {
		marks = make([]uint64, groupChunks/64)
		w.marks[group] = marks
		for page := group * groupPages; page < min((group+1)*groupPages, uint32(store.Room())+1); page++ {
			if store.PageClass(page) != 0 && !store.PageSwept(page) {
				store.WantLinks(page)
			}
		}
	}
	for words := range slices.Chunk(w.groups[group], linksAtOnce) {
		for i, word := range words {
			w.links[i] = store.LinkOffset(first | uint32(word)&groupMask)
		}
		store.Arena().Prefetch(w.links[:len(words)])
		for _, word := range words {
			chunk := uint32(word) & groupMask
			bits, bit := &marks[chunk/64], uint64(1)<<(chunk%64)
			if *bits&bit != 0 {
				w.mu.Lock()
				w.strays[store.RefOf(first|chunk)] = false
				w.mu.Unlock()
				continue
			}
			*bits |= bit
			*store.Link(first | chunk) = mark(word >> (64 - markBits)).link()
			if word&putByChained != 0 {
				w.heads = append(w.heads, store.RefOf(first|chunk)|mmapslab.Chained)
			}
		}
	}
	w.groups[group] = w.groups[group][:0]
}

// chain marks the data chunks of a chained item.
func (w *sweeping) chain(ref mmapslab.Ref) {
	store := w.p.Store
	chain, ok := w.p.chain(ref)
	inDropped := false
	var taken []mmapslab.Ref
	for _, part := range chain {
		page, slot := store.Place(part)
		inDropped = inDropped || w.drop[page]
		if !ok || inDropped || w.live.has(page, slot) || !w.add(w.data, part) {
			ok = false
			break
		}
		taken = append(taken, part)
	}
	if ok && !inDropped {
		w.add(w.Sweeper.heads, ref)
		for _, part := range chain {
			w.add(w.live, part)
			store.SetOwner(part, ref) // a kill may have come between a move of the item and this
		}
		return
	}
	if w.quiet {
		page, slot := store.Place(ref)
		w.live.remove(page, slot)
		for _, part := range taken {
			page, slot := store.Place(part)
			w.data.remove(page, slot)
		}
	} else {
		w.add(w.data, ref) // somebody may be reading it: it is lost until the next sweep
	}
	if inDropped {
		w.swept.Dropped++
	} else {
		w.swept.Invalid++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken[ref] = true
}

// settle is step 3 for a word.
func (w *sweeping) settle(ref mmapslab.Ref, bucket, tag, _ uint32) (keep bool) {
	chunk := ref &^ mmapslab.Chained
	kept, stray := w.strays[chunk]
	if !stray {
		return true
	}
	if it, ok := w.p.Store.Item(ref); !ok || kept || !w.fits(&it, markOf(bucket, tag)) {
		w.swept.Duplicate++
		return false
	}
	w.strays[chunk] = true
	*w.p.Store.Link(w.p.Store.ID(ref)) = markOf(bucket, tag).link()
	return true
}

// page is step 4 for one page.
func (w *sweeping) page(page uint32) {
	var dead []mmapslab.Ref
	w.Section(func() {
		w.lock(page).Lock()
		defer w.lock(page).Unlock()
		dead = w.pageLocked(page)
	})
	if len(dead) == 0 {
		return
	}
	w.Section(func() {
		for _, ref := range dead {
			if ref&mmapslab.Chained == 0 {
				w.Retire(ref)
				continue
			}
			w.mu.Lock()
			w.chained = append(w.chained, ref)
			w.mu.Unlock()
		}
	})
}

// pageLocked returns the disowned items of the page.
func (w *sweeping) pageLocked(page uint32) (dead []mmapslab.Ref) {
	store := w.p.Store
	relinker := w.p.Order.Relinker(store.PageClass(page))
	used := make([]uint64, (store.PerPage(page)+63)/64)
	first := store.RefAtPlace(page, 0)
	size := store.ChunkSize(first)
	var it mmapslab.Item
	for i := range uint32(len(used)) {
		live, gone, data := w.live.word(page, i), w.dead.word(page, i), w.data.word(page, i)|w.deadData.word(page, i)
		used[i] = live | gone | data
		heads := w.Sweeper.heads.word(page, i) | w.deadHeads.word(page, i)
		for left := live | gone; left != 0; left &= left - 1 {
			slot := i*64 + uint32(bits.TrailingZeros64(left))
			bit := left & -left
			ref := mmapslab.RefAt(first.Offset() + int64(slot)*int64(size))
			if heads&bit != 0 {
				ref |= mmapslab.Chained
			}
			linked := false
			switch {
			case gone&bit != 0:
				if dead = append(dead, ref); live&bit == 0 {
					w.p.Index.AddLen(1) // taken out before it was marked, and so before it was counted
				}
			case data&bit != 0:
			default:
				id := mmapslab.ChunkID(page, slot)
				if store.LookIn(&it, ref, size) && w.fits(&it, markIn(store.Link(id))) && !(w.torn && w.another(ref, &it)) {
					relinker.Add(ref, id, it.Size())
					w.swept.Items++
					linked = true
				} else {
					w.mu.Lock()
					w.invalid[ref] = true
					w.mu.Unlock()
				}
			}
			if !linked {
				// A leftover from before the kill: a note about a hit would take the item for linked once the page is swept.
				store.Meta(ref).And(^uint64(mmapslab.Linked | mmapslab.ListedApart))
			}
		}
	}
	if !slices.ContainsFunc(used, func(word uint64) bool { return word != 0 }) {
		store.GiveUp(page)
		return nil
	}
	relinker.Done()
	store.RebuildFree(page, used)
	fault.Point("restore.sweep.linked")
	store.SetSwept(page, true)
	return dead
}

// another tells whether the item's key has another one, which readers find before it: after a power loss the word of an older value can be back beside that of a later
// one, and a delete would take one of them.
func (w *sweeping) another(ref mmapslab.Ref, it *mmapslab.Item) bool {
	first, ok := w.p.Index.Find(w.hasher.Sum(it.Key()), it.Key())
	return !ok || first != ref
}
