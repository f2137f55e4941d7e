package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth/netproto"
)

// TLSOptions are memcached's ssl_* suboptions. The zero value of a field means its default.
type TLSOptions struct {
	// ChainCert is the path of the server's certificate and those that lead to its root, in PEM (ssl_chain_cert).
	ChainCert string
	// Key is the path of the private key (ssl_key).
	Key string
	// KeyFormat is the format of Key (ssl_keyformat): 1 PEM, 2 DER; default 1.
	KeyFormat int
	// CACert is the path of the certificates, in PEM, that sign those of clients (ssl_ca_cert). Without it no client's certificate is good.
	CACert string
	// VerifyMode says what is asked of clients (ssl_verify_mode): 0 nothing, 1 that a certificate is good if there is one, 2 and 3 a good one.
	VerifyMode int
	// Ciphers is OpenSSL's list of ciphers up to TLS 1.2 (ssl_ciphers); default Go's choice, which is also that of TLS 1.3 in any case.
	Ciphers string
	// MinVersion is the oldest version that is spoken (ssl_min_version), one of tls.VersionTLS10 to VersionTLS13; default 1.2.
	MinVersion uint16
	// SessionCache lets clients resume sessions, by tickets (ssl_session_cache).
	SessionCache bool
	// WriteBuffer (ssl_wbuf_size, in bytes; default 16 KiB) and KernelTLS (ssl_kernel_tls) are shown in the settings and mean nothing here.
	WriteBuffer int
	KernelTLS   bool
}

func (o *TLSOptions) withDefaults() {
	if o.KeyFormat == 0 {
		o.KeyFormat = 1
	}
	if o.MinVersion == 0 {
		o.MinVersion = tls.VersionTLS12
	}
	if o.WriteBuffer == 0 {
		o.WriteBuffer = 16 << 10
	}
}

// verifyBits is VerifyMode as OpenSSL has it and memcached shows it: verify a peer, fail without one, ask once.
func (o *TLSOptions) verifyBits() int { return [...]int{0, 1, 1 | 2, 1 | 2 | 4}[o.VerifyMode] }

// list lists the rows of `stats settings`, which are the same without -Z; a nil t has the defaults.
func (t *TLS) list(l *lister) {
	var o TLSOptions
	o.withDefaults()
	if t != nil {
		o = t.o
	}
	l.yes("ssl_enabled", t != nil)
	l.str("ssl_chain_cert", or(o.ChainCert, "(null)"))
	l.str("ssl_key", or(o.Key, "(null)"))
	l.int("ssl_verify_mode", int64(o.verifyBits()))
	l.int("ssl_keyformat", int64(o.KeyFormat))
	l.str("ssl_ciphers", or(o.Ciphers, "NULL"))
	l.str("ssl_ca_cert", or(o.CACert, "NULL"))
	l.int("ssl_wbuf_size", int64(o.WriteBuffer))
	l.yes("ssl_session_cache", o.SessionCache)
	l.yes("ssl_kernel_tls", o.KernelTLS)
	l.str("ssl_min_version", fmt.Sprintf("tlsv1.%d", o.MinVersion-tls.VersionTLS10))
}

// TLS is the server's end of TLS (-Z). Load reads the files, before the server is made and again whenever they have changed; both are safe while it
// runs.
type TLS struct {
	o       TLSOptions
	current atomic.Pointer[tlsSetup]
}

// tlsSetup is what new connections get, until the next Load. Each configuration makes keys for session tickets of its own: none resumes a session
// that was agreed on under another one, with its older certificates or weaker demands.
type tlsSetup struct {
	loaded  time.Time
	configs [tlsModes]*tls.Config
}

// tlsMode is what a listener wants of its clients.
type tlsMode uint8

const (
	tlsOff    tlsMode = iota // notls:, or no -Z
	tlsOn                    // what VerifyMode says
	tlsNoPeer                // btls: no certificate
	tlsPeer                  // mtls: a good certificate
	tlsModes
)

// NewTLS returns the TLS of these options, not loaded yet.
func NewTLS(o TLSOptions) *TLS {
	o.withDefaults()
	return &TLS{o: o}
}

// Load reads certificates and keys for the connections to come; those that are there go on with theirs. After an error all is as before. Its errors
// are memcached's lines, with our own reason behind the last colon.
func (t *TLS) Load() error {
	if t.o.VerifyMode < 0 || t.o.VerifyMode > 3 {
		return fmt.Errorf("server: options: ssl_verify_mode %d: want 0 to 3", t.o.VerifyMode)
	}
	cert, err := t.o.certificate()
	if err != nil {
		return err
	}
	clientCAs := x509.NewCertPool() // never nil, which would stand for the system's roots
	if t.o.CACert != "" {
		text, err := readSmallFile(t.o.CACert)
		if err == nil && !clientCAs.AppendCertsFromPEM(text) {
			err = errors.New("no certificate found")
		}
		if err != nil {
			return fmt.Errorf("Error loading the CA certificate: %s : %w", t.o.CACert, reason(err))
		}
	}
	config := &tls.Config{
		Certificates:                []tls.Certificate{cert},
		ClientCAs:                   clientCAs,
		MinVersion:                  t.o.MinVersion,
		SessionTicketsDisabled:      !t.o.SessionCache,
		DynamicRecordSizingDisabled: true, // small records first are for browsers that render what has come
	}
	if t.o.Ciphers != "" {
		if config.CipherSuites, err = parseCiphers(t.o.Ciphers); err != nil {
			return fmt.Errorf("Error setting the provided cipher(s): %s : %w", t.o.Ciphers, err)
		}
	}
	setup := &tlsSetup{loaded: time.Now()}
	asked := [...]tls.ClientAuthType{tls.NoClientCert, tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert, tls.RequireAndVerifyClientCert}
	for mode, auth := range map[tlsMode]tls.ClientAuthType{
		tlsOn: asked[t.o.VerifyMode], tlsNoPeer: tls.NoClientCert, tlsPeer: tls.RequireAndVerifyClientCert} {
		c := config.Clone()
		c.ClientAuth = auth
		setup.configs[mode] = c
	}
	t.current.Store(setup)
	return nil
}

// certificate reads the chain and the key.
func (o *TLSOptions) certificate() (cert tls.Certificate, err error) {
	text, err := readSmallFile(o.ChainCert)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if err == nil && len(cert.Certificate) == 0 {
		err = errors.New("no certificate found")
	}
	if err == nil {
		cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
	}
	if err != nil {
		return cert, fmt.Errorf("Error loading the certificate chain: %s : %w", or(o.ChainCert, "(null)"), reason(err))
	}
	key, err := o.key()
	if err == nil && !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.Leaf.PublicKey) {
		err = errors.New("it is not the certificate's key")
	}
	if err != nil {
		return cert, fmt.Errorf("Error loading the key: %s : %w", or(o.Key, "(null)"), reason(err))
	}
	cert.PrivateKey = key
	return cert, nil
}

// key reads the private key.
func (o *TLSOptions) key() (crypto.Signer, error) {
	der, err := readSmallFile(o.Key)
	if err != nil {
		return nil, err
	}
	switch o.KeyFormat {
	case 1:
		block, rest := pem.Decode(der)
		for block != nil && !bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")) { // "EC PARAMETERS" may come first
			block, rest = pem.Decode(rest)
		}
		if block == nil {
			return nil, errors.New("no private key found")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted, want a plain one")
		}
		der = block.Bytes
	case 2:
	default:
		return nil, errors.New("bad ssl_keyformat, want 1 (PEM) or 2 (DER)")
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("no private key that can be read")
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T cannot sign", parsed)
}

// reason is an error for the end of memcached's line, which has named the file already.
func reason(err error) error {
	if bad := (*os.PathError)(nil); errors.As(err, &bad) {
		err = bad.Err
	}
	return inCWords(err)
}

// handshakeTimeout is how long a client may take for its handshake.
var handshakeTimeout = 10 * time.Second

// handshakes are the connections that do not belong to a worker yet, a goroutine each: crypto/tls cannot leave a handshake and come back to it.
type handshakes struct {
	ctx     context.Context // ends them all
	cancel  context.CancelFunc
	running sync.WaitGroup
	// slots bounds how many compute at a time, so that a crowd of new clients leaves the workers their processors. Who waits for a client has none.
	slots chan struct{}

	failed, sessions atomic.Uint64 // ssl_handshake_errors, ssl_new_sessions
}

func (h *handshakes) init() {
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.slots = make(chan struct{}, max(runtime.NumCPU()/2, 1))
}

// stop ends them all, and with them their connections.
func (h *handshakes) stop() {
	h.cancel()
	h.running.Wait()
}

// startHandshake makes a TLS connection of h and hands it to w. Meanwhile Go's poller has another descriptor of the socket: h's own is the connection's from the
// first to the last log line. It is made here, since a crowd of goroutines in system calls would be a crowd of threads.
func (s *Server) startHandshake(h handed, mode tlsMode, w *worker) {
	c := &conn{fd: h.fd, peer: h.peer}
	s.register(c)
	s.logConnNew(c)
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.endHandshake(c, h, w, err)
		return
	}
	s.handshakes.running.Go(func() {
		err := s.handshake(&h, fd, mode)
		s.endHandshake(c, h, w, err)
	})
}

// endHandshake hands the connection over when there is no error, and ends it otherwise.
func (s *Server) endHandshake(c *conn, h handed, w *worker, err error) {
	if err == nil {
		if s.o.TLS.o.SessionCache && !h.tls.conn.ConnectionState().DidResume {
			s.handshakes.sessions.Add(1)
		}
		w.handOver(h) // whose conn takes c's place in the registry
		return
	}
	if s.handshakes.ctx.Err() == nil {
		s.handshakes.failed.Add(1)
		if s.verbosity.Load() >= 1 {
			peer, _ := unix.Getpeername(h.fd)
			s.o.Logger.Info("server: TLS handshake failed", "client", addrText(netAddr(peer)), "err", err)
		}
		s.logTLSError(c, err)
	}
	s.logConnClose(c, netproto.LogCloseError)
	s.forget(c)
}

// handshake shakes hands on fd, which it closes, and returns with the connection in h.
func (s *Server) handshake(h *handed, fd int, mode tlsMode) error {
	t := &tlsConn{file: os.NewFile(uintptr(fd), "tls"), slots: s.handshakes.slots}
	defer t.file.Close() // evaluated here: it leaves Go's poller however this ends
	t.conn = tls.Server(t, s.o.TLS.current.Load().configs[mode])
	if err := t.file.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	t.slots <- struct{}{}
	err := t.conn.HandshakeContext(s.handshakes.ctx)
	<-t.slots
	if err == nil {
		t.file, t.fd, t.more = nil, h.fd, true // the client's first requests may have come with the end of its handshake
		h.tls = t
	}
	return err
}
