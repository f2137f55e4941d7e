package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// prepare does to the process what the flags say, in memcached's order.
func prepare(c *config) error {
	if c.coreDumps {
		if err := allowCoreDumps(); err != nil {
			return err
		}
	}
	handshakes := 0
	if c.server.TLS != nil { // a connection has two descriptors until its handshake is over
		handshakes = c.server.MaxConns
	}
	if err := allowFiles(uint64(c.server.MaxConns), uint64(handshakes+2*c.server.Threads)); err != nil {
		return err
	}
	if err := becomeUser(c.user); err != nil {
		return err
	}
	if c.lockMemory {
		if err := lockMemory(); err != nil {
			fmt.Fprintf(os.Stderr, "warning: -k invalid, mlockall() failed: %s\n", cError(err))
		}
	}
	return nil
}

// allowCoreDumps raises the limit on core files, as far as it can be, and has the runtime abort on a fatal error.
func allowCoreDumps() error {
	var old, now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &old) == nil {
		if unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) != nil {
			unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: old.Max, Max: old.Max})
		}
	}
	if unix.Getrlimit(unix.RLIMIT_CORE, &now) != nil || now.Cur == 0 {
		return fail(exOSErr, "failed to ensure corefile creation")
	}
	debug.SetTraceback("crash")
	return nil
}

// allowFiles makes room for that many client connections. memcached's -c is a limit on descriptor numbers, and it sets the process's limit to
// just that. Here -c counts clients, so descriptors of our own come on top: two a worker, two for the acceptor, the slab file, the
// listeners. Only a limit that does not even hold the clients is fatal; when just the extra does not fit, the server copes with EMFILE.
func allowFiles(conns, more uint64) error {
	const own = 64
	want := conns + more + own
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fail(exOSErr, "failed to getrlimit number of files")
	}
	if lim.Cur >= want {
		return nil
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: max(want, lim.Max)}) == nil {
		return nil
	}
	if conns <= lim.Max && unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: lim.Max, Max: lim.Max}) == nil {
		return nil
	}
	return fail(exOSErr, "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.")
}

// becomeUser gives root up for good; for anybody else -u does nothing. The syscall package does it to all threads.
func becomeUser(name string) error {
	if os.Getuid() != 0 && os.Geteuid() != 0 {
		return nil
	}
	if name == "" {
		return fail(exUsage, "must add '-u root' to start as root")
	}
	u, err := user.Lookup(name)
	if err != nil {
		return fail(exNoUser, "can't find the user %s to switch to", name)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if err := errors.Join(errU, errG); err != nil {
		return fail(exNoUser, "can't find the user %s to switch to: %v", name, err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fail(exOSErr, "failed to drop supplementary groups: %s", cError(err))
	}
	if syscall.Setgid(gid) != nil || syscall.Setuid(uid) != nil {
		return fail(exOSErr, "failed to assume identity of user %s", name)
	}
	return nil
}

// thpSettings are where kernels tell whether there are huge pages.
var thpSettings = []string{"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/redhat_transparent_hugepage/enabled"}

// hugePagesHere returns an error unless the kernel gives huge pages to those who ask.
func hugePagesHere() error {
	why := "support not detected"
	for _, path := range thpSettings {
		setting, err := os.ReadFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil || len(setting) == 0:
			why = "could not read the configuration"
		case strings.Contains(string(setting), "[never]"):
			why = "support disabled"
		default:
			return nil
		}
		break
	}
	return fail(1, "Transparent huge pages %s.\nWill use default page size.\nCannot enable large pages on this system\n(There is no support as of this version)", why)
}

// cError is the system's message as C prints it, with a capital first letter.
func cError(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		s := errno.Error()
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return err.Error()
}

// daemonMark in the environment tells a process that it is the daemon. Its descriptor 3 is then a pipe to the process that was started at the
// terminal. A Go program cannot fork, so the daemon is the same program started again.
const daemonMark = "HEARTHD_DAEMON"

func isDaemon() bool { return os.Getenv(daemonMark) != "" }

// daemonize starts the daemon and returns the exit code for this process: 0 once the daemon serves, else its exit code. memcached returns
// at once and leaves a script to find out; here what goes wrong at the start is on the terminal.
func daemonize(c *config) int {
	r, w, err := os.Pipe()
	if err != nil {
		return exitCode(fail(exOSErr, "failed to daemon() in order to daemonize: %v", err))
	}
	cmd := exec.Command(c.program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), daemonMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !c.coreDumps { // cores are to be found where the server was started
		cmd.Dir = "/"
	}
	if err := cmd.Start(); err != nil {
		return exitCode(fail(exOSErr, "failed to daemon() in order to daemonize: %v", err))
	}
	w.Close()
	if n, _ := r.Read(make([]byte, 1)); n == 1 {
		return 0
	}
	err = cmd.Wait() // the pipe closed without a byte: it is dead or dying
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) && ee.ExitCode() > 0 {
		return ee.ExitCode()
	}
	return exOSErr
}

// startedDaemon lets the terminal go: the waiting process returns, and unless -v asks for output there is none from here on.
func startedDaemon(c *config) {
	if !c.daemon {
		return
	}
	os.Unsetenv(daemonMark)
	if c.verbosity == 0 {
		if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
			for fd := range 3 {
				duplicate(int(null.Fd()), fd)
			}
			null.Close()
		}
	}
	pipe := os.NewFile(3, "parent")
	pipe.Write([]byte{1})
	pipe.Close()
}

// onHangup has f called for each SIGHUP; without it the signal would end the process.
func onHangup(f func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	go func() {
		for range hup {
			f()
		}
	}()
}

// writePidFile writes the file under another name first, so that nobody ever reads half a pid. Trouble with it is told and no reason not to serve.
// alone: no other server is known of, so there should be none in the file.
func writePidFile(path string, alone bool) {
	if path == "" {
		return
	}
	if old, err := os.ReadFile(path); err == nil && alone {
		line, _, _ := strings.Cut(string(old), "\n")
		if pid, ok := safeStrtoul(line); ok && int(pid) > 0 && unix.Kill(int(pid), 0) == nil {
			fmt.Fprintf(os.Stderr, "WARNING: The pid file contained the following (running) pid: %d\n", pid)
		}
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o666); err != nil {
		fmt.Fprintf(os.Stderr, "Could not open the pid file %s for writing: %s\n", tmp, cError(err))
	} else if err := os.Rename(tmp, path); err != nil {
		fmt.Fprintf(os.Stderr, "Could not rename the pid file from %s to %s: %s\n", tmp, path, cError(err))
	}
}

func removePidFile(path string) {
	if path == "" {
		return
	}
	if err := os.Remove(path); err != nil {
		fmt.Fprintf(os.Stderr, "Could not remove the pid file %s: %s\n", path, cError(err))
	}
}

// writePortFile writes which ports were opened, in the format of memcached's own test suite; it is complete once it is there.
func writePortFile(path string, addrs []net.Addr) {
	if path == "" {
		return
	}
	var b strings.Builder
	for _, a := range addrs {
		if t, ok := a.(*net.TCPAddr); ok && t.IP.To4() != nil {
			fmt.Fprintf(&b, "TCP INET: %d\n", t.Port)
		} else if ok {
			fmt.Fprintf(&b, "TCP INET6: %d\n", t.Port)
		} else if u, ok := a.(*net.UDPAddr); ok && u.IP.To4() != nil {
			fmt.Fprintf(&b, "UDP INET: %d\n", u.Port)
		} else if ok {
			fmt.Fprintf(&b, "UDP INET6: %d\n", u.Port)
		}
	}
	tmp := path + ".lck"
	err := os.WriteFile(tmp, []byte(b.String()), 0o666)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "hearthd: write MEMCACHED_PORT_FILENAME %q: %v\n", path, err)
	}
}

// slabClasses is the table that memcached prints from -vv on.
func slabClasses(sizes []int) string {
	var b strings.Builder
	for i, size := range sizes {
		fmt.Fprintf(&b, "slab class %3d: chunk size %9d perslab %7d\n", i+1, size, slabPage/size)
	}
	return b.String()
}

func joinAddrs(addrs []net.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}

// exitCode prints what an *exit holds and returns its code; any other error is one that nobody foresaw.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if stop := (*exit)(nil); errors.As(err, &stop) {
		io.WriteString(os.Stdout, stop.stdout)
		io.WriteString(os.Stderr, stop.stderr)
		return stop.code
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// inLog makes err, if it ends the process, a line of the JSON log instead of memcached's text.
func inLog(err error) error {
	stop := (*exit)(nil)
	if !errors.As(err, &stop) {
		return err
	}
	log, _ := newLog(os.Stderr, true)
	log.Error("ended", "err", strings.TrimSpace(stop.stderr), "code", stop.code)
	return &exit{code: stop.code, stdout: stop.stdout}
}

// spareProcessors sees to it that Go's scheduler has an idle P however many workers run: beside theirs one for the keeper, and one that is idle. A
// worker that waits in epoll lends its P out only if there is no idle one; without one, on a machine or in a cgroup with no more processors than
// workers, the runtime's monitor wakes up every 20 us to take it from each that waits, which was a tenth of a pinned server's time. $GOMAXPROCS
// has precedence.
func spareProcessors(workers int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), workers+2))
	}
}
