package server

import (
	"golang.org/x/sys/unix"

	"hearth/netproto"
)

// UDP: a datagram is a request of its own, in either protocol, and its reply goes back to where it came from. Each worker has a descriptor of
// the one socket in its epoll instance and takes what it finds there, so a datagram costs no handing over. A conn stands for the socket: it
// runs the same code as any other, begins anew with each datagram, and its output is collected instead of written.
//
// The replies to all requests of a datagram are one reply. doc/protocol.txt numbers its datagrams 0 to n-1 and so do we; memcached begins anew
// for each value of a get and for each request, under the same request id, so that its clients cannot put a longer reply together.

const (
	// maxUDPRequest is the most that a datagram can hold.
	maxUDPRequest = 64 << 10
	// maxUDPReply bounds a reply, which is kept until its end is known since every datagram says how many there are. It leaves room for one
	// value of the default -I.
	maxUDPReply = 2 << 20
	// udpSendBuffer is what is asked of the kernel, which may give less. What does not fit is lost, as datagrams may be.
	udpSendBuffer = 8 << 20
)

// udpSocket is what a conn of UDP has besides.
type udpSocket struct {
	protocol Protocol // of its listener
	peer     udpPeer  // who sent the datagram that is being served
	in       [maxUDPRequest]byte
	reply    []byte
	packet   [netproto.UDPDatagram]byte
}

// startUDP takes up the worker's descriptors. They become level-triggered and exclusive: one datagram wakes one worker.
func (w *worker) startUDP() {
	for _, h := range w.udp {
		c := &conn{fd: h.fd, udp: &udpSocket{protocol: h.protocol}}
		c.auth.done = true
		w.adopt(c)
		if err := w.ep.add(c.fd, pollIn|pollExclusive); err != nil {
			w.srv.o.Logger.Warn("server: "+pollName, "fd", c.fd, "err", err)
			w.close(c, netproto.LogCloseError)
		}
	}
	w.udp = nil
}

// turnUDP serves what waits at the socket, up to -R datagrams.
func (w *worker) turnUDP(c *conn) {
	u := c.udp
	for range w.srv.o.ReqsPerEvent {
		n, errno := sysRecvfrom(c.fd, u.in[:], &u.peer)
		if errno != 0 {
			return
		}
		w.counters.bytesRead.Add(uint64(n))
		if id, request, ok := netproto.ParseUDP(u.in[:n]); ok {
			w.serveDatagram(c, request)
			w.sendReply(c, id)
		}
	}
}

// serveDatagram collects the reply to a datagram in c.udp.reply. Nothing comes after it, so what it leaves unfinished never happened.
func (w *worker) serveDatagram(c *conn, in []byte) {
	// state and lastCmd belong to `stats conns` too and stay.
	c.protocol, c.served, c.closing, c.dead = c.udp.protocol, false, false, false
	c.get.active, c.up.kind = false, uploadNone
	c.udp.reply = c.udp.reply[:0]
	for {
		if in = w.serve(c, in); c.served || c.closing || c.dead {
			break
		}
	}
	w.flush(c)
	if c.up.kind == uploadStore {
		w.s.Discard(&c.up.draft)
		w.dropMeta(&c.up)
	}
	c.up.kind = uploadNone
}

// collect is flush for UDP. A reply that gets too long becomes an error, which ends the datagram.
func (w *worker) collect(c *conn) bool {
	o, u := &w.o, c.udp
	size := len(o.small)
	if o.large {
		size += o.item.Len()
	}
	if len(u.reply)+size > maxUDPReply {
		if u.reply = u.reply[:0]; c.protocol == ProtocolASCII { // the binary protocol has no word for it
			u.reply = append(u.reply, netproto.NoMemoryWriting...)
		}
		c.dead = true
		return false
	}
	if !o.large {
		u.reply = append(u.reply, o.small...)
		return true
	}
	u.reply = append(u.reply, o.small[:o.split]...)
	u.reply = o.item.AppendValue(u.reply)
	u.reply = append(u.reply, o.small[o.split:]...)
	return true
}

// sendReply sends c.udp.reply in as many datagrams as it takes, none if it is empty.
func (w *worker) sendReply(c *conn, id uint16) {
	u := c.udp
	rest, total := u.reply, netproto.UDPDatagrams(len(u.reply))
	for seq := 0; len(rest) > 0; seq++ {
		packet := netproto.AppendUDPHeader(u.packet[:0], id, uint16(seq), uint16(total))
		part := rest[:min(len(rest), cap(packet)-len(packet))]
		packet, rest = append(packet, part...), rest[len(part):]
		n, errno := sysSendto(c.fd, packet, &u.peer)
		w.counters.bytesWritten.Add(uint64(n))
		if errno != 0 && errno != unix.EINTR {
			break // no room, or nobody to send it to
		}
	}
	if cap(u.reply) > 8*flushAt {
		u.reply = nil
	}
}
