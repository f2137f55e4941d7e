package hearth

import (
	"runtime"
	"time"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// reserve is how many chunks of a class are kept free once memory is full, by evicting a little ahead: what is evicted can be used only when every
// session has left its section, and a set should not wait for that. Classes with few chunks a page keep less.
func reserve(perPage int) uint64 { return uint64(min(16, perPage/64)) }

// Bounds on waiting for other sessions' sections in alloc.
const (
	evictRounds = 8                      // rounds that evict one more item while earlier ones wait to be freed
	roundMost   = time.Millisecond       // what a round counts at most: where it takes longer, as when the process is stopped, others had no processor either, to leave a section
	waitMost    = 250 * time.Millisecond // then no memory
	sweepMost   = 5 * time.Second        // likewise while a sweep runs, which finds free memory page by page
	growMost    = time.Millisecond       // then, and after growRounds, a full window of the index evicts
	growRounds  = 32
)

// alloc takes a chunk of a class: a free one, one of a new page, or one that an evicted item leaves. It may renew the section.
func (s *Session) alloc(class int) (mmapslab.Ref, bool) {
	ref, left, ok := s.slot.chunks.Alloc(class)
	if !ok {
		return s.allocSlow(class)
	}
	if s.c.full.Load() && left+uint64(s.c.recl.waiting.Load()) < reserve(s.c.store.ClassChunks(class)) && !s.c.opts.NoEvict {
		s.c.events[class].inc(evDirectReclaims)
		s.evictOne(class)
	}
	return ref, true
}

func (s *Session) allocSlow(class int) (mmapslab.Ref, bool) {
	counts := &s.c.events[class]
	var left time.Duration // to wait
	var looked time.Time
	for round := 0; ; round++ {
		// Both are read before the search for memory: what comes free behind its back, as the last of a sweep or of what waited, is found by another round.
		sweeping := s.c.sweeper.Load() != nil
		settled := !sweeping && s.c.recl.waiting.Load() == 0 && len(s.limbo) == 0
		exhausted := s.c.opts.NoEvict
		if !s.c.store.AddPage(class) {
			s.c.full.Store(true)
			// After some rounds it waits for what is evicted already, rather than empty the cache while one section stays open. When nothing is
			// waiting, other sessions took what we evicted, and it goes on.
			if !s.c.opts.NoEvict && (round < evictRounds || s.c.recl.waiting.Load() == 0) {
				counts.inc(evDirectReclaims)
				exhausted = !s.evictOne(class)
				if exhausted && class != s.c.store.Largest() {
					// The class's chunks may all be parts of large items, which are listed there.
					exhausted = !s.evictOne(s.c.store.Largest())
				}
			}
			s.renew()
		}
		if ref, _, ok := s.slot.chunks.Alloc(class); ok {
			return ref, true
		}
		// Somebody's section is open, or another session took what we freed.
		fault.Point("hearth.alloc.waiting")
		now := time.Now()
		left -= min(now.Sub(looked), roundMost)
		looked = now
		switch {
		case round == 0 && sweeping:
			left = sweepMost
		case round == 0:
			left = waitMost
		case exhausted && settled && (s.c.opts.NoEvict || round >= evictRounds),
			left <= 0:
			counts.inc(evOutOfMemory)
			return 0, false
		case round < 2*evictRounds:
			runtime.Gosched()
		default:
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// growthWait is how long a store has waited for the index to grow.
type growthWait struct {
	rounds int
	since  time.Time
}

// awaitGrowth renews the section, since the index may be waiting for this very one to end before it can grow, and lets others run. False when the window that
// was full has to evict: growth is not on its way, or the store has waited long enough.
func (s *Session) awaitGrowth(w *growthWait) bool {
	if !s.c.index.Due() {
		return false
	}
	if w.rounds == 0 {
		w.since = time.Now()
	} else if w.rounds >= growRounds && time.Since(w.since) > growMost {
		return false
	}
	w.rounds++
	s.renew()
	runtime.Gosched()
	return true
}

// evictOne evicts the item at the end of COLD, or a dead one before it. Where COLD is empty the end of HOT or WARM cools first, as in memcached. False when
// the class has nothing to evict; when other sessions were faster with all that it looked at there is, and it is true.
func (s *Session) evictOne(class int) bool {
	const tries = 5
	for range tries {
		var buf [tries]mmapslab.Ref
		refs := s.c.order.Tail(class, lru.Cold, buf[:0])
		for _, ref := range refs {
			if s.evict(ref) {
				s.c.wantPage(class)
				return true
			}
		}
		if len(refs) == tries {
			// Somebody is removing them, or damaged words name them where their keys do not lead: those would stand at the end for ever.
			for _, ref := range refs {
				s.c.order.SetAside(ref)
				s.orphan(ref)
			}
		}
		// While a sweep runs the older items are yet to come: cooling would evict what was just stored.
		if len(refs) == 0 && (s.c.sweeper.Load() != nil || !s.c.order.Cool(class)) {
			return false
		}
	}
	return true
}

// evict removes an item that the LRU gave up; false when it is not in the index: it is being published or removed by somebody else.
func (s *Session) evict(ref mmapslab.Ref) bool {
	it, ok := s.c.store.Item(ref)
	if !ok {
		return false
	}
	f := found{hash: s.hasher.Sum(it.Key()), ref: ref, item: it, meta: mmapslab.Meta(s.c.store.Meta(ref).Load())}
	f.fate = s.c.fate(&it, f.meta, s.now)
	fault.Point("hearth.evict.chosen")
	if !s.remove(&f) {
		return false
	}
	counts := &s.c.events[s.c.store.ListClass(ref)]
	fetched := f.meta&mmapslab.Fetched != 0
	if f.fate != alive {
		counts.inc(evReclaimed)
		if !fetched {
			counts.inc(evExpiredUnfetched)
		}
		return true
	}
	counts.inc(evEvicted)
	counts[evEvictedTime].Store(uint64(f.meta.Age(s.now)))
	if f.meta.Exptime() != 0 {
		counts.inc(evEvictedNonzero)
	}
	if !fetched {
		counts.inc(evEvictedUnfetched)
	}
	if f.meta&mmapslab.Active != 0 {
		counts.inc(evEvictedActive)
	}
	s.c.observeEviction(ref, &it, f.meta, s.now)
	return true
}
