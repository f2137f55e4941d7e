package server_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth"
	"hearth/netproto"
	"hearth/netproto/server"
)

// allKinds are the kinds that Debian's memcached knows.
const allKinds = "watch fetchers mutations evictions connevents\r\n"

// watch opens a connection that watches.
func watch(t testing.TB, addr, command string) *client {
	t.Helper()
	w := dial(t, addr)
	w.ask(command, "OK\r\n")
	return w
}

var (
	logHead   = regexp.MustCompile(`^ts=\d+\.\d{1,6} gid=(\d+) `)
	logVaries = regexp.MustCompile(` (cfd|rport|la)=-?\d+| (clsid)=[1-9]\d*`)
	pastTTL   = regexp.MustCompile(` ttl=(-1|4294\d{6})\b`) // memcached's wraps around
)

// logged reads lines until one about the lookup of the key `end`, which the caller has made, and masks what differs between servers. Numbers must rise.
func (c *client) logged(last *uint64) (lines []string) {
	c.t.Helper()
	for {
		l := strings.TrimSuffix(c.line(), "\n")
		head := logHead.FindStringSubmatch(l)
		if head == nil {
			c.t.Fatalf("log line %q", l)
		}
		if gid, _ := strconv.ParseUint(head[1], 10, 64); gid <= *last {
			c.t.Fatalf("gid %d behind %d", gid, *last)
		} else {
			*last = gid
		}
		l = l[len(head[0]):]
		if strings.Contains(l, " key=end ") {
			return lines
		}
		if strings.Contains(l, "=too_large ") { // 1.6.18 prints the descriptor for the class and what is on its stack for the descriptor
			l = strings.Replace(l, " clsid=0 ", " clsid= ", 1)
		}
		lines = append(lines, pastTTL.ReplaceAllString(logVaries.ReplaceAllString(l, " $1$2="), " ttl=past"))
	}
}

// noMaintainer makes what is over stay until it is looked for: nobody looks at the end of COLD.
func noMaintainer(s *setup) { s.cache.LRU.Flat = true }

// watchSession is what is done, step by step, on one connection.
var watchSession = []string{
	"get a\r\nget a b\r\n",
	"set a 0 0 1\r\nx\r\n",
	"get a\r\ngets a b\r\n",
	"set a 5 100 2 noreply\r\nxx\r\n",
	"add a 0 0 1\r\nx\r\nadd b 0 0 1\r\nx\r\n",
	"replace a 0 0 1\r\nx\r\nreplace zz 0 0 1\r\nx\r\n",
	"append a 0 50 1\r\ny\r\nappend zz 0 0 1\r\ny\r\nprepend a 0 0 1\r\ny\r\n",
	"cas a 0 0 1 5\r\ny\r\ncas zz 0 0 1 5\r\ny\r\n",
	"set kept 0 1000 1\r\nx\r\nappend kept 0 0 1\r\ny\r\n",
	"touch a 100\r\ntouch zz 0\r\ngat 100 a zz\r\ngats 100 a\r\n",
	"set n 0 0 1\r\n5\r\nincr n 1\r\nincr n 10\r\ndecr n 10\r\nincr a 1\r\nincr zz 1\r\n",
	"delete a\r\ndelete a\r\n",
	"set a%b/\x01 0 0 1\r\nx\r\n",
	"set n 0 0 2\r\nxyz\r\nset bad x 0 1\r\nx\r\n",
	"set e 0 -1 1\r\nx\r\n",
	"get e\r\n",
	"add e2 0 -1 1\r\nx\r\nmg e2 v\r\n",
	"add e3 0 -1 1\r\nx\r\ntouch e3 5\r\n",
	"add e4 0 -1 1\r\nx\r\ndelete e4\r\n",
	"add e5 0 -1 1\r\nx\r\nincr e5 1\r\n",
	"mg n v\r\nmg n u q v\r\nmg zz v q\r\nmg viv N30 v\r\nmg viv v\r\nmg n T30 v\r\n",
	"ms m 1\r\nx\r\nms m 1 T100\r\nx\r\nms m 1 ME\r\nx\r\nms m 1 MA\r\nx\r\nms m 1 MP q\r\nx\r\nms zz 1 MR\r\nx\r\nms m 1 MR\r\nx\r\n",
	"ms m 1 C1\r\nx\r\nms m 1 C1 I\r\nx\r\nms zz 1 C1\r\nx\r\n",
	"md m I T30\r\nmd m C5\r\nmd m\r\nmd m\r\nmd n q\r\n",
	"ma ctr N0 J5\r\nma ctr\r\nma ctr D100\r\nma ctr MD q\r\nma zz\r\nma ctr C1\r\nme ctr\r\nme zz\r\n",
	"ms AGI= 3 b\r\nabc\r\nmg AGI= b v\r\nmg AGI= b T20\r\nmd AGI= b\r\n",
	"verbosity 0\r\nversion\r\nmn\r\nnonsense\r\n",
}

// runWatched plays the steps on one connection, and says what was logged for each.
func runWatched(t *testing.T, addr string, steps []string) (logs []string) {
	w := watch(t, addr, allKinds)
	c := dial(t, addr)
	var last uint64
	if l := w.line(); !strings.Contains(l, " type=conn_new ") {
		t.Fatalf("a new connection logs %q", l)
	}
	for _, s := range steps {
		c.send("%s", s+"get end\r\n")
		logs = append(logs, strings.Join(w.logged(&last), "\n"))
	}
	return logs
}

// TestWatchLinesAreMemcacheds compares with the memcached of this machine; without one, only that lines come.
func TestWatchLinesAreMemcacheds(t *testing.T) {
	oracle := startMemcached(t, "-o", "no_lru_maintainer,no_lru_crawler")
	if oracle == "" {
		t.Skip("no memcached on this machine")
	}
	steps := append(watchSession, "set a 0 0 1\r\nx\r\nset a 0 0 2000000\r\n"+strings.Repeat("x", 2000002), "add a 0 0 2000000 noreply\r\n"+strings.Repeat("x", 2000002))
	ours, theirs := runWatched(t, startServer(t, noMaintainer), steps), runWatched(t, oracle, steps)
	for i, s := range steps {
		if ours[i] != theirs[i] {
			t.Errorf("%q logs\n%s\nwant\n%s", clip(s), ours[i], theirs[i])
		}
	}
}

func TestWatchBinaryLinesAreMemcacheds(t *testing.T) {
	oracle := startMemcached(t, "-o", "no_lru_maintainer,no_lru_crawler")
	if oracle == "" {
		t.Skip("no memcached on this machine")
	}
	store := func(op netproto.Opcode, key, value string) packet {
		return packet{op: op, ext: flagsFor(0, 1000), key: key, value: value}
	}
	set, add, replace := netproto.OpSet, netproto.OpAdd, netproto.OpReplace
	steps := [][]packet{
		{store(set, "k", "v"), keyPacket(netproto.OpGet, "k"), keyPacket(0x09, "q"), keyPacket(netproto.OpGetK, "k")},
		{store(add, "k", "v"), store(replace, "k", "vv"), store(replace, "q", "vv")},
		{store(set, "k", "v").withCAS(99999), store(set, "q", "v").withCAS(99999), store(add, "q", "v").withCAS(99999)},
		{{op: netproto.OpAppend, key: "k", value: "zz"}, {op: netproto.OpAppend, key: "q", value: "zz"}, {op: netproto.OpPrepend, key: "k", value: "zz"}},
		{{op: netproto.OpTouch, ext: be(uint32(1000)), key: "k"}, {op: netproto.OpTouch, ext: be(uint32(1000)), key: "q"}, {op: netproto.OpGat, ext: be(uint32(0)), key: "k"}},
		{{op: netproto.OpIncr, ext: counting(1, 5, 1000), key: "n"}, {op: netproto.OpDecr, ext: counting(1, 5, 1000), key: "n"}, {op: netproto.OpIncr, ext: counting(1, 5, netproto.NoCreate), key: "nn"}},
		{keyPacket(netproto.OpDelete, "k").withCAS(99999), keyPacket(netproto.OpDelete, "k"), keyPacket(netproto.OpDelete, "k")},
		{store(0x11, "k", "v"), keyPacket(0x14, "k")},
	}
	run := func(addr string) (logs []string) {
		w := watch(t, addr, "watch fetchers mutations\r\n")
		c := dial(t, addr)
		var last uint64
		for _, s := range steps {
			c.sendPackets(append(s, keyPacket(netproto.OpGet, "end"))...)
			logs = append(logs, strings.Join(w.logged(&last), "\n"))
		}
		return logs
	}
	ours, theirs := run(startServer(t, noMaintainer)), run(oracle)
	for i, s := range steps {
		if ours[i] != theirs[i] {
			t.Errorf("%v logs\n%s\nwant\n%s", s, ours[i], theirs[i])
		}
	}
}

// TestWatchShowsWhatIsNewerThanTheOracle holds the lines and details that 1.6.18 does not have, or has wrong.
func TestWatchShowsWhatIsNewerThanTheOracle(t *testing.T) {
	addr := startServer(t, noMaintainer)
	c := dial(t, addr)
	w := watch(t, addr, "watch deletions mutations fetchers\r\n")
	cfd := fmt.Sprintf(" cfd=%s ", fdOf(c))
	for _, s := range []struct {
		send string
		want []string
	}{
		{"set a 0 0 3\r\nabc\r\n", []string{"type=item_get key=a status=not_found clsid=0" + cfd + "size=0", "type=item_store key=a status=stored cmd=set ttl=0 clsid=1" + cfd + "size=3"}},
		{"delete a\r\n", []string{"type=item_get key=a status=found clsid=1" + cfd + "size=3", "type=deleted key=a cmd=delete clsid=1 size=3"}},
		{"delete a noreply\r\n", []string{"type=item_get key=a status=not_found clsid=0" + cfd + "size=0"}},
		{"ms b 1 T100\r\nx\r\n", []string{"type=item_get key=b status=not_found clsid=0" + cfd + "size=0", "type=item_store key=b status=stored cmd=set ttl=100 clsid=1" + cfd + "size=1"}},
		{"md b I\r\nmd b q\r\n", []string{"type=item_get key=b status=found clsid=1" + cfd + "size=1", "type=item_get key=b status=found clsid=1" + cfd + "size=1", "type=deleted key=b cmd=md clsid=1 size=1"}},
		{"ms j 1 MA N60\r\nx\r\n", []string{"type=item_get key=j status=not_found clsid=0" + cfd + "size=0", "type=item_store key=j status=stored cmd=append ttl=60 clsid=1" + cfd + "size=1"}},
		{"ma i N60 J7\r\n", []string{"type=item_get key=i status=not_found clsid=0" + cfd + "size=0", "type=item_get key=i status=not_found clsid=0" + cfd + "size=0",
			"type=item_store key=i status=stored cmd=add ttl=60 clsid=1" + cfd + "size=1"}},
		{"set p 0 -1 1\r\nx\r\nset p 0 0 1\r\nx\r\n", []string{"type=item_get key=p status=not_found clsid=0" + cfd + "size=0", "type=item_store key=p status=stored cmd=set ttl=-1 clsid=1" + cfd + "size=1",
			"type=item_get key=p status=expired clsid=0" + cfd + "size=0", "type=item_store key=p status=stored cmd=set ttl=0 clsid=1" + cfd + "size=1"}},
		{"flush_all\r\nget p\r\nget p\r\n", []string{"type=item_get key=p status=flushed clsid=0" + cfd + "size=0", "type=item_get key=p status=not_found clsid=0" + cfd + "size=0"}},
		{"set o 0 0 1\r\nx\r\nset o 0 0 2000000\r\n" + strings.Repeat("x", 2000002), []string{"type=item_get key=o status=not_found clsid=0" + cfd + "size=0",
			"type=item_store key=o status=stored cmd=set ttl=0 clsid=1" + cfd + "size=1", "type=item_store key=o status=too_large cmd=set ttl=0 clsid=0" + cfd + "size=0",
			"type=item_get key=o status=found clsid=1" + cfd + "size=1"}},
		{"ms l 2000000 MA\r\n" + strings.Repeat("x", 2000002), []string{"type=item_store key=l status=too_large cmd=append ttl=0 clsid=0" + cfd + "size=0", "type=item_get key=l status=not_found clsid=0" + cfd + "size=0"}},
		{"add l 0 0 2000000\r\n" + strings.Repeat("x", 2000002), []string{"type=item_store key=l status=too_large cmd=add ttl=0 clsid=0" + cfd + "size=0"}},
	} {
		c.send("%s", s.send)
		for _, want := range s.want {
			l := strings.TrimSuffix(w.line(), "\n")
			if got := l[len(logHead.FindString(l)):]; got != want {
				t.Fatalf("%q logs %q, want %q", clip(s.send), got, want)
			}
		}
	}
	b := dial(t, addr)
	b.sendPackets(setPacket(netproto.OpSet, "k", strings.Repeat("v", 2000000)))
	if l := w.line(); !strings.Contains(l, " type=item_store key=k status=too_large cmd=null ttl=0 clsid=0 cfd="+fdOf(b)+" size=0\n") { // here 1.6.18 dies
		t.Errorf("a packet that is too large logs %q", l)
	}
}

// fdOf returns the server's descriptor of a connection to a server in this process: the one whose peer is the connection's own address.
func fdOf(c *client) string {
	return c.serverFD(c.LocalAddr().String())
}

func (c *client) serverFD(addr string) string {
	s := dial(c.t, c.RemoteAddr().String())
	defer s.Close()
	for name, value := range s.stats(" conns") {
		if value == "tcp:"+addr && strings.HasSuffix(name, ":addr") {
			return strings.TrimSuffix(name, ":addr")
		}
	}
	c.t.Fatalf("the server does not know a connection from %s", c.LocalAddr())
	return ""
}

func TestWatchTellsOfConnections(t *testing.T) {
	r := start(t, func(s *setup) { s.server.IdleTimeout, s.server.EnableShutdown = 1, true })
	w := watch(t, r.addr, "watch connevents\r\n")
	open := func() (c *client, who string) {
		c = dial(t, r.addr)
		port := c.LocalAddr().(*net.TCPAddr).Port
		l := w.line()
		m := regexp.MustCompile(fmt.Sprintf(` type=conn_new rip=127.0.0.1 rport=%d transport=tcp cfd=(\d+)\n$`, port)).FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("a connection from port %d logs %q", port, l)
		}
		return c, fmt.Sprintf("rip=127.0.0.1 rport=%d transport=tcp reason=%%s cfd=%s\n", port, m[1])
	}
	closes := func(who, reason string) {
		t.Helper()
		if l, want := w.line(), " type=conn_close "+fmt.Sprintf(who, reason); !strings.HasSuffix(l, want) {
			t.Fatalf("got %q, want %q", l, want)
		}
	}
	c, who := open()
	c.send("quit\r\n")
	closes(who, "normal")
	c, who = open()
	c.Close()
	closes(who, "normal")
	c, who = open()
	c.send("POST / HTTP/1.1\r\n")
	closes(who, "error")
	c, who = open()
	c.send("%s", strings.Repeat("x", 3000))
	closes(who, "error")
	c, who = open()
	c.sendPackets(packet{op: netproto.OpQuit})
	closes(who, "normal")
	c, who = open()
	c.send("get a")
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	if l := w.line(); !regexp.MustCompile(` type=connerr fd=\d+ msg=Connection reset by peer\n$`).MatchString(l) {
		t.Fatalf("a reset logs %q", l)
	}
	closes(who, "error")
	_, who = open()
	until(t, "the idle connection is closed", func() bool { r.srv.Second(); return r.srv.Conns() == 1 }) // but not the watcher, who sends nothing either
	closes(who, "idle_timeout")
	other := watch(t, r.addr, "watch evictions\r\n")
	w.line()
	other.Close()
	if l := w.line(); !strings.Contains(l, "type=conn_close") || !strings.Contains(l, "reason=error") { // memcached's word for it
		t.Fatalf("a watcher that goes logs %q", l)
	}
	c, who = open()
	c.send("shutdown\r\n")
	closes(who, "shutdown")
	w.wantEOF()
	if err := <-r.ended; err != server.ErrShutdown {
		t.Errorf("Serve: %v", err)
	} else {
		r.ended <- err
	}
}

func TestWatchTellsOfEvictions(t *testing.T) {
	addr := startServer(t, func(s *setup) { s.cache.MemoryLimit = 2 << 20; s.server.WatcherLogSize = 1 << 20 })
	w := watch(t, addr, "watch evictions\r\n")
	c := dial(t, addr)
	value := strings.Repeat("v", 20000)
	for i := range 300 {
		c.send("set ev%%%d 0 %d %d noreply\r\n%s\r\nget ev%%%d\r\n", i, i%2*1000, len(value), value, i/4*4)
	}
	c.send("version\r\n")
	until(t, "all is served", func() bool { l := c.line(); return strings.HasPrefix(l, "VERSION") })
	evictions := c.stat("evictions")
	if evictions < 50 {
		t.Fatalf("%d evictions", evictions)
	}
	line := regexp.MustCompile(`^ts=\d+\.\d+ gid=\d+ type=eviction key=ev%25(\d+) fetch=(yes|no) ttl=(-1|1000|99\d) la=\d clsid=\d+ size=20000\n$`)
	yes := 0
	for range evictions {
		l := w.line()
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("an eviction logs %q", l)
		}
		if i, _ := strconv.Atoi(m[1]); (m[3] == "-1") != (i%2 == 0) || m[2] == "yes" && i%4 != 0 {
			t.Fatalf("an eviction logs %q", l)
		} else if m[2] == "yes" {
			yes++
		}
	}
	if yes == 0 {
		t.Error("no evicted item was fetched")
	}
}

func TestWatchTellsOfCrawlsThatStartByThemselves(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("lru_crawler disable\r\nset a 0 0 1\r\nx\r\nset b 0 -1 1\r\nx\r\nset c 0 0 400\r\n"+strings.Repeat("x", 400)+"\r\n", "OK\r\nSTORED\r\nSTORED\r\nSTORED\r\n")
	w := watch(t, r.addr, "watch sysevents\r\n")
	c.ask("lru_crawler enable\r\n", "OK\r\n")
	examined := 0
	for examined < 2 { // b may be gone before the crawl comes by
		l := w.line()
		m := regexp.MustCompile(` type=lru_crawler crawler=\d+ lru=(?:hot|warm|cold) low_mark=1 next_reclaims=0 since_run=\d+ next_run=65 elapsed=\d+ examined=(\d+) reclaimed=\d+\n$`).FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("a crawl logs %q", l)
		}
		n, _ := strconv.Atoi(m[1])
		examined += n
	}
}

// The page mover is not the server's; what it tells is logged.
func TestWatchTellsOfPageMoves(t *testing.T) {
	r := start(t)
	w := watch(t, r.addr, "watch sysevents\r\n")
	r.srv.Observe(&hearth.Event{Kind: hearth.EventMoved, Class: 3, To: 5})
	r.srv.Observe(&hearth.Event{Kind: hearth.EventMoved, Class: 0, To: 5, Failed: true})
	for _, want := range []string{" type=slab_move src=3 dst=5 state=ok\n", " type=slab_move src=0 dst=5 state=fail\n"} {
		if l := w.line(); !strings.HasSuffix(l, want) {
			t.Errorf("got %q, want %q", l, want)
		}
	}
}

// TestWatchersGetOnlyWhatTheyAskedFor holds, too, that a line has the same number for all.
func TestWatchersGetOnlyWhatTheyAskedFor(t *testing.T) {
	addr := startServer(t)
	gets, sets, both := watch(t, addr, "watch\r\n"), watch(t, addr, "watch mutations rawcmds\r\n"), watch(t, addr, "watch mutations fetchers\r\n")
	c := dial(t, addr)
	c.ask("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
	get, set, get2 := gets.line(), sets.line(), gets.line()
	if !strings.Contains(get, "=item_get ") || !strings.Contains(set, "=item_store ") || !strings.Contains(get2, "=item_get ") {
		t.Errorf("%q, %q, %q", get, set, get2)
	}
	for _, want := range []string{get, set, get2} {
		if l := both.line(); l != want {
			t.Errorf("got %q, another watcher %q", l, want)
		}
	}
	if st := c.stats(""); st["log_watchers"] != "3" || st["log_worker_written"] != "3" || st["log_watcher_sent"] != "6" || st["log_watcher_skipped"] != "0" || st["log_worker_dropped"] != "0" {
		t.Errorf("stats: %v", st)
	}
	c.ask("stats reset\r\n", "RESET\r\n")
	if st := c.stats(""); st["log_watchers"] != "3" || st["log_worker_written"] != "0" || st["log_watcher_sent"] != "0" {
		t.Errorf("stats after reset: %v", st)
	}
	states := 0
	for _, state := range c.stats(" conns") {
		if state == "conn_watch" {
			states++
		}
	}
	if states != 3 {
		t.Errorf("stats conns shows %d watchers", states)
	}
}

// TestWatcherIsOneWay holds that what a watcher sends is dropped, even in the same packet, and that it is seen to go.
func TestWatcherIsOneWay(t *testing.T) {
	addr := startServer(t)
	w, c := dial(t, addr), dial(t, addr)
	w.ask("watch\r\nget dropped\r\nset k 0 0 1\r\nx\r\n", "OK\r\n")
	w.send("get dropped\r\nversion\r\nquit\r\nwatch mutations\r\n%s", strings.Repeat("x", 100000))
	c.ask("get a\r\nget k\r\n", "END\r\nEND\r\n")
	for _, key := range []string{"a", "k"} {
		if l := w.line(); !strings.Contains(l, " key="+key+" status=not_found ") {
			t.Fatalf("a watcher got %q", l)
		}
	}
	w.Close()
	until(t, "the watcher is gone", func() bool { return c.stat("log_watchers") == 0 })
}

func TestTwentyMayWatch(t *testing.T) {
	addr := startServer(t)
	var first *client
	for i := range 20 {
		if w := watch(t, addr, "watch mutations\r\n"); i == 0 {
			first = w
		}
	}
	c := dial(t, addr)
	c.ask("watch\r\nget a\r\n", "WATCHER_TOO_MANY log watcher limit reached\r\nEND\r\n")
	first.Close()
	until(t, "a place is free", func() bool { return c.stat("log_watchers") == 19 })
	c.ask("watch\r\n", "OK\r\n")
}

func TestRefusesToBeWatched(t *testing.T) {
	addr := startServer(t)
	c := dial(t, addr)
	for _, words := range []string{"nonsense", "f", "fetch", "fetchers x", "Fetchers"} {
		c.ask("watch "+words+"\r\nget a\r\n", "ERROR\r\nEND\r\n")
	}
	c.ask("watch noreply\r\nwatch fetchers noreply\r\nwatch x noreply\r\nget a\r\n", "END\r\n")
	c.ask("version\r\nwatch\r\nget a\r\n", "VERSION 1.6.42\r\nERROR cannot pipeline other commands before watch\r\nEND\r\n")
	if n := c.stat("log_watchers"); n != 0 {
		t.Errorf("%d watchers", n)
	}
	c.ask("watch rawcmds proxyreqs proxyevents proxyuser\r\n", "OK\r\n")

	c = dial(t, startServer(t, func(s *setup) { s.server.DisableWatch = true }))
	c.ask("watch\r\nwatch nonsense\r\nwatch noreply\r\nget x\r\n", strings.Repeat("CLIENT_ERROR watch commands not allowed\r\n", 2)+"END\r\n")

	secret := authFile(t, "user:pass\n", server.NewAuthFile)
	c = dial(t, startServer(t, func(s *setup) { s.server.Auth = secret }))
	c.ask("watch\r\n", "CLIENT_ERROR unauthenticated\r\n")
	c.ask("set x 0 0 9\r\nuser pass\r\n", "STORED\r\n")
	c.ask("watch\r\n", "OK\r\n")
}

// TestSlowWatcherCostsItsBufferOnly floods a watcher that does not read: nobody waits for it, what does not fit is skipped, and later it is told how much.
func TestSlowWatcherCostsItsBufferOnly(t *testing.T) {
	const gets = 60000
	for _, threads := range []int{1, 2} {
		r := start(t, func(s *setup) { s.server.Threads = threads; s.server.WatcherLogSize = 8 << 10 })
		w := watch(t, r.addr, "watch fetchers\r\n")
		c := dial(t, r.addr)
		key := strings.Repeat("%", 240) // 720 bytes in a line
		for range gets / 100 {
			c.ask(strings.Repeat("get "+key+"\r\n", 100), strings.Repeat("END\r\n", 100))
		}
		st := c.stats("")
		skipped, _ := strconv.Atoi(st["log_watcher_skipped"])
		sent, _ := strconv.Atoi(st["log_watcher_sent"])
		if skipped == 0 || sent+skipped != gets || st["log_worker_written"] != strconv.Itoa(gets) {
			t.Fatalf("%d lines: %d sent, %d skipped, %s written", gets, sent, skipped, st["log_worker_written"])
		}
		lines, told, last := 0, 0, 0
		for lines < sent || told < skipped {
			l := w.line()
			if n, ok := strings.CutPrefix(l, "skipped="); ok {
				n, _ := strconv.Atoi(strings.TrimSuffix(n, "\n"))
				told, last = told+n, last+n
				continue
			}
			head := logHead.FindStringSubmatch(l)
			if head == nil || !strings.HasSuffix(l, " size=0\n") {
				t.Fatalf("log line %q", l)
			}
			if gid, _ := strconv.Atoi(head[1]); gid != last+1 { // skipped lines are told where they are missing
				t.Fatalf("line %d behind %d", gid, last)
			}
			last++
			lines++
		}
		if told != skipped || lines != sent {
			t.Errorf("%d lines and %d skipped, want %d and %d", lines, told, sent, skipped)
		}
	}
}

// A stop does not wait for a watcher that does not read.
func TestStopDoesNotWaitForWatchers(t *testing.T) {
	r := start(t)
	watch(t, r.addr, "watch fetchers\r\n")
	c := dial(t, r.addr)
	for range 600 {
		c.ask(strings.Repeat("get "+strings.Repeat("%", 240)+"\r\n", 100), strings.Repeat("END\r\n", 100))
	}
	if c.stat("log_watcher_skipped") == 0 {
		t.Fatal("the watcher's socket took all lines")
	}
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 4*time.Second { // who waits, waits five
		t.Errorf("the stop took %v", took)
	}
}

// TestWatchersComeAndGoWhileAllWork is for the race detector.
func TestWatchersComeAndGoWhileAllWork(t *testing.T) {
	r := start(t, func(s *setup) { s.cache.MemoryLimit = 3 << 20; s.server.Threads = 3 })
	var running sync.WaitGroup
	value := strings.Repeat("v", 5000)
	done := make(chan struct{})
	for n := range 3 {
		c := dial(t, r.addr)
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				c.ask(fmt.Sprintf("set k%d-%d 0 0 5000\r\n%s\r\n", n, i%2000, value), "STORED\r\n")
				c.ask("get none\r\nappend none 0 0 1\r\nx\r\ndelete none\r\n", "END\r\nNOT_STORED\r\nNOT_FOUND\r\n")
			}
		})
	}
	for range 40 {
		w := watch(t, r.addr, "watch fetchers mutations evictions connevents sysevents deletions\r\n")
		for range 50 {
			if l := w.line(); !logHead.MatchString(l) && !strings.HasPrefix(l, "skipped=") {
				t.Errorf("log line %q", l)
			}
		}
		w.Close()
	}
	close(done)
	running.Wait()
	c := dial(t, r.addr)
	until(t, "the watchers are gone", func() bool { return c.stat("log_watchers") == 0 })
}

func TestUDPCannotWatch(t *testing.T) {
	r := start(t, func(s *setup) { s.server.UDPPort = -1 })
	addrs := r.srv.Addrs()
	conn, err := net.Dial("udp", addrs[len(addrs)-1].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(maxWait))
	conn.Write([]byte("\x00\x01\x00\x00\x00\x01\x00\x00watch\r\n"))
	reply := make([]byte, 2000)
	n, err := conn.Read(reply)
	if err != nil || string(reply[min(n, 8):n]) != "ERROR\r\n" {
		t.Errorf("%q, %v", reply[:n], err)
	}
}

// A handshake is a part of the connection: its client is logged and shown from when it was accepted. Newer memcached's lines; 1.6.18 has none of type conntlserr.
func TestTLSConnectionsAreLoggedAndShownFromTheirHandshakeOn(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) { o.server.Listen = []string{"127.0.0.1", "notls:127.0.0.1"} })
	secret, plain := r.srv.Addrs()[0].String(), r.srv.Addrs()[1].String()
	w, asking := watch(t, plain, "watch connevents\r\n"), dial(t, plain)
	w.line() // of asking
	expect := func(format string, args ...any) {
		t.Helper()
		if l := w.line(); !regexp.MustCompile("^ts=[0-9.]+ gid=[0-9]+ " + fmt.Sprintf(format, args...) + "\n$").MatchString(l) {
			t.Fatalf("got %q, want %s", l, fmt.Sprintf(format, args...))
		}
	}
	port := func(c *client) int { return c.LocalAddr().(*net.TCPAddr).Port }

	stalled := dial(t, secret)
	expect(`type=conn_new rip=127.0.0.1 rport=%d transport=tcp cfd=\d+`, port(stalled))
	asking.send("stats conns\r\n")
	want := regexp.MustCompile(fmt.Sprintf(`STAT (\d+):addr tcp:127\.0\.0\.1:%d\nSTAT \d+:listen_addr tcp:%s\nSTAT \d+:state conn_new_cmd\nSTAT \d+:secs_since_last_cmd 0\n`,
		port(stalled), regexp.QuoteMeta(secret)))
	if rows := asking.rowsUntilEnd(); !want.MatchString(rows) {
		t.Errorf("stats conns has no stalled handshake like %s:\n%s", want, rows)
	}
	stalled.Close()
	expect(`type=conntlserr fd=\d+ msg=EOF`)
	expect(`type=conn_close rip=127.0.0.1 rport=%d transport=tcp reason=error cfd=\d+`, port(stalled))
	asking.send("stats conns\r\n")
	if rows := asking.rowsUntilEnd(); want.MatchString(rows) {
		t.Errorf("stats conns still has it:\n%s", rows)
	}

	c := dial(t, secret)
	expect(`type=conn_new .*`)
	c.send("no TLS\r\n")
	expect(`type=conntlserr fd=\d+ msg=tls: first record does not look like a TLS handshake`)
	expect(`type=conn_close .* reason=error cfd=\d+`)

	c, err := dialTLS(t, secret, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	opened := w.line()
	c.ask("version\r\n", version)
	if _, err := c.Conn.(*tls.Conn).NetConn().Write([]byte("no record\r\n")); err != nil {
		t.Fatal(err)
	}
	fd := regexp.MustCompile(`type=conn_new .* cfd=(\d+)\n$`).FindStringSubmatch(opened)
	if fd == nil {
		t.Fatalf("a good handshake logs %q", opened)
	}
	expect(`type=conntlserr fd=%s msg=.*`, fd[1])
	expect(`type=conn_close .* reason=error cfd=%s`, fd[1])
}

// rowsUntilEnd reads rows of stats to their END, with bare line ends.
func (c *client) rowsUntilEnd() string {
	c.t.Helper()
	var b strings.Builder
	for {
		l := c.line()
		if l == "END" {
			return b.String()
		}
		b.WriteString(l + "\n")
	}
}
