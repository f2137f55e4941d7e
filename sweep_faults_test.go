//go:build faults

package hearth_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
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

// A chained item whose own page is swept, and that of its chain not yet, is deleted: what comes free of it must not be another item's when the sweep comes to
// that page, which takes it for a part of the chain.
func TestSweepComesToThePageOfAChainThatWasDeleted(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 32 << 20, ChunkMax: 16 << 10, SlabSizes: []int{512}}
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, 16000) // fills a chunk of the largest class, as the chain's first part does
	do(c, func(s *hearth.Session) {
		put(t, s, hearth.Set, "small", []byte("value")) // page 1 is that of small chunks, where the head goes
		put(t, s, hearth.Set, "chained", make([]byte, 20000))
		put(t, s, hearth.Set, "other", whole)
	})
	if err := c.Abandon(); err != nil {
		t.Fatal(err)
	}
	pages, stopped, released := 0, make(chan struct{}), make(chan struct{})
	fault.Set(func(point string) {
		if point == "restore.sweep.page" {
			if pages++; pages == 2 {
				close(stopped)
				<-released
			}
		}
	})
	defer fault.Set(nil)
	if c, err = hearth.Open(o); err != nil {
		t.Fatal(err)
	}
	<-stopped
	do(c, func(s *hearth.Session) { wantStatus(t, "delete", s.Delete([]byte("chained")), hearth.OK) })
	for i := 0; c.Waiting() > 0 && i < 1000; i++ {
		c.Round()
	}
	keys := []string{"other"}
	do(c, func(s *hearth.Session) {
		for i := range 70 { // more than a page holds
			keys = append(keys, fmt.Sprint("after", i))
			put(t, s, hearth.Set, keys[i+1], whole)
		}
	})
	close(released)
	c.WaitSwept()
	check(t, c)
	do(c, func(s *hearth.Session) {
		for _, key := range keys {
			wantStatus(t, "delete of "+key, s.Delete([]byte(key)), hearth.OK)
		}
	})
	check(t, c)
	closeCache(t, c)
}

// A start with less memory drops items of many chunks that have one in a page that goes. Killed while it does, it leaves each of them as it was or not at all: the next
// start, with the old memory, would find the chain whole.
func TestKillWhileChainsAreDroppedKeepsExptimes(t *testing.T) {
	const n, exptime = 100, 2_100_000_000
	dir := t.TempDir()
	o := hearth.Options{Path: filepath.Join(dir, "slab"), MemoryLimit: 8 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10}
	key := func(i int) string { return fmt.Sprint("key", i) }
	copyFile := func(from, to string) {
		if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
			t.Errorf("cp: %v: %s", err, out)
		}
	}
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if _, st := store(s, hearth.Set, key(i), strings.Repeat("v", 60_000), exptime, 0); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
	})
	if err := c.Abandon(); err != nil {
		t.Fatal(err)
	}
	var images []string
	fault.Set(func(point string) {
		if point == "restore.sweep.linked" {
			images = append(images, filepath.Join(dir, fmt.Sprint("image", len(images))))
			copyFile(o.Path, images[len(images)-1])
		}
	})
	defer fault.Set(nil)
	less := o
	less.MemoryLimit = 4 << 20
	if c, err = hearth.Open(less); err != nil {
		t.Fatal(err)
	}
	fault.Set(nil)
	closeCache(t, c)
	found := 0
	for _, image := range images {
		copyFile(image, o.Path) // into the same file: another one would be taken for a copy
		if c, err = hearth.Open(o); err != nil {
			t.Fatal(err)
		}
		c.WaitSwept()
		do(c, func(s *hearth.Session) {
			for i := range n {
				var it hearth.Item
				if s.Get([]byte(key(i)), &it) == hearth.OK {
					if found++; it.Exptime != exptime {
						t.Errorf("%s: %s has exptime %d, want %d", image, key(i), it.Exptime, exptime)
					}
				}
			}
		})
		check(t, c)
		closeCache(t, c)
	}
	if len(images) == 0 || found == 0 {
		t.Errorf("%d images with %d items: nothing was looked at", len(images), found)
	}
}
