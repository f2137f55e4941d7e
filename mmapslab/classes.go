package mmapslab

import "fmt"

// maxClasses is memcached's: ids 1 to 63.
const maxClasses = 63

// ChunkSizes returns the chunk sizes for memcached's -f, -n and slab_chunk_max: memcached's table (slabs.c, slabs_init), from memcachedHeader+minSpace
// up, each factor times the one before, truncated and rounded up to 8, with headerSaved taken off each, and chunkMax last. Operators know the
// class ids: an item has the class that it has in memcached, or now and then the one below, in a chunk that is smaller by what our header is.
// In memcached's own sizes most items would waste what the header saves. There are two more differences: sizes that come under MinChunkSize,
// which needs a minSpace under 32, are raised to it; and a size that comes twice is one class, where memcached has a second one that it never uses.
func ChunkSizes(factor float64, minSpace, chunkMax int) []int {
	var sizes []int
	size := memcachedHeader + minSpace
	for n := 1; n < maxClasses && float64(size) < float64(chunkMax)/factor; n++ {
		size = (size + 7) &^ 7
		if s := max(size-headerSaved, MinChunkSize); len(sizes) == 0 || s > sizes[len(sizes)-1] {
			sizes = append(sizes, s)
		}
		size = int(float64(size) * factor)
	}
	return append(sizes, chunkMax)
}

const (
	// memcachedHeader is the size of memcached's own item header, from which its chunk sizes start.
	memcachedHeader = 48
	// headerSaved is by how much an item is smaller here, in whole words: memcached has its header, the CAS, a NUL behind the key and a line end
	// behind the value.
	headerSaved = (memcachedHeader + 8 + 1 + 2 - HeaderSize) &^ 7
)

func validateSizes(sizes []int) error {
	for i, size := range sizes {
		if size < MinChunkSize || size > PageSize || size%8 != 0 || i > 0 && size <= sizes[i-1] {
			return fmt.Errorf("mmapslab: chunk sizes: %d in place %d, want multiples of 8 from %d to %d, ascending", size, i+1, MinChunkSize, PageSize)
		}
	}
	if len(sizes) == 0 || len(sizes) > maxClasses {
		return fmt.Errorf("mmapslab: chunk sizes: %d of them, want 1 to %d", len(sizes), maxClasses)
	}
	return nil
}
