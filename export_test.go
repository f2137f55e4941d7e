package hearth

import "time"

// Tick makes the cache look at its clock now, so that tests need not wait for the keeper.
func (c *Cache) Tick() {
	c.pauseKeeper(true)
	defer c.pauseKeeper(false)
	c.tick()
}

// Round does the keeper's work now.
func (c *Cache) Round() { c.round() }

// Pause keeps the keeper from working, for tests whose order it would disturb.
func (c *Cache) Pause(pause bool) { c.pauseKeeper(pause) }

// Claim does the first step of an operation that copies the item of key: from it on touches go by way of a copy.
func (s *Session) Claim(key []byte) {
	f := s.look(key)
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
	c.stopKeeper()
	return c.store.Close()
}

// FitIndex does what the keeper does once in a while, at the given time, and returns when the index has stopped moving.
func (c *Cache) FitIndex(now time.Time) {
	c.pauseKeeper(true)
	c.fitIndex(now)
	c.pauseKeeper(false)
	for c.Stats().HashIsExpanding {
		c.Round()
	}
}
