package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/netproto/server"
)

// script has every shape of request, and its replies.
const script = "set a 5 0 3\r\nabc\r\nget a\r\nget a b a\r\nadd a 0 0 1\r\nx\r\nset b 0 0 0\r\n\r\nappend a 0 0 2\r\nde\r\nget a b\r\n" +
	"set bad 0 0 2\r\nabcd\r\nset toolong 0 0 9999999\r\n"

const scriptReply = "STORED\r\nVALUE a 5 3\r\nabc\r\nEND\r\nVALUE a 5 3\r\nabc\r\nVALUE a 5 3\r\nabc\r\nEND\r\nNOT_STORED\r\nSTORED\r\nSTORED\r\n" +
	"VALUE a 5 5\r\nabcde\r\nVALUE b 0 0\r\n\r\nEND\r\nCLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line format\r\n"

func TestAnswersAPipelineInOrder(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("set a 1 0 1\r\nx\r\nget a\r\nincr a 1\r\ndelete a\r\nget a\r\nset n 0 0 1\r\n9\r\nincr n 1\r\ndecr n 20\r\ntouch n 0\r\ntouch m 0\r\nflush_all\r\nget n\r\nversion\r\n",
		"STORED\r\nVALUE a 1 1\r\nx\r\nEND\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\nDELETED\r\nEND\r\nSTORED\r\n10\r\n0\r\nTOUCHED\r\nNOT_FOUND\r\nOK\r\nEND\r\nVERSION 1.6.42\r\n")
	c.ask("set a 0 0 1 noreply\r\nx\r\ndelete a noreply\r\nget a\r\nquit\r\nget a\r\n", "END\r\n")
	c.wantEOF()
}

// setApart sends parts so that the server sees each before the next comes: in between another connection does a round trip on the one worker.
func sendApart(c, other *client, parts ...string) {
	for _, p := range parts {
		c.send("%s", p)
		other.ask("verbosity 0\r\n", "OK\r\n")
	}
}

func TestAnswersTheSameWhereverTheInputIsSplit(t *testing.T) {
	addr := startServer(t, func(o *setup) { o.server.Threads = 1 })
	other := dial(t, addr)
	for i := 1; i < len(script); i++ {
		c := dial(t, addr)
		sendApart(c, other, "flush_all\r\n"+script[:i], script[i:])
		c.want("OK\r\n" + scriptReply)
		c.Close()
	}
	c := dial(t, addr)
	c.ask("flush_all\r\n", "OK\r\n")
	for i := range len(script) {
		sendApart(c, other, script[i:i+1])
	}
	c.want(scriptReply)
}

func TestSwallowsABlockThatIsTooLargeBeforeItAnswers(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n")
	c.send("add a 0 0 3000000\r\n")
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := c.r.ReadByte(); err == nil {
		t.Fatalf("answered %q before the block was there", b)
	}
	c.SetReadDeadline(time.Now().Add(maxWait))
	c.send("%s\r\nget a\r\n", strings.Repeat("get a\r\n\r\n\r\n", 3000000)[:3000000])
	c.want("SERVER_ERROR object too large for cache\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
	c.ask("set a 0 0 3000000 noreply\r\n"+strings.Repeat("x", 3000000)+"\r\nget a\r\n", "END\r\n")
}

func pattern(n, seed int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return string(b)
}

func TestReturnsLargeValuesByteByByte(t *testing.T) {
	c := dial(t, startServer(t))
	for i, size := range []int{1, 2047, 16383, 16384, 16385, 65536, 524288, 524289, 1<<20 - 200} {
		v := pattern(size, i)
		c.ask(fmt.Sprintf("set k%d 7 0 %d\r\n%s\r\n", i, size, v), "STORED\r\n")
		c.ask(fmt.Sprintf("get k%d none k%d\r\n", i, i), strings.Repeat(fmt.Sprintf("VALUE k%d 7 %d\r\n%s\r\n", i, size, v), 2)+"END\r\n")
	}
}

// smallBuffers makes partial writes the rule. Much smaller than this, loopback's own segments do not fit and TCP crawls.
func smallBuffers(t testing.TB, c *client) {
	if err := c.socket().SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
}

func TestSurvivesPartialWritesAnywhere(t *testing.T) {
	r := start(t, func(o *setup) { o.server.Threads = 1 })
	c := dial(t, r.addr)
	smallBuffers(t, c)
	var request, reply strings.Builder
	for i := range 60 {
		size := []int{10, 3000, 16000, 20000, 200000, 900000}[i%6]
		v := pattern(size, i)
		c.ask(fmt.Sprintf("set k%d 0 0 %d\r\n%s\r\n", i%12, size, v), "STORED\r\n")
		if i >= 48 {
			fmt.Fprintf(&request, "get k%d\r\nget k%d x k%d\r\nincr none 1\r\n", i%12, i%12, i%12)
			one := fmt.Sprintf("VALUE k%d 0 %d\r\n%s\r\n", i%12, size, v)
			reply.WriteString(one + "END\r\n" + one + one + "END\r\nNOT_FOUND\r\n")
		}
	}
	used := r.usedChunks()
	c.send("%s", request.String())
	want := reply.String()
	got := make([]byte, 0, len(want))
	for step := 1; len(got) < len(want); step = step*3%70001 + 1 { // takes the replies in pieces of all sizes
		b := make([]byte, min(step, len(want)-len(got)))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	if string(got) != want {
		t.Fatal("the bytes differ")
	}
	c.ask("version\r\n", "VERSION 1.6.42\r\n")
	until(t, "pins to be undone", func() bool { return r.usedChunks() <= used }) // less where a replaced value was not free yet
}

func TestASlowReaderKeepsItsValueAndCostsNobodyElse(t *testing.T) {
	r := start(t, func(o *setup) { o.server.Threads = 1 })
	c := dial(t, r.addr)
	size := 1000000
	v := pattern(size, 1)
	c.ask(fmt.Sprintf("set big 0 0 %d\r\n%s\r\nset small 0 0 1\r\ns\r\n", size, v), "STORED\r\nSTORED\r\n")
	var slow []*client
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 30 {
		s := dial(t, r.addr)
		smallBuffers(t, s)
		s.send("%s", strings.Repeat("get big\r\n", 50))
		slow = append(slow, s)
	}
	until(t, "all to be blocked", func() bool {
		n := 0
		for k, v := range c.stats(" conns") {
			if strings.HasSuffix(k, ":state") && v == "conn_mwrite" {
				n++
			}
		}
		return n == len(slow)
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d slow readers cost %d bytes of heap", len(slow), grown)
	}
	// Other connections of the same worker are served, and what slow readers hold is not overwritten.
	for i := range 200 {
		c.ask(fmt.Sprintf("set big 0 0 %d\r\n%s\r\nget small\r\n", size, strings.Repeat(string(rune('a'+i%26)), size)), "STORED\r\nVALUE small 0 1\r\ns\r\nEND\r\n")
	}
	slow[0].want(fmt.Sprintf("VALUE big 0 %d\r\n%s\r\nEND\r\n", size, v))
	for _, s := range slow {
		s.Close()
	}
	until(t, "the connections to be closed", func() bool { return c.stat("curr_connections") == 1 })
	c.ask("delete big\r\ndelete small\r\n", "DELETED\r\nDELETED\r\n")
	until(t, "all chunks to be free", func() bool { c.ask("version\r\n", "VERSION 1.6.42\r\n"); return r.usedChunks() == 0 })
}

func TestKeepsSmallRepliesThatDoNotGoOut(t *testing.T) {
	r := start(t)
	c, other := dial(t, r.addr), dial(t, r.addr)
	smallBuffers(t, c)
	c.ask("set k 0 0 1000\r\n"+strings.Repeat("v", 1000)+"\r\n", "STORED\r\n")
	const gets = 20000 // more than sockets take
	go io.WriteString(c, strings.Repeat("get k\r\n", gets))
	until(t, "it to be blocked", func() bool { return strings.Contains(fmt.Sprint(other.stats(" conns")), "conn_mwrite") })
	one := "VALUE k 0 1000\r\n" + strings.Repeat("v", 1000) + "\r\nEND\r\n"
	for range gets {
		c.want(one)
	}
}

func TestKeepsItsPlaceInALongMultiget(t *testing.T) {
	addr := startServer(t)
	c, other := dial(t, addr), dial(t, addr)
	c.ask("set k 0 0 100\r\n"+strings.Repeat("v", 100)+"\r\nset big 0 0 100000\r\n"+strings.Repeat("b", 100000)+"\r\n", "STORED\r\nSTORED\r\n")
	var line strings.Builder
	line.WriteString("gets")
	want := 0
	for i := range 60000 { // far over the input buffer, with far more output than sockets hold
		switch {
		case i%1000 == 7:
			line.WriteString(" big")
			want++
		case i%2 == 0:
			line.WriteString(" k")
			want++
		default:
			line.WriteString(" missing-key")
		}
	}
	go func() { io.WriteString(c, line.String()+"\r\nget k\r\n") }()
	got := 0
	for {
		l := c.line()
		if l == "END" {
			break
		}
		size := 100
		if strings.HasPrefix(l, "VALUE big ") {
			size = 100000
		} else if !strings.HasPrefix(l, "VALUE k 0 100 ") {
			t.Fatalf("value %d: %q", got, clip(l))
		}
		if _, err := c.r.Discard(size + 2); err != nil {
			t.Fatal(err)
		}
		got++
		if got%10000 == 0 { // in between others are served
			other.ask("version\r\n", "VERSION 1.6.42\r\n")
		}
	}
	if got != want {
		t.Errorf("%d values, want %d", got, want)
	}
	c.want("VALUE k 0 100\r\n" + strings.Repeat("v", 100) + "\r\nEND\r\n")
}

func TestClosesOnALineThatDoesNotEnd(t *testing.T) {
	addr := startServer(t)
	for _, head := range []string{"set ", "", "gat 0 ", strings.Repeat(" ", 101) + "get "} {
		c := dial(t, addr)
		c.send("%s", head+strings.Repeat("x", 5000))
		c.wantEOF()
	}
	c := dial(t, addr)
	c.send("get %s", strings.Repeat("k ", 20000))
	c.send("x\r\n")
	c.want("END\r\n")
}

// reset closes with RST instead of FIN.
func reset(c *client) {
	c.socket().SetLinger(0)
	c.Close()
}

func TestAResetAtAnyByteLeavesNothingBehind(t *testing.T) {
	r := start(t)
	stable := dial(t, r.addr)
	stable.ask("set a 0 0 3\r\nabc\r\nset b 0 0 100000\r\n"+strings.Repeat("b", 100000)+"\r\n", "STORED\r\nSTORED\r\n")
	used := r.usedChunks()
	script := "get a\r\nset a 0 0 3\r\nabc\r\nget b b\r\nset a 0 0 3 noreply\r\nabc\r\ntouch a 0\r\ncas a 0 0 3 1\r\nxyz\r\nadd b 0 0 4\r\nbbbb\r\n"
	for i := 1; i <= len(script); i++ {
		c := dial(t, r.addr)
		c.send("%s", script[:i])
		if i%3 == 0 && i >= len("get a\r\n") { // with a reply unread, the reset comes from both sides
			c.r.ReadByte()
		}
		reset(c)
	}
	for i := 0; i < 120000; i += 17777 { // in the middle of an upload
		c := dial(t, r.addr)
		c.send("set b 0 0 200000\r\n%s", strings.Repeat("x", i))
		reset(c)
	}
	until(t, "the connections to be closed", func() bool { return stable.stat("curr_connections") == 1 })
	stable.ask("get a\r\nget b\r\n", "VALUE a 0 3\r\nabc\r\nEND\r\nVALUE b 0 100000\r\n"+strings.Repeat("b", 100000)+"\r\nEND\r\n")
	until(t, "drafts and pins to be given back", func() bool { stable.ask("version\r\n", "VERSION 1.6.42\r\n"); return r.usedChunks() <= used })
}

func TestReadsHugeUploadsStraightIntoTheItem(t *testing.T) {
	const size = 30 << 20
	r := start(t, func(o *setup) { o.cache.MemoryLimit, o.cache.MaxItemSize = 256<<20, 32<<20 })
	c := dial(t, r.addr)
	v := pattern(size, 9)
	block := []byte(v)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send("set huge 3 0 %d\r\n", size)
	for rest := block; len(rest) > 0; {
		n := min(len(rest), 77777)
		c.Write(rest[:n])
		rest = rest[n:]
	}
	c.ask("\r\nversion\r\n", "STORED\r\nVERSION 1.6.42\r\n")
	runtime.ReadMemStats(&after)
	if !raceEnabled && after.TotalAlloc-before.TotalAlloc > 4<<20 {
		t.Errorf("an upload of %d bytes allocated %d bytes of heap", size, after.TotalAlloc-before.TotalAlloc)
	}
	c.ask("get huge\r\n", fmt.Sprintf("VALUE huge 3 %d\r\n%s\r\nEND\r\n", size, v))
}

func TestTurnsClientsAwayAtTheLimit(t *testing.T) {
	addr := startServer(t, func(o *setup) { o.server.MaxConns = 3 })
	var cs []*client
	for range 3 {
		c := dial(t, addr)
		c.ask("version\r\n", "VERSION 1.6.42\r\n")
		cs = append(cs, c)
	}
	for range 5 {
		c := dial(t, addr)
		c.want("ERROR Too many open connections\r\n")
		c.wantEOF()
	}
	st := cs[0].stats("")
	if st["rejected_connections"] != "5" || st["curr_connections"] != "3" || st["total_connections"] != "3" {
		t.Errorf("rejected %s, current %s, total %s; want 5, 3, 3", st["rejected_connections"], st["curr_connections"], st["total_connections"])
	}
	cs[2].Close()
	until(t, "a free place", func() bool { return cs[0].stat("curr_connections") == 2 })
	dial(t, addr).ask("version\r\n", "VERSION 1.6.42\r\n")
}

func TestStopsAcceptingAtTheLimitWithoutFast(t *testing.T) {
	addr := startServer(t, func(o *setup) { o.server.MaxConns, o.server.NoMaxConnsFast = 2, true })
	a, b := dial(t, addr), dial(t, addr)
	a.ask("version\r\n", "VERSION 1.6.42\r\n")
	b.ask("version\r\n", "VERSION 1.6.42\r\n")
	late := dial(t, addr)
	late.send("version\r\n")
	until(t, "accepting to be off", func() bool { return a.stats("")["accepting_conns"] == "0" })
	cpu := processTime()
	late.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := late.r.ReadByte(); err == nil {
		t.Fatal("a third client was served")
	}
	if spent := processTime() - cpu; spent > 250*time.Millisecond {
		t.Errorf("waiting for 300 ms took %v of CPU time", spent)
	}
	late.SetReadDeadline(time.Now().Add(maxWait))
	b.Close()
	late.want("VERSION 1.6.42\r\n")
	st := a.stats("")
	if st["listen_disabled_num"] != "1" || st["time_in_listen_disabled_us"] == "0" {
		t.Errorf("listen_disabled_num %s, time_in_listen_disabled_us %s; want 1 and more than 0", st["listen_disabled_num"], st["time_in_listen_disabled_us"])
	}
	if _, there := st["rejected_connections"]; there {
		t.Error("rejected_connections is shown without maxconns_fast")
	}
}

func TestRecoversFromRunningOutOfDescriptors(t *testing.T) {
	addr := startServer(t)
	c := dial(t, addr)
	c.ask("version\r\n", "VERSION 1.6.42\r\n")
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	// One descriptor is left below the limit: it goes to the client's end of a connection, and the server's end finds none.
	spare, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(spare) + 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	unix.Close(spare)
	late := dial(t, addr)
	late.send("version\r\n")
	until(t, "accepting to be off", func() bool { return c.stats("")["listen_disabled_num"] != "0" })
	cpu := processTime()
	late.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := late.r.ReadByte(); err == nil {
		t.Fatal("served without a descriptor")
	}
	if spent := processTime() - cpu; spent > 250*time.Millisecond {
		t.Errorf("waiting for 300 ms took %v of CPU time", spent)
	}
	late.SetReadDeadline(time.Now().Add(maxWait))
	unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	late.want("VERSION 1.6.42\r\n")
	if st := c.stats(""); st["accepting_conns"] != "1" {
		t.Error("accepting_conns is still 0")
	}
}

func processTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestAFloodingPipelineStarvesNobody(t *testing.T) {
	addr := startServer(t, func(o *setup) { o.server.Threads = 1 })
	flood, other := dial(t, addr), dial(t, addr)
	other.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		batch := []byte(strings.Repeat("get a\r\n", 10000))
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := flood.Write(batch); err != nil {
					return
				}
			}
		}
	})
	wg.Go(func() { io.Copy(io.Discard, flood) })
	until(t, "the flood to come and to yield", func() bool { return other.stat("conn_yields") > 0 })
	var worst time.Duration
	for range 300 {
		begin := time.Now()
		other.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
		worst = max(worst, time.Since(begin))
	}
	close(stop)
	flood.Close()
	wg.Wait()
	if worst > time.Second {
		t.Errorf("beside a flood a get took %v", worst)
	}
}

func TestCountsYieldsAsMemcachedDoes(t *testing.T) {
	addr := startServer(t)
	total := 0
	for _, step := range []struct{ requests, yields int }{{1, 0}, {19, 0}, {20, 0}, {21, 1}, {40, 1}, {41, 2}, {60, 2}} {
		c := dial(t, addr)
		c.ask(strings.Repeat("get a\r\n", step.requests), strings.Repeat("END\r\n", step.requests))
		total += step.yields
		if got := c.stat("conn_yields"); got != total {
			t.Fatalf("after %d requests at once conn_yields is %d, want %d", step.requests, got, total)
		}
	}
}

func TestHoldsThousandsOfIdleConnectionsCheaply(t *testing.T) {
	n := 2000
	var lim unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	n = min(n, int(lim.Cur)/2-100)
	addr := startServer(t, func(o *setup) { o.server.MaxConns = n + 1 })
	c := dial(t, addr)
	var before, after runtime.MemStats
	conns := make([]net.Conn, n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range conns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
		if i%2 == 0 { // half of them in the middle of a line
			io.WriteString(conn, "get incompl")
		}
	}
	until(t, "all to be there", func() bool { return c.stat("curr_connections") == n+1 })
	until(t, "their bytes to be read", func() bool { return c.stat("bytes_read") > n/2*11 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(n); per > 8<<10 {
		t.Errorf("an idle connection costs %d bytes of heap", per)
	}
	for i := 0; i < n; i += 2 {
		io.WriteString(conns[i], "ete\r\n")
	}
	for i := 0; i < n; i += 2 {
		var b [5]byte
		conns[i].SetDeadline(time.Now().Add(maxWait))
		if _, err := io.ReadFull(conns[i], b[:]); err != nil || string(b[:]) != "END\r\n" {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
}

func TestUnixSocketHasItsMaskAndReplacesALeftOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	r := start(t, func(o *setup) { o.server.UnixSocket, o.server.UnixMask = path, 0o620 })
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o620 {
		t.Errorf("the socket's mode is %v (%v), want 0620", st.Mode(), err)
	}
	if len(r.srv.Addrs()) != 1 {
		t.Errorf("listens on %v, want the socket alone", r.srv.Addrs())
	}
	c := dial(t, path)
	c.ask("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
	if set := c.stats(" settings"); set["domain_socket"] != path || set["umask"] != "620" || set["tcpport"] != "0" {
		t.Errorf("stats settings: domain_socket %s, umask %s, tcpport %s", set["domain_socket"], set["umask"], set["tcpport"])
	}
}

func TestDoesNotRemoveAFileThatIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := server.New(nil, server.Options{UnixSocket: path})
	if want := "failed to listen on UNIX socket: " + path + ": Address already in use"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if b, _ := os.ReadFile(path); string(b) != "data" {
		t.Error("the file is gone")
	}
}

func TestListensOnEachAddress(t *testing.T) {
	r := start(t, func(o *setup) { o.server.Listen = []string{"127.0.0.1", "127.0.0.2:0", "[::1]:0"} })
	if len(r.srv.Addrs()) != 3 {
		t.Fatalf("listens on %v, want three addresses", r.srv.Addrs())
	}
	dial(t, r.srv.Addrs()[0].String()).ask("set a 0 0 1\r\nx\r\n", "STORED\r\n")
	for _, a := range r.srv.Addrs()[1:] {
		dial(t, a.String()).ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	}
	r = start(t, func(o *setup) { o.server.Listen = nil }) // all addresses of all families, each with a port of its own
	for _, a := range r.srv.Addrs() {
		host := "127.0.0.1"
		if a.(*net.TCPAddr).IP.To4() == nil {
			host = "::1"
		}
		dial(t, net.JoinHostPort(host, fmt.Sprint(a.(*net.TCPAddr).Port))).ask("get a\r\n", "END\r\n")
	}
}

func TestEachListenerHasItsProtocol(t *testing.T) {
	const noop, answer = "\x80\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x81\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	entries := []string{"127.0.0.1", "proto[ascii]:127.0.0.1", "proto[b]:tag_x_:127.0.0.1:0", "proto[negotiating]:tag[yy]:127.0.0.1", "proto[what]:127.0.0.1:0"}
	r := start(t, func(o *setup) { o.server.Listen, o.server.Protocol = entries, server.ProtocolBinary })
	for i, want := range []struct{ text, binary bool }{{false, true}, {true, false}, {false, true}, {true, true}, {false, true}} {
		addr := r.srv.Addrs()[i].String()
		if text := dial(t, addr); want.text {
			text.ask("get a\r\n", "END\r\n")
		} else {
			text.send("get aaaaaaaaaaaaaaaaaaaaaaaa\r\n")
			text.wantEOF()
		}
		if binary := dial(t, addr); want.binary {
			binary.ask(noop, answer)
		} else {
			binary.ask(noop+"\r\n", "CLIENT_ERROR bad command line format\r\n") // 0x0a, the opcode, ends a line
		}
	}
}

func TestSaysWhyItCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	files := openFiles(t)
	for _, test := range []struct {
		o    server.Options
		want string
	}{
		{server.Options{Listen: []string{addr}}, "failed to listen on one of interface(s) " + addr + ": Address already in use"},
		{server.Options{Listen: []string{"127.0.0.1:0", addr}}, "failed to listen on one of interface(s) 127.0.0.1:0," + addr + ": Address already in use"},
		{server.Options{Listen: []string{"192.0.2.1:0"}}, "failed to listen on one of interface(s) 192.0.2.1:0: Cannot assign requested address"},
		{server.Options{Listen: []string{"127.0.0.1:x"}}, `failed to listen on one of interface(s) 127.0.0.1:x: Invalid port number: "x"`},
		{server.Options{Listen: []string{"[::1"}}, `failed to listen on one of interface(s) [::1: Invalid IPV6 address: "[::1"`},
		{server.Options{Listen: []string{"proto[ascii:127.0.0.1"}}, "Invalid protocol spec: \"[ascii:127.0.0.1\"\nfailed to listen on one of interface(s) proto[ascii:127.0.0.1"},
		{server.Options{Listen: []string{"tag_x:127.0.0.1"}}, "Invalid tag in socket config: \"tag_x:127.0.0.1\"\nfailed to listen on one of interface(s) tag_x:127.0.0.1"},
		{server.Options{Listen: []string{"proto[binary]:*"}, Auth: server.NewAuthFile("/x")},
			"cannot use the binary protocol with ascii authentication: \"proto[binary]:*\"\nfailed to listen on one of interface(s) proto[binary]:*"},
		{server.Options{Listen: []string{"proto[ascii]:*"}, SASL: server.NewAuthFile("/x")},
			"cannot use the ascii protocol with SASL authentication: \"proto[ascii]:*\"\nfailed to listen on one of interface(s) proto[ascii]:*"},
		{server.Options{UnixSocket: "/nonexistent/s"}, "failed to listen on UNIX socket: /nonexistent/s: No such file or directory"},
		{server.Options{Threads: -1}, "server: options: -t -1, -c 1024, -R 20, -b 1024: want positive numbers"},
	} {
		_, err := server.New(nil, test.o)
		if err == nil || err.Error() != test.want {
			t.Errorf("%v: got %v, want %s", test.o.Listen, err, test.want)
		}
	}
	port := taken.Addr().(*net.TCPAddr).Port
	all, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port+0))
	if err == nil { // with both families taken nothing is left
		defer all.Close()
	}
	if now := openFiles(t); now > files+1 {
		t.Errorf("failed starts left %d descriptors open", now-files)
	}
}

func TestAGracefulStopAnswersWhatWasRead(t *testing.T) {
	r := start(t, func(o *setup) { o.server.Threads = 1 })
	c, idle, upload := dial(t, r.addr), dial(t, r.addr), dial(t, r.addr)
	size := 900000
	v := pattern(size, 3)
	c.ask(fmt.Sprintf("set big 0 0 %d\r\n%s\r\n", size, v), "STORED\r\n")
	used := r.usedChunks()
	idle.ask("version\r\n", "VERSION 1.6.42\r\n")
	upload.send("set half 0 0 1000\r\nhalf")
	smallBuffers(t, c)
	c.send("%s", strings.Repeat("get big\r\n", 5)+"incr none 1\r\n") // blocked in the middle of the first or second value
	until(t, "it to be blocked", func() bool {
		for k, v := range idle.stats(" conns") {
			if strings.HasSuffix(k, ":state") && v == "conn_mwrite" {
				return true
			}
		}
		return false
	})
	r.cancel()
	idle.wantEOF()
	upload.wantEOF()
	if conn, err := net.Dial("tcp", r.addr); err == nil {
		conn.SetDeadline(time.Now().Add(maxWait))
		io.WriteString(conn, "version\r\n")
		if b, _ := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("a new client was answered %q during the stop", b)
		}
		conn.Close()
	}
	one := fmt.Sprintf("VALUE big 0 %d\r\n%s\r\nEND\r\n", size, v)
	c.want(strings.Repeat(one, 5) + "NOT_FOUND\r\n")
	c.wantEOF()
	if err := r.stop(); err != nil {
		t.Errorf("Serve returned %v after its context ended", err)
	}
	if got := r.usedChunks(); got != used {
		t.Errorf("%d chunks are used after the stop, want %d", got, used)
	}
}

func TestAStopIsImmediateWhenNothingIsPending(t *testing.T) {
	r := start(t)
	for range 20 {
		dial(t, r.addr).ask("version\r\n", "VERSION 1.6.42\r\n")
	}
	begin := time.Now()
	r.stop()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestAStopDoesNotWaitForeverForAReader(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the stop's timeout")
	}
	r := start(t)
	c := dial(t, r.addr)
	c.ask("set big 0 0 1000000\r\n"+strings.Repeat("x", 1000000)+"\r\n", "STORED\r\n")
	smallBuffers(t, c)
	c.send("%s", strings.Repeat("get big\r\n", 50))
	other := dial(t, r.addr)
	until(t, "it to be blocked", func() bool { return strings.Contains(fmt.Sprint(other.stats(" conns")), "conn_mwrite") })
	begin := time.Now()
	r.stop()
	if took := time.Since(begin); took < 3*time.Second || took > 7*time.Second {
		t.Errorf("the stop took %v, want about 5 s", took)
	}
}

func TestShutdownCommand(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("shutdown\r\nshutdown graceful\r\n", "SERVER_ERROR: shutdown not enabled\r\nSERVER_ERROR: shutdown not enabled\r\n")
	for _, command := range []string{"shutdown\r\n", "shutdown graceful\r\n"} {
		r := start(t, func(o *setup) { o.server.EnableShutdown = true })
		c := dial(t, r.addr)
		c.ask("shutdown now\r\n", "CLIENT_ERROR invalid shutdown mode\r\n")
		c.send("%s", command)
		c.wantEOF()
		if err := <-r.ended; !errors.Is(err, server.ErrShutdown) {
			t.Errorf("Serve returned %v, want ErrShutdown", err)
		}
		r.ended <- nil
	}
}

func TestRefusesFlushAllWhenDisabled(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) { o.server.DisableFlushAll = true }))
	c.ask("set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\n", "STORED\r\nCLIENT_ERROR flush_all not allowed\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
}

// roundTrip sends request and reads as many bytes as the reply has, without allocating.
func roundTrip(t *testing.T, fd int, request, reply, buf []byte) {
	if n, err := unix.Write(fd, request); n != len(request) {
		t.Fatal(err)
	}
	for got := 0; got < len(reply); {
		n, err := unix.Read(fd, buf[got:len(reply)])
		if n <= 0 {
			t.Fatal(err)
		}
		got += n
	}
	if !bytes.Equal(buf[:len(reply)], reply) {
		t.Fatalf("got %q, want %q", buf[:len(reply)], reply)
	}
}

func TestRequestsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	addr := startServer(t, func(o *setup) { o.server.Threads = 1 })
	c := dial(t, addr)
	c.ask("set a 0 0 10\r\n0123456789\r\nset big 0 0 50000\r\n"+strings.Repeat("b", 50000)+"\r\n", "STORED\r\nSTORED\r\n")
	raw, err := c.socket().File() // blocking, outside Go's poller
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	fd := int(raw.Fd())
	unix.SetNonblock(fd, false)
	value := "VALUE a 0 10\r\n0123456789\r\n"
	big := "VALUE big 0 50000\r\n" + strings.Repeat("b", 50000) + "\r\nEND\r\n"
	buf := make([]byte, 1<<17)
	for _, test := range []struct{ name, request, reply string }{
		{"get", "get a\r\n", value + "END\r\n"},
		{"multiget", "get a b a c a\r\n", value + value + value + "END\r\n"},
		{"large get", "get big\r\n", big},
		{"set", "set a 0 0 10\r\n0123456789\r\n", "STORED\r\n"},
		{"pipeline", strings.Repeat("get a\r\n", 50), strings.Repeat(value+"END\r\n", 50)},
		{"mg", "mg a v t f k O1\r\n", "VA 10 t-1 f0 ka O1\r\n0123456789\r\n"},
		{"ms", "ms a 10 k O1\r\n0123456789\r\n", "HD ka O1\r\n"},
		{"error", "nonsense\r\n", "ERROR\r\n"},
	} {
		request, reply := []byte(test.request), []byte(test.reply)
		run := func(n int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				roundTrip(t, fd, request, reply, buf)
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		run(100)
		const rounds = 2000
		if n := run(rounds); n > rounds/2 && !(server.Portable && test.name == "large get") { // the runtime, and what the cache does in the background, allocate a little on their own
			t.Errorf("%s: %d allocations in %d requests", test.name, n, rounds)
		}
	}
}

func TestStatsHaveTheKeysThatDashboardsChart(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) { o.server.HearthVersion = "1.2.3" }))
	c.ask("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
	c.send("stats\r\n")
	var keys []string
	for {
		l := c.line()
		if l == "END" {
			break
		}
		keys = append(keys, strings.Fields(l)[1])
	}
	memcached, err := os.ReadFile("testdata/stats-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(memcached))
	if len(keys) < len(want) || strings.Join(keys[:len(want)], " ") != strings.Join(want, " ") {
		t.Errorf("stats has the keys %v, want memcached's first: %v", keys, want)
	}
	st := c.stats("")
	for key, value := range map[string]string{"pid": fmt.Sprint(os.Getpid()), "version": "1.6.42", "curr_connections": "1", "cmd_get": "1", "cmd_set": "1", "get_hits": "1",
		"curr_items": "1", "threads": "2", "hearth_version": "1.2.3", "bytes_written": "", "restart_kind": "cold"} {
		if got, there := st[key]; !there || value != "" && got != value {
			t.Errorf("stat %s is %q, want %q", key, got, value)
		}
	}
	settings, err := os.ReadFile("testdata/settings-keys.txt")
	if err != nil {
		t.Fatal(err)
	}
	have := c.stats(" settings")
	for _, key := range strings.Fields(string(settings)) {
		if _, there := have[key]; !there {
			t.Errorf("stats settings lacks %s", key)
		}
	}
}

func TestStatsSubcommandsMatchWholeWords(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("stats r\r\nstats reset\r\nstats nonsense\r\nstats sizes\r\nstats detail\r\nstats cachedump\r\nstats cachedump 1 x\r\nstats cachedump 99 1\r\n",
		"ERROR\r\nRESET\r\nERROR\r\nSTAT sizes_status disabled\r\nEND\r\nCLIENT_ERROR usage: stats detail on|off|dump\r\nCLIENT_ERROR bad command line\r\n"+
			"CLIENT_ERROR bad command line format\r\nCLIENT_ERROR Illegal slab id\r\n")
}

func TestStatsResetZeroesCounters(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask(strings.Repeat("get a\r\n", 50), strings.Repeat("END\r\n", 50))
	if st := c.stats(""); st["conn_yields"] != "2" || st["cmd_get"] != "50" || st["total_connections"] != "1" {
		t.Errorf("before: conn_yields %s, cmd_get %s, total_connections %s", st["conn_yields"], st["cmd_get"], st["total_connections"])
	}
	c.ask("stats reset\r\n", "RESET\r\n")
	if st := c.stats(""); st["conn_yields"] != "0" || st["cmd_get"] != "0" || st["total_connections"] != "0" || st["curr_connections"] != "1" {
		t.Errorf("after: conn_yields %s, cmd_get %s, total_connections %s, curr_connections %s", st["conn_yields"], st["cmd_get"], st["total_connections"], st["curr_connections"])
	}
}

func TestStatsDetailCountsByPrefix(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("set a:1 0 0 1\r\nx\r\nstats detail dump\r\nstats detail on\r\n", "STORED\r\nEND\r\nOK\r\n")
	c.ask("set a:1 0 0 1\r\nx\r\nget a:1 a:2 b:1 plain\r\ndelete a:1\r\nstats detail dump\r\nstats detail off\r\nget a:1\r\nstats detail dump\r\n",
		"STORED\r\nVALUE a:1 0 1\r\nx\r\nEND\r\nDELETED\r\nPREFIX a get 2 hit 1 set 1 del 1\r\nPREFIX b get 1 hit 0 set 0 del 0\r\nEND\r\nOK\r\nEND\r\n"+
			"PREFIX a get 2 hit 1 set 1 del 1\r\nPREFIX b get 1 hit 0 set 0 del 0\r\nEND\r\n")
}

func TestManyClientsAtOnce(t *testing.T) {
	addr := startServer(t, func(o *setup) { o.server.Threads = 4 })
	var wg sync.WaitGroup
	for i := range 16 {
		c := dial(t, addr)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for n := range 200 {
				key, v := fmt.Sprintf("k%d-%d", i, n%7), pattern(r.IntN(3)*r.IntN(20000), n)
				if _, err := fmt.Fprintf(c, "set %s %d 0 %d\r\n%s\r\nget %s\r\n", key, i, len(v), v, key); err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprintf("STORED\r\nVALUE %s %d %d\r\n%s\r\nEND\r\n", key, i, len(v), v)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
					t.Errorf("client %d: got %q (%v), want %q", i, clip(string(got)), err, clip(want))
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMain lets the fault test run a server in a process of its own, since a fault must end the process.
func TestMain(m *testing.M) {
	if path := os.Getenv("HEARTH_TEST_FAULT_FILE"); path != "" {
		os.Exit(faultingServer(path))
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil { // Go's own poller opens descriptors the first time, and keeps them
		l.Close()
	}
	os.Exit(m.Run())
}

// The definition of "as in memcached".
func TestAnswersAsMemcachedDoes(t *testing.T) {
	for _, threads := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			RunTranscripts(t, startServer(t, func(o *setup) { o.server.Threads = threads }))
		})
	}
}

func TestRowsAreThoseOfStats(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
	for _, name := range []string{"", "settings", "items", "slabs", "workers", "latency"} {
		told := c.stats(strings.TrimRight(" "+name, " "))
		n := 0
		if !r.srv.Rows(name, func(row, value string) {
			n++
			switch want, ok := told[row]; {
			case !ok:
				t.Errorf("stats %s has no row %s", name, row)
			case name == "latency" || strings.HasPrefix(row, "bytes") || strings.Contains(row, ":bytes_") || strings.Contains(row, "cpu_us") || strings.HasPrefix(row, "rusage"):
			case row == "time" || row == "uptime" || strings.Contains(row, "juggles") || strings.Contains(row, "crawler") || strings.Contains(row, "moves_to") || strings.Contains(row, "number_") || strings.Contains(row, "age"):
			case value != want:
				t.Errorf("stats %s: %s is %q, Rows say %q", name, row, want, value)
			}
		}) || n != len(told) || n == 0 {
			t.Errorf("stats %s: %d rows, want %d", name, n, len(told))
		}
	}
	for _, name := range []string{"reset", "detail", "cachedump", "no such"} {
		if r.srv.Rows(name, func(row, _ string) { t.Errorf("%q: row %s", name, row) }) {
			t.Errorf("there are rows of %q", name)
		}
	}
}

func TestStatsWorkersTellTheLoadOfEach(t *testing.T) {
	r := start(t) // with two workers, which take connections in turn
	a, b := dial(t, r.addr), dial(t, r.addr)
	b.ask("mn\r\n", "MN\r\n")
	for range 200 {
		b.ask("get nothing\r\n", "END\r\n")
	}
	st := a.stats(" workers")
	if st["0:curr_connections"] != "1" || st["1:curr_connections"] != "1" || st["1:bytes_read"] != fmt.Sprint(len("mn\r\n")+200*len("get nothing\r\n")) || st["2:bytes_read"] != "" {
		t.Errorf("%v", st)
	}
	if us, err := strconv.Atoi(st["1:cpu_us"]); err != nil || us == 0 && !server.Portable {
		t.Errorf("the busy worker took no processor time: %v", st)
	}
	b.Close()
	until(t, "the connection to be gone", func() bool { return a.stats(" workers")["1:curr_connections"] == "0" })
}

func TestStatsLatencyCountsEachRequestOnce(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("set a 0 0 1\r\nx\r\nset n 0 0 1 noreply\r\n1\r\nget a\r\nget a n none\r\ngat 9 a\r\nincr n 1\r\ndecr n 1 noreply\r\ntouch a 9\r\ndelete a\r\nms b 1\r\nx\r\nmg b\r\nma n\r\nmd b\r\nmn\r\nbad\r\n",
		"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\nVALUE a 0 1\r\nx\r\nVALUE n 0 1\r\n1\r\nEND\r\nVALUE a 0 1\r\nx\r\nEND\r\n2\r\nTOUCHED\r\nDELETED\r\nHD\r\nHD\r\nHD\r\nHD\r\nMN\r\nERROR\r\n")
	b := dial(t, r.addr)
	io.WriteString(b, "\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00n"+ // get
		"\x80\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // noop
	if _, err := io.ReadFull(b.r, make([]byte, 24+4+1+24)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"get": "5", "set": "3", "delete": "2", "arithmetic": "3", "touch": "1"}
	var st map[string]string
	until(t, "the iterations to end", func() bool { // what a reply tells is counted just after it
		st = c.stats(" latency")
		return st["get:count"] == want["get"]
	})
	for kind, n := range want {
		if st[kind+":count"] != n || st[kind+":under_8388608us"] != n {
			t.Errorf("%s: %s, of which %s within 8 s, want %s", kind, st[kind+":count"], st[kind+":under_8388608us"], n)
		}
	}
	number := func(name string) float64 {
		n, err := strconv.ParseFloat(st[name], 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	for kind := range want {
		last := 0.0
		for octave := range 24 {
			n := number(fmt.Sprintf("%s:under_%dus", kind, 1<<octave))
			if n < last {
				t.Errorf("%s: fewer under %d us than under half of it", kind, 1<<octave)
			}
			last = n
		}
		p50, p99, most, sum := number(kind+":p50_us"), number(kind+":p99_us"), number(kind+":max_us"), number(kind+":sum_us")
		if p50 <= 0 || p50 > p99 || p99 > most || sum <= 0 || sum > most*number(kind+":count") {
			t.Errorf("%s: half in %v us, 99 of 100 in %v, all in %v, all together %v", kind, p50, p99, most, sum)
		}
	}
	c.ask("stats reset\r\n", "RESET\r\n")
	if st = c.stats(" latency"); st["get:count"] != "0" || st["get:max_us"] != "0.000" {
		t.Errorf("after a reset: %v", st)
	}
}

// What a slow client takes to send its data block, or to read a value, is no latency of the server's.
func TestSlowClientsMakeNoRequestSlow(t *testing.T) {
	r := start(t)
	c, other := dial(t, r.addr), dial(t, r.addr)
	c.send("set a 0 0 10\r\n01234")
	began := time.Now()
	until(t, "a good while to pass in which others are served", func() bool {
		other.ask("mn\r\n", "MN\r\n")
		return time.Since(began) > 200*time.Millisecond
	})
	c.ask("56789\r\n", "STORED\r\n")
	var st map[string]string
	until(t, "the iteration to end", func() bool { st = c.stats(" latency"); return st["set:count"] == "1" })
	if us, _ := strconv.ParseFloat(st["set:max_us"], 64); us <= 0 || us >= float64(time.Since(began).Microseconds()) {
		t.Errorf("the set took %v us, its client %v", us, time.Since(began))
	}
}
