package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
)

func replayCommand() *cli.Command {
	return &cli.Command{
		Name:         "replay",
		OnUsageError: oneLine,
		Usage:        "replay requests as a read-through cache does, and compare hit ratios",
		Description: "Each request is a get; a miss stores the value. Every server gets the same requests in the same order, on one connection. Of several rounds\n" +
			"the median counts: maintainers run on their own clocks, so that two runs differ a little.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "server", Usage: "command `LINE` of a server, {port} in it; several", Required: true},
			&cli.StringFlag{Name: "trace", Usage: "`FILE` with a line \"key size [ttl]\" a request, .gz or not"},
			&cli.Float64Flag{Name: "zipf", Usage: "make requests with this `SKEW` instead of reading a trace"},
			&cli.IntFlag{Name: "requests", Value: 1_000_000, Usage: "how many of them"},
			&cli.Uint64Flag{Name: "keys", Value: 500_000, Usage: "for how many keys"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "makes other requests"},
			&cli.IntFlag{Name: "scan-every", Usage: "after each `N` requests walk over keys that nobody asks for again"},
			&cli.IntFlag{Name: "scan-length", Value: 1000, Usage: "so many of them"},
			&cli.Float64Flag{Name: "short-share", Usage: "`SHARE` of the keys with a short TTL; the others get an hour"},
			&cli.IntFlag{Name: "short-ttl", Value: 5, Usage: "at most so many seconds"},
			&cli.DurationFlag{Name: "over", Usage: "spread the requests over this time, for TTLs to matter"},
			&cli.IntFlag{Name: "batch", Value: 1, Usage: "keys of one get"},
			&cli.IntFlag{Name: "rounds", Value: 1},
			&cli.BoolFlag{Name: "json"},
		},
		Action: func(c *cli.Context) error {
			if c.Int("rounds") < 1 || c.Int("batch") < 1 {
				return fmt.Errorf("mcbench: replay: --rounds %d --batch %d: want both above 0", c.Int("rounds"), c.Int("batch"))
			}
			rs, err := requestsOf(c)
			if err != nil {
				return err
			}
			pace := pacing{c.Int("batch"), c.Duration("over")}
			return compareReplays(c.App.Writer, c.StringSlice("server"), rs, pace, c.Int("rounds"), c.Bool("json"))
		},
	}
}

func requestsOf(c *cli.Context) (rs []request, err error) {
	switch {
	case c.IsSet("trace") == c.IsSet("zipf"):
		return nil, fmt.Errorf("mcbench: replay: want either --trace or --zipf")
	case c.IsSet("trace"):
		if rs, err = readTrace(c.String("trace")); err != nil {
			return nil, err
		}
	case c.Float64("zipf") <= 0 || c.Uint64("keys") == 0 || c.Int("requests") < 1:
		return nil, fmt.Errorf("mcbench: replay: --zipf %v --keys %d --requests %d: want all above 0", c.Float64("zipf"), c.Uint64("keys"), c.Int("requests"))
	default:
		rs = zipf(c.Uint64("seed"), c.Int("requests"), c.Uint64("keys"), c.Float64("zipf"))
	}
	if every := c.Int("scan-every"); every > 0 {
		rs = scans(rs, every, c.Int("scan-length"))
	}
	if share := c.Float64("short-share"); share > 0 {
		rs = shortTTLs(rs, share, c.Int("short-ttl"))
	}
	if len(rs) == 0 {
		return nil, fmt.Errorf("mcbench: replay: no requests")
	}
	return rs, nil
}

// pacing is how requests are sent.
type pacing struct {
	batch int           // keys of one get
	over  time.Duration // 0: as fast as it goes
}

// replayResult is what one server showed in one round, or the medians of several.
type replayResult struct {
	Server    string  `json:"server"`
	Requests  int     `json:"requests"`
	HitRatio  float64 `json:"hit_ratio"`
	Spread    float64 `json:"spread"` // of the hit ratio over the rounds: the largest minus the smallest
	Items     int64   `json:"items"`
	Evictions int64   `json:"evictions"`
	Refused   int     `json:"refused"` // stores that the server did not take
	Resident  int64   `json:"resident_bytes"`
}

func compareReplays(out io.Writer, servers []string, rs []request, pace pacing, rounds int, asJSON bool) error {
	all := make([][]replayResult, len(servers))
	for range rounds {
		for i, line := range servers {
			r, err := replayOn(line, rs, pace)
			if err != nil {
				return err
			}
			all[i] = append(all[i], r)
		}
	}
	results := make([]replayResult, len(servers))
	for i, rounds := range all {
		slices.SortFunc(rounds, func(a, b replayResult) int { return cmp.Compare(a.HitRatio, b.HitRatio) })
		results[i] = rounds[len(rounds)/2]
		results[i].Spread = rounds[len(rounds)-1].HitRatio - rounds[0].HitRatio
	}
	if asJSON {
		return json.NewEncoder(out).Encode(results)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "server\trequests\thit ratio %%\tspread\titems\tevictions\trefused\tVmRSS MB\t\n")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%d\t%d\t%d\t%d\t\n", r.Server, r.Requests, 100*r.HitRatio, 100*r.Spread, r.Items, r.Evictions, r.Refused, r.Resident>>20)
	}
	return t.Flush()
}

// replayOn replays rs on a fresh server.
func replayOn(line string, rs []request, pace pacing) (replayResult, error) {
	s, err := startServer(line, nil)
	if err != nil {
		return replayResult{}, err
	}
	defer s.stop()
	c, err := dial(s.addr)
	if err != nil {
		return replayResult{}, err
	}
	defer c.Close()
	hits, refused, err := c.replay(rs, pace)
	if err != nil {
		return replayResult{}, fmt.Errorf("mcbench: replay on %s: %w", s.name, err)
	}
	stats, err := c.stats("")
	if err != nil {
		return replayResult{}, err
	}
	number := func(name string) int64 { n, _ := strconv.ParseInt(stats[name], 10, 64); return n }
	return replayResult{Server: s.name, Requests: len(rs), HitRatio: float64(hits) / float64(len(rs)), Items: number("curr_items"),
		Evictions: number("evictions"), Refused: refused, Resident: s.resident()}, nil
}

// replay sends gets of pace.batch keys, each followed by sets of what was not there.
func (c *client) replay(rs []request, pace pacing) (hits, refused int, err error) {
	began, total := time.Now(), len(rs)
	var value []byte
	here := map[string]bool{}
	for len(rs) > 0 {
		batch := rs[:min(pace.batch, len(rs))]
		if pace.over > 0 {
			time.Sleep(time.Until(began.Add(pace.over * time.Duration(total-len(rs)) / time.Duration(total))))
		}
		rs = rs[len(batch):]
		c.w.WriteString("get")
		for _, r := range batch {
			c.w.WriteByte(' ')
			c.w.WriteString(r.key)
		}
		c.w.WriteString("\r\n")
		if err := c.flush(); err != nil {
			return hits, refused, err
		}
		clear(here)
		if err := c.values(here, &value); err != nil {
			return hits, refused, err
		}
		sets := 0
		for _, r := range batch {
			if here[r.key] {
				hits++
				continue
			}
			here[r.key] = true // a second request of this key in the batch is a hit
			fmt.Fprintf(c.w, "set %s 0 %d %d\r\n", r.key, r.ttl, r.size)
			value = appendValue(value[:0], []byte(r.key), r.size)
			c.w.Write(value)
			c.w.WriteString("\r\n")
			sets++
		}
		if sets == 0 {
			continue
		}
		if err := c.flush(); err != nil {
			return hits, refused, err
		}
		for range sets {
			line, err := c.line()
			if err != nil {
				return hits, refused, err
			}
			if string(line) != "STORED" {
				refused++
			}
		}
	}
	return hits, refused, nil
}

// values reads the reply to a get and notes which keys are there. A value that is not its key's is an error.
func (c *client) values(here map[string]bool, buf *[]byte) error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		if string(line) == "END" {
			return nil
		}
		words := strings.Fields(string(line))
		if len(words) != 4 || words[0] != "VALUE" {
			return fmt.Errorf("got %q, want VALUE or END", line)
		}
		size, err := strconv.Atoi(words[3])
		if err != nil || size < 0 {
			return fmt.Errorf("got %q, want a size", line)
		}
		*buf = slices.Grow((*buf)[:0], size+2)[:size+2]
		if _, err := io.ReadFull(c.r, *buf); err != nil {
			return err
		}
		if !isValue((*buf)[:size], []byte(words[1])) {
			return fmt.Errorf("wrong bytes under key %q", words[1])
		}
		here[words[1]] = true
	}
}
