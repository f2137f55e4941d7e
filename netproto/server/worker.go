package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

// ownPWait is how long a worker keeps its P while it waits, in milliseconds. A system call that Go's scheduler knows of lets its monitor, each 20 us, look whether the P is needed
// elsewhere, and costs a tenth of a request that comes by itself. So a worker waits in one that the scheduler does not know of first.
//
// Nobody misses that P, for ownP says that there are more of them than workers. And nobody waits for the worker: who needs to stop it, as the collector does, sends its
// thread a signal, and again until it has stopped; the signal ends the wait by EINTR, and the next call of a function is where it stops. An idle worker waits
// for long in the call that gives the P up.
const ownPWait = 5

// worker serves its connections on one OS thread.
type worker struct {
	srv     *Server
	ep      poller
	wake    waker
	s       *hearth.Session
	verbose bool // log request lines

	conns  []*conn  // by descriptor
	live   int      // how many there are
	udp    []handed // UDP sockets, until run takes them up
	events []pollEvent
	ready  []*conn // have input that was read but not served: -R, or a long get
	spare  []*conn // ready's other buffer

	inputs [turnsAhead][]byte     // each of inputSize bytes; filled and used up within one turn
	buf    int                    // the one of inputs that the turn at hand has
	opened []opened               // turns that have begun; the first one's buffer is the first, and so on
	pool   bufPool                // for input that outlives its turn
	held   int                    // bytes of buffers that connections hold
	o      output                 // replies of the turn that goes on
	req    netproto.Request       // the request that is being served
	bin    netproto.BinaryRequest // likewise, of a binary connection
	item   hearth.Item
	keys   [][]byte     // what the session expects, in the input
	fetch  hearth.Fetch // of mg and me
	metas  *metaUpload  // unused ones
	pieces [][]byte
	iov    []unix.Iovec
	sealed []byte // unused memory for a TLS connection's ciphertext

	// For log lines.
	watching []*conn      // those of conns that watch
	logged   atomic.Bool  // lines came to one of them that had none
	fd       int          // of the connection whose requests are being served
	logFetch hearth.Fetch // of lookups that are logged, and of the draft that is
	logKey   [netproto.MaxKey]byte

	stopping bool
	deadline time.Time   // of the stop
	scanIdle atomic.Bool // a second has passed: look for idle connections
	scanSlow atomic.Bool // too much memory waits for clients: look for slow ones

	mu     sync.Mutex
	handed []handed // from the acceptor, under mu

	_        [64]byte // the counters are read by other threads: not on a line with what this one writes all the time
	counters struct {
		bytesRead, bytesWritten, yields, authCmds, authErrors, idleKicks, metaCmds, flushesRefused, tlsErrors, readBufOOM atomic.Uint64

		thread, conns atomic.Int64 // the thread's id, and the client connections now
	}
	_       [64]byte
	latency latencies
}

// handed is a socket for a worker, and what its listener knows of it.
type handed struct {
	fd       int
	protocol Protocol
	peer     netip.AddrPort
	tls      *tlsConn // nil: plain
	before   *Conn    // what it was in another server; nil: it is new
}

// handOver gives the worker a new connection. It is called by the acceptor.
func (w *worker) handOver(h handed) {
	w.mu.Lock()
	w.handed = append(w.handed, h)
	w.mu.Unlock()
	w.wake.up()
}

// run is the worker's life.
func (w *worker) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetPanicOnFault(true)
	defer w.reportFault()
	w.counters.thread.Store(int64(threadID()))
	w.s = w.srv.cache.NewSession()
	w.events = make([]pollEvent, 256)
	w.makeBuffers()
	w.startUDP()
	for !w.stopping || w.live > 0 {
		n := w.wait()
		w.latency.begin()
		w.verbose = w.srv.verbosity.Load() >= 2
		w.s.Begin()
		for i := range w.events[:n] {
			if fd := int(w.events[i].Fd); fd == w.wake.r {
				w.takeHanded()
			} else if c := w.conns[fd]; c != nil && !c.queued {
				w.take(c, w.events[i].Events)
			} else if c != nil { // it has its turn below
				c.told(w.events[i].Events)
			}
		}
		w.serveOpened()
		w.queueWatchers()
		queue := w.ready
		w.ready = w.spare[:0]
		for i, c := range queue {
			queue[i] = nil
			c.queued = false
			if c.fd >= 0 {
				w.turn(c, 0)
			}
		}
		w.spare = queue[:0]
		if w.scanIdle.Swap(false) {
			w.kickIdle()
		}
		if w.scanSlow.Swap(false) {
			w.dropSlow()
		}
		if !w.stopping && w.srv.stopping.Load() {
			timeout := stopTimeout
			if w.srv.handingOver {
				timeout = handOverTimeout
			}
			w.stopping, w.deadline = true, time.Now().Add(timeout)
			w.takeHanded()
			w.letGoWhere(w.over)
		} else if w.stopping && time.Now().After(w.deadline) {
			w.letGoWhere(func(*conn) bool { return true })
		}
		w.latency.end()
		w.s.End()
	}
	w.s.Close()
}

func (w *worker) makeBuffers() {
	for i := range w.inputs {
		w.inputs[i] = make([]byte, inputSize)
	}
	w.pool.all.Add(int64(len(w.inputs)))
	w.opened, w.keys = make([]opened, 0, turnsAhead), make([][]byte, 0, hearth.ExpectMost)
}

// wait returns the number of events. It waits only when there is nothing to do.
func (w *worker) wait() int {
	timeout := -1
	if len(w.ready) == 1 && w.ready[0].rests() {
		timeout = 1 // the shortest, and most often enough
	} else if len(w.ready) > 0 {
		n, _ := w.ep.poll(w.events, 0)
		return n
	} else if w.stopping {
		timeout = int(max(time.Until(w.deadline)/time.Millisecond+1, 0))
	} else if w.srv.ownP {
		if n, errno := w.ep.poll(w.events, ownPWait); n > 0 || errno == unix.EINTR {
			return n
		}
	}
	n, err := w.ep.wait(w.events, timeout)
	if err != nil && err != unix.EINTR {
		panic(fmt.Sprintf("server: %s: %v", pollName, err)) // only a bug can cause it
	}
	return max(n, 0)
}

// takeHanded starts what the acceptor handed over.
func (w *worker) takeHanded() {
	w.wake.drain()
	w.mu.Lock()
	hs := w.handed
	w.handed = nil
	w.mu.Unlock()
	for _, h := range hs {
		c := &conn{fd: h.fd, peer: h.peer, protocol: h.protocol, tls: h.tls}
		c.events = c.awaits()
		c.auth.done = w.srv.o.Auth == nil && w.srv.o.SASL == nil
		if c.tls != nil {
			c.tls.w = w
		}
		if h.before != nil {
			w.restore(c, h.before)
		}
		w.adopt(c)
		if w.srv.verbosity.Load() >= 2 {
			w.srv.o.Logger.Debug("server: new connection", "fd", c.fd)
		}
		if c.tls == nil { // otherwise before its handshake
			w.srv.logConnNew(c)
		}
		if err := w.ep.add(c.fd, c.events); err != nil {
			w.srv.o.Logger.Warn("server: "+pollName, "fd", c.fd, "err", err)
			w.close(c, netproto.LogCloseError)
		} else if c.tls != nil {
			w.queue(c) // for what came with the handshake: epoll will not tell
		}
	}
}

// adopt makes c one of the worker's connections.
func (w *worker) adopt(c *conn) {
	c.lastCmd.Store(w.srv.clock.Load())
	for c.fd >= len(w.conns) {
		w.conns = append(w.conns, nil)
	}
	w.srv.register(c)
	w.conns[c.fd] = c
	w.live++
	if c.udp == nil {
		w.counters.conns.Add(1)
	}
}

func (w *worker) letGoWhere(f func(*conn) bool) {
	for _, c := range w.conns {
		if c != nil && f(c) {
			w.letGo(c)
		}
	}
}

// close ends a connection and gives back all that it holds. reason is one of the log lines', or "" for an error.
func (w *worker) close(c *conn, reason string) {
	reason = cmp.Or(reason, netproto.LogCloseError)
	if w.verbose {
		w.srv.o.Logger.Debug("server: connection closed", "fd", c.fd, "reason", reason)
	}
	if c.up.kind == uploadStore {
		w.s.Discard(&c.up.draft)
		w.dropMeta(&c.up)
		c.up.kind = uploadNone
	}
	w.countUpload(c)
	w.dropPending(c)
	w.endDump(c)
	w.endWatch(c)
	w.srv.logConnClose(c, reason)
	w.releaseInput(c)
	if c.tls != nil {
		c.tls.farewell()
	}
	w.conns[c.fd] = nil
	w.live--
	if c.udp == nil {
		w.counters.conns.Add(-1)
	}
	w.ep.closing(c.fd)
	w.srv.forget(c)
	c.fd = -1
}

// queue gives c a turn in the next iteration.
func (w *worker) queue(c *conn) {
	if !c.queued {
		c.queued = true
		w.ready = append(w.ready, c)
	}
}

// fault is what a system call's EFAULT panics with, so that it ends where SIGBUS does.
type fault struct{ what string }

// reportFault turns a fault in the cache's memory into the end of Serve.
func (w *worker) reportFault() {
	if f := w.srv.faultOf(recover()); f != nil {
		w.srv.ended <- f
		select {} // its session stays in the section: the memory under it must not be reused by those who still run
	}
}

// faultOf is the fault in the cache's memory that r, what recover returned, tells of, logged; nil: there was no panic. Other panics are bugs and go their
// way. With SetPanicOnFault a bad access comes as a runtime.Error that has an address; a nil pointer is none of those.
func (s *Server) faultOf(r any) (f *FaultError) {
	switch r := r.(type) {
	case nil:
		return nil
	case fault:
		f = &FaultError{What: r.what}
	case interface {
		runtime.Error
		Addr() uintptr
	}:
		f = &FaultError{Addr: r.Addr(), What: r.Error()}
	default:
		panic(r)
	}
	s.o.Logger.Error("server: fault in the cache's memory", "address", fmt.Sprintf("%#x", f.Addr), "what", f.What, "stack", string(debug.Stack()))
	return f
}
