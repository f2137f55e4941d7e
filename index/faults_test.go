//go:build faults

package index_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hearth/index"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// points are the places between two stores. index.grow.evicted needs a hash that does not spread and has a test of its own.
var points = []string{
	"index.insert.placing", "index.insert.placed", "index.insert.scanned", "index.insert.promoting", "index.insert.promoted",
	"index.replace.before", "index.replace.after", "index.delete.before", "index.delete.after",
	"index.grow.sized", "index.grow.started", "index.grow.frozen", "index.copy.placing", "index.copy.placed", "index.copy.scanned", "index.copy.promoting", "index.copy.promoted",
	"index.grow.copied", "index.grow.moved", "index.grow.switched", "index.grow.discarded",
}

// One thread is suspended, from its first visit to the point until all others did their fixed work.
func TestThreadSuspendedAnywhereKeepsNobodyFromFinishing(t *testing.T) {
	const clients, each = 6, 60
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			hits := 0
			for seed := uint64(0); seed < 40 && hits < 4; seed++ {
				r := heapRival(t, 5, 512)
				var visits atomic.Int64
				release, suspended := make(chan struct{}), make(chan struct{})
				skip := int64(seed % 4 * 3) // not always the very first visit
				fault.Set(func(p string) {
					if p == point && visits.Add(1) == skip+1 {
						close(suspended)
						<-release
					}
				})
				var finished atomic.Int64
				var all, grow sync.WaitGroup
				var stop atomic.Bool
				done := make(chan struct{}, clients)
				for id := range clients {
					all.Go(func() {
						r.client(id, each, rand.New(rand.NewPCG(seed, uint64(id))))
						finished.Add(1)
						done <- struct{}{}
					})
				}
				grow.Go(func() { r.grower(&stop) })
				deadline := time.After(20 * time.Second)
				for waiting := clients - 1; waiting > 0; waiting-- { // the suspended one may be a client
					select {
					case <-done:
					case <-deadline:
						t.Errorf("only %d of %d others finished", finished.Load(), clients-1)
						waiting = 0
					}
				}
				select {
				case <-suspended:
					hits++
				default: // the clients were done before anybody came by: try again
				}
				stop.Store(true)
				close(release)
				all.Wait()
				grow.Wait()
				fault.Set(nil)
				r.history.check(t)
				r.env.check(t)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if hits == 0 {
				t.Error("nobody was ever suspended here")
			}
		})
	}
}

// At every point of many schedules the arena is what a kill would leave. The image attaches, is sound, and has for each key what the living index
// has at that moment; those answers are part of the history, which must be linearizable, so acknowledged sets are there and deleted ones are not.
func TestEveryCrashImageHoldsWhatWasAcknowledged(t *testing.T) {
	schedules := 1500
	if testing.Short() {
		schedules = 150
	}
	seen := map[string]int{}
	images := 0
	for seed := range uint64(schedules) {
		r := heapRival(t, 4, 64)
		s := &fault.Stage{Rand: rand.New(rand.NewPCG(seed, 7)), Every: 1 + int(seed%3)}
		at := func(point string) {
			seen[point]++
			if s.Rand.IntN(4) != 0 { // the point's turn comes in another schedule
				return
			}
			images++
			for k := range r.keys {
				r.find(50, k)
			}
			if err := r.crash(s.Rand); err != nil {
				t.Errorf("seed %d at %s: %v", seed, point, err)
			}
		}
		var actors []func()
		for id := range 4 {
			actors = append(actors, func() { r.client(id, 8, rand.New(rand.NewPCG(seed, uint64(id)))) })
		}
		for range 2 {
			actors = append(actors, func() {
				for range 12 {
					r.op(func() { r.Start(); r.Help(1) })
				}
			})
		}
		looking := false // at passes points itself
		fault.Set(func(point string) {
			if !looking {
				looking = true
				at(point)
				looking = false
				s.Pass()
			}
		})
		s.Run(actors...)
		fault.Set(nil)
		r.history.check(t)
		r.env.check(t)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, p := range points {
		if seen[p] == 0 {
			t.Errorf("no schedule came by %s", p)
		}
	}
	t.Logf("%d images", images)
}

// crash copies the arena as it is, lets a new process attach the copy, and compares.
func (r *rival) crash(rnd *rand.Rand) error {
	image := mmapslab.NewHeapArena(r.arena.Size())
	for off := int64(0); off < r.arena.Size(); off += 8 {
		image.Word(off).Store(r.arena.Word(off).Load())
	}
	x, err := index.Attach(image, r.region, r.items, index.Options{})
	if err != nil {
		return err
	}
	// As the sweep would see it at once: one item a key over both tables.
	live := map[string]mmapslab.Ref{}
	for _, words := range x.Tables() {
		inThis := map[string]bool{}
		for _, w := range words {
			if ref, _, st := index.Unpack(w); st == index.StateLive || st == index.StateFrozen {
				k := string(r.items.key[ref-1])
				if other, ok := live[k]; ok && other != ref || inThis[k] {
					return fmt.Errorf("%s is live as %d and %d", k, other, ref)
				}
				live[k], inThis[k] = ref, true
			}
		}
	}
	same := func(when string) error {
		for k := range r.keys {
			want, _ := r.Find(r.hash(k), key(k))
			if got, _ := x.Find(r.hash(k), key(k)); got != want {
				return fmt.Errorf("%s: key %d is %d, the living index has %d", when, k, got, want)
			}
		}
		return nil
	}
	if err := same("attached"); err != nil {
		return err
	}
	x.Help(rnd.IntN(4) + 1)
	if err := same("growing on"); err != nil {
		return err
	}
	x.FinishGrowth()
	n := int64(0)
	x.Sweep(0, x.SweepBuckets(), func(_ mmapslab.Ref, _, _, _ uint32) bool { n++; return true })
	x.SetLen(n)
	if err := same("swept"); err != nil {
		return err
	}
	if err := checkAtRest(x, r.items); err != nil {
		return err
	}
	// The spare half must be as empty as it claims: what an earlier table left there would come back now.
	x.Start()
	x.FinishGrowth()
	if err := same("grown again"); err != nil {
		return err
	}
	return checkAtRest(x, r.items)
}

// stateStores calls f after each store to a State word.
type stateStores struct {
	from, to int64
	f        func()
}

func (s *stateStores) Use(int64)            {}
func (s *stateStores) HandedOut(int64, int) {}

func (s *stateStores) Stored(off int64, _ uint64) {
	if off >= s.from && off < s.to {
		s.f()
	}
}

// A kill between any two stores to the State words leaves an index that attaches: a growth names its half's size before it says that it grows.
func TestStateWordsAttachAfterEveryStore(t *testing.T) {
	const most = 64
	region, size := regionFor(most)
	e := heapEnv(t, 2000, 4, most)
	image := mmapslab.NewHeapArena(size)
	stores := 0
	e.arena.Trace(&stateStores{region.State, region.State + 24, func() {
		stores++
		var words [3]uint64
		for i := range words {
			at := region.State + int64(i)*8
			words[i] = binary.NativeEndian.Uint64(e.arena.Bytes(at, 8))
			image.Word(at).Store(words[i])
		}
		if _, err := index.Attach(image, region, e.items, index.Options{}); err != nil {
			t.Errorf("after store %d, State is %#x: %v", stores, words, err)
		}
	}})
	defer e.arena.Trace(nil)
	for i := range 300 {
		e.set(hash(i), key(i))
	}
	for more := true; more; {
		e.op(func() { more = e.Help(64) })
	}
	if s := e.Stats(); s.Buckets != most || stores < 4*int(s.Growths) {
		t.Errorf("%d stores in %+v", stores, s)
	}
}

// A word that changes between the look at its bucket and the look at itself is neither lost nor taken for what it was.
func TestFindLooksAgainAtAWordThatChanges(t *testing.T) {
	r := heapRival(t, 1, 512)
	region, size := regionFor(512)
	a := mmapslab.NewHeapArena(size)
	x, err := index.Create(a, region, r.items, r.opt, 4)
	if err != nil {
		t.Fatal(err)
	}
	h, first, second := r.hash(0), r.newRef(0), r.newRef(0)
	find := func(change func()) mmapslab.Ref {
		fault.Set(func(point string) {
			if point == "index.find.answered" {
				fault.Set(nil)
				change()
			}
		})
		defer fault.Set(nil)
		ref, _ := x.Find(h, key(0))
		return ref
	}
	if res, _ := x.Insert(h, key(0), first); res != index.Inserted {
		t.Fatal(res)
	}
	word := a.Word(region.Half[0] + int64(index.Buckets(uint32(h>>32), 4)[0])*64)
	move := func() { // as far as is allowed while readers of the old table are about
		x.Start()
		for n := 0; word.Load() != index.StateMoved && n < 4; n++ {
			x.Help(1)
		}
	}
	if got := find(move); got != first {
		t.Errorf("moved to the next table meanwhile: found %d, want %d", got, first)
	}
	x.FinishGrowth()
	if got := find(func() { x.Replace(h, first, second) }); got != second {
		t.Errorf("replaced meanwhile: found %d, want %d", got, second)
	}
	if got := find(func() { x.Delete(h, second) }); got != 0 {
		t.Errorf("deleted meanwhile: found %d", got)
	}
}

// One helper sleeps after it froze key 0 in the first bucket; a second one between its copy of key 1, in the next bucket, and MOVED. A third, short
// of room for key 0, evicts the copy of key 1: then the FROZEN word it came from must not bring it back.
func TestItemEvictedByGrowthDoesNotComeBack(t *testing.T) {
	r := heapRival(t, 2, 512)
	var dropped []mmapslab.Ref
	opt := r.opt
	opt.Evict = func(ref mmapslab.Ref) { dropped = append(dropped, ref) }
	region, size := regionFor(512)
	a := mmapslab.NewHeapArena(size)
	x, err := index.Create(a, region, r.items, opt, 4)
	if err != nil {
		t.Fatal(err)
	}
	h := r.hash(0)
	refs := [2]mmapslab.Ref{r.newRef(0), r.newRef(1)}
	for k, ref := range refs {
		if res, _ := x.Insert(h, key(k), ref); res != index.Inserted {
			t.Fatal(res)
		}
	}
	old := func(i int64) *mmapslab.Word { return a.Word(region.Half[0] + i*8) }
	home := int64(index.Buckets(uint32(h>>32), 4)[0]) * index.BucketWords
	next := int64(index.Buckets(uint32(h>>32), 4)[1]) * index.BucketWords
	old(next).Store(old(home + 1).Swap(0)) // key 1 moves to another bucket
	x.Start()
	// The new window has one slot left. With the copy in it, the copy is the only word to evict.
	window := index.Buckets(uint32(h>>32), uint32(index.Grown(4)))
	word := func(i int64) *mmapslab.Word { return a.Word(region.Half[1] + int64(window[i/8])*64 + i%8*8) }
	for i := range int64(31) {
		word(i).Store(index.Pack(mmapslab.Ref(i+1), 0x111, index.StateTentative))
	}
	asleep := 0
	fault.Set(func(point string) {
		switch {
		case asleep == 0 && point == "index.grow.frozen":
			asleep++
			x.Help(1)
		case asleep == 1 && point == "index.grow.copied":
			asleep++
			x.FinishGrowth()
		}
	})
	x.Help(1)
	fault.Set(nil)
	x.FinishGrowth()
	if len(dropped) != 1 || dropped[0] != refs[1] || asleep != 2 {
		t.Fatalf("dropped %v, want the copy %d once; %d asleep", dropped, refs[1], asleep)
	}
	if got, ok := x.Find(h, key(1)); ok {
		t.Errorf("the evicted item is back: %d", got)
	}
	if got, ok := x.Find(h, key(0)); !ok || got != refs[0] {
		t.Errorf("the other item: %d %v", got, ok)
	}
}

// Free threads, thrown off their schedule at every point.
func TestHistoriesAreLinearizableUnderRandomPreemption(t *testing.T) {
	fault.Set(func(string) {
		for range rand.IntN(6) {
			time.Sleep(0)
		}
		if rand.IntN(50) == 0 {
			time.Sleep(time.Microsecond)
		}
	})
	defer fault.Set(nil)
	for seed := range uint64(20) {
		r := heapRival(t, 3, maxTestBuckets)
		r.fight(6, 30, seed)
		r.history.check(t)
		if r.env.check(t); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
