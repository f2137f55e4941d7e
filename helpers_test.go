package hearth_test

import (
	"flag"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hearth"
)

// TestMain is also the other processes of the tests: see child.
func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		beChild(what)
	}
	goleak.VerifyTestMain(m)
}

// fakeClock is a clock that stands still until it is moved.
type fakeClock struct {
	wall, boot atomic.Int64 // seconds
	id         byte
}

func newClock() *fakeClock {
	c := &fakeClock{id: 1}
	c.wall.Store(1_700_000_000)
	c.boot.Store(5000)
	return c
}

func (c *fakeClock) Wall() int64         { return c.wall.Load() }
func (c *fakeClock) Boot() time.Duration { return time.Duration(c.boot.Load()) * time.Second }
func (c *fakeClock) BootID() [16]byte    { return [16]byte{c.id} }

// pass lets seconds pass in the world and in the cache.
func (c *fakeClock) pass(cache *hearth.Cache, seconds int64) {
	c.wall.Add(seconds)
	c.boot.Add(seconds)
	if cache != nil {
		cache.Tick()
	}
}

// in runs f in a section of its own.
func in(s *hearth.Session, f func()) {
	s.Begin()
	defer s.End()
	f()
}

// session returns a session that is closed at the end of the test.
func session(t testing.TB, c *hearth.Cache) *hearth.Session {
	t.Helper()
	s := c.NewSession()
	t.Cleanup(s.Close)
	return s
}

// store is Prepare, Write and Commit in one.
func store(s *hearth.Session, mode hearth.Mode, key, value string, exptime int64, cas uint64) (uint64, hearth.Status) {
	var d hearth.Draft
	if st := s.Prepare(&d, mode, []byte(key), 7, exptime, len(value)); st != hearth.OK {
		return 0, st
	}
	if !s.Write(&d, []byte(value)) {
		s.Discard(&d)
		return 0, hearth.NoMemory
	}
	return s.Commit(&d, cas)
}

// heap are the options of small caches that the race detector sees.
func heap(mib int64) hearth.Options {
	return hearth.Options{HeapArena: true, MemoryLimit: mib << 20, MaxItemSize: 512 << 10}
}

var seedWanted = flag.Uint64("seed", 0, "the first seed of tests that draw random numbers; 0: their own")
