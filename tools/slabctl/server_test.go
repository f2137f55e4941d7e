package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var long = os.Getenv("HEARTH_LONG") != ""

var buildHearthd = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "slabctl-hearthd")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hearthd")
	if out, err := exec.Command("go", "build", "-o", path, "hearth/cmd/hearthd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %v\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	yieldToServer = func() {} // the tests are the server's clients too
	code := m.Run()
	if path, err := buildHearthdIfBuilt(); err == nil && path != "" {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

var hearthdBuilt atomic.Bool

func buildHearthdIfBuilt() (string, error) {
	if !hearthdBuilt.Load() {
		return "", nil
	}
	return buildHearthd()
}

// process is a server under test.
type process struct {
	*exec.Cmd
	addr string
}

// hearthd starts a server on a free port.
func hearthd(t testing.TB, args ...string) *process {
	t.Helper()
	return serve(t, false, hearthdProgram(t), args...)
}

func hearthdProgram(t testing.TB) string {
	t.Helper()
	path, err := buildHearthd()
	if err != nil {
		t.Fatal(err)
	}
	hearthdBuilt.Store(true)
	return path
}

// memcached starts Debian's; the test is skipped where there is none.
func memcached(t testing.TB, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("memcached is not installed")
	}
	return serve(t, false, path, args...)
}

// serve starts a server, in a session of its own where that is to be as under a service manager.
func serve(t testing.TB, session bool, path string, args ...string) *process {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ports := filepath.Join(t.TempDir(), "ports")
	p := &process{Cmd: exec.Command(path, append([]string{"-u", me.Username, "-l", "127.0.0.1", "-p", "-1", "-U", "0"}, args...)...)}
	p.Env = append(os.Environ(), "MEMCACHED_PORT_FILENAME="+ports)
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	var log bytes.Buffer
	p.Stderr = &log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(ports); err == nil {
			if m := regexp.MustCompile(`TCP INET: (\d+)`).FindSubmatch(b); m != nil {
				p.addr = "127.0.0.1:" + string(m[1])
				return p
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v does not listen:\n%s", p.Args, log.String())
		}
	}
}

// stop ends a server in order, and waits for it.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
}

// client is a connection with the text protocol.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (p *process) dial(t testing.TB) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReaderSize(c, 1<<16)}
}

// lines sends a command and returns the lines of the answer up to end.
func (c *client) lines(t testing.TB, command, end string) (all []string) {
	t.Helper()
	fmt.Fprintf(c, "%s\r\n", command)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if line = strings.TrimRight(line, "\r\n"); line == end {
			return all
		}
		all = append(all, line)
	}
}

func (c *client) stats(t testing.TB, kind string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, line := range c.lines(t, strings.TrimSpace("stats "+kind), "END") {
		f := strings.SplitN(line, " ", 3)
		all[f[1]] = f[2]
	}
	return all
}

// fill stores n items of mixed kinds.
func fill(t testing.TB, c *client, n int) {
	t.Helper()
	w := bufio.NewWriter(c)
	go func() {
		for i := range n {
			size, ttl := 20+i*7919%400, 0
			switch {
			case i%1009 == 1008:
				size = 700_000
			case i%2 == 1:
				ttl = 1000 + i%5000
			}
			fmt.Fprintf(w, "set kind%d:%d %d %d %d\r\n%s\r\n", i%7, i, i%100, ttl, size, bytes.Repeat([]byte{'a' + byte(i%26)}, size))
		}
		w.Flush()
	}()
	for i := range n {
		if line, err := c.r.ReadString('\n'); err != nil || line != "STORED\r\n" {
			t.Fatalf("item %d: %q %v", i, line, err)
		}
	}
}

// Beside a live server under load, evictions, growth of the index and moving pages included, check finds no damage where there is none, and what other verbs show was stored.
func TestNoFalseFindingBesideALiveServer(t *testing.T) {
	rounds := 3
	if long {
		rounds = 20
	}
	dir := memoryDir(t)
	file := filepath.Join(dir, "live.slab")
	p := hearthd(t, "-m", "64", "-e", file, "-o", "slab_automove=1")
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var requests atomic.Int64
	for worker := range 3 {
		c := p.dial(t)
		load.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for n := 0; ctx.Err() == nil; n++ {
				var b bytes.Buffer
				const batch = 50
				for range batch {
					key, size := r.IntN(200_000), 10+r.IntN(200)
					if r.IntN(200) == 0 {
						size = 600_000 * r.IntN(2)
					} else if n/200%2 == 1 { // the load changes, so that pages move
						size += 1000
					}
					if r.IntN(5) == 0 {
						fmt.Fprintf(&b, "delete k%d\r\n", key)
					} else {
						fmt.Fprintf(&b, "set k%d 0 %d %d\r\n%s\r\n", key, r.IntN(2)*r.IntN(5), size, bytes.Repeat([]byte{'a' + byte(key%26)}, size))
					}
				}
				if _, err := c.Write(b.Bytes()); err != nil {
					return
				}
				for range batch {
					if _, err := c.r.ReadString('\n'); err != nil {
						return
					}
					requests.Add(1)
				}
			}
		})
	}
	defer load.Wait()
	defer stop()
	for requests.Load() < 20_000 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	began := requests.Load()
	wasTurn, wasRest := turn, rest
	t.Cleanup(func() { turn, rest = wasTurn, wasRest })
	turn, rest = 5*time.Millisecond, 20*time.Millisecond // the file is too small for longer ones
	for round := range rounds {
		var speed []string
		if round%2 == 0 {
			speed = []string{"--full-speed"}
		}
		out, beside, err := slabctl(t, strings.NewReader(""), append(speed, "check", file)...)
		if err != nil || !strings.Contains(out, "sound: ") || !strings.Contains(out, "serves from the file. Not looked at") {
			t.Fatalf("round %d: %v\n%s%s", round, err, out, beside)
		}
		t.Logf("round %d: %s", round, strings.TrimSpace(out))
		out, beside, err = slabctl(t, strings.NewReader(""), append(speed, "dump", file)...)
		if err != nil {
			t.Fatalf("dump: %v\n%s", err, beside)
		}
		items := 0
		err = readDump(bufio.NewReader(strings.NewReader(out)), func(s *stored) error {
			n, _ := strconv.Atoi(strings.TrimPrefix(string(s.key), "k"))
			if want := bytes.Repeat([]byte{'a' + byte(n%26)}, len(s.value)); !bytes.Equal(s.value, want) {
				return fmt.Errorf("key %s has %.20q", s.key, s.value)
			}
			items++
			return nil
		})
		if err != nil || items == 0 {
			t.Fatalf("dump of %d items: %v", items, err)
		}
	}
	if requests.Load() == began {
		t.Error("the server did nothing meanwhile")
	}
	stop()
	load.Wait()
	// The same after a kill.
	p.Process.Kill()
	p.Wait()
	if out := must(t, "check", file); !strings.Contains(out, "which the next start makes anew") || !strings.Contains(out, "sound") {
		t.Errorf("after a kill check says %s", out)
	}
	if out := must(t, "info", file); !strings.Contains(out, "would be warm, unclean") {
		t.Errorf("after a kill info says %s", out)
	}
}

// Beside a live server a run may be a child's: its output and its exit code are the run's.
func TestProgramBesideALiveServer(t *testing.T) {
	dir := memoryDir(t)
	file, program := filepath.Join(dir, "live.slab"), build(t, dir, "hearth/tools/slabctl")
	p := hearthd(t, "-m", "64", "-e", file)
	fill(t, p.dial(t), 100)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"check", file}, 0, fmt.Sprintf("pid %d serves", p.Process.Pid)},
		{[]string{"items", file, "--count"}, 0, "100 items"},
		{[]string{"get", file, "missing"}, 1, "slabctl: get: there is no item of key missing"},
	} {
		cmd := exec.Command(program, c.args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: exit code %d and %q, want %d and %q", c.args, code, out, c.code, c.says)
		}
	}
}

// A dump that is loaded into memcached, and what memcached then has, loaded into a new hearthd, are the same keys, values, flags and expiry times.
func TestDumpGoesThroughMemcachedAndBack(t *testing.T) {
	n := 5_000
	if long {
		n = 1_000_000
	}
	dir := memoryDir(t)
	first, second := filepath.Join(dir, "first.slab"), filepath.Join(dir, "second.slab")
	p := hearthd(t, "-m", "1800", "-e", first)
	fill(t, p.dial(t), n)
	two := p.dial(t)
	fmt.Fprintf(two, "ms %s 3 b F5\r\nabc\r\n", "dHdvIHdvcmRzAA==")
	if line, err := two.r.ReadString('\n'); line != "HD\r\n" {
		t.Fatalf("ms: %q %v", line, err)
	}
	p.stop(t)

	there := memcached(t, "-m", "4000")
	pipe(t, first, there, "set")
	c := there.dial(t)
	back := hearthd(t, "-m", "1800", "-e", second)
	var b bytes.Buffer
	readBack(t, c, n+1, &b)
	out, _, err := slabctl(t, &b, "load", "--addr", back.addr)
	if err != nil {
		t.Fatalf("load: %v\n%s", err, out)
	}
	back.stop(t)
	if out, _, err := slabctl(t, strings.NewReader(""), "diff", first, second); err != nil || !strings.Contains(out, fmt.Sprintf("same in both:  %d items", n+1)) {
		t.Errorf("%v: %s", err, out)
	}
	// The other formats carry the same.
	for _, format := range []string{"ms", "json"} {
		third := filepath.Join(dir, format+".slab")
		s := hearthd(t, "-m", "1800", "-e", third)
		pipe(t, first, s, format)
		s.stop(t)
		if out, _, err := slabctl(t, strings.NewReader(""), "diff", first, third); err != nil {
			t.Errorf("%s: %v: %s", format, err, out)
		}
		os.Remove(third)
	}
}

// pipe dumps a file and loads the dump into a server.
func pipe(t *testing.T, file string, p *process, format string) {
	t.Helper()
	r, w := io.Pipe()
	var beside bytes.Buffer
	go func() {
		a := app()
		a.Writer, a.ErrWriter = w, &beside
		w.CloseWithError(a.RunContext(t.Context(), flagsFirst(a, []string{"slabctl", "dump", file, "--format", format})))
	}()
	out, more, err := slabctl(t, r, "load", "--addr", p.addr)
	if err != nil {
		t.Fatalf("load: %v\n%s%s%s", err, out, more, beside.String())
	}
}

// readBack writes all n items that memcached has as ms commands. Its dump misses some that move from list to list meanwhile, as they do for some seconds after a load
// (get finds them): so it is asked until it has all, or ten times.
func readBack(t *testing.T, c *client, n int, w io.Writer) {
	t.Helper()
	var keys, times, binary []string
	var dump []string
	for try := 0; len(dump) < n && try < 10; try++ {
		if dump = c.lines(t, "lru_crawler metadump all", "END"); len(dump) < n {
			t.Logf("memcached's dump %d has %d of %d items", try, len(dump), n)
		}
	}
	for _, line := range dump {
		f := strings.Fields(line)
		keys, times = append(keys, strings.TrimPrefix(f[0], "key=")), append(times, strings.TrimPrefix(f[1], "exp="))
	}
	now := time.Now().Unix()
	for i := 0; i < len(keys); i += 100 {
		to := min(i+100, len(keys))
		var b bytes.Buffer
		for j := i; j < to; j++ {
			key, flag := strings.ReplaceAll(keys[j], "%3A", ":"), ""
			if strings.Contains(key, "%") { // the one with a binary key
				key, flag = "dHdvIHdvcmRzAA==", " b"
				binary = append(binary, key)
			}
			fmt.Fprintf(&b, "mg %s%s k f t v\r\n", key, flag)
		}
		if _, err := c.Write(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		for j := i; j < to; j++ {
			line, err := c.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "VA ") {
				t.Fatalf("key %s: %q %v", keys[j], line, err)
			}
			f := strings.Fields(line)
			size, _ := strconv.Atoi(f[1])
			value := make([]byte, size+2)
			if _, err := io.ReadFull(c.r, value); err != nil {
				t.Fatal(err)
			}
			key, flags := "", ""
			for _, word := range f[2:] {
				switch word[0] {
				case 'k':
					key = word[1:]
				case 'f':
					flags = word[1:]
				}
			}
			exptime := ""
			if at, _ := strconv.ParseInt(times[j], 10, 64); at > now {
				exptime = fmt.Sprintf(" T%d", at)
			}
			mark := ""
			if slices.Contains(binary, key) {
				mark = " b"
			}
			fmt.Fprintf(w, "ms %s %d%s F%s%s\r\n%s", key, size, mark, flags, exptime, value)
		}
	}
}

// A server starts warm on a resized file. The larger one has everything, the smaller one those that were used last.
func TestResizedFilesStartWarm(t *testing.T) {
	memory, smaller, larger := 96, 24, 384
	if long {
		memory, smaller, larger = 1024, 256, 4096
	}
	stopClock(t)
	dir := memoryDir(t)
	file := filepath.Join(dir, "file.slab")
	// A file whose times are known: each item is a second older than the next one.
	w := fixtureWriter(t, file, memory, memory*1000)
	value := bytes.Repeat([]byte{'v'}, 900)
	n := 0
	for ; n < memory*1000; n++ {
		m := thing{key: fmt.Sprintf("k%07d", n), value: value[:500+n*7919%350], idle: uint32(memory*1000 - n), segment: n % 3, flags: uint32(n)}
		addThing(t, w, &m, uint64(n+1))
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	before := sum(t, file)
	for _, to := range []int{larger, smaller} {
		out := filepath.Join(dir, "resized.slab")
		text := must(t, "resize", file, out, "--memory", fmt.Sprintf("%dm", to), "--force")
		if found := must(t, "check", out); !strings.Contains(found, "sound") {
			t.Errorf("%d MiB: check says %s", to, found)
		}
		diff, _, _ := slabctl(t, strings.NewReader(""), "diff", file, out)
		p := hearthd(t, "-m", strconv.Itoa(to), "-e", out)
		c := p.dial(t)
		stats := c.stats(t, "")
		if stats["restart_kind"] != "clean" {
			t.Errorf("%d MiB: the start is %s: %s", to, stats["restart_kind"], stats["restart_reason"])
		}
		kept, _ := strconv.Atoi(stats["curr_items"])
		if to == larger && kept != n {
			t.Errorf("%d MiB has %d items, want all %d", to, kept, n)
		}
		if to == smaller {
			if kept == n || kept < n*smaller/memory*9/10 {
				t.Errorf("%d MiB has %d items of %d", to, kept, n)
			}
			// Until the last page is given out, all are kept; after that those that find a chunk in the last page of their class.
			full := kept * 3 / 4
			out, _, _ := slabctl(t, strings.NewReader(""), "items", out, "--count", "--idle", fmt.Sprintf("-%d", full))
			if got := strings.Fields(out)[0]; got != strconv.Itoa(full) {
				t.Errorf("of the %d used last %s are kept", full, got)
			}
		}
		t.Logf("%d → %d MiB: %s %s", memory, to, strings.TrimSpace(text), diff[strings.Index(diff, "same in both"):])
		if !strings.Contains(diff, "only in B:     0 items") || !strings.Contains(diff, "different:     0 items") {
			t.Errorf("diff says %s", diff)
		}
		p.stop(t)
	}
	if sum(t, file) != before {
		t.Error("the file was changed")
	}
}

// stats prints what the server prints.
func TestStatsAreTheServers(t *testing.T) {
	file := filepath.Join(memoryDir(t), "file.slab")
	p := hearthd(t, "-m", "64", "-e", file)
	c := p.dial(t)
	fill(t, c, 3000)
	was := map[string]map[string]string{}
	for _, kind := range []string{"", "items", "slabs"} {
		was[kind] = c.stats(t, kind)
	}
	p.stop(t)
	for kind, want := range was {
		got := map[string]string{}
		out := must(t, append([]string{"stats", file}, strings.Fields(kind)...)...)
		for _, line := range strings.Split(strings.TrimSpace(out), "\r\n") {
			if f := strings.SplitN(line, " ", 3); len(f) == 3 {
				got[f[1]] = f[2]
			}
		}
		if len(got) == 0 {
			t.Errorf("stats %s is empty", kind)
		}
		for name, value := range got {
			// Ages go on; which segment an item is in, the maintainer may change until the end.
			if strings.Contains(name, "age") && !strings.Contains(name, "page") || strings.Contains(name, "number_") || name == "time" {
				if want[name] == "" {
					t.Errorf("stats %s: the server has no %s", kind, name)
				}
				continue
			}
			if want[name] != value {
				t.Errorf("stats %s: %s is %s, the server's %q", kind, name, value, want[name])
			}
		}
	}
}

// A server with the flags that tune proposes holds the items in about as much less memory as it says.
func TestTuneSavesWhatItSays(t *testing.T) {
	dir := memoryDir(t)
	file := filepath.Join(dir, "file.slab")
	var all []thing
	for i := range 60_000 {
		all = append(all, thing{key: fmt.Sprintf("k%d", i), value: bytes.Repeat([]byte{'v'}, []int{60, 250, 1010}[i%3]+i%9), segment: i % 3})
	}
	writeFile(t, file, 128, all)
	out := must(t, "tune", file)
	flags := regexp.MustCompile(`(?m)^hearthd (.*)$`).FindStringSubmatch(out)
	if flags == nil {
		t.Fatalf("tune proposes nothing: %s", out)
	}
	pages := func(args ...string) int64 {
		p := hearthd(t, args...)
		pipe(t, file, p, "set")
		stats := p.dial(t).stats(t, "slabs")
		n, _ := strconv.ParseInt(stats["total_malloced"], 10, 64)
		if items := p.dial(t).stats(t, "")["curr_items"]; items != strconv.Itoa(len(all)) {
			t.Errorf("%v: %s items, want %d: too little memory", args, items, len(all))
		}
		p.stop(t)
		return n >> 20
	}
	was, is := pages("-m", "128"), pages(strings.Fields(flags[1])...)
	row := regexp.MustCompile(`slab_sizes +\d+ +(\d+) `).FindStringSubmatch(out)
	own := regexp.MustCompile(`own +\d+ +(\d+) `).FindStringSubmatch(out)
	if row == nil || own == nil {
		t.Fatalf("tune says %s", out)
	}
	after, _ := strconv.ParseInt(row[1], 10, 64)
	before, _ := strconv.ParseInt(own[1], 10, 64)
	t.Logf("pages: %d, with %s %d; tune says %d and %d", was, flags[1], is, before, after)
	if saved, said := was-is, before-after; said <= 0 || saved < said*8/10-1 || saved > said*12/10+1 {
		t.Errorf("saves %d pages, tune says %d\n%s", saved, said, out)
	}
}

// An interrupt in the middle leaves nothing behind.
func TestInterruptLeavesNothingBehind(t *testing.T) {
	stopClock(t)
	dir := memoryDir(t)
	file := filepath.Join(dir, "file.slab")
	writeFile(t, file, 64, things(20_000))
	for _, args := range [][]string{
		{"resize", file, filepath.Join(dir, "out")}, {"check", file, "--repair", filepath.Join(dir, "out")},
		{"dump", file, "-o", filepath.Join(dir, "out")}, {"report", file, "-o", filepath.Join(dir, "out")},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		a := app()
		// The first byte that it prints, or the first file that it makes, is when it is interrupted; where it does neither in time, before it began.
		done := make(chan error, 1)
		a.Writer, a.ErrWriter = io.Discard, io.Discard
		go func() { done <- a.RunContext(ctx, flagsFirst(a, append([]string{"slabctl"}, args...))) }()
		var err error
		finished := false
		for !finished && len(leftovers(t, dir)) == 0 {
			select {
			case err = <-done:
				finished = true
			default:
			}
		}
		cancel()
		if !finished {
			err = <-done
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("%s: left behind %v (%v)", args[0], left, err)
		}
		if _, there := os.Stat(filepath.Join(dir, "out")); (there == nil) != (err == nil) {
			t.Errorf("%s: error %v, and the output is there: %t", args[0], err, there == nil)
		}
		os.Remove(filepath.Join(dir, "out"))
	}
}

// A server that refuses items, or that is none, makes load fail, and says what it refused.
func TestLoadFailsWhereAnItemIsNotStored(t *testing.T) {
	p := hearthd(t, "-m", "64", "-I", "1024k")
	dump := "set small 0 0 5\r\nhello\r\nset large 0 0 2000000\r\n" + strings.Repeat("x", 2_000_000) + "\r\nset old 0 1700000000 1\r\nx\r\n"
	out, _, err := slabctl(t, strings.NewReader(dump), "load", "--addr", p.addr)
	if err == nil || !strings.Contains(out, "stored 1 items") || !strings.Contains(out, "1 items not stored; the first: large: SERVER_ERROR object too large") ||
		!strings.Contains(out, "1 items have expired since the dump") {
		t.Errorf("%v: %s", err, out)
	}
	for dump, want := range map[string]string{
		"get x\r\n":                      "want a set or ms command",
		"set x 0 0 10\r\nshort\r\n":      "the value ends early",
		"set x 0 0 3\r\nlonger\r\n":      "want a line end",
		"set x 0 0 99999999999\r\nx\r\n": "out of range",
		`{"key":"x"` + "\n":              "unexpected end of JSON",
	} {
		if _, _, err := slabctl(t, strings.NewReader(dump), "load", "--addr", p.addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", dump, err, want)
		}
	}
	began := time.Now()
	var many strings.Builder
	for i := range 60 {
		fmt.Fprintf(&many, "set r%d 0 0 1\r\nx\r\n", i)
	}
	if out, _, err := slabctl(t, strings.NewReader(many.String()), "load", "--addr", p.addr, "--rate", "100"); err != nil || time.Since(began) < 500*time.Millisecond {
		t.Errorf("60 items at 100 a second took %v: %v %s", time.Since(began), err, out)
	}
	p.stop(t)
	if _, _, err := slabctl(t, strings.NewReader(dump), "load", "--addr", p.addr); err == nil {
		t.Error("load into no server succeeds")
	}
}
