package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/restore"
)

// fixtureNow is the time at which the fixtures were written, and at which tests look at them.
const fixtureNow = 1_900_000_000

// stopClock has files looked at at that time.
func stopClock(t testing.TB) {
	was := inspect
	inspect = func(path string) (*restore.Inspected, error) {
		in, err := was(path)
		if err == nil {
			in.Now = fixtureNow
		}
		return in, err
	}
	t.Cleanup(func() { inspect = was })
}

// thing is an item of a fixture.
type thing struct {
	key     string
	value   []byte
	flags   uint32
	ttl     int64 // 0: never expires; negative: expired
	idle    uint32
	segment int
	fetched bool
	flushed bool
	binary  bool
}

// things are n items of four kinds, a few odd ones, and chained ones; the same each time.
func things(n int) (all []thing) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		th := thing{key: fmt.Sprintf("user:%d", i), flags: uint32(i % 3), idle: uint32(10 * (n - i)), segment: lru.Cold, fetched: i%4 == 0}
		size := 20 + r.IntN(60)
		switch i % 5 {
		case 1:
			th.key, th.ttl, size, th.segment = fmt.Sprintf("session:%d", i), int64(60*(i+1)), 100+r.IntN(100), lru.Hot
		case 2:
			th.key, size, th.segment = fmt.Sprintf("img:thumb:%d", i), 2000+r.IntN(2000), lru.Warm
		case 3:
			th.key, th.ttl = fmt.Sprintf("lock:%d", i), 30
			th.segment = lru.Temp
		}
		th.value = bytes.Repeat([]byte{'a' + byte(i%26)}, size)
		all = append(all, th)
	}
	large := make([]byte, 700_000)
	for i := range large {
		large[i] = byte(i * i >> 8)
	}
	return append(all,
		thing{key: "img:poster", value: large, idle: 5, segment: lru.Warm},
		thing{key: "gone:expired", value: []byte("x"), ttl: -100, idle: 500},
		thing{key: "gone:flushed", value: []byte("x"), flushed: true, idle: 500},
		thing{key: "two words\x00", value: []byte{0, 255, '\r', '\n'}, binary: true, idle: 1},
		thing{key: "empty", idle: 2},
		thing{key: "grüße", value: []byte("schöne"), idle: 3},
	)
}

// fixtureWriter begins a file of so many pages with the default classes.
func fixtureWriter(t testing.TB, path string, pages, items int) *restore.Writer {
	t.Helper()
	w, err := restore.NewWriter(path, restore.WriterOptions{
		Config: mmapslab.Config{Pages: pages, ChunkSizes: mmapslab.ChunkSizes(1.25, 48, mmapslab.PageSize/2)}, Seed: 7, LastCAS: 10_000_000_000, Flush: 1 << 32, Now: fixtureNow, Items: int64(items),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func addThing(t testing.TB, w *restore.Writer, th *thing, cas uint64) {
	t.Helper()
	exptime := uint32(0)
	if th.ttl != 0 {
		exptime = uint32(fixtureNow + th.ttl)
	}
	m := mmapslab.MakeMeta(exptime, fixtureNow-th.idle).WithSegment(th.segment)
	if th.fetched {
		m |= mmapslab.Fetched
	}
	f := mmapslab.Fields{ClientFlags: th.flags, CAS: cas, Epoch: 1}
	if th.flushed {
		f.Epoch = 0
	}
	if th.binary {
		f.Flags = flagBinaryKey
	}
	if !w.Add([]byte(th.key), th.value, f, m) {
		t.Fatalf("no room for %s", th.key)
	}
}

// writeFile makes a slab file as a clean stop leaves it.
func writeFile(t testing.TB, path string, pages int, all []thing) {
	t.Helper()
	w := fixtureWriter(t, path, pages, len(all))
	for i := range all {
		addThing(t, w, &all[i], uint64(1000+i))
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// small makes the fixture of the golden tests in a directory of its own, which becomes the current one.
func small(t testing.TB) string {
	t.Helper()
	stopClock(t)
	dir := memoryDir(t)
	t.Chdir(dir)
	writeFile(t, "small.slab", 16, things(60))
	return "small.slab"
}

// slabctl runs a verb and gives what it prints, and beside it.
func slabctl(t testing.TB, stdin io.Reader, args ...string) (out, beside string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter, a.Reader = &o, &e, stdin
	t.Setenv("COLUMNS", "100")
	err = a.RunContext(context.Background(), flagsFirst(a, append([]string{"slabctl"}, args...)))
	return o.String(), e.String(), err
}

// must runs a verb that has to succeed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	out, beside, err := slabctl(t, strings.NewReader(""), args...)
	if err != nil {
		t.Fatalf("slabctl %v: %v\n%s%s", args, err, out, beside)
	}
	return out
}

// sum is the file's checksum. Blocks of zeros count by their place alone, so that a sparse file need not be read throughout.
func sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	fmt.Fprintln(h, info.Size())
	buf, zeros := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); at < info.Size(); {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			break // no more data
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		for at = from; at < to; {
			n, err := f.ReadAt(buf, at)
			if n == 0 {
				t.Fatal(err)
			}
			if !bytes.Equal(buf[:n], zeros[:n]) {
				fmt.Fprintln(h, at)
				h.Write(buf[:n])
			}
			at += int64(n)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// memoryDir is a directory for the test, in memory where there is a place for it: on a disk each file that is finished waits for the disk.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "slabctl")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// build makes a program of the module in a directory.
func build(t testing.TB, dir, name string) string {
	t.Helper()
	program := filepath.Join(dir, filepath.Base(name))
	if out, err := exec.Command("go", "build", "-o", program, name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// leftovers are files in a directory that begin with a dot, as those do that are not whole yet.
func leftovers(t testing.TB, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}
