package mmapslab

// Internals that the tests of the format look at.
const (
	SuperblockA    = superblockA
	SuperblockB    = superblockB
	SuperblockSize = superblockLen + 4
	LiveWords      = liveWords
	CheckpointAt   = checkpointArea
	CheckpointSize = checkpointLen + 4 + linkSumLen
	PageTable      = pageTable
	LinkStride     = linkStride
	FirstFormer    = maxClasses + 1
	Portable       = portable
)

func (sb *Superblock) Encode() []byte                 { return sb.encode() }
func DecodeSuperblock(b []byte) (*Superblock, string) { return decodeSuperblock(b) }
func LayoutFor(room, minChunk uint32) Layout          { return layoutFor(room, minChunk) }
func PackDescriptor(state, size, generation uint32) uint64 {
	return packDescriptor(state, size, generation)
}
func UnpackDescriptor(w uint64) (state, size, generation uint32, ok bool) {
	return unpackDescriptor(w)
}
func (s *Store) Sync(off, n int64) error { return s.sync(off, n) }

// Magic opens a superblock.
var Magic = magic
