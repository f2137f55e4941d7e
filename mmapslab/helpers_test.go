package mmapslab_test

import (
	"path/filepath"
	"testing"

	"hearth/mmapslab"
)

var id = mmapslab.Identity{BootID: [16]byte{1, 2, 3}, ClockWall: 1700000000, ClockBoot: 12345}

// newHeapStore makes a store on the heap, where all bytes are known.
func newHeapStore(t testing.TB, pages int, sizes ...int) *mmapslab.Store {
	t.Helper()
	s, err := mmapslab.Create(nil, mmapslab.Config{Pages: pages, ChunkSizes: sizes, Heap: true}, id, 0x10, 0x5eed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newFileStore makes a store in a file of its own and gives it up at the end of the test, unless the test did.
func newFileStore(t testing.TB, pages int, sizes ...int) (s *mmapslab.Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "slab")
	s, err := mmapslab.Create(openFile(t, path), mmapslab.Config{Pages: pages, ChunkSizes: sizes}, id, 0x10, 0x5eed)
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

func openFile(t testing.TB, path string) *mmapslab.File {
	t.Helper()
	f, err := mmapslab.OpenFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // again after Store.Close: an error, and no harm
	return f
}

// alloc takes a chunk, of a new page if need be.
func alloc(t testing.TB, s *mmapslab.Store, class int) mmapslab.Ref {
	t.Helper()
	for range 2 {
		if ref, _, ok := s.Alloc(class); ok {
			return ref
		}
		if !s.AddPage(class) {
			break
		}
	}
	t.Fatalf("no chunk of class %d", class)
	return 0
}

// putItem stores an item and returns its Ref; one that does not fit the largest chunk is chained.
func putItem(t testing.TB, s *mmapslab.Store, key string, value []byte) mmapslab.Ref {
	t.Helper()
	f := mmapslab.Fields{ClientFlags: 5, Hash: uint32(s.Hasher().Sum([]byte(key)) >> 32)}
	size := mmapslab.ItemSize(len(key), len(value))
	if size <= s.ChunkMax() {
		ref := alloc(t, s, s.ClassFor(size))
		s.WriteItem(ref, []byte(key), len(value), &f, mmapslab.MakeMeta(0, 1))
		it := s.Unsealed(ref)
		copy(it.Value(), value)
		s.Seal(ref, s.NextCAS(), 1)
		return ref
	}
	head := alloc(t, s, s.ClassFor(mmapslab.HeaderSize+mmapslab.ChainRefSize+len(key))) | mmapslab.Chained
	s.WriteItem(head, []byte(key), len(value), &f, mmapslab.MakeMeta(0, 1))
	for last := head; len(value) > 0; {
		n := min(len(value), s.ChunkMax()-mmapslab.DataHeaderSize)
		ref := alloc(t, s, s.ClassFor(n+mmapslab.DataHeaderSize))
		copy(s.AppendData(last, ref, n), value)
		last, value = ref, value[n:]
	}
	s.Seal(head, s.NextCAS(), 1)
	return head
}
