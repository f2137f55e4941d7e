package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// talk sends lines on a connection of its own and returns the first line of the reply to each.
func talk(t testing.TB, addr string, lines ...string) []string {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	var replies []string
	for _, l := range lines {
		io.WriteString(c, strings.ReplaceAll(l, "\n", "\r\n")+"\r\n")
		reply, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %q: %v", addr, l, err)
		}
		replies = append(replies, strings.TrimRight(reply, "\r\n"))
	}
	return replies
}

func store(t testing.TB, addr, key, value string) {
	t.Helper()
	if r := talk(t, addr, fmt.Sprintf("set %s 0 0 %d\n%s", key, len(value), value)); r[0] != "STORED" {
		t.Fatalf("set %s: %s", key, r[0])
	}
}

func holds(t testing.TB, addr, key, value string) bool {
	t.Helper()
	return talk(t, addr, "get "+key)[0] == fmt.Sprintf("VALUE %s 0 %d", key, len(value))
}

// newFile is the path of a slab file to be, on a ram disk where there is one.
func newFile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hearthd-test")
	if err != nil {
		return filepath.Join(t.TempDir(), "slab")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "slab")
}

func TestEveryStopIsCleanAndTheNextStartWarm(t *testing.T) {
	file := newFile(t)
	p := startHearthd(t, "-e", file, "-A")
	store(t, p.addr, "k", "value")
	for _, stop := range []string{"SIGTERM", "SIGINT", "SIGUSR1", "shutdown", "shutdown graceful"} {
		code := -1
		switch stop {
		case "SIGTERM":
			code = p.stop(t, syscall.SIGTERM)
		case "SIGINT":
			code = p.stop(t, syscall.SIGINT)
		case "SIGUSR1":
			code = p.stop(t, syscall.SIGUSR1)
		default:
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, stop+"\r\n")
			code = p.wait(t)
			c.Close()
		}
		if code != 0 {
			t.Fatalf("%s: exit %d, want 0\n%s", stop, code, p.stderr)
		}
		if !strings.Contains(p.stderr.String(), "msg=stopped") {
			t.Errorf("%s: no line tells of the stop:\n%s", stop, p.stderr)
		}
		p = startHearthd(t, "-e", file, "-A")
		if !holds(t, p.addr, "k", "value") {
			t.Fatalf("after %s the item is gone\n%s", stop, p.stderr)
		}
		if kind := stat(t, p.addr, "restart_kind"); kind != "clean" {
			t.Errorf("after %s: restart_kind %q, want clean", stop, kind)
		}
	}
}

func stat(t testing.TB, addr, name string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return statOn(c, name)
}

// statOn is stat by a connection that is open already.
func statOn(c net.Conn, name string) (value string) {
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "stats\r\n")
	for r := bufio.NewScanner(c); r.Scan() && r.Text() != "END"; {
		if v, ok := strings.CutPrefix(r.Text(), "STAT "+name+" "); ok {
			value = v
		}
	}
	return value
}

func TestStopsAtOnce(t *testing.T) {
	p := startHearthd(t, "-e", newFile(t))
	c, err := net.Dial("tcp", p.addr) // an idle client is nothing to wait for
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit %d\n%s", code, p.stderr)
	}
	if took := time.Since(began); took > time.Second { // 100 ms is the promise; the machine may be busy with other tests
		t.Errorf("took %v", took)
	}
}

func TestHangupAndBrokenPipeDoNotEndIt(t *testing.T) {
	p := startHearthd(t)
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.cmd.Process.Signal(syscall.SIGPIPE)
	store(t, p.addr, "k", "v")
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
}

func TestSecondProcessOnTheFileLeavesItAlone(t *testing.T) {
	file := newFile(t)
	sock := filepath.Join(t.TempDir(), "sock")
	first := startHearthd(t, "-e", file, "-s", sock)
	store(t, first.addr, "k", "value")
	sum := func() string {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	// The first one must not write while we compare.
	freeze(t, first)
	before := sum()
	began := time.Now()
	second := launch(t, "-e", file, "-s", sock)
	took := time.Since(began)
	if second.addr != "" {
		t.Fatalf("two servers on one file:\n%s", second.stderr)
	}
	if code := second.wait(t); code <= 0 || took > time.Second {
		t.Errorf("exit %d after %v, want non-zero in under a second", code, took)
	}
	if pid := strconv.Itoa(first.cmd.Process.Pid); !regexp.MustCompile(`\b` + pid + `\b`).MatchString(second.stderr.String()) {
		t.Errorf("does not name the first one's pid %s:\n%s", pid, second.stderr)
	}
	if after := sum(); after != before {
		t.Error("the second process changed the file")
	}
	first.cmd.Process.Signal(syscall.SIGCONT)
	if !holds(t, first.addr, "k", "value") { // over the socket path: the second one did not unlink it
		t.Error("the first server lost its item")
	}
}

// freeze stops the process as SIGSTOP does and returns when it stands.
func freeze(t testing.TB, p *proc) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

func TestBusyPortLeavesTheFileClean(t *testing.T) {
	file := newFile(t)
	p := startHearthd(t, "-e", file)
	store(t, p.addr, "k", "value")
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit %d\n%s", code, p.stderr)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	busy := launchAs(t, nil, "-u", me(), "-e", file, "-l", "127.0.0.1", "-p", port)
	if code := busy.wait(t); code != exOSErr || !strings.Contains(busy.stderr.String(), "failed to listen on one of interface(s) 127.0.0.1: Address already in use") {
		t.Errorf("exit %d\n%s", code, busy.stderr)
	}
	p = startHearthd(t, "-e", file)
	if kind := stat(t, p.addr, "restart_kind"); kind != "clean" || !holds(t, p.addr, "k", "value") {
		t.Errorf("restart_kind %q\n%s", kind, p.stderr)
	}
}

func TestPortFileNamesThePorts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ports")
	p := launchAs(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "MEMCACHED_PORT_FILENAME="+name) }, "-u", me(), "-p", "-1", "-l", "127.0.0.1")
	if p.addr == "" {
		t.Fatalf("did not start\n%s", p.stderr)
	}
	_, port, _ := net.SplitHostPort(p.addr)
	if got, err := os.ReadFile(name); err != nil || string(got) != "TCP INET: "+port+"\n" {
		t.Errorf("%q, %v; want port %s", got, err, port)
	}
}

func TestVeryVerbosePrintsTheSlabClasses(t *testing.T) {
	p := startHearthd(t, "-vv")
	for _, want := range []string{
		"slab class   1: chunk size        80 perslab   13107\n",
		"slab class  38: chunk size    394824 perslab       2\n",
		"slab class  39: chunk size    524288 perslab       2\n",
	} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("misses %q in\n%s", want, p.stderr)
		}
	}
}

func TestPidFileIsWrittenAndOnlyADaemonRemovesIt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pid")
	p := startHearthd(t, "-P", name)
	if got, err := os.ReadFile(name); err != nil || string(got) != fmt.Sprintln(p.cmd.Process.Pid) {
		t.Fatalf("%q, %v; want pid %d", got, err, p.cmd.Process.Pid)
	}
	second := startHearthd(t, "-P", name)
	if want := fmt.Sprintf("WARNING: The pid file contained the following (running) pid: %d\n", p.cmd.Process.Pid); !strings.Contains(second.stderr.String(), want) {
		t.Errorf("misses %q in\n%s", want, second.stderr)
	}
	second.stop(t, syscall.SIGTERM)
	if _, err := os.Stat(name); err != nil {
		t.Error(err)
	}
	none := startHearthd(t, "-P", "/nonexistent/pid")
	if !strings.Contains(none.stderr.String(), "Could not open the pid file /nonexistent/pid.tmp for writing: No such file or directory") {
		t.Errorf("stderr\n%s", none.stderr)
	}
}

func TestDaemonServesWhenItsStarterReturns(t *testing.T) {
	dir := t.TempDir()
	pidFile, sock, file := filepath.Join(dir, "pid"), filepath.Join(dir, "sock"), newFile(t)
	out, err := exec.Command(binary, "-d", "-u", me(), "-P", pidFile, "-s", sock, "-e", file).CombinedOutput() // returns when the daemon let go of the pipe
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := unix.PidfdOpen(pid, 0) // not our child, so the number alone could become somebody else's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PidfdSendSignal(daemon, unix.SIGKILL, nil, 0)
		unix.Close(daemon)
	})
	store(t, sock, "k", "v")
	if sid, _ := unix.Getsid(pid); sid != pid {
		t.Errorf("session %d, want its own, %d", sid, pid)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("works in %q (%v), want /", cwd, err)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || to != "/dev/null" {
			t.Errorf("descriptor %d is %q (%v), want /dev/null", fd, to, err)
		}
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || !strings.Contains(string(env), daemonMark) {
		t.Errorf("the daemon was not started by its starter: %v", err)
	}
	if err := unix.PidfdSendSignal(daemon, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(daemon), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		t.Fatalf("the daemon did not end: %v", err)
	}
	if _, err := os.Stat(pidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there: %v", err)
	}
	p := startHearthd(t, "-e", file)
	if !holds(t, p.addr, "k", "v") {
		t.Errorf("the daemon did not close clean\n%s", p.stderr)
	}
}

func TestStarterOfADaemonReportsWhyItCouldNotStart(t *testing.T) {
	for want, args := range map[string][]string{
		"71 failed to listen on UNIX socket: /nonexistent/sock: No such file or directory": {"-u", me(), "-s", "/nonexistent/sock"},
		"64 ERROR: Invalid port number 70000.":                                             {"-u", me(), "-p", "70000"},
	} {
		cmd := exec.Command(binary, append([]string{"-d"}, args...)...)
		out, _ := cmd.CombinedOutput()
		if got := fmt.Sprintf("%d %s", cmd.ProcessState.ExitCode(), out); !strings.Contains(got, want[3:]) || !strings.HasPrefix(got, want[:3]) {
			t.Errorf("%q:\n got %q\nwant %q", args, got, want)
		}
	}
}

func TestRootBecomesTheUserWhoCanStartAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give it up")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	file := newFile(t)
	if err := os.Chown(filepath.Dir(file), uid, gid); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(filepath.Dir(file), "sock")
	withGroups := func(c *exec.Cmd) { // some to drop
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{0, 4}}}
	}
	p := launchAs(t, withGroups, "-u", "nobody", "-e", file, "-s", sock)
	if p.addr == "" {
		t.Fatalf("did not start\n%s", p.stderr)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	for _, task := range tasks { // every thread, and all four ids
		s, err := os.ReadFile(task)
		if ids := fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", uid, uid, uid, uid); err == nil && !strings.Contains(string(s), ids) {
			t.Errorf("%s: misses %q in\n%s", task, ids, s)
		}
	}
	if ids := fmt.Sprintf("Gid:\t%d\t%d\t%d\t%d\n", gid, gid, gid, gid); len(tasks) < 2 || !strings.Contains(string(status), ids) || !strings.Contains(string(status), "Groups:\t \n") {
		t.Errorf("%d threads, groups not dropped:\n%s", len(tasks), status)
	}
	for _, f := range []string{file, sock} {
		st, err := os.Stat(f)
		if err != nil || int(st.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s: %v, %v; want it to be nobody's", f, st, err)
		}
	}
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit %d\n%s", code, p.stderr)
	}
	startHearthd(t, "-u", "nobody", "-e", file, "-s", sock)
}

func TestFileLimitFollowsTheConnections(t *testing.T) {
	soft := func(p *proc) (soft, hard int) {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`Max open files +(\d+) +(\d+)`).FindStringSubmatch(string(limits))
		soft, _ = strconv.Atoi(m[1])
		hard, _ = strconv.Atoi(m[2])
		return soft, hard
	}
	// Under a limit that holds the clients but not our own descriptors it starts, as memcached does, and uses what there is.
	p := launchAs(t, limited(200), "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-c", "200", "-t", "1")
	if p.addr == "" {
		t.Fatalf("did not start\n%s", p.stderr)
	}
	if s, _ := soft(p); s < 200 {
		t.Errorf("soft limit %d", s)
	}
	p = launchAs(t, func(c *exec.Cmd) { limited(200)(c); unprivileged(c) }, "-p", "-1", "-l", "127.0.0.1", "-c", "201")
	if code := p.wait(t); code != exOSErr || !strings.HasPrefix(p.stderr.String(), "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.\n") {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
}

func TestMemoryIsLockedAndCoresAllowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be allowed to lock any amount")
	}
	p := startHearthd(t, "-k", "-r", "-e", newFile(t))
	if strings.Contains(p.stderr.String(), "mlockall() failed") {
		t.Skip("root may not lock memory here")
	}
	for file, want := range map[string]string{"status": `VmLck:\s+[1-9]`, "limits": `Max core file size +(unlimited|[1-9])`} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
		if err != nil || !regexp.MustCompile(want).Match(text) {
			t.Errorf("%v, %s in\n%s", err, want, text)
		}
	}
	// Address space that is kept free to grow into must not be filled by the lock: there is far more of it than -m.
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindStringSubmatch(string(text)); m == nil || len(m[1]) > 6 {
		t.Errorf("resident: %q kB", m)
	}
}

func TestOptionsThatTheCacheRefusesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"-m", "300000"}, {"-m", "-5"}} {
		if p := launch(t, args...); p.wait(t) != exUsage || !strings.Contains(p.stderr.String(), "MemoryLimit") {
			t.Errorf("%q: %v\n%s", args, p.err, p.stderr)
		}
	}
}

// unprivileged has root start the command as somebody else.
func unprivileged(c *exec.Cmd) {
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// limited starts the command through a shell that lowers the limit on open files.
func limited(n int) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, n), c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
	}
}

// Nobody but the keeper touches the memory of a server without clients: a file that was cut short ends it as it would end a worker, with a line and exit code 70.
func TestAFaultOfTheKeeperEndsTheServerWithoutClients(t *testing.T) {
	file := newFile(t)
	p := startHearthd(t, "-e", file, "-m", "8")
	if err := os.Truncate(file, 4096); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != exSoftware || !strings.Contains(p.stderr.String(), "fault in the cache's memory") {
		t.Errorf("exit %d, want %d\n%s", code, exSoftware, p.stderr)
	}
}

// Go's scheduler must have an idle P beside the workers': see spareProcessors. The runtime prints its state when it is asked to.
func TestThereAreMoreSchedulerProcessorsThanWorkers(t *testing.T) {
	for _, c := range []struct {
		workers int
		env     string
		want    int
	}{{workers: 17, want: 19}, {workers: 17, env: "GOMAXPROCS=3", want: 3}} {
		p := launchAs(t, func(cmd *exec.Cmd) {
			cmd.Env = append(os.Environ(), "GODEBUG=schedtrace=50", c.env)
		}, "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-t", strconv.Itoa(c.workers))
		want := fmt.Sprintf("gomaxprocs=%d ", c.want)
		for end := time.Now().Add(patience); !strings.Contains(p.stderr.String(), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d workers, %q: no %q in\n%.600s", c.workers, c.env, want, p.stderr)
				break
			}
		}
	}
}
