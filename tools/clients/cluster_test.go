package clients_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// speaker is a program that is told by lines and tells by lines.
type speaker struct {
	t     *testing.T
	name  string
	in    io.Writer
	lines chan string
	said  []string // the lines that were waited through
	proc  *os.Process
	ended chan struct{}
}

// speak starts a program. It is killed at the end of the test, if it has not ended by then.
func speak(t *testing.T, cmd *exec.Cmd) *speaker {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &speaker{t: t, name: filepath.Base(cmd.Path), in: in, lines: make(chan string, 1<<16), proc: cmd.Process, ended: make(chan struct{})}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.lines <- lines.Text()
		}
		close(s.lines)
		cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.proc.Kill()
		for range s.lines {
		}
		<-s.ended
		if t.Failed() {
			text, _ := os.ReadFile(errs.Name())
			t.Logf("%s: %s", s.name, text)
		}
	})
	return s
}

// await waits for a line of that shape and returns its groups.
func (s *speaker) await(shape string) []string {
	s.t.Helper()
	re := regexp.MustCompile("^" + shape + "$")
	for limit := time.After(3 * patience); ; {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s ended before it said %q; last: %q", s.name, shape, s.said[max(0, len(s.said)-5):])
			}
			s.said = append(s.said, line)
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-limit:
			s.t.Fatalf("%s has not said %q; last: %q", s.name, shape, s.said[max(0, len(s.said)-5):])
		}
	}
}

// end has the program stop, and takes in what it still says.
func (s *speaker) end() {
	s.t.Helper()
	s.proc.Signal(os.Interrupt)
	limit := time.After(3 * patience)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				<-s.ended
				return
			}
			s.said = append(s.said, line)
		case <-limit:
			s.t.Fatalf("%s does not end", s.name)
		}
	}
}

// fronts are what spreads keys over four servers: a client library, or a proxy before them. Each runs the load of tools/cluster and says its lines.
var fronts = []struct {
	name string
	load func(t *testing.T, cluster string, addrs []string) *exec.Cmd
	most int // failures when one server is killed; 0: each has the right to fail that goes to it
}{
	// A connection fails once, and there are eight at most, one an asker.
	{"gomemcache", func(t *testing.T, cluster string, addrs []string) *exec.Cmd {
		return exec.Command(cluster, "load", "--servers", strings.Join(addrs, ","))
	}, 8},
	// The client holds back requests for a server that failed, for a while.
	{"npm-memcached", func(t *testing.T, _ string, addrs []string) *exec.Cmd {
		if _, err := exec.LookPath("npm"); err != nil {
			missing(t, "nodejs and npm are not installed")
		}
		modules, err := npmModules()
		if err != nil {
			missing(t, "%v", err)
		}
		cmd := exec.Command("node", append([]string{"../cluster/load.js"}, addrs...)...)
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
		return cmd
	}, 0},
	// The proxy has one connection to each server, on which there are as many requests as askers, at most.
	{"twemproxy", func(t *testing.T, cluster string, addrs []string) *exec.Cmd {
		nutcracker, err := exec.LookPath("nutcracker")
		if err != nil {
			nutcracker = "/usr/sbin/nutcracker" // not in everybody's PATH
			if _, err := os.Stat(nutcracker); err != nil {
				missing(t, "nutcracker is not installed (apt-get install nutcracker)")
			}
		}
		front := filepath.Join(t.TempDir(), "front") // a unix socket, for which no port must be free
		text, err := os.ReadFile("../cluster/nutcracker.yml")
		if err != nil {
			t.Fatal(err)
		}
		config := strings.Replace(string(text), "127.0.0.1:22121", front, 1)
		for i, addr := range addrs {
			config = strings.Replace(config, fmt.Sprintf("127.0.0.1:1121%d:1 server-%d", i+1, i+1), fmt.Sprintf("%s:1 server-%d", addr, i+1), 1)
		}
		if strings.Contains(config, ":1121") {
			t.Fatalf("nutcracker.yml is not for the four servers:\n%s", config)
		}
		path := filepath.Join(t.TempDir(), "nutcracker.yml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		startProxy(t, nutcracker, path, front)
		return exec.Command(cluster, "load", "--servers", front)
	}, 8},
}

// startProxy starts nutcracker and returns when it listens on front. It insists on a port for its statistics, which somebody else may have.
func startProxy(t *testing.T, nutcracker, config, front string) {
	t.Helper()
	var log string
	for range 20 {
		text := new(strings.Builder)
		proxy := exec.Command(nutcracker, "-c", config, "-a", "127.0.0.1", "-s", strconv.Itoa(10000+rand.IntN(20000)), "-m", "512")
		proxy.Stdout, proxy.Stderr = text, text
		if err := proxy.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { proxy.Wait(); close(ended) }()
		t.Cleanup(func() {
			proxy.Process.Kill()
			<-ended
		})
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(front); err == nil {
				return
			}
			select {
			case <-ended:
				log, deadline = text.String(), time.Time{}
			default:
			}
		}
	}
	t.Fatalf("nutcracker does not listen; it said %s", log)
}

// Four servers that know nothing of each other, and three ways to spread keys over them. One is killed in the middle of the load and started again.
func TestOneOfFourServersRestartsAndNoKeyIsMissed(t *testing.T) {
	hearthd, err := buildHearthd()
	if err != nil {
		t.Fatal(err)
	}
	cluster := filepath.Join(work, "cluster")
	if out, err := exec.Command("go", "build", "-o", cluster, "hearth/tools/cluster").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, front := range fronts {
		t.Run(front.name, func(t *testing.T) {
			t.Parallel()
			const servers, keys, victim = 4, 10_000, 2
			dir, err := os.MkdirTemp(work, "cluster") // short, for it has sockets
			if err != nil {
				t.Fatal(err)
			}
			four := speak(t, exec.Command(cluster, "serve", "--port", "0", "--dir", dir, "--hearthd", hearthd))
			addrs := make([]string, servers)
			for range servers {
				m := four.await(`server (\d) pid \d+ serving ([^,]+), cold: .*`)
				n, _ := strconv.Atoi(m[1])
				addrs[n-1] = m[2]
			}
			load := speak(t, front.load(t, cluster, addrs))
			load.await(fmt.Sprintf("stored %d keys", keys))

			// Who has which key is asked of the servers themselves.
			owner, share := map[string]int{}, make([]int, servers)
			for i, addr := range addrs {
				c := memcache.New(addr)
				c.Timeout = patience
				defer c.Close()
				for from := 0; from < keys; from += 100 {
					names := make([]string, 100)
					for k := range names {
						names[k] = fmt.Sprintf("key-%d", from+k)
					}
					items, err := c.GetMulti(names)
					if err != nil {
						t.Fatal(err)
					}
					for name := range items {
						if o, twice := owner[name]; twice {
							t.Errorf("%s is on server %d and on %d", name, o, i+1)
						}
						owner[name] = i + 1
						share[i]++
					}
				}
			}
			if len(owner) != keys {
				t.Fatalf("%d keys are on the servers, want %d", len(owner), keys)
			}
			for i, n := range share {
				if n < keys/servers/3 {
					t.Errorf("server %d has %d keys of %d: shares %v", i+1, n, keys, share)
				}
			}

			load.await(`round \d+: 0 failed, 0 missed, 0 wrong`)
			fmt.Fprintf(four.in, "kill %d\n", victim)
			four.await(fmt.Sprintf("server %d ended: signal: killed", victim))
			fmt.Fprintf(four.in, "start %d\n", victim)
			m := four.await(fmt.Sprintf(`server %d pid \d+ serving [^,]+, (\w+).*`, victim))
			if m[1] != "warm" {
				t.Errorf("the killed server is back %s", m[0])
			}
			// One round may have begun before it was back.
			load.await(`round \d+: .*`)
			load.await(`round \d+: .*`)
			load.await(`round \d+: 0 failed, 0 missed, 0 wrong`)
			load.end()

			failed, rounds := 0, 0
			for _, line := range load.said {
				words := strings.Fields(line)
				switch words[0] {
				case "round":
					rounds++
				case "failed":
					failed++
					if name := strings.TrimSuffix(words[1], ":"); owner[name] != victim {
						t.Errorf("%s, which is on server %d; server %d was killed", line, owner[name], victim)
					}
				case "stored":
				default:
					t.Error(line)
				}
			}
			if front.most > 0 && failed > front.most {
				t.Errorf("%d requests failed, want those that were under way: %d at most", failed, front.most)
			}
			four.end()
			t.Logf("shares %v; %d rounds of %d requests; %d failed", share, rounds, keys, failed)
		})
	}
}

// mcrouter and a memcached with the proxy built in are not in Debian, so what is written for them is only read: by a JSON parser, and by Lua with functions
// of those names.
func TestOtherFrontsNameTheFourServers(t *testing.T) {
	want := "127.0.0.1:11211 127.0.0.1:11212 127.0.0.1:11213 127.0.0.1:11214"
	text, err := os.ReadFile("../cluster/mcrouter.json")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Pools map[string]struct {
			Servers  []string
			Protocol string
		}
		Route string
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&config); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(config.Pools[strings.TrimPrefix(config.Route, "PoolRoute|")].Servers, " "); got != want {
		t.Errorf("mcrouter.json routes to %q, want %q", got, want)
	}
	lua, err := exec.LookPath("lua5.4")
	if err != nil {
		missing(t, "lua5.4 is not installed (apt-get install lua5.4)")
	}
	out, err := exec.Command(lua, "-e", `
		function pools(p) all = p end
		function route_direct(r) return all[r.child] end
		function routes(r) print(table.concat(r.default.backends, " ")) end
		dofile("../cluster/proxy.lua")`).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != want {
		t.Errorf("proxy.lua: %v, routes to %q, want %q", err, got, want)
	}
}
