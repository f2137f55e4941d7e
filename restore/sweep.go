package restore

import (
	"slices"
	"sync"

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

// chunkSet is a bit for each chunk, made a page at a time.
type chunkSet [][]uint64

func (c chunkSet) add(page, slot uint32, perPage int) (added bool) {
	if c[page] == nil {
		c[page] = make([]uint64, (perPage+63)/64)
	}
	word, bit := &c[page][slot/64], uint64(1)<<(slot%64)
	added = *word&bit == 0
	*word |= bit
	return added
}

func (c chunkSet) remove(page, slot uint32) { c[page][slot/64] &^= 1 << (slot % 64) }

func (c chunkSet) has(page, slot uint32) bool {
	return c[page] != nil && c[page][slot/64]>>(slot%64)&1 == 1
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
//     taker's, as always. Both sides hold mu, so a page does not become swept in between.
//
// It works in steps, each in a read-side section of its own:
//
//  1. A growth that was under way is finished, and none begins before the end, so words do not move.
//  2. Each live word marks its chunk, in ranges of buckets. The slab pages are not read, but for chained items, whose data chunks are marked too. Then
//     everybody who was in a section leaves it: an item whose word was taken away before its mark has been disowned after that. Without the
//     wait its taker might stand between the two, and step 3 would free a chunk that the taker then frees again.
//  3. Page by page, so that memory is read in order, each marked chunk that nobody disowned is linked into its segment; the disowned ones are retired, since somebody
//     may be reading them; all others become free; and the page is swept. Marked chunks that hold no item, for which it takes a fault of the disk or of
//     ours, are taken out of the index by a pass of their own.
//
// A kill in the middle costs nothing: the next start does it again.
type Sweeper struct {
	p     Parts
	drop  map[uint32]bool // pages that must go
	quiet bool            // nobody else uses the parts

	mu sync.Mutex
	// Chunks of unswept pages. live: a word names it. data: it is part of a chain, or must be left alone. heads: a chain starts there. dead: an item was
	// there that somebody took out of the index since the start.
	live, heads, data, dead chunkSet
	kept                    []mmapslab.Ref // see Keep
	swept                   Swept
}

// bucketsAtOnce bounds step 2's sections to some hundred microseconds.
const bucketsAtOnce = 1024

// NewSweeper begins a sweep: all assigned pages are unswept from here on. Nobody may use the parts yet; free lists and LRU lists must be empty.
func NewSweeper(p Parts) *Sweeper {
	room := p.Store.Room() + 1
	s := &Sweeper{p: p, dead: make(chunkSet, room), drop: map[uint32]bool{}}
	s.forgetMarks()
	for page := uint32(1); page < uint32(room); page++ {
		if p.Store.PageClass(page) != 0 {
			p.Store.SetSwept(page, false)
		}
	}
	return s
}

func (s *Sweeper) forgetMarks() {
	room := s.p.Store.Room() + 1
	s.live, s.heads, s.data = make(chunkSet, room), make(chunkSet, room), make(chunkSet, room)
}

// Sweep is a whole sweep before anybody else uses the parts, and the only one that can drop pages: damaged are those that Attach could not read; excess is
// how many must go since the memory limit was lowered: the highest ones.
func Sweep(p Parts, damaged []uint32, excess int) (Swept, error) {
	s := NewSweeper(p)
	s.quiet = true
	for _, page := range damaged {
		s.drop[page] = true
	}
	for page := uint32(p.Store.Room()); page > 0 && excess > 0; page-- {
		if p.Store.PageClass(page) != 0 {
			s.drop[page] = true
			excess--
		}
	}
	s.swept.Pages = len(s.drop)
	s.Run(func(step func()) { step() }, func() {}, func(ref mmapslab.Ref) { p.Store.Free(ref) })
	for page := range s.drop {
		if err := p.Store.DropPage(page); err != nil {
			return s.swept, err
		}
	}
	return s.swept, nil
}

// Disown tells the sweep that the caller took the item at ref out of the index. It returns true if the item's memory is left to the sweep, false if the item is
// in a swept page and the caller unlinks and retires it. The caller is in a section.
func (s *Sweeper) Disown(ref mmapslab.Ref) bool {
	if s.p.Store.Swept(ref) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.Store.Swept(ref) {
		return false
	}
	s.add(s.dead, ref)
	if ref&mmapslab.Chained != 0 {
		s.add(s.heads, ref)
		chain, _ := s.p.chain(ref)
		for _, part := range chain {
			s.add(s.data, part)
		}
	}
	return true
}

// Keep tells the sweep that the caller took the chained item at ref out of the index and its list; Disown was false, its page is swept. It returns true if the
// item's memory is left to the sweep all the same, since a page of its chain is not swept: freed now, a chunk there could be another item's by the time that the
// sweep comes and takes it for a part of the chain. The caller is in a section.
func (s *Sweeper) Keep(ref mmapslab.Ref) bool {
	if ref&mmapslab.Chained == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chain, _ := s.p.chain(ref)
	if !slices.ContainsFunc(chain, func(part mmapslab.Ref) bool { return !s.p.Store.Swept(part) }) {
		return false
	}
	s.kept = append(s.kept, ref)
	return true
}

func (s *Sweeper) add(set chunkSet, ref mmapslab.Ref) (added bool) {
	page, slot := s.p.Store.Place(ref)
	return set.add(page, slot, s.p.Store.PerPage(page))
}

// Run does all of it. section runs a step inside a read-side section; grace returns when everybody who is in one has left it; retire gives an item's memory back
// once nobody can be reading it. It returns what it found.
func (s *Sweeper) Run(section func(step func()), grace func(), retire func(ref mmapslab.Ref)) Swept {
	s.p.Index.HoldGrowth(true)
	defer s.p.Index.HoldGrowth(false)
	for {
		const buckets = 64
		for growing := true; growing; {
			section(func() { growing = s.p.Index.Help(buckets) })
		}
		if s.mark(section) {
			break
		}
		// A writer that was past the check for held growth began one.
	}
	grace()
	invalid := map[mmapslab.Ref]bool{}
	var chained []mmapslab.Ref // disowned ones, to be freed when the pages of all their chunks are swept
	for page := uint32(1); page <= uint32(s.p.Store.Room()); page++ {
		if s.p.Store.PageClass(page) == 0 || s.p.Store.PageSwept(page) || s.drop[page] {
			continue
		}
		fault.Point("restore.sweep.page")
		var dead []mmapslab.Ref
		section(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			dead = s.page(page, invalid)
		})
		if len(dead) > 0 {
			section(func() {
				for _, ref := range dead {
					if ref&mmapslab.Chained != 0 {
						chained = append(chained, ref)
					} else {
						retire(ref)
					}
				}
			})
		}
	}
	s.mu.Lock()
	chained = append(chained, s.kept...) // all pages are swept: there will be no more
	s.mu.Unlock()
	section(func() {
		for _, ref := range chained {
			retire(ref)
		}
	})
	if len(invalid) > 0 {
		s.ranges(section, func(ref mmapslab.Ref, _, _ uint32) bool {
			if invalid[ref] {
				s.swept.Invalid++
			}
			return !invalid[ref]
		})
		section(func() {
			for ref := range invalid {
				retire(ref &^ mmapslab.Chained) // its chain, if it had one, is lost
			}
		})
	}
	return s.swept
}

// mark is step 2; false when the index grew meanwhile.
func (s *Sweeper) mark(section func(step func())) bool {
	s.mu.Lock()
	s.forgetMarks()
	s.swept = Swept{Pages: len(s.drop)}
	s.mu.Unlock()
	fault.Point("restore.sweep.mark")
	var marked, deleted int64
	ok := s.ranges(section, func(ref mmapslab.Ref, _, _ uint32) bool {
		switch s.visit(ref) {
		case markKeep:
			marked++
		case markDelete:
			deleted++ // the index counts it as one less, but it was not counted yet
			return false
		}
		return true
	})
	if ok {
		s.p.Index.AddLen(marked + deleted)
	} else {
		s.p.Index.AddLen(deleted)
	}
	return ok
}

// ranges goes over the index in sections, holding mu; false when the index grew meanwhile.
func (s *Sweeper) ranges(section func(step func()), visit func(ref mmapslab.Ref, bucket, tag uint32) bool) bool {
	ok := true
	for from, end := uint32(0), s.p.Index.SweepBuckets(); from < end && ok; from += bucketsAtOnce {
		section(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			var cleared int
			cleared, ok = s.p.Index.Sweep(from, from+bucketsAtOnce, visit)
			s.swept.Cleared += cleared
		})
	}
	return ok
}

// What visit makes of a word.
const (
	markNew    = iota // an item that was stored since the start
	markKeep          // one that was there
	markDelete        // none, or one that must go
)

func (s *Sweeper) visit(ref mmapslab.Ref) int {
	store := s.p.Store
	page := store.PageOf(ref)
	switch {
	case s.drop[page]:
		s.swept.Dropped++
		return markDelete
	case store.ChunkSize(ref) == 0:
		s.swept.Invalid++
		return markDelete
	case store.PageSwept(page):
		return markNew
	case !s.add(s.live, ref):
		s.swept.Duplicate++
		return markDelete
	case ref&mmapslab.Chained == 0:
		return markKeep
	}
	chain, ok := s.p.chain(ref)
	inDropped := false
	var taken []mmapslab.Ref
	for _, part := range chain {
		page, slot := store.Place(part)
		inDropped = inDropped || s.drop[page]
		if !ok || inDropped || s.live.has(page, slot) || !s.add(s.data, part) {
			ok = false
			break
		}
		taken = append(taken, part)
	}
	if ok && !inDropped {
		s.add(s.heads, ref)
		for _, part := range chain {
			s.add(s.live, part)
			store.SetOwner(part, ref) // a kill may have come between a move of the item and this
		}
		return markKeep
	}
	if s.quiet {
		_, slot := store.Place(ref)
		s.live.remove(page, slot)
		for _, part := range taken {
			page, slot := store.Place(part)
			s.data.remove(page, slot)
		}
	} else {
		s.add(s.data, ref) // somebody may be reading it: it is lost until the next sweep
	}
	if inDropped {
		s.swept.Dropped++
	} else {
		s.swept.Invalid++
	}
	return markDelete
}

// page is step 3 for one page. It returns the disowned items.
func (s *Sweeper) page(page uint32, invalid map[mmapslab.Ref]bool) (dead []mmapslab.Ref) {
	store := s.p.Store
	for slot := range uint32(store.PerPage(page)) {
		if !s.live.has(page, slot) && !s.dead.has(page, slot) {
			continue
		}
		ref := store.RefAtPlace(page, slot)
		if s.heads.has(page, slot) {
			ref |= mmapslab.Chained
		}
		linked := false
		switch {
		case s.dead.has(page, slot):
			if dead = append(dead, ref); !s.live.has(page, slot) {
				s.p.Index.AddLen(1) // taken out before it was marked, and so before it was counted
			}
		case s.data.has(page, slot):
		default:
			if it, ok := store.Item(ref); ok {
				s.p.Order.Relink(ref, it.Size())
				s.swept.Items++
				linked = true
			} else {
				invalid[ref] = true
			}
		}
		if !linked {
			// A leftover from before the kill: a note about a hit would take the item for linked once the page is swept.
			store.Meta(ref).And(^uint64(mmapslab.Linked | mmapslab.ListedApart))
		}
	}
	store.RebuildFree(page, func(slot uint32) bool {
		return s.live.has(page, slot) || s.dead.has(page, slot) || s.data.has(page, slot)
	})
	fault.Point("restore.sweep.linked")
	store.SetSwept(page, true)
	return dead
}
