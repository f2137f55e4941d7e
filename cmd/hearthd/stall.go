//go:build faults

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"hearth/mmapslab/fault"
)

// For tests: HEARTHD_STALL names a point at which the process stands still, and says so; HEARTHD_EXIT one at which it ends with an exit code that nothing else
// has; HEARTHD_PATIENCE replaces readyPatience and, behind a comma, takenPatience.
func init() {
	stall, exit := os.Getenv("HEARTHD_STALL"), os.Getenv("HEARTHD_EXIT")
	if stall != "" || exit != "" {
		fault.Set(func(point string) {
			switch point {
			case stall:
				fmt.Fprintf(os.Stderr, "stalled at %s, pid %d\n", point, os.Getpid())
				select {}
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
