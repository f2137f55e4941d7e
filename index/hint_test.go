package index_test

import (
	"testing"

	"hearth/index"
	"hearth/mmapslab"
)

// TestHintsNameEveryItemAndWhereFindLooks: false tags apart, which here are two in a million, a hint is right, and it costs nothing to be wrong.
func TestHintsNameEveryItemAndWhereFindLooks(t *testing.T) {
	const n, buckets = 3000, 512
	e := heapEnv(t, n, buckets, buckets) // which is its limit: a load of 0.73
	defer e.grace.leave(e.grace.enter())
	refs := map[int]mmapslab.Ref{}
	for i := range n {
		ref := e.items.add(hash(i), key(i))
		if res, _ := e.Insert(hash(i), key(i), ref); res == index.Inserted {
			refs[i] = ref
		}
	}
	elsewhere := 0
	for i, ref := range refs {
		hint, home := e.Hint(hash(i))
		window := index.Buckets(uint32(hash(i)>>32), buckets)
		offsets := append([]int64{home}, e.AppendOther(nil, &hint)...)
		for j, b := range window {
			if want := e.region.Half[0] + int64(b)*64; offsets[j] != want {
				t.Fatalf("key %d: bucket %d at %d, want %d", i, j, offsets[j], want)
			}
		}
		if hint.Home() != ref {
			if elsewhere++; hint.Other() != ref {
				t.Errorf("key %d: hints %d and %d, want %d", i, hint.Home(), hint.Other(), ref)
			}
		}
	}
	if len(refs) < n*9/10 || elsewhere == 0 {
		t.Errorf("%d items, of them %d not in their home bucket", len(refs), elsewhere)
	}
	if hint, _ := e.Hint(hash(n)); hint.Home() != 0 || hint.Other() != 0 {
		t.Error("a hint of a key that is not there")
	}
}
