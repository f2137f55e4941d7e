package hearth_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hearth"
	"hearth/mmapslab"
)

// modelItem is what the model knows of an item.
type modelItem struct {
	value   string
	exptime int64 // by the fake clock's wall; 0: never
	cas     uint64
}

// model follows a cache through operations, restarts and growth; memory is roomy, so nothing may be missing.
type model struct {
	t     *rapid.T
	o     hearth.Options
	clock *fakeClock
	c     *hearth.Cache
	s     *hearth.Session
	items map[string]modelItem
	flush int64 // when a waiting flush_all comes; 0: none
	many  int   // items of the crowd
}

func (m *model) open() {
	c, err := hearth.Open(m.o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.c, m.s = c, c.NewSession()
	m.s.Begin()
}

func (m *model) restart(clean bool) {
	m.s.End()
	m.s.Close()
	kind := "unclean"
	if clean {
		kind = "clean"
		for _, f := range m.c.Check() {
			m.t.Fatalf("check: %v", f)
		}
		if err := m.c.Close(); err != nil {
			m.t.Fatal(err)
		}
	} else if err := m.c.Abandon(); err != nil {
		m.t.Fatal(err)
	}
	m.open()
	if st := m.c.Stats(); st.RestartKind != kind {
		m.t.Fatalf("start %s: %s, want %s", st.RestartKind, st.RestartReason, kind)
	}
}

func (m *model) pass(seconds int64) {
	m.s.End()
	m.clock.pass(m.c, seconds)
	m.s.Begin()
	now := m.clock.Wall()
	if m.flush != 0 && m.flush <= now {
		m.flush = 0
		clear(m.items)
		m.many = 0
	}
	for k, it := range m.items {
		if it.exptime != 0 && it.exptime <= now {
			delete(m.items, k)
		}
	}
}

// absolute is the model's view of an exptime of the protocol.
func (m *model) absolute(exptime int64) int64 {
	if exptime > 0 {
		exptime += m.clock.Wall()
	}
	return exptime
}

// set stores in the model; items that expire at once are none.
func (m *model) set(key string, it modelItem) {
	if it.exptime < 0 {
		delete(m.items, key)
		return
	}
	m.items[key] = it
}

func (m *model) status(what string, got, want hearth.Status) {
	m.t.Helper()
	if got != want {
		m.t.Fatalf("%s: status %d, want %d", what, got, want)
	}
}

func TestFollowsAModelThroughRestartsAndGrowth(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine and a file: nothing for the race detector, which makes it ten times as long")
	}
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		m := &model{t: t, clock: newClock(), items: map[string]modelItem{}}
		m.o = hearth.Options{Path: filepath.Join(dir, fmt.Sprint(runs)), MemoryLimit: 64 << 20, MaxItemSize: 64 << 10, ChunkMax: 4096, Clock: m.clock}
		defer os.Remove(m.o.Path)
		m.open()
		defer func() { m.s.End(); m.s.Close(); m.c.Close() }()
		key := rapid.SampledFrom([]string{"a", "b", "c", "key", strings.Repeat("long", 60)})
		value := rapid.OneOf(rapid.StringMatching(`[0-9]{1,4} ?`), rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "unit"), rapid.SampledFrom([]int{0, 1, 50, 500, 3000}).Draw(t, "times"))
		}))
		exptime := rapid.SampledFrom([]int64{0, 0, 1, 5, 60, -1})
		storing := func(mode hearth.Mode) func(*rapid.T) {
			return func(t *rapid.T) {
				k, v, e := key.Draw(t, "key"), value.Draw(t, "value"), exptime.Draw(t, "exptime")
				old, there := m.items[k]
				cas := uint64(0)
				if mode == hearth.CAS && there && rapid.Bool().Draw(t, "the right CAS") {
					cas = old.cas
				}
				next, want := modelItem{v, m.absolute(e), 0}, hearth.OK
				switch {
				case mode == hearth.Add && there, mode == hearth.Replace && !there, (mode == hearth.Append || mode == hearth.Prepend) && !there:
					want = hearth.NotStored
				case mode == hearth.CAS && !there:
					want = hearth.Miss
				case mode == hearth.CAS && cas != old.cas:
					want = hearth.Exists
				case mode == hearth.Append:
					next.value, next.exptime = old.value+v, old.exptime
				case mode == hearth.Prepend:
					next.value, next.exptime = v+old.value, old.exptime
				}
				if len(next.value)+len(k)+48+8+1+2+4 > 64<<10 {
					want = hearth.NotStored
				}
				id, st := store(m.s, mode, k, v, e, cas)
				m.status(fmt.Sprint("mode ", mode), st, want)
				if next.cas = id; st == hearth.OK {
					m.set(k, next)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": storing(hearth.Set), "add": storing(hearth.Add), "replace": storing(hearth.Replace), "append": storing(hearth.Append),
			"prepend": storing(hearth.Prepend), "cas": storing(hearth.CAS),
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				want := hearth.Miss
				if _, ok := m.items[k]; ok {
					want = hearth.OK
				}
				delete(m.items, k)
				m.status("delete", m.s.Delete([]byte(k)), want)
			},
			"touch": func(t *rapid.T) {
				k, e := key.Draw(t, "key"), exptime.Draw(t, "exptime")
				it, ok := m.items[k]
				want := hearth.Miss
				if ok {
					want = hearth.OK
					it.exptime = m.absolute(e)
					m.set(k, it)
				}
				m.status("touch", m.s.Touch([]byte(k), e), want)
			},
			"count": func(t *rapid.T) {
				k, delta, down := key.Draw(t, "key"), rapid.Uint64Range(0, 2000).Draw(t, "delta"), rapid.Bool().Draw(t, "down")
				it, ok := m.items[k]
				want := hearth.Miss
				digits, _, _ := strings.Cut(it.value, " ")
				was, err := strconv.ParseUint(digits, 10, 64)
				if ok {
					if want = hearth.NonNumeric; err == nil && mmapslab.ItemSize(len(k), len(it.value)) <= m.o.ChunkMax {
						want = hearth.OK
					}
				}
				n := was + delta
				if down {
					n = was - min(was, delta)
				}
				var got hearth.Item
				have, st := m.s.Arith([]byte(k), &hearth.ArithOptions{Delta: delta, Decr: down}, &got)
				m.status("count", st, want)
				if st != hearth.OK {
					return
				}
				if have != n {
					t.Fatalf("%q by %d: %d, want %d", it.value, delta, have, n)
				}
				text := fmt.Sprint(n)
				it.value, it.cas = text+strings.Repeat(" ", max(0, len(it.value)-len(text))), got.CAS
				m.items[k] = it
			},
			"flush": func(t *rapid.T) {
				delay := rapid.SampledFrom([]int64{0, 1, 5, 60}).Draw(t, "delay")
				m.s.FlushAll(delay)
				if m.flush = 0; delay > 1 {
					m.flush = m.clock.Wall() + delay - 1
				} else {
					clear(m.items)
					m.many = 0
				}
			},
			"time": func(t *rapid.T) { m.pass(rapid.SampledFrom([]int64{1, 1, 4, 30, 100}).Draw(t, "seconds")) },
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 2).Draw(t, "really") == 0 {
					m.restart(rapid.Bool().Draw(t, "clean"))
				}
			},
			"keeper": func(*rapid.T) { m.s.End(); m.c.Round(); m.s.Begin() },
			"move a page": func(t *rapid.T) {
				if classes := m.c.ClassStats(); len(classes) > 0 {
					src := rapid.SampledFrom(classes).Draw(t, "from").ID
					if dst := rapid.SampledFrom([]int{0, 1, 5, 11, 17}).Draw(t, "to"); src != dst {
						m.c.EmptyPage(src, dst)
					}
				}
				m.s.End()
				for range rapid.IntRange(0, 5).Draw(t, "rounds") {
					m.c.Round()
				}
				if rapid.IntRange(0, 3).Draw(t, "give up") == 0 {
					m.c.CancelMove()
				}
				m.s.Begin()
			},
			"crowd": func(t *rapid.T) {
				if m.many > 0 || rapid.IntRange(0, 19).Draw(t, "really") != 0 {
					return
				}
				m.many = 70000 // the index begins with 65536 slots
				for i := range m.many {
					if i%1000 == 0 {
						m.s.End()
						m.s.Begin()
					}
					if _, st := store(m.s, hearth.Set, fmt.Sprint("crowd", i), "", 0, 0); st != hearth.OK {
						t.Fatalf("crowd %d: status %d", i, st)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, k := range []string{"a", "b", "c", "key", strings.Repeat("long", 60)} {
					var it hearth.Item
					st := m.s.Get([]byte(k), &it)
					want, ok := m.items[k]
					switch {
					case st == hearth.OK && !ok:
						t.Fatalf("%s is %.50q, want a miss", k, it.AppendValue(nil))
					case st != hearth.OK && ok:
						t.Fatalf("%s is a miss, want %.50q", k, want.value)
					case ok && (string(it.AppendValue(nil)) != want.value || it.CAS != want.cas || int64(it.Exptime) != want.exptime || it.Flags != 7):
						t.Fatalf("%s is %.50q, CAS %d, exptime %d, want %.50q, %d, %d", k, it.AppendValue(nil), it.CAS, it.Exptime, want.value, want.cas, want.exptime)
					}
				}
				for i := 0; i < m.many; i += 777 {
					if _, ok := get(m.s, fmt.Sprint("crowd", i)); !ok {
						t.Fatalf("crowd %d of %d is lost", i, m.many)
					}
				}
				if ev := m.c.Stats().Evictions; ev != 0 {
					t.Fatalf("%d evictions", ev)
				}
			},
		})
		m.restart(true)
	})
}
