package server

// Clients that keep memory waiting. An upload owns its chunks from its first byte on, and a large reply that does not go out pins its item, deleted or not. memcached
// leaves both to the client for as long as the connection stands, so a few that stall take all memory from everybody. Here they may have half of it: above
// that, those who are slower than slowRate lose their place, uploads by memcached's out of memory reply, readers by the end of their connection. Who is
// faster is never touched, and below the bound nobody is.

const (
	// slowAfter is how many seconds of an upload, or of a value on its way out, pass before it can count as slow.
	slowAfter = 2
	// slowRate is in bytes a second, on average since the upload or the value began: a byte now and then helps nobody to stay.
	slowRate = 64 << 10
)

// waiting is how many bytes of the cache's memory wait for clients.
func (s *Server) waiting() int64 { return s.uploads.Load() + s.cache.PinnedDead() }

// tooMuchWaits tells that slow clients have to go.
func (s *Server) tooMuchWaits() bool { return s.waiting() > s.cache.MemoryLimit()/2 }

// countUpload keeps Server.uploads right after a turn of c. Uploads that are complete at the end of the turn that they begin in are never counted, so small ones
// cost nothing here.
func (w *worker) countUpload(c *conn) {
	held := int64(0)
	if c.up.kind == uploadStore {
		held = int64(w.s.Held(&c.up.draft))
	}
	if held != c.held {
		w.srv.uploads.Add(held - c.held)
		c.held = held
	}
}

// dropSlow ends slow uploads and closes slow readers until what is left is within the bound.
func (w *worker) dropSlow() {
	uploads, readers := 0, 0
	for _, c := range w.conns {
		if !w.srv.tooMuchWaits() {
			break
		}
		switch now := w.srv.clock.Load(); {
		case c == nil:
		case c.up.kind == uploadStore && slow(now-c.up.since, c.up.size-c.up.draft.Remaining()):
			uploads++
			w.failUpload(c, c.up.draft.Remaining())
			w.endTurn(c)
		case c.out.pinned && slow(now-c.out.since, c.out.sent-c.out.before):
			readers++
			w.close(c, "slow")
		}
	}
	if uploads+readers > 0 {
		w.srv.o.Logger.Warn("server: over half of the memory waited for clients", "slow uploads dropped", uploads, "slow readers closed", readers)
	}
}

func slow(seconds int64, bytes int) bool {
	return seconds >= slowAfter && int64(bytes) < seconds*slowRate
}
