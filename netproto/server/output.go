package server

import (
	"golang.org/x/sys/unix"

	"hearth"
)

// output is bytes on their way to a client: small[:split], then the value of a large item, then small[split:]. The worker's output is one, and
// so is what a connection still has to send from an earlier turn.
type output struct {
	small []byte
	split int
	large bool
	item  hearth.Item
	sent  int  // bytes of the whole that are out
	now   bool // an mn or a binary noop wants it out before anything else is served

	pinned bool // item is held by pin, for it outlives its turn
	pin    hearth.Pin
	since  int64 // Server.clock when it was pinned
	before int   // what sent was then
}

// pending tells whether there is anything to send.
func (o *output) pending() bool { return len(o.small) > 0 || o.large }

// due tells that it has to go out before the next request is served.
func (o *output) due() bool { return o.large || o.now || len(o.small) >= flushAt }

// value puts a value behind what is there: a small one is copied, a large one goes out from where it lies.
func (o *output) value(it *hearth.Item) {
	if it.Len() <= copyMax {
		o.small = it.AppendValue(o.small)
	} else {
		o.large, o.item, o.split = true, *it, len(o.small)
	}
}

// flush sends w.o to c. False: not all of it went out, and the rest is in c.out, or c is dead. Then c must not be served on.
func (w *worker) flush(c *conn) bool {
	if c.out.pending() || c.dead {
		return false
	}
	if !w.o.pending() && !c.tls.pending() {
		return true
	}
	w.s.Publish() // before anybody can know that it was done
	var done bool
	if c.udp != nil {
		done = w.collect(c)
	} else if done = w.send(c, &w.o); !done && !c.dead {
		w.park(c)
	}
	if cap(w.o.small) > 8*flushAt { // a long stats reply
		w.o.small = nil
	}
	w.o = output{small: w.o.small[:0]}
	return done
}

// total is the length of what there is to send, or was.
func (o *output) total() int {
	if o.large {
		return len(o.small) + o.item.Len()
	}
	return len(o.small)
}

// park moves what is left of w.o to c.out: small bytes are copied, a large value is pinned.
func (w *worker) park(c *conn) {
	from, to := &w.o, &c.out
	*to = output{split: from.split, large: from.large, sent: from.sent}
	skip := from.sent
	if from.large && from.sent >= from.split { // the small bytes in front of the value are out, or the value too
		if skip = from.split; from.sent >= from.split+from.item.Len() {
			skip, to.large = from.sent-from.item.Len(), false
		}
	}
	to.small = append([]byte(nil), from.small[skip:]...)
	to.sent -= skip
	if !to.large {
		to.split, to.sent = 0, 0
		return
	}
	to.split -= skip
	to.item = from.item
	to.pin, to.pinned = w.s.Pin(&to.item), true
	to.since, to.before = w.srv.clock.Load(), to.sent
}

// drain sends pending output; true when all of it is out.
func (w *worker) drain(c *conn) bool {
	if !w.send(c, &c.out) {
		return false
	}
	w.dropPending(c)
	return true
}

func (w *worker) dropPending(c *conn) {
	if c.out.pinned {
		w.s.Unpin(c.out.pin)
	}
	c.out = output{}
}

// send writes once, or as often as the limit of pieces demands, and moves o.sent on; true when all of it is out.
func (w *worker) send(c *conn, o *output) bool {
	if c.tls != nil {
		return w.sendTLS(c, o)
	}
	total := o.total()
	for o.sent < total {
		var n int
		var errno unix.Errno
		offered := total - o.sent
		if !o.large {
			n, errno = sysWrite(c.fd, o.small[o.sent:])
		} else {
			offered = w.gather(o)
			n, errno = sysWritev(c.fd, w.iov)
		}
		o.sent += n
		w.counters.bytesWritten.Add(uint64(n))
		switch errno {
		case 0:
		case unix.EAGAIN, unix.EINTR:
			return false
		case unix.EFAULT:
			panic(fault{"write: " + errno.Error()})
		default:
			w.srv.logConnError(c, errno)
			c.dead = true
			return false
		}
		if n < offered {
			return false
		}
	}
	return true
}

// gather lists the unsent pieces of o in w.iov, as many as one call takes, and returns their length.
func (w *worker) gather(o *output) (size int) {
	w.iov = w.iov[:0]
	skip := o.sent
	add := func(p []byte) {
		if skip >= len(p) {
			skip -= len(p)
			return
		}
		if len(w.iov) < maxIov {
			w.iov = append(w.iov, iovec(p[skip:]))
			size += len(p) - skip
		}
		skip = 0
	}
	add(o.small[:o.split])
	w.pieces = o.item.Pieces(w.pieces[:0])
	for _, p := range w.pieces {
		add(p)
	}
	add(o.small[o.split:])
	return size
}
