package hearth_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"hearth"
)

// open opens a cache that is checked for consistency and closed at the end of the test.
func open(t testing.TB, o hearth.Options) *hearth.Cache {
	t.Helper()
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, c); closeCache(t, c) })
	return c
}

func check(t testing.TB, c *hearth.Cache) {
	t.Helper()
	for _, f := range c.Check() {
		t.Errorf("check: %v", f)
	}
}

func closeCache(t testing.TB, c *hearth.Cache) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// do runs f in a session and section of its own.
func do(c *hearth.Cache, f func(s *hearth.Session)) {
	s := c.NewSession()
	defer s.Close()
	s.Begin()
	defer s.End()
	f(s)
}

func put(t testing.TB, s *hearth.Session, mode hearth.Mode, key string, value []byte) hearth.Status {
	t.Helper()
	var d hearth.Draft
	if st := s.Prepare(&d, mode, []byte(key), 7, 0, len(value)); st != hearth.OK {
		return st
	}
	if !s.Write(&d, value) {
		s.Discard(&d)
		return hearth.NoMemory
	}
	_, st := s.Commit(&d, 0)
	return st
}

func get(s *hearth.Session, key string) (string, bool) {
	var it hearth.Item
	if s.Get([]byte(key), &it) != hearth.OK {
		return "", false
	}
	return string(it.AppendValue(nil)), true
}

func TestKeepsItemsOverCleanRestart(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
	const n = 20000
	large := bytes.Repeat([]byte("0123456789abcdef"), 60000)
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if st := put(t, s, hearth.Set, fmt.Sprint("key", i), []byte(fmt.Sprint("value", i))); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
		if st := put(t, s, hearth.Set, "large", large); st != hearth.OK {
			t.Fatal(st)
		}
	})
	check(t, c)
	closeCache(t, c)
	c = open(t, o)
	if st := c.Stats(); st.RestartKind != "clean" || st.CurrItems != n+1 {
		t.Errorf("start %s (%s) with %d items, want clean with %d", st.RestartKind, st.RestartReason, st.CurrItems, n+1)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if v, ok := get(s, fmt.Sprint("key", i)); v != fmt.Sprint("value", i) {
				t.Fatalf("key%d: %q %t", i, v, ok)
			}
		}
		if v, _ := get(s, "large"); v != string(large) {
			t.Error("large value differs")
		}
		if st := put(t, s, hearth.Append, "large", []byte("tail")); st != hearth.OK {
			t.Error(st)
		}
		if v, _ := get(s, "large"); v != string(large)+"tail" {
			t.Error("large value differs after append")
		}
	})
}

func TestEvictsWhenFull(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 8 << 20})
	do(c, func(s *hearth.Session) {
		value := make([]byte, 1000)
		for i := range 80000 {
			if st := put(t, s, hearth.Set, fmt.Sprint("key", i), value); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
	})
	st := c.Stats()
	if st.Evictions == 0 || st.CurrItems < 7000 {
		t.Errorf("%d evictions, %d items", st.Evictions, st.CurrItems)
	}
}
