//go:build !portable

package mmapslab

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages where requests look: the index and the slab pages. The rest is little, or, like the links, would take more memory
// than it uses. It returns why there will be none, as far as that can be known; they are an optimization, so nothing else fails.
func (s *Store) adviseHuge() error {
	for _, r := range [][2]uint64{{s.layout.Index[0], s.layout.Links}, {s.layout.Pages, s.layout.End}} {
		if err := unix.Madvise(s.arena.mem[r[0]:r[1]], unix.MADV_HUGEPAGE); err != nil {
			return fmt.Errorf("mmapslab: huge pages: madvise: %w", err)
		}
	}
	if s.file != nil {
		return s.file.hugePages()
	}
	return nil
}

// hugePages tells whether the file's file system gives huge pages to those who ask: a disk's never does, a tmpfs if it was mounted so, or if the
// kernel is set to do it for all.
func (file *File) hugePages() error {
	if file.OnDisk {
		return fmt.Errorf("mmapslab: huge pages: %s is on a disk, want a tmpfs mounted with huge=advise", file.path)
	}
	if all, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled"); err == nil && bytes.Contains(all, []byte("[force]")) {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil // then it is not known
	}
	device := fmt.Appendf(nil, "%d:%d", unix.Major(file.Device), unix.Minor(file.Device))
	for line := range bytes.Lines(mounts) {
		// 36 35 0:31 / /dev/shm rw,nosuid shared:1 - tmpfs tmpfs rw,size=1048576k,huge=advise
		if fields := bytes.Fields(line); len(fields) < 6 || !bytes.Equal(fields[2], device) {
			continue
		}
		_, about, _ := bytes.Cut(line, []byte(" - "))
		if bytes.HasPrefix(about, []byte("tmpfs ")) && (!bytes.Contains(about, []byte(",huge=")) || bytes.Contains(about, []byte(",huge=never"))) {
			return fmt.Errorf("mmapslab: huge pages: the tmpfs of %s gives none, want it mounted with huge=advise", file.path)
		}
		return nil
	}
	return nil
}
