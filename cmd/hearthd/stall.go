//go:build faults

package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hearth/mmapslab/fault"
)

// For tests: HEARTHD_STALL names a point at which the process stands still, and says so; HEARTHD_HOLD one at which it does so until it is told to stop; HEARTHD_EXIT one at which it
// ends with an exit code that nothing else has; HEARTHD_PATIENCE replaces readyPatience and, behind a comma, takenPatience.
func init() {
	stall, hold, exit := os.Getenv("HEARTHD_STALL"), os.Getenv("HEARTHD_HOLD"), os.Getenv("HEARTHD_EXIT")
	if stall+hold+exit != "" {
		fault.Set(func(point string) {
			switch point {
			case stall, hold:
				told := make(chan os.Signal, 1) // nothing, at stall
				if point == hold {
					signal.Notify(told, unix.SIGTERM)
				}
				fmt.Fprintf(os.Stderr, "stalled at %s, pid %d\n", point, os.Getpid())
				<-told
				time.Sleep(50 * time.Millisecond) // the rest of the process hears it meanwhile
			case exit:
				os.Exit(99)
			}
		})
	}
	ready, taken, _ := strings.Cut(os.Getenv("HEARTHD_PATIENCE"), ",")
	if d, err := time.ParseDuration(ready); err == nil {
		readyPatience = d
	}
	if d, err := time.ParseDuration(taken); err == nil {
		takenPatience = d
	}
}
