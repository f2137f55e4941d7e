//go:build amd64 || arm64

package mmapslab

// prefetch asks the processor for the lines at offsets from mem on, without waiting for any. An address where there is no memory is no fault.
//
//go:noescape
func prefetch(mem *byte, offsets *int64, n int)
