package index_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"hearth/index"
	"hearth/mmapslab"
)

func TestSetGetReplaceDelete(t *testing.T) {
	both(t, 100, 4, func(t *testing.T, e *env) {
		k, h := key(1), hash(1)
		if _, ok := e.get(h, k); ok {
			t.Fatal("found in an empty index")
		}
		one, _ := e.set(h, k)
		if got, ok := e.get(h, k); !ok || got != one {
			t.Fatalf("found %d %v, want %d", got, ok, one)
		}
		two := e.items.add(h, k)
		e.op(func() {
			if res, other := e.Insert(h, k, two); res != index.Exists || other != one {
				t.Fatalf("insert of a live key: %v %d, want exists %d", res, other, one)
			}
			if e.Replace(h, two, one) {
				t.Fatal("replaced an item that is not live")
			}
			if !e.Holds(h, one) || e.Holds(h, two) {
				t.Fatal("Holds the wrong one")
			}
			if !e.Replace(h, one, two) || e.Replace(h, one, two) {
				t.Fatal("replace must work once")
			}
			if e.Delete(h, one) {
				t.Fatal("deleted an item that was replaced")
			}
			if !e.Delete(h, two) || e.Delete(h, two) {
				t.Fatal("delete must work once")
			}
		})
		if _, ok := e.get(h, k); ok || e.Len() != 0 {
			t.Fatalf("found after delete %v, Len %d", ok, e.Len())
		}
	})
}

// One bucket of eight words to some thousands of items: every table size on the way, each key found after each growth.
func TestGrowsFromOneWindowAndFindsEverything(t *testing.T) {
	const n = 20000
	both(t, 3*n, 4, func(t *testing.T, e *env) {
		model := map[int]mmapslab.Ref{}
		sizes := map[uint32]bool{}
		for i := range n {
			ref, old := e.set(hash(i), key(i))
			if old != 0 {
				t.Fatalf("key %d was there before it was set: %d", i, old)
			}
			model[i] = ref
			if i%7 == 0 {
				j := rand.IntN(i + 1)
				if ref, ok := model[j]; ok {
					e.op(func() {
						if !e.Delete(hash(j), ref) {
							t.Fatalf("key %d: lost", j)
						}
					})
					delete(model, j)
				}
			}
			if s := e.Stats().Buckets; !sizes[s] {
				sizes[s] = true
				for j := range i {
					got, ok := e.get(hash(j), key(j))
					if want, live := model[j]; ok != live || got != want {
						t.Fatalf("at %d buckets key %d: %d %v, want %d %v", s, j, got, ok, want, live)
					}
				}
			}
		}
		if len(sizes) < 8 {
			t.Fatalf("saw only %d table sizes", len(sizes))
		}
		if e.Len() != int64(len(model)) {
			t.Fatalf("Len %d, want %d", e.Len(), len(model))
		}
		if ev := e.Stats().Evicted; ev != 0 {
			t.Fatalf("growth dropped %d items", ev)
		}
	})
}

// Equal hashes share all: window, tag, home. 32 fit; the next gets one of them to evict, and nobody else's.
func TestFullWindowYieldsAVictimOfTheWindow(t *testing.T) {
	const slots = 4 * index.BucketWords
	both(t, 1000, 64, func(t *testing.T, e *env) {
		h := hash(7)
		live := map[mmapslab.Ref]int{}
		for i := range slots {
			ref := e.items.add(h, key(i))
			if res, _ := e.Insert(h, key(i), ref); res != index.Inserted {
				t.Fatalf("insert %d into a window of %d: %v", i, slots, res)
			}
			live[ref] = i
		}
		for i := slots; i < 3*slots; i++ {
			ref := e.items.add(h, key(i))
			res, victim := e.Insert(h, key(i), ref)
			if _, ok := live[victim]; res != index.Full || !ok {
				t.Fatalf("insert into a full window: %v, victim %d", res, victim)
			}
			if !e.Delete(h, victim) {
				t.Fatalf("victim %d is not live", victim)
			}
			delete(live, victim)
			if res, _ := e.Insert(h, key(i), ref); res != index.Inserted {
				t.Fatalf("insert after the eviction: %v", res)
			}
			live[ref] = i
		}
		for ref, i := range live {
			if got, ok := e.Find(h, key(i)); !ok || got != ref {
				t.Fatalf("key %d: %d %v, want %d", i, got, ok, ref)
			}
		}
		if e.Stats().Growths != 0 {
			t.Fatal("grew although the table is nearly empty")
		}
	})
}

// Above the load limit a full window makes the table grow, and the item goes in without an eviction.
func TestFullWindowForcesGrowth(t *testing.T) {
	both(t, 1000, 4, func(t *testing.T, e *env) { // four buckets are one window
		for i := range 200 {
			ref := e.items.add(hash(i), key(i))
			e.op(func() {
				if res, _ := e.Insert(hash(i), key(i), ref); res != index.Inserted {
					t.Fatalf("insert %d: %v", i, res)
				}
			})
		}
		if e.Stats().Growths == 0 {
			t.Fatal("200 items in 32 words without growth")
		}
	})
}

// At the region's maximum there is nowhere to grow: Full at any load, and it stays so.
func TestTableAtItsMaximumEvicts(t *testing.T) {
	e := heapEnv(t, 20000, 64, 64)
	for i := range 5000 {
		e.set(hash(i), key(i))
	}
	s := e.Stats()
	if s.Growths != 0 || s.Growing || s.Buckets != 64 || s.Items > 64*8 || s.Items < 64*8*3/4 {
		t.Fatalf("%+v", s)
	}
	e.check(t)
}

// The new half is 32 items of one hash and others that overflow it: growth must drop somebody, tell whom, and count right.
func TestGrowthThatFindsAFullWindowEvictsAndReports(t *testing.T) {
	region, size := regionFor(maxTestBuckets)
	items := newItems(1000)
	e := &env{arena: mmapslab.NewHeapArena(size), region: region, items: items}
	dropped := map[mmapslab.Ref]bool{}
	e.opt = index.Options{AfterGrace: e.grace.after, Evict: func(ref mmapslab.Ref) {
		if dropped[ref] {
			t.Errorf("item %d dropped twice", ref)
		}
		dropped[ref] = true
	}}
	var err error
	if e.Index, err = index.Create(e.arena, region, items, e.opt, 8); err != nil {
		t.Fatal(err)
	}
	// The new window of these hashes is filled behind the index's back, after the growth began.
	h := hash(1)
	live := map[mmapslab.Ref]int{}
	for i := range 20 {
		ref := items.add(h, key(i))
		e.Insert(h, key(i), ref)
		live[ref] = i
	}
	if !e.Start() {
		t.Fatal("no growth")
	}
	window := index.Buckets(uint32(h>>32), uint32(index.Grown(8)))
	for i := range 16 {
		ref := items.add(h, key(100+i))
		live[ref] = 100 + i
		e.arena.Word(region.Half[1] + int64(window[i/8])*64 + int64(i%8)*8).Store(index.Pack(ref, h&(1<<20-1), index.StateLive))
	}
	e.SetLen(e.Len() + 16)
	e.FinishGrowth()
	if len(dropped) != 4 || e.Stats().Evicted != 4 {
		t.Fatalf("dropped %d items, counted %d, want 4", len(dropped), e.Stats().Evicted)
	}
	for ref, i := range live {
		got, ok := e.Find(h, key(i))
		if ok == dropped[ref] || ok && got != ref {
			t.Fatalf("key %d: %d %v, dropped %v", i, got, ok, dropped[ref])
		}
	}
	e.check(t)
}

func TestEqualTagsOfDifferentKeysDoNotMix(t *testing.T) {
	both(t, 4000, 16, func(t *testing.T, e *env) {
		refs := map[int]mmapslab.Ref{}
		for i := range 300 {
			refs[i], _ = e.set(hash(i)&^(1<<20-1)|0x5a5a5, key(i))
		}
		for i, ref := range refs {
			if got, ok := e.get(hash(i)&^(1<<20-1)|0x5a5a5, key(i)); !ok || got != ref {
				t.Fatalf("key %d: %d %v, want %d", i, got, ok, ref)
			}
		}
	})
}

func TestAttachRefusesNonsense(t *testing.T) {
	const live, growing = 4, 6 // half 0
	for name, words := range map[string][3]uint64{
		"never created":                   {},
		"unknown flag":                    {live | 8, 10, 0},
		"garbage":                         {0xdeadbeefcafef00d, 0x1234567890abcdef, 0xffffffffffffffff},
		"no buckets":                      {live, 0, 0},
		"other half in use":               {live | 1, 10, 0},
		"too many buckets":                {live, maxTestBuckets + 1000, 0},
		"spare half too large":            {live, 10, 1 << 31},
		"wraps":                           {live, 1<<64 - 3, 0},
		"growing into nothing":            {growing, 10, 0},
		"growing into less than a window": {growing, 10, 2},
		"odd":                             {live, 11, 0},
	} {
		t.Run(name, func(t *testing.T) {
			region, size := regionFor(maxTestBuckets)
			a := mmapslab.NewHeapArena(size)
			for i, w := range words {
				a.Word(region.State + int64(i)*8).Store(w)
			}
			if _, err := index.Attach(a, region, newItems(1), index.Options{}); !errors.Is(err, index.ErrCorrupt) {
				t.Fatalf("attached: %v", err)
			}
		})
	}
}

// A region that may be old in parts is taken over at rest only, and with a spare half that is zero in fact: what State says of it may be from another time.
func TestATornRegionIsTrustedAtRestAlone(t *testing.T) {
	for _, growing := range []bool{false, true} {
		e := heapEnv(t, 100, 16, maxTestBuckets)
		for i := range 50 {
			e.set(hash(i), key(i))
		}
		if growing {
			e.Start()
		}
		spare := e.arena.Word(e.region.Half[1] + 8*8)
		spare.Store(index.Pack(1, 1, index.StateLive))
		x, err := index.Attach(e.arena, e.region, e.items, index.Options{Torn: true})
		if growing {
			if !errors.Is(err, index.ErrCorrupt) {
				t.Errorf("growing: %v, want ErrCorrupt", err)
			}
			continue
		}
		if err != nil || spare.Load() != 0 {
			t.Fatalf("%v; a word of the spare half is %#x", err, spare.Load())
		}
		for i := range 50 {
			if _, ok := x.Find(hash(i), key(i)); !ok {
				t.Errorf("key %d is gone", i)
			}
		}
	}
}

func TestCreateAndAttachRefuseARegionOutsideTheArena(t *testing.T) {
	region, size := regionFor(16)
	a := mmapslab.NewHeapArena(size)
	for name, change := range map[string]func(r *index.Region){
		"half behind the end": func(r *index.Region) { r.Half[1] += 64 },
		"state behind":        func(r *index.Region) { r.State = size - 16 },
		"negative":            func(r *index.Region) { r.Half[0] = -64 },
		"odd":                 func(r *index.Region) { r.State++ },
		"huge":                func(r *index.Region) { r.HalfSize = 1<<63 - 1 },
	} {
		r := region
		change(&r)
		if _, err := index.Create(a, r, newItems(1), index.Options{}, 4); err == nil {
			t.Errorf("create, %s: no error", name)
		}
		if _, err := index.Attach(a, r, newItems(1), index.Options{}); err == nil {
			t.Errorf("attach, %s: no error", name)
		}
	}
	if _, err := index.Create(a, region, newItems(1), index.Options{}, 1<<20); err == nil {
		t.Error("created a table larger than its half")
	}
}

// Whatever bytes a disk makes of the table, operations end, and a sweep leaves a table that works.
func TestGarbageWordsNeitherHangNorSurviveTheSweep(t *testing.T) {
	for seed := range uint64(200) {
		e := heapEnv(t, 4000, 16, maxTestBuckets)
		rnd := rand.New(rand.NewPCG(seed, 1))
		for i := range int64(16 * 8) {
			w := rnd.Uint64()
			if seed%2 == 0 { // a window of nothing but words that should not be there
				w = index.Pack(mmapslab.Ref(rnd.Uint64N(1<<41)), rnd.Uint64N(1<<20), []uint64{1, 3, 4, 5, 7}[rnd.IntN(5)])
			}
			e.arena.Word(e.region.Half[0] + i*8).Store(w)
		}
		for i := range 50 {
			ref := e.items.add(hash(i), key(i))
			for range 40 {
				res, victim := e.Insert(hash(i), key(i), ref)
				if res != index.Full || victim == 0 {
					break
				}
				// As the root package would: it cannot hash what it cannot read, so the caller knows only the window.
				for w := range e.Tables()[0] {
					at := e.arena.Word(e.region.Half[0] + int64(w)*8)
					if r, _, st := index.Unpack(at.Load()); r == victim && st == index.StateLive {
						at.Store(0)
					}
				}
			}
			e.Find(hash(i), key(i))
			e.Holds(hash(i), ref)
			e.Replace(hash(i), ref+1000, ref)
			e.Delete(hash(i), ref)
		}
		e.Sweep(0, e.SweepBuckets(), func(ref mmapslab.Ref, _, _, _ uint32) bool { return false })
		e.SetLen(0)
		for i := range 500 {
			ref, _ := e.set(hash(i), key(i))
			if got, ok := e.get(hash(i), key(i)); !ok || got != ref {
				t.Fatalf("seed %d: key %d: %d %v", seed, i, got, ok)
			}
		}
		e.check(t)
	}
}

func TestSweepClearsTentativeAndDeletesWhatIsNotKept(t *testing.T) {
	e := heapEnv(t, 1000, 64, maxTestBuckets)
	for i := range 100 {
		e.set(hash(i), key(i))
	}
	h := hash(1000)
	empty := slices.Index(e.Tables()[0], 0)
	e.arena.Word(e.region.Half[0] + int64(empty)*8).Store(index.Pack(12345, h&(1<<20-1), index.StateTentative))
	cleared, ok := e.Sweep(0, e.SweepBuckets(), func(ref mmapslab.Ref, _, _, _ uint32) bool { return ref%2 == 0 })
	if cleared != 1 || !ok {
		t.Fatalf("cleared %d, ok %v", cleared, ok)
	}
	if e.Len() != 50 {
		t.Fatalf("Len %d, want 50", e.Len())
	}
	e.check(t)
}

func TestHeldGrowthEvictsAndGoesOnAfterwards(t *testing.T) {
	e := heapEnv(t, 5000, 4, maxTestBuckets)
	e.HoldGrowth(true)
	for i := range 300 {
		e.set(hash(i), key(i))
	}
	if s := e.Stats(); s.Growths != 0 || s.Growing || s.Items > 40 {
		t.Fatalf("held: %+v", s)
	}
	e.HoldGrowth(false)
	for i := range 300 {
		e.set(hash(i), key(i))
	}
	if e.check(t); e.Len() != 300 {
		t.Fatalf("Len %d after growth was let go, want 300", e.Len())
	}
}

// A disk that is full when the table wants to grow means evictions, never a touched page.
func TestDoesNotGrowIntoMemoryItCannotHave(t *testing.T) {
	region, size := regionFor(maxTestBuckets)
	var refuse bool
	backed := int64(0)
	items := newItems(20000)
	e := &env{arena: mmapslab.NewHeapArena(size), region: region, items: items}
	e.opt = index.Options{AfterGrace: e.grace.after, Populate: func(off, n int64) error {
		if refuse {
			return errors.New("disk full")
		}
		backed += n
		return nil
	}}
	var err error
	if e.Index, err = index.Create(e.arena, region, items, e.opt, 4); err != nil {
		t.Fatal(err)
	}
	refuse = true
	for i := range 3000 {
		e.set(hash(i), key(i))
	}
	if s := e.Stats(); s.Growths != 0 || s.Growing || backed != 4*64 {
		t.Fatalf("%+v, backed %d", s, backed)
	}
	refuse = false
	for i := range 4000 {
		e.set(hash(i), key(i))
	}
	if s := e.Stats(); s.Growths == 0 || e.Len() < 3000 {
		t.Fatalf("memory came back: %+v", s)
	}
	e.check(t)
}

// Discard is asked once per half, only after those who could still see it have left; and what it leaves is zero when growth comes back to it.
func TestOldHalfIsDiscardedOnlyAfterGrace(t *testing.T) {
	region, size := regionFor(maxTestBuckets)
	items := newItems(20000)
	var discarded []int64
	e := &env{arena: mmapslab.NewHeapArena(size), region: region, items: items, patience: 10} // the reader stays whatever set waits for
	e.opt = index.Options{AfterGrace: e.grace.after, Discard: func(off, n int64) error {
		discarded = append(discarded, off)
		words := e.arena.Words(off, int(n/8))
		for i := range words {
			words[i].Store(0)
		}
		return nil
	}}
	var err error
	if e.Index, err = index.Create(e.arena, region, items, e.opt, 4); err != nil {
		t.Fatal(err)
	}
	reader := e.grace.enter()
	i := 0
	for ; i < 200; i++ {
		e.set(hash(i), key(i))
	}
	s := e.Stats()
	if s.Growths != 1 || !s.Draining || len(discarded) != 0 {
		t.Fatalf("with a reader inside: %+v, discarded %v", s, discarded)
	}
	e.grace.leave(reader)
	if e.Stats().Draining || len(discarded) != 1 || discarded[0] != region.Half[0] {
		t.Fatalf("after the reader left: %+v, discarded %v", e.Stats(), discarded)
	}
	for ; i < 400; i++ {
		e.set(hash(i), key(i))
	}
	if e.op(e.FinishGrowth); e.Stats().Growths < 2 {
		t.Fatal("no second growth")
	}
	e.check(t)
}

func TestFailedDiscardIsReportedAndTheHalfIsZeroAllTheSame(t *testing.T) {
	e := heapEnv(t, 4000, 4, maxTestBuckets)
	fail := errors.New("no hole punching here")
	e.opt.Discard = func(off, n int64) error { return fail }
	region, size := regionFor(maxTestBuckets)
	x, err := index.Create(mmapslab.NewHeapArena(size), region, e.items, e.opt, 4)
	if err != nil {
		t.Fatal(err)
	}
	e.Index = x
	for i := range 2000 {
		e.set(hash(i), key(i))
	}
	if s := e.Stats(); !errors.Is(s.DiscardErr, fail) || s.Growths < 3 || s.Items != 2000 {
		t.Fatalf("%+v", s)
	}
	e.check(t)
}

// The bucket count of an old half becomes 0 when all of it is zero, and not before: after a kill in between the next growth would take what is left there for its own words.
func TestAHalfIsCalledZeroOnlyWhenItIs(t *testing.T) {
	const most = 1 << 14 // the old half of the last growth is discarded in two pieces
	e := heapEnv(t, 60_000, 4, most)
	region, size := regionFor(most)
	a := mmapslab.NewHeapArena(size)
	pieces := int64(0)
	e.opt.Discard = func(off, n int64) error {
		pieces++
		half := int64(0)
		if off >= region.Half[1] {
			half = 1
		}
		if a.Word(region.State+8*(1+half)).Load() == 0 {
			t.Errorf("piece %d: half %d is called zero before its %d bytes at %#x are", pieces, half, n, off)
		}
		clear(a.Bytes(off, int(n)))
		return nil
	}
	x, err := index.Create(a, region, e.items, e.opt, 4)
	if err != nil {
		t.Fatal(err)
	}
	e.Index = x
	for i := range 55_000 {
		e.set(hash(i), key(i))
	}
	for more := true; more; {
		e.op(func() { more = e.Help(64) })
	}
	if s := e.Stats(); s.Buckets != most || pieces <= s.Growths {
		t.Errorf("%d pieces in %+v", pieces, s)
	}
}

// Many goroutines, distinct keys, growth all along: nobody misses a key of his own, unless it was evicted from a full window by name.
func TestParallelSettersLoseNothingWhileTheTableGrows(t *testing.T) {
	const writers, each = 4, 3000
	both(t, writers*each*3, 4, func(t *testing.T, e *env) {
		var wg sync.WaitGroup
		lost := make([]int, writers)
		last := make([]map[int]mmapslab.Ref, writers)
		for w := range writers {
			wg.Go(func() {
				mine := map[int]mmapslab.Ref{}
				for n := range each {
					i := w*1_000_000 + n
					mine[i], _ = e.set(hash(i), key(i))
					j := w*1_000_000 + n/2
					if n%3 == 0 {
						mine[j], _ = e.set(hash(j), key(j))
					}
					if got, ok := e.get(hash(j), key(j)); !ok || got != mine[j] {
						if _, excused := e.evicted.Load(mine[j]); ok || !excused {
							lost[w]++
						}
					}
				}
				last[w] = mine
			})
		}
		wg.Wait()
		live := int64(0)
		for w, n := range lost {
			if n != 0 {
				t.Errorf("writer %d missed %d of its own keys", w, n)
			}
			for i, ref := range last[w] {
				_, gone := e.evicted.Load(ref)
				if got, ok := e.get(hash(i), key(i)); ok == gone || ok && got != ref {
					t.Errorf("key %d: %d %v, want %d unless evicted: %v", i, got, ok, ref, gone)
				}
				if !gone {
					live++
				}
			}
		}
		if e.Len() != live || live < writers*each*9/10 {
			t.Errorf("Len %d, want %d, and most of %d", e.Len(), live, writers*each)
		}
	})
}

// Items that come while Fit moves the table must not fill the smaller one up.
func TestFitEvictsNobodyWhileItemsGoOnComing(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a million items")
	}
	const n = 1_200_000
	e := heapEnv(t, n, 1<<15, 1<<19)
	fits := 0
	for i := range n {
		ref := e.items.add(hash(i), nil)
		if res, _ := e.Insert(hash(i), key(i), ref); res != index.Inserted {
			t.Fatalf("item %d, after %d times Fit: %v at %+v", i, fits, res, e.Stats())
		}
		if s := e.Stats(); s.Evicted != 0 {
			t.Fatalf("item %d, after %d times Fit: %+v", i, fits, s)
		}
		if i%64 == 0 && e.Fit() {
			fits++
		}
	}
	if fits < 3 {
		t.Errorf("%d times Fit, want some", fits)
	}
}

// Nobody is evicted while the table can grow; right after a growth an item costs no more than 16 bytes, and at rest, once Fit was asked, under 12.
func TestTableEvictsNobodyAndStaysSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a million items")
	}
	const n = 1_000_000
	e := heapEnv(t, n, 64, 1<<19)
	worst, growths := 0.0, int64(0)
	for i := range n {
		ref := e.items.add(hash(i), nil)
		if res, _ := e.Insert(hash(i), key(i), ref); res != index.Inserted {
			t.Fatalf("item %d: %v at %+v", i, res, e.Stats())
		}
		s := e.Stats()
		if i%64 == 0 && s.Buckets > index.SmallBuckets && !s.Growing && !s.Draining && s.Growths != growths {
			growths = s.Growths
			worst = max(worst, float64(s.Bytes)/float64(s.Items))
		}
		if i%1000 == 0 && s.Buckets > 2*index.SmallBuckets && !s.Growing && e.Fit() {
			for e.Help(64) { // the old half, too
			}
			if s := e.Stats(); float64(s.Bytes)/float64(s.Items) >= 12 || s.Evicted != 0 {
				t.Fatalf("after Fit: %.2f bytes an item, %+v", float64(s.Bytes)/float64(s.Items), s)
			}
		}
	}
	t.Logf("worst %.2f bytes an item, %d growths", worst, e.Stats().Growths)
	if worst == 0 || worst > 16 {
		t.Errorf("%.2f bytes an item right after a growth, want at most 16", worst)
	}
}
