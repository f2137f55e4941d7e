package lru_test

import (
	"testing"

	"hearth/lru"
	"hearth/mmapslab"
)

func TestTuneChangesTheSharesOfItemsThatAreThere(t *testing.T) {
	f := newFixture(t, lru.Settings{HotPct: 70, WarmPct: 10, HotMaxFactor: 9, WarmMaxFactor: 9})
	for range 1000 {
		f.put(1, lru.Hot, 100)
	}
	for _, pct := range []int{70, 30, 5} {
		f.Tune(lru.Settings{HotPct: pct, WarmPct: 10, HotMaxFactor: 9, WarmMaxFactor: 9})
		for f.Juggle(1, 100) > 0 {
		}
		if got := f.Class(1, 100).Count[lru.Hot]; got != uint64(10*pct) {
			t.Errorf("%d items of 1000 in HOT, want %d%%", got, pct)
		}
	}
}

func TestFlatDrainsIntoColdAndOrdersByUse(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	a, b := f.put(1, lru.Hot, 100), f.put(1, lru.Warm, 100)
	f.set(b, mmapslab.Active)
	f.Tune(lru.Settings{HotPct: 20, WarmPct: 40, HotMaxFactor: .2, WarmMaxFactor: 2, Flat: true})
	if got := f.Entry(mmapslab.MakeMeta(0, 100), 100); got != lru.Cold {
		t.Errorf("new items enter segment %d, want COLD", got)
	}
	for f.Juggle(1, 100) > 0 {
	}
	f.wantList(t, 1, lru.Cold, b, a)
	hit := func(ref mmapslab.Ref, now uint32) bool { return f.Order.Hit(f.store.Meta(ref), f.meta(ref), now) }
	if hit(a, 160) || f.meta(a)&mmapslab.Fetched == 0 || f.meta(a).Age(160) != 60 {
		t.Errorf("an item moves that was used a minute ago: meta %#x", uint64(f.meta(a)))
	}
	if !hit(a, 161) || hit(a, 161) {
		t.Error("want one note for an item that was not used for more than a minute")
	}
	f.Bump(a, 161)
	f.wantList(t, 1, lru.Cold, a, b)
	if f.meta(a).Age(161) != 0 {
		t.Errorf("age %d after the bump", f.meta(a).Age(161))
	}
}

func TestTempHoldsWhatExpiresSoonAndLosesItWhenDead(t *testing.T) {
	s := lru.Defaults
	s.Temp = true
	f := newFixture(t, s)
	for exptime, want := range map[uint32]int{0: lru.Hot, 99: lru.Hot, 100: lru.Temp, 161: lru.Temp, 162: lru.Hot} {
		if got := f.Entry(mmapslab.MakeMeta(exptime, 100), 100); got != want {
			t.Errorf("exptime %d at 100: segment %d, want %d", exptime, got, want)
		}
	}
	var dead []mmapslab.Ref
	for range 12 {
		ref := f.put(1, lru.Temp, 100)
		dead = append(dead, ref)
		f.dead[ref] = true
	}
	live := f.put(1, lru.Temp, 100)
	f.Juggle(1, 500)
	f.wantList(t, 1, lru.Temp, live)
	if len(f.reaped) != len(dead) {
		t.Errorf("%d reaped, want %d", len(f.reaped), len(dead))
	}
}

func TestCountsSizesOfWhatIsInLists(t *testing.T) {
	f := newFixture(t, lru.Defaults)
	f.put(1, lru.Hot, 0) // in a list before
	f.CountSizes(1024)
	a := f.write(1, 20, false, 0)
	f.Link(a, lru.Hot, f.sizes[a])
	sizes := func() map[int]int {
		m := map[int]int{}
		f.Sizes(func(size, items int) { m[size] = items })
		return m
	}
	small, larger := (f.sizes[a]-12+31)/32*32, (f.sizes[a]+31)/32*32
	if m := sizes(); small == larger || m[small] != 1 || m[larger] != 1 || len(m) != 2 {
		t.Errorf("%v, want one of %d and one of %d", m, small, larger)
	}
	f.Bump(a, 5)
	for f.Juggle(1, 100) > 0 {
	}
	f.Unlink(a, f.sizes[a])
	f.Unlink(a, f.sizes[a])
	if m := sizes(); m[small] != 1 || len(m) != 1 {
		t.Errorf("%v, want one of %d", m, small)
	}
}
