package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
)

const (
	maxConns  = 32
	maxHeader = 8 << 10
	// perSecond bounds the requests, over all clients. A page that is looked at makes one, a Prometheus far less.
	perSecond = 50
	burst     = 2 * perSecond

	headerTimeout = 5 * time.Second
	replyTimeout  = 10 * time.Second
	idleTimeout   = 30 * time.Second
)

// Source is where the figures come from.
type Source interface {
	// Rows calls row with each row of `stats NAME`; an empty name is plain `stats`. False: they are not to be had.
	Rows(name string, row func(name, value string)) bool
}

// Options shape a Site.
type Options struct {
	// Listen is the address, ADDRESS:PORT, :PORT or PORT (-o http_listen). Without an address it is the IPv4 loopback's, * is any; port 0 is a free one. Default: none, no site.
	Listen string
	// Hosts are further names that the site may be called by (-o http_host); "*" is any.
	Hosts []string
	// Profiles serves /debug/pprof (-o http_pprof).
	Profiles bool
	// Socket is an open listener that replaces Listen's (see Site.Socket). Listen closes it.
	Socket *os.File
	// Logger gets what goes wrong with connections; default none.
	Logger *slog.Logger
}

// Address is o.Listen as net.Listen takes it.
func (o *Options) Address() (string, error) {
	host, port, err := net.SplitHostPort(o.Listen)
	if _, number := strconv.ParseUint(o.Listen, 10, 16); number == nil {
		host, port, err = "", o.Listen, nil
	}
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || strings.ContainsAny(host, " /") {
		return "", fmt.Errorf("http_listen=%s: want [ADDRESS]:PORT", o.Listen)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	switch host {
	case "":
		host = "127.0.0.1"
	case "*":
		host = ""
	}
	return net.JoinHostPort(host, port), nil
}

// Site is the HTTP side of one server.
type Site struct {
	o        Options
	src      Source
	tcp      *net.TCPListener
	listener net.Listener // tcp, with a limit
	server   http.Server
	hosts    []string // lower case
	rate     *rate.Limiter
	stopping atomic.Bool

	reading sync.RWMutex // held for reading while src is read
	closed  bool         // guarded by reading: src must not be read any more
}

// Listen opens the address. Serve has to follow. Without an address there is no site: nil, which can be served, told and closed all the same.
func Listen(o Options, src Source) (*Site, error) {
	if o.Listen == "" {
		return nil, nil
	}
	addr, err := o.Address()
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Site{o: o, src: src, rate: rate.NewLimiter(perSecond, burst)}
	var l net.Listener
	if o.Socket != nil {
		l, err = net.FileListener(o.Socket)
		o.Socket.Close()
	} else {
		l, err = net.Listen(network(addr), addr)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to listen on HTTP address %s: %w", o.Listen, errors.Unwrap(err))
	}
	s.tcp = l.(*net.TCPListener)
	s.listener = netutil.LimitListener(l, maxConns)
	own, _ := os.Hostname()
	host, _, _ := net.SplitHostPort(addr)
	for _, name := range append([]string{"localhost", own, host}, o.Hosts...) {
		if name != "" {
			s.hosts = append(s.hosts, strings.ToLower(name))
		}
	}
	s.server = http.Server{
		Handler: s.guard(s.routes()), ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: replyTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader - 4096, // net/http adds that much
		ErrorLog:       slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// network is that of an address. By "tcp" alone 0.0.0.0 would be all of IPv6 too, which nobody told.
func network(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	switch {
	case err != nil: // a name, or any
		return "tcp"
	case ap.Addr().Is4():
		return "tcp4"
	}
	return "tcp6"
}

// Addr is the address that is listened on.
func (s *Site) Addr() net.Addr { return s.listener.Addr() }

// Socket returns a descriptor of the listener, for a site that comes after this one; nil without a site.
func (s *Site) Socket() (*os.File, error) {
	if s == nil {
		return nil, nil
	}
	return s.tcp.File()
}

// Serve serves until Close.
func (s *Site) Serve() {
	if s == nil {
		return
	}
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.o.Logger.Error("web: serve", "err", err)
	}
}

// Stopping has /readyz say so from now on.
func (s *Site) Stopping() {
	if s != nil {
		s.stopping.Store(true)
	}
}

// Close ends the site and returns when nobody reads the source any more.
func (s *Site) Close() {
	if s == nil {
		return
	}
	s.server.Close()
	s.reading.Lock()
	s.closed = true
	s.reading.Unlock()
}

// read calls f, which may read the source; false: that is over.
func (s *Site) read(f func() bool) bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return !s.closed && f()
}

func (s *Site) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/metrics", s.metrics())
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", s.ready)
	mux.HandleFunc("/stats.json", s.json)
	mux.HandleFunc("/{$}", page("index.html", "text/html; charset=utf-8"))
	mux.HandleFunc("/page.js", page("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("/page.css", page("page.css", "text/css; charset=utf-8"))
	if s.o.Profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// guard keeps out who has no business here, and tells browsers what this site is not.
func (s *Site) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "want GET or HEAD", http.StatusMethodNotAllowed)
		case !s.knownHost(r.Host):
			http.Error(w, fmt.Sprintf("host %q is no name of this server; -o http_host=NAME adds one", r.Host), http.StatusMisdirectedRequest)
		case r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate":
			http.Error(w, "not for scripts of other sites", http.StatusForbidden)
		case !s.rate.Allow():
			h.Set("Retry-After", "1")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// knownHost tells whether a Host header names this server. A literal address is no name, so nobody can have made it point here.
func (s *Site) knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && slices.Contains(s.hosts, strings.ToLower(host)) || slices.Contains(s.hosts, "*")
}

// ready answers 200 whenever requests are served, as they are during a sweep.
func (s *Site) ready(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	l, ok := s.lists("")
	switch {
	case !ok:
		http.Error(w, "no figures", http.StatusServiceUnavailable)
	case l.Stats["restart_sweeping"] == "1":
		fmt.Fprintln(w, "ready, and sweeping: lists and free memory are made anew after a kill")
	default:
		fmt.Fprintln(w, "ready")
	}
}
