//go:build !portable

package mmapslab

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	portable  = false // for tests
	leastWait = 0     // nobody but servers locks files
)

// lockHolder is the kernel's answer, "" for none.
func lockHolder(f *os.File) string {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) == nil {
		if locks, err := os.ReadFile("/proc/locks"); err == nil {
			want := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
			for line := range bytes.Lines(locks) {
				if fields := bytes.Fields(line); bytes.Contains(line, []byte(want)) && len(fields) > 4 && string(fields[1]) == "FLOCK" {
					return string(fields[4])
				}
			}
		}
	}
	return ""
}

// lookAround reads where the file is: mount and file system.
func (file *File) lookAround() error {
	var stx unix.Statx_t
	const mountIDUnique = 0x4000 // STATX_MNT_ID_UNIQUE, Linux 6.8; older kernels leave the plain id, which may be used again
	if unix.Statx(int(file.f.Fd()), "", unix.AT_EMPTY_PATH, mountIDUnique|unix.STATX_MNT_ID, &stx) == nil {
		file.MountID = stx.Mnt_id
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.f.Fd()), &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	switch int64(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC:
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.V9FS_MAGIC:
		return fmt.Errorf("file system type %#x is a network's, want a local one", fs.Type)
	default:
		file.OnDisk = true
	}
	return nil
}

// openAgain opens the file by its descriptor: the one at the path may be another one by now.
func (file *File) openAgain(flag int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.f.Fd()), flag, 0)
}

// allocate has the file's disk set space aside.
func (s *Store) allocate(off, n int64) error {
	if s.file == nil || s.file.heap {
		return nil
	}
	if err := s.file.fallocate(0, off, n); err != nil {
		return fmt.Errorf("mmapslab: allocate %d bytes at %d of %s: %w", n, off, s.file.path, err)
	}
	return nil
}

// fallocate is the system's, gone on with after each signal.
func (file *File) fallocate(mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(int(file.f.Fd()), unix.FALLOC_FL_KEEP_SIZE|mode, off, n); err != unix.EINTR {
			return err
		}
	}
}

// populate faults pages in, where it can: on a full disk it does not. Kernels before 5.14 do not know it: then they fault in one by one.
func (s *Store) populate(off, n int64) {
	const pageMask = 4095
	from, to := off&^pageMask, (off+n+pageMask)&^pageMask
	_ = unix.Madvise(s.arena.mem[from:min(to, int64(len(s.arena.mem)))], unix.MADV_POPULATE_WRITE)
}

// discard is Discard of mapped memory.
func (s *Store) discard(off, n int64) error {
	if s.file != nil {
		if err := s.file.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n); err != nil {
			return fmt.Errorf("mmapslab: punch %d bytes at %d of %s: %w", n, off, s.file.path, err)
		}
	} else if err := unix.Madvise(s.arena.mem[off:off+n], unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("mmapslab: discard %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// want reads mapped memory ahead. It is a hint: before Linux 5.14 the faults do it.
func want(mapped []byte) { unix.Madvise(mapped, unix.MADV_POPULATE_READ) }
