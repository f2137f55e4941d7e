package hearth

import (
	"errors"
	"iter"
	"time"

	"hearth/mmapslab"
)

// Errors of the methods of Cache that store.
var (
	// ErrKey is returned when a key is empty or longer than mmapslab.MaxKey, 250 bytes.
	ErrKey = errors.New("hearth: key has no bytes or too many, want 1 to 250")
	// ErrTooLarge is returned when the item would exceed Options.MaxItemSize. The key has no value then.
	ErrTooLarge = errors.New("hearth: item larger than MaxItemSize")
	// ErrNoMemory is returned when no memory could be had: with Options.NoEvict, or while other sessions keep all of it in their sections. The key
	// may have lost its value.
	ErrNoMemory = errors.New("hearth: out of memory")
	// ErrClosed is returned when the cache is closed.
	ErrClosed = errors.New("hearth: cache is closed")
)

// Get appends the value of key to dst and returns the extended slice, and the flags it was stored with; ok is false when there is none.
func (c *Cache) Get(key, dst []byte) (value []byte, flags uint32, ok bool) {
	s := c.borrow()
	if s == nil {
		return dst, 0, false
	}
	defer c.giveBack(s)
	var it Item
	if s.Get(key, &it) != OK {
		return dst, 0, false
	}
	return it.AppendValue(dst), it.Flags, true
}

// Set stores value under key for ttl, in whole seconds rounded up; 0 means for good, and a negative one is over at once.
func (c *Cache) Set(key, value []byte, flags uint32, ttl time.Duration) error {
	if len(key) < 1 || len(key) > mmapslab.MaxKey {
		return ErrKey
	}
	s := c.borrow()
	if s == nil {
		return ErrClosed
	}
	defer c.giveBack(s)
	var d Draft
	st := s.Prepare(&d, Set, key, flags, s.protocolTime(ttl), len(value))
	if st == OK {
		if s.Write(&d, value) {
			_, st = s.Commit(&d, 0)
		} else {
			s.Discard(&d)
			st = NoMemory
		}
	}
	switch st {
	case OK:
		return nil
	case TooLarge:
		return ErrTooLarge
	}
	return ErrNoMemory
}

// protocolTime turns a TTL into an exptime of the protocol: a long one is absolute there.
func (s *Session) protocolTime(ttl time.Duration) int64 {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	switch {
	case ttl < 0:
		return -1
	case seconds > month:
		return int64(s.now) + seconds
	}
	return seconds
}

// Delete removes key's item, and tells whether there was one.
func (c *Cache) Delete(key []byte) bool {
	s := c.borrow()
	if s == nil {
		return false
	}
	defer c.giveBack(s)
	return s.Delete(key) == OK
}

// Do runs f in a section of a session: for operations that Cache itself does not have, and to look at values without copying them. What f is given out is f's
// until it returns; f must neither keep the session nor close it nor end its section. Do panics when the cache is closed.
func (c *Cache) Do(f func(s *Session)) {
	s := c.borrow()
	if s == nil {
		panic(ErrClosed)
	}
	defer c.giveBack(s)
	f(s)
}

// Items goes over all living items, in no order, while others read and write; Walk tells what it promises. The loop's body is in a section: it must be brief, and
// may delete, but not store, for the memory that a store waits for may be what the section holds. Each item is the body's until the next one.
func (c *Cache) Items() iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		var w Walk
		next := func() (more bool) {
			s := c.borrow()
			if s == nil {
				return false
			}
			defer c.giveBack(s)
			wanted := true
			more = w.Next(s, func(it *Item) { wanted = wanted && yield(it) })
			return more && wanted
		}
		for next() {
		}
	}
}

// idleMost bounds how many sessions are kept for later calls.
const idleMost = 64

// borrow returns a session in a section, nil when the cache is closed.
func (c *Cache) borrow() *Session {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	var s *Session
	if n := len(c.idle); n > 0 {
		s = c.idle[n-1]
		c.idle = c.idle[:n-1]
	} else {
		s = c.newSessionLocked()
	}
	c.mu.Unlock()
	s.Begin()
	return s
}

func (c *Cache) giveBack(s *Session) {
	s.End()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) < idleMost {
		c.idle = append(c.idle, s)
	} else {
		c.dropLocked(s)
	}
}
