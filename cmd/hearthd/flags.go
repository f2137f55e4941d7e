package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth"
	"hearth/cmd/hearthd/web"
	"hearth/netproto/server"
	"hearth/tools/clidoc"
)

const (
	mib      = 1 << 20
	slabPage = mib // every slab page's size
)

// config is what a command line asks for.
type config struct {
	cache      hearth.Options
	server     server.Options
	site       web.Options
	user       string // -u
	pidFile    string // -P
	daemon     bool   // -d
	coreDumps  bool   // -r
	lockMemory bool   // -k
	verbosity  int    // -v, counted
	jsonLog    bool   // -o log_format
	warnings   string // lines for stderr

	program   string       // the path it was started from
	from      *predecessor // whom it succeeds; nil: it was not started by a hand-over
	announced bool         // see announce
}

// settings collects the flags in memcached's terms, in the order they stand in; finish judges them together.
type settings struct {
	config
	port, udpPort          int
	portGiven, udpGiven    bool
	unixMask               int
	memory                 int64 // bytes
	itemMax, chunkMax      int   // bytes
	chunkMaxGiven          bool
	slabSizes              string
	slabSizesGiven         bool
	conns, threads         int
	listen                 []string
	protocol               string // "" until -B is given
	sasl, tls              bool
	ssl                    server.TLSOptions
	authFile               string
	saslDB                 string
	authGiven              bool // an empty name too: who asked for it must not get a server that is open to all
	napiIDs                int
	debugTime              bool // -o debugtime
	hotPct, warmPct        int
	tempLRU, lruMaintainer bool
	tuning                 server.Tuning
}

// parse turns a command line, argv[0] included, into a config, or into an *exit.
func parse(argv []string, getenv func(string) string) (*config, error) {
	s := &settings{
		port: 11211, unixMask: 0o700, memory: 64 * mib, itemMax: mib, chunkMax: slabPage / 2,
		conns: 1024, threads: 4, hotPct: 20, warmPct: 40, lruMaintainer: true,
	}
	s.cache.MinSpace, s.cache.GrowthFactor = 48, 1.25
	s.tuning = server.DefaultTuning
	s.saslDB = getenv("MEMCACHED_SASL_PWDB")
	flags := s.flags()
	// The exit a flag asked for. It is kept here since the flag package wraps what Set returns in a message of its own.
	var stop *exit
	for _, f := range flags {
		o := f.(*option)
		set := o.set
		o.set = func(v string) error {
			err := set(v)
			errors.As(err, &stop)
			return err
		}
	}
	args, badOption := normalise(argv, flags, getenv("POSIXLY_CORRECT") != "")
	err := newApp(flags).RunContext(context.Background(), append(argv[:1:1], args...))
	switch {
	case stop != nil:
		stop.stderr = s.warnings + stop.stderr
		return nil, stop
	case err != nil: // a flag that normalise let through and cli does not know: the two disagree about the table
		return nil, fail(exUsage, "hearthd: %v", err)
	case badOption != nil:
		return nil, fail(1, "%s%v\nIllegal argument \"?\"", s.warnings, badOption)
	}
	if err := s.finish(); err != nil {
		if errors.As(err, &stop) {
			stop.stderr = s.warnings + stop.stderr
		}
		return nil, err
	}
	return &s.config, nil
}

// newApp is the command for the cli package. Parsing is all it does; help and version are flags like any other here, because memcached acts on
// them in their turn.
func newApp(flags []cli.Flag) *cli.App {
	return &cli.App{
		Name: "hearthd", Usage: "a memcached server that stays warm over restarts", Version: version, Flags: flags,
		HideHelp: true, HideVersion: true, Writer: io.Discard, ErrWriter: io.Discard,
		Action:         func(*cli.Context) error { return nil },
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return err },
		ExitErrHandler: func(*cli.Context, error) {},
	}
}

// flags is the table of all flags, in the order of memcached's own, which shows in the message about an ambiguous prefix.
func (s *settings) flags() []cli.Flag {
	positive := func(p *int, what string) func(string) error {
		return func(v string) error {
			if *p = atoi(v); *p <= 0 {
				return fail(1, "%s must be greater than 0", what)
			}
			return nil
		}
	}
	number := func(p *int, given *bool) func(string) error {
		return func(v string) error { *p, *given = atoi(v), true; return nil }
	}
	word := func(p *string) func(string) error {
		return func(v string) error { *p = v; return nil }
	}
	on := func(p *bool) func(string) error {
		return func(string) error { *p = true; return nil }
	}
	return []cli.Flag{
		opt('a', "unix-mask", oneValue, "mask", "access mask for UNIX socket, in octal", "700", func(v string) error {
			n, _ := strtol(v, 8)
			s.unixMask = int(n) & 0o777
			return nil
		}),
		opt('A', "enable-shutdown", nothing, "", `enable ascii "shutdown" command`, "", on(&s.server.EnableShutdown)),
		opt('Z', "enable-ssl", nothing, "", "enable TLS/SSL", "", on(&s.tls)),
		opt('p', "port", oneValue, "num", "TCP port to listen on, -1 for any free one, 0 for none", "11211", number(&s.port, &s.portGiven)),
		opt('s', "unix-socket", oneValue, "file", "UNIX socket to listen on (disables network support)", "", word(&s.server.UnixSocket)),
		opt('U', "udp-port", oneValue, "num", "UDP port to listen on, -1 for any free one", "0, off", number(&s.udpPort, &s.udpGiven)),
		opt('m', "memory-limit", oneValue, "num", "item memory in megabytes", "64", func(v string) error {
			s.memory = int64(atoi(v)) * mib
			return nil
		}),
		opt('M', "disable-evictions", nothing, "", "return error on memory exhausted instead of evicting", "", on(&s.cache.NoEvict)),
		opt('c', "conn-limit", oneValue, "num", "max simultaneous client connections", "1024", positive(&s.conns, "Maximum connections")),
		opt('k', "lock-memory", nothing, "", "lock down all paged memory", "", on(&s.lockMemory)),
		opt('h', "help", nothing, "", "print this help and exit", "", func(string) error {
			return &exit{stdout: helpText(s.flags())}
		}),
		opt('i', "license", nothing, "", "print the licenses of what is in this program and exit", "", func(string) error {
			return &exit{stdout: licenseText()}
		}),
		opt('V', "version", nothing, "", "print version and exit", "", func(string) error {
			return &exit{stdout: versionLine()}
		}),
		opt('r', "enable-coredumps", nothing, "", "maximize core file limit", "", on(&s.coreDumps)),
		opt('v', "verbose", maybeValue, "", "verbose (also log clients that are turned away)\n-vv also print the slab classes and log connections and client commands\n-vvv the same", "",
			func(string) error { s.verbosity++; return nil }),
		opt('d', "daemon", nothing, "", "run as a daemon", "", on(&s.daemon)),
		opt('l', "listen", oneValue, "addr", "interface to listen on, host or host:port, several with commas;\nmay be given several times", "all", func(v string) error {
			s.listen = append(s.listen, v)
			return nil
		}),
		opt('u', "user", oneValue, "user", "assume identity of <user> (only when run as root)", "", word(&s.user)),
		opt('P', "pidfile", oneValue, "file", "save PID in <file>; removed at exit with -d", "", word(&s.pidFile)),
		opt('f', "slab-growth-factor", oneValue, "num", "chunk size growth factor", "1.25", func(v string) error {
			if s.cache.GrowthFactor = atof(v); !(s.cache.GrowthFactor > 1) || math.IsInf(s.cache.GrowthFactor, 1) {
				return fail(1, "Factor must be greater than 1")
			}
			return nil
		}),
		opt('n', "slab-min-size", oneValue, "bytes", "min space used for key+value+flags", "48", positive(&s.cache.MinSpace, "Chunk size")),
		opt('t', "threads", oneValue, "num", "number of threads to use", "4", func(v string) error {
			if err := positive(&s.threads, "Number of threads")(v); err != nil {
				return err
			}
			if s.threads > 64 {
				s.warnings += "WARNING: Setting a high number of workerthreads is not recommended.\n" +
					" Set this value to the number of cores in your machine or less.\n"
			}
			return nil
		}),
		opt('D', "", oneValue, "char", "delimiter between key prefixes and IDs, for the per-prefix\nstats; turns `stats detail` on", ":", func(v string) error {
			if v == "" {
				return fail(1, "No delimiter specified")
			}
			s.server.PrefixDelimiter, s.server.Detail = v[0], true
			return nil
		}),
		opt('L', "enable-largepages", nothing, "", "try to use large memory pages; a file of -e has them on a\ntmpfs that is mounted with huge=advise", "", func(string) error {
			s.cache.HugePages = true
			return hugePagesHere()
		}),
		opt('R', "max-reqs-per-event", oneValue, "num", "maximum number of requests per event, limits the requests\nprocessed per connection to prevent starvation", "20",
			positive(&s.server.ReqsPerEvent, "Number of requests per event")),
		opt('C', "disable-cas", nothing, "", "disable use of CAS", "", on(&s.cache.NoCAS)),
		opt('b', "listen-backlog", oneValue, "num", "set the backlog queue limit", "1024", func(v string) error {
			// listen(2) takes 0 for the shortest queue and a negative number for the longest; here 0 stands for the default.
			if s.server.Backlog = atoi(v); s.server.Backlog == 0 {
				s.server.Backlog = 1
			} else if s.server.Backlog < 0 {
				s.server.Backlog = math.MaxUint16
			}
			return nil
		}),
		opt('B', "protocol", oneValue, "name", "protocol - one of ascii, binary, or auto", "auto", func(v string) error {
			if s.protocol = v; !slices.Contains([]string{"auto", "binary", "ascii"}, v) {
				return fail(exUsage, "Invalid value for binding protocol: %s\n -- should be one of auto, binary, or ascii", v)
			}
			return nil
		}),
		opt('I', "max-item-size", oneValue, "num", "adjusts max item size, with k or m\n(min: 1k, max: 1024m)", "1m", func(v string) error {
			n := int32(atoi(v)) // 32-bit arithmetic as memcached's: 4096m is 0, and so too small
			if strings.HasSuffix(v, "k") || strings.HasSuffix(v, "K") {
				n *= 1024
			} else if strings.HasSuffix(v, "m") || strings.HasSuffix(v, "M") {
				n *= mib
			}
			s.itemMax = int(n)
			return nil
		}),
		opt('S', "enable-sasl", nothing, "", "turn on Sasl authentication: PLAIN, with the users of the\nfile that MEMCACHED_SASL_PWDB names, a line user:password each", "", on(&s.sasl)),
		opt('F', "disable-flush-all", nothing, "", "disable flush_all command", "", on(&s.server.DisableFlushAll)),
		opt('X', "disable-dumping", nothing, "", "disable stats cachedump and stats detail", "", on(&s.server.DisableDumping)),
		opt('W', "disable-watch", nothing, "", "disable watch commands", "", on(&s.server.DisableWatch)),
		opt('Y', "auth-file", oneValue, "file", "enable ASCII protocol authentication with the users in <file>,\na line user:password each, up to 8; SIGHUP reads it again", "", func(v string) error {
			s.authFile, s.authGiven = v, true
			return nil
		}),
		opt('e', "memory-file", oneValue, "file", "keep the cache in a file: it is still there after a restart,\na crash or a kill. Best on a ram disk such as /dev/shm", "", word(&s.cache.Path)),
		opt('o', "extended", oneValue, "list", "comma separated list of extended options, see below", "", s.suboptions),
		opt('N', "napi-ids", oneValue, "num", "number of queues of the network card: connections that came in\nby the same one are served by the same thread", "", positive(&s.napiIDs, "Maximum number of NAPI IDs")),
	}
}

// finish judges the settings together, in memcached's order, and fills in the options.
func (s *settings) finish() error {
	if s.napiIDs > s.threads {
		return fail(exUsage, "Number of napi_ids(%d) cannot be greater than number of threads(%d)", s.napiIDs, s.threads)
	}
	if s.itemMax < 1024 {
		return fail(exUsage, "Item max size cannot be less than 1024 bytes.")
	}
	if s.memory >= 0 && int64(s.itemMax) > s.memory/2 {
		return fail(exUsage, "Cannot set item size limit higher than 1/2 of memory max.")
	}
	if s.itemMax > 1024*mib {
		return fail(exUsage, "Cannot set item size limit higher than a gigabyte.")
	}
	if s.itemMax > mib && !s.chunkMaxGiven {
		s.chunkMax = slabPage / 2
	}
	switch {
	case s.chunkMax > s.itemMax:
		return fail(exUsage, "slab_chunk_max (bytes: %d) cannot be larger than -I (item_size_max %d)", s.chunkMax, s.itemMax)
	case s.itemMax%s.chunkMax != 0:
		return fail(exUsage, "-I (item_size_max: %d) must be evenly divisible by slab_chunk_max (bytes: %d)", s.itemMax, s.chunkMax)
	case slabPage%s.chunkMax != 0:
		return fail(exUsage, "slab_chunk_max (bytes: %d) must divide evenly into %d (slab_page_size)", s.chunkMax, slabPage)
	}
	if err := s.finishSlabSizes(); err != nil {
		return err
	}
	if s.hotPct+s.warmPct > 80 {
		return fail(exUsage, "hot_lru_pct + warm_lru_pct cannot be more than 80%% combined")
	}
	if s.tempLRU && !s.lruMaintainer {
		return fail(exUsage, "temporary_ttl requires lru_maintainer to be enabled")
	}
	if s.tls && s.port == 0 {
		return fail(exUsage, "ERROR: You cannot enable SSL without a TCP port.")
	}
	if s.sasl && s.protocol != "" && s.protocol != "binary" {
		return fail(exUsage, "ERROR: You cannot allow the ASCII protocol while using SASL.")
	}
	if s.sasl && s.udpPort != 0 {
		return fail(exUsage, "ERROR: Cannot enable UDP while using binary SASL authentication.")
	}
	if s.authGiven && s.sasl || s.authGiven && s.protocol != "" && s.protocol != "ascii" {
		return fail(exUsage, "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.")
	}
	if s.site.Listen == "" && (s.site.Profiles || s.site.Hosts != nil) {
		return fail(exUsage, "hearthd: -o http_pprof and http_host: mean nothing without http_listen")
	}
	if s.udpPort != 0 && !s.portGiven {
		s.port = s.udpPort
	}
	if s.authGiven && s.udpPort != 0 {
		return fail(exUsage, "Cannot use UDP with ascii authentication enabled (-U 0 to disable)")
	}
	if s.port > math.MaxUint16 || s.port < -1 {
		return fail(exUsage, "ERROR: Invalid port number %d.", s.port)
	}
	if s.udpPort > math.MaxUint16 || s.udpPort < -1 { // memcached cuts it to 16 bits
		return fail(exUsage, "ERROR: Invalid port number %d.", s.udpPort)
	}
	return s.finishOptions()
}

// finishOptions fills in the options.
func (s *settings) finishOptions() error {
	listen, err := listenEntries(s.listen)
	if err != nil {
		return err
	}
	s.cache.MemoryLimit, s.cache.MaxItemSize, s.cache.ChunkMax = s.memory, s.itemMax, s.chunkMax
	s.server.Listen, s.server.Port, s.server.NoTCP = listen, s.port, s.port == 0
	if s.server.UnixMask = s.unixMask; s.unixMask == 0 {
		s.server.UnixMask = -1
	}
	s.server.Threads, s.server.MaxConns, s.server.Verbosity = s.threads, s.conns, s.verbosity
	s.server.NAPIIDs, s.server.HearthVersion = s.napiIDs, version
	s.cache.LRU.HotPct, s.cache.LRU.WarmPct, s.cache.LRU.Flat = s.hotPct, s.warmPct, !s.lruMaintainer
	s.server.NoLRUMaintainer, s.server.Tuning = !s.lruMaintainer, &s.tuning
	s.server.UDPPort = s.udpPort
	if s.debugTime {
		if s.cache.Path != "" {
			return fail(exUsage, "hearthd: -o debugtime: cannot be used with -e, whose file would remember a time that never was")
		}
		s.server.DebugClock = hearth.NewDebugClock()
		s.cache.Clock = s.server.DebugClock
	}
	if s.sasl {
		s.server.SASL = server.NewPasswordDB(s.saslDB)
	}
	if s.authGiven {
		s.server.Auth = server.NewAuthFile(s.authFile)
	}
	if s.tls {
		s.server.TLS = server.NewTLS(s.ssl)
	}
	switch s.protocol {
	case "ascii":
		s.server.Protocol = server.ProtocolASCII
	case "binary":
		s.server.Protocol = server.ProtocolBinary
	}
	return nil
}

// listenEntries splits the values of -l into entries. An entry given twice counts once. memcached drops one that is part of what was given
// before, so that `-l 127.0.0.10 -l 127.0.0.1` loses the second; that is not copied.
func listenEntries(lists []string) (entries []string, err error) {
	all := strings.Join(lists, ",")
	for _, e := range strings.FieldsFunc(all, func(r rune) bool { return r == ',' || r == ';' }) {
		if !slices.Contains(entries, e) {
			entries = append(entries, e)
		}
	}
	if len(lists) > 0 && len(entries) == 0 { // most likely an unset variable in a script: neither deaf nor open to all is what was meant
		return nil, fail(exOSErr, "hearthd: -l: no address given\nfailed to listen on one of interface(s) %s", all)
	}
	return entries, nil
}

// helpOrder is the order of memcached's help.
const helpOrder = "pUsaAldrumMckvhiVPfnLDtRCbBISFXWYeZoN"

// version is our own version, set at link time in a release.
var version string

func init() { version = clidoc.Version(version) }

// versionLine is what -V prints. Scripts and configuration managers look for "memcached N.N.N" at its start to know what the server can do,
// so the memcached we are like comes first and our own name behind it.
func versionLine() string {
	return fmt.Sprintf("memcached %s (hearthd %s)\n", server.DefaultVersion, version)
}

// helpText is what -h prints, in the shape of memcached's, which scripts search for what is built in.
func helpText(flags []cli.Flag) string {
	const indent = 26
	var b strings.Builder
	b.WriteString(versionLine())
	for _, c := range []byte(helpOrder) {
		o := flags[slices.IndexFunc(flags, func(f cli.Flag) bool { return f.(*option).short == c })].(*option)
		head := fmt.Sprintf("-%c", o.short)
		if o.long != "" {
			head += ", --" + o.long
			if o.arg != "" {
				head += "=<" + o.arg + ">"
			}
		} else if o.arg != "" {
			head += " <" + o.arg + ">"
		}
		help := strings.ReplaceAll(o.help, "\n", "\n"+strings.Repeat(" ", indent))
		if o.fallback != "" {
			help += " (default: " + o.fallback + ")"
		}
		fmt.Fprintf(&b, "%-*s %s\n", indent-1, head, help)
	}
	b.WriteString(suboptionHelp())
	return b.String()
}
