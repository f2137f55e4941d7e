package server

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hearth/netproto"
)

// A hand-over is a stop after which another server goes on with the same sockets. The listeners' queues and UDP's hold what comes meanwhile, since their
// sockets stay open (Sockets). A connection is let go of instead of closed (Released) when it rests between two requests, or in the middle of a short one that has
// begun to come; its next server takes it up from there (Options.Conns), and its client sees a pause. An upload is waited for, as are replies that their clients
// are about to take, but not for long: what is not at rest by then is closed, and so are connections whose state is more than this: those of TLS, and watchers.

// ErrHandOver is the cause (context.WithCancelCause) that makes the end of Serve's context a hand-over.
var ErrHandOver = errors.New("server: hands over")

// handOverTimeout is stopTimeout of a hand-over: others wait meanwhile.
var handOverTimeout = 100 * time.Millisecond

// Conn is a connection between two servers.
type Conn struct {
	FD            int `json:"-"` // belongs to whoever has the Conn
	Protocol      Protocol
	Peer          netip.AddrPort
	Authenticated bool
	AuthFailures  int
	Input         []byte // what has come of a request
}

// Released returns the connections that a hand-over let go of, when Serve has returned.
func (s *Server) Released() []Conn { return s.kept }

// Sockets returns descriptors of the listeners, as another server takes them up by Options.Sockets: each named by the prefix that an entry of -l would have.
func (s *Server) Sockets() (files []*os.File, err error) {
	for _, l := range slices.Concat(s.listeners, s.udp) {
		fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), s.o.prefix(&l)))
	}
	return files, nil
}

// prefix is what parseEndpoint makes l's protocol and TLS of.
func (o *Options) prefix(l *listener) string {
	var words []string
	switch {
	case o.TLS == nil:
	case l.tls == tlsOff:
		words = append(words, "notls")
	case l.tls == tlsNoPeer:
		words = append(words, "btls")
	case l.tls == tlsPeer:
		words = append(words, "mtls")
	}
	name := map[Protocol]string{ProtocolAuto: "negotiating", ProtocolASCII: "ascii", ProtocolBinary: "binary"}[l.protocol]
	return strings.Join(append(words, "proto["+name+"]"), ":")
}

// finishing tells that a hand-over waits for c's client to send the rest of a data block.
func (w *worker) finishing(c *conn) bool { return w.srv.handingOver && c.up.kind != uploadNone }

// over tells that a stop has nothing more to do for c.
func (w *worker) over(c *conn) bool { return c.drained() && !w.finishing(c) }

// letGo ends the worker's part in c at a stop.
func (w *worker) letGo(c *conn) {
	if w.srv.handingOver && c.portable() {
		w.release(c)
	} else {
		w.close(c, netproto.LogCloseShutdown)
	}
}

// portable tells that a Conn has all that there is to know of c.
func (c *conn) portable() bool {
	return c.tls == nil && c.udp == nil && c.watch == nil && !c.closing && !c.dead && c.up.kind == uploadNone && !c.pending() && !c.get.active && c.dump == nil &&
		len(c.in) <= inputSize && c.auth.token == 0 && !c.auth.sasl.reading && !c.auth.sasl.begun
}

// release gives c away. Its descriptor stays open, so epoll has to be told.
func (w *worker) release(c *conn) {
	w.ep.remove(c.fd)
	kept := Conn{FD: c.fd, Protocol: c.protocol, Peer: c.peer, Authenticated: c.auth.done, AuthFailures: c.auth.failures, Input: bytes.Clone(c.in)}
	w.releaseInput(c)
	w.conns[c.fd] = nil
	w.live--
	s := w.srv
	s.mu.Lock()
	delete(s.registry, c.fd)
	s.kept = append(s.kept, kept)
	s.mu.Unlock()
	s.uncount()
	c.fd = -1
}

// resume gives the workers the connections that another server let go of.
func (s *Server) resume(conns []Conn) {
	for i := range conns {
		c := &conns[i]
		s.workers[i%len(s.workers)].handOver(handed{fd: c.FD, protocol: c.Protocol, peer: c.Peer, before: c})
	}
	s.conns.Add(int64(len(conns)))
	s.totalConns.Add(uint64(len(conns)))
	s.peakConns.Store(s.conns.Load())
}

// restore makes c what it was in another server.
func (w *worker) restore(c *conn, before *Conn) {
	c.auth.done = c.auth.done || before.Authenticated
	c.auth.failures = before.AuthFailures
	if n := len(before.Input); n > 0 {
		size := smallInput
		if n > smallInput {
			size = inputSize
		}
		w.hold(c, w.pool.get(size))
		c.in = c.base[:copy(c.base, before.Input)]
	}
	c.served = true
}
