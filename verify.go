package hearth

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"hearth/index"
	"hearth/mmapslab"
)

// Verify says when the checksum of an item is compared with its bytes. A kill leaves no item that it would find (R4), so it is for what disks, memory and bugs do.
type Verify uint8

const (
	// VerifyAttach is at the first touch after a start that crossed a boot or a mount, or found a copy: the file has been on a disk then. Not after others: its pages have stayed in
	// memory, which a server that goes on does not verify either. (A disk's pages may be read anew while they are served, too: that is what the scrubber is for.)
	VerifyAttach Verify = iota
	VerifyAlways        // at every touch
	VerifyNever         // not at all, but after a power loss (WarmAfterPowerLoss)
)

// verifier knows whose checksums are still to be looked at. There is none most of the time, which costs a lookup one load and one branch.
type verifier struct {
	always bool
	due    []atomic.Pointer[[]atomic.Uint64] // by page: a bit for each chunk whose item was not verified since the start
}

// verifyFromNow makes the verifier that a start asks for.
func (c *Cache) verifyFromNow(carried bool) {
	v := &verifier{always: c.opts.Verify == VerifyAlways, due: make([]atomic.Pointer[[]atomic.Uint64], c.store.Room()+1)}
	if carried && !v.always {
		for page := range v.due {
			if perPage := c.store.PerPage(uint32(page)); perPage > 0 {
				bits := make([]atomic.Uint64, (perPage+63)/64)
				for i := range bits {
					bits[i].Store(^uint64(0))
				}
				v.due[page].Store(&bits)
			}
		}
	}
	if v.always || carried {
		c.verifier.Store(v)
	}
}

// bit returns the word and the bit of a chunk; nil when nothing in its page is due, or the page has other chunks by now: what is there was stored since.
func (v *verifier) bit(store *mmapslab.Store, ref mmapslab.Ref) (word *atomic.Uint64, bit uint64) {
	page, slot := store.Place(ref)
	bits := v.due[page].Load()
	if bits == nil || int(slot/64) >= len(*bits) {
		return nil, 0
	}
	return &(*bits)[slot/64], 1 << (slot % 64)
}

// moved makes due at to what was due at from: the copy of an item carries its checksum over.
func (v *verifier) moved(store *mmapslab.Store, from, to mmapslab.Ref) {
	if word, bit := v.bit(store, from); word == nil || word.Load()&bit == 0 {
		return
	}
	page, _ := store.Place(to)
	if v.due[page].Load() == nil {
		bits := make([]atomic.Uint64, (store.PerPage(page)+63)/64)
		v.due[page].CompareAndSwap(nil, &bits)
	}
	if word, bit := v.bit(store, to); word != nil {
		word.Or(bit)
	}
}

// sound tells whether a found item's bytes are those that were stored, as far as that is to be looked at. If not the item is gone when it returns, here or because
// somebody else was faster, and the caller looks again.
func (s *Session) sound(v *verifier, f *found) bool {
	word, bit := v.bit(s.c.store, f.ref)
	if !v.always && (word == nil || word.Load()&bit == 0) {
		return true
	}
	if !s.c.store.Verify(&f.item) {
		s.condemn(f, "checksum")
		return false
	}
	if word != nil {
		word.And(^bit)
	}
	return true
}

// condemn removes a damaged item. Its head comes free; the Refs of its chain are as damaged as it is, and what they name may be another's, so the rest of it is lost until
// the next start, which sweeps.
func (s *Session) condemn(f *found, why string) {
	c := s.c
	if !c.index.Delete(f.hash, f.ref) {
		return
	}
	c.damage(f.ref, why)
	sweeper := c.sweeper.Load()
	if sweeper != nil && sweeper.Disown(f.ref) {
		return
	}
	c.order.UnlinkDamaged(f.ref, f.item.Size())
	head := f.ref &^ mmapslab.Chained
	c.recl.retireThen(f.ref, func() { c.store.Free(head) })
}

// damage counts and tells damage, and has the next start sweep.
func (c *Cache) damage(ref mmapslab.Ref, what string) {
	const told = 10 // one line each, then silence: a disk that dies would fill another one
	c.damaged.Store(true)
	if n := c.corrupt.Add(1); n <= told {
		c.opts.Logger.Error("hearth: damaged item", "offset", ref.Offset(), "what", what, "damaged_so_far", n, "last_line", n == told)
	}
}

// orphan looks at an item of a list that could not be evicted: if no word names it, it is either on its way into the index or out of it, in somebody's section, or its word
// is damaged. When all sections of now are over only the latter is possible. Then it leaves its list, where it would stand in the way for ever. Its chunk stays: somewhere there
// may be a word that names it.
func (s *Session) orphan(ref mmapslab.Ref) {
	c := s.c
	it, ok := c.store.Item(ref)
	if ok && c.index.Holds(s.hasher.Sum(it.Key()), ref) {
		return
	}
	c.recl.hold(ref) // so that it is the same item then
	c.recl.after(func() {
		if c.order.UnlinkDamaged(ref, it.Size()) {
			c.damage(ref, "no index word of its key")
		}
		c.recl.release(ref)
	})
}

// scrubber goes over all items, a few at a time and no faster than it is allowed to, and removes those that are damaged: before anybody asks for them, and those that nobody
// can ask for any more, since their key or their index word is what is damaged.
type scrubber struct {
	stop, done chan struct{} // nil: there is none
	passes     atomic.Uint64 // finished ones
	bytes      atomic.Uint64 // of items that were looked at, ever
	place      atomic.Uint64 // the pass under way, in thousandths
}

const (
	scrubBuckets = 4                // in one section
	scrubRest    = 10 * time.Second // between two passes
)

func (c *Cache) startScrubber() {
	if c.opts.ScrubRate == 0 {
		return
	}
	k := &c.scrubber
	k.stop, k.done = make(chan struct{}), make(chan struct{})
	s := c.NewSession()
	go c.background(k.done, func() {
		defer s.Close()
		select {
		case <-c.sweepDone:
		case <-k.stop:
			return
		}
		for {
			began, read := time.Now(), int64(0)
			stopped := false
			s.scrub(func(n int) bool {
				read += int64(n)
				ahead := time.Duration(float64(read)/float64(c.opts.ScrubRate)*float64(time.Second)) - time.Since(began)
				if ahead > time.Millisecond {
					stopped = k.rest(ahead)
				} else {
					stopped = k.rest(0)
				}
				return !stopped
			})
			if stopped || k.rest(scrubRest) {
				return
			}
		}
	})
}

// rest waits, and tells whether the scrubber is to stop.
func (k *scrubber) rest(d time.Duration) (stop bool) {
	if d == 0 {
		select {
		case <-k.stop:
			return true
		default:
			return false
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-k.stop:
		return true
	case <-t.C:
		return false
	}
}

// background runs f, which touches the cache's memory, and closes done when it has ended.
func (c *Cache) background(done chan struct{}, f func()) {
	defer close(done)
	debug.SetPanicOnFault(true)
	defer c.catchFault()
	f()
}

func (c *Cache) stopScrubber() {
	if c.scrubber.stop != nil {
		close(c.scrubber.stop)
		<-c.scrubber.done
	}
}

// scrub is one pass. pace is told after each step how many bytes it looked at; false ends the pass. Where the index grows meanwhile the pass starts over.
//
// A word must be where its item's key leads: that is judged by the word as it was loaded and an item that our section protects, so it does not matter that others change
// the word meanwhile; and it is taken away only if it is still the same.
func (s *Session) scrub(pace func(bytes int) bool) (whole bool) {
	c := s.c
	v := c.verifier.Load()
	var w Walk // for its cursor over a table that may grow
	for {
		var large []found
		read, more := 0, false
		s.Begin()
		if w.start(s) {
			c.index.Help(walkHelp)
			more = true
		} else {
			end := w.bucket + scrubBuckets
			_, still := c.index.Sweep(w.bucket, end, func(ref mmapslab.Ref, bucket, tag, buckets uint32) (keep bool) {
				f := found{ref: ref}
				var ok bool
				if f.item, ok = c.store.Item(ref); !ok || !c.leads(s.hasher, &f.item, bucket, tag, buckets) {
					c.damage(ref, "index word to which no key leads")
					return false
				}
				f.hash = uint64(f.item.Hash())<<32 | uint64(tag)
				read += f.item.Size()
				if ref&mmapslab.Chained != 0 {
					c.recl.hold(ref) // it may take longer than a section should
					large = append(large, f)
				} else if !c.store.Verify(&f.item) {
					s.condemn(&f, "checksum")
				}
				return true
			})
			if more = !still || w.stale(s); !more {
				w.bucket = end
				more = w.bucket < w.buckets
			}
		}
		s.End()
		for i := range large {
			f := &large[i]
			if !c.store.Verify(&f.item) {
				s.Begin()
				s.condemn(f, "checksum")
				s.End()
			}
			c.recl.release(f.ref)
		}
		c.scrubber.bytes.Add(uint64(read))
		c.scrubber.place.Store(uint64(w.bucket) * 1000 / uint64(max(w.buckets, 1)))
		if !pace(read) && more {
			return false
		}
		if !more {
			break
		}
	}
	c.scrubber.passes.Add(1)
	if v != nil && !v.always {
		c.verifier.CompareAndSwap(v, nil) // everything that was there at the start has been looked at
	}
	return true
}

// leads tells whether the item's key leads to a word with this tag in this bucket.
func (c *Cache) leads(hasher *mmapslab.Hasher, it *mmapslab.Item, bucket, tag, buckets uint32) bool {
	h := hasher.Sum(it.Key())
	if uint32(h)&index.TagMask != tag || uint32(h>>32) != it.Hash() {
		return false
	}
	for _, b := range index.Buckets(it.Hash(), buckets) {
		if b == bucket {
			return true
		}
	}
	return false
}
