package mmapslab_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/mmapslab"
)

// TestAFullDiskIsNoPageAndNoFault fills a file system of a few MiB, in another process, since a fault would end it. A limited file size would be no
// substitute: the file has its full length from the beginning.
func TestAFullDiskIsNoPageAndNoFault(t *testing.T) {
	cmd := child(t, "full disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // its mount is its own, and ends with it
	out, err := cmd.CombinedOutput()
	switch exit := (*exec.ExitError)(nil); {
	case errors.As(err, &exit) && exit.ExitCode() == cannotMount, errors.Is(err, syscall.EPERM):
		t.Skip("mounting is not allowed: ", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
}

const cannotMount = 3

// fullDisk is the child's part; it returns the exit status.
func fullDisk(dir string) int {
	fail := func(args ...any) int { fmt.Println(args...); return 1 }
	if unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") != nil || unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m") != nil {
		return cannotMount
	}
	file, err := mmapslab.OpenFile(filepath.Join(dir, "slab"), 0)
	if err != nil {
		return fail(err)
	}
	s, err := mmapslab.Create(file, mmapslab.Config{Pages: 64, ChunkSizes: []int{96, 1 << 20}}, id, 0, 0)
	if err != nil {
		return fail(err)
	}
	pages := 0
	for s.AddPage(2) {
		ref, _, ok := s.Alloc(2)
		if !ok {
			return fail("a page without chunks")
		}
		b := s.Arena().Bytes(ref.Offset(), 1<<20)
		for i := range b {
			b[i] = byte(pages + 1)
		}
		if pages++; pages == 64 {
			return fail("the disk never filled")
		}
	}
	_, assigned, pool := s.Pages()
	if assigned != pages || pool == 0 {
		return fail("assigned", assigned, "in the pool", pool, "after", pages, "pages")
	}
	// The other class gets no first page either, and the index no memory; what is there stays, and the store can be left clean.
	if s.AddPage(1) {
		return fail("a page on a full disk")
	}
	if _, half, size := s.IndexRegion(); s.BackIndex(half[0], size) == nil {
		return fail("an index on a full disk")
	}
	if err := s.SetState(mmapslab.Clean, id); err != nil {
		return fail(err)
	}
	return 0
}
