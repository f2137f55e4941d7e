package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// started is a server that lives as long as the test.
func started(t *testing.T, line string) *server {
	t.Helper()
	s, err := startServer(line, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) number(t *testing.T, name string) int64 {
	t.Helper()
	c, err := dial(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows, err := c.stats("")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(rows[name], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// What mcbench counts is what the server counted, in each protocol.
func TestCountsAddUp(t *testing.T) {
	const requests, keys = 2000, 300
	for _, line := range serverLines(t, "-m 64") {
		s := started(t, line)
		for _, protocol := range []string{"text", "meta", "binary"} {
			for _, shape := range []struct{ multiget, pipeline int }{{1, 1}, {1, 16}, {7, 3}} {
				label := fmt.Sprintf("%s, %s, %+v", s.name, protocol, shape)
				names := []string{"cmd_set", "get_hits", "get_misses", "delete_hits", "delete_misses"}
				before := map[string]int64{}
				for _, name := range names {
					before[name] = s.number(t, name)
				}
				r := mcbenchJSON[result](t, "run", "--json", "--addr", s.addr, "--pid", strconv.Itoa(int(s.process)), "--protocol", protocol, "--conns", "5", "--threads", "2",
					"--warm-up", "0s", "--duration", "1m", "--requests", strconv.Itoa(requests), "--keys", strconv.Itoa(keys), "--sets", "20", "--deletes", "10",
					"--multiget", strconv.Itoa(shape.multiget), "--pipeline", strconv.Itoa(shape.pipeline), "--size", "0-20000", "--zipf", "0.9", "--ttl", "1000-2000")
				changes := r.Stored + r.Deleted + r.NotFound
				if r.Requests != requests || r.Hits+r.Misses != (requests-changes)*int64(shape.multiget) || r.Hits == 0 || r.Stored < 300 || r.Deleted == 0 || r.Refused != 0 {
					t.Errorf("%s: got %+v, which do not add up to %d requests", label, r.tally, requests)
				}
				if r.CPU <= 0 && !portable || r.Resident == 0 || r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max {
					t.Errorf("%s: got CPU %v, memory %d, latencies %+v", label, r.CPU, r.Resident, r.Latency)
				}
				want := map[string]int64{"cmd_set": r.Stored + keys, "get_hits": r.Hits, "get_misses": r.Misses, "delete_hits": r.Deleted, "delete_misses": r.NotFound}
				for _, name := range names {
					if got := s.number(t, name) - before[name]; got != want[name] {
						t.Errorf("%s: the server counted %d %s, mcbench %d", label, got, name, want[name])
					}
				}
			}
		}
	}
}

func TestNoticesAWrongValue(t *testing.T) {
	s := started(t, serverLines(t, "-m 64")[0])
	d := &data{keyLength: 16}
	for _, bad := range []struct {
		value []byte
		want  string
	}{
		{wrong(d.key(1)), "wrong bytes under key"},
		{right(d.key(2)), "wrong bytes under key"},
		{right(d.key(1))[:99], "wrong size under key"},
	} {
		c, err := dial(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c.w, "set %s 0 0 %d\r\n%s\r\n", d.key(1), len(bad.value), bad.value)
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
		if line, err := c.line(); string(line) != "STORED" {
			t.Fatalf("got %q, %v", line, err)
		}
		c.Close()
		for _, protocol := range []string{"text", "meta", "binary"} {
			for _, multiget := range []string{"1", "3"} {
				_, err := mcbench(t, "run", "--addr", s.addr, "--fill=false", "--warm-up", "0s", "--requests", "10", "--keys", "1", "--sets", "0", "--conns", "1",
					"--protocol", protocol, "--multiget", multiget)
				if err == nil || !strings.Contains(err.Error(), bad.want) {
					t.Errorf("%s, %s keys: got %v, want %q", protocol, multiget, err, bad.want)
				}
			}
		}
	}
}

func TestNoticesAKeyThatWasNotAskedFor(t *testing.T) {
	p := &lines{data: &data{keyLength: 4, sizes: func(uint64) int { return 3 }}}
	for in, want := range map[string]string{
		"VALUE k009 0 3\r\n":         "not asked for",
		"VALUE k002 0 4\r\n":         "wrong size",
		"HELLO\r\n":                  `got "HELLO"`,
		strings.Repeat("x", 1<<12):   "want a line",
		"VALUE k001 0 -3\r\nEND\r\n": "got ",
	} {
		if _, _, err := p.reply([]byte(in), &op{keys: []uint64{1, 2}}, new(tally)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", in, err, want)
		}
	}
}

// However a reply arrives, it is read alike.
func TestReadsRepliesCutAnywhere(t *testing.T) {
	d := &data{keyLength: 4, sizes: func(k uint64) int { return int(k) }}
	head := func(opcode byte, status byte, extras, value int, opaque uint32) []byte {
		h := header(nil, opcode, 0, extras, value, opaque)
		h[0], h[7] = 0x81, status
		return append(h, make([]byte, extras)...)
	}
	value := func(k uint64) []byte { return appendValue(nil, d.key(k), int(k)) }
	for name, reply := range map[string][]byte{
		"text":   fmt.Appendf(nil, "VALUE k001 0 1\r\n%s\r\nVALUE k030 0 30\r\n%s\r\nEND\r\n", value(1), value(30)),
		"meta":   fmt.Appendf(nil, "VA 1 kk001\r\n%s\r\nVA 30 kk030\r\n%s\r\nMN\r\n", value(1), value(30)),
		"binary": append(append(append(append(head(binGetQ, 0, 4, 1, 0), value(1)...), head(binGetQ, 0, 4, 30, 2)...), value(30)...), head(binNoop, 0, 0, 0, 4)...),
	} {
		p, err := newWire(name, d)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range reply {
			o, got := &op{keys: []uint64{1, 2, 30, 4}}, tally{}
			n, done, err := p.reply(reply[:cut], o, &got)
			if done || err != nil {
				t.Fatalf("%s: after %d bytes: done %v, %v", name, cut, done, err)
			}
			m, done, err := p.reply(reply[n:], o, &got)
			if want := (tally{Hits: 2, Misses: 2}); !done || err != nil || n+m != len(reply) || got != want {
				t.Errorf("%s, cut at %d: got %+v, done %v, %v, %d of %d bytes", name, cut, got, done, err, n+m, len(reply))
			}
		}
	}
}

// A server that stands still delays all requests that were to be sent meanwhile. A closed loop would see one of them.
func TestOpenLoopCountsTheRequestsThatAStallKeptBack(t *testing.T) {
	const stall = 300 * time.Millisecond
	for _, test := range []struct {
		rate string
		slow bool
	}{{"1000", true}, {"0", false}} {
		var once sync.Once
		addr := fake{value: right, before: func() { once.Do(func() { time.Sleep(stall) }) }}.serve(t)
		args := []string{"run", "--json", "--addr", addr, "--fill=false", "--warm-up", "0s", "--sets", "0", "--conns", "1", "--keys", "100", "--rate", test.rate}
		if test.slow {
			args = append(args, "--duration", "400ms")
		} else {
			args = append(args, "--requests", "400", "--duration", "1m")
		}
		r := mcbenchJSON[result](t, args...)
		if r.Requests != 400 || r.Unsent != 0 || r.Latency.Max < float64(stall/time.Microsecond) {
			t.Errorf("rate %s: got %d requests, %d unsent, max %v us: want 400, 0, the stall", test.rate, r.Requests, r.Unsent, r.Latency.Max)
		}
		if slow := r.Latency.P50 > 50_000; slow != test.slow {
			t.Errorf("rate %s: got a median of %v us, want above 50 ms: %v", test.rate, r.Latency.P50, test.slow)
		}
	}
}

func TestEndsWhenTheServerDoesNotAnswer(t *testing.T) {
	end := make(chan struct{})
	addr := fake{value: right, before: func() { <-end }}.serve(t)
	_, err := mcbench(t, "run", "--addr", addr, "--fill=false", "--warm-up", "0s", "--sets", "0", "--conns", "2", "--timeout", "200ms")
	close(end)
	if err == nil || !strings.Contains(err.Error(), "no answer for 200ms, with 2 requests on their way") {
		t.Errorf("got %v, want an error that tells of 2 requests", err)
	}
}

func TestServersAreEndedAfterAnError(t *testing.T) {
	line := serverLines(t, "-m 64 -B ascii")[0]
	_, err := mcbench(t, "run", "--server", line, "--protocol", "binary", "--conns", "3")
	if err == nil {
		t.Error("a server of the text protocol answered in the binary one")
	}
	s := running.servers[len(running.servers)-1]
	select {
	case <-s.done:
	default:
		t.Errorf("pid %d still runs after %v", s.process, err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", s.dir, err)
	}
	if _, err := mcbench(t, "run", "--server", "false {port}"); err == nil || !strings.Contains(err.Error(), `"false {port}" ended at its start: exit status 1`) {
		t.Errorf("got %v, want an error that tells how the server ended", err)
	}
}

func TestBadFlagsAreRefusedInOneLine(t *testing.T) {
	addr := []string{"run", "--addr", "127.0.0.1:1"}
	for _, flags := range [][]string{
		{"--nosuch"}, {"--conns", "x"}, {"--conns", "0"}, {"--conns", "2", "--threads", "3"}, {"--pipeline", "0"}, {"--multiget", "0"}, {"--keys", "0"},
		{"--keys", "1000000", "--key-length", "7"}, {"--key-length", "251"}, {"--sets", "-1"}, {"--sets", "60", "--deletes", "60"}, {"--sets", "NaN"}, {"--zipf", "-1"},
		{"--rate", "-1"}, {"--duration", "0s"}, {"--timeout", "0s"}, {"--size", "1,2"}, {"--size", "5-1"}, {"--size", "1:0"}, {"--size", ""}, {"--ttl", "x"},
		{"--protocol", "udp"}, {"--preset", "nosuch"}, {"--server", "x {port}"}, {"--load-cpu", "a"}, {"--server-cpu", "0-"}, {"--requests", "-1"},
	} {
		out, err := mcbench(t, append(addr, flags...)...)
		if err == nil || !strings.HasPrefix(err.Error(), "mcbench: ") || strings.Contains(err.Error(), "\n") || out != "" {
			t.Errorf("%v: got %q, %v, want one line", flags, out, err)
		}
	}
	for _, flags := range [][]string{{"--rounds", "0"}, {"--peak", "101"}, {"--peak", "-1"}, {"--peak", "50", "--rate", "5"}} {
		if _, err := mcbench(t, append([]string{"compare", "--server", "false {port}"}, flags...)...); err == nil || strings.Contains(err.Error(), "ended at its start") {
			t.Errorf("compare %v: not refused: %v", flags, err)
		}
	}
}

func TestSizesFollowTheirDistribution(t *testing.T) {
	const n = 20_000
	for s, want := range map[string]map[int]int{"7": {7: n}, "1-4": {1: n / 4, 2: n / 4, 3: n / 4, 4: n / 4}, "10:3,20:1": {10: n * 3 / 4, 20: n / 4}} {
		sizes, err := parseSizes(s)
		if err != nil {
			t.Fatal(err)
		}
		got := map[int]int{}
		for k := range uint64(n) {
			got[sizes(k)]++
		}
		if len(got) != len(want) {
			t.Errorf("%s: got %v, want about %v", s, got, want)
		}
		for size, count := range want {
			if d := got[size] - count; d < -n/50 || d > n/50 {
				t.Errorf("%s: got %d of size %d, want about %d", s, got[size], size, count)
			}
		}
	}
}

// TestUpkeepAsksForCrawlsAndMoves runs a load with it for long enough that the server was asked.
func TestUpkeepAsksForCrawlsAndMoves(t *testing.T) {
	for _, line := range serverLines(t, "-m 64") {
		s := started(t, line)
		r := mcbenchJSON[result](t, "run", "--json", "--addr", s.addr, "--conns", "2", "--keys", "1000", "--warm-up", "0s", "--duration", "2500ms", "--rate", "500", "--upkeep")
		if n := s.number(t, "lru_crawler_starts"); n == 0 || r.Requests == 0 {
			t.Errorf("%s: %d crawls beside %d requests", s.name, n, r.Requests)
		}
	}
}

func TestPeakIsAShareOfWhatTheFirstServerReaches(t *testing.T) {
	line := serverLines(t, "-m 64")[0]
	all := mcbenchJSON[comparison](t, "compare", "--json", "--server", line, "--rounds", "1", "--conns", "2", "--keys", "1000", "--warm-up", "0s", "--duration", "500ms", "--peak", "10")
	if r := all.Servers[0].Rounds[0]; all.Load.Rate <= 0 || r.PerSecond > 1.5*all.Load.Rate {
		t.Errorf("%v requests a second, want about %v", r.PerSecond, all.Load.Rate)
	}
}

func TestComparesServersRoundByRound(t *testing.T) {
	lines := serverLines(t, "-m 64 -t 1")
	file := filepath.Join(t.TempDir(), "plot.svg")
	args := []string{"compare", "--preset", "binaryq", "--rounds", "2", "--requests", "500", "--keys", "1000", "--warm-up", "0s", "--plot", file, "--json"}
	for _, line := range []string{lines[0], lines[len(lines)-1]} {
		args = append(args, "--server", line)
	}
	all := mcbenchJSON[comparison](t, args...)
	if all.Load.Protocol != "binary" || all.Load.Multiget != 100 || all.Load.Keys != 1000 {
		t.Errorf("got %+v, want the preset but for the keys", all.Load)
	}
	for i, s := range all.Servers {
		if len(s.Rounds) != 2 || s.Rounds[0].Requests != 500 || s.Rounds[0].Hits != 50_000 {
			t.Errorf("%s: got %+v, want 2 rounds of 500 requests", s.Server, s.Rounds)
		}
		for _, f := range figures {
			st := s.Figures[f.name]
			if portable && st.Median == 0 { // of a processor, whose time Linux' ps has in seconds
				continue
			}
			if st.Median <= 0 || st.Low > st.Median || st.High < st.Median || i == 0 && st.Ratio != 1 {
				t.Errorf("%s: %s: got %+v", s.Server, f.name, st)
			}
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	curves := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			curves++
		}
	}
	if curves != 2 {
		t.Errorf("the plot has %d curves, want 2", curves)
	}
}
