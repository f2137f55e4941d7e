package mmapslab_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/mmapslab"
)

// TestMain is also the other processes of the tests: HEARTH_TEST_CHILD says which.
func TestMain(m *testing.M) {
	switch os.Getenv("HEARTH_TEST_CHILD") {
	case "hold":
		f, err := mmapslab.OpenFile(os.Args[1], 0)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		f.Close()
		os.Exit(0)
	case "full disk":
		os.Exit(fullDisk(os.Args[1]))
	}
	os.Exit(m.Run())
}

// child makes a process of this program, which does what is said in TestMain.
func child(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "HEARTH_TEST_CHILD="+what)
	return cmd
}

func TestNamesTheProcessThatHoldsTheFile(t *testing.T) {
	if mmapslab.Portable {
		t.Skip("only Linux tells who has a lock")
	}
	s, path := newFileStore(t, 2, 96)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := sha256.Sum256(head(t, path))
	cmd := child(t, "hold", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); cmd.Wait() }()
	line := make([]byte, 64)
	n, _ := stdout.Read(line)
	if string(line[:n]) != "held\n" {
		t.Fatalf("the other process says %q", line[:n])
	}
	began := time.Now()
	_, err = mmapslab.OpenFile(path, 30*time.Millisecond)
	if !errors.Is(err, mmapslab.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) {
		t.Errorf("got %v, want ErrLocked with pid %d", err, cmd.Process.Pid)
	}
	if took := time.Since(began); took < 30*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited %v, want 30ms", took)
	}
	if sha256.Sum256(head(t, path)) != before {
		t.Error("the attempt changed the file")
	}
	// Whoever waits gets it as soon as the other one ends, however it ends.
	got := make(chan error)
	go func() {
		f, err := mmapslab.OpenFile(path, 10*time.Second)
		if err == nil {
			err = f.Close()
		}
		got <- err
	}()
	cmd.Process.Kill()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestRefusesTheFileTwiceInOneProcess(t *testing.T) {
	if mmapslab.Portable {
		t.Skip("only Linux tells who has a lock")
	}
	path := filepath.Join(t.TempDir(), "slab")
	openFile(t, path)
	if _, err := mmapslab.OpenFile(path, 0); !errors.Is(err, mmapslab.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("got %v, want ErrLocked with our pid %d", err, os.Getpid())
	}
}

func TestKeepsTheLockOverGarbageCollection(t *testing.T) {
	s, path := newFileStore(t, 1, 96)
	for range 2 {
		runtime.GC()
	}
	if _, err := mmapslab.OpenFile(path, 0); !errors.Is(err, mmapslab.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if s.NextCAS(); s.Close() != nil {
		t.Error("close failed")
	}
	openFile(t, path)
}

func TestRefusesWhatIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	real, link, fifo := filepath.Join(dir, "real"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(real, []byte("precious"), 0o600), os.Symlink(real, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{link: "too many levels of symbolic links", fifo: "want a regular file", dir: "is a directory",
		filepath.Join(dir, "none", "slab"): "no such file"} {
		if _, err := mmapslab.OpenFile(path, 0); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "mmapslab: open") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if b := head(t, real); string(b) != "precious" {
		t.Errorf("the link's target is %q now", b)
	}
}

func TestOpensTheFileThatIsAtThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slab")
	old := openFile(t, path)
	// While the first one is held, another file takes its place: there is nobody to wait for.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	now := openFile(t, path)
	if now.Inode == old.Inode {
		t.Error("got the file that was renamed")
	}
	if _, err := mmapslab.OpenFile(path+".old", 0); !errors.Is(err, mmapslab.ErrLocked) {
		t.Errorf("the renamed file: %v, want ErrLocked", err)
	}
}

func TestNeverHoldsAFileThatWasReplacedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slab")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			other := fmt.Sprint(path, i)
			os.WriteFile(other, nil, 0o600)
			os.Rename(other, path)
		}
	}()
	for range 300 {
		f, err := mmapslab.OpenFile(path, time.Second)
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(stop)
	<-done
	f := openFile(t, path)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Ino != f.Inode {
		t.Errorf("inode %d, at the path is %d, %v", f.Inode, st.Ino, err)
	}
}

func TestMakesFilesPrivate(t *testing.T) {
	_, path := newFileStore(t, 1, 96)
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestTellsDiskFromMemory(t *testing.T) {
	if mmapslab.Portable {
		t.Skip("only Linux tells")
	}
	for _, dir := range []string{"/dev/shm", t.TempDir()} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Log(dir, err)
			continue
		}
		dir, err := os.MkdirTemp(dir, "hearth")
		if err != nil {
			t.Log(err)
			continue
		}
		defer os.RemoveAll(dir)
		f := openFile(t, filepath.Join(dir, "slab"))
		if want := int64(fs.Type) != unix.TMPFS_MAGIC; f.OnDisk != want {
			t.Errorf("%s, of type %#x: on disk is %t, want %t", dir, fs.Type, f.OnDisk, want)
		}
		if f.MountID == 0 || f.Inode == 0 || f.Device == 0 || f.Super != nil || f.Reason != "the file is new" {
			t.Errorf("%+v", f)
		}
		f.Close()
	}
}

// head reads the file up to the first pages of the page table.
func head(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mmapslab.PageTable+4096))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// damage changes the file and opens it.
func damage(t *testing.T, path string, change func(f *os.File) error) *mmapslab.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return openFile(t, path)
}

func TestOneSuperblockIsEnough(t *testing.T) {
	s, path := newFileStore(t, 1, 96)
	if err := errors.Join(s.SetState(mmapslab.Clean, id), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole := head(t, path)[:mmapslab.SuperblockB+4096]
	restore := func(f *os.File) error { _, err := f.WriteAt(whole, 0); return err }
	wipe := func(at int64) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), at); return err }
	}
	for name, at := range map[string]int64{"A": mmapslab.SuperblockA, "B": mmapslab.SuperblockB} {
		f := damage(t, path, wipe(at))
		if f.Super == nil || f.Super.State != mmapslab.Clean || f.Super.ClockWall != id.ClockWall {
			t.Errorf("copy %s wiped: %+v, %s", name, f.Super, f.Reason)
		}
		f.Close()
		damage(t, path, restore).Close()
	}
	f := damage(t, path, func(f *os.File) error {
		return errors.Join(wipe(mmapslab.SuperblockA)(f), wipe(mmapslab.SuperblockB)(f))
	})
	if f.Super != nil || !strings.HasPrefix(f.Reason, "signature ") {
		t.Errorf("both wiped: %+v, %s", f.Super, f.Reason)
	}
	f.Close()

	// A copy that was not written to its end, the other one older.
	f = damage(t, path, func(f *os.File) error {
		older, _ := mmapslab.DecodeSuperblock(whole)
		older.Sequence--
		older.State = mmapslab.Running
		newer := *older
		newer.Sequence += 2
		torn := append(newer.Encode()[:100:100], older.Encode()[100:]...)
		_, err := f.WriteAt(older.Encode(), mmapslab.SuperblockA)
		_, err2 := f.WriteAt(torn, mmapslab.SuperblockB)
		return errors.Join(err, err2)
	})
	if f.Super == nil || f.Super.State != mmapslab.Running {
		t.Errorf("torn: %+v, %s, want the older copy", f.Super, f.Reason)
	}
	f.Close()
}

func TestTheNewerSuperblockCounts(t *testing.T) {
	s, path := newFileStore(t, 1, 96)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, newerAt := range []int64{mmapslab.SuperblockA, mmapslab.SuperblockB} {
		f := damage(t, path, func(f *os.File) error {
			sb, why := mmapslab.DecodeSuperblock(head(t, path)[newerAt:])
			if sb == nil {
				return errors.New(why)
			}
			sb.Sequence += 10 * uint64(i+1)
			sb.Stopped = newerAt + 1
			_, err := f.WriteAt(sb.Encode(), newerAt)
			return err
		})
		if f.Super == nil || f.Super.Stopped != newerAt+1 {
			t.Errorf("newer one at %d: %+v", newerAt, f.Super)
		}
		f.Close()
	}
}

func TestFindsEveryFlippedBitOfASuperblock(t *testing.T) {
	s, path := newFileStore(t, 1, 96)
	if err := errors.Join(s.SetState(mmapslab.Clean, id), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole := head(t, path)[:mmapslab.SuperblockB+4096]
	want, why := mmapslab.DecodeSuperblock(whole)
	if want == nil {
		t.Fatal(why)
	}
	for bit := range mmapslab.SuperblockSize * 8 {
		b := bytes.Clone(whole[:mmapslab.SuperblockSize])
		b[bit/8] ^= 1 << (bit % 8)
		if sb, _ := mmapslab.DecodeSuperblock(b); sb != nil && sb.Version == mmapslab.Version {
			t.Errorf("byte %d bit %d: the copy validates", bit/8, bit%8)
		}
	}
	// And the other copy counts, for the flips of each byte, the version's among them.
	for _, at := range []int64{mmapslab.SuperblockA, mmapslab.SuperblockB} {
		for i := range int64(mmapslab.SuperblockSize) {
			f := damage(t, path, func(f *os.File) error {
				_, err := f.WriteAt(whole, 0)
				_, err2 := f.WriteAt([]byte{whole[at+i] ^ 1<<(i%8)}, at+i)
				return errors.Join(err, err2)
			})
			if f.Super == nil || *f.Super != *want {
				t.Errorf("byte %d of the copy at %d: %+v", i, at, f.Super)
			}
			f.Close()
		}
	}
}

func TestRefusesAFileThatIsShorterThanItsLayout(t *testing.T) {
	cfg := mmapslab.Config{Pages: 1, ChunkSizes: []int{96}}
	s, path := newFileStore(t, 1, 96)
	if err := errors.Join(s.SetState(mmapslab.Clean, id), s.Close(), os.Truncate(path, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mmapslab.Attach(openFile(t, path), cfg); !errors.Is(err, mmapslab.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func TestRemembersTheLastCASOverAColdStart(t *testing.T) {
	s, path := newFileStore(t, 1, 96)
	last := s.NextCAS()
	if err := errors.Join(s.SetState(mmapslab.Running, id), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := openFile(t, path).LastCAS(); got != last {
		t.Errorf("%d, want %d", got, last)
	}
}
