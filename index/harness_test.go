package index_test

import (
	"bytes"
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hearth/index"
	"hearth/mmapslab"
)

// items stands for the store: item i has Ref i+1, and is written before its Ref is handed out. Refs are never used again, so a Ref is also the
// value that was set.
type items struct {
	key  [][]byte
	hash []uint64
	next atomic.Int64
}

func newItems(n int) *items { return &items{key: make([][]byte, n), hash: make([]uint64, n)} }

func (s *items) add(h uint64, key []byte) mmapslab.Ref {
	i := s.next.Add(1)
	if int(i) > len(s.key) {
		panic("index_test: more items than the test planned for")
	}
	s.key[i-1], s.hash[i-1] = key, h
	return mmapslab.Ref(i)
}

func (s *items) Match(ref mmapslab.Ref, key []byte) bool {
	return ref > 0 && int(ref) <= len(s.key) && bytes.Equal(s.key[ref-1], key)
}

func (s *items) Hash(ref mmapslab.Ref) uint32 {
	if ref == 0 || int(ref) > len(s.hash) {
		return 0
	}
	return uint32(s.hash[ref-1] >> 32)
}

// grace is a plain implementation of read-side sections.
type grace struct {
	mu      sync.Mutex
	next    int
	inside  map[int]bool
	waiting []*waiter
}

type waiter struct {
	f    func()
	stay map[int]bool
}

func (g *grace) enter() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside == nil {
		g.inside = map[int]bool{}
	}
	g.next++
	g.inside[g.next] = true
	return g.next
}

func (g *grace) leave(id int) {
	g.mu.Lock()
	delete(g.inside, id)
	var due []func()
	rest := g.waiting[:0]
	for _, w := range g.waiting {
		if delete(w.stay, id); len(w.stay) == 0 {
			due = append(due, w.f)
		} else {
			rest = append(rest, w)
		}
	}
	g.waiting = rest
	g.mu.Unlock()
	for _, f := range due {
		f()
	}
}

func (g *grace) after(f func()) {
	g.mu.Lock()
	w := &waiter{f, map[int]bool{}}
	for id := range g.inside {
		w.stay[id] = true
	}
	if len(w.stay) > 0 {
		g.waiting = append(g.waiting, w)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	f()
}

// env is an index in an arena with its items and its sections.
type env struct {
	*index.Index
	arena  *mmapslab.Arena
	region index.Region
	items  *items
	grace  grace
	opt    index.Options

	evicted  sync.Map // Refs that set evicted from full windows
	patience int      // of set, in attempts; 0: 10000
}

const maxTestBuckets = 1 << 12

// regionFor lays an index region of two halves with room for so many buckets out at the start of an arena.
func regionFor(buckets int64) (index.Region, int64) {
	half := (buckets*64 + 4095) &^ 4095
	return index.Region{State: 64, Half: [2]int64{4096, 4096 + half}, HalfSize: half}, 4096 + 2*half
}

func newEnv(t testing.TB, arena *mmapslab.Arena, region index.Region, items *items, buckets uint32) *env {
	e := &env{arena: arena, region: region, items: items}
	e.opt = index.Options{AfterGrace: e.grace.after}
	var err error
	if e.Index, err = index.Create(arena, region, items, e.opt, buckets); err != nil {
		t.Fatal(err)
	}
	return e
}

func heapEnv(t testing.TB, nitems int, buckets uint32, max int64) *env {
	region, size := regionFor(max)
	return newEnv(t, mmapslab.NewHeapArena(size), region, newItems(nitems), buckets)
}

// mappedEnv is the same on anonymous mapped memory, in the index region of a real store.
func mappedEnv(t testing.TB, nitems int, buckets uint32) *env {
	if raceDetector {
		t.Skip("the race detector learns no order from atomics in mapped memory, and would report the items")
	}
	store, err := mmapslab.Create(nil, mmapslab.Config{Pages: 8, ChunkSizes: []int{96, 1 << 19}}, mmapslab.Identity{}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	state, half, size := store.IndexRegion()
	return newEnv(t, store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, newItems(nitems), buckets)
}

// both runs a test on the heap, where the race detector sees it, and on mapped memory, where the processor does what it will.
func both(t *testing.T, nitems int, buckets uint32, f func(t *testing.T, e *env)) {
	t.Run("heap", func(t *testing.T) { e := heapEnv(t, nitems, buckets, maxTestBuckets); f(t, e); e.check(t) })
	t.Run("mapped", func(t *testing.T) { e := mappedEnv(t, nitems, buckets); f(t, e); e.check(t) })
}

// op runs f inside a section.
func (e *env) op(f func()) {
	id := e.grace.enter()
	defer e.grace.leave(id)
	f()
}

// set makes the key live with a new item, whatever it takes, and returns it with what it replaced (0: nothing). While an old half waits for
// goroutines that lost the processor inside a section, it first gives them a chance, so that small tables do not evict most of their items.
func (e *env) set(h uint64, key []byte) (ref, old mmapslab.Ref) {
	ref = e.items.add(h, key)
	for patience := cmp.Or(e.patience, 10000); ; patience-- {
		var done bool
		e.op(func() {
			switch res, other := e.Insert(h, key, ref); res {
			case index.Inserted:
				done = true
			case index.Exists:
				if done = e.Replace(h, other, ref); done {
					old = other
				}
			case index.Full:
				if patience > 0 && e.Stats().Draining {
					return
				}
				e.evicted.Store(other, true) // before, so that who misses it finds the excuse; a Ref that cannot be deleted is gone too
				e.Delete(e.items.hash[other-1], other)
			}
		})
		if done {
			return ref, old
		}
		runtime.Gosched()
	}
}

func (e *env) get(h uint64, key []byte) (ref mmapslab.Ref, ok bool) {
	e.op(func() { ref, ok = e.Find(h, key) })
	return ref, ok
}

// check goes over the index at rest: each live word is inside its item's window with the right tag, no key is live twice, Len is their number.
func (e *env) check(t testing.TB) {
	t.Helper()
	e.op(e.FinishGrowth)
	if err := checkAtRest(e.Index, e.items); err != nil {
		t.Error(err)
	}
}

func checkAtRest(x *index.Index, items *items) error {
	var err error
	seen, n := map[string]bool{}, int64(0)
	cleared, ok := x.Sweep(0, x.SweepBuckets(), func(ref mmapslab.Ref, bucket, tag, _ uint32) bool {
		h := items.hash[ref-1]
		window := index.Buckets(uint32(h>>32), x.Stats().Buckets)
		switch key := string(items.key[ref-1]); {
		case !slices.Contains(window[:], bucket):
			err = fmt.Errorf("%q in bucket %d, window is %d", key, bucket, window)
		case uint64(tag) != h&(1<<20-1):
			err = fmt.Errorf("%q has tag %x, want that of hash %x", key, tag, h)
		case seen[key]:
			err = fmt.Errorf("%q is live twice", key)
		default:
			seen[key] = true
		}
		n++
		return true
	})
	switch {
	case err != nil:
	case !ok:
		err = fmt.Errorf("a growth began during the check")
	case cleared != 0:
		err = fmt.Errorf("%d words that do not belong in a table at rest", cleared)
	case x.Len() != n:
		err = fmt.Errorf("Len %d, live words %d", x.Len(), n)
	}
	return err
}

// hash spreads test keys; it is not the hash of the product, which the index does not know.
func hash(i int) uint64 {
	h := uint64(i)*0x9e3779b97f4a7c15 + 0x632be59bd9b4e019
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 32
	h *= 0x94d049bb133111eb
	return h ^ h>>29
}

func key(i int) []byte { return fmt.Appendf(nil, "key%d", i) }
