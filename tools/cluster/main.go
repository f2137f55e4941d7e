// Command cluster is what growing past one machine looks like, on one: `cluster serve` starts four servers, and `cluster load` is a Go program that
// spreads its keys over them, as any client of memcached does; load.js is the same in Node, and nutcracker.yml puts a proxy, twemproxy, before the same four.
//
// The servers know nothing of each other: which one has a key is the client's affair, or the proxy's. So a server that restarts concerns its own keys
// only, and since it comes back warm, it comes back to the keys that clients go on asking it for.
//
// Its own promise: every value that load reads is one that was stored under that key, and the last one that was acknowledged; what is not is counted
// and named. A test in tools/clients kills a server under each of the three fronts.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	app := &cli.App{Name: "cluster", Usage: "several servers, and load over all of them", Commands: []*cli.Command{serveCommand(), loadCommand()}}
	err := app.RunContext(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}
