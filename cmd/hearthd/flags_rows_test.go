package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// The tests of this file and of suboption_rows_test.go are memcached's tables of flags, suboptions, checks at the start, listener entries, signals and environment variables, a subtest a
// row: every way to write it, every wrong value with its whole message and exit code, the row of `stats settings`, and what it does to a running server.

// flagRow is a row of the table of flags.
type flagRow struct {
	letter   byte
	value    string // {dir} is a directory, {port} a free port
	more     string // further arguments that the run needs
	shows    string // rows of stats settings, with commas
	refusals []refusal
	works    func(t *testing.T, p *proc) // p runs with this flag
}

// refusal is a command line that ends at once.
type refusal struct {
	args   string // in the notation of words
	code   int
	stderr string
}

func (r refusal) check(t *testing.T, change func(*exec.Cmd)) {
	t.Helper()
	p := launchAs(t, change, append([]string{"-u", me()}, words(r.args)...)...)
	if p.addr != "" {
		t.Errorf("%s: serves, want exit %d, %q", r.args, r.code, r.stderr)
		return
	}
	code := p.wait(t)
	if got := withoutLog(p.stderr.String()); code != r.code || got != r.stderr {
		t.Errorf("%s: exit %d, %q; want exit %d, %q", r.args, code, got, r.code, r.stderr)
	}
}

// withoutLog takes the lines of our log out of what a process wrote, and the path of the program.
func withoutLog(stderr string) string {
	stderr = regexp.MustCompile(`(?m)^time=.*\n`).ReplaceAllString(stderr, "")
	return strings.ReplaceAll(stderr, binary, "hearthd")
}

func TestFlag(t *testing.T) {
	flags := new(settings).flags()
	elsewhere := "ZWNL" // they have tests of their own
	rows := flagRows()
	for _, f := range flags {
		o := f.(*option)
		i := slices.IndexFunc(rows, func(r flagRow) bool { return r.letter == o.short })
		if i < 0 {
			if strings.IndexByte(elsewhere, o.short) < 0 {
				t.Errorf("no row for -%c", o.short)
			}
			continue
		}
		t.Run(strings.TrimSuffix(fmt.Sprintf("-%c_--%s", o.short, o.long), "_--"), func(t *testing.T) { rows[i].run(t, o) })
	}
}

func (r *flagRow) run(t *testing.T, o *option) {
	fill := strings.NewReplacer("{dir}", t.TempDir(), "{port}", freePort(t))
	value := fill.Replace(r.value)
	forms, ambiguous := formsOf(o, value)
	first, firstErr := parseLine(forms[0]...)
	for _, form := range forms[1:] {
		if cfg, err := parseLine(form...); !reflect.DeepEqual(cfg, first) || !reflect.DeepEqual(err, firstErr) {
			t.Errorf("%q is %+v (%v); %q is %+v (%v)", form, cfg, err, forms[0], first, firstErr)
		}
	}
	_, err := parseLine("--" + ambiguous)
	if stop := (*exit)(nil); ambiguous != "" && (!errors.As(err, &stop) || stop.code != 1 || !strings.HasPrefix(stop.stderr, "hearthd: option '--"+ambiguous+"' is ambiguous; possibilities: '--")) {
		t.Errorf("--%s: %v, want it ambiguous", ambiguous, err)
	}
	refusals := r.refusals
	illegal := func(args, format string, a ...any) {
		refusals = append(refusals, refusal{args, 1, "hearthd: " + fmt.Sprintf(format, a...) + "\nIllegal argument \"?\"\n"})
	}
	if o.takes == oneValue {
		illegal(fmt.Sprintf("-%c", o.short), "option requires an argument -- '%c'", o.short)
	}
	switch {
	case o.long != "" && o.takes == oneValue:
		illegal("--"+o.long, "option '--%s' requires an argument", o.long)
	case o.long != "" && o.takes == nothing:
		illegal("--"+o.long+"=1", "option '--%s' doesn't allow an argument", o.long)
	}
	for _, refused := range refusals {
		refused.args = fill.Replace(refused.args)
		refused.stderr = fill.Replace(refused.stderr)
		refused.check(t, nil)
	}
	if r.works == nil {
		return
	}
	if firstErr != nil { // -h, -i, -V
		r.works(t, launchAs(t, nil, forms[0]...))
		return
	}
	p := startHearthd(t, append(forms[0], words(fill.Replace(r.more))...)...)
	if r.shows != "" {
		shown := settingsOf(t, p.addr)
		for _, row := range strings.Split(fill.Replace(r.shows), ", ") {
			if name, want, _ := strings.Cut(row, " "); shown[name] != want {
				t.Errorf("stats settings: %s is %q, want %q", name, shown[name], want)
			}
		}
	}
	r.works(t, p)
}

// formsOf are the ways to write an option, the shortest prefix of its long name that is nobody else's among them, and a longest one that is ambiguous, if any.
func formsOf(o *option, value string) (forms [][]string, ambiguous string) {
	shared := func(prefix string) (n int) {
		for _, f := range new(settings).flags() {
			if strings.HasPrefix(f.(*option).long, prefix) {
				n++
			}
		}
		return n
	}
	short := "-" + string(o.short)
	names := []string{}
	if o.long != "" {
		end := len(o.long)
		for end > 1 && shared(o.long[:end-1]) == 1 {
			end--
		}
		names = []string{"--" + o.long, "--" + o.long[:end]}
		if end > 1 {
			ambiguous = o.long[:end-1]
		}
		if slices.ContainsFunc(new(settings).flags(), func(f cli.Flag) bool { return f.(*option).long == ambiguous }) {
			ambiguous = "" // the whole of another name, which is that one
		}
	}
	if o.takes != oneValue {
		forms = [][]string{{short}, {" \t" + short}}
		for _, name := range names {
			forms = append(forms, []string{name})
			if o.takes == maybeValue {
				forms = append(forms, []string{name + "=" + value})
			}
		}
		return forms, ambiguous
	}
	forms = [][]string{{short, value}, {" " + short, " \t" + value}}
	if value != "" {
		forms = append(forms, []string{short + value})
	}
	for _, name := range names {
		forms = append(forms, []string{name + "=" + value}, []string{name, value})
	}
	return forms, ambiguous
}

func settingsOf(t testing.TB, addr string) map[string]string {
	t.Helper()
	return rowsOf(t, exchange(t, addr, "stats settings\r\n", "END\r\n"))
}

func rowsOf(t testing.TB, text string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimRight(line, "\r\n"), " ", 3); len(f) == 3 && f[0] == "STAT" {
			rows[f[1]] = f[2]
		}
	}
	return rows
}

// connect returns a connection with a deadline on everything.
func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// exchange sends text on a connection of its own and reads until what came ends in end, or the connection ends.
func exchange(t testing.TB, addr, text, end string) string {
	t.Helper()
	c := connect(t, addr)
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for r := bufio.NewReader(c); ; {
		b, err := r.ReadByte()
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			return string(got)
		}
		if err != nil {
			t.Fatalf("%q: after %q: %v", text, got, err)
		}
		if got = append(got, b); end != "" && strings.HasSuffix(string(got), end) {
			return string(got)
		}
	}
}

// replies has text answered with want, byte by byte, whatever comes after it.
func replies(t testing.TB, addr, text, want string) {
	t.Helper()
	if got := exchange(t, addr, text, want); got != want {
		t.Errorf("%q: got %q, want %q", text, got, want)
	}
}

// freePort is the number of a TCP port of the loopback that was free just now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// procFile reads a file of /proc about the process.
func procFile(t testing.TB, p *proc, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// socketInodes are the inodes of a process's sockets, as /proc/net names them.
func socketInodes(t testing.TB, pid int) map[string]bool {
	t.Helper()
	mine := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			mine[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return mine
}

// listening are the addresses that the process listens on, in order, as "tcp 127.0.0.1:11211".
func listening(t testing.TB, p *proc) (addrs []string) {
	t.Helper()
	mine := socketInodes(t, p.cmd.Process.Pid)
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for line := range strings.Lines(procFile(t, p, "net/"+network)) {
			f := strings.Fields(line) // the local address is the second, the state the fourth, the inode the tenth
			if len(f) < 10 || !mine[f[9]] || network[0] == 't' && f[3] != "0A" {
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			ip, _ := hex.DecodeString(host)
			for word := range slices.Chunk(ip, 4) {
				slices.Reverse(word)
			}
			n, _ := strconv.ParseUint(port, 16, 16)
			addrs = append(addrs, fmt.Sprintf("%s %s", network[:3], net.JoinHostPort(net.IP(ip).String(), strconv.Itoa(int(n)))))
		}
	}
	slices.Sort(addrs)
	return addrs
}

// onListener calls f with a copy of the process's listener.
func onListener(t *testing.T, p *proc, f func(fd int)) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(p.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	for theirs := 3; theirs < 100; theirs++ {
		fd, err := unix.PidfdGetfd(pidfd, theirs, 0)
		if err == unix.EPERM {
			t.Skip("may not take a descriptor of another process")
		}
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
			f(fd)
			return
		}
	}
	t.Error("no listener")
}

func binaryPacket(op byte, key, value string) string {
	h := make([]byte, 24)
	h[0], h[1], h[3], h[11] = 0x80, op, byte(len(key)), byte(len(key)+len(value))
	return string(h) + key + value
}

func flagRows() []flagRow {
	usage := func(args, stderr string) refusal { return refusal{args, exUsage, stderr + "\n"} }
	one := func(args, stderr string) refusal { return refusal{args, 1, stderr + "\n"} }
	storedIn := func(t *testing.T, p *proc) { t.Helper(); store(t, p.addr, "k", "v") }
	printed := func(want string) func(*testing.T, *proc) {
		return func(t *testing.T, p *proc) {
			if code := p.wait(t); code != 0 || p.stderr.String() != "" {
				t.Errorf("exit %d, %q on stderr", code, p.stderr)
			}
			out, err := exec.Command(binary, p.cmd.Args[1:]...).Output()
			if err != nil || !regexp.MustCompile(`^memcached \d+\.\d+\.\d+ \(hearthd \S+\)\n`).Match(out) || !strings.Contains(string(out), want) {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	return []flagRow{
		{letter: 'p', value: "{port}", shows: "tcpport {port}", works: func(t *testing.T, p *proc) {
			storedIn(t, p)
			if want := portOf(p.addr); !slices.Contains(p.cmd.Args, want) {
				t.Errorf("listens on port %s: %q", want, p.cmd.Args)
			}
			p = startHearthd(t, "-p", "-1")
			if port := portOf(p.addr); port == "0" || settingsOf(t, p.addr)["tcpport"] != port {
				t.Errorf("-p -1: port %s, %s in the settings", port, settingsOf(t, p.addr)["tcpport"])
			}
			p = launch(t, "-p", "0")
			if all := listening(t, p); !strings.Contains(p.stderr.String(), `msg=started addr=""`) || len(all) != 0 {
				t.Errorf("-p 0: listens on %q\n%s", all, p.stderr)
			}
		}, refusals: []refusal{
			usage("-p 65536", "ERROR: Invalid port number 65536."), usage("-p 99999999999", "ERROR: Invalid port number 1215752191."), usage("-p -2", "ERROR: Invalid port number -2."),
		}},
		{letter: 'U', value: "{port}", shows: "udpport {port}, tcpport {port}, num_threads_per_udp 4", more: "-p {port}", works: func(t *testing.T, p *proc) {
			asksUDP(t, net.JoinHostPort("127.0.0.1", portOf(p.addr)))
			port := freePort(t)
			p = launchAs(t, nil, "-u", me(), "-l", "127.0.0.1", "-U", port) // the TCP port becomes it too
			if portOf(p.addr) != port {
				t.Fatalf("-U %s alone: TCP on %s\n%s", port, p.addr, p.stderr)
			}
			asksUDP(t, p.addr)
			p = startHearthd(t, "-U", "0")
			if all := listening(t, p); !slices.Equal(all, []string{"tcp " + p.addr}) || settingsOf(t, p.addr)["udpport"] != "0" {
				t.Errorf("-U 0: listens on %q", all)
			}
			p = startHearthd(t, "-U", "-1")
			asksUDP(t, net.JoinHostPort("127.0.0.1", settingsOf(t, p.addr)["udpport"]))
		}, refusals: []refusal{usage("-p 0 -U 65536", "ERROR: Invalid port number 65536."), usage("-p 0 -U -2", "ERROR: Invalid port number -2.")}},
		{letter: 's', value: "{dir}/sock", more: "-U -1", shows: "domain_socket {dir}/sock, tcpport 0, udpport 0", works: func(t *testing.T, p *proc) {
			storedIn(t, p)
			if all := listening(t, p); len(all) != 0 {
				t.Errorf("listens on %q too", all)
			}
			p.cmd.Process.Kill() // leaves its socket
			p.wait(t)
			again := startHearthd(t, "-s", p.addr)
			storedIn(t, again)
			if code := again.stop(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit %d", code)
			}
			if _, err := os.Stat(p.addr); err != nil {
				t.Errorf("the socket was unlinked at the exit: %v", err)
			}
		}, refusals: []refusal{{"-s /nonexistent/x", exOSErr, "failed to listen on UNIX socket: /nonexistent/x: No such file or directory\n"},
			{"-s /", exOSErr, "failed to listen on UNIX socket: /: Address already in use\n"}}},
		{letter: 'a', value: "0770", more: "-s {dir}/sock", shows: "umask 770", works: func(t *testing.T, p *proc) {
			mode := func(p *proc, want os.FileMode) {
				if st, err := os.Stat(p.addr); err != nil || st.Mode().Perm() != want {
					t.Errorf("mode %v (%v), want %v", st.Mode(), err, want)
				}
			}
			mode(p, 0o770)
			mode(startHearthd(t, "-s", filepath.Join(t.TempDir(), "s")), 0o700)
			mode(startHearthd(t, "-s", filepath.Join(t.TempDir(), "s"), "-a", "78"), 0o007) // as far as it is octal
			if os.Geteuid() == 0 {
				mode(startHearthd(t, "-s", filepath.Join(t.TempDir(), "s"), "-a", "9"), 0)
			}
		}},
		{letter: 'A', shows: "shutdown_command yes", works: func(t *testing.T, p *proc) {
			if got := exchange(t, p.addr, "shutdown\r\n", ""); got != "" || p.wait(t) != 0 {
				t.Errorf("%q\n%s", got, p.stderr)
			}
			p = startHearthd(t)
			replies(t, p.addr, "shutdown\r\nmn\r\n", "SERVER_ERROR: shutdown not enabled\r\nMN\r\n")
		}},
		{letter: 'l', value: "127.0.0.2", shows: "inter 127.0.0.1,127.0.0.2", works: func(t *testing.T, p *proc) {
			if all := listening(t, p); len(all) != 2 || all[0] != "tcp "+p.addr || !strings.HasPrefix(all[1], "tcp 127.0.0.2:") {
				t.Errorf("listens on %q", all)
			}
		}, refusals: []refusal{{"-l 192.0.2.1", exOSErr, "failed to listen on one of interface(s) 192.0.2.1: Cannot assign requested address\n"}}},
		{letter: 'd', refusals: []refusal{{"-d -s /nonexistent/x", exOSErr, "failed to listen on UNIX socket: /nonexistent/x: No such file or directory\n"}}}, // what it does: TestDaemon...
		{letter: 'r', works: func(t *testing.T, p *proc) {
			if limits := procFile(t, p, "limits"); !regexp.MustCompile(`Max core file size +(unlimited|[1-9])`).MatchString(limits) {
				t.Error(limits)
			}
			noCores := func(c *exec.Cmd) {
				c.Args = append([]string{"sh", "-c", `ulimit -c 0 && exec "$0" "$@"`, c.Path}, c.Args[1:]...)
				c.Path = "/bin/sh"
				unprivileged(c)
			}
			refusal{"-r -p 0", exOSErr, "failed to ensure corefile creation\n"}.check(t, noCores)
		}},
		{letter: 'u', value: me(), works: func(t *testing.T, p *proc) {
			storedIn(t, p)
			p = launchAs(t, unprivileged, "-u", "nosuchuser", "-p", "-1", "-l", "127.0.0.1")
			if os.Geteuid() == 0 && p.addr == "" {
				t.Errorf("for who is not root it is not ignored\n%s", p.stderr)
			}
			if os.Geteuid() != 0 {
				t.Skip("needs root for the rest")
			}
			for _, args := range [][]string{{}, {"-u", ""}} {
				p = launchAs(t, nil, args...)
				if code := p.wait(t); code != exUsage || p.stderr.String() != "must add '-u root' to start as root\n" {
					t.Errorf("%q: exit %d, %q", args, code, p.stderr)
				}
			}
			refusal{"-u nosuchuser", exNoUser, "can't find the user nosuchuser to switch to\n"}.check(t, nil)
			p = startHearthd(t, "-u", "nobody")
			if status := procFile(t, p, "status"); regexp.MustCompile(`(?m)^[UG]id:.*\t0\b`).MatchString(status) || !regexp.MustCompile(`(?m)^Groups:\s*$`).MatchString(status) {
				t.Errorf("root's ids remain:\n%s", status)
			}
		}},
		{letter: 'm', value: "100", shows: "maxbytes 104857600", works: func(t *testing.T, p *proc) {
			if got := stat(t, p.addr, "limit_maxbytes"); got != "104857600" {
				t.Errorf("limit_maxbytes %s", got)
			}
		}, refusals: []refusal{
			usage("-m 1", "Cannot set item size limit higher than 1/2 of memory max."), usage("-m 0", "Cannot set item size limit higher than 1/2 of memory max."),
			usage("-m x", "Cannot set item size limit higher than 1/2 of memory max."), usage("-p 0 -m -5", "hearth: bad option: MemoryLimit is -5242880, want 1 MiB to 255 GiB"),
		}},
		{letter: 'M', more: "-m 2", shows: "evictions off", works: func(t *testing.T, p *proc) {
			full := func(p *proc) (refused bool) {
				big := strings.Repeat("v", 300_000)
				for i := range 20 {
					reply := exchange(t, p.addr, fmt.Sprintf("set k%d 0 0 %d\r\n%s\r\n", i, len(big), big), "\r\n")
					if reply != "STORED\r\n" && reply != "SERVER_ERROR out of memory storing object\r\n" {
						t.Fatalf("%q", reply)
					}
					refused = refused || reply != "STORED\r\n"
				}
				return refused
			}
			if !full(p) || stat(t, p.addr, "evictions") != "0" {
				t.Errorf("evictions %s", stat(t, p.addr, "evictions"))
			}
			if p = startHearthd(t, "-m", "2"); full(p) || stat(t, p.addr, "evictions") == "0" || settingsOf(t, p.addr)["evictions"] != "on" {
				t.Errorf("without -M: evictions %s", stat(t, p.addr, "evictions"))
			}
		}},
		{letter: 'c', value: "2", shows: "maxconns 2", works: func(t *testing.T, _ *proc) {
			p := startHearthd(t, "-c", "2") // where no earlier connection is still closing
			for range 2 {
				c := connect(t, p.addr)
				io.WriteString(c, "mn\r\n")
				if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
			}
			if got := exchange(t, p.addr, "", ""); got != "ERROR Too many open connections\r\n" {
				t.Errorf("the third hears %q", got)
			}
		}, refusals: []refusal{
			one("-c 0", "Maximum connections must be greater than 0"), one("-c -1", "Maximum connections must be greater than 0"), one("-c x", "Maximum connections must be greater than 0"),
			{"-c 99999999 -p 0", exOSErr, "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.\n"},
		}},
		{letter: 'k', works: func(t *testing.T, p *proc) {
			if locked := regexp.MustCompile(`VmLck:\s+[1-9]`).MatchString(procFile(t, p, "status")); !locked && !strings.Contains(p.stderr.String(), "warning: -k invalid, mlockall() failed: ") {
				t.Errorf("neither locked nor warned\n%s", p.stderr)
			}
			p = launchAs(t, func(c *exec.Cmd) {
				c.Args = append([]string{"sh", "-c", `ulimit -l 0 && exec "$0" "$@"`, c.Path}, c.Args[1:]...)
				c.Path = "/bin/sh"
				unprivileged(c)
			}, "-k", "-p", "-1", "-l", "127.0.0.1")
			why := "Operation not permitted"
			if portable {
				why = "Function not implemented"
			}
			if !strings.HasPrefix(p.stderr.String(), "warning: -k invalid, mlockall() failed: "+why+"\n") || p.addr == "" {
				t.Errorf("without the right to it\n%s", p.stderr)
			}
		}},
		{letter: 'v', value: "x", shows: "verbosity 1", works: func(t *testing.T, p *proc) {
			if strings.Contains(p.stderr.String(), "slab class") {
				t.Errorf("-v\n%s", p.stderr)
			}
			for args, level := range map[string]string{"-vv": "2", "-vvv": "3", "-v --verbose": "2", "--verbose=2": "1"} {
				p := startHearthd(t, words(args)...)
				if got := settingsOf(t, p.addr)["verbosity"]; got != level || (level != "1") != strings.Contains(p.stderr.String(), "slab class   1: chunk size        80 perslab   13107\n") {
					t.Errorf("%s: verbosity %s, want %s\n%s", args, got, level, p.stderr)
				}
			}
		}, refusals: []refusal{{"-vvverbose -Q", 1, "hearthd: invalid option -- 'Q'\nIllegal argument \"?\"\n"}}}, // -v -v -v -e rbose
		{letter: 'h', works: printed("-p, --port=<num>")},
		{letter: 'i', works: printed("BSD")},
		{letter: 'V', works: printed("memcached 1.6.")},
		{letter: 'P', value: "{dir}/pid", works: func(t *testing.T, p *proc) {
			name := p.cmd.Args[len(p.cmd.Args)-1]
			if got, err := os.ReadFile(name); err != nil || string(got) != fmt.Sprintln(p.cmd.Process.Pid) {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := os.Stat(name + ".tmp"); !os.IsNotExist(err) {
				t.Errorf("the name it was written under: %v", err)
			}
			second := startHearthd(t, "-P", name)
			if want := fmt.Sprintf("WARNING: The pid file contained the following (running) pid: %d\n", p.cmd.Process.Pid); !strings.Contains(second.stderr.String(), want) {
				t.Errorf("misses %q in\n%s", want, second.stderr)
			}
			second.stop(t, syscall.SIGTERM)
			if _, err := os.Stat(name); err != nil {
				t.Errorf("only a daemon removes it: %v", err)
			}
		}},
		{letter: 'f', value: "1.5", more: "-vv", shows: "growth_factor 1.50", works: func(t *testing.T, p *proc) {
			if !strings.Contains(p.stderr.String(), "slab class   2: chunk size       128 perslab    8192\n") {
				t.Error(p.stderr)
			}
		}, refusals: []refusal{one("-f 1", "Factor must be greater than 1"), one("-f x", "Factor must be greater than 1"), one("-f -3", "Factor must be greater than 1")}},
		{letter: 'n', value: "100", more: "-vv", shows: "chunk_size 100", works: func(t *testing.T, p *proc) {
			if !strings.Contains(p.stderr.String(), "slab class   1: chunk size       136 perslab    7710\n") {
				t.Error(p.stderr)
			}
		}, refusals: []refusal{one("-n 0", "Chunk size must be greater than 0"), one("-n -1", "Chunk size must be greater than 0"), one("-n x", "Chunk size must be greater than 0")}},
		{letter: 't', value: "7", shows: "num_threads 7", works: func(t *testing.T, p *proc) {
			if got := stat(t, p.addr, "threads"); got != "7" {
				t.Errorf("threads %s", got)
			}
			p = startHearthd(t, "-t", "65")
			if want := "WARNING: Setting a high number of workerthreads is not recommended.\n Set this value to the number of cores in your machine or less.\n"; !strings.HasPrefix(p.stderr.String(), want) {
				t.Error(p.stderr)
			}
		}, refusals: []refusal{one("-t 0", "Number of threads must be greater than 0"), one("-t -1", "Number of threads must be greater than 0"), one("-t x", "Number of threads must be greater than 0")}},
		{letter: 'D', value: "/", shows: "stat_key_prefix /, detail_enabled yes", works: func(t *testing.T, p *proc) {
			replies(t, p.addr, "get a/b a:c\r\nstats detail dump\r\n", "END\r\nPREFIX a get 1 hit 0 set 0 del 0\r\nEND\r\n")
			p = startHearthd(t)
			if shown := settingsOf(t, p.addr); shown["stat_key_prefix"] != ":" || shown["detail_enabled"] != "no" {
				t.Errorf("without -D: %v", shown)
			}
		}, refusals: []refusal{one(`-D ""`, "No delimiter specified")}},
		{letter: 'R', value: "9", more: "-t 1", shows: "reqs_per_event 9", works: func(t *testing.T, p *proc) {
			replies(t, p.addr, strings.Repeat("get a\r\n", 30), strings.Repeat("END\r\n", 30))
			if got := stat(t, p.addr, "conn_yields"); got != "3" {
				t.Errorf("conn_yields %s, want 3 for 30 requests", got)
			}
		}, refusals: []refusal{one("-R 0", "Number of requests per event must be greater than 0"), one("-R -5", "Number of requests per event must be greater than 0"),
			one("-R x", "Number of requests per event must be greater than 0")}},
		{letter: 'C', shows: "cas_enabled no", works: func(t *testing.T, p *proc) {
			replies(t, p.addr, "set k 0 0 1\r\nv\r\ngets k\r\n", "STORED\r\nVALUE k 0 1 0\r\nv\r\nEND\r\n")
		}},
		{letter: 'b', value: "5", shows: "tcp_backlog 5", works: func(t *testing.T, p *proc) {
			backlog := func(p *proc) (n uint32) {
				onListener(t, p, func(fd int) {
					info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
					if err != nil {
						t.Fatal(err)
					}
					n = info.Sacked // of a listener: the length of its queue
				})
				return n
			}
			if n := backlog(p); n != 5 {
				t.Errorf("a queue of %d", n)
			}
			if n := backlog(startHearthd(t, "-b", "0")); n > 1 {
				t.Errorf("-b 0: a queue of %d", n)
			}
			if n, most := backlog(startHearthd(t, "-b", "-1")), backlog(startHearthd(t, "-b", "60000")); n != most || n < 100 {
				t.Errorf("-b -1: a queue of %d, want the system's most, %d", n, most)
			}
		}},
		{letter: 'B', value: "ascii", shows: "binding_protocol ascii", works: func(t *testing.T, p *proc) {
			noop := binaryPacket(0x0a, "", "")
			if got := exchange(t, p.addr, noop+"\r\nmn\r\n", "MN\r\n"); strings.Contains(got, "\x81") {
				t.Errorf("an ascii port answers %q", got)
			}
			p = startHearthd(t, "-B", "binary")
			replies(t, p.addr, noop, "\x81\x0a"+strings.Repeat("\x00", 22))
			if got := exchange(t, p.addr, "get a\r\nget a\r\nget a\r\nget a\r\n", ""); strings.Contains(got, "END") {
				t.Errorf("a binary port answers %q", got)
			}
			p = startHearthd(t, "-B", "auto")
			replies(t, p.addr, "mn\r\n", "MN\r\n")
			replies(t, p.addr, noop, "\x81\x0a"+strings.Repeat("\x00", 22))
			if got := settingsOf(t, p.addr)["binding_protocol"]; got != "auto-negotiate" {
				t.Errorf("auto: binding_protocol %s", got)
			}
		}, refusals: []refusal{
			usage("-B foo", "Invalid value for binding protocol: foo\n -- should be one of auto, binary, or ascii"), usage("-B ASCII", "Invalid value for binding protocol: ASCII\n -- should be one of auto, binary, or ascii"),
			usage(`-B ""`, "Invalid value for binding protocol: \n -- should be one of auto, binary, or ascii"),
		}},
		{letter: 'I', value: "2m", shows: "item_size_max 2097152", works: func(t *testing.T, p *proc) {
			store(t, p.addr, "k", strings.Repeat("v", 2_000_000))
			replies(t, p.addr, "set k 0 0 2097152\r\n"+strings.Repeat("v", 2097152)+"\r\nmn\r\n", "SERVER_ERROR object too large for cache\r\nMN\r\n")
			for value, want := range map[string]string{"512k": "524288", "512K": "524288", "3M": "3145728", "524288": "524288"} {
				if got := settingsOf(t, startHearthd(t, "-I", value).addr)["item_size_max"]; got != want {
					t.Errorf("-I %s: item_size_max %s, want %s", value, got, want)
				}
			}
		}, refusals: []refusal{usage("-I 1g", "Item max size cannot be less than 1024 bytes."), usage("-I x", "Item max size cannot be less than 1024 bytes.")}},
		{letter: 'S', works: nil, refusals: []refusal{
			usage("-S -B ascii", "ERROR: You cannot allow the ASCII protocol while using SASL."), usage("-S -B auto", "ERROR: You cannot allow the ASCII protocol while using SASL."),
			usage("-S -U 1", "ERROR: Cannot enable UDP while using binary SASL authentication."),
		}}, // what it does: TestEnvironment/MEMCACHED_SASL_PWDB
		{letter: 'F', shows: "flush_enabled no", works: func(t *testing.T, p *proc) {
			storedIn(t, p)
			replies(t, p.addr, "flush_all\r\nget k\r\n", "CLIENT_ERROR flush_all not allowed\r\nVALUE k 0 1\r\nv\r\nEND\r\n")
		}},
		{letter: 'X', shows: "dump_enabled no", works: func(t *testing.T, p *proc) {
			replies(t, p.addr, "stats cachedump 1 1\r\nstats detail on\r\n", "CLIENT_ERROR stats cachedump not allowed\r\nCLIENT_ERROR stats detail not allowed\r\n")
			replies(t, p.addr, "lru_crawler metadump all\r\n", "ERROR metadump not allowed\r\n")
			replies(t, p.addr, "lru_crawler mgdump all\r\n", "ERROR key dump not allowed\r\n")
		}},
		{letter: 'Y', value: usersHere, works: func(t *testing.T, p *proc) {
			replies(t, p.addr, "get a\r\nset x 0 0 8\r\nbob s3kr\r\nset x 0 0 9\r\nbob s3kr3\r\nget a\r\n",
				"CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR authentication failure\r\nSTORED\r\nEND\r\n")
			shown := rowsOf(t, exchange(t, p.addr, "set x 0 0 9\r\nbob s3kr3\r\nstats settings\r\n", "END\r\n"))
			if shown["auth_enabled_ascii"] != usersHere || shown["binding_protocol"] != "ascii" || shown["auth_enabled_sasl"] != "no" {
				t.Errorf("settings: %v", shown)
			}
		}, refusals: []refusal{
			one("-Y {dir}/none", "Could not open authfile [{dir}/none] for reading, error No such file or directory"),
			one("-Y "+usersBad, "Authfile ["+usersBad+"] has a malformed entry. Should be 'user:password'"),
			usage("-Y x -B binary", "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens."),
			usage("-Y x -U 1", "Cannot use UDP with ascii authentication enabled (-U 0 to disable)"),
		}},
		{letter: 'e', value: "{dir}/slab", shows: "memory_file {dir}/slab", works: func(t *testing.T, p *proc) {
			storedIn(t, p)
			p.stop(t, syscall.SIGKILL)
			p = startHearthd(t, p.cmd.Args[7:]...)
			if !holds(t, p.addr, "k", "v") {
				t.Errorf("not warm\n%s", p.stderr)
			}
			if got := settingsOf(t, startHearthd(t).addr)["memory_file"]; got != "(null)" {
				t.Errorf("without -e: memory_file %s", got)
			}
		}},
		{letter: 'o', value: "no_maxconns_fast,hashpower=20", more: "-o hashpower=21", shows: "maxconns_fast no, hashpower_init 21", works: storedIn,
			refusals: []refusal{one("-o foo", `Illegal suboption "foo"`), one("-o foo=1,modern", `Illegal suboption "foo=1"`), one("-o modern,,modern", `Illegal suboption ""`)}},
	}
}

// Files of users for -Y, relative to the package, where the tests run.
const (
	usersHere = "testdata/users"
	usersBad  = "testdata/users.bad"
)

// asksUDP has a UDP port answer.
func asksUDP(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "\x12\x34\x00\x00\x00\x01\x00\x00mn\r\n")
	buf := make([]byte, 100)
	if n, err := c.Read(buf); string(buf[:n]) != "\x12\x34\x00\x00\x00\x01\x00\x00MN\r\n" {
		t.Errorf("%s: %q, %v", addr, buf[:n], err)
	}
}
