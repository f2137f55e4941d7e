package index_test

import (
	"testing"

	"pgregory.net/rapid"

	"hearth/index"
	"hearth/mmapslab"
)

// A map follows random operations, with growth at any speed, readers that hold up its end, and processes that die and attach again.
func TestFollowsAMapOverGrowthAndAttach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buckets := 2 * rapid.Uint32Range(2, 20).Draw(t, "bucket pairs")
		spread := rapid.SampledFrom([]uint64{1<<64 - 1, 1<<20 - 1, 0xffff<<48 | 0xf}).Draw(t, "hash bits") // anything, one home, few tags
		region, size := regionFor(400)
		items := newItems(5000)
		e := &env{arena: mmapslab.NewHeapArena(size), region: region, items: items}
		model := map[int]mmapslab.Ref{}
		keyOf := map[mmapslab.Ref]int{}
		gone := func(ref mmapslab.Ref) {
			if model[keyOf[ref]] != ref {
				t.Fatalf("evicted %d, which is not live", ref)
			}
			delete(model, keyOf[ref])
		}
		e.opt = index.Options{AfterGrace: e.grace.after, Evict: gone}
		var err error
		if e.Index, err = index.Create(e.arena, region, items, e.opt, buckets); err != nil {
			t.Fatal(err)
		}
		reader := 0
		h := func(k int) uint64 { return hash(k) & spread }
		keys := rapid.IntRange(0, 300)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				for k, n := keys.Draw(t, "key"), rapid.IntRange(1, 30).Draw(t, "count"); n > 0; k, n = (k+1)%301, n-1 {
					if items.next.Load() >= 4900 {
						return
					}
					ref := items.add(h(k), key(k))
					keyOf[ref] = k
					for {
						res, other := e.Insert(h(k), key(k), ref)
						if res == index.Full {
							if !e.Delete(h(keyOf[other]), other) {
								t.Fatalf("victim %d is not live", other)
							}
							gone(other)
							continue
						}
						if old, live := model[k]; live != (res == index.Exists) || live && old != other {
							t.Fatalf("insert key %d: %v %d, model %d %v", k, res, other, old, live)
						}
						if res == index.Exists && !e.Replace(h(k), other, ref) {
							t.Fatalf("key %d: replace of %d failed", k, other)
						}
						model[k] = ref
						break
					}
				}
			},
			"delete": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				if ref, live := model[k]; live {
					if !e.Delete(h(k), ref) {
						t.Fatalf("key %d: %d is gone", k, ref)
					}
					delete(model, k)
				}
			},
			"grow":   func(t *rapid.T) { e.Start() },
			"help":   func(t *rapid.T) { e.Help(rapid.IntRange(1, 20).Draw(t, "buckets")) },
			"finish": func(t *rapid.T) { e.FinishGrowth() },
			"reader": func(t *rapid.T) {
				if reader == 0 {
					reader = e.grace.enter()
				} else {
					e.grace.leave(reader)
					reader = 0
				}
			},
			"attach": func(t *rapid.T) {
				e.grace, reader = grace{}, 0
				if e.Index, err = index.Attach(e.arena, region, items, e.opt); err != nil {
					t.Fatal(err)
				}
				e.SetLen(int64(len(model)))
			},
			"": func(t *rapid.T) {
				for k := range 301 {
					ref, ok := e.Find(h(k), key(k))
					if want, live := model[k]; ok != live || ref != want || live && !e.Holds(h(k), ref) {
						t.Fatalf("key %d: %d %v, want %d %v", k, ref, ok, want, live)
					}
				}
				if e.Len() != int64(len(model)) {
					t.Fatalf("Len %d, want %d", e.Len(), len(model))
				}
			},
		})
		e.FinishGrowth()
		if err := checkAtRest(e.Index, items); err != nil {
			t.Fatal(err)
		}
	})
}
