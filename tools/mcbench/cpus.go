package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpus are processors by number; none means wherever the scheduler likes.
type cpus []int

// maxCPU is the highest number that a unix.CPUSet holds.
const maxCPU = 1023

// parseCPUs reads a list as taskset takes it: 0-3,6.
func parseCPUs(list string) (cpus, error) {
	var on cpus
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(low)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(high)
		}
		if err != nil || from < 0 || to < from || to > maxCPU {
			return nil, fmt.Errorf("mcbench: processors %q: want numbers and ranges, as in 0-3,6", list)
		}
		for n := from; n <= to; n++ {
			on = append(on, n)
		}
	}
	return on, nil
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

// pinSelf is pin for mcbench, which then runs as many threads of Go at a time as there are processors.
func (on cpus) pinSelf() error {
	if len(on) == 0 {
		return nil
	}
	runtime.GOMAXPROCS(len(on))
	return on.pin(process(os.Getpid()))
}
