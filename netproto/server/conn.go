package server

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

const (
	// inputSize is the most that one read takes, as memcached's READ_BUFFER_SIZE.
	inputSize = 16 << 10
	// smallInput is the buffer for a few leftover bytes: most often part of one line.
	smallInput = 2 << 10
	// longLinesMost bounds the buffers for lines longer than inputSize, over all connections: four of the longest. What lies in them is heap and not of -m.
	longLinesMost = 4 * netproto.MaxMultiget
	// copyMax is the largest value that is copied into the output; above it the copy costs more than the pieces of a writev.
	copyMax = 16 << 10
	// flushAt is how much output waits for the end of a turn.
	flushAt = 32 << 10
	// keysPerTurn bounds the keys of one get that are answered before others get their turn.
	keysPerTurn = 1024
)

// conn is a client's connection. It belongs to one worker.
type conn struct {
	fd       int      // -1: closed
	events   uint32   // what epoll was asked for
	queued   bool     // in the worker's ready list
	served   bool     // all of in was looked at: more bytes must come before something can be done
	closing  bool     // to be closed when its output is out
	protocol Protocol // ProtocolAuto until its first byte is there
	dead     bool     // the socket failed: to be closed now
	more     bool     // the socket may have input of which epoll will not tell again
	ends     bool     // epoll told that the client sends no more: to be read until that comes

	base []byte // the connection's own input buffer, or nil
	in   []byte // the input not used up; lies in base

	tls  *tlsConn   // nil: plain
	udp  *udpSocket // nil: the others
	auth authState
	up   upload
	held int64 // bytes of up's draft that Server.uploads has
	get  getState
	dump *dump  // nil: none is on its way to the client
	out  output // pending output

	// For log lines.
	watch  *watcher       // nil: it is served
	peer   netip.AddrPort // the zero value on a unix socket
	reason string         // why closing or dead is set; "": an error

	state   atomic.Uint32 // connState, for `stats conns`
	lastCmd atomic.Int64  // Server.clock at the last command
	busyAt  int64         // Server.clock when the last look for idle connections found it busy
}

// used notes the time of a command. Others read it now and then, so it is not stored where it is the same.
func (c *conn) used(now int64) {
	if c.lastCmd.Load() != now {
		c.lastCmd.Store(now)
	}
}

// connState is what `stats conns` shows between turns.
type connState uint32

const (
	connNewCmd connState = iota // nothing has come yet; a TLS handshake may be under way
	connRead
	connNread
	connSwallow
	connMwrite
	connWatch
)

func (s connState) String() string {
	return [...]string{"conn_new_cmd", "conn_read", "conn_nread", "conn_swallow", "conn_mwrite", "conn_watch"}[s]
}

// rests tells that c leaves its turns to others for now.
func (c *conn) rests() bool { return c.dump != nil && time.Now().Before(c.dump.until) }

// pending tells that the socket has to take something before c goes on.
func (c *conn) pending() bool { return c.out.pending() || c.tls.pending() }

// hidden tells that c may have input which epoll knows nothing of.
func (c *conn) hidden() bool { return c.more || c.ends || c.tls != nil && c.tls.more }

// awaits is what epoll is asked for while c waits for input: to be told once for all that has come, since each further telling costs a look at the socket. Whoever is told
// reads until a read does not fill its buffer. That tells nothing of the end of input, which is an event of its own. A TLS connection reads by rules of its own.
func (c *conn) awaits() uint32 {
	if c.tls != nil {
		return pollIn
	}
	return pollIn | pollEnd | pollOnce
}

// told takes note of an event for c that the turn at hand does not act upon as a whole.
func (c *conn) told(ev uint32) {
	c.more = c.more || ev&pollIn != 0
	c.ends = c.ends || ev&pollEnded != 0
}

// drained tells that nothing is left to be done for c unless its client sends more. Nobody waits for a watcher.
func (c *conn) drained() bool {
	return c.watch != nil || !c.queued && !c.pending() && !c.get.active && c.dump == nil && (c.served || len(c.in) == 0)
}

// getState is a get that is not fully answered. Its keys lie in the input, which must stay where it is while active.
type getState struct {
	active  bool
	verb    netproto.Verb
	exptime int64
	keys    netproto.Keys
}

// upload is a data block that is being read.
type upload struct {
	kind    uploadKind
	noreply bool
	ntail   int8    // bytes of the CRLF that are there
	tail    [2]byte // those
	since   int64   // Server.clock at its begin
	size    int     // of the value
	cas     uint64
	draft   hearth.Draft
	drop    int64       // bytes still to be dropped
	reply   string      // what to answer when they are
	meta    *metaUpload // of an ms
	bin     binaryUpload
}

// complete tells that nothing has to come for a store that waits. Only a value without line end, read straight into the draft, gets there.
func (up *upload) complete() bool {
	return up.kind == uploadStore && int(up.ntail) == len(up.tail) && up.draft.Remaining() == 0
}

type uploadKind uint8

const (
	uploadNone uploadKind = iota
	uploadStore
	uploadDrop
)

// turn does what there is to do for c. ev is what epoll said, 0 when c comes from the ready list.
func (w *worker) turn(c *conn, ev uint32) {
	if in, more := w.beginTurn(c, ev); more {
		w.serveTurn(c, in)
	}
}

// beginTurn is a turn up to c's input, which lies in the worker's buffer or in c's own buffer; more tells that serveTurn is to follow.
func (w *worker) beginTurn(c *conn, ev uint32) (in []byte, more bool) {
	if c.udp != nil {
		w.turnUDP(c)
		return nil, false
	}
	c.told(ev)
	if c.pending() {
		if !w.drain(c) {
			w.endTurn(c)
			return nil, false
		}
		ev = 0
	}
	if c.watch != nil {
		w.turnWatch(c, ev)
		w.endTurn(c)
		return nil, false
	}
	if c.closing {
		return nil, true
	}
	switch {
	case len(c.in) > 0 && !c.served || c.get.active || c.dump != nil:
		in = c.in
	case ev == 0 && !c.hidden() || w.stopping && !w.finishing(c):
		in = nil
	default:
		if in = w.read(c); c.dead {
			w.endTurn(c)
			return nil, false
		}
	}
	return in, true
}

// serveTurn is the rest of a turn.
func (w *worker) serveTurn(c *conn, in []byte) {
	if !c.closing && (len(in) > 0 || c.get.active || c.dump != nil || c.up.complete()) {
		own := len(c.base) > 0
		w.keep(c, own, w.serve(c, in))
	}
	w.flush(c)
	w.endTurn(c)
}

// opened is a turn between beginTurn and serveTurn.
type opened struct {
	c  *conn
	in []byte
}

// turnsAhead is how many connections' input is read before the first of it is served.
const turnsAhead = 16

// take begins a turn for c and leaves the rest to serveOpened: a few connections' input is read first, so that the memory which their requests need is
// fetched for all of them at a time.
func (w *worker) take(c *conn, ev uint32) {
	if in, more := w.beginTurn(c, ev); more {
		w.opened = append(w.opened, opened{c, in})
		if w.buf = len(w.opened); w.buf == turnsAhead {
			w.serveOpened()
		}
	}
}

// serveOpened ends the turns that take began. A connection is closed in its own turn only, so all of them are still there.
func (w *worker) serveOpened() {
	if len(w.opened) > 1 {
		keys := w.keys[:0]
		for i := range w.opened {
			keys = w.opened[i].c.appendKeys(keys, w.opened[i].in)
		}
		if len(keys) > 1 {
			w.s.Expect(keys)
		}
	}
	for i := range w.opened {
		w.buf = i
		w.serveTurn(w.opened[i].c, w.opened[i].in)
		w.s.Pause()
		w.opened[i] = opened{}
	}
	w.opened, w.buf = w.opened[:0], 0
}

// endTurn closes c if that is due, and otherwise asks epoll for what c waits for.
func (w *worker) endTurn(c *conn) {
	pending := c.pending()
	switch {
	case c.dead, c.closing && !pending:
		w.close(c, c.reason)
		return
	case w.stopping && w.over(c):
		w.letGo(c)
		return
	}
	w.countUpload(c)
	events, state := c.awaits(), connRead
	switch {
	case c.watch != nil:
		state = connWatch
		if pending {
			events = pollOut
		}
	case pending:
		events, state = pollOut, connMwrite
	case c.up.kind == uploadStore:
		state = connNread
	case c.up.kind == uploadDrop:
		state = connSwallow
	}
	if !pending && (!c.served && (len(c.in) > 0 || c.get.active || c.dump != nil) || c.hidden() && (!w.stopping || w.finishing(c))) {
		w.queue(c)
	}
	if events != c.events {
		c.events = events
		w.ep.change(c.fd, events)
	}
	if connState(c.state.Load()) != state {
		c.state.Store(uint32(state))
	}
}

// read reads once and returns all the input there is; nothing when that cannot be served yet.
func (w *worker) read(c *conn) []byte {
	if c.up.kind == uploadStore && c.up.draft.Remaining() > 0 {
		return w.readDraft(c)
	}
	buf, have := w.inputs[w.buf], len(c.in)
	switch {
	case have == 0:
	case len(c.base) <= smallInput: // part of a line: goes on in the worker's buffer
		copy(buf, c.in)
		w.releaseInput(c)
	default:
		if have == len(c.base) {
			if w.srv.longLines.Load()+int64(have) > longLinesMost || !w.mayHold(c, have) {
				c.dead = true // as one that is too long
				return nil
			}
			bigger := make([]byte, 2*have)
			copy(bigger, c.in)
			w.releaseInput(c)
			w.hold(c, bigger)
			w.srv.longLines.Add(int64(2 * have))
		} else {
			copy(c.base, c.in)
		}
		buf = c.base
		c.in = buf[:have]
	}
	n, errno := w.receive(c, buf[have:])
	if !w.wasRead(c, n, errno) {
		if n == 0 && have > 0 && !c.dead {
			w.keep(c, len(c.base) > 0, buf[:have])
		}
		return nil
	}
	in := buf[:have+n]
	if have >= inputSize && c.auth.done && len(in) <= netproto.MaxMultiget && bytes.IndexByte(in[have:], '\n') < 0 {
		c.in = in // a long line that goes on: not to be searched from its start for each packet
		return nil
	}
	return in
}

// readDraft reads a data block to where it is going to stay, and what follows it into the worker's buffer. c has no other input: a data
// block takes all there is.
func (w *worker) readDraft(c *conn) []byte {
	dst := w.s.Next(&c.up.draft)
	if len(dst) == 0 {
		w.failUpload(c, c.up.draft.Remaining())
		n, errno := w.receive(c, w.inputs[w.buf])
		w.wasRead(c, n, errno)
		return w.inputs[w.buf][:n]
	}
	n, errno := w.receive(c, dst, w.inputs[w.buf])
	if !w.wasRead(c, n, errno) {
		return nil
	}
	block := min(n, len(dst))
	c.up.draft.Wrote(block)
	return w.inputs[w.buf][:n-block]
}

// receive fills bufs, one after the other, with what the client has sent.
func (w *worker) receive(c *conn, bufs ...[]byte) (int, unix.Errno) {
	w.s.Expect(nil) // of keys that lay there
	if c.tls != nil {
		c.more = false // its own matters
		return c.tls.read(bufs...)
	}
	var n, room int
	var errno unix.Errno
	if len(bufs) == 1 {
		room = len(bufs[0])
		n, errno = sysRead(c.fd, bufs[0])
	} else {
		w.iov = w.iov[:0]
		for _, p := range bufs {
			w.iov = append(w.iov, iovec(p))
			room += len(p)
		}
		n, errno = sysReadv(c.fd, w.iov)
	}
	c.more = n == room || errno == unix.EINTR
	return n, errno
}

// wasRead judges what a read returned; false: nothing came.
func (w *worker) wasRead(c *conn, n int, errno unix.Errno) bool {
	switch {
	case errno == unix.EFAULT:
		panic(fault{"read: " + errno.Error()})
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return false
	case errno != 0:
		if c.tls != nil && errno == unix.EPROTO {
			w.srv.logTLSError(c, c.tls.err)
		} else {
			w.srv.logConnError(c, errno)
		}
		c.dead = true
		return false
	case n == 0:
		c.dead, c.reason = true, netproto.LogCloseNormal
		return false
	}
	w.counters.bytesRead.Add(uint64(n))
	return true
}

// serve goes through in and returns what it did not use up.
func (w *worker) serve(c *conn, in []byte) []byte {
	c.served = false
	w.fd = c.fd
	for reqs := 0; ; {
		if c.watch != nil { // the rest is dropped as all that a watcher sends
			c.served = true
			return nil
		}
		if c.get.active && !w.answerGet(c) || c.dump != nil && (c.rests() || !w.answerDump(c)) {
			return in
		}
		if c.up.kind != uploadNone {
			if in = w.upload(c, in); c.up.kind != uploadNone {
				c.served = true
				return in
			}
		}
		// A large value goes out before the session is asked for the next thing, since its bytes are ours only until then.
		if c.closing || w.o.due() && len(in) > 0 && !w.flush(c) {
			return in
		}
		if len(in) == 0 {
			c.served = true
			return in
		}
		if reqs == w.srv.o.ReqsPerEvent {
			w.counters.yields.Add(1)
			return in
		}
		if c.protocol == ProtocolAuto {
			c.detect(in[0])
		}
		if w.s.Expected() == nil {
			w.lookAhead(c, in)
		}
		if !c.auth.done {
			n := w.authenticate(c, in)
			if n == 0 {
				c.served = true
				return in
			}
			in = in[n:]
			reqs++
			continue
		}
		if c.protocol == ProtocolBinary {
			n := netproto.ParseBinary(in, &w.bin)
			if n == 0 {
				c.served = true
				return in
			}
			in = in[n:]
			reqs++
			w.executeBinary(c)
			continue
		}
		n := netproto.Parse(in, &w.req)
		if n == 0 {
			c.served = true
			return in
		}
		if w.verbose {
			w.srv.o.Logger.Debug("server: request", "fd", c.fd, "line", string(bytes.TrimRight(in[:n], "\r\n")))
		}
		in = in[n:]
		reqs++
		w.latency.seen[verbKinds[w.req.Verb]]++
		w.execute(c)
	}
}

// lookAhead tells the session which keys the requests in in are about. One alone gains nothing by it, and the keys of a get answerGet tells.
func (w *worker) lookAhead(c *conn, in []byte) {
	if in[0] != netproto.BinaryMagic && bytes.IndexByte(in, '\n') == len(in)-1 {
		return
	}
	if keys := c.appendKeys(w.keys[:0], in); len(keys) > 1 {
		w.s.Expect(keys)
	}
}

// appendKeys appends the keys of requests at the start of in to keys, up to its capacity.
func (c *conn) appendKeys(keys [][]byte, in []byte) [][]byte {
	switch {
	case c.up.kind != uploadNone || c.get.active || c.dump != nil || len(in) == 0:
		return keys // it goes on with something else
	case in[0] == netproto.BinaryMagic:
		return netproto.AheadBinary(keys, in)
	}
	return netproto.Ahead(keys, in)
}

// upload takes what in has of the data block and returns the rest. When c.up.kind is uploadNone afterwards, the block is complete and
// answered.
func (w *worker) upload(c *conn, in []byte) []byte {
	up := &c.up
	if up.kind == uploadStore {
		if remaining := up.draft.Remaining(); remaining > 0 && len(in) > 0 {
			block := in[:min(remaining, len(in))]
			if w.s.Write(&up.draft, block) {
				in = in[len(block):]
			} else {
				w.failUpload(c, remaining)
			}
		}
	}
	if up.kind == uploadStore {
		if up.draft.Remaining() > 0 {
			return in
		}
		n := copy(up.tail[up.ntail:], in)
		up.ntail += int8(n)
		if in = in[n:]; up.ntail == 2 {
			w.finishUpload(c)
		}
		return in
	}
	n := min(up.drop, int64(len(in)))
	if up.drop -= n; up.drop == 0 {
		up.kind = uploadNone
		if c.protocol == ProtocolBinary {
			w.o.small = up.bin.id.AppendError(w.o.small, up.bin.status, up.reply)
			return in[n:]
		}
		w.o.small = append(w.o.small, up.reply...)
	}
	return in[n:]
}

// failUpload turns an upload that got no memory into one that is dropped; rest are the bytes of the value that did not come yet.
func (w *worker) failUpload(c *conn, rest int) {
	w.s.Discard(&c.up.draft)
	w.dropMeta(&c.up)
	drop := int64(rest + len(c.up.tail) - int(c.up.ntail))
	if c.protocol == ProtocolBinary {
		c.up.bin.status = netproto.BinaryNoMemory
		w.dropBlock(c, drop, netproto.NoMemoryReadText)
		return
	}
	reply := netproto.NoMemoryReading
	if c.up.noreply {
		reply = ""
	}
	w.dropBlock(c, drop, reply)
}

// dropBlock makes c drop n bytes of input and answer then.
func (w *worker) dropBlock(c *conn, n int64, reply string) {
	c.up.kind, c.up.drop, c.up.reply = uploadDrop, n, reply
}

// keep stores the input that a turn left over. own: it lies in c.base, otherwise in the worker's buffer.
func (w *worker) keep(c *conn, own bool, rest []byte) {
	switch {
	case c.dead || len(rest) == 0 && !c.get.active:
		w.releaseInput(c)
	case own:
		c.in = rest
	case c.get.active || len(rest) > smallInput: // the connection takes the buffer, the worker a new one
		if c.dead = !w.mayHold(c, inputSize); c.dead {
			return
		}
		w.hold(c, w.inputs[w.buf])
		c.in = rest
		w.inputs[w.buf] = w.pool.get(inputSize)
	default:
		if c.dead = !w.mayHold(c, smallInput); c.dead {
			return
		}
		w.hold(c, w.pool.get(smallInput))
		c.in = c.base[:copy(c.base, rest)]
	}
}

// mayHold tells whether -o read_buf_mem_limit leaves room for n more bytes of buffers that connections hold. memcached closes who gets none, and so do we.
func (w *worker) mayHold(c *conn, n int) bool {
	limit := int(w.srv.o.ReadBufferLimit)
	if limit == 0 || w.held+n <= max(limit/len(w.srv.workers), inputSize) {
		return true
	}
	w.counters.readBufOOM.Add(1)
	return false
}

// hold makes a buffer c's.
func (w *worker) hold(c *conn, base []byte) {
	c.base = base
	w.held += len(base)
}

func (w *worker) releaseInput(c *conn) {
	if c.base != nil {
		w.s.Expect(nil)
		if len(c.base) > inputSize {
			w.srv.longLines.Add(-int64(len(c.base)))
		}
		w.held -= len(c.base)
		w.pool.put(c.base)
		c.base, c.in = nil, nil
	}
}

// bufPool keeps input buffers of both sizes for reuse by one worker; larger ones are left to the garbage collector.
type bufPool struct {
	small, full [][]byte
	all, free   atomic.Int64 // full buffers that exist, and those unused; for `stats`
}

// poolKeep is how many unused buffers of a size are kept.
const poolKeep = 64

func (p *bufPool) get(size int) []byte {
	list := &p.full
	if size == smallInput {
		list = &p.small
	}
	if n := len(*list); n > 0 {
		b := (*list)[n-1]
		*list = (*list)[:n-1]
		p.free.Store(int64(len(p.full)))
		return b
	}
	if size == inputSize {
		p.all.Add(1)
	}
	return make([]byte, size)
}

func (p *bufPool) put(b []byte) {
	switch {
	case len(b) == smallInput && len(p.small) < poolKeep:
		p.small = append(p.small, b)
	case len(b) == inputSize && len(p.full) < poolKeep:
		p.full = append(p.full, b)
		p.free.Store(int64(len(p.full)))
	case len(b) == inputSize:
		p.all.Add(-1)
	}
}
