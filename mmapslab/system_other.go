//go:build !linux || portable

package mmapslab

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What Linux has of its own, for systems that lack it. On Linux this is built with -tags portable, to be tested.

const (
	portable = true
	// leastWait is how long OpenFile waits whatever it is told: see lockHolder.
	leastWait = 50 * time.Millisecond
)

// lockHolder tries the lock, since no list of locks can be asked, and finds the pid in the superblock. For a moment it has the lock itself, if nobody had.
func lockHolder(f *os.File) string {
	again, err := os.Open(f.Name())
	if err != nil {
		return ""
	}
	defer again.Close()
	if same, err := isAt(f, f.Name()); err != nil || !same || !errors.Is(unix.Flock(int(again.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return ""
	}
	return superPID(f)
}

// lookAround reads where the file is, of which nothing can be told: it may be on a disk.
func (file *File) lookAround() error {
	file.OnDisk = true
	return nil
}

// openAgain opens the file at the path, if that is still the same.
func (file *File) openAgain(flag int) (*os.File, error) {
	f, err := os.OpenFile(file.path, flag|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if same, err := isAt(file.f, file.path); err != nil || !same {
		f.Close()
		return nil, errors.Join(err, errors.New("there is another file now"))
	}
	return f, nil
}

// allocate has the file's disk set space aside by a write to each of its blocks, which changes nothing: only the caller uses [off, off+n) as yet.
func (s *Store) allocate(off, n int64) error {
	const block = 4096
	if s.file == nil || s.file.heap {
		return nil
	}
	var one [1]byte
	for at := off; at < off+n; at = at&^(block-1) + block {
		_, err := s.file.f.ReadAt(one[:], at)
		if err == nil {
			_, err = s.file.f.WriteAt(one[:], at)
		}
		if err != nil {
			return fmt.Errorf("mmapslab: allocate %d bytes at %d of %s: %w", n, off, s.file.path, err)
		}
	}
	return nil
}

func (s *Store) populate(off, n int64) {}

// discard is Discard of mapped memory: the system keeps it.
func (s *Store) discard(off, n int64) error {
	clear(s.arena.Bytes(off, int(n)))
	return nil
}

func want([]byte) {}

func (s *Store) adviseHuge() error {
	return errors.New("mmapslab: huge pages: there are none on this system")
}
