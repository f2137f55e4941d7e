package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name:  "compare",
		Usage: "put the same load on several servers in turn, and compare",
		Description: "Every round starts each server anew, every second round in the opposite order. The first server is what the others are compared with: a ratio is taken\n" +
			"within each round, and the median of the rounds is shown with the smallest and the largest. Without --server these are memcached and hearthd,\n" +
			"hearthd from beside mcbench or the PATH.",
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "server", Usage: "command `LINE` of a server, {port} in it, and {dir} for a directory in memory; several"},
			&cli.IntFlag{Name: "workers", Value: 1, Usage: "-t of the servers; with more than one, servers and mcbench share all processors"},
			&cli.IntFlag{Name: "memory", Value: 1024, Usage: "-m of the servers, in `MIB`"},
			&cli.BoolFlag{Name: "file", Usage: "a third server: hearthd with its cache in a file in memory"},
			&cli.Float64Flag{Name: "peak", Usage: "send at this `PERCENT` of the rate that the first server reaches by itself"},
			&cli.IntFlag{Name: "rounds", Value: 5},
			&cli.StringFlag{Name: "server-cpu", Usage: "`LIST` of processors for the servers, as in 0-3,6 (default: the first)"},
			&cli.StringFlag{Name: "load-cpu", Usage: "`LIST` of processors for mcbench (default: the others)"},
			&cli.StringFlag{Name: "plot", Usage: "draw latencies and throughput into this SVG `FILE`"},
		}, loadFlags()...),
		OnUsageError: oneLine,
		Action:       compareLoads,
	}
}

// defaultServers are memcached and hearthd with the same flags.
func defaultServers(c *cli.Context) ([]string, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	hearthd := "hearthd"
	if self, err := os.Executable(); err == nil {
		if _, err := os.Stat(filepath.Join(filepath.Dir(self), hearthd)); err == nil {
			hearthd = filepath.Join(filepath.Dir(self), hearthd)
		}
	}
	for _, name := range []string{"memcached", hearthd} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("mcbench: compare: %w; name the servers with --server", err)
		}
	}
	flags := fmt.Sprintf(" -u %s -l 127.0.0.1 -p {port} -U 0 -t %d -m %d", me.Username, c.Int("workers"), c.Int("memory"))
	lines := []string{"memcached" + flags, hearthd + flags}
	if c.Bool("file") {
		lines = append(lines, hearthd+flags+" -e {dir}/slab")
	}
	return lines, nil
}

func compareLoads(c *cli.Context) error {
	l, err := loadOf(c)
	if err != nil {
		return err
	}
	if c.Int("rounds") < 1 {
		return fmt.Errorf("mcbench: compare: --rounds %d: want 1 or more", c.Int("rounds"))
	}
	lines := c.StringSlice("server")
	if len(lines) == 0 {
		if lines, err = defaultServers(c); err != nil {
			return err
		}
	}
	serverCPU, loadCPU, err := cpusOf(c)
	if err != nil {
		return err
	}
	if own, err := ownCPUs(); err != nil {
		return err
	} else if len(own) > 1 && c.Int("workers") == 1 {
		if serverCPU == nil {
			serverCPU = own[:1]
		}
		if loadCPU == nil {
			loadCPU = own[1:]
		}
	}
	if err := loadCPU.pinSelf(); err != nil {
		return err
	}
	if percent := c.Float64("peak"); percent != 0 {
		if !(percent > 0 && percent <= 100) || l.Rate != 0 {
			return fmt.Errorf("mcbench: compare: --peak %v: want more than 0 and 100 at most, and no --rate beside it", percent)
		}
		r, err := l.onFresh(lines[0], serverCPU, "peak: ")
		if err != nil {
			return err
		}
		l.Rate = math.Round(r.PerSecond * percent / 100)
	}
	rounds := make([][]result, len(lines))
	for round := range c.Int("rounds") {
		for n := range lines {
			i := n
			if round%2 == 1 {
				i = len(lines) - 1 - n
			}
			r, err := l.onFresh(lines[i], serverCPU, fmt.Sprintf("round %d of %d: ", round+1, c.Int("rounds")))
			if err != nil {
				return err
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	all := comparison{Load: *l, ServerCPUs: serverCPU, LoadCPUs: loadCPU}
	for i := range lines {
		all.Servers = append(all.Servers, sumUp(lines[i], rounds[i], rounds[0]))
	}
	if path := c.String("plot"); path != "" {
		if err := os.WriteFile(path, plot(&all), 0o644); err != nil {
			return fmt.Errorf("mcbench: plot: %w", err)
		}
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(all)
	}
	return all.write(c.App.Writer)
}

// onFresh puts the load on a server that it starts and stops.
func (l *load) onFresh(line string, on cpus, label string) (result, error) {
	s, err := startServer(line, on)
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	r, err := l.on(s.addr, s.process, label+s.name)
	if err != nil {
		return result{}, fmt.Errorf("%w (server %q)", err, line)
	}
	r.Server = s.name
	return r, nil
}

// comparison is what compare prints.
type comparison struct {
	Load       load      `json:"load"`
	ServerCPUs cpus      `json:"server_cpus"`
	LoadCPUs   cpus      `json:"load_cpus"`
	Servers    []summary `json:"servers"`
}

// summary is one server's over all rounds.
type summary struct {
	Server  string           `json:"server"`
	Line    string           `json:"command_line"`
	Rounds  []result         `json:"rounds"`
	Figures map[string]stats `json:"figures"`
}

// stats are of a figure over the rounds.
type stats struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Ratio  float64 `json:"ratio"` // to the first server's, by the median of the rounds; 0: unknown
	RatioL float64 `json:"ratio_low"`
	RatioH float64 `json:"ratio_high"`
}

// figures are what is compared.
var figures = []struct {
	name string
	of   func(r *result) float64
}{
	{"CPU us/request", func(r *result) float64 { return r.CPU }},
	{"requests/s", func(r *result) float64 { return r.PerSecond }},
	{"p50 us", func(r *result) float64 { return r.Latency.P50 }},
	{"p99 us", func(r *result) float64 { return r.Latency.P99 }},
	{"p99.9 us", func(r *result) float64 { return r.Latency.P999 }},
	{"longest us", func(r *result) float64 { return r.Latency.Max }},
	{"VmRSS MB", func(r *result) float64 { return float64(r.Resident) / (1 << 20) }},
	{"server busy %", func(r *result) float64 { return 100 * r.Busy }},
	{"load busy %", func(r *result) float64 { return 100 * r.LoadBusy }},
}

func sumUp(line string, rounds, first []result) summary {
	s := summary{Server: rounds[0].Server, Line: line, Rounds: rounds, Figures: map[string]stats{}}
	for _, f := range figures {
		var values, ratios []float64
		for i := range rounds {
			values = append(values, f.of(&rounds[i]))
			if base := f.of(&first[i]); base > 0 {
				ratios = append(ratios, f.of(&rounds[i])/base)
			}
		}
		var st stats
		st.Median, st.Low, st.High = spread(values)
		if len(ratios) == len(values) {
			st.Ratio, st.RatioL, st.RatioH = spread(ratios)
		}
		s.Figures[f.name] = st
	}
	return s
}

// spread sorts values.
func spread(values []float64) (median, low, high float64) {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]
}

// short is v with three digits, or all those before the point.
func short(v float64) string {
	return strconv.FormatFloat(v, 'f', max(0, 3-len(strconv.Itoa(int(v)))), 64)
}

func (all *comparison) write(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if all.Load.Rate > 0 {
		fmt.Fprintf(out, "at %.0f requests a second\n", all.Load.Rate)
	}
	fmt.Fprintf(t, "median (lowest to highest)\t")
	for i, s := range all.Servers {
		fmt.Fprintf(t, "%s\t", s.Server)
		if i > 0 {
			fmt.Fprintf(t, "ratio\t")
		}
	}
	fmt.Fprintln(t)
	for _, f := range figures {
		fmt.Fprintf(t, "%s\t", f.name)
		for i, s := range all.Servers {
			st := s.Figures[f.name]
			fmt.Fprintf(t, "%s (%s to %s)\t", short(st.Median), short(st.Low), short(st.High))
			if i > 0 {
				fmt.Fprintf(t, "%.2f (%.2f to %.2f)\t", st.Ratio, st.RatioL, st.RatioH)
			}
		}
		fmt.Fprintln(t)
	}
	for _, row := range []struct {
		name string
		of   func(t *tally) int64
	}{
		{"hits", func(t *tally) int64 { return t.Hits }},
		{"misses", func(t *tally) int64 { return t.Misses }},
		{"refused sets", func(t *tally) int64 { return t.Refused }},
	} {
		fmt.Fprintf(t, "%s in all\t", row.name)
		for i, s := range all.Servers {
			n := int64(0)
			for _, r := range s.Rounds {
				n += row.of(&r.tally)
			}
			fmt.Fprintf(t, "%d\t", n)
			if i > 0 {
				fmt.Fprintf(t, "\t")
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
