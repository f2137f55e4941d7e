package lru_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hearth/lru"
	"hearth/mmapslab"
)

func TestFirstFetchOnlyMarksSecondActivates(t *testing.T) {
	for segment := lru.Hot; segment <= lru.Temp; segment++ {
		f := newFixture(t, lru.Defaults)
		ref := f.put(1, segment, 100)
		if f.hit(ref, 150) || f.meta(ref)&mmapslab.Fetched == 0 || f.meta(ref)&mmapslab.Active != 0 || f.meta(ref).Age(150) != 50 {
			t.Errorf("segment %d, first fetch: meta %#x", segment, uint64(f.meta(ref)))
		}
		note := f.hit(ref, 160)
		wantAge := uint32(0)
		if segment == lru.Cold {
			wantAge = 60 // only the bump that the note leads to sets the time
		}
		if note != (segment == lru.Cold) || f.meta(ref)&mmapslab.Active == 0 || f.meta(ref).Age(160) != wantAge {
			t.Errorf("segment %d, second fetch: note %t, meta %#x, age %d", segment, note, uint64(f.meta(ref)), f.meta(ref).Age(160))
		}
		before := f.meta(ref)
		if f.hit(ref, 170) || f.meta(ref) != before {
			t.Errorf("segment %d, third fetch: meta %#x, want %#x", segment, uint64(f.meta(ref)), uint64(before))
		}
		if f.Forget(ref); segment == lru.Cold && !f.hit(ref, 180) {
			t.Error("no new note after a dropped one")
		}
	}
}

func TestHitLosesToAnotherChange(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	ref := f.put(1, lru.Cold, 0)
	f.hit(ref, 0)
	seen := f.meta(ref)
	f.store.Meta(ref).Store(uint64(seen.WithExptime(77)))
	if lru.Hit(f.store.Meta(ref), seen, 1) || f.meta(ref).Exptime() != 77 || f.meta(ref)&mmapslab.Active != 0 {
		t.Errorf("a hit overwrote a touch: meta %#x", uint64(f.meta(ref)))
	}
}

// A client can ask whether an item was fetched, so that mark is never lost to what else changes in Meta.
func TestHitSetsFetchedWhateverElseChanges(t *testing.T) {
	for _, flat := range []bool{false, true} {
		settings := lru.Defaults
		settings.Flat = flat
		for _, age := range []uint32{0, 3600} {
			f := newFixture(t, settings)
			ref := f.put(1, lru.Cold, 0)
			seen := f.meta(ref)
			f.store.Meta(ref).Store(uint64(seen.WithExptime(77)))
			f.Hit(f.store.Meta(ref), seen, age)
			if m := f.meta(ref); m&mmapslab.Fetched == 0 || m.Exptime() != 77 {
				t.Errorf("flat %v, age %d: meta %#x, want FETCHED and exptime 77", flat, age, uint64(m))
			}
		}
	}
}

func TestBumpMovesFromColdToTheHeadOfWarm(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	a, b, warm := f.put(1, lru.Cold, 5), f.put(1, lru.Cold, 5), f.put(1, lru.Warm, 5)
	f.hit(a, 9)
	f.hit(a, 9)
	f.Bump(a, 11)
	f.wantList(t, 1, lru.Warm, a, warm)
	f.wantList(t, 1, lru.Cold, b)
	if f.meta(a)&mmapslab.Active != 0 || f.meta(a)&mmapslab.Fetched == 0 || f.meta(a).Age(11) != 0 || f.Class(1, 11).Moves.ToWarm != 1 {
		t.Errorf("meta %#x, moves %+v", uint64(f.meta(a)), f.Class(1, 11).Moves)
	}
}

// A note may be about a chunk that has become something else since. Whatever that is, it must not be moved wrongly, nor a list break.
func TestStaleNotesAreHarmless(t *testing.T) {
	for name, become := range map[string]func(f *fixture, ref mmapslab.Ref){
		"unlinked": func(f *fixture, ref mmapslab.Ref) {},
		"free":     func(f *fixture, ref mmapslab.Ref) { f.store.Free(ref) },
		"data chunk full of ones": func(f *fixture, ref mmapslab.Ref) {
			head := f.write(1, 0, false, 0) | mmapslab.Chained
			b := f.store.AppendData(head, ref, f.store.ChunkSize(ref)-mmapslab.DataHeaderSize)
			for i := range b {
				b[i] = 0xff
			}
		},
		"unpublished item": func(f *fixture, ref mmapslab.Ref) {
			f.store.WriteItem(ref, []byte("other"), 3, &mmapslab.Fields{}, mmapslab.MakeMeta(0, 0))
		},
		"item in HOT": func(f *fixture, ref mmapslab.Ref) {
			f.Link(ref, lru.Hot, f.sizes[ref])
			f.set(ref, mmapslab.Active)
		},
		"inactive item in COLD": func(f *fixture, ref mmapslab.Ref) { f.Link(ref, lru.Cold, f.sizes[ref]) },
		"chained item in COLD": func(f *fixture, ref mmapslab.Ref) {
			chained := ref | mmapslab.Chained
			f.store.WriteItem(chained, []byte("other"), 0, &mmapslab.Fields{}, mmapslab.MakeMeta(0, 0))
			f.store.Seal(chained, 1, 1)
			it, _ := f.store.Item(chained)
			f.sizes[chained] = it.Size()
			f.Link(chained, lru.Cold, it.Size())
			f.set(chained, mmapslab.Active)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, lru.Defaults)
			neighbour, ref, other := f.put(1, lru.Cold, 0), f.put(1, lru.Cold, 0), f.put(1, lru.Cold, 0)
			f.set(ref, mmapslab.Active)
			f.Unlink(ref, f.sizes[ref])
			f.store.Meta(ref).And(^uint64(mmapslab.Active))
			become(f, ref)
			var before [3][4][]mmapslab.Ref
			for class := range before {
				for segment := range before[class] {
					before[class][segment] = f.list(t, class, segment)
				}
			}
			f.Bump(ref, 5)
			for class := range before {
				for segment := range before[class] {
					f.wantList(t, class, segment, before[class][segment]...)
				}
			}
			_, _ = neighbour, other
		})
	}
	t.Run("another active item in COLD is moved", func(t *testing.T) {
		f := newFixture(t, lru.Defaults)
		ref := f.put(1, lru.Cold, 0)
		f.Unlink(ref, f.sizes[ref])
		f.Link(ref, lru.Cold, f.sizes[ref])
		f.set(ref, mmapslab.Active)
		f.Bump(ref, 5)
		f.wantList(t, 1, lru.Warm, ref)
	})
	t.Run("a page that is gone", func(t *testing.T) {
		f := newFixture(t, lru.Defaults)
		f.Bump(1<<40-1, 5)
		f.Bump(0, 5)
	})
}

func TestChainedItemsStandInTheLargestClass(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	ref := f.write(1, 600, true, 0)
	f.Link(ref, lru.Hot, f.sizes[ref])
	f.wantList(t, 2, lru.Hot, ref)
	if refs := f.Tail(2, lru.Hot, make([]mmapslab.Ref, 0, 1)); len(refs) != 1 || refs[0] != ref {
		t.Errorf("tail %#x, want %#x with the Chained bit", refs, uint64(ref))
	}
	if !f.Cool(2) || f.Cool(1) {
		t.Error("Cool did not move it")
	}
	f.wantList(t, 2, lru.Cold, ref)
	f.hit(ref, 1)
	if !f.hit(ref, 1) {
		t.Error("no note")
	}
	f.Bump(ref, 2)
	f.wantList(t, 2, lru.Warm, ref)
	if !f.Unlink(ref, f.sizes[ref]) || f.meta(ref)&mmapslab.ListedApart != 0 || f.Unlink(ref, f.sizes[ref]) {
		t.Errorf("unlink: meta %#x", uint64(f.meta(ref)))
	}
	f.wantList(t, 2, lru.Warm)
}

// The limits are those of lru_pull_tail: shares of the bytes of HOT, WARM and COLD, and ages relative to COLD's tail.
func TestHotAndWarmKeepTheirShares(t *testing.T) {
	for _, settings := range []lru.Settings{lru.Defaults, {HotPct: 1, WarmPct: 79, HotMaxFactor: .2, WarmMaxFactor: 2}, {HotPct: 70, WarmPct: 10, HotMaxFactor: 9, WarmMaxFactor: 9}} {
		f := newFixture(t, settings)
		const n = 1000
		for range n {
			f.put(1, lru.Hot, 100)
		}
		for f.Juggle(1, 100) > 0 {
		}
		hot := n * settings.HotPct / 100
		if got := f.Class(1, 100); got.Count != [4]uint64{uint64(hot), 0, uint64(n - hot), 0} || got.Moves.ToCold != uint64(n-hot) {
			t.Errorf("%+v: %v, moves %+v, want %d in HOT", settings, got.Count, got.Moves, hot)
		}
		// Active ones flow from COLD to WARM, and from WARM back once it is over its share and they rest.
		for _, ref := range f.list(t, 1, lru.Cold) {
			f.set(ref, mmapslab.Active)
		}
		for f.Juggle(1, 100) > 0 {
		}
		got := f.Class(1, 100)
		if warm := uint64(n * settings.WarmPct / 100); got.Count[lru.Warm] != min(warm, n-uint64(hot)) || got.Count[lru.Hot] != uint64(hot) {
			t.Errorf("%+v: %v, want %d in WARM", settings, got.Count, warm)
		}
	}
}

// An allocation that finds COLD empty takes the end of HOT, where active items go to WARM. When there are many of them, or nothing else, it gets one nonetheless.
func TestCoolSparesActiveItems(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	active, idle, young := f.put(1, lru.Hot, 100), f.put(1, lru.Hot, 100), f.put(1, lru.Hot, 100)
	f.set(active, mmapslab.Active)
	f.set(young, mmapslab.Active)
	for _, want := range []mmapslab.Ref{idle, active, young} {
		if !f.Cool(1) {
			t.Fatal("nothing cooled")
		}
		if cold := f.list(t, 1, lru.Cold); cold[0] != want || f.meta(want)&mmapslab.Active != 0 {
			t.Fatalf("cooled %#x, want %#x; meta %#x", uint64(cold[0]), uint64(want), uint64(f.meta(want)))
		}
	}
	if got, want := f.Class(1, 100).Moves, (lru.Moves{ToCold: 3, ToWarm: 2}); got != want {
		t.Errorf("moves %+v, want %+v", got, want)
	}
	var hot []mmapslab.Ref
	for range 12 {
		hot = append(hot, f.put(1, lru.Hot, 100))
		f.set(hot[len(hot)-1], mmapslab.Active)
	}
	if !f.Cool(1) || f.list(t, 1, lru.Cold)[0] != hot[10] {
		t.Errorf("of active items %#x was not cooled", uint64(hot[10]))
	}
	f.wantList(t, 1, lru.Hot, hot[11])
}

func TestIdleItemsCool(t *testing.T) {
	f := newFixture(t, lru.Settings{HotPct: 79, WarmPct: 79, HotMaxFactor: 0.2, WarmMaxFactor: 2})
	const now = 1000
	f.put(1, lru.Cold, now-100) // COLD's tail is 100 old: HOT may be 20, WARM 200
	kept := []mmapslab.Ref{f.put(1, lru.Hot, now-20), f.put(1, lru.Warm, now-200)}
	f.Juggle(1, now)
	f.wantList(t, 1, lru.Hot, kept[0])
	f.wantList(t, 1, lru.Warm, kept[1])
	f.Juggle(1, now+1) // a second later COLD's tail is 101 old, which still is 20 and 202
	f.wantList(t, 1, lru.Hot)
	f.wantList(t, 1, lru.Warm, kept[1])
}

func TestMaintainerReapsTheDeadAtTheTail(t *testing.T) {
	for _, segment := range []int{lru.Hot, lru.Warm, lru.Cold} {
		f := newFixture(t, lru.Defaults)
		var all []mmapslab.Ref
		for range 20 {
			all = append(all, f.put(1, segment, 100))
		}
		for _, ref := range all[:12] {
			f.dead[ref] = true
		}
		f.Juggle(1, 100)
		if len(f.reaped) != 12 {
			t.Errorf("segment %d: %d reaped, want 12", segment, len(f.reaped))
		}
	}
}

func TestJuggleStopsAfterItsRounds(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	for range 2000 {
		f.put(1, lru.Hot, 100)
	}
	if rounds := f.Juggle(1, 100); rounds != 500 {
		t.Errorf("%d rounds, want 500", rounds)
	}
	if f.Juggle(2, 100) != 0 {
		t.Error("an empty class keeps it busy")
	}
}

func TestSaveAndLoadKeepTheLists(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	a, b, c := f.put(1, lru.Cold, 0), f.put(1, lru.Cold, 0), f.put(2, lru.Temp, 0)
	var cp mmapslab.Checkpoint
	f.Save(&cp)
	f.Order = lru.New(f.store, f, lru.Defaults)
	f.Load(&cp)
	f.wantList(t, 1, lru.Cold, b, a)
	f.wantList(t, 2, lru.Temp, c)
	f.wantList(t, 1, lru.Hot)
}

func TestRelinkGoesBySegmentAndKeepsTheRest(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	ref, chained := f.put(1, lru.Warm, 0), f.write(1, 400, true, 0)
	f.Link(chained, lru.Cold, f.sizes[chained])
	f.set(ref, mmapslab.Copying|mmapslab.Fetched)
	f.Order = lru.New(f.store, f, lru.Defaults) // a kill: links and lists are nothing, Metas are as they were
	r := f.Relinker(f.store.Class(ref))
	r.Add(ref, f.store.ID(ref), f.sizes[ref])
	r.Add(chained, f.store.ID(chained), f.sizes[chained])
	r.Done()
	f.wantList(t, 1, lru.Warm, ref)
	f.wantList(t, 2, lru.Cold, chained)
	if m := f.meta(ref); m&mmapslab.Copying == 0 || m&mmapslab.Fetched == 0 { // both may be somebody's who works already
		t.Errorf("meta %#x", uint64(m))
	}
}

func TestRingKeepsNotesInOrderAndSaysWhenFull(t *testing.T) {
	const size = 8192
	var r lru.Ring
	if _, ok := r.Take(); ok {
		t.Error("a note in an empty ring")
	}
	next := mmapslab.Ref(1)
	for round := range 3 { // over the ring's end
		n := 0
		for r.Put(next + mmapslab.Ref(n)) {
			n++
		}
		if n != size {
			t.Fatalf("round %d: full after %d notes, want %d", round, n, size)
		}
		for i := range n - round { // leave some
			if ref, ok := r.Take(); !ok || ref != next+mmapslab.Ref(i) {
				t.Fatalf("round %d note %d: %d %t", round, i, ref, ok)
			}
		}
		next += mmapslab.Ref(n)
		for {
			if _, ok := r.Take(); !ok {
				break
			}
		}
	}
}

func TestRingOfTwoGoroutinesLosesNothing(t *testing.T) {
	var r lru.Ring
	const n = 100000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; i <= n; {
			if r.Put(mmapslab.Ref(i)) {
				i++
			}
		}
	})
	for want := mmapslab.Ref(1); want <= n; {
		if ref, ok := r.Take(); ok {
			if ref != want {
				t.Fatalf("note %d, want %d", ref, want)
			}
			want++
		}
	}
	wg.Wait()
}

// TestConcurrentUseKeepsListsWhole is for the race detector: owners link, hit and unlink their items while maintainers juggle and bump.
func TestConcurrentUseKeepsListsWhole(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	const owners, each = 4, 50
	var items [owners][]mmapslab.Ref
	for i := range items {
		for j := range each {
			items[i] = append(items[i], f.write(1+j%2, 8, false, 0))
		}
	}
	var owning sync.WaitGroup
	var stop atomic.Bool
	var rings [owners]lru.Ring
	for i := range owners {
		owning.Go(func() {
			for round := range uint32(300) {
				for j, ref := range items[i] {
					switch (int(round) + j) % 5 {
					case 0:
						if f.meta(ref)&mmapslab.Linked == 0 {
							f.Link(ref, int(round)%4, f.sizes[ref])
						}
					case 1:
						f.Unlink(ref, f.sizes[ref])
					default:
						if f.hit(ref, round) && !rings[i].Put(ref) {
							f.Forget(ref)
						}
					}
				}
			}
		})
	}
	var keeping sync.WaitGroup
	keeping.Go(func() {
		for round := uint32(0); !stop.Load(); round++ {
			for i := range rings {
				for ref, ok := rings[i].Take(); ok; ref, ok = rings[i].Take() {
					f.Bump(ref, round)
				}
			}
			f.Juggle(1, round)
			f.Juggle(2, round)
		}
	})
	keeping.Go(func() {
		for !stop.Load() {
			f.Tail(1, lru.Cold, make([]mmapslab.Ref, 0, 5))
			f.Cool(2)
			f.Class(1, 0)
		}
	})
	owning.Wait()
	stop.Store(true)
	keeping.Wait()
	linked := 0
	for class := 1; class <= 2; class++ {
		for segment := lru.Hot; segment <= lru.Temp; segment++ {
			linked += len(f.list(t, class, segment))
		}
	}
	want := 0
	for i := range items {
		for _, ref := range items[i] {
			if f.meta(ref)&mmapslab.Linked != 0 {
				want++
			}
		}
	}
	if linked != want {
		t.Errorf("%d items in lists, %d have Linked", linked, want)
	}
}

func TestACopyTakesThePlaceOfItsItem(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	var items []mmapslab.Ref
	for range 3 {
		items = append(items, f.put(1, lru.Cold, 5))
	}
	items[0], items[2] = items[2], items[0] // from the head
	f.set(items[1], mmapslab.Fetched|mmapslab.Copying)
	for i, old := range items {
		to := f.write(1, 8, false, 9)
		m, ok := f.LinkBeside(to, old, f.sizes[to])
		if !ok || m != f.meta(old) || f.meta(to) != m&^mmapslab.Copying {
			t.Errorf("item %d: linked %t, Meta %#x, copy %#x, want %#x", i, ok, uint64(m), uint64(f.meta(to)), uint64(f.meta(old)))
		}
		f.Unlink(old, f.sizes[old])
		items[i] = to
		f.wantList(t, 1, lru.Cold, items...)
		if _, ok := f.LinkBeside(f.write(1, 8, false, 9), old, 8); ok {
			t.Error("a copy of an item that is in no list is linked")
		}
	}
}

// TestCrawlMeetsEachItemThatStaysOnce has items come and go right where a crawl is.
func TestCrawlMeetsEachItemThatStaysOnce(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	var items []mmapslab.Ref // the oldest first
	for range 10 {
		items = append(items, f.put(1, lru.Warm, 5))
	}
	crawl := func(want ...mmapslab.Ref) {
		t.Helper()
		if got := f.Crawl(1, lru.Warm, make([]mmapslab.Ref, 0, 3)); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	crawl() // none has begun
	if n := f.BeginCrawl(1, lru.Warm); n != 10 {
		t.Errorf("%d items", n)
	}
	crawl(items[:3]...)
	f.Unlink(items[3], f.sizes[items[3]]) // the next one
	f.Unlink(items[1], f.sizes[items[1]])
	crawl(items[4:7]...)
	f.Unlink(items[8], f.sizes[items[8]])
	f.Unlink(items[7], f.sizes[items[7]])
	late := f.put(1, lru.Warm, 5)
	crawl(items[9], late)
	crawl()
	f.BeginCrawl(1, lru.Warm)
	crawl(items[0], items[2], items[4])
}
