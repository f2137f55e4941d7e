package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// presets are the loads behind the claims: flags in place of their defaults. What is given on the command line wins.
var presets = map[string]map[string]string{
	"single":      {},
	"pipeline16":  {"pipeline": "16"},
	"multiget100": {"multiget": "100", "sets": "0"},
	"sets16":      {"pipeline": "16", "sets": "100"},
	"large":       {"size": "102400", "keys": "4000"},
	"large10k":    {"size": "10240", "keys": "50000", "sets": "0"},
	"meta16":      {"pipeline": "16", "protocol": "meta"},
	"binaryq":     {"multiget": "100", "sets": "0", "protocol": "binary"},
	"keys20m":     {"multiget": "100", "sets": "0", "keys": "20000000", "memory": "6144"},
	"workers2":    {"pipeline": "16", "workers": "2", "threads": "2", "conns": "100"},
	"latency":     {"peak": "50"},
	"maintenance": {"fill": "false", "keys": "3000000", "sets": "50", "size": "mixed", "ttl": "5-60", "zipf": "0.9", "rate": "20000", "duration": "1m", "upkeep": "true", "memory": "256"},
}

func presetNames() string {
	var names []string
	for name := range presets {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// loadFlags are those of run and compare. Their defaults are the preset single.
func loadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "preset", Usage: "a load by its `NAME`: " + presetNames()},
		&cli.StringFlag{Name: "protocol", Value: "text", Usage: "text, meta or binary"},
		&cli.IntFlag{Name: "conns", Value: 50, Usage: "connections"},
		&cli.IntFlag{Name: "threads", Value: 1, Usage: "that send and receive"},
		&cli.IntFlag{Name: "pipeline", Value: 1, Usage: "requests sent at once on a connection"},
		&cli.IntFlag{Name: "multiget", Value: 1, Usage: "keys of a get; quiet gets in meta and binary"},
		&cli.Float64Flag{Name: "sets", Value: 10, Usage: "`PERCENT` of the requests"},
		&cli.Float64Flag{Name: "deletes", Usage: "`PERCENT` of the requests"},
		&cli.Uint64Flag{Name: "keys", Value: 200_000, Usage: "how many different ones"},
		&cli.IntFlag{Name: "key-length", Value: 16, Usage: "bytes"},
		&cli.Float64Flag{Name: "zipf", Usage: "draw keys with this `SKEW`; 0: all alike"},
		&cli.StringFlag{Name: "size", Value: "100", Usage: "`BYTES` of a value, LOW-HIGH, SIZE:WEIGHT,SIZE:WEIGHT... or mixed"},
		&cli.StringFlag{Name: "ttl", Value: "0", Usage: "`SECONDS` or LOW-HIGH"},
		&cli.BoolFlag{Name: "fill", Value: true, Usage: "set every key first"},
		&cli.DurationFlag{Name: "warm-up", Value: time.Second, Usage: "load that does not count"},
		&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "load that counts; with --requests the first of the two ends it"},
		&cli.Int64Flag{Name: "requests", Usage: "load that counts, as a number of requests"},
		&cli.Float64Flag{Name: "rate", Usage: "`REQUESTS` a second, whatever the server does; latencies count from the time a request was to be sent; 0: as fast as answers come"},
		&cli.BoolFlag{Name: "upkeep", Usage: "ask the server for a crawl of all items and a page move every second meanwhile"},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "of an answer"},
		&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "makes other requests"},
		&cli.BoolFlag{Name: "json"},
	}
}

func loadOf(c *cli.Context) (*load, error) {
	if name := c.String("preset"); name != "" {
		preset, ok := presets[name]
		if !ok {
			return nil, fmt.Errorf("mcbench: --preset %q: want one of %s", name, presetNames())
		}
		for flag, value := range preset {
			if !slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == flag }) {
				continue // compare's alone
			}
			if !c.IsSet(flag) {
				if err := c.Set(flag, value); err != nil {
					return nil, err
				}
			}
		}
	}
	l := &load{Protocol: c.String("protocol"), Conns: c.Int("conns"), Threads: c.Int("threads"), Pipeline: c.Int("pipeline"), Multiget: c.Int("multiget"),
		Sets: c.Float64("sets"), Deletes: c.Float64("deletes"), Keys: c.Uint64("keys"), KeyLen: c.Int("key-length"), Zipf: c.Float64("zipf"),
		Size: c.String("size"), TTL: c.String("ttl"), Fill: c.Bool("fill"), WarmUp: c.Duration("warm-up"), Duration: c.Duration("duration"),
		Requests: c.Int64("requests"), Rate: c.Float64("rate"), Timeout: c.Duration("timeout"), Upkeep: c.Bool("upkeep"), Seed: c.Uint64("seed")}
	return l, l.validate()
}

// validate names the flag that is wrong.
func (l *load) validate() error {
	const maxConns, maxThreads, maxPipeline, maxMultiget, maxKey = 100_000, 1024, 100_000, 10_000, 250
	const maxKeys = 1 << 40 // far more than any server holds, and no sum overflows
	for _, n := range []struct {
		flag      string
		got       int64
		low, high int64
	}{
		{"conns", int64(l.Conns), 1, maxConns},
		{"threads", int64(l.Threads), 1, int64(min(l.Conns, maxThreads))},
		{"pipeline", int64(l.Pipeline), 1, maxPipeline},
		{"multiget", int64(l.Multiget), 1, maxMultiget},
		{"keys", int64(min(l.Keys, maxKeys+1)), 1, maxKeys},
		{"key-length", int64(l.KeyLen), int64(minKeyLength(l.Keys)), maxKey},
		{"requests", l.Requests, 0, 1 << 62},
	} {
		if n.got < n.low || n.got > n.high {
			return fmt.Errorf("mcbench: --%s %d: want %d to %d", n.flag, n.got, n.low, n.high)
		}
	}
	switch {
	case !(l.Sets >= 0 && l.Deletes >= 0 && l.Sets+l.Deletes <= 100):
		return fmt.Errorf("mcbench: --sets %v --deletes %v: want percents, 100 together at most", l.Sets, l.Deletes)
	case !(l.Zipf >= 0 && l.Zipf <= 10):
		return fmt.Errorf("mcbench: --zipf %v: want 0 to 10", l.Zipf)
	case !(l.Rate >= 0 && l.Rate <= 1e9):
		return fmt.Errorf("mcbench: --rate %v: want 0 to 1e9", l.Rate)
	case l.WarmUp < 0 || l.Duration <= 0 || l.Timeout <= 0:
		return fmt.Errorf("mcbench: --warm-up %v --duration %v --timeout %v: want times above 0, but for the warm-up", l.WarmUp, l.Duration, l.Timeout)
	}
	if _, err := parseSizes(l.Size); err != nil {
		return err
	}
	if _, _, err := parseRange(l.TTL); err != nil {
		return fmt.Errorf("mcbench: --ttl %q: want seconds or LOW-HIGH", l.TTL)
	}
	_, err := newWire(l.Protocol, nil)
	return err
}

// result is what a load showed of a server.
type result struct {
	Server string `json:"server"`
	tally
	Unsent    int64   `json:"unsent"` // requests that the rate demanded, and that the server's answers left no time for
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"requests_per_second"`
	CPU       float64 `json:"cpu_us_per_request"` // of the server; 0: unknown
	Busy      float64 `json:"cpu_share"`          // of one processor, used by the server
	LoadBusy  float64 `json:"load_cpu_share"`     // used by mcbench: near its threads' number, the load is the bottleneck
	Resident  int64   `json:"resident_bytes"`
	Latency   latency `json:"latency_us"`

	histogram *hdrhistogram.Histogram
}

// latency is in microseconds.
type latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

func latencyOf(h *hdrhistogram.Histogram) latency {
	at := func(percent float64) float64 { return float64(h.ValueAtQuantile(percent)) / 1e3 }
	return latency{h.Mean() / 1e3, at(50), at(99), at(99.9), float64(h.Max()) / 1e3}
}

// on puts the load on a server: fill, warm-up, and what counts. Each part is answered in full before the next begins, so that the server's processor time
// belongs to the requests that were counted.
func (l *load) on(addr string, pid process, label string) (result, error) {
	all, err := l.connect(addr)
	if err != nil {
		return result{}, err
	}
	defer all.close()
	show := func(what string) func(func() int64) func() {
		return func(done func() int64) func() { return progress(label+": "+what, done) }
	}
	if l.Fill {
		const fillDepth = 32
		if _, err := all.run(phase{fill: true, depth: fillDepth}, show("fill")); err != nil {
			return result{}, err
		}
	}
	if l.WarmUp > 0 {
		if _, err := all.run(phase{duration: l.WarmUp, rate: l.Rate, depth: l.Pipeline}, show("warm-up")); err != nil {
			return result{}, err
		}
	}
	self := process(os.Getpid())
	cpuBefore, err := pid.cpu()
	if err != nil {
		return result{}, err
	}
	ownBefore, _ := self.cpu()
	done := func() error { return nil }
	if l.Upkeep {
		done = startUpkeep(addr)
	}
	took, err := all.run(phase{duration: l.Duration, requests: l.Requests, rate: l.Rate, depth: l.Pipeline}, show("load"))
	if err = errors.Join(err, done()); err != nil {
		return result{}, err
	}
	cpuAfter, err := pid.cpu()
	if err != nil {
		return result{}, err
	}
	ownAfter, _ := self.cpu()
	r := result{Server: label, Seconds: took.Seconds(), Resident: pid.resident(), histogram: newLatency()}
	for _, th := range all.threads {
		r.tally.add(th.tally)
		r.Unsent += th.unsent
		r.histogram.Merge(th.latency)
	}
	if r.Requests == 0 {
		return result{}, fmt.Errorf("mcbench: %s: no request was sent", label)
	}
	r.PerSecond = float64(r.Requests) / r.Seconds
	r.CPU = float64((cpuAfter - cpuBefore).Nanoseconds()) / 1e3 / float64(r.Requests)
	r.Busy, r.LoadBusy = (cpuAfter-cpuBefore).Seconds()/r.Seconds, (ownAfter-ownBefore).Seconds()/r.Seconds
	r.Latency = latencyOf(r.histogram)
	return r, nil
}

// progress keeps a line on stderr, if that is a terminal, until it is stopped.
func progress(what string, done func() int64) (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	const clear = "\r\x1b[K"
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		began, tick := time.Now(), time.NewTicker(250*time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				fmt.Fprint(os.Stderr, clear)
				return
			case <-tick.C:
				n := done()
				fmt.Fprintf(os.Stderr, "%s%s: %.0f s, %d requests, %.0f a second", clear, what, time.Since(began).Seconds(), n, float64(n)/time.Since(began).Seconds())
			}
		}
	}()
	return func() { close(end); <-ended }
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "put load on one server",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "addr", Usage: "`HOST:PORT` of a running server, or its unix socket's path"},
			&cli.IntFlag{Name: "pid", Usage: "its process, for processor time and memory"},
			&cli.StringFlag{Name: "server", Usage: "instead: command `LINE` of a server to start, {port} in it"},
			&cli.StringFlag{Name: "server-cpu", Usage: "`LIST` of processors for the server, as in 0-3,6"},
			&cli.StringFlag{Name: "load-cpu", Usage: "`LIST` of processors for mcbench"},
		}, loadFlags()...),
		OnUsageError: oneLine,
		Action:       runLoad,
	}
}

func runLoad(c *cli.Context) error {
	l, err := loadOf(c)
	if err != nil {
		return err
	}
	if c.IsSet("addr") == c.IsSet("server") || c.IsSet("pid") && c.IsSet("server") {
		return fmt.Errorf("mcbench: run: want either --addr, perhaps with --pid, or --server")
	}
	serverCPU, loadCPU, err := cpusOf(c)
	if err != nil {
		return err
	}
	addr, pid, label := c.String("addr"), process(c.Int("pid")), c.String("addr")
	switch {
	case c.IsSet("server"):
		s, err := startServer(c.String("server"), serverCPU)
		if err != nil {
			return err
		}
		defer s.stop()
		addr, pid, label = s.addr, s.process, s.name
	case len(serverCPU) > 0:
		if err := serverCPU.pin(pid); err != nil {
			return err
		}
	}
	if err := loadCPU.pinSelf(); err != nil {
		return err
	}
	r, err := l.on(addr, pid, label)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(r)
	}
	return writeResults(c.App.Writer, []result{r})
}

// cpusOf reads --server-cpu and --load-cpu.
func cpusOf(c *cli.Context) (server, load cpus, err error) {
	if list := c.String("server-cpu"); list != "" {
		if server, err = parseCPUs(list); err != nil {
			return nil, nil, err
		}
	}
	if list := c.String("load-cpu"); list != "" {
		if load, err = parseCPUs(list); err != nil {
			return nil, nil, err
		}
	}
	return server, load, nil
}

func writeResults(out io.Writer, results []result) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "server\trequests/s\tCPU us/req\tbusy %%\tload busy %%\tp50 us\tp99 us\tp99.9 us\tmax us\tVmRSS MB\trequests\thits\tmisses\tstored\trefused\tunsent\t\n")
	for _, r := range results {
		l := r.Latency
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.Server, r.PerSecond, r.CPU, 100*r.Busy, 100*r.LoadBusy,
			l.P50, l.P99, l.P999, l.Max, r.Resident>>20, r.Requests, r.Hits, r.Misses, r.Stored, r.Refused, r.Unsent)
	}
	return t.Flush()
}
