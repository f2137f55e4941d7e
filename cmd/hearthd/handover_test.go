package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lineage is a server and those it hands over to, one after the other.
type lineage struct {
	t       testing.TB
	addr    string
	program string // a link to the program under test, to be replaced
	pid     int    // of the one that serves

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed and replaced at each line
	next  int           // of lines, the first one that await did not look at
}

// startLineage starts the first of them and returns when it serves.
func startLineage(t testing.TB, program string, env []string, args ...string) *lineage {
	t.Helper()
	linuxOnly(t)
	// So that who outlives its parent becomes our child, and its pid nobody else's before we have waited for it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	l := &lineage{t: t, program: filepath.Join(t.TempDir(), "hearthd"), more: make(chan struct{})}
	l.install(program)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(l.program, append([]string{"-u", me(), "-p", "-1", "-l", "127.0.0.1"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = w // the file itself: nobody waits for its end but us
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	l.pid = cmd.Process.Pid
	read := make(chan struct{})
	go func() {
		defer close(read)
		for in := bufio.NewScanner(r); in.Scan(); {
			l.mu.Lock()
			l.lines = append(l.lines, in.Text())
			close(l.more)
			l.more = make(chan struct{})
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		// Whoever is left of them: all have the pipe.
		for ended := false; !ended; {
			for _, pid := range l.pids() {
				unix.Kill(pid, unix.SIGKILL)
				unix.Wait4(pid, nil, 0, nil)
			}
			select {
			case <-read:
				ended = true
			case <-time.After(10 * time.Millisecond):
			}
		}
		r.Close()
		if t.Failed() {
			t.Logf("stderr:\n%s", strings.Join(l.lines, "\n"))
		}
	})
	l.addr = l.await(`msg=started addr="?([^ ,"]*)`)
	return l
}

// install puts a program where the running one came from.
func (l *lineage) install(program string) {
	l.t.Helper()
	if err := os.Symlink(program, l.program+".new"); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(l.program+".new", l.program); err != nil {
		l.t.Fatal(err)
	}
}

// pids are our children that run the program.
func (l *lineage) pids() (pids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for word := range strings.FieldsSeq(string(text)) {
			cmdline, _ := os.ReadFile("/proc/" + word + "/cmdline")
			if pid, err := strconv.Atoi(word); err == nil && strings.Contains(string(cmdline), filepath.Dir(l.program)) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// await returns the group of the next line that matches, and passes over those before it.
func (l *lineage) await(pattern string) string {
	l.t.Helper()
	re, end := regexp.MustCompile(pattern), time.After(patience)
	for {
		l.mu.Lock()
		for l.next < len(l.lines) {
			line := l.lines[l.next]
			l.next++
			if m := re.FindStringSubmatch(line); m != nil {
				l.mu.Unlock()
				return m[len(m)-1]
			}
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-end:
			l.t.Fatalf("no line like %s", pattern)
		}
	}
}

// handOver has the one that serves hand over, and returns when it has ended.
func (l *lineage) handOver() {
	l.t.Helper()
	unix.Kill(l.pid, unix.SIGUSR2)
	next := l.await(`msg="handed over" pid=(\d+)`)
	if code := l.wait(l.pid); code != 0 {
		l.t.Fatalf("the old process ends with %d, want 0", code)
	}
	l.pid, _ = strconv.Atoi(next)
}

// wait waits for a child's end and returns its exit code, or minus the signal that ended it.
func (l *lineage) wait(pid int) int {
	l.t.Helper()
	done := make(chan unix.WaitStatus, 1)
	go func() {
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
				break
			}
		}
		done <- ws
	}()
	select {
	case ws := <-done:
		if ws.Signaled() {
			return -int(ws.Signal())
		}
		return ws.ExitStatus()
	case <-time.After(patience):
		l.t.Fatalf("process %d did not end within %v", pid, patience)
	}
	return 0
}

// traffic is what clients see of a hand-over. Some stay connected, some connect anew for each request; each stores numbers under a key of its own, and reads back
// what was stored last.
type traffic struct {
	addr                       string
	ops                        atomic.Int64
	refused, broken            atomic.Int64 // attempts to connect, and connections
	longest                    atomic.Int64 // of a request, in nanoseconds
	stop                       atomic.Bool
	clients                    sync.WaitGroup
	mu                         sync.Mutex
	wrong                      []error
	stayConnected, connectAnew int
}

func (tr *traffic) start() {
	for i := range tr.stayConnected + tr.connectAnew {
		tr.clients.Go(func() { tr.client(i, i >= tr.stayConnected) })
	}
}

func (tr *traffic) end() {
	tr.stop.Store(true)
	tr.clients.Wait()
}

func (tr *traffic) complain(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.wrong = append(tr.wrong, err)
}

func (tr *traffic) client(i int, anew bool) {
	var c *wire
	acked, sent := 0, 0
	for !tr.stop.Load() {
		began := time.Now()
		if c == nil {
			var err error
			if c, err = dialWire(tr.addr); err != nil {
				if errors.Is(err, syscall.ECONNREFUSED) {
					tr.refused.Add(1)
				}
				tr.complain(fmt.Errorf("client %d: %w", i, err))
				return
			}
			c.SetDeadline(time.Now().Add(patience))
		}
		sent++
		_, err := fmt.Fprintf(c, "set client-%d 0 0 10\r\n%010d\r\nget client-%d\r\n", i, sent, i)
		var stored, value, data, end string
		for _, line := range []*string{&stored, &value, &data, &end} {
			if err == nil {
				*line, err = c.r.ReadString('\n')
			}
		}
		if stored != "" {
			acked = sent
		}
		switch got, _ := strconv.Atoi(strings.TrimSpace(data)); {
		case err != nil:
			tr.broken.Add(1)
			c.Close()
			c = nil
			continue
		case stored != "STORED\r\n" || end != "END\r\n" || got != acked:
			tr.complain(fmt.Errorf("client %d: %q, %q %q %q, want number %d", i, stored, value, data, end, acked))
			return
		}
		for took, old := int64(time.Since(began)), tr.longest.Load(); took > old && !tr.longest.CompareAndSwap(old, took); old = tr.longest.Load() {
		}
		tr.ops.Add(1)
		if anew {
			c.Close()
			c = nil
		} else {
			c.SetDeadline(time.Now().Add(patience))
		}
	}
	if c != nil {
		c.Close()
	}
}

// fillWith stores n items.
func fillWith(t testing.TB, addr string, n int) {
	t.Helper()
	c := newWire(t, addr)
	defer c.Close()
	out := bufio.NewWriter(c)
	for i := range n {
		fmt.Fprintf(out, "set fill-%d 0 0 10 noreply\r\n%010d\r\n", i, i)
	}
	io.WriteString(out, "mn\r\n")
	out.Flush()
	if reply, err := c.r.ReadString('\n'); reply != "MN\r\n" {
		t.Fatalf("%q, %v", reply, err)
	}
}

// allThere reads them back.
func allThere(t testing.TB, addr string, n int) {
	t.Helper()
	c := newWire(t, addr)
	defer c.Close()
	go func() {
		out := bufio.NewWriter(c)
		for i := range n {
			fmt.Fprintf(out, "mg fill-%d v\r\n", i)
		}
		out.Flush()
	}()
	for i := range n {
		head, err := c.r.ReadString('\n')
		data := ""
		if head == "VA 10\r\n" {
			data, err = c.r.ReadString('\n')
		}
		if data != fmt.Sprintf("%010d\r\n", i) {
			t.Fatalf("fill-%d: %q %q, %v", i, head, data, err)
		}
	}
}

// handOvers is how many hand-overs there are under load.
func handOvers() int {
	if os.Getenv("HEARTH_LONG") != "" {
		return 100
	}
	return 5
}

func TestClientsSeeNothingOfAHandOverButAPause(t *testing.T) {
	const items = 20000
	l := startLineage(t, binary, nil, "-e", newFile(t), "-m", "256")
	fillWith(t, l.addr, items)
	tr := &traffic{addr: l.addr, stayConnected: 4, connectAnew: 2}
	tr.start()
	for range handOvers() {
		before := tr.ops.Load()
		l.handOver()
		// The next one comes when the clients have got somewhere.
		for end := time.Now().Add(patience); tr.ops.Load() < before+200 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
	}
	tr.end()
	allThere(t, l.addr, items)
	t.Logf("%d hand-overs, %d requests: %d refused, %d broken connections, longest stall %v", handOvers(), tr.ops.Load(), tr.refused.Load(), tr.broken.Load(),
		time.Duration(tr.longest.Load()))
	if tr.refused.Load() > 0 || tr.broken.Load() > 0 || len(tr.wrong) > 0 {
		t.Errorf("%d refused, %d broken, %v", tr.refused.Load(), tr.broken.Load(), tr.wrong)
	}
	if kind := stat(t, l.addr, "restart_kind"); kind != "clean" {
		t.Errorf("restart_kind %q, want clean", kind)
	}
}

// faulty is the program with fault points, built when the first test asks for it.
var faulty = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "hearthd-faults")
	out, err := exec.Command("go", "build", "-tags", "faults,invariants", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, err
})

func faultyProgram(t testing.TB) string {
	t.Helper()
	path, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// script makes a program of shell lines, in which $REAL is the program under test.
func script(t testing.TB, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nREAL="+binary+"\n"+lines+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The old server goes on when the new one does not come up, comes up with what it cannot serve, or fails when it is its turn; and nobody notices.
func TestTheOldServerGoesOnWhenTheNewOneFails(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	faulty := faultyProgram(t)
	for _, c := range []struct {
		name, program string
		env           []string
		says          string
		again         bool // it had stopped serving
	}{
		{name: "there is no program", program: "/nonexistent/hearthd", says: "no such file or directory"},
		{name: "no program but a text", program: text, says: "exec format error"},
		{name: "ends at once", program: script(t, "exit 3"), says: `ended before it was .*ready.*: exit status 3`},
		{name: "is killed", program: script(t, "kill -9 $$"), says: `ended before it was .*ready.*: signal: killed`},
		{name: "says something else", program: script(t, `printf hello >&3; exec sleep 100`), says: `says .*hello.*want .*ready`},
		{name: "says nothing", program: script(t, "exec sleep 100"), env: []string{"HEARTHD_PATIENCE=300ms,1m"}, says: `was not .*ready.* within 300ms`},
		{name: "does not know a flag", program: script(t, `exec $REAL "$@" --no-such-flag`), says: `ended before it was .*ready.*: exit status 1`},
		{name: "cannot use the file", program: script(t, `exec $REAL "$@" -m 4000`), says: `ended before it was .*ready.*: exit status 71`},
		{name: "wants another file", program: script(t, `exec $REAL "$@" -e `+newFile(t)), says: `ended before it was .*ready.*: exit status 71`},
		{name: "fails before it is ready", env: []string{"HEARTHD_EXIT=hearthd.handover.new.checked"}, says: `ended before it was .*ready.*: exit status 99`},
		{name: "fails with the file in its hands", env: []string{"HEARTHD_EXIT=hearthd.handover.new.yours"}, says: `ended before it was .*taken.*: exit status 99`, again: true},
		{name: "fails with the cache open", env: []string{"HEARTHD_EXIT=hearthd.handover.new.opened"}, says: `ended before it was .*taken.*: exit status 99`, again: true},
		{name: "fails about to serve", env: []string{"HEARTHD_EXIT=hearthd.handover.new.listening"}, says: `ended before it was .*taken.*: exit status 99`, again: true},
		{name: "stands still with the cache open", env: []string{"HEARTHD_STALL=hearthd.handover.new.opened", "HEARTHD_PATIENCE=1m,1s"},
			says: `was not .*taken.* within 1s`, again: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const items = 1000
			l := startLineage(t, faulty, c.env, "-e", newFile(t), "-m", "256")
			fillWith(t, l.addr, items)
			if c.program != "" {
				l.install(c.program)
			}
			tr := &traffic{addr: l.addr, stayConnected: 2, connectAnew: 1}
			tr.start()
			for range 2 { // and it may try again
				unix.Kill(l.pid, unix.SIGUSR2)
				l.await(`level=ERROR msg="SIGUSR2: no hand-over, go.*(` + c.says + `)`)
				if c.again {
					l.await(`msg="serves again"`)
				}
				if pids := l.pids(); len(pids) != 1 || pids[0] != l.pid {
					t.Errorf("processes %v are left, want only %d", pids, l.pid)
				}
			}
			before := tr.ops.Load()
			for end := time.Now().Add(patience); tr.ops.Load() < before+100 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			tr.end()
			allThere(t, l.addr, items)
			if tr.ops.Load() < before+100 || tr.refused.Load() > 0 || tr.broken.Load() > 0 || len(tr.wrong) > 0 {
				t.Errorf("%d requests after it, %d refused, %d broken, %v", tr.ops.Load()-before, tr.refused.Load(), tr.broken.Load(), tr.wrong)
			}
		})
	}
}

// Whichever of the two is killed, and wherever it is, the other serves what was stored, and no third process gets the file.
func TestAKillOfEitherSideAtAnyStepLeavesOneThatServes(t *testing.T) {
	program := faultyProgram(t)
	for _, point := range []string{"old.started", "old.ready", "old.stopped", "old.closed", "old.yours",
		"new.started", "new.checked", "new.ready", "new.yours", "new.opened", "new.listening"} {
		t.Run(point, func(t *testing.T) {
			const items = 1000
			file := newFile(t)
			l := startLineage(t, program, []string{"HEARTHD_STALL=hearthd.handover." + point}, "-e", file, "-m", "256")
			fillWith(t, l.addr, items)
			asked := l.next
			unix.Kill(l.pid, unix.SIGUSR2)
			victim, _ := strconv.Atoi(l.await(`stalled at \S+, pid (\d+)`))
			l.next = asked // the other one may have gone on, and written its line, before this one wrote that it stands still
			third := func(when string) {
				if p := launch(t, "-e", file, "-m", "256"); p.wait(t) != exOSErr || !strings.Contains(p.stderr.String(), "in use by another process, pid ") {
					t.Errorf("%s a third process gets the file:\n%s", when, p.stderr)
				}
			}
			third("before the kill")
			unix.Kill(victim, unix.SIGKILL)
			l.wait(victim)
			if victim == l.pid {
				l.await(`the server before this one ended|msg=started`)
			} else {
				l.await(`msg="SIGUSR2: no hand-over`)
			}
			third("after the kill")
			allThere(t, l.addr, items) // who connects meanwhile waits
			if pids := l.pids(); len(pids) != 1 {
				t.Errorf("processes %v are left, want one", pids)
			}
			third("in the end")
		})
	}

	// From "taken" on the new one is a server like any other: the next start finds the file.
	t.Run("new.taken", func(t *testing.T) {
		file := newFile(t)
		l := startLineage(t, program, []string{"HEARTHD_STALL=hearthd.handover.new.taken"}, "-e", file)
		fillWith(t, l.addr, 1000)
		unix.Kill(l.pid, unix.SIGUSR2)
		victim, _ := strconv.Atoi(l.await(`stalled at \S+, pid (\d+)`))
		if code := l.wait(l.pid); code != 0 {
			t.Errorf("the old one ends with %d", code)
		}
		unix.Kill(victim, unix.SIGKILL)
		l.wait(victim)
		p := startHearthd(t, "-e", file)
		allThere(t, p.addr, 1000)
	})
	t.Run("old.taken", func(t *testing.T) {
		l := startLineage(t, program, []string{"HEARTHD_STALL=hearthd.handover.old.taken"}, "-e", newFile(t))
		fillWith(t, l.addr, 1000)
		unix.Kill(l.pid, unix.SIGUSR2)
		l.await(`stalled at (\S+),`)
		unix.Kill(l.pid, unix.SIGKILL)
		l.wait(l.pid)
		allThere(t, l.addr, 1000)
	})
}

// A stop during a hand-over is a stop: nobody serves afterwards, and the cache is closed clean.
func TestAStopDuringAHandOverStopsBoth(t *testing.T) {
	for _, c := range []struct{ name, stall, hold, program string }{
		{name: "while the new one comes up", program: script(t, "exec sleep 100")},
		{name: "before the new one is listened to", hold: "old.hears", program: script(t, "exec sleep 100")},
		{name: "when it is the new one's", stall: "new.yours"},
		{name: "when the new one has the cache open", stall: "new.opened"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := newFile(t)
			l := startLineage(t, faultyProgram(t), []string{"HEARTHD_STALL=hearthd.handover." + c.stall, "HEARTHD_HOLD=hearthd.handover." + c.hold, "HEARTHD_PATIENCE=1m,1s"}, "-e", file)
			fillWith(t, l.addr, 1000)
			if c.program != "" {
				l.install(c.program)
			}
			unix.Kill(l.pid, unix.SIGUSR2)
			l.await(`SIGUSR2: (starts)`)
			if c.stall+c.hold != "" {
				l.await(`(stalled)`)
			}
			unix.Kill(l.pid, unix.SIGTERM)
			if code := l.wait(l.pid); code != 0 {
				t.Errorf("exit %d, want 0", code)
			}
			if pids := l.pids(); len(pids) > 0 {
				t.Errorf("%v are left", pids)
			}
			p := startHearthd(t, "-e", file)
			allThere(t, p.addr, 1000)
			if kind := stat(t, p.addr, "restart_kind"); kind != "clean" && c.stall != "new.opened" { // a new one that stood still was killed
				t.Errorf("restart_kind %q, want clean", kind)
			}
		})
	}
}

// All kinds of listeners go along, and who is served by them.
func TestEveryListenerGoesAlong(t *testing.T) {
	chain, key := certificate(t, t.TempDir(), "server")
	l := startLineage(t, binary, nil, "-e", newFile(t), "-U", "-1", "-l", "notls:proto[ascii]:127.0.0.1", "-o", "http_listen=127.0.0.1:0",
		"-Z", "-o", "ssl_chain_cert="+chain+",ssl_key="+key)
	line := l.lines[l.next-1]
	addrs := strings.Split(regexp.MustCompile(`addr="?([^ "]*)`).FindStringSubmatch(line)[1], ",")
	web := regexp.MustCompile(`http="?([^ "]*)`).FindStringSubmatch(line)[1]
	if len(addrs) != 4 {
		t.Fatalf("%s: want TLS, plain and two of UDP", line)
	}
	ask := func() {
		t.Helper()
		c := dialTLS(t, addrs[0])
		io.WriteString(c, "get k\r\n")
		reply := make([]byte, len("VALUE k 0 1\r\nv\r\nEND\r\n"))
		if _, err := io.ReadFull(c, reply); err != nil || !strings.HasPrefix(string(reply), "VALUE k 0 1") {
			t.Errorf("over TLS: %q, %v", reply, err)
		}
		if !holds(t, addrs[1], "k", "v") {
			t.Error("in plain text: no value")
		}
		u, err := net.Dial("udp", addrs[2])
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.SetDeadline(time.Now().Add(patience))
		io.WriteString(u, "\x00\x07\x00\x00\x00\x01\x00\x00get k\r\n")
		b := make([]byte, 2000)
		if n, err := u.Read(b); !strings.HasSuffix(string(b[:n]), "VALUE k 0 1\r\nv\r\nEND\r\n") {
			t.Errorf("by UDP: %q, %v", b[:n], err)
		}
		if resp, err := http.Get("http://" + web + "/readyz"); err != nil || resp.StatusCode != 200 {
			t.Errorf("by HTTP: %v, %v", resp, err)
		} else {
			resp.Body.Close()
		}
	}
	store(t, addrs[1], "k", "v")
	ask()
	before := statsOf(t, addrs[1], "settings")
	for range 2 {
		l.handOver()
		ask()
	}
	for name, v := range statsOf(t, addrs[1], "settings") {
		if before[name] != v {
			t.Errorf("stats settings: %s %s, was %s", name, v, before[name])
		}
	}

	sock := filepath.Join(t.TempDir(), "s")
	l = startLineage(t, binary, nil, "-e", newFile(t), "-s", sock)
	store(t, sock, "k", "v")
	l.handOver()
	if !holds(t, sock, "k", "v") {
		t.Error("over the unix socket: no value")
	}
}

func TestAHandOverStartsWhatIsAtThePathNow(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "newer")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.version=newer", "-o", newer, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	l := startLineage(t, binary, nil, "-e", newFile(t))
	store(t, l.addr, "k", "v")
	l.install(newer)
	l.handOver()
	if v := stat(t, l.addr, "hearth_version"); v != "newer" {
		t.Errorf("hearth_version %q, want newer", v)
	}
	if !holds(t, l.addr, "k", "v") {
		t.Error("the value is gone")
	}
}

// The pid file always names the one that serves, also that of a daemon, which was started by a relative path and works in "/" since.
func TestPidFileAndDaemonGoAlong(t *testing.T) {
	linuxOnly(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pidFile, sock := filepath.Join(dir, "pid"), filepath.Join(dir, "sock")
	cmd := exec.Command("./"+filepath.Base(binary), "-d", "-u", me(), "-P", pidFile, "-s", sock, "-e", newFile(t))
	cmd.Dir = filepath.Dir(binary)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	read := func() int {
		text, err := os.ReadFile(pidFile)
		pid, bad := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || bad != nil {
			t.Fatalf("the pid file has %q, %v", text, err)
		}
		return pid
	}
	l := &lineage{t: t, pid: read()}
	t.Cleanup(func() { unix.Kill(l.pid, unix.SIGKILL) })
	store(t, sock, "k", "v")
	for range 2 {
		unix.Kill(l.pid, unix.SIGUSR2)
		if code := l.wait(l.pid); code != 0 {
			t.Fatalf("the old one ends with %d", code)
		}
		if !holds(t, sock, "k", "v") { // answered when the new one has written its file
			t.Fatal("the value is gone")
		}
		next := read()
		if next == l.pid {
			t.Fatalf("the pid file still has %d", next)
		}
		l.pid = next
	}
	unix.Kill(l.pid, unix.SIGTERM)
	if code := l.wait(l.pid); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there: %v", err)
	}
}

// systemd listens to the main process only (NotifyAccess=main), so that is who must tell of the next.
func TestTheServiceManagerHearsOfTheNewProcessFromTheOldOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	raw, err := socket.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}
	// hear returns what is told next, and the pid of who tells it.
	hear := func() (string, int) {
		t.Helper()
		socket.SetReadDeadline(time.Now().Add(patience))
		b, oob := make([]byte, 4096), make([]byte, 512)
		n, oobn, _, _, err := socket.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatalf("%v, %v", messages, err)
		}
		who, err := unix.ParseUnixCredentials(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n]), int(who.Pid)
	}
	l := startLineage(t, binary, []string{"NOTIFY_SOCKET=" + path}, "-e", newFile(t))
	hear()
	old := l.pid
	l.handOver()
	told, by := hear()
	if !strings.HasPrefix(told, fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=serving %s, warm, ", l.pid, l.addr)) || by != old {
		t.Errorf("process %d tells %q; want MAINPID=%d from %d", by, told, l.pid, old)
	}
	unix.Kill(l.pid, unix.SIGTERM)
	if told, by := hear(); told != "STOPPING=1\nSTATUS=saving the cache" || by != l.pid {
		t.Errorf("process %d tells %q; want STOPPING from %d", by, told, l.pid)
	}
	l.wait(l.pid)
}

func TestWithoutAFileThereIsNoHandOver(t *testing.T) {
	l := startLineage(t, binary, nil)
	store(t, l.addr, "k", "v")
	unix.Kill(l.pid, unix.SIGUSR2)
	l.await(`level=ERROR msg="SIGUSR2: no hand-over, goes on serving" err="(without -e)`)
	if !holds(t, l.addr, "k", "v") {
		t.Error("the value is gone")
	}
}

// Who claims to hand over must be a server: a mark in the environment alone, or nonsense on the channel, is an end with a line, and the file stays as it was.
func TestAStrangerHandsOverNothing(t *testing.T) {
	slab := newFile(t)
	p := startHearthd(t, "-e", slab)
	store(t, p.addr, "k", "v")
	p.stop(t, syscall.SIGTERM)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	socket := file(t, listener, err)
	end := func(want string, code int, files []*os.File, args ...string) {
		t.Helper()
		p := launchAs(t, func(cmd *exec.Cmd) {
			cmd.Env = append(os.Environ(), handOverMark+"=proto[ascii]")
			cmd.ExtraFiles = files
		}, append([]string{"-u", me()}, args...)...)
		if got := p.wait(t); got != code || !strings.Contains(p.stderr.String(), want) {
			t.Errorf("exit %d, want %d and %q in\n%s", got, code, want, p.stderr)
		}
	}
	end("hearthd: HEARTHD_HANDOVER: ", exOSErr, nil)
	end("hearthd: HEARTHD_HANDOVER: descriptor 3 is", exOSErr, []*os.File{tcpConn(t)})

	for _, c := range []struct {
		says []string
		want string
		code int
	}{
		{says: []string{wordStay}, code: 0},
		{says: []string{"hello"}, want: `the old process says \"hello\", want connections`, code: exOSErr},
		{says: []string{wordConns + "nonsense"}, want: "hearthd: hand-over: invalid character", code: exOSErr},
		{says: []string{wordConns + `[{"Protocol":1}]`}, want: "0 descriptors of connections came, want 1", code: exOSErr},
	} {
		open, err := os.OpenFile(slab, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(open.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[1]), "")
		ours, err := packetConn(os.NewFile(uintptr(pair[0]), ""))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range c.says { // they wait in the channel
			if _, err := ours.Write([]byte(word)); err != nil {
				t.Fatal(err)
			}
		}
		end(strings.ReplaceAll(c.want, `\"`, `"`), c.code, []*os.File{theirs, open, socket}, "-e", slab)
		ours.Close()
		theirs.Close()
		open.Close()
	}
	p = startHearthd(t, "-e", slab)
	if kind := stat(t, p.addr, "restart_kind"); kind != "clean" || !holds(t, p.addr, "k", "v") {
		t.Errorf("restart_kind %q\n%s", kind, p.stderr)
	}
}

// tcpConn is a socket that is no channel.
func tcpConn(t *testing.T) *os.File {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	return file(t, c, err)
}
