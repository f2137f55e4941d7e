package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

var siteLine = regexp.MustCompile(`msg=started .*http=([^ \n]*)`)

// page is what the server's HTTP side answers.
func (p *proc) page(t testing.TB, path string) (int, string) {
	t.Helper()
	m := siteLine.FindStringSubmatch(p.stderr.String())
	if m == nil {
		t.Fatalf("the start does not tell the HTTP address\n%s", p.stderr)
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + m[1] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestSite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "slab")
	p := startHearthd(t, "-e", file, "-o", "http_listen=:0")
	store(t, p.addr, "k", "value")
	if _, body := p.page(t, "/metrics"); !strings.Contains(body, "\nmemcached_current_items 1\n") || !strings.Contains(body, "\nhearth_restart_info{kind=\"cold\",") {
		t.Errorf("/metrics:\n%s", body)
	}
	if m := siteLine.FindStringSubmatch(p.stderr.String()); !strings.HasPrefix(m[1], "127.0.0.1:") {
		t.Errorf("it listens on %s, want the loopback only", m[1])
	}
	if code, _ := p.page(t, "/debug/pprof/"); code != 404 {
		t.Errorf("profiles: %d without http_pprof", code)
	}
	p.stop(t, syscall.SIGKILL)
	p = startHearthd(t, "-e", file, "-o", "http_listen=localhost:0,http_pprof")
	if _, body := p.page(t, "/metrics"); !strings.Contains(body, "\nhearth_restart_info{kind=\"unclean\",") || !strings.Contains(body, "\nmemcached_current_items 1\n") {
		t.Errorf("/metrics after a kill:\n%s", body)
	}
	if code, body := p.page(t, "/readyz"); code != 200 || !strings.HasPrefix(body, "ready") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, _ := p.page(t, "/debug/pprof/"); code != 200 {
		t.Errorf("profiles: %d with http_pprof", code)
	}
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
}

func TestWithoutHTTPListenThereIsNoHTTP(t *testing.T) {
	p := startHearthd(t)
	if strings.Contains(p.stderr.String(), "http=") {
		t.Errorf("%s", p.stderr)
	}
	refusal{"-o http_pprof", exUsage, "hearthd: -o http_pprof and http_host: mean nothing without http_listen\n"}.check(t, nil)
	refusal{"-o http_host=cache1", exUsage, "hearthd: -o http_pprof and http_host: mean nothing without http_listen\n"}.check(t, nil)
}

// A start that fails for the HTTP address has opened the file already: it must be as warm as it was.
func TestHTTPAddressInUseLeavesTheFileClean(t *testing.T) {
	file := filepath.Join(t.TempDir(), "slab")
	p := startHearthd(t, "-e", file)
	store(t, p.addr, "k", "value")
	p.stop(t, syscall.SIGTERM)
	other := startHearthd(t, "-o", "http_listen=:0")
	addr := siteLine.FindStringSubmatch(other.stderr.String())[1]
	p = launch(t, "-e", file, "-o", "http_listen="+addr)
	if code := p.wait(t); code != exOSErr || !strings.Contains(p.stderr.String(), "failed to listen on HTTP address "+addr+": ") {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
	if p = startHearthd(t, "-e", file); stat(t, p.addr, "restart_kind") != "clean" || !holds(t, p.addr, "k", "value") {
		t.Errorf("restart_kind %s", stat(t, p.addr, "restart_kind"))
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
