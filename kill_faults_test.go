//go:build faults

package hearth_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hearth"
	"hearth/mmapslab/fault"
)

// A process that serves four writers, two readers who pin what they read, and somebody who moves pages kills itself at a named point: then all its
// threads stop wherever they are. The next one, on the same file, checks everything, and dies at another point.

const (
	killWriters, keysEach = 4, 300
	filler                = 48500 // items with which the index is about to grow
)

// killed are the points; those of growth come by once in an index's life, so they want a file whose index is about to grow.
var killedAt = []string{
	"hearth.draft.linked", "hearth.remake.claimed", "hearth.discard.unlinked", "hearth.move.copied", "hearth.move.published", "hearth.move.data-copying",
	"hearth.move.data-moved", "mmapslab.drain.before", "mmapslab.drain.started", "mmapslab.drain.empty", "mmapslab.drain.cleared", "mmapslab.drain.released",
	"mmapslab.drain.taken-back", "mmapslab.page.backed", "mmapslab.page.assigned", "mmapslab.superblock.before", "mmapslab.superblock.after",
	"index.insert.placing", "index.insert.placed", "index.insert.scanned", "index.insert.promoting", "index.insert.promoted",
	"index.replace.before", "index.replace.after", "index.delete.before", "index.delete.after", "restore.sweep.mark", "restore.sweep.linked",
	"index.grow.sized", "index.grow.started", "index.grow.frozen", "index.grow.copied", "index.grow.moved", "index.copy.placing", "index.copy.placed",
	"index.copy.scanned", "index.copy.promoting", "index.copy.promoted", "index.grow.switched", "index.grow.discarded",
}

func inGrowth(point string) bool {
	return strings.HasPrefix(point, "index.grow.") || strings.HasPrefix(point, "index.copy.")
}

func killOptions(path string) hearth.Options {
	return hearth.Options{Path: path, MemoryLimit: 96 << 20, MaxItemSize: 256 << 10, ChunkMax: 16 << 10, NoEvict: true, Logger: slog.New(slog.DiscardHandler)}
}

// TestAKillAtAnyPointBesideWritersLosesNothing kills a process at each of the points in turn.
func TestAKillAtAnyPointBesideWritersLosesNothing(t *testing.T) {
	if dir := os.Getenv("HEARTH_KILL_CHILD"); dir != "" {
		liveUntilKilled(t, dir, os.Getenv("HEARTH_KILL_POINT"))
		return
	}
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("HEARTH_KILL_ROUNDS")); err == nil {
		rounds = n
	} else if os.Getenv("HEARTH_LONG") != "" {
		rounds = 10
	}
	dir := t.TempDir()
	file, base, oracle := filepath.Join(dir, "slab"), filepath.Join(dir, "base"), filepath.Join(dir, "states")
	c, err := hearth.Open(killOptions(base))
	if err != nil {
		t.Fatal(err)
	}
	do(c, func(s *hearth.Session) {
		for i := range filler {
			if _, st := store(s, hearth.Set, fmt.Sprint("filler", i), fmt.Sprint("value of ", i), 0, 0); st != hearth.OK {
				t.Fatal(st)
			}
		}
	})
	if c.Stats().HashIsExpanding {
		t.Fatal("the index grows already")
	}
	closeCache(t, c)
	points, kills := killedAt, 0
	for round := range rounds {
		rand.New(rand.NewPCG(uint64(round), 1)).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		for i, point := range points {
			if inGrowth(point) || i == 0 {
				if out, err := exec.Command("cp", "--sparse=always", base, file).CombinedOutput(); err != nil {
					t.Fatalf("cp: %v: %s", err, out)
				}
				os.Remove(oracle)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
			cmd.Env = append(os.Environ(), "HEARTH_KILL_CHILD="+dir, "HEARTH_KILL_POINT="+point, fmt.Sprint("HEARTH_KILL_SEED=", round*1000+i))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("round %d, life %d, to be killed at %s: %v\n%s", round, i, point, err, out)
			}
			kills++
		}
		// And the last one's file.
		c, err := hearth.Open(killOptions(file))
		if err != nil {
			t.Fatal(err)
		}
		c.WaitSwept()
		verifyStates(t, c, openStates(t, dir))
		check(t, c)
		closeCache(t, c)
	}
	t.Logf("%d kills", kills)
}

// verifyStates looks whether every key holds what was acknowledged last, or what was asked for last, and notes which.
func verifyStates(t *testing.T, c *hearth.Cache, o states) (now []state) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for n := range killWriters * keysEach {
			is, err := o.settle(s, newKillKey(n), false)
			if err != nil {
				t.Error(err)
			}
			now = append(now, is)
		}
		for i := range filler {
			if v, ok := get(s, fmt.Sprint("filler", i)); !ok || v != fmt.Sprint("value of ", i) {
				t.Fatalf("filler%d: %t %q", i, ok, v)
			}
		}
	})
	return now
}

// liveUntilKilled is one life.
func liveUntilKilled(t *testing.T, dir, point string) {
	seed, _ := strconv.ParseUint(os.Getenv("HEARTH_KILL_SEED"), 10, 64)
	r := rand.New(rand.NewPCG(seed, 2))
	var left, armed atomic.Int64
	switch {
	case strings.HasPrefix(point, "mmapslab.drain."):
		left.Store(1 + r.Int64N(3))
	case strings.HasPrefix(point, "mmapslab."), strings.HasPrefix(point, "restore."), point == "index.grow.sized", point == "index.grow.started",
		point == "index.grow.switched", point == "index.grow.discarded":
		left.Store(1)
	case strings.HasPrefix(point, "hearth.move."):
		left.Store(1 + r.Int64N(20))
	default:
		left.Store(1 + r.Int64N(400))
	}
	if strings.HasPrefix(point, "restore.") || strings.HasPrefix(point, "mmapslab.superblock.") || point == "mmapslab.drain.taken-back" && r.IntN(2) == 0 {
		armed.Store(1) // comes by while the cache is opened
	}
	fault.Set(func(at string) {
		if at == point && armed.Load() == 1 && left.Add(-1) == 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		if armed.Load() == 1 && rand.IntN(8) == 0 {
			time.Sleep(50 * time.Microsecond) // the others get into the middle of it
		}
	})
	c, err := hearth.Open(killOptions(filepath.Join(dir, "slab")))
	if err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.RestartKind == "cold" {
		t.Fatalf("cold start: %s", st.RestartReason)
	}
	if r.IntN(2) == 0 { // else beside the sweep
		c.WaitSwept()
		check(t, c)
	}
	o := openStates(t, dir)
	now := verifyStates(t, c, o)
	if t.Failed() {
		return
	}
	armed.Store(1)
	var all sync.WaitGroup
	for w := range killWriters {
		mine, r := now[w*keysEach:(w+1)*keysEach], rand.New(rand.NewPCG(seed, uint64(10+w)))
		all.Go(func() {
			for end := time.Now().Add(killPatience); time.Now().Before(end) && !t.Failed(); {
				s := c.NewSession()
				for range 1000 {
					i := r.IntN(keysEach)
					n := w*keysEach + i
					in(s, func() {
						var err error
						if mine[i], err = newKillKey(n).change(s, r, o, mine[i], false); err != nil {
							t.Error(err)
						}
					})
				}
				s.Close()
			}
		})
	}
	for range 2 {
		all.Go(func() { readPinned(t, c, killWriters*keysEach) })
	}
	all.Go(func() {
		n := 0
		for end := time.Now().Add(killPatience); time.Now().Before(end) && !t.Failed(); {
			if inGrowth(point) {
				do(c, func(s *hearth.Session) {
					for range 100 {
						n++
						store(s, hearth.Set, fmt.Sprint("growth", n), "x", 0, 0)
					}
				})
			}
			for i := 0; i < 100 && c.Stats().SlabReassignRunning; i++ {
				c.Round()
			}
			c.CancelMove()
			classes := c.ClassStats()
			src, dst := classes[r.IntN(len(classes))].ID, classes[r.IntN(len(classes))].ID
			if r.IntN(2) == 0 {
				dst = 0
			}
			if src != dst {
				c.EmptyPage(src, dst)
			}
		}
	})
	all.Wait()
	if !t.Failed() {
		t.Errorf("%s was not passed", point)
	}
}
