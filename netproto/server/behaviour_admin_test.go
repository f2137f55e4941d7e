package server_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"hearth/netproto/server"
)

// ownCrawls is why memcached is not asked about crawls: one that it started itself may be running, and to stop the crawler takes its time.
const ownCrawls = "memcached may be crawling by itself"

func TestAdmin(t *testing.T) {
	const (
		noWindow  = "1.6.18 has no window"
		spareless = "NOSPARE source class has no spare pages\r\n"
		badClass  = "BADCLASS invalid src or dst class id\r\n"
	)
	runRows(t, []row{
		{name: "slabs without words is an error", send: "slabs\r\nslabs reassign\r\nslabs reassign 1\r\nslabs reassign 1 2 3\r\nslabs foo 1\r\n", want: strings.Repeat("ERROR\r\n", 5)},
		{name: "slabs reassign of the same class", send: "slabs reassign 1 1\r\n", want: "SAME src and dst class are identical\r\n"},
		{name: "slabs reassign of no class", send: "slabs reassign 99 1\r\nslabs reassign 1 99\r\nslabs reassign -2 1\r\nslabs reassign 40 1\r\n", want: strings.Repeat(badClass, 4)},
		{name: "slabs reassign of a class without a page to spare", send: "slabs reassign 37 1\r\n", want: spareless},
		{name: "slabs reassign of an empty global pool", send: "slabs reassign 0 1\r\n", want: spareless},
		{name: "slabs reassign without numbers", send: "slabs reassign a 1\r\nslabs reassign 1 b\r\n", want: badFormat + badFormat},
		{name: "slabs automove takes 0 1 and 2", send: "slabs automove 0\r\nslabs automove 2\r\nslabs automove 1\r\n", want: "OK\r\nOK\r\nOK\r\n"},
		{name: "slabs automove of another level", send: "slabs automove 3\r\nslabs automove\r\n", want: "ERROR\r\nERROR\r\n"},
		{name: "slabs automove without a number", send: "slabs automove x\r\n", want: badFormat},
		{name: "slabs automove ratio", send: "slabs automove ratio 0.5\r\nslabs automove ratio 0.8\r\nslabs automove ratio\r\nslabs automove ratio x\r\n", want: "OK\r\nOK\r\nERROR\r\nERROR\r\n"},
		{name: "slabs automove freeratio", send: "slabs automove freeratio 0.01\r\nslabs automove freeratio\r\n", want: "OK\r\nERROR\r\n", but: "1.6.18 has it with extstore only"},
		{name: "slabs automove window", send: "slabs automove window 3\r\nslabs automove window 1800\r\nslabs automove window 10\r\nslabs automove window\r\n", want: "OK\r\nOK\r\nOK\r\nERROR\r\n", but: noWindow},
		{name: "slabs automove window out of range", send: "slabs automove window 2\r\nslabs automove window 1801\r\n",
			want: strings.Repeat("CLIENT_ERROR automove window too low or too high\r\n", 2), but: noWindow},

		{name: "lru without words is an error", send: "lru\r\nlru x\r\nlru tune\r\nlru tune 10 20 0.1\r\nlru mode\r\nlru mode x\r\nlru temp_ttl\r\nlru temp_ttl x\r\n", want: strings.Repeat("ERROR\r\n", 8)},
		{name: "lru tune", send: "lru tune 10 25 0.1 2.0\r\nlru tune 20 40 0.2 2.0\r\n", want: "OK\r\nOK\r\n"},
		{name: "lru tune beyond 80 per cent", send: "lru tune 50 40 0.1 2.0\r\nlru tune 81 0 0.1 2.0\r\n", want: strings.Repeat("ERROR hot and warm pcts must not exceed 80\r\n", 2)},
		{name: "lru tune with a factor of zero", send: "lru tune 10 20 0 2.0\r\nlru tune 10 20 0.1 0\r\n", want: strings.Repeat("ERROR hot/warm age factors must be greater than 0\r\n", 2)},
		{name: "lru tune without numbers", send: "lru tune x 20 0.1 2.0\r\nlru tune 10 20 x 2.0\r\n", want: "ERROR\r\nERROR\r\n"},
		{name: "lru mode", send: "lru mode flat\r\nlru mode segmented\r\n", want: "OK\r\nOK\r\n"},
		{name: "lru temp_ttl", send: "lru temp_ttl 10\r\nlru temp_ttl -1\r\n", want: "OK\r\nOK\r\n"},

		{name: "lru_crawler without words is an error", send: "lru_crawler\r\nlru_crawler x\r\nlru_crawler x y\r\nlru_crawler sleep\r\nlru_crawler tocrawl\r\nlru_crawler crawl\r\nlru_crawler metadump\r\nlru_crawler crawl 1 2\r\n",
			want: strings.Repeat("ERROR\r\n", 8)},
		{name: "lru_crawler enable when it runs already", send: "lru_crawler enable\r\n", want: "ERROR failed to start lru crawler thread\r\n"},
		{name: "lru_crawler disable and enable", send: "lru_crawler disable\r\nlru_crawler enable\r\n", want: "OK\r\nOK\r\n", alone: ownCrawls},
		{name: "lru_crawler disabled refuses to crawl", send: "lru_crawler disable\r\nlru_crawler crawl all\r\nlru_crawler metadump all\r\nlru_crawler enable\r\n",
			want: "OK\r\n" + strings.Repeat("CLIENT_ERROR lru crawler disabled\r\n", 2) + "OK\r\n", alone: ownCrawls},
		{name: "lru_crawler sleep", send: "lru_crawler sleep 1000000\r\nlru_crawler sleep 100\r\n", want: "OK\r\nOK\r\n"},
		{name: "lru_crawler sleep of more than a second", send: "lru_crawler sleep 1000001\r\n", want: "CLIENT_ERROR sleep must be one second or less\r\n"},
		{name: "lru_crawler sleep without a number", send: "lru_crawler sleep x\r\n", want: badFormat},
		{name: "lru_crawler tocrawl", send: "lru_crawler tocrawl 1\r\nlru_crawler tocrawl 0\r\nlru_crawler tocrawl x\r\n", want: "OK\r\nOK\r\n" + badFormat},
		{name: "lru_crawler crawl of no class", send: "lru_crawler crawl 0\r\nlru_crawler crawl 64\r\nlru_crawler crawl x\r\nlru_crawler crawl 1,x\r\n", want: strings.Repeat("BADCLASS invalid class id\r\n", 4)},
		{name: "lru_crawler crawl hash", send: "lru_crawler crawl hash\r\n", want: "ERROR an unknown error happened\r\n", alone: ownCrawls},
		{name: "lru_crawler crawl of an empty list", send: "lru_crawler crawl ,\r\n", want: "NOTSTARTED no items to crawl\r\n", alone: ownCrawls},
		{name: "lru_crawler metadump of no class", send: "lru_crawler metadump 99\r\n", want: "BADCLASS invalid class id\r\n"},
		{name: "lru_crawler mgdump of no class", send: "lru_crawler mgdump x\r\n", want: "BADCLASS invalid class id\r\n", but: "1.6.18 has no mgdump"},
		{name: "lru_crawler metadump behind another command", send: "version\r\nlru_crawler metadump all\r\n", want: "VERSION\r\nERROR cannot pipeline other commands before metadump\r\n"},
		{name: "lru_crawler mgdump behind another command", send: "version\r\nlru_crawler mgdump all\r\n", want: "VERSION\r\nERROR cannot pipeline other commands before mgdump\r\n", but: "1.6.18 has no mgdump"},

		{name: "cache_memlimit", send: "cache_memlimit 32\r\ncache_memlimit 64\r\n", want: "OK\r\nOK\r\n"},
		{name: "cache_memlimit below 8", send: "cache_memlimit 7\r\n", want: "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"},
		{name: "cache_memlimit of bytes", send: "cache_memlimit 1000000001\r\n", want: "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"},
		{name: "cache_memlimit without a number", send: "cache_memlimit\r\ncache_memlimit x\r\n", want: "ERROR\r\nERROR\r\n"},
		{name: "cache_memlimit beyond the file's room", send: "cache_memlimit 1000000\r\n", want: "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
			but: "ours has address space for eight times the limit it started with"},
		{name: "shutdown without -A", send: "shutdown\r\nshutdown graceful\r\nshutdown foo\r\n", want: strings.Repeat("SERVER_ERROR: shutdown not enabled\r\n", 3), but: "the text changed"},
		{name: "extstore is unknown without it", send: "extstore foo\r\n", want: "ERROR\r\n"},
		{name: "misbehave is unknown", send: "misbehave\r\ndebugtime p\r\ndebugitem lock a\r\n", want: "ERROR\r\nERROR\r\nERROR\r\n"},
		{name: "noreply silences them all", send: "slabs automove 1 noreply\r\nslabs reassign 37 1 noreply\r\nlru mode segmented noreply\r\nlru tune 20 40 0.2 2.0 noreply\r\nlru_crawler sleep 100 noreply\r\n" +
			"cache_memlimit 64 noreply\r\nlru_crawler tocrawl x noreply\r\nshutdown noreply\r\n", want: "", but: "1.6.18 hears it behind some only"},
		{name: "a prefix of a slabs sub-command is none", send: "slabs auto 1\r\nslabs r 1 1\r\n", want: "ERROR\r\nERROR\r\n"},
		{name: "a prefix of an lru_crawler sub-command is none", send: "lru_crawler e\r\n", want: "ERROR\r\n"},
		{name: "a prefix of an lru sub-command is none", send: "lru mod flat\r\n", want: "ERROR\r\n"},
	}, nil)
}

func TestAdminOptions(t *testing.T) {
	withX := func(o *setup) { o.server.DisableDumping = true }
	t.Run("-X", func(t *testing.T) {
		runRows(t, []row{
			{name: "refuses metadump", send: "lru_crawler metadump all\r\n", want: "ERROR metadump not allowed\r\n"},
			{name: "refuses mgdump", send: "lru_crawler mgdump all\r\n", want: "ERROR key dump not allowed\r\n", but: "1.6.18 has no mgdump"},
			{name: "refuses stats cachedump", send: "stats cachedump 1 1\r\n", want: "CLIENT_ERROR stats cachedump not allowed\r\n"},
			{name: "refuses stats detail", send: "stats detail on\r\nstats detail dump\r\nstats detail\r\n", want: strings.Repeat("CLIENT_ERROR stats detail not allowed\r\n", 3), but: "1.6.18 refuses cachedump and metadump only"},
		}, withX, "-X")
	})
	t.Run("no_lru_maintainer", func(t *testing.T) {
		runRows(t, []row{
			{name: "refuses lru mode", send: "lru mode flat\r\nlru mode segmented\r\n", want: "ERROR\r\nERROR\r\n"},
			{name: "refuses lru temp_ttl", send: "lru temp_ttl 10\r\n", want: "ERROR\r\n"},
			{name: "takes lru tune", send: "lru tune 20 40 0.2 2.0\r\n", want: "OK\r\n"},
		}, withoutBackground, "-o", "no_lru_maintainer,no_lru_crawler")
	})
	t.Run("-A", func(t *testing.T) {
		withA := func(o *setup) { o.server.EnableShutdown = true }
		runRows(t, []row{
			{name: "refuses another mode of shutdown", send: "shutdown foo\r\nshutdown graceful foo\r\n", want: strings.Repeat("CLIENT_ERROR invalid shutdown mode\r\n", 2)},
			{name: "shutdown noreply is an invalid mode in silence", send: "shutdown noreply\r\nversion\r\n", want: "VERSION\r\n", but: "1.6.18 answers it"},
		}, withA, "-A")
		for _, line := range []string{"shutdown", "shutdown graceful"} {
			t.Run(line+" closes and ends the server", func(t *testing.T) {
				r := start(t, withA)
				c := dial(t, r.addr)
				c.send("%s\r\n", line)
				c.wantEOF()
				if err := r.stop(); !errors.Is(err, server.ErrShutdown) {
					t.Errorf("Serve returned %v", err)
				}
			})
		}
	})
}

// TestDump has the lines of dumps.
func TestDump(t *testing.T) {
	const given = "set a%b~ 7 0 1\r\n1\r\nset later 0 1000 1\r\n1\r\nms AAE= 1 b\r\n1\r\nget later\r\n"
	for _, r := range []struct {
		name, send string
		want       []string // the lines, in any order
		end        string
		newer      bool
	}{
		{name: "metadump lines end in a blank and a bare newline", send: "lru_crawler metadump all", end: "END\r\n", want: []string{
			`key=a%25b~ exp=-1 la=\d{10} cas=\d+ fetch=no cls=1 size=\d+ flags=7 \n`,
			`key=later exp=\d{10} la=\d{10} cas=\d+ fetch=yes cls=1 size=\d+ flags=0 \n`,
			`key=%00%01 exp=-1 la=\d{10} cas=\d+ fetch=no cls=1 size=\d+ flags=0 \n`}, newer: true},
		{name: "metadump of classes", send: "lru_crawler metadump 2,3", end: "END\r\n"},
		{name: "metadump of hash", send: "lru_crawler metadump hash", end: "END\r\n", want: []string{`key=a%25b~ .* \n`, `key=later .* \n`, `key=%00%01 .* \n`}, newer: true},
		{name: "mgdump lines are requests", send: "lru_crawler mgdump all", end: "EN\r\n", want: []string{`mg a%b~\r\n`, `mg later\r\n`, `mg AAE= b\r\n`}, newer: true},
		{name: "mgdump of hash", send: "lru_crawler mgdump hash", end: "EN\r\n", want: []string{`mg a%b~\r\n`, `mg later\r\n`, `mg AAE= b\r\n`}, newer: true},
	} {
		t.Run(r.name, func(t *testing.T) {
			for i, addr := range both(t, func(*setup) {}, "-o", "no_lru_maintainer") { // whose maintainer could be crawling
				if i == 1 && r.newer { // 1.6.18 has neither flags nor the blank in metadump, and no mgdump
					continue
				}
				c := dial(t, addr)
				c.ask(given, stored+stored+"HD\r\nVALUE later 0 1\r\n1\r\nEND\r\n")
				c.ask(r.send+"\r\n", map[bool]string{true: "OK\r\n"}[i == 0])
				var lines []string
				for {
					l, err := c.r.ReadString('\n')
					if err != nil {
						t.Fatal(err)
					}
					if l == r.end {
						break
					}
					lines = append(lines, l)
				}
				for _, want := range r.want {
					n := 0
					for _, l := range lines {
						if regexp.MustCompile("^" + want + "$").MatchString(l) {
							n++
						}
					}
					if n != 1 {
						t.Errorf("%s: %d lines of %q are %q, want one", addr, n, lines, want)
					}
				}
				if len(lines) != len(r.want) {
					t.Errorf("%s: %q, want %d lines", addr, lines, len(r.want))
				}
			}
		})
	}
	t.Run("crawl of nothing starts", func(t *testing.T) {
		for _, addr := range both(t, func(*setup) {}, "-o", "no_lru_maintainer") {
			dial(t, addr).ask("lru_crawler crawl all\r\n", "OK\r\n")
		}
	})
}
