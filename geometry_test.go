package hearth_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth"
)

// editSuper changes both superblocks, which stay valid.
func editSuper(t *testing.T, path string, change func(sb []byte)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 208
	for _, at := range []int64{0, 4096} {
		sb := make([]byte, size+4)
		if _, err := f.ReadAt(sb, at); err != nil {
			t.Fatal(err)
		}
		change(sb)
		binary.LittleEndian.PutUint32(sb[size:], crc32.Checksum(sb[:size], crc32.MakeTable(crc32.Castagnoli)))
		if _, err := f.WriteAt(sb, at); err != nil {
			t.Fatal(err)
		}
	}
}

// Files of other builds, machines and shapes, and superblocks that are whole but make no sense, are warm or cold by the rules, and say what was found and what was wanted.
func TestFilesOfOtherBuildsAndMachines(t *testing.T) {
	set32 := func(at int, to uint32) func([]byte) {
		return func(sb []byte) { binary.LittleEndian.PutUint32(sb[at:], to) }
	}
	set64 := func(at int, to uint64) func([]byte) {
		return func(sb []byte) { binary.LittleEndian.PutUint64(sb[at:], to) }
	}
	add64 := func(at int, by uint64) func([]byte) {
		return func(sb []byte) { binary.LittleEndian.PutUint64(sb[at:], binary.LittleEndian.Uint64(sb[at:])+by) }
	}
	const n = 50
	for _, c := range []struct {
		name   string
		change func(sb []byte)
		clean  string // reason of a cold start; "warm"
		killed string // likewise, where it differs
	}{
		{"as it was", func([]byte) {}, "warm", ""},
		{"the version before", set32(8, 1), "format version 1, want 2", ""},
		{"the version after", set32(8, 3), "format version 3, want 2", ""},
		{"version 0", set32(8, 0), "format version 0, want 2", ""},
		{"a version of the far future", set32(8, 1<<31), "format version 2147483648, want 2", ""},
		{"another processor", set32(12, 0x7f), "architecture 0x7f, want", ""},
		{"another byte order", set32(12, 1<<8|1), "architecture 0x101, want", ""},
		{"a feature that may be ignored", set64(16, 1), "warm", ""},
		{"many of these", set64(16, ^uint64(0)), "warm", ""},
		{"a feature that may not", set64(24, 1), "incompatible features 0x1, want none", ""},
		{"the last of these", set64(24, 1<<63), "incompatible features 0x8000000000000000, want none", ""},
		{"no state", set32(40, 0), "state 0, want running or clean", ""},
		{"being made", set32(40, 1), "state creating, want running or clean", ""},
		{"an unknown state", set32(40, 5), "state 5, want running or clean", ""},
		{"two faults of its own", set32(48, 2), "warm", ""},
		{"three", set32(48, 3), "3 servers in a row died by faults of their own, want fewer than 3", ""},
		{"a thousand kills", set32(44, 1000), "warm", ""},
		{"small pages", set32(72, 4096), "page size 4096, want 1048576", ""},
		{"large pages", set32(72, 2<<20), "page size 2097152, want 1048576", ""},
		{"no room", set32(76, 0), "is impossible", ""},
		{"more room", set32(76, 2000), "is impossible", ""},
		{"less room", set32(76, 5), "is impossible", ""},
		{"tiny chunks", set32(80, 8), "is impossible", ""},
		{"other chunks", set32(80, 96), "is impossible", ""},
		{"index half 0 elsewhere", add64(88, 4096), "is impossible", ""},
		{"index half 1 elsewhere", add64(96, 4096), "is impossible", ""},
		{"larger halves", add64(104, 2<<20), "is impossible", ""},
		{"links elsewhere", add64(112, 8), "is impossible", ""},
		{"pages elsewhere", add64(120, 1<<20), "is impossible", ""},
		{"another end", add64(128, ^uint64(0)), "is impossible", ""},
		{"a copy", add64(168, 1), "warm", "it is a copy of one that was not closed"},
		{"on another device", add64(160, 1), "warm", "it is a copy of one that was not closed"},
		{"under another pid", set32(200, 1), "warm", ""},
		{"stopped never", set64(192, 0), "warm", ""},
	} {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, clean %t", c.name, clean), func(t *testing.T) {
				o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 8 << 20, SlabSizes: []int{104, 1000}}
				fillFile(t, o, n, clean)
				editSuper(t, o.Path, c.change)
				want := c.clean
				if !clean && c.killed != "" {
					want = c.killed
				}
				for range 2 { // the second start finds what the first one made of it
					cache, err := hearth.Open(o)
					if err != nil {
						t.Fatal(err)
					}
					cache.WaitSwept()
					st, found := cache.Stats(), 0
					do(cache, func(s *hearth.Session) {
						for i := range n {
							if v, ok := get(s, fmt.Sprint("key", i)); ok && v == fileValue(i) {
								found++
							} else if ok {
								t.Errorf("key%d is %.30q", i, v)
							}
							store(s, hearth.Set, fmt.Sprint("key", i), fileValue(i), 0, 0)
						}
					})
					if warm := want == "warm"; warm != (st.RestartKind != "cold") || warm != (found == n) || !warm && !strings.Contains(st.RestartReason, want) {
						t.Errorf("%s: %s, %d items, want %s", st.RestartKind, st.RestartReason, found, want)
					}
					check(t, cache)
					closeCache(t, cache)
					want = "warm"
				}
			})
		}
	}
}

// Steps of the wall clock before, during and after a restart, and a machine that sleeps: within a boot only time that passes counts.
func TestStepsOfTheClockNeitherKeepNorDropItems(t *testing.T) {
	const year = 365 * 24 * 3600
	steps := []int64{1, -1, 61, -61, 3600, -3600, 86400, -86400, year, -year, 10 * year, -10 * year}
	for _, moment := range []string{"before", "while down", "after"} {
		for _, clean := range []bool{true, false} {
			for _, step := range steps {
				clock := newClock()
				o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 4 << 20, MaxItemSize: 1 << 20, Clock: clock}
				c, err := hearth.Open(o)
				if err != nil {
					t.Fatal(err)
				}
				step := func(now string) {
					if now == moment {
						clock.wall.Add(step)
					}
				}
				do(c, func(s *hearth.Session) {
					store(s, hearth.Set, "short", "v", 100, 0)
					store(s, hearth.Set, "long", "v", 20*24*3600, 0)
				})
				clock.pass(c, 20)
				step("before")
				clock.pass(c, 20)
				if clean {
					err = c.Close()
				} else {
					err = c.Abandon()
				}
				if err != nil {
					t.Fatal(err)
				}
				step("while down")
				clock.pass(nil, 30)
				if c, err = hearth.Open(o); err != nil {
					t.Fatal(err)
				}
				step("after")
				clock.pass(c, 29)
				do(c, func(s *hearth.Session) { wantValue(t, s, "short", "v"); wantValue(t, s, "long", "v") })
				clock.pass(c, 2)
				do(c, func(s *hearth.Session) { wantMiss(t, s, "short"); wantValue(t, s, "long", "v") })
				clock.pass(c, 20*24*3600) // it slept for twenty days: the time since boot goes on then
				do(c, func(s *hearth.Session) { wantMiss(t, s, "long") })
				closeCache(t, c)
				if t.Failed() {
					t.Fatalf("a step %s, clean %t", moment, clean)
				}
			}
		}
	}
}

// Over a boot the wall clock tells how long the machine was down; one that runs behind the cache's last second cannot be right, and no time has passed then.
func TestStepsOfTheClockOverABoot(t *testing.T) {
	for _, down := range []int64{0, 1, 58, 62, 3600, 10 * 365 * 24 * 3600, -1, -3600, -10 * 365 * 24 * 3600} {
		clock := newClock()
		o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 4 << 20, MaxItemSize: 1 << 20, Clock: clock}
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		do(c, func(s *hearth.Session) {
			store(s, hearth.Set, "short", "v", 100, 0)
			store(s, hearth.Set, "always", "v", 0, 0)
		})
		clock.pass(c, 40)
		closeCache(t, c)
		clock.id++
		clock.boot.Store(7)
		clock.wall.Add(down)
		if c, err = hearth.Open(o); err != nil {
			t.Fatal(err)
		}
		if c.Stats().RestartKind == "cold" {
			closeCache(t, c)
			t.Skip("the directory for tests is in memory, where no boot is crossed")
		}
		do(c, func(s *hearth.Session) {
			if wantValue(t, s, "always", "v"); down < 60 {
				wantValue(t, s, "short", "v")
			} else {
				wantMiss(t, s, "short")
			}
		})
		clock.pass(c, max(60-max(down, 0), 0)+1)
		do(c, func(s *hearth.Session) { wantMiss(t, s, "short"); wantValue(t, s, "always", "v") })
		closeCache(t, c)
	}
}
