package hearth_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
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

var killsWanted = flag.Int("kills", 0, "how often the kill tests kill a process; 0: each its own number")

const (
	expBase      = 2_100_000_000    // exptimes are this and a thousand times a small number
	killPatience = 10 * time.Minute // a bound on waiting: the machine may stand still for a while
)

// state is what a key holds: live:1 | seq:31 | pieces:8 | exptime:8. The zero state is a miss.
type state uint64

func makeState(seq, pieces, exp int) state {
	return state(1<<63 | uint64(seq)<<16 | uint64(pieces)<<8 | uint64(exp))
}

func (s state) live() bool  { return s>>63 == 1 }
func (s state) dead() state { return state(uint64(s.seq()) << 16) }
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

// states is the oracle: for each key the state that was asked for last and the one that was acknowledged last, and a counter of operations. It is mapped from a
// file: what a process has stored there stays when it is killed.
type states struct{ mem []byte }

const statesMost = 4096 // keys

func openStates(t *testing.T, dir string) states {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "states"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = (statesMost + 1) * 16
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(mem) })
	return states{mem}
}

// put is one store: a kill finds the state before or after it.
func (o states) put(n, which int, s state) {
	binary.NativeEndian.PutUint64(o.mem[n*16+which*8:], uint64(s))
}

func (o states) get(n int) (asked, acked state) {
	return state(binary.NativeEndian.Uint64(o.mem[n*16:])), state(binary.NativeEndian.Uint64(o.mem[n*16+8:]))
}

// count adds n to the operations and returns how many there were ever. Others may count at the same time, which may lose some.
func (o states) count(n uint64) uint64 {
	w := o.mem[statesMost*16:]
	n += binary.NativeEndian.Uint64(w)
	binary.NativeEndian.PutUint64(w, n)
	return n
}

// settle looks which of the states that a key may be in it is in, and notes that. A lossy cache may have dropped it.
func (o states) settle(s *hearth.Session, k killKey, lossy bool) (state, error) {
	asked, now := o.get(k.n)
	err := k.matches(s, now)
	if err != nil && asked != now {
		if err2 := k.matches(s, asked); err2 == nil {
			now, err = asked, nil
		} else {
			err = fmt.Errorf("%w, nor %w", err, err2)
		}
	}
	if dead := now.dead(); err != nil && lossy && k.matches(s, dead) == nil {
		now, err = dead, nil
	}
	o.put(k.n, 0, now)
	o.put(k.n, 1, now)
	return now, err
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

// change does something to a key whose state is known, and returns the new state.
func (k killKey) change(s *hearth.Session, r *rand.Rand, o states, was state, lossy bool) (state, error) {
	if err := k.matches(s, was); err != nil {
		if !lossy || k.matches(s, was.dead()) != nil {
			return was, err
		}
		was = was.dead() // evicted
		o.put(k.n, 0, was)
		o.put(k.n, 1, was)
	}
	next, key := was, []byte(k.name)
	p := r.IntN(10)
	switch {
	case !was.live() || p < 3:
		next = makeState(was.seq()+1, 0, r.IntN(200))
	case p < 5:
		next = was.dead()
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
	if st != hearth.OK && lossy { // evicted meanwhile, or there was no memory
		return o.settle(s, k, lossy)
	}
	if st != hearth.OK {
		return was, fmt.Errorf("%s: status %d from %v to %v", k.name, st, was, next)
	}
	o.put(k.n, 1, next)
	return next, nil
}

// readPinned reads an item twice, the second time when its section is long over and it may have been moved, replaced and deleted.
func readPinned(c *hearth.Cache, keys int, t *testing.T) {
	s := c.NewSession()
	defer s.Close()
	var it hearth.Item
	var pin hearth.Pin
	var was []byte
	in(s, func() {
		if s.Get([]byte(newKillKey(rand.IntN(keys)).name), &it) == hearth.OK {
			pin, was = s.Pin(&it), it.AppendValue(nil)
		}
	})
	if was == nil {
		return
	}
	time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	if now := it.AppendValue(nil); !bytes.Equal(now, was) {
		t.Errorf("a pinned value of %d bytes %.40q became %.40q", len(was), was, now)
	}
	s.Unpin(pin)
}

// killLane is a file that is served, killed and served again, and what is done to it.
type killLane struct {
	name    string
	options hearth.Options
	lossy   bool
	limits  []int64 // that an operator sets
}

const momentWriters, momentKeys = 8, 40 // keys of each

func killLanes(dir string) []killLane {
	lanes := []killLane{
		{name: "roomy", options: hearth.Options{MemoryLimit: 64 << 20, NoEvict: true}},
		{name: "evicting", options: hearth.Options{MemoryLimit: 6 << 20}, lossy: true, limits: []int64{4 << 20, 6 << 20, 8 << 20}},
	}
	for i := range lanes {
		o := &lanes[i].options
		o.Path = filepath.Join(dir, "slab")
		o.MaxItemSize, o.ChunkMax, o.SlabSizes = 256<<10, 16<<10, []int{512, 1200, 4096} // few chunks: each start goes over all of them
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return lanes
}

// TestKilledAtAnyMomentInProcessLosesNothing kills a process that serves eight writers in its own threads, at a random moment, and now and then while it starts;
// the next one, on the same file, looks whether all is as it was acknowledged.
func TestKilledAtAnyMomentInProcessLosesNothing(t *testing.T) {
	if dir := os.Getenv("HEARTH_MOMENT_CHILD"); dir != "" {
		for _, lane := range killLanes(dir) {
			if lane.name == os.Getenv("HEARTH_MOMENT_LANE") {
				seed, _ := strconv.ParseUint(os.Getenv("HEARTH_MOMENT_SEED"), 10, 64)
				lane.live(t, dir, momentEnding{rand.New(rand.NewPCG(seed, 5))})
			}
		}
		return
	}
	if fault.Enabled || raceEnabled {
		t.Skip("what is killed is what ships")
	}
	kills := killsOf(50_000, 1000, 300)
	start := max(*seedWanted, 1)
	eachLane(t, func(t *testing.T, i int, lane *killLane, dir string) {
		began := time.Now()
		n := (kills + i) / 2
		for kill := range n {
			if kill > 0 && kill%1000 == 0 {
				t.Logf("%d kills in %v", kill, time.Since(began).Round(time.Second))
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAtAnyMomentInProcessLosesNothing$", "-test.count=1")
			cmd.Env = append(os.Environ(), "HEARTH_MOMENT_CHILD="+dir, "HEARTH_MOMENT_LANE="+lane.name, fmt.Sprint("HEARTH_MOMENT_SEED=", start+uint64(kill)))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("after %d kills: %v\n%s\nthe file is kept in %s; again with: go test -run '%s' -seed %d -kills %d .", kill, err, out, dir, t.Name(), start, kills)
			}
		}
		t.Logf("%d kills in %v, %d operations", n, time.Since(began).Round(time.Millisecond), lane.last(t, dir))
	})
}

// killsOf is how many kills a test is to have: what -kills says, or its number of them by how long tests may take. CI has room for the fewest.
func killsOf(long, normal, short int) int {
	switch {
	case *killsWanted > 0:
		return *killsWanted
	case os.Getenv("HEARTH_LONG") != "":
		return long
	case testing.Short():
		return short
	}
	return normal
}

// eachLane has f kill processes on the file in dir, in each of the lanes, which are at it at the same time. The file is kept if the test fails.
func eachLane(t *testing.T, f func(t *testing.T, i int, lane *killLane, dir string)) {
	for i, lane := range killLanes("") {
		t.Run(lane.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(shm(), "hearth-kill")
			if err != nil {
				t.Fatal(err)
			}
			f(t, i, &killLanes(dir)[i], dir)
			if !t.Failed() {
				os.RemoveAll(dir)
			}
		})
	}
}

// last opens what the last process left, in this one, looks at all of it, and returns the number of operations since the file was new.
func (lane *killLane) last(t *testing.T, dir string) (operations uint64) {
	c, err := hearth.Open(lane.options)
	if err != nil {
		t.Fatal(err)
	}
	c.WaitSwept()
	o := openStates(t, dir)
	lane.verify(t, c, o)
	check(t, c)
	closeCache(t, c)
	return o.count(0)
}

// shm is a directory in memory, if there is one.
func shm() string {
	const dir = "/dev/shm"
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return dir
	}
	return ""
}

func (lane *killLane) verify(t *testing.T, c *hearth.Cache, o states) (now []state) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for n := range momentWriters * momentKeys {
			is, err := o.settle(s, newKillKey(n), lane.lossy)
			if err != nil {
				t.Error(err)
			}
			now = append(now, is)
		}
	})
	return now
}

// ending is how a life ends. Its methods are called as the life gets there.
type ending interface {
	opening()                 // the file is about to be opened
	serving()                 // it was found to be right, and the load begins
	done() (close, goOn bool) // so many operations are over: is the cache to be closed now?
	over(t *testing.T)        // nothing ended it
}

// momentEnding is a SIGKILL at a random moment.
type momentEnding struct{ r *rand.Rand }

func (e momentEnding) die(most time.Duration) {
	time.AfterFunc(time.Duration(e.r.Int64N(int64(most))), func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) })
}

func (e momentEnding) opening() {
	if e.r.IntN(8) == 0 {
		e.die(10 * time.Millisecond)
	}
}

func (e momentEnding) serving() {}

func (e momentEnding) done() (bool, bool) {
	e.die(300 * time.Microsecond)
	return false, true
}

func (e momentEnding) over(t *testing.T) { t.Error("nobody killed it") }

// live is one life. A failure ends it with exit code 1, and tells.
func (lane *killLane) live(t *testing.T, dir string, e ending) {
	seed, _ := strconv.ParseUint(os.Getenv("HEARTH_MOMENT_SEED"), 10, 64)
	r := rand.New(rand.NewPCG(seed, 3))
	o := openStates(t, dir)
	if len(lane.limits) > 0 {
		lane.options.MemoryLimit = lane.limits[r.IntN(len(lane.limits))]
	}
	e.opening()
	c, err := hearth.Open(lane.options)
	if err != nil {
		t.Fatal(err)
	}
	// Killed while it makes the file, the next one makes it anew.
	if st := c.Stats(); st.RestartKind == "cold" && o.count(0) > 0 {
		t.Fatalf("cold start: %s", st.RestartReason)
	}
	if r.IntN(2) == 0 { // else beside the sweep
		c.WaitSwept()
		check(t, c)
	}
	now := lane.verify(t, c, o)
	if t.Failed() {
		return
	}
	o.count(1)
	e.serving()
	var all sync.WaitGroup
	var left atomic.Int64 // operations: on a loaded machine a time would end most lives before anything happened
	var stop, closes atomic.Bool
	left.Store(1 + r.Int64N(1200))
	end := time.Now().Add(killPatience)
	going := func() bool { return !stop.Load() && time.Now().Before(end) && !t.Failed() }
	for w := range momentWriters {
		mine, r := now[w*momentKeys:(w+1)*momentKeys], rand.New(rand.NewPCG(seed, uint64(10+w)))
		all.Go(func() {
			s := c.NewSession()
			defer s.Close()
			for going() {
				for range 32 {
					i := r.IntN(momentKeys)
					in(s, func() {
						var err error
						if mine[i], err = newKillKey(w*momentKeys+i).change(s, r, o, mine[i], lane.lossy); err != nil {
							t.Error(err)
						}
					})
					if left.Add(-1) == 0 {
						close, goOn := e.done()
						closes.Store(close)
						stop.Store(!goOn)
					}
				}
				o.count(32)
			}
		})
	}
	all.Go(func() {
		for going() {
			readPinned(c, momentWriters*momentKeys, t)
		}
	})
	all.Go(func() {
		r := rand.New(rand.NewPCG(seed, 4))
		for going() {
			lane.operate(c, r)
		}
	})
	all.Wait()
	if closes.Load() {
		closeCache(t, c)
	}
	e.over(t)
}

// operate does something that an operator may do.
func (lane *killLane) operate(c *hearth.Cache, r *rand.Rand) {
	classes := c.ClassStats()
	if len(classes) == 0 {
		return
	}
	src, dst := classes[r.IntN(len(classes))].ID, classes[r.IntN(len(classes))].ID
	switch r.IntN(8) {
	case 0:
		c.CancelMove()
	case 1:
		c.Crawl(hearth.CrawlOptions{})
	case 2:
		if len(lane.limits) > 0 {
			c.SetMemoryLimit(lane.limits[r.IntN(len(lane.limits))])
		}
	case 3:
		dst = 0
		fallthrough
	default:
		if src != dst {
			c.EmptyPage(src, dst)
		}
	}
	for i := 0; i < 20 && c.Stats().SlabReassignRunning; i++ {
		c.Round()
	}
}
