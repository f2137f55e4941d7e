package hearth_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth"
	"hearth/mmapslab"
)

// fillFile stores n items of mixed sizes in a new file, a few of them chained, and stops: clean, or as a kill would.
func fillFile(t *testing.T, o hearth.Options, n int, clean bool) {
	t.Helper()
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if _, st := store(s, hearth.Set, fmt.Sprint("key", i), fileValue(i), 0, 0); st != hearth.OK {
				t.Fatal(i, st)
			}
			if i%3 == 0 { // chunks that come free again
				store(s, hearth.Set, "gone", strings.Repeat("g", i%900), 0, 0)
			}
		}
		s.Delete([]byte("gone"))
	})
	if !clean {
		if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
		return
	}
	check(t, c)
	closeCache(t, c)
}

func fileValue(i int) string {
	size := i % 700
	if i%500 == 0 {
		size = 100_000
	}
	return strings.Repeat(fmt.Sprint(i, " "), size/5+1)
}

// wantFile opens the file and wants each item to be whole, or to be missing where that is allowed; the cache must go on working.
func wantFile(t *testing.T, o hearth.Options, n int, kind string, missing bool) (found int, reason string) {
	t.Helper()
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c.WaitSwept()
	st := c.Stats()
	if st.RestartKind != kind {
		t.Errorf("start %s: %s, want %s", st.RestartKind, st.RestartReason, kind)
	}
	check(t, c)
	do(c, func(s *hearth.Session) {
		for i := range n {
			v, ok := get(s, fmt.Sprint("key", i))
			if ok && v != fileValue(i) || !ok && !missing {
				t.Fatalf("key%d: found %t, %.30q", i, ok, v)
			}
			if ok {
				found++
			}
		}
		wantMiss(t, s, "gone")
	})
	if items := int(c.Stats().CurrItems); n > 0 && items != found { // a sweep is over since check
		t.Errorf("curr_items %d, found %d", items, found)
	}
	// Free lists and LRU are whole: memory can be filled several times.
	churn(t, c, 900, 5000)
	churn(t, c, 100, 5000)
	check(t, c)
	closeCache(t, c)
	return found, st.RestartReason
}

func TestOtherOptionsKeepTheCacheWarm(t *testing.T) {
	base := hearth.Options{MemoryLimit: 16 << 20}
	const n = 5000
	for name, change := range map[string]func(o *hearth.Options){
		"same":      func(o *hearth.Options) {},
		"-m up":     func(o *hearth.Options) { o.MemoryLimit = 100 << 20 },
		"-f":        func(o *hearth.Options) { o.GrowthFactor = 1.5 },
		"-f little": func(o *hearth.Options) { o.GrowthFactor = 1.26 },
		"-n":        func(o *hearth.Options) { o.MinSpace = 100 },
		"-I":        func(o *hearth.Options) { o.MaxItemSize = 4 << 20 },
		"chunk max": func(o *hearth.Options) { o.ChunkMax = 64 << 10 },
		"-C":        func(o *hearth.Options) { o.NoCAS = true },
		"sizes":     func(o *hearth.Options) { o.SlabSizes = []int{128, 1000, 5000, 20000} },
	} {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,clean=%t", name, clean), func(t *testing.T) {
				o := base
				o.Path = filepath.Join(t.TempDir(), "slab")
				fillFile(t, o, n, clean)
				kind := map[bool]string{true: "clean", false: "unclean"}[clean]
				change(&o)
				wantFile(t, o, n, kind, false)
			})
		}
	}
}

// A class table that begins as the old one: the checkpoint's free lists must not be taken up in part, since the sweep makes them anew.
func TestAnotherClassTableDoesNotListChunksTwice(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, SlabSizes: []int{96, 200, 1000}}
	fillFile(t, o, 3000, true)
	o.SlabSizes = []int{96, 200, 1200}
	_, reason := wantFile(t, o, 3000, "clean", false)
	if !strings.Contains(reason, "; swept, since mmapslab: checkpoint: class 3 has chunks of 1000 bytes, want 1200") {
		t.Error(reason)
	}
}

func TestSmallerMemoryLimitKeepsWhatFits(t *testing.T) {
	for _, clean := range []bool{true, false} {
		o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
		const n = 20000
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		do(c, func(s *hearth.Session) {
			for i := range n {
				store(s, hearth.Set, fmt.Sprint("key", i), fileValue(i), 0, 0)
			}
		})
		if clean {
			closeCache(t, c)
		} else if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
		o.MemoryLimit = 8 << 20
		found, reason := wantFile(t, o, n, map[bool]string{true: "clean", false: "unclean"}[clean], true)
		if found < n/4 || found == n {
			t.Errorf("%d of %d items kept (%s)", found, n, reason)
		}
	}
}

func TestColdStartsNameBothValues(t *testing.T) {
	clock := newClock()
	fill := func(t *testing.T, clean bool) hearth.Options {
		o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, Clock: clock}
		fillFile(t, o, 100, clean)
		return o
	}
	cold := func(t *testing.T, o hearth.Options, want string) {
		t.Helper()
		found, reason := wantFile(t, o, 100, "cold", true)
		if found != 0 || !strings.Contains(reason, want) {
			t.Errorf("%d items, %q, want %q", found, reason, want)
		}
		wantFile(t, o, 0, "clean", true) // it is a file as any other after that
	}
	t.Run("new", func(t *testing.T) {
		cold(t, hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}, "the file is new")
	})
	t.Run("garbage", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "slab")
		if err := os.WriteFile(path, []byte(strings.Repeat("garbage ", 4000)), 0o600); err != nil {
			t.Fatal(err)
		}
		cold(t, hearth.Options{Path: path, MemoryLimit: 16 << 20}, `signature "garbage ", want "Hearth\r\n"`)
	})
	t.Run("cut off", func(t *testing.T) {
		o := fill(t, true)
		if err := os.Truncate(o.Path, 40<<20); err != nil {
			t.Fatal(err)
		}
		cold(t, o, "file of 41943040 bytes, want")
	})
	t.Run("no room", func(t *testing.T) {
		o := fill(t, true)
		o.MemoryLimit = 2 << 30
		cold(t, o, "room for 1024 pages of memory, want 2048")
	})
	t.Run("another boot, killed", func(t *testing.T) {
		o := fill(t, false)
		other := newClock()
		other.id = 2
		o.Clock = other
		cold(t, o, "written under boot 01000000000000000000000000000000, now 02000000000000000000000000000000")
	})
	t.Run("index words", func(t *testing.T) {
		o := fill(t, true)
		f, err := os.OpenFile(o.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0xff}, 8192+2*64); err != nil {
			t.Fatal(err)
		}
		f.Close()
		cold(t, o, "index: corrupt state words")
	})
}

func TestDowntimeCountsForTTLs(t *testing.T) {
	clock := newClock()
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 4 << 20, MaxItemSize: 1 << 20, Clock: clock}
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		store(s, hearth.Set, "short", "v", 10, 0)
		store(s, hearth.Set, "long", "v", 1000, 0)
		s.FlushAll(0)
		store(s, hearth.Set, "short", "v", 10, 0)
		store(s, hearth.Set, "long", "v", 1000, 0)
		s.FlushAll(501)
	})
	closeCache(t, c)
	clock.pass(nil, 100)
	clock.wall.Add(-5000) // a step of the wall clock is nothing within a boot
	c = open(t, o)
	if c.Now() != 1_700_000_100 {
		t.Errorf("the cache's time is %d", c.Now())
	}
	do(c, func(s *hearth.Session) { wantMiss(t, s, "short"); wantValue(t, s, "long", "v") })
	clock.pass(c, 400)
	do(c, func(s *hearth.Session) { wantMiss(t, s, "long") }) // the flush of before the restart
}

func TestCASGoesOnOverEveryStart(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 4 << 20, MaxItemSize: 1 << 20}
	var last uint64
	for round, end := range []string{"clean", "kill", "cold", "kill", "clean"} {
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		do(c, func(s *hearth.Session) {
			for i := range 1000 {
				id, _ := store(s, hearth.Set, fmt.Sprint(i), "v", 0, 0)
				if id <= last {
					t.Fatalf("round %d: CAS %d after %d", round, id, last)
				}
				last = id
			}
		})
		switch end {
		case "clean":
			closeCache(t, c)
		default:
			if err := c.Abandon(); err != nil {
				t.Fatal(err)
			}
		}
		if end == "cold" {
			f, err := os.OpenFile(o.Path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{0xff}, 8192+2*64); err != nil { // the index's state
				t.Fatal(err)
			}
			f.Close()
		}
	}
}

// A file that is cut short under the keeper is told to who asked, and Close saves nothing.
func TestAFaultOfTheKeeperIsTold(t *testing.T) {
	clock := newClock()
	path := filepath.Join(t.TempDir(), "slab")
	c, err := hearth.Open(hearth.Options{Path: path, MemoryLimit: 8 << 20, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	faults := c.Faults()
	c.Pause(true)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	clock.pass(nil, 1) // the keeper stores the time into the file
	c.Pause(false)
	f := <-faults
	if f.Addr == 0 || !strings.Contains(f.Error(), "hearth: fault in the cache's memory at address 0x") {
		t.Errorf("fault %v", f)
	}
	if err := c.Close(); !errors.As(err, new(*hearth.Fault)) {
		t.Errorf("close: %v, want the fault", err)
	}
}

// Links that a disk has changed since the stop are not used: free lists would hand live chunks out. A build before this one leaves no checksum, which is the same.
func TestLinksThatChangedOnADiskAreMadeAnew(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
	for _, what := range []string{"nothing", "an item's link", "a free chunk's link", "no checksum"} {
		fillFile(t, o, 1000, true)
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		item, free := c.LinkOffset("key77"), c.LinkOffset("key78")
		do(c, func(s *hearth.Session) { s.Delete([]byte("key78")) })
		closeCache(t, c)
		swept := true
		switch what {
		case "nothing":
			swept = false
		case "an item's link":
			flipAt(t, o.Path, item, 1)
		case "a free chunk's link":
			flipAt(t, o.Path, free+4, 1)
		case "no checksum":
			flipAt(t, o.Path, 12288+15372+8, 0xff)
		}
		file, err := mmapslab.OpenFile(o.Path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if file.Close(); !file.OnDisk {
			t.Skip("the directory for tests is in memory")
		}
		_, reason := wantFile(t, o, 0, "clean", true)
		if want := "; swept, since mmapslab: checkpoint: corrupt: checksum of links"; strings.Contains(reason, want) != swept {
			t.Errorf("%s: %s", what, reason)
		}
	}
}
