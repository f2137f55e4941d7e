package main

import (
	"os/exec"
	"path"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"hearth/netproto/server"
)

func parseLine(args ...string) (*config, error) {
	return parse(append([]string{"hearthd"}, args...), func(string) string { return "" })
}

func TestFlagsReachTheOptions(t *testing.T) {
	for _, c := range []struct {
		args string
		get  func(*config) any
		want any
	}{
		{"", func(c *config) any { return c.cache.MemoryLimit }, int64(64 << 20)},
		{"-m 100", func(c *config) any { return c.cache.MemoryLimit }, int64(100 << 20)},
		{"-m 100MB", func(c *config) any { return c.cache.MemoryLimit }, int64(100 << 20)},
		{"", func(c *config) any { return c.cache.MaxItemSize }, 1 << 20},
		{"-I 2m", func(c *config) any { return c.cache.MaxItemSize }, 2 << 20},
		{"-I 512k", func(c *config) any { return c.cache.MaxItemSize }, 512 << 10},
		{"-I 524288", func(c *config) any { return c.cache.MaxItemSize }, 512 << 10},
		{"-I1024 -o slab_chunk_max=1", func(c *config) any { return c.cache.ChunkMax }, 1024},
		{"", func(c *config) any { return c.cache.ChunkMax }, 512 << 10},
		{"-o no_modern", func(c *config) any { return c.cache.ChunkMax }, 1 << 20},
		{"-o no_chunked_items", func(c *config) any { return c.cache.ChunkMax }, 1 << 20},
		{"-o no_modern -I 2m", func(c *config) any { return c.cache.ChunkMax }, 512 << 10},
		{"-o slab_chunk_max=256 -I 2m", func(c *config) any { return c.cache.ChunkMax }, 256 << 10},
		{"-o slab_sizes=96-200-1001", func(c *config) any { return c.cache.SlabSizes }, []int{96, 200, 1001}},
		{"-f 1.5", func(c *config) any { return c.cache.GrowthFactor }, 1.5},
		{"-f 1.5x", func(c *config) any { return c.cache.GrowthFactor }, 1.5},
		{"-n 100", func(c *config) any { return c.cache.MinSpace }, 100},
		{"-M", func(c *config) any { return c.cache.NoEvict }, true},
		{"-C", func(c *config) any { return c.cache.NoCAS }, true},
		{"-e /f", func(c *config) any { return c.cache.Path }, "/f"},
		{"-p 0", func(c *config) any { return c.server.NoTCP }, true},
		{"-p -1", func(c *config) any { return c.server.Port }, -1},
		{"-p11212", func(c *config) any { return c.server.Port }, 11212},
		{"-s /sock", func(c *config) any { return c.server.UnixSocket }, "/sock"},
		{"", func(c *config) any { return c.server.UnixMask }, 0o700},
		{"-a 0770", func(c *config) any { return c.server.UnixMask }, 0o770},
		{"-a 0", func(c *config) any { return c.server.UnixMask }, -1},
		{"-b 5", func(c *config) any { return c.server.Backlog }, 5},
		{"-b 0", func(c *config) any { return c.server.Backlog }, 1},
		{"-t 7", func(c *config) any { return c.server.Threads }, 7},
		{"-c 99", func(c *config) any { return c.server.MaxConns }, 99},
		{"-R 9", func(c *config) any { return c.server.ReqsPerEvent }, 9},
		{"-A", func(c *config) any { return c.server.EnableShutdown }, true},
		{"-F", func(c *config) any { return c.server.DisableFlushAll }, true},
		{"-X", func(c *config) any { return c.server.DisableDumping }, true},
		{"-D/", func(c *config) any { return c.server.PrefixDelimiter }, byte('/')},
		{"-D:", func(c *config) any { return c.server.Detail }, true},
		{"-vv --verbose", func(c *config) any { return c.server.Verbosity }, 3},
		{"-o no_maxconns_fast", func(c *config) any { return c.server.NoMaxConnsFast }, true},
		{"-o no_modern", func(c *config) any { return c.server.NoMaxConnsFast }, true},
		{"-o no_modern,maxconns_fast", func(c *config) any { return c.server.NoMaxConnsFast }, false},
		{"-o maxconns_fast -o no_modern", func(c *config) any { return c.server.NoMaxConnsFast }, true},
		{"-o hashpower=20", func(c *config) any { return c.server.Shown.HashPower }, 20},
		{"-l 127.0.0.1 -l 127.0.0.2:5,[::1]:6;localhost", func(c *config) any { return c.server.Listen },
			[]string{"127.0.0.1", "127.0.0.2:5", "[::1]:6", "localhost"}},
		{"-l 127.0.0.10 -l 127.0.0.1 -l 127.0.0.1", func(c *config) any { return c.server.Listen }, []string{"127.0.0.10", "127.0.0.1"}},
		{"-l tag[ab]:127.0.0.1:5;proto[ascii]:*", func(c *config) any { return c.server.Listen }, []string{"tag[ab]:127.0.0.1:5", "proto[ascii]:*"}},
		{"-l tagged.example,protocol", func(c *config) any { return c.server.Listen }, []string{"tagged.example", "protocol"}},
		{"-u nobody", func(c *config) any { return c.user }, "nobody"},
		{"-P /pid", func(c *config) any { return c.pidFile }, "/pid"},
		{"-d", func(c *config) any { return c.daemon }, true},
		{"-r", func(c *config) any { return c.coreDumps }, true},
		{"-k", func(c *config) any { return c.lockMemory }, true},
		{"-U 11311", func(c *config) any { return [2]int{c.server.UDPPort, c.server.Port} }, [2]int{11311, 11311}},
		{"-U -1 -p 5", func(c *config) any { return [2]int{c.server.UDPPort, c.server.Port} }, [2]int{-1, 5}},
		{"-Y /users", func(c *config) any { return c.server.Auth.Path() }, "/users"},
		{"-W", func(c *config) any { return c.server.DisableWatch }, true},
		{"-o watcher_logbuf_size=5", func(c *config) any { return c.server.WatcherLogSize }, 5 << 10},
		{"-o watcher_logbuf_size=0", func(c *config) any { return c.server.WatcherLogSize }, 1 << 10},
		{"-o worker_logbuf_size=7", func(c *config) any { return c.server.WorkerLogSize }, 7 << 10},
		{"-o idle_timeout=5", func(c *config) any { return c.server.IdleTimeout }, 5},
		{"-U 0 -B auto -B ascii", func(c *config) any { return c.server.Port }, 11211},
		{"", func(c *config) any { return c.server.Protocol }, server.ProtocolAuto},
		{"-B ascii -B auto", func(c *config) any { return c.server.Protocol }, server.ProtocolAuto},
		{"-B ascii", func(c *config) any { return c.server.Protocol }, server.ProtocolASCII},
		{"-B binary", func(c *config) any { return c.server.Protocol }, server.ProtocolBinary},
	} {
		cfg, err := parseLine(strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		} else if got := c.get(cfg); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.args, got, c.want)
		}
	}
}

// TestStartLineOfTheServiceFileIsAccepted holds the line of memcached's own unit file and of Debian's.
func TestStartLineOfTheServiceFileIsAccepted(t *testing.T) {
	for _, line := range []string{
		"-p 11211 -u memcache -m 64 -c 1024",
		"-m 64 -p 11211 -u memcache -l 127.0.0.1 -l ::1 -P /var/run/memcached/memcached.pid",
		"--conn-limit=1024 --memory-limit=64 --listen=127.0.0.1 --port=11211 -v",
	} {
		if _, err := parseLine(strings.Fields(line)...); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestHelpShowsEveryFlagAndSuboptionOnce(t *testing.T) {
	flags := new(settings).flags()
	var letters []byte
	for _, f := range flags {
		letters = append(letters, f.(*option).short)
	}
	order := []byte(helpOrder)
	slices.Sort(letters)
	slices.Sort(order)
	if string(letters) != string(order) {
		t.Errorf("the help has %s, the table %s", order, letters)
	}
	help := helpText(flags)
	seen := map[string]bool{}
	for _, o := range suboptionTable {
		if seen[o.name] {
			t.Errorf("-o %s is twice in the table", o.name)
		}
		seen[o.name] = true
		if strings.Contains(help, o.name) == (o.help == hidden) {
			t.Errorf("-o %s is not in the help, or is and should not be", o.name)
		}
	}
}

// TestDocumentsCanBeMadeFromTheTable keeps the table usable for the cli package's generators.
func TestDocumentsCanBeMadeFromTheTable(t *testing.T) {
	app := newApp(new(settings).flags())
	app.Setup()
	man, err := app.ToMan()
	if err != nil || !strings.Contains(man, "memory-limit") || !strings.Contains(man, "default: 64") {
		t.Errorf("man page: %v\n%s", err, man)
	}
	fish, err := app.ToFishCompletion()
	if err != nil || !strings.Contains(fish, "-l memory-limit -s m") {
		t.Errorf("completion: %v\n%s", err, fish)
	}
}

func TestLicensesAreThoseOfWhatIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"go.txt"}
	for _, m := range strings.Fields(string(out)) {
		name := path.Base(m)
		if regexp.MustCompile(`^v\d+$`).MatchString(name) {
			name = path.Base(path.Dir(m))
		}
		if path.Dir(m) == "golang.org/x" {
			name = "x-" + name
		}
		want = append(want, name+".txt")
	}
	sort.Strings(want)
	want = slices.Compact(want)
	var have []string
	entries, err := licenses.ReadDir("licenses")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if !slices.Equal(have, want) {
		t.Errorf("licenses of %v, linked are %v", have, want)
	}
}

func TestCNumbers(t *testing.T) {
	for s, want := range map[string]int{"": 0, "12": 12, " \t-12x": -12, "+3": 3, "+-3": 0, "x": 0, "99999999999": 1215752191, "99999999999999999999": -1, "0x10": 0} {
		if got := atoi(s); got != want {
			t.Errorf("atoi(%q) = %d, want %d", s, got, want)
		}
	}
	for s, want := range map[string]float64{"": 0, "1.25": 1.25, " 1.5x": 1.5, "-2e1e": -20, "x": 0, ".5": 0.5} {
		if got := atof(s); got != want {
			t.Errorf("atof(%q) = %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string]bool{"": false, "1": true, "1 ": true, "1x": false, "-1": false, "4294967296": true, "99999999999999999999": false, "+": false} {
		if _, ok := safeStrtoul(s); ok != want {
			t.Errorf("safeStrtoul(%q): %v, want %v", s, ok, want)
		}
	}
}
