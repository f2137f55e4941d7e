package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filteredEnv has the test's program run another one that may make these system calls and no others.
const filteredEnv = "HEARTHD_TEST_SYSTEM_CALLS"

// beFiltered runs os.Args[1:] behind the filter.
func beFiltered(numbers string) int {
	const load, equal, end = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{{Code: load, K: 0}} // seccomp_data.nr
	for number := range strings.FieldsSeq(numbers) {
		n, err := strconv.Atoi(number)
		if err != nil {
			panic(err)
		}
		filter = append(filter, unix.SockFilter{Code: equal, Jf: 1, K: uint32(n)}, unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW})
	}
	filter = append(filter, unix.SockFilter{Code: end, K: unix.SECCOMP_RET_KILL_PROCESS})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	os.Unsetenv(filteredEnv)
	runtime.LockOSThread() // it is the thread's, and then that of the program which takes its place
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	if err == nil {
		err = unix.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// unitsSystemCalls are the numbers of the system calls that the unit's SystemCallFilter= allows, by name.
func unitsSystemCalls(t *testing.T) map[string]string {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (apt-get install systemd)")
	}
	header, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skip("no list of the system calls of amd64 (apt-get install linux-libc-dev)")
	}
	unit, err := os.ReadFile("../../tools/systemd/hearthd.service")
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^SystemCallFilter=(@[\w@ -]+)$`).FindSubmatch(unit)
	if setting == nil {
		t.Fatal("the unit has no SystemCallFilter= of groups")
	}
	known := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`).FindAllSubmatch(header, -1) {
		known[string(m[1])] = string(m[2])
	}
	allowed := map[string]string{}
	for groups := strings.Fields(string(setting[1])); len(groups) > 0; groups = groups[1:] {
		out, err := exec.Command(analyze, "syscall-filter", groups[0]).Output()
		if err != nil {
			t.Fatalf("systemd-analyze syscall-filter %s: %v", groups[0], err)
		}
		for _, word := range strings.Fields(regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(string(out), ""))[1:] {
			if strings.HasPrefix(word, "@") {
				groups = append(groups, word)
			} else if number, ok := known[word]; ok {
				allowed[word] = number
			}
		}
	}
	return allowed
}

// The unit's filter allows all that a server does: to start cold, warm and after a kill, to give root up, to serve, to hand over, and to stop.
func TestServesBehindTheUnitsFilterOfSystemCalls(t *testing.T) {
	allowed := unitsSystemCalls(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := newFile(t)
	start := func(args ...string) *proc {
		t.Helper()
		var numbers []string
		for _, number := range allowed {
			numbers = append(numbers, number)
		}
		return launchAs(t, func(c *exec.Cmd) {
			c.Path, c.Args = self, append([]string{self}, c.Args...)
			c.Env = append(os.Environ(), filteredEnv+"="+strings.Join(numbers, " "))
		}, append([]string{"-u", me(), "-p", "-1", "-U", "-1", "-l", "127.0.0.1", "-m", "64", "-e", path, "-o", "http_listen=:0"}, args...)...)
	}
	p := start("-k")
	store(t, p.addr, "k", "v")
	if code, text := p.page(t, "/metrics"); code != 200 || !strings.Contains(text, "memcached_up 1") {
		t.Errorf("/metrics: %d", code)
	}
	p.stop(t, syscall.SIGKILL)
	p = start("-vv")
	if kind := stat(t, p.addr, "restart_kind"); kind != "unclean" || !holds(t, p.addr, "k", "v") {
		t.Errorf("after a kill the start is %s", kind)
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	if !portable {
		pid := stat(t, p.addr, "pid")
		p.cmd.Process.Signal(syscall.SIGUSR2)
		for limit := time.Now().Add(patience); stat(t, p.addr, "pid") == pid && time.Now().Before(limit); {
			time.Sleep(10 * time.Millisecond)
		}
		next, _ := strconv.Atoi(stat(t, p.addr, "pid"))
		if !holds(t, p.addr, "k", "v") || fmt.Sprint(next) == pid {
			t.Errorf("no hand-over, or without the value\n%s", p.stderr)
		}
		syscall.Kill(next, syscall.SIGTERM)
		if code := p.wait(t); code != 0 { // when neither has its stderr any more
			t.Errorf("the server that handed over ended with %d\n%s", code, p.stderr)
		}
	} else if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
	p = start()
	if kind := stat(t, p.addr, "restart_kind"); kind != "clean" {
		t.Errorf("after a stop the start is %s", kind)
	}
	p.stop(t, syscall.SIGTERM)

	// Without one that it needs it does not get that far.
	delete(allowed, "flock")
	p = start()
	p.wait(t)
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGSYS {
		t.Errorf("without flock it ends with %v, want SIGSYS", status)
	}
	for _, name := range []string{"ptrace", "mount", "bpf", "kexec_load", "init_module", "reboot"} {
		if _, ok := allowed[name]; ok {
			t.Errorf("the filter allows %s", name)
		}
	}
}
