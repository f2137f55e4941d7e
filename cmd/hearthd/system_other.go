//go:build !linux || portable

package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// What Linux has of its own, for systems that lack it. On Linux this is built with -tags portable, to be tested.

const portable = true

func lockMemory() error { return unix.ENOSYS }

func duplicate(from, to int) error { return syscall.Dup2(from, to) }

// packetPair would be of packets that are kept apart, and whose reader learns that the other end is gone.
func packetPair() ([2]int, error) {
	return [2]int{}, errors.New("this system has no SOCK_SEQPACKET on unix sockets")
}
