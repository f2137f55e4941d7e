package hearth

import (
	"hearth/mmapslab"
)

// Walk goes over all live items, a few at a time, while others read and write. The zero Walk is at the start. It holds no lock and no section
// between two calls of Next, so it may be as slow as its reader.
//
// It goes through the index by bucket, for the index alone says what is live, and reads an item only as any reader would: by its word, in a section.
//
// What it promises: an item that is live throughout is visited exactly once. Others may or may not be: one that is deleted or stored meanwhile; and a
// key whose value is replaced is visited at most once for each value. When the index grew and the page mover moved items meanwhile, an item may be visited twice.
//
// Why it holds. Words never move within a table, so one pass over a table meets each once. Growth moves all of them to another one, and where to, their
// bucket does not tell. So after a growth the pass starts over, and what was visited is known by its chunk: seen has a bit for each. A chunk whose item
// was visited may hold another one by then, which was not live throughout, unless the page mover put it there: so once it has moved anything, seen does not count. Holding growth back instead would be simpler; but a table that
// is due to grow fills its windows soon after, and then evicts items although there is memory.
type Walk struct {
	bucket, buckets uint32 // the next one, of how many; 0: not started
	growths         int64
	moves           uint64              // of the page mover when the walk began
	seen            map[uint32][]uint64 // by page, a bit a chunk
}

const (
	// walkBuckets is how many buckets one call of Next looks at: some 400 items at most.
	walkBuckets = 64
	// walkHelp is how many buckets of a growth it moves along instead, when it has to wait for one.
	walkHelp = 64
)

// Next visits the next few living items and tells whether there may be more. s is in a section; the items are valid as Session tells.
func (w *Walk) Next(s *Session, visit func(it *Item)) (more bool) {
	var it Item
	ix := s.c.index
	if w.start(s) {
		ix.Help(walkHelp)
		return true
	}
	end := w.bucket + walkBuckets
	_, still := ix.Sweep(w.bucket, end, func(ref mmapslab.Ref, _, tag, _ uint32) bool {
		f := found{ref: ref}
		if !s.c.store.Look(&f.item, ref) || !w.add(s.c.store, ref) && w.moves == s.c.mover.moves.Load() {
			return true
		}
		f.hash = uint64(f.item.Hash())<<32 | uint64(tag)
		f.meta = mmapslab.Meta(s.c.store.Meta(ref).Load())
		if v := s.c.verifier.Load(); v != nil && !s.sound(v, &f) {
			return true
		}
		if f.fate = s.c.fate(&f.item, f.meta, s.now); f.fate == alive {
			s.view(&it, &f)
			visit(&it)
		}
		return true
	})
	// The range counts only if it was this table's from beginning to end.
	if !still || w.stale(s) {
		return true
	}
	w.bucket = end
	return w.bucket < w.buckets
}

// start begins a pass if none is under way over the table there is now; wait tells that a growth must end first.
func (w *Walk) start(s *Session) (wait bool) {
	// Every growth changes the number of buckets at once and the number of growths a moment later, but before another one can begin.
	if w.stale(s) {
		w.growths, w.buckets, w.bucket = s.c.index.Stats().Growths, s.c.index.SweepBuckets(), 0
	}
	if w.seen == nil {
		w.seen, w.moves = map[uint32][]uint64{}, s.c.mover.moves.Load()
	}
	return s.c.index.Stats().Growing
}

func (w *Walk) stale(s *Session) bool {
	return s.c.index.SweepBuckets() != w.buckets || s.c.index.Stats().Growths != w.growths
}

// add marks a chunk as seen; false when it was.
func (w *Walk) add(store *mmapslab.Store, ref mmapslab.Ref) bool {
	page, slot := store.Place(ref)
	bits := w.seen[page]
	if bits == nil {
		bits = make([]uint64, (store.PerPage(page)+63)/64)
		w.seen[page] = bits
	}
	if int(slot/64) >= len(bits) {
		return true // the page has smaller chunks by now than when it was seen first: nothing in it was live throughout
	}
	bit := uint64(1) << (slot % 64)
	was := bits[slot/64]
	bits[slot/64] = was | bit
	return was&bit == 0
}
