//go:build faults

package mmapslab

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Tracer hears of everything that may change an arena, for tests that look at what each store leaves. It is called on the goroutine that uses the arena.
type Tracer interface {
	// Use tells that the word at offset is about to be read or changed.
	Use(offset int64)
	// Stored tells that the word at offset has been changed, in one step; was is what it held.
	Stored(offset int64, was uint64)
	// HandedOut tells that somebody got bytes, which he reads or writes at any time until their chunk is free, by stores that nobody hears of.
	HandedOut(offset int64, n int)
}

type traced struct {
	arena  *Arena
	tracer Tracer
}

// tracing lists the arenas that are traced; nil: none. A word does not know its arena.
var (
	tracing   atomic.Pointer[[]traced]
	tracingMu sync.Mutex
)

// Trace has t hear of the arena's use from now on; nil: nobody.
func (a *Arena) Trace(t Tracer) {
	tracingMu.Lock()
	defer tracingMu.Unlock()
	var all []traced
	if old := tracing.Load(); old != nil {
		for _, other := range *old {
			if other.arena != a {
				all = append(all, other)
			}
		}
	}
	if t != nil {
		all = append(all, traced{a, t})
	}
	if len(all) == 0 {
		tracing.Store(nil)
		return
	}
	tracing.Store(&all)
}

func (a *Arena) handOut(offset int64, n int) {
	if all := tracing.Load(); all != nil {
		for _, t := range *all {
			if t.arena == a {
				t.tracer.HandedOut(offset, n)
			}
		}
	}
}

// Word is an aligned word of the arena: an atomic.Uint64 that tells a Tracer.
type Word struct{ v atomic.Uint64 }

func (w *Word) tracer() (Tracer, int64) {
	all := tracing.Load()
	if all == nil {
		return nil, 0
	}
	for _, t := range *all {
		if offset, ok := t.arena.offsetOf(w); ok {
			return t.tracer, offset
		}
	}
	return nil, 0
}

// Load is atomic.Uint64's, as are the others.
func (w *Word) Load() uint64 {
	if t, offset := w.tracer(); t != nil {
		t.Use(offset)
	}
	return w.v.Load()
}

// change runs f, which changes the word to what it returns, if it returns true.
func (w *Word) change(f func() bool) {
	t, offset := w.tracer()
	if t == nil {
		f()
		return
	}
	t.Use(offset)
	if was := w.v.Load(); f() {
		t.Stored(offset, was)
	}
}

func (w *Word) Store(n uint64) { w.change(func() bool { w.v.Store(n); return true }) }

func (w *Word) CompareAndSwap(old, new uint64) (swapped bool) {
	w.change(func() bool { swapped = w.v.CompareAndSwap(old, new); return swapped })
	return swapped
}

func (w *Word) Swap(n uint64) (old uint64) {
	w.change(func() bool { old = w.v.Swap(n); return true })
	return old
}

func (w *Word) Add(n uint64) (sum uint64) {
	w.change(func() bool { sum = w.v.Add(n); return true })
	return sum
}

func (w *Word) And(mask uint64) (old uint64) {
	w.change(func() bool { old = w.v.And(mask); return true })
	return old
}

func (w *Word) Or(mask uint64) (old uint64) {
	w.change(func() bool { old = w.v.Or(mask); return true })
	return old
}

// String keeps a word from being printed as its insides.
func (w *Word) String() string { return fmt.Sprintf("%#x", w.v.Load()) }
