package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hearth"
	"hearth/cmd/hearthd/web"
	"hearth/netproto/server"
)

const patience = 20 * time.Second

// rig is a server with its site.
type rig struct {
	t           testing.TB
	cache, http string // addresses
	site        *web.Site
}

// start starts both on free ports. At cleanup both end, and must leave no goroutine.
func start(t testing.TB, o web.Options, change ...func(*server.Options)) *rig {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	so := server.Options{Listen: []string{"127.0.0.1"}, Port: -1, Threads: 2, HearthVersion: "1.2.3"}
	for _, f := range change {
		f(&so)
	}
	srv, err := server.New(cache, so)
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen == "" {
		o.Listen = ":0"
	}
	site, err := web.Listen(o, srv)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- srv.Serve(ctx) }()
	go func() { site.Serve(); ended <- nil }()
	t.Cleanup(func() {
		site.Close()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, leaks)
	})
	return &rig{t, srv.Addrs()[0].String(), site.Addr().String(), site}
}

// client keeps no connections, so that none is left to look like a leak.
var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the status and the body of a page.
func (r *rig) get(path string, change ...func(*http.Request)) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+r.http+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range change {
		f(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// send sends lines to the cache and returns the answer, up to its end or that of the connection.
func (r *rig) send(lines, end string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", r.cache)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, lines)
	var b strings.Builder
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		b.WriteString(line)
		if line == end {
			return b.String()
		}
		if err != nil {
			r.t.Fatalf("%q: %v after %q", lines, err, b.String())
		}
	}
}

// rows are the rows of `stats name`.
func (r *rig) rows(name string) map[string]string {
	rows := map[string]string{}
	for line := range strings.Lines(r.send(strings.TrimSpace("stats "+name)+"\r\n", "END\r\n")) {
		if words := strings.SplitN(strings.TrimRight(line, "\r\n"), " ", 3); words[0] == "STAT" {
			rows[words[1]] = words[2]
		}
	}
	return rows
}

// work makes every counter that clients can move easily move, by different amounts.
func (r *rig) work() {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "set k%d 0 0 %d noreply\r\n%s\r\n", i, 50*i, strings.Repeat("x", 50*i))
	}
	b.WriteString("set n 0 0 1 noreply\r\n5\r\nget k1 k2 k3 nothing none\r\ndelete k4 noreply\r\ndelete k5 noreply\r\ndelete k4 noreply\r\n")
	b.WriteString("incr n 1 noreply\r\nincr none 1 noreply\r\nincr none 1 noreply\r\ndecr n 1 noreply\r\ndecr n 1 noreply\r\ndecr none 1 noreply\r\n")
	b.WriteString("touch n 0 noreply\r\ntouch none 0 noreply\r\ncas none 0 0 1 1 noreply\r\nx\r\ncas n 0 0 1 1 noreply\r\nx\r\ncas n 0 0 1 2 noreply\r\nx\r\n")
	b.WriteString("gat 9 n\r\nmg k1 v\r\nflush_all 1000 noreply\r\nmn\r\n")
	r.send(b.String(), "MN\r\n")
}

// metrics are the samples of /metrics by name and labels.
func (r *rig) metrics() map[string]float64 {
	r.t.Helper()
	code, body, _ := r.get("/metrics")
	if code != http.StatusOK {
		r.t.Fatalf("/metrics: %d\n%s", code, body)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		samples[line[:i]] = v
	}
	return samples
}

// chartedName is a name of memcached_exporter's, with its labels.
var chartedName = regexp.MustCompile(`^(memcached_\w+)(?: \{([\w, ]+)\})?$`)

func TestMetricsHaveEveryNameAndLabelThatMemcachedsUsersChart(t *testing.T) {
	r := start(t, web.Options{}, func(o *server.Options) { o.Tuning = nil })
	r.send("lru temp_ttl 60\r\nset temporary 0 30 1\r\nx\r\nmn\r\n", "MN\r\n")
	r.work()
	got := r.metrics()
	text, err := os.ReadFile("testdata/exporter-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for line := range strings.Lines(string(text)) {
		m := chartedName.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			t.Fatalf("exporter-metrics.txt: %q", line)
		}
		names++
		found := false
		for sample := range got {
			name, labels, _ := strings.Cut(sample, "{")
			if name != m[1] {
				continue
			}
			found = true
			var has []string
			for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(labels, -1) {
				has = append(has, l[1])
			}
			want := strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
			if !slices.Equal(slices.Sorted(slices.Values(has)), slices.Sorted(slices.Values(want))) {
				t.Errorf("%s: labels %v, want %v", sample, has, want)
			}
		}
		if !found {
			t.Errorf("%s is missing", m[1])
		}
	}
	if names < 70 {
		t.Errorf("%d names, want all", names)
	}
}

// What a name shows, written down once more and not by the table under test.
func TestMetricsAreTheValuesOfStats(t *testing.T) {
	r := start(t, web.Options{})
	r.work()
	// The cache's background work moves items meanwhile: both are read again until nothing moved between.
	var stats, items map[string]string
	var got map[string]float64
	for still, end := false, time.Now().Add(patience); !still; {
		items, stats, got = r.rows("items"), r.rows(""), r.metrics()
		if still = maps.Equal(items, r.rows("items")); !still && time.Now().After(end) {
			t.Fatal("the cache does not come to rest")
		}
	}
	settings, slabs := r.rows("settings"), r.rows("slabs")
	check := func(sample, want string) {
		t.Helper()
		n, err := strconv.ParseFloat(strings.NewReplacer("yes", "1", "no", "0").Replace(want), 64)
		if v, ok := got[sample]; err != nil || !ok || v != n {
			t.Errorf("%s is %v (%v), stats say %q", sample, v, ok, want)
		}
	}
	for sample, row := range map[string]string{
		"memcached_connections_rejected_total": "rejected_connections", "memcached_current_bytes": "bytes", "memcached_limit_bytes": "limit_maxbytes",
		"memcached_max_connections": "max_connections", "memcached_current_items": "curr_items", "memcached_items_total": "total_items",
		"memcached_items_evicted_total": "evictions", "memcached_item_too_large_total": "store_too_large", "memcached_malloced_bytes": "total_malloced",
		"memcached_lru_crawler_moves_to_cold_total": "moves_to_cold", "memcached_accepting_connections": "accepting_conns",
		`memcached_commands_total{command="get",status="hit"}`: "get_hits", `memcached_commands_total{command="get",status="miss"}`: "get_misses",
		`memcached_commands_total{command="delete",status="hit"}`: "delete_hits", `memcached_commands_total{command="delete",status="miss"}`: "delete_misses",
		`memcached_commands_total{command="incr",status="hit"}`: "incr_hits", `memcached_commands_total{command="incr",status="miss"}`: "incr_misses",
		`memcached_commands_total{command="decr",status="hit"}`: "decr_hits", `memcached_commands_total{command="decr",status="miss"}`: "decr_misses",
		`memcached_commands_total{command="cas",status="miss"}`: "cas_misses", `memcached_commands_total{command="cas",status="badval"}`: "cas_badval",
		`memcached_commands_total{command="touch",status="hit"}`: "touch_hits", `memcached_commands_total{command="touch",status="miss"}`: "touch_misses",
		`memcached_commands_total{command="flush",status="hit"}`: "cmd_flush",
		"hearth_restart_items": "restart_items", "hearth_index_bytes": "index_bytes", "hearth_index_load_ratio": "index_load", "hearth_corrupt_items_total": "corrupt_items",
		"hearth_meta_commands_total": "cmd_meta",
	} {
		check(sample, stats[row])
	}
	for sample, row := range map[string]string{
		"memcached_lru_crawler_enabled": "lru_crawler", "memcached_lru_crawler_sleep": "lru_crawler_sleep", "memcached_lru_crawler_hot_percent": "hot_lru_pct",
		"memcached_lru_crawler_warm_max_factor": "warm_max_factor", "memcached_lru_crawler_maintainer_thread": "lru_maintainer_thread",
	} {
		check(sample, settings[row])
	}
	classes := 0
	for name, number := range items {
		class, row := strings.Split(name, ":")[1], strings.Split(name, ":")[2]
		if sample := map[string]string{"number": "current_items", "number_hot": "hot_items", "number_cold": "cold_items", "mem_requested": "mem_requested_bytes", "evicted": "items_evicted_total"}[row]; sample != "" {
			check(`memcached_slab_`+sample+`{slab="`+class+`"}`, number)
			classes++
		}
		if lru, ok := strings.CutPrefix(row, "hits_to_"); ok {
			check(`memcached_slab_lru_hits_total{lru="`+strings.Replace(lru, "temp", "temporary", 1)+`",slab="`+class+`"}`, number)
		}
	}
	for name, number := range slabs {
		class, row, ok := strings.Cut(name, ":")
		if sample := map[string]string{"chunk_size": "chunk_size_bytes", "total_pages": "current_pages", "used_chunks": "chunks_used", "free_chunks": "chunks_free"}[row]; ok && sample != "" {
			check(`memcached_slab_`+sample+`{slab="`+class+`"}`, number)
		}
		if row == "get_hits" {
			check(`memcached_slab_commands_total{command="get",slab="`+class+`",status="hit"}`, number)
		}
	}
	if classes < 10 {
		t.Errorf("%d rows of classes were compared, want some of several classes", classes)
	}
	// memcached counts a cas as a set too, and the exporter takes it off: 42 of work's requests are sets.
	if n := got[`memcached_commands_total{command="set",status="hit"}`]; n != 41 {
		t.Errorf("%v sets, want 41: a cas is none", n)
	}
	if got["memcached_up"] != 1 || got[`memcached_version{version="`+stats["version"]+`"}`] != 1 || got[`hearth_build_info{version="1.2.3"}`] != 1 ||
		got[`hearth_restart_info{kind="cold",reason="`+stats["restart_reason"]+`"}`] != 1 {
		t.Errorf("up %v, version, build or restart are wrong: %v", got["memcached_up"], got)
	}
	latency := r.rows("latency")
	for _, command := range []string{"get", "set", "delete", "arithmetic", "touch"} {
		labels := `{command="` + command + `"}`
		check("hearth_request_duration_seconds_count"+labels, latency[command+":count"])
		check(`hearth_request_duration_seconds_bucket{command="`+command+`",le="0.001024"}`, latency[command+":under_1024us"])
		us, _ := strconv.ParseFloat(latency[command+":sum_us"], 64)
		if s := got["hearth_request_duration_seconds_sum"+labels]; s < us/1e6*0.999 || s > us/1e6*1.001 || s == 0 {
			t.Errorf("%s: %v s together, stats say %v us", command, s, us)
		}
	}
	sum := 0.0
	for sample, v := range got {
		if strings.HasPrefix(sample, "hearth_worker_read_bytes_total{") {
			sum += v
		}
	}
	if total := got["memcached_read_bytes_total"]; sum != total || total == 0 {
		t.Errorf("the workers read %v bytes, all of them %v", sum, total)
	}
}

func TestPromtoolFindsNoFault(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (apt-get install --no-install-recommends prometheus)")
	}
	r := start(t, web.Options{})
	r.work()
	_, body, _ := r.get("/metrics")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestJSONHasTheListsOfStats(t *testing.T) {
	r := start(t, web.Options{})
	r.work()
	stats, slabs := r.rows(""), r.rows("slabs")
	_, body, h := r.get("/stats.json")
	var l struct {
		Stats, Settings                map[string]any
		Items, Slabs, Workers, Latency map[string]map[string]float64
	}
	if err := json.Unmarshal([]byte(body), &l); err != nil || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %s\n%s", err, h.Get("Content-Type"), body)
	}
	if got := fmt.Sprint(l.Stats["curr_items"]); got != stats["curr_items"] {
		t.Errorf("curr_items %s, stats say %s", got, stats["curr_items"])
	}
	if l.Stats["version"] != stats["version"] || l.Settings["slab_reassign"] != "yes" || len(l.Workers) != 2 || l.Latency["set"]["count"] < 40 {
		t.Errorf("version %v, slab_reassign %v, %d workers, latency %v", l.Stats["version"], l.Settings["slab_reassign"], len(l.Workers), l.Latency)
	}
	for class, rows := range l.Slabs {
		if got := fmt.Sprint(rows["chunk_size"]); got != slabs[class+":chunk_size"] {
			t.Errorf("class %s: chunk_size %s, stats say %s", class, got, slabs[class+":chunk_size"])
		}
	}
	if len(l.Slabs) < 5 || len(l.Items) < 5 || len(l.Items) > len(l.Slabs) {
		t.Errorf("%d slab classes, %d with items", len(l.Slabs), len(l.Items))
	}
}

func TestHealthAndReadiness(t *testing.T) {
	r := start(t, web.Options{})
	if code, body, _ := r.get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body, _ := r.get("/readyz"); code != 200 || body != "ready\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	r.site.Stopping()
	if code, body, _ := r.get("/readyz"); code != 503 || body != "stopping\n" {
		t.Errorf("/readyz while stopping: %d %q", code, body)
	}
	if code, _, _ := r.get("/healthz"); code != 200 {
		t.Errorf("/healthz while stopping: %d", code)
	}
}

// fixed is a source of rows that stand still.
type fixed map[string][][2]string

func (f fixed) Rows(name string, row func(name, value string)) bool {
	for _, r := range f[name] {
		row(r[0], r[1])
	}
	return f[name] != nil
}

func TestReadyWhileSweepingAndSaysSo(t *testing.T) {
	for state, want := range map[string]string{"1": "ready, and sweeping: lists and free memory are made anew after a kill\n", "0": "ready\n"} {
		r := serveFixed(t, fixed{"": {{"restart_sweeping", state}}})
		if code, body, _ := r.get("/readyz"); code != 200 || body != want {
			t.Errorf("restart_sweeping %s: %d %q", state, code, body)
		}
	}
	r := serveFixed(t, fixed{})
	if code, _, _ := r.get("/readyz"); code != 503 {
		t.Errorf("without figures: %d", code)
	}
	if m := r.metrics(); m["memcached_up"] != 0 {
		t.Errorf("memcached_up %v without figures", m["memcached_up"])
	}
}

func serveFixed(t *testing.T, f fixed, o ...web.Options) *rig {
	t.Helper()
	options := web.Options{Listen: ":0"}
	if len(o) > 0 {
		options = o[0]
	}
	site, err := web.Listen(options, f)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { site.Serve(); close(done) }()
	t.Cleanup(func() { site.Close(); <-done })
	return &rig{t: t, http: site.Addr().String(), site: site}
}
