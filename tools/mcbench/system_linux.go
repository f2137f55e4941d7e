//go:build !portable

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const portable = false // for tests

// poller is an epoll instance, and a timer in it.
type poller struct{ epoll, timer int }

// event has the number of a connection in Fd; below 0 it is the timer.
type event = unix.EpollEvent

const canWrite = unix.EPOLLOUT

func newPoller() (*poller, error) {
	p := &poller{timer: -1}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err == nil {
		// Edge-triggered: it tells once that it fired, and need not be read.
		err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.timer, &event{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1})
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("timer: %w", err)
	}
	return p, nil
}

func (p *poller) ctl(op, fd, n int, events uint32) error {
	if err := unix.EpollCtl(p.epoll, op, fd, &event{Events: events, Fd: int32(n)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// add waits for input at a descriptor, the n-th.
func (p *poller) add(fd, n int) error { return p.ctl(unix.EPOLL_CTL_ADD, fd, n, unix.EPOLLIN) }

// change waits for room for output, too, or no longer.
func (p *poller) change(fd, n int, output bool) error {
	events := uint32(unix.EPOLLIN)
	if output {
		events |= canWrite
	}
	return p.ctl(unix.EPOLL_CTL_MOD, fd, n, events)
}

// alarm has wait return in so many nanoseconds.
func (p *poller) alarm(in int64) error {
	return unix.TimerfdSettime(p.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(in)}, nil)
}

func (p *poller) wait(events []event, milliseconds int) (int, error) {
	return unix.EpollWait(p.epoll, events, milliseconds)
}

func (p *poller) close() {
	unix.Close(p.epoll)
	unix.Close(p.timer)
}

// endWithUs: who ends mcbench the hard way leaves no server behind. The signal comes when the thread ends that started the server: Go's live as long as the process.
func endWithUs(child *syscall.SysProcAttr) { child.Pdeathsig = syscall.SIGKILL }

// resident is the resident memory in bytes, the file's pages included.
func (p process) resident() int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(words[0], 10, 64)
	return kb << 10
}

// cpu is the processor time that all threads have used. The process's own clock has nanoseconds, /proc/PID/stat hundredths of a second.
func (p process) cpu() (time.Duration, error) {
	if p == 0 {
		return 0, nil
	}
	const scheduler = 2 // CPUCLOCK_SCHED of the kernel's include/linux/posix-timers.h; the other bits are the pid, inverted
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p<<3|scheduler), &t); err != nil {
		return 0, fmt.Errorf("mcbench: processor time of pid %d: %w", p, err)
	}
	return time.Duration(t.Nano()), nil
}

// ownCPUs are those that mcbench may run on.
func ownCPUs() (cpus, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("mcbench: processors: %w", err)
	}
	var on cpus
	for n := 0; len(on) < set.Count(); n++ {
		if set.IsSet(n) {
			on = append(on, n)
		}
	}
	return on, nil
}

func (on cpus) set() *unix.CPUSet {
	var set unix.CPUSet
	for _, n := range on {
		set.Set(n)
	}
	return &set
}

// start starts a program on these processors: a child has those of the thread that makes it, and so have all its threads from the first on.
func (on cpus) start(cmd *exec.Cmd) error {
	if len(on) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, on.set()); err != nil {
		return fmt.Errorf("processors %v: %w", []int(on), err)
	}
	defer unix.SchedSetaffinity(0, &before)
	return cmd.Start()
}

// pin moves all threads of a process to these processors. New threads have those of the one that makes them, so it is done when a look finds nothing new.
func (on cpus) pin(pid process) error {
	if len(on) == 0 {
		return nil
	}
	for seen := map[string]bool{}; ; {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("mcbench: processors %v: no threads of pid %d", []int(on), pid)
		}
		fresh := false
		for _, path := range threads {
			if seen[path] {
				continue
			}
			seen[path], fresh = true, true
			thread, err := strconv.Atoi(filepath.Base(path))
			if err == nil {
				err = unix.SchedSetaffinity(thread, on.set())
			}
			if err != nil && err != unix.ESRCH { // ended meanwhile
				return fmt.Errorf("mcbench: processors %v for pid %d: %w", []int(on), pid, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}
