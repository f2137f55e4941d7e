package mmapslab

import "fmt"

// maxClasses is memcached's: ids 1 to 63.
const maxClasses = 63

// ChunkSizes returns memcached's table of chunk sizes: from memcachedHeader+minSpace up, each factor times the one before, truncated and
// rounded up to 8, and chunkMax last (slabs.c, slabs_init). Operators know the class ids, so the table is memcached's although our header is
// smaller. There are two differences: sizes under MinChunkSize, which need a minSpace under 16, are raised to it; and a size that comes twice
// is one class, where memcached has a second one that it never uses.
func ChunkSizes(factor float64, minSpace, chunkMax int) []int {
	var sizes []int
	size := memcachedHeader + minSpace
	for n := 1; n < maxClasses && float64(size) < float64(chunkMax)/factor; n++ {
		size = (size + 7) &^ 7
		if s := max(size, MinChunkSize); len(sizes) == 0 || s > sizes[len(sizes)-1] {
			sizes = append(sizes, s)
		}
		size = int(float64(size) * factor)
	}
	return append(sizes, chunkMax)
}

// memcachedHeader is the size of memcached's own item header, from which its chunk sizes start.
const memcachedHeader = 48

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
