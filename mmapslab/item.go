package mmapslab

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// An item starts a chunk:
//
//	 0  kind 1 | key length 1 | item flags 2 | flush epoch 4
//	 8  CAS 8
//	16  value length 4 | client flags 4
//	24  high half of the key's hash 4 | crc32c 4
//	32  Meta 8, the only word that changes once the item is published
//	40  key, then value
//
// A chained item has the Ref of its first data chunk at 40 and the key from 48 on; data chunks are
//
//	 0  kind 1 | zeros 3 | bytes used 4
//	 8  Ref of the next data chunk, 0 in the last
//	16  zeros 16
//	32  Ref of the item, shifted left by 8
//	40  bytes of the value
//
// The word at 32 of any chunk, free ones included, has its Linked bit set only while an item there is in an LRU list: notes about hits may
// name a chunk that has become something else since, and are recognized by it.
//
// The checksum covers everything but Meta, the Refs of data chunks and itself; it starts from the item's own Ref, so that a Ref gone astray does not validate.
const (
	// HeaderSize is the size of an item's header in bytes.
	HeaderSize = 40
	// ChainRefSize is what the header of a chained item has in addition.
	ChainRefSize = 8
	// DataHeaderSize is the size of a data chunk's header in bytes.
	DataHeaderSize = 40

	metaOffset = 32

	// flagChained, the top item flag, repeats the Ref's Chained bit for those who come by the chunk id.
	flagChained = 1 << 15

	kindItem = 0x49 // 'I'
	kindData = 0x44 // 'D'
)

// MaxKey is the longest key in bytes.
const MaxKey = 250

// Meta is an item's mutable word:
//
//	63..32   31..7          6..5     4       3       2        1       0
//	exptime  time (25 bit)  segment  listed  linked  fetched  active  copying
//	                                 apart
//
// Exptime is in seconds since 1970, 0 for never. Time is the last bump, in seconds modulo 2^25 (a year). Linked is set while the item is in an
// LRU list, and ListedApart when that is another class's than its chunk's (see Store.ListClass). Copying is set by an
// operation that carries the exptime over to a new item, before it reads it: from then on a touch goes by way of a copy too, so that
// the index word decides between them.
type Meta uint64

// The bits of Meta.
const (
	Copying Meta = 1 << iota
	Active
	Fetched
	Linked
	ListedApart
	segmentUnit

	segmentMask = 3 * segmentUnit
	timeUnit    = segmentUnit << 2
	timeMask    = (1<<25 - 1) * timeUnit
)

// MakeMeta returns the word of an item that is in no list yet.
func MakeMeta(exptime, now uint32) Meta {
	return Meta(exptime)<<32 | Meta(now)*timeUnit&timeMask
}

// Exptime returns the second from which the item is expired; 0: never.
func (m Meta) Exptime() uint32 { return uint32(m >> 32) }

// WithExptime returns m with another exptime.
func (m Meta) WithExptime(t uint32) Meta { return m&0xffffffff | Meta(t)<<32 }

// Age returns the seconds since the last bump.
func (m Meta) Age(now uint32) uint32 {
	return (now - uint32(m&timeMask/timeUnit)) & (1<<25 - 1)
}

// WithTime returns m bumped at now.
func (m Meta) WithTime(now uint32) Meta { return m&^timeMask | Meta(now)*timeUnit&timeMask }

// Segment returns the LRU segment, 0 to 3.
func (m Meta) Segment() int { return int(m & segmentMask / segmentUnit) }

// WithSegment returns m in another segment.
func (m Meta) WithSegment(s int) Meta { return m&^segmentMask | Meta(s)*segmentUnit }

// Item is a view of an item's header and key. It is valid as long as the chunk is protected, and its fields were checked to lie in the chunk. The lengths are
// those that were checked, whatever the file says by now (R9).
type Item struct {
	head             []byte // header, key and, unless chained, the value
	ref              Ref
	valueLen         uint32
	keyStart, keyEnd uint16
}

// Fields are the immutable words of an item's header.
type Fields struct {
	Flags       uint16 // item flags of the protocol
	Epoch       uint32 // flush epoch at the time of storing
	CAS         uint64
	ClientFlags uint32
	Hash        uint32 // high half of the key's hash
}

// Item returns the item at ref, ok false when there is none that lies wholly in its chunk: every word from the file is bounds-checked here (R9).
func (s *Store) Item(ref Ref) (it Item, ok bool) {
	ok = s.Look(&it, ref)
	return it, ok
}

// Look is Item for those who look at millions a second. A view that is returned is copied, sixteen bytes at a time, right after it was written eight or fewer at a time: a
// processor cannot hand such a load what is still in its store buffer, and waits. When Look is false, it holds nothing of use.
func (s *Store) Look(it *Item, ref Ref) (ok bool) {
	size := s.ChunkSize(ref)
	return size != 0 && s.LookIn(it, ref, size)
}

// Set makes it the same view as from, field by field: see Look.
func (it *Item) Set(from *Item) {
	it.head, it.ref, it.valueLen, it.keyStart, it.keyEnd = from.head, from.ref, from.valueLen, from.keyStart, from.keyEnd
}

// LookIn is Look for a ref that is known to be that of a chunk, of so many bytes.
func (s *Store) LookIn(it *Item, ref Ref, size int) (ok bool) {
	chunk := s.arena.Bytes(ref.Offset(), size)
	end := it.view(ref, chunk)
	chained := binary.NativeEndian.Uint16(chunk[2:])&flagChained != 0
	if chunk[0] != kindItem || it.keyStart == it.keyEnd || end > uint64(size) || chained != (ref&Chained != 0) {
		return false
	}
	it.head = chunk[:end:end]
	return true
}

// view sets all but head to what the item in a chunk says, and returns where the head ends, which may be anywhere.
func (it *Item) view(ref Ref, chunk []byte) (end uint64) {
	keyStart, valueLen := uint16(HeaderSize), binary.NativeEndian.Uint32(chunk[16:])
	if ref&Chained != 0 {
		keyStart += ChainRefSize
	}
	keyEnd := keyStart + uint16(chunk[1])
	it.ref, it.valueLen, it.keyStart, it.keyEnd = ref, valueLen, keyStart, keyEnd
	if ref&Chained != 0 {
		return uint64(keyEnd)
	}
	return uint64(keyEnd) + uint64(valueLen)
}

// Match tells whether the key is that of the item at ref.
func (s *Store) Match(ref Ref, key []byte) bool {
	var it Item
	return s.Look(&it, ref) && bytes.Equal(it.Key(), key)
}

// Hash returns the high half of the hash of the key of the item at ref, 0 if there is none.
func (s *Store) Hash(ref Ref) uint32 {
	var it Item
	if !s.Look(&it, ref) {
		return 0
	}
	return it.Hash()
}

// Ref returns where the item lies.
func (it *Item) Ref() Ref { return it.ref }

// Key returns the item's key.
func (it *Item) Key() []byte { return it.head[it.keyStart:it.keyEnd] }

// ValueLen returns the length of the whole value in bytes.
func (it *Item) ValueLen() int { return int(it.valueLen) }

// Value returns the value of an item that is not chained, else nothing.
func (it *Item) Value() []byte { return it.head[it.keyEnd:] }

// Size returns what the item takes in bytes: header, key and value. Data chunks' headers do not count.
func (it *Item) Size() int {
	if it.ref&Chained != 0 {
		return len(it.head) + it.ValueLen()
	}
	return len(it.head)
}

// ClientFlags returns the flags the client gave.
func (it *Item) ClientFlags() uint32 { return binary.NativeEndian.Uint32(it.head[20:]) }

// Flags returns the item flags of the protocol.
func (it *Item) Flags() uint16 { return binary.NativeEndian.Uint16(it.head[2:]) &^ flagChained }

// CAS returns the CAS id.
func (it *Item) CAS() uint64 { return binary.NativeEndian.Uint64(it.head[8:]) }

// Epoch returns the flush epoch under which the item was stored.
func (it *Item) Epoch() uint32 { return binary.NativeEndian.Uint32(it.head[4:]) }

// Hash returns the high half of the key's hash.
func (it *Item) Hash() uint32 { return binary.NativeEndian.Uint32(it.head[24:]) }

// Meta returns the mutable word of the item at ref for atomic use; the conversions to and from Meta are the caller's.
func (s *Store) Meta(ref Ref) *Word { return s.arena.Word(ref.Offset() + 32) }

// ItemRef returns the Ref of the item whose chunk has the id, with its Chained bit; the caller holds the lock of the list the item is in.
func (s *Store) ItemRef(id uint32) Ref {
	ref := s.RefOf(id)
	if ref != 0 && Meta(s.Meta(ref).Load())&ListedApart != 0 {
		ref |= Chained
	}
	return ref
}

// ItemSize returns the bytes of an item that lies in one chunk.
func ItemSize(key, value int) int { return HeaderSize + key + value }

// WriteItem starts the item in a chunk that belongs to the caller alone: key, value length and, for a chained one, an empty chain. It is
// no item to anybody before Seal, and the value may be written meanwhile.
func (s *Store) WriteItem(ref Ref, key []byte, valueLen int, f *Fields, m Meta) {
	keyStart := HeaderSize
	if ref&Chained != 0 {
		keyStart += ChainRefSize
	}
	b := s.arena.Bytes(ref.Offset(), s.ChunkSize(ref))
	b[0] = 0
	b[1] = byte(len(key))
	flags := f.Flags
	if ref&Chained != 0 {
		flags |= flagChained
	}
	binary.NativeEndian.PutUint16(b[2:], flags)
	binary.NativeEndian.PutUint32(b[4:], f.Epoch)
	binary.NativeEndian.PutUint64(b[8:], f.CAS)
	binary.NativeEndian.PutUint32(b[16:], uint32(valueLen))
	binary.NativeEndian.PutUint32(b[20:], f.ClientFlags)
	binary.NativeEndian.PutUint32(b[24:], f.Hash)
	s.Meta(ref).Store(uint64(m))
	if ref&Chained != 0 {
		s.arena.Word(ref.Offset() + HeaderSize).Store(0)
	}
	copy(b[keyStart:], key)
}

// AddFlags sets item flags of the protocol in an item that is not sealed yet.
func (s *Store) AddFlags(ref Ref, flags uint16) {
	b := s.arena.Bytes(ref.Offset()+2, 2)
	binary.NativeEndian.PutUint16(b, binary.NativeEndian.Uint16(b)|flags)
}

// Unsealed returns the item that WriteItem started.
func (s *Store) Unsealed(ref Ref) (it Item) {
	b := s.arena.Bytes(ref.Offset(), s.ChunkSize(ref))
	end := it.view(ref, b)
	it.head = b[:end:end]
	return it
}

// Seal gives the item its CAS and epoch, marks it as an item and writes the checksum. What follows is publication: the words before the
// index word that points here (R4).
func (s *Store) Seal(ref Ref, cas uint64, epoch uint32) {
	it := s.Unsealed(ref)
	binary.NativeEndian.PutUint64(it.head[8:], cas)
	binary.NativeEndian.PutUint32(it.head[4:], epoch)
	it.head[0] = kindItem
	binary.NativeEndian.PutUint32(it.head[28:], s.checksum(&it))
}

func (s *Store) checksum(it *Item) uint32 {
	sum := crc32.Update(checksumStart(it.ref), castagnoli, it.head[:28])
	sum = crc32.Update(sum, castagnoli, it.head[it.keyStart:])
	if it.ref&Chained != 0 {
		return s.chainChecksum(it, sum) // apart, so that the closure's sum is on the heap for chained items only
	}
	return sum
}

func checksumStart(ref Ref) uint32 { return uint32(ref) ^ uint32(ref>>32)<<24 }

func (s *Store) chainChecksum(it *Item, sum uint32) uint32 {
	if !s.Chain(it, func(_ Ref, data []byte) { sum = crc32.Update(sum, castagnoli, data) }) {
		return ^sum
	}
	return sum
}

// Verify tells whether the item's bytes, its chain included, are those that were stored.
func (s *Store) Verify(it *Item) bool {
	return binary.NativeEndian.Uint32(it.head[28:]) == s.checksum(it)
}

// Chain visits the data chunks of a chained item in order. It stops and returns false when a chunk is none, or when the chain does not have
// the item's value length: a chain that was damaged into a ring ends too.
func (s *Store) Chain(it *Item, visit func(ref Ref, data []byte)) bool {
	left := it.ValueLen()
	for ref := Ref(s.next(it.ref).Load()); ref != 0; {
		size := s.ChunkSize(ref)
		if size == 0 || ref >= Chained { // the Refs in index words have 41 bits, this one might have any
			return false
		}
		b := s.arena.Bytes(ref.Offset(), size)
		n := int(binary.NativeEndian.Uint32(b[4:]))
		if b[0] != kindData || n == 0 || n > size-DataHeaderSize || n > left {
			return false
		}
		left -= n
		next := Ref(s.next(ref).Load())
		visit(ref, b[DataHeaderSize:DataHeaderSize+n:DataHeaderSize+n])
		ref = next
	}
	return left == 0
}

// AppendData makes ref, a chunk of the caller's, the data chunk behind prev (a data chunk, or the chained item itself) and returns its
// n bytes for writing.
func (s *Store) AppendData(prev, ref Ref, n int) []byte {
	b := s.arena.Bytes(ref.Offset(), s.ChunkSize(ref))
	owner := prev
	if prev&Chained == 0 {
		owner = s.Owner(prev)
	}
	s.SetOwner(ref, owner)
	clear(b[:32])
	b[0] = kindData
	binary.NativeEndian.PutUint32(b[4:], uint32(n))
	s.next(prev).Store(uint64(ref))
	return b[DataHeaderSize : DataHeaderSize+n]
}

// next returns the word that names the data chunk behind prev, a data chunk or the chained item itself.
func (s *Store) next(prev Ref) *Word {
	if prev&Chained != 0 {
		return s.arena.Word(prev.Offset() + HeaderSize)
	}
	return s.arena.Word(prev.Offset() + 8)
}

// ownerShift keeps a data chunk's owner clear of Meta's flags.
const ownerShift = 8

// SetOwner writes into a data chunk which item it belongs to.
func (s *Store) SetOwner(data, item Ref) { s.Meta(data).Store(uint64(item) << ownerShift) }

// Owner returns what SetOwner wrote into a data chunk; of any other chunk, and of one that is free by now, it returns anything.
func (s *Store) Owner(data Ref) Ref { return Ref(s.Meta(data).Load() >> ownerShift) }
