package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// newLog is the server's log, a line for each event, as text or as JSON. What there is at which -v is the server's to say, and may change while it runs, so every level passes here.
func newLog(w io.Writer, json bool) (*slog.Logger, *calm) {
	o := &slog.HandlerOptions{Level: slog.LevelDebug}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if json {
		h = slog.NewJSONHandler(w, o)
	}
	c := &calm{Handler: h, calmState: &calmState{seen: map[string]*flood{}}}
	return slog.New(c), c
}

const (
	// calmLines of one message are written within calmTime; further ones are counted, and told of in one line at its end.
	calmLines = 10
	calmTime  = 10 * time.Second
)

// calm keeps the log from a flood: whoever can make the server log a line, a client with a bad certificate or a full disk, can do so thousands of times a second. Lines
// are told apart by their message, of which there are as many as the program has. Debug lines, which are there because somebody asked for each, all pass.
type calm struct {
	slog.Handler
	*calmState
}

type calmState struct {
	mu   sync.Mutex
	seen map[string]*flood // by message
}

// flood is what came of one message since its first line.
type flood struct {
	began  time.Time
	passed int
	held   int
	last   slog.Record // of those held
	timer  *time.Timer // ends it; nil while nothing is held
}

func (c *calm) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !c.pass(r) {
		return nil
	}
	return c.Handler.Handle(ctx, r)
}

// pass tells whether r is to be written, and counts it otherwise.
func (c *calm) pass(r slog.Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.seen[r.Message]
	if f == nil || f.held == 0 && time.Since(f.began) >= calmTime {
		f = &flood{began: time.Now()}
		c.seen[r.Message] = f
	}
	if f.passed < calmLines {
		f.passed++
		return true
	}
	f.held++
	f.last = r.Clone()
	if f.timer == nil {
		f.timer = time.AfterFunc(time.Until(f.began.Add(calmTime)), func() { c.sumUp(r.Message, f) })
	}
	return false
}

// sumUp ends a flood with a line that tells how many others there were; it has what the last of them had.
func (c *calm) sumUp(message string, f *flood) {
	c.mu.Lock()
	if c.seen[message] != f {
		c.mu.Unlock()
		return
	}
	delete(c.seen, message)
	c.mu.Unlock()
	r := f.last
	r.AddAttrs(slog.Int("like_this", f.held), slog.Duration("within", time.Since(f.began).Round(time.Millisecond)))
	c.Handler.Handle(context.Background(), r)
}

// flush sums up what is held, before the process ends.
func (c *calm) flush() {
	c.mu.Lock()
	var held []*flood
	for _, f := range c.seen {
		if f.held > 0 && f.timer.Stop() {
			held = append(held, f)
		}
	}
	c.mu.Unlock()
	for _, f := range held {
		c.sumUp(f.last.Message, f)
	}
}

func (c *calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &calm{c.Handler.WithAttrs(attrs), c.calmState}
}
func (c *calm) WithGroup(name string) slog.Handler {
	return &calm{c.Handler.WithGroup(name), c.calmState}
}
