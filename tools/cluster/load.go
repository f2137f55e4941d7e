package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/urfave/cli/v2"
)

func loadCommand() *cli.Command {
	return &cli.Command{
		Name:  "load",
		Usage: "stores keys over all servers, and reads and rewrites them in rounds; what fails, is missing or wrong is told",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "servers", Value: "127.0.0.1:11211,127.0.0.1:11212,127.0.0.1:11213,127.0.0.1:11214", Usage: "of memcached's protocol, or one proxy"},
			&cli.IntFlag{Name: "keys", Value: 10_000},
			&cli.IntFlag{Name: "rounds", Usage: "0: until it is interrupted"},
			&cli.DurationFlag{Name: "timeout", Value: 20 * time.Second, Usage: "of a request"},
		},
		Action: func(c *cli.Context) error {
			client := memcache.New(strings.Split(c.String("servers"), ",")...)
			client.Timeout, client.MaxIdleConns = c.Duration("timeout"), askers
			defer client.Close()
			l := &load{client: client, keys: make([]known, c.Int("keys"))}
			return l.run(c.Context, c.Int("rounds"))
		},
	}
}

const (
	askers  = 8  // goroutines, each with one request under way at most
	rewrite = 10 // one in so many requests is a set
)

type load struct {
	client                *memcache.Client
	keys                  []known
	failed, missed, wrong atomic.Int64
}

// known is what may be stored under a key: the version that was acknowledged last, or one of those that were tried since and failed, since a failed
// request may have been carried out. Each key belongs to one asker.
type known struct{ acknowledged, tried int }

func (l *load) run(ctx context.Context, rounds int) error {
	if err := l.each(func(i int) error { return l.set(i) }); err != nil {
		return err
	}
	fmt.Printf("stored %d keys\n", len(l.keys))
	for round := 1; (rounds == 0 || round <= rounds) && ctx.Err() == nil; round++ {
		failed, missed, wrong := l.failed.Load(), l.missed.Load(), l.wrong.Load()
		l.each(func(i int) error {
			switch {
			case ctx.Err() != nil:
			case (i+round)%rewrite == 0:
				if err := l.set(i); err != nil {
					l.failed.Add(1)
					fmt.Printf("failed %s: %v\n", key(i), err)
				}
			default:
				l.get(i)
			}
			return nil
		})
		fmt.Printf("round %d: %d failed, %d missed, %d wrong\n", round, l.failed.Load()-failed, l.missed.Load()-missed, l.wrong.Load()-wrong)
	}
	if l.missed.Load() > 0 || l.wrong.Load() > 0 {
		return errors.New("keys were missed, or had a wrong value")
	}
	return nil
}

// each calls f for every key, and returns one of the errors.
func (l *load) each(f func(i int) error) error {
	errs := make([]error, askers)
	var wg sync.WaitGroup
	for a := range askers {
		wg.Go(func() {
			for i := a; i < len(l.keys); i += askers {
				if err := f(i); err != nil {
					errs[a] = fmt.Errorf("%s: %w", key(i), err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func key(i int) string { return fmt.Sprintf("key-%d", i) }

func value(i, version int) string { return fmt.Sprintf("%s version %d", key(i), version) }

func (l *load) set(i int) error {
	k := &l.keys[i]
	k.tried++
	err := l.client.Set(&memcache.Item{Key: key(i), Value: []byte(value(i, k.tried))})
	if err == nil {
		k.acknowledged = k.tried
	}
	return err
}

func (l *load) get(i int) {
	item, err := l.client.Get(key(i))
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		l.missed.Add(1)
		fmt.Printf("missed %s\n", key(i))
		return
	case err != nil:
		l.failed.Add(1)
		fmt.Printf("failed %s: %v\n", key(i), err)
		return
	}
	k := l.keys[i]
	for version := k.acknowledged; version <= k.tried; version++ {
		if string(item.Value) == value(i, version) {
			return
		}
	}
	l.wrong.Add(1)
	fmt.Printf("wrong %s: %q, want version %d to %d\n", key(i), item.Value, k.acknowledged, k.tried)
}
