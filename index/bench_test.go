package index_test

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/index"
	"hearth/mmapslab"
)

const benchKeys = 1 << 20

// bare are items that cost nothing to compare: what is measured is the index.
type bare []uint64 // Ref → hash

func (b bare) Match(ref mmapslab.Ref, key []byte) bool { return ref != 0 }
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

// BenchmarkFindBatch10M looks up ten million keys, 32 at a time, as a session does for a multiget: all buckets are asked for before the first is read. ns/op is of
// a batch, ns/key of a key, in processor time. It takes some seconds to fill. BenchmarkFindEach10M is the same key by key: the memory's latency.
func BenchmarkFindBatch10M(b *testing.B) { benchFind10M(b, true) }
func BenchmarkFindEach10M(b *testing.B)  { benchFind10M(b, false) }

// BenchmarkLines10M is the bound of it: lines of as much memory, drawn alike, asked for 32 at a time and read. A key takes one line, or two if its home bucket was full.
func BenchmarkLines10M(b *testing.B) {
	const lines, batch = 1_800_000, 32
	arena := mmapslab.NewHeapArena((lines + 1) * 64)
	for i := range int64(lines) {
		arena.Word(i * 64).Store(uint64(i))
	}
	offsets := make([]int64, batch)
	next, sum := uint64(1), uint64(0)
	began := cpuTime()
	for b.Loop() {
		for i := range offsets {
			next = next*6364136223846793005 + 1442695040888963407
			offsets[i] = int64(hash(int(next>>33))%lines) * 64
		}
		arena.Prefetch(offsets)
		for _, at := range offsets {
			sum += arena.Word(at).Load()
		}
	}
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/batch, "ns/line")
	sink.Store(sum)
}

func cpuTime() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}

func benchFind10M(b *testing.B, ahead bool) {
	const keys, buckets, batch = 10_000_000, 1_800_000, 32
	items := make(bare, keys+1)
	for i := range items {
		items[i] = hash(i)
	}
	region, size := regionFor(buckets)
	arena := mmapslab.NewHeapArena(size)
	x, err := index.Create(arena, region, items, index.Options{}, buckets)
	if err != nil {
		b.Fatal(err)
	}
	for i := 1; i <= keys; i++ {
		if res, _ := x.Insert(items[i], nil, mmapslab.Ref(i)); res == index.Full {
			b.Fatalf("full at %d", i)
		}
	}
	b.ReportMetric(x.Stats().Load, "load")
	var hints [batch]index.Hint
	hashes, lines := make([]uint64, batch), make([]int64, 0, 4*batch)
	next, found := uint64(1), 0
	began := cpuTime()
	for b.Loop() {
		for i := range hashes {
			next = next*6364136223846793005 + 1442695040888963407
			hashes[i] = hash(1 + int(next>>33)%keys) // computed, so that what is fetched is the index alone
		}
		if ahead {
			lines = lines[:0]
			for i, h := range hashes {
				var home int64
				hints[i], home = x.Hint(h)
				lines = append(lines, home)
			}
			arena.Prefetch(lines)
			lines = lines[:0]
			for i := range hints {
				if hints[i].Home() == 0 {
					lines = x.AppendOther(lines, &hints[i])
				}
			}
			arena.Prefetch(lines)
			for i := range hints {
				if hints[i].Find() == 0 {
					hints[i].Other()
				}
			}
		}
		for i, h := range hashes {
			ok := ahead && items.Match(hints[i].Find(), nil)
			if !ok {
				_, ok = x.Find(h, nil)
			}
			if ok {
				found++
			}
		}
	}
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N)/batch, "ns/key")
	if found < b.N*batch*99/100 {
		b.Errorf("found %d of %d", found, b.N*batch)
	}
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
