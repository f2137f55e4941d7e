package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

// bench drives one worker without its loop, a turn for each part of a stream, so that every split of it happens exactly as wanted.
type bench struct {
	t     testing.TB
	s     *Server
	w     *worker
	cache *hearth.Cache
}

func newBench(t testing.TB, c hearth.Options, o Options) *bench {
	cache, err := hearth.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	o.NoTCP, o.Threads = true, 1
	s, err := New(cache, o)
	if err != nil {
		t.Fatal(err)
	}
	w := s.workers[0]
	w.s = cache.NewSession()
	w.makeBuffers()
	t.Cleanup(func() {
		w.s.Close()
		s.closePolls()
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{t, s, w, cache}
}

// play sends the parts, each when the one before has been served, and returns the replies and how the connection ended up.
func (b *bench) play(parts ...[]byte) (replies []byte, authenticated, closed bool) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fds[1])
	b.s.conns.Add(1)
	b.w.handOver(handed{fd: fds[0], protocol: b.s.o.Protocol})
	b.w.takeHanded()
	c, buf := b.w.conns[fds[0]], make([]byte, 64<<10)
	for _, part := range parts {
		for len(part) > 0 && c.fd >= 0 {
			n, err := unix.Write(fds[1], part)
			if err != nil {
				b.t.Fatal(err)
			}
			part = part[n:]
			for c.fd >= 0 {
				b.w.s.Begin()
				if c.queued {
					c.queued, b.w.ready = false, b.w.ready[:0]
					b.w.turn(c, 0)
				} else if waits, _ := unix.IoctlGetInt(c.fd, unix.TIOCINQ); waits > 0 || c.out.pending() {
					b.w.turn(c, unix.EPOLLIN)
				} else {
					b.w.s.End()
					break
				}
				b.w.s.End()
				for n := 1; n > 0; {
					n, _ = unix.Read(fds[1], buf)
					replies = append(replies, buf[:max(n, 0)]...)
				}
			}
		}
	}
	authenticated, closed = c.auth.done, c.fd < 0
	for n := 1; n > 0; { // what came with the end
		n, _ = unix.Read(fds[1], buf)
		replies = append(replies, buf[:max(n, 0)]...)
	}
	if !closed {
		b.w.s.Begin()
		b.w.close(c, netproto.LogCloseNormal)
		b.w.s.End()
	}
	return replies, authenticated, closed
}

func processorTime() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}

// benchLoads are whole requests as clients send them, over benchKeys random keys: a part is what one read brings.
const benchKeys = 200_000

func benchKey(dst []byte, n uint64) []byte { return fmt.Appendf(dst, "key-%012d", n) }

func benchGet(dst []byte, key uint64) []byte {
	return append(benchKey(append(dst, "get "...), key), "\r\n"...)
}

func benchSet(dst []byte, key uint64, size int) []byte {
	dst = fmt.Appendf(benchKey(append(dst, "set "...), key), " 0 0 %d\r\n", size)
	return append(append(dst, make([]byte, size)...), "\r\n"...)
}

// BenchmarkServe is what a worker does for requests between the read and the write: parse, look up, copy, append the reply. ns/op is of one part.
func BenchmarkServe(b *testing.B) {
	for _, load := range []struct {
		name string
		part func(dst []byte, next func() uint64) []byte
	}{
		{"Get100B", func(dst []byte, next func() uint64) []byte { return benchGet(dst, next()) }},
		{"Set100B", func(dst []byte, next func() uint64) []byte { return benchSet(dst, next(), 100) }},
		{"Mixed16x100B", func(dst []byte, next func() uint64) []byte {
			for range 16 {
				if key := next(); key%10 == 0 {
					dst = benchSet(dst, key, 100)
				} else {
					dst = benchGet(dst, key)
				}
			}
			return dst
		}},
		{"Set16x100B", func(dst []byte, next func() uint64) []byte {
			for range 16 {
				dst = benchSet(dst, next(), 100)
			}
			return dst
		}},
		{"Meta16x100B", func(dst []byte, next func() uint64) []byte {
			for range 16 {
				dst = append(benchKey(append(dst, "mg "...), next()), " k v\r\n"...)
			}
			return dst
		}},
		{"Multiget100x100B", func(dst []byte, next func() uint64) []byte {
			dst = append(dst, "get"...)
			for range 100 {
				dst = benchKey(append(dst, ' '), next())
			}
			return append(dst, "\r\n"...)
		}},
		{"BinaryGetkq100x100B", func(dst []byte, next func() uint64) []byte {
			for range 100 {
				dst = append(dst, 0x80, 0x0d, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
				dst = benchKey(dst, next())
			}
			return append(dst, 0x80, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}},
	} {
		b.Run(load.name, func(b *testing.B) {
			h := newBench(b, hearth.Options{MemoryLimit: 256 << 20}, Options{})
			c := &conn{fd: 1 << 20}
			c.auth.done = true
			serve := func(part []byte) {
				h.w.s.Begin()
				for len(part) > 0 { // -R
					part = h.w.serve(c, part)
					h.w.o = output{small: h.w.o.small[:0]}
				}
				h.w.s.End()
			}
			for key := range uint64(benchKeys) {
				serve(benchSet(nil, key, 100))
			}
			c.protocol = ProtocolAuto
			random := rand.New(rand.NewPCG(1, 2))
			parts := make([][]byte, 1024)
			for i := range parts {
				parts[i] = load.part(nil, func() uint64 { return random.Uint64N(benchKeys) })
			}
			b.ReportAllocs()
			began := processorTime()
			for i := 0; b.Loop(); i++ {
				serve(parts[i%len(parts)])
			}
			b.ReportMetric(float64(processorTime()-began)/float64(b.N), "cpu-ns/op") // unlike ns/op without the time of others on a shared machine
		})
	}
}

// TestServesManyConnectionsReadBeforeTheFirstIsServed has more of them than are read ahead, each in the middle of a request, so that buffers change hands.
func TestServesManyConnectionsReadBeforeTheFirstIsServed(t *testing.T) {
	h := newBench(t, hearth.Options{}, Options{})
	const clients = 2*turnsAhead + 3
	var ours, theirs [clients]int
	for i := range clients {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours[i], theirs[i] = fds[0], fds[1]
		h.s.conns.Add(1)
		h.w.handOver(handed{fd: fds[0]})
	}
	h.w.takeHanded()
	// Each client's last line ends with the next part. Every third leaves more than a small buffer takes, every fifth hangs up.
	long := strings.Repeat("x", 2*smallInput)
	parts := func(i int) []string {
		key := fmt.Sprintf("key%d", i)
		set := fmt.Sprintf("set %s 0 0 %d\r\n%s\r\n", key, len(key), key)
		switch {
		case i%3 == 0:
			return []string{set + "get " + key + "\r\nget " + long, " " + key + "\r\nget " + key + " none\r\n"}
		case i%5 == 0:
			return []string{set + "get " + key + "\r\nquit\r\n"}
		}
		return []string{set[:len(set)-3], set[len(set)-3:] + "get " + key + " none " + key + "\r\nget", " " + key + "\r\n"}
	}
	for round := range 3 {
		h.w.s.Begin()
		for i := range clients {
			if p := parts(i); round < len(p) {
				if _, err := unix.Write(theirs[i], []byte(p[round])); err != nil {
					t.Fatal(err)
				}
				h.w.take(h.w.conns[ours[i]], unix.EPOLLIN)
			}
		}
		h.w.serveOpened()
		h.w.s.End()
	}
	buf := make([]byte, 64<<10)
	for i := range clients {
		n, _ := unix.Read(theirs[i], buf)
		key := fmt.Sprintf("key%d", i)
		value := fmt.Sprintf("VALUE %s 0 %d\r\n%s\r\n", key, len(key), key)
		want := "STORED\r\n" + value + value + "END\r\n" + value + "END\r\n"
		switch {
		case i%3 == 0: // the long key is too long for a key
			want = "STORED\r\n" + value + "END\r\n" + netproto.BadFormat + value + "END\r\n"
		case i%5 == 0:
			want = "STORED\r\n" + value + "END\r\n"
		}
		if got := string(buf[:max(n, 0)]); got != want {
			t.Errorf("client %d: %q, want %q", i, got, want)
		}
		if gone := h.w.conns[ours[i]] == nil; gone != (i%3 != 0 && i%5 == 0) {
			t.Errorf("client %d: closed %t", i, gone)
		}
		h.w.s.Begin()
		if c := h.w.conns[ours[i]]; c != nil {
			h.w.close(c, netproto.LogCloseNormal)
		}
		h.w.s.End()
		unix.Close(theirs[i])
	}
}
