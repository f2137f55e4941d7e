package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s := <-signals
		stopAll()
		fmt.Fprintln(os.Stderr, "mcbench:", s)
		os.Exit(1)
	}()
	if err := app().Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:         "mcbench",
		Usage:        "load for memcached servers, and what it shows of them, side by side",
		Commands:     []*cli.Command{runCommand(), compareCommand(), replayCommand()},
		ErrWriter:    os.Stderr,
		OnUsageError: oneLine,
	}
}

// oneLine refuses a bad flag without the page of help that cli prints around it.
func oneLine(c *cli.Context, err error, _ bool) error {
	return fmt.Errorf("mcbench: %w; see %s -h", err, c.App.Name)
}
