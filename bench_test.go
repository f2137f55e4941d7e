package hearth_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"hearth"
)

// BenchmarkSetInOneClass overwrites items of 100 bytes, sixteen in a section as a pipeline has it. Beside ns/op at -cpu 1,2 the mutex profile
// (-mutexprofile) tells who waits for whom.
func BenchmarkSetInOneClass(b *testing.B) {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	const keys, pipeline = 1 << 18, 16
	value := string(make([]byte, 100))
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("key%08d", i)
	}
	var seed atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		s := cache.NewSession()
		defer s.Close()
		x := seed.Add(1) * 0x9e3779b97f4a7c15
		for more := true; more; {
			s.Begin()
			for i := 0; i < pipeline && more; i++ {
				if more = pb.Next(); more {
					x = x*6364136223846793005 + 1442695040888963407
					store(s, hearth.Set, names[x>>32%keys], value, 0, 0)
				}
			}
			s.End()
		}
	})
}
