package hearth

import "hearth/mmapslab"

// EventKind names what an Event tells of.
type EventKind uint8

const (
	EventEvicted EventKind = iota // a living item gave way to others
	EventCrawled                  // a crawl that started by itself was through with an LRU segment of a class, and when the next one is due is settled
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
	Segment             int    // 0 HOT, 1 WARM, 2 COLD, 3 TEMP
	Examined, Reclaimed uint64 // items: living ones, dead ones
	Took                uint32 // seconds, for this segment
	SinceRun, NextRun   uint32 // seconds since its end, and until the next crawl of this segment
	LowMark             uint64 // a crawl that reclaims no more items than these is not worth it
	NextReclaims        uint64 // items that expire until it is; 0: none within the hour

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

func (c *Cache) observeCrawl(ev *Event) {
	if f := c.observer.Load(); f != nil {
		(*f)(ev)
	}
}
