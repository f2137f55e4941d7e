package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hearth"
	"hearth/netproto/server"
)

// maxWait bounds every wait for something that should happen at once.
const maxWait = 20 * time.Second

// setup is what a test may change before the server starts.
type setup struct {
	cache  hearth.Options
	server server.Options
}

// running is a server under test.
type running struct {
	t      testing.TB
	addr   string // of the first listener
	cache  *hearth.Cache
	srv    *server.Server
	cancel context.CancelFunc
	leave  context.CancelCauseFunc
	ended  chan error // what Serve returned

	options server.Options
}

// startServer starts a server over anonymous memory and returns its address.
func startServer(t testing.TB, opts ...func(*setup)) string { return start(t, opts...).addr }

// overTLS makes start serve TLS to tests that know nothing of it.
var overTLS bool

// start starts a server on a free loopback port, if the options do not say otherwise. At cleanup it stops, and must have left no goroutine, no
// descriptor, and no memory that neither an item nor the free list has.
func start(t testing.TB, opts ...func(*setup)) *running {
	t.Helper()
	leaks, fds := goleak.IgnoreCurrent(), openFiles(t)
	o := setup{
		cache:  hearth.Options{HeapArena: raceEnabled},
		server: server.Options{Listen: []string{"127.0.0.1"}, Port: -1, Threads: 2},
	}
	for _, f := range opts {
		f(&o)
	}
	if overTLS && o.server.UnixSocket == "" && o.server.TLS == nil {
		o.server.TLS = loadedTLS(t, server.TLSOptions{})
	}
	cache, err := hearth.Open(o.cache)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(cache, o.server)
	if err != nil {
		cache.Close()
		t.Fatal(err)
	}
	ctx, leave := context.WithCancelCause(context.Background())
	r := &running{t: t, addr: srv.Addrs()[0].String(), cache: cache, srv: srv, cancel: func() { leave(nil) }, leave: leave, ended: make(chan error, 1), options: o.server}
	if o.server.TLS != nil && o.server.UnixSocket == "" && strings.HasPrefix(o.server.Listen[0], "127") {
		r.addr = "tls:" + r.addr
	}
	go func() { r.ended <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		r.stop()
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, leaks)
		if now := openFiles(t); now > fds {
			t.Errorf("%d descriptors are open, %d were before", now, fds)
		}
	})
	return r
}

// stop ends Serve and returns what it returned.
func (r *running) stop() error {
	r.cancel()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(maxWait):
		r.t.Fatal("Serve does not end")
		return nil
	}
}

func openFiles(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// until polls for something that another thread is about to do and that no event announces.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(maxWait); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", maxWait, what)
		}
	}
}

// client is a connection with a deadline on everything.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// connect dials a host:port, the path of a unix socket, or by TLS a host:port behind "tls:".
func connect(addr string) (net.Conn, error) {
	if host, ok := strings.CutPrefix(addr, "tls:"); ok {
		return tls.DialWithDialer(&net.Dialer{Timeout: maxWait}, "tcp", host, &tls.Config{InsecureSkipVerify: true})
	}
	if strings.HasPrefix(addr, "/") {
		return net.Dial("unix", addr)
	}
	return net.DialTimeout("tcp", addr, maxWait)
}

// socket is the client's own end.
func (c *client) socket() *net.TCPConn {
	if conn, ok := c.Conn.(*tls.Conn); ok {
		return conn.NetConn().(*net.TCPConn)
	}
	return c.Conn.(*net.TCPConn)
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(maxWait))
	c := &client{t, conn, bufio.NewReaderSize(conn, 1<<16)}
	t.Cleanup(func() { conn.Close() })
	return c
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// line reads a line and returns it without CRLF.
func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read after %q: %v", s, err)
	}
	return strings.TrimSuffix(s, "\r\n")
}

// want reads the text, byte by byte what is wanted.
func (c *client) want(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(c.r, got); err != nil {
		c.t.Fatalf("got %q and then %v, want %q", clip(string(got[:n])), err, clip(text))
	}
	if string(got) != text {
		c.t.Fatalf("got %q, want %q", clip(string(got)), clip(text))
	}
}

// ask sends and wants.
func (c *client) ask(text, reply string) {
	c.t.Helper()
	c.send("%s", text)
	c.want(reply)
}

// wantEOF reads the end of the connection, clean or by reset, and nothing before it.
func (c *client) wantEOF() {
	c.t.Helper()
	b, err := c.r.ReadByte()
	if err == nil {
		rest, _ := c.r.Peek(c.r.Buffered())
		c.t.Fatalf("got %q, want the end of the connection", string(b)+string(rest))
	}
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		c.t.Fatal("the connection is still open")
	}
}

// stats asks for stats.
func (c *client) stats(sub string) map[string]string {
	c.t.Helper()
	c.send("stats%s\r\n", sub)
	m := map[string]string{}
	for {
		l := c.line()
		if l == "END" {
			return m
		}
		f := strings.SplitN(l, " ", 3)
		if len(f) != 3 || f[0] != "STAT" {
			c.t.Fatalf("stats%s: %q", sub, l)
		}
		m[f[1]] = f[2]
	}
}

func (c *client) stat(name string) int {
	c.t.Helper()
	n, err := strconv.Atoi(c.stats("")[name])
	if err != nil {
		c.t.Fatalf("stat %s: %v", name, err)
	}
	return n
}

// usedChunks counts the chunks that are not free.
func (r *running) usedChunks() (n uint64) {
	for _, c := range r.cache.ClassStats() {
		n += c.UsedChunks
	}
	return n
}

func clip(s string) string {
	if len(s) > 300 {
		return fmt.Sprintf("%s...%s (%d bytes)", s[:150], s[len(s)-150:], len(s))
	}
	return s
}
