package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hearth/netproto/server/certtest"
)

// certificate makes a certificate for a server, with its key, and returns their files in dir.
func certificate(t testing.TB, dir, name string) (chain, key string) {
	t.Helper()
	chain, key, _ = certtest.New(t, "authority").Issue(dir, name, time.Now().Add(time.Hour))
	return chain, key
}

func dialTLS(t testing.TB, addr string) *tls.Conn {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// memcached's line may have a stack of OpenSSL's before it, and has OpenSSL's reason behind its last colon.
func TestRefusesCertificatesAsMemcachedDoes(t *testing.T) {
	dir := t.TempDir()
	chain, key := certificate(t, dir, "server")
	_, strange := certificate(t, t.TempDir(), "other")
	ending := func(program string, args ...string) string {
		cmd := exec.Command(program, append([]string{"-u", me(), "-l", "127.0.0.1", "-p", "0", "-Z"}, args...)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Run()
		line := ""
		for l := range strings.Lines(errs.String()) {
			if strings.HasPrefix(strings.ToLower(l), "error ") || strings.HasPrefix(l, "ERROR: ") {
				line = strings.TrimSpace(l)
			}
		}
		if head, _, ok := strings.Cut(line, " : "); ok {
			line = head
		}
		return fmt.Sprintf("%d %s", cmd.ProcessState.ExitCode(), line)
	}
	memcached, _ := exec.LookPath("memcached")
	good := "ssl_chain_cert=" + chain + ",ssl_key=" + key
	for _, c := range []struct{ o, want string }{
		{"ssl_session_cache", "64 Error loading the certificate chain: (null)"},
		{"ssl_chain_cert=" + dir + "/none,ssl_key=" + key, "64 Error loading the certificate chain: " + dir + "/none"},
		{"ssl_chain_cert=" + key + ",ssl_key=" + key, "64 Error loading the certificate chain: " + key},
		{"ssl_chain_cert=" + chain, "64 Error loading the key: (null)"},
		{"ssl_chain_cert=" + chain + ",ssl_key=" + strange, "64 Error loading the key: " + strange},
		{good + ",ssl_keyformat=2", "64 Error loading the key: " + key},
		{good + ",ssl_keyformat=0", "64 Error loading the key: " + key},
		{good + ",ssl_ca_cert=" + key, "64 Error loading the CA certificate: " + key},
		{good + ",ssl_ciphers=FOO", "64 Error setting the provided cipher(s): FOO"},
		{good + ",ssl_ciphers=FOO,ssl_ca_cert=" + dir + "/none", "64 Error loading the CA certificate: " + dir + "/none"},
	} {
		for _, program := range []string{binary, memcached} {
			if program == "" {
				continue
			}
			if got := ending(program, "-p", "-1", "-o", c.o); got != c.want {
				t.Errorf("%s -o %s\n got %s\nwant %s", program, c.o, got, c.want)
			}
		}
	}
	if got := ending(binary, "-p", "-1", "-o", good+",ssl_ciphers="); got != "64 Error setting the provided cipher(s):" {
		t.Errorf("an empty list of ciphers: %q", got)
	}
	if got, want := ending(binary, "-o", good), "64 ERROR: You cannot enable SSL without a TCP port."; got != want {
		t.Errorf("-p 0: %s, want %s", got, want)
	}
}

// Over TLS memcached itself crashes at the stop that is to keep its cache.
func TestTheCacheOfATLSServerSurvivesEachWayToStop(t *testing.T) {
	chain, key := certificate(t, t.TempDir(), "server")
	file := filepath.Join(t.TempDir(), "slab")
	args := []string{"-e", file, "-Z", "-o", "ssl_chain_cert=" + chain + ",ssl_key=" + key}
	p := startHearthd(t, args...)
	for round, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGKILL, syscall.SIGINT} {
		c := dialTLS(t, p.addr)
		r := bufio.NewReader(c)
		for i := range 1000 {
			fmt.Fprintf(c, "set k%d-%d 0 0 %d\r\n%0*d\r\n", round, i, 10+i*20, 10+i*20, i)
			if line, err := r.ReadString('\n'); line != "STORED\r\n" {
				t.Fatalf("set: %q, %v", line, err)
			}
		}
		stalled, err := net.Dial("tcp", p.addr) // a handshake that goes nowhere
		if err != nil {
			t.Fatal(err)
		}
		defer stalled.Close()
		began := time.Now()
		if code := p.stop(t, sig); code != 0 && sig != syscall.SIGKILL {
			t.Errorf("%v: exit %d\n%s", sig, code, p.stderr)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%v: the stop took %v", sig, took)
		}
		if _, err := r.ReadByte(); err != io.EOF && sig != syscall.SIGKILL { // with SIGKILL there is no farewell
			t.Errorf("%v: the client saw %v, want a farewell", sig, err)
		}
		p = startHearthd(t, args...)
		c = dialTLS(t, p.addr)
		r = bufio.NewReader(c)
		for done := range round + 1 {
			for i := range 1000 {
				fmt.Fprintf(c, "get k%d-%d\r\n", done, i)
				want := fmt.Sprintf("VALUE k%d-%d 0 %d\r\n%0*d\r\nEND\r\n", done, i, 10+i*20, 10+i*20, i)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
					t.Fatalf("after %v: %.100q, %v, want %.100q\n%s", sig, got, err, want, p.stderr)
				}
			}
		}
	}
}

func TestHangupReloadsCertificates(t *testing.T) {
	dir := t.TempDir()
	chain, key := certificate(t, dir, "first")
	p := startHearthd(t, "-Z", "-o", "ssl_chain_cert="+chain+",ssl_key="+key)
	old := dialTLS(t, p.addr)
	shown := func() string { return dialTLS(t, p.addr).ConnectionState().PeerCertificates[0].Subject.CommonName }
	hangUp := func(logged string) {
		t.Helper()
		p.cmd.Process.Signal(syscall.SIGHUP)
		for end := time.Now().Add(patience); !strings.Contains(p.stderr.String(), logged); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never logged: %s\n%s", logged, p.stderr)
			}
		}
	}
	certificate(t, dir, "second")
	if name := shown(); name != "first" {
		t.Errorf("before SIGHUP: %s", name)
	}
	hangUp("certificates reloaded")
	if name := shown(); name != "second" {
		t.Errorf("after SIGHUP: %s", name)
	}
	os.Remove(key)
	hangUp("the certificates stay as they were")
	if name := shown(); name != "second" {
		t.Errorf("after a bad SIGHUP: %s", name)
	}
	io.WriteString(old, "version\r\n")
	if b, err := bufio.NewReader(old).ReadString('\n'); !strings.HasPrefix(b, "VERSION ") {
		t.Errorf("the old connection: %q, %v", b, err)
	}
}

// Keys are often root's alone, and the server is to run as somebody else.
func TestReadsTheKeyAsTheUserWhoStartsIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give up being root")
	}
	chain, key := certificate(t, t.TempDir(), "server")
	p := startHearthd(t, "-u", "nobody", "-Z", "-o", "ssl_chain_cert="+chain+",ssl_key="+key)
	dialTLS(t, p.addr)
	p.cmd.Process.Signal(syscall.SIGHUP)
	for end := time.Now().Add(patience); !strings.Contains(p.stderr.String(), "the certificates stay as they were"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody can read root's key again\n%s", p.stderr)
		}
	}
	dialTLS(t, p.addr)
}
