package index_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/index"
	"hearth/mmapslab"
)

// unlike are items of which no two have the same key.
type unlike []uint64 // Ref → hash

func (u unlike) Match(ref mmapslab.Ref, key []byte) bool { return false }
func (u unlike) Hash(ref mmapslab.Ref) uint32            { return uint32(u[ref] >> 32) }

func unlikeItems(n int) unlike {
	u := make(unlike, n+1)
	for i := range u {
		u[i] = hash(i)
	}
	return u
}

// observed are items that tell when their hash is asked for, which growth does once to move one.
type observed struct {
	unlike
	moved func()
}

func (o observed) Hash(ref mmapslab.Ref) uint32 {
	o.moved()
	return o.unlike.Hash(ref)
}

// TestNoInsertPaysForAWholeHalf has the memory of the halves and the items that move counted while the table grows and is fitted, by inserts that nobody helps, and beside
// helpers. No call gets or gives back more than a piece; inserts do so once in a while only, and move the items of a few buckets and of their own window at most; and each
// piece of an old half is given back once, before the next growth gets memory there.
func TestNoInsertPaysForAWholeHalf(t *testing.T) {
	const n, fitted, helpers, small = 260_000, 10_000, 3, 4096
	items := unlikeItems(n + fitted)
	for _, helped := range []bool{false, true} {
		if raceDetector && !helped {
			continue // one goroutine
		}
		region, size := regionFor(1 << 18)
		arena := mmapslab.NewHeapArena(size)
		var mu sync.Mutex
		calls, largest := 0, int64(0)
		backed := map[int64]bool{} // pieces
		var g grace
		wrong := atomic.Value{}
		var hashes atomic.Int64
		x, err := index.Create(arena, region, observed{items, func() { hashes.Add(1) }}, index.Options{
			AfterGrace: g.after,
			Populate: func(off, n int64) error {
				mu.Lock()
				defer mu.Unlock()
				calls, largest = calls+1, max(largest, n)
				backed[off] = true
				return nil
			},
			Discard: func(off, n int64) error {
				mu.Lock()
				defer mu.Unlock()
				calls, largest = calls+1, max(largest, n)
				if !backed[off] && off != region.Half[0] {
					wrong.Store("a piece is discarded that has no memory, or twice")
				}
				delete(backed, off)
				words := arena.Words(off, int(n/8))
				for i := range words {
					words[i].Store(0)
				}
				return nil
			},
		}, small)
		if err != nil {
			t.Fatal(err)
		}
		var stop atomic.Bool
		var all sync.WaitGroup
		if helped {
			for range helpers {
				all.Go(func() {
					for !stop.Load() {
						id := g.enter()
						x.Help(8)
						g.leave(id)
						runtime.Gosched()
					}
				})
			}
		}
		most, busy, evictions := 0, 0, 0
		moved := [2]int64{} // by the insert that moved most, in growth and in Fit
		for i := 1; i <= n+fitted; i++ {
			if i == n { // the last growth is over
				id := g.enter()
				for x.Fit() && !x.Stats().Growing {
				}
				g.leave(id)
			}
			mu.Lock()
			before, hashed := calls, hashes.Load()
			mu.Unlock()
			id := g.enter()
			r, _ := x.Insert(items[i], nil, mmapslab.Ref(i))
			g.leave(id)
			for ; helped && r != index.Inserted; r, _ = x.Insert(items[i], nil, mmapslab.Ref(i)) {
				runtime.Gosched() // a helper that lost the processor in a section keeps the growth from starting
			}
			mu.Lock()
			if did := calls - before; did > 0 {
				busy, most = busy+1, max(most, did)
			}
			mu.Unlock()
			moved[i/n] = max(moved[i/n], hashes.Load()-hashed)
			if r != index.Inserted {
				evictions++
			}
		}
		stop.Store(true)
		all.Wait()
		s := x.Stats()
		if w := wrong.Load(); w != nil || s.Buckets < 8*small || s.Evicted != 0 || evictions != 0 {
			t.Errorf("helped %t: %v; %d evictions; %+v", helped, w, evictions, s)
		}
		// What helpers did meanwhile is counted, too.
		if !helped && (most > 1 || busy > n/32) || largest > index.PieceBytes {
			t.Errorf("helped %t: an insert did %d calls and one was of %d bytes, want 1 and %d at most; %d of %d inserts did any", helped, most, largest, index.PieceBytes, busy, n)
		}
		for i, buckets := range []int64{index.HelpPerInsert, index.HelpFit} {
			if most := (buckets + index.WindowBuckets) * index.BucketWords; !helped && (moved[i] < buckets || moved[i] > most) {
				t.Errorf("an insert moved %d items, want %d to %d", moved[i], buckets, most)
			}
		}
		t.Logf("helped %t: %d calls, in %d of %d inserts; %d growths; an insert moved %d items at most", helped, calls, busy, n, s.Growths, moved)
		if n := x.Len(); n != int64(len(items)-1) {
			t.Errorf("helped %t: Len %d", helped, n)
		}
	}
}

// BenchmarkPauseOfGrowth inserts ten million items on anonymous memory and on a file, and reports how much processor time the slowest inserts take with a growth under way, and
// without: time during which somebody else had the processor says nothing about the index. On a virtual machine, however, the thread's clock goes on while the host has the
// processor. So beside each insert with a growth there is as much arithmetic, which touches no memory: what takes over a millisecond there is the host's doing, or an interrupt.
// An insert that does is logged with what it did. In quiet hours no insert did (882 us at most, arithmetic 866 us). In a worse one, with the arithmetic after the inserts, it did
// 4.7 times in a million (3.5 ms at most) and they 0.4 times: 1.46 ms, 1.43 of them from one item moved to the next, without a page fault. What an insert can do, doc.go tells.
func BenchmarkPauseOfGrowth(b *testing.B) {
	const n = 10_000_000
	items := unlikeItems(n)
	for _, on := range []string{"anonymous", "file"} {
		b.Run(on, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				pausesOfGrowth(b, on == "file", items)
			}
		})
	}
}

func pausesOfGrowth(b *testing.B, onFile bool, items unlike) {
	var file *mmapslab.File
	if onFile {
		dir, err := os.MkdirTemp("/dev/shm", "hearth-pause")
		if err != nil {
			b.Skip(err)
		}
		defer os.RemoveAll(dir)
		if file, err = mmapslab.OpenFile(filepath.Join(dir, "slab"), 0); err != nil {
			b.Fatal(err)
		}
	}
	store, err := mmapslab.Create(file, mmapslab.Config{Pages: 1600, ChunkSizes: []int{96, 1 << 19}}, mmapslab.Identity{}, 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	state, half, size := store.IndexRegion()
	w := newWatch(b)
	after := func() {}
	called := func(call func(off, n int64) error) func(off, n int64) error {
		return func(off, n int64) error {
			began := threadTime()
			err := call(off, n)
			took := threadTime() - began
			w.calls, w.now.calls = append(w.calls, took), w.now.calls+1
			w.step()
			return err
		}
	}
	x, err := index.Create(store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, observed{items, w.moves},
		index.Options{Discard: called(store.Discard), Populate: called(store.BackIndex), AfterGrace: func(f func()) { after = f }}, 1<<13)
	if err != nil {
		b.Fatal(err)
	}
	w.calls = nil // Create got more
	var took [kinds][]time.Duration
	var total [kinds]time.Duration
	for kind := range took {
		took[kind] = make([]time.Duration, 0, len(items))
	}
	do := func(kind int, op func()) {
		t := w.operation(kind, op)
		took[kind], total[kind] = append(took[kind], t), total[kind]+t
	}
	rounds := 1_000_000
	spin := func() {
		sum := uint64(rounds)
		for range rounds {
			sum = sum*6364136223846793005 + 1442695040888963407
		}
		sink.Store(sum)
	}
	began := threadTime()
	spin()
	rounds = int(time.Duration(rounds) * spinTime / (threadTime() - began))
	for i := 1; i < len(items); i++ {
		kind := still
		if s := x.Stats(); s.Growing || s.Draining || s.Load > index.GrowLoad {
			kind = growing
		}
		do(kind, func() {
			if r, _ := x.Insert(items[i], nil, mmapslab.Ref(i)); r != index.Inserted {
				b.Fatal(r)
			}
			f := after
			after = func() {}
			f()
		})
		if kind == growing {
			do(spinning, spin)
		}
	}
	us := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1000 }
	for kind, name := range [kinds]string{"still", "growing", "spinning"} {
		took := took[kind]
		slices.Sort(took)
		over, _ := slices.BinarySearch(took, pauseMost)
		b.ReportMetric(us(total[kind])/float64(len(took)), "mean-"+name+"-us")
		b.ReportMetric(us(took[len(took)*9999/10000]), "p99.99-"+name+"-us")
		b.ReportMetric(us(took[len(took)-1]), "max-"+name+"-us")
		b.ReportMetric(float64(len(took)-over)/float64(len(took))*1e6, "over-1ms-per-million-"+name)
	}
	slices.Sort(w.calls)
	inCalls := time.Duration(0)
	for _, t := range w.calls {
		inCalls += t
	}
	b.ReportMetric(us(w.calls[len(w.calls)/2]), "call-median-us")
	b.ReportMetric(us(w.calls[len(w.calls)-1]), "call-max-us")
	b.ReportMetric(float64(w.mostCalls), "calls-max")
	b.ReportMetric(float64(w.mostMoved), "moved-max")
	plain := total[still] / time.Duration(len(took[still])) * time.Duration(len(took[growing])) // what the inserts would have taken without a growth
	b.ReportMetric(float64(total[growing]-plain-inCalls)/float64(w.moved), "ns/moved")
}

// What an operation is: an insert without a growth under way, or with one, or arithmetic beside the latter.
const (
	still = iota
	growing
	spinning
	kinds
)

const (
	pauseMost = time.Millisecond      // what no insert should take
	spinTime  = 10 * time.Microsecond // what an insert beside growth takes
)

// watch is what is known of the operations of one thread.
type watch struct {
	b                           *testing.B
	stat                        *os.File
	ops                         int
	ticks                       [2]uint64       // as of not long ago
	now                         deeds           // of the operation under way
	calls                       []time.Duration // for memory: how much processor time each took
	moved, mostMoved, mostCalls int
}

// deeds are what one operation did.
type deeds struct {
	calls, moved int           // calls for memory, and items moved
	last         time.Time     // of the latest step
	longest      time.Duration // from a step to the next, by the clock
}

func newWatch(b *testing.B) *watch {
	f, err := os.Open("/proc/stat")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { f.Close() })
	return &watch{b: b, stat: f}
}

// step is told of each thing that an operation does.
func (w *watch) step() {
	now := time.Now()
	w.now.longest, w.now.last = max(w.now.longest, now.Sub(w.now.last)), now
}

// moves is told of each item that is moved.
func (w *watch) moves() {
	w.now.moved++
	w.step()
}

// operation returns how long op had a processor, and logs what an insert did that took long.
func (w *watch) operation(kind int, op func()) time.Duration {
	if w.ops++; w.ops%256 == 1 {
		w.ticks = w.readTicks()
	}
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_THREAD, &before)
	start := time.Now()
	w.now = deeds{last: start}
	began := threadTime()
	op()
	took := threadTime() - began
	w.moved, w.mostMoved, w.mostCalls = w.moved+w.now.moved, max(w.mostMoved, w.now.moved), max(w.mostCalls, w.now.calls)
	if took >= pauseMost && kind != spinning {
		w.step()
		unix.Getrusage(unix.RUSAGE_THREAD, &after)
		ticks := w.readTicks()
		w.b.Logf("insert, growing %t: %v of the processor, %v by the clock, of which %v from a step to the next; %d calls for memory, %d items moved; %d page faults, switched %d times as it waited "+
			"and %d as others came; in the last 256 operations %d ticks of 10 ms stolen by the host, %d at interrupts", kind == growing, took, w.now.last.Sub(start), w.now.longest, w.now.calls, w.now.moved,
			after.Minflt-before.Minflt, after.Nvcsw-before.Nvcsw, after.Nivcsw-before.Nivcsw, ticks[0]-w.ticks[0], ticks[1]-w.ticks[1])
	}
	return took
}

// readTicks returns for how long the host had the machine's processors, and interrupts, in hundredths of a second.
func (w *watch) readTicks() (ticks [2]uint64) {
	var buf [256]byte
	n, _ := w.stat.ReadAt(buf[:], 0)
	fields := strings.Fields(string(buf[:n]))
	for i, field := range fields[:9] {
		v, _ := strconv.ParseUint(field, 10, 64)
		switch i {
		case 8:
			ticks[0] = v
		case 6, 7:
			ticks[1] += v
		}
	}
	return ticks
}

// threadTime is how long this thread has had a processor.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
