package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/restore"
)

const writtenAt = 1_800_000_000

func newWriter(t *testing.T, path string, pages int) *restore.Writer {
	t.Helper()
	w, err := restore.NewWriter(path, restore.WriterOptions{
		Config: mmapslab.Config{Pages: pages, ChunkSizes: sizes}, Seed: 7, LastCAS: 1 << 20, Flush: 3 << 32, Now: writtenAt,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// finished closes what was written and opens it to be looked at. It must be sound, and what a start takes over as it is.
func finished(t *testing.T, w *restore.Writer, path string) *restore.Inspected {
	t.Helper()
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	in := inspect(t, path)
	here := restore.Here{BootID: restore.BootID(), SinceBoot: int64(restore.SinceBoot()), Wall: writtenAt}
	if v := restore.Judge(in.File, int(in.File.Super.PageLimit), here, restore.Policy{}); v.Kind != restore.Clean || v.Carried {
		t.Errorf("a start finds it %v (%s), want clean", v.Kind, v.Reason)
	}
	return in
}

// inspect opens a file that must be sound.
func inspect(t *testing.T, path string) *restore.Inspected {
	t.Helper()
	in, err := restore.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	checked, err := in.Check(context.Background(), restore.CheckOptions{Workers: 1})
	if err != nil || len(checked.Findings) > 0 {
		t.Fatalf("check: %v, findings %v", err, checked.Findings)
	}
	return in
}

// written is an item of a file.
type written struct {
	value string
	f     mmapslab.Fields
	m     mmapslab.Meta
}

func newMeta(used, exptime uint32, segment int) mmapslab.Meta {
	return mmapslab.Meta(0).WithTime(used).WithExptime(exptime).WithSegment(segment)
}

func contents(t *testing.T, in *restore.Inspected) map[string]written {
	t.Helper()
	all := map[string]written{}
	_, err := in.Walk(context.Background(), restore.WalkOptions{Verify: true}, func(_ int, it *mmapslab.Item, m mmapslab.Meta) {
		value, ok := in.Store.AppendValue(it, nil)
		if !ok {
			t.Errorf("%q: no whole value", it.Key())
		}
		f := mmapslab.Fields{Flags: it.Flags(), Epoch: it.Epoch(), CAS: it.CAS(), ClientFlags: it.ClientFlags(), Hash: it.Hash()}
		all[string(it.Key())] = written{string(value), f, m}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// More items than the index is made for, of all sizes, and each with what it had.
func TestWriterLeavesTheFileOfACleanStop(t *testing.T) {
	const n = 70_000
	path := filepath.Join(t.TempDir(), "slab")
	w := newWriter(t, path, 16)
	want := map[string]written{}
	var order []string // of class 1's WARM
	for i := range n {
		key, size := fmt.Sprint("key", i), i%40
		switch {
		case i%7000 == 1:
			size = 3*w.Store.ChunkMax() + i // chained
		case i%1000 == 2:
			size = 200
		}
		item := written{strings.Repeat(string('a'+rune(i%26)), size), mmapslab.Fields{Flags: uint16(i % 3), Epoch: 3, CAS: uint64(i), ClientFlags: uint32(i * i)},
			newMeta(writtenAt-uint32(i%100), uint32(i%2)*(writtenAt+uint32(i)), i%(lru.Cold+1))}
		if !w.Add([]byte(key), []byte(item.value), item.f, item.m) {
			t.Fatalf("%s: no room", key)
		}
		item.f.Hash = uint32(w.Store.Hasher().Sum([]byte(key)) >> 32)
		want[key] = item
		if size < 40 && item.m.Segment() == lru.Warm {
			order = append(order, key)
		}
	}
	if w.Items != n {
		t.Errorf("%d items added, want %d", w.Items, n)
	}
	in := finished(t, w, path)
	got := contents(t, in)
	for key, w := range want {
		g, ok := got[key]
		if !ok || g.value != w.value || g.f != w.f || g.m.Exptime() != w.m.Exptime() || g.m.Segment() != w.m.Segment() || g.m.Age(writtenAt) != w.m.Age(writtenAt) {
			t.Fatalf("%s: %v %+v %v, want %+v %v", key, ok, g.f, g.m, w.f, w.m)
		}
	}
	if len(got) != n || in.Index.Len() != n {
		t.Errorf("%d items, the index counts %d, want %d", len(got), in.Index.Len(), n)
	}
	in.Order.Walk(1, lru.Warm, func(id, _ uint32) bool {
		it, _ := in.Store.Item(in.Store.ItemRef(id))
		if len(order) == 0 || string(it.Key()) != order[len(order)-1] {
			t.Errorf("%q in its list, want the one added %d before the last", it.Key(), len(want)-len(order))
			return false
		}
		order = order[:len(order)-1]
		return true
	})
	if len(order) > 0 {
		t.Errorf("%d items are not in their list", len(order))
	}
	if cas := in.File.LastCAS(); cas < 1<<20 {
		t.Errorf("last CAS %d, want %d at least", cas, 1<<20)
	}
	if flush := in.Store.FlushWord().Load(); flush != 3<<32 {
		t.Errorf("flush word %#x", flush)
	}
}

// Items without room are refused, leave nothing behind, and smaller ones still go in.
func TestWriterThatIsFullTakesWhatFits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slab")
	w := newWriter(t, path, 3)
	large := bytes.Repeat([]byte("l"), mmapslab.PageSize-mmapslab.PageSize/8)
	added := 0
	for i := range 10 {
		if w.Add(fmt.Appendf(nil, "large%d", i), large, mmapslab.Fields{CAS: 1}, 0) {
			added++
		}
	}
	small := 0
	for i := range 20_000 {
		if w.Add(fmt.Appendf(nil, "small%d", i), nil, mmapslab.Fields{CAS: 1}, 0) {
			small++
		}
	}
	if added == 0 || added > 2 || small == 0 || small == 20_000 {
		t.Fatalf("%d large and %d small items in 3 pages", added, small)
	}
	// Sound means that no chunk of a refused item is lost.
	if got := contents(t, finished(t, w, path)); len(got) != added+small {
		t.Errorf("%d items, want %d", len(got), added+small)
	}
}

func TestWriterTouchesNoFileThatExists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slab")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.NewWriter(path, restore.WriterOptions{Config: mmapslab.Config{Pages: 1, ChunkSizes: sizes}}); err == nil || !strings.Contains(err.Error(), "it exists") {
		t.Errorf("error %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// A writer that does not finish, as one that is killed, leaves a file that nobody takes for a cache.
func TestUnfinishedFileIsCold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slab")
	w := newWriter(t, path, 2)
	w.Add([]byte("key"), []byte("value"), mmapslab.Fields{CAS: 1}, 0)
	w.Abandon()
	file, err := mmapslab.OpenFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if v := restore.Judge(file, 2, restore.Here{BootID: restore.BootID(), SinceBoot: int64(restore.SinceBoot())}, restore.Policy{}); v.Kind != restore.Cold {
		t.Errorf("a start finds it %v (%s), want cold", v.Kind, v.Reason)
	}
}

// Rewriting into less room keeps what was used last, whatever the order in the file, and leaves out what is dead.
func TestRewriteKeepsTheMostRecentlyUsed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slab")
	w := newWriter(t, path, 8)
	const n = 1000 // of 4096 bytes: four pages
	idle := func(i int) uint32 { return uint32((i * 7) % n) }
	for i := range n {
		w.Add(fmt.Appendf(nil, "key%d", i), make([]byte, 3000), mmapslab.Fields{Epoch: 3, CAS: uint64(i + 1)}, newMeta(writtenAt-idle(i), 0, lru.Cold))
	}
	w.Add([]byte("expired"), nil, mmapslab.Fields{Epoch: 3, CAS: 1}, newMeta(writtenAt, writtenAt-1, lru.Cold))
	w.Add([]byte("flushed"), nil, mmapslab.Fields{Epoch: 2, CAS: 1}, newMeta(writtenAt, 0, lru.Cold))
	in := finished(t, w, path)
	in.Now = writtenAt
	smaller := filepath.Join(dir, "smaller")
	done, err := in.Rewrite(context.Background(), smaller, mmapslab.Config{Pages: 2, ChunkSizes: sizes}, restore.WalkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const fit = 2 * mmapslab.PageSize / 4096
	if done.Kept != fit || done.Dropped != n-fit || done.Dead != 2 || done.Bad != 0 {
		t.Errorf("%+v, want %d kept", done, fit)
	}
	got := contents(t, inspect(t, smaller))
	for i := range n {
		if _, kept := got[fmt.Sprint("key", i)]; kept != (idle(i) < fit) {
			t.Fatalf("key%d, idle for %d: kept %v, want the %d used last", i, idle(i), kept, fit)
		}
	}
	if len(got) != fit {
		t.Errorf("%d items, want %d: no dead ones", len(got), fit)
	}
}

// Before each step of a check, a walk and a rewrite its turn is waited for, and what waits when the context ends does nothing more.
func TestStepsWaitForTheirTurn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slab")
	w := newWriter(t, path, 4)
	for i := range 1000 { // three pages and more
		w.Add(fmt.Appendf(nil, "key%d", i), make([]byte, 3000), mmapslab.Fields{Epoch: 3, CAS: uint64(i + 1)}, newMeta(writtenAt, 0, lru.Cold))
	}
	in := finished(t, w, path)
	for name, run := range map[string]func(ctx context.Context, pace func(context.Context)) error{
		"check": func(ctx context.Context, pace func(context.Context)) error {
			_, err := in.Check(ctx, restore.CheckOptions{Pace: pace})
			return err
		},
		"walk": func(ctx context.Context, pace func(context.Context)) error {
			_, err := in.Walk(ctx, restore.WalkOptions{Pace: pace}, func(int, *mmapslab.Item, mmapslab.Meta) {})
			return err
		},
		"rewrite": func(ctx context.Context, pace func(context.Context)) error {
			_, err := in.Rewrite(ctx, filepath.Join(t.TempDir(), "new"), mmapslab.Config{Pages: 4, ChunkSizes: sizes}, restore.WalkOptions{Pace: pace})
			return err
		},
	} {
		waits := 0
		if err := run(context.Background(), func(context.Context) { waits++ }); err != nil || waits < 5 {
			t.Errorf("%s of an index and four pages waited %d times: %v", name, waits, err)
		}
		for last := 1; last <= waits; last++ {
			ctx, cancel := context.WithCancel(context.Background())
			n := 0
			err := run(ctx, func(context.Context) {
				if n++; n == last {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || n != last {
				t.Errorf("%s that ended while it waited for the %d-th time waited %d times: %v", name, last, n, err)
			}
		}
	}
}
