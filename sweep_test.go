package hearth_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"hearth"
)

// Sessions read, store, delete, append and touch from the first moment after a kill, while the sweep runs: each sees its own keys as it left them,
// nothing comes back, and when the sweep is over every chunk is accounted for.
func TestSessionsWorkWhileTheSweepRuns(t *testing.T) {
	const keys, workers = 60000, 4
	large := bytes.Repeat([]byte("large value "), 60000)
	o := hearth.Options{MemoryLimit: 40 << 20}
	name := func(i int) string { return fmt.Sprint("key", i) }
	first := func(i int) []byte {
		if i%10000 == 0 {
			return large
		}
		return fmt.Appendf(nil, "first %d", i)
	}
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		o.Path = filepath.Join(t.TempDir(), fmt.Sprint("slab", seed))
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		do(c, func(s *hearth.Session) {
			for i := range keys {
				if st := put(t, s, hearth.Set, name(i), first(i)); st != hearth.OK {
					t.Fatal(i, st)
				}
			}
		})
		if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
		if c, err = hearth.Open(o); err != nil {
			t.Fatal(err)
		}
		if kind := c.Stats().RestartKind; kind != "unclean" {
			t.Fatalf("start %s, want unclean", kind)
		}
		now := make([]string, keys) // "" for deleted; each key belongs to one worker
		var work sync.WaitGroup
		for w := range workers {
			work.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(w)))
				s := c.NewSession()
				defer s.Close()
				for i := w; i < keys; i += workers {
					now[i] = string(first(i))
				}
				for n := range 30000 {
					i := rnd.IntN(keys/workers)*workers + w
					s.Begin()
					switch rnd.IntN(6) {
					case 0:
						if st := s.Delete([]byte(name(i))); (st == hearth.OK) != (now[i] != "") {
							t.Errorf("seed %d: delete of %s: %v, had %.20q", seed, name(i), st, now[i])
						}
						now[i] = ""
					case 1:
						v := fmt.Sprint("second ", n)
						if st := put(t, s, hearth.Set, name(i), []byte(v)); st != hearth.OK {
							t.Errorf("seed %d: set: %v", seed, st)
						}
						now[i] = v
					case 2:
						st := put(t, s, hearth.Append, name(i), []byte("+"))
						if (st == hearth.OK) != (now[i] != "") {
							t.Errorf("seed %d: append: %v, had %.20q", seed, st, now[i])
						} else if st == hearth.OK {
							now[i] += "+"
						}
					case 3:
						s.Touch([]byte(name(i)), 1000)
					default:
						if v, ok := get(s, name(i)); ok != (now[i] != "") || v != now[i] {
							t.Errorf("seed %d: %s: found %t %.20q, want %.20q", seed, name(i), ok, v, now[i])
						}
					}
					s.End()
					if t.Failed() {
						return
					}
				}
			})
		}
		work.Wait()
		c.WaitSwept()
		check(t, c)
		live := 0
		do(c, func(s *hearth.Session) {
			for i := range now {
				if v, ok := get(s, name(i)); ok != (now[i] != "") || v != now[i] {
					t.Fatalf("seed %d: at the end %s: found %t %.20q, want %.20q", seed, name(i), ok, v, now[i])
				}
				if now[i] != "" {
					live++
				}
			}
		})
		if st := c.Stats(); int(st.CurrItems) != live {
			t.Errorf("seed %d: curr_items %d, want %d", seed, st.CurrItems, live)
		}
		closeCache(t, c)
	}
}

// A sweep leaves pages without items to all classes: those that each start after a kill takes for what is stored beside its sweep would be one class's for good, with no page mover
// to help.
func TestSweepLeavesEmptyPagesToAllClasses(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 8 << 20, MaxItemSize: 1 << 20, NoEvict: true, NoPageMoves: true}
	for _, size := range []int{100, 5000, 1000} {
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.WaitSwept()
		check(t, c)
		do(c, func(s *hearth.Session) {
			n := 0
			for put(t, s, hearth.Set, fmt.Sprint(n), make([]byte, size)) == hearth.OK {
				n++
			}
			if n*size < int(o.MemoryLimit)/2 {
				t.Errorf("there was memory for %d values of %d bytes, want half of all at least", n, size)
			}
			for i := range n {
				if st := s.Delete(fmt.Append(nil, i)); st != hearth.OK {
					t.Fatal(i, st)
				}
			}
		})
		if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
	}
}
