package server

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reads and writes of non-blocking sockets never wait, so they need not tell the Go scheduler that they might: unix.Read would give the
// worker's P up and take it back each time. RawSyscall takes addresses as numbers; that, and nothing about the cache's memory, is what this
// file needs unsafe for. Each address is that of a live slice's first byte, converted in the call itself, which keeps it alive until the
// call returns. Only the wait for events goes through unix.EpollWait, unless it is known not to wait.

// maxIov is the most pieces one writev takes (UIO_MAXIOV).
const maxIov = 1024

func sysRead(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return result(n, errno), errno
}

func sysWrite(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
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

// sysRecvfrom and sysSendto leave the peer's address as the kernel wrote it.
func sysRecvfrom(fd int, p []byte, peer *unix.RawSockaddrAny, peerLen *uint32) (int, unix.Errno) {
	*peerLen = unix.SizeofSockaddrAny
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0,
		uintptr(unsafe.Pointer(peer)), uintptr(unsafe.Pointer(peerLen)))
	return result(n, errno), errno
}

func sysSendto(fd int, p []byte, peer *unix.RawSockaddrAny, peerLen uint32) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(peer)), uintptr(peerLen))
	return result(n, errno), errno
}

// sysPoll is epoll_wait with timeout 0.
func sysPoll(ep int, events []unix.EpollEvent) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return result(n, errno), errno
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
