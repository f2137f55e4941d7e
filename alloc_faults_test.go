//go:build faults

package hearth_test

import (
	"fmt"
	"testing"

	"hearth"
	"hearth/mmapslab/fault"
)

// A store that found nothing, and then sees that nothing is left to wait for, looks again: what it waited for may have come free in between.
func TestMemoryThatComesFreeBehindASearchIsFound(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 1 << 20, NoEvict: true, MaxItemSize: 64 << 10, ChunkMax: 64 << 10})
	value := make([]byte, 1000)
	n := 0
	do(c, func(s *hearth.Session) {
		for ; put(t, s, hearth.Set, fmt.Sprint(n), value) == hearth.OK; n++ {
		}
	})
	reader, other := c.NewSession(), c.NewSession()
	defer reader.Close()
	defer other.Close()
	reader.Begin()
	other.Begin()
	other.Delete([]byte("0"))
	other.End()
	rounds := 0
	fault.Set(func(point string) {
		if point != "hearth.alloc.waiting" {
			return
		}
		if rounds++; rounds == 2 { // the first is not the last anyway
			reader.End()
			other.Begin()
			other.End() // collects
		}
	})
	defer fault.Set(nil)
	do(c, func(s *hearth.Session) {
		if st := put(t, s, hearth.Set, "late", value); st != hearth.OK {
			t.Errorf("status %d after %d rounds, want OK: the item that was deleted has left a chunk", st, rounds)
		}
	})
	if rounds < 2 {
		t.Errorf("%d rounds: nothing was waited for", rounds)
	}
}
