package index_test

import (
	"testing"

	"hearth/index"
	"hearth/mmapslab"
)

// Scan has each word that is not empty once, of both tables while one grows into the other, however the buckets are shared out; and so has one that was opened to
// be looked at only.
func TestScanVisitsEveryWordOnceOfBothTables(t *testing.T) {
	both(t, 1000, 64, func(t *testing.T, e *env) {
		for i := range 300 {
			e.set(hash(i), key(i))
		}
		if !e.Start() {
			t.Fatal("no growth was started")
		}
		e.set(hash(300), key(300)) // and moves what is in its way
		if !e.Growing() {
			t.Fatal("the growth is over")
		}
		looked, err := index.Inspect(e.arena, e.region, e.items)
		if err != nil {
			t.Fatal(err)
		}
		tables := e.Tables()
		states := map[index.State]int{}
		for name, x := range map[string]*index.Index{"in use": e.Index, "inspected": looked} {
			for _, step := range []uint32{1, 7, 1 << 30} {
				var found []index.Word
				for from := uint32(0); from < x.ScanBuckets(); from = min(from+step, x.ScanBuckets()) {
					x.Scan(from, min(from+step, x.ScanBuckets()), func(w *index.Word) { found = append(found, *w) })
				}
				for n, words := range tables {
					for i, raw := range words {
						if raw == 0 {
							continue
						}
						if len(found) == 0 {
							t.Fatalf("%s, steps of %d: word %d of table %d was not visited", name, step, i, n)
						}
						w := found[0]
						found = found[1:]
						ref, tag, state := index.Unpack(raw)
						want := index.Word{Offset: w.Offset, Ref: ref, Tag: uint32(tag), State: index.State(state), Raw: raw,
							Bucket: uint32(i / index.BucketWords), Buckets: uint32(len(words) / index.BucketWords), Next: n == 1}
						if w != want || e.arena.Word(w.Offset).Load() != raw || !x.Still(&w) {
							t.Fatalf("%s, steps of %d: %+v with %#x at its offset, want %+v", name, step, w, e.arena.Word(w.Offset).Load(), want)
						}
						states[w.State]++
					}
				}
				if len(found) > 0 {
					t.Fatalf("%s, steps of %d: %d words more than there are, the first %+v", name, step, len(found), found[0])
				}
			}
		}
		if states[index.Live] == 0 || states[index.Moved] == 0 {
			t.Fatalf("states %v, want live words and moved ones", states)
		}
	})
}

// A word that was changed since it was visited is not there still.
func TestScannedWordIsNotStillThereWhenReplaced(t *testing.T) {
	e := heapEnv(t, 10, 4, 16)
	old, _ := e.set(hash(1), key(1))
	var w index.Word
	e.Scan(0, e.ScanBuckets(), func(found *index.Word) { w = *found })
	if w.Ref != old || !e.Still(&w) {
		t.Fatalf("scan found %+v, want item %d", w, old)
	}
	e.set(hash(1), key(1))
	if e.Still(&w) {
		t.Error("a replaced word is still there")
	}
	e.op(func() { e.Delete(hash(1), mmapslab.Ref(2)) })
	e.Scan(0, e.ScanBuckets(), func(w *index.Word) { t.Errorf("scan of an empty index found %+v", *w) })
}
