package hearth_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"hearth"
)

func wantStatus(t testing.TB, what string, got, want hearth.Status) {
	t.Helper()
	if got != want {
		t.Errorf("%s: status %d, want %d", what, got, want)
	}
}

func wantValue(t testing.TB, s *hearth.Session, key, want string) {
	t.Helper()
	if got, ok := get(s, key); !ok || got != want {
		t.Errorf("%s is %.60q (%t), want %.60q", key, got, ok, want)
	}
}

func wantMiss(t testing.TB, s *hearth.Session, key string) {
	t.Helper()
	if got, ok := get(s, key); ok {
		t.Errorf("%s is %.60q, want a miss", key, got)
	}
}

func TestModesStoreOnlyWhereTheyMay(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		for _, m := range []hearth.Mode{hearth.Replace, hearth.Append, hearth.Prepend} {
			_, st := store(s, m, "k", "v", 0, 0)
			wantStatus(t, "on nothing", st, hearth.NotStored)
		}
		_, st := store(s, hearth.CAS, "k", "v", 0, 1)
		wantStatus(t, "cas on nothing", st, hearth.Miss)
		wantMiss(t, s, "k")

		_, st = store(s, hearth.Add, "k", "one", 0, 0)
		wantStatus(t, "add", st, hearth.OK)
		_, st = store(s, hearth.Add, "k", "two", 0, 0)
		wantStatus(t, "add again", st, hearth.NotStored)
		wantValue(t, s, "k", "one")
		_, st = store(s, hearth.Replace, "k", "three", 0, 0)
		wantStatus(t, "replace", st, hearth.OK)
		wantValue(t, s, "k", "three")
		_, st = store(s, hearth.Append, "k", "!", 99, 0)
		wantStatus(t, "append", st, hearth.OK)
		_, st = store(s, hearth.Prepend, "k", "<", 99, 0)
		wantStatus(t, "prepend", st, hearth.OK)
		wantValue(t, s, "k", "<three!")

		var it hearth.Item
		s.Get([]byte("k"), &it)
		if it.Exptime != 0 || it.Flags != 7 || string(it.Key) != "k" || it.Len() != 7 {
			t.Errorf("append and prepend keep flags and exptime: %+v", it)
		}
		wantStatus(t, "delete", s.Delete([]byte("k")), hearth.OK)
		wantStatus(t, "delete again", s.Delete([]byte("k")), hearth.Miss)
		wantMiss(t, s, "k")
	})
}

func TestCASStoresOnceForEachID(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		id, _ := store(s, hearth.Set, "k", "1", 0, 0)
		var it hearth.Item
		if s.Get([]byte("k"), &it); it.CAS != id || id == 0 {
			t.Errorf("CAS %d, Commit says %d", it.CAS, id)
		}
		wantStatus(t, "touch", s.Touch([]byte("k"), 100), hearth.OK)
		if s.Get([]byte("k"), &it); it.CAS != id {
			t.Error("touch changed the CAS")
		}
		_, st := store(s, hearth.CAS, "k", "x", 0, id+1)
		wantStatus(t, "another CAS", st, hearth.Exists)
		_, st = store(s, hearth.CAS, "k", "x", 0, 0)
		wantStatus(t, "CAS 0", st, hearth.Exists)
		next, st := store(s, hearth.CAS, "k", "2", 0, id)
		wantStatus(t, "cas", st, hearth.OK)
		_, st = store(s, hearth.CAS, "k", "3", 0, id)
		wantStatus(t, "cas with the old one", st, hearth.Exists)
		wantValue(t, s, "k", "2")
		// Every change gives a new one, that is higher.
		for what, change := range map[string]func(){
			"incr":   func() { s.Incr([]byte("k"), 1) },
			"append": func() { store(s, hearth.Append, "k", "1", 0, 0) },
			"set":    func() { store(s, hearth.Set, "k", "5", 0, 0) },
		} {
			change()
			if s.Get([]byte("k"), &it); it.CAS <= next {
				t.Errorf("%s: CAS %d after %d", what, it.CAS, next)
			}
			next = it.CAS
		}
	})
}

func TestWithoutCASEveryIDIsZeroAndCasFails(t *testing.T) {
	o := heap(4)
	o.NoCAS = true
	c := open(t, o)
	s := session(t, c)
	in(s, func() {
		if id, st := store(s, hearth.Set, "k", "v", 0, 0); id != 0 || st != hearth.OK {
			t.Error(id, st)
		}
		var it hearth.Item
		if s.Get([]byte("k"), &it); it.CAS != 0 {
			t.Errorf("CAS %d", it.CAS)
		}
		_, st := store(s, hearth.CAS, "k", "w", 0, 0)
		wantStatus(t, "cas on an item", st, hearth.Exists)
		_, st = store(s, hearth.CAS, "none", "w", 0, 0)
		wantStatus(t, "cas on nothing", st, hearth.Miss)
		wantValue(t, s, "k", "v")
	})
}

func TestIncrReadsNumbersAsMemcachedDoes(t *testing.T) {
	for value, want := range map[string]string{
		"5": "6", " 5": "6", "\t5": "6", "+5": "6", " +5": "6", "5 ": "6", "5 x": "6", "5\x00x": "6", "005": "6", "5\v": "6",
		"18446744073709551615": "0", "18446744073709551614": "18446744073709551615",
		"": "", " ": "", "+": "", "-1": "", "x": "", "5x": "", "+ 5": "", "18446744073709551616": "", "99999999999999999999": "", "0x5": "",
	} {
		n, ok := hearth.ParseNumber([]byte(value))
		got := ""
		if ok {
			got = fmt.Sprint(n + 1)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestIncrAndDecr(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		for _, x := range []struct {
			value string
			delta uint64
			decr  bool
			n     uint64
			after string
		}{
			{"10", 5, false, 15, "15"}, {"99", 1, false, 100, "100"}, {"10", 1, true, 9, "9 "}, {"5", 9, true, 0, "0"},
			{"18446744073709551615", 1, false, 0, "0" + strings.Repeat(" ", 19)}, {"1", math.MaxUint64, false, 0, "0"},
			{"7 apples", 1, false, 8, "8       "},
		} {
			store(s, hearth.Set, "n", x.value, 0, 0)
			f := s.Incr
			if x.decr {
				f = s.Decr
			}
			if n, st := f([]byte("n"), x.delta); n != x.n || st != hearth.OK {
				t.Errorf("%q by %d: %d, status %d", x.value, x.delta, n, st)
			}
			wantValue(t, s, "n", x.after)
		}
		_, st := s.Incr([]byte("none"), 1)
		wantStatus(t, "incr of nothing", st, hearth.Miss)
		store(s, hearth.Set, "word", "word", 0, 0)
		_, st = s.Decr([]byte("word"), 1)
		wantStatus(t, "decr of a word", st, hearth.NonNumeric)
		wantValue(t, s, "word", "word")

		// Exptime and flags stay.
		store(s, hearth.Set, "n", "1", 100, 0)
		s.Incr([]byte("n"), 1)
		var it hearth.Item
		if s.Get([]byte("n"), &it); it.Exptime != c.Now()+100 || it.Flags != 7 {
			t.Errorf("after incr: exptime %d, flags %d", it.Exptime, it.Flags)
		}
	})
	o := heap(8)
	o.ChunkMax = 16 << 10
	c = open(t, o)
	s = session(t, c)
	in(s, func() {
		store(s, hearth.Set, "large", strings.Repeat("1", 20000), 0, 0)
		_, st := s.Incr([]byte("large"), 1)
		wantStatus(t, "incr of a chained item", st, hearth.NonNumeric)
	})
}

// memcached-behaviour.md 1.6: what happens to the old value when the new one cannot be stored.
func TestOldValueWhenTooLarge(t *testing.T) {
	c := open(t, hearth.Options{HeapArena: true, MemoryLimit: 4 << 20, MaxItemSize: 64 << 10, ChunkMax: 16 << 10})
	s := session(t, c)
	in(s, func() {
		most := 64<<10 - 48 - 8 - 2 - 4 - 2
		big := strings.Repeat("x", most+1)
		for mode, kept := range map[hearth.Mode]bool{hearth.Set: false, hearth.Add: true, hearth.Replace: true, hearth.Append: true, hearth.Prepend: true, hearth.CAS: true} {
			store(s, hearth.Set, "k", "old", 0, 0)
			_, st := store(s, mode, "k", big, 0, 0)
			wantStatus(t, fmt.Sprint("too large in mode ", mode), st, hearth.TooLarge)
			if kept {
				wantValue(t, s, "k", "old")
			} else {
				wantMiss(t, s, "k")
			}
		}
		_, st := store(s, hearth.Set, "k", big[1:], 0, 0)
		wantStatus(t, "the largest", st, hearth.OK)
		_, st = store(s, hearth.Append, "k", "x", 0, 0)
		wantStatus(t, "append to the largest", st, hearth.NotStored)
		wantValue(t, s, "k", big[1:])
	})
	if n := c.Stats().StoreTooLarge; n != 6 {
		t.Errorf("store_too_large %d, want 6", n)
	}
}

func TestLargestValueIsMemcacheds(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 8 << 20})
	s := session(t, c)
	for flags, most := range map[uint32]int{0: 1048516, 5: 1048512} {
		in(s, func() {
			var d hearth.Draft
			wantStatus(t, "one more", s.Prepare(&d, hearth.Set, []byte("k"), flags, 0, most+1), hearth.TooLarge)
			wantStatus(t, "the largest", s.Prepare(&d, hearth.Set, []byte("k"), flags, 0, most), hearth.OK)
			s.Discard(&d)
		})
	}
}

func TestOldValueWhenOutOfMemory(t *testing.T) {
	o := heap(2)
	o.NoEvict = true
	o.ChunkMax = 16 << 10
	c := open(t, o)
	s := session(t, c)
	in(s, func() {
		value := strings.Repeat("v", 300)
		for _, k := range []string{"Set", "Add", "Replace", "Append", "Prepend", "CAS", "joined"} {
			if _, st := store(s, hearth.Set, k, "old", 0, 0); st != hearth.OK {
				t.Fatal(st)
			}
		}
		n := 0
		st := hearth.OK
		for ; st == hearth.OK; n++ {
			_, st = store(s, hearth.Set, fmt.Sprint("fill", n), value, 0, 0)
		}
		wantStatus(t, "full", st, hearth.NoMemory)
		if n < 2000 || c.Stats().Evictions != 0 {
			t.Errorf("full after %d items, %d evictions", n, c.Stats().Evictions)
		}
		for mode, k := range map[hearth.Mode]string{hearth.Add: "Add", hearth.Replace: "Replace", hearth.Append: "Append", hearth.Prepend: "Prepend", hearth.CAS: "CAS"} {
			_, st := store(s, mode, k, value, 0, 0)
			wantStatus(t, k, st, hearth.NoMemory)
			wantValue(t, s, k, "old")
		}
		_, st = store(s, hearth.Set, "Set", value, 0, 0)
		wantStatus(t, "set", st, hearth.NoMemory)
		wantMiss(t, s, "Set")
		// The piece has memory, the sum has none.
		for st = hearth.OK; st == hearth.OK; {
			_, st = store(s, hearth.Append, "joined", "0123456789012345678901234567890123456789", 0, 0)
		}
		wantStatus(t, "append whose sum has no memory", st, hearth.NotStored)
		before, _ := get(s, "joined")
		if !strings.HasPrefix(before, "old0123") {
			t.Errorf("joined is %q", before)
		}
		// What was there can still be read, touched, deleted and counted.
		wantStatus(t, "touch", s.Touch([]byte("fill0"), 10), hearth.OK)
		wantStatus(t, "delete", s.Delete([]byte("fill1")), hearth.OK)
		wantValue(t, s, "fill0", value)
	})
	// The deleted one's memory is there after the section, for one item.
	in(s, func() {
		_, st := store(s, hearth.Set, "again", strings.Repeat("v", 300), 0, 0)
		wantStatus(t, "after a delete", st, hearth.OK)
	})
}

func TestOutOfMemoryInTheMiddleOfAnUploadKeepsTheOldValue(t *testing.T) {
	c := open(t, hearth.Options{HeapArena: true, MemoryLimit: 4 << 20, NoEvict: true, MaxItemSize: 2 << 20, ChunkMax: 256 << 10})
	s := session(t, c)
	in(s, func() {
		store(s, hearth.Set, "k", "old", 0, 0)
		n := 0
		for st := hearth.OK; st == hearth.OK; n++ {
			_, st = store(s, hearth.Set, fmt.Sprint("large", n), strings.Repeat("v", 1<<20), 0, 0)
		}
		for st := hearth.OK; st == hearth.OK; n++ {
			_, st = store(s, hearth.Set, fmt.Sprint("half", n), strings.Repeat("v", 250<<10), 0, 0)
		}
		var d hearth.Draft
		if st := s.Prepare(&d, hearth.Set, []byte("k"), 0, 0, 1<<20); st != hearth.OK {
			t.Fatal(st)
		}
		for d.Remaining() > 0 {
			b := s.Next(&d)
			if b == nil {
				break
			}
			d.Wrote(len(b))
		}
		if d.Remaining() == 0 {
			t.Fatal("the upload found memory")
		}
		s.Discard(&d)
		wantValue(t, s, "k", "old")
	})
}

func TestTouchAndGetAndTouchSetTheExptime(t *testing.T) {
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	s := session(t, c)
	in(s, func() {
		wantStatus(t, "touch of nothing", s.Touch([]byte("k"), 10), hearth.Miss)
		store(s, hearth.Set, "k", "v", 5, 0)
		store(s, hearth.Set, "gat", "v", 5, 0)
		wantStatus(t, "touch", s.Touch([]byte("k"), 10), hearth.OK)
		var it hearth.Item
		wantStatus(t, "gat", s.GetAndTouch([]byte("gat"), 0, &it), hearth.OK)
		if v, _ := it.Value(); it.Exptime != 0 || string(v) != "v" {
			t.Errorf("%+v %q", it, v)
		}
	})
	clock.pass(c, 9)
	in(s, func() { wantValue(t, s, "k", "v") })
	clock.pass(c, 1)
	in(s, func() {
		wantMiss(t, s, "k")
		wantStatus(t, "touch of an expired one", s.Touch([]byte("k"), 10), hearth.Miss)
	})
	clock.pass(c, 1e6)
	in(s, func() { wantValue(t, s, "gat", "v") })
}

func TestExptimesAreThoseOfTheProtocol(t *testing.T) {
	const month = 30 * 24 * 60 * 60
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	s := session(t, c)
	now := clock.Wall()
	for _, x := range []struct{ exptime, lives int64 }{ // lives: seconds it can be read; -1 for ever
		{0, -1}, {1, 1}, {2, 2}, {100, 100}, {month, month}, {-1, 0}, {math.MinInt64, 0}, {now + 50, 50}, {now, 0}, {now - 5, 0}, {month + 1, 0},
		{math.MaxUint32, -1}, {math.MaxInt64, -1},
	} {
		in(s, func() {
			exptime := x.exptime
			if exptime > month+1 && exptime < math.MaxUint32 {
				exptime += clock.Wall() - now // absolute ones are relative to the clock, which moves on
			}
			_, st := store(s, hearth.Set, "k", "v", exptime, 0)
			wantStatus(t, fmt.Sprint("exptime ", x.exptime), st, hearth.OK)
		})
		if x.lives > 0 {
			clock.pass(c, x.lives-1)
			in(s, func() {
				if _, ok := get(s, "k"); !ok {
					t.Errorf("exptime %d: gone after %d s, want %d", x.exptime, x.lives-1, x.lives)
				}
			})
			clock.pass(c, 1)
		}
		in(s, func() {
			if _, ok := get(s, "k"); ok != (x.lives < 0) {
				t.Errorf("exptime %d: found %t after %d s", x.exptime, ok, x.lives)
			}
		})
	}
}

func TestExpiredItemsAreNoItems(t *testing.T) {
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	s := session(t, c)
	expire := func(what string, f func()) {
		t.Helper()
		in(s, func() { store(s, hearth.Set, "k", "1", 5, 0) })
		clock.pass(c, 5)
		in(s, f)
		in(s, func() { s.Delete([]byte("k")) })
	}
	expire("add", func() {
		_, st := store(s, hearth.Add, "k", "new", 0, 0)
		wantStatus(t, "add", st, hearth.OK)
		wantValue(t, s, "k", "new")
	})
	for _, mode := range []hearth.Mode{hearth.Replace, hearth.Append, hearth.Prepend} {
		expire("mode", func() {
			_, st := store(s, mode, "k", "new", 0, 0)
			wantStatus(t, fmt.Sprint("mode ", mode), st, hearth.NotStored)
			wantMiss(t, s, "k")
		})
	}
	expire("cas", func() {
		_, st := store(s, hearth.CAS, "k", "new", 0, 1)
		wantStatus(t, "cas", st, hearth.Miss)
	})
	expire("delete", func() { wantStatus(t, "delete", s.Delete([]byte("k")), hearth.Miss) })
	expire("incr", func() {
		_, st := s.Incr([]byte("k"), 1)
		wantStatus(t, "incr", st, hearth.Miss)
	})
	expire("get", func() { wantMiss(t, s, "k") })
	if st := c.Stats(); st.GetExpired == 0 || st.CurrItems != 0 {
		t.Errorf("get_expired %d, curr_items %d", st.GetExpired, st.CurrItems)
	}
}

func TestFlushAll(t *testing.T) {
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	s := session(t, c)
	set := func(key string) { in(s, func() { store(s, hearth.Set, key, "v", 0, 0) }) }
	has := func(key string, want bool) {
		t.Helper()
		in(s, func() {
			if _, ok := get(s, key); ok != want {
				t.Errorf("%s: found %t, want %t", key, ok, want)
			}
		})
	}
	for _, now := range []int64{0, -1, -1000} {
		set("before")
		in(s, func() { s.FlushAll(now) })
		set("after") // in the same second
		has("before", false)
		has("after", true)
	}
	// With a delay: what is stored until then goes, when it is time.
	set("before")
	in(s, func() { s.FlushAll(10) })
	set("between")
	clock.pass(c, 8)
	has("before", true)
	has("between", true)
	clock.pass(c, 1)
	has("before", false)
	has("between", false)
	set("after")
	clock.pass(c, 5)
	has("after", true)
	// A later flush_all replaces a waiting one, whether it is for now or for later.
	in(s, func() { s.FlushAll(10) })
	in(s, func() { s.FlushAll(1000) })
	clock.pass(c, 500)
	has("after", true)
	in(s, func() { s.FlushAll(0) })
	has("after", false)
	set("last")
	clock.pass(c, 2000)
	has("last", true)
	// An absolute time.
	in(s, func() { s.FlushAll(clock.Wall() + 7) })
	clock.pass(c, 7)
	has("last", false)
	// What is flushed is no item for the others either, and touch does not bring it back.
	set("k")
	in(s, func() { s.FlushAll(0) })
	in(s, func() {
		wantStatus(t, "touch", s.Touch([]byte("k"), 0), hearth.Miss)
		_, st := store(s, hearth.Append, "k", "x", 0, 0)
		wantStatus(t, "append", st, hearth.NotStored)
		_, st = s.Incr([]byte("k"), 1)
		wantStatus(t, "incr", st, hearth.Miss)
	})
	// A copy that is made of an item belongs to the item's time: flushed with it.
	set("copied")
	in(s, func() { s.FlushAll(3) })
	in(s, func() { store(s, hearth.Append, "copied", "x", 0, 0) })
	has("copied", true)
	clock.pass(c, 3)
	has("copied", false)
	if n := c.Stats().GetFlushed; n == 0 {
		t.Error("get_flushed is 0")
	}
}

func TestKeysOfEveryLengthAndByte(t *testing.T) {
	c := open(t, heap(4))
	s := session(t, c)
	in(s, func() {
		for n := 1; n <= 250; n++ {
			key := strings.Repeat(string(rune('a'+n%26)), n-1) + "\x00\xff \n"[n%4:n%4+1]
			if _, st := store(s, hearth.Set, key, fmt.Sprint(n), 0, 0); st != hearth.OK {
				t.Fatal(n, st)
			}
			wantValue(t, s, key, fmt.Sprint(n))
		}
	})
}
