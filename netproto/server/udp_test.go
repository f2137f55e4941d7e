package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"hearth/netproto/server"
)

func itoa(n int) string { return strconv.Itoa(n) }

func withUDP(o *setup) { o.server.UDPPort = -1 }

// udpClient talks to the UDP port.
type udpClient struct {
	net.Conn
	id uint16
}

func udp(t testing.TB, r *running) *udpClient {
	t.Helper()
	for _, a := range r.srv.Addrs() {
		if a, ok := a.(*net.UDPAddr); ok {
			return dialUDP(t, a.String())
		}
	}
	t.Fatal("no UDP address")
	return nil
}

func dialUDP(t testing.TB, addr string) *udpClient {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(maxWait))
	t.Cleanup(func() { conn.Close() })
	return &udpClient{Conn: conn}
}

func frame(id, seq, total, reserved uint16) []byte {
	h := binary.BigEndian.AppendUint16(nil, id)
	h = binary.BigEndian.AppendUint16(h, seq)
	h = binary.BigEndian.AppendUint16(h, total)
	return binary.BigEndian.AppendUint16(h, reserved)
}

// send sends a request in one datagram, under a new id.
func (u *udpClient) send(t testing.TB, request string) {
	t.Helper()
	u.id++
	u.raw(t, append(frame(u.id, 0, 1, 0), request...))
}

func (u *udpClient) raw(t testing.TB, datagram []byte) {
	t.Helper()
	if _, err := u.Write(datagram); err != nil {
		t.Fatal(err)
	}
}

// receive returns a reply, put together from its datagrams, and how many those were.
func (u *udpClient) receive(t testing.TB) (reply string, datagrams int) {
	t.Helper()
	parts := map[uint16]string{}
	for buf := make([]byte, 64<<10); ; {
		n, err := u.Read(buf)
		if err != nil {
			t.Fatalf("after %d datagrams: %v", len(parts), err)
		}
		if n <= 8 || n > 1400 {
			t.Fatalf("a datagram of %d bytes", n)
		}
		word := func(i int) uint16 { return binary.BigEndian.Uint16(buf[2*i:]) }
		if word(0) != u.id || word(3) != 0 {
			t.Fatalf("a datagram for request %d with %d in the reserved field, while waiting for %d", word(0), word(3), u.id)
		}
		seq, total := word(1), word(2)
		if _, twice := parts[seq]; twice || seq >= total || seq < total-1 && n != 1400 {
			t.Fatalf("datagram %d of %d with %d bytes", seq, total, n)
		}
		if parts[seq] = string(buf[8:n]); len(parts) < int(total) {
			continue
		}
		for i := range total {
			reply += parts[i]
		}
		return reply, int(total)
	}
}

func (u *udpClient) ask(t testing.TB, request, want string) {
	t.Helper()
	u.send(t, request)
	if got, _ := u.receive(t); got != want {
		t.Fatalf("%q: got %q, want %q", clip(request), clip(got), clip(want))
	}
}

// silent sends datagrams that must not be answered, and proves it with one that is: replies would come in order.
func (u *udpClient) silent(t testing.TB, datagrams ...[]byte) {
	t.Helper()
	for _, d := range datagrams {
		u.raw(t, d)
		u.ask(t, "version\r\n", version)
	}
}

func TestUDPAnswersEachDatagramOnItsOwn(t *testing.T) {
	r := start(t, withUDP, func(o *setup) { o.server.Threads = 1 }) // one worker: replies come in order
	u := udp(t, r)
	u.ask(t, "set a 0 0 1\r\n1\r\n", stored)
	u.ask(t, "get a none\r\n", "VALUE a 0 1\r\n1\r\nEND\r\n")
	u.ask(t, "get none\r\nget a\r\nversion\r\n", "END\r\nVALUE a 0 1\r\n1\r\nEND\r\n"+version) // memcached sends three replies
	u.ask(t, "nonsense\r\n", "ERROR\r\n")
	u.ask(t, rawPacket(0x0a, "", "")+rawPacket(0x0a, "", ""), rawReply(0x0a, 0, "")+rawReply(0x0a, 0, ""))
	u.ask(t, "incr a 1\r\n", "2\r\n") // the protocol is each datagram's own
	id := func(text string) []byte { return append(frame(999, 0, 1, 0), text...) }
	u.silent(t,
		id("get a"), id(""), []byte("get a\r\n"), []byte("x"), id("quit\r\n"), id("GET / HTTP/1.1\r\n"), id(strings.Repeat("x", 3000)),
		id("set b 0 0 1 noreply\r\n1\r\n"),
		id("set a 0 0 5\r\nab"), id("set a 0 0 1\r\n7\r"), id("set none 0 0 9000000\r\nab"), id(rawPacket(0x0a, "", "")[:23]),
		append(frame(999, 0, 2, 0), "get a\r\n"...), append(frame(999, 1, 2, 0), "get a\r\n"...), append(frame(999, 0, 0, 0), "get a\r\n"...),
	)
	u.ask(t, "get a b\r\n", "VALUE a 0 1\r\n2\r\nVALUE b 0 1\r\n1\r\nEND\r\n")
	u.ask(t, "version\r\nset a 0 0 5\r\nab", version) // what was complete is answered
	u.raw(t, append(frame(u.id, 1, 1, 77), "get a\r\n"...))
	if got, _ := u.receive(t); got != "VALUE a 0 1\r\n2\r\nEND\r\n" {
		t.Errorf("with a sequence number: %q", got)
	}
	if items := r.usedChunks(); items != 2 {
		t.Errorf("%d chunks used, want those of a and b", items)
	}
	c := dial(t, r.addr)
	if s := c.stats(" settings"); s["udpport"] == "0" || s["num_threads_per_udp"] != "1" || c.stat("curr_connections") != 1 {
		t.Errorf("udpport %s, num_threads_per_udp %s, curr_connections %d", s["udpport"], s["num_threads_per_udp"], c.stat("curr_connections"))
	}
	if all := statLines(c); !strings.Contains(all, ":UDP UDP") || !strings.Contains(all, ":addr udp:127.0.0.1:") {
		t.Errorf("stats conns:\n%s", all)
	}
}

// TestUDPDoesNotAnswerReplies sends the server what it answers itself, as another server would that somebody made it write to.
func TestUDPDoesNotAnswerReplies(t *testing.T) {
	r := start(t, withUDP, func(o *setup) { o.server.Threads = 1 }) // one worker: replies come in order
	u := udp(t, r)
	for _, request := range []string{
		"nonsense\r\n", "get\r\n", "x\r\n", "set n 0 0 1\r\n7\r\n", "set n 0 0 1\r\n77\r\n", "add n 0 0 1\r\n1\r\n", "cas n 0 0 1 1\r\n1\r\n", "get none\r\n", "get n\r\n",
		"incr n 1\r\n", "touch n 0\r\n", "delete n\r\n", "delete n\r\n", "flush_all x\r\n", "stats\r\n", "version\r\n", "verbosity 0\r\n", "shutdown\r\n",
		"cache_memlimit 1\r\n", "slabs reassign 0 0\r\n", "lru mode flat\r\n", "mn\r\n", "mg none v\r\n", "ms m 1\r\n1\r\n", "mg m v\r\n", "me m\r\n", "ma none\r\n", "md m\r\n",
		rawPacket(0x0a, "", ""), rawPacket(0x0b, "", ""), rawPacket(0x77, "", ""), rawPacket(0x00, "", "none"),
	} {
		u.send(t, request)
		reply, _ := u.receive(t)
		u.silent(t, append(frame(999, 0, 1, 0), reply...))
	}
}

func TestUDPNumbersADatagramsRepliesAsOneSeries(t *testing.T) {
	u := udp(t, start(t, withUDP))
	var all, keys string
	for i := range 12 { // no more than a socket buffers
		value := strings.Repeat(itoa(i), 2000)
		u.ask(t, fmt.Sprintf("set k%d 0 0 %d\r\n%s\r\n", i, len(value), value), stored)
		all += fmt.Sprintf("VALUE k%d 0 %d\r\n%s\r\n", i, len(value), value)
		keys += fmt.Sprintf(" k%d", i)
	}
	want := all + "END\r\n" + all + "END\r\n"
	u.send(t, "get"+keys+"\r\nget"+keys+"\r\n")
	got, n := u.receive(t)
	if got != want || n != (len(want)+1391)/1392 {
		t.Errorf("%d bytes in %d datagrams, want %d bytes in %d", len(got), n, len(want), (len(want)+1391)/1392)
	}
	for _, size := range []int{1391, 1392, 1393, 20000} { // the whole reply just below, at and above a datagram; a large value
		value := strings.Repeat("v", size-len("VALUE edge 0 1391\r\n\r\nEND\r\n")-len(itoa(size))+4)
		u.ask(t, fmt.Sprintf("set edge 0 0 %d\r\n%s\r\n", len(value), value), stored)
		want := fmt.Sprintf("VALUE edge 0 %d\r\n%s\r\nEND\r\n", len(value), value)
		u.send(t, "get edge\r\n")
		if got, n := u.receive(t); got != want || n != (len(want)+1391)/1392 {
			t.Errorf("%d bytes in %d datagrams, want %d", len(got), n, len(want))
		}
	}
}

func TestUDPReplyThatGetsTooLongIsAnError(t *testing.T) {
	r := start(t, withUDP)
	big := strings.Repeat("v", 1<<20-1000)
	dial(t, r.addr).ask("set big 0 0 "+itoa(len(big))+"\r\n"+big+"\r\n", stored)
	u := udp(t, r)
	u.ask(t, "get big big big\r\nversion\r\n", "SERVER_ERROR out of memory writing get response\r\n")
	u.ask(t, "version\r\n", version)
}

// TestUDPServesManyClients has each of many sockets keep its own replies, with several workers on the port, over both families.
func TestUDPServesManyClients(t *testing.T) {
	for _, listen := range [][]string{{"127.0.0.1"}, {"127.0.0.1", "[::1]"}} {
		r := start(t, withUDP, func(o *setup) { o.server.Listen, o.server.Threads = listen, 4 })
		threads := dial(t, r.addr).stats(" settings")["num_threads_per_udp"]
		if want := map[int]string{1: "4", 2: "1"}[len(listen)]; threads != want {
			t.Errorf("%v: num_threads_per_udp %s, want %s", listen, threads, want)
		}
		done := make(chan bool)
		for i := range 8 {
			addrs := r.srv.Addrs()
			u := dialUDP(t, addrs[len(addrs)-1-i%len(listen)].String())
			go func() {
				defer func() { done <- true }()
				for n := range 200 {
					value := fmt.Sprintf("%d.%d", i, n)
					u.ask(t, fmt.Sprintf("set %d 0 0 %d\r\n%s\r\nget %d\r\n", i, len(value), value, i), fmt.Sprintf("STORED\r\nVALUE %d 0 %d\r\n%s\r\nEND\r\n", i, len(value), value))
				}
			}()
		}
		for range 8 {
			<-done
		}
	}
}

func TestUDPIsRefusedWithAuthenticationAndAbsentWithAUnixSocket(t *testing.T) {
	for _, o := range []server.Options{
		{UDPPort: -1, Auth: server.NewAuthFile("x")}, {UDPPort: -1, SASL: server.NewPasswordDB("x")}, {UDPPort: 70000},
	} {
		if _, err := server.New(nil, o); err == nil || !strings.HasPrefix(err.Error(), "server: options: -") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	r := start(t, withUDP, func(o *setup) { o.server.UnixSocket = t.TempDir() + "/s" })
	if len(r.srv.Addrs()) != 1 || dial(t, r.addr).stats(" settings")["udpport"] != "0" {
		t.Errorf("listening on %v", r.srv.Addrs())
	}
}

// TestUDPRepliesInOneDatagramAreMemcacheds sends the same datagrams to both. Those with several requests are left out, see package server's udp.go.
func TestUDPRepliesInOneDatagramAreMemcacheds(t *testing.T) {
	program, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("no memcached on this machine")
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := itoa(free.LocalAddr().(*net.UDPAddr).Port)
	free.Close() // memcached tells of no port that it chose itself
	cmd := exec.Command(program, "-u", "root", "-l", "127.0.0.1", "-p", "0", "-U", port, "-t", "1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	theirs, ours := dialUDP(t, "127.0.0.1:"+port), udp(t, start(t, withUDP))
	until(t, "memcached to answer", func() bool { // until it is there the kernel refuses, or loses, what is sent
		theirs.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := theirs.Write(append(frame(0, 0, 1, 0), "mn\r\n"...)); err != nil {
			return false
		}
		theirs.Write(append(frame(0, 0, 1, 0), "version\r\n"...))
		_, err := theirs.Read(make([]byte, 100))
		return err == nil
	})
	theirs.SetDeadline(time.Now().Add(10 * time.Millisecond)) // what came late of the above
	for buf := make([]byte, 100); err == nil; {
		_, err = theirs.Read(buf)
	}
	theirs.SetDeadline(time.Now().Add(maxWait))
	requests := []string{
		"get a\r\n", "set a 5 0 3\r\nabc\r\n", "get a\r\n", "get  a\n", "add a 0 0 1\r\nx\r\n", "append a 0 0 1\r\nd\r\n", "get a\r\n", "incr a 1\r\n",
		"set n 0 0 2\r\n41\r\n", "incr n 1\r\n", "decr n 50\r\n", "touch n 100\r\n", "gat 0 n\r\n", "delete n\r\n", "delete n\r\n", "foo\r\n",
		"replace none 0 0 1\r\nx\r\n", "cas none 0 0 1 7\r\nx\r\n", "flush_all\r\n", "get a\r\n", "verbosity 0\r\n", "set a 0 0 1\r\nxyz", "get a\r\n",
		"set l 0 0 1300\r\n" + strings.Repeat("l", 1300) + "\r\n", "get l\r\n", rawPacket(0x0a, "", ""), rawPacket(0x00, "l", ""), rawPacket(0x00, "none", ""), rawPacket(0x04, "none", ""),
	}
	for _, request := range requests {
		replies := [2][]byte{}
		for i, u := range []*udpClient{ours, theirs} {
			u.id = 77
			u.raw(t, append(frame(77, 0, 1, 0), request...))
			buf := make([]byte, 2000)
			n, err := u.Read(buf)
			if err != nil {
				t.Fatalf("%q: %v (0 is ours, 1 memcached: %d)", request, err, i)
			}
			replies[i] = buf[:n]
			if len(request) > 24 && request[0] == 0x80 { // its CAS id
				copy(replies[i][8+16:], make([]byte, min(8, n-24)))
			}
		}
		if !bytes.Equal(replies[0], replies[1]) {
			t.Errorf("%q:\n ours %q\ntheirs %q", request, replies[0], replies[1])
		}
	}
}
