package netproto_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"hearth/netproto"
)

func TestReadsAdminCommands(t *testing.T) {
	classes := func(r *netproto.Request) (ids []int) {
		for id := range 128 {
			if r.Admin.Classes.Has(id) {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for _, test := range []struct {
		in   string
		op   netproto.AdminOp
		a, b int64
		x, y float64
	}{
		{"slabs reassign -1 5", netproto.AdminReassign, -1, 5, 0, 0},
		{"slabs automove 2", netproto.AdminAutomove, 2, 0, 0, 0},
		{"slabs automove ratio 0.5", netproto.AdminAutomoveRatio, 0, 0, 0.5, 0},
		{"slabs automove freeratio 1e-2", netproto.AdminAutomoveFreeRatio, 0, 0, 0.01, 0},
		{"slabs automove window 1800", netproto.AdminAutomoveWindow, 1800, 0, 0, 0},
		{"lru tune 0 80 0.1 2", netproto.AdminTune, 0, 80, 0.1, 2},
		{"lru mode flat", netproto.AdminModeFlat, 0, 0, 0, 0},
		{"lru mode segmented", netproto.AdminModeSegmented, 0, 0, 0, 0},
		{"lru temp_ttl -1", netproto.AdminTempTTL, -1, 0, 0, 0},
		{"lru_crawler enable", netproto.AdminCrawlerEnable, 0, 0, 0, 0},
		{"lru_crawler disable", netproto.AdminCrawlerDisable, 0, 0, 0, 0},
		{"lru_crawler sleep 1000000", netproto.AdminCrawlerSleep, 1000000, 0, 0, 0},
		{"lru_crawler tocrawl 4294967297", netproto.AdminCrawlerToCrawl, 1, 0, 0, 0},
		{"cache_memlimit 64", netproto.AdminMemlimit, 64, 0, 0, 0},
		{"watch fetchers", netproto.AdminWatch, 0, 0, 0, 0},
		{"watch", netproto.AdminWatch, 0, 0, 0, 0},
		{"refresh_certs", netproto.AdminRefreshCerts, 0, 0, 0, 0},
		{"debugtime p", netproto.AdminDebugPause, 0, 0, 0, 0},
		{"debugtime r", netproto.AdminDebugResume, 0, 0, 0, 0},
		{"debugtime -300", netproto.AdminDebugShift, -300, 0, 0, 0},
	} {
		for _, noreply := range []bool{false, true} {
			in := test.in
			if noreply {
				in += " noreply"
			}
			r := parseLine(t, in+"\r\n")
			if a := r.Admin; r.Verb != netproto.VerbAdmin || r.Noreply != noreply || a.Op != test.op || a.A != test.a || a.B != test.b || a.X != test.x || a.Y != test.y {
				t.Errorf("%s: %s", in, show(r))
			}
		}
	}
	for in, want := range map[string]string{
		"crawl 1,3,,62": "[1 3 62] ", "metadump 1": "[1] ", "mgdump 64": "[] " + netproto.CrawlBadClass, "crawl 0": "[] " + netproto.CrawlBadClass,
		"crawl x": "[] " + netproto.CrawlBadClass, "crawl ,": "[] " + netproto.CrawlNothing,
	} {
		r := parseLine(t, "lru_crawler "+in+"\r\n")
		if got := fmt.Sprint(classes(r), " ", r.Admin.Problem); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"crawl all", "metadump hash"} {
		if r := parseLine(t, "lru_crawler "+in+"\r\n"); len(classes(r)) != 128 || r.Admin.Problem != "" {
			t.Errorf("%s: %s", in, show(r))
		}
	}
}

// TestAdminSubcommandsMatchWholeWords holds what memcached, which takes any prefix of a sub-command, does not.
func TestAdminSubcommandsMatchWholeWords(t *testing.T) {
	for _, in := range []string{"slabs r 1 2", "slabs auto 1", "slabs automovex 1", "lru t 1 2 3 4", "lru mode f", "lru temp 1", "lru_crawler e", "lru_crawler d",
		"lru_crawler c all", "lru_crawler meta all", "lru_crawler mg all"} {
		if r := parseLine(t, in+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != netproto.Error {
			t.Errorf("%s: %s", in, show(r))
		}
	}
}

func TestRefusesFactorsThatAreNoNumbers(t *testing.T) {
	for _, in := range []string{"lru tune 10 20 nan 2", "lru tune 10 20 1 NaN", "slabs automove ratio nan"} {
		if r := parseLine(t, in+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != netproto.Error {
			t.Errorf("%s: %s", in, show(r))
		}
	}
}

func TestDumpLines(t *testing.T) {
	it := netproto.DumpedItem{Key: []byte("a b/%é-._~"), Exptime: -1, LastUse: 12, CAS: 3, Fetched: true, ClassID: 4, Size: 5, Flags: 6}
	want := "key=a%20b%2F%25%C3%A9-._~ exp=-1 la=12 cas=3 fetch=yes cls=4 size=5 flags=6 \n"
	if got := string(netproto.AppendMetadump(nil, &it)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	it.KeyBinary = true
	if got, want := string(netproto.AppendMgdump(nil, &it)), "mg YSBiLyXDqS0uX34= b\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWatchReadsKindsAsWholeWords(t *testing.T) {
	for in, want := range map[string]netproto.LogKinds{
		"watch": netproto.LogFetchers, "watch  mutations ": netproto.LogMutations, "watch fetchers fetchers": netproto.LogFetchers, "watch noreply": netproto.LogFetchers,
		"watch evictions connevents sysevents deletions noreply": netproto.LogEvictions | netproto.LogConnEvents | netproto.LogSysEvents | netproto.LogDeletions,
		"watch rawcmds proxyreqs proxyevents proxyuser":          0,
	} {
		if r := parseLine(t, in+"\r\n"); r.Verb != netproto.VerbAdmin || r.Admin.Watch != want || r.Admin.Problem != "" {
			t.Errorf("%s: %s, kinds %b, want %b", in, show(r), r.Admin.Watch, want)
		}
	}
	for _, in := range []string{"watch f", "watch fetch", "watch fetchers x", "watch FETCHERS", "watch fetchersx noreply"} {
		if r := parseLine(t, in+"\r\n"); r.Verb != netproto.VerbAdmin || r.Admin.Problem != netproto.Error {
			t.Errorf("%s: %s, problem %q", in, show(r), r.Admin.Problem)
		}
	}
}

func TestLongestLogLineFits(t *testing.T) {
	key, most := []byte(strings.Repeat("%", netproto.MaxKey)), netproto.MaxLogLine
	for _, line := range [][]byte{
		netproto.AppendLogGet(nil, key, netproto.LogNotFound, math.MinInt64, math.MinInt64, math.MinInt64),
		netproto.AppendLogStore(nil, key, netproto.LogNotStored, netproto.LogPrepend, math.MinInt64, math.MinInt64, math.MinInt64, math.MinInt64),
		netproto.AppendLogDelete(nil, key, netproto.LogDelete, math.MinInt64, math.MinInt64),
		netproto.AppendLogEviction(nil, key, true, math.MinInt64, math.MinInt64, math.MinInt64, math.MinInt64),
	} {
		if len(line) > most || line[len(line)-1] != '\n' {
			t.Errorf("%d bytes, want at most %d: %s", len(line), most, line)
		}
	}
	if got := string(netproto.AppendLogHead(nil, 12, 34, 5)); got != "ts=12.34 gid=5 " {
		t.Errorf("%q", got)
	}
}
