package server

import (
	"math/bits"
	"strconv"
	"sync/atomic"
	"time"

	"hearth/netproto"
)

// What a request waits for in the server. Two readings of the clock an iteration and an addition a request are all that this costs, so it is always on.
//
// A worker's iteration begins when epoll has told it of connections that have something, and ends when their replies are written, or are pending output where a client
// does not take them. The time between is counted for each request that was answered in it. So for a request of the last connection in the iteration it is what it
// took, and for the others no less than that: what they were ahead by is counted too. On a server that is not busy an iteration has one connection. Not in it are the network,
// and what lay in the socket before epoll told of it: at most as long as the iteration before took, which that one's requests tell. A store counts in the iteration in which its
// data block is complete, and a long get in that in which its last key is answered: clients that are slow make no request slow.

// kind is what latencies are counted by.
type kind uint8

const (
	kindNone kind = iota // counted elsewhere, or not at all
	kindGet
	kindSet
	kindDelete
	kindArith
	kindTouch
	kindOther
	kindCount
)

var kindNames = [kindCount]string{"", "get", "set", "delete", "arithmetic", "touch", "other"}

// verbKinds and opKinds are the kinds of requests that are answered when they are executed. Stores, and gets of the classic commands, count at their end.
var (
	verbKinds = [256]kind{
		netproto.VerbMetaGet: kindGet, netproto.VerbDelete: kindDelete, netproto.VerbMetaDelete: kindDelete,
		netproto.VerbIncr: kindArith, netproto.VerbDecr: kindArith, netproto.VerbMetaArith: kindArith, netproto.VerbTouch: kindTouch,
		netproto.VerbFlushAll: kindOther, netproto.VerbVersion: kindOther, netproto.VerbVerbosity: kindOther, netproto.VerbStats: kindOther, netproto.VerbMetaNoop: kindOther,
		netproto.VerbMetaDebug: kindOther, netproto.VerbAdmin: kindOther,
	}
	opKinds = [256]kind{
		netproto.OpGet: kindGet, netproto.OpGetK: kindGet, netproto.OpGat: kindGet, netproto.OpGatK: kindGet, netproto.OpDelete: kindDelete,
		netproto.OpIncr: kindArith, netproto.OpDecr: kindArith, netproto.OpTouch: kindTouch,
		netproto.OpFlush: kindOther, netproto.OpNoop: kindOther, netproto.OpVersion: kindOther, netproto.OpStat: kindOther,
	}
)

// A histogram has, for each power of two from one microsecond's 1024th on, perOctave buckets of equal width: no bucket is wider than an eighth of what it counts. Its unit makes
// the powers of two that are shown come out at whole microseconds.
const (
	latencyUnit = 1024 // of a microsecond
	octaveBits  = 3
	perOctave   = 1 << octaveBits
	maxOctave   = 36 // 2^36 units are 67 s; what takes longer counts as that
	bucketCount = (maxOctave - octaveBits + 2) * perOctave
	// shownOctaves are the bounds that are shown: below 1 us, 2 us and so on up to 8.4 s.
	shownOctaves = 24
)

// bucketOf is the bucket of a time in units.
func bucketOf(v uint64) int {
	if v < perOctave {
		return int(v)
	}
	octave := min(bits.Len64(v)-1, maxOctave)
	return (octave-octaveBits)*perOctave + int(min(v>>(octave-octaveBits), 2*perOctave-1))
}

// bucketEnd is the first time that is beyond a bucket.
func bucketEnd(i int) uint64 {
	if i < perOctave {
		return uint64(i) + 1
	}
	octave := i/perOctave - 1 + octaveBits
	return uint64(i%perOctave+perOctave+1) << (octave - octaveBits)
}

// latencies are a worker's. It counts in plain memory during an iteration; the histograms, of which others read, are its own cache lines too.
type latencies struct {
	began time.Duration
	seen  [kindCount]uint32 // requests of the iteration
	_     [64]byte
	hist  [kindCount]histogram
	_     [64]byte
}

type histogram struct {
	sum     atomic.Uint64 // units
	buckets [bucketCount]atomic.Uint64
}

// processBegan is what the clock is read against: a difference to it costs a reading of the monotonic clock and nothing else.
var processBegan = time.Now()

// begin is called when an iteration begins.
func (l *latencies) begin() { l.began = time.Since(processBegan) }

// end is called when all replies of the iteration are written.
func (l *latencies) end() {
	if l.seen == ([kindCount]uint32{kindNone: l.seen[kindNone]}) {
		return
	}
	v := uint64(time.Since(processBegan)-l.began) * latencyUnit / uint64(time.Microsecond)
	i := bucketOf(v)
	for k := kindNone + 1; k < kindCount; k++ {
		if n := uint64(l.seen[k]); n > 0 {
			l.hist[k].buckets[i].Add(n)
			l.hist[k].sum.Add(n * v)
			l.seen[k] = 0
		}
	}
}

func (l *latencies) reset() {
	for k := range l.hist {
		l.hist[k].sum.Store(0)
		for i := range l.hist[k].buckets {
			l.hist[k].buckets[i].Store(0)
		}
	}
}

// latencyStats lists `stats latency`, which memcached has not: for each kind of request, quantiles in microseconds, each the end of its bucket, and how many took less than a power
// of two.
func (s *Server) latencyStats(l *lister) {
	for k := kindNone + 1; k < kindCount; k++ {
		var buckets [bucketCount]uint64
		var sum, count uint64
		for _, w := range s.workers {
			h := &w.latency.hist[k]
			sum += h.sum.Load()
			for i := range buckets {
				n := h.buckets[i].Load()
				buckets[i] += n
				count += n
			}
		}
		p := kindNames[k] + ":"
		l.uint(p+"count", count)
		l.float(p+"sum_us", float64(sum)/latencyUnit, 3)
		for _, q := range []struct {
			name  string
			share float64
		}{{"p50_us", 0.5}, {"p99_us", 0.99}, {"p999_us", 0.999}, {"max_us", 1}} {
			l.float(p+q.name, float64(quantile(&buckets, count, q.share))/latencyUnit, 3)
		}
		under, i := uint64(0), 0
		for octave := range shownOctaves {
			for ; i < bucketCount && bucketEnd(i) <= latencyUnit<<octave; i++ {
				under += buckets[i]
			}
			l.uint(p+"under_"+strconv.Itoa(1<<octave)+"us", under)
		}
	}
}

// quantile is the end of the bucket that has the request which share of all others are not slower than; 0 without requests.
func quantile(buckets *[bucketCount]uint64, count uint64, share float64) uint64 {
	seen := uint64(0)
	for i, n := range buckets {
		if seen += n; n > 0 && float64(seen) >= share*float64(count) {
			return bucketEnd(i)
		}
	}
	return 0
}
