package hearth

import (
	"sync"
	"sync/atomic"
	"time"

	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// reclaimer decides when memory that was taken out of the index may be used again: when every session that was in a section then has left it
// (quiescent-state reclamation, as in Hart et al., "Performance of memory reclamation for lockless synchronization"). A reader pays two stores
// per section and nothing per item.
//
// Why it holds. All words named here are sequentially consistent. A session enters by loading epoch and storing it into its slot, then reads the
// index. A writer takes items out of the index, then adds one to epoch and stamps them with the new value, then scans the slots. If a slot
// shows 0 or at least the stamp, its session either has left, or loaded epoch after the addition, hence after the words were taken away, and
// cannot find them; or it enters after our scan, with the same effect, even if it loaded an older epoch before. Was the stamp taken before the
// words went, a session could enter with the new epoch, find the old word, and read a chunk that is being overwritten.
//
// Where an item waits does not matter for that, since each has its stamp. But between limbos there is no order: who needs one item to stay until another one is freed
// holds it (see mover).
type reclaimer struct {
	epoch atomic.Uint64 // starts at 1, so that 0 can mean outside
	free  func(to *mmapslab.Magazine, refs ...mmapslab.Ref)
	size  func(ref mmapslab.Ref) int

	slotMu sync.Mutex
	slots  atomic.Pointer[[]*slot] // replaced as a whole, so that scans take no lock

	shared  limbo        // what no session retired
	waiting atomic.Int64 // how many are in limbos
	closing atomic.Int64 // slots that are closed and still there

	pinMu  sync.Mutex
	pinned map[mmapslab.Ref]pinState
	held   atomic.Int64 // how many pins and holds there are
	pins   atomic.Int64 // of these, pins
	dead   atomic.Int64 // bytes of items that would be free but for their pins or holds
}

// slot is where a session announces that it is in a section, on a cache line of its own, and where what it frees goes.
type slot struct {
	_       [64]byte
	entered atomic.Uint64 // 0: in no section
	_       [56]byte
	chunks  *mmapslab.Magazine
	limbo   limbo
	closed  atomic.Bool
}

// limbo is where what was retired waits. Each session has one, so that sessions do not meet, and each gets its own chunks back: they are in its processor's cache.
type limbo struct {
	mu    sync.Mutex // free is called under it
	items []retired  // by rising stamp, from first on
	first int
	batch []mmapslab.Ref // what is freed in one go
}

// retired is an item that was taken out of the index before stamp; or, with ref 0, something to do, under no lock. With both, then is what is done, in order,
// when nobody can be reading the item as it was, in place of freeing it.
type retired struct {
	stamp uint64
	ref   mmapslab.Ref
	then  func()
}

// pinState counts an item's pins and holds; after is what waits for the last of them to be undone, and dead the bytes of memory among that.
type pinState struct {
	count int
	after []retired
	dead  int64
}

func newReclaimer(free func(*mmapslab.Magazine, ...mmapslab.Ref), size func(mmapslab.Ref) int) *reclaimer {
	r := &reclaimer{free: free, size: size, pinned: map[mmapslab.Ref]pinState{}}
	r.epoch.Store(1)
	r.slots.Store(new([]*slot))
	return r
}

func (r *reclaimer) addSlot(chunks *mmapslab.Magazine) *slot {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	s := &slot{chunks: chunks}
	old := *r.slots.Load()
	slots := append(old[:len(old):len(old)], s)
	r.slots.Store(&slots)
	return s
}

// removeSlot gives a slot up. What its limbo and its magazine hold, collect sees to: this takes no lock, since a session may be closed by a panic in the middle of
// its own collect, which is to end the process and not to wait for itself.
func (r *reclaimer) removeSlot(s *slot) {
	s.closed.Store(true)
	r.closing.Add(1)
}

// removeClosed removes the closed slots in whose limbo nothing waits any more.
func (r *reclaimer) removeClosed() {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	var slots []*slot
	for _, s := range *r.slots.Load() {
		if s.closed.Load() && s.limbo.empty() {
			s.chunks.Close()
			r.closing.Add(-1)
		} else {
			slots = append(slots, s)
		}
	}
	r.slots.Store(&slots)
}

// empty tells whether nothing waits in a limbo; false also while somebody is at it.
func (l *limbo) empty() bool {
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	return l.first == len(l.items)
}

func (r *reclaimer) enter(s *slot) { s.entered.Store(r.epoch.Load()) }

// leave leaves the section, retires what the session took out of the index in it, and collects, under one lock. That is retired after the section has
// ended, so it need not wait for the next one.
func (r *reclaimer) leave(s *slot, refs []mmapslab.Ref) {
	s.entered.Store(0)
	if len(refs) == 0 && r.waiting.Load() == 0 {
		return
	}
	l := &s.limbo
	l.mu.Lock()
	if len(refs) > 0 {
		r.retireLocked(l, refs)
	}
	r.collectAndUnlock(l, s.chunks)
	r.collectOf(&r.shared, s.chunks)
}

// retire frees refs, which were taken out of the index before, once nobody can be reading them. Of no session: nil.
func (r *reclaimer) retire(s *slot, refs []mmapslab.Ref) {
	l := &r.shared
	if s != nil {
		l = &s.limbo
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.retireLocked(l, refs)
}

func (r *reclaimer) retireLocked(l *limbo, refs []mmapslab.Ref) {
	stamp := r.epoch.Add(1) // under the lock, so that limbo is in order
	for _, ref := range refs {
		l.items = append(l.items, retired{stamp: stamp, ref: ref})
	}
	r.waiting.Add(int64(len(refs)))
}

// retireThen calls then once nobody can be reading ref as it was before the call: no section from before is open, and no pin from one. It is called under the
// reclaimer's locks, in the order of the calls.
func (r *reclaimer) retireThen(ref mmapslab.Ref, then func()) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	r.shared.items = append(r.shared.items, retired{stamp: r.epoch.Add(1), ref: ref, then: then})
	r.waiting.Add(1)
}

// after calls f once every session that is in a section now has left it.
func (r *reclaimer) after(f func()) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	r.shared.items = append(r.shared.items, retired{stamp: r.epoch.Add(1), then: f})
	r.waiting.Add(1)
}

// wait returns when every session that is in a section now has left it. The caller is in none.
func (r *reclaimer) wait() {
	left := make(chan struct{})
	r.after(func() { close(left) })
	for wait := time.Microsecond; ; wait = min(2*wait, time.Millisecond) {
		fault.Point("hearth.grace.waiting")
		r.collect(nil)
		select {
		case <-left:
			return
		case <-time.After(wait): // sections are short, and nobody tells when they end
		}
	}
}

// oldest returns the lowest epoch that a session is in.
func (r *reclaimer) oldest() uint64 {
	low := ^uint64(0)
	for _, s := range *r.slots.Load() {
		if e := s.entered.Load(); e != 0 {
			low = min(low, e)
		}
	}
	return low
}

// collect frees what nobody can be reading any more, whoever retired it, for the session of the slot if there is one. Where another one is at it, it leaves that to them.
func (r *reclaimer) collect(s *slot) {
	if r.waiting.Load() == 0 && r.closing.Load() == 0 {
		return
	}
	var to *mmapslab.Magazine
	if s != nil {
		to = s.chunks
	}
	for _, s := range *r.slots.Load() {
		r.collectOf(&s.limbo, to)
	}
	r.collectOf(&r.shared, to)
	if r.closing.Load() != 0 {
		r.removeClosed()
	}
}

func (r *reclaimer) collectOf(l *limbo, to *mmapslab.Magazine) {
	if l.mu.TryLock() {
		r.collectAndUnlock(l, to)
	}
}

// collectAndUnlock is collect for who holds a limbo's mu. It lets go of mu, since some of what has waited is to be done under no lock. Items are freed many at a time,
// for one lock of their class; what is done for an item in place of freeing it keeps its place in its limbo.
func (r *reclaimer) collectAndUnlock(l *limbo, to *mmapslab.Magazine) {
	if l.first == len(l.items) {
		l.mu.Unlock()
		return
	}
	low, n := r.oldest(), l.first
	var then []func()
	for ; n < len(l.items) && l.items[n].stamp <= low; n++ {
		it := &l.items[n]
		switch {
		case it.ref == 0:
			then = append(then, it.then)
		case r.keepForPins(it):
		case it.then == nil:
			l.batch = append(l.batch, it.ref)
		default:
			r.freeBatch(l, to)
			it.then()
		}
		it.then = nil
	}
	r.freeBatch(l, to)
	r.waiting.Add(int64(l.first - n))
	if l.first = n; l.first > len(l.items)/2 {
		l.items = l.items[:copy(l.items, l.items[n:])] // each is moved at most once on average
		l.first = 0
	}
	l.mu.Unlock()
	for _, f := range then {
		f()
	}
}

func (r *reclaimer) freeBatch(l *limbo, to *mmapslab.Magazine) {
	if len(l.batch) > 0 {
		fault.Point("hearth.reclaim.freeing")
		r.free(to, l.batch...)
		l.batch = l.batch[:0]
	}
}

func (r *reclaimer) end(it *retired) {
	if it.then != nil {
		it.then()
	} else {
		r.free(nil, it.ref)
	}
}

// keepForPins tells whether it.ref is pinned or held, and leaves it to the last unpin or release then. A pin is taken inside a section that saw the item, so
// it is there before the item's batch comes up.
func (r *reclaimer) keepForPins(it *retired) bool {
	if r.held.Load() == 0 {
		return false
	}
	r.pinMu.Lock()
	defer r.pinMu.Unlock()
	p, ok := r.pinned[it.ref]
	if ok {
		p.after = append(p.after, *it)
		if it.then == nil {
			size := int64(r.size(it.ref))
			p.dead += size
			r.dead.Add(size)
		}
		r.pinned[it.ref] = p
	}
	return ok
}

// pin and unpin are hold and release for readers.
func (r *reclaimer) pin(ref mmapslab.Ref) {
	r.pins.Add(1)
	r.hold(ref)
}

func (r *reclaimer) unpin(ref mmapslab.Ref) {
	r.release(ref)
	r.pins.Add(-1)
}

// hold keeps an item from being freed until release.
func (r *reclaimer) hold(ref mmapslab.Ref) {
	r.pinMu.Lock()
	defer r.pinMu.Unlock()
	p := r.pinned[ref]
	p.count++
	r.pinned[ref] = p
	r.held.Add(1)
}

func (r *reclaimer) release(ref mmapslab.Ref) {
	r.pinMu.Lock()
	p := r.pinned[ref]
	p.count--
	if p.count == 0 {
		delete(r.pinned, ref)
	} else {
		r.pinned[ref] = p
	}
	r.held.Add(-1)
	r.pinMu.Unlock()
	if p.count == 0 {
		r.dead.Add(-p.dead)
		for i := range p.after {
			r.end(&p.after[i])
		}
	}
}
