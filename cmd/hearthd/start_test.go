package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Where mmapslab's format has its superblocks, and the version in them.
const (
	superblockA, superblockB = 0, 4096
	atVersion                = 8
)

// flip inverts a bit of each byte at the offsets.
func flip(offsets ...int64) func(testing.TB, string) {
	return func(t testing.TB, file string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, at := range offsets {
			var b [1]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 0x40
			if _, err := f.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// resize sets the file's size: n bytes, or its size less -n.
func resize(n int64) func(testing.TB, string) {
	return func(t testing.TB, file string) {
		t.Helper()
		if n < 0 {
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			n += st.Size()
		}
		if err := os.Truncate(file, n); err != nil {
			t.Fatal(err)
		}
	}
}

// overwrite replaces the file's contents by n random bytes.
func overwrite(n int) func(testing.TB, string) {
	return func(t testing.TB, file string) {
		t.Helper()
		garbage := make([]byte, n)
		draw := rand.NewChaCha8([32]byte{byte(n)})
		draw.Read(garbage)
		if err := os.WriteFile(file, garbage, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryFileIsWarmOrColdWithAReason starts on files that are as they should be, damaged, or of other flags, after a clean stop and after a kill: it serves,
// with all items or with none, and says in one line why. The next start is warm in any case.
func TestEveryFileIsWarmOrColdWithAReason(t *testing.T) {
	const items = 100
	for _, c := range []struct {
		name   string
		change func(testing.TB, string) // nil: none
		args   string
		cold   string // in the reason; empty: warm
	}{
		{name: "as it was"},
		{name: "gone", change: func(t testing.TB, file string) { os.Remove(file) }, cold: "the file is new"},
		{name: "empty", change: resize(0), cold: "the file is new"},
		{name: "1 byte", change: resize(1), cold: "1 bytes, want at least"},
		{name: "100 bytes", change: resize(100), cold: "100 bytes, want at least"},
		{name: "one superblock but its end", change: resize(4095), cold: "it was cut off"},
		{name: "one superblock", change: resize(4096), cold: "it was cut off"},
		{name: "a second superblock's start", change: resize(4100), cold: "it was cut off"},
		{name: "only the superblocks", change: resize(8192), cold: "it was cut off"},
		{name: "only the page table", change: resize(1 << 21), cold: "it was cut off"},
		{name: "without its last byte", change: resize(-1), cold: "it was cut off"},
		{name: "without its last page", change: resize(-1 << 20), cold: "it was cut off"},
		{name: "longer", change: func(t testing.TB, file string) {
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			resize(st.Size()+12345)(t, file)
		}},
		{name: "10 bytes of garbage", change: overwrite(10), cold: "10 bytes, want at least"},
		{name: "a page of garbage", change: overwrite(4096), cold: "signature"},
		{name: "a megabyte of garbage", change: overwrite(1 << 20), cold: "signature"},
		{name: "another version", change: flip(superblockA+atVersion, superblockB+atVersion), cold: "format version 66, want 2"},
		{name: "another version in A", change: flip(superblockA + atVersion)},
		{name: "another version in B", change: flip(superblockB + atVersion)},
		{name: "wrong magic in A", change: flip(superblockA)},
		{name: "wrong magic in B", change: flip(superblockB)},
		{name: "wrong magic in both", change: flip(superblockA, superblockB), cold: `signature`},
		{name: "wrong checksum in A", change: flip(superblockA + 100)},
		{name: "wrong checksum in B", change: flip(superblockB + 100)},
		{name: "wrong checksum in both", change: flip(superblockA+100, superblockB+100), cold: "superblock checksum"},
		{name: "wrong magic in A, checksum in B", change: flip(superblockA, superblockB+100), cold: "signature"},
		{name: "more memory", args: "-m 128"},
		{name: "less memory", args: "-m 16"},
		{name: "more memory than there is room for", args: "-m 2000", cold: "room for 1024 pages of memory, want 2000"},
		{name: "one thread", args: "-t 1"},
		{name: "many threads", args: "-t 16"},
		{name: "few connections", args: "-c 10"},
		{name: "another growth factor", args: "-f 1.08"},
		{name: "another first class", args: "-n 500"},
		{name: "larger items", args: "-I 4m"},
		{name: "smaller items", args: "-I 256k -o slab_chunk_max=128"},
		{name: "another table", args: "-o slab_sizes=200-1000-5000"},
		{name: "without cas", args: "-C"},
		{name: "without eviction", args: "-M"},
	} {
		for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("%s after %v", c.name, end), func(t *testing.T) {
				file := newFile(t)
				s := newNumbered(items, 100)
				p := startHearthd(t, "-e", file, "-m", "64")
				if err := s.load(p.addr, 0, items, true, new(atomic.Int64)); err != nil {
					t.Fatal(err)
				}
				p.stop(t, end)
				if c.change != nil {
					c.change(t, file)
				}
				cold := c.cold
				kind := map[syscall.Signal]string{syscall.SIGTERM: "clean", syscall.SIGKILL: "unclean"}[end]
				if cold != "" {
					kind = "cold"
				}
				args := append([]string{"-e", file, "-m", "64"}, strings.Fields(c.args)...)
				for range 2 { // the second time it is a warm start of what the first one made
					p = startHearthd(t, args...)
					verdict := regexp.MustCompile(`start=(\w+) reason=("(?:[^"\\]|\\.)*"|\S*)`).FindAllStringSubmatch(p.stderr.String(), -1)
					if len(verdict) != 1 || verdict[0][1] != kind || !strings.Contains(verdict[0][2], cold) {
						t.Fatalf("verdict %q, want one: %s, %q\n%s", verdict, kind, cold, p.stderr)
					}
					if got := stat(t, p.addr, "restart_kind"); got != kind {
						t.Errorf("restart_kind %s, want %s", got, kind)
					}
					if kind == "cold" {
						clear(s.sent)
						clear(s.acked)
					}
					if _, lost, wrong, err := s.verify(p.addr, 1); err != nil {
						t.Errorf("%d lost, %d wrong: %v", lost, wrong, err)
					}
					if err := s.load(p.addr, 0, items, true, new(atomic.Int64)); err != nil {
						t.Errorf("cannot store: %v", err)
					}
					if code := p.stop(t, syscall.SIGTERM); code != 0 {
						t.Fatalf("exit %d\n%s", code, p.stderr)
					}
					if found := regexp.MustCompile(`(?m)^(panic|fatal error|goroutine |runtime).*`).FindString(p.stderr.String()); found != "" {
						t.Errorf("%s\n%s", found, p.stderr)
					}
					kind, cold = "clean", ""
				}
			})
		}
	}
}

// TestPathThatCannotHoldTheCacheIsRefused: these are for the operator to mend, so it ends, and one line names the path and what is wrong.
func TestPathThatCannotHoldTheCacheIsRefused(t *testing.T) {
	file := newFile(t)
	p := startHearthd(t, "-e", file)
	store(t, p.addr, "k", "value")
	p.stop(t, syscall.SIGTERM)
	dir := filepath.Dir(file)
	os.Chmod(dir, 0o755)
	os.Chmod(file, 0o444)
	link, dangling, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "fifo")
	for _, err := range []error{os.Symlink(file, link), os.Symlink(filepath.Join(dir, "nothing"), dangling), syscall.Mkfifo(fifo, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, want string
		change     func(*exec.Cmd)
	}{
		{dir, "is a directory", nil},
		{link, "too many levels of symbolic links", nil},
		{dangling, "too many levels of symbolic links", nil},
		{fifo, "want a regular file", nil},
		{"/dev/null", "want a regular file", nil},
		{filepath.Join(dir, "no", "such", "directory"), "no such file or directory", nil},
		{filepath.Join(file, "below"), "not a directory", nil},
		{file, "permission denied", unprivileged}, // a read-only file; root may write to it
	} {
		began := time.Now()
		p := launchAs(t, c.change, "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-e", c.path)
		if p.addr != "" {
			t.Errorf("%s: serves\n%s", c.path, p.stderr)
			continue
		}
		code := p.wait(t)
		if text := p.stderr.String(); code <= 0 || strings.Count(text, "\n") != 1 || !strings.Contains(text, c.path) || !strings.Contains(text, c.want) {
			t.Errorf("%s: exit %d with\n%swant one line with the path and %q", c.path, code, text, c.want)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: exit after %v", c.path, took)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); err == nil {
		t.Error("it made the file that a dangling link names")
	}
	os.Chmod(file, 0o600)
	p = startHearthd(t, "-e", file)
	if !holds(t, p.addr, "k", "value") || stat(t, p.addr, "restart_kind") != "clean" {
		t.Errorf("the refused starts have changed the file\n%s", p.stderr)
	}
}

// TestOfManyStartersOneServes starts two to four servers on one file at once, over and over, and kills the one that serves.
func TestOfManyStartersOneServes(t *testing.T) {
	linuxOnly(t)
	rounds := 20
	if os.Getenv("HEARTH_LONG") != "" {
		rounds = 200
	}
	file := newFile(t)
	var longest time.Duration
	defer func() { t.Logf("%d rounds, the longest took %v", rounds, longest) }()
	for round := range rounds {
		began := time.Now()
		all := make([]*proc, 2+round%3)
		var wait sync.WaitGroup
		for i := range all {
			wait.Add(1)
			go func() {
				defer wait.Done()
				all[i] = launch(t, "-e", file)
			}()
		}
		wait.Wait()
		var serving *proc
		var pids []string
		for _, p := range all {
			if p.addr != "" && serving != nil {
				t.Fatalf("two serve:\n%s%s", serving.stderr, p.stderr)
			}
			if p.addr != "" {
				serving = p
			}
			pids = append(pids, strconv.Itoa(p.cmd.Process.Pid))
		}
		if serving == nil {
			t.Fatalf("none serves; the first says\n%s", all[0].stderr)
		}
		for _, p := range all {
			if p == serving {
				continue
			}
			// While the winner is at its start the holder can only be it: nobody else had the lock.
			if code := p.wait(t); code <= 0 || !regexp.MustCompile(fmt.Sprintf(`in use by another process, pid %d\b`, serving.cmd.Process.Pid)).MatchString(p.stderr.String()) {
				t.Errorf("of pids %v, exit %d:\n%swant one that names %d", pids, code, p.stderr, serving.cmd.Process.Pid)
			}
		}
		longest = max(longest, time.Since(began))
		if round > 0 && !holds(t, serving.addr, "k", fmt.Sprint(round-1)) {
			t.Errorf("round %d lost the item\n%s", round, serving.stderr)
		}
		store(t, serving.addr, "k", fmt.Sprint(round))
		serving.stop(t, syscall.SIGKILL)
	}
}

// TestLessMemoryKeepsWhatFits lowers -m below what is stored: part of the items stay, and what stays is right.
func TestLessMemoryKeepsWhatFits(t *testing.T) {
	const items = 30_000
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		file := newFile(t)
		s := newNumbered(items, 1000)
		p := startHearthd(t, "-e", file, "-m", "64")
		if err := s.load(p.addr, 0, items, true, new(atomic.Int64)); err != nil {
			t.Fatal(err)
		}
		p.stop(t, end)
		p = startHearthd(t, "-e", file, "-m", "16")
		_, lost, wrong, err := s.verify(p.addr, 1)
		kind, pages := stat(t, p.addr, "restart_kind"), stat(t, p.addr, "total_malloced")
		if n, _ := strconv.Atoi(pages); kind == "cold" || wrong > 0 || lost == 0 || lost > items*3/4 || n > 17<<20 {
			t.Errorf("restart_kind %s, %d of %d gone, %d wrong (%v), total_malloced %s", kind, lost, items, wrong, err, pages)
		}
		t.Logf("-m 64 to -m 16 after %v: %s, %d of %d stay, total_malloced %s", end, kind, items-lost, items, pages)
		if err := s.load(p.addr, 0, items, true, new(atomic.Int64)); err != nil {
			t.Errorf("cannot store: %v", err)
		}
	}
}

// TestMemoryLimitChangedWhileServing changes the limit by cache_memlimit. At the next start -m counts alone: what fits is there, and what does not fit goes, whether the
// limit in between was higher or lower.
func TestMemoryLimitChangedWhileServing(t *testing.T) {
	for _, test := range []struct {
		first, between, next int // MiB
		items                int // of 8 KB
		fit                  bool
		shrinks              bool // the lower limit took some before the stop, nobody knows how many
	}{
		{first: 16, between: 64, next: 64, items: 5_000, fit: true},
		{first: 16, between: 64, next: 16, items: 5_000},
		{first: 64, between: 16, next: 64, items: 5_000, shrinks: true},
		{first: 64, between: 16, next: 32, items: 5_000},
		{first: 64, between: 16, next: 16, items: 1_000, fit: true},
	} {
		for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("-m %d, cache_memlimit %d, %v, -m %d", test.first, test.between, end, test.next), func(t *testing.T) {
				file := newFile(t)
				s := newNumbered(test.items, 8000)
				p := startHearthd(t, "-e", file, "-m", strconv.Itoa(test.first))
				change := func() {
					if got := talk(t, p.addr, fmt.Sprintf("cache_memlimit %d", test.between)); got[0] != "OK" {
						t.Fatalf("cache_memlimit: %s", got[0])
					}
				}
				if test.between > test.first {
					change()
				}
				if err := s.load(p.addr, 0, test.items, true, new(atomic.Int64)); err != nil {
					t.Fatal(err)
				}
				if test.between < test.first {
					change()
				}
				if limit := number(t, p, "limit_maxbytes"); limit != test.between<<20 {
					t.Errorf("limit_maxbytes %d after cache_memlimit", limit)
				}
				p.stop(t, end)
				kept := test.items
				for round := range 2 { // the second start finds a file that fits
					p = startHearthd(t, "-e", file, "-m", strconv.Itoa(test.next))
					_, lost, wrong, err := s.verify(p.addr, 1)
					kind, limit, malloced := stat(t, p.addr, "restart_kind"), number(t, p, "limit_maxbytes"), number(t, p, "total_malloced")
					t.Logf("start %d: %s, %d of %d items there, limit_maxbytes %d, total_malloced %d", round+1, kind, test.items-lost, test.items, limit, malloced)
					if kind == "cold" || wrong > 0 || limit != test.next<<20 || malloced > (test.next+3)<<20 { // a class's first page may come on top
						t.Errorf("%d wrong: %v", wrong, err)
					}
					switch {
					case test.fit && lost > 0:
						t.Errorf("%d items lost, though all fit", lost)
					case round == 0 && !test.fit && (lost == 0 && !test.shrinks || lost == test.items):
						t.Errorf("%d items lost, want those above the limit", lost)
					case round == 1 && test.items-lost != kept:
						t.Errorf("%d items stayed at the first start, %d at the second", kept, test.items-lost)
					}
					kept = test.items - lost
					p.stop(t, end)
				}
				wantSound(t, file, test.next)
			})
		}
	}
}
