package clients_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is what the clients are run against.
type program struct {
	name, path string
	hardest    syscall.Signal // the hardest end that its memory file survives
	oracle     bool           // memcached itself
}

var buildHearthd = sync.OnceValues(func() (string, error) {
	path := filepath.Join(work, "hearthd")
	if out, err := exec.Command("go", "build", "-o", path, "hearth/cmd/hearthd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %v\n%s", err, out)
	}
	return path, nil
})

// programs are hearthd, built here, and memcached where it is installed.
func programs(t *testing.T) []program {
	t.Helper()
	hearthd, err := buildHearthd()
	if err != nil {
		t.Fatal(err)
	}
	ps := []program{{name: "hearthd", path: hearthd, hardest: syscall.SIGKILL}}
	if path, err := exec.LookPath("memcached"); err == nil {
		ps = append(ps, program{name: "memcached", path: path, hardest: syscall.SIGUSR1, oracle: true})
	} else {
		t.Run("memcached", func(t *testing.T) {
			missing(t, "memcached is not installed (apt-get install memcached): nothing to hold the scripts against")
		})
	}
	return ps
}

// server is a running one.
type server struct {
	program program
	addr    string // host:port, or the socket's path
	cmd     *exec.Cmd
	output  *strings.Builder // complete when done is closed
	done    chan struct{}
}

// start starts a server on the loopback and returns when it accepts connections. It is killed at the end of the test.
func (p program) start(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	return p.startWith(t, dir, nil, args...)
}

func (p program) startWith(t *testing.T, dir string, env []string, args ...string) *server {
	t.Helper()
	s, err := p.launch(t, dir, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var portLine = regexp.MustCompile(`TCP INET: (\d+)\n`)

// launch is startWith for a server that may not come to serving.
func (p program) launch(t *testing.T, dir string, env []string, args ...string) (*server, error) {
	ports := filepath.Join(dir, "ports")
	os.Remove(ports)
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &server{program: p, output: new(strings.Builder), done: make(chan struct{})}
	s.cmd = exec.Command(p.path, append([]string{"-u", me.Username, "-l", "127.0.0.1", "-t", "2", "-m", "64"}, args...)...)
	s.cmd.Env = append(append(os.Environ(), "MEMCACHED_PORT_FILENAME="+ports), env...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.done
	})
	network := "tcp"
	if args[0] == "-s" {
		network, s.addr = "unix", args[1]
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(ports); err == nil && network == "tcp" {
			if m := portLine.FindSubmatch(text); m != nil {
				s.addr = "127.0.0.1:" + string(m[1])
			}
		}
		if c, err := net.Dial(network, s.addr); err == nil && s.addr != "" {
			c.Close()
			return s, nil
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("%s %q ended: %v\n%s", p.name, args, s.cmd.ProcessState, s.output)
		default:
		}
	}
	return nil, fmt.Errorf("%s %q does not serve", p.name, args)
}

// startOnOnePort starts a server on a port that outgoing connections are not given, so that it is still free at a restart. A last argument -U asks for
// the same number for UDP, which is all that clients can be told; no program picks such a number by itself.
func (p program) startOnOnePort(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	var failures error
	for range 20 {
		port := strconv.Itoa(10000 + rand.IntN(20000))
		with := append([]string{"-p", port}, args...)
		if with[len(with)-1] == "-U" {
			with = append(with, port)
		}
		s, err := p.launch(t, dir, nil, with...)
		if err == nil {
			return s
		}
		failures = errors.Join(failures, err)
	}
	t.Fatal(failures)
	return nil
}

// stop ends the server in the hardest way that its file survives.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.cmd.Process.Signal(s.program.hardest)
	s.ended(t)
}

// ended waits for the end.
func (s *server) ended(t *testing.T) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatalf("%s (pid %d) has not ended within %v", s.program.name, s.cmd.Process.Pid, patience)
	}
}

// awaitNextTick lets memcached's clock go on: it refuses its file when it starts in the second in which it stopped.
func (p program) awaitNextTick() {
	if p.oracle {
		time.Sleep(1100 * time.Millisecond)
	}
}

// account makes the one account of a server with SASL and returns the environment that names it, or nil where that cannot be done. Hearth reads
// lines user:password, memcached a database of Cyrus.
func (p program) account(t *testing.T, dir string) []string {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if !p.oracle {
		return []string{"MEMCACHED_SASL_PWDB=" + write("users", saslUser+":"+saslPassword+"\n")}
	}
	tool, err := exec.LookPath("saslpasswd2")
	if err != nil {
		tool = "/usr/sbin/saslpasswd2" // not in everybody's PATH
		if _, err := os.Stat(tool); err != nil {
			const lacking = "memcached without SASL: saslpasswd2 is not installed (apt-get install sasl2-bin)"
			if os.Getenv("HEARTH_CLIENTS") == "1" {
				t.Fatal(lacking)
			}
			t.Log(lacking)
			return nil
		}
	}
	db := filepath.Join(dir, "sasldb")
	cmd := exec.Command(tool, "-c", "-p", "-a", "memcached", "-f", db, saslUser)
	cmd.Stdin = strings.NewReader(saslPassword)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, out)
	}
	write("memcached.conf", "mech_list: plain\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: "+db+"\n")
	return []string{"SASL_CONF_PATH=" + dir}
}
