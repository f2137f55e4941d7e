package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listener is one listening socket, or a socket of UDP.
type listener struct {
	fd       int
	addr     net.Addr
	protocol Protocol // of its connections
	tls      tlsMode  // likewise
}

// endpoint is an entry of -l: [notls:|btls:|mtls:][proto[NAME]:][tag[NAME]:|tag_NAME_:]ADDRESS, each prefix with its colon.
type endpoint struct {
	addr     string // host, host:port, [v6], [v6]:port or *
	protocol Protocol
	tls      tlsMode
}

// prefixError says what is wrong with an entry's prefixes.
type prefixError struct{ what string }

func (e prefixError) Error() string { return e.what }

// parseEndpoint takes the prefixes of an entry off. A tag means something to a proxy only.
func (o *Options) parseEndpoint(entry string) (endpoint, error) {
	refuse := func(format string, args ...any) (endpoint, error) {
		return endpoint{}, prefixError{fmt.Sprintf(format, args...)}
	}
	e := endpoint{addr: entry, protocol: o.Protocol}
	if o.TLS != nil {
		e.tls = tlsOn
	}
	for _, p := range []struct {
		name string
		mode tlsMode
	}{{"notls", tlsOff}, {"btls", tlsNoPeer}, {"mtls", tlsPeer}} {
		rest, ok := strings.CutPrefix(e.addr, p.name+":")
		if !ok {
			continue
		}
		if o.TLS == nil {
			return refuse("'%s' option is valid only when SSL is enabled", p.name)
		}
		e.addr, e.tls = rest, p.mode
		break
	}
	if rest, ok := strings.CutPrefix(e.addr, "proto["); ok {
		name, host, closed := strings.Cut(rest, "]")
		if !closed {
			return refuse("Invalid protocol spec: \"[%s\"", name)
		}
		if e.protocol, ok = o.protocolNamed(name); !ok {
			return refuse("Server not built with proxy: \"proto[%s\"", name)
		}
		e.addr = strings.TrimPrefix(host, ":")
	}
	for _, p := range [][2]string{{"tag[", "]"}, {"tag_", "_"}} {
		rest, ok := strings.CutPrefix(e.addr, p[0])
		if !ok {
			continue
		}
		tag, host, closed := strings.Cut(rest, p[1])
		if !closed {
			return refuse("Invalid tag in socket config: \"%s\"", e.addr)
		}
		if len(tag) < 1 || len(tag) > 8 {
			return refuse("Listener tags must be between 1 and 8 characters: \"%s\"", tag)
		}
		e.addr = strings.TrimPrefix(host, ":")
	}
	switch {
	case o.Auth != nil && e.protocol == ProtocolBinary:
		return refuse("cannot use the binary protocol with ascii authentication: \"%s\"", entry)
	case o.SASL != nil && e.protocol == ProtocolASCII:
		return refuse("cannot use the ascii protocol with SASL authentication: \"%s\"", entry)
	case e.protocol == ProtocolAuto && (o.Auth != nil || o.SASL != nil):
		o.Logger.Warn("server: a listener with authentication does not negotiate its protocol", "listener", entry, "protocol", o.Protocol)
		e.protocol = o.Protocol
	}
	return e, nil
}

// protocolNamed is the protocol of proto[NAME], false for the proxy. memcached compares as many letters as there are, so that none is the first
// protocol, and passes names over that it does not know.
func (o *Options) protocolNamed(name string) (p Protocol, ok bool) {
	for _, p := range []struct {
		name     string
		protocol Protocol
	}{{"ascii", ProtocolASCII}, {"binary", ProtocolBinary}, {"negotiating", ProtocolAuto}} {
		if strings.HasPrefix(p.name, name) {
			return p.protocol, true
		}
	}
	return o.Protocol, !strings.HasPrefix("proxy", name)
}

// sysError says what the system said in the C library's words, as memcached prints them: Go's own table differs in the first letter.
type sysError struct{ errno unix.Errno }

func (e sysError) Error() string { s := e.errno.Error(); return strings.ToUpper(s[:1]) + s[1:] }
func (e sysError) Unwrap() error { return e.errno }

func inCWords(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return sysError{errno}
	}
	return err
}

// openListeners opens what the options ask for, or takes over what they bring.
func (s *Server) openListeners() (err error) {
	if len(s.o.Sockets) > 0 {
		s.listeners, s.udp, err = inherit(&s.o)
	} else if s.listeners, err = listen(&s.o); err == nil {
		if s.udp, err = listenUDP(&s.o); err != nil {
			closeListeners(s.listeners)
		}
	}
	if err == nil && s.o.Mark != 0 {
		s.markListeners()
	}
	return err
}

// markListeners puts the mark on all listeners but unix sockets. As in memcached it is no reason not to serve when it may not.
func (s *Server) markListeners() {
	for _, l := range slices.Concat(s.listeners, s.udp) {
		if _, local := l.addr.(*net.UnixAddr); local {
			continue
		}
		if err := markSocket(l.fd, s.o.Mark); err != nil {
			s.o.Logger.Warn("server: mark a listener (-o sock_cookie_id)", "addr", l.addr, "mark", s.o.Mark, "err", inCWords(err))
		}
	}
}

// listen opens all listeners that o asks for. Its errors start as memcached's do: operators and their scripts know these lines.
func listen(o *Options) (ls []listener, err error) {
	defer func() {
		if err != nil {
			closeListeners(ls)
			ls = nil
		}
	}()
	if o.UnixSocket != "" {
		l, err := listenUnix(o.UnixSocket, o.UnixMask, o.Backlog)
		if err != nil {
			return nil, fmt.Errorf("failed to listen on UNIX socket: %s: %w", o.UnixSocket, inCWords(err))
		}
		l.protocol = o.Protocol
		return append(ls, l), nil
	}
	if o.NoTCP {
		return nil, nil
	}
	entries := o.Listen
	if len(entries) == 0 {
		entries = []string{"*"}
	}
	for _, entry := range entries {
		ls, err = o.listenEntry(ls, entry, o.Port, func(ap netip.AddrPort) (listener, error) { return listenTCP(ap, o.Backlog) })
		if err == nil {
			continue
		}
		all := "failed to listen on one of interface(s) " + strings.Join(o.Listen, ",")
		switch bad := (prefixError{}); {
		case errors.As(err, &bad):
			return ls, fmt.Errorf("%w\n%s", bad, all) // two lines, as memcached has it
		case len(o.Listen) == 0:
			return ls, fmt.Errorf("failed to listen on TCP port %d: %w", o.Port, inCWords(err))
		}
		return ls, fmt.Errorf("%s: %w", all, inCWords(err))
	}
	return ls, nil
}

// listenUDP opens the UDP sockets that o asks for, at the same addresses.
func listenUDP(o *Options) (ls []listener, err error) {
	if o.UDPPort == 0 || o.UnixSocket != "" {
		return nil, nil
	}
	entries := o.Listen
	if len(entries) == 0 {
		entries = []string{"*"}
	}
	for _, entry := range entries {
		if ls, err = o.listenEntry(ls, entry, o.UDPPort, openUDP); err != nil {
			closeListeners(ls)
			return nil, fmt.Errorf("failed to listen on UDP port %d: %w", o.UDPPort, inCWords(err))
		}
	}
	return ls, nil
}

// threadsPerUDP is how many workers share a UDP socket: all of them, or one each when there are several addresses to spread over them.
func (o *Options) threadsPerUDP() int {
	if len(o.Listen) > 1 {
		return 1
	}
	return o.Threads
}

// shareUDP gives the workers descriptors of the UDP sockets.
func (s *Server) shareUDP() error {
	next := 0
	for _, l := range s.udp {
		for range s.o.threadsPerUDP() {
			fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			w := s.workers[next%len(s.workers)]
			w.udp = append(w.udp, handed{fd: fd, protocol: l.protocol})
			next++
		}
	}
	return nil
}

func closeListeners(ls []listener) {
	for _, l := range ls {
		unix.Close(l.fd)
	}
}

// splitEntry takes an entry of -l apart: host, host:port, [v6], [v6]:port, a bare v6 address, or *. An empty host means any.
func splitEntry(entry string, port int) (string, int, error) {
	host, rest, bracketed := entry, "", false
	if strings.HasPrefix(entry, "[") {
		end := strings.IndexByte(entry, ']')
		if end < 0 {
			//lint:ignore ST1005 memcached's words
			return "", 0, fmt.Errorf("Invalid IPV6 address: %q", entry)
		}
		host, rest, bracketed = entry[1:end], entry[end+1:], true
	}
	if !bracketed && strings.Count(entry, ":") == 1 {
		i := strings.IndexByte(entry, ':')
		host, rest = entry[:i], entry[i:]
	}
	if s, ok := strings.CutPrefix(rest, ":"); ok {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 65535 {
			//lint:ignore ST1005 memcached's words
			return "", 0, fmt.Errorf("Invalid port number: %q", s)
		}
		port = n
	}
	if host == "*" {
		host = ""
	}
	return host, port, nil
}

// listenEntry opens a listener for each address of the entry. As in memcached an address in use is passed over as long as another one of
// the same name works, and so is a family that this machine lacks; any other failure counts.
func (o *Options) listenEntry(ls []listener, entry string, port int, open func(netip.AddrPort) (listener, error)) ([]listener, error) {
	e, err := o.parseEndpoint(entry)
	if err != nil {
		return ls, err
	}
	host, port, err := splitEntry(e.addr, port)
	if err != nil {
		return ls, err
	}
	addrs := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	if host != "" {
		if addrs, err = net.DefaultResolver.LookupNetIP(context.Background(), "ip", host); err != nil {
			return ls, fmt.Errorf("getaddrinfo(): %w", err)
		}
	}
	opened, skipped := 0, error(unix.EADDRNOTAVAIL)
	for _, addr := range addrs {
		l, err := open(netip.AddrPortFrom(addr.Unmap(), uint16(max(port, 0))))
		switch {
		case err == nil:
			l.protocol, l.tls = e.protocol, e.tls
			ls, opened = append(ls, l), opened+1
		case errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EAFNOSUPPORT), host == "" && errors.Is(err, unix.EADDRNOTAVAIL):
			skipped = err
		default:
			return ls, err
		}
	}
	if opened == 0 {
		return ls, skipped
	}
	return ls, nil
}

// sockaddr is ap for the system.
func sockaddr(ap netip.AddrPort) (family int, sa unix.Sockaddr) {
	family, sa = unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16(), ZoneId: zoneID(ap.Addr().Zone())})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return family, sa
}

func openUDP(ap netip.AddrPort) (listener, error) {
	family, sa := sockaddr(ap)
	fd, err := newSocket(family, unix.SOCK_DGRAM)
	if err != nil {
		return listener{}, err
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, udpSendBuffer)
	l, err := bindSocket(fd, sa, err)
	if a, ok := l.addr.(*net.TCPAddr); ok {
		l.addr = (*net.UDPAddr)(a)
	}
	return l, err
}

func listenTCP(ap netip.AddrPort, backlog int) (listener, error) {
	family, sa := sockaddr(ap)
	fd, err := newSocket(family, unix.SOCK_STREAM)
	if err != nil {
		return listener{}, err
	}
	opts := append([][2]int{{unix.SOL_SOCKET, unix.SO_REUSEADDR}}, connOptions...)
	if family == unix.AF_INET6 {
		opts = append(opts, [2]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
	}
	return finishListen(fd, sa, backlog, setAll(fd, opts))
}

// connOptions are those that accepted connections inherit from their listener.
var connOptions = [][2]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_NODELAY}}

// setAll turns options on, each a level and a name.
func setAll(fd int, opts [][2]int) error {
	for _, opt := range opts {
		if err := unix.SetsockoptInt(fd, opt[0], opt[1], 1); err != nil {
			return err
		}
	}
	return nil
}

func listenUnix(path string, mask, backlog int) (listener, error) {
	// A socket that an earlier run left behind goes; anything else at that path stays and makes bind fail.
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
	if err != nil {
		return listener{}, err
	}
	old := unix.Umask(^mask & 0o777)
	defer unix.Umask(old)
	return finishListen(fd, &unix.SockaddrUnix{Name: path}, backlog, nil)
}

func finishListen(fd int, sa unix.Sockaddr, backlog int, err error) (listener, error) {
	l, err := bindSocket(fd, sa, err)
	if err == nil {
		if err = unix.Listen(fd, backlog); err != nil {
			unix.Close(fd)
		}
	}
	return l, err
}

// bindSocket binds fd unless err says that it failed already, and closes it on failure.
func bindSocket(fd int, sa unix.Sockaddr, err error) (listener, error) {
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return listener{}, err
	}
	return listener{fd: fd, addr: netAddr(sa)}, nil
}

// netAddr is sa as a net.Addr: *net.TCPAddr or *net.UnixAddr, nil for anything else.
func netAddr(sa unix.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrInet6:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: "unix"}
	}
	return nil
}

func zoneID(zone string) uint32 {
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}
