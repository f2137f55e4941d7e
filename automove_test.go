package hearth_test

import (
	"fmt"
	"os"
	"testing"

	"hearth"
)

// looks repeats rows of evictions a second, out of memory a second, age, free chunks and pages of classes of ten chunks a page for so many seconds.
func looks(seconds int, rows ...[5]uint64) (all [][][5]uint64) {
	for n := range uint64(seconds) {
		now := make([][5]uint64, len(rows))
		for i, row := range rows {
			row[0], row[1] = row[0]*(n+1), row[1]*(n+1)
			now[i] = row
		}
		all = append(all, now)
	}
	return all
}

func TestAutomoveDecidesAsMemcached(t *testing.T) {
	quiet, evicting := [5]uint64{0, 0, 100, 0, 9}, [5]uint64{5, 0, 10, 0, 9}
	for name, tt := range map[string]struct {
		full     bool
		looks    [][][5]uint64
		src, dst int
	}{
		"from the oldest to the youngest":    {true, looks(11, quiet, evicting), 1, 2},
		"not before the window is full":      {true, looks(10, quiet, evicting), 0, 0},
		"not where nothing is evicted":       {true, looks(20, quiet, [5]uint64{0, 0, 10, 0, 9}), 0, 0},
		"out of memory is evicting":          {true, looks(11, quiet, [5]uint64{0, 1, 10, 0, 9}), 1, 2},
		"not when the ages are alike":        {true, looks(20, quiet, [5]uint64{5, 0, 80, 0, 9}), 0, 0},
		"when they are just not alike":       {true, looks(11, quiet, [5]uint64{5, 0, 79, 0, 9}), 1, 2},
		"not by the rounding of ages":        {true, looks(20, [5]uint64{0, 0, 1, 0, 9}, [5]uint64{5, 0, 0, 0, 9}), 0, 0},
		"by more than that":                  {true, looks(11, [5]uint64{0, 0, 2, 0, 9}, [5]uint64{5, 0, 0, 0, 9}), 1, 2},
		"from a quiet class of two pages":    {true, looks(11, [5]uint64{0, 0, 100, 0, 2}, evicting), 1, 2},
		"not from one of two that evicts":    {true, looks(20, [5]uint64{1, 0, 100, 0, 2}, evicting), 0, 0},
		"not from a class of one page":       {true, looks(20, [5]uint64{0, 0, 100, 0, 1}, evicting), 0, 0},
		"the oldest of several":              {true, looks(11, quiet, [5]uint64{5, 0, 200, 0, 9}, evicting), 2, 3},
		"the youngest of several":            {true, looks(11, quiet, [5]uint64{5, 0, 5, 0, 9}, evicting), 1, 2},
		"free chunks go to the pool":         {true, looks(11, [5]uint64{0, 0, 0, 26, 9}), 1, 0},
		"not as few as two and a half pages": {true, looks(20, [5]uint64{0, 0, 0, 25, 9}), 0, 0},
		"not of a class that evicts":         {true, looks(20, [5]uint64{1, 0, 0, 26, 9}), 0, 0},
		"not while there is other memory":    {false, looks(20, [5]uint64{0, 0, 0, 26, 9}), 0, 0},
		"not of a class that has grown lately": {true, append(looks(10, [5]uint64{0, 0, 0, 26, 9}),
			looks(9, [5]uint64{0, 0, 0, 26, 10})...), 0, 0},
		"of one that has grown long ago": {true, append(looks(10, [5]uint64{0, 0, 0, 26, 9}),
			looks(11, [5]uint64{0, 0, 0, 26, 10})...), 1, 0},
		"not when it has just stopped evicting": {true, append(looks(15, quiet, evicting), [][5]uint64{quiet, {75, 0, 10, 0, 9}}), 0, 0},
	} {
		a := hearth.DefaultAutomove
		if src, dst := hearth.Look(&a, tt.full, tt.looks); src != tt.src || dst != tt.dst {
			t.Errorf("%s: from %d to %d, want from %d to %d", name, src, dst, tt.src, tt.dst)
		}
	}
	a := hearth.AutomoveSettings{Mode: 1, Ratio: 0.5, Window: 3}
	if src, dst := hearth.Look(&a, true, looks(4, quiet, [5]uint64{5, 0, 49, 0, 9})); src != 1 || dst != 2 {
		t.Errorf("window of 3: from %d to %d", src, dst)
	}
	if src, _ := hearth.Look(&a, true, looks(4, quiet, [5]uint64{5, 0, 50, 0, 9})); src != 0 {
		t.Error("a ratio of 0.5 is not kept")
	}
}

// hitRatio lets clients get keys below n, most of them low ones, and store what they miss, so many times a second; it returns the share of hits of the last five seconds.
func hitRatio(t *testing.T, c *hearth.Cache, clock *fakeClock, seconds, rate, n, size int) float64 {
	t.Helper()
	value := make([]byte, size)
	hits, gets := 0, 0
	at := uint32(1)
	for second := range seconds {
		do(c, func(s *hearth.Session) {
			for i := range rate {
				if i%64 == 0 {
					s.End()
					s.Begin()
				}
				at = at*1664525 + 1013904223
				key := fmt.Sprintf("%d-%d", size, int(float64(n)*float64(at>>8)/(1<<24)*float64(at>>8)/(1<<24)))
				_, ok := get(s, key)
				if !ok {
					put(t, s, hearth.Set, key, value)
				}
				if second >= seconds-5 {
					gets++
					if ok {
						hits++
					}
				}
			}
		})
		clock.pass(c, 1)
		for range 30 {
			c.Round()
		}
	}
	return float64(hits) / float64(gets)
}

// When clients turn from small values to large ones with all memory in use, and back, pages follow: the hit ratio comes to that of a fresh cache.
func TestAutomoveFollowsTheLoad(t *testing.T) {
	long := os.Getenv("HEARTH_LONG") != ""
	seconds, rate, mib := 60, 2000, int64(8)
	if long {
		seconds, rate, mib = 300, 20000, 64
	}
	clock := newClock()
	o := hearth.Options{MemoryLimit: mib << 20, Clock: clock}
	c := open(t, o)
	small, large := int(mib)*12000, int(mib)*500
	class := func(size int) (pages uint64) {
		for _, class := range c.ClassStats() {
			if class.ChunkSize > size+40 && class.ChunkSize < 2*size {
				pages += class.Pages
			}
		}
		return pages
	}
	hitRatio(t, c, clock, 30, int(mib)*4000, small, 100)
	had := class(100)
	got := hitRatio(t, c, clock, seconds, rate, large, 4096)
	grew := class(4096)
	back := hitRatio(t, c, clock, seconds, rate, small, 100)
	t.Logf("pages of small values %d, then of large ones %d, then of small ones %d; %d moves", had, grew, class(100), c.Stats().SlabsMoved)
	if had < uint64(mib)-3 || grew < 3 || c.Stats().SlabsMoved == 0 {
		t.Errorf("pages of small values %d, then of large ones %d; %d moves", had, grew, c.Stats().SlabsMoved)
	}
	if long {
		fresh := func(size, n int) float64 {
			clock := newClock()
			o.Clock = clock
			return hitRatio(t, open(t, o), clock, seconds, rate, n, size)
		}
		freshLarge, freshSmall := fresh(4096, large), fresh(100, small)
		t.Logf("hit ratio with large values %.3f, of a fresh cache %.3f; back to small ones %.3f, fresh %.3f", got, freshLarge, back, freshSmall)
		if got < freshLarge-0.02 || back < freshSmall-0.02 {
			t.Error("more than two points below a fresh cache")
		}
	}
}
