package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Clients that mean no good, or do nothing.

// crowd is how many clients come at once where that is what hurts.
func crowd() int {
	if testing.Short() {
		return 200
	}
	return 1000
}

// reach dials with as much time as a test has; the connection is closed at the end of the test.
func reach(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(3 * patience))
	return c.(*net.TCPConn)
}

// reset closes a connection with an RST, and so without leaving a port behind.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// eventually polls for what no event announces.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// bystander is a client that means well, in the middle of it all.
type bystander struct {
	ops   int
	worst time.Duration
	err   error // of the first reply that was not what it should be
	stop  chan struct{}
	done  chan struct{}
}

const bystanderKeys = 500

// startBystander has one store values and read them back, until end.
func startBystander(t testing.TB, addr string) *bystander {
	b := &bystander{stop: make(chan struct{}), done: make(chan struct{})}
	c := reach(t, addr)
	go func() {
		defer close(b.done)
		r := bufio.NewReader(c)
		for ; ; b.ops++ {
			select {
			case <-b.stop:
				return
			default:
			}
			key := fmt.Sprintf("bystander-%d", b.ops%bystanderKeys)
			value := appendRecord(nil, key, 0, uint32(b.ops), 1000)
			want := fmt.Sprintf("STORED\r\nVALUE %s 0 %d\r\n%s\r\nEND\r\n", key, len(value), value)
			got := make([]byte, len(want))
			began := time.Now()
			c.SetDeadline(began.Add(patience))
			fmt.Fprintf(c, "set %s 0 0 %d\r\n%s\r\nget %s\r\n", key, len(value), value, key)
			if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
				b.err = fmt.Errorf("a well-behaved client was told %.80q (%v) after %d requests", got[:n], err, b.ops)
				return
			}
			b.worst = max(b.worst, time.Since(began))
		}
	}()
	return b
}

func (b *bystander) end(t testing.TB) {
	t.Helper()
	close(b.stop)
	<-b.done
	if b.err != nil || b.ops == 0 {
		t.Errorf("%d requests of a well-behaved client: %v", b.ops, b.err)
	}
}

// siege is an attack and what the server has for it.
type siege struct {
	memory int // -m
	args   []string
	attack func(t *testing.T, p *proc)
}

// heapMost is what a server may take above -m and its index: the program, stacks, the LRU's links, buffers of connections and of long lines.
const heapMost = 150 << 20

// TestHostileClientsGetNothingButTheirOwnErrors has clients misbehave in many ways while another one works, and afterwards looks for what they left: the most memory
// that the server ever took, connections, and the file.
func TestHostileClientsGetNothingButTheirOwnErrors(t *testing.T) {
	for name, s := range map[string]siege{
		"random bytes":                       {64, nil, sendGarbage},
		"lines without end":                  {64, nil, sendEndlessLines},
		"binary bodies without end":          {64, nil, sendEndlessBodies},
		"uploads of the largest -I":          {4096, []string{"-I", "1024m", "-c", "2000"}, declareMuch},
		"uploads that stall":                 {64, []string{"-c", "2000"}, stallUploads},
		"readers that do not read":           {256, []string{"-c", "2000"}, neverRead},
		"connections that end in the middle": {64, nil, hangUp},
	} {
		t.Run(name, func(t *testing.T) {
			file := newFile(t)
			p := startHearthd(t, append([]string{"-e", file, "-m", fmt.Sprint(s.memory)}, s.args...)...)
			b := startBystander(t, p.addr)
			began := time.Now()
			s.attack(t, p)
			took := time.Since(began)
			b.end(t)
			t.Logf("%v; a client that works: %d requests, the longest took %v", took, b.ops, b.worst)
			index := number(t, p, "index_bytes")
			peak, anon := procStatus(t, p, "VmHWM"), procStatus(t, p, "RssAnon")
			t.Logf("-m %d: VmHWM %.1f MB, VmRSS %.1f MB, RssAnon %.1f MB, RssShmem %.1f MB, index_bytes %.1f MB", s.memory, mb(peak), mb(residentBytes(t, p)), mb(anon),
				mb(procStatus(t, p, "RssShmem")), mb(index))
			if limit := s.memory<<20 + index + heapMost; peak > limit || anon > heapMost {
				t.Errorf("VmHWM %.1f MB, want at most %.1f MB; RssAnon %.1f MB, want at most %.1f MB", mb(peak), mb(limit), mb(anon), mb(heapMost))
			}
			if code := p.stop(t, syscall.SIGTERM); code != 0 {
				t.Fatalf("exit %d\n%s", code, p.stderr)
			}
			wantSound(t, file, s.memory)
		})
	}
}

// wantAlone waits until only the bystander and whoever asks are connected.
func wantAlone(t *testing.T, p *proc) {
	t.Helper()
	eventually(t, "the server to drop the clients that are gone", func() bool { return number(t, p, "curr_connections") <= 2 })
}

// sendGarbage sends random bytes, on a new connection whenever the server has had enough of one.
func sendGarbage(t *testing.T, p *proc) {
	total, seed := 1<<30, drawSeed(t)
	if testing.Short() {
		total = 64 << 20
	}
	var conns atomic.Int64
	err := split(total, 4, func(part, from, to int) error {
		source := rand.NewChaCha8([32]byte{byte(seed), byte(part)})
		chunk := make([]byte, 256<<10)
		for from < to {
			c, err := net.DialTimeout("tcp", p.addr, patience)
			if err != nil {
				return err
			}
			conns.Add(1)
			var reading sync.WaitGroup
			reading.Go(func() { io.Copy(io.Discard, c) })
			for err == nil && from < to {
				source.Read(chunk)
				var n int
				n, err = c.Write(chunk)
				from += n
			}
			reset(c.(*net.TCPConn))
			reading.Wait()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantAlone(t, p)
	read := number(t, p, "bytes_read")
	t.Logf("%d MB of random bytes over %d connections, of which the server read %d MB", total>>20, conns.Load(), read>>20)
	if read < total/2 {
		t.Errorf("the server read %d bytes of %d", read, total)
	}
}

// sendEndlessLines has a crowd send lines that do not end: a command that there is none of, the keys of a get, and one key of a get.
func sendEndlessLines(t *testing.T, p *proc) {
	const most = 9 << 20 // above the longest line of a get
	for _, line := range []struct {
		begin, more string
		least       int // bytes that the server must take
	}{{"", "a", 2048}, {"set ", "k", 2048}, {"get ", "0123456789 ", 64 << 10}, {"gets ", "k", 64 << 10}, {strings.Repeat(" ", 200) + "get ", "k ", 2048}} {
		piece := []byte(strings.Repeat(line.more, 64<<10/len(line.more)))
		var taken, longest atomic.Int64
		err := split(crowd(), crowd(), func(_, from, to int) error {
			for range to - from {
				c, err := net.DialTimeout("tcp", p.addr, patience)
				if err != nil {
					return err
				}
				c.SetDeadline(time.Now().Add(patience))
				c.(*net.TCPConn).SetWriteBuffer(16 << 10)
				n, err := io.WriteString(c, line.begin)
				sent := n
				for ; err == nil && sent < most; sent += n {
					n, err = c.Write(piece)
				}
				if err == nil { // it is in the socket's buffers: what is read now is the end
					var got []byte
					if got, err = io.ReadAll(c); err == nil && len(got) > 0 {
						err = fmt.Errorf("a line without end was answered: %q", got)
					}
				}
				reset(c.(*net.TCPConn))
				if !cutOff(err) && err != nil {
					return err
				}
				taken.Add(int64(sent))
				for old := longest.Load(); int64(sent) > old && !longest.CompareAndSwap(old, int64(sent)); old = longest.Load() {
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%.10q: %v", line.begin+line.more, err)
		}
		t.Logf("%d lines %.12q...: %d MB sent, the longest %d KB, before the connection ended", crowd(), line.begin+line.more, taken.Load()>>20, longest.Load()>>10)
		if longest.Load() < int64(line.least) {
			t.Errorf("the longest ended after %d bytes, want at least %d", longest.Load(), line.least)
		}
	}
	wantAlone(t, p)
}

// binarySet is the header, extras and key of a set packet.
func binarySet(key string, size int) []byte {
	head := []byte{0x80, 0x01, 0, byte(len(key)), 8, 0, 0, 0}
	body := 8 + len(key) + size
	head = append(head, byte(body>>24), byte(body>>16), byte(body>>8), byte(body))
	return append(append(head, make([]byte, 12+8)...), key...)
}

// sendEndlessBodies sends values of the binary protocol that are too large, up to the longest that a packet can tell, and headers that stop.
func sendEndlessBodies(t *testing.T, p *proc) {
	chunk := make([]byte, 64<<10)
	err := split(crowd(), 50, func(part, from, to int) error {
		for i := from; i < to; i++ {
			c, err := net.DialTimeout("tcp", p.addr, patience)
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(patience))
			head := binarySet("k", []int{2 << 20, 1<<30 - 9, 1 << 30, 1<<32 - 20}[i%4])
			_, err = c.Write(head[:len(head)-i%2*20])
			for n := 0; n < 16 && err == nil; n++ {
				_, err = c.Write(chunk)
			}
			reset(c.(*net.TCPConn))
			if err != nil && !cutOff(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantAlone(t, p)
}

// declareMuch has a crowd begin to store the largest values that -I allows, and send nothing, then a byte now and then.
func declareMuch(t *testing.T, p *proc) {
	c := dial(p.addr)
	defer c.Close()
	before := newNumbered(1000, 10_000)
	if err := before.load(p.addr, 0, 1000, true, new(atomic.Int64)); err != nil {
		t.Fatal(err)
	}
	clients := make([]*net.TCPConn, crowd())
	for i := range clients {
		clients[i] = reach(t, p.addr)
		fmt.Fprintf(clients[i], "set huge-%d 0 0 %d\r\n", i, 1<<30-200)
	}
	connected(t, p, "conn_nread", len(clients))
	idle := number(t, p, "total_malloced")
	for range 3 {
		read := number(t, p, "bytes_read")
		for _, c := range clients {
			c.Write([]byte{'x'})
		}
		eventually(t, "the bytes to be read", func() bool { return number(t, p, "bytes_read") >= read+len(clients) })
	}
	t.Logf("%d clients declared 1 GiB each: total_malloced %.1f MB, %.1f MB when they had sent three bytes", len(clients), mb(idle), mb(number(t, p, "total_malloced")))
	if idle > 64<<20 {
		t.Errorf("total_malloced %d before the first byte", idle)
	}
	_, lost, wrong, err := before.verify(p.addr, 1)
	if evicted := stat(t, p.addr, "evictions"); lost+wrong > 0 || err != nil || evicted != "0" {
		t.Errorf("%d items lost, %d wrong (%v), evictions %s", lost, wrong, err, evicted)
	}
	for _, c := range clients {
		reset(c)
	}
	wantAlone(t, p)
	if err := before.load(p.addr, 0, 1000, true, new(atomic.Int64)); err != nil {
		t.Error(err)
	}
}

// connected waits until n connections are in a state.
func connected(t *testing.T, p *proc, state string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections in %s", n, state), func() bool { return inState(t, p, state) >= n })
}

func inState(t *testing.T, p *proc, state string) int {
	t.Helper()
	c := reach(t, p.addr)
	defer c.Close()
	io.WriteString(c, "stats conns\r\n")
	n := 0
	for r := bufio.NewScanner(c); r.Scan() && r.Text() != "END"; {
		if strings.HasSuffix(r.Text(), ":state "+state) {
			n++
		}
	}
	return n
}

// stallUploads has a crowd declare values that take more than all memory. Within seconds others can store large values again.
func stallUploads(t *testing.T, p *proc) {
	clients := make([]*net.TCPConn, crowd())
	for i := range clients {
		clients[i] = reach(t, p.addr)
		fmt.Fprintf(clients[i], "set stalled-%d 0 0 500000\r\n", i)
	}
	value := strings.Repeat("v", 500_000)
	began := time.Now()
	refused := 0
	eventually(t, "room for a large value", func() bool {
		ok := talk(t, p.addr, "set large 0 0 500000\n"+value)[0] == "STORED"
		if !ok {
			refused++
		}
		return ok
	})
	t.Logf("%d uploads stalled; another one was refused %d times and stored after %v", len(clients), refused, time.Since(began))
	if refused == 0 {
		t.Error("there was room all the time: nothing was tested")
	}
	for _, c := range clients {
		reset(c)
	}
	wantAlone(t, p)
	for i := range 50 {
		if got := talk(t, p.addr, fmt.Sprintf("set large-%d 0 0 500000\n%s", i, value))[0]; got != "STORED" {
			t.Fatalf("large value %d after the others were gone: %s", i, got)
		}
	}
}

// neverRead has a crowd ask for large values and read none, while those are overwritten, deleted and evicted.
func neverRead(t *testing.T, p *proc) {
	const values, size, each = 100, 1<<20 - 1000, 40
	value := bytes.Repeat([]byte{'v'}, size)
	set := func(key string) {
		w, err := dialWire(p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		w.set(key, value)
		w.w.Flush()
		if err := w.stored(); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	for i := range values {
		set(fmt.Sprintf("wanted-%d", i))
	}
	clients := make([]*net.TCPConn, crowd()/5)
	for i := range clients {
		clients[i] = reach(t, p.addr)
		if i > 0 { // the first one reads at last
			clients[i].SetReadBuffer(4 << 10)
		}
		var keys strings.Builder
		for n := range each {
			fmt.Fprintf(&keys, "get wanted-%d\r\n", (i+n)%values)
		}
		io.WriteString(clients[i], keys.String())
	}
	connected(t, p, "conn_mwrite", len(clients))
	for i := range values {
		switch i % 3 {
		case 0:
			set(fmt.Sprintf("wanted-%d", i))
		case 1:
			talk(t, p.addr, fmt.Sprintf("delete wanted-%d", i))
		}
	}
	for i := range 400 { // more than fits
		set(fmt.Sprintf("other-%d", i))
	}
	if evicted := number(t, p, "evictions"); evicted == 0 {
		t.Error("nothing was evicted")
	}
	t.Logf("%d clients do not read, RssAnon %.1f MB", inState(t, p, "conn_mwrite"), mb(procStatus(t, p, "RssAnon")))
	head := fmt.Sprintf("VALUE wanted-0 0 %d\r\n%s\r\n", size, value)
	got := make([]byte, len(head))
	if _, err := io.ReadFull(clients[0], got); err != nil || string(got) != head { // what is read late is right
		t.Errorf("the first value, read at last: %.40q, %v", got, err)
	}
	for _, c := range clients {
		reset(c)
	}
	wantAlone(t, p)
}

// hangUp ends connections with an RST, anywhere in a conversation that has a bit of everything.
func hangUp(t *testing.T, p *proc) {
	large := strings.Repeat("v", 700_000) // chained
	script := "set a 0 0 5\r\nhello\r\nget a a a\r\nms b 5 T60\r\nworld\r\nmg b v t\r\nset big 0 0 700000\r\n" + large + "\r\nget big big big big\r\nappend a 0 0 3\r\nxyz\r\n" +
		"gat 100 a big\r\nset n 0 0 1\r\n5\r\nincr n 10\r\nset c 0 0 100000\r\n" + large[:100_000] + "\r\nset toolarge 0 0 2000000\r\n" + large + "\r\n"
	binary := string(binarySet("d", 300_000)) + large[:300_000] + string(binarySet("e", 900_000)) + large
	start := drawSeed(t)
	err := split(2*crowd(), 20, func(part, from, to int) error {
		draw := rand.New(rand.NewPCG(start, uint64(part)))
		for range to - from {
			c, err := net.DialTimeout("tcp", p.addr, patience)
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(patience))
			text := script
			if draw.IntN(3) == 0 {
				text = binary
			}
			at := draw.IntN(len(text))
			if draw.IntN(2) == 0 { // lines, not values, half of the time
				at = strings.LastIndexByte(text[:at+1], '\n') + 1 + draw.IntN(20)
			}
			_, err = io.WriteString(c, text[:min(at, len(text))])
			if draw.IntN(4) == 0 && err == nil {
				c.(*net.TCPConn).CloseWrite()
				c.Read(make([]byte, 100))
			}
			reset(c.(*net.TCPConn))
			if err != nil && !cutOff(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantAlone(t, p)
}

// TestStrangersAreAnsweredAsMemcachedDoes sends what other protocols begin with. The same goes to memcached where there is one.
func TestStrangersAreAnsweredAsMemcachedDoes(t *testing.T) {
	const e, line = "ERROR\r\n", "CLIENT_ERROR bad command line format\r\n"
	hello := "\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00"
	tests := map[string]struct{ send, want string }{ // a version at the end tells that the connection is there still
		"HTTP get":        {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ""},
		"HTTP post":       {"POST /x HTTP/1.0\r\n\r\nset k 0 0 1\r\n1\r\n", ""},
		"RESP":            {"*1\r\n$4\r\nPING\r\n", e + e + e + "VERSION"},
		"RESP set":        {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", e + e + e + e + line + e + line + "VERSION"},
		"SSH":             {"SSH-2.0-OpenSSH_9.6\r\n", e + "VERSION"},
		"SMTP":            {"EHLO example.org\r\n", e + "VERSION"},
		"TLS hello":       {hello + "\n", e + "VERSION"},
		"PROXY":           {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", e + "VERSION"},
		"zeros":           {strings.Repeat("\x00", 100) + "\r\n", e + "VERSION"},
		"newlines":        {"\r\n\n\r\n", line + line + line + "VERSION"},
		"long line":       {strings.Repeat("x", 3000), ""},
		"long TLS":        {hello + strings.Repeat("\x00", 3000), ""},
		"negative length": {"set k 0 0 -1\r\nget none\r\n", line + "END\r\nVERSION"},
		"binary reply":    {"\x81" + strings.Repeat("\x00", 23) + "\n", e + "VERSION"},
	}
	addrs := map[string]string{"hearthd": startHearthd(t).addr}
	if path, err := exec.LookPath("memcached"); err == nil {
		addrs["memcached"], _ = startMemcached(t, path, "-l", "127.0.0.1", "-U", "0")
	}
	for who, addr := range addrs {
		for name, test := range tests {
			if who == "memcached" { // Debian's knows no lines that are too short; newer ones do
				test.want = strings.ReplaceAll(test.want, line, e)
				if strings.HasPrefix(test.send, "set") {
					test.want = line + "END\r\nVERSION"
				}
			}
			c := reach(t, addr)
			io.WriteString(c, test.send)
			if strings.HasSuffix(test.want, "VERSION") {
				io.WriteString(c, "version\r\n")
				c.CloseWrite()
			}
			got, err := io.ReadAll(c)
			if err != nil && !cutOff(err) {
				t.Errorf("%s, %s: neither closed nor answered: %q (%v)", who, name, got, err)
			}
			if i := bytes.Index(got, []byte("VERSION")); i >= 0 {
				got = got[:i+len("VERSION")]
			}
			if string(got) != test.want {
				t.Errorf("%s, %s: %q, want %q", who, name, got, test.want)
			}
		}
	}
}

// TestIdleTimeoutEndsLinesThatDripButNoUploads: a byte of a command now and then is no command, a byte of a value is progress, as in memcached.
func TestIdleTimeoutEndsLinesThatDripButNoUploads(t *testing.T) {
	p := startHearthd(t, "-o", "idle_timeout=2")
	line, upload := reach(t, p.addr), reach(t, p.addr)
	io.WriteString(line, "get ")
	io.WriteString(upload, "set k 0 0 1000\r\n")
	dripped := 0
	ended := make(chan error, 1)
	go func() {
		_, err := line.Read(make([]byte, 1))
		ended <- err
	}()
	var err error
	for err == nil {
		select {
		case err = <-ended:
		case <-time.After(50 * time.Millisecond): // how it drips
			line.Write([]byte("k"))
			upload.Write([]byte("v"))
			dripped++
		}
	}
	if !cutOff(err) {
		t.Fatalf("the line still goes on: %v", err)
	}
	if dripped < 20 || dripped > 900 {
		t.Fatalf("the line ended after %d drips", dripped)
	}
	io.WriteString(upload, strings.Repeat("v", 1000-dripped)+"\r\n")
	got := make([]byte, 8)
	if _, err := io.ReadFull(upload, got); string(got) != "STORED\r\n" {
		t.Errorf("the upload that dripped as long: %q, %v", got, err)
	}
	if kicks := stat(t, p.addr, "idle_kicks"); kicks != "1" {
		t.Errorf("idle_kicks %s, want 1", kicks)
	}
}

// idleClients in the environment makes a client of the test that holds connections: address and number. It is a process of its own since both sides together
// have more descriptors than a process may.
const idleClients = "HEARTHD_TEST_IDLE"

// beIdle opens the connections, uses each once, says so, and ends when its standard input does.
func beIdle(spec string) int {
	var addr string
	var n int
	fmt.Sscan(spec, &addr, &n)
	conns := make([]*net.TCPConn, n)
	err := split(n, 8, func(_, from, to int) error {
		buf := make([]byte, 100)
		for i := from; i < to; i++ {
			c, err := net.DialTimeout("tcp", addr, patience)
			if err != nil {
				return err
			}
			conns[i] = c.(*net.TCPConn)
			fmt.Fprintf(c, "set idle-%d 0 0 5\r\nhello\r\nget idle-%d\r\n", i, i)
			for got := 0; ; {
				k, err := c.Read(buf[got:])
				if err != nil {
					return err
				}
				if got += k; bytes.HasSuffix(buf[:got], []byte("END\r\n")) {
					break
				}
			}
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		reset(c)
	}
	return 0
}

// TestTenThousandIdleConnectionsCostLittle measures, in turns with and without them, what they take of memory and of others' time.
func TestTenThousandIdleConnectionsCostLittle(t *testing.T) {
	const rounds, requests, most = 5, 3000, 8 << 10
	n := 10_000
	if testing.Short() {
		n = 2000
	}
	p := startHearthd(t, "-e", newFile(t), "-c", fmt.Sprint(n+100))
	busy := converse(t, p.addr)
	busy.SetDeadline(time.Now().Add(10 * patience))
	measure := func() time.Duration {
		took := make([]time.Duration, requests)
		for i := range took {
			began := time.Now()
			busy.set("k", 0, "value")
			busy.wantValue("k", "value")
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return took[requests*99/100]
	}
	measure()
	before, cost := procStatus(t, p, "RssAnon"), 0
	var with, without []time.Duration
	for range rounds {
		without = append(without, measure())
		client := exec.Command(os.Args[0])
		client.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", idleClients, p.addr, n))
		in, err := client.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := client.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		said, _ := bufio.NewReader(out).ReadString('\n')
		if said == "ready\n" {
			with = append(with, measure())
			cost = max(cost, procStatus(t, p, "RssAnon")-before)
		}
		in.Close()
		if err := client.Wait(); err != nil || said != "ready\n" {
			t.Fatalf("the idle clients: %q (%v)", said, err)
		}
		eventually(t, "the idle connections to be gone", func() bool { return number(t, p, "curr_connections") <= 2 })
	}
	slices.Sort(with)
	slices.Sort(without)
	t.Logf("%d idle connections: %d bytes of RssAnon each; set and get of another client, p99 median of %d rounds: %v with them, %v without", n, cost/n, rounds, with[rounds/2], without[rounds/2])
	if cost/n > most {
		t.Errorf("an idle connection takes %d bytes, want at most %d", cost/n, most)
	}
	// Half a millisecond is what the scheduler of a busy machine adds now and then, with or without.
	if with[rounds/2] > 2*without[rounds/2]+500*time.Microsecond && !portable { // to poll each costs something
		t.Errorf("p99 %v with idle connections, want at most twice the %v without", with, without)
	}
}
