package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hearth"

	"hearth/netproto/server"
	"hearth/netproto/server/certtest"
)

// loadedTLS is a server's TLS with these options. Without a certificate in them it gets one.
func loadedTLS(t testing.TB, o server.TLSOptions) *server.TLS {
	t.Helper()
	if o.ChainCert == "" {
		o.ChainCert, o.Key, _ = certtest.New(t, "server's").Issue(t.TempDir(), "server", time.Now().Add(time.Hour))
	}
	s := server.NewTLS(o)
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

// withTLS has the server speak TLS with these options.
func withTLS(t testing.TB, o server.TLSOptions) func(*setup) {
	s := loadedTLS(t, o)
	return func(setup *setup) { setup.server.TLS = s }
}

// dialTLS dials with a configuration of the test's own; the handshake may fail, or the first read.
func dialTLS(t testing.TB, addr string, config *tls.Config) (*client, error) {
	t.Helper()
	tcp := dial(t, strings.TrimPrefix(addr, "tls:"))
	config.InsecureSkipVerify = true
	conn := tls.Client(tcp.Conn, config)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	c := *tcp
	c.Conn = conn
	c.r.Reset(conn)
	return &c, nil
}

// served tells whether a client with this configuration gets an answer. In TLS 1.3 a client learns only by its first read that it is refused.
func served(t testing.TB, addr string, config *tls.Config) (bool, error) {
	t.Helper()
	c, err := dialTLS(t, addr, config)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "version\r\n"); err != nil {
		return false, err
	}
	line, err := c.r.ReadString('\n')
	return line == version, err
}

// Everything else that the tests of plain connections claim holds over TLS too.
func TestClaimsHoldOverTLS(t *testing.T) {
	overTLS = true
	defer func() { overTLS = false }()
	for name, claim := range map[string]func(*testing.T){
		"transcripts":          TestAnswersAsMemcachedDoes,
		"pipeline":             TestAnswersAPipelineInOrder,
		"splits":               TestAnswersTheSameWhereverTheInputIsSplit,
		"swallow":              TestSwallowsABlockThatIsTooLargeBeforeItAnswers,
		"large values":         TestReturnsLargeValuesByteByByte,
		"partial writes":       TestSurvivesPartialWritesAnywhere,
		"slow reader":          TestASlowReaderKeepsItsValueAndCostsNobodyElse,
		"small replies":        TestKeepsSmallRepliesThatDoNotGoOut,
		"multiget":             TestKeepsItsPlaceInALongMultiget,
		"endless line":         TestClosesOnALineThatDoesNotEnd,
		"reset":                TestAResetAtAnyByteLeavesNothingBehind,
		"uploads":              TestReadsHugeUploadsStraightIntoTheItem,
		"flood":                TestAFloodingPipelineStarvesNobody,
		"yields":               TestCountsYieldsAsMemcachedDoes,
		"stop":                 TestAGracefulStopAnswersWhatWasRead,
		"immediate stop":       TestAStopIsImmediateWhenNothingIsPending,
		"stop without reader":  TestAStopDoesNotWaitForeverForAReader,
		"shutdown":             TestShutdownCommand,
		"many clients":         TestManyClientsAtOnce,
		"binary":               TestBinaryOpcodesAndStatuses,
		"binary bad packets":   TestBinaryBadPacketsEndTheConnection,
		"binary splits":        TestBinaryAnswersDoNotDependOnPackets,
		"binary pipeline":      TestBinaryLargeValuesArePipelined,
		"binary cut off":       TestBinaryUploadThatIsCutOffStoresNothing,
		"authentication":       TestOnlyAnAuthenticatingSetIsAnsweredBeforeAuthentication,
		"authentication stats": TestAuthenticationIsCountedAndShown,
		"sasl":                 TestSASLAdmitsNothingButItselfAndVersionBeforeIt,
		"idle":                 TestIdleConnectionsAreClosedAndBusyOnesKept,
		"slow dump":            TestASlowReaderOfADumpHoldsNobodyUp,
		"fault":                TestAFaultInTheMappingEndsTheProcess,
	} {
		if raceEnabled && strings.HasPrefix(name, "slow") {
			continue // megabytes through an instrumented crypto/tls
		}
		t.Run(name, claim)
	}
}

// trickle is the end of a client below TLS. While apart is set it writes byte by byte, and calls apart after each.
type trickle struct {
	net.Conn
	apart func()
}

func (c *trickle) Write(p []byte) (int, error) {
	if c.apart == nil {
		return c.Conn.Write(p)
	}
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		c.apart()
	}
	return len(p), nil
}

// crypto/tls keeps the part of a record that is there when a Read below it says that there is no more: tlsConn lives by that.
func TestTakesRecordsByteByByte(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		r := start(t, withTLS(t, server.TLSOptions{MinVersion: tls.VersionTLS10}), func(o *setup) { o.server.Threads = 1 })
		other := dial(t, r.addr)
		tcp := dial(t, strings.TrimPrefix(r.addr, "tls:"))
		below := &trickle{Conn: tcp.Conn}
		conn := tls.Client(below, &tls.Config{InsecureSkipVerify: true, MinVersion: v, MaxVersion: v})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		below.apart = func() { other.ask("verbosity 0\r\n", "OK\r\n") } // the one worker has seen the byte before it comes to this
		c := &client{tcp.t, conn, tcp.r}
		c.r.Reset(conn)
		c.ask("set a 5 0 300\r\n"+pattern(300, 1)+"\r\nget a\r\n", "STORED\r\nVALUE a 5 300\r\n"+pattern(300, 1)+"\r\nEND\r\n")
		c.send("flush_all\r\nget a\r\n")
		c.want("OK\r\nEND\r\n")
		below.apart = nil
		c.Close()
		if n := other.stat("ssl_proto_errors"); n != 0 {
			t.Errorf("%s: ssl_proto_errors %d, want 0", tls.VersionName(v), n)
		}
	}
}

func TestAsksForCertificatesAsTold(t *testing.T) {
	good, strange := certtest.New(t, "good"), certtest.New(t, "strange")
	t.Setenv("SSL_CERT_FILE", good.File) // the system's roots: nobody is to be asked for them
	hour := time.Now().Add(time.Hour)
	_, _, fine := good.Issue(t.TempDir(), "client", hour)
	_, _, expired := good.Issue(t.TempDir(), "client", time.Now().Add(-time.Minute))
	_, _, foreign := strange.Issue(t.TempDir(), "client", hour)
	clients := []struct {
		name string
		cert *tls.Certificate
	}{{"none", nil}, {"a good one", &fine}, {"an expired one", &expired}, {"another CA's", &foreign}}
	for _, mode := range []struct {
		mode    int
		noCA    bool
		entry   string // prefix of the listener
		bits    string // in stats settings
		served  []bool // by client
		refused int
	}{
		{mode: 0, bits: "0", served: []bool{true, true, true, true}},
		{mode: 1, bits: "1", served: []bool{true, true, false, false}, refused: 2},
		{mode: 2, bits: "3", served: []bool{false, true, false, false}, refused: 3},
		{mode: 3, bits: "7", served: []bool{false, true, false, false}, refused: 3},
		{mode: 2, noCA: true, bits: "3", served: []bool{false, false, false, false}, refused: 4},
		{mode: 1, noCA: true, bits: "1", served: []bool{true, false, false, false}, refused: 3},
		{mode: 2, entry: "btls:", bits: "3", served: []bool{true, true, true, true}},
		{mode: 0, entry: "mtls:", bits: "0", served: []bool{false, true, false, false}, refused: 3},
	} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("mode %d%s noCA=%t %s", mode.mode, mode.entry, mode.noCA, tls.VersionName(v)), func(t *testing.T) {
				o := server.TLSOptions{VerifyMode: mode.mode, CACert: good.File}
				if mode.noCA {
					o.CACert = ""
				}
				r := start(t, withTLS(t, o), func(o *setup) { o.server.Listen = []string{mode.entry + "127.0.0.1", "notls:127.0.0.1"} })
				plain := dial(t, r.srv.Addrs()[1].String())
				for i, who := range clients {
					config := &tls.Config{MaxVersion: v}
					if who.cert != nil { // given whatever the server says about acceptable authorities
						config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.cert, nil }
					}
					if ok, err := served(t, r.addr, config); ok != mode.served[i] {
						t.Errorf("with %s: served %t (%v), want %t", who.name, ok, err, mode.served[i])
					}
				}
				until(t, "each refusal to be counted", func() bool { return plain.stat("ssl_handshake_errors") == mode.refused })
				if bits := plain.stats(" settings")["ssl_verify_mode"]; bits != mode.bits {
					t.Errorf("ssl_verify_mode %s, want %s", bits, mode.bits)
				}
				until(t, "refused clients to be gone", func() bool { return plain.stat("curr_connections") == 1 })
			})
		}
	}
}

func TestSpeaksNoVersionBelowTheOldest(t *testing.T) {
	versions := []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}
	for _, oldest := range append(versions, 0) {
		r := start(t, withTLS(t, server.TLSOptions{MinVersion: oldest}))
		for _, v := range versions {
			want := v >= max(oldest, tls.VersionTLS12) || oldest != 0 && v >= oldest
			if ok, err := served(t, r.addr, &tls.Config{MinVersion: v, MaxVersion: v}); ok != want {
				t.Errorf("oldest %x, client %s: served %t (%v), want %t", oldest, tls.VersionName(v), ok, err, want)
			}
		}
	}
}

func TestOldCiphersAreSpokenWhenListed(t *testing.T) {
	rsaOnly := withTLS(t, server.TLSOptions{Ciphers: "AES128-SHA,ECDHE-ECDSA-AES256-SHA"})
	r := start(t, rsaOnly)
	for suite, want := range map[uint16]bool{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA: true, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: false} {
		if ok, err := served(t, r.addr, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}); ok != want {
			t.Errorf("%s: served %t (%v), want %t", tls.CipherSuiteName(suite), ok, err, want)
		}
	}
	if ok, err := served(t, r.addr, &tls.Config{}); !ok {
		t.Errorf("TLS 1.3, which no list changes: %v", err)
	}
}

// OpenSSL's own reading of a list, cut to what Go has, is ours.
func TestCipherListsMeanWhatTheyMeanToOpenSSL(t *testing.T) {
	for list, complaint := range map[string]string{
		"FOO": `there is no cipher "FOO"`, "HIGH:ECDHE-RSA-AES128-GCM-SHA265": `there is no cipher "ECDHE-RSA-AES128-GCM-SHA265"`,
		"HIGH:!aNUL": `there is no cipher "aNUL"`, ":": "no cipher is left", "DHE-RSA-AES128-GCM-SHA256": "no cipher is left", "HIGH:!ALL": "no cipher is left",
		"RC4-SHA": "no cipher is left", "!": `there is no cipher ""`,
	} {
		if names, err := server.ParseCiphers(list); err == nil || err.Error() != complaint {
			t.Errorf("%q: %v, %v, want %s", list, names, err, complaint)
		}
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl on this machine")
	}
	known := server.KnownCiphers()
	lists := []string{"ALL", "HIGH", "HIGH:!aNULL:!MD5", "ECDHE", "EECDH+AESGCM:EDH+AESGCM", "AESGCM", "CHACHA20", "AES128", "AES256+ECDHE", "RSA", "aRSA", "kRSA", "ECDSA",
		"ECDHE+AESGCM,ECDHE+CHACHA20 DHE+AESGCM:!DSS", "ALL:-AES:AES128+SHA", "ALL:!AES:AES128", "SHA", "SHA256", "TLSv1.2", "TLSv1:SSLv3", "HIGH:+RSA:@STRENGTH", "kEECDH:!SHA1",
		"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:" +
			"ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305",
		"ALL:@SECLEVEL=0", "AES:CAMELLIA:!EXPORT:!LOW:!RC4:!PSK:!SRP:!3DES:!eNULL", "TLS_AES_128_GCM_SHA256:AES128-SHA"}
	for _, list := range append(lists, known...) {
		out, err := exec.Command("openssl", "ciphers", list).Output()
		if err != nil {
			t.Errorf("openssl ciphers %s: %v", list, err)
			continue
		}
		var want []string
		theirs := strings.Split(strings.TrimSpace(string(out)), ":")
		for _, name := range known {
			if slices.Contains(theirs, name) {
				want = append(want, name)
			}
		}
		if names, err := server.ParseCiphers(list); err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %v (%v)\nwant %v", list, names, err, want)
		}
	}
	if names, err := server.ParseCiphers("DEFAULT"); err != nil || slices.Contains(names, "AES128-SHA") || !slices.Contains(names, "ECDHE-RSA-AES128-GCM-SHA256") {
		t.Errorf("DEFAULT: %v, %v; want Go's own", names, err)
	}
}

func TestPlainAndTLSDoNotMix(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) {
		o.server.Listen, o.server.UDPPort = []string{"127.0.0.1", "notls:127.0.0.1"}, -1
	})
	tlsAddr, plainAddr := strings.TrimPrefix(r.addr, "tls:"), r.srv.Addrs()[1].String()
	plain := dial(t, plainAddr)
	for _, text := range []string{"get a\r\nget a\r\n", "\x80" + strings.Repeat("\x00", 40), "GET / HTTP/1.0\r\n\r\n", strings.Repeat("x", 70000)} {
		c := dial(t, tlsAddr)
		io.WriteString(c, text) // may fail when the server has seen enough
		b, err := io.ReadAll(c)
		if bytes.Contains(b, []byte("END")) || bytes.Contains(b, []byte("ERROR")) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q to a TLS port: %q, %v; want the end of the connection", text, b, err)
		}
	}
	until(t, "four failed handshakes", func() bool { return plain.stat("ssl_handshake_errors") == 4 })
	hello := dial(t, plainAddr)
	if err := tls.Client(hello.Conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("a plain port shook hands")
	}
	u := dialUDP(t, r.srv.Addrs()[2].String())
	u.send(t, "version\r\n")
	b := make([]byte, 1500)
	if n, err := u.Read(b); err != nil || string(b[8:n]) != version {
		t.Errorf("by UDP: %q, %v", b[8:n], err)
	}
	dial(t, r.addr).ask("version\r\n", version)
}

func TestPrefixesOfTLSNeedTLS(t *testing.T) {
	cache, err := hearth.Open(hearth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	for _, prefix := range []string{"notls", "btls", "mtls"} {
		_, err := server.New(cache, server.Options{Listen: []string{prefix + ":127.0.0.1"}, Port: -1})
		if want := "'" + prefix + "' option is valid only when SSL is enabled\n"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", prefix, err, want)
		}
	}
}

func TestAUnixSocketIsPlain(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) { o.server.UnixSocket = filepath.Join(t.TempDir(), "s") })
	dial(t, r.addr).ask("version\r\n", version)
}

// A record that cannot be read ends its connection, and is counted; so do, uncounted, the ways to leave.
func TestEndsWithTheInput(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}))
	stable := dial(t, r.addr)
	errors := 0
	for _, end := range []struct {
		name   string
		how    func(c *client)
		counts bool
	}{
		{"close_notify", func(c *client) { c.Conn.(*tls.Conn).CloseWrite() }, false},
		{"FIN", func(c *client) { c.socket().CloseWrite() }, false},
		{"a request and close_notify at once", func(c *client) {
			c.send("version\r\n")
			c.Conn.(*tls.Conn).CloseWrite()
			c.want(version)
		}, false},
		{"part of a record and FIN", func(c *client) { c.socket().Write([]byte{23, 3, 3, 0, 100, 1, 2}); c.socket().CloseWrite() }, true},
		{"a record that is not ours", func(c *client) { c.socket().Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)) }, true},
		{"plain text", func(c *client) { io.WriteString(c.socket(), "version\r\nversion\r\n") }, true},
		{"an oversized record", func(c *client) { c.socket().Write([]byte{23, 3, 3, 255, 255}) }, true},
	} {
		c := dial(t, r.addr)
		c.ask("version\r\n", version)
		end.how(c)
		if _, err := c.r.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("%s: the connection goes on: %v", end.name, err)
		}
		if end.counts {
			errors++
		}
		until(t, end.name+" to end it", func() bool { return stable.stat("curr_connections") == 1 })
		if n := stable.stat("ssl_proto_errors"); n != errors {
			t.Errorf("%s: ssl_proto_errors %d, want %d", end.name, n, errors)
		}
	}
	c := dial(t, r.addr)
	c.ask("quit\r\n", "")
	if _, err := c.r.ReadByte(); err != io.EOF { // io.ErrUnexpectedEOF without close_notify
		t.Errorf("after quit: %v, want a farewell", err)
	}
}

func TestAThousandStalledHandshakesKeepNobodyWaiting(t *testing.T) {
	const stalled = 1000
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) {
		o.server.Listen, o.server.MaxConns = []string{"127.0.0.1", "notls:127.0.0.1"}, stalled+2
	})
	tlsAddr, plainAddr := strings.TrimPrefix(r.addr, "tls:"), r.srv.Addrs()[1].String()
	plain, early := dial(t, plainAddr), dial(t, r.addr)
	threads := threadCount(t)
	hello := clientHello(t)
	for i := range stalled {
		conn, err := net.Dial("tcp", tlsAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(hello[:i%len(hello)]) // stalls anywhere in its hello
		if i%100 == 0 {
			plain.ask("set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
		}
	}
	until(t, "all to be counted", func() bool { return plain.stat("curr_connections") == stalled+2 })
	early.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	if more := threadCount(t) - threads; more > 20 {
		t.Errorf("%d more threads, want a goroutine each and no thread", more)
	}
	dial(t, plainAddr).want("ERROR Too many open connections\r\n")
	if n := plain.stat("ssl_handshake_errors"); n != 0 {
		t.Errorf("ssl_handshake_errors %d while all wait, want 0", n)
	}
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second { // their deadline is 10 s
		t.Errorf("the stop took %v", took)
	}
}

func threadCount(t testing.TB) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// clientHello is the first flight of a handshake.
func clientHello(t testing.TB) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake()
	b := make([]byte, 1<<16)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestAHandshakeHasADeadline(t *testing.T) {
	t.Cleanup(server.SetHandshakeTimeout(50 * time.Millisecond)) // registered first, so called when the server has ended
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) { o.server.Listen = []string{"127.0.0.1", "notls:127.0.0.1"} })
	plain := dial(t, r.srv.Addrs()[1].String())
	dial(t, strings.TrimPrefix(r.addr, "tls:")).wantEOF()
	if n := plain.stat("ssl_handshake_errors"); n != 1 {
		t.Errorf("ssl_handshake_errors %d, want 1", n)
	}
	until(t, "its place to be free", func() bool { return plain.stat("curr_connections") == 1 })
}

func TestServesWhatCameWithTheHandshake(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}))
	for _, more := range []int{0, 3000} { // all of it read with the handshake, and more than that
		tcp := dial(t, strings.TrimPrefix(r.addr, "tls:"))
		below := &held{Conn: tcp.Conn}
		conn := tls.Client(below, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if err := conn.Handshake(); err != nil { // its last flight is held back
			t.Fatal(err)
		}
		io.WriteString(conn, "version\r\n")
		io.WriteString(conn, strings.Repeat("get a\r\n", more))
		if err := below.release(); err != nil {
			t.Fatal(err)
		}
		tcp.r.Reset(conn)
		tcp.want(version + strings.Repeat("END\r\n", more))
	}
}

// held keeps back what is written after the hello, to send it in one piece.
type held struct {
	net.Conn
	writes int
	kept   []byte
}

func (h *held) Write(p []byte) (int, error) {
	if h.writes++; h.writes == 1 {
		return h.Conn.Write(p)
	}
	h.kept = append(h.kept, p...)
	return len(p), nil
}

func (h *held) release() error {
	_, err := h.Conn.Write(h.kept)
	return err
}

func TestMovesLargeValuesBothWays(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) {
		o.cache = hearth.Options{HeapArena: raceEnabled, MemoryLimit: 256 << 20, MaxItemSize: 65 << 20}
	})
	c, plainSize := dial(t, r.addr), 64<<20
	if testing.Short() {
		plainSize = 8 << 20
	}
	for i, size := range []int{1 << 20, plainSize} {
		v := pattern(size, i)
		c.ask(fmt.Sprintf("set k%d 0 0 %d\r\n%s\r\n", i, size, v), "STORED\r\n")
		c.SetDeadline(time.Now().Add(maxWait))
		c.ask(fmt.Sprintf("get k%d\r\n", i), fmt.Sprintf("VALUE k%d 0 %d\r\n%s\r\nEND\r\n", i, size, v))
	}
	sent := c.stats("")["bytes_written"]
	if n, _ := strconv.Atoi(sent); n < 1<<20+plainSize || n > 1<<20+plainSize+5000 {
		t.Errorf("bytes_written %s, want those of the replies and not of the records", sent)
	}
}

func TestAClientThatNeverReadsCostsABoundedAmount(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}), func(o *setup) {
		o.cache = hearth.Options{HeapArena: raceEnabled, MemoryLimit: 64 << 20}
		o.server.Threads = 1
	})
	c := dial(t, r.addr)
	v := pattern(1000000, 1)
	c.ask("set big 0 0 1000000\r\n"+v+"\r\n", "STORED\r\n")
	const greedy = 50
	var before, after runtime.MemStats
	var clients []*client
	for range greedy {
		clients = append(clients, dial(t, r.addr))
	}
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, g := range clients {
		smallBuffers(t, g)
		g.send("%s", strings.Repeat("get big\r\n", 100))
	}
	until(t, "all to be blocked", func() bool { return strings.Count(fmt.Sprint(c.stats(" conns")), "conn_mwrite") == greedy })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapInuse) - int64(before.HeapInuse)) / greedy; each > 256<<10 {
		t.Errorf("%d bytes for each client, want far less than the values they asked for", each)
	}
	clients[0].want("VALUE big 0 1000000\r\n" + v + "\r\nEND\r\nVALUE big")
	c.ask("version\r\n", version)
}

// A reply that is encrypted but not out is as pending as one that is not encrypted. How much the sockets hold differs from one connection to the
// next, so several stop just before and behind that.
func TestCiphertextWaitsForTheSocket(t *testing.T) {
	if raceEnabled {
		t.Skip("encrypts megabytes, which takes minutes under the race detector")
	}
	r := start(t, withTLS(t, server.TLSOptions{}))
	const size = 15000 // a reply is encrypted at once
	reply := fmt.Sprintf("VALUE k 0 %d\r\n%s\r\nEND\r\n", size, pattern(size, 1))
	other := dial(t, r.addr)
	other.ask(fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", size, pattern(size, 1)), "STORED\r\n")
	served, full := 0, 0
	get := func(c *client) {
		served++
		c.send("get k\r\n")
		until(t, "the get to be served", func() bool { return other.stat("cmd_get") == served })
	}
	first := dial(t, r.addr)
	smallBuffers(t, first)
	for ; !strings.Contains(fmt.Sprint(other.stats(" conns")), "conn_mwrite"); full++ {
		get(first)
	}
	first.want(strings.Repeat(reply, full))
	for gets := full - 12; gets < full+4; gets++ {
		c := dial(t, r.addr)
		smallBuffers(t, c)
		for range gets {
			if strings.Contains(fmt.Sprint(other.stats(" conns")), "conn_mwrite") {
				c.send("get k\r\n") // it is not going to be served before the others are taken
				served++
			} else {
				get(c)
			}
		}
		c.want(strings.Repeat(reply, gets))
		c.Close()
	}
}

// commonName returns the name in the certificate that a new client is shown.
func commonName(t testing.TB, addr string) string {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	c.ask("version\r\n", version)
	return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestRefreshedCertificatesAreForNewConnections(t *testing.T) {
	ca, dir := certtest.New(t, "ca"), t.TempDir()
	hour := time.Now().Add(time.Hour)
	chain, key, _ := ca.Issue(dir, "first", hour)
	r := start(t, withTLS(t, server.TLSOptions{ChainCert: chain, Key: key, SessionCache: true}))
	old := dial(t, r.addr)
	old.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n")
	ca.Issue(dir, "second", hour)
	if name := commonName(t, r.addr); name != "first" {
		t.Errorf("before the refresh: %q", name)
	}
	old.ask("refresh_certs\r\n", "OK\r\n")
	if name := commonName(t, r.addr); name != "second" {
		t.Errorf("after it: %q", name)
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	old.ask("refresh_certs\r\n", "Error loading the key: "+key+" : no private key found\r\n")
	os.Remove(chain)
	old.ask("refresh_certs noreply\r\nget a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n")
	if name := commonName(t, r.addr); name != "second" {
		t.Errorf("after a failure: %q", name)
	}
	dial(t, startServer(t)).ask("refresh_certs\r\n", "Error TLS not enabled\r\n")
}

func TestRefreshUnderLoadDropsNobody(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}))
	c := dial(t, r.addr)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if ok, err := served(t, r.addr, &tls.Config{}); !ok {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		c.ask("refresh_certs\r\n", "OK\r\n")
	}
	cancel()
	wg.Wait()
}

func TestResumesSessionsOnlyWithTheSessionCache(t *testing.T) {
	for _, on := range []bool{false, true} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			r := start(t, withTLS(t, server.TLSOptions{SessionCache: on}))
			config := &tls.Config{MaxVersion: v, ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "x"}
			connect := func() *client {
				c, err := dialTLS(t, r.addr, config)
				if err != nil {
					t.Fatal(err)
				}
				c.ask("version\r\n", version)
				return c
			}
			first, second := connect(), connect()
			if first.Conn.(*tls.Conn).ConnectionState().DidResume || second.Conn.(*tls.Conn).ConnectionState().DidResume != on {
				t.Errorf("%s: the second connection's session is the first's: want %t", tls.VersionName(v), on)
			}
			if n, shown := second.stats("")["ssl_new_sessions"]; shown != on || on && n != "1" {
				t.Errorf("%s: ssl_new_sessions %q, want one if there is a cache (%t)", tls.VersionName(v), n, on)
			}
			second.ask("refresh_certs\r\n", "OK\r\n")
			if third := connect(); third.Conn.(*tls.Conn).ConnectionState().DidResume {
				t.Errorf("%s: a session was resumed under certificates that it was not agreed on with", tls.VersionName(v))
			}
		}
	}
}

func TestATicketOpensNoListenerThatAsksForMore(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{SessionCache: true, CACert: certtest.New(t, "ca").File}), func(o *setup) {
		o.server.Listen = []string{"127.0.0.1", "mtls:127.0.0.1"}
	})
	config := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), ServerName: "x"}
	if ok, err := served(t, r.addr, config); !ok {
		t.Fatal(err)
	}
	if ok, _ := served(t, r.srv.Addrs()[1].String(), config); ok {
		t.Error("a client without a certificate came in with a ticket from the other listener")
	}
}

func TestShowsItsSettingsAsMemcachedDoes(t *testing.T) {
	ca := certtest.New(t, "ca")
	chain, key, _ := ca.Issue(t.TempDir(), "server", time.Now().Add(time.Hour))
	full := server.TLSOptions{ChainCert: chain, Key: key, CACert: ca.File, VerifyMode: 1, Ciphers: "HIGH", MinVersion: tls.VersionTLS13, SessionCache: true,
		WriteBuffer: 32 << 10, KernelTLS: true}
	for i, o := range []server.TLSOptions{{ChainCert: chain, Key: key}, full} {
		r := start(t, withTLS(t, o))
		args := "ssl_chain_cert=" + chain + ",ssl_key=" + key
		if i == 1 {
			args += ",ssl_ca_cert=" + ca.File + ",ssl_verify_mode=1,ssl_ciphers=HIGH,ssl_min_version=3,ssl_session_cache,ssl_wbuf_size=32,ssl_kernel_tls"
		}
		oracle := startMemcached(t, "-Z", "-o", args)
		if oracle == "" {
			t.Skip("no memcached on this machine")
		}
		rows := func(addr, sub, word string) (list []string) {
			c := dial(t, addr)
			c.send("stats%s\r\n", sub)
			for l := c.line(); l != "END"; l = c.line() {
				if strings.Contains(l, word) {
					list = append(list, l)
				}
			}
			return list
		}
		if ours, theirs := rows(r.addr, " settings", "ssl"), rows(oracle, " settings", "ssl"); !slices.Equal(ours, theirs) {
			t.Errorf("stats settings: %q\nwant %q", ours, theirs)
		}
		names := func(list []string) (names []string) {
			for _, l := range list {
				if name := strings.Fields(l)[1]; name != "ssl_proto_errors" { // newer than the oracle
					names = append(names, name)
				}
			}
			return names
		}
		for _, word := range []string{"ssl_", "server_cert"} {
			if ours, theirs := names(rows(r.addr, "", word)), names(rows(oracle, "", word)); !slices.Equal(ours, theirs) {
				t.Errorf("stats: %q, want %q", ours, theirs)
			}
		}
	}
}

func TestStatsConnsHasTheAddressesOfTLSConnections(t *testing.T) {
	r := start(t, withTLS(t, server.TLSOptions{}))
	c := dial(t, r.addr)
	all := fmt.Sprint(c.stats(" conns"))
	for _, want := range []string{":addr:tcp:" + c.LocalAddr().String() + " ", ":listen_addr:tcp:" + c.RemoteAddr().String() + " ", ":state:conn_parse_cmd "} {
		if !strings.Contains(all, want) {
			t.Errorf("stats conns: %s has no %q", all, want)
		}
	}
}

func TestRefusesFilesThatMakeNoServer(t *testing.T) {
	ca, dir := certtest.New(t, "ca"), t.TempDir()
	chain, key, _ := ca.Issue(dir, "server", time.Now().Add(time.Hour))
	_, strange, _ := ca.Issue(t.TempDir(), "other", time.Now().Add(time.Hour))
	empty, missing := filepath.Join(dir, "empty"), filepath.Join(dir, "missing")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(read(t, key))
	der := filepath.Join(dir, "key.der")
	if err := os.WriteFile(der, block.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	encrypted := filepath.Join(dir, "encrypted.pem")
	certtest.WritePEM(t, encrypted, "ENCRYPTED PRIVATE KEY", block.Bytes)
	for _, bad := range []struct {
		o    server.TLSOptions
		want string
	}{
		{server.TLSOptions{}, "Error loading the certificate chain: (null) : No such file or directory"},
		{server.TLSOptions{ChainCert: missing, Key: key}, "Error loading the certificate chain: " + missing + " : No such file or directory"},
		{server.TLSOptions{ChainCert: empty, Key: key}, "Error loading the certificate chain: " + empty + " : no certificate found"},
		{server.TLSOptions{ChainCert: dir, Key: key}, "Error loading the certificate chain: " + dir + " : Is a directory"},
		{server.TLSOptions{ChainCert: chain}, "Error loading the key: (null) : No such file or directory"},
		{server.TLSOptions{ChainCert: chain, Key: missing}, "Error loading the key: " + missing + " : No such file or directory"},
		{server.TLSOptions{ChainCert: chain, Key: empty}, "Error loading the key: " + empty + " : no private key found"},
		{server.TLSOptions{ChainCert: chain, Key: encrypted}, "Error loading the key: " + encrypted + " : the key is encrypted, want a plain one"},
		{server.TLSOptions{ChainCert: chain, Key: strange}, "Error loading the key: " + strange + " : it is not the certificate's key"},
		{server.TLSOptions{ChainCert: chain, Key: der}, "Error loading the key: " + der + " : no private key found"},
		{server.TLSOptions{ChainCert: chain, Key: key, KeyFormat: 2}, "Error loading the key: " + key + " : no private key that can be read"},
		{server.TLSOptions{ChainCert: chain, Key: key, KeyFormat: 7}, "Error loading the key: " + key + " : bad ssl_keyformat, want 1 (PEM) or 2 (DER)"},
		{server.TLSOptions{ChainCert: chain, Key: key, CACert: missing}, "Error loading the CA certificate: " + missing + " : No such file or directory"},
		{server.TLSOptions{ChainCert: chain, Key: key, CACert: empty}, "Error loading the CA certificate: " + empty + " : no certificate found"},
		{server.TLSOptions{ChainCert: chain, Key: key, Ciphers: "FOO"}, `Error setting the provided cipher(s): FOO : there is no cipher "FOO"`},
		{server.TLSOptions{ChainCert: chain, Key: key, VerifyMode: 4}, "server: options: ssl_verify_mode 4: want 0 to 3"},
	} {
		if err := server.NewTLS(bad.o).Load(); err == nil || err.Error() != bad.want {
			t.Errorf("%+v:\n got %v\nwant %s", bad.o, err, bad.want)
		}
	}
	good := []server.TLSOptions{{ChainCert: chain, Key: key, KeyFormat: 1}, {ChainCert: chain, Key: der, KeyFormat: 2}}
	if _, err := exec.LookPath("openssl"); err == nil { // the shapes that its commands give keys, parameters in front among them
		for i, args := range [][]string{{"rsa:2048"}, {"ec", "-pkeyopt", "ec_paramgen_curve:P-384"}, {"ed25519"}} {
			name := filepath.Join(dir, "openssl"+strconv.Itoa(i))
			args = append([]string{"req", "-x509", "-nodes", "-subj", "/CN=x", "-keyout", name + ".key", "-out", name + ".pem", "-newkey"}, args...)
			if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
				t.Fatalf("openssl %v: %v\n%s", args, err, out)
			}
			good = append(good, server.TLSOptions{ChainCert: name + ".pem", Key: name + ".key"})
			if i < 2 {
				kind := []string{"rsa", "ec"}[i]
				out, err := exec.Command("openssl", kind, "-in", name+".key", "-out", name+".old", "-traditional").CombinedOutput()
				if kind == "ec" {
					out, err = exec.Command("sh", "-c", "openssl ecparam -name secp384r1 >"+name+".old && openssl ec -in "+name+".key >>"+name+".old").CombinedOutput()
				}
				if err != nil {
					t.Fatalf("openssl %s: %v\n%s", kind, err, out)
				}
				good = append(good, server.TLSOptions{ChainCert: name + ".pem", Key: name + ".old"})
			}
		}
	}
	for _, o := range good {
		if err := server.NewTLS(o).Load(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	cache, err := hearth.Open(hearth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	if _, err := server.New(cache, server.Options{Listen: []string{"127.0.0.1"}, Port: -1, TLS: server.NewTLS(server.TLSOptions{})}); err == nil {
		t.Error("a server without a loaded certificate was made")
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openssl is another implementation, and can ask for new keys in the middle of a connection.
func TestTalksToOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl on this machine")
	}
	r := start(t, withTLS(t, server.TLSOptions{}))
	for _, args := range [][]string{{"-tls1_3"}, {"-tls1_2"}} {
		cmd := exec.Command("openssl", append([]string{"s_client", "-connect", strings.TrimPrefix(r.addr, "tls:")}, args...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout // where it says that it has sent new keys
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(maxWait, func() { cmd.Process.Signal(syscall.SIGKILL) })
		replies := bufio.NewReader(out)
		skipTo := func(want string) {
			t.Helper()
			for {
				line, err := replies.ReadString('\n')
				if strings.Contains(line, want) {
					return
				}
				if err != nil {
					t.Fatalf("openssl %v: no %q: %v", args, want, err)
				}
			}
		}
		io.WriteString(in, "set o 0 0 3\r\nabc\r\n")
		skipTo("STORED")
		if args[0] == "-tls1_3" {
			io.WriteString(in, "K\n") // new keys for both sides
			skipTo("KEYUPDATE")
			io.WriteString(in, "k\n") // and for its own
			skipTo("KEYUPDATE")
		}
		io.WriteString(in, "get o\r\n")
		skipTo("VALUE o 0 3")
		skipTo("abc")
		io.WriteString(in, "quit\r\n")
		if err := cmd.Wait(); err != nil {
			t.Errorf("openssl %v: %v", args, err)
		}
		kill.Stop()
	}
	c := dial(t, r.addr)
	if n := c.stat("ssl_proto_errors"); n != 0 {
		t.Errorf("ssl_proto_errors %d, want 0", n)
	}
}
