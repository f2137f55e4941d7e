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
type reclaimer struct {
	epoch atomic.Uint64 // starts at 1, so that 0 can mean outside
	free  func(refs ...mmapslab.Ref)
	size  func(ref mmapslab.Ref) int

	slotMu sync.Mutex
	slots  atomic.Pointer[[]*slot] // replaced as a whole, so that scans take no lock

	mu      sync.Mutex // guards limbo, first and batch; free is called under it
	limbo   []retired  // by rising stamp, from first on
	first   int
	batch   []mmapslab.Ref // collect's: what is freed in one go
	waiting atomic.Int64   // how many are in limbo

	pinMu  sync.Mutex
	pinned map[mmapslab.Ref]pinState
	held   atomic.Int64 // how many pins and holds there are
	pins   atomic.Int64 // of these, pins
	dead   atomic.Int64 // bytes of items that would be free but for their pins or holds
}

// slot is where a session announces that it is in a section, on a cache line of its own.
type slot struct {
	_       [64]byte
	entered atomic.Uint64 // 0: in no section
	_       [56]byte
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

func newReclaimer(free func(...mmapslab.Ref), size func(mmapslab.Ref) int) *reclaimer {
	r := &reclaimer{free: free, size: size, pinned: map[mmapslab.Ref]pinState{}}
	r.epoch.Store(1)
	r.slots.Store(new([]*slot))
	return r
}

func (r *reclaimer) addSlot() *slot {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	s := new(slot)
	old := *r.slots.Load()
	slots := append(old[:len(old):len(old)], s)
	r.slots.Store(&slots)
	return s
}

func (r *reclaimer) removeSlot(s *slot) {
	r.slotMu.Lock()
	defer r.slotMu.Unlock()
	var slots []*slot
	for _, other := range *r.slots.Load() {
		if other != s {
			slots = append(slots, other)
		}
	}
	r.slots.Store(&slots)
}

func (r *reclaimer) enter(s *slot) { s.entered.Store(r.epoch.Load()) }

// leave leaves the section, retires what the session took out of the index in it, and collects, under one lock. That is retired after the section has
// ended, so it need not wait for the next one.
func (r *reclaimer) leave(s *slot, refs []mmapslab.Ref) {
	s.entered.Store(0)
	if len(refs) == 0 {
		r.collect()
		return
	}
	r.mu.Lock()
	r.retireLocked(refs)
	r.collectAndUnlock()
}

// retire frees refs, which were taken out of the index before, once nobody can be reading them.
func (r *reclaimer) retire(refs []mmapslab.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retireLocked(refs)
}

func (r *reclaimer) retireLocked(refs []mmapslab.Ref) {
	stamp := r.epoch.Add(1) // under the lock, so that limbo is in order
	for _, ref := range refs {
		r.limbo = append(r.limbo, retired{stamp: stamp, ref: ref})
	}
	r.waiting.Add(int64(len(refs)))
}

// retireThen calls then once nobody can be reading ref as it was before the call: no section from before is open, and no pin from one. It is called under the
// reclaimer's locks, and in the order of retirement: what is retired later comes later.
func (r *reclaimer) retireThen(ref mmapslab.Ref, then func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limbo = append(r.limbo, retired{stamp: r.epoch.Add(1), ref: ref, then: then})
	r.waiting.Add(1)
}

// after calls f once every session that is in a section now has left it.
func (r *reclaimer) after(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limbo = append(r.limbo, retired{stamp: r.epoch.Add(1), then: f})
	r.waiting.Add(1)
}

// wait returns when every session that is in a section now has left it. The caller is in none.
func (r *reclaimer) wait() {
	left := make(chan struct{})
	r.after(func() { close(left) })
	for wait := time.Microsecond; ; wait = min(2*wait, time.Millisecond) {
		fault.Point("hearth.grace.waiting")
		r.collect()
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

// collect frees what nobody can be reading any more. It returns at once when another one is at it.
func (r *reclaimer) collect() {
	if r.waiting.Load() != 0 && r.mu.TryLock() {
		r.collectAndUnlock()
	}
}

// collectAndUnlock is collect for who holds mu. It lets go of mu, since some of what has waited is to be done under no lock. Items are freed many at a time,
// for one lock of their class; what is done for an item in place of freeing it keeps its place in the order.
func (r *reclaimer) collectAndUnlock() {
	low, n := r.oldest(), r.first
	var then []func()
	for ; n < len(r.limbo) && r.limbo[n].stamp <= low; n++ {
		it := &r.limbo[n]
		switch {
		case it.ref == 0:
			then = append(then, it.then)
		case r.keepForPins(it):
		case it.then == nil:
			r.batch = append(r.batch, it.ref)
		default:
			r.freeBatch()
			it.then()
		}
		it.then = nil
	}
	r.freeBatch()
	r.waiting.Add(int64(r.first - n))
	if r.first = n; r.first > len(r.limbo)/2 {
		r.limbo = r.limbo[:copy(r.limbo, r.limbo[n:])] // each is moved at most once on average
		r.first = 0
	}
	r.mu.Unlock()
	for _, f := range then {
		f()
	}
}

func (r *reclaimer) freeBatch() {
	if len(r.batch) > 0 {
		fault.Point("hearth.reclaim.freeing")
		r.free(r.batch...)
		r.batch = r.batch[:0]
	}
}

func (r *reclaimer) end(it *retired) {
	if it.then != nil {
		it.then()
	} else {
		r.free(it.ref)
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
