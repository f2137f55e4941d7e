package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What a server is by default, to those who may reach it and its files. README's section on security names these tests, and those beside the code in question.

// Whatever the umask of who starts it, nobody else reads the cache's file, or connects to its unix socket.
func TestFileAndSocketAreTheOwnersAlone(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	file := newFile(t)
	sock := filepath.Join(filepath.Dir(file), "sock")
	p := startHearthd(t, "-e", file, "-s", sock)
	for path, want := range map[string]os.FileMode{file: 0o600, sock: 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, st.Mode(), err, want)
		}
	}
	p.stop(t, syscall.SIGTERM)
}

// inetLine is a line of /proc/net/tcp and udp, up to the inode.
var inetLine = regexp.MustCompile(`^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) \S+ \S+ \S+ +\d+ +\d+ (\d+) `)

// bound are the internet sockets of a process that strangers could send something to, as protocol and address.
func bound(t *testing.T, pid int) (all []string) {
	t.Helper()
	own := socketInodes(t, pid)
	const listening, unconnected = "0A", "07"
	for _, protocol := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, protocol))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if m := inetLine.FindStringSubmatch(line); m != nil && own[m[4]] && (m[3] == listening || m[3] == unconnected) {
				all = append(all, protocol+" "+m[1])
			}
		}
	}
	slices.Sort(all)
	return all
}

// No UDP, which answers forged senders, and no HTTP, unless asked for; no address but those that -l names.
func TestListensOnWhatItIsToldAndNothingElse(t *testing.T) {
	for flags, want := range map[string][]string{
		"":                            {"tcp 0100007F"},
		"-o http_listen=:0":           {"tcp 0100007F", "tcp 0100007F"},
		"-o http_listen=0.0.0.0:0":    {"tcp 00000000", "tcp 0100007F"},
		"-o http_listen=[::1]:0":      {"tcp 0100007F", "tcp6 00000000000000000000000001000000"},
		"-U -1":                       {"tcp 0100007F", "udp 0100007F"},
		"-s " + t.TempDir() + "/sock": nil,
	} {
		p := startHearthd(t, words(flags)...)
		if got := bound(t, p.cmd.Process.Pid); !slices.Equal(got, want) {
			t.Errorf("%q: listens on %q, want %q", flags, got, want)
		}
		p.stop(t, syscall.SIGTERM)
	}
}

// Commands that end the server or change what others see of it have to be allowed first; reading what others stored is what memcached allows, and -X, -W and -F forbid.
func TestCommandsThatMustBeAllowed(t *testing.T) {
	p := startHearthd(t, "-X", "-W", "-F")
	replies(t, p.addr, "shutdown\r\n", "SERVER_ERROR: shutdown not enabled\r\n")
	replies(t, p.addr, "debugtime 5\r\n", "ERROR\r\n")
	replies(t, p.addr, "flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n")
	replies(t, p.addr, "watch fetchers\r\n", "CLIENT_ERROR watch commands not allowed\r\n")
	replies(t, p.addr, "lru_crawler metadump all\r\n", "ERROR metadump not allowed\r\n")
	replies(t, p.addr, "stats cachedump 1 1\r\n", "CLIENT_ERROR stats cachedump not allowed\r\n")
}

// -u gives root up for good: no capability is left, on any thread.
func TestRootsPowersAreGone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give it up")
	}
	p := launchAs(t, func(c *exec.Cmd) { c.Dir = "/" }, "-u", "nobody", "-p", "-1", "-l", "127.0.0.1")
	if p.addr == "" {
		t.Fatalf("did not start\n%s", p.stderr)
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	seen := 0
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		seen++
		for _, set := range []string{"CapEff", "CapPrm"} {
			if !strings.Contains(string(status), set+":\t0000000000000000\n") {
				t.Errorf("%s: %s is not empty\n%s", task, set, status)
			}
		}
	}
	if seen < 4 {
		t.Errorf("%d threads were looked at", seen)
	}
}
