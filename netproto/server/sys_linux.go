//go:build !portable

package server

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reads and writes of non-blocking sockets never wait, so they need not tell the Go scheduler that they might: unix.Read would give the
// worker's P up and take it back each time. RawSyscall takes addresses as numbers; that, and nothing about the cache's memory, is what this
// file needs unsafe for. Each address is that of a live slice's first byte, converted in the call itself, which keeps it alive until the
// call returns. The wait for events goes through unix.EpollWait, unless it is short. recvfrom and sendto do for a socket what read and write do, without
// what those do for files. sys_other.go has the same for systems without epoll.

// maxIov is the most pieces one writev takes (UIO_MAXIOV).
const maxIov = 1024

func sysRead(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return result(n, errno), errno
}

func sysWrite(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return result(n, errno), errno
}

func sysReadv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return result(n, errno), errno
}

func sysWritev(fd int, iov []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return result(n, errno), errno
}

// udpPeer is where a datagram came from, as the kernel wrote it.
type udpPeer struct {
	addr unix.RawSockaddrAny
	len  uint32
}

func sysRecvfrom(fd int, p []byte, peer *udpPeer) (int, unix.Errno) {
	peer.len = unix.SizeofSockaddrAny
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0,
		uintptr(unsafe.Pointer(&peer.addr)), uintptr(unsafe.Pointer(&peer.len)))
	return result(n, errno), errno
}

func sysSendto(fd int, p []byte, peer *udpPeer) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(&peer.addr)), uintptr(peer.len))
	return result(n, errno), errno
}

// poller is an epoll instance.
type poller int

const noPoller = poller(-1)

type pollEvent = unix.EpollEvent

// What is waited for. With pollExclusive one of several pollers that have the same socket is woken. With pollOnce one wait tells of what has come, not
// each until it is read; pollEnd has it tell of the end of input, by one of pollEnded.
const (
	pollIn        = unix.EPOLLIN
	pollOut       = unix.EPOLLOUT
	pollExclusive = unix.EPOLLEXCLUSIVE
	pollOnce      = unix.EPOLLET
	pollEnd       = unix.EPOLLRDHUP
	pollEnded     = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

	pollName   = "epoll" // in errors
	pollKeepsP = true
)

func newPoller() (poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return poller(ep), err
}

func (p poller) ctl(op, fd int, events uint32) error {
	return unix.EpollCtl(int(p), op, fd, &pollEvent{Events: events, Fd: int32(fd)})
}

func (p poller) add(fd int, events uint32) error { return p.ctl(unix.EPOLL_CTL_ADD, fd, events) }
func (p poller) change(fd int, events uint32)    { p.ctl(unix.EPOLL_CTL_MOD, fd, events) }
func (p poller) remove(fd int)                   { p.ctl(unix.EPOLL_CTL_DEL, fd, 0) }
func (p poller) closing(fd int)                  {} // the kernel sees to that
func (p poller) close()                          { unix.Close(int(p)) }

// wait returns the number of events, after timeout milliseconds at most if that is not negative.
func (p poller) wait(events []pollEvent, timeout int) (int, error) {
	return unix.EpollWait(int(p), events, timeout)
}

// poll is wait without telling the scheduler: for short timeouts.
func (p poller) poll(events []pollEvent, timeout int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(timeout), 0, 0)
	return result(n, errno), errno
}

func newWaker() (waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	return waker{fd, fd}, err
}

func result(n uintptr, errno unix.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n)
}

// iovec describes p, which must not be empty. An Iovec keeps its memory alive.
func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	return v
}

// threadTime is the processor time that a thread of this process has used, 0 when it is not there. The clock's number is made as the C library's
// pthread_getcpuclockid makes it.
func threadTime(tid int) time.Duration {
	const perThread, scheduled = 4, 2
	var t unix.Timespec
	if tid == 0 || unix.ClockGettime(int32(^tid<<3|perThread|scheduled), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func threadID() int { return unix.Gettid() }

func newSocket(family, kind int) (int, error) {
	return unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

func acceptSocket(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}

func socketFamily(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
}

func markSocket(fd int, mark uint32) error {
	if had, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err == nil && uint32(had) == mark {
		return nil // by whom we have it from, who may have had a privilege that we do not
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark))
}

// incomingNAPIID asks the kernel for a connection's NAPI id; 0: there is none. Tests have ids of their own.
var incomingNAPIID = func(fd int) int {
	id, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
	if err != nil {
		return 0
	}
	return id
}
