package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hearth/cmd/hearthd/web"
)

func TestListensOnTheLoopbackUnlessToldAnAddress(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "127.0.0.1:8080", "8080": "127.0.0.1:8080", ":0": "127.0.0.1:0", "0.0.0.0:80": "0.0.0.0:80", "*:80": ":80", "[::1]:80": "[::1]:80",
		"[::]:1": "[::]:1", "localhost:65535": "localhost:65535", "cache1.example:9150": "cache1.example:9150",
		"": "", "x": "", "127.0.0.1": "", ":65536": "", ":http": "", "1.2.3.4:": "", "::1:80": "", "http://x:80": "", "-1": "", "a b:1": "",
	} {
		got, err := (&web.Options{Listen: listen}).Address()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", listen, got, err, want)
		}
		if err != nil && err.Error() != "http_listen="+listen+": want [ADDRESS]:PORT" {
			t.Errorf("%q: %v", listen, err)
		}
	}
	if site, err := web.Listen(web.Options{}, nil); site != nil || err != nil {
		t.Errorf("without an address: %v, %v", site, err)
	}
}

func TestAnAddressInUseIsOneClearLine(t *testing.T) {
	r := serveFixed(t, fixed{})
	_, err := web.Listen(web.Options{Listen: r.http}, fixed{})
	if want := "failed to listen on HTTP address " + r.http + ": "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v, want %s...", err, want)
	}
}

// A page of somewhere else can have its name point to this address, but its name stays in the Host header.
func TestAnswersToItsOwnNamesOnly(t *testing.T) {
	try := func(r *rig, want int, hosts ...string) {
		t.Helper()
		for _, host := range hosts {
			for _, path := range []string{"/", "/metrics", "/stats.json", "/healthz", "/readyz", "/nothing", "/debug/pprof/"} {
				code, body, _ := r.get(path, func(req *http.Request) { req.Host = host })
				if (code == http.StatusMisdirectedRequest) != (want == http.StatusMisdirectedRequest) {
					t.Errorf("Host %q: %s: %d %s", host, path, code, body)
				}
			}
		}
	}
	r := serveFixed(t, fixed{"": {{"uptime", "1"}}})
	try(r, 200, "127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:80", "10.1.2.3:9150")
	try(r, http.StatusMisdirectedRequest, "evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "127.1", "0x7f000001", "cache1")
	r = serveFixed(t, fixed{}, web.Options{Listen: ":0", Hosts: []string{"Cache1", "cache2.example"}})
	try(r, 200, "cache1:80", "cache2.example")
	try(r, http.StatusMisdirectedRequest, "cache3")
	r = serveFixed(t, fixed{}, web.Options{Listen: ":0", Hosts: []string{"*"}})
	try(r, 200, "anything")
}

func TestTakesGetAndHeadOnly(t *testing.T) {
	r := serveFixed(t, fixed{})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "BREW"} {
		code, _, h := r.get("/healthz", func(req *http.Request) { req.Method = method })
		if code != http.StatusMethodNotAllowed || h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow: %q", method, code, h.Get("Allow"))
		}
	}
	if code, body, _ := r.get("/healthz", func(req *http.Request) { req.Method = "HEAD" }); code != 200 || body != "" {
		t.Errorf("HEAD: %d %q", code, body)
	}
}

func TestScriptsOfOtherSitesGetNothing(t *testing.T) {
	r := serveFixed(t, fixed{})
	for site, want := range map[[2]string]int{{"cross-site", "cors"}: 403, {"cross-site", "no-cors"}: 403, {"cross-site", "navigate"}: 200, {"same-origin", "cors"}: 200, {"none", "navigate"}: 200} {
		code, _, h := r.get("/", func(req *http.Request) {
			req.Header.Set("Sec-Fetch-Site", site[0])
			req.Header.Set("Sec-Fetch-Mode", site[1])
		})
		if code != want || h.Get("Access-Control-Allow-Origin") != "" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none';") {
			t.Errorf("%v: %d, %v", site, code, h)
		}
	}
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	paths := []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap?debug=1", "/debug/pprof/symbol", "/debug/pprof/trace?seconds=0.01", "/debug/pprof/profile?seconds=1"}
	r := serveFixed(t, fixed{})
	for _, path := range paths {
		if code, _, _ := r.get(path); code != 404 {
			t.Errorf("%s: %d without http_pprof", path, code)
		}
	}
	r = serveFixed(t, fixed{}, web.Options{Listen: ":0", Profiles: true})
	for _, path := range paths {
		if code, body, _ := r.get(path); code != 200 {
			t.Errorf("%s: %d with http_pprof: %s", path, code, body)
		}
	}
}

func TestTooManyRequestsAreTurnedAway(t *testing.T) {
	r := serveFixed(t, fixed{})
	kept := &http.Client{Timeout: patience}
	defer kept.CloseIdleConnections()
	refused := false
	for i := 0; i < 100000 && !refused; i++ { // however slow the machine is, a client that never pauses is at last ahead of the limit
		resp, err := kept.Get("http://" + r.http + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		refused = resp.StatusCode == http.StatusTooManyRequests
	}
	if !refused {
		t.Error("all requests were answered")
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	r := serveFixed(t, fixed{})
	c, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() {
		fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
		for i := 0; i < 1000; i++ { // 100 KB; the server hangs up in the middle
			if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 100)); err != nil {
				return
			}
		}
		fmt.Fprintf(c, "\r\n")
	}()
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("%q, %v, want 431", line, err)
	}
}

// Those who hold all connections keep others waiting, and memory stays what it is; with one of them gone the next has its turn.
func TestConnectionsAreFew(t *testing.T) {
	r := serveFixed(t, fixed{})
	var held []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("tcp", r.http)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	ask := func(c net.Conn) { fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") }
	answered := func(c net.Conn) error { _, err := http.ReadResponse(bufio.NewReader(c), nil); return err }
	for range web.MaxConns {
		c := dial()
		ask(c)
		if err := answered(c); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	late := dial()
	ask(late)
	done := make(chan error, 1)
	go func() { done <- answered(late) }()
	select {
	case err := <-done:
		t.Fatalf("a connection above the limit was answered: %v", err)
	case <-time.After(100 * time.Millisecond): // nothing tells that something does not happen
	}
	held[0].Close()
	if err := <-done; err != nil {
		t.Errorf("with a place free: %v", err)
	}
}

// slow is a source whose reader is held up.
type slow struct {
	entered, leave chan struct{}
	over           *atomic.Bool
	t              *testing.T
}

func (s slow) Rows(string, func(name, value string)) bool {
	if s.over.Load() {
		s.t.Error("the source was read after Close had returned")
	}
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.leave
	if s.over.Load() {
		s.t.Error("the source was being read when Close returned")
	}
	return true
}

func TestCloseWaitsForReadersAndLetsNoneIn(t *testing.T) {
	src := slow{make(chan struct{}, 1), make(chan struct{}), new(atomic.Bool), t}
	site, err := web.Listen(web.Options{Listen: ":0"}, src)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { site.Serve(); close(served) }()
	asked := make(chan struct{})
	go func() {
		if resp, err := client.Get("http://" + site.Addr().String() + "/readyz"); err == nil {
			resp.Body.Close()
		}
		close(asked)
	}()
	<-src.entered
	closed := make(chan struct{})
	go func() { site.Close(); src.over.Store(true); close(closed) }()
	<-served // Close has begun: what it waits for now is the reader
	select {
	case <-closed:
		t.Error("Close returned while the source was being read")
	case <-time.After(50 * time.Millisecond): // nothing tells that something does not happen
	}
	close(src.leave)
	<-closed
	<-asked
}
