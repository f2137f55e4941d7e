package hearth_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
)

// BenchmarkSet overwrites items of some 100 bytes, sixteen in a section as a pipeline has it: with one session; with two that meet in one slab class; with two in
// a class each, which meet elsewhere only; and with two that have a cache each and can meet in the machine alone. What one class costs against two is what
// its locks could save at most. cpu-ns/op is the setters' processor time, ns/op the time of an operation of either.
func BenchmarkSet(b *testing.B) {
	for _, with := range []struct {
		name   string
		caches int
		sizes  []int
	}{
		{"one", 1, []int{100}},
		{"two-in-one-class", 1, []int{100, 100}},
		{"two-in-two-classes", 1, []int{100, 125}},
		{"two-caches", 2, []int{100, 100}},
	} {
		b.Run(with.name, func(b *testing.B) {
			caches := make([]*hearth.Cache, with.caches)
			for i := range caches {
				var err error
				if caches[i], err = hearth.Open(hearth.Options{MemoryLimit: 256 << 20}); err != nil {
					b.Fatal(err)
				}
				defer caches[i].Close()
			}
			const keys, pipeline = 1 << 17, 16
			var cpu atomic.Int64
			var ready, start, all sync.WaitGroup
			start.Add(1)
			for who, size := range with.sizes {
				ready.Add(1)
				all.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					s := caches[who%len(caches)].NewSession()
					defer s.Close()
					value, names := string(make([]byte, size)), make([]string, keys)
					for i := range names {
						names[i] = fmt.Sprintf("key%d-%08d", who, i)
						in(s, func() { store(s, hearth.Set, names[i], value, 0, 0) })
					}
					ready.Done()
					start.Wait()
					x, began := uint64(who)*0x9e3779b97f4a7c15, threadTime()
					for n := b.N; n > 0; n -= pipeline {
						s.Begin()
						for range min(n, pipeline) {
							x = x*6364136223846793005 + 1442695040888963407
							store(s, hearth.Set, names[x>>32%keys], value, 0, 0)
						}
						s.End()
					}
					cpu.Add(int64(threadTime() - began))
				})
			}
			ready.Wait()
			b.ResetTimer()
			start.Done()
			all.Wait()
			b.ReportMetric(float64(cpu.Load())/float64(b.N*len(with.sizes)), "cpu-ns/op")
		})
	}
}

// threadTime is how long this thread has had a processor.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// BenchmarkGet looks one item up and copies its value, as a reply does: what copying costs is what the larger sizes cost more.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			cache, err := hearth.Open(hearth.Options{MemoryLimit: 256 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer cache.Close()
			s := cache.NewSession()
			defer s.Close()
			const keys = 1000
			names := make([][]byte, keys)
			s.Begin()
			for i := range names {
				names[i] = fmt.Appendf(nil, "key%08d", i)
				if _, st := store(s, hearth.Set, string(names[i]), string(make([]byte, size)), 0, 0); st != hearth.OK {
					b.Fatal(st)
				}
			}
			s.End()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			buf, x := make([]byte, 0, size), uint64(1)
			for b.Loop() {
				x = x*6364136223846793005 + 1442695040888963407
				var it hearth.Item
				s.Begin()
				if st := s.Get(names[x>>32%keys], &it); st != hearth.OK {
					b.Fatal(st)
				}
				buf = it.AppendValue(buf[:0])
				s.End()
			}
		})
	}
}
