package hearth

import (
	"fmt"

	"hearth/mmapslab"
)

// AutomoveSettings say when pages move between slab classes without being asked to, in memcached's terms.
type AutomoveSettings struct {
	Mode   int     // 0: never; 1: by the ages of the classes' oldest items; 2: at every eviction, from any class
	Ratio  float64 // with 1: the youngest class gets a page when its age is less than this times the oldest one's
	Window int     // with 1: over how many seconds ages and evictions are looked at; at least 3
}

// DefaultAutomove is memcached's.
var DefaultAutomove = AutomoveSettings{Mode: 1, Ratio: 0.8, Window: 10}

// Automove returns the settings of now.
func (c *Cache) Automove() AutomoveSettings { return *c.mover.auto.Load() }

// SetAutomove changes them. All fields count. Windows are at most half an hour.
func (c *Cache) SetAutomove(a AutomoveSettings) error {
	if a.Mode < 0 || a.Mode > 2 || a.Window < 3 {
		return fmt.Errorf("%w: Automove is %+v, want a mode of 0 to 2 and a window of at least 3", ErrOption, a)
	}
	a.Window = min(a.Window, 1800)
	c.mover.auto.Store(&a)
	return nil
}

// maxAutomove is the highest class id that takes part: those of former tables are emptied anyway.
const maxAutomove = mmapslab.ClassIDs/2 - 1

// What a class must have to be a source (memcached's slab_automove.c).
const (
	sparePages = 2.5 // pages' worth of free chunks, to give one to the global page pool
	minPages   = 2   // more pages than these, to give one to another class; or as many, and quiet throughout the window
	minYounger = 2   // seconds that the other one's oldest items are younger at least: ages are whole seconds, and memcached takes what rounding makes for a difference
)

// classSample is what the automover knows of a class.
type classSample struct {
	evicted, outOfMemory uint64 // counts
	age                  uint64 // of COLD's tail in seconds
	free, pages, perPage uint64 // free counts chunks
}

// second is what is kept of a class and second.
type second struct {
	age     uint64
	dirty   bool    // it evicted, ran out of memory or got a page
	evicted bool    // it evicted or ran out of memory
	share   float64 // of all evictions
}

// automover decides by a window of seconds, as memcached's slab_automove.c: a class that has chunks to spare and was quiet throughout gives a page to the global page
// pool; else the class whose oldest items are oldest gives one to the class whose are youngest, if that one is evicting.
type automover struct {
	seconds [maxAutomove + 1][]second // rings
	before  [maxAutomove + 1]classSample
	looks   int // since the window began
}

// since returns how much a counter has grown; 0 after it was reset.
func since(now, before uint64) uint64 { return now - min(now, before) }

// look takes in what the classes are like after another second, or again in the same one, and returns which should give a page to which; src 0 for none. full
// tells that all memory is assigned. memcached counts a look again as a second, and so forgets evictions sooner.
func (a *automover) look(now *[maxAutomove + 1]classSample, s *AutomoveSettings, full, again bool) (src, dst int) {
	if len(a.seconds[0]) != s.Window {
		*a = automover{before: a.before}
		for id := range a.seconds {
			a.seconds[id] = make([]second, s.Window)
		}
	}
	if !again {
		a.looks++
	}
	var evictions uint64
	for id := range now {
		evictions += since(now[id].evicted, a.before[id].evicted)
	}
	oldest, youngest := 0, 0
	var oldestAge, youngestAge uint64
	evicting := false
	for id := 1; id < len(now); id++ {
		n, was := &now[id], &a.before[id]
		sec := &a.seconds[id][a.looks%s.Window]
		if !again {
			*sec = second{}
		}
		sec.age = n.age
		if evicted := since(n.evicted, was.evicted); evicted > 0 || since(n.outOfMemory, was.outOfMemory) > 0 {
			sec.dirty, sec.evicted = true, true
			if evictions > 0 {
				sec.share = float64(evicted) / float64(evictions)
			}
		}
		sec.dirty = sec.dirty || n.pages > was.pages
		var age uint64
		var share float64
		dirty, evicted := false, 0
		for _, one := range a.seconds[id] {
			age += one.age
			share += one.share
			dirty = dirty || one.dirty
			if one.evicted {
				evicted++
			}
		}
		age /= uint64(s.Window)
		if src == 0 && full && !dirty && a.looks >= s.Window && float64(n.free) > sparePages*float64(n.perPage) && n.perPage > 0 {
			src = id
		}
		if age > oldestAge && (n.pages > minPages || n.pages == minPages && !dirty) {
			oldest, oldestAge = id, age
		}
		if evicted > 0 && (youngest == 0 || age < youngestAge) && (evicted > s.Window/2 || share/float64(evicted) > 0.25) {
			youngest, youngestAge, evicting = id, age, sec.evicted
		}
	}
	a.before = *now
	switch {
	case src != 0:
		return src, 0
	case oldest != 0 && youngest != 0 && oldest != youngest && a.looks > s.Window && evicting && oldestAge >= youngestAge+minYounger && float64(youngestAge) < float64(oldestAge)*s.Ratio:
		return oldest, youngest
	}
	return 0, 0
}

// autoMove looks once a second, and again at once after a page went to the global page pool.
func (c *Cache) autoMove() (p pageMove, ok bool) {
	m, s := &c.mover, c.mover.auto.Load()
	now := c.Now()
	again := m.again && now == m.looked
	if c.opts.NoPageMoves || s.Mode != 1 || now == m.looked && !again {
		return p, false
	}
	limit, assigned, pool := c.store.Pages()
	samples := c.samples()
	src, dst := m.window.look(&samples, s, assigned+pool >= limit, again)
	m.looked, m.again = now, src != 0 && dst == 0
	return pageMove{src: src, dst: dst}, src != 0
}
