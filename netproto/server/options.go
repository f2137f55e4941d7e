package server

import (
	"fmt"
	"log/slog"
	"os"

	"hearth"
)

// Options shape a Server. The zero value of each field means its default, which is memcached's.
type Options struct {
	// Listen holds the entries of -l, one address each: host, host:port, [v6], [v6]:port or *, with the prefixes of memcached's grammar for
	// protocol and tag. Default: all addresses of all families, on Port.
	Listen []string
	// Port is the TCP port of entries that name none (-p); -1 picks a free one; default 11211.
	Port int
	// NoTCP opens no TCP listener at all (-p 0).
	NoTCP bool
	// UnixSocket is the path of a unix socket (-s). It replaces all TCP listeners.
	UnixSocket string
	// UnixMask is the permission mask of the unix socket (-a); -1 stands for 0, no permission at all; default 0700.
	UnixMask int
	// Sockets are open ones that replace all of the above and UDPPort: TCP and unix sockets that listen already, and UDP's. A name that is a
	// prefix of an entry of -l means the same here (os.NewFile). New closes the files and keeps descriptors of its own; when it closes those, the
	// sockets remain with whoever shares them.
	Sockets []*os.File
	// Resumed says that Sockets are of a server with these options (see Server.Sockets): the settings go on showing what the options say.
	Resumed bool
	// Conns are connections that such a server let go of (see Server.Released). Once New has returned a server they are its own.
	Conns []Conn
	// Mark is put on TCP and UDP listeners, and so on their connections, for packet filters to go by (-o sock_cookie_id, SO_MARK); default none.
	// It takes a privilege, without which the server warns and goes on.
	Mark uint32
	// Backlog is the length of the listen queue (-b); default 1024.
	Backlog int

	// Threads is the number of workers (-t); default 4.
	Threads int
	// NAPIIDs has connections that came in by the same queue of a network card go to the same worker (-N); the number, at most Threads, is how many
	// queues there should be, and is shown only. Default 0: round robin.
	NAPIIDs int
	// MaxConns bounds the client connections at a time (-c); default 1024.
	MaxConns int
	// NoMaxConnsFast stops accepting at the limit instead of turning clients away with an error (-o no_maxconns_fast).
	NoMaxConnsFast bool
	// ReqsPerEvent is how many requests of one connection are served before the others get their turn (-R); default 20.
	ReqsPerEvent int

	// UDPPort is the UDP port of entries that name none (-U); -1 picks a free one; 0, the default, opens none.
	UDPPort int
	// Auth holds the users who may use the text protocol (-Y), nil everybody. It excludes UDP, which has no connection to authenticate.
	Auth *AuthFile
	// SASL holds the users who may use the binary protocol (-S), nil everybody. It excludes Auth and UDP.
	SASL *AuthFile
	// TLS is what TCP listeners speak (-Z), loaded; nil plain text. UDP and the unix socket are plain in any case.
	TLS *TLS
	// IdleTimeout closes TCP connections that sent no command for more seconds than this (-o idle_timeout); default 0: never.
	IdleTimeout int

	// Protocol is what connections speak (-B) unless their listener has a proto[...] of its own; default by the first byte of each. With Auth it
	// is ProtocolASCII, with SASL ProtocolBinary.
	Protocol Protocol

	// EnableShutdown allows the shutdown command (-A).
	EnableShutdown bool
	// DisableFlushAll refuses flush_all (-F).
	DisableFlushAll bool
	// DisableDumping refuses stats cachedump and stats detail (-X).
	DisableDumping bool
	// DisableWatch refuses watch (-W).
	DisableWatch bool
	// ReadBufferLimit bounds the buffers that connections hold between turns, for input that cannot be served yet, over all workers in equal shares of at least
	// 16 KiB (-o read_buf_mem_limit, in bytes): who needs one and gets none is closed. Default 0: no limit.
	ReadBufferLimit uint32
	// WatcherLogSize is the room for the log lines that wait for a watcher, in bytes (-o watcher_logbuf_size); default 256 KiB.
	WatcherLogSize int
	// WorkerLogSize is only shown (-o worker_logbuf_size): lines go to the watchers' buffers at once, so a worker has none of its own that could overflow.
	WorkerLogSize int
	// DebugClock, which is the cache's Options.Clock as well, allows the debugtime command (-o debugtime); default none.
	DebugClock *hearth.DebugClock
	// PrefixDelimiter ends the part of a key that `stats detail` counts by (-D); default ':'.
	PrefixDelimiter byte
	// Detail starts with `stats detail` counting (any -D).
	Detail bool
	// Verbosity is the initial log level (-v): from 1 on, clients that are turned away are logged, from 2 on connections and request lines.
	Verbosity int

	// Tuning holds the initial settings of background work; default DefaultTuning.
	Tuning *Tuning
	// NoLRUMaintainer refuses lru mode and lru temp_ttl, as memcached does without its maintainer (-o no_lru_maintainer); the cache's LRU is to be flat.
	NoLRUMaintainer bool

	// Version is what clients are told; libmemcached takes only N.N.N with each N below 256; default DefaultVersion.
	Version string
	// HearthVersion is our own version, in `stats`; default "devel".
	HearthVersion string
	// Shown is what the operator set for machinery of memcached's that does not exist here.
	Shown Shown
	// Logger gets faults and, from Verbosity 2 on, connections and requests; default none.
	Logger *slog.Logger
}

// Shown are settings that shape nothing and that `stats settings` shows as they were given, as memcached does: who set them looks for them there.
type Shown struct {
	HashPower      int    // -o hashpower; default 0
	HashAlgorithm  string // -o hash_algorithm; default ours, "xxh64"
	TailRepairTime int    // -o tail_repair_time, in seconds; default 0
}

// DefaultVersion is the memcached whose protocol this is.
const DefaultVersion = "1.6.42"

// withDefaults fills the zero fields in.
func (o Options) withDefaults() (Options, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.Port, 11211)
	o.NoTCP = o.NoTCP || o.UnixSocket != ""
	def(&o.UnixMask, 0o700)
	def(&o.Backlog, 1024)
	def(&o.Threads, 4)
	def(&o.MaxConns, 1024)
	def(&o.ReqsPerEvent, 20)
	def(&o.WatcherLogSize, 256<<10)
	def(&o.WorkerLogSize, 64<<10)
	if o.UnixMask < 0 {
		o.UnixMask = 0
	}
	if o.Tuning == nil {
		o.Tuning = &DefaultTuning
	}
	if o.PrefixDelimiter == 0 {
		o.PrefixDelimiter = ':'
	}
	if o.Version == "" {
		o.Version = DefaultVersion
	}
	if o.HearthVersion == "" {
		o.HearthVersion = "devel"
	}
	if o.Shown.HashAlgorithm == "" {
		o.Shown.HashAlgorithm = "xxh64"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Threads < 0 || o.MaxConns < 0 || o.ReqsPerEvent < 0 || o.Backlog < 0 {
		return o, fmt.Errorf("server: options: -t %d, -c %d, -R %d, -b %d: want positive numbers", o.Threads, o.MaxConns, o.ReqsPerEvent, o.Backlog)
	}
	if o.WatcherLogSize < 0 {
		return o, fmt.Errorf("server: options: -o watcher_logbuf_size: %d bytes, want a positive number", o.WatcherLogSize)
	}
	if o.NAPIIDs < 0 || o.NAPIIDs > o.Threads {
		return o, fmt.Errorf("server: options: -N %d: want 0 to -t %d", o.NAPIIDs, o.Threads)
	}
	if o.Auth != nil && o.Protocol == ProtocolBinary {
		return o, fmt.Errorf("server: options: -B binary: cannot be used with ascii authentication")
	}
	if o.Auth != nil {
		o.Protocol = ProtocolASCII
	}
	if o.SASL != nil && (o.Protocol == ProtocolASCII || o.UDPPort != 0) {
		return o, fmt.Errorf("server: options: -S: cannot be used with UDP, ascii authentication or the ascii protocol")
	}
	if o.SASL != nil {
		o.Protocol = ProtocolBinary
	}
	if o.Auth != nil && o.UDPPort != 0 {
		return o, fmt.Errorf("server: options: -U %d: cannot use UDP with ascii authentication enabled", o.UDPPort)
	}
	if o.TLS != nil && o.TLS.current.Load() == nil {
		return o, fmt.Errorf("server: options: -Z: no certificate is loaded")
	}
	if o.UDPPort < -1 || o.UDPPort > 65535 {
		return o, fmt.Errorf("server: options: -U %d: want -1 to 65535", o.UDPPort)
	}
	if o.Port < -1 || o.Port > 65535 {
		return o, fmt.Errorf("server: options: -p %d: want -1 to 65535", o.Port)
	}
	return o, nil
}
