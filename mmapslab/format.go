package mmapslab

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
)

// PageSize is the size of a slab page in bytes. It is part of the format and memcached's.
const PageSize = 1 << 20

// Versions of the format. Add a line, never renumber.
const (
	versionFirst = 1 // superblock, page table, index of 41-bit Refs, links, items with 40-byte headers
	versionOwner = 2 // data chunks name their item, and its checksum leaves the Ref of the first one out: data chunks can move
	// Since then, without another number, since either build takes the other's files over: a checksum of the links behind the checkpoint.

	// Version is what this build writes, and all that it reads.
	Version = versionOwner
)

// Where the fixed parts lie, in bytes.
const (
	superblockA    = 0
	superblockB    = 4096
	superblockSize = 4096
	liveWords      = 8192  // words that change while serving, each in a cache line of its own
	checkpointArea = 12288 // what a clean stop leaves for the next start
	checkpointSize = pageTable - checkpointArea
	pageTable      = 1 << 20
	descriptorSize = 64
)

// Live words: offsets from the start of the file. They are meaningful while the state is Running or Clean; a clean stop leaves them as they are.
const (
	wordCAS   = liveWords + 0*64 // the CAS handed out last
	wordFlush = liveWords + 1*64 // flush epoch:32 | deadline:32, see FlushWord
	wordIndex = liveWords + 2*64 // three words that belong to the index
	wordClock = liveWords + 3*64 // the cache's time in seconds, written once a second
)

// State says how the last process left the file.
type State uint32

const (
	// Creating is set before the regions are laid out; a file that died in it holds nothing.
	Creating State = iota + 1
	// Running is set, in both superblocks, before the first change; a file found in it was killed.
	Running
	// Clean is set by an orderly stop after the checkpoint. Links, free lists and counters may be trusted within the same boot.
	Clean
	// CleanDurable is Clean after the data reached the disk; it is trusted over a power loss too.
	CleanDurable
)

func (s State) String() string {
	switch s {
	case Creating:
		return "creating"
	case Running:
		return "running"
	case Clean:
		return "clean"
	case CleanDurable:
		return "clean, durable"
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// magic opens a superblock. The control bytes are PNG's trick: they catch transfers that change line ends.
var magic = [8]byte{'H', 'e', 'a', 'r', 't', 'h', '\r', '\n'}

// Superblock is the fixed head of the file, little endian, with a crc32c behind it. There are two copies: both are written at each
// change of state, one after the other, and the valid one with the higher Sequence counts.
type Superblock struct {
	Magic    [8]byte
	Version  uint32
	Arch     uint32 // see Arch; words in the file are in the machine's byte order
	Compat   uint64 // bits that an older build may ignore; none yet
	Incompat uint64 // bits that an older build must not ignore; none yet
	Sequence uint64 // one more at each write

	State      State
	Unclean    uint32 // starts since the last clean stop that found the file Running
	OwnFaults  uint32 // servers since the last clean stop that died by a panic or fault of their own; see File.TakeNote
	PageLimit  uint32 // the memory limit, or an earlier one while its pages are in use; a class's first page may be above it
	Generation uint64 // one more at each start
	HashSeed   uint64 // of xxhash64 over the key

	Layout Layout

	BootID    [16]byte // the boot of the last change of state
	MountID   uint64   // and the mount, from statx
	Device    uint64
	Inode     uint64
	ClockWall int64 // the cache's time in seconds since 1970 at ClockBoot
	ClockBoot int64 // nanoseconds since boot
	Stopped   int64 // wall clock of the last clean stop, seconds; 0 when Running
	PID       uint32
	_         uint32
}

// Layout is where the regions lie. All offsets are bytes and follow from Room and HalfSize.
type Layout struct {
	PageSize uint32
	Room     uint32 // pages the file has address space for; pages are numbered from 1
	MinChunk uint32 // the smallest chunk the index was sized for
	_        uint32
	Index    [2]uint64
	HalfSize uint64 // bytes of each half of the index region
	Links    uint64
	Pages    uint64 // offset of page 1
	End      uint64
}

const (
	// SlotBits is how many bits of a chunk id, the lower ones, are the chunk's number in its page.
	SlotBits = 14
	// linkStride is the room for one page's links: SlotBits bits of 8 bytes.
	linkStride = 8 << SlotBits
	// MinChunkSize is the smallest chunk, so that a page has at most 2^SlotBits.
	MinChunkSize = PageSize >> SlotBits
	// MaxPages bounds the file at 256 GiB of pages: a chunk id has 32 bits, SlotBits of them for the slot.
	MaxPages = 1<<(32-SlotBits) - 1
)

const hugeSize = 2 << 20

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// layoutFor lays a file out for room pages with chunks of at least minChunk bytes. Regions start at huge-page boundaries. Each half of the
// index has room for every chunk at a load of 0.8; most of that is address space that is never backed.
func layoutFor(room, minChunk uint32) Layout {
	l := Layout{PageSize: PageSize, Room: room, MinChunk: minChunk}
	at := roundUp(pageTable+uint64(room+1)*descriptorSize, hugeSize)
	l.HalfSize = roundUp(uint64(room)*(PageSize/uint64(minChunk))*10, hugeSize)
	l.Index = [2]uint64{at, at + l.HalfSize}
	l.Links = at + 2*l.HalfSize
	l.Pages = roundUp(l.Links+uint64(room+1)*linkStride, hugeSize)
	l.End = l.Pages + uint64(room)*PageSize
	return l
}

// Valid tells whether the regions lie where Room and MinChunk put them.
func (l *Layout) Valid() bool {
	return l.Room > 0 && l.Room <= MaxPages && l.MinChunk >= MinChunkSize && l.MinChunk <= PageSize && *l == layoutFor(l.Room, l.MinChunk)
}

// Arch names the processor and the byte order of the words in the file.
func Arch() uint32 {
	arch := map[string]uint32{"amd64": 1, "arm64": 2}[runtime.GOARCH]
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		arch |= 1 << 8
	}
	return arch
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// superblockLen and checkpointLen are the encoded sizes in bytes; a crc32c follows each.
const (
	superblockLen = 208
	checkpointLen = ClassIDs*24 + 8 + ClassIDs*4*24
	linkSumLen    = 12 // behind the checkpoint's crc32c, with its own
)

// What must fit where.
const (
	_ = uint(superblockSize - superblockLen - 4)
	_ = uint(checkpointArea - (wordClock + 64))
	_ = uint(checkpointSize - checkpointLen - 4 - linkSumLen)
	_ = uint(64 - 3*8)                                   // the index's three words in their line
	_ = uint(ClassIDs - 2*(maxClasses+1))                // configured classes and former ones
	_ = uint(1<<40 - 1 - (MaxPages*PageSize*2)/8)        // offsets fit a Ref's 40 bits of 8-byte units; regions before the pages are smaller than these
	_ = uint(MinChunkSize - (HeaderSize + ChainRefSize)) // an empty chained header, but for its key
)

func (sb *Superblock) encode() []byte {
	buf := make([]byte, superblockLen+4)
	if _, err := binary.Encode(buf, binary.LittleEndian, sb); err != nil {
		panic(err) // only for types without a fixed size
	}
	binary.LittleEndian.PutUint32(buf[superblockLen:], crc32.Checksum(buf[:superblockLen], castagnoli))
	return buf
}

// decodeSuperblock reads one copy; nil with the reason when it is none of ours.
func decodeSuperblock(buf []byte) (*Superblock, string) {
	if len(buf) < superblockLen+4 {
		return nil, fmt.Sprintf("%d bytes, want at least %d", len(buf), superblockLen+4)
	}
	sb := new(Superblock)
	if _, err := binary.Decode(buf, binary.LittleEndian, sb); err != nil {
		return nil, err.Error()
	}
	if sb.Magic != magic {
		return nil, fmt.Sprintf("signature %q, want %q", sb.Magic[:], magic[:])
	}
	// Version before checksum: a later format may lay the rest out anew.
	if sb.Version == Version {
		if got, want := binary.LittleEndian.Uint32(buf[superblockLen:]), crc32.Checksum(buf[:superblockLen], castagnoli); got != want {
			return nil, fmt.Sprintf("superblock checksum %08x, want %08x", got, want)
		}
	}
	return sb, ""
}

// Page states. FREE pages have no memory assigned or are in the global page pool; DRAINING ones are being emptied.
const (
	pageFree = iota
	pageAssigned
	pageDraining
)

// A page's descriptor is one atomic word, so that its state changes as a whole (R8), with its own checksum:
//
//	63      62..48          47..24        23..16   15..0
//	 0   generation   chunk size / 8      state    check
//
// followed by 56 bytes of zeros.
func packDescriptor(state, chunkSize, generation uint32) uint64 {
	w := uint64(generation&0x7fff)<<48 | uint64(chunkSize/8)<<24 | uint64(state)<<16
	return w | descriptorCheck(w)
}

func descriptorCheck(w uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], w>>16<<16)
	return uint64(crc32.Checksum(b[:], castagnoli) & 0xffff)
}

// unpackDescriptor returns ok false for a word whose check does not match. The zero word is a free page: a sparse file needs no writing.
func unpackDescriptor(w uint64) (state, chunkSize, generation uint32, ok bool) {
	if w == 0 {
		return pageFree, 0, 0, true
	}
	state, chunkSize, generation = uint32(w>>16&0xff), uint32(w>>24&0xffffff)*8, uint32(w>>48&0x7fff)
	ok = w&0xffff == descriptorCheck(w) && state <= pageDraining &&
		(state == pageFree || chunkSize >= MinChunkSize && chunkSize <= PageSize)
	return
}
