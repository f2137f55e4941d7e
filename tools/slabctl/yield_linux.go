//go:build !portable

package main

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// autogroup is how much the process's session weighs, where the scheduler shares the processors out between sessions first; empty or missing where it does not.
const autogroup = "/proc/self/autogroup"

// longSlice is how long a thread may run before another is looked for, and the longest that the kernel takes: who wakes and asked for less takes the processor at once.
const longSlice = 100 * time.Millisecond

// yieldToServer leaves the server the processors: beside a live server the tool takes what time is left. A thread's priority does so within its session alone, and the
// server's is another one. So what is left of the run is a child's, in a session of its own, which gets the least weight; the shell's keeps its own. The priority alone would
// let a thread of the tool run on until the next tick of the clock while the server waits, so that its threads ask for long slices, too. SCHED_IDLE is no substitute: it does
// not reach beyond the session, and takes no slice.
var yieldToServer = sync.OnceFunc(func() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads { // those to come inherit it
		if id, err := strconv.Atoi(t.Name()); err == nil {
			batch := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: 19, Runtime: uint64(longSlice)}
			if unix.SchedSetAttr(id, &batch, 0) != nil {
				unix.Setpriority(unix.PRIO_PROCESS, id, 19) // failing, it is no less right
			}
		}
	}
	if session, err := unix.Getsid(0); err == nil && session == os.Getpid() {
		os.WriteFile(autogroup, []byte("19"), 0)
	} else if group, _ := os.ReadFile(autogroup); len(group) > 0 {
		becomeChild()
	}
})

// becomeChild has a child in a new session do what the process was to do, from the start, and ends with it; it returns where none can be started. Signals that end, stop
// or continue the process, as the terminal sends them, go to the child.
func becomeChild() {
	runtime.LockOSThread() // Pdeathsig tells of the end of the thread
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGTSTP, unix.SIGCONT} {
		if !signal.Ignored(s) { // as nohup has it
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	child := exec.Command("/proc/self/exe")
	child.Args, child.Stdin, child.Stdout, child.Stderr = os.Args, os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGTERM}
	if child.Start() != nil {
		return
	}
	go func() {
		for s := range signals {
			if s == unix.SIGTSTP {
				child.Process.Signal(unix.SIGSTOP)
				unix.Kill(os.Getpid(), unix.SIGSTOP)
			} else {
				child.Process.Signal(s)
			}
		}
	}()
	child.Wait()
	code := child.ProcessState.ExitCode()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		code = 128 + int(status.Signal()) // as a shell says it
	}
	os.Exit(code)
}
