package server

import (
	"runtime"
	"slices"
	"time"

	"hearth"
)

// Portable tells that the server has no more of the system than all Unixes offer.
const Portable = pollName != "epoll"

// Second lets a second pass, for idle timeouts and what is counted in seconds, and returns when the workers have begun to look for idle and slow
// connections: what is sent afterwards comes too late to save one.
func (s *Server) Second() {
	s.second()
	for _, w := range s.workers {
		for w.scanIdle.Load() || w.scanSlow.Load() {
			runtime.Gosched()
		}
	}
}

// SetHandshakeTimeout is for the servers to come, until the returned function is called.
func SetHandshakeTimeout(d time.Duration) (restore func()) {
	old := handshakeTimeout
	handshakeTimeout = d
	return func() { handshakeTimeout = old }
}

// SetHandOverTimeout is for the hand-overs to come, until the returned function is called.
func SetHandOverTimeout(d time.Duration) (restore func()) {
	old := handOverTimeout
	handOverTimeout = d
	return func() { handOverTimeout = old }
}

// ParseCiphers returns the names of the ciphers in a list.
func ParseCiphers(list string) (names []string, err error) {
	ids, err := parseCiphers(list)
	for _, c := range ciphers {
		if slices.Contains(ids, c.id) {
			names = append(names, c.name)
		}
	}
	return names, err
}

// KnownCiphers are the names that a list may hold.
func KnownCiphers() (names []string) {
	for _, c := range ciphers {
		names = append(names, c.name)
	}
	return names
}

// Check tells whether f lets this user in.
func (f *AuthFile) Check(user, password string) bool { return f.check([]byte(user), []byte(password)) }

// Conns returns how many connections there are.
func (s *Server) Conns() int { return int(s.conns.Load()) }

// Observe logs an event as if the cache had told of it.
func (s *Server) Observe(ev *hearth.Event) { s.observe(ev) }

// SetNAPIID has f tell NAPI ids in the kernel's place until restore is called.
func SetNAPIID(f func(fd int) int) (restore func()) {
	was := incomingNAPIID
	incomingNAPIID = f
	return func() { incomingNAPIID = was }
}

// BytesRead is what each worker has read from its connections.
func (s *Server) BytesRead() (n []uint64) {
	for _, w := range s.workers {
		n = append(n, w.counters.bytesRead.Load())
	}
	return n
}
