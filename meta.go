package hearth

import (
	"strconv"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// This file has what memcached's meta commands and binary protocol need beyond the classic commands: conditions on the CAS, chosen CAS ids, items made
// on a miss, and items that are stale. Stale and token are item flags, which are immutable as all of an item: giving the token out replaces the item by a
// copy that has it, so exactly one of those who ask wins it.

// Item flags of the protocol.
const (
	itemKeyBinary = 1 << iota
	itemStale
	itemTokenSent
)

// Now returns the time of the section, which Item.Exptime compares with.
func (s *Session) Now() uint32 { return s.now }

// Until turns an exptime of the protocol into what Item.Exptime would be for it.
func (s *Session) Until(exptime int64) uint32 { return s.absolute(exptime) }

// GetOptions say how MetaGet fetches. The zero value is Get, but for tokens.
type GetOptions struct {
	Peek          bool  // count no get and mark nothing
	Leave         bool  // with Peek: not even remove and count an item that is over
	NoBump        bool  // do not mark the item as fetched
	Touch         bool  // give it Exptime, in protocol terms, and count as touch
	Exptime       int64 //
	Recache       bool  // win the token if the item expires before RecacheTTL, in protocol terms
	RecacheTTL    int64
	RecacheLast   bool // judge that by the exptime that Touch gives
	Vivify        bool // on a miss make an empty item that lives for VivifyExptime, in protocol terms, and win its token
	VivifyExptime int64
	CAS           uint64 // of the vivified item; 0: a new one
	KeyBinary     bool   // of the vivified item
}

// Fetch is what MetaGet found: the item as it was before, but for its exptime.
type Fetch struct {
	Item
	Before  uint32 // its exptime before Touch
	Won     bool   // the caller is the one to recache the item
	Created bool   // there was none: this is a new, empty one

	Expired, Flushed bool // with Peek, on Miss: there is an item, but it is over
}

// MetaGet looks key up and fills got on OK. A stale item whose token nobody has gives it to the first who fetches it. OK, Miss, or NoMemory.
func (s *Session) MetaGet(key []byte, o *GetOptions, got *Fetch) Status {
	var f found
	s.look(&f, key)
	if o.Peek {
		if f.fate != alive {
			*got = Fetch{Expired: f.fate == expired, Flushed: f.fate == flushed}
			if !o.Leave {
				s.missed(&f)
			}
			return Miss
		}
		*got = Fetch{Before: f.meta.Exptime()}
		s.view(&got.Item, &f)
		return OK
	}
	for ; ; s.lookAgain(&f, key) {
		if f.fate != alive {
			s.missed(&f)
			if o.Vivify {
				if made, st := s.vivify(key, o, got); made || st != OK {
					return st
				}
				continue // there is one meanwhile
			}
			s.counts.inc(nGets)
			return Miss
		}
		before, won := f.meta.Exptime(), s.wins(&f.item, f.meta, o)
		switch {
		case won || o.Touch && f.meta&mmapslab.Copying != 0:
			next, st := s.remake(key, s.sameBut(&remaking{
				// The item may be another one than above by now.
				size: func(old *mmapslab.Item) (int, Status) {
					if won != s.wins(old, mmapslab.Meta(s.c.store.Meta(old.Ref()).Load()), o) {
						return 0, Exists
					}
					return old.ValueLen(), OK
				},
				fields: func(f *mmapslab.Fields) {
					if won {
						f.Flags |= itemTokenSent
					}
				},
				meta: func(old mmapslab.Meta) mmapslab.Meta {
					if before = old.Exptime(); o.Touch {
						return unlinked(old).WithExptime(s.absolute(o.Exptime))
					}
					return unlinked(old)
				},
			}))
			if st == Exists || st == Miss {
				continue
			}
			if st == NoMemory {
				if s.lookAgain(&f, key); f.fate != alive || o.Touch {
					return NoMemory
				}
				won = false // serve it all the same: somebody else will win
			} else {
				f = next
			}
		case o.Touch:
			touched := f.meta.WithExptime(s.absolute(o.Exptime))
			if !s.c.store.Meta(f.ref).CompareAndSwap(uint64(f.meta), uint64(touched)) {
				continue
			}
			f.meta = touched
		}
		got.Before, got.Won, got.Created, got.Expired, got.Flushed = before, won, false, false, false
		s.view(&got.Item, &f)
		got.TokenSent = got.TokenSent && !won // it is the caller's
		s.fetched(&f, o, got.ClassID)
		return OK
	}
}

// wins tells whether who fetches an item by o gets its token.
func (s *Session) wins(it *mmapslab.Item, m mmapslab.Meta, o *GetOptions) bool {
	if it.Flags()&itemTokenSent != 0 {
		return false
	}
	exptime := m.Exptime()
	if o.RecacheLast && o.Touch {
		exptime = s.absolute(o.Exptime)
	}
	return it.Flags()&itemStale != 0 || o.Recache && exptime != 0 && exptime < s.absolute(o.RecacheTTL)
}

// fetched counts and marks what was found or made; class is its ListClass.
func (s *Session) fetched(f *found, o *GetOptions, class int) {
	if o.Touch {
		s.counts.inc(nTouches)
		s.counts.inClass(class, classTouches)
	} else {
		s.counts.inc(nGets)
		s.counts.inClass(class, classGets)
	}
	s.counts.inClass(class, hitHot+classCounter(f.meta.Segment()))
	if !o.NoBump {
		s.hit(f)
	}
}

// setExptime touches a found item; f is the item of the key afterwards. OK, Miss or NoMemory.
func (s *Session) setExptime(f *found, key []byte, at uint32) Status {
	for ; f.fate == alive; s.lookAgain(f, key) {
		if f.meta&mmapslab.Copying != 0 {
			next, st := s.remake(key, s.sameBut(&remaking{
				meta: func(old mmapslab.Meta) mmapslab.Meta { return unlinked(old).WithExptime(at) },
			}))
			if st == OK || st == Miss {
				*f = next
			}
			return st
		}
		fault.Point("hearth.touch.before")
		if s.c.store.Meta(f.ref).CompareAndSwap(uint64(f.meta), uint64(f.meta.WithExptime(at))) {
			fault.Point("hearth.touch.after")
			f.meta = f.meta.WithExptime(at)
			return OK
		}
	}
	return Miss
}

// unlinked is an item's Meta for a copy that is in no list yet.
func unlinked(m mmapslab.Meta) mmapslab.Meta {
	return m &^ (mmapslab.Copying | mmapslab.Linked | mmapslab.ListedApart)
}

// sameBut fills in what r does not say so that the new item is a copy of the old one.
func (s *Session) sameBut(r *remaking) *remaking {
	if r.segment == nil {
		r.segment = mmapslab.Meta.Segment
	}
	if r.meta == nil {
		r.meta = unlinked
	}
	if r.size == nil {
		r.size = func(old *mmapslab.Item) (int, Status) { return old.ValueLen(), OK }
	}
	if r.write == nil {
		r.write = s.copyValue
	}
	return r
}

// vivify makes an empty item with the token given out; made is false when there is one meanwhile. As in memcached the new item is a hit.
func (s *Session) vivify(key []byte, o *GetOptions, got *Fetch) (made bool, _ Status) {
	var d Draft
	fields := mmapslab.Fields{Flags: itemTokenSent}
	if o.KeyBinary {
		fields.Flags |= itemKeyBinary
	}
	if st := s.draft(&d, key, s.sum(key), &fields, mmapslab.MakeMeta(s.absolute(o.VivifyExptime), s.now), 0); st != OK {
		return false, st
	}
	ref := d.ref
	if _, st := s.CommitMeta(&d, &StoreOptions{Mode: Add, NewCAS: o.CAS}); st == NotStored {
		return false, OK
	} else if st != OK {
		return false, st
	}
	f := found{ref: ref, item: s.c.store.Unsealed(ref), meta: mmapslab.Meta(s.c.store.Meta(ref).Load())}
	*got = Fetch{Won: true, Created: true}
	s.view(&got.Item, &f)
	got.TokenSent = false
	s.fetched(&f, o, got.ClassID)
	return true, OK
}

// StoreOptions say how CommitMeta stores.
type StoreOptions struct {
	Mode          Mode
	CAS           uint64 // with Mode CAS: the item's must be this. With Append and Prepend: likewise, unless 0
	Invalidate    bool   // with Mode CAS: a lower CAS than the item's stores too, but the new item is stale, and keeps exptime and token
	NewCAS        uint64 // of the new item; 0: a new one
	Vivify        bool   // with Append and Prepend: where there is no item, store the draft with VivifyExptime, in protocol terms
	VivifyExptime int64
	Size          int // set by CommitMeta on OK: bytes of the value as it is now, which Append and Prepend have not seen before
	ClassID       int // set by CommitMeta on OK, where the new item is not the draft as it was: its slab class and exptime
	Exptime       uint32
}

// MarkKeyBinary says of a draft that its key was given in base64.
func (s *Session) MarkKeyBinary(d *Draft) { s.c.store.AddFlags(d.ref, itemKeyBinary) }

// CommitMeta is Commit with options; the draft's own mode only matters to Prepare.
func (s *Session) CommitMeta(d *Draft, o *StoreOptions) (uint64, Status) {
	if d.Remaining() != 0 {
		panic("hearth: commit of a draft that is not fully written")
	}
	d.mode = o.Mode
	it := s.c.store.Unsealed(d.ref)
	o.Size = it.ValueLen()
	cas := o.NewCAS
	if cas == 0 {
		cas = s.c.store.NextCAS()
	}
	st := OK
	switch {
	case d.mode == Append || d.mode == Prepend:
		st = s.join(d, it.Key(), cas, o)
		if st == NotStored && o.Vivify {
			d.mode = Add
			o.ClassID, o.Exptime = s.c.store.ListClass(d.ref), s.absolute(o.VivifyExptime)
			s.c.store.Meta(d.ref).Store(uint64(mmapslab.MakeMeta(o.Exptime, s.now)))
			s.c.store.Seal(d.ref, cas, s.c.epoch(s.now))
			st = s.store(d, &it, 0)
		}
		s.Discard(d)
	case d.mode == CAS && o.Invalidate:
		st = s.storeStale(d, it.Key(), cas, o)
		s.Discard(d)
	default:
		s.c.store.Seal(d.ref, cas, s.c.epoch(s.now))
		st = s.store(d, &it, o.CAS)
	}
	if s.c.opts.NoCAS {
		cas = 0
	}
	return cas, st
}

// storeStale is a store in CAS mode that a lower CAS does not keep out. The draft is only the source: what the new item is like depends on the old one.
func (s *Session) storeStale(d *Draft, key []byte, cas uint64, o *StoreOptions) Status {
	from, given := s.c.store.Unsealed(d.ref), o.CAS
	fresh := mmapslab.Meta(s.c.store.Meta(d.ref).Load())
	var stale bool
	var flags uint16
	f, st := s.remake(key, s.sameBut(&remaking{
		cas:     cas,
		segment: func(mmapslab.Meta) int { return lru.Hot },
		size: func(old *mmapslab.Item) (int, Status) {
			stale, flags = given < old.CAS(), old.Flags()
			if s.c.opts.NoCAS || given == 0 || given > old.CAS() { // 0 fits nothing, as ever
				return 0, Exists
			}
			return from.ValueLen(), OK
		},
		fields: func(f *mmapslab.Fields) {
			f.ClientFlags, f.Flags = from.ClientFlags(), from.Flags()
			if stale {
				f.Flags |= itemStale | flags&itemTokenSent
			}
		},
		meta: func(old mmapslab.Meta) mmapslab.Meta {
			if stale {
				return fresh.WithExptime(old.Exptime())
			}
			return fresh
		},
		write: func(to *Draft, _ *mmapslab.Item) bool { return s.copyValue(to, &from) },
	}))
	switch st {
	case OK:
		o.ClassID, o.Exptime = s.c.store.ListClass(f.ref), f.meta.Exptime()
		s.counts.inClass(o.ClassID, classCasHits)
		s.counts.inc(nStored)
	case Miss:
		s.counts.inc(nCasMisses)
		s.missed(&f)
	case Exists:
		s.counts.inClass(s.c.store.ListClass(f.ref), classCasBadval)
	}
	return st
}

// DeleteOptions say how MetaDelete deletes.
type DeleteOptions struct {
	HasCAS     bool // only an item with this CAS
	CAS        uint64
	Invalidate bool // keep the item but make it stale, with a new CAS and its token free
	Clear      bool // replace the item by one without value, as a set would: not stale, and for good without Touch
	Touch      bool // with Invalidate or Clear: give it Exptime, in protocol terms
	Exptime    int64
	CountCAS   bool   // another CAS counts as a miss
	Flags      uint32 // with Clear: the client flags it gets
	NewCAS     uint64 // with Invalidate or Clear; 0: a new one for Invalidate, the old one for Clear
}

// MetaDelete deletes, or invalidates, an item: OK, Miss, Exists for another CAS, NoMemory.
func (s *Session) MetaDelete(key []byte, o *DeleteOptions) Status {
	f, st := s.deleteOrRemake(key, o)
	switch st {
	case OK:
		if !o.Invalidate && !o.Clear {
			s.counts.inClass(s.c.store.ListClass(f.ref), classDeletes)
		}
	case Exists:
		if o.CountCAS {
			s.counts.inc(nDeleteMisses)
		}
	case Miss:
		s.counts.inc(nDeleteMisses)
		s.missed(&f)
	}
	return st
}

func (s *Session) deleteOrRemake(key []byte, o *DeleteOptions) (f found, _ Status) {
	if !o.Invalidate && !o.Clear {
		for s.look(&f, key); f.fate == alive; s.lookAgain(&f, key) {
			if o.HasCAS && o.CAS != f.item.CAS() {
				return f, Exists
			}
			if s.remove(&f) {
				return f, OK
			}
		}
		return f, Miss
	}
	cas := o.NewCAS
	if cas == 0 && o.Invalidate {
		cas = s.c.store.NextCAS()
	}
	r := s.sameBut(&remaking{
		cas: cas,
		size: func(old *mmapslab.Item) (int, Status) {
			switch {
			case o.HasCAS && o.CAS != old.CAS():
				return 0, Exists
			case o.Clear:
				return 0, OK
			}
			return old.ValueLen(), OK
		},
		fields: func(f *mmapslab.Fields) {
			if o.Clear {
				f.ClientFlags, f.Flags = o.Flags, f.Flags&itemKeyBinary
			}
			if o.Invalidate {
				f.Flags = f.Flags&^itemTokenSent | itemStale
			}
		},
		meta: func(old mmapslab.Meta) mmapslab.Meta {
			m := unlinked(old)
			if o.Clear {
				m = mmapslab.MakeMeta(0, s.now)
			}
			if o.Touch {
				m = m.WithExptime(s.absolute(o.Exptime))
			}
			return m
		},
	})
	if o.Clear {
		r.segment = func(mmapslab.Meta) int { return lru.Hot }
		r.write = func(*Draft, *mmapslab.Item) bool { return true }
	}
	return s.remake(key, r)
}

// ArithOptions say how Arith counts.
type ArithOptions struct {
	Delta         uint64
	Decr          bool
	HasCAS        bool // only an item with this CAS
	CAS           uint64
	Vivify        bool // on a miss store Initial, with VivifyExptime in protocol terms
	VivifyExptime int64
	Initial       uint64
	KeyBinary     bool // of the vivified item
	Touch         bool // give it Exptime, in protocol terms
	Exptime       int64
	NewCAS        uint64 // 0: a new one
	Before        uint32 // set by Arith on OK: the exptime before Touch, 0 when Created
	Created       bool   // set by Arith on OK: the item is new
}

// Arith is Incr or Decr with options. On OK it fills got, unless it is nil, with the item as it is now. OK, Miss, Exists, NonNumeric, NoMemory.
func (s *Session) Arith(key []byte, o *ArithOptions, got *Item) (n uint64, st Status) {
	hits, misses := classIncrs, nIncrMisses
	if o.Decr {
		hits, misses = classDecrs, nDecrMisses
	}
	for {
		var f found
		o.Created = false
		if n, f, st = s.count(key, o); st == OK {
			s.counts.inClass(s.c.store.ListClass(f.ref), hits)
		}
		if st == Miss {
			s.missed(&f)
			if !o.Vivify {
				s.counts.inc(misses)
				return 0, Miss
			}
			n = o.Initial
			if f, st = s.storeNumber(key, o); st == NotStored {
				continue // there is one meanwhile
			}
			o.Before, o.Created = 0, true
		}
		if st == OK && got != nil {
			s.view(got, &f)
		}
		return n, st
	}
}

// storeNumber adds an item with the initial value. As in memcached it counts neither as a store by a client nor as a miss.
func (s *Session) storeNumber(key []byte, o *ArithOptions) (f found, _ Status) {
	var d Draft
	digits := strconv.AppendUint(s.number[:0], o.Initial, 10)
	fields := mmapslab.Fields{}
	if o.KeyBinary {
		fields.Flags |= itemKeyBinary
	}
	if st := s.draft(&d, key, s.sum(key), &fields, mmapslab.MakeMeta(s.absolute(o.VivifyExptime), s.now), len(digits)); st != OK {
		return f, st
	}
	s.Write(&d, digits)
	ref := d.ref
	_, st := s.CommitMeta(&d, &StoreOptions{Mode: Add, NewCAS: o.NewCAS})
	if st == OK { // else the chunk is somebody else's already
		f = found{ref: ref, item: s.c.store.Unsealed(ref), meta: mmapslab.Meta(s.c.store.Meta(ref).Load())}
	}
	return f, st
}
