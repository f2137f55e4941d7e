package mmapslab

import "sync"

// Magazine keeps a few free chunks of each class for one worker, so that workers who store in one class do not meet at its free list with each item, and get
// chunks that are still in their own processor's cache (Bonwick and Adams, "Magazines and Vmem", 2001). Its lock is its worker's nearly always. Magazines and the
// free list exchange half a magazine at a time.
//
// A chunk in a magazine is as free as any other. It counts as free in ClassInfo; Alloc says that there is none only when it has emptied all magazines; and in the file
// nothing tells that it is in one: a clean stop empties them, and after a kill the sweep lists what no index word names.
//
// No chunk of a page that is being emptied is in a magazine once StartDrain has returned, or goes into one, or comes out of one. StartDrain stores draining, then locks each magazine
// to empty it. put reads draining under the magazine's lock. So either put has the lock first, and StartDrain finds what it put; or StartDrain has, and put sees
// draining. Was draining read before the lock, a chunk could be put after StartDrain has been there: FinishDrain would wait for it in vain, until somebody takes it out and
// writes an item into a page that is about to be given away. refill takes from the free list what Alloc would take, in the same way, so none of the page.
type Magazine struct {
	s   *Store
	_   [64]byte // others read s
	mu  sync.Mutex
	ids [ClassIDs][]uint32 // free chunks, the last put last; nil until the first one
}

// magazineMost is how many chunks of a class a magazine holds; 0 for classes of which a page has few, since what lies in magazines must be little beside a page.
func (c *shape) magazineMost() int {
	if most := int(min(32, c.perPage/32)); most >= 4 {
		return most
	}
	return 0
}

// NewMagazine returns an empty magazine, to be closed by Close.
func (s *Store) NewMagazine() *Magazine {
	m := &Magazine{s: s}
	s.magazineMu.Lock()
	defer s.magazineMu.Unlock()
	s.magazines = append(s.magazines, m)
	return m
}

// Close gives the chunks back. Nobody may use the magazine any more.
func (m *Magazine) Close() {
	s := m.s
	s.magazineMu.Lock()
	defer s.magazineMu.Unlock()
	for i, other := range s.magazines {
		if other == m {
			s.magazines = append(s.magazines[:i], s.magazines[i+1:]...)
			break
		}
	}
	for id := range m.ids {
		m.giveBack(id)
	}
}

// Alloc is Store.Alloc for the magazine's worker; left counts what is in this magazine, too.
func (m *Magazine) Alloc(classID int) (ref Ref, left uint64, ok bool) {
	s, c := m.s, &m.s.classes[classID]
	if c.magazineMost() == 0 {
		return s.Alloc(classID)
	}
	m.mu.Lock()
	ids := m.ids[classID]
	if len(ids) == 0 {
		if ids = m.refillLocked(c, classID); len(ids) == 0 {
			m.mu.Unlock()
			return s.Alloc(classID)
		}
	}
	n := len(ids) - 1
	id := ids[n]
	m.ids[classID] = ids[:n]
	m.mu.Unlock()
	if ref = s.taken(c, classID, id); ref == 0 {
		return s.Alloc(classID)
	}
	return ref, uint64(n) + c.free.Load(), true
}

// refillLocked takes half a magazine of free chunks out of the class's list.
func (m *Magazine) refillLocked(c *class, classID int) (ids []uint32) {
	most := c.magazineMost()
	if ids = m.ids[classID]; ids == nil {
		ids = make([]uint32, 0, most)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(ids) < most/2 {
		id := m.s.takeLocked(c)
		if id == 0 {
			break
		}
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		c.refills++
	}
	return ids
}

// put takes free chunks of one class in; false, with nothing done, when they are the free list's. A full magazine gives the half that was put first to the list.
func (m *Magazine) put(classID int, refs []Ref) bool {
	s, c := m.s, &m.s.classes[classID]
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := m.ids[classID]
	if ids == nil || c.draining.Load() != 0 {
		return false
	}
	for _, ref := range refs {
		if len(ids) == cap(ids) {
			half := len(ids) / 2
			s.give(c, ids[:half])
			ids = ids[:copy(ids, ids[half:])]
		}
		ids = append(ids, s.ID(ref))
	}
	m.ids[classID] = ids
	return true
}

// giveBack empties the magazine of a class's chunks.
func (m *Magazine) giveBack(classID int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ids := m.ids[classID]; len(ids) > 0 {
		m.s.give(&m.s.classes[classID], ids)
		m.ids[classID] = ids[:0]
	}
}

// gather empties all magazines of a class's chunks.
func (s *Store) gather(classID int) {
	s.magazineMu.Lock()
	defer s.magazineMu.Unlock()
	for _, m := range s.magazines {
		m.giveBack(classID)
	}
}
