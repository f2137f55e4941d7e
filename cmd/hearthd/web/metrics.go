package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics answers with the figures as Prometheus wants them.
func (s *Site) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2, EnableOpenMetrics: true})
}

// family is one metric and the rows of stats that it shows.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string // names
	rows       []row
	per        float64 // what a row's unit is divided by; 0: 1
}

// row is a value of a family.
type row struct {
	key    string
	minus  []string // rows that are taken off
	labels []string // values, of what is not in the group
	text   []string // rows whose text are the label values instead, the value being 1
}

func counter(name, help, key string) family {
	return family{name: name, help: help, kind: prometheus.CounterValue, rows: []row{{key: key}}}
}

func gauge(name, help, key string) family {
	return family{name: name, help: help, kind: prometheus.GaugeValue, rows: []row{{key: key}}}
}

// untyped is for counters whose name promtool refuses for one, since it does not end in _total.
func untyped(name, help, key string) family {
	return family{name: name, help: help, kind: prometheus.UntypedValue, rows: []row{{key: key}}}
}

func (f family) divided(by float64) family { f.per = by; return f }

// info is a metric of value 1, with the text of rows in its labels.
func info(name, help string, labelsAndKeys ...string) family {
	f := family{name: name, help: help, kind: prometheus.GaugeValue, rows: []row{{}}}
	for i := 0; i < len(labelsAndKeys); i += 2 {
		f.labels, f.rows[0].text = append(f.labels, labelsAndKeys[i]), append(f.rows[0].text, labelsAndKeys[i+1])
	}
	return f
}

// commands are the rows of a commands_total. memcached counts a cas in cmd_set as well; its exporter takes that off, and so its users expect.
func commands(name, help string, misses bool) family {
	f := family{name: name, help: help, kind: prometheus.CounterValue, labels: []string{"command", "status"}}
	for _, op := range []string{"get", "delete", "incr", "decr", "cas", "touch"} {
		f.rows = append(f.rows, row{key: op + "_hits", labels: []string{op, "hit"}})
		if misses {
			f.rows = append(f.rows, row{key: op + "_misses", labels: []string{op, "miss"}})
		}
	}
	set := row{key: "cmd_set", minus: []string{"cas_hits", "cas_badval"}, labels: []string{"set", "hit"}}
	if misses {
		set.minus = append(set.minus, "cas_misses")
		f.rows = append(f.rows, row{key: "cmd_flush", labels: []string{"flush", "hit"}})
	}
	f.rows = append(f.rows, row{key: "cas_badval", labels: []string{"cas", "badval"}}, set)
	return f
}

// The tables. Names and labels that begin with memcached_ are those of Prometheus' memcached_exporter, which its users chart already; our own begin with hearth_. A row
// that is not in the list makes no metric, as there.
var (
	ofStats = []family{
		gauge("memcached_uptime_seconds", "Seconds since the start.", "uptime"),
		gauge("memcached_time_seconds", "The server's time, in seconds since 1970.", "time"),
		info("memcached_version", "The memcached whose protocol this is.", "version", "version"),
		counter("memcached_process_user_cpu_seconds_total", "Processor time in user mode.", "rusage_user"),
		counter("memcached_process_system_cpu_seconds_total", "Processor time in the kernel.", "rusage_system"),
		counter("memcached_read_bytes_total", "Bytes read from clients.", "bytes_read"),
		counter("memcached_written_bytes_total", "Bytes written to clients.", "bytes_written"),
		gauge("memcached_current_connections", "Client connections now.", "curr_connections"),
		gauge("memcached_max_connections", "Client connections that are allowed at a time.", "max_connections"),
		counter("memcached_connections_total", "Connections since the start.", "total_connections"),
		counter("memcached_connections_rejected_total", "Connections refused because there were too many.", "rejected_connections"),
		counter("memcached_connections_yielded_total", "Times that a connection made room for others after as many requests as one may have served at once.", "conn_yields"),
		counter("memcached_connections_listener_disabled_total", "Times that accepting paused at the limit of connections.", "listen_disabled_num"),
		gauge("memcached_current_bytes", "Bytes of items: header, key and value.", "bytes"),
		gauge("memcached_limit_bytes", "Bytes that items may take.", "limit_maxbytes"),
		commands("memcached_commands_total", "Requests by command and how they ended.", true),
		gauge("memcached_current_items", "Items now.", "curr_items"),
		counter("memcached_items_total", "Items ever stored.", "total_items"),
		counter("memcached_items_evicted_total", "Living items that gave way to others.", "evictions"),
		counter("memcached_items_reclaimed_total", "Expired items whose memory was used again.", "reclaimed"),
		counter("memcached_item_too_large_total", "Stores refused for their size.", "store_too_large"),
		counter("memcached_item_no_memory_total", "Stores refused for lack of memory.", "store_no_memory"),
		counter("memcached_direct_reclaims_total", "Times that a store had to evict by itself.", "direct_reclaims"),
		counter("memcached_lru_crawler_starts_total", "Crawls begun.", "lru_crawler_starts"),
		counter("memcached_lru_crawler_reclaimed_total", "Items that crawls freed.", "crawler_reclaimed"),
		counter("memcached_lru_crawler_items_checked_total", "Items that crawls looked at.", "crawler_items_checked"),
		counter("memcached_lru_crawler_moves_to_cold_total", "Items moved to COLD.", "moves_to_cold"),
		counter("memcached_lru_crawler_moves_to_warm_total", "Items moved to WARM.", "moves_to_warm"),
		counter("memcached_lru_crawler_moves_within_lru_total", "Items moved to the head of their own segment.", "moves_within_lru"),
		gauge("memcached_malloced_bytes", "Bytes of pages that belong to a slab class.", "total_malloced"),
		gauge("memcached_accepting_connections", "Whether connections are accepted.", "accepting_conns"),
		counter("memcached_round_robin_fallback_total", "Connections without a NAPI id, with -N.", "round_robin_fallback"),
		counter("memcached_unexpected_napi_ids_total", "Connections with a NAPI id more than there are workers, with -N.", "unexpected_napi_ids"),

		info("hearth_build_info", "The build.", "version", "hearth_version"),
		info("hearth_restart_info", "How the last start went (cold, clean or unclean) and why.", "kind", "restart_kind", "reason", "restart_reason"),
		gauge("hearth_restart_attach_seconds", "Time from opening the file to serving.", "restart_attach_us").divided(1e6),
		gauge("hearth_restart_sweep_seconds", "Time that the sweep after a kill took; 0 before its end.", "restart_sweep_ms").divided(1e3),
		gauge("hearth_restart_sweeping", "Whether the sweep after a kill goes on.", "restart_sweeping"),
		gauge("hearth_restart_items", "Items that the start found.", "restart_items"),
		counter("hearth_corrupt_items_total", "Items that were not what was stored: answered as misses, and freed.", "corrupt_items"),
		gauge("hearth_index_bytes", "Bytes of the index.", "index_bytes"),
		gauge("hearth_index_load_ratio", "Living words for each slot of the index.", "index_load"),
		gauge("hearth_index_growing", "Whether the index is being doubled or halved.", "hash_is_expanding"),
		gauge("hearth_free_pages", "Pages that belonged to a slab class and belong to none.", "slab_global_page_pool"),
		counter("hearth_pages_moved_total", "Pages that went from one slab class to another, or to none.", "slabs_moved"),
		gauge("hearth_page_move_running", "Whether a page is on its way.", "slab_reassign_running"),
		counter("hearth_page_move_rescued_items_total", "Items that were copied out of a page on its way.", "slab_reassign_rescues"),
		counter("hearth_page_move_busy_items_total", "Times that an item of a page on its way could not be moved yet.", "slab_reassign_busy_items"),
		counter("hearth_gets_expired_total", "Lookups that found an expired item.", "get_expired"),
		counter("hearth_gets_flushed_total", "Lookups that found a flushed item.", "get_flushed"),
		counter("hearth_meta_commands_total", "Requests of the meta protocol.", "cmd_meta"),
		counter("hearth_items_evicted_unfetched_total", "Evicted items that were never fetched.", "evicted_unfetched"),
		counter("hearth_items_evicted_active_total", "Evicted items that were fetched lately.", "evicted_active"),
		counter("hearth_items_expired_unfetched_total", "Expired items that were never fetched.", "expired_unfetched"),
		counter("hearth_lru_bumps_dropped_total", "Hits in COLD whose note did not fit: the LRU fell behind.", "lru_bumps_dropped"),
		counter("hearth_auth_attempts_total", "Authentications, failed ones included.", "auth_cmds"),
		counter("hearth_auth_failures_total", "Authentications that failed.", "auth_errors"),
		counter("hearth_connections_idle_closed_total", "Connections closed for being idle.", "idle_kicks"),
		gauge("hearth_connections_peak", "The most client connections there were.", "connection_structures"),
		counter("hearth_connections_listener_disabled_seconds_total", "Time that accepting paused.", "time_in_listen_disabled_us").divided(1e6),
		gauge("hearth_read_buffer_bytes", "Bytes of input buffers.", "read_buf_bytes"),
		gauge("hearth_log_watchers", "Connections that watch.", "log_watchers"),
		counter("hearth_tls_handshake_errors_total", "TLS handshakes that failed.", "ssl_handshake_errors"),
	}
	ofSettings = []family{
		gauge("memcached_lru_crawler_enabled", "Whether crawls are allowed.", "lru_crawler"),
		gauge("memcached_lru_crawler_sleep", "Microseconds that a crawl sleeps between items.", "lru_crawler_sleep"),
		gauge("memcached_lru_crawler_to_crawl", "Items that a crawl looks at, 0 for all.", "lru_crawler_tocrawl"),
		gauge("memcached_lru_crawler_maintainer_thread", "Whether the LRU is segmented and maintained.", "lru_maintainer_thread"),
		gauge("memcached_lru_crawler_hot_percent", "Memory reserved for HOT.", "hot_lru_pct"),
		gauge("memcached_lru_crawler_warm_percent", "Memory reserved for WARM.", "warm_lru_pct"),
		gauge("memcached_lru_crawler_hot_max_factor", "Share of COLD's age above which an item leaves HOT.", "hot_max_factor"),
		gauge("memcached_lru_crawler_warm_max_factor", "Share of COLD's age above which an item leaves WARM.", "warm_max_factor"),
	}
	ofItems = []family{
		gauge("memcached_slab_current_items", "Items now.", "number"),
		gauge("memcached_slab_items_age_seconds", "Age of COLD's last item, since its last access.", "age"),
		counter("memcached_slab_items_crawler_reclaimed_total", "Items that crawls freed.", "crawler_reclaimed"),
		counter("memcached_slab_items_evicted_total", "Living items that gave way to others.", "evicted"),
		counter("memcached_slab_items_evicted_nonzero_total", "Evicted items that had a time to live.", "evicted_nonzero"),
		gauge("memcached_slab_items_evicted_time_seconds", "Age of the last evicted item, since its last access.", "evicted_time"),
		counter("memcached_slab_items_evicted_unfetched_total", "Evicted items that were never fetched.", "evicted_unfetched"),
		counter("memcached_slab_items_expired_unfetched_total", "Expired items that were never fetched.", "expired_unfetched"),
		counter("memcached_slab_items_outofmemory_total", "Stores refused for lack of memory.", "outofmemory"),
		counter("memcached_slab_items_reclaimed_total", "Expired items whose memory was used again.", "reclaimed"),
		counter("memcached_slab_items_tailrepairs_total", "Always 0: no reader can hold an item for ever.", "tailrepairs"),
		untyped("memcached_slab_items_moves_to_cold", "Items moved to COLD.", "moves_to_cold"),
		untyped("memcached_slab_items_moves_to_warm", "Items moved to WARM.", "moves_to_warm"),
		untyped("memcached_slab_items_moves_within_lru", "Items moved to the head of their own segment.", "moves_within_lru"),
		gauge("memcached_slab_hot_items", "Items in HOT.", "number_hot"),
		gauge("memcached_slab_warm_items", "Items in WARM.", "number_warm"),
		gauge("memcached_slab_cold_items", "Items in COLD.", "number_cold"),
		gauge("memcached_slab_temporary_items", "Items in TEMP.", "number_temp"),
		gauge("memcached_slab_hot_age_seconds", "Age of HOT's last item, since its last access.", "age_hot"),
		gauge("memcached_slab_warm_age_seconds", "Age of WARM's last item, since its last access.", "age_warm"),
		gauge("memcached_slab_mem_requested_bytes", "Bytes of items: header, key and value.", "mem_requested"),
		{name: "memcached_slab_lru_hits_total", help: "Hits by LRU segment.", kind: prometheus.CounterValue, labels: []string{"lru"}, rows: []row{
			{key: "hits_to_hot", labels: []string{"hot"}}, {key: "hits_to_warm", labels: []string{"warm"}},
			{key: "hits_to_cold", labels: []string{"cold"}}, {key: "hits_to_temp", labels: []string{"temporary"}}}},

		counter("hearth_slab_items_evicted_active_total", "Evicted items that were fetched lately.", "evicted_active"),
		counter("hearth_slab_crawler_items_checked_total", "Items that crawls looked at.", "crawler_items_checked"),
		counter("hearth_slab_direct_reclaims_total", "Times that a store had to evict by itself.", "direct_reclaims"),
	}
	ofSlabs = []family{
		gauge("memcached_slab_chunk_size_bytes", "Size of a chunk.", "chunk_size"),
		gauge("memcached_slab_chunks_per_page", "Chunks in a page.", "chunks_per_page"),
		gauge("memcached_slab_current_pages", "Pages of the class.", "total_pages"),
		gauge("memcached_slab_current_chunks", "Chunks of the class.", "total_chunks"),
		gauge("memcached_slab_chunks_used", "Chunks that are in use.", "used_chunks"),
		gauge("memcached_slab_chunks_free", "Chunks that are free.", "free_chunks"),
		gauge("memcached_slab_chunks_free_end", "Always 0: free chunks are all in one list.", "free_chunks_end"),
		commands("memcached_slab_commands_total", "Requests by command and how they ended.", false),
	}
	ofWorkers = []family{
		gauge("hearth_worker_connections", "Client connections of the worker.", "curr_connections"),
		counter("hearth_worker_read_bytes_total", "Bytes read from the worker's clients.", "bytes_read"),
		counter("hearth_worker_written_bytes_total", "Bytes written to the worker's clients.", "bytes_written"),
		counter("hearth_worker_yields_total", "Times that one of the worker's connections made room for others.", "conn_yields"),
		counter("hearth_worker_cpu_seconds_total", "Processor time of the worker's thread.", "cpu_us").divided(1e6),
	}
)

// tables are the lists with their families, and the label that tells the groups of a list apart.
var tables = []struct {
	families []family
	label    string
	groups   func(l *lists) map[string]rows
}{
	{ofStats, "", func(l *lists) map[string]rows { return map[string]rows{"": l.Stats} }},
	{ofSettings, "", func(l *lists) map[string]rows { return map[string]rows{"": l.Settings} }},
	{ofItems, "slab", func(l *lists) map[string]rows { return l.Items }},
	{ofSlabs, "slab", func(l *lists) map[string]rows { return l.Slabs }},
	{ofWorkers, "worker", func(l *lists) map[string]rows { return l.Workers }},
}

var latency = prometheus.NewDesc("hearth_request_duration_seconds", "Time from when a worker learns of a request to when all replies of that iteration are written.", []string{"command"}, nil)

var up = prometheus.NewDesc("memcached_up", "Whether the server answers.", nil, nil)

// collector reads the lists once for each scrape.
type collector struct{ site *Site }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- up
	ch <- latency
	for _, t := range tables {
		for _, f := range t.families {
			ch <- f.desc(t.label)
		}
	}
}

func (f *family) desc(group string) *prometheus.Desc {
	labels := f.labels
	if group != "" {
		labels = append([]string{group}, labels...)
	}
	return prometheus.NewDesc(f.name, f.help, labels, nil)
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	l, ok := c.site.lists(all...)
	ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, number(ok))
	for command, rs := range l.Latency {
		count, _ := rs.number("count")
		sum, _ := rs.number("sum_us")
		buckets := map[float64]uint64{}
		for key := range rs {
			if bound, ok := strings.CutPrefix(key, "under_"); ok {
				us, _ := strconv.ParseFloat(strings.TrimSuffix(bound, "us"), 64)
				n, _ := rs.number(key)
				buckets[us/1e6] = uint64(n)
			}
		}
		ch <- prometheus.MustNewConstHistogram(latency, uint64(count), sum/1e6, buckets, command)
	}
	for _, t := range tables {
		for group, rs := range t.groups(&l) {
			for _, f := range t.families {
				f.collect(ch, t.label, group, rs)
			}
		}
	}
}

// collect sends the metrics of a family for one group.
func (f *family) collect(ch chan<- prometheus.Metric, label, group string, rs rows) {
	desc := f.desc(label)
	for _, r := range f.rows {
		v, ok := r.value(rs)
		if !ok {
			continue
		}
		if f.per != 0 {
			v /= f.per
		}
		var labels []string
		if label != "" {
			labels = append(labels, group)
		}
		labels = append(labels, r.labels...)
		for _, key := range r.text {
			labels = append(labels, string(rs[key]))
		}
		ch <- prometheus.MustNewConstMetric(desc, f.kind, v, labels...)
	}
}

// value is what a row says as a number; false: it is not there.
func (r *row) value(rs rows) (float64, bool) {
	if len(r.text) > 0 {
		_, ok := rs[r.text[0]]
		return 1, ok
	}
	v, ok := rs.number(r.key)
	for _, key := range r.minus {
		less, _ := rs.number(key)
		v -= less
	}
	if len(r.minus) > 0 {
		v = max(v, 0) // they are not read at the same moment
	}
	return v, ok
}

// number is the row of that name; false: it is not there, or no number.
func (rs rows) number(key string) (float64, bool) {
	switch v := strings.TrimSpace(string(rs[key])); v {
	case "yes", "no":
		return number(v == "yes"), true
	default:
		n, err := strconv.ParseFloat(v, 64)
		return n, err == nil
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
