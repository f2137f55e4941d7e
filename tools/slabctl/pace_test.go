package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/restore"
)

// Workers that share turns work a twentieth of the time, all at the same time, and rest no longer than they have to when they are told to end.
func TestWorkersRestMostOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step, workers = 3 * time.Millisecond, 4
		ctx, cancel := context.WithCancel(t.Context())
		began, shared := time.Now(), newTurns()
		worked, done := make([]time.Duration, workers), make(chan struct{})
		for worker := range worked {
			go func() {
				defer func() { done <- struct{}{} }()
				for {
					shared.wait(ctx)
					if ctx.Err() != nil {
						return
					}
					if at := time.Since(began) % (turn + rest); at > turn+20*step {
						t.Errorf("worker %d works %v after the beginning of a turn", worker, at)
					}
					time.Sleep(step)
					worked[worker] += step
				}
			}()
		}
		time.Sleep(10*(turn+rest) - rest/2)
		canceled := time.Now()
		cancel()
		for range worked {
			<-done
		}
		if took := time.Since(canceled); took > step {
			t.Errorf("workers that rest end after %v", took)
		}
		for worker, sum := range worked {
			if sum < 10*turn || sum > 10*turn+20*step {
				t.Errorf("worker %d worked %v in 10 turns of %v", worker, sum, turn)
			}
		}
	})
}

// Work is paced where a server serves from one of the files, unless it is to be done at full speed.
func TestPaceIsForLiveFiles(t *testing.T) {
	live, other := &restore.Inspected{Server: "1"}, &restore.Inspected{}
	for _, c := range []struct {
		args  []string
		files []*restore.Inspected
		paced bool
	}{
		{nil, []*restore.Inspected{other, other}, false},
		{nil, []*restore.Inspected{live}, true},
		{nil, []*restore.Inspected{other, live}, true},
		{[]string{"--full-speed"}, []*restore.Inspected{live}, false},
	} {
		a := app()
		a.Action = func(ctx *cli.Context) error {
			if paced := pace(ctx, c.files...) != nil; paced != c.paced {
				t.Errorf("%v %+v: paced: %t", c.args, c.files, paced)
			}
			return nil
		}
		if err := a.Run(append([]string{"slabctl"}, c.args...)); err != nil {
			t.Error(err)
		}
	}
}
