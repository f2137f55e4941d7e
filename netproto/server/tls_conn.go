package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tlsTurn bounds what a turn takes from the socket of a TLS connection, and what is encrypted ahead of the socket.
	tlsTurn = 64 << 10
	// tlsSend bounds what a turn encrypts for a client that takes it as fast as it comes.
	tlsSend = 1 << 20
)

// tlsConn is the TLS of a connection, and the net.Conn below its tls.Conn. It has two lives: during the handshake Go's poller waits for the
// socket, afterwards it belongs to a worker and nothing waits.
//
// A Read that finds nothing returns errAgain. crypto/tls makes errors stay, but for temporary net.Errors in a read of a record: it keeps the part that
// is there and goes on with the next Read (readRecordOrCCS and readFromUntil; TestTakesRecordsByteByByte holds it to that). Errors of Write do always
// stay, so Write never says that the socket is full: ciphertext waits in sealed. A Read may write too, alerts and the answer to a KeyUpdate.
type tlsConn struct {
	conn  *tls.Conn
	file  *os.File      // the socket during the handshake, nil afterwards
	slots chan struct{} // see handshakes

	fd      int
	w       *worker
	drained bool  // the last read was short: there was no more in the socket, and epoll tells when there is
	budget  int   // what this turn may still take from the socket
	more    bool  // crypto/tls may hold decrypted bytes or whole records, which epoll knows nothing of
	err     error // what ended the input, when bytes before it were delivered first

	sealed []byte // ciphertext for the socket
	sent   int    // how much of it is out
}

// again is the error of a read from a socket that has nothing now.
type again struct{}

func (again) Error() string   { return "server: nothing to read now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAgain net.Error = again{}

// aside does what may wait for the client, without a slot.
func (t *tlsConn) aside(f func([]byte) (int, error), p []byte) (int, error) {
	<-t.slots
	n, err := f(p)
	t.slots <- struct{}{}
	return n, err
}

// Read is for crypto/tls.
func (t *tlsConn) Read(p []byte) (int, error) {
	if t.file != nil {
		return t.aside(t.file.Read, p)
	}
	if t.drained || t.budget <= 0 {
		return 0, errAgain
	}
	n, errno := sysRead(t.fd, p)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		t.drained = true
		return 0, errAgain
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	t.budget -= n
	t.drained = n < len(p)
	return n, nil
}

// Write is for crypto/tls.
func (t *tlsConn) Write(p []byte) (int, error) {
	if t.file != nil {
		return t.aside(t.file.Write, p)
	}
	if t.sealed == nil {
		t.sealed, t.w.sealed = t.w.sealed, nil
	}
	t.sealed = append(t.sealed, p...)
	return len(p), nil
}

// Close is called by crypto/tls when the handshake is to end early. A worker closes the descriptor itself.
func (t *tlsConn) Close() error {
	if t.file != nil {
		return t.file.Close()
	}
	return nil
}

// The rest of net.Conn. crypto/tls sets a deadline for its farewell, which does not wait here.
func (t *tlsConn) LocalAddr() net.Addr              { return nil }
func (t *tlsConn) RemoteAddr() net.Addr             { return nil }
func (t *tlsConn) SetDeadline(time.Time) error      { return nil }
func (t *tlsConn) SetReadDeadline(time.Time) error  { return nil }
func (t *tlsConn) SetWriteDeadline(time.Time) error { return nil }

// read fills bufs with what there is, one after the other. Its result is that of a system call.
func (t *tlsConn) read(bufs ...[]byte) (total int, errno unix.Errno) {
	t.drained, t.budget, t.more = false, tlsTurn, true
	for _, p := range bufs {
		for len(p) > 0 && t.err == nil {
			n, err := t.conn.Read(p)
			total, p = total+n, p[n:]
			if err == errAgain {
				t.more = false
				if total == 0 {
					return 0, unix.EAGAIN
				}
				return total, 0
			}
			t.err = err
		}
	}
	switch {
	case total > 0 || errors.Is(t.err, io.EOF):
		return total, 0
	case errors.As(t.err, &errno):
		return 0, errno
	}
	t.w.counters.tlsErrors.Add(1)
	return 0, unix.EPROTO
}

// pending tells that ciphertext waits for the socket.
func (t *tlsConn) pending() bool { return t != nil && t.sent < len(t.sealed) }

// flush writes ciphertext to the socket; EAGAIN: not all of it went out.
func (t *tlsConn) flush() unix.Errno {
	if !t.pending() {
		return 0
	}
	n, errno := sysWrite(t.fd, t.sealed[t.sent:])
	t.sent += n
	if errno == 0 && t.pending() {
		errno = unix.EAGAIN
	}
	if errno == 0 {
		t.w.sealed, t.sealed, t.sent = t.sealed[:0], nil, 0
	}
	return errno
}

// farewell tells the client that nothing follows, if the socket takes it at once.
func (t *tlsConn) farewell() {
	t.conn.CloseWrite()
	t.flush()
}

// sendTLS is send for a TLS connection. When false is returned, ciphertext is pending or some of o is left.
func (w *worker) sendTLS(c *conn, o *output) bool {
	t, total := c.tls, o.total()
	for most := o.sent + tlsSend; o.sent < most; {
		for o.sent < total {
			p := w.unsent(o)
			if p = p[:min(len(p), max(tlsTurn-len(t.sealed)+t.sent, 0))]; len(p) == 0 {
				break
			}
			if _, err := t.conn.Write(p); err != nil {
				c.dead = true
				return false
			}
			o.sent += len(p)
			w.counters.bytesWritten.Add(uint64(len(p)))
		}
		switch t.flush() {
		case 0:
		case unix.EAGAIN, unix.EINTR:
			return false
		default:
			c.dead = true
			return false
		}
		if o.sent == total {
			return true
		}
	}
	return false
}

// unsent returns the next piece of o that is to go out.
func (w *worker) unsent(o *output) []byte {
	if !o.large {
		return o.small[o.sent:]
	}
	skip := o.sent
	if skip < o.split {
		return o.small[skip:o.split]
	}
	skip -= o.split
	w.pieces = o.item.Pieces(w.pieces[:0])
	for _, p := range w.pieces {
		if skip < len(p) {
			return p[skip:]
		}
		skip -= len(p)
	}
	return o.small[o.split+skip:]
}
