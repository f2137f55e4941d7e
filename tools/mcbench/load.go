package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// load is what is to be sent.
type load struct {
	Protocol string        `json:"protocol"`
	Conns    int           `json:"connections"`
	Threads  int           `json:"threads"`  // that send and receive, each for its share of the connections
	Pipeline int           `json:"pipeline"` // requests on their way on a connection, at most
	Multiget int           `json:"multiget"` // keys of a get
	Sets     float64       `json:"sets"`     // percent of the requests
	Deletes  float64       `json:"deletes"`  // percent of the requests
	Keys     uint64        `json:"keys"`
	KeyLen   int           `json:"key_length"`
	Zipf     float64       `json:"zipf"` // skew, 0: all keys alike
	Size     string        `json:"size"`
	TTL      string        `json:"ttl"`
	Fill     bool          `json:"fill"` // set every key first
	WarmUp   time.Duration `json:"warm_up_ns"`
	Duration time.Duration `json:"duration_ns"`
	Requests int64         `json:"requests"` // 0: as many as there is time for
	Rate     float64       `json:"rate"`     // requests a second, 0: each connection sends when it has its answers
	Upkeep   bool          `json:"upkeep"`   // crawls and page moves meanwhile
	Timeout  time.Duration `json:"timeout_ns"`
	Seed     uint64        `json:"seed"`
}

// conn is a connection, in non-blocking mode.
type conn struct {
	fd     int
	out    []byte // not sent yet
	in     []byte // from here to its length: received, and not read yet
	ops    []*op  // on their way, the oldest first
	waits  bool   // for room to send
	queued bool   // in thread.dirty
}

// thread is a part of the load: connections with a poller of their own. What it counts is read when its phase is over.
type thread struct {
	*load
	id              int
	poll            *poller
	conns           []*conn // by number, which is what poll tells
	wire            wire
	rand            *rand.Rand
	draw            func(*rand.Rand) uint64
	ttlLow, ttlHigh int
	spare           []*op
	dirty           []*conn // with something to send

	answered atomic.Int64 // so far in this phase, for the progress line
	tally    tally
	latency  *hdrhistogram.Histogram // nanoseconds
	unsent   int64                   // that the rate demanded, and that found no free connection in time
}

// loader is a load on its connections to one server.
type loader struct {
	*load
	threads []*thread
}

// Latencies below and above are counted as these, with three digits between.
const minLatency, maxLatency = 100 * time.Nanosecond, 10 * time.Minute

func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(minLatency), int64(maxLatency), 3)
}

func (l *load) connect(addr string) (_ *loader, err error) {
	all := &loader{load: l}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	sizes, err := parseSizes(l.Size)
	if err != nil {
		return nil, err
	}
	for id := range l.Threads {
		th := &thread{load: l, id: id, rand: rand.New(rand.NewPCG(l.Seed, uint64(id))), latency: newLatency()}
		all.threads = append(all.threads, th)
		if th.wire, err = newWire(l.Protocol, &data{keyLength: l.KeyLen, sizes: sizes}); err != nil {
			return nil, err
		}
		if th.ttlLow, th.ttlHigh, err = parseRange(l.TTL); err != nil {
			return nil, fmt.Errorf("mcbench: --ttl %q: want seconds or LOW-HIGH", l.TTL)
		}
		if th.draw = func(r *rand.Rand) uint64 { return 1 + r.Uint64N(l.Keys) }; l.Zipf > 0 {
			th.draw = newZipf(l.Keys, l.Zipf)
		}
		if th.poll, err = newPoller(); err != nil {
			return nil, fmt.Errorf("mcbench: %w", err)
		}
	}
	for n := range l.Conns {
		th := all.threads[n%l.Threads]
		fd, err := dialRaw(addr)
		if err != nil {
			return nil, err
		}
		th.conns = append(th.conns, &conn{fd: fd})
		if err := th.poll.add(fd, len(th.conns)-1); err != nil {
			return nil, fmt.Errorf("mcbench: %w", err)
		}
	}
	return all, nil
}

// dialRaw connects and takes the socket away from Go's poller, which would wake up for it, too.
func dialRaw(addr string) (fd int, err error) {
	c, err := net.Dial(networkOf(addr), addr)
	if err != nil {
		return 0, fmt.Errorf("mcbench: %w", err)
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if err2 := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err2 != nil {
		err = err2
	}
	return fd, err
}

func (all *loader) close() {
	for _, th := range all.threads {
		for _, c := range th.conns {
			unix.Close(c.fd)
		}
		if th.poll != nil {
			th.poll.close()
		}
	}
}

// phase is a part of a run. It ends when all that was sent is answered.
type phase struct {
	duration time.Duration // 0: until all requests are sent
	requests int64         // 0: as many as there is time for
	rate     float64
	fill     bool // set each key once
	depth    int
}

// run runs a phase on all threads and says how long it took. The first error ends it.
func (all *loader) run(p phase, progress func(done func() int64) (stop func())) (time.Duration, error) {
	var failed atomic.Bool
	errs := make([]error, len(all.threads))
	defer progress(func() (n int64) {
		for _, th := range all.threads {
			n += th.answered.Load()
		}
		return n
	})()
	var wait sync.WaitGroup
	began := time.Now()
	for i, th := range all.threads {
		th.answered.Store(0)
		th.tally, th.unsent = tally{}, 0
		th.latency.Reset()
		wait.Go(func() {
			if errs[i] = th.run(p, began, &failed); errs[i] != nil {
				failed.Store(true)
			}
		})
	}
	wait.Wait()
	return time.Since(began), errors.Join(errs...)
}

// share is how many of n things fall to this thread, when thing k falls to thread k modulo their number.
func (th *thread) share(n int64) int64 { return (n + int64(th.Threads-1-th.id)) / int64(th.Threads) }

// run is the loop of one thread. A closed loop sends a batch of p.depth requests on a connection when the one before is answered. An open loop has a
// time for each request, whatever the server does; while no connection is free it waits, and its latency counts from that time.
func (th *thread) run(p phase, began time.Time, failed *atomic.Bool) error {
	now := func() int64 { return int64(time.Since(began)) }
	limit := th.share(p.requests)
	if p.fill {
		limit = th.share(int64(th.Keys))
	}
	end := int64(p.duration)
	var sent, onWay int64
	more := func(at int64) bool {
		return (p.duration == 0 || at < end) && (p.requests == 0 && !p.fill || sent < limit) && !failed.Load()
	}
	send := func(c *conn, due int64) {
		o := th.take(p.fill, sent)
		o.due = due
		c.out = th.wire.request(c.out, o)
		c.ops = append(c.ops, o)
		sent++
		onWay++
		th.mark(c)
	}
	intended := func(n int64) int64 { return int64(float64(n*int64(th.Threads)+int64(th.id)) / p.rate * 1e9) }
	batch := func(c *conn) {
		for at := now(); len(c.ops) < p.depth && more(at); {
			send(c, at)
		}
	}
	turn := 0 // the connection whose turn it is
	onTime := func() error {
		for more(intended(sent)) && intended(sent) <= now() {
			c := th.free(&turn, p.depth)
			if c == nil {
				return nil // the next answer brings us here again
			}
			send(c, intended(sent))
		}
		if !more(intended(sent)) {
			return nil
		}
		return th.poll.alarm(max(intended(sent)-now(), 1))
	}
	if p.rate == 0 {
		for _, c := range th.conns {
			batch(c)
		}
	}
	events := make([]event, len(th.conns)+1)
	for heard := now(); ; {
		if p.rate > 0 {
			if err := onTime(); err != nil {
				return fmt.Errorf("mcbench: timer: %w", err)
			}
		}
		if err := th.flush(); err != nil {
			return err
		}
		if onWay == 0 && (p.rate == 0 || !more(intended(sent))) {
			return nil
		}
		const look = 100 // milliseconds, for the ends that no event tells of
		n, err := th.poll.wait(events, look)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("mcbench: %w", err)
		}
		at := now()
		switch {
		case n > 0 || onWay == 0:
			heard = at
		case failed.Load():
			return nil
		case at-heard > int64(th.Timeout):
			return fmt.Errorf("mcbench: no answer for %v, with %d requests on their way", th.Timeout, onWay)
		}
		if p.rate > 0 && p.duration > 0 && at > end+int64(th.Timeout) { // the backlog is too long to be worked off
			for ; more(intended(sent)); sent++ {
				th.unsent++
				th.record(at - intended(sent))
			}
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd < 0 {
				continue
			}
			c := th.conns[e.Fd]
			if e.Events&canWrite != 0 {
				th.mark(c)
			}
			if e.Events&^canWrite == 0 {
				continue
			}
			done, err := th.receive(c, now)
			if err != nil {
				return err
			}
			onWay -= int64(done)
			if p.rate == 0 && len(c.ops) == 0 {
				batch(c)
			}
		}
	}
}

// take makes the next request; in a fill it is the set of the n-th key of this thread.
func (th *thread) take(fill bool, n int64) *op {
	o := new(op)
	if last := len(th.spare) - 1; last >= 0 {
		o, th.spare = th.spare[last], th.spare[:last]
	}
	*o = op{kind: get, keys: o.keys[:0], ttl: th.ttlLow}
	if th.ttlHigh > th.ttlLow {
		o.ttl += th.rand.IntN(th.ttlHigh - th.ttlLow + 1)
	}
	if fill {
		o.kind, o.keys = set, append(o.keys, 1+uint64(n*int64(th.Threads)+int64(th.id)))
		return o
	}
	keys := 1
	switch percent := 100 * th.rand.Float64(); {
	case percent < th.Sets:
		o.kind = set
	case percent < th.Sets+th.Deletes:
		o.kind = del
	default:
		keys = th.Multiget
	}
	for range keys {
		o.keys = append(o.keys, th.draw(th.rand))
	}
	return o
}

// free is the next connection that can take a request, nil if there is none.
func (th *thread) free(turn *int, depth int) *conn {
	for range th.conns {
		c := th.conns[*turn]
		*turn = (*turn + 1) % len(th.conns)
		if len(c.ops) < depth {
			return c
		}
	}
	return nil
}

func (th *thread) mark(c *conn) {
	if !c.queued {
		c.queued = true
		th.dirty = append(th.dirty, c)
	}
}

// flush sends what there is to send, as far as the sockets take it.
func (th *thread) flush() error {
	for _, c := range th.dirty {
		c.queued = false
		n := 0
		for n < len(c.out) {
			m, err := unix.Write(c.fd, c.out[n:])
			if err == unix.EAGAIN {
				break
			}
			if err != nil && err != unix.EINTR {
				return fmt.Errorf("mcbench: send: %w", err)
			}
			n += max(m, 0)
		}
		c.out = slices.Delete(c.out, 0, n)
		if waits := len(c.out) > 0; waits != c.waits {
			c.waits = waits
			if err := th.poll.change(c.fd, slices.Index(th.conns, c), waits); err != nil {
				return fmt.Errorf("mcbench: %w", err)
			}
		}
	}
	th.dirty = th.dirty[:0]
	return nil
}

// receive reads once from a connection and says how many requests were answered in full.
func (th *thread) receive(c *conn, now func() int64) (done int, err error) {
	c.in = slices.Grow(c.in, 32<<10)
	n, err := unix.Read(c.fd, c.in[len(c.in):cap(c.in)])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("mcbench: receive: %w", err)
	case n == 0:
		return 0, fmt.Errorf("mcbench: receive: %w: the server closed a connection with %d requests on their way", io.ErrUnexpectedEOF, len(c.ops))
	}
	at := now()
	c.in = c.in[:len(c.in)+n]
	read := 0
	for done < len(c.ops) && read < len(c.in) {
		o := c.ops[done]
		m, whole, err := th.wire.reply(c.in[read:], o, &th.tally)
		if err != nil {
			return done, fmt.Errorf("mcbench: %s: %w", th.Protocol, err)
		}
		read += m
		if !whole {
			break
		}
		done++
		th.tally.Requests++
		th.record(at - o.due)
		th.spare = append(th.spare, o)
	}
	if done == len(c.ops) && read < len(c.in) {
		return done, fmt.Errorf("mcbench: %s: got %.40q, which answers nothing", th.Protocol, c.in[read:])
	}
	c.ops = slices.Delete(c.ops, 0, done)
	c.in = slices.Delete(c.in, 0, read)
	th.answered.Store(th.tally.Requests)
	return done, nil
}

func (th *thread) record(ns int64) {
	th.latency.RecordValue(min(max(ns, int64(minLatency)), int64(maxLatency)))
}
