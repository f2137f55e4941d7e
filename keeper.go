package hearth

import (
	"runtime/debug"
	"sync"
	"time"

	"hearth/mmapslab"
)

// keeper is the cache's one background goroutine: it keeps the time, moves items between LRU segments, bumps what was noted, moves the
// index along while it grows, moves pages between slab classes, and starts crawls.
type keeper struct {
	session *Session
	stop    chan struct{}
	done    chan struct{}
	wake    chan struct{} // there is something to do
	pause   sync.Mutex    // held during a round

	fitAt    time.Time // when to look again whether the index is too large
	fitItems int64     // items then
}

// Back-off of the keeper: it sleeps longer while there is less to do. memcached's maintainer comes every millisecond while there is anything, which is a
// context switch and the scheduler's work for some ten items, a tenth of the processor where workers have no other; an item more in HOT does no harm.
const (
	keeperBusy   = time.Millisecond
	keeperSteady = 20 * time.Millisecond  // while there is something, but less than keeperMuch a round
	keeperIdle   = 250 * time.Millisecond // the cache's time is read from the clock this often at least
	keeperMuch   = 1024                   // moved items; an eighth of what a worker's ring holds
)

// pace returns how long the keeper sleeps after a round that moved so many items.
func pace(wait time.Duration, moved int) time.Duration {
	switch {
	case moved >= keeperMuch:
		return keeperBusy
	case moved > 0:
		return min(2*wait, keeperSteady)
	}
	return min(2*wait, keeperIdle)
}

func (c *Cache) startKeeper() {
	c.keeper.session = c.NewSession()
	c.keeper.stop, c.keeper.done, c.keeper.wake = make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(c.keeper.done)
		debug.SetPanicOnFault(true)
		defer c.catchFault()
		wait := keeperBusy
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for {
			select {
			case <-c.keeper.stop:
				return
			case <-c.keeper.wake:
			case <-timer.C:
			}
			wait = pace(wait, c.round())
			timer.Reset(wait)
		}
	}()
}

func (c *Cache) stopKeeper() {
	close(c.keeper.stop)
	<-c.keeper.done
	c.keeper.session.Close()
}

// wakeKeeper makes the next round begin now.
func (c *Cache) wakeKeeper() {
	select {
	case c.keeper.wake <- struct{}{}:
	default:
	}
}

// pauseKeeper keeps the keeper from starting a round.
func (c *Cache) pauseKeeper(pause bool) {
	if pause {
		c.keeper.pause.Lock()
	} else {
		c.keeper.pause.Unlock()
	}
}

// round does a bit of everything and returns how many items it moved; keeperMuch or more when there is more to do at once.
func (c *Cache) round() (moved int) {
	c.keeper.pause.Lock()
	defer c.keeper.pause.Unlock()
	c.tick()
	c.autocrawl()
	s := c.keeper.session
	for _, other := range c.allSessions() {
		s.Begin()
		for range lruBatch {
			ref, ok := other.ring.Take()
			if !ok {
				break
			}
			c.order.Bump(ref, s.now)
			moved++
		}
		s.End()
	}
	for class := 1; class < mmapslab.ClassIDs; class++ {
		s.Begin()
		if n := c.order.Juggle(class, s.now); n > 0 {
			moved += n
			c.events[class].inc(evJuggles)
		}
		s.End()
	}
	const buckets = 64 // a few tens of microseconds
	busy := false
	for growing, i := true, 0; growing && i < 256; i++ {
		s.Begin()
		growing = c.index.Help(buckets)
		s.End()
		busy = busy || growing
	}
	busy = c.movePages() || busy
	busy = c.fitIndex(time.Now()) || busy
	c.recl.collect(nil)
	switch {
	case busy:
		moved = max(moved, keeperMuch)
	case c.recl.waiting.Load() > 0: // perhaps nobody else comes to collect it
		moved = max(moved, 1)
	}
	return moved
}

// fitEvery is how long the number of items must have stayed about the same before the index is fitted to it. It is also what bounds the cost:
// a fit moves every word.
const fitEvery = time.Minute

// fitIndex gives memory of the index back that the last growth, or a time with more items, left over. It returns whether it did something.
func (c *Cache) fitIndex(now time.Time) (busy bool) {
	k := &c.keeper
	if now.Before(k.fitAt) {
		return false
	}
	items := c.index.Len()
	if near := k.fitItems / 100; items >= k.fitItems-near && items <= k.fitItems+near {
		k.session.Begin()
		busy = c.index.Fit()
		k.session.End()
	}
	k.fitAt, k.fitItems = now.Add(fitEvery), items
	return busy
}

// lruBatch bounds how many notes are taken in one section.
const lruBatch = 512

func (c *Cache) allSessions() []*Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Session, 0, len(c.sessions))
	for s := range c.sessions {
		all = append(all, s)
	}
	return all
}
