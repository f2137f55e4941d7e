package server

import (
	"golang.org/x/sys/unix"

	"hearth/netproto"
)

// second is called once a second by the server's clock.
func (s *Server) second() {
	if s.o.DebugClock == nil || !s.o.DebugClock.Paused() {
		s.pass(1)
	}
}

// pass lets seconds pass for idle connections.
func (s *Server) pass(seconds int64) {
	s.clock.Add(seconds)
	idle := s.o.IdleTimeout > 0
	if slow := s.tooMuchWaits(); idle || slow {
		for _, w := range s.workers {
			w.scanIdle.Store(idle)
			w.scanSlow.Store(slow)
			w.wake.up()
		}
	}
}

// kickIdle closes the connections that only wait for a command, or for the rest of its line, and have done so for too long. Who is in a data
// block or has replies to take is busy, however slow, and has all the time again afterwards.
func (w *worker) kickIdle() {
	now, limit := w.srv.clock.Load(), int64(w.srv.o.IdleTimeout)
	for _, c := range w.conns {
		switch {
		case c == nil || c.udp != nil || c.watch != nil:
		case !c.drained() || c.up.kind != uploadNone:
			c.busyAt = now
		case now-max(c.lastCmd.Load(), c.busyAt) <= limit:
		case !isTCP(c.fd):
			c.busyAt = now // not to ask again at once
		default:
			w.counters.idleKicks.Add(1)
			w.close(c, netproto.LogCloseIdle)
		}
	}
}

// isTCP tells TCP connections from those of a unix socket, which memcached never closes for being idle.
func isTCP(fd int) bool {
	family, err := socketFamily(fd)
	return err == nil && family != unix.AF_UNIX
}
