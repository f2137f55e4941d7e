package mmapslab_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hearth/mmapslab"
)

// Workers with magazines, one without, and pages that are drained and given on meanwhile: each chunk has one owner at a time, no page is given away with a chunk of it in a
// magazine, and in the end all chunks are free, and counted.
func TestMagazinesGiveEachChunkToOneOwnerWhilePagesDrain(t *testing.T) {
	const pages, perRound, classes, moves = 2, 40, 2, 10
	s := newHeapStore(t, pages*classes, 1024, 2048, 512<<10)
	var held []mmapslab.Ref
	for range pages {
		for class := 1; class <= classes; class++ {
			s.AddPage(class)
			held = append(held, drain(t, s, class)...) // or the class would not get another one
		}
	}
	s.Free(held...)
	var stop atomic.Bool
	var moved atomic.Uint32
	var workers, mover sync.WaitGroup
	for owner := range 4 {
		workers.Go(func() {
			var m *mmapslab.Magazine // nil: the last one has none
			alloc := s.Alloc
			if owner < 3 {
				m = s.NewMagazine()
				defer m.Close()
				alloc = m.Alloc
			}
			var mine []mmapslab.Ref
			for round := 0; round < 1500 || moved.Load() < moves && round < 1e6; round++ {
				class := 1 + (round+owner)%classes
				for range perRound {
					ref, _, ok := alloc(class)
					if !ok {
						break
					}
					if s.Class(ref) != class {
						t.Errorf("chunk %#x is of class %d, want %d", ref.Offset(), s.Class(ref), class)
					}
					s.Arena().Bytes(ref.Offset(), 1)[0] = 0 // freed chunks are told by it under -tags invariants
					b := s.Arena().Bytes(ref.Offset()+48, 8)
					b[0] = byte(owner) // plain: the race detector sees a second owner
					mine = append(mine, ref)
				}
				for _, ref := range mine {
					if got := s.Arena().Bytes(ref.Offset()+48, 1)[0]; got != byte(owner) {
						t.Errorf("chunk %#x of owner %d has the stamp of %d", ref.Offset(), owner, got)
					}
				}
				s.FreeTo(m, mine...)
				mine = mine[:0]
			}
		})
	}
	mover.Go(func() {
		for from := 1; !stop.Load(); from = 3 - from {
			if s.StartDrain(from, moved.Load()) == 0 {
				continue
			}
			for tries := 0; !s.FinishDrain(from, 3-from); tries++ {
				for s.Sift(from, 64) {
				}
				if tries > 1e7 {
					t.Error("a page does not come free")
					return
				}
			}
			moved.Add(1)
		}
	})
	workers.Wait()
	stop.Store(true)
	mover.Wait()
	if n := moved.Load(); n < moves {
		t.Errorf("%d pages moved, want %d", n, moves)
	}
}

// What is in magazines is free for everybody, and counts as that.
func TestChunksInMagazinesAreFree(t *testing.T) {
	s := newHeapStore(t, 1, 1024, 512<<10)
	if !s.AddPage(1) {
		t.Fatal("no page")
	}
	m, other := s.NewMagazine(), s.NewMagazine()
	info, _ := s.ClassInfo(1)
	total := int(info.Free)
	var refs []mmapslab.Ref
	take := func(alloc func(int) (mmapslab.Ref, uint64, bool)) bool {
		ref, _, ok := alloc(1)
		if ok {
			refs = append(refs, ref)
		}
		return ok
	}
	if !take(m.Alloc) || !take(other.Alloc) { // each took more than one out of the list
		t.Fatal("no chunk")
	}
	if info, _ = s.ClassInfo(1); int(info.Free) != total-2 {
		t.Errorf("%d chunks are free, want %d", info.Free, total-2)
	}
	for take(m.Alloc) {
	}
	slices.Sort(refs)
	if len(slices.Compact(refs)) != total || take(other.Alloc) || take(s.Alloc) {
		t.Errorf("one worker got %d chunks, want all %d", len(refs), total)
	}
	s.FreeTo(m, refs...)
	other.Close()
	n := 0
	s.WalkFree(1, func(uint32) bool { n++; return true })
	if info, _ = s.ClassInfo(1); n != total || int(info.Free) != total {
		t.Errorf("%d free chunks listed, %d counted, want %d", n, info.Free, total)
	}
}

// Of four workers and four chunks each has one at most, so that one is free for whoever asks, in the list or in a magazine that the others fill and empty meanwhile.
func TestAllocFindsAChunkThatOthersPassAround(t *testing.T) {
	const workers, rounds = 4, 200_000
	s := newHeapStore(t, 1, 1024, 512<<10)
	if !s.AddPage(1) {
		t.Fatal("no page")
	}
	s.Free(drain(t, s, 1)[:workers]...)
	var all sync.WaitGroup
	for range workers {
		m := s.NewMagazine()
		all.Go(func() {
			for round := range rounds {
				ref, _, ok := m.Alloc(1)
				if !ok {
					t.Errorf("no chunk in round %d", round)
					return
				}
				s.Arena().Bytes(ref.Offset(), 1)[0] = 0 // freed chunks are told by it under -tags invariants
				s.Free(ref)
			}
		})
	}
	all.Wait()
}

func TestADrainTakesChunksOutOfIdleMagazines(t *testing.T) {
	s := newHeapStore(t, 1, 1024, 512<<10)
	if !s.AddPage(1) {
		t.Fatal("no page")
	}
	m := s.NewMagazine()
	ref, _, ok := m.Alloc(1)
	if !ok || s.StartDrain(1, 0) == 0 {
		t.Fatal("no chunk, or no page")
	}
	s.FreeTo(m, ref) // which is one of the page
	for s.Sift(1, 64) {
	}
	if _, _, drained := s.Undrained(1, 0, nil); drained != s.ClassChunks(1) || !s.FinishDrain(1, 0) {
		t.Errorf("%d chunks of %d have come free", drained, s.ClassChunks(1))
	}
	if _, _, ok := m.Alloc(1); ok {
		t.Error("a chunk of the page that is gone is handed out")
	}
}
