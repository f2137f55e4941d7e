package server_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hearth"
)

// fill stores n items by pipelined sets that are not answered.
func (c *client) fill(format string, n, exptime int, value string) {
	c.t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "set "+format+" 0 %d %d noreply\r\n%s\r\n", i, exptime, len(value), value)
		if b.Len() > 1<<16 || i == n-1 {
			c.send("%s", b.String())
			b.Reset()
		}
	}
	c.ask("version\r\n", "VERSION 1.6.42\r\n")
}

// dump asks for a dump and returns its lines, the first and the last apart.
func (c *client) dump(command, end string) (lines []string) {
	c.t.Helper()
	c.SetDeadline(time.Now().Add(10 * maxWait))
	c.send("%s\r\n", command)
	if l := c.line(); l != "OK" {
		c.t.Fatalf("%s: %q", command, l)
	}
	for l := c.line(); l != end; l = c.line() {
		lines = append(lines, l)
	}
	return lines
}

func TestMetadumpLinesAreMemcacheds(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("set a%b 5 0 2\r\nab\r\nget a%b\r\n", "STORED\r\nVALUE a%b 5 2\r\nab\r\nEND\r\n")
	c.ask("ms AGI= 3 b T100\r\nabc\r\n", "HD\r\n")
	lines := strings.Join(c.dump("lru_crawler metadump all", "END"), "")
	for _, want := range []string{
		`key=a%25b exp=-1 la=\d{10} cas=\d+ fetch=yes cls=1 size=45 flags=5 \n`,
		`key=%00b exp=\d{10} la=\d{10} cas=\d+ fetch=no cls=1 size=45 flags=0 \n`,
	} {
		if !regexp.MustCompile(want).MatchString(lines) {
			t.Errorf("%q, want it to have %s", lines, want)
		}
	}
	if got := strings.Join(c.dump("lru_crawler mgdump hash", "EN"), ", "); got != "mg a%b, mg AGI= b" && got != "mg AGI= b, mg a%b" {
		t.Errorf("mgdump: %q", got)
	}
	if got := c.dump("lru_crawler metadump 2,3", "END"); len(got) != 0 {
		t.Errorf("a dump of other classes: %q", got)
	}
	c.ask("version\r\nlru_crawler metadump all\r\nget x\r\n", "VERSION 1.6.42\r\nERROR cannot pipeline other commands before metadump\r\nEND\r\n")
	c.ask("version\r\nlru_crawler mgdump all\r\n", "VERSION 1.6.42\r\nERROR cannot pipeline other commands before mgdump\r\n")
	c.ask("lru_crawler metadump all noreply\r\nget x\r\n", "END\r\n")
}

func TestDumpsAreRefusedWithX(t *testing.T) {
	c := dial(t, startServer(t, func(s *setup) { s.server.DisableDumping = true }))
	c.ask("lru_crawler metadump all\r\nlru_crawler mgdump all\r\nstats cachedump 1 1\r\n",
		"ERROR metadump not allowed\r\nERROR key dump not allowed\r\nCLIENT_ERROR stats cachedump not allowed\r\n")
}

// TestMetadumpOfAMillionItems dumps a million items while writers run, each of which is listed once.
func TestMetadumpOfAMillionItems(t *testing.T) {
	items := 1000000
	if testing.Short() || raceEnabled {
		items = 30000
	}
	r := start(t, func(s *setup) { s.cache.MemoryLimit = 256 << 20 })
	writer, reader := dial(t, r.addr), dial(t, r.addr)
	writer.SetDeadline(time.Now().Add(10 * maxWait))
	writer.fill("steady%d", items, 0, "v")
	var stop atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; !stop.Load(); i++ {
			writer.ask(fmt.Sprintf("set churn%d 0 0 1\r\nx\r\ndelete churn%d\r\n", i, i/2), "STORED\r\n")
			if l := writer.line(); l != "DELETED" && l != "NOT_FOUND" {
				t.Errorf("delete: %q", l)
			}
		}
	})
	began := time.Now()
	lines := reader.dump("lru_crawler metadump all", "END")
	took := time.Since(began)
	stop.Store(true)
	running.Wait()
	seen := make([]bool, items)
	for _, l := range lines {
		var i int
		if n, _ := fmt.Sscanf(strings.TrimPrefix(strings.TrimSpace(l), "key="), "steady%d", &i); n == 1 {
			if seen[i] {
				t.Fatalf("steady%d listed twice", i)
			}
			seen[i] = true
		}
	}
	for i := range seen {
		if !seen[i] {
			t.Fatalf("steady%d is not listed", i)
		}
	}
	t.Logf("%d items in %v", items, took)
}

func TestASlowReaderOfADumpHoldsNobodyUp(t *testing.T) {
	r := start(t, func(s *setup) { s.server.Threads = 1; s.cache.MemoryLimit = 128 << 20 })
	slow, other := dial(t, r.addr), dial(t, r.addr)
	other.SetDeadline(time.Now().Add(10 * maxWait)) // the race detector takes its time
	other.fill("key-with-some-length-%d", 100000, 0, "v")
	slow.send("lru_crawler metadump all\r\n")
	slow.want("OK\r\n")
	until(t, "the dump fills the socket", func() bool { return strings.Contains(fmt.Sprint(other.stats(" conns")), "conn_mwrite") })
	other.ask("lru_crawler metadump all\r\n", "BUSY currently processing crawler request\r\n")
	other.fill("more-%d", 100000, 0, "v")
	if st := r.cache.Stats(); st.Evictions != 0 || st.CurrItems != 200000 {
		t.Errorf("%d items, %d evictions beside a dump that nobody reads", st.CurrItems, st.Evictions)
	}
	slow.Close()
	until(t, "the dump is given up", func() bool {
		other.send("lru_crawler metadump 63\r\n")
		if other.line() != "OK" {
			return false
		}
		other.want("END\r\n")
		return true
	})
}

func TestLRUCommandsReachTheCache(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("lru tune 33 44 0.3 3.5\r\nlru mode flat\r\nlru temp_ttl 99\r\n", "OK\r\nOK\r\nOK\r\n")
	want := hearth.LRUSettings{HotPct: 33, WarmPct: 44, HotMaxFactor: .3, WarmMaxFactor: 3.5, Flat: true, Temp: true, TempTTL: 99}
	if got := r.cache.LRU(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	s := c.stats(" settings")
	for name, want := range map[string]string{"hot_lru_pct": "33", "warm_lru_pct": "44", "hot_max_factor": "0.30", "warm_max_factor": "3.50", "lru_segmented": "no",
		"temp_lru": "yes", "temporary_ttl": "99"} {
		if s[name] != want {
			t.Errorf("%s is %s, want %s", name, s[name], want)
		}
	}
	c.ask("set flat 0 0 1\r\nx\r\nset temp 0 50 1\r\nx\r\n", "STORED\r\nSTORED\r\n")
	if s := c.stats(" items"); s["items:1:number_cold"] != "1" || s["items:1:number_temp"] != "1" {
		t.Errorf("%v, want one item in COLD, one in TEMP", s)
	}
	c.ask("lru_crawler sleep 7\r\nlru_crawler tocrawl 8\r\nslabs automove 0\r\nslabs automove window 20\r\nslabs automove ratio 0.5\r\ncache_memlimit 100\r\n",
		strings.Repeat("OK\r\n", 6))
	s = c.stats(" settings")
	for name, want := range map[string]string{"lru_crawler_sleep": "7", "lru_crawler_tocrawl": "8", "slab_automove": "0", "slab_automove_window": "20",
		"slab_automove_ratio": "0.50", "maxbytes": "104857600"} {
		if s[name] != want {
			t.Errorf("%s is %s, want %s", name, s[name], want)
		}
	}
}

func TestCrawlCommandReclaims(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.fill("live%d", 2000, 0, "v")
	c.fill("dead%d", 500, -1, "v")
	c.fill("live-too%d", 2000, 0, "v")
	c.ask("lru_crawler crawl 1\r\n", "OK\r\n")
	until(t, "the crawl ends", func() bool { return c.stat("lru_crawler_running") == 0 })
	if n := c.stat("curr_items"); n != 4000 {
		t.Errorf("%d items, want the 4000 that are alive", n)
	}
	if n := c.stat("crawler_items_checked"); n < 4000 {
		t.Errorf("%d items checked", n)
	}
	if n := c.stat("crawler_reclaimed") + c.stat("reclaimed"); n != 500 { // the maintainer may have found some at the end of a list
		t.Errorf("%d reclaimed, want 500", n)
	}
}

func TestReassignMovesAPage(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.ask("slabs reassign -1 5\r\n", "BADCLASS invalid src or dst class id\r\n")
	c.fill("k%d", 30000, 0, "v")
	c.ask("slabs reassign 5 1\r\n", "NOSPARE source class has no spare pages\r\n")
	r.cache.Do(func(*hearth.Session) { // an open section keeps the move from ending
		c.ask("slabs reassign 1 5\r\nslabs reassign -1 5\r\nslabs reassign 5 5\r\n",
			"OK\r\nBUSY currently processing reassign request\r\nBUSY currently processing reassign request\r\n")
	})
	until(t, "the page is moved", func() bool { return c.stat("slabs_moved") == 1 })
	c.ask("slabs reassign -1 0\r\n", "OK\r\n")
	until(t, "another page is moved", func() bool { return c.stat("slabs_moved") == 2 && c.stat("slab_global_page_pool") == 1 })
	if n := c.stat("slab_reassign_rescues"); n == 0 || c.stat("slab_reassign_running") != 0 {
		t.Errorf("%d items were rescued", n)
	}
	for key, want := range map[string]string{"5:total_pages": "1", "1:total_pages": "1"} {
		if got := c.stats(" slabs")[key]; got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

func TestNoSlabReassignKeepsPagesWhereTheyAre(t *testing.T) {
	c := dial(t, startServer(t, func(s *setup) { s.cache.NoPageMoves = true }))
	c.fill("k%d", 30000, 0, "v")
	c.ask("slabs reassign 1 5\r\nslabs reassign 5 5\r\nslabs automove 2\r\n",
		strings.Repeat("CLIENT_ERROR slab reassignment disabled\r\n", 2)+"OK\r\n")
	if _, ok := c.stats("")["slabs_moved"]; ok || c.stats(" settings")["slab_reassign"] != "no" {
		t.Error("stats tell of moves that cannot be")
	}
}

func TestMemlimitGoesUpAndDown(t *testing.T) {
	r := start(t, func(s *setup) { s.cache = hearth.Options{MemoryLimit: 8 << 20} })
	c := dial(t, r.addr)
	value := strings.Repeat("x", 10000)
	pages := func() uint64 { return r.cache.Stats().TotalMalloced >> 20 }
	c.fill("k%d", 2000, 0, value)
	if n := pages(); n > 10 {
		t.Fatalf("%d pages under a limit of 8", n)
	}
	c.ask("cache_memlimit 40\r\n", "OK\r\n")
	c.fill("k%d", 2500, 0, value)
	high := pages()
	if st := r.cache.Stats(); high < 25 || st.CurrItems < 2400 {
		t.Errorf("%d pages and %d items after the limit was raised to 40", high, st.CurrItems)
	}
	c.ask("cache_memlimit 16\r\n", "OK\r\n")
	c.fill("other%d", 5000, 0, value)
	until(t, "pages above the limit are given back", func() bool { return pages() <= 16 })
	if c.stats("")["limit_maxbytes"] != "16777216" {
		t.Errorf("limit_maxbytes is %s", c.stats("")["limit_maxbytes"])
	}
}

func TestCachedumpListsCold(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("lru mode flat\r\nset a 0 0 3\r\nabc\r\nset b 0 0 2\r\nxx\r\nms Yw== 1 b\r\nx\r\nset d 0 -1 0\r\n\r\n", "OK\r\nSTORED\r\nSTORED\r\nHD\r\nSTORED\r\n")
	c.ask("stats cachedump 1 0\r\n", "ITEM b [2 b; 0 s]\r\nITEM a [3 b; 0 s]\r\nEND\r\n")
	c.ask("stats cachedump 2 0\r\n", "END\r\n")
	c.fill("long-%0200d", 20000, 0, "v")
	c.send("stats cachedump 6 0\r\nversion\r\n")
	size := 0
	for l := c.line(); !strings.HasPrefix(l, "VERSION"); l = c.line() {
		size += len(l) + 2
	}
	if size > 2<<20 || size < 2<<20-300 {
		t.Errorf("%d bytes, want as many as 2 MB hold", size)
	}
}

func TestStatsSizesCountsItems(t *testing.T) {
	c := dial(t, startServer(t, func(s *setup) { s.cache.TrackSizes = true }))
	c.ask("stats sizes\r\nset a 0 0 3\r\nabc\r\nset b 0 0 3\r\nabc\r\nset c 0 0 100\r\n"+strings.Repeat("x", 100)+"\r\n", "END\r\nSTORED\r\nSTORED\r\nSTORED\r\n")
	c.ask("stats sizes\r\ndelete a\r\nstats sizes\r\n", "STAT 64 2\r\nSTAT 160 1\r\nEND\r\nDELETED\r\nSTAT 64 1\r\nSTAT 160 1\r\nEND\r\n")
}

// In memcached these take effect a little after their OK, so they are no matter for transcripts.
func TestDisabledCrawlerRefusesCrawlsAndDumps(t *testing.T) {
	c := dial(t, startServer(t))
	c.ask("lru_crawler enable\r\nlru_crawler crawl hash\r\nlru_crawler crawl ,\r\nlru_crawler metadump ,\r\n", "ERROR failed to start lru crawler thread\r\n"+
		"ERROR an unknown error happened\r\nNOTSTARTED no items to crawl\r\nERROR cannot pipeline other commands before metadump\r\n")
	c.ask("lru_crawler metadump ,\r\n", "NOTSTARTED no items to crawl\r\n")
	c.ask("lru_crawler disable\r\nlru_crawler disable\r\nlru_crawler crawl x\r\nlru_crawler metadump all\r\nlru_crawler mgdump x\r\n",
		"OK\r\nOK\r\n"+strings.Repeat("CLIENT_ERROR lru crawler disabled\r\n", 3))
	c.ask("lru_crawler enable\r\nlru_crawler crawl all\r\n", "OK\r\nOK\r\n")
}

// memcached says "ERROR locked try again later" to whoever asks while it starts a crawl. Here a dump is started at once, or somebody else's is under way.
func TestWhoDumpsAtOnceIsServedOrToldBUSYAndNeverLocked(t *testing.T) {
	addr := startServer(t)
	dial(t, addr).fill("key%d", 100, 0, "value")
	served, busy := 0, 0
	for range 20 {
		var clients []*client
		for range 8 {
			c := dial(t, addr)
			c.send("lru_crawler metadump all\r\n")
			clients = append(clients, c)
		}
		for _, c := range clients {
			switch l := c.line(); l {
			case "OK":
				served++
				for c.line() != "END" {
				}
			case "BUSY currently processing crawler request":
				busy++
			default:
				t.Fatalf("a dump is answered by %q", l)
			}
			c.Close()
		}
	}
	if served < 20 || served+busy != 160 {
		t.Errorf("%d served and %d told BUSY, want at least one of each 8 served", served, busy)
	}
}
