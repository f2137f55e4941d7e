package restore

import (
	"slices"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
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

// Sweep makes lists, free chunks and counters anew out of the index: after a kill, or when pages or classes changed. Nobody else may use the
// parts; free lists and lists must be empty. damaged are pages that Attach could not read; excess is how many
// pages must go since the memory limit was lowered: the highest ones.
//
//  1. Each live word marks its chunk. A second mark of one chunk is a growth that was between copy and MOVED, or damage: one word stays. The
//     slab pages are not read, but for chained items, whose data chunks are marked too.
//  2. Page by page, so that memory is read in order, each marked chunk that holds an item is linked into its segment, and each other chunk
//     becomes free. Marked chunks that hold none, for which it takes a fault of the disk or of ours, are taken out of the index by a
//     second pass before they are freed.
//
// A kill in the middle costs nothing: the next start does it again.
func Sweep(p Parts, damaged []uint32, excess int) (Swept, error) {
	var swept Swept
	drop := map[uint32]bool{}
	for _, page := range damaged {
		drop[page] = true
	}
	for page := uint32(p.Store.Room()); page > 0 && excess > 0; page-- {
		if p.Store.PageClass(page) != 0 {
			drop[page] = true
			excess--
		}
	}
	swept.Pages = len(drop)

	// data are the chunks of chains, heads those that the chains start from, live these and all others that a word names.
	room := p.Store.Room() + 1
	live, heads, data := make(chunkSet, room), make(chunkSet, room), make(chunkSet, room)
	swept.Cleared = p.Index.Recover(func(ref mmapslab.Ref) bool {
		if p.Store.ChunkSize(ref) == 0 {
			if drop[p.Store.PageOf(ref)] {
				swept.Dropped++
			} else {
				swept.Invalid++
			}
			return false
		}
		page, slot := p.Store.Place(ref)
		switch {
		case drop[page]:
			swept.Dropped++
			return false
		case !live.add(page, slot, p.Store.PerPage(page)):
			swept.Duplicate++
			return false
		case ref&mmapslab.Chained == 0:
			return true
		}
		chain, ok := p.chain(ref)
		inDropped := false
		for i, part := range chain {
			page, slot := p.Store.Place(part)
			inDropped = inDropped || drop[page]
			ok = ok && !live.has(page, slot) && !slices.Contains(chain[:i], part)
		}
		if !ok || inDropped {
			live.remove(page, slot)
			if inDropped {
				swept.Dropped++
			} else {
				swept.Invalid++
			}
			return false
		}
		heads.add(page, slot, p.Store.PerPage(page))
		for _, part := range chain {
			page, slot := p.Store.Place(part)
			live.add(page, slot, p.Store.PerPage(page))
			data.add(page, slot, p.Store.PerPage(page))
		}
		return true
	})

	refs := map[mmapslab.Ref]bool{} // marked chunks without the item that their word promised
	for page := uint32(1); page < uint32(room); page++ {
		if p.Store.PageClass(page) == 0 || drop[page] {
			continue
		}
		for slot := range uint32(p.Store.PerPage(page)) {
			if !live.has(page, slot) || data.has(page, slot) {
				continue
			}
			ref := p.Store.RefAtPlace(page, slot)
			if heads.has(page, slot) {
				ref |= mmapslab.Chained
			}
			if it, ok := p.Store.Item(ref); ok {
				p.Order.Relink(ref, it.Size())
				swept.Items++
			} else {
				refs[ref] = true
			}
		}
		p.Store.RebuildFree(page, func(slot uint32) bool { return live.has(page, slot) })
	}
	if len(refs) > 0 {
		p.Index.Recover(func(ref mmapslab.Ref) bool {
			if refs[ref] {
				swept.Invalid++
				return false
			}
			return true
		})
		for ref := range refs {
			p.Store.Free(ref)
		}
	}
	for page := range drop {
		if err := p.Store.DropPage(page); err != nil {
			return swept, err
		}
	}
	p.Index.SetLen(swept.Items)
	return swept, nil
}
