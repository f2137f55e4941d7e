package server_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hearth"
	"hearth/netproto"
	"hearth/netproto/server"
)

// handOver ends r's server by a hand-over and starts another one on its cache, sockets and connections.
func (r *running) handOver(o server.Options, meanwhile func()) *running {
	r.t.Helper()
	var err error
	if o.Sockets, err = r.srv.Sockets(); err != nil {
		r.t.Fatal(err)
	}
	r.leave(server.ErrHandOver)
	if meanwhile != nil {
		meanwhile()
	}
	select {
	case err = <-r.ended:
	case <-time.After(maxWait):
		r.t.Fatal("Serve does not end")
	}
	if err != nil {
		r.t.Fatal(err)
	}
	o.Resumed, o.Conns = true, r.srv.Released()
	next, err := server.New(r.cache, o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, leave := context.WithCancelCause(context.Background())
	n := &running{t: r.t, addr: r.addr, cache: r.cache, srv: next, leave: leave, cancel: func() { leave(nil) }, ended: make(chan error, 1)}
	go func() { n.ended <- next.Serve(ctx) }()
	r.t.Cleanup(func() { n.stop() }) // before r's, which closes the cache
	r.ended <- nil
	return n
}

// connStates asks for the connections.
func (c *client) connStates() string {
	c.send("stats conns\r\n")
	return c.rowsUntilEnd()
}

// plainOptions are those of start.
func plainOptions() server.Options {
	return server.Options{Listen: []string{"127.0.0.1"}, Port: -1, Threads: 2}
}

func TestConnectionsGoAlongWithAHandOver(t *testing.T) {
	r := start(t)
	idle, binary, part, long, fresh := dial(t, r.addr), dial(t, r.addr), dial(t, r.addr), dial(t, r.addr), dial(t, r.addr)
	idle.ask("set a 0 0 1\r\nx\r\n", stored)
	binary.askPacket(packet{op: netproto.OpNoop})
	part.ask("version\r\nget ", version)
	long.ask("version\r\n", version)
	long.send("get %s", strings.Repeat("b ", 4000)) // more than a small buffer
	asking := dial(t, r.addr)
	until(t, "the parts of lines to be read", func() bool {
		var read uint64
		for _, n := range r.srv.BytesRead() {
			read += n
		}
		return strings.Count(asking.connStates(), "conn_read") == 4 && read > 8000
	})

	n := r.handOver(plainOptions(), nil)
	idle.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	binary.askPacket(packet{op: netproto.OpNoop})
	part.ask("a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	long.ask("a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	fresh.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n") // its first byte decides on the protocol
	if got := n.srv.Conns(); got != 6 {
		t.Errorf("curr_connections %d, want 6", got)
	}
	idle.Close()
	until(t, "the place of one that goes to be free", func() bool { return n.srv.Conns() == 5 })
	dial(t, r.addr).ask("version\r\n", version) // the listener went along, too
}

// Between two requests there is nothing to wait for; in the middle of a data block there is, for a moment.
func TestAHandOverWaitsForDataBlocksThatCome(t *testing.T) {
	t.Cleanup(server.SetHandOverTimeout(maxWait))
	r := start(t)
	c, never := dial(t, r.addr), dial(t, r.addr)
	never.send("set never 0 0 10\r\nabc")
	c.send("set a 0 0 10\r\nabc")
	asking := dial(t, r.addr)
	until(t, "the uploads to have begun", func() bool { return strings.Count(asking.connStates(), "conn_nread") == 2 })
	r.handOver(plainOptions(), func() {
		// asking rests, so it is let go of as soon as the stop has begun: nobody serves it then.
		until(t, "the stop to have begun", func() bool { return r.srv.Conns() == 2 })
		c.send("defghij\r\nget a\r\n")
		c.want(stored)
		never.Close()
	})
	c.want("VALUE a 0 10\r\nabcdefghij\r\nEND\r\n")
	asking.ask("get never\r\n", "END\r\n")
}

func TestAHandOverClosesWhatCannotGoAlong(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) { o.server.Listen = []string{"127.0.0.1", "notls:127.0.0.1"} })
	plain := r.srv.Addrs()[1].String()
	secret, watcher, stalled, greedy := dial(t, r.addr), watch(t, plain, "watch connevents\r\n"), dial(t, plain), dial(t, plain)
	secret.ask("version\r\n", version)
	stalled.send("set a 0 0 10\r\nabc")
	greedy.send("set big 0 0 1000000\r\n%s\r\n", strings.Repeat("x", 1000000))
	greedy.want(stored)
	greedy.send("get%s\r\n", strings.Repeat(" big", 50)) // and does not read
	asking := dial(t, plain)
	until(t, "all to be where they should be", func() bool {
		states := asking.connStates()
		return strings.Contains(states, "conn_nread") && strings.Contains(states, "conn_mwrite") && strings.Contains(states, "conn_watch")
	})
	o := plainOptions()
	o.TLS = r.options.TLS
	began := time.Now()
	n := r.handOver(o, nil)
	if took := time.Since(began); took > maxWait/2 {
		t.Errorf("took %v", took)
	}
	secret.wantEOF()
	stalled.wantEOF()
	for _, c := range []*client{watcher, greedy} { // what was sent before the end comes first
		if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
			t.Error("still open")
		}
	}
	asking.ask("get a\r\n", "END\r\n") // the stalled upload never happened
	// The listeners speak what they spoke before.
	dial(t, r.addr).ask("version\r\n", version)
	dial(t, plain).ask("version\r\n", version)
	if got := n.srv.Conns(); got != 3 {
		t.Errorf("curr_connections %d, want 3", got)
	}
}

func TestAuthenticationGoesAlongWithAHandOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("user:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users := server.NewAuthFile(path)
	if err := users.Load(); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(o *setup) { o.server.Auth = users })
	in, out := dial(t, r.addr), dial(t, r.addr)
	in.ask("set x 0 0 11\r\nuser secret\r\n", stored)
	out.ask("get a\r\n", "CLIENT_ERROR unauthenticated\r\n")
	o := plainOptions()
	o.Auth = users
	r.handOver(o, nil)
	in.ask("get a\r\n", "END\r\n")
	out.ask("get a\r\n", "CLIENT_ERROR unauthenticated\r\n")
	out.ask("set x 0 0 11\r\nuser secret\r\n", stored)
}

// A server that could not be made has taken nothing: the connections are the caller's.
func TestAServerThatCannotBeMadeLeavesConnectionsAlone(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("version\r\n", version)
	sockets, err := r.srv.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	r.leave(server.ErrHandOver)
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	plain, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	o := plainOptions()
	o.Sockets, o.Conns, o.Resumed = []*os.File{plain}, r.srv.Released(), true
	if _, err := server.New(r.cache, o); err == nil {
		t.Fatal("a server on /dev/null")
	}
	o.Sockets = sockets
	next, err := server.New(r.cache, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- next.Serve(ctx) }()
	c.ask("version\r\n", version)
	stop()
	r.ended <- <-ended
}

// The listeners of systemd speak TLS like our own.
func TestInheritedListenersSpeakTLS(t *testing.T) {
	first := start(t)
	sockets, err := first.srv.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := hearth.Open(hearth.Options{HeapArena: raceEnabled})
	if err != nil {
		t.Fatal(err)
	}
	first.stop()
	srv, err := server.New(cache, server.Options{Sockets: sockets, TLS: loadedTLS(t, server.TLSOptions{})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx) }()
	dial(t, "tls:"+srv.Addrs()[0].String()).ask("version\r\n", version)
	plain := dial(t, srv.Addrs()[0].String())
	plain.send("version\r\n")
	if b, err := io.ReadAll(plain); strings.Contains(string(b), "VERSION") || os.IsTimeout(err) {
		t.Errorf("in plain text it answers %q, %v", b, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := cache.Close(); err != nil {
		t.Error(err)
	}
}
