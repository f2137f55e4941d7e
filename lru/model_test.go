package lru_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hearth/lru"
	"hearth/mmapslab"
)

// model is memcached's lru_pull_tail and lru_maintainer_juggle over slices, tail last. It shares no code with the package.
type model struct {
	settings lru.Settings
	lists    [3][4][]*modelItem // by class and segment
	dead     map[mmapslab.Ref]bool
	moves    [3]lru.Moves
}

type modelItem struct {
	ref             mmapslab.Ref
	size            int
	time            uint32
	fetched, active bool
}

func (m *model) find(ref mmapslab.Ref) (class, segment, at int) {
	for class := range m.lists {
		for segment := range m.lists[class] {
			for i, it := range m.lists[class][segment] {
				if it.ref == ref {
					return class, segment, i
				}
			}
		}
	}
	return 0, 0, -1
}

func (m *model) move(class, from, at, to int) *modelItem {
	it := m.lists[class][from][at]
	m.lists[class][from] = slices.Delete(m.lists[class][from], at, at+1)
	m.lists[class][to] = slices.Insert(m.lists[class][to], 0, it)
	return it
}

func (m *model) bytes(class, segment int) (n int) {
	for _, it := range m.lists[class][segment] {
		n += it.size
	}
	return n
}

func (m *model) pull(class, segment, total int, maxAge, now uint32) bool {
	removed := 0
	seen := slices.Clone(m.lists[class][segment]) // memcached notes the neighbour before it moves an item
	for tries := 5; tries > 0 && len(seen) > 0; tries-- {
		it := seen[len(seen)-1]
		seen = seen[:len(seen)-1]
		at := slices.Index(m.lists[class][segment], it)
		if m.dead[it.ref] {
			m.lists[class][segment] = slices.Delete(m.lists[class][segment], at, at+1)
			removed++
			continue
		}
		switch segment {
		case lru.Hot:
			if it.active {
				it.active = false
				m.move(class, segment, at, lru.Warm)
				m.moves[class].ToWarm++
				removed++
			} else if m.bytes(class, segment) > total*m.settings.HotPct/100 || now-it.time > maxAge {
				m.move(class, segment, at, lru.Cold)
				m.moves[class].ToCold++
				removed++
			}
			return removed > 0
		case lru.Warm:
			if it.active {
				it.active = false
				m.move(class, segment, at, lru.Warm)
				m.moves[class].WithinLRU++
				removed++
				continue
			}
			if m.bytes(class, segment) > total*m.settings.WarmPct/100 || now-it.time > maxAge {
				m.move(class, segment, at, lru.Cold)
				m.moves[class].ToCold++
				removed++
			}
			return removed > 0
		case lru.Cold:
			if it.active {
				it.active = false
				m.move(class, segment, at, lru.Warm)
				m.moves[class].ToWarm++
				removed++
			}
			return removed > 0
		}
	}
	return removed > 0
}

func (m *model) juggle(class int, now uint32) {
	total := m.bytes(class, lru.Hot) + m.bytes(class, lru.Warm) + m.bytes(class, lru.Cold)
	var coldAge uint32
	if l := m.lists[class][lru.Cold]; len(l) > 0 {
		coldAge = now - l[len(l)-1].time
	}
	hot, warm := uint32(float64(coldAge)*m.settings.HotMaxFactor), uint32(float64(coldAge)*m.settings.WarmMaxFactor)
	for range 500 {
		more := m.pull(class, lru.Hot, total, hot, now) || m.pull(class, lru.Warm, total, warm, now)
		if !m.pull(class, lru.Cold, total, 0, now) && !more {
			return
		}
	}
}

func TestMovesItemsAsMemcachedDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := lru.Settings{HotPct: rapid.IntRange(1, 40).Draw(t, "hot"), WarmPct: rapid.IntRange(1, 40).Draw(t, "warm"),
			HotMaxFactor: rapid.Float64Range(0.1, 3).Draw(t, "hot factor"), WarmMaxFactor: rapid.Float64Range(0.1, 3).Draw(t, "warm factor")}
		f := shared(settings)
		m := &model{settings: settings, dead: f.dead}
		var all []mmapslab.Ref
		now := uint32(1000)
		pick := func(t *rapid.T) (mmapslab.Ref, bool) {
			if len(all) == 0 {
				return 0, false
			}
			ref := rapid.SampledFrom(all).Draw(t, "item")
			_, _, at := m.find(ref)
			return ref, at >= 0
		}
		var notes []mmapslab.Ref
		t.Repeat(map[string]func(*rapid.T){
			"link": func(t *rapid.T) {
				class, segment := rapid.IntRange(1, 2).Draw(t, "class"), rapid.IntRange(0, 3).Draw(t, "segment")
				for range rapid.IntRange(1, 6).Draw(t, "n") {
					ref := f.write(class, rapid.IntRange(0, 40).Draw(t, "size"), false, now)
					all = append(all, ref)
					f.Link(ref, segment, f.sizes[ref])
					m.lists[class][segment] = slices.Insert(m.lists[class][segment], 0, &modelItem{ref: ref, size: f.sizes[ref], time: now})
				}
			},
			"unlink": func(t *rapid.T) {
				if ref, ok := pick(t); ok {
					class, segment, at := m.find(ref)
					m.lists[class][segment] = slices.Delete(m.lists[class][segment], at, at+1)
					delete(m.dead, ref)
					if !f.Unlink(ref, f.sizes[ref]) {
						t.Fatalf("item %#x was in no list", uint64(ref))
					}
				}
			},
			"fetch": func(t *rapid.T) {
				ref, ok := pick(t)
				if !ok {
					return
				}
				class, segment, at := m.find(ref)
				it := m.lists[class][segment][at]
				want := false
				switch {
				case !it.fetched:
					it.fetched = true
				case !it.active:
					it.active = true
					if want = segment == lru.Cold; !want {
						it.time = now
					}
				}
				if got := f.hit(ref, now); got != want {
					t.Fatalf("note %t, want %t", got, want)
				}
				if want {
					notes = append(notes, ref)
				}
			},
			"bump": func(t *rapid.T) {
				for _, ref := range notes {
					f.Bump(ref, now)
					if class, segment, at := m.find(ref); at >= 0 && segment == lru.Cold && m.lists[class][segment][at].active {
						it := m.move(class, segment, at, lru.Warm)
						it.active, it.time = false, now
						m.moves[class].ToWarm++
					}
				}
				notes = nil
			},
			"die": func(t *rapid.T) {
				if ref, ok := pick(t); ok {
					m.dead[ref] = true
				}
			},
			"juggle": func(t *rapid.T) {
				class := rapid.IntRange(1, 2).Draw(t, "class")
				m.dead = map[mmapslab.Ref]bool{}
				for ref := range f.dead {
					m.dead[ref] = true
				}
				m.juggle(class, now)
				f.Juggle(class, now)
				m.dead = f.dead
			},
			"cool": func(t *rapid.T) {
				class := rapid.IntRange(1, 2).Draw(t, "class")
				want := false
				for range 10 { // rounds of an allocation
					hot := m.lists[class][lru.Hot]
					if len(hot) == 0 || !hot[len(hot)-1].active {
						break
					}
					m.move(class, lru.Hot, len(hot)-1, lru.Warm).active = false
					m.moves[class].ToWarm++
				}
				for _, segment := range []int{lru.Hot, lru.Warm, lru.Temp} {
					if n := len(m.lists[class][segment]); n > 0 {
						m.move(class, segment, n-1, lru.Cold).active = false
						m.moves[class].ToCold++
						want = true
						break
					}
				}
				if got := f.Cool(class); got != want {
					t.Fatalf("cooled %t, want %t", got, want)
				}
			},
			"time": func(t *rapid.T) { now += rapid.Uint32Range(1, 50).Draw(t, "seconds") },
			"": func(t *rapid.T) {
				for class := 1; class <= 2; class++ {
					for segment := range 4 {
						var want []mmapslab.Ref
						for _, it := range m.lists[class][segment] {
							want = append(want, it.ref)
							meta := f.meta(it.ref)
							if (meta&mmapslab.Active != 0) != it.active || (meta&mmapslab.Fetched != 0) != it.fetched || meta.Age(now) != now-it.time {
								t.Fatalf("item %#x: meta %#x, age %d, want %+v", uint64(it.ref), uint64(meta), meta.Age(now), *it)
							}
						}
						f.wantList(t, class, segment, want...)
					}
					if got := f.Class(class, now).Moves; got != m.moves[class] {
						t.Fatalf("class %d: moves %+v, want %+v", class, got, m.moves[class])
					}
				}
			},
		})
	})
}

var sharedFixture *fixture

// shared returns a fixture with fresh lists over one arena, which is dear to make anew for each of many runs.
func shared(settings lru.Settings) *fixture {
	if sharedFixture == nil || sharedFixture.made > 8000 {
		sharedFixture = newFixture(fatal{}, settings)
	}
	f := sharedFixture
	f.dead = map[mmapslab.Ref]bool{}
	f.Order = lru.New(f.store, f, settings)
	return f
}

type fatal struct{ testing.TB }

func (fatal) Helper()           {}
func (fatal) Fatal(args ...any) { panic(args) }
