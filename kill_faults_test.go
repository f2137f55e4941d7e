//go:build faults

package hearth_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hearth"
	"hearth/mmapslab/fault"
)

// killPoint is a named point, and what a life must be for it to come by.
type killPoint struct {
	name  string
	early bool // it comes by before the load
	fresh bool // in a new file: the index grows while it fills
	close bool // at a clean stop
	clean bool // after one
	drain bool // after an end while a page drained
	lossy bool // only where memory is full, and its limit lower than at the last start
}

func killPoints() (points []killPoint) {
	add := func(like killPoint, names ...string) {
		for _, like.name = range names {
			points = append(points, like)
		}
	}
	add(killPoint{}, "hearth.draft.allocated", "hearth.draft.chained", "hearth.draft.sealed", "hearth.draft.linked", "hearth.remake.claimed", "hearth.remake.sealed",
		"hearth.touch.before", "hearth.touch.after", "hearth.discard.unlinked", "hearth.reclaim.freeing", "hearth.move.copied", "hearth.move.published",
		"hearth.move.data-copying", "hearth.move.data-moved", "mmapslab.drain.before", "mmapslab.drain.started", "mmapslab.drain.empty", "mmapslab.drain.cleared",
		"mmapslab.drain.released", "mmapslab.page.backed", "mmapslab.page.assigned", "index.insert.placing", "index.insert.placed",
		"index.insert.scanned", "index.insert.promoting", "index.insert.promoted", "index.replace.before", "index.replace.after", "index.delete.before", "index.delete.after")
	add(killPoint{early: true}, "hearth.attach.running", "hearth.attach.indexed", "restore.sweep.mark", "restore.sweep.page", "restore.sweep.linked", "hearth.grace.waiting",
		"mmapslab.superblock.before", "mmapslab.superblock.after")
	add(killPoint{early: true, drain: true}, "mmapslab.drain.taken-back")
	add(killPoint{early: true, clean: true}, "hearth.attach.checkpoint")
	add(killPoint{close: true}, "hearth.close.drained", "hearth.close.checkpoint", "hearth.close.saved")
	add(killPoint{early: true, fresh: true}, "hearth.create.stored")
	add(killPoint{fresh: true}, "index.grow.sized", "index.grow.started", "index.grow.frozen", "index.grow.copied", "index.grow.moved", "index.copy.placing", "index.copy.placed",
		"index.copy.scanned", "index.copy.promoting", "index.copy.promoted", "index.grow.switched", "index.grow.discarded")
	add(killPoint{lossy: true}, "hearth.evict.chosen", "hearth.alloc.waiting")
	add(killPoint{lossy: true, early: true}, "hearth.attach.sweeping", "hearth.attach.swept", "mmapslab.page.before-free", "mmapslab.page.freed")
	return points
}

// killModes are what happens at a point: all threads stop there and then; one panics; one stays there for ever, and the others are killed later.
var killModes = []string{"kill", "panic", "stall"}

// growingBuckets are outgrown once by a load's items. Fewer would grow twice, and the second time not while somebody stands still in a section: then full windows evict.
const growingBuckets = 40

const notPassed = 3 // the exit code of a life that did not come by its point

// pointEnding ends a life at a point.
type pointEnding struct {
	killPoint
	mode  string
	left  atomic.Int64 // of the times that it comes by
	armed atomic.Bool
}

func (e *pointEnding) opening() {
	e.armed.Store(e.early)
	fault.Set(func(at string) {
		if !e.armed.Load() {
			return
		}
		if at != e.name || e.left.Add(-1) != 0 {
			if rand.IntN(64) == 0 {
				time.Sleep(20 * time.Microsecond) // the others get into the middle of it
			}
			return
		}
		die := func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }
		switch e.mode {
		case "kill":
			die()
		case "panic":
			fmt.Println("planted at", at) // the report may be of another panic: the deferred unlocks of this one let others at what it left half done
			panic("planted")
		}
		time.AfterFunc(time.Duration(rand.Int64N(int64(20*time.Millisecond))), die)
		select {}
	})
}

func (e *pointEnding) serving() { e.armed.Store(true) }

func (e *pointEnding) done() (close, goOn bool) {
	if e.mode == "none" || e.close {
		return true, false
	}
	return false, false
}

func (e *pointEnding) over(t *testing.T) {
	if !t.Failed() && e.mode != "none" {
		os.Exit(notPassed)
	}
}

// TestALifeThatEndsAtAnyPointLosesNothing ends processes at each of the points in each of the ways, on one file; each looks first whether all is as the one
// before acknowledged it.
func TestALifeThatEndsAtAnyPointLosesNothing(t *testing.T) {
	points := killPoints()
	if dir := os.Getenv("HEARTH_POINT_CHILD"); dir != "" {
		seed, _ := strconv.ParseUint(os.Getenv("HEARTH_MOMENT_SEED"), 10, 64)
		e := &pointEnding{mode: os.Getenv("HEARTH_POINT_MODE")}
		e.killPoint = points[slices.IndexFunc(points, func(p killPoint) bool { return p.name == os.Getenv("HEARTH_POINT") })]
		if e.fresh {
			hearth.SetFirstBuckets(growingBuckets)
		}
		most := int64(40)
		if e.early || e.fresh || e.close || strings.HasPrefix(e.name, "mmapslab.") || strings.HasPrefix(e.name, "hearth.move.") {
			most = 3
		}
		e.left.Store(1 + rand.New(rand.NewPCG(seed, 6)).Int64N(most))
		once := []string{"hearth.create.stored", "index.grow.sized", "index.grow.started", "index.grow.discarded", "mmapslab.page.before-free", "mmapslab.page.freed"}
		if e.close || e.drain || slices.Contains(once, e.name) || strings.HasPrefix(e.name, "hearth.attach.") {
			e.left.Store(1)
		}
		lanes := killLanes(dir)
		lane := &lanes[0]
		if os.Getenv("HEARTH_MOMENT_LANE") == lanes[1].name {
			lane = &lanes[1]
		}
		lane.live(t, dir, e)
		return
	}
	lives := killsOf(4000, 200, 60)
	start := max(*seedWanted, 1)
	eachLane(t, func(t *testing.T, i int, lane *killLane, dir string) {
		draw := rand.New(rand.NewPCG(start, uint64(i)))
		ended, missed, modes := map[string]int{}, map[string]int{}, map[string]int{}
		life := func(n int, p killPoint, mode string) int {
			cmd := exec.Command(os.Args[0], "-test.run=^TestALifeThatEndsAtAnyPointLosesNothing$", "-test.count=1")
			cmd.Env = append(os.Environ(), "HEARTH_POINT_CHILD="+dir, "HEARTH_MOMENT_LANE="+lane.name, "HEARTH_POINT="+p.name, "HEARTH_POINT_MODE="+mode,
				fmt.Sprint("HEARTH_MOMENT_SEED=", start+uint64(n)))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			switch {
			case err == nil && mode == "none":
				return 0
			case exit != nil && exit.ExitCode() == notPassed:
				return notPassed
			case killed && mode != "panic", !killed && mode == "panic" && strings.Contains(string(out), "planted at "+p.name):
				return 1
			}
			t.Fatalf("life %d, to end at %s by %s: %v\n%s\nthe file is kept in %s; again with: go test -tags faults -run '%s' -seed %d -kills %d .", n, p.name, mode, err, out,
				dir, t.Name(), start, lives)
			return 0
		}
		var queue []killPoint
		small := false // the file's index is
		for n := 0; n < (lives+i)/2 && !t.Failed(); n++ {
			if len(queue) == 0 {
				queue = slices.Clone(points)
				draw.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
			}
			p, mode := queue[0], killModes[draw.IntN(len(killModes))]
			if queue = queue[1:]; p.lossy && !lane.lossy {
				continue
			}
			if p.fresh && mode == "stall" {
				mode = "kill"
			}
			if p.fresh || small {
				os.Remove(filepath.Join(dir, "slab"))
				os.Remove(filepath.Join(dir, "states"))
			}
			small = p.fresh
			if p.clean {
				life(n, p, "none")
			}
			if p.drain {
				life(n, killPoint{name: "mmapslab.drain.started"}, "kill") // or is not, see notPassed
			}
			if life(n, p, mode) == notPassed {
				missed[p.name]++
				continue
			}
			ended[p.name]++
			modes[mode]++
		}
		t.Logf("%v at %d points, %d operations since the file was new; not come by: %v", modes, len(ended), lane.last(t, dir), missed)
		for name, n := range missed {
			if n > 15 && ended[name] == 0 { // half of the lives are too short for some
				t.Errorf("%s was not passed in %d lives", name, n)
			}
		}
	})
}
