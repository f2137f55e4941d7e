package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hearth"
)

var (
	kills = flag.Int("kills", 0, "how often TestKilledAtAnyMomentKeepsWhatItAcknowledged kills the server, over all profiles; 0: 60, with HEARTH_LONG 1200")
	seed  = flag.Uint64("seed", 0, "what the kill tests draw their random numbers from; 0: something new")
)

// drawSeed returns the seed of this run and has a failure tell it.
func drawSeed(t *testing.T) uint64 {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("draw the same numbers again with: go test -run '%s' -seed %d -kills %d", t.Name(), s, *kills)
		}
	})
	return s
}

// profile is a load and a memory for it.
type profile struct {
	keys   int // of each client
	memory int // MiB
	lossy  bool
	args   []string // of the server
	filler int      // items that are stored beside the ledger in each round: the index grows, memory fills up
	repeat int      // their values are up to so many times the key
	life   int      // of a server under load, at most, in milliseconds
	tune   []string // commands that an operator gives all the time; %d is a slab class
	size   func(r *rand.Rand, phase int) int
}

// phaseRounds is after how many kills the sizes of values shift.
const phaseRounds = 5

// TestKilledAtAnyMomentKeepsWhatItAcknowledged kills the server over and over, at a random moment of a random load and sometimes before it serves, on
// one and the same file. What it acknowledged must be there, what it did not may be, and nothing else ever.
func TestKilledAtAnyMomentKeepsWhatItAcknowledged(t *testing.T) {
	n := *kills
	if n == 0 {
		n = 60
		if os.Getenv("HEARTH_LONG") != "" {
			n = 1200
		}
	}
	for name, p := range map[string]profile{
		// Pages move between classes here as well, but never at the expense of items.
		"roomy": {keys: 250, memory: 256, life: 150, args: []string{"-o", "slab_automove_window=3"}, tune: []string{"slabs automove 1", "lru_crawler crawl all"},
			size: func(r *rand.Rand, phase int) int {
				switch n := r.IntN(400); {
				case n == 0: // chained
					return 600_000 + r.IntN(300_000)
				case n < 20:
					return 10_000 + r.IntN(90_000)
				}
				return 60 + r.IntN(1000)<<(phase%3)
			}},
		"evicting": {keys: 1000, memory: 6, lossy: true, filler: 2000, repeat: 60, life: 150, size: func(r *rand.Rand, _ int) int {
			switch n := r.IntN(1000); {
			case n == 0:
				return 600_000 + r.IntN(300_000)
			case n < 20:
				return 5_000 + r.IntN(30_000)
			}
			return 60 + r.IntN(1500)
		}},
		"moving": {keys: 500, memory: 16, lossy: true, args: []string{"-o", "slab_chunk_max=16,slab_automove_window=3"}, filler: 6000, repeat: 2, life: 500,
			tune: []string{"slabs reassign %d %d", "slabs reassign %d %d", "slabs reassign %d 0", "slabs reassign -1 %d", "slabs automove 2", "slabs automove 1",
				"slabs automove 0", "lru_crawler crawl all", "cache_memlimit 9", "cache_memlimit 16", "cache_memlimit 24"},
			size: func(r *rand.Rand, phase int) int {
				if r.IntN(30) == 0 { // chained
					return 20_000 + r.IntN(150_000)
				}
				return 60 + r.IntN([]int{200, 1500, 6000, 700}[phase%4])
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killLoop(t, p, (n+2)/3)
		})
	}
}

func killLoop(t *testing.T, prof profile, kills int) {
	const clients, counters, checkEach = 8, 4, 10
	start := drawSeed(t)
	draw := rand.New(rand.NewPCG(start, 0))
	l := newLedger(clients, prof.keys, counters, prof.lossy)
	file := newFile(t)
	args := append([]string{"-e", file, "-m", fmt.Sprint(prof.memory), "-t", "4"}, prof.args...)
	var sent, acked, undecided, checked, early, findings int
	var restarts []time.Duration
	kinds := map[string]int{}

	begin := func() *proc {
		began := time.Now()
		p := startHearthd(t, args...)
		restarts = append(restarts, time.Since(began))
		kinds[stat(t, p.addr, "restart_kind")]++
		n, wrong := l.verify(p.addr)
		checked += n
		if len(wrong) > 0 {
			t.Fatalf("after %d kills %d of %d keys are wrong; the first:\n%s\n%s", kinds["unclean"]+early, len(wrong), n, joined(wrong), p.stderr)
		}
		return p
	}
	check := func() { findings += wantSound(t, file, prof.memory) }
	op := operator{rand: rand.New(rand.NewPCG(start, 1)), tune: prof.tune, filler: prof.filler, repeat: prof.repeat}

	for round := range kills {
		p := begin()
		var gate sync.RWMutex // the coordinator of a flush_all has it alone
		var killed atomic.Bool
		var all sync.WaitGroup
		fail := make(chan error, clients+2)
		workers := make([]*worker, clients)
		conn := dial(p.addr)
		if err := l.restartCounters(conn); err != nil {
			t.Fatal(err)
		}
		for id := range workers {
			w := &worker{l: l, id: id, conn: dial(p.addr), rand: rand.New(rand.NewPCG(start, uint64(round*clients+id+2))),
				size: func(r *rand.Rand) int { return prof.size(r, round/phaseRounds) }, last: map[*counter]count{}}
			workers[id] = w
			all.Add(1)
			go func() {
				defer all.Done()
				defer w.conn.Close()
				for {
					gate.RLock()
					err := w.step()
					gate.RUnlock()
					if err != nil {
						if !killed.Load() || !cutOff(err) && err != errUnsettled {
							fail <- err
						}
						return
					}
				}
			}()
		}
		all.Add(1)
		go func() {
			defer all.Done()
			if err := op.work(p.addr, round); err != nil && (!cutOff(err) || !killed.Load()) {
				fail <- err
			}
		}()
		life := time.Duration(1+draw.IntN(prof.life)) * time.Millisecond
		if draw.IntN(10) == 0 { // flush_all somewhere in it
			at := time.After(time.Duration(draw.Int64N(int64(life))))
			all.Add(1)
			go func() {
				defer all.Done()
				<-at
				gate.Lock()
				defer gate.Unlock()
				if err := l.flush(conn); err != nil && (!cutOff(err) || !killed.Load()) {
					fail <- err
				}
			}()
		}
		var wrong error
		select {
		case <-time.After(life):
		case wrong = <-fail:
		}
		killed.Store(true)
		code := p.stop(t, syscall.SIGKILL)
		all.Wait()
		conn.Close()
		select {
		case wrong = <-fail:
		default:
		}
		if wrong != nil || code != -int(syscall.SIGKILL) {
			t.Fatalf("round %d, exit %d: %v\n%s", round, code, wrong, p.stderr)
		}
		for _, w := range workers {
			sent, acked = sent+w.sent, acked+w.acked
			undecided += w.sent - w.acked
		}
		if draw.IntN(5) == 0 { // once more, before it serves or just when it does
			early++
			p := exec.Command(binary, append([]string{"-u", me(), "-p", "-1", "-l", "127.0.0.1"}, args...)...)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(draw.Int64N(int64(30 * time.Millisecond))))
			p.Process.Kill()
			p.Wait()
		}
		if (round+1)%checkEach == 0 {
			check()
		}
	}
	p := begin()
	corrupt := stat(t, p.addr, "corrupt_items")
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
	check()
	if corrupt != "0" {
		t.Errorf("corrupt_items %s, want 0", corrupt)
	}
	if (l.evicted.Load() > 0) != prof.lossy {
		t.Errorf("%d values evicted: the profile does not put the memory under the pressure it should", l.evicted.Load())
	}
	if kinds["cold"] > 1 {
		t.Errorf("%d cold starts, want one, the first", kinds["cold"])
	}
	slices.Sort(restarts)
	t.Logf("%d kills under load and %d during a start; %d operations, %d acknowledged, %d in flight; %d keys checked: 0 lost, 0 wrong, 0 resurrected; "+
		"starts %v; %d findings; exec to serving p50 %v, p99 %v; %d values found evicted", kills, early, sent, acked, undecided, checked, kinds, findings,
		restarts[len(restarts)/2], restarts[len(restarts)*99/100], l.evicted.Load())
	t.Logf("the operator got %v; pages moved in %d of the lives", op.replies, op.moved)
	if strings.Contains(strings.Join(prof.tune, " "), "reassign") && op.moved == 0 {
		t.Error("no page was moved")
	}
}

// operator stores items that are not in the ledger, and then gives commands that move things about until the server is gone.
type operator struct {
	rand    *rand.Rand
	tune    []string
	filler  int
	repeat  int
	replies map[string]int // by their first word
	moved   int            // lives in which a page was moved
}

var slabLine = regexp.MustCompile(`^STAT ([0-9]+):total_pages `)

func (o *operator) item(round, i int) (key, value string) {
	key = fmt.Sprintf("filler-%d-%d", round, i)
	return key, strings.Repeat(key, 1+i%o.repeat)
}

func (o *operator) work(addr string, round int) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(conn)
	line := func() (string, error) {
		if !lines.Scan() {
			return "", cmp.Or(lines.Err(), io.EOF)
		}
		return strings.TrimSpace(lines.Text()), nil
	}
	if o.replies == nil {
		o.replies = map[string]int{}
	}
	// What is there of the last rounds' is what was stored.
	for range 20 {
		if o.filler == 0 || round == 0 {
			break
		}
		key, value := o.item(o.rand.IntN(round), o.rand.IntN(o.filler))
		fmt.Fprintf(conn, "get %s\r\n", key)
		for {
			got, err := line()
			if err != nil {
				return err
			}
			if got == "END" {
				break
			}
			if got != value && got != fmt.Sprintf("VALUE %s 0 %d", key, len(value)) {
				return fmt.Errorf("%s: %q, want %q", key, got, value)
			}
		}
	}
	var b []byte
	for i := range o.filler {
		key, value := o.item(round, i)
		b = fmt.Appendf(b, "set %s 0 0 %d noreply\r\n%s\r\n", key, len(value), value)
	}
	if _, err := conn.Write(b); err != nil || len(o.tune) == 0 {
		return err
	}
	var classes []string
	moved := false
	for i := 0; ; i++ {
		if i%50 == 0 {
			classes = nil
			fmt.Fprint(conn, "stats slabs\r\n")
			for {
				got, err := line()
				if err != nil {
					return err
				}
				if m := slabLine.FindStringSubmatch(got); m != nil {
					classes = append(classes, m[1])
				}
				if got == "END" {
					break
				}
			}
			fmt.Fprint(conn, "stats\r\n")
			for {
				got, err := line()
				if err != nil {
					return err
				}
				if n, ok := strings.CutPrefix(got, "STAT slabs_moved "); ok && n != "0" && !moved {
					moved = true
					o.moved++
				}
				if got == "END" {
					break
				}
			}
		}
		command := o.tune[o.rand.IntN(len(o.tune))]
		for strings.Contains(command, "%d") {
			class := "1"
			if len(classes) > 0 {
				class = classes[o.rand.IntN(len(classes))]
			}
			command = strings.Replace(command, "%d", class, 1)
		}
		fmt.Fprintf(conn, "%s\r\n", command)
		got, err := line()
		if err != nil {
			return err
		}
		word, _, _ := strings.Cut(got, " ")
		switch word {
		case "OK", "BUSY", "BADCLASS", "NOSPARE", "SAME", "NOTSTARTED":
			o.replies[word]++
		default:
			return fmt.Errorf("%s: %q", command, got)
		}
	}
}

// wantSound opens a file that no server has, with -m memory, and fails if it is cold or Check finds something. It returns how much that was.
func wantSound(t testing.TB, file string, memory int) int {
	t.Helper()
	// A process that another test starts meanwhile would hold the file's lock, too, until it executes its program: longer than we do, perhaps.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	c, err := hearth.Open(hearth.Options{Path: file, MemoryLimit: int64(memory) << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if kind := c.Stats().RestartKind; kind == "cold" {
		t.Errorf("the check found the file %s: %s", kind, c.Stats().RestartReason)
	}
	found := c.Check()
	if len(found) > 0 {
		t.Errorf("the file is inconsistent in %d places; the first: %v", len(found), found[0])
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// joined is the first few of many errors.
func joined(errs []error) string {
	return strings.ReplaceAll(errors.Join(errs[:min(5, len(errs))]...).Error(), "\n", "\n  ")
}
