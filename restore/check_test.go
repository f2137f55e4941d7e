package restore_test

import (
	"bytes"
	"slices"
	"testing"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
	"hearth/restore"
)

func TestCheckFindsEachKindOfDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, f *fixture)
		what   string
	}{
		"value": {func(t *testing.T, f *fixture) { f.bytes("small3")[50] ^= 1 }, `checksum of item "small3" does not match`},
		"chained value": {func(t *testing.T, f *fixture) {
			f.Store.Arena().Bytes(f.data(f.items["large0"])[2].Offset()+100, 1)[0] ^= 1
		}, `checksum of item "large0" does not match`},
		"no item": {func(t *testing.T, f *fixture) { f.bytes("small3")[0] = 0 }, "index word names no item"},
		"hash": {func(t *testing.T, f *fixture) {
			f.bytes("small3")[24] ^= 1
			f.reseal("small3")
		}, `item "small3" has hash`},
		"bucket": {func(t *testing.T, f *fixture) { f.move(t, "small3", true) }, `item "small3" is in bucket`},
		"tag":    {func(t *testing.T, f *fixture) { f.move(t, "small3", false) }, `item "small3" has tag`},
		"key twice": {func(t *testing.T, f *fixture) {
			ref := f.write("small3", 20)
			f.Order.Link(ref, lru.Hot, mmapslab.ItemSize(6, 20))
			f.plant(t, "small3", ref, live)
			f.Index.SetLen(f.Index.Len() + 1)
		}, `item "small3" is live a second time`},
		"item twice":   {func(t *testing.T, f *fixture) { f.plant(t, "small3", f.items["small3"], live) }, "in a chunk that is something else already"},
		"count":        {func(t *testing.T, f *fixture) { f.Index.SetLen(7) }, "index counts 7 items, has 23"},
		"word nowhere": {func(t *testing.T, f *fixture) { f.plant(t, "x", 77, live) }, "live item where no chunk starts"},
		"not listed": {func(t *testing.T, f *fixture) {
			it, _ := f.Store.Item(f.items["small3"])
			f.Order.Unlink(f.items["small3"], it.Size())
		}, `live item "small3" is in no list`},
		"listed but not live": {func(t *testing.T, f *fixture) {
			f.Index.Delete(f.Store.Hasher().Sum([]byte("small3")), f.items["small3"])
		}, "lists hold 23 items, index has 22"},
		"list cut": {func(t *testing.T, f *fixture) {
			f.Store.Link(f.Store.ID(f.items["small3"])).Next = 0
		}, "segment 2: list has"},
		"list with wrong prev": {func(t *testing.T, f *fixture) {
			f.Store.Link(f.Store.ID(f.items["small3"])).Prev = f.Store.ID(f.items["small5"])
		}, "segment 2: item of class 1, segment 2, linked true, after chunk"},
		"list in a ring": {func(t *testing.T, f *fixture) {
			f.Store.Link(f.Store.ID(f.items["small3"])).Next = f.Store.ID(f.items["small5"])
		}, "segment 2: item of class 1"},
		"item in two lists": {func(t *testing.T, f *fixture) {
			f.Store.Meta(f.items["small3"]).And(^uint64(mmapslab.Linked))
			it, _ := f.Store.Item(f.items["small3"])
			f.Order.Link(f.items["small3"], lru.Warm, it.Size())
		}, "segment 2: item of class 1, segment 1"},
		"segment": {func(t *testing.T, f *fixture) {
			m := mmapslab.Meta(f.Store.Meta(f.items["small3"]).Load())
			f.Store.Meta(f.items["small3"]).Store(uint64(m.WithSegment(lru.Hot)))
		}, "segment 2: item of class 1, segment 0"},
		"list into the free": {func(t *testing.T, f *fixture) {
			f.Store.Link(f.Store.ID(f.items["small3"])).Next = 1<<14 | 9000
		}, "list holds a chunk that is no item"},
		"live chunk freed": {func(t *testing.T, f *fixture) { f.Store.Free(f.items["small3"]) }, "free chunk in a chunk that is something else already"},
		"data chunk freed": {func(t *testing.T, f *fixture) {
			data := f.data(f.items["large0"])[1]
			whole := bytes.Clone(f.Store.Arena().Bytes(data.Offset(), 4096))
			f.Store.Free(data)
			copy(f.Store.Arena().Bytes(data.Offset(), 4096), whole) // -tags invariants has poisoned it
		}, "free chunk in a chunk that is something else already"},
		"chunk lost": {func(t *testing.T, f *fixture) { f.alloc(2) }, "class 2: 1 chunks are neither used nor free"},
		"chunk freed twice": {func(t *testing.T, f *fixture) {
			a, b := f.alloc(1), f.alloc(1)
			f.Store.Free(a)
			f.Store.Free(b)
			f.Store.Link(f.Store.ID(a)).Next = f.Store.ID(b)
		}, "in a chunk that is something else already"},
		"free list of another class": {func(t *testing.T, f *fixture) {
			a := f.alloc(1)
			b := f.alloc(2)
			f.Store.Free(a)
			f.Store.Link(f.Store.ID(a)).Next = f.Store.ID(b)
		}, "free list of class 1 holds a chunk of class 2"},
		"chain": {func(t *testing.T, f *fixture) {
			f.Store.Arena().Word(f.data(f.items["large0"])[1].Offset() + 8).Store(0)
		}, `chain of item "large0" is broken`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.fill(t, 20, 3)
			f.wantClean(t)
			c.damage(t, f)
			f.wantFinding(t, c.what)
		})
	}
}

func TestCheckKnowsLooseChunks(t *testing.T) {
	f := newFixture(t)
	f.fill(t, 5, 0)
	ref := f.alloc(2)
	if found := check(f, ref); len(found) != 0 {
		t.Errorf("%v", found)
	}
	if found := check(f, ref, f.items["small1"]); len(found) == 0 {
		t.Error("a live item's chunk counts as loose too")
	}
}

func (f *fixture) bytes(key string) []byte {
	ref := f.items[key]
	return f.Store.Arena().Bytes(ref.Offset(), f.Store.ChunkSize(ref))
}

// reseal makes an item's checksum right again.
func (f *fixture) reseal(key string) {
	it, _ := f.Store.Item(f.items[key])
	f.Store.Seal(f.items[key], it.CAS(), it.Epoch())
}

// move puts an item's word into a bucket, or under a tag, that is not its own.
func (f *fixture) move(t *testing.T, key string, bucket bool) {
	t.Helper()
	at := f.word(t, key, f.items[key])
	a := f.Store.Arena()
	w := a.Word(at).Load()
	if !bucket {
		a.Word(at).Store(w ^ 1<<3)
		return
	}
	a.Word(at).Store(0)
	_, half, _ := f.Store.IndexRegion()
	h := f.Store.Hasher().Sum([]byte(key))
	window := index.Buckets(uint32(h>>32), f.Index.Stats().Buckets)
	for b := uint32(0); ; b++ {
		to := a.Word(half[0] + int64(b)*64)
		if !slices.Contains(window[:], b) && to.Load() == 0 {
			to.Store(w)
			return
		}
	}
}

func check(f *fixture, loose ...mmapslab.Ref) []restore.Finding {
	set := map[mmapslab.Ref]bool{}
	for _, ref := range loose {
		set[ref] = true
	}
	return restore.Check(f.Parts, set)
}
