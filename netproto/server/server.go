package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

const (
	// stopTimeout is how long a stop waits for clients to take the replies that are on their way.
	stopTimeout = 5 * time.Second
	// acceptRetry is how long the acceptor stays away from a limit that not only our own connections count towards.
	acceptRetry = 100 * time.Millisecond
	// acceptBatch bounds the connections that are taken before the acceptor looks whether it should stop.
	acceptBatch = 64
)

// ErrShutdown is returned by Serve when a client's shutdown command stopped it.
var ErrShutdown = errors.New("server: stopped by a shutdown command")

// FaultError is returned by Serve when the cache's memory could not be read or written: a bad disk, or a file that somebody cut short.
// Nothing was stopped: other workers may still run, on memory that cannot be trusted. The process must exit at once and non-zero without
// closing the cache; the next start judges the file.
type FaultError struct {
	Addr uintptr // 0 when a system call met the fault
	What string
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("server: fault in the cache's memory at address %#x: %s", e.Addr, e.What)
}

// Server serves one cache. Make it with New, run it with Serve, once.
type Server struct {
	o          Options
	cache      *hearth.Cache
	listeners  []listener
	handshakes handshakes
	udp        []listener // the workers have copies of the descriptors
	workers    []*worker
	ownP       bool   // each worker may keep its P while it waits: see ownPWait
	ep         poller // the acceptor's
	wake       waker  // wakes it

	closed      atomic.Bool // no more connections
	stopping    atomic.Bool // closed, and the acceptor is gone
	handingOver bool        // stopping is for a hand-over; written before it
	ended       chan error  // ErrShutdown or a *FaultError, from workers
	verbosity   atomic.Int32
	clock       atomic.Int64 // seconds since start, for secs_since_last_cmd

	conns, peakConns        atomic.Int64 // client connections now, and the most there were
	totalConns, rejected    atomic.Uint64
	uploads                 atomic.Int64 // bytes of the cache's memory in uploads that wait for their clients
	longLines               atomic.Int64 // bytes of buffers for lines longer than inputSize
	disabled                atomic.Bool  // not accepting
	disabledNum, disabledUs atomic.Uint64
	napi                    struct{ unexpected, fallback atomic.Uint64 } // connections, see picker

	prefixes prefixStats
	log      watchLog

	tuneMu sync.Mutex // guards tune and changes of the cache's own settings
	tune   Tuning
	dump   atomic.Pointer[dump] // the one that is under way

	mu       sync.Mutex
	registry map[int]*conn // by descriptor; a descriptor is closed under mu, so that `stats conns` asks the right socket
	kept     []Conn        // see Released
}

// New opens the listeners. The errors of those start as memcached's do ("failed to listen on TCP port 11211: ...").
func New(cache *hearth.Cache, o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, cache: cache, ended: make(chan error, o.Threads+1), registry: map[int]*conn{}}
	s.verbosity.Store(int32(o.Verbosity))
	s.tune = *s.o.Tuning
	s.prefixes.init(o.PrefixDelimiter, o.Detail)
	if err = s.openListeners(); err != nil {
		return nil, err
	}
	if s.ep, s.wake, err = newPoll(); err == nil {
		for _, l := range s.listeners {
			if err = s.ep.add(l.fd, pollIn); err != nil {
				break
			}
		}
	}
	for i := 0; i < o.Threads && err == nil; i++ {
		w := &worker{srv: s}
		if w.ep, w.wake, err = newPoll(); err == nil {
			s.workers = append(s.workers, w)
		}
	}
	if err == nil {
		err = s.shareUDP()
	}
	if err == nil {
		s.ownP = pollKeepsP && runtime.GOMAXPROCS(0) > len(s.workers)
		s.autocrawl(&s.tune)
		err = s.automove(&s.tune)
	}
	if err != nil {
		closeListeners(s.listeners)
		closeListeners(s.udp)
		s.closePolls()
		return nil, fmt.Errorf("server: %s for %d threads: %w", pollName, o.Threads, err)
	}
	s.resume(o.Conns)
	return s, nil
}

func newPoll() (ep poller, wake waker, err error) {
	if ep, err = newPoller(); err == nil {
		if wake, err = newWaker(); err == nil {
			if err = ep.add(wake.r, pollIn); err == nil {
				return ep, wake, nil
			}
			wake.close()
		}
		ep.close()
	}
	return noPoller, noWaker, err
}

func (s *Server) closePolls() {
	s.ep.close()
	s.wake.close()
	for _, w := range s.workers {
		w.ep.close()
		w.wake.close()
		for _, h := range w.udp { // Serve was never called
			unix.Close(h.fd)
		}
	}
}

// Addrs returns the addresses that are listened on, in the order they were opened; those of UDP last.
func (s *Server) Addrs() []net.Addr {
	var as []net.Addr
	for _, l := range slices.Concat(s.listeners, s.udp) {
		as = append(as, l.addr)
	}
	return as
}

// Serve serves until ctx is done, then returns nil; or until a shutdown command, then returns ErrShutdown. Both are graceful: no more
// connections, what was read is answered, replies on their way go out within stopTimeout, all sessions are closed on return, and the
// cache can be. When the context's cause is ErrHandOver, clients stay connected: see Released. A *FaultError is different: see there.
func (s *Server) Serve(ctx context.Context) error {
	faults := s.cache.Faults() // of its background work
	var running sync.WaitGroup
	stopClock := make(chan struct{})
	running.Go(func() { s.tick(stopClock) })
	s.handshakes.init()
	defer s.handshakes.cancel()
	accepting := make(chan struct{})
	go func() { s.accept(); close(accepting) }()
	for _, w := range s.workers {
		running.Go(w.run)
	}
	var how error
	select {
	case <-ctx.Done():
	case how = <-s.ended:
	case f := <-faults:
		how = &FaultError{f.Addr, f.What}
	}
	if _, fault := how.(*FaultError); fault {
		return how
	}
	s.handingOver = how == nil && context.Cause(ctx) == ErrHandOver
	s.closed.Store(true)
	s.wake.up()
	<-accepting
	closeListeners(s.udp)
	closeListeners(s.listeners) // now, not when all is done: who comes late is refused instead of left waiting
	s.handshakes.stop()         // before the workers look for the last time at what was handed to them
	s.stopping.Store(true)
	for _, w := range s.workers {
		w.wake.up()
	}
	close(stopClock)
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	for {
		select {
		case <-done:
			s.closePolls()
			return how
		case err := <-s.ended: // a fault while stopping; a second shutdown command is none
			if _, fault := err.(*FaultError); fault {
				return err
			}
		case f := <-faults:
			return &FaultError{f.Addr, f.What}
		}
	}
}

// tick counts seconds, so that nobody reads the clock for a request's sake.
func (s *Server) tick(stop <-chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			s.second()
		}
	}
}

// waker is a descriptor to be waited for that others can make readable. w and r are the same where the system has such.
type waker struct{ r, w int }

var noWaker = waker{-1, -1}

// up makes it readable.
func (w waker) up() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(w.w, one[:])
}

// drain makes it unreadable again.
func (w waker) drain() {
	var buf [512]byte
	unix.Read(w.r, buf[:])
}

func (w waker) close() {
	unix.Close(w.r)
	if w.w != w.r {
		unix.Close(w.w)
	}
}

// accept is the acceptor. -c bounds client connections: memcached compares descriptor numbers, so that its listeners, its epoll
// instances and whatever it inherited eat into the limit; an operator who says -c 100 means a hundred clients.
func (s *Server) accept() {
	runtime.LockOSThread() // it sits in a system call anyway
	defer runtime.UnlockOSThread()
	events := make([]pollEvent, 16)
	pick := s.newPicker()
	var since time.Time // when accepting was disabled
	for !s.closed.Load() {
		timeout := -1
		if s.disabled.Load() {
			timeout = int(acceptRetry / time.Millisecond)
		}
		n, err := s.ep.wait(events, timeout)
		if err != nil && err != unix.EINTR {
			s.o.Logger.Error("server: accept: "+pollName, "err", err)
			return
		}
		if s.disabled.Load() {
			if s.full() {
				if n > 0 {
					s.wake.drain()
				}
				continue
			}
			s.disabledUs.Add(uint64(time.Since(since).Microseconds()))
			s.disabled.Store(false)
			s.watchListeners(pollIn)
		}
		for _, ev := range events[:max(n, 0)] {
			if int(ev.Fd) == s.wake.r {
				s.wake.drain()
				continue
			}
			l := &s.listeners[slices.IndexFunc(s.listeners, func(l listener) bool { return l.fd == int(ev.Fd) })]
			if !s.acceptFrom(l, pick) {
				since = time.Now()
				s.disabledNum.Add(1)
				s.watchListeners(0)
				s.disabled.Store(true)
				// A connection that closes from here on wakes us; what closed just before is found by the retry.
				break
			}
		}
	}
}

func (s *Server) full() bool { return s.o.NoMaxConnsFast && s.conns.Load() >= int64(s.o.MaxConns) }

func (s *Server) watchListeners(events uint32) {
	for _, l := range s.listeners {
		s.ep.change(l.fd, events)
	}
}

// acceptFrom takes what waits at one listener. False: a limit was met and accepting should pause.
func (s *Server) acceptFrom(l *listener, pick *picker) bool {
	for i := range acceptBatch {
		if s.full() {
			return i > 0 // the pause begins when somebody is kept waiting, not when the last place is taken
		}
		fd, sa, err := acceptSocket(l.fd)
		switch err {
		case nil:
		case unix.EAGAIN:
			return true
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO:
			continue
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			return false
		default:
			s.o.Logger.Warn("server: accept", "err", err)
			return true
		}
		now := s.conns.Add(1)
		if now > int64(s.o.MaxConns) {
			s.conns.Add(-1)
			s.rejected.Add(1)
			if s.verbosity.Load() >= 1 {
				s.o.Logger.Warn("server: too many connections", "limit", s.o.MaxConns)
			}
			unix.Write(fd, []byte(netproto.TooManyConns))
			unix.Close(fd)
			continue
		}
		s.totalConns.Add(1)
		if now > s.peakConns.Load() { // only the acceptor raises it
			s.peakConns.Store(now)
		}
		h, w := handed{fd: fd, protocol: l.protocol, peer: peerOf(sa)}, s.workers[pick.worker(fd)]
		if l.tls != tlsOff {
			s.startHandshake(h, l.tls, w)
		} else {
			w.handOver(h)
		}
	}
	return true
}

// register puts a connection on the books.
func (s *Server) register(c *conn) {
	s.mu.Lock()
	s.registry[c.fd] = c
	s.mu.Unlock()
}

// forget closes a connection's descriptor and takes it off the books.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.registry, c.fd)
	unix.Close(c.fd)
	s.mu.Unlock()
	if c.udp == nil { // those were never counted
		s.uncount()
	}
}

// uncount makes room for another client.
func (s *Server) uncount() {
	s.conns.Add(-1)
	if s.disabled.Load() {
		s.wake.up()
	}
}
