package server

import (
	"testing"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

// bench drives one worker without its loop, a turn for each part of a stream, so that every split of it happens exactly as wanted.
type bench struct {
	t     testing.TB
	s     *Server
	w     *worker
	cache *hearth.Cache
}

func newBench(t testing.TB, c hearth.Options, o Options) *bench {
	cache, err := hearth.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	o.NoTCP, o.Threads = true, 1
	s, err := New(cache, o)
	if err != nil {
		t.Fatal(err)
	}
	w := s.workers[0]
	w.s, w.input = cache.NewSession(), make([]byte, inputSize)
	t.Cleanup(func() {
		w.s.Close()
		s.closePolls()
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{t, s, w, cache}
}

// play sends the parts, each when the one before has been served, and returns the replies and how the connection ended up.
func (b *bench) play(parts ...[]byte) (replies []byte, authenticated, closed bool) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fds[1])
	b.s.conns.Add(1)
	b.w.handOver(handed{fd: fds[0], protocol: b.s.o.Protocol})
	b.w.takeHanded()
	c, buf := b.w.conns[fds[0]], make([]byte, 64<<10)
	for _, part := range parts {
		for len(part) > 0 && c.fd >= 0 {
			n, err := unix.Write(fds[1], part)
			if err != nil {
				b.t.Fatal(err)
			}
			part = part[n:]
			for c.fd >= 0 {
				b.w.s.Begin()
				if c.queued {
					c.queued, b.w.ready = false, b.w.ready[:0]
					b.w.turn(c, 0)
				} else if waits, _ := unix.IoctlGetInt(c.fd, unix.TIOCINQ); waits > 0 || c.out.pending() {
					b.w.turn(c, unix.EPOLLIN)
				} else {
					b.w.s.End()
					break
				}
				b.w.s.End()
				for n := 1; n > 0; {
					n, _ = unix.Read(fds[1], buf)
					replies = append(replies, buf[:max(n, 0)]...)
				}
			}
		}
	}
	authenticated, closed = c.auth.done, c.fd < 0
	for n := 1; n > 0; { // what came with the end
		n, _ = unix.Read(fds[1], buf)
		replies = append(replies, buf[:max(n, 0)]...)
	}
	if !closed {
		b.w.s.Begin()
		b.w.close(c, netproto.LogCloseNormal)
		b.w.s.End()
	}
	return replies, authenticated, closed
}
