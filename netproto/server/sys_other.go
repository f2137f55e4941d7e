//go:build !linux || portable

package server

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The same as sys_linux.go with what all Unixes have: poll, pipes, and the ordinary system calls. On Linux it is built with -tags portable, to be tested.

const maxIov = 1024

func sysRead(fd int, p []byte) (int, unix.Errno)  { return outcome(unix.Read(fd, p)) }
func sysWrite(fd int, p []byte) (int, unix.Errno) { return outcome(unix.Write(fd, p)) }

func sysReadv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	return outcome(unix.Readv(fd, pieces(iov)))
}

func sysWritev(fd int, iov []unix.Iovec) (int, unix.Errno) {
	return outcome(unix.Writev(fd, pieces(iov)))
}

func outcome(n int, err error) (int, unix.Errno) {
	errno, _ := err.(unix.Errno)
	return max(n, 0), errno
}

// iovec describes p, which must not be empty. An Iovec keeps its memory alive.
func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	return v
}

func pieces(iov []unix.Iovec) [][]byte {
	all := make([][]byte, len(iov))
	for i, v := range iov {
		all[i] = unsafe.Slice(v.Base, v.Len)
	}
	return all
}

// udpPeer is where a datagram came from.
type udpPeer struct{ addr unix.Sockaddr }

func sysRecvfrom(fd int, p []byte, peer *udpPeer) (n int, errno unix.Errno) {
	n, addr, err := unix.Recvfrom(fd, p, 0)
	peer.addr = addr
	return outcome(n, err)
}

func sysSendto(fd int, p []byte, peer *udpPeer) (int, unix.Errno) {
	return outcome(len(p), unix.Sendto(fd, p, 0, peer.addr))
}

// poller is a set of descriptors for poll. It is used by one goroutine at a time.
type poller struct {
	fds  []unix.PollFd
	next int // where to look first at what poll found, so that nobody waits for ever behind others
}

var noPoller poller

type pollEvent struct {
	Fd     int32
	Events uint32
}

// What is waited for. Of several pollers that have the same socket all are woken, and each wait tells of all that has not been read.
const (
	pollIn        = unix.POLLIN
	pollOut       = unix.POLLOUT
	pollExclusive = 0
	pollOnce      = 0
	pollEnd       = 0
	pollEnded     = 0

	pollName   = "poll" // in errors
	pollKeepsP = false
)

func newPoller() (poller, error) { return poller{}, nil }

func (p *poller) add(fd int, events uint32) error {
	p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: int16(events)})
	return nil
}

func (p *poller) change(fd int, events uint32) {
	for i := range p.fds {
		if p.fds[i].Fd == int32(fd) {
			p.fds[i].Events = int16(events)
		}
	}
}

func (p *poller) remove(fd int) {
	for i := range p.fds {
		if p.fds[i].Fd == int32(fd) {
			last := len(p.fds) - 1
			p.fds[i] = p.fds[last]
			p.fds = p.fds[:last]
			return
		}
	}
}

func (p *poller) closing(fd int) { p.remove(fd) }
func (p *poller) close()         {}

func (p *poller) wait(events []pollEvent, timeout int) (n int, err error) {
	found, err := unix.Poll(p.fds, timeout)
	for i := 0; i < len(p.fds) && n < min(found, len(events)); i++ {
		p.next = (p.next + 1) % len(p.fds)
		if f := p.fds[p.next]; f.Revents != 0 {
			events[n] = pollEvent{f.Fd, uint32(uint16(f.Revents))}
			n++
		}
	}
	return n, err
}

func (p *poller) poll(events []pollEvent, timeout int) (int, unix.Errno) {
	return outcome(p.wait(events, timeout))
}

func newWaker() (waker, error) {
	var p [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return waker{}, err
	}
	for _, fd := range p {
		ours(fd)
	}
	return waker{r: p[0], w: p[1]}, nil
}

// ours makes a new descriptor non-blocking, and one that programs which are started do not get; the caller holds syscall.ForkLock.
func ours(fd int) error {
	unix.CloseOnExec(fd)
	return unix.SetNonblock(fd, true)
}

func newSocket(family, kind int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, kind, 0)
	if err == nil {
		err = ours(fd)
	}
	return fd, err
}

func acceptSocket(fd int) (int, unix.Sockaddr, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, sa, err := unix.Accept(fd)
	if err == nil {
		err = ours(fd)
	}
	return fd, sa, err
}

func socketFamily(fd int) (int, error) {
	sa, err := unix.Getsockname(fd)
	switch sa.(type) {
	case *unix.SockaddrInet4:
		return unix.AF_INET, err
	case *unix.SockaddrInet6:
		return unix.AF_INET6, err
	case *unix.SockaddrUnix:
		return unix.AF_UNIX, err
	}
	return unix.AF_UNSPEC, err
}

func markSocket(int, uint32) error { return unix.ENOTSUP }

var incomingNAPIID = func(int) int { return 0 }

func threadID() int { return 0 }

func threadTime(int) time.Duration { return 0 }
