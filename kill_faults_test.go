//go:build faults

package hearth_test

import (
	"bytes"
	"encoding/binary"
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
	filler                = 48500         // items with which the index is about to grow
	expBase               = 2_100_000_000 // exptimes are this and a thousand times a small number
	killPatience          = 30 * time.Second
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

// state is what a key holds: live:1 | seq:31 | pieces:8 | exptime:8. The zero state is a miss.
type state uint64

func makeState(seq, pieces, exp int) state {
	return state(1<<63 | uint64(seq)<<16 | uint64(pieces)<<8 | uint64(exp))
}

func (s state) live() bool  { return s>>63 == 1 }
func (s state) seq() int    { return int(s >> 16 & (1<<31 - 1)) }
func (s state) pieces() int { return int(s >> 8 & 255) }
func (s state) exp() int    { return int(s & 255) }
func (s state) String() string {
	if !s.live() {
		return "a miss"
	}
	return fmt.Sprintf("seq %d with %d pieces and exptime %d", s.seq(), s.pieces(), s.exp())
}

func (s state) exptime() int64 {
	if s.exp() == 0 {
		return 0
	}
	return expBase + int64(s.exp())*1000
}

// killKey is one of the keys: every tenth holds a number, every fifteenth or so a chained value.
type killKey struct {
	n    int
	name string
}

func newKillKey(n int) killKey { return killKey{n, fmt.Sprint("key-", n)} }

func (k killKey) number() bool { return k.n%10 == 3 }

// piece is part p of the value of the set with number seq.
func (k killKey) piece(seq, p int) string {
	if k.number() {
		return strconv.Itoa(seq)
	}
	r := rand.New(rand.NewPCG(uint64(k.n), uint64(seq)<<8|uint64(p)))
	size := 20 + r.IntN(1000)
	if k.n%15 == 0 {
		size = 8_000 + r.IntN(60_000)
	}
	token := fmt.Sprintf("%s.%d.%d|", k.name, seq, p)
	return strings.Repeat(token, 1+size/len(token))
}

func (k killKey) value(s state) string {
	var b strings.Builder
	for p := range s.pieces() + 1 {
		b.WriteString(k.piece(s.seq(), p))
	}
	return b.String()
}

// stateFile is the oracle: for each key the state that was asked for last and the one that was acknowledged last. What a process has written into a file
// stays when it is killed.
type stateFile struct{ f *os.File }

func (o stateFile) put(n, which int, s state) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(s))
	if _, err := o.f.WriteAt(b[:], int64(n*16+which*8)); err != nil {
		panic(err)
	}
}

func (o stateFile) get(n int) (asked, acked state) {
	var b [16]byte
	o.f.ReadAt(b[:], int64(n*16)) // beyond the end is zero
	return state(binary.LittleEndian.Uint64(b[:])), state(binary.LittleEndian.Uint64(b[8:]))
}

// matches compares what the cache has with a state.
func (k killKey) matches(s *hearth.Session, want state) error {
	var got hearth.Fetch
	st := s.MetaGet([]byte(k.name), &hearth.GetOptions{Peek: true}, &got)
	switch {
	case !want.live() && st == hearth.Miss:
		return nil
	case st != hearth.OK:
		return fmt.Errorf("%s: status %d, want %v", k.name, st, want)
	}
	value := got.AppendValue(nil)
	switch {
	case !want.live():
		return fmt.Errorf("%s: %.40q, want a miss", k.name, value)
	case string(value) != k.value(want):
		return fmt.Errorf("%s: %d bytes %.40q, want %v, %d bytes", k.name, len(value), value, want, len(k.value(want)))
	case int64(got.Exptime) != want.exptime():
		return fmt.Errorf("%s: exptime %d, want that of %v", k.name, got.Exptime, want)
	}
	return nil
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

func openStates(t *testing.T, dir string) stateFile {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "states"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return stateFile{f}
}

// verifyStates looks whether every key holds what was acknowledged last, or what was asked for last, and notes which.
func verifyStates(t *testing.T, c *hearth.Cache, o stateFile) (now []state) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for n := range killWriters * keysEach {
			k := newKillKey(n)
			asked, acked := o.get(n)
			err := k.matches(s, acked)
			if err != nil && asked != acked {
				if err2 := k.matches(s, asked); err2 == nil {
					acked, err = asked, nil
				} else {
					err = fmt.Errorf("%w, nor %w", err, err2)
				}
			}
			if err != nil {
				t.Error(err)
			}
			o.put(n, 0, acked)
			o.put(n, 1, acked)
			now = append(now, acked)
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
						if mine[i], err = newKillKey(n).change(s, r, o, mine[i]); err != nil {
							t.Error(err)
						}
					})
				}
				s.Close()
			}
		})
	}
	for range 2 {
		all.Go(func() { readPinned(t, c) })
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

// change does something to a key whose state is known, and returns the new state.
func (k killKey) change(s *hearth.Session, r *rand.Rand, o stateFile, was state) (state, error) {
	if err := k.matches(s, was); err != nil {
		return was, err
	}
	next, key := was, []byte(k.name)
	p := r.IntN(10)
	switch {
	case !was.live() || p < 3:
		next = makeState(was.seq()+1, 0, r.IntN(200))
	case p < 5:
		next = state(uint64(was.seq()) << 16)
	case p < 8 && k.number():
		next = makeState(was.seq()+1, 0, was.exp())
	case p < 7 && was.pieces() < 2:
		next = makeState(was.seq(), was.pieces()+1, was.exp())
	default:
		next = makeState(was.seq(), was.pieces(), r.IntN(200))
	}
	o.put(k.n, 0, next)
	var st hearth.Status
	switch {
	case !was.live() || p < 3:
		_, st = store(s, hearth.Set, k.name, k.value(next), next.exptime(), 0)
	case p < 5:
		st = s.Delete(key)
	case p < 8 && k.number():
		var n uint64
		if n, st = s.Incr(key, 1); st == hearth.OK && n != uint64(next.seq()) {
			return was, fmt.Errorf("%s: incr to %d, want %d", k.name, n, next.seq())
		}
	case p < 7 && was.pieces() < 2:
		_, st = store(s, hearth.Append, k.name, k.piece(next.seq(), next.pieces()), 0, 0)
	default:
		st = s.Touch(key, next.exptime())
	}
	if st != hearth.OK {
		return was, fmt.Errorf("%s: status %d from %v to %v", k.name, st, was, next)
	}
	o.put(k.n, 1, next)
	return next, nil
}

// readPinned reads items twice, the second time when their section is long over and they may have been moved, replaced and deleted.
func readPinned(t *testing.T, c *hearth.Cache) {
	s := c.NewSession()
	defer s.Close()
	for end := time.Now().Add(killPatience); time.Now().Before(end) && !t.Failed(); {
		var it hearth.Item
		var pin hearth.Pin
		var was []byte
		in(s, func() {
			if s.Get([]byte(newKillKey(rand.IntN(killWriters*keysEach)).name), &it) == hearth.OK {
				pin, was = s.Pin(&it), it.AppendValue(nil)
			}
		})
		if was == nil {
			continue
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		if now := it.AppendValue(nil); !bytes.Equal(now, was) {
			t.Errorf("a pinned value of %d bytes %.40q became %.40q", len(was), was, now)
		}
		s.Unpin(pin)
	}
}
