// Package container_test runs the image's root filesystem as a container would be run, without a daemon: in namespaces of its own, read-only, by a user that is
// not root, as process 1, with a directory of the host's ram disk as the cache's place. It needs root to set that up.
package container_test

import (
	"bufio"
	"fmt"
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

// patience bounds every wait for an event: it is not a time that something is expected to take.
const patience = 60 * time.Second

// container is a running one.
type container struct {
	cmd   *exec.Cmd
	addr  string
	log   *strings.Builder // complete when ended is closed
	ended chan struct{}
}

var started = regexp.MustCompile(`msg=started addr=(\S+) pid=(\d+)`)

// start runs the image in new namespaces. The shell inside is where mounts are made that nobody else sees; unshare makes the processes' namespace, whose
// process 1 becomes the user and the server.
func start(t *testing.T, image, volume string) *container {
	t.Helper()
	c := &container{log: new(strings.Builder), ended: make(chan struct{})}
	c.cmd = exec.Command("unshare", "--mount", "--ipc", "--uts", "sh", "-ec", `
		mount --bind "$1" "$1"
		mount --bind "$2" "$1/cache"
		mount -o remount,ro,bind "$1"
		exec unshare --pid --fork --kill-child --mount-proc="$1/proc" chroot --userspec=65532:65532 "$1" /hearthd -e /cache/slab -m 64 -l 127.0.0.1 -p -1`, "sh", image, volume)
	out, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(c.log, lines.Text())
			if m := started.FindStringSubmatch(lines.Text()); m != nil {
				if m[2] != "1" {
					m[1] = "" // is not process 1
				}
				serving <- m[1]
			}
		}
		c.cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		c.cmd.Process.Kill() // and with it, by --kill-child, the server
		<-c.ended
	})
	select {
	case c.addr = <-serving:
	case <-c.ended:
		t.Fatalf("the container ended: %v\n%s", c.cmd.ProcessState, c.log)
	case <-time.After(patience):
		t.Fatal("the container does not serve")
	}
	if c.addr == "" {
		t.Fatalf("the server is not process 1 of its container")
	}
	return c
}

// server is the server's pid outside: the only child of unshare.
func (c *container) server(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.cmd.Process.Pid))
	var pid int
	if _, scan := fmt.Sscan(string(text), &pid); err != nil || scan != nil {
		t.Fatalf("children of unshare: %q, %v", text, err)
	}
	return pid
}

func (c *container) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(c.server(t), sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatalf("the container has not ended after %v", sig)
	}
}

// ask sends lines and returns all that is answered.
func (c *container) ask(t *testing.T, lines ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "%s\r\nquit\r\n", strings.Join(lines, "\r\n"))
	var reply strings.Builder
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		reply.WriteString(line)
		if err != nil {
			return reply.String()
		}
	}
}

func TestReplacedContainerIsWarmWhileItsVolumeStays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces and another user take root")
	}
	program := filepath.Join(t.TempDir(), "hearthd")
	build := exec.Command("go", "build", "-o", program, "hearth/cmd/hearthd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	image := func() string {
		dir, err := os.MkdirTemp("", "hearth-image") // not below t.TempDir, whose parents are closed to other users
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		command := []string{"./rootfs", dir, program}
		if os.Getenv("HEARTH_LONG") != "" {
			command = command[:2] // the one that is released
		}
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "proc"), 0o755); err != nil { // where a container's runtime mounts it
			t.Fatal(err)
		}
		return dir
	}
	volume, err := os.MkdirTemp("/dev/shm", "hearth-volume")
	if err != nil {
		t.Skipf("no ram disk: %v", err)
	}
	defer os.RemoveAll(volume)
	if err := os.Chown(volume, 65532, 65532); err != nil {
		t.Fatal(err)
	}

	c := start(t, image(), volume)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.server(t)))
	if err != nil || !strings.Contains(string(status), "Uid:\t65532\t65532\t65532\t65532\n") {
		t.Errorf("the server's user: %v\n%s", err, status)
	}
	if got := c.ask(t, "set k 7 0 5", "value", "set gone 0 0 1", "x", "delete gone"); got != "STORED\r\nSTORED\r\nDELETED\r\n" {
		t.Fatalf("%q", got)
	}
	// Every replacement has an image of its own; what stays is the volume. Each server is process 1, as the last one was.
	for _, replacement := range []struct {
		sig  syscall.Signal
		kind string
	}{{syscall.SIGTERM, "clean"}, {syscall.SIGKILL, "unclean"}, {syscall.SIGTERM, "clean"}} {
		c.end(t, replacement.sig)
		c = start(t, image(), volume)
		if got := c.ask(t, "get k gone"); got != "VALUE k 7 5\r\nvalue\r\nEND\r\n" {
			t.Errorf("after %v: %q", replacement.sig, got)
		}
		if got := c.ask(t, "stats"); !strings.Contains(got, "STAT restart_kind "+replacement.kind+"\r\n") {
			t.Errorf("after %v, want restart_kind %s\n%s", replacement.sig, replacement.kind, c.log)
		}
	}
	c.end(t, syscall.SIGTERM)
	if c.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("exit code %d\n%s", c.cmd.ProcessState.ExitCode(), c.log)
	}
}

// The files for compose and Kubernetes are read by their own code, which is a module of its own and much to compile.
func TestFilesAreReadAsMeant(t *testing.T) {
	if os.Getenv("HEARTH_LONG") == "" {
		t.Skip("fetches and compiles compose's and Kubernetes' code; set HEARTH_LONG=1")
	}
	cmd := exec.Command("go", "test", "-count=1", "-v", "./...")
	cmd.Dir = "validate"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
