package hearth_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hearth"
)

// testdata/golden has files as builds have left them: of each version of the format, one after a clean stop and one after a kill. They stay as they are for ever; a build that changes
// the format, in whatever way, adds its own by -golden.
var goldenName = flag.String("golden", "", "write files of this build, by this name, into testdata/golden")

// goldenFiles are the names, and why this build starts cold on a file; those without a reason it must take over for ever.
var goldenFiles = []struct{ name, cold string }{
	{"v1", "format version 1, want 2"},
	{"v2", ""},          // data chunks name their item
	{"v2-link-sum", ""}, // and the links have a checksum
}

func goldenOptions(path string) hearth.Options {
	return hearth.Options{Path: path, MemoryLimit: 2 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10, SlabSizes: []int{512, 2048}, Clock: newClock()}
}

// fillGolden stores something of everything: small values, a chained one, one that was replaced, one that grew, a number, one that was touched; and what is dead by now.
func fillGolden(t *testing.T, c *hearth.Cache, clock *fakeClock) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		set := func(key, value string, exptime int64) {
			if _, st := store(s, hearth.Set, key, value, exptime, 0); st != hearth.OK {
				t.Fatal(key, st)
			}
		}
		set("flushed", "f", 0)
		s.FlushAll(0)
		for i := range 100 {
			set(fmt.Sprint("key", i), fileValue(i+1), 0)
		}
		set("chained", fileValue(500), 0)
		set("replaced", "old", 0)
		set("replaced", "new", 0)
		set("grown", "one ", 0)
		store(s, hearth.Append, "grown", "two", 0, 0)
		set("number", "41", 0)
		s.Incr([]byte("number"), 1)
		set("touched", "t", 10)
		s.Touch([]byte("touched"), 4_000_000_000)
		set("deleted", "d", 0)
		s.Delete([]byte("deleted"))
		set("expired", "e", 10)
	})
	clock.pass(c, 20)
}

func wantGolden(t *testing.T, c *hearth.Cache) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for i := range 100 {
			wantValue(t, s, fmt.Sprint("key", i), fileValue(i+1))
		}
		for key, want := range map[string]string{"chained": fileValue(500), "replaced": "new", "grown": "one two", "number": "42", "touched": "t"} {
			wantValue(t, s, key, want)
		}
		for _, key := range []string{"flushed", "deleted", "expired"} {
			wantMiss(t, s, key)
		}
		var it hearth.Item
		if s.Get([]byte("touched"), &it); it.Exptime != 4_000_000_000 || it.Flags != 7 || it.CAS == 0 {
			t.Errorf("touched has exptime %d, flags %d, cas %d", it.Exptime, it.Flags, it.CAS)
		}
	})
}

const goldenBlock = 4096

// packGolden writes a file's size and those of its blocks that are not zero, each behind its offset.
func packGolden(t *testing.T, from, to string) {
	t.Helper()
	all, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	binary.Write(z, binary.LittleEndian, int64(len(all)))
	for off := 0; off < len(all); off += goldenBlock {
		if block := all[off : off+goldenBlock]; !bytes.Equal(block, make([]byte, goldenBlock)) {
			binary.Write(z, binary.LittleEndian, int64(off))
			z.Write(block)
		}
	}
	if z.Close(); os.MkdirAll(filepath.Dir(to), 0o755) != nil || os.WriteFile(to, b.Bytes(), 0o644) != nil {
		t.Fatal("cannot write ", to)
	}
}

// unpackGolden gives the file at the path, which stays the same file, the contents that were packed.
func unpackGolden(t *testing.T, from, to string) {
	t.Helper()
	packed, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size, off int64
	if err := binary.Read(z, binary.LittleEndian, &size); err != nil || f.Truncate(size) != nil {
		t.Fatal(err)
	}
	for block := make([]byte, goldenBlock); ; {
		if err := binary.Read(z, binary.LittleEndian, &off); err == io.EOF {
			return
		}
		if _, err := io.ReadFull(z, block); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(block, off); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesOfEarlierBuilds(t *testing.T) {
	if *goldenName != "" {
		clock := newClock()
		o := goldenOptions(filepath.Join(t.TempDir(), "slab"))
		o.Clock = clock
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		fillGolden(t, c, clock)
		wantGolden(t, c)
		packGolden(t, o.Path, "testdata/golden/"+*goldenName+"-killed.gz") // nothing is under way
		closeCache(t, c)
		packGolden(t, o.Path, "testdata/golden/"+*goldenName+"-clean.gz")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the files are of another processor")
	}
	for _, golden := range goldenFiles {
		for _, kind := range []string{"clean", "unclean"} {
			t.Run(golden.name+" "+kind, func(t *testing.T) {
				dir, err := os.MkdirTemp(shm(), "hearth-golden")
				if err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(dir)
				clock := newClock()
				clock.pass(nil, 100)
				o := goldenOptions(filepath.Join(dir, "slab"))
				o.Clock = clock
				// As if it had been written here: a copy of a file that was not closed would be cold.
				c, err := hearth.Open(o)
				if err != nil {
					t.Fatal(err)
				}
				closeCache(t, c)
				var here [24]byte // mount, device, inode
				editSuper(t, o.Path, func(sb []byte) { copy(here[:], sb[152:]) })
				unpackGolden(t, "testdata/golden/"+golden.name+map[string]string{"clean": "-clean.gz", "unclean": "-killed.gz"}[kind], o.Path)
				editSuper(t, o.Path, func(sb []byte) { copy(sb[152:], here[:]) })
				if c, err = hearth.Open(o); err != nil {
					t.Fatal(err)
				}
				c.WaitSwept()
				st := c.Stats()
				if golden.cold != "" {
					if st.RestartKind != "cold" || !strings.Contains(st.RestartReason, golden.cold) || st.CurrItems != 0 {
						t.Errorf("%s with %d items: %s, want cold: %s", st.RestartKind, st.CurrItems, st.RestartReason, golden.cold)
					}
					fillGolden(t, c, clock)
				} else if st.RestartKind != kind {
					t.Errorf("%s: %s, want %s", st.RestartKind, st.RestartReason, kind)
				}
				check(t, c)
				wantGolden(t, c)
				churn(t, c, 900, 5000) // free lists and LRU are whole
				check(t, c)
				closeCache(t, c)
			})
		}
	}
}
