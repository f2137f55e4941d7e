package hearth

import (
	"strconv"

	"hearth/index"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// Mode says how Commit stores a draft.
type Mode uint8

const (
	Set     Mode = iota // store whatever is there
	Add                 // only if there is none
	Replace             // only if there is one
	Append              // put the draft's bytes after the existing value; its flags and exptime stay
	Prepend             // put the draft's bytes before the existing value; its flags and exptime stay
	CAS                 // only if the item's CAS is the given one
)

// Draft is an item that is being written: chunks that belong to nobody else until Commit or Discard. It may be kept over sections.
// The zero Draft is ready for Prepare.
type Draft struct {
	mode Mode
	hash uint64 // of the key
	ref  mmapslab.Ref
	last mmapslab.Ref // the chunk that the next data chunk goes behind
	cur  []byte       // not yet written bytes of the current chunk
	left int          // value bytes for which there is no chunk yet
}

// Prepare starts an item of size value bytes. Exptime is in protocol terms: 0 never, negative at once, up to 30 days relative in
// seconds, above that absolute. The key (1..250 bytes) is copied. OK, TooLarge or NoMemory; after the latter two Set mode has removed the old
// value, as memcached does, so that no stale one stays, and there is nothing to discard.
func (s *Session) Prepare(d *Draft, mode Mode, key []byte, flags uint32, exptime int64, size int) Status {
	st := TooLarge
	if s.fits(len(key), size, flags) {
		hash := s.sum(key)
		fields := mmapslab.Fields{ClientFlags: flags}
		if st = s.draft(d, key, hash, &fields, mmapslab.MakeMeta(s.absolute(exptime), s.now), size); st == OK {
			d.mode = mode
			s.counts.inClass(s.c.store.ListClass(d.ref), classSets)
			return OK
		}
	}
	if st == TooLarge {
		s.counts.inc(nTooLarge)
	} else {
		s.counts.inc(nNoMemory)
	}
	if mode == Set {
		var f found
		for s.look(&f, key); f.fate != absent && !s.remove(&f); s.lookAgain(&f, key) {
		}
	}
	return st
}

// fits tells whether an item is within MaxItemSize by memcached's count, which has a larger header than ours, a zero behind the key, the flags
// if there are any, and a line end: so the same values are too large here as there.
func (s *Session) fits(key, value int, flags uint32) bool {
	size := 48 + key + 1 + value + 2
	if !s.c.opts.NoCAS {
		size += 8
	}
	if flags != 0 {
		size += 4
	}
	return size <= s.c.opts.MaxItemSize
}

// draft allocates and starts an item of a key with this hash. It may renew the section.
func (s *Session) draft(d *Draft, key []byte, hash uint64, fields *mmapslab.Fields, m mmapslab.Meta, size int) Status {
	store := s.c.store
	whole := mmapslab.ItemSize(len(key), size)
	*d = Draft{hash: hash}
	fields.Hash = uint32(hash >> 32)
	if whole > store.ChunkMax() {
		ref, ok := s.alloc(store.ClassFor(mmapslab.HeaderSize + mmapslab.ChainRefSize + len(key)))
		if !ok {
			return NoMemory
		}
		d.ref = ref | mmapslab.Chained
		d.last, d.left = d.ref, size
		store.WriteItem(d.ref, key, size, fields, m)
		return OK
	}
	ref, ok := s.alloc(store.ClassFor(whole))
	if !ok {
		return NoMemory
	}
	d.ref = ref
	fault.Point("hearth.draft.allocated")
	store.WriteItem(ref, key, size, fields, m)
	it := store.Unsealed(ref)
	d.cur = it.Value()
	return OK
}

// View fills it with a draft as it is so far, valid until the next call. Its value and CAS are not there yet.
func (s *Session) View(d *Draft, it *Item) {
	s.view(it, &found{ref: d.ref, item: s.c.store.Unsealed(d.ref), meta: mmapslab.Meta(s.c.store.Meta(d.ref).Load())})
}

// Mode returns the mode of Prepare.
func (d *Draft) Mode() Mode { return d.mode }

// Remaining returns how many value bytes are still to be written.
func (d *Draft) Remaining() int { return len(d.cur) + d.left }

// Held returns how many bytes of the cache's memory a draft holds.
func (s *Session) Held(d *Draft) int {
	store := s.c.store
	if d.ref == 0 {
		return 0
	}
	held := store.ChunkSize(d.ref)
	if d.ref&mmapslab.Chained != 0 {
		it := store.Unsealed(d.ref)
		held += it.ValueLen() - d.left
	}
	return held
}

// Next returns the next stretch of memory to write value bytes into, for example by reading from a socket, or nil when no chunk could
// be had: then Discard and answer out of memory. It is empty only when nothing remains.
func (s *Session) Next(d *Draft) []byte {
	if len(d.cur) > 0 || d.left == 0 {
		return d.cur[:len(d.cur):len(d.cur)]
	}
	store := s.c.store
	n := min(d.left, store.ChunkMax()-mmapslab.DataHeaderSize)
	ref, ok := s.alloc(store.ClassFor(n + mmapslab.DataHeaderSize))
	if !ok {
		// A chunk of the largest class may be had where the fitting class has no page.
		if ref, ok = s.alloc(store.Largest()); !ok {
			return nil
		}
	}
	d.cur = store.AppendData(d.last, ref, n)
	fault.Point("hearth.draft.chained")
	d.last = ref
	d.left -= n
	return d.cur
}

// Wrote tells that the first n bytes of what Next returned are written.
func (d *Draft) Wrote(n int) { d.cur = d.cur[n:] }

// Write copies p into the draft; false when no chunk could be had or p is longer than what remains.
func (s *Session) Write(d *Draft, p []byte) bool {
	for len(p) > 0 {
		n := copy(s.Next(d), p)
		if n == 0 {
			return false
		}
		d.Wrote(n)
		p = p[n:]
	}
	return true
}

// Discard gives a draft's memory back.
func (s *Session) Discard(d *Draft) {
	if d.ref != 0 {
		s.c.free(s.slot.chunks, d.ref)
	}
	*d = Draft{}
}

// free frees items' chunks, to a session's magazine or, nil, to nobody's. Nobody can be reading them any more.
func (c *Cache) free(to *mmapslab.Magazine, refs ...mmapslab.Ref) {
	for _, ref := range refs {
		if ref&mmapslab.Chained != 0 {
			c.freeChain(ref) // apart, so that what its closure needs is on the heap for chained items only
		}
	}
	c.store.FreeTo(to, refs...)
}

func (c *Cache) freeChain(ref mmapslab.Ref) {
	it := c.store.Unsealed(ref)
	var chunks []mmapslab.Ref
	c.store.Chain(&it, func(data mmapslab.Ref, _ []byte) { chunks = append(chunks, data) })
	c.store.Free(chunks...)
}

// itemSize returns what an item takes in bytes. Nobody else can free it meanwhile.
func (c *Cache) itemSize(ref mmapslab.Ref) int {
	it := c.store.Unsealed(ref)
	return it.Size()
}

// copyValue writes an item's whole value into a draft.
func (s *Session) copyValue(d *Draft, it *mmapslab.Item) bool {
	if it.Ref()&mmapslab.Chained == 0 {
		return s.Write(d, it.Value())
	}
	ok := true
	return s.c.store.Chain(it, func(_ mmapslab.Ref, data []byte) { ok = ok && s.Write(d, data) }) && ok
}

// Commit stores a fully written draft and returns the new CAS. cas matters in CAS mode only. Whatever it returns, the draft is used up.
// OK, NotStored, Exists, Miss (CAS mode), NoMemory.
func (s *Session) Commit(d *Draft, cas uint64) (uint64, Status) {
	return s.CommitMeta(d, &StoreOptions{Mode: d.mode, CAS: cas})
}

// store publishes a sealed draft by its mode. The order is: link, publish, and after that, for an old item, unlink and retire (R4). The item is
// linked first so that whoever replaces or deletes it, even before we return, finds it in a list to take it out of.
//
// The item's flush epoch is the one of the look, and not below that of what it replaces: were it the one of an earlier Seal, a flush in between would have an add find the key
// free, because of the flush, and flush what was added, too; and a set that replaces another one, which came after the flush, would take that away. A flush between the look
// and the publication comes after the store: nobody stored in between, or the publication fails.
func (s *Session) store(d *Draft, it *mmapslab.Item, cas uint64) Status {
	defer func() { *d = Draft{} }()
	size, id, linked := it.Size(), it.CAS(), false
	var waited growthWait
	refuse := func(st Status) Status {
		if linked {
			s.c.order.Unlink(d.ref, size)
			s.retire(d.ref)
		} else {
			s.c.free(s.slot.chunks, d.ref)
		}
		return st
	}
	fault.Point("hearth.draft.sealed")
	for f := (found{hash: d.hash}); ; {
		s.lookAgain(&f, it.Key())
		epoch := s.c.epoch(s.now)
		if f.fate != absent && f.item.Epoch() == epoch+1 {
			epoch++ // of a moment that has come since this section began
		}
		if laterEpoch(epoch, it.Epoch()) {
			if linked && !s.redraft(d, it) {
				return refuse(NoMemory)
			}
			linked = false
			s.c.store.Seal(d.ref, id, epoch)
			continue
		}
		switch {
		case f.fate == alive && d.mode == Add:
			s.c.order.Touched(f.ref, s.now)
			return refuse(NotStored)
		case f.fate != alive && d.mode == Replace:
			s.missed(&f)
			return refuse(NotStored)
		case f.fate != alive && d.mode == CAS:
			s.missed(&f)
			s.counts.inc(nCasMisses)
			return refuse(Miss)
		case d.mode == CAS && (s.c.opts.NoCAS || f.item.CAS() != cas):
			s.counts.inClass(s.c.store.ListClass(f.ref), classCasBadval)
			return refuse(Exists)
		}
		if !linked {
			m := mmapslab.Meta(s.c.store.Meta(d.ref).Load())
			s.c.order.Link(d.ref, s.c.order.Entry(m, s.now), size)
			linked = true
			fault.Point("hearth.draft.linked")
		}
		if f.fate != absent {
			if !s.c.index.Replace(f.hash, f.ref, d.ref) {
				continue
			}
			s.countDead(&f)
			s.leave(f.ref, &f.item)
		} else {
			result, victim := s.c.index.Insert(f.hash, it.Key(), d.ref)
			if result == index.Full && victim == 0 {
				return refuse(NoMemory)
			}
			if result == index.Full && s.awaitGrowth(&waited) {
				continue
			}
			if result == index.Full && !s.evict(victim) {
				if _, ok := s.c.store.Item(victim); !ok {
					return refuse(NoMemory) // a damaged word that nobody can take away but a sweep
				}
			}
			if result != index.Inserted {
				continue
			}
		}
		if d.mode == CAS {
			s.counts.inClass(s.c.store.ListClass(d.ref), classCasHits)
		}
		s.counts.inc(nStored)
		return OK
	}
}

// redraft puts an unsealed copy in the place of a draft that is linked already, and that others may be reading, therefore: it is retired. False, with nothing changed, when
// there is no memory. The section may be a new one.
func (s *Session) redraft(d *Draft, it *mmapslab.Item) bool {
	var again Draft
	exptime := mmapslab.Meta(s.c.store.Meta(d.ref).Load()).Exptime()
	fields := mmapslab.Fields{Flags: it.Flags(), ClientFlags: it.ClientFlags()}
	if s.draft(&again, it.Key(), d.hash, &fields, mmapslab.MakeMeta(exptime, s.now), it.ValueLen()) != OK || !s.copyValue(&again, it) {
		s.Discard(&again)
		return false
	}
	s.c.order.Unlink(d.ref, it.Size())
	s.retire(d.ref)
	again.mode = d.mode
	*d, *it = again, s.c.store.Unsealed(again.ref)
	return true
}

// claim sets Copying on a found item before its exptime is carried over to a copy; see touch. It is not taken back when the operation finds no memory after it
// (all other refusals come before): others may be copying the item, and the bit is theirs too. It costs the next touch a copy, which is without it.
func (s *Session) claim(f *found) {
	w := s.c.store.Meta(f.ref)
	f.meta = mmapslab.Meta(w.Or(uint64(mmapslab.Copying))) | mmapslab.Copying
}

// remaking says how remake makes an item out of another.
type remaking struct {
	cas     uint64 // of the new item; 0: the old one's
	segment func(old mmapslab.Meta) int
	meta    func(old mmapslab.Meta) mmapslab.Meta
	fields  func(f *mmapslab.Fields)               // changes the item's flags; nil leaves them
	size    func(old *mmapslab.Item) (int, Status) // of the new value; another Status than OK ends it
	write   func(d *Draft, old *mmapslab.Item) bool
}

// remake replaces the living item of key by one that is made out of it, starting over when somebody interferes, and returns the new one. Flags and,
// unless r.meta says otherwise, exptime stay. So does the flush epoch: a flush that comes in between flushes the outcome too.
//
// The old item must stay readable while memory is allocated, which may renew the section. Small items start over when that happens; for large
// ones, which take many allocations and are dear to copy twice, the old item is pinned. A pinned chunk is not used again, so in both cases the index
// word can only still hold the old Ref if it is still the old item.
func (s *Session) remake(key []byte, r *remaking) (f found, _ Status) {
	for s.look(&f, key); f.fate == alive; s.lookAgain(&f, key) {
		n, st := r.size(&f.item)
		if st != OK {
			return f, st
		}
		s.claim(&f)
		fault.Point("hearth.remake.claimed")
		var d Draft
		var pin Pin
		if mmapslab.ItemSize(len(key), n) > s.c.store.ChunkMax() || f.ref&mmapslab.Chained != 0 {
			s.c.recl.pin(f.ref)
			pin.ref = f.ref
		}
		renewals := s.renewals
		fields := mmapslab.Fields{Flags: f.item.Flags(), ClientFlags: f.item.ClientFlags()}
		if r.fields != nil {
			r.fields(&fields)
		}
		done := false
		if st = s.draft(&d, key, f.hash, &fields, r.meta(f.meta), n); st == OK && (pin.ref != 0 || s.renewals == renewals) {
			if r.write(&d, &f.item) {
				done = s.publishOver(&d, &f, r)
			} else {
				st = NoMemory
			}
		}
		s.Discard(&d)
		s.Unpin(pin)
		if done || st != OK {
			return f, st
		}
	}
	return f, Miss
}

// publishOver seals a draft and puts it in the place of a found item, which it retires; then f is the new item. False, with the draft used up, when the
// index holds the found item no more.
func (s *Session) publishOver(d *Draft, f *found, r *remaking) bool {
	cas := r.cas
	if cas == 0 {
		cas = f.item.CAS()
	}
	ref := d.ref
	*d = Draft{}
	s.c.store.Seal(ref, cas, f.item.Epoch())
	fault.Point("hearth.remake.sealed")
	it := s.c.store.Unsealed(ref)
	s.c.order.Link(ref, r.segment(f.meta), it.Size())
	fault.Point("hearth.draft.linked")
	if !s.c.index.Replace(f.hash, f.ref, ref) {
		s.c.order.Unlink(ref, it.Size())
		s.retire(ref)
		return false
	}
	s.discard(f.ref, &f.item)
	f.ref, f.item, f.meta = ref, it, mmapslab.Meta(s.c.store.Meta(ref).Load())
	return true
}

// join stores the draft's bytes behind or before the value that key has.
func (s *Session) join(d *Draft, key []byte, cas uint64, o *StoreOptions) Status {
	added := s.c.store.Unsealed(d.ref)
	f, st := s.remake(key, &remaking{
		cas:     cas,
		segment: func(old mmapslab.Meta) int { return s.c.order.Entry(old, s.now) },
		meta:    func(old mmapslab.Meta) mmapslab.Meta { return mmapslab.MakeMeta(old.Exptime(), s.now) },
		size: func(old *mmapslab.Item) (int, Status) {
			if o.CAS != 0 && o.CAS != old.CAS() {
				return 0, Exists
			}
			n := old.ValueLen() + added.ValueLen()
			if !s.fits(len(key), n, old.ClientFlags()) {
				return 0, NotStored
			}
			o.Size = n
			return n, OK
		},
		fields: func(f *mmapslab.Fields) { f.Flags &^= itemStale | itemTokenSent }, // it is a new value
		write: func(to *Draft, old *mmapslab.Item) bool {
			first, second := old, &added
			if d.mode == Prepend {
				first, second = second, first
			}
			return s.copyValue(to, first) && s.copyValue(to, second)
		},
	})
	switch st {
	case OK:
		o.ClassID, o.Exptime = s.c.store.ListClass(f.ref), f.meta.Exptime()
		s.counts.inc(nStored)
	case Miss:
		s.missed(&f)
		return NotStored
	case NoMemory:
		return NotStored // memcached's reply; out of memory is only said of the piece that was sent
	}
	return st
}

// Incr adds delta to the decimal number in the value, or subtracts it; Incr wraps at 2^64, Decr stops at 0. OK, Miss, NonNumeric, NoMemory.
func (s *Session) Incr(key []byte, delta uint64) (uint64, Status) {
	return s.Arith(key, &ArithOptions{Delta: delta}, nil)
}

// Decr is told with Incr.
func (s *Session) Decr(key []byte, delta uint64) (uint64, Status) {
	return s.Arith(key, &ArithOptions{Delta: delta, Decr: true}, nil)
}

// count puts a new number in the place of an old one. Where that is shorter it is padded with blanks to the old length, as memcached does when it writes in
// place. We never write in place: value and CAS would be two stores, and a kill between them would let an old CAS fit a new value (R6).
func (s *Session) count(key []byte, o *ArithOptions) (n uint64, _ found, _ Status) {
	cas := o.NewCAS
	if cas == 0 {
		cas = s.c.store.NextCAS()
	}
	grown := false
	f, st := s.remake(key, &remaking{
		cas:     cas,
		segment: mmapslab.Meta.Segment,
		fields: func(f *mmapslab.Fields) {
			if grown { // then memcached has a new item too, which is neither stale nor fetched
				f.Flags &^= itemStale | itemTokenSent
			}
		},
		meta: func(old mmapslab.Meta) mmapslab.Meta {
			m := unlinked(old).WithTime(s.now)
			if grown {
				m = mmapslab.MakeMeta(old.Exptime(), s.now)
			}
			if o.Before = old.Exptime(); o.Touch {
				m = m.WithExptime(s.absolute(o.Exptime))
			}
			return m
		},
		size: func(old *mmapslab.Item) (int, Status) {
			if old.ValueLen() == 0 || old.Ref()&mmapslab.Chained != 0 { // memcached says so before it looks at the CAS
				return 0, NonNumeric
			}
			if o.HasCAS && o.CAS != old.CAS() {
				return 0, Exists
			}
			was, ok := parseNumber(old.Value())
			if !ok {
				return 0, NonNumeric
			}
			if n = was + o.Delta; o.Decr {
				n = was - min(was, o.Delta)
			}
			digits := len(strconv.AppendUint(s.number[:0], n, 10))
			grown = digits > old.ValueLen()
			return max(digits, old.ValueLen()), OK
		},
		write: func(d *Draft, old *mmapslab.Item) bool {
			to := s.Next(d)
			for i := copy(to, strconv.AppendUint(s.number[:0], n, 10)); i < len(to); i++ {
				to[i] = ' '
			}
			d.Wrote(len(to))
			return true
		},
	})
	if st == OK && grown { // where memcached writes in place, it stores no item
		s.counts.inc(nStored)
	}
	return n, f, st
}

// parseNumber reads a number as memcached's safe_strtoull reads a value: leading white space and a plus are accepted, as is anything behind a
// white space or a zero byte that follows the digits.
func parseNumber(v []byte) (n uint64, ok bool) {
	space := func(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }
	i := 0
	for i < len(v) && space(v[i]) {
		i++
	}
	if i < len(v) && v[i] == '+' {
		i++
	}
	digits := i
	for ; i < len(v) && v[i] >= '0' && v[i] <= '9'; i++ {
		d := uint64(v[i] - '0')
		if n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, i > digits && (i == len(v) || v[i] == 0 || space(v[i]))
}
