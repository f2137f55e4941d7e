package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hearth"
)

var (
	kills = flag.Int("kills", 200, "how often TestKilledAtAnyMomentKeepsWhatItAcknowledged kills the server, over all profiles")
	seed  = flag.Uint64("seed", 0, "what the kill tests draw their random numbers from; 0: something new")
)

// drawSeed returns the seed of this run and has a failure tell it.
func drawSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("draw the same numbers again with: go test -run '%s' -seed %d -kills %d", t.Name(), s, *kills)
		}
	})
	return s
}

// profile is a load and a memory for it.
type profile struct {
	keys   int // of each client
	memory int // MiB
	lossy  bool
	size   func(*rand.Rand) int
}

// TestKilledAtAnyMomentKeepsWhatItAcknowledged kills the server over and over, at a random moment of a random load and sometimes before it serves, on
// one and the same file. What it acknowledged must be there, what it did not may be, and nothing else ever.
func TestKilledAtAnyMomentKeepsWhatItAcknowledged(t *testing.T) {
	for name, p := range map[string]profile{
		"roomy": {keys: 250, memory: 256, size: func(r *rand.Rand) int {
			switch n := r.IntN(400); {
			case n == 0: // chained
				return 600_000 + r.IntN(300_000)
			case n < 20:
				return 10_000 + r.IntN(90_000)
			}
			return 60 + r.IntN(1000)
		}},
		"evicting": {keys: 3000, memory: 6, lossy: true, size: func(r *rand.Rand) int {
			switch n := r.IntN(1000); {
			case n == 0:
				return 600_000 + r.IntN(300_000)
			case n < 20:
				return 5_000 + r.IntN(30_000)
			}
			return 60 + r.IntN(1500)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killLoop(t, p, *kills/2)
		})
	}
}

func killLoop(t *testing.T, prof profile, kills int) {
	const clients, counters, checkEach = 8, 4, 10
	start := drawSeed(t)
	draw := rand.New(rand.NewPCG(start, 0))
	l := newLedger(clients, prof.keys, counters, prof.lossy)
	file := newFile(t)
	args := []string{"-e", file, "-m", fmt.Sprint(prof.memory), "-t", "4"}
	var sent, acked, undecided, checked, early, findings int
	var restarts []time.Duration
	kinds := map[string]int{}

	begin := func() *proc {
		began := time.Now()
		p := startHearthd(t, args...)
		restarts = append(restarts, time.Since(began))
		kinds[stat(t, p.addr, "restart_kind")]++
		n, wrong := l.verify(p.addr)
		checked += n
		if len(wrong) > 0 {
			t.Fatalf("after %d kills %d of %d keys are wrong; the first:\n%s\n%s", kinds["unclean"]+early, len(wrong), n, joined(wrong), p.stderr)
		}
		return p
	}
	check := func() { findings += wantSound(t, file, prof.memory) }

	for round := range kills {
		p := begin()
		var gate sync.RWMutex // the coordinator of a flush_all has it alone
		var killed atomic.Bool
		var all sync.WaitGroup
		fail := make(chan error, clients+1)
		workers := make([]*worker, clients)
		conn := dial(p.addr)
		if err := l.restartCounters(conn); err != nil {
			t.Fatal(err)
		}
		for id := range workers {
			w := &worker{l: l, id: id, conn: dial(p.addr), rand: rand.New(rand.NewPCG(start, uint64(round*clients+id+1))), size: prof.size,
				last: map[*counter]count{}}
			workers[id] = w
			all.Add(1)
			go func() {
				defer all.Done()
				defer w.conn.Close()
				for {
					gate.RLock()
					err := w.step()
					gate.RUnlock()
					if err != nil {
						if !killed.Load() || !cutOff(err) && err != errUnsettled {
							fail <- err
						}
						return
					}
				}
			}()
		}
		life := time.Duration(1+draw.IntN(150)) * time.Millisecond
		if draw.IntN(10) == 0 { // flush_all somewhere in it
			at := time.After(time.Duration(draw.Int64N(int64(life))))
			all.Add(1)
			go func() {
				defer all.Done()
				<-at
				gate.Lock()
				defer gate.Unlock()
				if err := l.flush(conn); err != nil && (!cutOff(err) || !killed.Load()) {
					fail <- err
				}
			}()
		}
		var wrong error
		select {
		case <-time.After(life):
		case wrong = <-fail:
		}
		killed.Store(true)
		code := p.stop(t, syscall.SIGKILL)
		all.Wait()
		conn.Close()
		select {
		case wrong = <-fail:
		default:
		}
		if wrong != nil || code != -int(syscall.SIGKILL) {
			t.Fatalf("round %d, exit %d: %v\n%s", round, code, wrong, p.stderr)
		}
		for _, w := range workers {
			sent, acked = sent+w.sent, acked+w.acked
			undecided += w.sent - w.acked
		}
		if draw.IntN(5) == 0 { // once more, before it serves or just when it does
			early++
			p := exec.Command(binary, append([]string{"-u", me(), "-p", "-1", "-l", "127.0.0.1"}, args...)...)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(draw.Int64N(int64(30 * time.Millisecond))))
			p.Process.Kill()
			p.Wait()
		}
		if (round+1)%checkEach == 0 {
			check()
		}
	}
	p := begin()
	corrupt := stat(t, p.addr, "corrupt_items")
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
	check()
	if corrupt != "0" {
		t.Errorf("corrupt_items %s, want 0", corrupt)
	}
	if (l.evicted.Load() > 0) != prof.lossy {
		t.Errorf("%d values evicted: the profile does not put the memory under the pressure it should", l.evicted.Load())
	}
	if kinds["cold"] > 1 {
		t.Errorf("%d cold starts, want one, the first", kinds["cold"])
	}
	slices.Sort(restarts)
	t.Logf("%d kills under load and %d during a start; %d operations, %d acknowledged, %d in flight; %d keys checked: 0 lost, 0 wrong, 0 resurrected; "+
		"starts %v; %d findings; exec to serving p50 %v, p99 %v; %d values found evicted", kills, early, sent, acked, undecided, checked, kinds, findings,
		restarts[len(restarts)/2], restarts[len(restarts)*99/100], l.evicted.Load())
}

// wantSound opens a file that no server has, with -m memory, and fails if it is cold or Check finds something. It returns how much that was.
func wantSound(t testing.TB, file string, memory int) int {
	t.Helper()
	c, err := hearth.Open(hearth.Options{Path: file, MemoryLimit: int64(memory) << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if kind := c.Stats().RestartKind; kind == "cold" {
		t.Errorf("the check found the file %s: %s", kind, c.Stats().RestartReason)
	}
	found := c.Check()
	if len(found) > 0 {
		t.Errorf("the file is inconsistent in %d places; the first: %v", len(found), found[0])
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// joined is the first few of many errors.
func joined(errs []error) string {
	return strings.ReplaceAll(errors.Join(errs[:min(5, len(errs))]...).Error(), "\n", "\n  ")
}
