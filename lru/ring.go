package lru

import (
	"sync/atomic"

	"hearth/mmapslab"
)

// ringSize is how many notes a worker keeps between two rounds of the maintainer; memcached's is the same.
const ringSize = 8192

// Ring holds the notes of one worker about items in COLD that were fetched again, until the maintainer bumps them: a hit takes no lock. One
// goroutine puts, one takes. The zero Ring is ready.
//
// Order: put stores the note, then advances head; take loads head, then the note. Were the two stores swapped, take would read an old note, which
// Bump survives; the atomics are there so that it reads whole ones.
type Ring struct {
	notes      []atomic.Uint64 // made at the first note
	made       atomic.Bool
	head, tail atomic.Uint32
}

// Put notes an item; false when the ring is full.
func (r *Ring) Put(ref mmapslab.Ref) bool {
	if !r.made.Load() {
		r.notes = make([]atomic.Uint64, ringSize)
		r.made.Store(true)
	}
	head := r.head.Load()
	if head-r.tail.Load() == ringSize {
		return false
	}
	r.notes[head%ringSize].Store(uint64(ref))
	r.head.Store(head + 1)
	return true
}

// Take returns the oldest note.
func (r *Ring) Take() (ref mmapslab.Ref, ok bool) {
	tail := r.tail.Load()
	if !r.made.Load() || tail == r.head.Load() {
		return 0, false
	}
	ref = mmapslab.Ref(r.notes[tail%ringSize].Load())
	r.tail.Store(tail + 1)
	return ref, true
}
