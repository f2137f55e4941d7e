package restore_test

import (
	"fmt"
	"maps"
	"testing"

	"hearth/mmapslab"
	"hearth/restore"
)

func TestSweepRestoresWhatAKillLeft(t *testing.T) {
	f := newFixture(t)
	f.fill(t, 300, 5)
	f.wantClean(t)
	// Uploads and replaced items that nothing points to: their chunks come free.
	for i := range 20 {
		f.write(fmt.Sprint("unpublished", i), 100*i)
	}
	f.write("unpublished large", 9000)
	swept := f.kill(t)
	if swept != (restore.Swept{Items: 305}) {
		t.Errorf("%+v", swept)
	}
	f.wantClean(t)
	f.put(t, "after", 50)
	f.wantClean(t)
	// Segments outlast the kill, as they stand in Meta.
	if m := mmapslab.Meta(f.Store.Meta(f.items["large1"]).Load()); m.Segment() != 1 || m&mmapslab.ListedApart == 0 {
		t.Errorf("meta %#x", uint64(m))
	}
	// And a second kill at once finds the same.
	if swept := f.kill(t); swept != (restore.Swept{Items: 306}) {
		t.Errorf("second: %+v", swept)
	}
	f.wantClean(t)
}

func TestSweepClearsWordsOfWhatWasNotAcknowledged(t *testing.T) {
	f := newFixture(t)
	f.fill(t, 50, 1)
	for i := range 7 {
		f.plant(t, fmt.Sprint("never", i), mmapslab.Ref(12345+i), tentative)
	}
	if swept := f.kill(t); swept != (restore.Swept{Items: 51, Cleared: 7}) {
		t.Errorf("%+v", swept)
	}
	f.wantClean(t)
}

// A growth that was between its copy and MOVED, and damage to a word, both look like a chunk that is live twice.
func TestSweepKeepsOneWordOfAnItem(t *testing.T) {
	for _, key := range []string{"small3", "large0"} {
		f := newFixture(t)
		f.fill(t, 20, 2)
		f.plant(t, key, f.items[key], live)
		if swept := f.kill(t); swept != (restore.Swept{Items: 22, Duplicate: 1}) {
			t.Errorf("%s: %+v", key, swept)
		}
		f.wantClean(t)
	}
}

func TestSweepDropsWordsThatNameNoItem(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(t *testing.T, f *fixture) (gone []string)
		want  restore.Swept
	}{
		"outside of every page":    {func(t *testing.T, f *fixture) []string { f.plant(t, "x", 5, live); return nil }, restore.Swept{Items: 24, Invalid: 1}},
		"behind the end":           {func(t *testing.T, f *fixture) []string { f.plant(t, "x", 1<<40-1, live); return nil }, restore.Swept{Items: 24, Invalid: 1}},
		"in the middle of a chunk": {func(t *testing.T, f *fixture) []string { f.plant(t, "x", f.items["small1"]+1, live); return nil }, restore.Swept{Items: 24, Invalid: 1}},
		"a free chunk": {func(t *testing.T, f *fixture) []string {
			f.plant(t, "x", f.alloc(2), live)
			return nil
		}, restore.Swept{Items: 24, Invalid: 1}},
		"a data chunk of nobody": {func(t *testing.T, f *fixture) []string {
			f.plant(t, "x", f.data(f.write("gone", 9000))[1], live)
			return nil
		}, restore.Swept{Items: 24, Invalid: 1}},
		"an unchained item as chained": {func(t *testing.T, f *fixture) []string {
			f.plant(t, "x", f.write("gone", 10)|mmapslab.Chained, live)
			return nil
		}, restore.Swept{Items: 24, Invalid: 1}},
		"a chained item as unchained": {func(t *testing.T, f *fixture) []string {
			f.plant(t, "x", f.write("gone", 9000)&^mmapslab.Chained, live)
			return nil
		}, restore.Swept{Items: 24, Invalid: 1}},
		"no kind": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Bytes(f.items["small2"].Offset(), 1)[0] = 0
			return []string{"small2"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"length over the end": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Word32(f.items["small2"].Offset() + 16).Store(1 << 20)
			return []string{"small2"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"broken chain": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Word(f.data(f.items["large1"])[1].Offset() + 8).Store(0)
			return []string{"large1"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"chain without item": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Bytes(f.items["large1"].Offset(), 1)[0] = 0
			return []string{"large1"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"ring of the right length": {func(t *testing.T, f *fixture) []string {
			d := f.data(f.items["large0"]) // its chunks are all full
			f.Store.Arena().Word(d[1].Offset() + 8).Store(uint64(d[0]))
			return []string{"large0"}
		}, restore.Swept{Items: 23, Invalid: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.fill(t, 20, 4)
			gone := c.plant(t, f)
			if swept := f.kill(t); swept != c.want {
				t.Errorf("%+v, want %+v", swept, c.want)
			}
			f.wantClean(t, gone...)
			// What is freed can be used, once: until memory is full, nothing overlaps.
			for i := range 300 {
				f.put(t, fmt.Sprint("more", i), 100+i%3000)
			}
			f.wantClean(t, gone...)
		})
	}
}

func TestSweepKeepsOneOfTwoItemsThatShareAChunk(t *testing.T) {
	f := newFixture(t)
	f.fill(t, 5, 3)
	a, b := f.data(f.items["large0"]), f.data(f.items["large1"])
	// Two chains end in the same chunk; their lengths fit.
	f.Store.Arena().Word32(f.items["large1"].Offset() + 16).Store(3 * 4056)
	f.Store.Arena().Word(b[1].Offset() + 8).Store(uint64(a[2]))
	if swept := f.kill(t); swept != (restore.Swept{Items: 7, Invalid: 1}) {
		t.Errorf("%+v", swept)
	}
	_, first := f.Index.Find(f.Store.Hasher().Sum([]byte("large0")), []byte("large0"))
	gone := "large0"
	if first {
		gone = "large1"
	}
	delete(f.items, gone)
	for _, finding := range restore.Check(f.Parts, nil) {
		if !first && finding.Offset == f.items["large1"].Offset() {
			continue // its checksum tells that it has the wrong end; the sweep does not look at values
		}
		t.Errorf("check: %v", finding)
	}
}

func TestSweepEmptiesPagesAboveALowerLimit(t *testing.T) {
	f := newFixture(t)
	// Chained items' heads and data are in different pages, and some of them in pages that go.
	for i := range 150 {
		f.put(t, fmt.Sprint("large", i), 5*4056)
		f.put(t, fmt.Sprint("small", i), 200)
	}
	_, assigned, _ := f.Store.Pages()
	f.pages = assigned - 2
	f.was = assigned
	swept := f.kill(t)
	if swept.Pages != 2 || swept.Dropped == 0 || swept.Items == 0 || swept.Items+swept.Dropped != 300 || swept.Invalid != 0 {
		t.Errorf("%+v of %d pages", swept, assigned)
	}
	if _, left, pool := f.Store.Pages(); left != assigned-2 || pool != 2 {
		t.Errorf("%d pages, %d in the pool", left, pool)
	}
	var gone []string
	for key := range f.items {
		if _, ok := f.Index.Find(f.Store.Hasher().Sum([]byte(key)), []byte(key)); !ok {
			gone = append(gone, key)
		}
	}
	f.wantClean(t, gone...)
	if swept := f.kill(t); swept != (restore.Swept{Items: int64(300 - len(gone))}) {
		t.Errorf("once more: %+v", swept)
	}
	f.wantClean(t, gone...)
}

func TestSweepEmptiesDamagedPages(t *testing.T) {
	for _, victim := range []string{"small5", "small150", "large1"} {
		f := newFixture(t)
		f.fill(t, 200, 3)
		page, _ := f.Store.Place(f.items[victim])
		if victim == "large1" {
			page, _ = f.Store.Place(f.data(f.items[victim])[0])
		}
		var gone []string
		used := map[uint32]bool{}
		for key, ref := range f.items {
			pages := map[uint32]bool{f.Store.PageOf(ref): true}
			for _, data := range f.data(ref) {
				pages[f.Store.PageOf(data)] = true
			}
			if pages[page] {
				gone = append(gone, key)
			} else {
				maps.Copy(used, pages)
			}
		}
		_, before, _ := f.Store.Pages()
		f.Store.Arena().Word(1<<20 + int64(page)*64).Add(1)
		swept := f.kill(t)
		if swept.Pages != 1 || swept.Dropped+swept.Invalid != int64(len(gone)) || swept.Items != int64(203-len(gone)) {
			t.Errorf("%s: %+v, want %d to go", victim, swept, len(gone))
		}
		f.wantClean(t, gone...)
		if _, left, pool := f.Store.Pages(); left != len(used) || pool != before-len(used) {
			t.Errorf("%s: %d pages of %d left and %d in the pool, want %d left", victim, left, before, pool, len(used))
		}
	}
}

// Words of damaged bits: another tag, another bucket, another item's chunk. The item that such a word names is lost if it has no other word, and stays if it has its own.
func TestSweepDropsWordsToWhichNoKeyLeads(t *testing.T) {
	hash := func(f *fixture, key string) uint64 { return f.Store.Hasher().Sum([]byte(key)) }
	for name, c := range map[string]struct {
		damage func(t *testing.T, f *fixture) (gone []string)
		want   restore.Swept
	}{
		"another tag": {func(t *testing.T, f *fixture) []string {
			w := f.Store.Arena().Word(f.word(t, "small3", f.items["small3"]))
			w.Store(w.Load() ^ 1<<7)
			return []string{"small3"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"another bucket": {func(t *testing.T, f *fixture) []string {
			w := f.Store.Arena().Word(f.word(t, "small3", f.items["small3"]))
			f.Store.Arena().Word(f.elsewhere(t, "small3")).Store(w.Load())
			w.Store(0)
			return []string{"small3"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"another bucket as well": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Word(f.elsewhere(t, "small3")).Store(f.Store.Arena().Word(f.word(t, "small3", f.items["small3"])).Load())
			return nil
		}, restore.Swept{Items: 24, Duplicate: 1}},
		"another tag as well": {func(t *testing.T, f *fixture) []string {
			f.plant(t, "small3", f.items["small3"], live) // twice right
			w := f.Store.Arena().Word(f.word(t, "small3", f.items["small3"]))
			w.Store(w.Load() ^ 1<<9)
			return nil
		}, restore.Swept{Items: 24, Duplicate: 1}},
		"the chunk of another": {func(t *testing.T, f *fixture) []string {
			w := f.Store.Arena().Word(f.word(t, "small3", f.items["small3"]))
			w.Store(pack(f.items["small4"], hash(f, "small3"), live))
			return []string{"small3"}
		}, restore.Swept{Items: 23, Duplicate: 1}},
		"a chained one's chunk": {func(t *testing.T, f *fixture) []string {
			w := f.Store.Arena().Word(f.word(t, "small3", f.items["small3"]))
			w.Store(pack(f.items["large1"], hash(f, "small3"), live))
			return []string{"small3"}
		}, restore.Swept{Items: 23, Duplicate: 1}},
		"a key": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Bytes(f.items["small3"].Offset()+40, 1)[0] ^= 1
			return []string{"small3"}
		}, restore.Swept{Items: 23, Invalid: 1}},
		"a hash": {func(t *testing.T, f *fixture) []string {
			f.Store.Arena().Bytes(f.items["small3"].Offset()+24, 1)[0] ^= 1
			return []string{"small3"}
		}, restore.Swept{Items: 23, Invalid: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.fill(t, 20, 4)
			gone := c.damage(t, f)
			if swept := f.kill(t); swept != c.want {
				t.Errorf("%+v, want %+v", swept, c.want)
			}
			f.wantClean(t, gone...)
		})
	}
}

// After a power loss the word of an earlier value can be back beside that of a later one. A delete takes one of them, so only one may be there.
func TestSweepOfATornFileKeepsOneItemOfAKey(t *testing.T) {
	for _, torn := range []bool{false, true} {
		f := newFixture(t)
		f.fill(t, 50, 2)
		old := f.write("small7", 77)
		f.plant(t, "small7", old, live)
		f.torn = torn
		swept := f.kill(t)
		if want := (restore.Swept{Items: 52, Invalid: 1}); torn && swept != want {
			t.Errorf("%+v, want %+v", swept, want)
		}
		if !torn { // a kill leaves no such thing: Check tells of it, and the sweep does not look
			f.wantFinding(t, "is live a second time")
			continue
		}
		if ref, ok := f.Index.Find(f.Store.Hasher().Sum([]byte("small7")), []byte("small7")); ok {
			f.items["small7"] = ref
		}
		f.wantClean(t)
	}
}
