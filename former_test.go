package hearth_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"hearth"
)

// Another -f, -n or -I shapes new pages only: what is in the old ones stays, and they are emptied when memory is full.
func TestItemsOfAnotherClassTableStayUntilMemoryIsNeeded(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
	value := make([]byte, 1000)
	const n = 8000
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if st := put(t, s, hearth.Set, fmt.Sprint("old", i), value); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
	})
	closeCache(t, c)

	o.GrowthFactor, o.MinSpace = 1.5, 100
	c = open(t, o)
	if st := c.Stats(); st.RestartKind != "clean" || st.CurrItems != n {
		t.Fatalf("start %s (%s) with %d items, want clean with %d", st.RestartKind, st.RestartReason, st.CurrItems, n)
	}
	check(t, c)
	do(c, func(s *hearth.Session) {
		for i := range n {
			if _, ok := get(s, fmt.Sprint("old", i)); !ok {
				t.Fatalf("old%d is lost", i)
			}
		}
	})
	former := func() (pages uint64) {
		for _, class := range c.ClassStats() {
			if class.ID > 63 {
				pages += class.Pages
			}
		}
		return pages
	}
	if former() == 0 {
		t.Fatal("no page of a former class")
	}
	deadline := time.Now().Add(20 * time.Second)
	for i := 0; former() > 0; i++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d pages of former classes are left", former())
		}
		do(c, func(s *hearth.Session) {
			for j := range 100 {
				if st := put(t, s, hearth.Set, fmt.Sprint("new", i, "-", j), value); st != hearth.OK {
					t.Fatal(i, st)
				}
			}
		})
	}
	if st := c.Stats(); st.TotalMalloced > st.LimitMaxbytes+4<<20 {
		t.Errorf("%d bytes of pages, limit %d", st.TotalMalloced, st.LimitMaxbytes)
	}
}
