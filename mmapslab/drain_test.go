package mmapslab_test

import (
	"bytes"
	"testing"

	"hearth/mmapslab"
)

// A copy of an item in any other chunk validates, with whatever value; and the copy of a damaged one does not.
func TestCopiedItemsValidate(t *testing.T) {
	s := newHeapStore(t, 8, 96, 600, 8192)
	for _, n := range []int{0, 1, 8, 40, 500, 8000, 30000, 100000} {
		value := bytes.Repeat([]byte("some bytes "), n/11+1)[:n]
		ref := putItem(t, s, "a key", value)
		it, _ := s.Item(ref)
		to := s.CopyItem(alloc(t, s, s.Class(ref)), &it)
		copied, ok := s.Item(to)
		if !ok || !s.Verify(&copied) || copied.CAS() != it.CAS() || string(copied.Key()) != "a key" || copied.ValueLen() != n || to == ref {
			t.Errorf("value of %d bytes: the copy is found %t, validates %t", n, ok, s.Verify(&copied))
		}
		s.Arena().Bytes(to.Offset(), 32)[20] ^= 1
		if s.Verify(&copied) {
			t.Errorf("value of %d bytes: a damaged copy validates", n)
		}
		if again := s.CopyItem(alloc(t, s, s.Class(ref)), &copied); again != 0 {
			if it, ok := s.Item(again); !ok || s.Verify(&it) {
				t.Errorf("value of %d bytes: the copy of a damaged item validates", n)
			}
		}
	}
}

func TestMovedDataChunksLeaveTheItemWhole(t *testing.T) {
	s := newHeapStore(t, 8, 96, 304)
	value := bytes.Repeat([]byte("0123456789"), 150)
	ref := putItem(t, s, "key", value)
	it, _ := s.Item(ref)
	for range 3 {
		prev := ref
		var parts []mmapslab.Ref
		s.Chain(&it, func(part mmapslab.Ref, _ []byte) { parts = append(parts, part) })
		for _, part := range parts {
			if s.Owner(part) != ref {
				t.Fatalf("owner %#x, want %#x", uint64(s.Owner(part)), uint64(ref))
			}
			to := alloc(t, s, 2)
			s.MoveData(prev, part, to)
			s.Free(part)
			prev = to
			var got []byte
			if whole := s.Chain(&it, func(_ mmapslab.Ref, data []byte) { got = append(got, data...) }); !whole || !bytes.Equal(got, value) || !s.Verify(&it) {
				t.Fatalf("whole: %t, %d bytes, validates: %t", whole, len(got), s.Verify(&it))
			}
		}
	}
}

// takeAll takes every free chunk of a class; none may lie in the page.
func takeAll(t *testing.T, s *mmapslab.Store, class int, page uint32) (refs []mmapslab.Ref) {
	t.Helper()
	for {
		ref, _, ok := s.Alloc(class)
		if !ok {
			return refs
		}
		if s.PageOf(ref) == page {
			t.Fatalf("a chunk of page %d, which is draining", page)
		}
		refs = append(refs, ref)
	}
}

func TestADrainingPageHandsNothingOut(t *testing.T) {
	for _, sift := range []bool{false, true} {
		s := newHeapStore(t, 4, 4096, 8192)
		var all []mmapslab.Ref
		for range 3 * 256 {
			ref := alloc(t, s, 1)
			copy(s.Arena().Bytes(ref.Offset(), 4096), bytes.Repeat([]byte{0xff}, 4096)) // a value that looks like anything
			s.Meta(ref).Store(0)                                                        // as everywhere but in an item
			all = append(all, ref)
		}
		page := s.PageOf(all[256])
		s.Free(all[200:400]...)
		if got := s.StartDrain(1, page-1); got != page || s.StartDrain(1, 0) != 0 {
			t.Fatalf("page %d drains, want %d, and no second one", got, page)
		}
		for sift && s.Sift(1, 7) {
		}
		got := takeAll(t, s, 1, page)
		if len(got) != 56 { // 200 to 255
			t.Errorf("sifted %t: %d chunks, want the 56 of the other page", sift, len(got))
		}
		if info, _ := s.ClassInfo(1); info.Free != 0 {
			t.Errorf("%d free", info.Free)
		}
		if s.FinishDrain(1, 2) {
			t.Error("the page is given away while 112 of its chunks are in use")
		}
		refs, next, drained := s.Undrained(1, 0, make([]mmapslab.Ref, 0, 300))
		if len(refs) != 112 || next != 256 || drained != 144 {
			t.Errorf("%d chunks to go, %d came free; slot %d", len(refs), drained, next)
		}
		s.Free(refs...)
		if !s.FinishDrain(1, 2) || s.PageClass(page) != 2 {
			t.Errorf("the page is class %d's", s.PageClass(page))
		}
		var pages [3]uint64
		for id := 1; id < 3; id++ {
			info, _ := s.ClassInfo(id)
			pages[id] = info.Pages
		}
		if limit, assigned, pool := s.Pages(); pages != [3]uint64{0, 2, 1} || assigned != 3 || pool != 0 || limit != 4 {
			t.Errorf("pages %v, %d assigned, %d in the pool", pages, assigned, pool)
		}
		for range 128 {
			ref := alloc(t, s, 2)
			if s.PageOf(ref) != page || s.Meta(ref).Load() != 0 {
				t.Fatalf("chunk %#x of page %d, want page %d; Meta %#x", uint64(ref), s.PageOf(ref), page, s.Meta(ref).Load())
			}
		}
	}
}

func TestACancelledDrainGivesAllChunksBack(t *testing.T) {
	s := newHeapStore(t, 4, 4096)
	var all []mmapslab.Ref
	for range 300 {
		all = append(all, alloc(t, s, 1))
	}
	s.Free(all[:100]...)
	page := s.StartDrain(1, s.PageOf(all[0])-1)
	s.Sift(1, 30)
	s.Free(all[100:150]...)
	s.CancelDrain(1)
	if info, _ := s.ClassInfo(1); info.Free != 150+212 {
		t.Errorf("%d free, want 362", info.Free)
	}
	seen := map[mmapslab.Ref]bool{}
	for ref, _, ok := s.Alloc(1); ok; ref, _, ok = s.Alloc(1) {
		if seen[ref] {
			t.Fatalf("chunk %#x twice", uint64(ref))
		}
		seen[ref] = true
	}
	if len(seen) != 362 || s.PageClass(page) != 1 {
		t.Errorf("%d chunks, page of class %d", len(seen), s.PageClass(page))
	}
}

// A page that was draining when the process was killed is its class's again, also when the class is not in the table any more.
func TestAttachTakesDrainingPagesBack(t *testing.T) {
	for _, sizes := range [][]int{{96, 4096}, {104, 4096}} {
		s, path := newFileStore(t, 8, 96, 4096)
		alloc(t, s, 1)
		page := s.StartDrain(1, 0)
		if err := s.SetState(mmapslab.Running, id); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		file := openFile(t, path)
		s, damaged, err := mmapslab.Attach(file, mmapslab.Config{Pages: 8, ChunkSizes: sizes})
		if err != nil || len(damaged) != 0 {
			t.Fatal(err, damaged)
		}
		want := 1
		if sizes[0] != 96 {
			want = mmapslab.FirstFormer
		}
		s.TakeBack()
		word := s.Arena().Word(mmapslab.PageTable + int64(page)*64).Load()
		if state, size, _, ok := mmapslab.UnpackDescriptor(word); s.PageClass(page) != want || !ok || state != 1 || size != 96 {
			t.Errorf("page of class %d, want %d; state %d, chunks of %d bytes, %t", s.PageClass(page), want, state, size, ok)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
