package hearth

import (
	"time"

	"hearth/mmapslab"
)

// EventKind names what an Event tells of.
type EventKind uint8

const (
	EventEvicted EventKind = iota // a living item gave way to others
	EventCrawled                  // a crawl is through with an LRU segment of a class, in which it has looked at something
	EventMoved                    // the page mover moved a page, or gave up
)

// Event is something that the cache did on its own account. The fields behind a kind are its.
type Event struct {
	Kind  EventKind
	Class int // memcached's slab class id; of a page that moved: its old one

	// EventEvicted
	Key     []byte // valid during the call only
	Fetched bool   // it was fetched at least once
	Exptime uint32 // seconds since 1970; 0: never
	Age     uint32 // seconds since its last bump
	Size    int    // bytes of the value

	// EventCrawled
	Segment             int // 0 HOT, 1 WARM, 2 COLD, 3 TEMP
	Examined, Reclaimed uint64
	Took                time.Duration // of the whole crawl

	// EventMoved
	To     int  // the page's new class
	Failed bool // it stayed where it was
}

// Observe has f called with each event from now on, in the place of the function before; nil: with none, and then an event costs a load. f is called by
// whoever does what the event tells of, in the middle of it: f must be safe for concurrent use and quick, and must not use the cache. A call that has begun may
// go on after the next Observe returned.
func (c *Cache) Observe(f func(*Event)) {
	if f == nil {
		c.observer.Store(nil)
	} else {
		c.observer.Store(&f)
	}
}

// observeEviction tells of an item that was evicted. The calling session is in a section that saw it, so it can still be read.
func (c *Cache) observeEviction(ref mmapslab.Ref, it *mmapslab.Item, m mmapslab.Meta, now uint32) {
	if f := c.observer.Load(); f != nil {
		(*f)(&Event{
			Kind: EventEvicted, Class: c.store.ListClass(ref), Key: it.Key(), Fetched: m&mmapslab.Fetched != 0, Exptime: m.Exptime(), Age: m.Age(now),
			Size: it.ValueLen(),
		})
	}
}

// crawlTally is what a crawl found in each class and segment.
type crawlTally [mmapslab.ClassIDs][4]struct{ examined, reclaimed uint64 }

func (c *Cache) observeCrawl(t *crawlTally, began time.Time) {
	f := c.observer.Load()
	if f == nil {
		return
	}
	took := time.Since(began)
	for class := range t {
		for segment, n := range t[class] {
			if n.examined > 0 {
				(*f)(&Event{Kind: EventCrawled, Class: class, Segment: segment, Examined: n.examined, Reclaimed: n.reclaimed, Took: took})
			}
		}
	}
}
