package lru_test

import (
	"fmt"
	"slices"
	"testing"

	"hearth/lru"
	"hearth/mmapslab"
)

// fixture is an order over items on the heap; it is also their owner, with a list of dead ones.
type fixture struct {
	*lru.Order
	store  *mmapslab.Store
	dead   map[mmapslab.Ref]bool
	reaped []mmapslab.Ref
	sizes  map[mmapslab.Ref]int
	made   int
}

func newFixture(t testing.TB, settings lru.Settings) *fixture {
	t.Helper()
	store, err := mmapslab.Create(nil, mmapslab.Config{Pages: 2, ChunkSizes: []int{96, 304}, Heap: true}, mmapslab.Identity{}, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{store: store, dead: map[mmapslab.Ref]bool{}, sizes: map[mmapslab.Ref]int{}}
	f.Order = lru.New(store, f, settings)
	return f
}

func (f *fixture) Dead(ref mmapslab.Ref, now uint32) bool { return f.dead[ref] }
func (f *fixture) Reap(ref mmapslab.Ref) {
	f.reaped = append(f.reaped, ref)
	delete(f.dead, ref)
	f.Unlink(ref, f.sizes[ref])
}

// write makes an item that is in no list: chained ones are in class 1's chunks and class 2's lists.
func (f *fixture) write(class, value int, chained bool, now uint32) mmapslab.Ref {
	f.made++
	key := fmt.Appendf(nil, "%06d", f.made)
	ref, _, ok := f.store.Alloc(class)
	if !ok {
		f.store.AddPage(class)
		ref, _, ok = f.store.Alloc(class)
	}
	if !ok {
		panic("no chunk")
	}
	if chained {
		ref |= mmapslab.Chained
	}
	f.store.WriteItem(ref, key, value, &mmapslab.Fields{}, mmapslab.MakeMeta(0, now))
	if chained {
		for last, left := ref, value; left > 0; {
			n := min(left, 304-mmapslab.DataHeaderSize)
			data, _, ok := f.store.Alloc(2)
			if !ok {
				f.store.AddPage(2)
				data, _, _ = f.store.Alloc(2)
			}
			f.store.AppendData(last, data, n)
			last, left = data, left-n
		}
	}
	f.store.Seal(ref, 1, 1)
	it, _ := f.store.Item(ref)
	f.sizes[ref] = it.Size()
	return ref
}

// put makes an item and links it.
func (f *fixture) put(class, segment int, now uint32) mmapslab.Ref {
	ref := f.write(class, 8, false, now)
	f.Link(ref, segment, f.sizes[ref])
	return ref
}

func (f *fixture) meta(ref mmapslab.Ref) mmapslab.Meta {
	return mmapslab.Meta(f.store.Meta(ref).Load())
}

// set sets bits in an item's Meta.
func (f *fixture) set(ref mmapslab.Ref, bits mmapslab.Meta) { f.store.Meta(ref).Or(uint64(bits)) }

// hit is a fetch: it returns whether a note is due.
func (f *fixture) hit(ref mmapslab.Ref, now uint32) bool {
	return lru.Hit(f.store.Meta(ref), f.meta(ref), now)
}

// list returns the items of a list from the head, and fails the test when its links, counts or items' Metas are wrong.
func (f *fixture) list(t failer, class, segment int) (refs []mmapslab.Ref) {
	t.Helper()
	var bytes uint64
	var last uint32
	count, wantBytes, tail := f.Walk(class, segment, func(id, prev uint32) bool {
		ref := f.store.ItemRef(id)
		m := f.meta(ref)
		if f.store.Link(id).Prev != prev || m&mmapslab.Linked == 0 || m.Segment() != segment || f.store.ListClass(ref) != class {
			t.Fatalf("class %d segment %d: item %#x: prev %#x, want %#x; meta %#x, class %d", class, segment, uint64(ref), f.store.Link(id).Prev, prev,
				uint64(m), f.store.ListClass(ref))
		}
		refs, bytes, last = append(refs, ref), bytes+uint64(f.sizes[ref]), id
		return len(refs) < 1e6
	})
	if count != uint64(len(refs)) || bytes != wantBytes || last != tail {
		t.Fatalf("class %d segment %d: %d items, %d bytes, tail %#x; counted %d, %d, %#x", class, segment, len(refs), bytes, last, count, wantBytes, tail)
	}
	return refs
}

// failer is what testing.T and rapid.T have in common here.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (f *fixture) wantList(t failer, class, segment int, want ...mmapslab.Ref) {
	t.Helper()
	if got := f.list(t, class, segment); !slices.Equal(got, want) {
		t.Fatalf("class %d segment %d: %#x, want %#x", class, segment, got, want)
	}
}
