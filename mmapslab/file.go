package mmapslab

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"

	"hearth/mmapslab/fault"
)

// ErrLocked is returned by OpenFile when another process holds the file.
var ErrLocked = errors.New("in use by another process")

// File is an opened and locked slab file, before anything in it was changed. The lock belongs to the open file description: it ends with
// the process, however that ends, and with Close. The os.File must stay referenced, since its finalizer would drop the lock.
type File struct {
	f    *os.File
	path string

	heap  bool   // there is no f: see HeapFile
	arena *Arena // of a file on the heap

	// Super is the newest valid superblock; nil when there is none, and Reason tells why.
	Super  *Superblock
	Reason string
	// Copies are both copies of the superblock.
	Copies []SuperCopy
	// Size is the file's length in bytes.
	Size int64
	// Device, Inode and MountID are those of the file now.
	Device, Inode, MountID uint64
	// OnDisk is false for tmpfs and its like, whose contents cannot outlive a boot.
	OnDisk bool
	// LastSecond is the cache's time when the last process wrote it, once a second; 0 when there is no superblock.
	LastSecond uint64
	// Note is the beginning of what is behind the end of the layout: see OpenNotes. Empty: nothing.
	Note string
}

// HeapFile returns a file on the Go heap, as if it had just been opened: for tests that look at restarts with the race detector, or at what single stores
// leave. arena is the memory of a store that was in such a file before; nil: the file is new.
func HeapFile(arena *Arena) *File {
	file := &File{path: "the heap", heap: true, arena: arena, Reason: "the file is new"}
	if arena != nil {
		file.Size = arena.Size()
		file.readSuper(arena.mem[:min(superblockB+superblockSize, len(arena.mem))])
	}
	return file
}

// OpenFile opens or makes the file with mode 0600, locks it, and reads its superblocks. It changes no byte of an existing file. When another
// process holds the lock it tries until wait is over and then returns ErrLocked, wrapped with that process's pid.
func OpenFile(path string, wait time.Duration) (*File, error) {
	deadline := time.Now().Add(max(wait, leastWait))
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("mmapslab: open: %w", err)
		}
		same := false
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Somebody may have put another file in its place before we had the lock.
			same, err = isAt(f, path)
		}
		if same {
			file := &File{f: f, path: path}
			if err = file.look(); err == nil {
				return file, nil
			}
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("mmapslab: open %s: %w, pid %s", path, ErrLocked, holder(f))
		}
		f.Close()
		if err != nil && !(errors.Is(err, ErrLocked) && time.Now().Before(deadline)) {
			return nil, err
		}
		if err != nil {
			time.Sleep(min(10*time.Millisecond, time.Until(deadline)))
		}
	}
}

// Inherit is OpenFile for a file that is open and locked already, by this process or by the one that started it. The lock belongs to the open file description,
// and that lives while anybody has a descriptor of it: f stays the caller's, and until it is closed the lock is held, also after Close. To lock it once more
// changes nothing when the lock is there, which it must be; so there is no moment at which a third process could get in between two that share f, whichever
// of them dies. They themselves must agree on who of them uses the file. It changes no byte.
func Inherit(f *os.File, path string) (*File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: inherit %s: %w", path, err)
	}
	file := &File{f: os.NewFile(uintptr(fd), path), path: path}
	same, err := isAt(file.f, path)
	switch {
	case err != nil:
	case !same:
		err = fmt.Errorf("mmapslab: inherit %s: there is another file now, want the one that was handed over", path)
	case unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil:
		err = fmt.Errorf("mmapslab: inherit %s: %w, pid %s", path, ErrLocked, holder(file.f))
	default:
		err = file.look()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// isAt tells whether the open file is still the one at path.
func isAt(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("mmapslab: open: %w", err)
	}
	if !mine.Mode().IsRegular() {
		return false, fmt.Errorf("mmapslab: open %s: it is %s, want a regular file", path, mine.Mode().Type())
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there), nil
}

// holder finds the pid of the process that has the lock: from the kernel's list, else from the superblock.
func holder(f *os.File) string { return cmp.Or(lockHolder(f), superPID(f)) }

// superPID is the pid in the superblock.
func superPID(f *os.File) string {
	buf := make([]byte, superblockSize)
	if _, err := f.ReadAt(buf, superblockA); err == nil {
		if sb, _ := decodeSuperblock(buf); sb != nil {
			return strconv.Itoa(int(sb.PID))
		}
	}
	return "unknown"
}

// look reads what a restart is judged by.
func (file *File) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.f.Fd()), &st); err != nil {
		return fmt.Errorf("mmapslab: open %s: fstat: %w", file.path, err)
	}
	file.Size, file.Device, file.Inode = st.Size, uint64(st.Dev), st.Ino
	if err := file.lookAround(); err != nil {
		return fmt.Errorf("mmapslab: open %s: %w", file.path, err)
	}
	if file.Size == 0 {
		file.Reason = "the file is new"
		return nil
	}
	buf := make([]byte, superblockB+superblockSize)
	n, err := file.f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("mmapslab: open %s: %w", file.path, err)
	}
	file.readSuper(buf[:n])
	return nil
}

// readSuper picks the superblock that counts, from the beginning of the file.
func (file *File) readSuper(buf []byte) {
	file.Reason = ""
	for _, at := range []int{superblockA, superblockB} {
		sb, why := decodeSuperblock(buf[min(at, len(buf)):min(at+superblockSize, len(buf))])
		file.Copies = append(file.Copies, SuperCopy{int64(at), sb, why})
		switch {
		case sb == nil && file.Super == nil:
			if file.Reason == "" {
				file.Reason = why
			}
		case sb != nil && (file.Super == nil || sb.Version == file.Super.Version && sb.Sequence > file.Super.Sequence ||
			sb.Version == Version && file.Super.Version != Version):
			// A copy of another version has no checksum that we could compute: one that is ours and whole counts more, since the other
			// may be a flipped bit, or a newer build that died before it changed anything else.
			file.Super = sb
		}
	}
	if file.Super != nil && file.Super.Version == Version && file.Super.Layout.Valid() {
		file.LastSecond = file.word(wordClock)
		const noteMost = 4096
		file.Note = strings.Trim(string(file.read(int64(file.Super.Layout.End), noteMost)), "\x00")
	}
}

// read returns up to n bytes at an offset: fewer where the file ends.
func (file *File) read(at int64, n int) []byte {
	buf := make([]byte, n)
	if file.heap {
		return buf[:copy(buf, file.arena.mem[min(at, file.arena.Size()):])]
	}
	n, _ = file.f.ReadAt(buf, at)
	return buf[:n]
}

// word reads one of the live words, 0 if it cannot.
func (file *File) word(at int64) uint64 {
	if b := file.read(at, 8); len(b) == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

// OpenNotes opens the file a second time, to append to it: what is written there lands behind the end of the layout, where it is in nobody's way, and the next
// OpenFile returns it as Note. It is for the last words of a dying process, which the Go runtime writes by itself to where debug.SetCrashOutput says. Appending,
// rather than writing at the layout's end: a file that was cut off stays one.
func (file *File) OpenNotes() (*os.File, error) {
	f, err := file.openAgain(os.O_WRONLY | os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: open %s for notes: %w", file.path, err)
	}
	return f, nil
}

// TakeNote removes the note and, when it tells of a fault of the dead process's own, counts that in the superblocks, whose state stays as it is. It is done before anything
// else, so that a process that dies while it attaches is counted, however soon. The note goes first: a kill in between loses a count, and makes none up.
func (file *File) TakeNote(ownFault bool) error {
	if file.Note == "" {
		return nil
	}
	if err := file.f.Truncate(int64(file.Super.Layout.End)); err != nil {
		return fmt.Errorf("mmapslab: set size of %s to %d: %w", file.path, file.Super.Layout.End, err)
	}
	file.Size = int64(file.Super.Layout.End)
	if !ownFault {
		return nil
	}
	fault.Point("mmapslab.note.taken")
	file.Super.OwnFaults++
	file.Super.Sequence++
	buf := file.Super.encode()
	for _, at := range []int64{superblockB, superblockA} {
		if _, err := file.f.WriteAt(buf, at); err != nil {
			return fmt.Errorf("mmapslab: write superblock of %s: %w", file.path, err)
		}
	}
	return nil
}

// LastCAS returns the highest CAS that the file remembers, 0 if it is unreadable. A cold start goes on from there.
func (file *File) LastCAS() uint64 {
	if file.Super == nil || file.Super.Version != Version {
		return 0
	}
	return file.word(wordCAS)
}

// Path returns the path the file was opened by.
func (file *File) Path() string { return file.path }

// Close gives the lock and the file up.
func (file *File) Close() error {
	if file.heap {
		return nil
	}
	return file.f.Close()
}

// Share returns another descriptor of the open file, and so of its lock: see Inherit.
func (file *File) Share() (*os.File, error) {
	fd, err := unix.FcntlInt(file.f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: share %s: %w", file.path, err)
	}
	return os.NewFile(uintptr(fd), file.path), nil
}

// Chown gives the file to a user and group, for a server that drops root and must open it again later.
func (file *File) Chown(uid, gid int) error { return file.f.Chown(uid, gid) }

// mapFile maps the file with room to grow: the mapping is as long as the layout, the file need not be.
func (file *File) mapFile(length int64) (*Arena, error) {
	if file.heap {
		if file.arena == nil || file.arena.Size() != length {
			file.arena = NewHeapArena(length)
		}
		return file.arena, nil
	}
	m, err := mmap.MapRegion(file.f, int(length), mmap.RDWR, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: map %s: %w", file.path, err)
	}
	return &Arena{mem: m, unmap: func() error { return m.Unmap() }}, nil
}

// newAnonymousArena reserves address space; the kernel backs what is touched. mmap-go has no NORESERVE, without which the kernel
// would refuse a layout whose room is larger than the machine. It begins where a huge page may; older kernels do not see to that.
func newAnonymousArena(length int64) (*Arena, error) {
	m, err := unix.Mmap(-1, 0, int(length)+hugeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: map %d bytes of anonymous memory: %w", length, err)
	}
	from := alignedIn(m, hugeSize)
	return &Arena{mem: m[from : from+int(length) : from+int(length)], unmap: func() error { return unix.Munmap(m) }}, nil
}

// back makes sure that the memory of [off, off+n) exists before it is touched: a full disk is an error here and would be a SIGBUS later
// (R10). It faults the pages in by a system call, so that no processor of the Go scheduler is held by page faults.
func (s *Store) back(off, n int64) error {
	if s.hugePages && s.noHugePages == nil {
		s.populate(off, n) // fallocate on a tmpfs knows of no advice: it would take small pages
	}
	if err := s.allocate(off, n); err != nil {
		return err
	}
	if s.arena.unmap != nil {
		s.populate(off, n)
	}
	return nil
}

// Discard zeroes [off, off+n) and gives its memory back, where the system can. Both must be multiples of 4096.
func (s *Store) Discard(off, n int64) error {
	if s.arena.unmap == nil {
		clear(s.arena.Bytes(off, int(n))) // nobody uses it, as nobody could while it is punched out
		return nil
	}
	return s.discard(off, n)
}

// sync writes [off, off+n) to the disk. The system wants whole pages of memory.
func (s *Store) sync(off, n int64) error {
	from := off &^ int64(os.Getpagesize()-1)
	if err := unix.Msync(s.arena.mem[from:off+n], unix.MS_SYNC); err != nil {
		return fmt.Errorf("mmapslab: sync %s: %w", s.file.path, err)
	}
	fault.Point("mmapslab.synced")
	return nil
}
