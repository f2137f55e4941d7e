package hearth

import "sync/atomic"

// crawlSeen is what a crawl saw in one LRU segment.
type crawlSeen struct {
	began, ended uint32 // the cache's time
	living       uint64 // items that it left
	forever      uint64 // of those, the ones without an exptime
	reclaimed    uint64
	soon         [crawlMinutes]uint64 // living items by the minutes that they have left, while that is less than an hour
}

const crawlMinutes = 60

func (c *crawlSeen) add(exptime, now uint32) {
	c.living++
	if exptime == 0 {
		c.forever++
	} else if minute := (exptime - now) / 60; minute < crawlMinutes {
		c.soon[minute]++
	}
}

// crawlPlan is when an LRU segment is crawled next. The zero value is due.
type crawlPlan struct {
	next uint32                    // from after this time on
	wait uint32                    // seconds from the end of a crawl to the next, crawlRetry apart
	seen atomic.Pointer[crawlSeen] // by a crawl that has ended since the plan was last made; nil: none has
}

const (
	crawlRetry   = 5    // seconds between two crawls of a segment at least
	crawlAdapt   = 60   // steps of a plan's wait, in seconds
	crawlMaxWait = 3600 // the longest
)

// adapt makes the plan anew, by what the last crawl saw, as memcached's lru_maintainer_crawler_check: a crawl is worth it when it reclaims more than mark,
// one percent of the items that can expire. How many minutes that takes tells which way the wait goes, a step at a time. worth is how many items expire
// until then; 0: none do within the hour.
func (p *crawlPlan) adapt(seen *crawlSeen, now uint32) (mark, worth uint64) {
	mark = (seen.living-seen.forever)/100 + 1
	for minute, n := range seen.soon {
		if worth += n; worth > mark {
			if p.wait < uint32(minute)*60 {
				p.wait += crawlAdapt
			} else if p.wait >= crawlAdapt {
				p.wait -= crawlAdapt
			}
			break
		}
	}
	if worth == 0 {
		p.wait += crawlAdapt
	}
	p.wait = min(p.wait, crawlMaxWait)
	p.next = now + p.wait + crawlRetry
	return mark, worth
}

// autocrawl starts a crawl of the segments that are due, once a second. A segment that nothing is in, or was yet, keeps its plan. During the sweep after a kill the
// lists are not whole, so it waits for that.
func (c *Cache) autocrawl() {
	k, now := &c.crawler, c.Now()
	if now == k.looked || c.sweeper.Load() != nil {
		return
	}
	k.looked = now
	var due []crawlList
	for class := range k.plans {
		count := c.order.Class(class, now).Count
		for segment := range k.plans[class] {
			p := &k.plans[class][segment]
			if seen := p.seen.Swap(nil); seen != nil {
				mark, worth := p.adapt(seen, now)
				c.observeCrawl(&Event{
					Kind: EventCrawled, Class: class, Segment: segment, Examined: seen.living, Reclaimed: seen.reclaimed, Took: seen.ended - seen.began,
					LowMark: mark, NextReclaims: worth, SinceRun: now - seen.ended, NextRun: p.next - now,
				})
			}
			if now > p.next && count[segment] > 0 {
				due = append(due, crawlList{class, segment})
			}
		}
	}
	if len(due) == 0 {
		return
	}
	for _, l := range due { // also when it cannot start now, or is stopped
		k.plans[l.class][l.segment].next = now + crawlRetry
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// The settings are read here, so that whoever turns crawls off, and then stops the one that runs, stops the last one.
	if settings := k.settings.Load(); !settings.Off && !k.held && now > k.blocked {
		c.startCrawlLocked(due, CrawlOptions{Sleep: settings.Sleep, Most: settings.Most}, true)
	}
}
