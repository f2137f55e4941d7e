package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"hearth"
)

// residentBytes is VmRSS of the process, with the slab file's pages that it has touched.
func residentBytes(t testing.TB, p *proc) int { return procStatus(t, p, "VmRSS") }

// procStatus is a field of the process's status that counts memory, in bytes.
func procStatus(t testing.TB, p *proc, field string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in\n%s", field, text)
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb << 10
}

// TestFullCacheEvictsTheOldestWithoutAnError stores ten times what fits. Nothing is fetched, so the LRU is first in, first out: the youngest of each slab
// class survive.
//
// The tolerance: of the survivors of one class 99 % must be among as many youngest, 1 % more, the batches that were under way at once and the chunks that
// the allocator keeps free ahead (16 a class).
func TestFullCacheEvictsTheOldestWithoutAnError(t *testing.T) {
	const memory = 64 << 20
	const slack = 40 << 20 // heap, stacks, the binary and the LRU's links
	for name, sizes := range map[string][]int{
		"1 KB":  {1000},
		"mixed": {100, 300, 1000, 3000, 10_000, 30_000},
	} {
		t.Run(name, func(t *testing.T) {
			const conns = 4
			p := startHearthd(t, "-e", newFile(t), "-m", strconv.Itoa(memory>>20))
			average := 0
			for _, size := range sizes {
				average += size / len(sizes)
			}
			n := 10 * memory / average
			// Whoever is ready takes the next batch of numbers, so that they follow the time of storing but for the batches under way.
			const batch = 20
			var next, stored atomic.Int64
			err := split(conns, conns, func(int, int, int) error {
				w, err := dialWire(p.addr)
				if err != nil {
					return err
				}
				defer w.Close()
				for {
					from := int(next.Add(batch)) - batch
					to := min(from+batch, n)
					for i := from; i < to; i++ {
						key := fmt.Sprintf("item-%08d", i)
						w.set(key, appendRecord(nil, key, 0, 1, sizes[i%len(sizes)]))
					}
					if from >= n {
						return nil
					}
					if err := w.w.Flush(); err != nil {
						return err
					}
					for i := from; i < to; i++ {
						if err := w.stored(); err != nil {
							return err
						}
						stored.Add(1)
					}
				}
			})
			if err != nil {
				t.Fatalf("after %d of %d: %v\n%s", stored.Load(), n, err, p.stderr)
			}
			rss, index := residentBytes(t, p), number(t, p, "index_bytes")
			survivors := make([][]int, len(sizes)) // by size: the numbers that are left, counted from the youngest of this size
			bySize := make([]int, len(sizes))
			c := dial(p.addr)
			defer c.Close()
			for from := n - 1; from >= 0; from -= 100 {
				var keys []string
				for i := from; i >= max(0, from-99); i-- {
					keys = append(keys, fmt.Sprintf("item-%08d", i))
				}
				items, err := c.GetMulti(keys)
				if err != nil {
					t.Fatal(err)
				}
				for k, key := range keys {
					i := from - k
					class := i % len(sizes)
					if it := items[key]; it != nil {
						if want := appendRecord(nil, key, 0, 1, sizes[class]); string(it.Value) != string(want) {
							t.Fatalf("%s holds %s", key, describe(it.Value))
						}
						survivors[class] = append(survivors[class], bySize[class])
					}
					bySize[class]++
				}
			}
			var lines []string
			kept := 0
			for class, ages := range survivors {
				kept += len(ages)
				bound := len(ages) + len(ages)/100 + 16 + conns*batch
				young, _ := slices.BinarySearch(ages, bound)
				oldest := -1
				if len(ages) > 0 {
					oldest = ages[len(ages)-1]
				}
				lines = append(lines, fmt.Sprintf("%d bytes: %d of %d survive, %d of them among the %d youngest, the oldest is number %d from the end",
					sizes[class], len(ages), bySize[class], young, bound, oldest))
				if len(ages) == 0 || young < len(ages)*99/100 {
					t.Error("not the youngest survive: " + lines[len(lines)-1])
				}
			}
			limit := memory + index + slack
			t.Logf("-m %d: %d items of %d MB stored, no error; %d survive, evictions %d; VmRSS %.1f MB, at most %.1f MB = -m + index_bytes %.1f MB + %d MB\n%s",
				memory>>20, n, n*average>>20, kept, number(t, p, "evictions"), mb(rss), mb(limit), mb(index), slack>>20, strings.Join(lines, "\n"))
			if rss > limit {
				t.Errorf("VmRSS %.1f MB, want at most %.1f MB", mb(rss), mb(limit))
			}
			if total, items := number(t, p, "total_items"), number(t, p, "curr_items"); total != n || items != kept {
				t.Errorf("total_items %d, want %d; curr_items %d, want %d", total, n, items, kept)
			}
			if malloced := number(t, p, "total_malloced"); malloced > memory+len(sizes)<<20 {
				t.Errorf("total_malloced %d", malloced) // a class's first page may come on top
			}
		})
	}
}

// number is a stat that is a number.
func number(t testing.TB, p *proc, name string) int {
	t.Helper()
	n, err := strconv.Atoi(stat(t, p.addr, name))
	if err != nil {
		t.Fatalf("stat %s: %v", name, err)
	}
	return n
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

// TestWritersOfAFullCacheAreNotTurnedAway has many sessions evict for each other: what one frees another takes, and the first must go on evicting.
func TestWritersOfAFullCacheAreNotTurnedAway(t *testing.T) {
	const sessions, each = 16, 30_000
	c, err := hearth.Open(hearth.Options{MemoryLimit: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	value := make([]byte, 1000)
	err = split(sessions, sessions, func(part, _, _ int) error {
		s := c.NewSession()
		defer s.Close()
		for i := range each {
			s.Begin()
			var d hearth.Draft
			if st := s.Prepare(&d, hearth.Set, fmt.Appendf(nil, "%d-%d", part, i), 0, 0, len(value)); st != hearth.OK {
				refused.Add(1)
			} else {
				s.Write(&d, value)
				s.Commit(&d, 0)
			}
			s.End()
		}
		return nil
	})
	if n := refused.Load(); n > 0 || err != nil {
		t.Errorf("%d of %d sets found no memory (%v)", n, sessions*each, err)
	}
	if found := c.Check(); len(found) > 0 {
		t.Errorf("%d findings; the first: %v", len(found), found[0])
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
