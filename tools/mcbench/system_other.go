//go:build !linux || portable

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What Linux has of its own, for systems that lack it. On Linux this is built with -tags portable, to be tested.

const portable = true

// poller is poll, whose timeouts are of milliseconds, and so is the time of requests at a rate.
type poller struct {
	fds []unix.PollFd // by connection
	due time.Time     // zero: no alarm
}

type event struct {
	Fd     int32
	Events uint32
}

const canWrite = unix.POLLOUT

func newPoller() (*poller, error) { return &poller{}, nil }

func (p *poller) add(fd, n int) error {
	p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	return nil
}

func (p *poller) change(fd, n int, output bool) error {
	p.fds[n].Events = unix.POLLIN
	if output {
		p.fds[n].Events |= canWrite
	}
	return nil
}

func (p *poller) alarm(in int64) error {
	p.due = time.Now().Add(time.Duration(in))
	return nil
}

func (p *poller) wait(events []event, milliseconds int) (n int, err error) {
	if !p.due.IsZero() {
		milliseconds = max(min(milliseconds, int(time.Until(p.due)/time.Millisecond)+1), 0)
	}
	_, err = unix.Poll(p.fds, milliseconds)
	if !p.due.IsZero() && !time.Now().Before(p.due) {
		p.due = time.Time{}
		events[n] = event{Fd: -1}
		n++
	}
	for i, f := range p.fds {
		if f.Revents != 0 && err == nil {
			events[n] = event{int32(i), uint32(uint16(f.Revents))}
			n++
		}
	}
	return n, err
}

func (p *poller) close() {}

func endWithUs(*syscall.SysProcAttr) {}

// ps asks for what ps knows of the process.
func (p process) ps(column string) (string, error) {
	out, err := exec.Command("ps", "-o", column+"=", "-p", strconv.Itoa(int(p))).Output()
	return strings.TrimSpace(string(out)), err
}

// resident is the resident memory in bytes, the file's pages included.
func (p process) resident() int64 {
	text, _ := p.ps("rss")
	kb, _ := strconv.ParseInt(text, 10, 64)
	return kb << 10
}

// cpu is the processor time that all threads have used: [days-][hours:]minutes:seconds.
func (p process) cpu() (time.Duration, error) {
	if p == 0 {
		return 0, nil
	}
	text, err := p.ps("time")
	days, clock, has := strings.Cut(text, "-")
	if !has {
		days, clock = "0", text
	}
	seconds := 0.0
	for part := range strings.SplitSeq(clock, ":") {
		n, bad := strconv.ParseFloat(part, 64)
		seconds, err = 60*seconds+n, errors.Join(err, bad)
	}
	n, bad := strconv.Atoi(days)
	if err = errors.Join(err, bad); err != nil {
		return 0, fmt.Errorf("mcbench: processor time of pid %d: %w", p, err)
	}
	return time.Duration((float64(24*3600*n) + seconds) * float64(time.Second)), nil
}

// ownCPUs are not known, so that nothing is pinned.
func ownCPUs() (cpus, error) { return nil, nil }

func (on cpus) start(cmd *exec.Cmd) error {
	if len(on) > 0 {
		return fmt.Errorf("processors %v: this system does not bind processes to them", []int(on))
	}
	return cmd.Start()
}

func (on cpus) pin(process) error {
	if len(on) > 0 {
		return fmt.Errorf("mcbench: processors %v: this system does not bind processes to them", []int(on))
	}
	return nil
}
