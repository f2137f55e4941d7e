package server

import (
	"math/rand/v2"
	"testing"
)

func TestLatencyBucketsAreNarrowAndWithoutGaps(t *testing.T) {
	for i := 1; i < bucketCount; i++ {
		begin, end := bucketEnd(i-1), bucketEnd(i)
		if bucketOf(begin) != i || bucketOf(end-1) != i {
			t.Fatalf("bucket %d is %d to %d, whose buckets are %d and %d", i, begin, end-1, bucketOf(begin), bucketOf(end-1))
		}
		if begin > perOctave && float64(end-begin) > float64(begin)/perOctave {
			t.Errorf("bucket %d is %d wide at %d", i, end-begin, begin)
		}
	}
	if bucketOf(0) != 0 || bucketOf(1<<63) != bucketCount-1 {
		t.Errorf("the least is in bucket %d, the most in %d", bucketOf(0), bucketOf(1<<63))
	}
	for octave := range shownOctaves { // each bound that is shown is the end of a bucket
		if v := uint64(latencyUnit) << octave; bucketOf(v) == bucketOf(v-1) {
			t.Errorf("%d us lies within a bucket", 1<<octave)
		}
	}
}

func TestLatencyQuantilesAreThoseOfTheValues(t *testing.T) {
	var buckets [bucketCount]uint64
	const n = 10000
	for _, v := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		buckets[bucketOf(uint64(v+1)*100)]++
	}
	for share, want := range map[float64]float64{0.5: 500000, 0.99: 990000, 0.999: 999000, 1: 1000000} {
		if got := float64(quantile(&buckets, n, share)); got < want || got > want*(1+1.0/perOctave)+1 {
			t.Errorf("%v: %v, want %v and at most an eighth more", share, got, want)
		}
	}
	if got := quantile(new([bucketCount]uint64), 0, 0.99); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

// What an iteration costs more for it, whatever the number of its requests.
func BenchmarkLatencyOfAnIteration(b *testing.B) {
	var l latencies
	for b.Loop() {
		l.begin()
		l.seen[kindGet]++
		l.seen[kindSet]++
		l.end()
	}
}
