//go:build faults

package fault

import (
	"math/rand/v2"
	"sync"
)

// Stage runs goroutines one at a time and changes between them only where Pass or Yield is called, so that a schedule is a seed's, and whoever is called from
// one of them may look at memory while all stand still.
type Stage struct {
	Rand  *rand.Rand
	Every int // Pass changes at one call in so many

	turn    []chan struct{}
	live    []int // who has not finished
	current int
}

// Run returns when all actors have.
func (s *Stage) Run(actors ...func()) {
	var wg sync.WaitGroup
	s.turn, s.live = nil, nil
	for i, act := range actors {
		s.turn = append(s.turn, make(chan struct{}))
		s.live = append(s.live, i)
		wg.Go(func() {
			<-s.turn[i]
			act()
			for j, id := range s.live {
				if id == i {
					s.live = append(s.live[:j:j], s.live[j+1:]...)
					break
				}
			}
			if len(s.live) > 0 {
				s.current = s.live[s.Rand.IntN(len(s.live))]
				s.turn[s.current] <- struct{}{}
			}
		})
	}
	s.current = s.live[s.Rand.IntN(len(s.live))]
	s.turn[s.current] <- struct{}{}
	wg.Wait()
}

// Current is the number of the actor that runs.
func (s *Stage) Current() int { return s.current }

// Left is how many actors have not finished.
func (s *Stage) Left() int { return len(s.live) }

// Pass changes to another actor, or not, as it happens.
func (s *Stage) Pass() {
	if s.Rand.IntN(s.Every) == 0 {
		s.change(s.live[s.Rand.IntN(len(s.live))])
	}
}

// Yield changes to another actor if there is one: for one who waits for the others.
func (s *Stage) Yield() {
	if n := len(s.live); n > 1 {
		next := s.live[s.Rand.IntN(n-1)]
		if next == s.current {
			next = s.live[n-1]
		}
		s.change(next)
	}
}

func (s *Stage) change(next int) {
	if me := s.current; next != me {
		s.current = next
		s.turn[next] <- struct{}{}
		<-s.turn[me]
	}
}
