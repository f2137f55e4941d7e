package mmapslab

import (
	"encoding/binary"
	"hash/crc32"
)

// CopyItem makes a copy of an item in the chunk to, which belongs to the caller alone and is of the same class, and returns the copy's Ref. It is in no list,
// and its Meta is zero. A chained item's copy has the same data chunks. The checksum, which starts from the item's Ref, is carried over rather than made
// anew: the copy of a damaged item is found as damaged, too, and a large value need not be read.
func (s *Store) CopyItem(to Ref, it *Item) Ref {
	b := s.arena.Bytes(to.Offset(), s.ChunkSize(to))
	s.Meta(to).Store(0)
	to |= it.ref & Chained
	copy(b[:32], it.head[:32])
	copy(b[it.keyStart:], it.head[it.keyStart:])
	covered := 28 + len(it.head) - int(it.keyStart)
	if to&Chained != 0 {
		s.next(to).Store(s.next(it.ref).Load())
		covered += it.ValueLen()
	}
	sum := binary.NativeEndian.Uint32(it.head[28:])
	binary.NativeEndian.PutUint32(b[28:], sum^crcShift(checksumStart(it.ref)^checksumStart(to), covered))
	return to
}

// MoveData puts a copy of the data chunk from into the chunk to, which belongs to the caller alone, in its place behind prev. Who walks the chain meets either,
// with the same bytes and the same chunk behind it; from may be reused when nobody can be reading it any more.
func (s *Store) MoveData(prev, from, to Ref) {
	source := s.arena.Bytes(from.Offset(), s.ChunkSize(from))
	b := s.arena.Bytes(to.Offset(), s.ChunkSize(to))
	s.SetOwner(to, s.Owner(from))
	copy(b[:8], source[:8])
	clear(b[16:32])
	s.next(to).Store(s.next(from).Load())
	n := DataHeaderSize + int(binary.NativeEndian.Uint32(source[4:]))
	copy(b[DataHeaderSize:n], source[DataHeaderSize:n])
	s.next(prev).Store(uint64(to)) // before the bytes, a reader would find those of another value
}

// crcShift returns the difference between the checksums of the same n bytes, started from two values that differ by crc: crc times x^8n, modulo
// the polynomial, with bits in reverse as the checksum has them (zlib's crc32_combine).
func crcShift(crc uint32, n int) uint32 {
	power, square := uint32(1)<<31, uint32(1)<<23 // x^0, x^8
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			power = crcMul(power, square)
		}
		square = crcMul(square, square)
	}
	return crcMul(power, crc)
}

func crcMul(a, b uint32) (product uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		b ^= carry * crc32.Castagnoli
	}
	return product
}
