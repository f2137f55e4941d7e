package index_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hearth/index"
	"hearth/mmapslab"
)

// A history has one model per key: the Ref that is live, 0 for none.
type input struct {
	op       string
	key      int
	old, ref mmapslab.Ref
}

type output struct {
	ok  bool         // replace, delete; insert: it was inserted
	ref mmapslab.Ref // get: what was found; insert: what was there
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(input).key
			byKey[k] = append(byKey[k], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range byKey {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return mmapslab.Ref(0) },
	Step: func(state, in, out any) (bool, any) {
		s, i, o := state.(mmapslab.Ref), in.(input), out.(output)
		switch i.op {
		case "get":
			return o.ref == s, s
		case "insert":
			if o.ok {
				return s == 0, i.ref
			}
			return s != 0 && o.ref == s, s
		case "replace":
			if o.ok {
				return s == i.old, i.ref
			}
			return s != i.old, s
		default: // delete
			if o.ok {
				return s == i.old, mmapslab.Ref(0)
			}
			return s != i.old, s
		}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// history records operations of many clients.
type history struct {
	clock atomic.Int64
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (hi *history) record(client int, in input, f func() output) output {
	call := hi.clock.Add(1)
	out := f()
	ret := hi.clock.Add(1)
	hi.add(client, in, out, call, ret)
	return out
}

func (hi *history) add(client int, in input, out output, call, ret int64) {
	hi.mu.Lock()
	defer hi.mu.Unlock()
	hi.ops = append(hi.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: ret})
}

func (hi *history) check(t testing.TB) bool {
	t.Helper()
	switch porcupine.CheckOperationsTimeout(model, hi.ops, 20*time.Second) {
	case porcupine.Illegal:
		t.Errorf("a history of %d operations is not linearizable", len(hi.ops))
		return false
	case porcupine.Unknown:
		t.Logf("a history of %d operations could not be judged in time", len(hi.ops))
	}
	return true
}

// rival is an env where few keys fight for one window. Keys 0 and 1 have equal hashes, all have equal tags.
type rival struct {
	*env
	history
	keys  int
	keyOf sync.Map // Ref → key
}

func (r *rival) hash(k int) uint64 { return uint64(max(k, 1))<<36 | 0x7_abcd }

func newRival(t testing.TB, keys int, arena *mmapslab.Arena, region index.Region, buckets uint32) *rival {
	r := &rival{keys: keys}
	r.env = &env{arena: arena, region: region, items: newItems(20000)}
	r.opt = index.Options{AfterGrace: r.grace.after, Evict: func(ref mmapslab.Ref) {
		k, _ := r.keyOf.Load(ref)
		r.add(99, input{op: "delete", key: k.(int), old: ref}, output{ok: true}, 0, r.clock.Add(1))
	}}
	var err error
	if r.Index, err = index.Create(arena, region, r.items, r.opt, buckets); err != nil {
		t.Fatal(err)
	}
	return r
}

func heapRival(t testing.TB, keys int, max int64) *rival {
	region, size := regionFor(max)
	return newRival(t, keys, mmapslab.NewHeapArena(size), region, 4)
}

func mappedRival(t testing.TB, keys int) *rival {
	e := mappedEnv(t, 1, 4)
	for i := range int64(3) { // a fresh region, for another Options
		e.arena.Word(e.region.State + i*8).Store(0)
	}
	return newRival(t, keys, e.arena, e.region, 4)
}

// client does n random operations.
func (r *rival) client(id, n int, rnd *rand.Rand) {
	for range n {
		k := rnd.IntN(r.keys)
		r.op(func() {
			switch rnd.IntN(8) {
			case 0, 1:
				r.find(id, k)
			case 2, 3, 4:
				r.insert(id, k)
			case 5:
				if old := r.find(id, k); old != 0 {
					r.replace(id, k, old)
				}
			default:
				if old := r.find(id, k); old != 0 {
					r.delete(id, k, old)
				}
			}
		})
		if rnd.IntN(4) == 0 {
			runtime.Gosched()
		}
	}
}

func (r *rival) find(id, k int) mmapslab.Ref {
	hint, _ := r.Hint(r.hash(k)) // which others have time to make an old one
	if hint.Home() == 0 {
		hint.Other()
	}
	runtime.Gosched()
	return r.record(id, input{op: "get", key: k}, func() output {
		ref := hint.Find()
		if ref == 0 || !r.items.Match(ref, key(k)) {
			ref, _ = r.Find(r.hash(k), key(k))
		}
		return output{ref: ref}
	}).ref
}

func (r *rival) newRef(k int) mmapslab.Ref {
	ref := r.items.add(r.hash(k), key(k))
	r.keyOf.Store(ref, k)
	return ref
}

func (r *rival) insert(id, k int) {
	ref := r.newRef(k)
	call := r.clock.Add(1)
	switch res, other := r.Insert(r.hash(k), key(k), ref); res {
	case index.Full: // says nothing about the key
		victim, _ := r.keyOf.Load(other)
		r.delete(id, victim.(int), other)
	default:
		r.add(id, input{op: "insert", key: k, ref: ref}, output{ok: res == index.Inserted, ref: other}, call, r.clock.Add(1))
	}
}

func (r *rival) replace(id, k int, old mmapslab.Ref) {
	ref := r.newRef(k)
	r.record(id, input{op: "replace", key: k, old: old, ref: ref}, func() output { return output{ok: r.Replace(r.hash(k), old, ref)} })
}

func (r *rival) delete(id, k int, old mmapslab.Ref) {
	r.record(id, input{op: "delete", key: k, old: old}, func() output { return output{ok: r.Delete(r.hash(k), old)} })
}

// grower keeps the table growing, a bucket at a time, until stop.
func (r *rival) grower(stop *atomic.Bool) {
	for !stop.Load() {
		r.op(func() {
			r.Start()
			r.Help(1)
		})
		runtime.Gosched()
	}
}

// fight runs clients and a grower, and returns how many growths they saw.
func (r *rival) fight(clients, each int, seed uint64) int64 {
	var work, grow sync.WaitGroup
	var stop atomic.Bool
	for id := range clients {
		work.Go(func() { r.client(id, each, rand.New(rand.NewPCG(seed, uint64(id)))) })
	}
	grow.Go(func() { r.grower(&stop) })
	work.Wait()
	stop.Store(true)
	grow.Wait()
	return r.Stats().Growths
}

func TestHistoriesAreLinearizableWhileTheTableGrows(t *testing.T) {
	const clients, each = 8, 40
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for name, mk := range map[string]func(t *testing.T) *rival{
		"heap":   func(t *testing.T) *rival { return heapRival(t, 6, maxTestBuckets) },
		"mapped": func(t *testing.T) *rival { return mappedRival(t, 6) },
	} {
		t.Run(name, func(t *testing.T) {
			growths := int64(0)
			for seed := range uint64(rounds) {
				r := mk(t)
				growths += r.fight(clients, each, seed)
				ok := r.history.check(t)
				if r.env.check(t); !ok || t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if growths < int64(rounds) {
				t.Errorf("only %d growths in %d histories", growths, rounds)
			}
		})
	}
}

// The test of the test: a key that is live twice, one word older than the other, must show.
func TestHistoryCheckSeesADoubleKey(t *testing.T) {
	r := heapRival(t, 1, maxTestBuckets)
	r.insert(0, 0)
	ref := r.find(0, 0)
	for i := range int64(index.BucketWords) { // a second word of the key, behind the first
		if w := r.arena.Word(r.region.Half[0] + i*8); w.Load() == 0 {
			w.Store(index.Pack(r.newRef(0), r.hash(0)&(1<<20-1), index.StateLive))
			break
		}
	}
	r.delete(0, 0, ref)
	r.find(0, 0)
	if porcupine.CheckOperations(model, r.ops) {
		t.Error("a deleted key that is found again passed as linearizable")
	}
	if err := checkAtRest(r.Index, r.items); err == nil {
		t.Error("the check at rest did not count")
	}
}
