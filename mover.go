package hearth

import (
	"sync"
	"sync/atomic"
	"time"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// mover takes pages away from slab classes: for operators, for the automover, for a lower memory limit, and from classes of a former table. One page is on its way at a
// time. The keeper does the work, a slice in each round; nobody waits for it.
//
// The page is marked as draining (mmapslab.Store.StartDrain), and what is in use there goes elsewhere:
//
//   - A living item is copied into another chunk of its class, and its index word changed from one to the other. Who replaces or deletes the item meanwhile
//     changes the word first, and the copy is dropped; or finds it changed, and starts over. So there is one live word at any time, and in any crash image it
//     names one of two whole items with the same contents (R1, R4). CAS, flags, flush epoch and exptime stay, and the place in the LRU (lru.Order.LinkBeside).
//   - A data chunk of a living item is copied, and the Ref that leads to it changed (mmapslab.Store.MoveData).
//   - Expired and flushed items are removed. In a page of a former class all are evicted: nothing new is stored there, so there is no better place.
//   - Everything else is somebody's for now: an upload under way, or what was retired and may still be read, pinned items above all. The mover comes by again.
//
// Then the page is the destination's.
//
// Why no change of Meta is lost. An exptime: claim sets Copying before the copy is made, and from then on a touch goes by way of a copy of its own, so the
// index word decides (see Session.touch). Meta is copied under the LRU's lock, so the segment is right. A mark of a hit (FETCHED, ACTIVE, the time) can come after that, from
// whoever found the old item before its word changed: carry brings it over right after the change, and again when nobody can be holding the old item.
//
// Why no reader sees bytes reused. The old chunk is retired like any other. But a chained item's data chunks are the copy's by then; were the copy deleted, they would be freed
// while the old head is pinned. So the copy is held (reclaimer.hold) from before it is published until the old head has come free. A data chunk that was
// replaced comes free when nobody can be reading its item, whose pins count for it.
//
// What a kill leaves of a move, store by store. The copy written and linked, not published: no word names it, the sweep frees it. Published, the old one still linked:
// one word, so the sweep links the copy, by the Meta that LinkBeside gave it, and frees the old chunk. Marks of hits that carry did not bring over are lost, an
// exptime never is: from the claim on, touches change the word. The chain's owners still naming the old head: the sweep names the new one, and until then partOf
// finds the old one not linked, or its chain without the chunk. A data chunk copied and its Ref not changed, or changed: the chain holds one of the two, and the sweep frees
// what no chain holds. A page draining, cleared or not: all its chunks are free, and it is its class's again (TakeBack). While the sweep runs no page moves, so a
// second kill finds what the first one left, with some dead words less.
type mover struct {
	mu      sync.Mutex
	asked   *pageMove   // not begun yet
	any     int         // the class that the last request for any class got
	running atomic.Bool // a move is asked for, or under way
	shrink  atomic.Bool // the memory limit was lowered, and pages above it are to go
	auto    atomic.Pointer[AutomoveSettings]

	// The keeper's own.
	move    pageMove
	page    uint32 // 0: no move is under way
	last    uint32 // the page that was taken last: its class's oldest come next
	slot    uint32 // where the walk over the page goes on
	drained int    // chunks of the page that had come free
	since   uint32 // in the cache's time
	idle    int    // rounds in which none came free

	window automover
	looked uint32 // when the automover looked last, in the cache's time
	again  bool   // it gave a page to the global page pool then, and may have another one

	moves                        atomic.Uint64 // items that were about to be moved, ever; see Walk
	moved, rescues, chunkRescues atomic.Uint64
	busyItems, busyNoMem         atomic.Uint64
	lastBusy                     atomic.Pointer[string]
}

// pageMove is a page on its way from a class to a class, or to the global page pool, 0.
type pageMove struct {
	src, dst int
	evict    bool // make room by evicting even if not all memory is assigned
	former   bool // evict what is there
}

// MoveResult is the answer to a request to move a page.
type MoveResult uint8

const (
	MoveStarted  MoveResult = iota
	MoveOff                 // Options.NoPageMoves
	MoveBusy                // another page is being moved, or the sweep after a kill runs
	MoveSame                // to the class that has it
	MoveBadClass            // no such class, or none has a page to spare
	MoveNoSpare             // the class has one page or none
)

const (
	// moveSlice bounds the mover's share of a round of the keeper.
	moveSlice = 500 * time.Microsecond
	// moveBytes and moveChunks bound what is copied in one section.
	moveBytes, moveChunks = 256 << 10, 64
	// siftChunks bounds how long a class's lock is held to look at its free list.
	siftChunks = 1024
	// moveEvictMost bounds how many evicted items may wait to be freed while the mover evicts more: one long section must not make it empty the class.
	moveEvictMost = 2 * moveChunks
	// movePatience is after how many seconds without progress a page is taken back, so that one stalled upload does not keep others from moving.
	movePatience = 30
	// moveIdleMost is after how many rounds without progress the keeper need not hurry.
	moveIdleMost = 32
)

// MovePage asks for a page of class src to be given to class dst: by memcached's ids, src -1 for any class, 0 for the global page pool. The
// move goes on in the background. Where src has no free chunks for what is in the page it evicts the oldest items of src, even if not all memory is in use: whoever asks
// wants the page, and memcached does the same. Of a class whose chunks are all parts of large items that is a whole one.
func (c *Cache) MovePage(src, dst int) MoveResult {
	return c.askMove(pageMove{src: src, dst: dst, evict: true})
}

func (c *Cache) askMove(p pageMove) MoveResult {
	m := &c.mover
	if c.opts.NoPageMoves {
		return MoveOff
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.running.Load() || c.sweeper.Load() != nil:
		return MoveBusy
	case p.src == p.dst:
		return MoveSame
	case p.src == -1:
		p.src = c.pickAnyLocked(p.dst)
	}
	pages, ok := c.classPages(p.src)
	if _, ok2 := c.classPages(p.dst); !ok || !ok2 {
		return MoveBadClass
	}
	if pages < 2 {
		return MoveNoSpare
	}
	m.asked = &p
	m.running.Store(true)
	c.wakeKeeper()
	return MoveStarted
}

// pickAnyLocked returns the next class that has a page to spare, each in its turn; -1 when there is none.
func (c *Cache) pickAnyLocked(dst int) int {
	m, most := &c.mover, c.store.Largest()
	for range most {
		if m.any++; m.any > most {
			m.any = 1
		}
		if pages, _ := c.classPages(m.any); m.any != dst && pages > 1 {
			return m.any
		}
	}
	return -1
}

// classPages returns how many pages a class has, or the global page pool; ok is false when there is no such class in the table.
func (c *Cache) classPages(id int) (pages uint64, ok bool) {
	switch {
	case id == 0:
		_, _, pool := c.store.Pages()
		return uint64(pool), true
	case id < 0 || id > c.store.Largest():
		return 0, false
	}
	return c.HasClass(id)
}

// pageMoved is told of the end of each move: the page is dst's, or, not ok, src's again.
func (c *Cache) pageMoved(src, dst int, ok bool) {
	m := &c.mover
	if ok {
		m.moved.Add(1)
	}
	if ok && dst == 0 {
		c.full.Store(false)
	}
	if f := c.observer.Load(); f != nil {
		(*f)(&Event{Kind: EventMoved, Class: src, To: dst, Failed: !ok})
	}
	m.page, m.move = 0, pageMove{}
	m.running.Store(false)
}

// movePages is the mover's and the automover's slice of a round. It returns whether there is more to do soon.
func (c *Cache) movePages() (busy bool) {
	m := &c.mover
	if c.sweeper.Load() != nil {
		return false
	}
	if m.page == 0 && !c.beginMove() {
		return false
	}
	src := m.move.src
	for end := time.Now().Add(moveSlice); time.Now().Before(end); {
		if c.store.Sift(src, siftChunks) {
			continue
		}
		if c.store.FinishDrain(src, m.move.dst) {
			c.pageMoved(src, m.move.dst, true)
			return true
		}
		if !c.emptySome() {
			break // been everywhere
		}
	}
	c.recl.collect(nil)
	_, _, drained := c.store.Undrained(src, 0, nil)
	if now := c.Now(); drained != m.drained {
		m.drained, m.since, m.idle = drained, now, 0
	} else if m.idle++; now-m.since > movePatience {
		c.store.CancelDrain(src)
		c.pageMoved(src, m.move.dst, false)
		return false
	}
	return m.idle < moveIdleMost
}

// beginMove finds a page to move, and tells whether one is on its way now.
func (c *Cache) beginMove() bool {
	m := &c.mover
	p, ok := c.nextMove()
	if !ok {
		return false
	}
	if p.src == 0 {
		c.pageMoved(0, p.dst, c.store.AddPoolPage(p.dst))
		return false
	}
	if m.page = c.store.StartDrain(p.src, m.last); m.page == 0 {
		c.pageMoved(p.src, p.dst, false)
		return false
	}
	m.last, m.move, m.slot, m.drained, m.since, m.idle = m.page, p, 0, 0, c.Now(), 0
	return true
}

// nextMove decides which move comes next; then running is set.
func (c *Cache) nextMove() (p pageMove, ok bool) {
	m := &c.mover
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked != nil {
		p, m.asked = *m.asked, nil
		return p, true
	}
	if p, ok = c.shrinkMove(); !ok {
		p, ok = c.formerMove()
	}
	if !ok {
		p, ok = c.autoMove()
	}
	if ok {
		m.running.Store(true)
	}
	return p, ok
}

// shrinkMove takes a page to the global page pool, which gives its memory back, while a lowered limit is exceeded: from the class with the most pages' worth of
// free chunks, else from the one with the most pages. A class keeps its last page.
func (c *Cache) shrinkMove() (p pageMove, ok bool) {
	m := &c.mover
	if !m.shrink.Load() {
		return p, false
	}
	var mostFree, mostPages uint64
	if limit, assigned, _ := c.store.Pages(); assigned > limit {
		for id := 1; id < mmapslab.ClassIDs; id++ {
			info, there := c.store.ClassInfo(id)
			if !there || info.Pages < 2 {
				continue
			}
			if free := info.Free / uint64(info.PerPage); free > mostFree || free == mostFree && info.Pages > mostPages {
				mostFree, mostPages, ok = free, info.Pages, true
				p = pageMove{src: id, evict: true, former: id > c.store.Largest()}
			}
		}
	}
	if !ok {
		m.shrink.Store(false)
	}
	return p, ok
}

// formerMove empties, once memory is full, the pages whose chunk size is not in the class table any more, so that the table's classes get them.
func (c *Cache) formerMove() (p pageMove, ok bool) {
	if !c.full.Load() || c.opts.NoEvict {
		return p, false
	}
	id := c.store.FormerClass()
	return pageMove{src: id, former: true}, id != 0
}

// emptySome empties the next few chunks of the draining page, in one section; false at the end of the page.
func (c *Cache) emptySome() (more bool) {
	m, s := &c.mover, c.keeper.session
	info, _ := c.store.ClassInfo(m.move.src)
	var buf [moveChunks]mmapslab.Ref
	most := max(1, min(moveChunks, moveBytes/info.ChunkSize))
	s.Begin()
	defer s.End()
	refs, next, _ := c.store.Undrained(m.move.src, m.slot, buf[:0:most])
	for _, ref := range refs {
		if busy := s.vacate(ref, &m.move); busy != "" {
			m.busyItems.Add(1)
			m.lastBusy.Store(&busy)
		}
	}
	if m.slot = next; int(next) < info.PerPage {
		return true
	}
	m.slot = 0
	return false
}

// Why a chunk stays for now, in memcached's words.
const (
	busyLost      = "busy"           // somebody else changed the item
	busyUploading = "busy_uploading" // an upload's, or retired: it is nobody's item
	busyActive    = "busy_active"    // the item is damaged
	busyFromLRU   = "from_lru"       // no chunk could be had
)

// vacate moves what is in a chunk of a draining page elsewhere, or removes it. It returns why not, "" when that is done: the chunk comes free later.
func (s *Session) vacate(ref mmapslab.Ref, p *pageMove) (busy string) {
	// Linked is set only while a whole item is there, and what is linked within our section stays readable in it.
	m := mmapslab.Meta(s.c.store.Meta(ref).Load())
	if m&mmapslab.Linked == 0 {
		return s.vacateData(ref, p)
	}
	if m&mmapslab.ListedApart != 0 {
		ref |= mmapslab.Chained
	}
	it, ok := s.c.store.Item(ref)
	if !ok {
		return busyActive
	}
	f := found{hash: s.hasher.Sum(it.Key()), ref: ref, item: it}
	if p.former || s.c.fate(&it, m, s.now) != alive {
		if !s.evict(ref) {
			return busyLost
		}
		return ""
	}
	to, ok := s.rescueChunk(s.c.store.Class(ref), p)
	if !ok {
		return busyFromLRU
	}
	if !s.rescue(&f, to) {
		return busyLost
	}
	return ""
}

// rescue puts a copy of a found item, in the chunk to, in its place; false when somebody else changed the item, or is about to publish it.
func (s *Session) rescue(f *found, to mmapslab.Ref) bool {
	c, size := s.c, f.item.Size()
	s.claim(f)
	if v := c.verifier.Load(); v != nil {
		v.moved(c.store, f.ref, to)
	}
	to = c.store.CopyItem(to, &f.item)
	seen, ok := c.order.LinkBeside(to, f.ref, size)
	if !ok {
		c.store.Free(to)
		return false
	}
	c.recl.hold(to)
	c.mover.moves.Add(1) // before the item is where a Walk may have been
	fault.Point("hearth.move.copied")
	if !c.index.Replace(f.hash, f.ref, to) {
		c.order.Unlink(to, size)
		c.recl.release(to)
		s.retire(to &^ mmapslab.Chained) // whoever went along the list may be looking at it; the data chunks are the item's
		return false
	}
	fault.Point("hearth.move.published")
	seen = c.carry(f.ref, to, seen)
	c.order.Unlink(f.ref, size)
	if to&mmapslab.Chained != 0 {
		it := c.store.Unsealed(to)
		c.store.Chain(&it, func(data mmapslab.Ref, _ []byte) { c.store.SetOwner(data, to) })
	}
	old := f.ref
	c.recl.retireThen(old, func() {
		c.carry(old, to, seen)
		c.store.Free(old &^ mmapslab.Chained)
		c.recl.release(to)
	})
	c.mover.rescues.Add(1)
	return true
}

// carry brings marks of hits that an item got since its Meta was seen over to its copy, and returns the Meta of now. The copy is protected.
func (c *Cache) carry(from, to mmapslab.Ref, seen mmapslab.Meta) (now mmapslab.Meta) {
	now = mmapslab.Meta(c.store.Meta(from).Load())
	marks := now &^ seen & (mmapslab.Fetched | mmapslab.Active)
	later := now.Age(0) != seen.Age(0)
	if marks == 0 && !later {
		return now
	}
	w := c.store.Meta(to)
	for {
		old := mmapslab.Meta(w.Load())
		next := old | marks
		if later && old.Age(0) == seen.Age(0) {
			next = next.WithTime(-now.Age(0)) // the age at second 0 is the negative of the time
		}
		if w.CompareAndSwap(uint64(old), uint64(next)) {
			break
		}
	}
	if marks&mmapslab.Active != 0 {
		c.order.Bump(to, c.Now()) // in COLD there was a note, which names the old chunk
	}
	return now
}

// vacateData is vacate for a chunk that no item starts in.
func (s *Session) vacateData(ref mmapslab.Ref, p *pageMove) (busy string) {
	head, prev, it, ok := s.partOf(ref)
	if !ok {
		return busyUploading
	}
	if p.former || s.c.fate(&it, mmapslab.Meta(s.c.store.Meta(head).Load()), s.now) != alive {
		if !s.evict(head) {
			return busyLost
		}
		return ""
	}
	to, ok := s.rescueChunk(s.c.store.Class(ref), p)
	if !ok {
		return busyFromLRU
	}
	fault.Point("hearth.move.data-copying")
	s.c.store.MoveData(prev, ref, to)
	fault.Point("hearth.move.data-moved")
	s.c.recl.retireThen(head, func() { s.c.store.Free(ref) })
	s.c.mover.chunkRescues.Add(1)
	return ""
}

// partOf returns the item that a data chunk is part of, and the chunk before it in the chain. What the chunk says of its owner is a hint: only a linked item's own chain tells.
// As the item is linked within our section, nobody frees its chain in it; and only the mover changes one.
func (s *Session) partOf(data mmapslab.Ref) (head, prev mmapslab.Ref, it mmapslab.Item, ok bool) {
	store := s.c.store
	head = store.Owner(data)
	const listed = mmapslab.Linked | mmapslab.ListedApart
	if head&mmapslab.Chained == 0 || store.ChunkSize(head) == 0 || mmapslab.Meta(store.Meta(head).Load())&listed != listed {
		return 0, 0, it, false
	}
	if it, ok = store.Item(head); !ok {
		return 0, 0, it, false
	}
	last := head
	whole := store.Chain(&it, func(part mmapslab.Ref, _ []byte) {
		if part == data {
			prev = last
		}
		last = part
	})
	return head, prev, it, whole && prev != 0
}

// rescueChunk takes a free chunk of a class. When it has none it evicts, if it may, so that there is one when the mover comes by again.
func (s *Session) rescueChunk(class int, p *pageMove) (mmapslab.Ref, bool) {
	if ref, _, ok := s.c.store.Alloc(class); ok {
		return ref, true
	}
	s.c.mover.busyNoMem.Add(1)
	limit, assigned, _ := s.c.store.Pages()
	if !s.c.opts.NoEvict && (p.evict || assigned >= limit) && s.c.recl.waiting.Load()+int64(len(s.limbo)) < moveEvictMost {
		if !s.evictOne(class) {
			s.evictOne(s.c.store.Largest()) // the chunks may all be parts of large items, which are listed there
		}
	}
	return 0, false
}

// wantPage asks for a page from any class at an eviction, with automove 2.
func (c *Cache) wantPage(class int) {
	if auto := c.mover.auto.Load(); auto.Mode == 2 && !c.mover.running.Load() {
		c.askMove(pageMove{src: -1, dst: class, evict: true})
	}
}

func (m *mover) init() {
	auto, none := DefaultAutomove, "none"
	m.auto.Store(&auto)
	m.lastBusy.Store(&none)
}

// stats fills in the mover's counters.
func (m *mover) stats(s *Stats, store *mmapslab.Store) {
	s.SlabsMoved, s.SlabReassignRescues, s.SlabReassignChunkRescues = m.moved.Load(), m.rescues.Load(), m.chunkRescues.Load()
	s.SlabReassignInlineReclaim = store.InlineReclaims()
	s.SlabReassignBusyItems, s.SlabReassignBusyNoMem = m.busyItems.Load(), m.busyNoMem.Load()
	s.SlabReassignRunning, s.SlabReassignLastBusy = m.running.Load(), *m.lastBusy.Load()
}

// reset sets the mover's counters to zero.
func (m *mover) reset() {
	for _, n := range []*atomic.Uint64{&m.moved, &m.rescues, &m.chunkRescues, &m.busyItems, &m.busyNoMem} {
		n.Store(0)
	}
}

// samples reads what the automover decides by.
func (c *Cache) samples() (all [maxAutomove + 1]classSample) {
	for id := range all {
		info, ok := c.store.ClassInfo(id)
		if !ok {
			continue
		}
		e := &c.events[id]
		all[id] = classSample{
			evicted: e[evEvicted].Load(), outOfMemory: e[evOutOfMemory].Load(), age: uint64(c.order.Class(id, c.Now()).Age[lru.Cold]),
			free: info.Free, pages: info.Pages, perPage: uint64(info.PerPage),
		}
	}
	return all
}
