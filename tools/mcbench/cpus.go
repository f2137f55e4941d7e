package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
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

// pinSelf is pin for mcbench, which then runs as many threads of Go at a time as there are processors.
func (on cpus) pinSelf() error {
	if len(on) == 0 {
		return nil
	}
	runtime.GOMAXPROCS(len(on))
	return on.pin(process(os.Getpid()))
}
