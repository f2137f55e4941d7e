//go:build faults

package hearth_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hearth"
	"hearth/mmapslab/fault"
)

// What a kill leaves at any point of a move is readable: nothing is lost, nothing comes back, every chunk is accounted for. The image is a copy of the file, taken at the point and
// put back into the same file after the cache is gone; nobody else uses the cache meanwhile.
func TestAKillAtAnyPointOfAMoveLosesNothing(t *testing.T) {
	kills := 28
	if os.Getenv("HEARTH_LONG") != "" {
		kills = 200
	}
	dir := t.TempDir()
	o := hearth.Options{MemoryLimit: 48 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10}
	copyFile := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
	}
	points := []string{"mmapslab.drain.before", "mmapslab.drain.started", "mmapslab.drain.empty", "mmapslab.drain.cleared", "mmapslab.drain.released",
		"mmapslab.drain.taken-back", "mmapslab.page.backed", "mmapslab.page.assigned", "hearth.move.copied", "hearth.move.published",
		"hearth.move.data-copying", "hearth.move.data-moved", "index.replace.before", "index.replace.after"}
	for kill := range kills {
		r := rand.New(rand.NewPCG(uint64(kill), 5))
		o.Path = filepath.Join(dir, fmt.Sprint("slab", kill))
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		noAutomove(t, c)
		c.Pause(true)
		want := map[string]string{}
		s := c.NewSession()
		rounds := true // nobody but the keeper is at work
		change := func(n int) {
			rounds = false
			defer func() { rounds = true }()
			in(s, func() {
				for range n {
					key := fmt.Sprint("key", r.IntN(6000))
					if r.IntN(40) == 0 {
						key = fmt.Sprint("large", r.IntN(60))
					}
					value := strings.Repeat(fmt.Sprint(key, " ", r.Uint32(), " "), 20)
					if key[0] == 'l' {
						value = strings.Repeat(value, 100+r.IntN(100))
					}
					if r.IntN(3) == 0 {
						if s.Delete([]byte(key)) == hearth.OK != (want[key] != "") {
							t.Errorf("delete of %s", key)
						}
						delete(want, key)
					} else if _, st := store(s, hearth.Set, key, value, 0, 0); st == hearth.OK {
						want[key] = value
					} else {
						t.Errorf("set: %d", st)
					}
				}
			})
		}
		for range 100 {
			change(100)
		}
		image, wanted, left, at := o.Path+".image", points[kill%len(points)], 1+r.IntN(3), ""
		if strings.HasPrefix(wanted, "hearth.") || strings.HasPrefix(wanted, "index.") {
			left = 1 + r.IntN(20) // these come by many times
		}
		fault.Set(func(point string) {
			if at == "" && point == wanted && rounds {
				if left--; left == 0 {
					at = point
					copyFile(o.Path, image)
				}
			}
		})
		for i := 0; at == "" && i < 20000; i++ {
			if !c.Stats().SlabReassignRunning {
				change(20)
				classes := c.ClassStats()
				class := classes[r.IntN(len(classes))]
				if dst := []int{0, 3, 16, 20}[r.IntN(4)]; class.FreeChunks > 0 && class.ID != dst {
					c.EmptyPage(class.ID, dst)
				}
			}
			if i%50 == 49 {
				c.Pause(false)
				c.CancelMove()
				c.Pause(true)
			}
			c.RoundPaused()
		}
		fault.Set(nil)
		if at == "" {
			t.Fatalf("kill %d: %s was not passed", kill, wanted)
		}
		s.Close()
		c.Pause(false)
		if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
		copyFile(image, o.Path)
		os.Remove(image)
		c, err = hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if st := c.Stats(); st.RestartKind != "unclean" {
			t.Fatalf("kill %d at %s: start %s: %s", kill, at, st.RestartKind, st.RestartReason)
		}
		c.WaitSwept()
		check(t, c)
		do(c, func(s *hearth.Session) {
			for i := range 6060 {
				key := fmt.Sprint("key", i)
				if i >= 6000 {
					key = fmt.Sprint("large", i-6000)
				}
				if got, ok := get(s, key); ok != (want[key] != "") || got != want[key] {
					t.Errorf("kill %d at %s: %s: found %t, %.20q, want %.20q", kill, at, key, ok, got, want[key])
				}
			}
		})
		if st := c.Stats(); int(st.CurrItems) != len(want) || st.Evictions != 0 {
			t.Errorf("kill %d at %s: %d items, want %d; %d evictions", kill, at, st.CurrItems, len(want), st.Evictions)
		}
		// And pages can move again.
		for _, class := range c.ClassStats() {
			if class.FreeChunks > uint64(class.ChunksPerPage)+uint64(class.ChunksPerPage)/10 {
				movePage(t, c, class.ID, 0)
			}
		}
		check(t, c)
		closeCache(t, c)
		os.Remove(o.Path)
		if t.Failed() {
			return
		}
	}
}

// What happens to an item between the copy and the change of its index word is not forgotten: a fetch's mark goes over to the copy; a touch, a store and a delete
// make the mover drop its copy.
func TestWhatHappensDuringAMoveIsNotForgotten(t *testing.T) {
	clock := newClock()
	c := open(t, hearth.Options{MemoryLimit: 16 << 20, Clock: clock})
	noAutomove(t, c)
	room(t, c, 1000)
	s := session(t, c)
	keys := []string{"fetched", "touched", "stored", "deleted"}
	in(s, func() {
		for _, key := range keys {
			put(t, s, hearth.Set, key, make([]byte, 1000))
		}
	})
	// Whichever item is being copied, all four things are done once: the first one that is copied after them is theirs.
	tell := map[string]func(key string){
		"fetched": func(key string) { get(s, key) },
		"touched": func(key string) { wantStatus(t, key, s.Touch([]byte(key), 500), hearth.OK) },
		"stored":  func(key string) { wantStatus(t, key, put(t, s, hearth.Set, key, []byte("new")), hearth.OK) },
		"deleted": func(key string) { wantStatus(t, key, s.Delete([]byte(key)), hearth.OK) },
	}
	copied := 0
	fault.Set(func(point string) {
		if point != "hearth.move.copied" {
			return
		}
		copied++
		for _, key := range keys {
			in(s, func() {
				if c.BeingMoved(key) && tell[key] != nil {
					tell[key](key)
					tell[key] = nil
				}
			})
		}
	})
	defer fault.Set(nil)
	class := 0
	for _, other := range c.ClassStats() {
		if other.ChunkSize > 1000 && other.Pages > 2 {
			class = other.ID
		}
	}
	for range classPages(c, class) { // each page once
		movePage(t, c, class, 20)
		c.EmptyPage(20, class)
		moved(t, c)
	}
	fault.Set(nil)
	for key, left := range tell {
		if left != nil {
			t.Errorf("%s was not moved; %d items were", key, copied)
		}
	}
	var got hearth.Fetch
	peek := &hearth.GetOptions{Peek: true}
	in(s, func() {
		if st := s.MetaGet([]byte("fetched"), peek, &got); st != hearth.OK || !got.Fetched {
			t.Errorf("fetched: %d, fetched %t", st, got.Fetched)
		}
		if st := s.MetaGet([]byte("touched"), peek, &got); st != hearth.OK || got.Exptime != uint32(clock.Wall()+500) || got.Fetched != true {
			t.Errorf("touched: %d, exptime %d", st, got.Exptime)
		}
		wantValue(t, s, "stored", "new")
		wantMiss(t, s, "deleted")
	})
}
