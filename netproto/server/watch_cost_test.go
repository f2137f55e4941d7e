package server

import (
	"testing"

	"hearth"
	"hearth/netproto"
)

// served returns a function that serves in on a worker of its own, and drops the replies.
func served(t testing.TB, b *bench, in string) func() {
	c, requests := &conn{fd: -1, protocol: ProtocolASCII}, []byte(in)
	c.auth.done = true
	return func() {
		b.w.s.Begin()
		if rest := b.w.serve(c, requests); len(rest) > 0 || c.closing || c.dead {
			t.Fatalf("%q of %q is left", rest, in)
		}
		b.w.o = output{small: b.w.o.small[:0]}
		b.w.s.End()
	}
}

// TestWatchCostsNothingWithoutWatchers holds that no request takes the log's lock, which the test has itself, or allocates for it.
func TestWatchCostsNothingWithoutWatchers(t *testing.T) {
	b := newBench(t, hearth.Options{MemoryLimit: 8 << 20}, Options{})
	b.s.log.mu.Lock()
	defer b.s.log.mu.Unlock()
	for _, in := range []string{"get a none\r\n", "set a 0 0 1\r\nx\r\n", "delete none\r\ntouch a 0\r\n", "mg a v t\r\nmd none\r\n", "ms a 1\r\n1\r\n"} {
		serve := served(t, b, in)
		for range 100 {
			serve() // buffers grow
		}
		if n := testing.AllocsPerRun(1000, serve); n != 0 {
			t.Errorf("%q: %v allocations", in, n)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, watched := range []bool{false, true} {
		name := map[bool]string{false: "unwatched", true: "watched"}[watched]
		b.Run(name, func(b *testing.B) {
			bench := newBench(b, hearth.Options{MemoryLimit: 8 << 20}, Options{})
			if watched {
				wa := bench.s.addWatcher(bench.w, netproto.LogFetchers)
				defer bench.s.removeWatcher(wa) // it is full soon, and lines are skipped
			}
			serve := served(b, bench, "get a\r\n")
			for b.Loop() {
				serve()
			}
		})
	}
}
