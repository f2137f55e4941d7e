package mmapslab

import (
	"fmt"
	"math/bits"

	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
)

// A class gives a page up in steps: StartDrain marks the page as draining, so that nothing there is handed out any more; what comes free there is noted, in no
// list; Sift takes the page's chunks out of the free list, some at a time; and FinishDrain passes the page on once all its chunks have come free. What is in
// use there is the caller's business. A class drains one page at a time, and one goroutine calls these methods.
//
// The free list cannot be searched for a page's chunks, and it may have millions. So the list becomes the sieve: Alloc takes from it only where the new free
// list has nothing, and skips chunks of the page; Sift moves the others over.
//
// A kill leaves a page whose descriptor says draining: Attach takes it for one of its class that has all its chunks, and TakeBack says so.
type drain struct {
	page  uint32
	count uint32   // chunks of the page that have come free
	slots []uint64 // a bit for each of these
	sieve uint32   // the free chunks that have not been looked at, a list as freeHead's
}

// noteLocked notes that a chunk of the page has come free. It is in no list.
func (c *class) noteLocked(id uint32) {
	slot := id & (1<<SlotBits - 1)
	word, bit := &c.drain.slots[slot/64], uint64(1)<<(slot%64)
	if invariants.Enabled && *word&bit != 0 {
		panic(fmt.Sprintf("mmapslab: drain page %d: slot %d comes free a second time", c.drain.page, slot))
	}
	*word |= bit
	c.drain.count++
}

// siftLocked takes a chunk out of the sieve; 0 when it was one of the draining page, or the sieve is empty.
func (s *Store) siftLocked(c *class) uint32 {
	id := c.drain.sieve
	if id == 0 {
		return 0
	}
	c.drain.sieve = s.Link(id).Next
	if id>>SlotBits == c.drain.page {
		c.free.Add(^uint64(0))
		c.noteLocked(id)
		return 0
	}
	return id
}

func (s *Store) pushFreeLocked(c *class, id uint32) {
	s.Link(id).Next = c.freeHead
	c.freeHead = id
}

// StartDrain begins to empty a page of a class: the first behind page number after, counting round; the one that is still being carved up only if there is no other.
// It returns 0 when the class has no page, or drains one already.
func (s *Store) StartDrain(classID int, after uint32) (page uint32) {
	if page = s.startDrain(classID, after); page != 0 {
		s.gather(classID) // see Magazine
	}
	return page
}

func (s *Store) startDrain(classID int, after uint32) (page uint32) {
	c := &s.classes[classID]
	c.mu.Lock()
	fresh := c.freshPage
	c.mu.Unlock()
	room := s.layout.Room
	for i := range room {
		p := (after+i)%room + 1
		if s.classOf[p].Load() != uint32(classID) {
			continue
		}
		if page = p; p != fresh {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if page == 0 || c.drain.page != 0 {
		return 0
	}
	fault.Point("mmapslab.drain.before")
	d := s.descriptor(page)
	_, _, generation, _ := unpackDescriptor(d.Load())
	d.Store(packDescriptor(pageDraining, c.size, generation))
	fault.Point("mmapslab.drain.started")
	c.drain = drain{page: page, slots: make([]uint64, (c.perPage+63)/64), sieve: c.freeHead}
	c.draining.Store(page)
	c.freeHead = 0
	if c.freshPage == page {
		for ; c.freshNext < c.perPage; c.freshNext++ {
			c.free.Add(^uint64(0))
			c.noteLocked(page<<SlotBits | c.freshNext)
		}
		c.freshPage = 0
	}
	return page
}

// Sift looks at up to most free chunks of a class that drains a page; more tells that there are others.
func (s *Store) Sift(classID, most int) (more bool) {
	c := &s.classes[classID]
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; most > 0 && c.drain.sieve != 0; most-- {
		if id := s.siftLocked(c); id != 0 {
			s.pushFreeLocked(c, id)
		}
	}
	return c.drain.sieve != 0
}

// Undrained appends to dst, up to its capacity, the chunks of the draining page that have not come free, from slot on; among them those that are still in the
// sieve. It returns the slot to go on from, and how many chunks have come free.
func (s *Store) Undrained(classID int, slot uint32, dst []Ref) (refs []Ref, next uint32, drained int) {
	c := &s.classes[classID]
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; slot < c.perPage && len(dst) < cap(dst); slot++ {
		if c.drain.slots[slot/64]>>(slot%64)&1 == 0 {
			dst = append(dst, s.RefAtPlace(c.drain.page, slot))
		}
	}
	return dst, slot, int(c.drain.count)
}

// FinishDrain gives the page that classID drains to the class dst, or to the global page pool when dst is 0 or there is no memory for its links there. False while
// chunks of the page are in use, or the free list has not been sifted to its end.
func (s *Store) FinishDrain(classID, dst int) (done bool) {
	c := &s.classes[classID]
	c.mu.Lock()
	page := c.drain.page
	if page == 0 || c.drain.count != c.perPage || c.drain.sieve != 0 {
		c.mu.Unlock()
		return false
	}
	c.drain = drain{}
	c.draining.Store(0)
	c.pages--
	s.classOf[page].Store(0)
	c.mu.Unlock()
	fault.Point("mmapslab.drain.empty")
	s.clearPage(page)
	fault.Point("mmapslab.drain.cleared")
	if dst != 0 && s.assign(page, dst) == nil {
		return true
	}
	s.release(page)
	return true
}

// clearPage makes a page that is nobody's all zero. Its words must be that before it is another class's: a chunk that begins elsewhere would have bytes of a value where its
// Meta is.
func (s *Store) clearPage(page uint32) { clear(s.arena.Bytes(s.layout.pagesOffset(page), PageSize)) }

// release gives a page, which is nobody's and clear, to the global page pool. Above the limit, its memory goes back to the system.
func (s *Store) release(page uint32) {
	s.freeDescriptor(page)
	fault.Point("mmapslab.drain.released")
	// Only now: after a kill in between, the next start would take a draining page back that has no memory (R10).
	if limit, assigned, _ := s.Pages(); assigned > limit {
		s.Discard(s.layout.pagesOffset(page), PageSize) // failing, it costs memory and nothing else
	}
	s.putBack(page)
}

// GiveUp takes a page without items from its class and gives it to the global page pool, in place of RebuildFree: its chunks are in no free list, and nobody else is at it.
func (s *Store) GiveUp(page uint32) {
	c := &s.classes[s.classOf[page].Load()]
	c.mu.Lock()
	c.pages--
	s.classOf[page].Store(0)
	c.mu.Unlock()
	s.clearPage(page)
	s.SetSwept(page, true)
	s.release(page)
}

// assign gives a page that belongs to nobody to a class. It fails when there is no memory for the page or its links.
func (s *Store) assign(page uint32, classID int) error {
	c := &s.classes[classID]
	if err := s.backPage(page, c.perPage); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.assignLocked(page, c, classID)
	return nil
}

// AddPoolPage gives a page of the global page pool to a class that need not have asked for it; false when there is none.
func (s *Store) AddPoolPage(classID int) bool {
	if _, _, pool := s.Pages(); pool == 0 {
		return false
	}
	return s.takeAndAssign(classID, false)
}

// CancelDrain takes a draining page back. It looks at the class's whole free list.
func (s *Store) CancelDrain(classID int) {
	c := &s.classes[classID]
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.drain.sieve != 0 {
		if id := s.siftLocked(c); id != 0 {
			s.pushFreeLocked(c, id)
		}
	}
	page := c.drain.page
	if page == 0 {
		return
	}
	for i, word := range c.drain.slots {
		for ; word != 0; word &= word - 1 {
			s.pushFreeLocked(c, page<<SlotBits|uint32(i*64+bits.TrailingZeros64(word)))
		}
	}
	c.free.Add(uint64(c.drain.count))
	c.drain = drain{}
	c.draining.Store(0)
	s.takeBack(page)
}

// TakeBack makes the pages that were draining when a kill left the file assigned ones again. Attach has taken them for that; this is apart, since Attach changes
// nothing. And it gives back the memory of free pages, since a kill in DropPage leaves one with the bytes of its last class, which must not be where another
// one has its Metas.
func (s *Store) TakeBack() {
	for _, page := range s.pool {
		if off := s.layout.pagesOffset(page); s.Discard(off, PageSize) != nil {
			clear(s.arena.Bytes(off, PageSize))
		}
	}
	for page := uint32(1); page < s.nextPage; page++ {
		if s.classOf[page].Load() == 0 {
			continue // its descriptor may be a hole, see readTable
		}
		if state, _, _, ok := unpackDescriptor(s.descriptor(page).Load()); ok && state == pageDraining {
			s.takeBack(page)
		}
	}
}

func (s *Store) takeBack(page uint32) {
	d := s.descriptor(page)
	_, size, generation, _ := unpackDescriptor(d.Load())
	d.Store(packDescriptor(pageAssigned, size, generation))
	fault.Point("mmapslab.drain.taken-back")
}

// FormerClass returns a class that is not in the table any more but has pages, 0 when there is none.
func (s *Store) FormerClass() int {
	for id := maxClasses + 1; id < ClassIDs; id++ {
		if info, ok := s.ClassInfo(id); ok && info.Pages > 0 {
			return id
		}
	}
	return 0
}

// InlineReclaims returns how many chunks of draining pages Alloc has met in the sieve, and left out.
func (s *Store) InlineReclaims() uint64 { return s.inlineReclaims.Load() }
