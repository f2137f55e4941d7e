package hearth_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth"
)

func TestCacheMethodsNeedNoSession(t *testing.T) {
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	if v, _, ok := c.Get([]byte("k"), []byte("dst:")); ok || string(v) != "dst:" {
		t.Errorf("%q %t", v, ok)
	}
	if err := c.Set([]byte("k"), []byte("value"), 42, 0); err != nil {
		t.Error(err)
	}
	if v, flags, ok := c.Get([]byte("k"), []byte("dst:")); !ok || string(v) != "dst:value" || flags != 42 {
		t.Errorf("%q %d %t", v, flags, ok)
	}
	if !c.Delete([]byte("k")) || c.Delete([]byte("k")) {
		t.Error("delete does not tell whether there was one")
	}
	for ttl, lives := range map[time.Duration]int64{time.Second: 1, time.Millisecond: 1, 1500 * time.Millisecond: 2, 90 * 24 * time.Hour: 90 * 24 * 3600, -time.Nanosecond: 0} {
		if err := c.Set([]byte("k"), nil, 0, ttl); err != nil {
			t.Error(err)
		}
		if lives > 0 {
			clock.pass(c, lives-1)
			if _, _, ok := c.Get([]byte("k"), nil); !ok {
				t.Errorf("ttl %v: gone after %d s", ttl, lives-1)
			}
			clock.pass(c, 1)
		}
		if _, _, ok := c.Get([]byte("k"), nil); ok {
			t.Errorf("ttl %v: still there after %d s", ttl, lives)
		}
	}
	for ttl, err := range map[time.Duration]error{0: c.Set([]byte("k"), nil, 0, 0), 1 << 62: c.Set([]byte("k2"), nil, 0, 1<<62)} {
		clock.pass(c, 1e8)
		if _, _, ok := c.Get([]byte("k"), nil); err != nil || !ok {
			t.Errorf("ttl %v: %v, found %t", ttl, err, ok)
		}
	}
}

func TestCacheMethodsTellWhyNot(t *testing.T) {
	o := heap(2)
	o.NoEvict = true
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]error{"": hearth.ErrKey, strings.Repeat("k", 251): hearth.ErrKey, strings.Repeat("k", 250): nil} {
		if err := c.Set([]byte(key), nil, 0, 0); !errors.Is(err, want) {
			t.Errorf("key of %d bytes: %v, want %v", len(key), err, want)
		}
		if _, _, ok := c.Get([]byte(key), nil); ok != (want == nil) || c.Delete([]byte(key)) != (want == nil) {
			t.Errorf("key of %d bytes is found, or is not", len(key))
		}
	}
	if err := c.Set([]byte("k"), make([]byte, 512<<10), 0, 0); !errors.Is(err, hearth.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	for i := 0; err == nil; i++ {
		err = c.Set(fmt.Append(nil, i), make([]byte, 1000), 0, 0)
	}
	if !errors.Is(err, hearth.ErrNoMemory) {
		t.Errorf("%v, want ErrNoMemory", err)
	}
	check(t, c)
	c.Do(func(*hearth.Session) {
		if err := c.Close(); err == nil {
			t.Error("closed inside Do")
		}
	})
	closeCache(t, c)
	if err := c.Set([]byte("k"), nil, 0, 0); !errors.Is(err, hearth.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if _, _, ok := c.Get([]byte("k"), nil); ok || c.Delete([]byte("k")) {
		t.Error("a closed cache finds something")
	}
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, hearth.ErrClosed) {
			t.Errorf("Do on a closed cache: %v", err)
		}
	}()
	c.Do(func(*hearth.Session) {})
}

func TestDoEndsTheSectionOfAPanic(t *testing.T) {
	c := open(t, heap(2))
	func() {
		defer func() { recover() }()
		c.Do(func(s *hearth.Session) {
			store(s, hearth.Set, "k", "v", 0, 0)
			s.Delete([]byte("k"))
			panic("f fails")
		})
	}()
	c.Round()
	if n := c.Waiting(); n != 0 {
		t.Errorf("%d items still wait for the section", n)
	}
}

func TestItemsMeetsEachOnceAndMayBeLeft(t *testing.T) {
	c, err := hearth.Open(heap(8))
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000 // more than a step of the walk
	putMany(t, c, "key%d", n)
	met := map[string]int{}
	for it := range c.Items() {
		met[string(it.Key)]++
		if v, ok := it.Value(); !ok || string(v) != "value" {
			t.Errorf("%s: %q, %t", it.Key, v, ok)
		}
	}
	if len(met) != n {
		t.Errorf("met %d items, want %d", len(met), n)
	}
	for key, times := range met {
		if times != 1 {
			t.Errorf("met %s %d times", key, times)
		}
	}
	left := 0
	for it := range c.Items() {
		c.Delete(it.Key)
		if left++; left == 10 {
			break
		}
	}
	func() {
		defer func() { recover() }()
		for it := range c.Items() {
			c.Delete(it.Key)
			panic("the body fails")
		}
	}()
	c.Round()
	if waiting, items := c.Waiting(), c.Stats().CurrItems; waiting != 0 || items != n-11 {
		t.Errorf("%d items still wait for a section, %d are there, want %d", waiting, items, n-11)
	}
	check(t, c)
	closeCache(t, c)
	for it := range c.Items() {
		t.Errorf("a closed cache has %s", it.Key)
	}
}

func TestCacheMethodsFromManyGoroutines(t *testing.T) {
	c := open(t, heap(4))
	var wg sync.WaitGroup
	for g := range 100 {
		wg.Go(func() {
			key := fmt.Append(nil, "key", g)
			var buf []byte
			for i := range 50 {
				want := fmt.Append(nil, g, " ", i)
				if err := c.Set(key, want, uint32(g), time.Hour); err != nil {
					t.Error(err)
				}
				v, flags, ok := c.Get(key, buf[:0])
				if buf = v; !ok || !bytes.Equal(v, want) || flags != uint32(g) {
					t.Errorf("%q %d %t, want %q", v, flags, ok, want)
				}
			}
		})
	}
	wg.Wait()
	if st := c.Stats(); st.CmdSet != 5000 || st.GetHits != 5000 || st.CurrItems != 100 {
		t.Errorf("cmd_set %d, get_hits %d, curr_items %d: counts of idle sessions are lost", st.CmdSet, st.GetHits, st.CurrItems)
	}
}

func TestGetAndSmallSetDoNotAllocate(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 8 << 20})
	s := session(t, c)
	key, value := []byte("some key"), make([]byte, 100)
	set := func() {
		var d hearth.Draft
		s.Begin()
		if s.Prepare(&d, hearth.Set, key, 0, 0, len(value)) != hearth.OK || !s.Write(&d, value) {
			t.Fatal("no memory")
		}
		s.Commit(&d, 0)
		s.End()
	}
	get := func() {
		var it hearth.Item
		s.Begin()
		if s.Get(key, &it) != hearth.OK {
			t.Fatal("miss")
		}
		if v, ok := it.Value(); !ok || len(v) != 100 {
			t.Fatal(len(v))
		}
		s.End()
	}
	for range 1000 {
		set() // until the lists of retired items have their size
	}
	c.Pause(true)
	defer c.Pause(false)
	none := []byte("none")
	miss := func() { s.Begin(); var it hearth.Item; s.Get(none, &it); s.End() }
	buf := make([]byte, 0, 200)
	for name, f := range map[string]func(){"get": get, "set": set, "miss": miss, "touch": func() { s.Begin(); s.Touch(key, 100); s.End() },
		"Cache.Get": func() { c.Get(key, buf) }, "Cache.Set": func() { c.Set(key, value, 0, 0) }} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}
