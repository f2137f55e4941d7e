package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
)

// binary is the program under test, built once with the tags of this test.
var binary string

func TestMain(m *testing.M) {
	if addr := os.Getenv(idleClients); addr != "" {
		os.Exit(beIdle(addr))
	}
	if numbers := os.Getenv(filteredEnv); numbers != "" {
		os.Exit(beFiltered(numbers))
	}
	os.Exit(func() int {
		// The server is linked into this test as well, though it runs as a program of its own: otherwise `go test` would take the test for
		// unchanged when the server changes, and show cached results.
		if len(os.Args) == 0 { // never, but the linker does not know
			main()
		}
		dir, err := os.MkdirTemp("", "hearthd-test")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755) // other users run it too, and start at "/" as daemons
		binary = filepath.Join(dir, "hearthd")
		var tags []string
		if fault.Enabled {
			tags = append(tags, "faults")
		}
		if invariants.Enabled {
			tags = append(tags, "invariants")
		}
		if portable {
			tags = append(tags, "portable")
		}
		if out, err := exec.Command("go", "build", "-tags", strings.Join(tags, ","), "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// patience bounds every wait for an event: it is not a time that something is expected to take. A long run may be suspended for minutes, while something else is
// measured.
var patience = func() time.Duration {
	if long {
		return 10 * time.Minute
	}
	return 20 * time.Second
}()

// proc is a running hearthd.
type proc struct {
	addr   string // of its first listener, host:port or a path
	cmd    *exec.Cmd
	stderr *output
	done   chan struct{} // closed when it has ended and err is set
	err    error         // of cmd.Wait
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

var startedLine = regexp.MustCompile(`(?:msg=started addr="?|"msg":"started","addr":")([^ ,"]*)`)

// startHearthd starts hearthd on a free port of the loopback and returns when it serves. Arguments come after the defaults, so they win; with a
// -s the address is the socket's. It is killed at the end of the test if it still runs.
func startHearthd(t testing.TB, args ...string) *proc {
	t.Helper()
	p := launch(t, args...)
	if p.addr == "" {
		<-p.done
		t.Fatalf("hearthd %q did not start: %v\n%s", args, p.err, p.stderr)
	}
	return p
}

// launch is startHearthd for a process that may not come to serving: then addr is empty, and it has ended or is about to.
func launch(t testing.TB, args ...string) *proc {
	t.Helper()
	return launchAs(t, nil, append([]string{"-u", me(), "-p", "-1", "-l", "127.0.0.1"}, args...)...)
}

// launchAs starts hearthd with exactly these arguments; change may alter the command before.
func launchAs(t testing.TB, change func(*exec.Cmd), args ...string) *proc {
	t.Helper()
	p := &proc{cmd: exec.Command(binary, args...), stderr: new(output), done: make(chan struct{})}
	if change != nil {
		change(p.cmd)
	}
	r, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	started := make(chan string, 1)
	go func() {
		lines := bufio.NewReader(io.TeeReader(r, p.stderr))
		for {
			line, err := lines.ReadString('\n')
			if m := startedLine.FindStringSubmatch(line); m != nil {
				started <- m[1]
			}
			if err != nil {
				break
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case p.addr = <-started:
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("hearthd %q neither served nor ended within %v\n%s", args, patience, p.stderr)
	}
	return p
}

// stop sends the signal and waits for the end; it returns the exit code, or minus the signal that ended it.
func (p *proc) stop(t testing.TB, sig syscall.Signal) int {
	t.Helper()
	p.cmd.Process.Signal(sig)
	return p.wait(t)
}

// wait waits for the end; it returns the exit code, or minus the signal that ended it.
func (p *proc) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("hearthd (pid %d) did not end within %v\n%s", p.cmd.Process.Pid, patience, p.stderr)
	}
	if ee := (*exec.ExitError)(nil); errors.As(p.err, &ee) {
		if ws := ee.Sys().(syscall.WaitStatus); ws.Signaled() {
			return -int(ws.Signal())
		}
		return ee.ExitCode()
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return 0
}

// me is the user that the tests run as.
func me() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "root"
}

// linuxOnly skips a test of what the portable path does not have.
func linuxOnly(t testing.TB) {
	t.Helper()
	if portable {
		t.Skip("only Linux has that")
	}
}
