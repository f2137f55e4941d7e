//go:build faults

package mmapslab_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// backed tells whether the whole of a page has memory.
func backed(t *testing.T, s *mmapslab.Store, path string, page uint32) bool {
	t.Helper()
	return hasMemory(t, path, int64(s.Super().Layout.Pages)+int64(page-1)*mmapslab.PageSize, mmapslab.PageSize)
}

func hasMemory(t *testing.T, path string, off, n int64) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hole, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE)
	return err == nil && hole >= off+n
}

// A page is a class's only when there is memory for all that belongs to it: what has none is a SIGBUS on a full disk, not before it is written (R10).
func TestAnAssignedPageHasMemoryForItsLinksToo(t *testing.T) {
	s, path := newFileStore(t, 4, 64, 8192)
	points := 0
	fault.Set(func(point string) {
		if point != "mmapslab.page.backed" {
			return
		}
		points++
		page := uint32(points) // in the order of their numbers
		if !backed(t, s, path, page) {
			t.Errorf("page %d has no memory", page)
		}
		if off := s.LinkOffset(mmapslab.ChunkID(page, 0)); !hasMemory(t, path, off, mmapslab.PageSize/64*8) {
			t.Errorf("the links of page %d have no memory", page)
		}
		if !hasMemory(t, path, mmapslab.PageTable+int64(page)*64, 64) {
			t.Errorf("the descriptor of page %d has no memory", page)
		}
	})
	defer fault.Set(nil)
	for range 3 {
		if !s.AddPage(1) {
			t.Fatal("no page")
		}
		for range mmapslab.PageSize / 64 {
			alloc(t, s, 1)
		}
	}
	if points != 3 {
		t.Errorf("%d pages were looked at, want 3", points)
	}
}

// A page that is given back because the limit was lowered has memory as long as its descriptor says that it is its class's: the next start would take it for that,
// and find a full disk by a SIGBUS.
func TestADrainedPageHasMemoryUntilItIsFree(t *testing.T) {
	s, path := newFileStore(t, 4, 4096, 8192)
	page := s.PageOf(alloc(t, s, 2))
	for range 3 {
		s.AddPage(1)
		for range 256 {
			alloc(t, s, 1)
		}
	}
	word := s.Arena().Word(mmapslab.PageTable + int64(page)*64)
	s.StartDrain(2, 0)
	s.Free(s.RefAtPlace(page, 0))
	s.SetLimit(2)
	points := 0
	fault.Set(func(point string) {
		points++
		if state, _, _, ok := mmapslab.UnpackDescriptor(word.Load()); ok && state != 0 && !backed(t, s, path, page) {
			t.Errorf("%s: the page's state is %d, and it has no memory", point, state)
		}
	})
	defer fault.Set(nil)
	if !s.FinishDrain(2, 0) {
		t.Fatal("the page is not empty")
	}
	fault.Set(nil)
	if state, _, _, ok := mmapslab.UnpackDescriptor(word.Load()); !ok || state != 0 || points < 3 {
		t.Errorf("state %d, %t; %d points passed", state, ok, points)
	}
	if backed(t, s, path, page) {
		t.Error("its memory was not given back")
	}
}

// A kill may leave a free page with the bytes of its last class. The next class's Metas must not be made of them.
func TestAPageThatAKillLeftFreeIsZeroInItsNextClass(t *testing.T) {
	s, path := newFileStore(t, 4, 4096, 8192)
	ref := alloc(t, s, 2)
	page := s.PageOf(ref)
	alloc(t, s, 1)
	for i := range 128 {
		b := s.Arena().Bytes(s.RefAtPlace(page, uint32(i)).Offset(), 8192)
		for j := range b {
			b[j] = 0xff
		}
	}
	if err := s.SetState(mmapslab.Running, id); err != nil {
		t.Fatal(err)
	}
	killed := "killed"
	fault.Set(func(point string) {
		if point == "mmapslab.page.freed" {
			panic(killed)
		}
	})
	func() {
		defer func() {
			fault.Set(nil)
			if r := recover(); r != killed {
				t.Fatal(r)
			}
		}()
		s.DropPage(page)
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, damaged, err := mmapslab.Attach(openFile(t, path), mmapslab.Config{Pages: 4, ChunkSizes: []int{4096, 8192}})
	if err != nil || len(damaged) != 0 {
		t.Fatal(err, damaged)
	}
	defer s.Close()
	s.TakeBack()
	if !s.AddPage(1) || s.PageClass(page) != 1 {
		t.Fatalf("page %d is of class %d, want 1", page, s.PageClass(page))
	}
	for i := range 256 {
		if m := s.Meta(s.RefAtPlace(page, uint32(i))).Load(); m != 0 {
			t.Fatalf("chunk %d begins with Meta %#x, want 0", i, m)
		}
	}
}
