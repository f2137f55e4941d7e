package hearth_test

import (
	"fmt"
	"testing"
	"time"

	"hearth"
)

// At rest, whatever the last growth left, an item costs under twelve bytes of index, and fitting loses none while others are stored.
func TestIndexAtRestTakesUnderTwelveBytesAnItem(t *testing.T) {
	if raceEnabled {
		t.Skip("fills 150,000 items; the index's own tests grow under the race detector")
	}
	const n, more = 150_000, 500
	c := open(t, hearth.Options{MemoryLimit: 64 << 20})
	set := func(from, to int) { // in sections of their own: a growth waits for those that are open
		for i := from; i < to; i++ {
			if err := c.Set(fmt.Append(nil, "key", i), []byte("v"), 0, 0); err != nil {
				t.Error(i, err)
			}
		}
	}
	set(0, n)
	now := time.Now()
	c.FitIndex(now.Add(2 * time.Minute)) // notes how many there are
	before := c.Stats()
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		set(n, n+more)
	}()
	c.FitIndex(now.Add(4 * time.Minute))
	<-stored
	st := c.Stats()
	t.Logf("%.2f bytes an item before, %.2f after", float64(before.HashBytes)/n, float64(st.HashBytes)/(n+more))
	if float64(st.HashBytes) >= 12*(n+more) || st.CurrItems != n+more {
		t.Errorf("%d items, %d bytes of index, want %d and under 12 each", st.CurrItems, st.HashBytes, n+more)
	}
	for i := range n + more {
		if _, _, ok := c.Get(fmt.Append(nil, "key", i), nil); !ok {
			t.Fatalf("key%d is lost", i)
		}
	}
}
