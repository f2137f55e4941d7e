package hearth

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hearth/mmapslab"
)

// crawler removes expired and flushed items from the whole of LRU segments, where the maintainer looks at their ends only. It runs when it is asked to, and by
// itself when enough of what the last run saw has expired since (autocrawl). It has a goroutine and session of its own for each run, so that a
// round of the keeper, which starts it, stays short.
type crawler struct {
	settings atomic.Pointer[AutocrawlSettings]
	starts   atomic.Uint64
	step     sync.Mutex // held while a crawl is in a section

	mu      sync.Mutex
	stop    chan struct{} // nil: not running
	done    chan struct{}
	auto    bool   // it runs by itself
	held    bool   // it may not start by itself: the cache is being closed
	blocked uint32 // the cache's time until which it does not start by itself

	// The keeper's, but for results.
	looked uint32 // the cache's time when it last looked what is due
	plans  [mmapslab.ClassIDs][crawlSegments]crawlPlan
}

// crawlSegments is how many LRU segments a class has. They are crawled in the order HOT, WARM, COLD, TEMP, the way that the maintainer moves items: what
// leaves a segment ahead of the crawl is met in the next one.
const crawlSegments = 4

// CrawlOptions say what a crawl does.
type CrawlOptions struct {
	// Class tells which classes' items are looked at, by memcached's id; nil: all.
	Class func(id int) bool
	// Sleep is how long it rests after every thousand items.
	Sleep time.Duration
	// Most is how many items of each LRU segment it looks at, the oldest first; 0: all.
	Most uint64
}

// AutocrawlSettings say how crawls go that start by themselves.
type AutocrawlSettings struct {
	Off   bool          // none do
	Sleep time.Duration // as CrawlOptions has them
	Most  uint64
}

// DefaultAutocrawl is memcached's.
var DefaultAutocrawl = AutocrawlSettings{Sleep: 100 * time.Microsecond}

// Autocrawl returns the settings of now.
func (c *Cache) Autocrawl() AutocrawlSettings { return *c.crawler.settings.Load() }

// SetAutocrawl changes them, from the next crawl on. Off does not end one that is running: see StopCrawl.
func (c *Cache) SetAutocrawl(a AutocrawlSettings) { c.crawler.settings.Store(&a) }

const (
	crawlBatch = 1000 // items between two rests; memcached's
	crawlStep  = 64   // items in one section
	crawlBlock = 60   // seconds without crawls that start by themselves after somebody else wanted to do one; memcached's
)

// crawlList names an LRU segment of a class.
type crawlList struct{ class, segment int }

// Crawl starts a crawl in the background; false when another is running that was asked for, or the cache is closed. One that started by itself gives way.
func (c *Cache) Crawl(o CrawlOptions) bool {
	var lists []crawlList
	for class := range mmapslab.ClassIDs {
		for segment := range crawlSegments {
			if o.Class == nil || o.Class(class) {
				lists = append(lists, crawlList{class, segment})
			}
		}
	}
	for {
		if done := c.PutOffAutocrawl(); done != nil {
			<-done
		}
		k := &c.crawler
		k.mu.Lock()
		if k.auto { // it began in between
			k.mu.Unlock()
			continue
		}
		defer k.mu.Unlock()
		return c.startCrawlLocked(lists, o, false)
	}
}

// startCrawlLocked is called with crawler.mu held.
func (c *Cache) startCrawlLocked(lists []crawlList, o CrawlOptions, auto bool) bool {
	k := &c.crawler
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.stop != nil || c.closed {
		return false
	}
	s := c.newSessionLocked()
	stop, done := make(chan struct{}), make(chan struct{})
	k.stop, k.done, k.auto = stop, done, auto
	k.starts.Add(1)
	go func() {
		defer close(done)
		debug.SetPanicOnFault(true)
		defer c.catchFault()
		s.crawl(lists, o, auto, stop)
		s.Close()
		k.mu.Lock()
		defer k.mu.Unlock()
		k.stop, k.done, k.auto = nil, nil, false
	}()
	return true
}

// StopCrawl ends a crawl that is running, and waits until it has ended.
func (c *Cache) StopCrawl() {
	k := &c.crawler
	k.mu.Lock()
	done := k.done
	k.stopLocked()
	k.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (k *crawler) stopLocked() {
	if k.stop != nil {
		select {
		case <-k.stop: // another call was faster
		default:
			close(k.stop)
		}
	}
}

// PutOffAutocrawl ends a crawl that started by itself, if one is running, and keeps others from starting for a minute: for whoever wants to go over many items
// without sharing the machine with it. What it returns is closed when that one has ended; nil: none was running.
func (c *Cache) PutOffAutocrawl() (done <-chan struct{}) {
	k := &c.crawler
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.auto {
		return nil
	}
	k.blocked = c.Now() + crawlBlock
	k.stopLocked()
	return k.done
}

// hold keeps crawls from starting by themselves.
func (k *crawler) hold(held bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = held
}

// state returns how many crawls were started and whether one runs.
func (k *crawler) state() (starts uint64, running bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.starts.Load(), k.stop != nil
}

// crawl is one crawl, on a goroutine and session of its own. What it saw of segments that it went through to the end is left to the plans if it is one that
// started by itself.
func (s *Session) crawl(lists []crawlList, o CrawlOptions, auto bool, stop <-chan struct{}) {
	k := &s.c.crawler
	batch := 0
	for _, l := range lists {
		left := s.c.order.BeginCrawl(l.class, l.segment)
		if o.Most != 0 {
			left = min(left, o.Most)
		}
		seen := &crawlSeen{began: s.c.Now()}
		for left > 0 {
			n := s.crawlSome(l, int(min(left, crawlStep)), seen)
			if n == 0 {
				break
			}
			left -= uint64(n)
			batch += n
			var rest <-chan time.Time
			if batch >= crawlBatch && o.Sleep > 0 {
				batch = 0
				rest = time.After(o.Sleep)
			}
			if !restOr(stop, rest) {
				return
			}
		}
		seen.ended = s.c.Now()
		if auto {
			k.plans[l.class][l.segment].seen.Store(seen)
		}
	}
}

// restOr waits for rest, which may be nil; false: stop came first.
func restOr(stop <-chan struct{}, rest <-chan time.Time) bool {
	if rest == nil {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	select {
	case <-stop:
		return false
	case <-rest:
		return true
	}
}

// crawlSome looks at the next few items of a segment and returns how many it met.
func (s *Session) crawlSome(l crawlList, most int, seen *crawlSeen) int {
	s.c.crawler.step.Lock()
	defer s.c.crawler.step.Unlock()
	s.Begin()
	defer s.End()
	var buf [crawlStep]mmapslab.Ref
	refs := s.c.order.Crawl(l.class, l.segment, buf[:0:most])
	counts := &s.c.events[l.class]
	for _, ref := range refs {
		counts.inc(evCrawlerChecked)
		f := found{ref: ref}
		if !s.c.store.Look(&f.item, ref) {
			continue
		}
		f.meta = mmapslab.Meta(s.c.store.Meta(ref).Load())
		if f.fate = s.c.fate(&f.item, f.meta, s.now); f.fate == alive {
			seen.add(f.meta.Exptime(), s.now)
			continue
		}
		f.hash = s.hasher.Sum(f.item.Key())
		if !s.remove(&f) {
			continue
		}
		counts.inc(evCrawlerReclaimed)
		seen.reclaimed++
		if f.meta&mmapslab.Fetched == 0 {
			counts.inc(evExpiredUnfetched)
		}
	}
	return len(refs)
}
