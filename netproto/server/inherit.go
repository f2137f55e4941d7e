package server

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// inherit makes listeners of the sockets that somebody else opened, in place of what the options ask for, and has the settings show them. A
// socket's name may be a prefix of an entry of -l, such as proto[ascii].
func inherit(o *Options) (tcp, udp []listener, err error) {
	defer func() {
		for _, f := range o.Sockets {
			f.Close() // we have a descriptor of our own
		}
		if err != nil {
			closeListeners(tcp)
			closeListeners(udp)
		}
	}()
	if !o.Resumed {
		o.Listen, o.UnixSocket, o.NoTCP, o.UDPPort = nil, "", true, 0
	}
	for _, f := range o.Sockets {
		l, stream, err := o.inheritOne(f)
		if err != nil {
			return tcp, udp, fmt.Errorf("failed to listen on inherited socket %d (%s): %w", f.Fd(), f.Name(), inCWords(err))
		}
		switch a := l.addr.(type) {
		case *net.UDPAddr:
			if !o.Resumed {
				o.UDPPort = a.Port
			}
		case *net.TCPAddr:
			if !o.Resumed && o.NoTCP {
				o.NoTCP, o.Port = false, a.Port
			}
		case *net.UnixAddr:
			o.UnixSocket = a.Name
		}
		if stream {
			tcp = append(tcp, l)
		} else {
			udp = append(udp, l)
		}
	}
	return tcp, udp, nil
}

// inheritOne looks at a socket and returns it as a listener, on a descriptor of its own.
func (o *Options) inheritOne(f *os.File) (l listener, stream bool, err error) {
	e, err := o.parseEndpoint(f.Name() + ":")
	if err != nil {
		return l, false, err
	}
	if l.fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return l, false, err
	}
	defer func() {
		if err != nil {
			unix.Close(l.fd)
		}
	}()
	family, err := socketFamily(l.fd)
	if err != nil {
		return l, false, err
	}
	var option [2]int
	for i, name := range []int{unix.SO_TYPE, unix.SO_ACCEPTCONN} {
		if option[i], err = unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, name); err != nil {
			return l, false, err
		}
	}
	kind, listening := option[0], option[1] != 0
	stream = kind == unix.SOCK_STREAM
	inet := family == unix.AF_INET || family == unix.AF_INET6
	switch {
	case !inet && family != unix.AF_UNIX:
		return l, false, fmt.Errorf("its family is %d, want IPv4, IPv6 or unix", family)
	case !stream && (kind != unix.SOCK_DGRAM || !inet):
		return l, false, fmt.Errorf("its type is %d in family %d, want a stream, or datagrams over IP", kind, family)
	case stream && !listening:
		return l, false, fmt.Errorf("it does not listen, want a listening socket (Accept=no)")
	case !stream && (o.Auth != nil || o.SASL != nil):
		return l, false, fmt.Errorf("it is UDP, which has no connection to authenticate")
	}
	sa, err := unix.Getsockname(l.fd)
	if err == nil {
		err = unix.SetNonblock(l.fd, true)
	}
	if err != nil {
		return l, false, err
	}
	l.addr, l.protocol = netAddr(sa), e.protocol
	switch a, isTCP := l.addr.(*net.TCPAddr); {
	case isTCP && stream:
		l.tls = e.tls
		err = setAll(l.fd, connOptions)
	case isTCP:
		l.addr = (*net.UDPAddr)(a)
		unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, udpSendBuffer)
	}
	return l, stream, err
}
