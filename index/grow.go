package index

import (
	"sync/atomic"

	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// How the table grows; doc.go has the arithmetic. A table below smallBuckets costs little whatever its load, so it doubles; a large one grows by
// half. Windows fill up at a load of about 0.79 in tables of a hundred million words, so growLoad comes first; a full window forces growth.
const (
	growLoad     = 0.75
	smallBuckets = 1 << 14 // 1 MiB
	forceLoad    = 0.5     // below it a window is full because of the keys, and growing would not help
	slackLoad    = 0.667   // below it Fit moves a large table
	fitLoad      = 0.675   // into one of this load; the nearer to growLoad, the sooner churn alone meets a full window and forces growth again

	// Buckets an insert moves while a growth runs. Inserts fill the new table meanwhile: with helpPerInsert as many as are in a sixteenth of the old
	// one. A growth has room for them; Fit has not, so it is over sooner, or windows would fill up and live items go.
	helpPerInsert = 2
	helpFit       = 16

	verifyBuckets = 32 // buckets that the second pass, which finds most of them MOVED, takes for one

	// Memory is got and given back a piece at a time: the half of a large table takes the kernel tens of milliseconds. Helpers do one at each call, inserts
	// at one in prepareEvery, so that even a long pipeline of them meets few. Of those it takes less than a hundredth of what the table holds.
	pieceBytes     = 256 << 10
	prepareEvery   = 64
	populatePauses = 64 // attempts of others to begin a growth between two to get memory that was refused
)

func grown(buckets uint32) uint64 {
	if buckets < smallBuckets {
		return 2 * uint64(buckets)
	}
	return uint64(buckets) + uint64(buckets)/4*2
}

// growth holds the cursors of one growth. They are hints and progress, not state: a crash forgets them and the next process starts at 0.
type growth struct {
	claim atomic.Int64 // next old bucket that nobody took yet; spreads helpers
	done  atomic.Int64 // every old bucket below is MOVED. A helper may sleep on what it claimed, so a second pass makes sure
	help  int          // buckets that an insert moves
}

func newGrowth(from, to uint32) *growth {
	if to <= from {
		return &growth{help: helpFit}
	}
	return &growth{help: helpPerInsert}
}

// spare tells of the other half while it is zero.
type spare struct {
	populated atomic.Int64 // bytes from its start on that have memory
	pause     atomic.Int64 // calls of start to let pass, after a refusal
	grow, fit atomic.Bool  // what the memory is for: a larger table; or, in vain when grow is set meanwhile, one that fits
}

// old is the other half while it is discarded. One at a time does that, and who comes beside lets it be. To discard a piece twice, as populate may get one twice,
// would not do: the second time may come when the half is a table again. So who goes to sleep in the middle keeps the next growth from starting.
type old struct {
	table *table
	busy  atomic.Bool // somebody is at it, and owns done
	done  int64       // bytes from its start on that are discarded
}

// mayForce tells whether a full window is reason to grow rather than to evict.
func (x *Index) mayForce(v *view) bool {
	return x.held.Load() == 0 && v.cur.buckets < x.region.maxFit() && x.load(v) > forceLoad
}

// force does a piece of what is to be done before the table, whose window is full, can grow; true when the window is to be tried again.
func (x *Index) force(v *view) bool {
	switch {
	case !x.mayForce(v):
		return false
	case v.old != nil:
		x.discardSome(v)
		return x.view.Load() != v
	}
	return v.spare != nil && x.start(v)
}

// Due tells, after Full, whether a growth is soon to make room: it waits for readers to leave, or for memory. Who can wait a moment, outside of a section, may
// then try again rather than evict.
func (x *Index) Due() bool {
	v := x.view.Load()
	return v.next == nil && x.mayForce(v) && (v.spare == nil || v.spare.pause.Load() == 0)
}

// start begins a growth; false when there is no room or no memory (yet), or the old half of the last growth is not discarded. Every step may be done by
// another starter, who then goes on from there: nobody waits for one that stopped half-way.
//
//  1. the buckets of the new half. Swapped with 2, a crash image would say "growing into 0 buckets" and not attach.
//  2. State[0] says growing. Swapped with any freeze, which 3 allows, a crash image would have FROZEN and MOVED words in a table that does not grow,
//     and the next attach would discard the half their copies are in.
//  3. the view. Swapped with a freeze, a writer that met FROZEN would find no new table to go to.
func (x *Index) start(v *view) bool {
	to := min(grown(v.cur.buckets), uint64(x.region.maxFit()))
	if v.spare != nil {
		v.spare.grow.Store(true)
	}
	return v.next != nil || to > uint64(v.cur.buckets) && x.startTo(v, to)
}

func (x *Index) startTo(v *view, to uint64) bool {
	if v.spare == nil || x.held.Load() > 0 {
		return false
	}
	other := 1 - v.cur.half
	if !x.populate(v, x.table(other, uint32(to))) {
		return false
	}
	if x.state[1+other].CompareAndSwap(0, to) {
		fault.Point("index.grow.sized")
	}
	if to = x.state[1+other].Load(); to < minBuckets || to > uint64(x.region.maxFit()) || to%2 != 0 {
		return x.view.Load() != v // damage, or we are late and the circle went on
	}
	x.state[0].CompareAndSwap(stateWord(v.cur.half, false), stateWord(v.cur.half, true))
	if x.state[0].Load() != stateWord(v.cur.half, true) {
		return x.view.Load() != v
	}
	fault.Point("index.grow.started")
	x.view.CompareAndSwap(v, &view{cur: v.cur, next: x.table(other, uint32(to)), grow: newGrowth(v.cur.buckets, uint32(to))})
	return true
}

// Help moves about so many buckets of a growth that is running, or does a piece of what comes before and after, and tells whether there is more to do. The
// maintenance goroutine calls it with small numbers until it returns false; a bucket takes a few microseconds, since it asks for the hash of each item.
func (x *Index) Help(buckets int) (more bool) {
	v := x.view.Load()
	switch {
	case v.next != nil:
		x.help(v, buckets)
		v = x.view.Load()
		return v.next != nil || v.old != nil
	case v.old != nil:
		return x.discardSome(v)
	case v.spare == nil:
		return false
	case v.spare.grow.Load() || x.load(v) > growLoad:
		had := v.spare.populated.Load()
		return x.start(v) || v.spare.populated.Load() > had
	}
	return v.spare.fit.Load() && x.fit(v)
}

// Fit moves a large table that is much too large into one that fits, and tells whether it began to. It is for times when the number of items does not
// rise: growth by half leaves a table at half its load, 16 bytes an item, and this brings it back under 12. Help does the rest, which is the same as for growth.
func (x *Index) Fit() bool {
	v := x.view.Load()
	return v.next == nil && v.spare != nil && !v.spare.grow.Load() && x.fit(v)
}

// fit does a step of what Fit asks for, as long as it is still worth it: a piece of memory, or the start.
func (x *Index) fit(v *view) bool {
	to := uint64(float64(x.Len())/(bucketWords*fitLoad)) / 2 * 2
	worth := v.cur.buckets > smallBuckets && x.load(v) < slackLoad && to >= smallBuckets
	v.spare.fit.Store(worth)
	if !worth {
		return false
	}
	had := v.spare.populated.Load()
	if x.startTo(v, to) || v.spare.populated.Load() > had {
		return true
	}
	v.spare.fit.Store(false) // no memory
	return false
}

// FinishGrowth moves all that is left to move. Sweep needs that; others let Help do it in small steps.
func (x *Index) FinishGrowth() {
	for v := x.view.Load(); v.next != nil; v = x.view.Load() {
		x.help(v, 1<<16)
	}
}

func (x *Index) help(v *view, n int) {
	g, total := v.grow, v.cur.total()
	for ; n > 0; n-- {
		if g.claim.Load() < total {
			if b := g.claim.Add(1) - 1; b < total {
				x.moveBuckets(v, b, b+1)
				continue
			}
		}
		from := g.done.Load()
		if from >= total {
			x.finish(v)
			return
		}
		to := min(from+verifyBuckets, total)
		x.moveBuckets(v, from, to)
		g.done.CompareAndSwap(from, to)
	}
	if g.done.Load() >= total {
		x.finish(v)
	}
}

// populate gets memory for one more piece of the new half and tells whether it has all. may do the same piece: nobody waits for a claim. A crash forgets
// the cursor, not the memory.
func (x *Index) populate(v *view, t *table) bool {
	if x.opt.Populate == nil {
		return true
	}
	from := v.spare.populated.Load()
	n := min(pieceBytes, t.bytes()-from)
	if n <= 0 {
		return true
	}
	if v.spare.pause.Load() > 0 {
		v.spare.pause.Add(-1)
		return false
	}
	if x.opt.Populate(x.region.Half[t.half]+from, n) != nil {
		v.spare.pause.Store(populatePauses)
		return false
	}
	v.spare.populated.CompareAndSwap(from, from+n)
	return v.spare.populated.Load() >= t.bytes()
}

func (x *Index) moveBuckets(v *view, from, to int64) {
	words := v.cur.words[from*bucketWords : to*bucketWords]
	for i := range words {
		x.moveSlot(v, &words[i])
	}
}

// moveWindow makes every word of the key's old window MOVED. Only then may a writer of the key work in the new table: as long as one slot is not,
// the key, or a copy of it still under way, could be in both.
func (x *Index) moveWindow(v *view, h uint64) {
	win := v.cur.window(h)
	for i := range windowWords {
		x.moveSlot(v, win.at(i))
	}
}

// moveSlot takes one old slot to MOVED, over FROZEN when an item is in it. Any number of helpers may be at one slot.
//
// FROZEN before the copy: without it a writer could replace the item in the old table after it was copied, and the copy would bring the old
// value back. The copy before MOVED: swapped, a reader would find the key in neither table, and so would the sweep.
func (x *Index) moveSlot(v *view, slot *mmapslab.Word) {
	for {
		w := slot.Load()
		switch stateOf(w) {
		case stateMoved:
			return
		case stateLive:
			if slot.CompareAndSwap(w, w|stateFrozen) {
				fault.Point("index.grow.frozen")
			}
		case stateFrozen:
			x.copyItem(v, slot, w)
			fault.Point("index.grow.copied")
			if slot.CompareAndSwap(w, movedWord) {
				fault.Point("index.grow.moved")
			}
			return
		default: // EMPTY; TENTATIVE, whose owner then fails to promote it; or damage
			if slot.CompareAndSwap(w, movedWord) {
				return
			}
		}
	}
}

// copyItem puts the item of a FROZEN word into the new table, as an insert with one more look before the promotion, or finds that it is done.
// It compares Refs where an insert compares keys: a word of this key with another Ref can be there only after a writer saw our slot MOVED, and
// then the last look fails.
func (x *Index) copyItem(v *view, old *mmapslab.Word, frozen uint64) {
	live := frozen&^stateMask | stateLive
	tag := tagOf(frozen)
	win := v.next.windowOf(x.items.Hash(refOf(frozen)))
	for attempt := 0; old.Load() == frozen; attempt++ {
		p := place{}
		for i := range windowWords {
			w := win.at(i).Load()
			if w == live {
				return
			}
			p.see(i, w)
		}
		slot := p.slot()
		if slot < 0 {
			if victim := p.victim(&win, x.token(tag)); victim != 0 {
				x.evict(v, &win, victim)
			} else if !kill(&win) {
				return // a window of nothing but damage: the item is lost, as the rest of it
			}
			continue
		}
		mine := pack(x.token(tag), tag, stateTentative)
		fault.Point("index.copy.placing")
		if !win.at(slot).CompareAndSwap(0, mine) {
			continue
		}
		fault.Point("index.copy.placed")
		for i := 0; i < windowWords; i++ {
			if i == slot {
				continue
			}
			w := win.at(i).Load()
			if w == live {
				win.at(slot).CompareAndSwap(mine, 0)
				return
			}
			if stateOf(w) == stateTentative && tagOf(w) == tag && !win.at(i).CompareAndSwap(w, 0) {
				i--
			}
		}
		fault.Point("index.copy.scanned")
		// The last look. Without it: another helper copies the item, stores MOVED, a writer deletes the copy, and we bring it back.
		if old.Load() != frozen {
			win.at(slot).CompareAndSwap(mine, 0)
			return
		}
		fault.Point("index.copy.promoting")
		if win.at(slot).CompareAndSwap(mine, live) {
			fault.Point("index.copy.promoted")
			return
		}
		backoff(attempt)
	}
}

// evict drops a live item from a full window of the new table to make room for a copy. It is a delete, so it has to keep the rule for writers in
// the new table: the old slot of the item must be MOVED first, or a helper would copy the item once more. It is FROZEN at most, since its
// copy is before us; so the step to MOVED is ours to help with.
func (x *Index) evict(v *view, win *window, victim uint64) {
	ref := refOf(victim)
	oldWin := v.cur.windowOf(x.items.Hash(ref))
	for i := range windowWords {
		if w := oldWin.at(i).Load(); w == victim|stateFrozen {
			oldWin.at(i).CompareAndSwap(w, movedWord)
		}
	}
	for i := range windowWords {
		if win.at(i).Load() == victim && win.at(i).CompareAndSwap(victim, 0) {
			fault.Point("index.grow.evicted")
			x.count(tagOf(victim), -1)
			x.evicted.Add(1)
			if x.opt.Evict != nil {
				x.opt.Evict(ref)
			}
			return
		}
	}
}

// finish ends a growth whose old words are all MOVED. Several helpers may get here; each step is idempotent.
//
//  1. State[0] names the new table. Swapped with the discard, a crash image would still grow, out of an empty table: no loss, but the new half
//     would be the only copy and not called so.
//  2. The view. Swapped with the request for a grace period, a reader could enter after that and still be handed the old half.
//  3. After the grace period the old half is discarded, piece by piece. Without it: a writer that read its slot as EMPTY before the growth would place and promote
//     its word in zeroed memory, which is no table now and the next one soon: an acknowledged set lost, then come back. A reader that scans
//     the old window would meet EMPTY for MOVED and miss.
//  4. Its bucket count becomes 0, which is what lets the next growth, or the next process, take the half for zero. Swapped with any piece of 3, a crash
//     between them would have the next growth copy into words of an earlier table: deleted values would be live again.
//  5. The view that lets a growth start here. Swapped with 4, a starter would take the old count for one that another starter has set, and grow into that.
func (x *Index) finish(v *view) {
	x.state[0].CompareAndSwap(stateWord(v.cur.half, true), stateWord(v.next.half, false))
	fault.Point("index.grow.switched")
	done := &view{cur: v.next}
	if !x.view.CompareAndSwap(v, done) {
		return
	}
	x.growths.Add(1)
	x.opt.AfterGrace(func() {
		drained := &view{cur: done.cur, old: &old{table: v.cur}}
		if x.view.CompareAndSwap(done, drained) {
			x.discardSome(drained)
		}
	})
}

// discardSome discards one more piece of the old half, and tells whether there is more to do, for which somebody else may be at it.
func (x *Index) discardSome(v *view) (more bool) {
	o := v.old
	if !o.busy.CompareAndSwap(false, true) {
		return false
	}
	defer o.busy.Store(false)
	if o.done < o.table.bytes() { // else v is not the view any more
		x.discard(o.table, o.done, pieceBytes)
		if o.done += pieceBytes; o.done >= o.table.bytes() {
			x.discarded(o.table)
			x.view.CompareAndSwap(v, &view{cur: v.cur, spare: &spare{}})
		}
	}
	return o.done < o.table.bytes()
}

// discard zeroes up to n bytes of a half that is no table any more, from the given one on, and gives their memory back.
func (x *Index) discard(t *table, from, n int64) {
	const page = 4096
	n = min(n, (t.bytes()+page-1)&^(page-1)-from, x.region.HalfSize-from)
	if x.opt.Discard != nil {
		err := x.opt.Discard(x.region.Half[t.half]+from, n)
		if err == nil {
			return
		}
		x.discardErr.Store(&err)
	}
	words := t.words[from/8 : min((from+n)/8, int64(len(t.words)))]
	for i := range words {
		words[i].Store(0)
	}
}

func (x *Index) discardWhole(t *table) {
	x.discard(t, 0, x.region.HalfSize)
	x.discarded(t)
}

func (x *Index) discarded(t *table) {
	fault.Point("index.grow.discarded")
	x.state[1+t.half].Store(0)
}

// HoldGrowth keeps growth from starting while it is held, for a Sweep in several calls; a growth that runs goes on. It nests. Full windows evict
// meanwhile.
func (x *Index) HoldGrowth(hold bool) {
	if hold {
		x.held.Add(1)
	} else {
		x.held.Add(-1)
	}
}

// Sweep goes over buckets [from,to) of the table after a start or to check. It clears TENTATIVE words (a false kill
// costs a writer a retry) and words that a table at rest cannot have, and yields LIVE words; those that visit does not keep are deleted,
// unless they changed meanwhile. It is safe beside writers. No growth may run: HoldGrowth, FinishGrowth, then Sweep. Where one began all the
// same, in a writer that was past the check, ok is false and the caller starts over. visit may get a word that is replaced while it looks; it is told how many buckets the table
// has, for who judges whether a bucket is the right one.
func (x *Index) Sweep(from, to uint32, visit func(ref mmapslab.Ref, bucket, tag, buckets uint32) (keep bool)) (cleared int, ok bool) {
	return x.SweepMany(from, to, new(LiveWords), func(words []LiveWord, buckets uint32) (drop []int) {
		for i := range words {
			if w := &words[i]; !visit(w.Ref, w.Bucket, w.Tag, buckets) {
				drop = append(drop, i)
			}
		}
		return drop
	})
}

// LiveWord is a LIVE word and where it stands, LiveWords room for those of some buckets.
type (
	LiveWord struct {
		Ref         mmapslab.Ref
		Bucket, Tag uint32
	}
	LiveWords [32 * bucketWords]LiveWord
)

// SweepMany is Sweep for who has millions of words to see: visit gets many at a time, in room, and returns which of them are to be deleted.
func (x *Index) SweepMany(from, to uint32, room *LiveWords, visit func(words []LiveWord, buckets uint32) (drop []int)) (cleared int, ok bool) {
	v := x.view.Load()
	for end := min(int64(to), v.cur.total()); int64(from) < end; {
		words := room[:0]
		for ; int64(from) < end && len(words) <= len(room)-bucketWords; from++ {
			bucket := v.cur.words[int64(from)*bucketWords:][:bucketWords]
			for i := range bucket {
				w := bucket[i].Load()
				switch st := stateOf(w); {
				case w == 0:
				case st == stateLive:
					words = append(words, LiveWord{refOf(w), from, uint32(tagOf(w))})
				case (st == stateFrozen || st == stateMoved) && x.away(v, v.cur): // they have a meaning
				case bucket[i].CompareAndSwap(w, 0):
					cleared++
				}
			}
		}
		for _, i := range visit(words, v.cur.buckets) {
			x.take(v.cur, &words[i])
		}
	}
	return cleared, v.next == nil && x.view.Load() == v
}

// take deletes a word, unless it changed meanwhile.
func (x *Index) take(t *table, word *LiveWord) {
	bucket, w := t.words[int64(word.Bucket)*bucketWords:][:bucketWords], pack(word.Ref, uint64(word.Tag), stateLive)
	for i := range bucket {
		if bucket[i].CompareAndSwap(w, 0) {
			x.count(tagOf(w), -1)
			return
		}
	}
}

// SweepBuckets is the end of a whole sweep: the buckets of the table.
func (x *Index) SweepBuckets() uint32 { return uint32(x.view.Load().cur.total()) }
