package hearth

import (
	"math/bits"
	"sync/atomic"

	"hearth/lru"
	"hearth/mmapslab"
)

// Stats are the cache's counters since Open or the last ResetStats, and its state now. Names follow memcached's `stats`.
type Stats struct {
	CmdGet, CmdSet, CmdTouch, CmdFlush            uint64 // requests by key; CmdSet counts what got memory
	GetHits, GetMisses                            uint64
	GetExpired, GetFlushed                        uint64 // dead items that lookups found, whichever command's; of a get they are misses too
	DeleteHits, DeleteMisses                      uint64
	IncrHits, IncrMisses, DecrHits, DecrMisses    uint64
	CasHits, CasMisses, CasBadval                 uint64
	TouchHits, TouchMisses                        uint64
	StoreTooLarge, StoreNoMemory                  uint64
	TotalItems                                    uint64 // items ever stored
	Evictions, EvictedUnfetched, EvictedActive    uint64
	Reclaimed, ExpiredUnfetched, CrawlerReclaimed uint64
	MovesToCold, MovesToWarm, MovesWithinLRU      uint64
	DirectReclaims, LRUBumpsDropped, Juggles      uint64
	CrawlerStarts                                 uint64
	CrawlerRunning                                bool
	CorruptItems                                  uint64  // items whose bytes did not match their header; answered as misses
	ScrubPasses, ScrubBytes                       uint64  // of the scrubber: finished passes, and bytes of items it looked at
	ScrubPlace                                    float64 // how much of the pass under way is done, 0..1
	CurrItems, Bytes                              uint64  // now; Bytes counts header, key and value
	LimitMaxbytes, TotalMalloced                  uint64  // bytes; TotalMalloced counts assigned pages
	GlobalPagePool                                uint64  // free pages that were assigned before
	SlabsMoved                                    uint64  // pages that went to another class or the global page pool
	SlabReassignRescues, SlabReassignChunkRescues uint64  // items and parts of large items that were moved out of a page on its way
	SlabReassignInlineReclaim                     uint64  // free chunks of such a page that a store met first
	SlabReassignBusyItems, SlabReassignBusyNoMem  uint64  // times that one could not be moved yet; for lack of a free chunk
	SlabReassignLastBusy                          string  // why, in memcached's words
	SlabReassignRunning                           bool
	HashBuckets, HashBytes                        uint64
	HashIsExpanding                               bool
	IndexLoad                                     float64 // live words per slot, 0..1
	RestartKind, RestartReason                    string  // "cold", "clean" or "unclean", and why
	RestartAttachMicros, RestartSweepMillis       int64
	RestartSweepProgress                          float64 // of the sweep after a kill, 0..1; 1: none is running
	RestartItems                                  uint64
	RestartSweeping                               bool   // the sweep after a kill goes on
	RestartUnclean, RestartOwnFaults              uint32 // starts since the last clean stop that found a killed server's file; how many of those died by a fault of their own
}

// ClassStats are the counters and the state of one slab class.
type ClassStats struct {
	ID                                            int // memcached's class id, 1..63; from 64 on: chunk sizes of an earlier configuration
	ChunkSize, ChunksPerPage                      int
	Pages, TotalChunks, UsedChunks, FreeChunks    uint64
	GetHits, CmdSet, DeleteHits, IncrHits         uint64
	DecrHits, CasHits, CasBadval, TouchHits       uint64
	Number, NumberHot, NumberWarm, NumberCold     uint64
	NumberTemp                                    uint64
	AgeHot, AgeWarm, Age                          uint64 // seconds since the last access of the list's tail; Age is COLD's
	MemRequested                                  uint64 // bytes
	Evicted, EvictedNonzero, EvictedTime          uint64 // EvictedTime: seconds since the last access of the last evicted item
	OutOfMemory, TailRepairs, Reclaimed           uint64
	ExpiredUnfetched, EvictedUnfetched            uint64
	EvictedActive, CrawlerReclaimed               uint64
	CrawlerItemsChecked, LRUTailReflocked         uint64
	MovesToCold, MovesToWarm, MovesWithinLRU      uint64
	DirectReclaims                                uint64
	HitsToHot, HitsToWarm, HitsToCold, HitsToTemp uint64
}

// counter names what a session counts.
type counter int

const (
	nGets counter = iota
	nGetExpired
	nGetFlushed
	nTouches
	nTouchMisses
	nFlushes
	nDeleteMisses
	nIncrMisses
	nDecrMisses
	nCasMisses
	nTooLarge
	nNoMemory
	nStored
	nBumpsDropped
	counterCount
)

// classCounter names what a session counts by slab class.
type classCounter int

const (
	classGets classCounter = iota
	classSets
	classDeletes
	classIncrs
	classDecrs
	classCasHits
	classCasBadval
	classTouches
	hitHot // and the other LRU segments behind it
	_
	_
	_
	classCounterCount
)

// counters are one session's: only it adds, so the cache line stays with its processor; anybody reads.
type counters struct {
	all   [counterCount]atomic.Uint64
	class [mmapslab.ClassIDs][classCounterCount]atomic.Uint64
}

// tally is what a session has counted since it last published: plain numbers, for an atomic addition takes as long as finding a key whose bucket is cached.
type tally struct {
	published counters
	dirty     bool
	all       [counterCount]uint32
	class     [mmapslab.ClassIDs][classCounterCount]uint32
	classes   [mmapslab.ClassIDs / 64]uint64 // bits of those that were counted in
}

func (t *tally) inc(n counter) {
	t.dirty = true
	t.all[n]++
}

func (t *tally) inClass(class int, n classCounter) {
	t.dirty = true
	t.class[class][n]++
	t.classes[class/64] |= 1 << (class % 64)
}

func (t *tally) publish() {
	if !t.dirty {
		return
	}
	t.dirty = false
	for i := range t.all {
		if n := t.all[i]; n != 0 {
			t.published.all[i].Add(uint64(n))
			t.all[i] = 0
		}
	}
	for i, word := range t.classes {
		for ; word != 0; word &= word - 1 {
			class := i*64 + bits.TrailingZeros64(word)
			for j := range t.class[class] {
				if n := t.class[class][j]; n != 0 {
					t.published.class[class][j].Add(uint64(n))
					t.class[class][j] = 0
				}
			}
		}
		t.classes[i] = 0
	}
}

// Publish makes what the session did so far in its section count in Stats; End does so, too. A server publishes before it sends replies: who has read one
// finds it counted.
func (s *Session) Publish() {
	s.unlinkLeft()
	s.counts.publish()
}

// add adds all of other's counts.
func (c *counters) add(other *counters) {
	for i := range c.all {
		c.all[i].Add(other.all[i].Load())
	}
	for class := range c.class {
		for i := range c.class[class] {
			if n := other.class[class][i].Load(); n != 0 {
				c.class[class][i].Add(n)
			}
		}
	}
}

func (c *counters) reset() {
	for i := range c.all {
		c.all[i].Store(0)
	}
	for class := range c.class {
		for i := range c.class[class] {
			c.class[class][i].Store(0)
		}
	}
}

// event names what happens to a class in memory management, whoever does it.
type event int

const (
	evEvicted event = iota
	evEvictedNonzero
	evEvictedTime // no count: the age of the last one
	evEvictedUnfetched
	evEvictedActive
	evReclaimed
	evExpiredUnfetched
	evOutOfMemory
	evDirectReclaims
	evJuggles
	evCrawlerReclaimed
	evCrawlerChecked
	eventCount
)

// classEvents are rare beside requests, so all sessions share them.
type classEvents [eventCount]atomic.Uint64

func (e *classEvents) inc(n event) { e[n].Add(1) }

// sum returns the counts of all sessions, closed ones included.
func (c *Cache) sum() *counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := new(counters)
	total.add(&c.past)
	for s := range c.sessions {
		total.add(&s.counts.published)
	}
	return total
}

// ResetStats sets the counters to zero, as `stats reset` does. What is counted meanwhile may be lost.
func (c *Cache) ResetStats() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past.reset()
	for s := range c.sessions {
		s.counts.published.reset()
	}
	for class := range c.events {
		for i := range c.events[class] {
			c.events[class][i].Store(0)
		}
	}
	c.order.ResetMoves()
	c.mover.reset()
}

// Stats returns the counters, summed over all sessions.
func (c *Cache) Stats() Stats {
	n := c.sum()
	limit, assigned, pool := c.store.Pages()
	ix := c.index.Stats()
	c.mu.Lock()
	restart := c.restart
	c.mu.Unlock()
	of := func(i counter) uint64 { return n.all[i].Load() }
	s := Stats{
		CmdGet: of(nGets), CmdTouch: of(nTouches), CmdFlush: of(nFlushes), GetExpired: of(nGetExpired), GetFlushed: of(nGetFlushed),
		DeleteMisses: of(nDeleteMisses), IncrMisses: of(nIncrMisses), DecrMisses: of(nDecrMisses), CasMisses: of(nCasMisses),
		TouchMisses: of(nTouchMisses), StoreTooLarge: of(nTooLarge), StoreNoMemory: of(nNoMemory), TotalItems: of(nStored),
		LRUBumpsDropped: of(nBumpsDropped),
		LimitMaxbytes:   uint64(limit) * mmapslab.PageSize, TotalMalloced: uint64(assigned) * mmapslab.PageSize, GlobalPagePool: uint64(pool),
		HashBuckets: uint64(ix.Buckets), HashBytes: uint64(ix.Bytes), HashIsExpanding: ix.Growing, IndexLoad: ix.Load, CurrItems: uint64(ix.Items),
		RestartKind: restart.verdict.Kind.String(), RestartReason: restart.verdict.Reason, RestartItems: uint64(restart.items),
		RestartAttachMicros: restart.attach.Microseconds(), RestartSweepMillis: restart.sweep.Milliseconds(),
		CorruptItems: uint64(restart.swept.Invalid) + c.corrupt.Load(),
		ScrubPasses:  c.scrubber.passes.Load(), ScrubBytes: c.scrubber.bytes.Load(), ScrubPlace: float64(c.scrubber.place.Load()) / 1000,
		RestartSweeping: c.sweeper.Load() != nil,
	}
	s.RestartUnclean, s.RestartOwnFaults, s.RestartSweepProgress = restart.unclean, restart.ownFaults, 1
	if sweeper := c.sweeper.Load(); sweeper != nil {
		s.RestartSweepProgress = sweeper.Progress()
	}
	for class := range n.class {
		k := func(i classCounter) uint64 { return n.class[class][i].Load() }
		e := func(i event) uint64 { return c.events[class][i].Load() }
		s.GetHits += k(classGets)
		s.CmdSet += k(classSets)
		s.DeleteHits += k(classDeletes)
		s.IncrHits += k(classIncrs)
		s.DecrHits += k(classDecrs)
		s.CasHits += k(classCasHits)
		s.CasBadval += k(classCasBadval)
		s.TouchHits += k(classTouches)
		s.Evictions += e(evEvicted)
		s.EvictedUnfetched += e(evEvictedUnfetched)
		s.EvictedActive += e(evEvictedActive)
		s.Reclaimed += e(evReclaimed)
		s.ExpiredUnfetched += e(evExpiredUnfetched)
		s.DirectReclaims += e(evDirectReclaims)
		s.CrawlerReclaimed += e(evCrawlerReclaimed)
		s.Juggles += e(evJuggles)
		lists := c.order.Class(class, c.Now())
		for _, bytes := range lists.Bytes {
			s.Bytes += bytes
		}
		s.MovesToCold += lists.Moves.ToCold
		s.MovesToWarm += lists.Moves.ToWarm
		s.MovesWithinLRU += lists.Moves.WithinLRU
	}
	s.CrawlerStarts, s.CrawlerRunning = c.crawler.state()
	c.mover.stats(&s, c.store)
	s.GetMisses = s.CmdGet - min(s.CmdGet, s.GetHits)
	return s
}

// ClassStats returns the slab classes that have pages, by id.
func (c *Cache) ClassStats() (all []ClassStats) {
	n := c.sum()
	for class := range n.class {
		info, ok := c.store.ClassInfo(class)
		if !ok || info.Pages == 0 {
			continue
		}
		k := func(i classCounter) uint64 { return n.class[class][i].Load() }
		e := func(i event) uint64 { return c.events[class][i].Load() }
		lists := c.order.Class(class, c.Now())
		total := info.Pages * uint64(info.PerPage)
		s := ClassStats{
			ID: class, ChunkSize: info.ChunkSize, ChunksPerPage: info.PerPage,
			Pages: info.Pages, TotalChunks: total, UsedChunks: total - info.Free, FreeChunks: info.Free,
			GetHits: k(classGets), CmdSet: k(classSets), DeleteHits: k(classDeletes), IncrHits: k(classIncrs), DecrHits: k(classDecrs),
			CasHits: k(classCasHits), CasBadval: k(classCasBadval), TouchHits: k(classTouches),
			NumberHot: lists.Count[lru.Hot], NumberWarm: lists.Count[lru.Warm], NumberCold: lists.Count[lru.Cold], NumberTemp: lists.Count[lru.Temp],
			AgeHot: uint64(lists.Age[lru.Hot]), AgeWarm: uint64(lists.Age[lru.Warm]), Age: uint64(lists.Age[lru.Cold]),
			Evicted: e(evEvicted), EvictedNonzero: e(evEvictedNonzero), EvictedTime: e(evEvictedTime), OutOfMemory: e(evOutOfMemory),
			Reclaimed: e(evReclaimed), ExpiredUnfetched: e(evExpiredUnfetched), EvictedUnfetched: e(evEvictedUnfetched), EvictedActive: e(evEvictedActive),
			DirectReclaims: e(evDirectReclaims), CrawlerReclaimed: e(evCrawlerReclaimed), CrawlerItemsChecked: e(evCrawlerChecked),
			MovesToCold: lists.Moves.ToCold, MovesToWarm: lists.Moves.ToWarm, MovesWithinLRU: lists.Moves.WithinLRU,
			HitsToHot: k(hitHot), HitsToWarm: k(hitHot + lru.Warm), HitsToCold: k(hitHot + lru.Cold), HitsToTemp: k(hitHot + lru.Temp),
		}
		for i := range lists.Count {
			s.Number += lists.Count[i]
			s.MemRequested += lists.Bytes[i]
		}
		all = append(all, s)
	}
	return all
}
