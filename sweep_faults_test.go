//go:build faults

package hearth_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hearth"
	"hearth/mmapslab/fault"
)

// A session that stands between taking an item out of the index and disowning it holds the sweep up: it must not free that item's chunk, which the
// session then frees.
func TestSweepWaitsForWhoIsDeleting(t *testing.T) {
	const n = 2000
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 8 << 20}
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			put(t, s, hearth.Set, fmt.Sprint("key", i), []byte("value"))
		}
	})
	if err := c.Abandon(); err != nil {
		t.Fatal(err)
	}
	// The sweep stays at its first step until the item is deleted.
	deleted, released := make(chan struct{}), make(chan struct{})
	var stopped atomic.Bool
	fault.Set(func(point string) {
		switch {
		case point == "restore.sweep.mark":
			<-deleted
		case point == "index.delete.after" && stopped.CompareAndSwap(false, true):
			close(deleted)
			<-released
		}
	})
	defer fault.Set(nil)
	if c, err = hearth.Open(o); err != nil {
		t.Fatal(err)
	}
	done := make(chan hearth.Status)
	go do(c, func(s *hearth.Session) { done <- s.Delete([]byte("key7")) })
	<-deleted
	swept := make(chan struct{})
	go func() { c.WaitSwept(); close(swept) }()
	select {
	case <-swept:
		t.Error("the sweep did not wait")
	case <-time.After(200 * time.Millisecond): // as it should
	}
	close(released)
	if st := <-done; st != hearth.OK {
		t.Errorf("delete: %v", st)
	}
	<-swept
	check(t, c)
	if st := c.Stats(); st.CurrItems != n-1 {
		t.Errorf("curr_items %d, want %d", st.CurrItems, n-1)
	}
	closeCache(t, c)
}
