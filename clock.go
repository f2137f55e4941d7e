package hearth

import (
	"sync"
	"time"

	"hearth/restore"
)

// systemClock is the machine's.
type systemClock struct{}

func (systemClock) Wall() int64 { return time.Now().Unix() }

func (systemClock) Boot() time.Duration { return restore.SinceBoot() }

func (systemClock) BootID() [16]byte { return restore.BootID() }

// DebugClock is a clock that whoever tests a running server stops and shifts. It is for Options.Clock, of a cache without a file: a file would remember
// a time that never was.
type DebugClock struct {
	Clock // the one underneath

	mu      sync.Mutex
	shift   time.Duration
	paused  bool
	stopped time.Duration // what Boot returns while paused
}

// NewDebugClock returns a clock that goes by the system's.
func NewDebugClock() *DebugClock { return &DebugClock{Clock: systemClock{}} }

// Boot returns the time since boot, shifted. Back as well, if it was shifted back: ages of what was used since are then nonsense, as in memcached.
func (d *DebugClock) Boot() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bootLocked()
}

func (d *DebugClock) bootLocked() time.Duration {
	if d.paused {
		return d.stopped
	}
	return d.Clock.Boot() + d.shift
}

// Pause stops the clock, or leaves it stopped.
func (d *DebugClock) Pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused, d.stopped = true, d.bootLocked()
}

// Resume lets it go on, at the time it would have without the pause. It returns how much that is.
func (d *DebugClock) Resume() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.bootLocked()
	d.paused = false
	return d.bootLocked() - was
}

// Shift puts it forward, paused or not.
func (d *DebugClock) Shift(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shift += by
	d.stopped += by
}

// Paused tells whether it stands still.
func (d *DebugClock) Paused() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paused
}

// timebase turns the clocks into the cache's time, which never goes back. Within a boot it runs with the time since boot, so that steps of the
// wall clock neither expire items nor keep them; over a boot, the wall clock tells how long the machine was down.
type timebase struct {
	wall int64         // the cache's time in seconds at
	boot time.Duration // this time since boot
}

func (b timebase) at(boot time.Duration) uint32 {
	return uint32(b.wall + int64((boot-b.boot)/time.Second))
}
