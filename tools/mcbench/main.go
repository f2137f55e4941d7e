package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
)

func main() {
	if err := app().Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:      "mcbench",
		Usage:     "load for memcached servers, and what it shows of them, side by side",
		Commands:  []*cli.Command{replayCommand()},
		HideHelp:  false,
		ErrWriter: os.Stderr,
	}
}
