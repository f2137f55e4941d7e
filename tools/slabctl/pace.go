package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/restore"
)

// Beside a live server the tool works for a turn and rests, in turn. While it works, the kernel has some hundredths of the server's requests wait for its threads, however little
// the tool weighs. In a twentieth of the time these are too few to change the server's 99th percentile by much; a tenth was measured to make it 1.1 to 1.5 times as long. Turns of a
// few milliseconds were measured to be worse than no rests at all.
var (
	turn = 100 * time.Millisecond
	rest = 19 * turn
)

// turns is what the workers of a walk share: it holds when the turn began; who rests has taken it, so that the others wait for it.
type turns chan time.Time

func newTurns() turns {
	t := make(turns, 1)
	t <- time.Now()
	return t
}

// wait returns at once during a turn, otherwise after the rest, or when ctx is over.
func (t turns) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case began := <-t:
		if time.Since(began) >= turn {
			select {
			case <-ctx.Done():
			case <-time.After(rest):
			}
			began = time.Now()
		}
		t <- began
	}
}

// pace is what workers call before each step, where a server serves from one of the files that they read; nil: nothing.
func pace(c *cli.Context, files ...*restore.Inspected) func(context.Context) {
	if c.Bool("full-speed") || !slices.ContainsFunc(files, func(in *restore.Inspected) bool { return in.Server != "" }) {
		return nil
	}
	return newTurns().wait
}
