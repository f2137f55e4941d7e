// Package clients_test runs real client libraries and programs through their whole surface against hearthd, each by a script in the client's own language,
// and the same script against memcached where that is installed: what fails on both is the script's mistake, what fails on hearthd only is a
// difference that clients see.
//
// A script finds its servers in the environment (see run). It prints "ok <claim>" or "FAILED <claim>: ..." for each check and "<n> checks" at the
// very end; without that line it has failed, whatever its exit code: a Node program whose promise is never kept ends with 0. A line "@stop"
// or "@start" asks for the main server to be stopped, or started again on its port and its file; the answer is a line on the script's standard input.
// hearthd is stopped by SIGKILL; memcached, which would lose everything, by SIGUSR1.
//
// A client that is not installed is skipped, by name; with HEARTH_CLIENTS=1 that is a failure.
package clients_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth/netproto/server/certtest"
)

// patience bounds every wait for an event: it is not a time that something is expected to take.
const patience = 20 * time.Second

// scriptLimit bounds a whole script.
const scriptLimit = 3 * time.Minute

// The account of the server that asks for one.
const (
	saslUser     = "alice"
	saslPassword = "secret"
)

// work is the directory of everything that is made here.
var work string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		parent := "" // memcached takes no memory file on some disks, and is slow on the others
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
			parent = "/dev/shm"
		}
		var err error
		if work, err = os.MkdirTemp(parent, "hearth-clients"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(work)
		return m.Run()
	}())
}

// python is the system's, for which Debian's modules are; another may come first in PATH.
const python = "/usr/bin/python3"

// clients are the scripts: the command, a command that succeeds where the client is installed, and how to install it.
var clients = []struct {
	name    string
	command []string
	probe   []string
	install string
}{
	{"npm-memcached", []string{"node", "memcached.js"}, []string{"npm", "--version"}, "nodejs and npm"},
	{"npm-memcache-client", []string{"node", "memcache-client.js"}, []string{"npm", "--version"}, "nodejs and npm"},
	{"npm-memjs", []string{"node", "memjs.js"}, []string{"npm", "--version"}, "nodejs and npm"},
	{"pymemcache", []string{python, "pymemcache_client.py"}, []string{python, "-c", "import pymemcache"}, "apt-get install python3-pymemcache"},
	{"pylibmc", []string{python, "pylibmc_client.py"}, []string{python, "-c", "import pylibmc"}, "apt-get install python3-pylibmc"},
	{"php-memcached", []string{"php", "memcached.php"}, []string{"php", "--ri", "memcached"}, "apt-get install php-cli php-memcached"},
	{"libmemcached", []string{"bash", "libmemcached.sh"}, []string{"memcstat", "--version"}, "apt-get install libmemcached-tools"},
}

func TestClientsAreServedAsByMemcached(t *testing.T) {
	for _, p := range programs(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range clients {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel() // they wait more than they work
					if out, err := exec.Command(c.probe[0], c.probe[1:]...).CombinedOutput(); err != nil {
						missing(t, "%s is not installed (%s): %v\n%s", c.name, c.install, err, out)
					}
					var env []string
					if c.probe[0] == "npm" {
						modules, err := npmModules()
						if err != nil {
							missing(t, "%v", err)
						}
						env = append(env, "NODE_PATH="+modules)
					}
					run(t, p, c.command, env)
				})
			}
		})
	}
}

// missing skips a test for want of something that HEARTH_CLIENTS=1 says must be there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("HEARTH_CLIENTS") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// npmModules installs the packages of package-lock.json, outside the repository, once.
var npmModules = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(work, "npm")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return "", err
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %v\n%s", err, out)
	}
	return filepath.Join(dir, "node_modules"), nil
})

var lastLine = regexp.MustCompile(`^[1-9]\d* checks$`)

// run runs a script against its own servers, of PROGRAM: MAIN keeps its memory in a file, knows shutdown, and is the one that may be restarted; SECOND and
// THIRD are for clients that spread their keys; UNIX is a socket, also under its name with :11211, which npm's memcached wants and libmemcached cannot have; UDP has the same port for both transports; SASL, where
// the program can have one, is binary and wants SASL_USER and SASL_PASSWORD; TLS speaks TLS with a certificate that is signed by that in the file TLS_CA, and
// MTLS wants a certificate of its clients besides, such as that in the file TLS_CERT with the key in TLS_KEY.
func run(t *testing.T, p program, command, env []string) {
	dir, err := os.MkdirTemp(work, "servers")
	if err != nil {
		t.Fatal(err)
	}
	mainArgs := []string{"-A", "-e", filepath.Join(dir, "memory")}
	main := p.startOnOnePort(t, dir, mainArgs...)
	socket := filepath.Join(dir, "socket")
	if err := os.Symlink(socket, socket+":11211"); err != nil {
		t.Fatal(err)
	}
	env = append(env, "PROGRAM="+p.name, "MAIN="+main.addr,
		"SECOND="+p.start(t, dir, "-p", "-1").addr,
		"THIRD="+p.start(t, dir, "-p", "-1").addr,
		"UNIX="+p.start(t, dir, "-s", socket).addr,
		"UDP="+p.startOnOnePort(t, dir, "-U").addr)
	if account := p.account(t, dir); account != nil {
		env = append(env, "SASL="+p.startWith(t, dir, account, "-S", "-p", "-1").addr, "SASL_USER="+saslUser, "SASL_PASSWORD="+saslPassword)
	}
	ca := certtest.New(t, "authority")
	hour := time.Now().Add(time.Hour)
	chain, key, _ := ca.Issue(t.TempDir(), "server", hour)
	cert, certKey, _ := ca.Issue(t.TempDir(), "client", hour)
	ssl := "ssl_chain_cert=" + chain + ",ssl_key=" + key
	env = append(env, "TLS_CA="+ca.File, "TLS_CERT="+cert, "TLS_KEY="+certKey,
		"TLS="+p.start(t, dir, "-p", "-1", "-Z", "-o", ssl).addr,
		"MTLS="+p.start(t, dir, "-p", "-1", "-Z", "-o", ssl+",ssl_verify_mode=2,ssl_ca_cert="+ca.File).addr)
	runScript(t, command, env, main, mainArgs)
}

// runScript runs a script. main, which was started on one port with those arguments, is what it may have stopped and started.
func runScript(t *testing.T, command, env []string, main *server, mainArgs []string) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1"), env...)
	cmd.WaitDelay = time.Second
	errs := new(strings.Builder)
	cmd.Stderr = errs
	answers, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	last := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		last = lines.Text()
		fmt.Fprintln(&text, last)
		switch {
		case last == "@stop":
			main.stop(t)
			fmt.Fprintln(answers, "ok")
		case last == "@start":
			main.ended(t) // the client may have stopped it itself
			main.program.awaitNextTick()
			_, port, _ := net.SplitHostPort(main.addr)
			main = main.program.start(t, t.TempDir(), append(mainArgs, "-p", port)...)
			fmt.Fprintln(answers, "ok")
		case strings.HasPrefix(last, "FAILED "):
			t.Error(last)
		}
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		t.Errorf("%q did not end within %v", command, scriptLimit)
	case err != nil || lines.Err() != nil || !lastLine.MatchString(last):
		t.Errorf("%q: %v, %v, last line %q, want the number of checks\nstderr: %s", command, err, lines.Err(), last, errs)
	}
	if t.Failed() {
		t.Logf("%s%s", text.String(), errs)
	} else {
		t.Log(last)
	}
}
