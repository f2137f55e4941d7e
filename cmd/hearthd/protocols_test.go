package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const binaryNoop = "\x80\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// speaks tells which protocols a server answers in, by a request in each on a connection of its own: "text", "binary", both, or neither.
func speaks(t *testing.T, addr string) string {
	t.Helper()
	var all []string
	for _, p := range []struct{ name, request, reply string }{
		{"text", "get aaaaaaaaaaaaaaaaaaaaaaaa\r\n", "E"}, // long enough for a header, so that a binary connection closes
		{"binary", binaryNoop, "\x81"},                    // its opcode ends a line of text, which is too short
	} {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte(p.request))
		first := make([]byte, 1)
		n, err := c.Read(first)
		if os.IsTimeout(err) {
			t.Fatalf("%s: no answer to %q", addr, p.request)
		}
		if string(first[:n]) == p.reply {
			all = append(all, p.name)
		}
		c.Close()
	}
	return strings.Join(all, "+")
}

// startMemcached starts memcached on a free port and returns its address, or "" and what it said when it does not serve.
func startMemcached(t *testing.T, memcached string, args ...string) (addr, said string) {
	t.Helper()
	ports := filepath.Join(t.TempDir(), "ports")
	cmd := exec.Command(memcached, append([]string{"-u", me(), "-p", "-1"}, args...)...)
	cmd.Env = append(os.Environ(), "MEMCACHED_PORT_FILENAME="+ports)
	out := new(output)
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // no event tells of the file
		if text, err := os.ReadFile(ports); err == nil {
			return "127.0.0.1:" + regexp.MustCompile(`TCP INET: (\d+)`).FindStringSubmatch(string(text))[1], ""
		}
		select {
		case <-done:
			return "", out.String()
		default:
		}
	}
	t.Fatalf("memcached %q neither served nor ended\n%s", args, out)
	return "", ""
}

func TestProtocolOfAListenerIsAsInMemcached(t *testing.T) {
	memcached, _ := exec.LookPath("memcached")
	if memcached != "" && !isRecorded(memcached) {
		memcached = ""
	}
	for name, want := range map[string]string{
		"ascii": "text", "asc": "text", "a": "text", "": "text",
		"binary": "binary", "bin": "binary", "b": "binary",
		"negotiating": "text+binary", "n": "text+binary",
		// Unknown: what -B says.
		"asciix": "binary", "BINARY": "binary", "what": "binary", "auto": "binary",
		"proxy": "Server not built with proxy: \"proto[proxy\"", "p": "Server not built with proxy: \"proto[p\"",
	} {
		args := []string{"-B", "binary", "-l", "proto[" + name + "]:127.0.0.1"}
		result := func(addr, said string) string {
			if addr != "" {
				return speaks(t, addr)
			}
			for line := range strings.Lines(said) {
				if !strings.HasPrefix(line, "time=") { // the log
					return strings.TrimSpace(line)
				}
			}
			return "silence"
		}
		p := launchAs(t, nil, append([]string{"-u", me(), "-p", "-1"}, args...)...)
		if p.addr == "" {
			p.wait(t)
		}
		if got := result(p.addr, p.stderr.String()); got != want {
			t.Errorf("hearthd, proto[%s]: %s, want %s", name, got, want)
		}
		if memcached != "" {
			if got := result(startMemcached(t, memcached, args...)); got != want {
				t.Errorf("memcached, proto[%s]: %s, want %s", name, got, want)
			}
		}
	}
}

// Debian's memcached is too old to know that a listener and authentication can contradict each other.
func TestListenersWithAuthenticationDoNotNegotiate(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("u:p\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	environ := func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "MEMCACHED_SASL_PWDB="+users) }
	for _, c := range []struct {
		protocol, auth string
		refused        string
	}{
		{"negotiating", "-Y" + users, ""},
		{"negotiating", "-S", ""},
		{"binary", "-Y" + users, "cannot use the binary protocol with ascii authentication"},
		{"ascii", "-S", "cannot use the ascii protocol with SASL authentication"},
	} {
		p := launchAs(t, environ, "-u", me(), "-p", "-1", "-l", "proto["+c.protocol+"]:127.0.0.1", c.auth)
		if c.refused != "" {
			if code := p.wait(t); code != exOSErr || !strings.Contains(p.stderr.String(), c.refused) {
				t.Errorf("%s with %.2s: exit %d\n%s", c.protocol, c.auth, code, p.stderr)
			}
			continue
		}
		if !strings.Contains(p.stderr.String(), "level=WARN") || !strings.Contains(p.stderr.String(), "does not negotiate") {
			t.Errorf("%s with %.2s: no warning\n%s", c.protocol, c.auth, p.stderr)
		}
		spoken := strings.Contains(speaks(t, p.addr), "binary")
		if spoken != (c.auth == "-S") {
			t.Errorf("%s with %.2s: it speaks binary: %v", c.protocol, c.auth, spoken)
		}
	}
}
