//go:build !amd64 && !arm64

package mmapslab

// prefetch does nothing here: Go has no such instruction, and a load would be a page fault where a file has a hole.
func prefetch(mem *byte, offsets *int64, n int) {}
