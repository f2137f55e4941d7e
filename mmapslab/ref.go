package mmapslab

// Ref names an item or a chunk: the offset of its first byte in the file, in units of 8 bytes, 40 bits, so a file has at most 8 TiB;
// bit 40 is Chained. Ref 0 is nil, since the superblock lies at offset 0. A Ref stays the same over restarts and wherever the file
// is mapped.
type Ref uint64

// RefBits is the width of a Ref with its Chained bit.
const RefBits = 41

// Chained is set in the Ref of an item whose value goes on in further chunks. It stands in the index word, so that the sweep after a
// kill knows which items to open without reading the others.
const Chained Ref = 1 << 40

// RefAt returns the Ref of a byte offset, which must be a multiple of 8.
func RefAt(offset int64) Ref { return Ref(offset >> 3) }

// Offset returns the byte offset in the file.
func (r Ref) Offset() int64 { return int64(r&^Chained) << 3 }
