package server_test

import (
	"slices"
	"testing"

	"hearth/netproto/server"
)

// servedBy opens a connection and returns the number of the worker that answers on it.
func servedBy(t *testing.T, r *running) int {
	t.Helper()
	before := r.srv.BytesRead()
	dial(t, r.addr).ask("mn\r\n", "MN\r\n")
	after := r.srv.BytesRead()
	for i := range after {
		if after[i] != before[i] {
			return i
		}
	}
	t.Fatal("no worker has read the request")
	return -1
}

func TestAWorkerServesTheConnectionsOfAQueue(t *testing.T) {
	ids := make(chan int, 1)
	t.Cleanup(server.SetNAPIID(func(int) int { return <-ids }))
	r := start(t, func(o *setup) { o.server.NAPIIDs, o.server.Threads = 2, 3 })
	for i, step := range []struct{ id, worker int }{
		{900, 0}, {901, 1}, {900, 0}, {902, 2}, {901, 1}, {902, 2},
		{0, 0}, {0, 1}, {900, 0}, {0, 2}, {0, 0}, // without an id: round robin, on its own count
		{950, 0},                     // one too many: all begins anew
		{900, 1}, {950, 0}, {901, 2}, // in the order of their arrival
		{902, 0}, {902, 0}, {950, 1},
	} {
		ids <- step.id
		if got := servedBy(t, r); got != step.worker {
			t.Fatalf("connection %d, id %d: served by worker %d, want %d", i, step.id, got, step.worker)
		}
	}
	ids <- 0
	c := dial(t, r.addr)
	if stats := c.stats(""); stats["unexpected_napi_ids"] != "2" || stats["round_robin_fallback"] != "5" {
		t.Errorf("unexpected_napi_ids %s, want 2; round_robin_fallback %s, want 5", stats["unexpected_napi_ids"], stats["round_robin_fallback"])
	}
	if n := c.stats(" settings")["num_napi_ids"]; n != "2" {
		t.Errorf("num_napi_ids %s, want 2", n)
	}
	c.ask("stats reset\r\n", "RESET\r\n")
	if stats := c.stats(""); stats["unexpected_napi_ids"] != "0" || stats["round_robin_fallback"] != "0" {
		t.Errorf("after a reset: %s and %s", stats["unexpected_napi_ids"], stats["round_robin_fallback"])
	}
}

func TestTheLoopbackHasNoQueues(t *testing.T) {
	for _, test := range []struct {
		napi, fallback int
	}{{2, 5}, {0, 0}} {
		r := start(t, func(o *setup) { o.server.NAPIIDs = test.napi })
		var workers []int
		for range 4 {
			workers = append(workers, servedBy(t, r))
		}
		if !slices.Equal(workers, []int{0, 1, 0, 1}) {
			t.Errorf("-N %d: served by workers %v, want them in turn", test.napi, workers)
		}
		if n := dial(t, r.addr).stat("round_robin_fallback"); n != test.fallback {
			t.Errorf("-N %d: round_robin_fallback %d, want %d", test.napi, n, test.fallback)
		}
	}
	if _, err := server.New(nil, server.Options{NAPIIDs: 5, Threads: 4}); err == nil || err.Error() != "server: options: -N 5: want 0 to -t 4" {
		t.Errorf("more queues than threads: %v", err)
	}
}
