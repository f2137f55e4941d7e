package server_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestInputIsReadToItsEnd: epoll tells of input once, so what a turn leaves in the socket must not be forgotten.
func TestInputIsReadToItsEnd(t *testing.T) {
	const rounds, inputSize = 200, 16 << 10
	replies := func(c *client, n int) { c.want(strings.Repeat("MN\r\n", n)) }
	requests := func(n int) string { return strings.Repeat("mn\r\n", n) }
	t.Run("reads that are full", func(t *testing.T) {
		c := dial(t, startServer(t))
		for _, bytes := range []int{inputSize, 2 * inputSize, 2*inputSize + 4, 4 * inputSize} {
			c.send("%s", requests(bytes/4))
			replies(c, bytes/4)
		}
	})
	t.Run("reads of a value that are full", func(t *testing.T) {
		c := dial(t, startServer(t))
		const size = 100_000
		head, value := "set k 0 0 100000\r\n", strings.Repeat("v", size)
		c.send("%s", head)
		c.send("%s", value[:size-1])
		c.send("%s", value[:1]+"\r\n"+requests((inputSize-2)/4)+"mn") // fills what is left of the value and the input buffer
		c.send("%s", "\r\n"+requests(1))
		c.want("STORED\r\n")
		replies(c, (inputSize-2)/4+2)
	})
	t.Run("the end comes with the input", func(t *testing.T) {
		addr := startServer(t)
		for range rounds {
			c := dial(t, addr)
			c.send("%s", requests(1))
			if err := c.socket().CloseWrite(); err != nil {
				t.Fatal(err)
			}
			replies(c, 1)
			c.wantEOF()
		}
	})
	t.Run("input for a connection that has its turn", func(t *testing.T) {
		c := dial(t, startServer(t, func(o *setup) { o.server.ReqsPerEvent = 1 }))
		for range rounds {
			for range 8 {
				c.send("%s", requests(8))
			}
			replies(c, 64)
		}
	})
}

// TestWorkersThatWaitLetOthersStopThem: a worker that waits for events keeps its P; the collector must be able to stop the world all the same, before the wait is over.
func TestWorkersThatWaitLetOthersStopThem(t *testing.T) {
	t.Cleanup(func(old int) func() { return func() { runtime.GOMAXPROCS(old) } }(runtime.GOMAXPROCS(4)))
	c := dial(t, startServer(t)) // 2 workers
	var stops []time.Duration
	for range 41 {
		c.ask("mn\r\n", "MN\r\n") // its worker begins to wait, soon
		var longest time.Duration
		for range 10 {
			began := time.Now()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			longest = max(longest, time.Since(began))
		}
		stops = append(stops, longest)
	}
	slices.Sort(stops)
	if median := stops[len(stops)/2]; median > 2*time.Millisecond {
		t.Errorf("to stop the world took up to %v in half of %d rounds; the wait of a worker takes 5 ms", median, len(stops))
	}
}
