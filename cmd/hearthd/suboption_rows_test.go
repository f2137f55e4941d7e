package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// suboptionRow is a row of the table of -o.
type suboptionRow struct {
	name     string
	value    string // "": without
	optional bool   // may also be written without it
	missing  string // what is said when it is missing, if not `Missing NAME argument`
	more     string
	shows    string
	refused  map[string]string               // values, each with what is said; the exit code is 1
	works    func(t *testing.T, addr string) // nil: settings are all there is to see, or nothing
}

func TestSuboption(t *testing.T) {
	rows := suboptionRows()
	for _, o := range suboptionTable {
		i := slices.IndexFunc(rows, func(r suboptionRow) bool { return r.name == o.name })
		if i < 0 && !strings.HasPrefix(o.name, "ssl_") {
			t.Errorf("no row for -o %s", o.name)
		}
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { r.run(t) })
	}
}

func (r *suboptionRow) run(t *testing.T) {
	word := r.name
	if r.value != "" {
		word += "=" + r.value
	}
	more := words(r.more)
	first, err := parseLine(append([]string{"-o", word}, more...)...)
	for _, form := range [][]string{{"-o" + word}, {" -o", "  " + word}, {"--extended=" + word}, {"--extended", word}, {"--ex=" + word}, {"-o", "modern," + word + ",modern"}} {
		if cfg, err2 := parseLine(append(form, more...)...); !reflect.DeepEqual(cfg, first) || !reflect.DeepEqual(err, err2) {
			t.Errorf("%q differs from -o %s: %v, %v", form, word, err2, err)
		}
	}
	if r.value == "" {
		if cfg, err := parseLine(append([]string{"-o", word + "=x"}, more...)...); err != nil || !reflect.DeepEqual(cfg, first) {
			t.Errorf("a value, which means nothing here: %v", err)
		}
	} else if !r.optional {
		missing := r.missing
		if missing == "" {
			missing = "Missing " + r.name + " argument"
		}
		refusal{"-o " + r.name, 1, missing + "\n"}.check(t, nil)
	}
	for value, said := range r.refused {
		refusal{"-o " + r.name + "=" + value, 1, said + "\n"}.check(t, nil)
	}
	for _, name := range []string{strings.ToUpper(r.name), r.name[:len(r.name)-1]} { // letters count, and there are no prefixes
		refusal{"-o " + name, 1, "Illegal suboption \"" + name + "\"\n"}.check(t, nil)
	}
	p := startHearthd(t, append([]string{"-o", word}, more...)...)
	if r.shows != "" {
		shown := settingsOf(t, p.addr)
		for _, row := range strings.Split(r.shows, ", ") {
			if name, want, _ := strings.Cut(row, " "); shown[name] != want {
				t.Errorf("stats settings: %s is %q, want %q", name, shown[name], want)
			}
		}
	}
	if r.name == "resp_obj_mem_limit" != strings.HasPrefix(p.stderr.String(), "DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit,\n") {
		t.Errorf("warnings:\n%s", p.stderr)
	}
	store(t, p.addr, "k", "v")
	if r.works != nil {
		r.works(t, p.addr)
	}
}

func suboptionRows() []suboptionRow {
	answers := func(text, want string) func(*testing.T, string) {
		return func(t *testing.T, addr string) { replies(t, addr, text, want) }
	}
	parse := func(name string) map[string]string {
		return map[string]string{"x": "could not parse argument to " + name}
	}
	pct := func(name string) map[string]string {
		said := name + " must be > 1 and < 80"
		return map[string]string{"0": said, "80": said, "-1": said, "x": said}
	}
	factor := func(name string) map[string]string {
		said := name + " must be > 0"
		return map[string]string{"0": said, "-1": said, "x": said, "nan": said}
	}
	range3 := "slab_automove must be between 0 and 2"
	return []suboptionRow{
		{name: "maxconns_fast", shows: "maxconns_fast yes"}, // what it does: TestFlag/-c
		{name: "no_maxconns_fast", more: "-c 1", shows: "maxconns_fast no", works: func(t *testing.T, addr string) {
			first := connect(t, addr) // waits in the queue until the connections before it are gone, as the second does
			replies := func(c net.Conn) {
				io.WriteString(c, "mn\r\n")
				reply := make([]byte, 4)
				if _, err := io.ReadFull(c, reply); err != nil || string(reply) != "MN\r\n" {
					t.Fatalf("%q, %v", reply, err)
				}
			}
			replies(first)
			second := connect(t, addr)
			eventually(t, "nobody listens while the only connection is in use", func() bool { return statOn(first, "listen_disabled_num") != "0" })
			first.Close()
			replies(second)
		}},
		{name: "hashpower", value: "20", missing: "Missing numeric argument for hashpower", shows: "hashpower_init 20", refused: map[string]string{
			"": "Initial hashtable multiplier of 0 is too low", "11": "Initial hashtable multiplier of 11 is too low", "x": "Initial hashtable multiplier of 0 is too low",
			"33": "Initial hashtable multiplier of 33 is too high\nChoose a value based on \"STAT hash_power_level\" from a running instance",
		}},
		{name: "no_hashexpand"},
		{name: "slab_reassign", shows: "slab_reassign yes"}, {name: "no_slab_reassign", shows: "slab_reassign no"},
		{name: "slab_automove", value: "2", optional: true, shows: "slab_automove 2", refused: map[string]string{"3": range3, "-1": range3}},
		{name: "no_slab_automove", shows: "slab_automove 0"},
		{name: "slab_automove_ratio", value: "0.5", shows: "slab_automove_ratio 0.50", refused: map[string]string{
			"0": "slab_automove_ratio must be > 0 and < 1", "1.1": "slab_automove_ratio must be > 0 and < 1", "x": "slab_automove_ratio must be > 0 and < 1"}},
		{name: "slab_automove_window", value: "1800", shows: "slab_automove_window 1800", refused: map[string]string{"2": "slab_automove_window must be > 2", "1801": "slab_automove_window must be <= 1800"}},
		{name: "tail_repair_time", value: "33", missing: "Missing numeric argument for tail_repair_time", shows: "tail_repair_time 33", refused: map[string]string{
			"9": "Cannot set tail_repair_time to less than 10 seconds", "x": "Cannot set tail_repair_time to less than 10 seconds"}},
		{name: "hash_algorithm", value: "jenkins", shows: "hash_algorithm jenkins", refused: map[string]string{
			"x": "Unknown hash_algorithm option (jenkins, murmur3, xxh3)", "JENKINS": "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"}},
		{name: "lru_crawler", shows: "lru_crawler yes", works: answers("lru_crawler crawl all\r\n", "OK\r\n")},
		{name: "no_lru_crawler", shows: "lru_crawler no", works: answers("lru_crawler crawl all\r\n", "CLIENT_ERROR lru crawler disabled\r\n")},
		{name: "lru_crawler_sleep", value: "7", missing: "Missing lru_crawler_sleep value", shows: "lru_crawler_sleep 7", refused: map[string]string{
			"-1": "LRU crawler sleep must be between 0 and 1 second", "1000001": "LRU crawler sleep must be between 0 and 1 second"}},
		{name: "lru_crawler_tocrawl", value: "4294967295", missing: "Missing lru_crawler_tocrawl value", shows: "lru_crawler_tocrawl 4294967295", refused: map[string]string{
			"x": "lru_crawler_tocrawl takes a numeric 32bit value", "-1": "lru_crawler_tocrawl takes a numeric 32bit value"}},
		{name: "lru_maintainer", shows: "lru_maintainer_thread yes, lru_segmented yes", works: answers("lru mode flat\r\n", "OK\r\n")},
		{name: "no_lru_maintainer", shows: "lru_maintainer_thread no, lru_segmented no", works: answers("lru mode segmented\r\n", "ERROR\r\n")},
		{name: "hot_lru_pct", value: "40", shows: "hot_lru_pct 40", refused: pct("hot_lru_pct")},
		{name: "warm_lru_pct", value: "60", shows: "warm_lru_pct 60", refused: pct("warm_lru_pct")},
		{name: "hot_max_factor", value: "0.75", shows: "hot_max_factor 0.75", refused: factor("hot_max_factor")},
		{name: "warm_max_factor", value: "1.5", shows: "warm_max_factor 1.50", refused: factor("warm_max_factor")},
		{name: "temporary_ttl", value: "50", shows: "temp_lru yes, temporary_ttl 50", works: func(t *testing.T, addr string) {
			replies(t, addr, "set short 0 49 1\r\nx\r\n", "STORED\r\n")
			if items := rowsOf(t, exchange(t, addr, "stats items\r\n", "END\r\n")); items["items:1:number_temp"] != "1" || items["items:1:number"] != "2" {
				t.Errorf("stats items: %v", items)
			}
		}},
		{name: "idle_timeout", value: "1", missing: "Missing numeric argument for idle_timeout", shows: "idle_timeout 1", works: func(t *testing.T, addr string) {
			if got := exchange(t, addr, "mn\r\n", ""); got != "MN\r\n" { // reads until it is closed
				t.Errorf("%q", got)
			}
			if got := stat(t, addr, "idle_kicks"); got == "0" || got == "" {
				t.Errorf("idle_kicks %q", got)
			}
		}},
		{name: "watcher_logbuf_size", value: "7", shows: "watcher_logbuf_size 7168, worker_logbuf_size 65536", refused: parse("watcher_logbuf_size")},
		{name: "worker_logbuf_size", value: "9", shows: "worker_logbuf_size 9216, watcher_logbuf_size 262144", refused: parse("worker_logbuf_size")},
		{name: "slab_sizes", value: "96-200-1000", more: "-vv", works: answers("set k 0 0 140\r\n"+strings.Repeat("x", 140)+"\r\nme k\r\n", "STORED\r\nME k exp=-1 la=0 cas=")},
		{name: "slab_chunk_max", value: "256", shows: "slab_chunk_max 262144", refused: map[string]string{"x": "could not parse argument to slab_chunk_max", "0": "could not parse argument to slab_chunk_max"}},
		{name: "track_sizes", shows: "track_sizes yes", works: answers("stats sizes\r\n", "STAT 64 1\r\nEND\r\n")},
		{name: "http_listen", value: ":0", refused: map[string]string{ // what it does: TestSite
			"": "hearthd: -o http_listen=: want [ADDRESS]:PORT", "localhost": "hearthd: -o http_listen=localhost: want [ADDRESS]:PORT"}},
		{name: "log_format", value: "json", refused: map[string]string{"xml": "hearthd: -o log_format=xml: want text or json", "": "hearthd: -o log_format=: want text or json"}},
		{name: "http_host", value: "cache1", more: "-o http_listen=:0"},
		{name: "http_pprof", more: "-o http_listen=:0"},
		{name: "debugtime", works: answers("debugtime 5\r\n", "OK\r\n")},
		{name: "warm_max_down", value: "3600", refused: map[string]string{
			"0": `warm_max_down must be a number of seconds above 0, found "0"`, "x": `warm_max_down must be a number of seconds above 0, found "x"`}},
		{name: "warm_after_power_loss", value: "verify", refused: map[string]string{
			"": `warm_after_power_loss must be no or verify, found ""`, "yes": `warm_after_power_loss must be no or verify, found "yes"`}},
		{name: "verify", value: "always", refused: map[string]string{
			"": `verify must be attach, always or never, found ""`, "yes": `verify must be attach, always or never, found "yes"`}},
		{name: "scrub_rate", value: "20", refused: map[string]string{"x": `scrub_rate must be 0 to 1048576 megabytes a second, found "x"`,
			"1048577": `scrub_rate must be 0 to 1048576 megabytes a second, found "1048577"`}},
		{name: "modern"},
		{name: "no_modern", shows: "slab_chunk_max 1048576, slab_automove 0, maxconns_fast no, lru_segmented no, lru_maintainer_thread no, lru_crawler no, hash_algorithm jenkins, slab_reassign no"},
		{name: "no_chunked_items", shows: "slab_chunk_max 1048576"},
		{name: "inline_ascii_resp", shows: "inline_ascii_response no"}, {name: "no_inline_ascii_resp", shows: "inline_ascii_response no"},
		{name: "resp_obj_mem_limit"},
		{name: "read_buf_mem_limit", value: "8", shows: "read_buf_mem_limit 8388608", refused: parse("read_buf_mem_limit")},
		{name: "drop_privileges"}, {name: "no_drop_privileges"},
		{name: "sock_cookie_id", value: "0"}, // any other is refused by name: TestNamesEachFlagThatThisBuildLacks
		{name: "relaxed_privileges", works: answers("debugtime p\r\n", "ERROR\r\n")},
	}
}

func TestLaterSuboptionsOverride(t *testing.T) {
	p := startHearthd(t, "-o", "no_modern,maxconns_fast,lru_maintainer,lru_crawler,slab_automove,slab_chunk_max=512,hash_algorithm=xxh3")
	shown := settingsOf(t, p.addr)
	for name, want := range map[string]string{"maxconns_fast": "yes", "lru_maintainer_thread": "yes", "lru_segmented": "yes", "lru_crawler": "yes", "slab_automove": "1",
		"slab_chunk_max": "524288", "hash_algorithm": "xxh3"} {
		if shown[name] != want {
			t.Errorf("%s is %q, want %q", name, shown[name], want)
		}
	}
}

// TestStartupOrder breaks each check together with all later ones, written in either order: the first in memcached's order is what is told.
func TestStartupOrder(t *testing.T) {
	const size, protocol = "I", "B" // checks that the same flag breaks, which holds one value
	checks := []struct{ name, uses, args, said string }{
		{"napi_ids", "", "-N 9", "Number of napi_ids(9) cannot be greater than number of threads(4)"},
		{"item_size_max_below_1024", size, "-I 512", "Item max size cannot be less than 1024 bytes."},
		{"item_size_max_above_half", size, "-I 40m", "Cannot set item size limit higher than 1/2 of memory max."},
		{"item_size_max_above_1g", size, "-I 1025m -m 9000", "Cannot set item size limit higher than a gigabyte."},
		{"slab_chunk_max_above_item_size_max", size, "-I 1024", "slab_chunk_max (bytes: 524288) cannot be larger than -I (item_size_max 1024)"},
		{"item_size_max_not_divisible", size, "-I 3000000", "-I (item_size_max: 3000000) must be evenly divisible by slab_chunk_max (bytes: 524288)"},
		{"page_not_divisible", size, "-I 3m -o slab_chunk_max=3072", "slab_chunk_max (bytes: 3145728) must divide evenly into 1048576 (slab_page_size)"},
		{"slab_sizes", "", "-o slab_sizes=10-20", "slab size 10 is out of valid range"},
		{"lru_pct_sum", "", "-o hot_lru_pct=50,warm_lru_pct=50", "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"},
		{"temp_lru", "", "-o no_lru_maintainer,temporary_ttl=5", "temporary_ttl requires lru_maintainer to be enabled"},
		{"sasl", protocol, "-S -B ascii", "ERROR: You cannot allow the ASCII protocol while using SASL."},
		{"auth", protocol, "-Y x -B binary", "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens."},
		{"port", "", "-p 70000", "ERROR: Invalid port number 70000."},
	}
	for i, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			refusal{c.args, exUsage, c.said + "\n"}.check(t, nil)
			forward, backward := words(c.args), words(c.args)
			used := map[string]bool{c.uses: true}
			for _, later := range checks[i+1:] {
				if later.uses != "" && used[later.uses] {
					continue
				}
				used[later.uses] = true
				forward, backward = append(forward, words(later.args)...), append(words(later.args), backward...)
			}
			for _, args := range [][]string{forward, backward} {
				_, err := parseLine(args...)
				if stop := (*exit)(nil); !errors.As(err, &stop) || stop.code != exUsage || stop.stderr != c.said+"\n" {
					t.Errorf("%q: %v, want %q", args, err, c.said)
				}
			}
		})
	}
	for _, args := range []string{"-I 512k", "-I 1024 -o slab_chunk_max=1", "-I 2m", "-I 3m -o slab_chunk_max=1024"} {
		if _, err := parseLine(words(args)...); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestListenGrammar(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	six := err == nil
	if six {
		l.Close()
	}
	p1, p2, p3 := freePort(t), freePort(t), freePort(t)
	fill := strings.NewReplacer("{p}", p1, "{q}", p2, "{r}", p3)
	for _, row := range []struct{ name, args, listens string }{
		{"host", "-l 127.0.0.1", "tcp 127.0.0.1:{p}"},
		{"host:port", "-l 127.0.0.1:{q}", "tcp 127.0.0.1:{q}"},
		{"name", "-l localhost", "tcp 127.0.0.1:{p}"},
		{"[v6]", "-l [::1]", "tcp [::1]:{p}"},
		{"[v6]:port", "-l [::1]:{q}", "tcp [::1]:{q}"},
		{"bare_v6", "-l ::1", "tcp [::1]:{p}"},
		{"any", "-l *", "tcp 0.0.0.0:{p}, tcp [::]:{p}"},
		{"any:port", "-l *:{q}", "tcp 0.0.0.0:{q}, tcp [::]:{q}"},
		{"comma", "-l 127.0.0.1,127.0.0.2:{q}", "tcp 127.0.0.1:{p}, tcp 127.0.0.2:{q}"},
		{"semicolon", "-l 127.0.0.1;127.0.0.2:{q}", "tcp 127.0.0.1:{p}, tcp 127.0.0.2:{q}"},
		{"repeated", "-l 127.0.0.1 -l 127.0.0.2:{q}", "tcp 127.0.0.1:{p}, tcp 127.0.0.2:{q}"},
		{"part_of_an_earlier_one", "-l 127.0.0.12 -l 127.0.0.1", "tcp 127.0.0.12:{p}, tcp 127.0.0.1:{p}"},
		{"twice", "-l 127.0.0.1 -l 127.0.0.1", "tcp 127.0.0.1:{p}"},
		{"tag[]", "-l tag[ab]:127.0.0.1:{q}", "tcp 127.0.0.1:{q}"},
		{"tag__", "-l tag_abcdefgh_:127.0.0.1", "tcp 127.0.0.1:{p}"},
		{"udp", "-l 127.0.0.1 -U {r}", "tcp 127.0.0.1:{p}, udp 127.0.0.1:{r}"},
		{"udp_port_of_the_entry", "-l 127.0.0.1:{q},127.0.0.2 -U {r}", "tcp 127.0.0.1:{q}, tcp 127.0.0.2:{p}, udp 127.0.0.1:{q}, udp 127.0.0.2:{r}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if strings.Contains(row.listens, "[::") && !six {
				t.Skip("no IPv6 on this machine")
			}
			p := launchAs(t, nil, append([]string{"-u", me(), "-p", p1}, words(fill.Replace(row.args))...)...)
			want := strings.Split(fill.Replace(row.listens), ", ")
			slices.Sort(want)
			got := listening(t, p)
			if row.name == "name" { // however many addresses it has
				got = slices.DeleteFunc(got, func(a string) bool { return a == "tcp [::1]:"+p1 })
			}
			if !slices.Equal(got, want) {
				t.Errorf("listens on %q, want %q\n%s", got, want, p.stderr)
			}
			if shown := settingsOf(t, p.addr); (shown["num_threads_per_udp"] == "1") != strings.Contains(shown["inter"], ",") {
				t.Errorf("num_threads_per_udp %s with %s", shown["num_threads_per_udp"], shown["inter"])
			}
			p.stop(t, syscall.SIGTERM) // the next one has the ports
		})
	}
	for name, r := range map[string]refusal{
		"port_that_is_no_number": {"-l 127.0.0.1:x", exOSErr, "failed to listen on one of interface(s) 127.0.0.1:x: Invalid port number: \"x\"\n"},
		"no_port_behind_colon":   {"-l 127.0.0.1:", exOSErr, "failed to listen on one of interface(s) 127.0.0.1:: Invalid port number: \"\"\n"},
		"port_too_high":          {"-l 127.0.0.1:65536", exOSErr, "failed to listen on one of interface(s) 127.0.0.1:65536: Invalid port number: \"65536\"\n"},
		"bracket_not_closed":     {"-l [::1", exOSErr, "failed to listen on one of interface(s) [::1: Invalid IPV6 address: \"[::1\"\n"},
		"nothing":                {"-l ,", exOSErr, "hearthd: -l: no address given\nfailed to listen on one of interface(s) ,\n"},
		"not_ours":               {"-l 127.0.0.1:0,192.0.2.1", exOSErr, "failed to listen on one of interface(s) 127.0.0.1:0,192.0.2.1: Cannot assign requested address\n"},
		"tag_empty":              {"-l tag[]:127.0.0.1", exOSErr, "Listener tags must be between 1 and 8 characters: \"\"\nfailed to listen on one of interface(s) tag[]:127.0.0.1\n"},
		"tag_too_long":           {"-l tag_abcdefghi_:127.0.0.1", exOSErr, "Listener tags must be between 1 and 8 characters: \"abcdefghi\"\nfailed to listen on one of interface(s) tag_abcdefghi_:127.0.0.1\n"},
		"tag_not_closed":         {"-l tag[ab", exOSErr, "Invalid tag in socket config: \"tag[ab\"\nfailed to listen on one of interface(s) tag[ab\n"},
	} {
		t.Run(name, func(t *testing.T) { r.check(t, nil) })
	}
	t.Run("address_in_use", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := portOf(l.Addr().String())
		refusal{"-l 127.0.0.1 -p " + port, exOSErr, "failed to listen on one of interface(s) 127.0.0.1: Address already in use\n"}.check(t, nil)
		if !six {
			t.Skip("no IPv6 on this machine")
		}
		p := launchAs(t, nil, "-u", me(), "-p", port) // one family of the two is enough
		if got := listening(t, p); !slices.Equal(got, []string{"tcp [::]:" + port}) {
			t.Errorf("listens on %q\n%s", got, p.stderr)
		}
	})
	t.Run("socket_options", func(t *testing.T) {
		onListener(t, startHearthd(t), func(fd int) {
			for name, o := range map[string][2]int{"SO_REUSEADDR": {unix.SOL_SOCKET, unix.SO_REUSEADDR}, "SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "TCP_NODELAY": {unix.IPPROTO_TCP, unix.TCP_NODELAY}} {
				if v, err := unix.GetsockoptInt(fd, o[0], o[1]); v != 1 {
					t.Errorf("%s is %d (%v)", name, v, err)
				}
			}
		})
	})
}

func TestSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			file := newFile(t)
			p := startHearthd(t, "-e", file)
			store(t, p.addr, "k", "v")
			if code := p.stop(t, sig); code != 0 {
				t.Errorf("exit %d, want 0\n%s", code, p.stderr)
			}
			if p = startHearthd(t, "-e", file); stat(t, p.addr, "restart_kind") != "clean" || !holds(t, p.addr, "k", "v") {
				t.Errorf("not clean\n%s", p.stderr)
			}
		})
	}
	// Those that do not end it; that SIGHUP reloads users: TestHangupReloadsTheUsersAndKeepsThemWhenTheFileIsBad.
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			p := startHearthd(t)
			p.cmd.Process.Signal(sig)
			store(t, p.addr, "k", "v")
			if code := p.stop(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit %d, want 0\n%s", code, p.stderr)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	with := func(variable string) func(*exec.Cmd) {
		return func(c *exec.Cmd) { c.Env = append(os.Environ(), variable) }
	}
	base := []string{"-u", me(), "-p", "-1", "-l", "127.0.0.1"}
	t.Run("MEMCACHED_PORT_FILENAME", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "ports")
		p := launchAs(t, with("MEMCACHED_PORT_FILENAME="+name), append(base, "-U", "-1")...)
		text, err := os.ReadFile(name)
		if !regexp.MustCompile(`^TCP INET: `+portOf(p.addr)+`\nUDP INET: \d+\n$`).Match(text) || err != nil {
			t.Errorf("%q, %v\n%s", text, err, p.stderr)
		}
		if _, err := os.Stat(name + ".lck"); !os.IsNotExist(err) {
			t.Errorf("the name it was written under: %v", err)
		}
		p = launchAs(t, with("MEMCACHED_PORT_FILENAME=/nonexistent/ports"), base...)
		if p.addr == "" || !strings.Contains(p.stderr.String(), `hearthd: write MEMCACHED_PORT_FILENAME "/nonexistent/ports": `) {
			t.Errorf("a file that cannot be written\n%s", p.stderr)
		}
	})
	t.Run("MEMCACHED_SASL_PWDB", func(t *testing.T) {
		p := launchAs(t, with("MEMCACHED_SASL_PWDB="+usersHere), append(base, "--enable-sasl")...)
		status := func(op, status byte) string { return string([]byte{0x81, op, 0, 0, 0, 0, 0, status}) }
		for _, c := range []struct{ send, want string }{
			{binaryPacket(0x20, "", ""), status(0x20, 0x00)},                                                   // list mechanisms
			{binaryPacket(0x00, "k", ""), status(0x00, 0x20)},                                                  // get, not authenticated
			{binaryPacket(0x21, "PLAIN", "\x00bob\x00s3kr"), status(0x21, 0x20)},                               // wrong
			{binaryPacket(0x21, "PLAIN", "\x00bob\x00s3kr3") + binaryPacket(0x0a, "", ""), status(0x21, 0x00)}, // right
		} {
			if got := exchange(t, p.addr, c.send, c.want); got != c.want {
				t.Errorf("%q: got %q, want %q", c.send, got, c.want)
			}
		}
		for _, variable := range []string{"MEMCACHED_SASL_PWDB=", "MEMCACHED_SASL_PWDB=/nonexistent"} {
			p = launchAs(t, with(variable), append(base, "-S")...)
			if code := p.wait(t); code != 1 || !strings.HasPrefix(p.stderr.String(), "Error initializing sasl.\n") {
				t.Errorf("%s: exit %d, %s", variable, code, p.stderr)
			}
		}
	})
	t.Run("POSIXLY_CORRECT", func(t *testing.T) {
		args := append(base, "word", "-p", "70000")
		if p := launchAs(t, with("POSIXLY_CORRECT=1"), args...); p.addr == "" {
			t.Errorf("reads options behind a word\n%s", p.stderr)
		}
		if p := launchAs(t, nil, args...); p.wait(t) != exUsage {
			t.Errorf("does not read options behind a word\n%s", p.stderr)
		}
	})
	// What they shape is not there: the index grows by itself, memory is taken as needed, Cyrus SASL is not used; and no code of memcached's reads the last one.
	for _, variable := range []string{"MEMCACHED_HASH_BULK_MOVE=5", "T_MEMD_INITIAL_MALLOC=1000", "SASL_CONF_PATH=/nonexistent", "T_MEMD_SLABS_ALLOC=0"} {
		name, _, _ := strings.Cut(variable, "=")
		t.Run(name, func(t *testing.T) {
			p := launchAs(t, with(variable), base...)
			store(t, p.addr, "k", "v")
			if !holds(t, p.addr, "k", "v") || withoutLog(p.stderr.String()) != "" {
				t.Errorf("with %s\n%s", variable, p.stderr)
			}
		})
	}
}

// TestDaemonThatMayDumpCoreStaysWhereItWasStarted and, with -v, keeps the terminal.
func TestDaemonThatMayDumpCoreStaysWhereItWasStarted(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	terminal, err := os.Create(filepath.Join(dir, "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd := exec.Command(binary, "-d", "-r", "-v", "-u", me(), "-P", pidFile, "-s", filepath.Join(dir, "sock"))
	cmd.Dir, cmd.Stderr = dir, terminal
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(text), &pid)
	daemon, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(daemon)
	defer unix.PidfdSendSignal(daemon, unix.SIGKILL, nil, 0)
	for link, want := range map[string]string{"cwd": dir, "fd/2": terminal.Name()} {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); err != nil || to != want {
			t.Errorf("%s is %q (%v), want %q", link, to, err, want)
		}
	}
}
