package main

import (
	"crypto/tls"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"hearth"
)

// suboption is a row of the -o table. set gets the value; without one ("-o name") it is not called when missing holds a complaint.
type suboption struct {
	name    string
	missing string // printed when the value is missing; "": no value is needed, and one that is given does not matter unless set looks at it
	set     func(s *settings, value string) error
	help    string // "": the name is shown alone; or hidden
}

// suboptionTable lists what -o knows, in groups by what it means here. An engine that arrives later changes its rows.
//
// The tuning knobs shape memcached's background work. Only hit rate and speed depend on them, so they are checked as memcached checks
// them and otherwise have no effect until the engine they tune is there.
var suboptionTable = []suboption{
	// What has its meaning.
	{"maxconns_fast", "", func(s *settings, _ string) error { s.server.NoMaxConnsFast = false; return nil },
		"immediately close new connections after limit (default: enabled)"},
	{"no_maxconns_fast", "", func(s *settings, _ string) error { s.server.NoMaxConnsFast = true; return nil },
		"stop accepting connections at the limit instead"},
	{"hashpower", "Missing numeric argument for hashpower", hashPower,
		"shown in the settings; the index grows by itself (12 to 32)"},
	{"slab_sizes", argument, func(s *settings, v string) error { s.slabSizes, s.slabSizesGiven = v, true; return nil },
		"chunk sizes in bytes, ascending, joined with '-'"},
	{"slab_chunk_max", argument, chunkMax,
		"largest chunk in kilobytes; larger items are chained (default: 512)"},
	{"no_chunked_items", "", func(s *settings, _ string) error { s.chunkMax = slabPage; return nil },
		"same as slab_chunk_max=1024"},
	{"modern", "", nothingToDo, "enables options which will be default in future.\ncurrently: nothing"},
	{"hot_lru_pct", argument, func(s *settings, v string) error { return percent(&s.hotPct, "hot_lru_pct", v) },
		"pct of slab memory to reserve for hot lru (default: 20)"},
	{"warm_lru_pct", argument, func(s *settings, v string) error { return percent(&s.warmPct, "warm_lru_pct", v) },
		"pct of slab memory to reserve for warm lru (default: 40)"},
	{"hot_max_factor", argument, aboveZero("hot_max_factor", func(s *settings, f float64) { s.cache.LRU.HotMaxFactor = f }),
		"items idle > cold lru age * drop from hot lru (default: 0.20)"},
	{"warm_max_factor", argument, aboveZero("warm_max_factor", func(s *settings, f float64) { s.cache.LRU.WarmMaxFactor = f }),
		"items idle > cold lru age * this drop from warm (default: 2.00)"},
	{"temporary_ttl", argument, temporaryTTL,
		"TTLs below get separate LRU, can't be evicted (default: off)"},
	{"lru_maintainer", "", func(s *settings, _ string) error { s.lruMaintainer = true; return nil },
		"segmented LRU (default: enabled)"},
	{"no_lru_maintainer", "", func(s *settings, _ string) error { s.lruMaintainer = false; return nil },
		"one flat LRU a class; the background goroutine runs all the same"},
	{"lru_crawler", "", func(s *settings, _ string) error { s.tuning.NoCrawler = false; return nil },
		"allow LRU crawls and dumps (default: enabled)"},
	{"no_lru_crawler", "", func(s *settings, _ string) error { s.tuning.NoCrawler = true; return nil },
		"refuse LRU crawls and dumps"},
	{"lru_crawler_sleep", "Missing lru_crawler_sleep value", func(s *settings, v string) error {
		if s.tuning.CrawlerSleep = atoi(v); s.tuning.CrawlerSleep < 0 || s.tuning.CrawlerSleep > 1000000 {
			return fail(1, "LRU crawler sleep must be between 0 and 1 second")
		}
		return nil
	}, "microseconds to sleep between items (default: 100)"},
	{"lru_crawler_tocrawl", "Missing lru_crawler_tocrawl value", func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok {
			return fail(1, "lru_crawler_tocrawl takes a numeric 32bit value")
		}
		s.tuning.CrawlerToCrawl = uint64(uint32(n))
		return nil
	}, "max items to crawl per slab per run (default: 0, unlimited)"},
	{"track_sizes", "", func(s *settings, _ string) error { s.cache.TrackSizes = true; return nil },
		"enable dynamic reports for 'stats sizes' command"},
	{"no_modern", "", noModern, "uses defaults of memcached 1.4.x: no chained items, no_maxconns_fast,\nno_slab_reassign, no_lru_crawler, no_lru_maintainer"},

	{"idle_timeout", "Missing numeric argument for idle_timeout", func(s *settings, v string) error {
		s.server.IdleTimeout = max(atoi(v), 0) // with a negative one memcached closes everything at once
		return nil
	}, "close TCP connections that are idle for more seconds than this\n(default: 0, never)"},
	{"slab_reassign", "", func(s *settings, _ string) error { s.cache.NoPageMoves = false; return nil },
		"let pages move between slab classes (default: enabled)"},
	{"no_slab_reassign", "", func(s *settings, _ string) error { s.cache.NoPageMoves = true; return nil },
		"pages stay in the class that got them first"},
	{"slab_automove", "", slabAutomove,
		"0: pages move when an operator says so; 1: to where items are\nevicted young; 2: at every eviction (default: 1)"},
	{"no_slab_automove", "", func(s *settings, _ string) error { s.tuning.Automove = 0; return nil }, "same as slab_automove=0"},
	{"slab_automove_ratio", argument, func(s *settings, v string) error {
		if s.tuning.AutomoveRatio = atof(v); !(s.tuning.AutomoveRatio > 0 && s.tuning.AutomoveRatio <= 1) {
			return fail(1, "slab_automove_ratio must be > 0 and < 1")
		}
		return nil
	}, "ratio limit between young/old slab classes (default: 0.80)"},
	{"slab_automove_window", argument, func(s *settings, v string) error {
		if s.tuning.AutomoveWindow = atoi(v); s.tuning.AutomoveWindow < 3 {
			return fail(1, "slab_automove_window must be > 2")
		} else if s.tuning.AutomoveWindow > 1800 { // as for the command
			return fail(1, "slab_automove_window must be <= 1800")
		}
		return nil
	}, "internal algorithm history window, in seconds (default: 10)"},

	// What is worth keeping at a start; memcached has none of these.
	{"warm_max_down", argument, func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok || n == 0 {
			return fail(1, "warm_max_down must be a number of seconds above 0, found \"%s\"", v)
		}
		s.cache.MaxDown = time.Duration(n) * time.Second
		return nil
	}, "start cold if nobody served the file for more seconds\n(default: no limit)"},
	{"warm_after_power_loss", argument, func(s *settings, v string) error {
		if v != "no" && v != "verify" {
			return fail(1, "warm_after_power_loss must be no or verify, found \"%s\"", v)
		}
		s.cache.WarmAfterPowerLoss = v == "verify"
		return nil
	}, "what to do with a file that was not closed before the machine\nwent down: no: start cold; verify: keep what has a right\nchecksum, which may be old (default: no)"},

	{"verify", argument, func(s *settings, v string) error {
		i := slices.Index([]string{"attach", "always", "never"}, v) // in the order of hearth.Verify
		if i < 0 {
			return fail(1, "verify must be attach, always or never, found \"%s\"", v)
		}
		s.cache.Verify = hearth.Verify(i)
		return nil
	}, "when to look at items' checksums: attach: when one is touched first\nafter a start that crossed a boot; always; never (default: attach)"},
	{"scrub_rate", argument, func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok || n > 1<<20 {
			return fail(1, "scrub_rate must be 0 to 1048576 megabytes a second, found \"%s\"", v)
		}
		s.cache.ScrubRate = int64(n) * mib
		return nil
	}, "look at all items' checksums in the background, at so many\nmegabytes a second (default: 0, not at all)"},

	{"watcher_logbuf_size", argument, logBuffer("watcher_logbuf_size", func(s *settings, size int) { s.server.WatcherLogSize = size }),
		"room in kilobytes for lines that wait for a watcher (default: 256)"},
	{"worker_logbuf_size", argument, logBuffer("worker_logbuf_size", func(s *settings, size int) { s.server.WorkerLogSize = size }),
		"shown in the settings; lines go to the watchers' buffers at once\n(default: 64)"},
	{"sock_cookie_id", argument, func(s *settings, v string) error {
		n, _ := safeStrtoul(v) // memcached takes what is no number for 0
		s.server.Mark = uint32(n)
		return nil
	}, "attributes an ID to a socket for ip filtering/firewalls (SO_MARK)"},

	// What memcached has not: the HTTP side.
	{"http_listen", argument, func(s *settings, v string) error {
		s.site.Listen = v
		if _, err := s.site.Address(); err != nil {
			return fail(1, "hearthd: -o %v", err)
		}
		return nil
	}, "serve /metrics, /healthz, /readyz and a live page over HTTP at\n[ADDRESS]:PORT; of the loopback if no address is told,\n* for any (default: off)"},
	{"http_host", argument, func(s *settings, v string) error { s.site.Hosts = append(s.site.Hosts, v); return nil },
		"a further name that http_listen is called by, * for any;\nmay be given more than once"},
	{"http_pprof", "", func(s *settings, _ string) error { s.site.Profiles = true; return nil },
		"serve /debug/pprof there too (default: off)"},

	{"log_format", argument, func(s *settings, v string) error {
		if s.jsonLog = v == "json"; v != "json" && v != "text" {
			return fail(1, "hearthd: -o log_format=%s: want text or json", v)
		}
		return nil
	}, "lines of the log on stderr: text or json (default: text)"},

	// For tests: the command debugtime, which debug builds of memcached have.
	{"debugtime", "", func(s *settings, _ string) error { s.debugTime = true; return nil }, hidden},

	// What -Z means; nothing without it.
	{"ssl_chain_cert", argument, func(s *settings, v string) error { s.ssl.ChainCert = v; return nil },
		"certificate chain file in PEM format"},
	{"ssl_key", argument, func(s *settings, v string) error { s.ssl.Key = v; return nil },
		"private key file"},
	{"ssl_keyformat", argument, func(s *settings, v string) error {
		n, ok := safeStrtol(v)
		if !ok {
			return fail(1, "could not parse argument to ssl_keyformat")
		}
		if s.ssl.KeyFormat = int(n); n == 0 {
			s.ssl.KeyFormat = -1 // as wrong as in memcached: our 0 is the default
		}
		return nil
	}, "private key format, 1(PEM) or 2(DER) (default: 1)"},
	{"ssl_verify_mode", argument, zeroToThree("ssl_verify_mode", func(s *settings, n int) { s.ssl.VerifyMode = n }),
		"peer certificate verification mode, default is 0(None).\nvalid values are 0(None), 1(Request), 2(Require)\nor 3(Once)"},
	{"ssl_ciphers", argument, func(s *settings, v string) error {
		if s.ssl.Ciphers = v; v == "" {
			s.ssl.Ciphers = ":" // a list without a cipher, as the empty one is in memcached: who restricts them must not get them all
		}
		return nil
	}, "specify cipher list to be used, up to TLS 1.2"},
	{"ssl_ca_cert", argument, func(s *settings, v string) error { s.ssl.CACert = v; return nil },
		"PEM format file of acceptable client CA's"},
	{"ssl_session_cache", "", func(s *settings, _ string) error { s.ssl.SessionCache = true; return nil },
		"support session resumption, by tickets"},
	{"ssl_min_version", argument, zeroToThree("ssl_min_version", func(s *settings, n int) { s.ssl.MinVersion = tls.VersionTLS10 + uint16(n) }),
		"minimum protocol version to accept (default: tlsv1.2)\nvalid values are 0(tlsv1.0), 1(tlsv1.1), 2(tlsv1.2), or 3(tlsv1.3)."},
	{"ssl_wbuf_size", argument, func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok {
			return fail(1, "could not parse argument to ssl_wbuf_size")
		}
		s.ssl.WriteBuffer = int(n) * 1024
		return nil
	}, "shown in the settings; buffers are made as they are needed"},
	{"ssl_kernel_tls", "", func(s *settings, _ string) error { s.ssl.KernelTLS = true; return nil },
		"shown in the settings; there is no kernel TLS offload"},

	// Tuning knobs: checked, shown in the settings, and otherwise without effect.
	{"no_hashexpand", "", nothingToDo, ""},
	{"tail_repair_time", "Missing numeric argument for tail_repair_time", func(s *settings, v string) error {
		if s.server.Shown.TailRepairTime = atoi(v); s.server.Shown.TailRepairTime < 10 {
			return fail(1, "Cannot set tail_repair_time to less than 10 seconds")
		}
		return nil
	}, ""},
	{"hash_algorithm", argument, func(s *settings, v string) error {
		if s.server.Shown.HashAlgorithm = v; !slices.Contains([]string{"jenkins", "murmur3", "xxh3"}, v) {
			return fail(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)")
		}
		return nil
	}, ""},
	{"read_buf_mem_limit", argument, unsigned("read_buf_mem_limit", func(s *settings, n uint32) { s.server.ReadBufferLimit = n << 20 }), ""},

	// What memcached accepts and ignores as well, or without the build option or flag that they belong to.
	{"inline_ascii_resp", "", nothingToDo, ""},
	{"no_inline_ascii_resp", "", nothingToDo, ""},
	{"resp_obj_mem_limit", "", func(s *settings, _ string) error {
		s.warnings += "DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit,\n"
		return nil
	}, ""},
	{"drop_privileges", "", nothingToDo, ""},
	{"no_drop_privileges", "", nothingToDo, ""},
	{"relaxed_privileges", "", nothingToDo, ""},
}

// hidden is the help of what the help does not show.
const hidden = "-"

// argument is the usual complaint about a missing value; %s is the suboption's name.
const argument = "Missing %s argument"

// suboptions reads the value of one -o, as getsubopt does. Order matters: what comes later overrides, so `no_modern,maxconns_fast` has the
// latter on. The suboptions of external storage and the proxy are as unknown as in a memcached built without them.
func (s *settings) suboptions(list string) error {
	for list != "" {
		var word string
		word, list, _ = strings.Cut(list, ",")
		name, value, given := strings.Cut(word, "=")
		i := slices.IndexFunc(suboptionTable, func(o suboption) bool { return o.name == name })
		if i < 0 {
			return fail(1, "Illegal suboption \"%s\"", word)
		}
		o := suboptionTable[i]
		if o.missing == argument {
			o.missing = fmt.Sprintf(argument, name)
		}
		if !given && o.missing != "" {
			return fail(1, "%s", o.missing)
		}
		if !given && name == "slab_automove" {
			value = "1"
		}
		if err := o.set(s, value); err != nil {
			return err
		}
	}
	return nil
}

func nothingToDo(*settings, string) error { return nil }

func hashPower(s *settings, v string) error {
	switch s.server.Shown.HashPower = atoi(v); {
	case s.server.Shown.HashPower < 12:
		return fail(1, "Initial hashtable multiplier of %d is too low", s.server.Shown.HashPower)
	case s.server.Shown.HashPower > 32:
		return fail(1, "Initial hashtable multiplier of %d is too high\n"+
			"Choose a value based on \"STAT hash_power_level\" from a running instance", s.server.Shown.HashPower)
	}
	return nil
}

func chunkMax(s *settings, v string) error {
	n, ok := safeStrtoul(v)
	if !ok || n == 0 { // memcached goes on to divide by it
		return fail(1, "could not parse argument to slab_chunk_max")
	}
	s.chunkMax, s.chunkMaxGiven = int(n)*1024, true
	return nil
}

func noModern(s *settings, _ string) error {
	s.chunkMax, s.server.NoMaxConnsFast, s.lruMaintainer = slabPage, true, false
	s.server.Shown.HashAlgorithm = "jenkins"
	s.tuning.NoCrawler, s.tuning.Automove, s.cache.NoPageMoves = true, 0, true
	return nil
}

func slabAutomove(s *settings, v string) error {
	if s.tuning.Automove = atoi(v); s.tuning.Automove < 0 || s.tuning.Automove > 2 {
		return fail(1, "slab_automove must be between 0 and 2")
	}
	return nil
}

func percent(p *int, name, v string) error {
	if *p = atoi(v); *p < 1 || *p >= 80 {
		return fail(1, "%s must be > 1 and < 80", name)
	}
	return nil
}

func aboveZero(name string, set func(*settings, float64)) func(*settings, string) error {
	return func(s *settings, v string) error {
		f := atof(v)
		if !(f > 0) {
			return fail(1, "%s must be > 0", name)
		}
		set(s, f)
		return nil
	}
}

// temporaryTTL turns TEMP on. memcached takes a negative number for a huge one, which nothing reaches: all that expire at all are temporary then.
func temporaryTTL(s *settings, v string) error {
	s.tempLRU = true
	s.cache.LRU.Temp, s.cache.LRU.TempTTL = true, uint32(min(uint(atoi(v)), math.MaxInt32))
	return nil
}

func unsigned(name string, set func(*settings, uint32)) func(*settings, string) error {
	return func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok {
			return fail(1, "could not parse argument to %s", name)
		}
		set(s, n)
		return nil
	}
}

// logBuffer takes kilobytes. With 0 memcached's watchers would never get a line; here it is the smallest buffer, and there is a largest.
func logBuffer(name string, set func(*settings, int)) func(*settings, string) error {
	const most = 1 << 20
	return func(s *settings, v string) error {
		n, ok := safeStrtoul(v)
		if !ok {
			return fail(1, "could not parse argument to %s", name)
		}
		set(s, int(min(max(n, 1), most))*1024)
		return nil
	}
}

func zeroToThree(name string, set func(*settings, int)) func(*settings, string) error {
	return func(s *settings, v string) error {
		n, ok := safeStrtol(v)
		if !ok {
			return fail(1, "could not parse argument to %s", name)
		} else if n < 0 || n > 3 {
			return fail(1, "Invalid %s. Use help to see valid options.", name)
		}
		set(s, int(n))
		return nil
	}
}

// finishSlabSizes judges -o slab_sizes, which depends on -n and slab_chunk_max wherever those stand.
func (s *settings) finishSlabSizes() error {
	const (
		align      = 8
		maxClasses = 63 // and one more for pages that belong to no class
	)
	size, last := 0, 0
	for _, word := range strings.FieldsFunc(s.slabSizes, func(r rune) bool { return r == '-' }) {
		n, ok := safeStrtoul(word)
		if ok { // else the message names the one before, as memcached's does
			size = int(n)
		}
		switch {
		case !ok || size < s.cache.MinSpace || size > s.chunkMax:
			return fail(exUsage, "slab size %d is out of valid range", size)
		case size <= last:
			return fail(exUsage, "slab size %d cannot be lower than or equal to a previous class size", size)
		case size <= last+align:
			return fail(exUsage, "slab size %d must be at least %d bytes larger than previous class", size, align)
		}
		last = size
		s.cache.SlabSizes = append(s.cache.SlabSizes, size)
		if len(s.cache.SlabSizes) >= maxClasses {
			return fail(exUsage, "too many slab classes specified")
		}
	}
	if s.slabSizesGiven && last == 0 {
		return fail(exUsage, "slab_sizes: no sizes given")
	}
	return nil
}

func suboptionHelp() string {
	var b strings.Builder
	var knobs []string
	for _, o := range suboptionTable {
		if o.help == hidden {
			continue
		}
		if o.help == "" {
			knobs = append(knobs, o.name)
			continue
		}
		fmt.Fprintf(&b, "   - %-20s %s\n", o.name+":", strings.ReplaceAll(o.help, "\n", "\n"+strings.Repeat(" ", 26)))
	}
	b.WriteString("   - checked, and without effect in this build:\n")
	for line := range slices.Chunk(knobs, 4) {
		fmt.Fprintf(&b, "       %s\n", strings.Join(line, " "))
	}
	return b.String()
}
