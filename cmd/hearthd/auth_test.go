package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// usersFile writes an auth file that everybody can read.
func usersFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func login(user, password string) string {
	token := user + " " + password
	return fmt.Sprintf("set auth 0 0 %d\n%s", len(token), token)
}

func TestAuthFileThatCannotBeUsedEndsTheStart(t *testing.T) {
	bad := usersFile(t, "alice:secret\nbob\n")
	gone := bad + ".gone"
	file := newFile(t)
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"-Y", bad}, 1, "Authfile [" + bad + "] has a malformed entry. Should be 'user:password'\n"},
		{[]string{"-Y", gone}, 1, "Could not open authfile [" + gone + "] for reading, error No such file or directory\n"},
		{[]string{"-Y", "/"}, 1, "Could not open authfile [/] for reading, error Is a directory\n"},
		{[]string{"-Y", ""}, 1, "Could not open authfile [] for reading, error No such file or directory\n"},
		{[]string{"-Y", bad, "-U", "11311"}, 64, "Cannot use UDP with ascii authentication enabled (-U 0 to disable)\n"},
		{[]string{"-Y", bad, "-B", "binary"}, 64, "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.\n"},
	} {
		p := launch(t, append(c.args, "-e", file)...)
		if code := p.wait(t); code != c.code || p.stderr.String() != c.stderr {
			t.Errorf("%q: exit %d, %q; want exit %d, %q", c.args, code, p.stderr, c.code, c.stderr)
		}
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the slab file was touched: %v", err)
	}
}

func TestHangupReloadsTheUsersAndKeepsThemWhenTheFileIsBad(t *testing.T) {
	users := usersFile(t, "alice:secret\n")
	p := startHearthd(t, "-Y", users)
	try := func(user, password, want string) {
		t.Helper()
		if got := talk(t, p.addr, login(user, password)); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", user, got, want)
		}
	}
	reload := func(text, logged string) {
		t.Helper()
		if err := os.WriteFile(users, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(p.stderr.String(), logged)
		p.cmd.Process.Signal(syscall.SIGHUP)
		for end := time.Now().Add(patience); strings.Count(p.stderr.String(), logged) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never logged: %s\n%s", logged, p.stderr)
			}
		}
	}
	const stored, failure = "STORED", "CLIENT_ERROR authentication failure"
	try("alice", "secret", stored)
	try("bob", "b2", failure)
	reload("bob:b2\n", "users reloaded")
	try("alice", "secret", failure)
	try("bob", "b2", stored)
	reload("alice\n", "the users stay as they were")
	try("bob", "b2", stored)
	try("alice", "", "CLIENT_ERROR bad authentication token format")
}

func TestPortFileNamesTheUDPPorts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ports")
	p := launchAs(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "MEMCACHED_PORT_FILENAME="+name) },
		"-u", me(), "-p", "-1", "-U", "-1", "-l", "127.0.0.1,[::1]")
	text, err := os.ReadFile(name)
	m := regexp.MustCompile(`^TCP INET: \d+\nTCP INET6: \d+\nUDP INET: (\d+)\nUDP INET6: \d+\n$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%v: %q\n%s", err, text, p.stderr)
	}
	c, err := net.Dial("udp", "127.0.0.1:"+string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("\x12\x34\x00\x00\x00\x01\x00\x00version\r\n"))
	buf := make([]byte, 100)
	if n, err := c.Read(buf); !strings.HasPrefix(string(buf[:n]), "\x12\x34\x00\x00\x00\x01\x00\x00VERSION ") {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestSASLTakesItsUsersFromTheEnvironment(t *testing.T) {
	users := usersFile(t, "alice:secret\n")
	with := func(value string) func(*exec.Cmd) {
		return func(c *exec.Cmd) { c.Env = append(os.Environ(), "MEMCACHED_SASL_PWDB="+value) }
	}
	p := launchAs(t, with(users), "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-S")
	if p.addr == "" {
		t.Fatalf("did not start\n%s", p.stderr)
	}
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte("\x80\x21\x00\x05\x00\x00\x00\x00\x00\x00\x00\x12" + strings.Repeat("\x00", 12) + "PLAIN\x00alice\x00secret"))
	const want = "Authenticated"
	reply := make([]byte, 24+len(want))
	if _, err := io.ReadFull(c, reply); err != nil || string(reply[24:]) != want {
		t.Errorf("%q, %v", reply, err)
	}
	p = launchAs(t, with(""), "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-S")
	if code := p.wait(t); code != 1 || !strings.HasPrefix(p.stderr.String(), "Error initializing sasl.\n") {
		t.Errorf("without a file: exit %d, %s", code, p.stderr)
	}
}
