package server_test

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hearth/netproto/server"
)

// count is a counting rule: what requests make of the counters.
type count struct {
	name   string
	given  string // sent first; its counts do not matter
	send   string
	reply  string // in the notation of row.want
	deltas string // counters and by how much they grow; the others of counted stay
	but    string // why memcached 1.6.18 counts or answers otherwise
}

// counted are the counters of plain stats that requests move.
var counted = strings.Fields(`cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits
	incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory
	auth_cmds auth_errors total_items curr_items`)

// runCounts checks counting rules against a server of ours and the machine's memcached.
func runCounts(t *testing.T, counts []count, opt func(*setup), memcachedArgs ...string) {
	t.Helper()
	for i, addr := range both(t, opt, memcachedArgs...) {
		for _, r := range counts {
			t.Run(map[int]string{0: "hearth/", 1: "memcached/"}[i]+r.name, func(t *testing.T) {
				got := r.run(t, addr)
				want := inNotation(r.reply) + sorted(strings.Fields(r.deltas))
				if (got == want) != (i == 0 || r.but == "") {
					t.Errorf("%s\n got %s\nwant %s\n%s", clip(r.send), indent(got), indent(want), r.but)
				}
			})
		}
	}
}

// run returns the reply to r and the counters that grew, in the order of counted.
func (r count) run(t *testing.T, addr string) string {
	t.Helper()
	c := dial(t, addr)
	m := masker{numbers: map[string]int{}, last: map[string]string{}}
	ask := func(text string) string {
		c.send("%s", m.unmask(escape(text))+"mn\r\n")
		var reply strings.Builder
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatalf("%q: %v", clip(text), err)
			}
			if line == "MN\r\n" {
				return m.mask([]byte(reply.String()))
			}
			reply.WriteString(line)
		}
	}
	ask("delete a\r\ndelete b\r\n") // not by flush_all, which leaves something to count
	if reply := ask(r.given); strings.Contains(reply, "ERROR") {
		t.Fatalf("what is given fails: %s", reply)
	}
	before := c.stats("")
	reply := ask(r.send)
	after := c.stats("")
	var deltas []string
	for _, name := range counted {
		was, _ := strconv.Atoi(before[name])
		is, err := strconv.Atoi(after[name])
		if err != nil {
			t.Fatalf("stat %s is %q", name, after[name])
		}
		if is != was {
			deltas = append(deltas, name, strconv.Itoa(is-was))
		}
	}
	return reply + sorted(deltas)
}

// sorted writes names and numbers in the order of counted.
func sorted(pairs []string) string {
	by := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		by[pairs[i]] = pairs[i+1]
	}
	var out []string
	for _, name := range counted {
		if n, ok := by[name]; ok {
			out = append(out, fmt.Sprintf("%s %s", name, n))
			delete(by, name)
		}
	}
	for name := range by {
		panic("no counter: " + name)
	}
	return strings.Join(out, ", ")
}

// TestCounting has what each request counts.
func TestCounting(t *testing.T) {
	const hit, given = "VALUE a 0 1\r\n1\r\nEND\r\n", "set a 0 0 1\r\n1\r\n"
	const expired = "set a 0 -1 200\r\n<x*200>\r\n" // of another class than what is stored over it: memcached looks for room among the dead of a class first
	runCounts(t, []count{
		{name: "get counts each key", given: given, send: "get a b a\r\n", reply: "VALUE a 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n", deltas: "cmd_get 3 get_hits 2 get_misses 1"},
		{name: "get of an expired item is a miss too", given: expired, send: "get a\r\n", reply: "END\r\n", deltas: "cmd_get 1 get_misses 1 get_expired 1 curr_items -1"},
		{name: "get of a flushed item is a miss too", given: given, send: "flush_all\r\nget a\r\n", reply: "OK\r\nEND\r\n", deltas: "cmd_flush 1 cmd_get 1 get_misses 1 get_flushed 1 curr_items -1"},
		{name: "gets counts as get", given: given, send: "gets a b\r\n", reply: "VALUE a 0 1 {1}\r\n1\r\nEND\r\n", deltas: "cmd_get 2 get_hits 1 get_misses 1"},
		{name: "gat hit counts as touch", given: given, send: "gat 0 a\r\n", reply: hit, deltas: "cmd_touch 1 touch_hits 1"},
		{name: "gat miss counts as touch", send: "gat 0 a\r\n", reply: "END\r\n", deltas: "cmd_touch 1 touch_misses 1"},
		{name: "touch hit", given: given, send: "touch a 0\r\n", reply: "TOUCHED\r\n", deltas: "cmd_touch 1 touch_hits 1"},
		{name: "touch miss", send: "touch a 0\r\n", reply: "NOT_FOUND\r\n", deltas: "cmd_touch 1 touch_misses 1"},
		{name: "set", send: "set a 0 0 1\r\n1\r\n", reply: stored, deltas: "cmd_set 1 total_items 1 curr_items 1"},
		{name: "set over an item", given: given, send: "set a 0 0 1\r\n1\r\n", reply: stored, deltas: "cmd_set 1 total_items 1"},
		{name: "add that fails counts as set", given: given, send: "add a 0 0 1\r\n1\r\n", reply: "NOT_STORED\r\n", deltas: "cmd_set 1"},
		{name: "replace that fails counts as set", send: "replace a 0 0 1\r\n1\r\n", reply: "NOT_STORED\r\n", deltas: "cmd_set 1"},
		{name: "append that fails counts as set", send: "append a 0 0 1\r\n1\r\n", reply: "NOT_STORED\r\n", deltas: "cmd_set 1"},
		{name: "append counts as set", given: given, send: "append a 0 0 1\r\n1\r\n", reply: stored, deltas: "cmd_set 1 total_items 1"},
		{name: "set with a bad block counts as set", send: "set a 0 0 1\r\nabc", reply: badChunk, deltas: "cmd_set 1"},
		{name: "set that is too large is none", send: "set a 0 0 1048576\r\n<x*1048576>\r\n", reply: objectLarge, deltas: "store_too_large 1"},
		{name: "set on a bad line is none", send: "set <k*251> 0 0 1\r\n1\r\nset a x 0 1\r\n1\r\n", reply: badFormat + badFormat, deltas: "", but: oldDrop},
		{name: "cas hit", given: given + "gets a\r\n", send: "cas a 0 0 1 {cas a}\r\n2\r\n", reply: stored, deltas: "cmd_set 1 cas_hits 1 total_items 1"},
		{name: "cas with another cas", given: given, send: "cas a 0 0 1 1\r\n2\r\n", reply: "EXISTS\r\n", deltas: "cmd_set 1 cas_badval 1"},
		{name: "cas miss", send: "cas a 0 0 1 1\r\n2\r\n", reply: "NOT_FOUND\r\n", deltas: "cmd_set 1 cas_misses 1"},
		{name: "delete hit", given: given, send: "delete a\r\n", reply: "DELETED\r\n", deltas: "delete_hits 1 curr_items -1"},
		{name: "delete miss", send: "delete a\r\n", reply: "NOT_FOUND\r\n", deltas: "delete_misses 1"},
		{name: "incr and decr hits", given: given, send: "incr a 1\r\ndecr a 1\r\n", reply: "2\r\n1\r\n", deltas: "incr_hits 1 decr_hits 1"},
		{name: "incr and decr misses", send: "incr a 1\r\ndecr a 1\r\n", reply: "NOT_FOUND\r\nNOT_FOUND\r\n", deltas: "incr_misses 1 decr_misses 1"},
		{name: "incr of a word is none", given: "set a 0 0 1\r\nx\r\n", send: "incr a 1\r\n", reply: notANumber, deltas: ""},
		{name: "incr to a longer number stores an item", given: "set a 0 0 1\r\n9\r\n", send: "incr a 1\r\n", reply: "10\r\n", deltas: "incr_hits 1 total_items 1"},
		{name: "flush_all", send: "flush_all\r\n", reply: "OK\r\n", deltas: "cmd_flush 1"},
		{name: "mg hit counts as get", given: given, send: "mg a v\r\n", reply: "VA 1\r\n1\r\n", deltas: "cmd_get 1 get_hits 1"},
		{name: "mg hit that touches counts as touch", given: given, send: "mg a T0\r\n", reply: "HD\r\n", deltas: "cmd_touch 1 touch_hits 1"},
		{name: "mg miss counts as get", send: "mg a v\r\n", reply: "EN\r\n", deltas: "cmd_get 1 get_misses 1"},
		{name: "mg miss that touches counts as get", send: "mg a T0\r\n", reply: "EN\r\n", deltas: "cmd_get 1 get_misses 1"},
		{name: "mg that makes an item", send: "mg a N0\r\n", reply: "HD W\r\n", deltas: "cmd_get 1 get_hits 1 total_items 1 curr_items 1"},
		{name: "ms counts as set", send: "ms a 1\r\n1\r\n", reply: "HD\r\n", deltas: "cmd_set 1 total_items 1 curr_items 1"},
		{name: "ms that fails counts as set", given: given, send: "ms a 1 ME\r\n1\r\n", reply: "NS\r\n", deltas: "cmd_set 1"},
		{name: "ms with a cas", given: given + "gets a\r\n", send: "ms a 1 C{cas a}\r\n1\r\nms a 1 C{cas a}\r\n1\r\nms b 1 C1\r\n1\r\n", reply: "HD\r\nEX\r\nNF\r\n",
			deltas: "cmd_set 3 cas_hits 1 cas_badval 1 cas_misses 1 total_items 1"},
		{name: "ms that is too large", send: "ms a 1048576\r\n<x*1048576>\r\n", reply: objectLarge, deltas: "store_too_large 1"},
		{name: "md counts as delete", given: given, send: "md a\r\nmd a\r\n", reply: "HD\r\nNF\r\n", deltas: "delete_hits 1 delete_misses 1 curr_items -1"},
		{name: "ma counts as incr and decr", given: given, send: "ma a\r\nma a MD\r\nma b\r\nma b MD\r\n", reply: "HD\r\nHD\r\nNF\r\nNF\r\n", deltas: "incr_hits 1 decr_hits 1 incr_misses 1 decr_misses 1"},
		{name: "ma that makes an item", send: "ma a N0\r\n", reply: "HD\r\n", deltas: "total_items 1 curr_items 1"},
		{name: "me counts as meta", given: given, send: "me a\r\nme b\r\n", reply: "ME a exp=-1 la=0 cas={1} fetch=no cls= size=\r\nEN\r\n", deltas: "cmd_meta 2"},
		{name: "set over an expired item", given: expired, send: "set a 0 0 1\r\n1\r\n", reply: stored, deltas: "cmd_set 1 total_items 1 get_expired 1"},
		{name: "add over an expired item", given: expired, send: "add a 0 0 1\r\n1\r\n", reply: stored, deltas: "cmd_set 1 total_items 1 get_expired 1"},
		{name: "replace of an expired item", given: expired, send: "replace a 0 0 1\r\n1\r\n", reply: "NOT_STORED\r\n", deltas: "cmd_set 1 curr_items -1 get_expired 1"},
		{name: "delete of an expired item", given: expired, send: "delete a\r\n", reply: "NOT_FOUND\r\n", deltas: "delete_misses 1 curr_items -1 get_expired 1"},
		{name: "incr of an expired item", given: expired, send: "incr a 1\r\n", reply: "NOT_FOUND\r\n", deltas: "incr_misses 1 curr_items -1 get_expired 1"},
		{name: "touch of an expired item", given: expired, send: "touch a 1\r\n", reply: "NOT_FOUND\r\n", deltas: "cmd_touch 1 touch_misses 1 curr_items -1 get_expired 1"},
		{name: "gat of an expired item", given: expired, send: "gat 1 a\r\n", reply: "END\r\n", deltas: "cmd_touch 1 touch_misses 1 curr_items -1 get_expired 1"},
		{name: "me of an expired item", given: expired, send: "me a\r\n", reply: "EN\r\n", deltas: "cmd_meta 1 curr_items -1 get_expired 1"},
		{name: "ma of an expired item", given: expired, send: "ma a\r\n", reply: "NF\r\n", deltas: "incr_misses 1 curr_items -1 get_expired 1"},
		{name: "md of an expired item", given: expired, send: "md a\r\n", reply: "NF\r\n", deltas: "delete_misses 1 curr_items -1 get_expired 1"},
		{name: "cas of an expired item", given: expired, send: "cas a 0 0 1 1\r\n1\r\n", reply: "NOT_FOUND\r\n", deltas: "cmd_set 1 cas_misses 1 curr_items -1 get_expired 1"},
		{name: "append to an expired item", given: expired, send: "append a 0 0 1\r\n1\r\n", reply: "NOT_STORED\r\n", deltas: "cmd_set 1 curr_items -1 get_expired 1"},
	}, withoutBackground, "-o", "no_lru_maintainer,no_lru_crawler")
}

// withoutBackground keeps what runs in the background from taking dead items away before a request does.
func withoutBackground(o *setup) {
	o.cache.LRU.Flat, o.server.NoLRUMaintainer = true, true
	tuning := server.DefaultTuning
	tuning.NoCrawler = true
	o.server.Tuning = &tuning
}

// The keys of stats in memcached's order. A group in brackets is there under a condition, and goes by the name before it.
const (
	generalKeys = `pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections total_connections
		[fast: rejected_connections] connection_structures response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes
		read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses
		delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory
		auth_cmds auth_errors [idle: idle_kicks] bytes_read bytes_written limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us
		threads conn_yields hash_power_level hash_bytes hash_is_expanding [reassign: slab_reassign_rescues slab_reassign_chunk_rescues
		slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status
		slab_reassign_running slabs_moved] [crawler: lru_crawler_running lru_crawler_starts] [maintainer: lru_maintainer_juggles] malloc_fails
		log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items
		total_items slab_global_page_pool expired_unfetched evicted_unfetched [maintainer: evicted_active] evictions reclaimed crawler_reclaimed
		crawler_items_checked lrutail_reflocked [maintainer: moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped]`
	itemKeys = `number [maintainer: number_hot number_warm number_cold] [temp: number_temp] [maintainer: age_hot age_warm] age mem_requested evicted
		evicted_nonzero evicted_time outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched [maintainer: evicted_active] crawler_reclaimed
		crawler_items_checked lrutail_reflocked [maintainer: moves_to_cold moves_to_warm moves_within_lru direct_reclaims hits_to_hot hits_to_warm
		hits_to_cold hits_to_temp]`
	slabKeys = `chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks free_chunks_end get_hits cmd_set delete_hits incr_hits decr_hits
		cas_hits cas_badval touch_hits`
	settingKeys = `maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask shutdown_command growth_factor chunk_size
		num_threads num_threads_per_udp stat_key_prefix detail_enabled reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl
		auth_enabled_ascii item_size_max maxconns_fast hashpower_init slab_reassign slab_automove slab_automove_ratio slab_automove_window slab_chunk_max
		lru_crawler lru_crawler_sleep lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled hash_algorithm lru_maintainer_thread lru_segmented
		hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size
		read_buf_mem_limit track_sizes inline_ascii_response ssl_enabled num_napi_ids memory_file [newer: client_flags_size]`
)

// newerKeys are in other versions only, one way or the other.
var newerKeys = strings.Fields("slab_reassign_busy_nomem slab_reassign_last_busy_status slab_reassign_evictions_nomem client_flags_size")

// keys returns the keys whose condition is among those given.
func keys(list string, conditions string) (all []string) {
	on := true
	for _, word := range strings.Fields(list) {
		if group, ok := strings.CutPrefix(word, "["); ok {
			on = strings.Contains(conditions, strings.TrimSuffix(group, ":"))
			continue
		}
		name, ends := strings.CutSuffix(word, "]")
		if on {
			all = append(all, name)
		}
		on = on || ends
	}
	return all
}

// statNames asks for stats and returns the names in order, the prefix of a class cut off.
func (c *client) statNames(sub, prefix string) (names []string) {
	c.t.Helper()
	c.send("stats%s\r\n", sub)
	for l := c.line(); l != "END"; l = c.line() {
		f := strings.Fields(l)
		if len(f) < 2 || f[0] != "STAT" {
			c.t.Fatalf("stats%s: %q", sub, l)
		}
		names = append(names, strings.TrimPrefix(f[1], prefix))
	}
	return names
}

// TestStats has the names of stats, in their order and under their conditions.
func TestStats(t *testing.T) {
	noCrawler := server.DefaultTuning
	noCrawler.NoCrawler = true
	for _, mode := range []struct {
		name, conditions string
		number           int // of plain stats
		opt              func(*setup)
		memcached        string
	}{
		{"by default", "fast newer reassign crawler maintainer", 93, func(*setup) {}, "modern"},
		{"no_lru_maintainer and no_lru_crawler", "fast newer reassign", 84, withoutBackground, "no_lru_maintainer,no_lru_crawler"},
		{"no_maxconns_fast", "newer reassign crawler maintainer", 92, func(o *setup) { o.server.NoMaxConnsFast = true }, "no_maxconns_fast"},
		{"idle_timeout", "fast newer idle reassign crawler maintainer", 94, func(o *setup) { o.server.IdleTimeout = 1000 }, "idle_timeout=1000"},
		{"temporary_ttl", "fast newer reassign crawler maintainer temp", 93, func(o *setup) { o.cache.LRU.Temp, o.cache.LRU.TempTTL = true, 10 }, "temporary_ttl=10"},
		{"no_lru_crawler", "fast newer reassign maintainer", 91, func(o *setup) { o.server.Tuning = &noCrawler }, "no_lru_crawler"},
	} {
		t.Run("keys in order "+mode.name, func(t *testing.T) {
			for i, addr := range both(t, mode.opt, "-o", mode.memcached) {
				c := dial(t, addr)
				c.ask("set a 0 100 1\r\n1\r\n", stored)
				for _, list := range []struct{ sub, prefix, keys string }{
					{"", "", generalKeys}, {" items", "items:1:", itemKeys}, {" slabs", "1:", slabKeys + " active_slabs total_malloced"}, {" settings", "", settingKeys},
				} {
					got, want := c.statNames(list.sub, list.prefix), keys(list.keys, mode.conditions)
					if list.sub == "" && len(want) != mode.number {
						t.Errorf("the list has %d keys, want %d", len(want), mode.number)
					}
					if i == 0 && list.sub == "" {
						got = got[:min(len(got), len(want))] // our own come behind
					}
					if list.sub == " settings" { // not in each build
						got = slices.DeleteFunc(got, func(k string) bool {
							return strings.HasPrefix(k, "ext_") || strings.HasPrefix(k, "ssl_") && k != "ssl_enabled" || k == "slab_automove_freeratio" || k == "drop_privileges"
						})
					}
					if i == 1 {
						isNewer := func(k string) bool { return slices.Contains(newerKeys, k) }
						got, want = slices.DeleteFunc(got, isNewer), slices.DeleteFunc(want, isNewer)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s: stats%s has\n     %s\nwant %s", addr, list.sub, got, want)
					}
				}
			}
		})
	}
}

func TestStatsCommand(t *testing.T) {
	const usage, heard = "CLIENT_ERROR usage: stats detail on|off|dump\r\n", "1.6.18 hears no noreply there"
	runRows(t, []row{
		{name: "reset", send: "stats reset\r\n", want: "RESET\r\n"},
		{name: "an unknown sub-command is an error", send: "stats foo\r\nstats Settings\r\n", want: "ERROR\r\nERROR\r\n"},
		{name: "a prefix of a sub-command is none", send: "stats r\r\nstats se\r\nstats item\r\nstats c\r\n", want: strings.Repeat("ERROR\r\n", 4)},
		{name: "noreply silences them", send: "stats noreply\r\nstats reset noreply\r\nstats foo noreply\r\n", want: "", but: heard},
		{name: "sizes without track_sizes", send: "stats sizes\r\n", want: "STAT sizes_status disabled\r\nEND\r\n"},
		{name: "cachedump without words", send: "stats cachedump\r\nstats cachedump 1\r\n", want: strings.Repeat("CLIENT_ERROR bad command line\r\n", 2)},
		{name: "cachedump without numbers", send: "stats cachedump x 1\r\nstats cachedump 1 x\r\n", want: badFormat + badFormat},
		{name: "cachedump of no class", send: "stats cachedump 64 1\r\n", want: "CLIENT_ERROR Illegal slab id\r\n"},
		{name: "detail without a word it knows", send: "stats detail\r\nstats detail foo\r\n", want: usage + usage},
	}, nil)

	t.Run("items and slabs of an empty cache", func(t *testing.T) {
		for _, addr := range both(t, func(*setup) {}) {
			dial(t, addr).ask("stats items\r\nstats slabs\r\n", "END\r\nSTAT active_slabs 0\r\nSTAT total_malloced 0\r\nEND\r\n")
		}
	})

	const on, off = "stats detail on\r\n", "stats detail off\r\nstats reset\r\n" // reset forgets the prefixes
	t.Run("detail", func(t *testing.T) {
		runRows(t, []row{
			{name: "dump of nothing", send: "stats detail dump\r\n", want: "END\r\n"},
			{name: "on counts get and hit", given: "set p:a 0 0 1\r\n1\r\n" + on, send: "get p:a p:b\r\nstats detail dump\r\n" + off,
				want: "VALUE p:a 0 1\r\n1\r\nEND\r\nPREFIX p get 2 hit 1 set 0 del 0\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "on counts the set family", given: on, send: "set p:a 0 0 1\r\n1\r\nadd p:a 0 0 1\r\n1\r\nreplace p:a 0 0 1\r\n1\r\nappend p:a 0 0 1\r\n1\r\nprepend p:a 0 0 1\r\n1\r\ncas p:a 0 0 1 1\r\n1\r\nstats detail dump\r\n" + off,
				want: "STORED\r\nNOT_STORED\r\nSTORED\r\nSTORED\r\nSTORED\r\nEXISTS\r\nPREFIX p get 0 hit 0 set 6 del 0\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "on counts delete", given: on, send: "delete p:a\r\nstats detail dump\r\n" + off, want: "NOT_FOUND\r\nPREFIX p get 0 hit 0 set 0 del 1\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "on counts gat as get", given: on, send: "gat 0 p:a\r\ngats 0 p:a\r\ngets p:a\r\nstats detail dump\r\n" + off, want: "END\r\nEND\r\nEND\r\nPREFIX p get 3 hit 0 set 0 del 0\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "on counts no meta commands and no incr and touch", given: on, send: "ms p:a 1\r\n1\r\nmg p:a\r\nma p:a\r\nincr p:a 1\r\ntouch p:a 0\r\nmd p:a\r\nstats detail dump\r\n" + off,
				want: "HD\r\nHD\r\nHD\r\n3\r\nTOUCHED\r\nHD\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "keys without a delimiter do not count", given: on, send: "get plain\r\nstats detail dump\r\n" + off, want: "END\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "a prefix ends at the first delimiter", given: on, send: "get p:q:r\r\nstats detail dump\r\n" + off, want: "END\r\nPREFIX p get 1 hit 0 set 0 del 0\r\nEND\r\nOK\r\nRESET\r\n"},
			{name: "off counts nothing more", given: on, send: "stats detail off\r\nget p:a\r\nstats detail dump\r\n", want: "OK\r\nEND\r\nEND\r\n"},
		}, nil)
	})
	t.Run("detail counts 65536 prefixes at most", func(t *testing.T) {
		c := dial(t, startServer(t, func(o *setup) { o.server.Detail = true }))
		const most = 65536
		var keys strings.Builder
		for i := range most + 100 {
			fmt.Fprintf(&keys, " %d:", i)
		}
		c.ask("get"+keys.String()+"\r\n", "END\r\n")
		n := 0
		for c.send("stats detail dump\r\n"); c.line() != "END"; n++ {
		}
		if n != most {
			t.Errorf("%d prefixes, want %d", n, most)
		}
	})
	t.Run("-D", func(t *testing.T) {
		runRows(t, []row{
			{name: "sets the delimiter and turns detail on", send: "get p/a p:a\r\nstats detail dump\r\n", want: "END\r\nPREFIX p get 1 hit 0 set 0 del 0\r\nEND\r\n"},
		}, func(o *setup) { o.server.Detail, o.server.PrefixDelimiter = true, '/' }, "-D", "/")
	})
	const gone = "delete __end__\r\n" // which ends what is given
	t.Run("a segmented LRU", func(t *testing.T) {
		runRows(t, []row{ // what is in TEMP stays there, where the maintainer would move it from HOT to COLD sooner or later
			{name: "cachedump lists COLD only", given: "set a 0 500 3\r\nabc\r\n", send: gone + "stats cachedump 1 0\r\n", want: "DELETED\r\nEND\r\n"},
		}, func(o *setup) { o.cache.LRU.Temp, o.cache.LRU.TempTTL = true, 1000 }, "-o", "temporary_ttl=1000")
	})
	t.Run("a flat LRU", func(t *testing.T) {
		runRows(t, []row{
			{name: "cachedump lists the newest first", given: "set a 0 0 3\r\nabc\r\nset b 0 0 1\r\n1\r\n", send: gone + "stats cachedump 1 0\r\nstats cachedump 1 1\r\n",
				want: "DELETED\r\nITEM b [1 b; 0 s]\r\nITEM a [3 b; 0 s]\r\nEND\r\nITEM b [1 b; 0 s]\r\nEND\r\n"},
			{name: "cachedump shows the moment of expiry", given: "set a 0 2000000000 3\r\nabc\r\n", send: gone + "stats cachedump 1 0\r\n", want: "DELETED\r\nITEM a [3 b; 2000000000 s]\r\nEND\r\n"},
			{name: "cachedump leaves keys in base64 out", given: "set a 0 0 3\r\nabc\r\nms AQL/ 1 b\r\n1\r\n", send: gone + "stats cachedump 1 0\r\n", want: "DELETED\r\nITEM a [3 b; 0 s]\r\nEND\r\n"},
		}, withoutBackground, "-o", "no_lru_maintainer,no_lru_crawler")
	})
}

// TestStatsSetting has the values of stats settings, by the flag that sets them.
func TestStatsSetting(t *testing.T) {
	for _, r := range []struct {
		flag  string
		opt   func(*setup)
		args  []string
		want  string // name and value
		newer bool
	}{
		{flag: "defaults", want: "maxbytes 67108864, maxconns 1024, udpport 0, verbosity 0, oldest 0, evictions on, domain_socket NULL, umask 700, " +
			"shutdown_command no, growth_factor 1.25, chunk_size 48, stat_key_prefix :, detail_enabled no, reqs_per_event 20, cas_enabled yes, tcp_backlog 1024, " +
			"binding_protocol auto-negotiate, auth_enabled_sasl no, auth_enabled_ascii no, item_size_max 1048576, maxconns_fast yes, hashpower_init 0, slab_automove 1, " +
			"slab_automove_ratio 0.80, slab_chunk_max 524288, lru_crawler yes, lru_crawler_sleep 100, lru_crawler_tocrawl 0, tail_repair_time 0, flush_enabled yes, " +
			"dump_enabled yes, lru_maintainer_thread yes, lru_segmented yes, hot_lru_pct 20, warm_lru_pct 40, hot_max_factor 0.20, warm_max_factor 2.00, temp_lru no, " +
			"temporary_ttl 61, idle_timeout 0, read_buf_mem_limit 0, track_sizes no, inline_ascii_response no, ssl_enabled no, memory_file (null)"},
		{flag: "-m", opt: func(o *setup) { o.cache.MemoryLimit = 100 << 20 }, args: []string{"-m", "100"}, want: "maxbytes 104857600"},
		{flag: "-c", opt: func(o *setup) { o.server.MaxConns = 300 }, args: []string{"-c", "300"}, want: "maxconns 300"},
		{flag: "-M", opt: func(o *setup) { o.cache.NoEvict = true }, args: []string{"-M"}, want: "evictions off"},
		{flag: "-a", opt: func(o *setup) { o.server.UnixMask = 0o644 }, args: []string{"-a", "644"}, want: "umask 644"},
		{flag: "-A", opt: func(o *setup) { o.server.EnableShutdown = true }, args: []string{"-A"}, want: "shutdown_command yes"},
		{flag: "-f", opt: func(o *setup) { o.cache.GrowthFactor = 1.5 }, args: []string{"-f", "1.5"}, want: "growth_factor 1.50"},
		{flag: "-n", opt: func(o *setup) { o.cache.MinSpace = 100 }, args: []string{"-n", "100"}, want: "chunk_size 100"},
		{flag: "-t", opt: func(o *setup) { o.server.Threads = 3 }, args: []string{"-t", "3"}, want: "num_threads 3, num_threads_per_udp 3"},
		{flag: "-D", opt: func(o *setup) { o.server.Detail, o.server.PrefixDelimiter = true, '/' }, args: []string{"-D", "/"}, want: "stat_key_prefix /, detail_enabled yes"},
		{flag: "-R", opt: func(o *setup) { o.server.ReqsPerEvent = 7 }, args: []string{"-R", "7"}, want: "reqs_per_event 7"},
		{flag: "-C", opt: func(o *setup) { o.cache.NoCAS = true }, args: []string{"-C"}, want: "cas_enabled no"},
		{flag: "-b", opt: func(o *setup) { o.server.Backlog = 77 }, args: []string{"-b", "77"}, want: "tcp_backlog 77"},
		{flag: "-B ascii", opt: func(o *setup) { o.server.Protocol = server.ProtocolASCII }, args: []string{"-B", "ascii"}, want: "binding_protocol ascii"},
		{flag: "-I", opt: func(o *setup) { o.cache.MaxItemSize = 2 << 20 }, args: []string{"-I", "2m"}, want: "item_size_max 2097152, slab_chunk_max 524288"},
		{flag: "-F", opt: func(o *setup) { o.server.DisableFlushAll = true }, args: []string{"-F"}, want: "flush_enabled no"},
		{flag: "-X", opt: func(o *setup) { o.server.DisableDumping = true }, args: []string{"-X"}, want: "dump_enabled no"},
		{flag: "no_maxconns_fast", opt: func(o *setup) { o.server.NoMaxConnsFast = true }, args: []string{"-o", "no_maxconns_fast"}, want: "maxconns_fast no"},
		{flag: "hashpower", opt: func(o *setup) { o.server.Shown.HashPower = 20 }, args: []string{"-o", "hashpower=20"}, want: "hashpower_init 20"},
		{flag: "track_sizes", opt: func(o *setup) { o.cache.TrackSizes = true }, args: []string{"-o", "track_sizes"}, want: "track_sizes yes"},
		{flag: "idle_timeout", opt: func(o *setup) { o.server.IdleTimeout = 33 }, args: []string{"-o", "idle_timeout=33"}, want: "idle_timeout 33"},
		{flag: "temporary_ttl", opt: func(o *setup) { o.cache.LRU.Temp, o.cache.LRU.TempTTL = true, 10 }, args: []string{"-o", "temporary_ttl=10"}, want: "temp_lru yes, temporary_ttl 10"},
		{flag: "no_lru_maintainer and no_lru_crawler", opt: withoutBackground, args: []string{"-o", "no_lru_maintainer,no_lru_crawler"}, want: "lru_crawler no, lru_maintainer_thread no, lru_segmented no"},
		{flag: "client_flags_size", want: "client_flags_size 4", newer: true},
	} {
		t.Run(r.flag, func(t *testing.T) {
			if r.opt == nil {
				r.opt = func(o *setup) { o.server.Threads = 4 }
			}
			for i, addr := range both(t, r.opt, append([]string{"-t", "4"}, r.args...)...) {
				if i == 1 && r.newer {
					continue
				}
				settings := dial(t, addr).stats(" settings")
				for _, want := range strings.Split(r.want, ", ") {
					name, value, _ := strings.Cut(want, " ")
					if i == 1 && name == "domain_socket" { // memcached is asked there
						continue
					}
					if settings[name] != value {
						t.Errorf("%s: %s is %q, want %q", addr, name, settings[name], value)
					}
				}
			}
		})
	}
}

// TestStatsConns has the rows of stats conns.
func TestStatsConns(t *testing.T) {
	rows := func(c *client) string {
		c.send("stats conns\r\n")
		return c.rowsUntilEnd()
	}
	has := func(t *testing.T, all, pattern string) {
		t.Helper()
		if !regexp.MustCompile("(?m)^" + pattern).MatchString(all) {
			t.Errorf("stats conns is\n%swant it to have\n%s", all, pattern)
		}
	}
	t.Run("a listener has no listen_addr", func(t *testing.T) {
		has(t, rows(dial(t, startServer(t))), `STAT (\d+):addr tcp:127\.0\.0\.1:\d+\nSTAT \d+:state conn_listening\nSTAT \d+:secs_since_last_cmd \d+\n`)
	})
	t.Run("a client", func(t *testing.T) {
		has(t, rows(dial(t, startServer(t))), `STAT \d+:addr tcp:127\.0\.0\.1:\d+\nSTAT \d+:listen_addr tcp:127\.0\.0\.1:\d+\nSTAT \d+:state conn_parse_cmd\nSTAT \d+:secs_since_last_cmd 0\n`)
	})
	t.Run("IPv6", func(t *testing.T) {
		l, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			t.Skip(err)
		}
		l.Close()
		has(t, rows(dial(t, startServer(t, func(o *setup) { o.server.Listen = []string{"[::1]"} }))), `STAT \d+:addr tcp6:\[::1\]:\d+\nSTAT \d+:listen_addr tcp6:\[::1\]:`)
	})
	t.Run("a unix socket's clients have no address", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.server.UnixSocket = t.TempDir() + "/s" }) {
			all := rows(dial(t, addr))
			has(t, all, `STAT \d+:addr unix:`+filepath.Dir(addr)+`/s.*\nSTAT \d+:state conn_listening\n`) // 1.6.18 cuts the end off
			has(t, all, `STAT \d+:addr \?:<AF 0>\nSTAT \d+:listen_addr unix:`+addr+`\nSTAT \d+:state conn_parse_cmd\n`)
		}
	})
	t.Run("UDP", func(t *testing.T) {
		has(t, rows(dial(t, startServer(t, withUDP))), `STAT \d+:UDP UDP\nSTAT \d+:addr udp:127\.0\.0\.1:\d+\nSTAT \d+:state conn_read\n`)
	})
	t.Run("descriptors ascend", func(t *testing.T) {
		addr, last := startServer(t, withUDP), 0
		for range 5 {
			dial(t, addr).ask("version\r\n", version)
		}
		for _, l := range strings.Split(strings.TrimSpace(rows(dial(t, addr))), "\n") {
			fd, err := strconv.Atoi(strings.TrimPrefix(l[:strings.Index(l, ":")], "STAT "))
			if err != nil || fd < last {
				t.Fatalf("%q behind descriptor %d", l, last)
			}
			last = fd
		}
	})
	for _, r := range []struct{ state, send string }{
		{"conn_new_cmd", ""},
		{"conn_read", "version\r\n"},
		{"conn_read", "get a"}, // part of a line
		{"conn_nread", "set a 0 0 10\r\nabc"},
		{"conn_swallow", "set a 0 0 2000000\r\nabc"},
	} {
		t.Run("state "+r.state+" after "+clip(r.send), func(t *testing.T) {
			addr := startServer(t)
			c, asking := dial(t, addr), dial(t, addr)
			c.send("%s", r.send)
			until(t, r.state, func() bool { return strings.Contains(rows(asking), ":state "+r.state+"\n") })
		})
	}
	t.Run("state conn_mwrite of a client that does not read", func(t *testing.T) {
		addr := startServer(t)
		c, asking := dial(t, addr), dial(t, addr)
		c.send("set a 0 0 1000000\r\n%s\r\n", strings.Repeat("x", 1000000))
		c.want(stored)
		c.send("get%s\r\n", strings.Repeat(" a", 100))
		until(t, "conn_mwrite", func() bool { return strings.Contains(rows(asking), ":state conn_mwrite\n") })
	})
}
