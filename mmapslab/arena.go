package mmapslab

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
)

// This is the only file of the project that takes unsafe to the cache's memory (the server has it for system calls on its own buffers). It gives out two things: bytes at an offset, and an aligned word at an
// offset. Both live as long as the mapping; nothing that outlives the Arena may keep them.

// Arena is the memory of a slab file: the mapping of the whole file, or heap memory of the same layout, which the race detector sees.
type Arena struct {
	mem   []byte
	unmap func() error // nil on the heap
}

// NewHeapArena returns an Arena of size bytes of zeroed Go heap, aligned to 8 bytes.
func NewHeapArena(size int64) *Arena {
	words := make([]uint64, (size+7)/8)
	return &Arena{mem: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size)}
}

// alignedIn returns where in m the first address is that is a multiple of align, a power of two. Only the number of the address is looked at.
func alignedIn(m []byte, align uintptr) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & (align - 1))
}

// Size returns the length of the arena in bytes. The part behind the end of the file is reserved address space and must not be touched.
func (a *Arena) Size() int64 { return int64(len(a.mem)) }

// Word returns the 8-byte word at offset for atomic use. The offset must be a multiple of 8 inside the arena: mappings start at a page
// boundary and heap arenas at a word, so the word is aligned. It replaces &words[offset/8] on a slice that would have to be kept for
// every region. The pointer is valid until the arena is unmapped.
func (a *Arena) Word(offset int64) *Word {
	if invariants.Enabled && (offset&7 != 0 || offset < 0 || offset+8 > int64(len(a.mem))) {
		panic(fmt.Sprintf("mmapslab: word at offset %d of %d", offset, len(a.mem)))
	}
	return (*Word)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(a.mem)), offset))
}

// offsetOf is the inverse of Word; ok is false for a word that is not in the arena. Only the numbers of the addresses are looked at.
//
//lint:ignore U1000 for trace_on.go, which is built with the tag faults
func (a *Arena) offsetOf(w *Word) (offset int64, ok bool) {
	offset = int64(uintptr(unsafe.Pointer(w)) - uintptr(unsafe.Pointer(unsafe.SliceData(a.mem))))
	return offset, uint64(offset) < uint64(len(a.mem))
}

// Word32 returns the 4-byte word at offset, a multiple of 4 inside the arena; otherwise as Word.
func (a *Arena) Word32(offset int64) *atomic.Uint32 {
	if invariants.Enabled && (offset&3 != 0 || offset < 0 || offset+4 > int64(len(a.mem))) {
		panic(fmt.Sprintf("mmapslab: half word at offset %d of %d", offset, len(a.mem)))
	}
	return (*atomic.Uint32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(a.mem)), offset))
}

// Words returns n words from offset on, for scanning. The same rules as for Word; the slice is valid until the arena is unmapped.
func (a *Arena) Words(offset int64, n int) []Word {
	if invariants.Enabled && (offset&7 != 0 || offset < 0 || n < 0 || offset+int64(n)*8 > int64(len(a.mem))) {
		panic(fmt.Sprintf("mmapslab: %d words at offset %d of %d", n, offset, len(a.mem)))
	}
	return unsafe.Slice((*Word)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(a.mem)), offset)), n)
}

// Link is the place of a chunk in a list: the ids of its neighbours, 0 for none.
type Link struct{ Prev, Next uint32 }

// link returns the Link at offset, a multiple of 8; whoever uses it holds the lock of the list. It replaces two loads and two stores of
// packed words per step. It panics when the link does not lie in the arena, since ids come from the file.
func (a *Arena) link(offset int64) *Link {
	b := a.mem[offset : offset+8]
	if fault.Enabled {
		a.handOut(offset, 8)
	}
	return (*Link)(unsafe.Pointer(unsafe.SliceData(b)))
}

// Bytes returns the n bytes at offset, capped there; it panics when they do not lie in the arena. They are valid until the arena is
// unmapped, and theirs to read only as long as the chunk they belong to is protected.
func (a *Arena) Bytes(offset int64, n int) []byte {
	if fault.Enabled {
		a.handOut(offset, n)
	}
	return a.mem[offset : offset+int64(n) : offset+int64(n)]
}

// Prefetch asks the processor for the cache lines at offsets, all at once and without waiting for any: a hint, which changes nothing.
func (a *Arena) Prefetch(offsets []int64) {
	prefetch(unsafe.SliceData(a.mem), unsafe.SliceData(offsets), len(offsets))
}

// What encoding/binary writes, one field behind the other, is what these structs are in memory: nothing is padded. doc.go draws the offsets.
const (
	_ = uint(superblockLen - unsafe.Sizeof(Superblock{}))
	_ = uint(unsafe.Sizeof(Superblock{}) - superblockLen)
	_ = uint(checkpointLen - unsafe.Sizeof(Checkpoint{}))
	_ = uint(unsafe.Sizeof(Checkpoint{}) - checkpointLen)

	_ = -(unsafe.Offsetof(Superblock{}.State) ^ 40)
	_ = -(unsafe.Offsetof(Superblock{}.Generation) ^ 56)
	_ = -(unsafe.Offsetof(Superblock{}.Layout) ^ 72)
	_ = -(unsafe.Offsetof(Superblock{}.BootID) ^ 136)
	_ = -(unsafe.Offsetof(Superblock{}.ClockWall) ^ 176)
	_ = -(unsafe.Offsetof(Superblock{}.PID) ^ 200)
	_ = -(unsafe.Offsetof(Checkpoint{}.Items) ^ ClassIDs*24)
	_ = -(unsafe.Offsetof(Checkpoint{}.Lists) ^ (ClassIDs*24 + 8))
)
