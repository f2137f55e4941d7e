//go:build !portable

package main

import "golang.org/x/sys/unix"

const portable = false // for tests

// lockMemory locks what is touched: the index region is address space to grow into, most of it never used.
func lockMemory() error { return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT) }

func duplicate(from, to int) error { return unix.Dup3(from, to, 0) }

// packetPair is a connection to a process that is going to be started.
func packetPair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}
