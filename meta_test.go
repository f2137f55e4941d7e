package hearth_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"hearth"
)

// fetch is MetaGet, as a string that names what matters.
func fetch(s *hearth.Session, key string, o hearth.GetOptions) string {
	var got hearth.Fetch
	switch st := s.MetaGet([]byte(key), &o, &got); st {
	case hearth.OK:
	case hearth.Miss:
		return "miss"
	default:
		return fmt.Sprint("status ", st)
	}
	text := string(got.AppendValue(nil))
	for _, f := range []struct {
		name string
		on   bool
	}{{"won", got.Won}, {"stale", got.Stale}, {"sent", got.TokenSent}, {"created", got.Created}, {"fetched", got.Fetched}} {
		if f.on {
			text += " " + f.name
		}
	}
	return text
}

func wantFetch(t testing.TB, s *hearth.Session, key string, o hearth.GetOptions, want string) {
	t.Helper()
	if got := fetch(s, key, o); got != want {
		t.Errorf("fetch of %s by %+v: %q, want %q", key, o, got, want)
	}
}

// peek returns an item without a trace.
func peek(t testing.TB, s *hearth.Session, key string) hearth.Item {
	t.Helper()
	var got hearth.Fetch
	if st := s.MetaGet([]byte(key), &hearth.GetOptions{Peek: true}, &got); st != hearth.OK {
		t.Fatalf("peek at %s: status %d", key, st)
	}
	return got.Item
}

// commit stores a value by CommitMeta.
func commit(s *hearth.Session, key, value string, exptime int64, o *hearth.StoreOptions) (uint64, hearth.Status) {
	var d hearth.Draft
	if st := s.Prepare(&d, hearth.Set, []byte(key), 7, exptime, len(value)); st != hearth.OK {
		return 0, st
	}
	s.Write(&d, []byte(value))
	return s.CommitMeta(&d, o)
}

func TestAStaleItemIsWonOnceUntilItIsStoredAnew(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		store(s, hearth.Set, "k", "v", 100, 0)
		was := peek(t, s, "k")
		wantStatus(t, "invalidate", s.MetaDelete([]byte("k"), &hearth.DeleteOptions{Invalidate: true}), hearth.OK)
		if is := peek(t, s, "k"); is.CAS <= was.CAS || is.Exptime != was.Exptime || !is.Stale || is.TokenSent {
			t.Errorf("invalidated: %+v, was %+v", is, was)
		}
		wantFetch(t, s, "k", hearth.GetOptions{}, "v won stale")
		wantFetch(t, s, "k", hearth.GetOptions{}, "v stale sent fetched")
		wantStatus(t, "invalidate again", s.MetaDelete([]byte("k"), &hearth.DeleteOptions{Invalidate: true, NewCAS: 77, Touch: true, Exptime: 50}), hearth.OK)
		if is := peek(t, s, "k"); is.CAS != 77 || is.Exptime != s.Now()+50 {
			t.Errorf("invalidated with a CAS and an exptime: %+v", is)
		}
		wantFetch(t, s, "k", hearth.GetOptions{NoBump: true}, "v won stale fetched")
		store(s, hearth.Set, "k", "new", 0, 0)
		wantFetch(t, s, "k", hearth.GetOptions{}, "new")
		s.MetaDelete([]byte("k"), &hearth.DeleteOptions{Invalidate: true})
		store(s, hearth.Append, "k", "+", 0, 0)
		wantFetch(t, s, "k", hearth.GetOptions{}, "new+")
		s.MetaDelete([]byte("k"), &hearth.DeleteOptions{Invalidate: true})
		store(s, hearth.Prepend, "k", "+", 0, 0)
		wantFetch(t, s, "k", hearth.GetOptions{}, "+new+")
	})
}

func TestRecacheWinsBeforeTheItemExpires(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		far := int64(s.Now()) + 60
		for _, test := range []struct {
			name    string
			exptime int64
			o       hearth.GetOptions
			want    string
		}{
			{"later than it expires", 100, hearth.GetOptions{Recache: true, RecacheTTL: 101}, "v won"},
			{"just when it expires", 100, hearth.GetOptions{Recache: true, RecacheTTL: 100}, "v"},
			{"no TTL", 0, hearth.GetOptions{Recache: true, RecacheTTL: 1000}, "v"},
			{"never", 100, hearth.GetOptions{Recache: true}, "v"},
			{"negative", 100, hearth.GetOptions{Recache: true, RecacheTTL: -1}, "v"},
			{"absolute", 59, hearth.GetOptions{Recache: true, RecacheTTL: far}, "v won"},
			{"absolute, too early", 61, hearth.GetOptions{Recache: true, RecacheTTL: far}, "v"},
			{"touched before", 1000, hearth.GetOptions{Recache: true, RecacheTTL: 60, Touch: true, Exptime: 50, RecacheLast: true}, "v won"},
			{"touched behind", 1000, hearth.GetOptions{Recache: true, RecacheTTL: 60, Touch: true, Exptime: 50}, "v"},
			{"saved by the touch", 10, hearth.GetOptions{Recache: true, RecacheTTL: 60, Touch: true, Exptime: 500, RecacheLast: true}, "v"},
		} {
			store(s, hearth.Set, "k", "v", test.exptime, 0)
			if got := fetch(s, "k", test.o); got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			is := peek(t, s, "k")
			if want := s.Until(test.exptime); !test.o.Touch && is.Exptime != want || test.o.Touch && is.Exptime != s.Until(test.o.Exptime) {
				t.Errorf("%s: exptime %d, was %d", test.name, is.Exptime, want)
			}
		}
	})
}

func TestALowerCASStoresAStaleItemAndAHigherOneNone(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		store(s, hearth.Set, "k", "v", 100, 0)
		cas := peek(t, s, "k").CAS
		_, st := commit(s, "k", "high", 50, &hearth.StoreOptions{Mode: hearth.CAS, CAS: cas + 1, Invalidate: true})
		wantStatus(t, "higher", st, hearth.Exists)
		_, st = commit(s, "k", "zero", 50, &hearth.StoreOptions{Mode: hearth.CAS, Invalidate: true})
		wantStatus(t, "0", st, hearth.Exists)
		wantFetch(t, s, "k", hearth.GetOptions{}, "v")

		next, st := commit(s, "k", "low", 50, &hearth.StoreOptions{Mode: hearth.CAS, CAS: cas - 1, Invalidate: true})
		wantStatus(t, "lower", st, hearth.OK)
		if is := peek(t, s, "k"); is.CAS != next || next <= cas || is.Exptime != s.Until(100) || !is.Stale || is.Flags != 7 {
			t.Errorf("stored with a lower CAS: %+v", is)
		}
		wantFetch(t, s, "k", hearth.GetOptions{}, "low won stale")
		next, _ = commit(s, "k", "lower", 50, &hearth.StoreOptions{Mode: hearth.CAS, CAS: 1, Invalidate: true})
		wantFetch(t, s, "k", hearth.GetOptions{}, "lower stale sent") // the token stays given out

		_, st = commit(s, "k", "same", 50, &hearth.StoreOptions{Mode: hearth.CAS, CAS: next, Invalidate: true, NewCAS: 99})
		wantStatus(t, "equal", st, hearth.OK)
		if is := peek(t, s, "k"); is.CAS != 99 || is.Exptime != s.Until(50) || is.Stale || is.TokenSent {
			t.Errorf("stored with the CAS: %+v", is)
		}
		_, st = commit(s, "none", "v", 0, &hearth.StoreOptions{Mode: hearth.CAS, CAS: 1, Invalidate: true})
		wantStatus(t, "missing", st, hearth.Miss)
		wantMiss(t, s, "none")
	})
}

func TestCommitMetaTellsTheSumOfAnAppend(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		for _, test := range []struct {
			mode hearth.Mode
			cas  uint64
			want int
			st   hearth.Status
		}{{hearth.Append, 0, 2, hearth.OK}, {hearth.Append, 0, 4, hearth.OK}, {hearth.Prepend, 0, 6, hearth.OK}, {hearth.Append, 5, 2, hearth.Exists}, {hearth.Set, 0, 2, hearth.OK}} {
			o := hearth.StoreOptions{Mode: test.mode, CAS: test.cas, Vivify: true, VivifyExptime: 30}
			_, st := commit(s, "k", "xx", 0, &o)
			wantStatus(t, fmt.Sprint("mode ", test.mode), st, test.st)
			if st == hearth.OK && o.Size != test.want {
				t.Errorf("mode %d: size %d, want %d", test.mode, o.Size, test.want)
			}
			if is := peek(t, s, "k"); test.mode == hearth.Append && is.Exptime != s.Until(30) {
				t.Errorf("exptime %d, want that of the item that was made", is.Exptime)
			}
		}
	})
}

func TestMetaDeleteLeavesAnEmptyItem(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		key := []byte("k")
		store(s, hearth.Set, "k", "v", 100, 0)
		was := peek(t, s, "k")
		wantStatus(t, "another CAS", s.MetaDelete(key, &hearth.DeleteOptions{Clear: true, HasCAS: true, CAS: was.CAS + 1}), hearth.Exists)
		wantStatus(t, "clear", s.MetaDelete(key, &hearth.DeleteOptions{Clear: true, HasCAS: true, CAS: was.CAS}), hearth.OK)
		if is := peek(t, s, "k"); is.Len() != 0 || is.CAS != was.CAS || is.Flags != 0 || is.Exptime != 0 || is.Stale {
			t.Errorf("cleared: %+v", is)
		}
		wantStatus(t, "clear and invalidate", s.MetaDelete(key, &hearth.DeleteOptions{Clear: true, Invalidate: true, Touch: true, Exptime: 9, Flags: 3}), hearth.OK)
		if is := peek(t, s, "k"); is.Len() != 0 || is.CAS == was.CAS || is.Flags != 3 || is.Exptime != s.Until(9) || !is.Stale {
			t.Errorf("cleared and invalidated: %+v", is)
		}
		wantStatus(t, "nothing", s.MetaDelete([]byte("none"), &hearth.DeleteOptions{Clear: true}), hearth.Miss)
	})
	if st := c.Stats(); st.DeleteHits != 0 || st.DeleteMisses != 1 {
		t.Errorf("%d delete_hits and %d delete_misses, want none and 1: the items are still there", st.DeleteHits, st.DeleteMisses)
	}
}

// together runs f on n goroutines that start at once, each with a session.
func together(c *hearth.Cache, n int, f func(s *hearth.Session)) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for range n {
		done.Go(func() {
			s := c.NewSession()
			defer s.Close()
			ready.Done()
			ready.Wait()
			s.Begin()
			defer s.End()
			f(s)
		})
	}
	done.Wait()
}

func TestExactlyOneWins(t *testing.T) {
	const rounds, sessions = 200, 8
	c := open(t, heap(8))
	s := session(t, c)
	for _, test := range []struct {
		name string
		make func(key string)
		o    hearth.GetOptions
	}{
		{"a stale item", func(key string) {
			store(s, hearth.Set, key, "v", 100, 0)
			s.MetaDelete([]byte(key), &hearth.DeleteOptions{Invalidate: true})
		}, hearth.GetOptions{}},
		{"a stale item, touching it", func(key string) {
			store(s, hearth.Set, key, "v", 100, 0)
			s.MetaDelete([]byte(key), &hearth.DeleteOptions{Invalidate: true})
		}, hearth.GetOptions{Touch: true, Exptime: 200}},
		{"an item that expires soon", func(key string) { store(s, hearth.Set, key, "v", 100, 0) }, hearth.GetOptions{Recache: true, RecacheTTL: 200}},
		{"no item", func(string) {}, hearth.GetOptions{Vivify: true, VivifyExptime: 100}},
	} {
		for i := range rounds {
			key := fmt.Sprint(test.name[:3], len(test.name), i)
			in(s, func() { test.make(key) })
			var won, sent atomic.Int32
			together(c, sessions, func(s *hearth.Session) {
				var got hearth.Fetch
				if st := s.MetaGet([]byte(key), &test.o, &got); st != hearth.OK {
					t.Errorf("%s: status %d", test.name, st)
				}
				if got.Won {
					won.Add(1)
				}
				if got.TokenSent {
					sent.Add(1)
				}
			})
			if won.Load() != 1 || sent.Load() != sessions-1 {
				t.Fatalf("%s: %d of %d won, %d heard that somebody else had", test.name, won.Load(), sessions, sent.Load())
			}
		}
	}
}

// A token must go to the item that is stale, not to one that took its place between look and copy.
func TestAFreshItemIsNeverWon(t *testing.T) {
	c := open(t, heap(8))
	key := []byte("k")
	var n atomic.Int64
	together(c, 4, func(s *hearth.Session) {
		for i := range 3000 {
			switch me := n.Add(1); me % 3 {
			case 0:
				commit(s, "k", "fresh", 0, &hearth.StoreOptions{})
			case 1:
				s.MetaDelete(key, &hearth.DeleteOptions{Invalidate: true})
			default:
				var got hearth.Fetch
				if s.MetaGet(key, &hearth.GetOptions{}, &got) == hearth.OK && got.Won && !got.Stale {
					t.Errorf("round %d: won an item that is not stale", i)
					return
				}
			}
			s.End()
			s.Begin()
		}
	})
}

func TestArithMakesOneNumberAndLosesNoCount(t *testing.T) {
	const rounds, sessions = 200, 8
	c := open(t, heap(8))
	for i := range rounds {
		key := fmt.Append(nil, "n", i)
		var created atomic.Int32
		together(c, sessions, func(s *hearth.Session) {
			var it hearth.Item
			o := hearth.ArithOptions{Delta: 1, Vivify: true, VivifyExptime: 60, Initial: 10}
			if n, st := s.Arith(key, &o, &it); st != hearth.OK || n < 10 || n >= 10+sessions || (n == 10) != o.Created || it.CAS == 0 {
				t.Errorf("%d, status %d, created %t, %+v", n, st, o.Created, it)
			}
			if o.Created {
				created.Add(1)
			}
		})
		do(c, func(s *hearth.Session) { wantValue(t, s, string(key), fmt.Sprint(10+sessions-1)) })
		if created.Load() != 1 {
			t.Fatalf("%d made the number", created.Load())
		}
	}
}

func TestMetaCountsAsMemcachedDoes(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	k, none, n := []byte("k"), []byte("none"), []byte("n")
	var got hearth.Fetch
	in(s, func() {
		store(s, hearth.Set, "k", "v", 0, 0)
		store(s, hearth.Set, "n", "1", 0, 0)
		cas := peek(t, s, "n").CAS
		for _, test := range []struct {
			name string
			f    func()
			want string // cmd_get get_hits get_misses get_expired cmd_touch touch_hits touch_misses delete_hits delete_misses incr_hits incr_misses
		}{
			{"peek", func() { s.MetaGet(k, &hearth.GetOptions{Peek: true}, &got) }, "0 0 0 0 0 0 0 0 0 0 0"},
			{"hit", func() { s.MetaGet(k, &hearth.GetOptions{}, &got) }, "1 1 0 0 0 0 0 0 0 0 0"},
			{"hit without bump", func() { s.MetaGet(k, &hearth.GetOptions{NoBump: true}, &got) }, "1 1 0 0 0 0 0 0 0 0 0"},
			{"touch", func() { s.MetaGet(k, &hearth.GetOptions{Touch: true}, &got) }, "0 0 0 0 1 1 0 0 0 0 0"},
			{"miss", func() { s.MetaGet(none, &hearth.GetOptions{}, &got) }, "1 0 1 0 0 0 0 0 0 0 0"},
			{"miss with touch", func() { s.MetaGet(none, &hearth.GetOptions{Touch: true}, &got) }, "1 0 1 0 0 0 0 0 0 0 0"},
			{"expired", func() { store(s, hearth.Set, "old", "1", -1, 0); s.MetaGet([]byte("old"), &hearth.GetOptions{}, &got) }, "1 0 1 1 0 0 0 0 0 0 0"},
			{"vivify", func() { s.MetaGet([]byte("viv"), &hearth.GetOptions{Vivify: true}, &got) }, "1 1 0 0 0 0 0 0 0 0 0"},
			{"invalidate", func() { s.MetaDelete(k, &hearth.DeleteOptions{Invalidate: true}) }, "0 0 0 0 0 0 0 0 0 0 0"},
			{"win", func() { s.MetaGet(k, &hearth.GetOptions{}, &got) }, "1 1 0 0 0 0 0 0 0 0 0"},
			{"delete of another CAS", func() { s.MetaDelete(k, &hearth.DeleteOptions{HasCAS: true, CAS: 1, CountCAS: true}) }, "0 0 0 0 0 0 0 0 1 0 0"},
			{"delete", func() { s.MetaDelete(k, &hearth.DeleteOptions{}) }, "0 0 0 0 0 0 0 1 0 0 0"},
			{"delete of nothing", func() { s.MetaDelete(k, &hearth.DeleteOptions{}) }, "0 0 0 0 0 0 0 0 1 0 0"},
			{"incr", func() { s.Arith(n, &hearth.ArithOptions{Delta: 1, HasCAS: true, CAS: cas}, nil) }, "0 0 0 0 0 0 0 0 0 1 0"},
			{"incr of another CAS", func() { s.Arith(n, &hearth.ArithOptions{Delta: 1, HasCAS: true, CAS: cas}, nil) }, "0 0 0 0 0 0 0 0 0 0 0"},
			{"incr of nothing", func() { s.Arith(none, &hearth.ArithOptions{Delta: 1}, nil) }, "0 0 0 0 0 0 0 0 0 0 1"},
			{"incr that makes it", func() { s.Arith(none, &hearth.ArithOptions{Delta: 1, Vivify: true}, nil) }, "0 0 0 0 0 0 0 0 0 0 0"},
		} {
			c.ResetStats()
			test.f()
			s.Publish()
			st := c.Stats()
			if have := fmt.Sprint(st.CmdGet, st.GetHits, st.GetMisses, st.GetExpired, st.CmdTouch, st.TouchHits, st.TouchMisses, st.DeleteHits, st.DeleteMisses, st.IncrHits, st.IncrMisses); have != test.want {
				t.Errorf("%s: counted %s, want %s", test.name, have, test.want)
			}
		}
	})
}
