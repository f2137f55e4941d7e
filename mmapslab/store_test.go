package mmapslab_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"hearth/mmapslab"
)

func TestGivesEachChunkToOneOwner(t *testing.T) {
	s := newHeapStore(t, 4, 96, 1024, 512<<10)
	const owners = 4
	var wg sync.WaitGroup
	for owner := range owners {
		wg.Go(func() {
			var mine []mmapslab.Ref
			for round := range 3000 {
				class := 1 + round%2
				ref, _, ok := s.Alloc(class)
				if !ok {
					if !s.AddPage(class) {
						s.Free(mine...)
						mine = mine[:0]
					}
					continue
				}
				// A stamp that somebody else overwrites, or that the race detector sees shared.
				s.Arena().Bytes(ref.Offset(), 1)[0] = 0 // as WriteItem does: freed chunks are told by it under -tags invariants
				s.Arena().Word(ref.Offset() + 40).Store(uint64(owner)<<32 | uint64(round))
				b := s.Arena().Bytes(ref.Offset()+48, 8)
				b[0] = byte(owner)
				mine = append(mine, ref)
				if len(mine) > 500 {
					for _, ref := range mine[:250] {
						if got := s.Arena().Word(ref.Offset()+40).Load() >> 32; got != uint64(owner) {
							t.Errorf("chunk %#x of owner %d has the stamp of %d", ref.Offset(), owner, got)
						}
					}
					s.Free(mine[:250]...)
					mine = append(mine[:0], mine[250:]...)
				}
			}
			s.Free(mine...)
		})
	}
	wg.Wait()
	seen := map[uint32]bool{}
	for class := 1; class <= 3; class++ {
		info, _ := s.ClassInfo(class)
		n := uint64(0)
		count, fresh := s.WalkFree(class, func(id uint32) bool {
			if n++; seen[id] || s.Class(s.RefOf(id)) != class {
				t.Fatalf("free list of class %d holds chunk %#x twice, or of another class", class, id)
			}
			seen[id] = true
			return true
		})
		if total := info.Pages * uint64(info.PerPage); count != total || n+fresh != total || info.Free != total {
			t.Errorf("class %d: counts %d free, %d listed, %d fresh, want %d", class, count, n, fresh, total)
		}
	}
}

// An id that damage made, as a list may hold it, leads to no item's bytes and not out of the arena: its links are those of page 0, which are nobody's (R9).
func TestLinksOfAPageThatCannotBeAreNobodys(t *testing.T) {
	s := newHeapStore(t, 4, 96, 8192)
	for _, page := range []uint32{uint32(s.Room()) + 1, uint32(s.Room()) + 1000, mmapslab.MaxPages} {
		if s.Link(mmapslab.ChunkID(page, 5)) != s.Link(0) {
			t.Errorf("page %d of %d has links of its own", page, s.Room())
		}
	}
}

func TestNamesChunksByRefIDAndPlaceAlike(t *testing.T) {
	s := newHeapStore(t, 5, 64, 96, 1000, 512<<10)
	for class, size := range []int{64, 96, 1000, 512 << 10} {
		class++
		for range 3 {
			ref := alloc(t, s, class)
			page, slot := s.Place(ref)
			if s.RefOf(s.ID(ref)) != ref || s.RefAtPlace(page, slot) != ref || s.ChunkSize(ref) != size || s.Class(ref) != class || s.PageClass(page) != class {
				t.Errorf("class %d: chunk %#x is %#x by its id, %#x by its place; size %d, class %d", class, uint64(ref), uint64(s.RefOf(s.ID(ref))),
					uint64(s.RefAtPlace(page, slot)), s.ChunkSize(ref), s.Class(ref))
			}
			for _, off := range []int64{-8, 8, 16, 24, 32} {
				if wrong := mmapslab.RefAt(ref.Offset() + off); s.ChunkSize(wrong) != 0 && s.ChunkSize(wrong) == size && off%int64(size) != 0 {
					t.Errorf("class %d: a chunk starts %d bytes beside one", class, off)
				}
			}
		}
	}
	// R9: any number is an answer, never a panic.
	for _, ref := range []mmapslab.Ref{0, 1, 1 << 39, 1<<40 - 1, 1<<41 - 1, mmapslab.Chained, mmapslab.RefAt(int64(s.Arena().Size()))} {
		if it, ok := s.Item(ref); ok || s.ChunkSize(ref) != 0 || s.Class(ref) != 0 {
			t.Errorf("Ref %#x: %v, size %d, class %d, want nothing there", uint64(ref), it, s.ChunkSize(ref), s.Class(ref))
		}
	}
	for _, id := range []uint32{0, 5, 1<<mmapslab.SlotBits - 1, 1<<32 - 1, 1<<mmapslab.SlotBits | (1<<mmapslab.SlotBits - 1)} {
		if ref := s.RefOf(id); ref != 0 && s.ChunkSize(ref) == 0 {
			t.Errorf("chunk id %#x: Ref %#x where no chunk starts", id, uint64(ref))
		}
	}
}

func TestPicksTheSmallestClassThatHoldsTheSize(t *testing.T) {
	sizes := mmapslab.ChunkSizes(1.25, 48, 512<<10)
	s := newHeapStore(t, 1, sizes...)
	for size := 1; size <= sizes[len(sizes)-1]; size += 1 + size/97 {
		class := s.ClassFor(size)
		if class == 0 || sizes[class-1] < size || class > 1 && sizes[class-2] >= size {
			t.Fatalf("size %d: class %d", size, class)
		}
	}
	for i, size := range sizes {
		if s.ClassFor(size) != i+1 {
			t.Errorf("size %d: class %d, want %d", size, s.ClassFor(size), i+1)
		}
	}
	if class := s.ClassFor(sizes[len(sizes)-1] + 1); class != 0 {
		t.Errorf("one byte above the largest: class %d", class)
	}
}

func TestGivesAClassItsFirstPageAboveTheLimit(t *testing.T) {
	s := newHeapStore(t, 2, 96, 192, 384)
	for i, class := range []int{1, 1, 2, 3} {
		drain(t, s, class)
		if !s.AddPage(class) {
			t.Fatalf("page %d, class %d: none", i, class)
		}
	}
	if limit, assigned, _ := s.Pages(); limit != 2 || assigned != 4 {
		t.Errorf("%d pages of %d, want 4 of 2", assigned, limit)
	}
	for class := 1; class <= 3; class++ {
		drain(t, s, class)
		if s.AddPage(class) {
			t.Errorf("class %d got another page above the limit", class)
		}
	}
}

// drain takes all free chunks of a class.
func drain(t *testing.T, s *mmapslab.Store, class int) (refs []mmapslab.Ref) {
	t.Helper()
	for {
		ref, left, ok := s.Alloc(class)
		if !ok {
			return refs
		}
		refs = append(refs, ref)
		if info, _ := s.ClassInfo(class); info.Free != left {
			t.Fatalf("class %d: %d left, %d free", class, left, info.Free)
		}
	}
}

func TestAddPageIsForClassesWithoutFreeChunks(t *testing.T) {
	s := newHeapStore(t, 4, 96, 192)
	alloc(t, s, 1)
	if !s.AddPage(1) { // as the slower of two that found none
		t.Error("no page")
	}
	if info, _ := s.ClassInfo(1); info.Pages != 1 {
		t.Errorf("%d pages, want 1", info.Pages)
	}
}

func TestReusesPagesOfThePool(t *testing.T) {
	s, path := newFileStore(t, 3, 96, 192, 384)
	for _, class := range []int{1, 2, 3} {
		s.Free(alloc(t, s, class))
	}
	page, _ := s.Place(alloc(t, s, 2))
	s, damaged := reattach(t, s, path, mmapslab.Config{Pages: 3, ChunkSizes: []int{96, 192, 384}})
	if len(damaged) != 0 {
		t.Fatal(damaged)
	}
	if err := s.DropPage(page); err != nil {
		t.Fatal(err)
	}
	if _, assigned, pool := s.Pages(); assigned != 2 || pool != 1 || s.PageClass(page) != 0 {
		t.Errorf("%d assigned, %d in the pool, page %d of class %d", assigned, pool, page, s.PageClass(page))
	}
	// The pool is part of the file: the page's descriptor says free.
	s, _ = reattach(t, s, path, mmapslab.Config{Pages: 3, ChunkSizes: []int{96, 192, 384}})
	if _, assigned, pool := s.Pages(); assigned != 2 || pool != 1 {
		t.Errorf("after another start: %d assigned, %d in the pool", assigned, pool)
	}
	if !s.AddPage(3) || s.PageClass(page) != 3 {
		t.Error("the page of the pool was not taken")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// reattach gives the store up without a clean stop and takes the file up again.
func reattach(t *testing.T, s *mmapslab.Store, path string, cfg mmapslab.Config) (*mmapslab.Store, []uint32) {
	t.Helper()
	if err := s.SetState(mmapslab.Running, id); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, damaged, err := mmapslab.Attach(openFile(t, path), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, damaged
}

func TestKeepsPagesOfFormerClasses(t *testing.T) {
	s, path := newFileStore(t, 4, 96, 192, 384)
	kept := alloc(t, s, 1)
	old := putItem(t, s, "key", make([]byte, 100))
	s, damaged := reattach(t, s, path, mmapslab.Config{Pages: 4, ChunkSizes: []int{96, 200, 400}})
	if len(damaged) != 0 || s.Class(kept) != 1 || s.Class(old) != mmapslab.FirstFormer || s.ChunkSize(old) != 192 {
		t.Errorf("damaged %v; class %d of the kept, %d of the former size, want %d", damaged, s.Class(kept), s.Class(old), mmapslab.FirstFormer)
	}
	if it, ok := s.Item(old); !ok || !s.Verify(&it) || string(it.Key()) != "key" {
		t.Error("the item in the former class is lost")
	}
	if class := s.ClassFor(150); s.AddPage(class) && s.ChunkSize(alloc(t, s, class)) != 200 {
		t.Error("new items go to the former class")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckpointIsTakenUpWholeOrNotAtAll(t *testing.T) {
	sizes := []int{96, 192, 384}
	s, path := newFileStore(t, 4, sizes...)
	refs := []mmapslab.Ref{alloc(t, s, 1), alloc(t, s, 1), alloc(t, s, 2)}
	s.Free(refs[0])
	if err := s.WriteCheckpoint(&mmapslab.Checkpoint{Items: 2}); err != nil {
		t.Fatal(err)
	}
	free := func(s *mmapslab.Store) (all [3]uint64) {
		for i := range all {
			info, _ := s.ClassInfo(i + 1)
			all[i] = info.Free
		}
		return all
	}
	want := free(s)
	s, _ = reattach(t, s, path, mmapslab.Config{Pages: 4, ChunkSizes: []int{96, 200, 384}})
	if _, err := s.ReadCheckpoint(); err == nil || !strings.Contains(err.Error(), "class 2 has chunks of 192 bytes, want 200") {
		t.Errorf("another table: %v", err)
	}
	if got := free(s); got != [3]uint64{} {
		t.Errorf("another table: free chunks %v were taken up in spite of it, to be listed twice by the sweep", got)
	}
	s, _ = reattach(t, s, path, mmapslab.Config{Pages: 4, ChunkSizes: sizes})
	cp, err := s.ReadCheckpoint()
	if err != nil || cp.Items != 2 || free(s) != want {
		t.Errorf("%+v, %v, free %v, want %v", cp, err, free(s), want)
	}
	if ref, _, _ := s.Alloc(1); ref != refs[0] {
		t.Errorf("first free chunk %#x, want %#x", ref.Offset(), refs[0].Offset())
	}
	b := s.Arena().Bytes(mmapslab.CheckpointAt, mmapslab.CheckpointSize)
	for bit := 0; bit < len(b)*8; bit += 1 + bit%53 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := s.ReadCheckpoint(); !errors.Is(err, mmapslab.ErrCorrupt) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestDescriptorCheckFindsEveryFlippedBit(t *testing.T) {
	for _, size := range []uint32{64, 96, 1184, 524288, 1 << 20} {
		for state := range uint32(3) {
			for _, generation := range []uint32{0, 1, 0x5555, 0x7fff} {
				w := mmapslab.PackDescriptor(state, size, generation)
				if s, c, g, ok := mmapslab.UnpackDescriptor(w); !ok || s != state || c != size || g != generation {
					t.Fatalf("%#x: state %d, size %d, generation %d, %t", w, s, c, g, ok)
				}
				for bit := range 64 {
					if _, _, _, ok := mmapslab.UnpackDescriptor(w ^ 1<<bit); ok {
						t.Errorf("%#x validates with bit %d flipped", w, bit)
					}
				}
			}
		}
	}
}

func TestLeavesOutPagesWhoseDescriptorIsDamaged(t *testing.T) {
	s, path := newFileStore(t, 4, 96, 192)
	first, second := alloc(t, s, 1), alloc(t, s, 2)
	page, _ := s.Place(first)
	s.Arena().Word(mmapslab.PageTable + int64(page)*64).Add(1 << 24)
	s, damaged := reattach(t, s, path, mmapslab.Config{Pages: 4, ChunkSizes: []int{96, 192}})
	if !slices.Equal(damaged, []uint32{page}) || s.Class(first) != 0 || s.Class(second) != 2 {
		t.Errorf("damaged %v, want page %d; classes %d and %d", damaged, page, s.Class(first), s.Class(second))
	}
	if _, assigned, pool := s.Pages(); assigned != 1 || pool != 0 {
		t.Errorf("%d assigned, %d in the pool", assigned, pool)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusesImpossibleLayouts(t *testing.T) {
	good := mmapslab.LayoutFor(1024, 96)
	if !good.Valid() {
		t.Fatal("a layout of ours is not valid")
	}
	for name, change := range map[string]func(*mmapslab.Layout){
		"room":     func(l *mmapslab.Layout) { l.Room++ },
		"no room":  func(l *mmapslab.Layout) { *l = mmapslab.LayoutFor(0, 96) },
		"chunk":    func(l *mmapslab.Layout) { l.MinChunk -= 8 },
		"no chunk": func(l *mmapslab.Layout) { l.MinChunk = 0 },
		"index":    func(l *mmapslab.Layout) { l.Index[1] += 4096 },
		"half":     func(l *mmapslab.Layout) { l.HalfSize *= 2 },
		"links":    func(l *mmapslab.Layout) { l.Links = 0 },
		"pages":    func(l *mmapslab.Layout) { l.Pages -= 8 },
		"end":      func(l *mmapslab.Layout) { l.End++ },
	} {
		l := good
		if change(&l); l.Valid() {
			t.Errorf("%s: %+v is valid", name, l)
		}
	}
}

func TestHandsOutEachCASOnce(t *testing.T) {
	s := newHeapStore(t, 1, 96)
	if got := s.NextCAS(); got != 0x11 {
		t.Errorf("first CAS %#x, want one more than the last of before, %#x", got, 0x11)
	}
	var wg sync.WaitGroup
	all := make([][]uint64, 4)
	for i := range all {
		wg.Go(func() {
			for range 1000 {
				all[i] = append(all[i], s.NextCAS())
			}
		})
	}
	wg.Wait()
	ids := slices.Concat(all...)
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 4000 {
		t.Error("a CAS was handed out twice")
	}
}

func TestDiscardLeavesZeros(t *testing.T) {
	file, _ := newFileStore(t, 1, 96)
	defer file.Close()
	anonymous, err := mmapslab.Create(nil, mmapslab.Config{Pages: 1, ChunkSizes: []int{96}}, id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.Close()
	for name, s := range map[string]*mmapslab.Store{"file": file, "anonymous": anonymous, "heap": newHeapStore(t, 1, 96)} {
		_, half, _ := s.IndexRegion()
		if err := s.BackIndex(half[0], 8192); err != nil {
			t.Fatal(err)
		}
		for i := range int64(1024) {
			s.Arena().Word(half[0] + i*8).Store(^uint64(0))
		}
		if err := s.Discard(half[0], 4096); err != nil {
			t.Fatal(err)
		}
		if a, b := s.Arena().Word(half[0]+4088).Load(), s.Arena().Word(half[0]+4096).Load(); a != 0 || b == 0 {
			t.Errorf("%s: last word of the part %#x, first behind it %#x", name, a, b)
		}
	}
}

func TestChunksAreFoundAtTheirPlacesAndNowhereElse(t *testing.T) {
	sizes := []int{64, 72, 96, 120, 168, 1000, 4096, 26888, 131072, 524288}
	s := newHeapStore(t, len(sizes), sizes...)
	for i, size := range sizes {
		first := alloc(t, s, i+1)
		for at := int64(0); at < mmapslab.PageSize; at += 8 {
			ref, want := first+mmapslab.RefAt(at), 0
			if slot := at / int64(size); at%int64(size) == 0 && slot < int64(mmapslab.PageSize/size) {
				want = size
				if id := s.ID(ref); s.RefOf(id) != ref || int64(id-s.ID(first)) != slot {
					t.Fatalf("chunks of %d: at %d: id %#x", size, at, id)
				}
			}
			if got := s.ChunkSize(ref); got != want {
				t.Fatalf("chunks of %d: at %d: a chunk of %d, want %d", size, at, got, want)
			}
		}
		lines := s.AppendLines(nil, first)
		if from, last := first.Offset(), first.Offset()+int64(min(size, 256))-1; lines[0] > from || lines[0]%64 != 0 || lines[len(lines)-1]/64 != last/64 {
			t.Errorf("chunks of %d: lines %d for bytes %d to %d", size, lines, from, last)
		}
	}
	for _, ref := range []mmapslab.Ref{0, 1, 1<<mmapslab.RefBits - 1} {
		if len(s.AppendLines(nil, ref)) > 0 {
			t.Errorf("lines of no page, for %#x", ref)
		}
	}
	s.Arena().Prefetch(nil)
	s.Arena().Prefetch([]int64{0, 1 << 60, -64}) // where no memory is, nothing happens
}

// A bit that flips in an index word must not lead to a value that was replaced.
func TestAFreeChunkIsNoItem(t *testing.T) {
	s := newHeapStore(t, 2, 96)
	put := func() mmapslab.Ref {
		ref := alloc(t, s, 1)
		s.WriteItem(ref, []byte("key"), 0, &mmapslab.Fields{}, 0)
		s.Seal(ref, 1, 0)
		if it, ok := s.Item(ref); !ok || !s.Verify(&it) {
			t.Fatal("it is no item")
		}
		return ref
	}
	freed, left := put(), put()
	s.Free(freed)
	if _, ok := s.Item(freed); ok {
		t.Error("what was freed is found as an item")
	}
	// What a kill left in nobody's hands.
	page, _ := s.Place(left)
	s.RebuildFree(page, make([]uint64, (s.PerPage(page)+63)/64))
	if _, ok := s.Item(left); ok {
		t.Error("what a sweep makes free is found as an item")
	}
}
