package index_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
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

// TestNoInsertPaysForAWholeHalf has the memory of the halves counted while the table grows, by inserts that nobody helps, and beside helpers. No call gets or gives back
// more than a piece; inserts do so once in a while only; and each piece of an old half is given back once, before the next growth gets memory there.
func TestNoInsertPaysForAWholeHalf(t *testing.T) {
	const n, helpers, small = 300_000, 3, 4096
	items := unlikeItems(n)
	for _, helped := range []bool{false, true} {
		region, size := regionFor(1 << 18)
		arena := mmapslab.NewHeapArena(size)
		var mu sync.Mutex
		calls, largest := 0, int64(0)
		backed := map[int64]bool{} // pieces
		var g grace
		wrong := atomic.Value{}
		x, err := index.Create(arena, region, items, index.Options{
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
		for i := 1; i <= n; i++ {
			mu.Lock()
			before := calls
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
		t.Logf("helped %t: %d calls, in %d of %d inserts; %d growths", helped, calls, busy, n, s.Growths)
		if n := x.Len(); n != int64(len(items)-1) {
			t.Errorf("helped %t: Len %d", helped, n)
		}
	}
}

// BenchmarkPauseOfGrowth inserts ten million items on anonymous memory and on a file, and reports how much processor time the slowest inserts take with a growth under way, and
// without: time during which somebody else had the processor says nothing about the index. Memory-max is the slowest call that gets memory from the system or gives it back, one
// piece at a time, and rest-max the most that an insert takes beside such calls. On a virtual machine the latter has outliers of some milliseconds, a few in a million, which come
// with no page fault, and as often where nothing grows: the thread's clock goes on while the host has the processor.
func BenchmarkPauseOfGrowth(b *testing.B) {
	const n = 10_000_000
	items := unlikeItems(n)
	for _, on := range []string{"anonymous", "file"} {
		b.Run(on, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				b.StopTimer()
				still, growing, memory, rest := pausesOfGrowth(b, on == "file", items, b.StartTimer)
				b.ReportMetric(float64(memory.Nanoseconds())/1000, "memory-max-us")
				b.ReportMetric(float64(rest.Nanoseconds())/1000, "rest-max-us")
				for what, took := range map[string][]time.Duration{"still": still, "growing": growing} {
					slices.Sort(took)
					for name, i := range map[string]int{"p99.9": len(took) * 999 / 1000, "p99.99": len(took) * 9999 / 10000, "max": len(took) - 1} {
						b.ReportMetric(float64(took[i].Nanoseconds())/1000, name+"-"+what+"-us")
					}
					over, _ := slices.BinarySearch(took, time.Millisecond)
					b.ReportMetric(float64(len(took)-over)/float64(len(took))*1e6, "over-1ms-per-million-"+what)
				}
			}
		})
	}
}

func pausesOfGrowth(b *testing.B, onFile bool, items unlike, ready func()) (still, growing []time.Duration, memory, rest time.Duration) {
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
	after := func() {}
	system := time.Duration(0) // of the insert under way
	timed := func(call func(off, n int64) error) func(off, n int64) error {
		return func(off, n int64) error {
			began := threadTime()
			defer func() {
				took := threadTime() - began
				system, memory = system+took, max(memory, took)
			}()
			return call(off, n)
		}
	}
	x, err := index.Create(store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, items,
		index.Options{Discard: timed(store.Discard), Populate: timed(store.BackIndex), AfterGrace: func(f func()) { after = f }}, 1<<13)
	if err != nil {
		b.Fatal(err)
	}
	memory = 0 // not of what Create got
	still, growing = make([]time.Duration, 0, len(items)), make([]time.Duration, 0, len(items))
	ready()
	for i := 1; i < len(items); i++ {
		s := x.Stats()
		busy := s.Growing || s.Draining || s.Load > index.GrowLoad
		system = 0
		began := threadTime()
		if r, _ := x.Insert(items[i], nil, mmapslab.Ref(i)); r != index.Inserted {
			b.Fatal(r)
		}
		f := after
		after = func() {}
		f()
		took := threadTime() - began
		rest = max(rest, took-system)
		if busy {
			growing = append(growing, took)
		} else {
			still = append(still, took)
		}
	}
	return still, growing, memory, rest
}

// threadTime is how long this thread has had a processor.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
