package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// systemd has a command started as systemd does: with these sockets from descriptor 3 on, and told of them in its environment. LISTEN_PID must be the
// server's own pid, so a shell writes it down and becomes the server.
func systemd(sockets []*os.File, names ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = sockets
		cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
}

// filer is a listener or a connection of package net.
type filer interface {
	io.Closer
	File() (*os.File, error)
}

// file takes the socket out of the hands of package net. It stays open until the end of the test.
func file(t testing.TB, socket any, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := socket.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := socket.(filer).File()
	if err != nil {
		t.Fatal(err)
	}
	socket.(filer).Close()
	t.Cleanup(func() { f.Close() })
	return f
}

func TestServesTheSocketsOfSystemdInsteadOfItsFlags(t *testing.T) {
	text, err := net.Listen("tcp", "127.0.0.1:0")
	textAddr := text.Addr().String()
	textFile := file(t, text, err)
	path := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	localFile := file(t, local, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	udpAddr := udp.LocalAddr().String()
	udpFile := file(t, udp, err)
	own := filepath.Join(t.TempDir(), "own")

	p := launchAs(t, systemd([]*os.File{textFile, localFile, udpFile}, "proto[ascii]", "hearthd.socket", ""),
		"-u", me(), "-p", "1", "-l", "192.0.2.1", "-s", own, "-U", "1")
	if p.addr != textAddr {
		t.Fatalf("listens on %s, want %s\n%s", p.addr, textAddr, p.stderr)
	}
	store(t, textAddr, "k", "v")
	if !holds(t, path, "k", "v") {
		t.Error("the unix socket serves another cache")
	}
	if _, err := os.Lstat(own); err == nil {
		t.Error("the socket of -s is there as well")
	}
	u, err := net.Dial("udp", udpAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.SetDeadline(time.Now().Add(patience))
	io.WriteString(u, "\x00\x07\x00\x00\x00\x01\x00\x00get k\r\n")
	reply := make([]byte, 2000)
	if n, err := u.Read(reply); string(reply[:n]) != "\x00\x07\x00\x00\x00\x01\x00\x00VALUE k 0 1\r\nv\r\nEND\r\n" {
		t.Errorf("UDP: %q, %v", reply[:n], err)
	}

	// A listener's name is a prefix of -l: this one takes a binary packet for a line.
	if got := talk(t, textAddr, "\x80\x0a\x00\x00")[0]; got != "CLIENT_ERROR bad command line format" && got != "ERROR" {
		t.Errorf("proto[ascii] answers %q", got)
	}
	settings := statsOf(t, textAddr, "settings")
	_, port, _ := net.SplitHostPort(textAddr)
	_, udpPort, _ := net.SplitHostPort(udpAddr)
	for name, want := range map[string]string{"tcpport": port, "udpport": udpPort, "domain_socket": path, "inter": "NULL"} {
		if settings[name] != want {
			t.Errorf("stats settings: %s %s, want %s", name, settings[name], want)
		}
	}
	// What we send is not to wait for more, and dead peers are to be noticed, whatever the socket unit says.
	for _, opt := range [][2]int{{syscall.IPPROTO_TCP, syscall.TCP_NODELAY}, {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}} {
		if on, err := syscall.GetsockoptInt(int(textFile.Fd()), opt[0], opt[1]); on == 0 || err != nil {
			t.Errorf("option %v of the listener is %d, %v", opt, on, err)
		}
	}
}

// statsOf asks for `stats name`.
func statsOf(t testing.TB, addr, name string) map[string]string {
	t.Helper()
	c := newWire(t, addr)
	defer c.Close()
	fmt.Fprintf(c, "stats %s\r\n", name)
	rows := map[string]string{}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		row := strings.SplitN(strings.TrimRight(line, "\r\n"), " ", 3)
		if len(row) < 3 {
			return rows
		}
		rows[row[1]] = row[2]
	}
}

func TestNobodyIsRefusedBetweenStopAndStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	socket := file(t, l, err)
	slab := newFile(t)
	start := func() *proc {
		return launchAs(t, systemd([]*os.File{socket}, "hearthd.socket"), "-u", me(), "-e", slab)
	}
	p := start()
	store(t, addr, "k", "value")
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		p.stop(t, end)
		waiting, err := net.DialTimeout("tcp", addr, patience) // nobody serves
		if err != nil {
			t.Fatalf("after %v: %v", end, err)
		}
		defer waiting.Close()
		waiting.SetDeadline(time.Now().Add(patience))
		io.WriteString(waiting, "get k\r\n")
		p = start()
		reply := make([]byte, len("VALUE k 0 5\r\nvalue\r\nEND\r\n"))
		if _, err := io.ReadFull(waiting, reply); err != nil || !strings.HasPrefix(string(reply), "VALUE k 0 5\r\nvalue") {
			t.Errorf("after %v, who waited reads %q, %v\n%s", end, reply, err, p.stderr)
		}
	}
}

func TestWrongSocketIsRefusedByOneLine(t *testing.T) {
	linuxOnly(t)
	tcp := func(typ int) *os.File {
		fd, err := syscall.Socket(syscall.AF_INET, typ, 0)
		if err == nil {
			err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "")
		t.Cleanup(func() { f.Close() })
		return f
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	good := file(t, l, err)
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	unixgram := file(t, packets, err)
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("u:p\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(pair[1])
	connected := os.NewFile(uintptr(pair[0]), "")
	defer connected.Close()
	netlink, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(netlink), "")
	defer other.Close()
	plain, err := os.Create(filepath.Join(t.TempDir(), "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()

	for _, c := range []struct {
		sockets []*os.File
		name    string
		args    []string
		want    string
	}{
		{[]*os.File{good, tcp(syscall.SOCK_STREAM)}, "a:b", nil, "failed to listen on inherited socket 4 (b): it does not listen, want a listening socket (Accept=no)"},
		{[]*os.File{connected}, "x", nil, "failed to listen on inherited socket 3 (x): it does not listen, want a listening socket (Accept=no)"},
		{[]*os.File{unixgram}, "x", nil, "failed to listen on inherited socket 3 (x): its type is 2 in family 1, want a stream, or datagrams over IP"},
		{[]*os.File{other}, "x", nil, "failed to listen on inherited socket 3 (x): its family is 16, want IPv4, IPv6 or unix"},
		{[]*os.File{plain}, "x", nil, "failed to listen on inherited socket 3 (x): Socket operation on non-socket"},
		{[]*os.File{tcp(syscall.SOCK_DGRAM)}, "x", []string{"-Y", users}, "failed to listen on inherited socket 3 (x): it is UDP, which has no connection to authenticate"},
		{[]*os.File{good}, "notls", nil, "failed to listen on inherited socket 3 (notls): 'notls' option is valid only when SSL is enabled"},
		{[]*os.File{good}, "x", []string{"-d"}, "hearthd: -d: cannot be used with sockets from systemd, which gives them to the process that it starts and no other"},
	} {
		p := launchAs(t, systemd(c.sockets, c.name), append([]string{"-u", me()}, c.args...)...)
		code := p.wait(t)
		var lines []string
		for line := range strings.Lines(p.stderr.String()) {
			if !strings.HasPrefix(line, "time=") { // the log
				lines = append(lines, strings.TrimRight(line, "\n"))
			}
		}
		if code == 0 || !slices.Equal(lines, []string{c.want}) {
			t.Errorf("%s: exit %d and %q, want only %q", c.name, code, lines, c.want)
		}
	}
}

func TestSocketsOfAnotherProcessAreLeftAloneAndNotPassedOn(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(binary, "-d", "-v", "-p", "-1", "-l", "127.0.0.1", "-u", me(), "-P", pidFile)
	cmd.Env = append(os.Environ(), "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=x")
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // the daemon keeps the other end
	if err := cmd.Run(); err != nil && err != exec.ErrWaitDelay {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	fmt.Sscan(string(text), &pid)
	defer syscall.Kill(pid, syscall.SIGKILL)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(environ), "LISTEN_") {
		t.Errorf("the daemon's environment has %q", environ)
	}
	m := startedLine.FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("no address in\n%s", out)
	}
	store(t, m[1], "k", "v")
}

func TestTellsTheServiceManagerHowItGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	expect := func(pattern string) {
		t.Helper()
		socket.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 4096)
		n, err := socket.Read(b)
		if !regexp.MustCompile("^" + pattern + "$").Match(b[:n]) {
			t.Fatalf("told %q (%v), want %s", b[:n], err, pattern)
		}
	}
	slab := newFile(t)
	notified := func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path) }
	start := func() *proc {
		return launchAs(t, notified, "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-A", "-e", slab)
	}

	p := start()
	expect(fmt.Sprintf(`READY=1\nMAINPID=%d\nSTATUS=serving %s, cold: the file is new`, p.cmd.Process.Pid, regexp.QuoteMeta(p.addr)))
	store(t, p.addr, "k", "v")
	p.cmd.Process.Signal(syscall.SIGHUP)
	expect(`RELOADING=1\nMONOTONIC_USEC=[0-9]+`)
	expect(`READY=1`)
	p.cmd.Process.Signal(syscall.SIGTERM)
	expect(`STOPPING=1\nSTATUS=saving the cache`)
	p.wait(t)

	p = start()
	expect(fmt.Sprintf(`READY=1\nMAINPID=%d\nSTATUS=serving %s, warm, 1 items: [^\n]+`, p.cmd.Process.Pid, regexp.QuoteMeta(p.addr)))
	c, err := dialWire(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "shutdown\r\n")
	expect(`STOPPING=1\nSTATUS=saving the cache`)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
	if strings.Contains(p.stderr.String(), "notify") {
		t.Errorf("complains:\n%s", p.stderr)
	}

	// Nobody at the socket is no reason not to serve.
	socket.Close()
	p = start()
	store(t, p.addr, "k", "v")
	if !strings.Contains(p.stderr.String(), "notify the service manager") {
		t.Errorf("says nothing of the missing socket:\n%s", p.stderr)
	}
}

const units = "../../tools/systemd/"

// unitLines reads the values of a key in a unit file.
func unitLines(t *testing.T, name, key string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(units + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

func TestUnitStartsWithMemcachedsLineAndSettings(t *testing.T) {
	line := unitLines(t, "hearthd.service", "ExecStart")[0]
	const theirs = "-p ${PORT} -u ${USER} -m ${CACHESIZE} -c ${MAXCONN} $OPTIONS"
	if !strings.HasSuffix(line, " "+theirs) {
		t.Fatalf("ExecStart=%s, want memcached's %s at its end", line, theirs)
	}
	// As systemd expands them: ${X} is one word, $X is split.
	line = strings.NewReplacer("${PORT}", "11311", "${USER}", "memcached", "${CACHESIZE}", "100", "${MAXCONN}", "2000", "${MEMORYFILE}", "/run/hearthd/slab",
		"$OPTIONS", "-l 127.0.0.1,::1 -t 2").Replace(line)
	cfg, err := parseLine(strings.Fields(line)[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.server.Port != 11311 || cfg.user != "memcached" || cfg.cache.MemoryLimit != 100*mib || cfg.server.MaxConns != 2000 || cfg.cache.Path != "/run/hearthd/slab" ||
		!slices.Equal(cfg.server.Listen, []string{"127.0.0.1", "::1"}) || cfg.server.Threads != 2 {
		t.Errorf("%s: %+v", line, cfg)
	}
}

// TestDebianDropInReadsMemcachedConf runs the drop-in's shell line with a program that prints its arguments in hearthd's place.
func TestDebianDropInReadsMemcachedConf(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "memcached.conf")
	if err := os.WriteFile(conf, []byte("# comment\n-d\nlogfile /var/log/memcached.log\n# -v\n-m 64\n-p 11211 # the port\n-u memcache\n\n-l *\n  -P /run/x.pid\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lines := unitLines(t, "debian.conf", "ExecStart")
	if len(lines) != 2 || lines[0] != "" {
		t.Fatalf("ExecStart=%q, want the unit's own taken away first", lines)
	}
	m := regexp.MustCompile(`^/bin/sh -c '(.*)' \$\{MEMORYFILE\}$`).FindStringSubmatch(lines[1])
	if m == nil {
		t.Fatalf("ExecStart=%s", lines[1])
	}
	script := strings.NewReplacer("$$", "$", "/usr/local/bin/hearthd", "echo", "/etc/memcached.conf", conf).Replace(m[1])
	cmd := exec.Command("/bin/sh", "-c", script, "/run/hearthd/slab")
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "OPTIONS=-t 2"}
	out, err := cmd.CombinedOutput()
	if want := "-u root -e /run/hearthd/slab -m 64 -p 11211 -u memcache -l * -P /run/x.pid -t 2\n"; err != nil || string(out) != want {
		t.Errorf("%v, starts hearthd %s, want %s", err, out, want)
	}
}

func TestUnitsAreWhatSystemdUnderstands(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	for _, file := range [][2]string{{"hearthd.service", ""}, {"hearthd.socket", ""}, {"debian.conf", "hearthd.service.d"}} {
		from, to := file[0], filepath.Join(file[1], file[0])
		text, err := os.ReadFile(units + from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(dir, to)
		os.MkdirAll(filepath.Dir(to), 0o755)
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/hearthd", binary)), 0o644); err != nil {
			t.Fatal(err)
		}
		if from == "debian.conf" { // the service once more, now with the drop-in
			from = "hearthd.service"
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, from)).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", to, err, out)
		}
	}
}
