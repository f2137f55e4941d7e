package hearth

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hearth/mmapslab"
)

// crawler removes expired and flushed items from all over the cache, where the maintainer looks at the ends of lists only. It runs when it is asked to.
type crawler struct {
	mu     sync.Mutex
	stop   chan struct{} // nil: not running
	done   chan struct{}
	starts atomic.Uint64
}

// CrawlOptions say what a crawl does.
type CrawlOptions struct {
	// Class tells which classes' items are looked at, by memcached's id; nil: all.
	Class func(id int) bool
	// Sleep is how long it rests after every thousand items.
	Sleep time.Duration
	// Most is how many items of a class it looks at; 0: all.
	Most uint64
}

// crawlBatch is how many items are looked at between two rests; memcached's.
const crawlBatch = 1000

// Crawl starts a crawl in the background; false when one is running, or the cache is closed.
func (c *Cache) Crawl(o CrawlOptions) bool {
	k := &c.crawler
	k.mu.Lock()
	defer k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.stop != nil || c.closed {
		return false
	}
	s := c.newSessionLocked()
	stop, done := make(chan struct{}), make(chan struct{})
	k.stop, k.done = stop, done
	k.starts.Add(1)
	go func() {
		defer close(done)
		debug.SetPanicOnFault(true)
		defer c.catchFault()
		s.crawl(o, stop)
		s.Close()
		k.mu.Lock()
		defer k.mu.Unlock()
		k.stop, k.done = nil, nil
	}()
	return true
}

// StopCrawl ends a crawl that is running, and waits until it has ended.
func (c *Cache) StopCrawl() {
	k := &c.crawler
	k.mu.Lock()
	stop, done := k.stop, k.done
	if stop != nil {
		select {
		case <-stop: // another call was faster
		default:
			close(stop)
		}
	}
	k.mu.Unlock()
	if done != nil {
		<-done
	}
}

// state returns how many crawls were started and whether one runs.
func (k *crawler) state() (starts uint64, running bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.starts.Load(), k.stop != nil
}

// crawl is one crawl, on a goroutine and session of its own.
func (s *Session) crawl(o CrawlOptions, stop <-chan struct{}) {
	var checked [mmapslab.ClassIDs]uint64
	var tally crawlTally
	defer s.c.observeCrawl(&tally, time.Now())
	var w Walk
	batch := 0
	for more := true; more; {
		s.Begin()
		more = w.next(s, func(f *found) {
			class := s.c.store.ListClass(f.ref)
			if o.Class != nil && !o.Class(class) || o.Most != 0 && checked[class] == o.Most {
				return
			}
			checked[class]++
			batch++
			seen := &tally[class][f.meta.Segment()]
			seen.examined++
			counts := &s.c.events[class]
			counts.inc(evCrawlerChecked)
			if f.fate == alive || !s.remove(f) {
				return
			}
			counts.inc(evCrawlerReclaimed)
			seen.reclaimed++
			if f.meta&mmapslab.Fetched == 0 {
				counts.inc(evExpiredUnfetched)
			}
		})
		s.End()
		var rest <-chan time.Time
		if batch >= crawlBatch {
			batch = 0
			if o.Sleep > 0 {
				rest = time.After(o.Sleep)
			}
		}
		if rest == nil {
			select {
			case <-stop:
				return
			default:
			}
			continue
		}
		select {
		case <-stop:
			return
		case <-rest:
		}
	}
}
