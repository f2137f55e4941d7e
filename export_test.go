package hearth

import (
	"time"

	"hearth/index"
	"hearth/mmapslab"
)

// Tick makes the cache look at its clock now, so that tests need not wait for the keeper.
func (c *Cache) Tick() {
	c.pauseKeeper(true)
	defer c.pauseKeeper(false)
	c.tick()
}

// Round does the keeper's work now.
func (c *Cache) Round() { c.round() }

// Pause keeps the keeper from working, and ends a crawl that it started, for tests whose order they would disturb. Afterwards crawls are not put off: the
// keeper, which waits to begin a round, may have started one by the time that Pause returns.
func (c *Cache) Pause(pause bool) {
	c.pauseKeeper(pause)
	if !pause {
		return
	}
	if done := c.PutOffAutocrawl(); done != nil {
		<-done
	}
}

// Claim does the first step of an operation that copies the item of key: from it on touches go by way of a copy.
func (s *Session) Claim(key []byte) {
	var f found
	s.look(&f, key)
	s.claim(&f)
}

// Waiting returns how many retired items are not free yet.
func (c *Cache) Waiting() int64 { return c.recl.waiting.Load() }

// Renewals returns how often the session has renewed its section on its own.
func (s *Session) Renewals() uint64 { return s.renewals }

var ParseNumber = parseNumber

// Abandon gives the cache up as a kill would: nothing is saved, the file says running.
func (c *Cache) Abandon() error {
	c.WaitSwept() // a thread of this process cannot be killed alone; processes are, in cmd/hearthd
	c.stopScrubber()
	c.stopKeeper()
	c.StopCrawl()
	return c.store.Close()
}

// FitIndex does what the keeper does once in a while, at the given time, and returns when the index has stopped moving and the old table's memory
// is back, which waits for the sections that are open.
func (c *Cache) FitIndex(now time.Time) {
	c.pauseKeeper(true)
	c.fitIndex(now)
	c.pauseKeeper(false)
	for st := c.index.Stats(); st.Growing || st.Draining || st.Fitting; st = c.index.Stats() {
		c.Round()
	}
}

// EmptyPage asks for a page of a class even if it is the class's last; it does not evict.
func (c *Cache) EmptyPage(src, dst int) bool {
	m := &c.mover
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running.Load() || c.sweeper.Load() != nil {
		return false
	}
	m.asked = &pageMove{src: src, dst: dst}
	m.running.Store(true)
	c.wakeKeeper()
	return true
}

// Look is a look of an automover that has seen nothing else than what the samples before it were like: rows of evictions, out of memory, age, free chunks and pages, for class 1 and on,
// with ten chunks a page.
func Look(a *AutomoveSettings, full bool, looks [][][5]uint64) (src, dst int) {
	var m automover
	for _, look := range looks {
		var now [maxAutomove + 1]classSample
		for i, n := range look {
			now[i+1] = classSample{evicted: n[0], outOfMemory: n[1], age: n[2], free: n[3], pages: n[4], perPage: 10}
		}
		src, dst = m.look(&now, a, full, false)
	}
	return src, dst
}

// CancelMove takes the page that is being emptied, if there is one, back.
func (c *Cache) CancelMove() {
	c.pauseKeeper(true)
	defer c.pauseKeeper(false)
	if m := &c.mover; m.page != 0 {
		c.store.CancelDrain(m.move.src)
		c.pageMoved(m.move.src, m.move.dst, false)
	}
}

// RoundPaused is Round for whoever has paused the keeper.
func (c *Cache) RoundPaused() {
	c.pauseKeeper(false)
	c.round()
	c.pauseKeeper(true)
}

// Misplace puts the index word of key where the key does not lead, as damage may have it: far away, and with another tag, since far away may be a place of the key's window.
func (c *Cache) Misplace(key string) bool {
	h := c.store.Hasher().Sum([]byte(key))
	ref, ok := c.index.Find(h, []byte(key))
	if !ok || !c.index.Delete(h, ref) {
		return false
	}
	r, _ := c.index.Insert(h^(1<<63|1), []byte(key), ref)
	return r == index.Inserted
}

// BeingMoved tells, at the fault point hearth.move.copied, whether the item of key is the one that was copied.
func (c *Cache) BeingMoved(key string) bool {
	ref, ok := c.index.Find(c.store.Hasher().Sum([]byte(key)), []byte(key))
	return ok && c.store.PageOf(ref) == c.mover.page && mmapslab.Meta(c.store.Meta(ref).Load())&mmapslab.Copying != 0
}

// OpenHeap opens the cache in arena, a file on the heap, as a kill or Close left it; nil: a new one. Sweeping is over when it returns, and no goroutine works for the
// cache: the keeper's work is Round's caller's. Nothing need be closed.
func OpenHeap(o Options, arena *mmapslab.Arena) (*Cache, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c, err := open(o, mmapslab.HeapFile(arena))
	if err != nil {
		return nil, err
	}
	c.crawler.hold(true)
	c.keeper.session = c.NewSession()
	c.keeper.stop, c.keeper.done, c.keeper.wake = make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	close(c.keeper.done)
	if c.sweeper.Load() != nil {
		c.sweep(1) // one store at a time, for who records them
	} else {
		close(c.sweepDone)
	}
	return c, nil
}

// Arena is the cache's memory.
func (c *Cache) Arena() *mmapslab.Arena { return c.store.Arena() }

// CrawlNow goes over all segments.
func (c *Cache) CrawlNow() {
	s := c.NewSession()
	defer s.Close()
	for class := range mmapslab.ClassIDs {
		for segment := range crawlSegments {
			s.crawl([]crawlList{{class, segment}}, CrawlOptions{}, false, nil)
		}
	}
}

// SetFirstBuckets changes the size of a new index, and returns what it was.
func SetFirstBuckets(n uint32) (was uint32) {
	was, firstBuckets = firstBuckets, n
	return was
}

// Growths returns how often the index has grown.
func (c *Cache) Growths() int64 { return c.index.Stats().Growths }

// IndexEnd returns where the index begins and ends in the arena.
func (c *Cache) IndexEnd() [2]int64 {
	_, half, size := c.store.IndexRegion()
	return [2]int64{half[0], half[1] + size}
}

// ScrubNow does a pass of the scrubber.
func (c *Cache) ScrubNow(s *Session) bool { return s.scrub(func(int) bool { return true }) }

// Verifying tells whether any item is still to be verified.
func (c *Cache) Verifying() bool { return c.verifier.Load() != nil }

// Offset returns where in the file the item of key is, and where its value begins; for a chained one that of its first part.
func (c *Cache) Offset(key string) (item, value int64) {
	ref, ok := c.index.Find(c.store.Hasher().Sum([]byte(key)), []byte(key))
	if !ok {
		return 0, 0
	}
	item = ref.Offset()
	value = item + mmapslab.HeaderSize + int64(len(key))
	if ref&mmapslab.Chained != 0 {
		it, _ := c.store.Item(ref)
		value = 0
		c.store.Chain(&it, func(data mmapslab.Ref, _ []byte) {
			if value == 0 {
				value = data.Offset() + mmapslab.DataHeaderSize
			}
		})
	}
	return item, value
}

// LinkOffset returns where in the file the LRU's links of key's item are.
func (c *Cache) LinkOffset(key string) int64 {
	ref, ok := c.index.Find(c.store.Hasher().Sum([]byte(key)), []byte(key))
	if !ok {
		return 0
	}
	return int64(c.store.Super().Layout.Links) + int64(c.store.ID(ref))*8
}
