package index_test

import (
	"sync/atomic"
	"testing"

	"hearth/index"
	"hearth/mmapslab"
)

const benchKeys = 1 << 20

// bare are items that cost nothing to compare: what is measured is the index.
type bare []uint64 // Ref → hash

func (b bare) Match(ref mmapslab.Ref, key []byte) bool { return true }
func (b bare) Hash(ref mmapslab.Ref) uint32            { return uint32(b[ref] >> 32) }

func benchIndex(b *testing.B, fill int, buckets uint32) (*index.Index, bare) {
	items := make(bare, benchKeys*2+1)
	for i := range items {
		items[i] = hash(i)
	}
	region, size := regionFor(1 << 19)
	x, err := index.Create(mmapslab.NewHeapArena(size), region, items, index.Options{}, buckets)
	if err != nil {
		b.Fatal(err)
	}
	for i := 1; i <= fill; i++ {
		x.Insert(items[i], nil, mmapslab.Ref(i))
	}
	x.FinishGrowth()
	b.ReportMetric(x.Stats().Load, "load")
	b.ResetTimer()
	return x, items
}

var sink atomic.Uint64

func BenchmarkFindHit1M(b *testing.B) {
	x, items := benchIndex(b, benchKeys, 1<<17+1<<15)
	b.ReportAllocs()
	var sum mmapslab.Ref
	for i := 0; b.Loop(); i++ {
		ref, _ := x.Find(items[1+i*7919&(benchKeys-1)], nil)
		sum += ref
	}
	sink.Store(uint64(sum))
}

func BenchmarkFindMiss1M(b *testing.B) {
	x, items := benchIndex(b, benchKeys, 1<<17+1<<15)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Find(items[benchKeys+1+i*7919&(benchKeys-1)], nil)
	}
}

func BenchmarkFindHit1MParallel(b *testing.B) {
	x, items := benchIndex(b, benchKeys, 1<<17+1<<15)
	var start atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for i := int(start.Add(1)) * 100003; pb.Next(); i++ {
			x.Find(items[1+i*7919&(benchKeys-1)], nil)
		}
	})
}

func BenchmarkReplace1M(b *testing.B) {
	x, items := benchIndex(b, benchKeys, 1<<17+1<<15)
	for i := 0; b.Loop(); i++ {
		n := 1 + i*7919&(benchKeys-1)
		x.Replace(items[n], mmapslab.Ref(n), mmapslab.Ref(n))
	}
}

func BenchmarkInsertDelete1M(b *testing.B) {
	x, items := benchIndex(b, benchKeys, 1<<17+1<<15)
	for i := 0; b.Loop(); i++ {
		n := benchKeys + 1 + i*7919&(benchKeys-1)
		x.Insert(items[n], nil, mmapslab.Ref(n))
		x.Delete(items[n], mmapslab.Ref(n))
	}
}

// BenchmarkFillWithGrowth is an insert of a new key including its share of all growths from a small table on.
func BenchmarkFillWithGrowth(b *testing.B) {
	x, items := benchIndex(b, 0, 1<<10)
	next := 1
	for b.Loop() {
		if next > benchKeys {
			b.StopTimer()
			x, items = benchIndex(b, 0, 1<<10)
			next = 1
			b.StartTimer()
		}
		x.Insert(items[next], nil, mmapslab.Ref(next))
		next++
	}
}
