package server_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestConnection(t *testing.T) {
	get := func(n int) string { return "get " + strings.Repeat("k", 240) + strings.Repeat(" x", n) + "\r\n" }
	addrs := both(t, func(*setup) {})
	runTalks(t, []talkRow{
		{name: "2048 bytes without a newline are kept", send: strings.Repeat("x", 2048), rest: "\r\n", restReply: "ERROR\r\n"},
		{name: "more than 2048 bytes without a newline close", send: strings.Repeat("x", 2049), closes: true},
		{name: "a get without a newline may be longer", send: "get" + strings.Repeat(" x", 20000), rest: " y\r\n", restReply: "END\r\n"},
		{name: "a gets without a newline may be longer", send: "gets" + strings.Repeat(" x", 20000), rest: "\r\n", restReply: "END\r\n"},
		{name: "a hundred blanks may stand before such a get", send: strings.Repeat(" ", 100) + "get" + strings.Repeat(" x", 2000), rest: "\r\n", restReply: "ERROR\r\n", but: "1.6.18 passes them over"},
		{name: "more blanks may not", send: strings.Repeat(" ", 101) + "get" + strings.Repeat(" x", 2000), closes: true},
		{name: "a line of 16 KiB that is there at once is served", send: "gat 0" + strings.Repeat(" x", 8000) + "\r\n", reply: "END\r\n"},
		{name: "a gat of 20 KB closes", send: "gat 0" + strings.Repeat(" x", 10000), closes: true},
		{name: "a get of 20 KB is served", send: get(10000), reply: "END\r\n"},
		{name: "HTTP closes without a reply", send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", closes: true},
		{name: "HTTP closes behind other requests", send: "mn\r\nPOST /x y HTTP/1.0\r\n", reply: "MN\r\n", closes: true},
		{name: "HTTP behind a known command does not close", send: "get HTTP/1.1\r\n", reply: "END\r\n"},
		{name: "replies come in the order of the requests", send: "set a 0 0 1\r\n1\r\nget a\r\nmg a v\r\nincr a 1\r\nfoo\r\ndelete a\r\n",
			reply: "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\nVA 1\r\n1\r\n2\r\nERROR\r\nDELETED\r\n"},
		{name: "a pipeline of a thousand", send: strings.Repeat("mn\r\nget a\r\n", 500), reply: strings.Repeat("MN\r\nEND\r\n", 500)},
	}, addrs, "mn\r\n", "MN\r\n")

	t.Run("an error is sent when the whole block is dropped and no sooner", func(t *testing.T) {
		for _, addr := range addrs {
			c := dial(t, addr)
			c.send("mn\r\nset a 0 0 2000000\r\n%s", strings.Repeat("x", 2000000))
			c.want("MN\r\n")
			c.send("\r") // whatever had been sent by now would come before the reply to the next line
			c.ask("\nmn\r\n", objectLarge+"MN\r\n")
		}
	})
	t.Run("-c turns clients away with a line", func(t *testing.T) {
		addr := startServer(t, func(o *setup) { o.server.MaxConns = 2 })
		a, b := dial(t, addr), dial(t, addr)
		a.ask("mn\r\n", "MN\r\n")
		b.ask("mn\r\n", "MN\r\n")
		late := dial(t, addr)
		late.want("ERROR Too many open connections\r\n")
		late.wantEOF()
		if n := a.stat("rejected_connections"); n != 1 {
			t.Errorf("rejected_connections is %d", n)
		}
	})
	for _, requests := range []struct{ sent, yields int }{{7, 0}, {8, 1}, {14, 1}, {15, 2}} {
		t.Run(fmt.Sprintf("-R 7 yields %d times in %d requests", requests.yields, requests.sent), func(t *testing.T) {
			for _, addr := range both(t, func(o *setup) { o.server.ReqsPerEvent = 7 }, "-R", "7") {
				c := dial(t, addr)
				c.ask(strings.Repeat("get a\r\n", requests.sent), strings.Repeat("END\r\n", requests.sent))
				if n := c.stat("conn_yields"); n != requests.yields {
					t.Errorf("%s: conn_yields is %d", addr, n)
				}
			}
		})
	}
	t.Run("idle_timeout", func(t *testing.T) {
		withTimeout := func(o *setup) { o.server.IdleTimeout = idleLimit }
		t.Run("closes who sends nothing and counts it", func(t *testing.T) {
			r := start(t, withTimeout)
			idle, busy := dial(t, r.addr), dial(t, r.addr)
			idle.ask("mn\r\n", "MN\r\n")
			r.seconds(idleLimit - 10)
			busy.ask("mn\r\n", "MN\r\n")
			r.seconds(20)
			idle.wantEOF()
			if n := busy.stat("idle_kicks"); n != 1 {
				t.Errorf("idle_kicks is %d", n)
			}
		})
		t.Run("does not close in the middle of a block", func(t *testing.T) {
			r := start(t, withTimeout)
			c := dial(t, r.addr)
			c.ask("mn\r\nset a 0 0 5\r\nab", "MN\r\n")
			r.seconds(idleLimit + 10)
			c.ask("cde\r\n", stored)
		})
		t.Run("leaves unix sockets alone", func(t *testing.T) {
			r := start(t, withTimeout, func(o *setup) { o.server.UnixSocket = t.TempDir() + "/s" })
			c := dial(t, r.addr)
			c.ask("mn\r\n", "MN\r\n")
			r.seconds(idleLimit + 10)
			c.ask("mn\r\n", "MN\r\n")
		})
	})
}

func TestReadBufferLimitClosesWhoGetsNoBuffer(t *testing.T) {
	r := start(t, func(o *setup) { o.server.ReadBufferLimit, o.server.Threads = 64<<10, 1 })
	asking := dial(t, r.addr)
	part := "get " + strings.Repeat("k ", 4000) // more than a small buffer
	hold := func() *client {
		t.Helper()
		c := dial(t, r.addr)
		c.ask("version\r\n", version)
		before := r.srv.BytesRead()[0]
		c.send("%s", part)
		until(t, "the part of a line to be read", func() bool { return r.srv.BytesRead()[0] >= before+uint64(len(part)) })
		return c
	}
	var four []*client
	for range 4 {
		four = append(four, hold())
	}
	if n := asking.stat("read_buf_oom"); n != 0 {
		t.Fatalf("read_buf_oom %d with room for all", n)
	}
	hold().wantEOF()
	if n := asking.stat("read_buf_oom"); n != 1 {
		t.Errorf("read_buf_oom %d, want 1", n)
	}
	four[0].ask("\r\n", "END\r\n") // what it held is free again
	again := hold()
	for _, c := range append(four[1:], again) {
		c.ask("\r\n", "END\r\n")
	}
	asking.send("stats reset\r\n")
	asking.want("RESET\r\n")
	if n := asking.stat("read_buf_oom"); n != 0 {
		t.Errorf("read_buf_oom %d after stats reset", n)
	}
}
