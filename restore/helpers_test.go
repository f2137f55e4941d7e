package restore_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
	"hearth/restore"
)

var sizes = []int{96, 304, 4096}

// fixture is a cache without the root package: store, index and order in a file, to be damaged and swept.
type fixture struct {
	restore.Parts
	path  string
	pages int
	was   int // pages at the last start
	torn  bool
	items map[string]mmapslab.Ref
}

type owner struct{}

func (owner) Dead(mmapslab.Ref, uint32) bool { return false }
func (owner) Reap(mmapslab.Ref)              {}

func (f *fixture) config() mmapslab.Config { return mmapslab.Config{Pages: f.pages, ChunkSizes: sizes} }

func (f *fixture) indexParts() (*mmapslab.Arena, index.Region, index.Items, index.Options) {
	state, half, size := f.Store.IndexRegion()
	return f.Store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, f.Store, index.Options{}
}

const buckets = 64

func newFixture(t testing.TB) *fixture { return newFixtureOf(t, 8, buckets) }

func newFixtureOf(t testing.TB, pages int, buckets uint32) *fixture {
	t.Helper()
	f := &fixture{path: filepath.Join(t.TempDir(), "slab"), pages: pages, was: pages, items: map[string]mmapslab.Ref{}}
	file, err := mmapslab.OpenFile(f.path, 0)
	if err == nil {
		f.Store, err = mmapslab.Create(file, f.config(), mmapslab.Identity{}, 0, 1)
	}
	if err == nil {
		a, r, i, o := f.indexParts()
		f.Index, err = index.Create(a, r, i, o, buckets)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Order = lru.New(f.Store, owner{}, lru.Defaults)
	t.Cleanup(func() { f.Store.Close() })
	return f
}

// kill ends the process that has the file, in effect, and sweeps what it left.
func (f *fixture) kill(t testing.TB) restore.Swept {
	t.Helper()
	f.Store.SetState(mmapslab.Running, mmapslab.Identity{})
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := mmapslab.OpenFile(f.path, 0)
	if err != nil {
		t.Fatal(err)
	}
	var damaged []uint32
	if f.Store, damaged, err = mmapslab.Attach(file, f.config()); err != nil {
		t.Fatal(err)
	}
	a, r, i, o := f.indexParts()
	if f.Index, err = index.Attach(a, r, i, o); err != nil {
		t.Fatal(err)
	}
	f.Order = lru.New(f.Store, owner{}, lru.Defaults)
	_, assigned, _ := f.Store.Pages()
	swept, err := restore.Sweep(f.Parts, damaged, max(0, min(assigned, f.was)-f.pages), f.torn)
	if err != nil {
		t.Fatal(err)
	}
	f.was = f.pages
	return swept
}

func (f *fixture) alloc(class int) mmapslab.Ref {
	for range 2 {
		if ref, _, ok := f.Store.Alloc(class); ok {
			return ref
		}
		f.Store.AddPage(class)
	}
	panic(fmt.Sprintf("no chunk of class %d", class))
}

// write makes an item that nothing points to; values above the largest chunk are chained.
func (f *fixture) write(key string, value int) mmapslab.Ref {
	h := f.Store.Hasher().Sum([]byte(key))
	fields := mmapslab.Fields{Hash: uint32(h >> 32)}
	if size := mmapslab.ItemSize(len(key), value); size <= f.Store.ChunkMax() {
		ref := f.alloc(f.Store.ClassFor(size))
		f.Store.WriteItem(ref, []byte(key), value, &fields, mmapslab.MakeMeta(0, 1).WithSegment(lru.Cold))
		f.Store.Seal(ref, f.Store.NextCAS(), 0)
		return ref
	}
	head := f.alloc(1) | mmapslab.Chained
	f.Store.WriteItem(head, []byte(key), value, &fields, mmapslab.MakeMeta(0, 1).WithSegment(lru.Warm))
	for last, left := head, value; left > 0; {
		n := min(left, f.Store.ChunkMax()-mmapslab.DataHeaderSize)
		data := f.alloc(f.Store.ClassFor(n + mmapslab.DataHeaderSize))
		f.Store.AppendData(last, data, n)
		last, left = data, left-n
	}
	f.Store.Seal(head, f.Store.NextCAS(), 0)
	return head
}

// put stores an item as the root package does.
func (f *fixture) put(t testing.TB, key string, value int) mmapslab.Ref {
	t.Helper()
	ref := f.write(key, value)
	it, _ := f.Store.Item(ref)
	f.Order.Link(ref, mmapslab.Meta(f.Store.Meta(ref).Load()).Segment(), it.Size())
	if result, _ := f.Index.Insert(f.Store.Hasher().Sum([]byte(key)), []byte(key), ref); result != index.Inserted {
		t.Fatalf("%s: %v", key, result)
	}
	f.items[key] = ref
	return ref
}

// fill stores n small items and m chained ones of three data chunks.
func (f *fixture) fill(t testing.TB, n, m int) {
	t.Helper()
	for i := range n {
		f.put(t, fmt.Sprint("small", i), 10+i%200)
	}
	for i := range m {
		f.put(t, fmt.Sprint("large", i), 3*4056-i)
	}
}

// data returns a chained item's data chunks.
func (f *fixture) data(ref mmapslab.Ref) (chunks []mmapslab.Ref) {
	it, _ := f.Store.Item(ref)
	f.Store.Chain(&it, func(data mmapslab.Ref, _ []byte) { chunks = append(chunks, data) })
	return chunks
}

const (
	live, tentative = 2, 1
	tagMask         = index.TagMask
)

// pack makes an index word, as index/word.go draws it.
func pack(ref mmapslab.Ref, h uint64, state uint64) uint64 {
	return uint64(ref)<<23 | h&tagMask<<3 | state
}

// word returns the index word that refers to ref, or an empty one in the key's window for 0.
func (f *fixture) word(t testing.TB, key string, ref mmapslab.Ref) (at int64) {
	t.Helper()
	_, half, _ := f.Store.IndexRegion()
	h := f.Store.Hasher().Sum([]byte(key))
	for _, bucket := range index.Buckets(uint32(h>>32), f.Index.Stats().Buckets) {
		for slot := range int64(8) {
			at := half[0] + int64(bucket)*64 + slot*8
			if w := f.Store.Arena().Word(at).Load(); w == 0 && ref == 0 || w != 0 && w == pack(ref, h, live) {
				return at
			}
		}
	}
	t.Fatalf("no word for %s, Ref %#x", key, uint64(ref))
	return 0
}

// elsewhere returns an empty word in a bucket that key does not lead to.
func (f *fixture) elsewhere(t testing.TB, key string) (at int64) {
	t.Helper()
	_, half, _ := f.Store.IndexRegion()
	window := index.Buckets(uint32(f.Store.Hasher().Sum([]byte(key))>>32), f.Index.Stats().Buckets)
	for bucket := range f.Index.Stats().Buckets {
		at := half[0] + int64(bucket)*64
		if !slices.Contains(window[:], bucket) && f.Store.Arena().Word(at).Load() == 0 {
			return at
		}
	}
	t.Fatal("no such word")
	return 0
}

// plant puts a word into an empty slot of the key's window.
func (f *fixture) plant(t testing.TB, key string, ref mmapslab.Ref, state uint64) {
	t.Helper()
	f.Store.Arena().Word(f.word(t, key, 0)).Store(pack(ref, f.Store.Hasher().Sum([]byte(key)), state))
}

// wantClean wants Check to find nothing, and exactly the given keys to be gone.
func (f *fixture) wantClean(t testing.TB, gone ...string) {
	t.Helper()
	for _, finding := range restore.Check(f.Parts, nil) {
		t.Errorf("check: %v", finding)
	}
	lost := map[string]bool{}
	for _, key := range gone {
		lost[key] = true
	}
	for key, ref := range f.items {
		got, ok := f.Index.Find(f.Store.Hasher().Sum([]byte(key)), []byte(key))
		if ok == lost[key] || ok && got != ref {
			t.Errorf("%s: Ref %#x, found %t, want %#x, %t", key, uint64(got), ok, uint64(ref), !lost[key])
		}
	}
	if n := f.Index.Len(); n != int64(len(f.items)-len(gone)) {
		t.Errorf("%d items, want %d", n, len(f.items)-len(gone))
	}
}

// wantFinding wants Check to report what.
func (f *fixture) wantFinding(t testing.TB, what string) {
	t.Helper()
	found := restore.Check(f.Parts, nil)
	for _, finding := range found {
		if strings.Contains(finding.String(), what) {
			return
		}
	}
	t.Errorf("check finds %v, want %q", found, what)
}
