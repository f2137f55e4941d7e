package server_test

import (
	"path/filepath"
	"strings"
	"testing"

	"hearth"
)

// seconds lets n seconds pass for the server. Its own clock may add one or two in a slow test; the limits below leave room.
func (r *running) seconds(n int) {
	for range n {
		r.srv.Second()
	}
}

const idleLimit = 1000

func TestIdleConnectionsAreClosedAndBusyOnesKept(t *testing.T) {
	r := start(t, func(o *setup) {
		o.server.IdleTimeout = idleLimit
		o.server.UDPPort = -1
		o.cache = hearth.Options{HeapArena: raceEnabled, MemoryLimit: 64 << 20}
	})
	silent, halfLine, inValue, swallowing, unread, active := dial(t, r.addr), dial(t, r.addr), dial(t, r.addr), dial(t, r.addr), dial(t, r.addr), dial(t, r.addr)
	silent.ask("get a\r\n", "END\r\n")
	halfLine.ask("version\r\nget ", version)
	inValue.ask("version\r\nset k 0 0 5\r\nab", version)
	swallowing.ask("version\r\nset k 0 0 9000000\r\nab", version)
	const n = 50
	big := strings.Repeat("v", 1<<20-1000)
	active.ask("set big 0 0 "+itoa(len(big))+"\r\n"+big+"\r\n", stored)
	unread.send("get%s\r\n", strings.Repeat(" big", n)) // more than the socket's buffers take
	until(t, "the reply to stall", func() bool { return strings.Contains(statLines(active), "conn_mwrite") })

	r.seconds(idleLimit - 10)
	active.ask("get a\r\n", "END\r\n")
	r.seconds(20)
	silent.wantEOF()
	halfLine.wantEOF()
	active.ask("get a\r\n", "END\r\n")
	inValue.ask("cde\r\n", stored)
	swallowing.ask(strings.Repeat("x", 9000000-2)+"\r\n", "SERVER_ERROR object too large for cache\r\n")
	for range n {
		unread.want("VALUE big 0 " + itoa(len(big)) + "\r\n")
		unread.want(big + "\r\n")
	}
	unread.want("END\r\n")
	r.seconds(10) // what was busy is not idle yet
	if kicks := active.stat("idle_kicks"); kicks != 2 {
		t.Errorf("idle_kicks %d, want 2", kicks)
	}
	if v := active.stats(" settings")["idle_timeout"]; v != itoa(idleLimit) {
		t.Errorf("idle_timeout %s", v)
	}
	if now := active.stat("curr_connections"); now != 4 {
		t.Errorf("curr_connections %d, want 4", now)
	}
	udp(t, r).ask(t, "version\r\n", version)
}

func TestIdleUnixConnectionsAndServersWithoutTheOptionCloseNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	for _, opt := range []func(*setup){
		func(o *setup) { o.server.UnixSocket, o.server.IdleTimeout = socket, 1 },
		func(*setup) {},
	} {
		r := start(t, opt)
		c := dial(t, r.addr)
		c.ask("get a\r\n", "END\r\n")
		r.seconds(1000)
		c.ask("get a\r\n", "END\r\n")
	}
	if _, shown := dial(t, startServer(t)).stats("")["idle_kicks"]; shown {
		t.Error("idle_kicks is shown without -o idle_timeout")
	}
}

func statLines(c *client) string {
	var all []string
	for k, v := range c.stats(" conns") {
		all = append(all, k+" "+v)
	}
	return strings.Join(all, "\n")
}
