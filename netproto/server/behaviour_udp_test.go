package server_test

import (
	"fmt"
	"strings"
	"testing"

	"hearth/netproto/server"
)

func TestUDP(t *testing.T) {
	r := start(t, withUDP, func(o *setup) { o.server.Threads = 1 }) // one worker: replies come in order
	u := udp(t, r)
	u.ask(t, "set a 0 0 1\r\n1\r\n", stored)
	for _, row := range []struct{ name, send, reply string }{
		{"a text request", "get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n"},
		{"a binary request", rawPacket(0x0a, "", ""), rawReply(0x0a, 0, "")},
		{"a text request behind a binary one", "get b\r\n", "END\r\n"},
		{"a meta request", "mg a v\r\n", "VA 1\r\n1\r\n"},
		{"an error", "foo\r\n", "ERROR\r\n"},
		{"a multiget is one series", "get a a\r\n", "VALUE a 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) { u.ask(t, row.send, row.reply) })
	}
	for _, row := range []struct {
		name     string
		datagram []byte
	}{
		{"noreply has no reply", append(frame(9, 0, 1, 0), "set b 0 0 1 noreply\r\n1\r\n"...)},
		{"a quiet packet has no reply", append(frame(9, 0, 1, 0), rawPacket(0x09, "none", "")...)},
		{"a request in two datagrams is dropped", append(frame(9, 0, 2, 0), "get a\r\n"...)},
		{"the second of two datagrams is dropped", append(frame(9, 1, 2, 0), "get a\r\n"...)},
		{"a datagram without a header is dropped", []byte("get a")},
		{"a line that is not whole has no reply", append(frame(9, 0, 1, 0), "get a"...)},
		{"a block that is not whole has no reply", append(frame(9, 0, 1, 0), "set a 0 0 5\r\nab"...)},
	} {
		t.Run(row.name, func(t *testing.T) { u.silent(t, row.datagram) })
	}
	t.Run("a block that is not whole leaves the old value", func(t *testing.T) { u.ask(t, "get a\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n") })
	t.Run("noreply stored", func(t *testing.T) { u.ask(t, "get b\r\n", "VALUE b 0 1\r\n1\r\nEND\r\n") })
	t.Run("a reply has the request's id and is numbered from 0", func(t *testing.T) {
		u.raw(t, append(frame(0xbeef, 0, 1, 0), "get a\r\n"...))
		buf := make([]byte, 2000)
		n, err := u.Read(buf)
		if want := string(frame(0xbeef, 0, 1, 0)) + "VALUE a 0 1\r\n1\r\nEND\r\n"; err != nil || string(buf[:n]) != want {
			t.Errorf("%q, %v; want %q", buf[:n], err, want)
		}
	})
	for _, size := range []int{1392, 1393, 2784, 2785} { // of the reply
		t.Run(fmt.Sprintf("a reply of %d bytes comes in datagrams of 1400", size), func(t *testing.T) {
			value := strings.Repeat("v", size-len("VALUE c 0 1000\r\n\r\nEND\r\n"))
			u.ask(t, fmt.Sprintf("set c 0 0 %d\r\n%s\r\n", len(value), value), stored)
			u.send(t, "get c\r\n")
			if got, n := u.receive(t); len(got) != size || n != (size+1391)/1392 { // receive looks at each datagram's length and numbers
				t.Errorf("%d bytes in %d datagrams", len(got), n)
			}
		})
	}
	t.Run("is off by default", func(t *testing.T) {
		if n := len(start(t).srv.Addrs()); n != 1 {
			t.Errorf("%d addresses, want that of TCP alone", n)
		}
	})
	for name, o := range map[string]server.Options{
		"is refused with -Y": {UDPPort: -1, Auth: server.NewAuthFile("x")}, "is refused with -S": {UDPPort: -1, SASL: server.NewPasswordDB("x")},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := server.New(nil, o); err == nil || !strings.Contains(err.Error(), "UDP") {
				t.Errorf("New: %v", err)
			}
		})
	}
}
