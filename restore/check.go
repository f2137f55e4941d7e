package restore

import (
	"fmt"
	"slices"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
)

// Finding is one thing that Check found wrong.
type Finding struct {
	Ref  mmapslab.Ref // where; 0 when it is about no single chunk
	What string
}

func (f Finding) String() string {
	if f.Ref == 0 {
		return f.What
	}
	return fmt.Sprintf("offset %#x: %s", f.Ref.Offset(), f.What)
}

// findingsMost bounds how many findings are kept: a file that is damaged throughout need not be listed.
const findingsMost = 100

// Check looks whether index, items, lists and free chunks agree, checksums included; nobody may use the parts meanwhile, and nothing may wait to be
// reclaimed. Each chunk of an assigned page must be exactly one of: a live item, part of a chain, or free; chunks in loose are known to
// belong to somebody, such as uploads that are under way. It returns nothing when all is well.
func Check(p Parts, loose map[mmapslab.Ref]bool) (found []Finding) {
	report := func(ref mmapslab.Ref, format string, args ...any) {
		if len(found) < findingsMost {
			found = append(found, Finding{ref, fmt.Sprintf(format, args...)})
		}
	}
	hasher := p.Store.Hasher()
	used := make(chunkSet, p.Store.Room()+1)
	var taken [mmapslab.ClassIDs]uint64
	take := func(ref mmapslab.Ref, as string) {
		taken[p.Store.Class(ref)]++
		if p.Store.ChunkSize(ref) == 0 {
			report(ref, "%s where no chunk starts", as)
		} else if page, slot := p.Store.Place(ref); !used.add(page, slot, p.Store.PerPage(page)) {
			report(ref, "%s in a chunk that is something else already", as)
		}
	}

	var live int64
	buckets := p.Index.Stats().Buckets
	_, still := p.Index.Sweep(0, p.Index.SweepBuckets(), func(ref mmapslab.Ref, bucket, tag uint32) bool {
		live++
		take(ref, "live item")
		it, ok := p.Store.Item(ref)
		if !ok {
			report(ref, "index word names no item")
			return true
		}
		h := hasher.Sum(it.Key())
		window := index.Buckets(uint32(h>>32), buckets)
		switch {
		case !p.Store.Verify(&it):
			report(ref, "checksum of item %q does not match", it.Key())
		case it.Hash() != uint32(h>>32):
			report(ref, "item %q has hash %08x, want %08x", it.Key(), it.Hash(), h>>32)
		case !slices.Contains(window[:], bucket):
			report(ref, "item %q is in bucket %d, want one of %d", it.Key(), bucket, window)
		case tag != uint32(h)&index.TagMask:
			report(ref, "item %q has tag %05x, want %05x", it.Key(), tag, uint32(h)&index.TagMask)
		default:
			if first, _ := p.Index.Find(h, it.Key()); first != ref {
				report(ref, "item %q is live a second time, at offset %#x", it.Key(), first.Offset())
			}
		}
		if mmapslab.Meta(p.Store.Meta(ref).Load())&mmapslab.Linked == 0 {
			report(ref, "live item %q is in no list", it.Key())
		}
		if ref&mmapslab.Chained != 0 && !p.Store.Chain(&it, func(data mmapslab.Ref, _ []byte) { take(data, "data chunk") }) {
			report(ref, "chain of item %q is broken", it.Key())
		}
		return true
	})
	if !still {
		report(0, "the index was growing")
	}
	if n := p.Index.Len(); n != live {
		report(0, "index counts %d items, has %d", n, live)
	}
	checkLists(p, live, report)
	for ref := range loose {
		take(ref, "chunk in use")
	}
	checkFree(p, take, &taken, report)
	return found
}

// checkLists looks whether the LRU's lists are whole, and hold as many items as are live.
func checkLists(p Parts, live int64, report func(mmapslab.Ref, string, ...any)) {
	var linked uint64
	for class := 1; class < mmapslab.ClassIDs; class++ {
		for segment := lru.Hot; segment <= lru.Temp; segment++ {
			var count, bytes uint64
			var last uint32
			wantCount, wantBytes, tail := p.Order.Walk(class, segment, func(id, prev uint32) bool {
				ref := p.Store.ItemRef(id)
				it, ok := p.Store.Item(ref)
				if !ok {
					report(ref, "class %d segment %d: list holds a chunk that is no item", class, segment)
					return false
				}
				m := mmapslab.Meta(p.Store.Meta(ref).Load())
				if p.Store.ListClass(ref) != class || m.Segment() != segment || m&mmapslab.Linked == 0 || p.Store.Link(id).Prev != prev {
					report(ref, "class %d segment %d: item of class %d, segment %d, linked %t, after chunk %#x, want %#x", class, segment,
						p.Store.ListClass(ref), m.Segment(), m&mmapslab.Linked != 0, p.Store.Link(id).Prev, prev)
				}
				count, bytes, last = count+1, bytes+uint64(it.Size()), id
				return count <= uint64(live)
			})
			if count != wantCount || bytes != wantBytes || last != tail {
				report(0, "class %d segment %d: list has %d items of %d bytes up to chunk %#x, counted %d of %d up to %#x",
					class, segment, count, bytes, last, wantCount, wantBytes, tail)
			}
			linked += count
		}
	}
	if linked != uint64(live) {
		report(0, "lists hold %d items, index has %d", linked, live)
	}
}

// checkFree looks whether the free chunks are those that nothing else is in, and counts the chunks that are neither.
func checkFree(p Parts, take func(mmapslab.Ref, string), taken *[mmapslab.ClassIDs]uint64, report func(mmapslab.Ref, string, ...any)) {
	for class := 1; class < mmapslab.ClassIDs; class++ {
		info, ok := p.Store.ClassInfo(class)
		if !ok {
			continue
		}
		total := info.Pages * uint64(info.PerPage)
		var listed uint64
		count, fresh := p.Store.WalkFree(class, func(id uint32) bool {
			ref := p.Store.RefOf(id)
			take(ref, "free chunk")
			if p.Store.Class(ref) != class {
				report(ref, "free list of class %d holds a chunk of class %d", class, p.Store.Class(ref))
				return false
			}
			listed++
			return listed <= total
		})
		if listed+fresh != count {
			report(0, "class %d: %d free chunks in the list and %d in a fresh page, counted %d", class, listed, fresh, count)
		}
		if lost := int64(total) - int64(taken[class]+fresh); lost != 0 {
			report(0, "class %d: %d chunks are neither used nor free", class, lost)
		}
	}
}
