package hearth_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hearth"
)

// churn fills memory several times over with values of about the size.
func churn(t testing.TB, c *hearth.Cache, size, n int) {
	t.Helper()
	s := c.NewSession()
	defer s.Close()
	value := strings.Repeat("#", size)
	for i := range n {
		in(s, func() {
			if _, st := store(s, hearth.Set, fmt.Sprint("churn", i), value, 0, 0); st != hearth.OK {
				t.Fatalf("churn %d: status %d", i, st)
			}
		})
	}
}

func TestPinnedBytesStayWhateverHappensToTheItem(t *testing.T) {
	o := heap(2)
	o.ChunkMax = 16 << 10
	for _, size := range []int{900, 60 << 10} {
		c := open(t, o)
		s := session(t, c)
		want := bytes.Repeat([]byte("0123456789"), size/10)
		var pins []hearth.Pin
		var pieces [][][]byte
		for i, end := range []func(key string){
			func(key string) { s.Delete([]byte(key)) },
			func(key string) { store(s, hearth.Set, key, "another", 0, 0) },
			func(key string) { store(s, hearth.Append, key, "tail", 0, 0) },
			func(key string) { s.FlushAll(0); s.Delete([]byte(key)) },
			func(key string) {}, // to be evicted
		} {
			in(s, func() {
				key := fmt.Sprint("pinned", i)
				if _, st := store(s, hearth.Set, key, string(want), 0, 0); st != hearth.OK {
					t.Fatal(st)
				}
				var it hearth.Item
				s.Get([]byte(key), &it)
				pins = append(pins, s.Pin(&it), s.Pin(&it)) // twice: the bytes stay until both are undone
				pieces = append(pieces, it.Pieces(nil))
				end(key)
			})
		}
		churn(t, c, 900, 5000)
		s.Unpin(pins[0])
		churn(t, c, 900, 5000)
		if err := c.Close(); err == nil || !strings.Contains(err.Error(), "hearth: close: ") {
			t.Errorf("close with pinned items: %v", err)
		}
		for i, p := range pieces {
			if got := bytes.Join(p, nil); !bytes.Equal(got, want) {
				t.Errorf("value of %d bytes, item %d: it begins with %.20q", size, i, got)
			}
		}
		for _, p := range pins[1:] {
			s.Unpin(p)
		}
		s.Unpin(hearth.Pin{})
		check(t, c) // the chunks are free again
	}
}

func TestCloseFailsWhileSessionsAreOpenAndCanBeTriedAgain(t *testing.T) {
	c, err := hearth.Open(heap(2))
	if err != nil {
		t.Fatal(err)
	}
	s := c.NewSession()
	var it hearth.Item
	var pin hearth.Pin
	in(s, func() {
		store(s, hearth.Set, "k", "v", 0, 0)
		s.Get([]byte("k"), &it)
		pin = s.Pin(&it)
	})
	if err := c.Close(); err == nil || err.Error() != "hearth: close: 1 sessions are open, want none" {
		t.Errorf("%v", err)
	}
	in(s, func() { wantValue(t, s, "k", "v") })
	other := c.NewSession()
	s.Close()
	other.Unpin(pin)
	other.Close()
	closeCache(t, c)
	if err := c.Close(); err == nil || err.Error() != "hearth: close: hearth: cache is closed" {
		t.Errorf("second close: %v", err)
	}
}

func TestDraftsLastOverSections(t *testing.T) {
	o := heap(2)
	o.ChunkMax = 16 << 10
	c := open(t, o)
	s := session(t, c)
	var small, large, dropped, unfinished hearth.Draft
	want := strings.Repeat("0123456789", 9000)
	in(s, func() {
		wantStatus(t, "small", s.Prepare(&small, hearth.Set, []byte("small"), 0, 0, 500), hearth.OK)
		wantStatus(t, "large", s.Prepare(&large, hearth.Set, []byte("large"), 0, 0, len(want)), hearth.OK)
		wantStatus(t, "dropped", s.Prepare(&dropped, hearth.Set, []byte("dropped"), 0, 0, 500), hearth.OK)
		wantStatus(t, "unfinished", s.Prepare(&unfinished, hearth.Set, []byte("unfinished"), 0, 0, 100<<10), hearth.OK)
		s.Write(&unfinished, make([]byte, 50<<10))
	})
	for at := 0; at < len(want); at += 30000 {
		churn(t, c, 900, 3000)
		in(s, func() {
			if !s.Write(&large, []byte(want[at:at+30000])) {
				t.Fatal("no memory")
			}
		})
	}
	in(s, func() { s.Write(&small, []byte(want[:500])) })
	churn(t, c, 900, 3000)
	s.Discard(&dropped) // needs no section
	s.Discard(&unfinished)
	s.Discard(&unfinished) // a second time is nothing
	in(s, func() {
		for key, d := range map[string]*hearth.Draft{"small": &small, "large": &large} {
			if d.Remaining() != 0 {
				t.Errorf("%s: %d bytes remain", key, d.Remaining())
			}
			_, st := s.Commit(d, 0)
			wantStatus(t, key, st, hearth.OK)
		}
		wantValue(t, s, "small", want[:500])
		wantValue(t, s, "large", want)
		wantMiss(t, s, "dropped")
	})
}

// What a section was handed out stays readable in it, while others delete it, replace it, and want its memory.
func TestASectionKeepsItsItemsBytes(t *testing.T) {
	o := heap(2)
	o.NoEvict = true
	c := open(t, o)
	reader := session(t, c)
	const items = 50
	value := func(i int) string { return strings.Repeat(fmt.Sprintf("%08d", i), 120) }
	in(reader, func() {
		for i := range items {
			store(reader, hearth.Set, fmt.Sprint("k", i), value(i), 0, 0)
		}
	})
	reader.Begin()
	var views [items]hearth.Item
	for i := range views {
		wantStatus(t, "get", reader.Get(fmt.Append(nil, "k", i), &views[i]), hearth.OK)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			s := c.NewSession()
			defer s.Close()
			for i := range 2000 {
				st := hearth.OK
				in(s, func() {
					switch k := fmt.Sprint("k", i%items); g {
					case 0:
						s.Delete([]byte(k))
					default:
						_, st = store(s, hearth.Set, k, strings.Repeat("#", 960), 0, 0)
					}
				})
				if st == hearth.NoMemory {
					return // all memory waits for the reader
				}
			}
		})
	}
	wg.Wait()
	c.Round()
	if c.Waiting() == 0 {
		t.Error("nothing waits for the reader")
	}
	for i := range views {
		if v, _ := views[i].Value(); string(v) != value(i) || string(views[i].Key) != fmt.Sprint("k", i) {
			t.Fatalf("item %d of the section is %.30q now", i, v)
		}
	}
	reader.End()
	c.Round()
	if n := c.Waiting(); n != 0 {
		t.Errorf("%d retired items are not free after the section", n)
	}
}

// Readers that come and go see whole values: each is one byte repeated, so a chunk that is reused too early shows.
func TestReadersNeverSeeReusedMemory(t *testing.T) {
	for name, o := range map[string]hearth.Options{"heap": heap(2), "mapping": {MemoryLimit: 2 << 20, MaxItemSize: 512 << 10}} {
		t.Run(name, func(t *testing.T) {
			c := open(t, o)
			var stop atomic.Bool
			var readers, writers sync.WaitGroup
			var hits atomic.Int64
			for range 3 {
				readers.Go(func() {
					s := c.NewSession()
					defer s.Close()
					for i := 0; !stop.Load(); i++ {
						in(s, func() {
							var views [8]hearth.Item
							n := 0
							for j := range views {
								if s.Get(fmt.Append(nil, "k", (i+j)%64), &views[n]) == hearth.OK {
									n++
								}
							}
							for _, it := range views[:n] {
								hits.Add(1)
								v, _ := it.Value()
								if len(v) > 0 && bytes.Count(v, v[:1]) != len(v) {
									t.Errorf("%s is torn: %.40q", it.Key, v)
									stop.Store(true)
								}
							}
						})
					}
				})
			}
			for g := range 3 {
				writers.Go(func() {
					s := c.NewSession()
					defer s.Close()
					for i := range 15000 {
						in(s, func() {
							k := fmt.Sprint("k", (i*7+g)%64)
							if i%5 == 0 {
								s.Delete([]byte(k))
							} else {
								store(s, hearth.Set, k, strings.Repeat(string(rune('a'+i%26)), 700+i%100), 0, 0)
							}
						})
					}
				})
			}
			writers.Wait()
			stop.Store(true)
			readers.Wait()
			if hits.Load() == 0 {
				t.Error("the readers found nothing")
			}
		})
	}
}

// R6: a touch that was acknowledged is there, however many copies of the item are made beside it; and no incr is lost either.
func TestTouchesAndCopiesDoNotUndoEachOther(t *testing.T) {
	for name, o := range map[string]hearth.Options{"heap": heap(4), "mapping": {MemoryLimit: 4 << 20, MaxItemSize: 512 << 10}} {
		t.Run(name, func(t *testing.T) {
			o.NoEvict = true // while a goroutine sleeps in its section, memory may be full of copies that wait for it
			c := open(t, o)
			s := session(t, c)
			in(s, func() { store(s, hearth.Set, "n", "0", 1000, 0); store(s, hearth.Set, "list", "", 1000, 0) })
			const counts, appends = 20000, 300
			var wg sync.WaitGroup
			var stop atomic.Bool
			wg.Go(func() {
				s := c.NewSession()
				defer s.Close()
				for n := uint64(0); n < counts; {
					in(s, func() {
						now, st := s.Incr([]byte("n"), 1)
						if n = n + 1; st == hearth.NoMemory {
							n--
						} else if st != hearth.OK || now != n {
							t.Errorf("incr %d: %d, status %d", n, now, st)
						}
					})
				}
			})
			wg.Go(func() {
				s := c.NewSession()
				defer s.Close()
				for n := 0; n < appends; {
					in(s, func() {
						if _, st := store(s, hearth.Append, "list", "x", 0, 0); st == hearth.OK {
							n++ // else no memory, or not for the sum
						}
					})
				}
			})
			done := make(chan struct{})
			go func() { wg.Wait(); stop.Store(true); close(done) }()
			touches := 0
			for i := int64(0); !stop.Load(); i++ {
				for _, key := range []string{"n", "list"} {
					in(s, func() {
						at := time.Now().Unix() + 10000 + i
						if st := s.Touch([]byte(key), at); st == hearth.NoMemory {
							return // by way of a copy
						} else if st != hearth.OK {
							t.Errorf("touch of %s: status %d", key, st)
							stop.Store(true)
							return
						}
						var it hearth.Item
						if st := s.Get([]byte(key), &it); st != hearth.OK || int64(it.Exptime) != at {
							t.Errorf("%s: exptime %d after a touch to %d", key, it.Exptime, at)
							stop.Store(true)
						}
						touches++
					})
				}
			}
			<-done
			in(s, func() {
				wantValue(t, s, "n", fmt.Sprint(counts))
				wantValue(t, s, "list", strings.Repeat("x", appends))
			})
			if touches < 100 {
				t.Errorf("only %d touches", touches)
			}
		})
	}
}

// The same, step by step: the touch comes between the copier's reading of the exptime and its publication.
func TestTouchOfAnItemThatIsBeingCopiedGoesByWayOfTheIndex(t *testing.T) {
	c := open(t, heap(4))
	a, b := session(t, c), session(t, c)
	in(a, func() {
		store(a, hearth.Set, "k", "1", 100, 0)
		var before hearth.Item
		a.Get([]byte("k"), &before)
		a.Claim([]byte("k"))
		in(b, func() { wantStatus(t, "touch", b.Touch([]byte("k"), 5000), hearth.OK) })
		var after hearth.Item
		a.Get([]byte("k"), &after)
		if before.Exptime == after.Exptime || after.CAS != before.CAS {
			t.Errorf("exptime %d and CAS %d, then %d and %d", before.Exptime, before.CAS, after.Exptime, after.CAS)
		}
		v1, _ := before.Value()
		v2, _ := after.Value()
		if string(v1) != "1" || string(v2) != "1" || &v1[0] == &v2[0] {
			t.Error("the touch changed the claimed item in place: the copier would publish the old exptime after it")
		}
	})
}

func TestCountersReachTheirSum(t *testing.T) {
	o := heap(4)
	c := open(t, o)
	s := session(t, c)
	in(s, func() { store(s, hearth.Set, "n", "0", 0, 0) })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s := c.NewSession()
			defer s.Close()
			for range 3000 {
				in(s, func() { s.Incr([]byte("n"), 1) })
			}
		})
	}
	wg.Wait()
	in(s, func() { wantValue(t, s, "n", "12000") })
}

// Two that make the same number on a miss: one stores it, the other counts on it. The loser's chunk is not its own any more.
func TestOneOfTwoMakesTheNumber(t *testing.T) {
	c := open(t, heap(4))
	for i := range 300 {
		var sum atomic.Uint64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				c.Do(func(s *hearth.Session) {
					var it hearth.Item
					n, st := s.Arith(fmt.Append(nil, "n", i), &hearth.ArithOptions{Delta: 1, Vivify: true, Initial: 10}, &it)
					if st != hearth.OK && st != hearth.Miss {
						t.Errorf("status %d", st)
					}
					sum.Add(n)
				})
			})
		}
		wg.Wait()
		if sum.Load() != 10+11+12+13 {
			t.Fatalf("round %d: the numbers add up to %d, want %d", i, sum.Load(), 10+11+12+13)
		}
	}
}

// Items that the index has where their keys do not lead cannot be evicted. They cost their chunks until the next start, not all others'.
func TestMisplacedItemsDoNotBlockEviction(t *testing.T) {
	c, err := hearth.Open(hearth.Options{MemoryLimit: 2 << 20, MaxItemSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	noAutomove(t, c)
	s := c.NewSession()
	defer s.Close()
	value := make([]byte, 10000)
	n := 0
	set := func() hearth.Status {
		n++
		var st hearth.Status
		in(s, func() { _, st = store(s, hearth.Set, fmt.Sprint("key", n), string(value), 0, 0) })
		return st
	}
	for c.Stats().Evictions == 0 {
		if st := set(); st != hearth.OK {
			t.Fatal(n, st)
		}
	}
	misplaced := 0
	for i := 1; i <= n && misplaced < 30; i++ {
		in(s, func() {
			if c.Misplace(fmt.Sprint("key", i)) {
				misplaced++
			}
		})
	}
	if misplaced != 30 {
		t.Fatalf("%d items misplaced, want 30", misplaced)
	}
	for range 500 {
		if st := set(); st != hearth.OK {
			t.Fatal(n, st)
		}
	}
	in(s, func() {
		if _, ok := get(s, fmt.Sprint("key", n)); !ok {
			t.Error("the last one is not there")
		}
	})
	// They have left the lists, as far as they came to the end of one, and are told of; their words are still there.
	if n := c.Stats().CorruptItems; n == 0 || n > 30 {
		t.Errorf("%d corrupt items, want up to 30", n)
	}
	misplaced = 0
	for _, finding := range c.Check() {
		switch what := finding.String(); {
		case strings.Contains(what, "is in bucket"):
			misplaced++
		case !strings.Contains(what, "is in no list") && !strings.Contains(what, "lists hold"):
			t.Error(what)
		}
	}
	if misplaced != 30 {
		t.Errorf("check found %d misplaced words, want 30", misplaced)
	}
}
