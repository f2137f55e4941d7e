package main

import (
	"fmt"
	"strings"
	"time"
)

// upkeepEvery is how often startUpkeep asks.
const upkeepEvery = time.Second

// startUpkeep asks the server for a crawl of all its items, and for a page of any class for the next class in turn, every second until it is told to end; then it
// tells what went wrong. That a server is busy with the last one, or has no page to spare, is no error: it is the work that counts, not how often it begins.
func startUpkeep(addr string) (end func() error) {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- upkeep(addr, stop) }()
	return func() error {
		close(stop)
		return <-ended
	}
}

func upkeep(addr string, stop <-chan struct{}) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	for class := 1; ; class = class%30 + 1 {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		fmt.Fprintf(c.w, "lru_crawler crawl all\r\nslabs reassign -1 %d\r\n", class)
		if err := c.flush(); err != nil {
			return fmt.Errorf("mcbench: upkeep: %w", err)
		}
		for range 2 {
			line, err := c.line()
			if err != nil {
				return fmt.Errorf("mcbench: upkeep: %w", err)
			}
			switch answer, _, _ := strings.Cut(string(line), " "); answer {
			case "OK", "BUSY", "NOSPARE", "NOTFULL", "SAME", "BADCLASS":
			default:
				return fmt.Errorf("mcbench: upkeep: got %q", line)
			}
		}
	}
}
