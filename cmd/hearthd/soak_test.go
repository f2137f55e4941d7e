package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// long tells whether the runs are asked for that take an hour, or gigabytes.
var long = os.Getenv("HEARTH_LONG") != ""

var soakTime = flag.Duration("soak", 0, "how long the soak runs; 0: twenty seconds, or an hour with HEARTH_LONG")

// admin sends a command and returns the first line of the reply.
func (w *wire) admin(command string) (string, error) {
	w.w.WriteString(command + "\r\n")
	if err := w.w.Flush(); err != nil {
		return "", err
	}
	w.SetDeadline(time.Now().Add(patience))
	line, err := w.r.ReadString('\n')
	return strings.TrimSpace(line), err
}

// dump does a metadump, and calls visit for each key. False: another dump is under way.
func (w *wire) dump(visit func(key []byte)) (ok bool, err error) {
	reply, err := w.admin("lru_crawler metadump all")
	if err != nil || strings.HasPrefix(reply, "BUSY") {
		return false, err
	}
	if reply != "OK" {
		return false, fmt.Errorf("metadump: %q", reply)
	}
	for {
		if w.r.Buffered() == 0 { // a deadline costs more than a line
			w.SetDeadline(time.Now().Add(patience))
		}
		line, err := w.r.ReadSlice('\n')
		if err != nil {
			return false, fmt.Errorf("metadump: %w", err)
		}
		if string(line) == "END\r\n" {
			return true, nil
		}
		key, rest, _ := bytes.Cut(line, []byte(" "))
		if key, ok = bytes.CutPrefix(key, []byte("key=")); !ok || !bytes.HasPrefix(rest, []byte("exp=")) {
			return false, fmt.Errorf("metadump: %q", line)
		}
		visit(key)
	}
}

// soaker fills the cache with items of all sizes and TTLs, each key once, and reads some of them back.
type soaker struct {
	id   int
	rand *rand.Rand
	n    uint32

	refused int // small values that found no memory: only sections that the machine held up for longer than a store waits are an excuse
}

func (s *soaker) key(n uint32) string { return fmt.Sprintf("soak-%d-%d", s.id, n) }

// value is what n was stored with.
func (s *soaker) value(n uint32) []byte {
	r := rand.New(rand.NewPCG(uint64(s.id), uint64(n)))
	size := 60 + r.IntN(1500)
	switch p := r.IntN(1000); {
	case p == 0:
		size = 600_000 + r.IntN(300_000)
	case p < 50:
		size = 5_000 + r.IntN(30_000)
	}
	return appendRecord(nil, s.key(n), s.id, n, size)
}

func (s *soaker) step(c *memcache.Client) error {
	s.n++
	value := s.value(s.n)
	ttl := []int32{0, 0, 1, 2, 5, 60, 10_000}[s.rand.IntN(7)]
	if err := c.Set(&memcache.Item{Key: s.key(s.n), Value: value, Expiration: ttl}); err != nil {
		if strings.Contains(err.Error(), "SERVER_ERROR out of memory") {
			if len(value) <= 5000 { // of larger ones the few chunks of their class can all be in other uploads
				s.refused++
			}
			return nil
		}
		return err
	}
	n := s.n - uint32(s.rand.IntN(int(min(s.n, 5000))))
	it, err := c.Get(s.key(n))
	if err == memcache.ErrCacheMiss {
		return nil
	} else if err != nil {
		return err
	}
	if want := s.value(n); !bytes.Equal(it.Value, want) {
		return fmt.Errorf("%s holds %s", s.key(n), describe(it.Value))
	}
	return nil
}

// TestSoakKeepsMemoryFlatAndValuesRight runs every kind of command at full memory for twenty seconds, an hour, or as long as -soak says: the clients of a ledger, others that fill the
// cache with items of all sizes and TTLs, and an operator who dumps, crawls, watches, moves pages and changes the memory limit. Resident memory swings with the limit, so
// what is compared is the most of it in the first and in the last quarter, after a time to fill up.
func TestSoakKeepsMemoryFlatAndValuesRight(t *testing.T) {
	t.Parallel()
	const memory, clients, soakers, counters = 64, 4, 2, 4
	run, samples, fill, slack := *soakTime, 80, 20, 12<<20 // a quarter of it may miss the moments when all that the limit allows is in use
	if run == 0 {
		run = 20 * time.Second
		if long {
			run = time.Hour
		}
	}
	if run >= 2*time.Minute {
		samples, fill, slack = int(min(run/(250*time.Millisecond), 1200)), 60, 6<<20
	}
	seed := drawSeed(t)
	file := newFile(t)
	p := startHearthd(t, "-e", file, "-m", fmt.Sprint(memory), "-t", "4")
	l := newLedger(clients, 3000, counters, true)
	conn := dial(p.addr)
	defer conn.Close()
	if err := l.restartCounters(conn); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	fail := make(chan error, clients+soakers+2)
	start := func(step func() error) {
		all.Go(func() {
			for !stop.Load() {
				if err := step(); err != nil {
					fail <- err
					return
				}
			}
		})
	}
	var done atomic.Int64
	for id := range clients {
		w := &worker{l: l, id: id, conn: dial(p.addr), rand: rand.New(rand.NewPCG(seed, uint64(id))), last: map[*counter]count{},
			size: func(r *rand.Rand) int { return 60 + r.IntN(3000) }}
		defer w.conn.Close()
		start(func() error { done.Add(1); return w.step() })
	}
	var soaking []*soaker
	for id := range soakers {
		s, c := &soaker{id: id, rand: rand.New(rand.NewPCG(seed, uint64(100+id)))}, dial(p.addr)
		defer c.Close()
		soaking = append(soaking, s)
		start(func() error { done.Add(2); return s.step(c) })
	}
	watcher, err := dialWire(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if reply, err := watcher.admin("watch fetchers mutations evictions deletions sysevents"); reply != "OK" {
		t.Fatal(reply, err)
	}
	watcher.SetDeadline(time.Time{})
	var logged atomic.Int64
	all.Go(func() { // it ends when the watcher is closed
		for {
			if _, err := watcher.r.ReadSlice('\n'); err != nil {
				if !stop.Load() {
					fail <- fmt.Errorf("watch: %w", err)
				}
				return
			}
			logged.Add(1)
		}
	})
	operator, err := dialWire(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	draw := rand.New(rand.NewPCG(seed, 1000))
	dumps, dumped, turns := 0, 0, 0
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	start(func() error {
		<-pace.C
		turns++
		command, want := "", "OK"
		switch turns % 4 {
		case 0:
			ok, err := operator.dump(func([]byte) { dumped++ })
			if ok {
				dumps++
			}
			return err
		case 1:
			command, want = "lru_crawler crawl all", "OK|BUSY currently processing crawler request"
		case 2:
			command = fmt.Sprintf("slabs reassign %d %d", draw.IntN(40)-1, 1+draw.IntN(39))
			want = "OK|BUSY currently processing reassign request|NOSPARE source class has no spare pages|SAME src and dst class are identical|BADCLASS invalid src or dst class id"
		default:
			command = fmt.Sprintf("cache_memlimit %d", []int{memory, memory - 20, memory, memory + 8}[turns/4%4])
		}
		reply, err := operator.admin(command)
		if err == nil && !slices.Contains(strings.Split(want, "|"), reply) {
			err = fmt.Errorf("%s: %q", command, reply)
		}
		return err
	})
	every := time.NewTicker(run / time.Duration(samples))
	defer every.Stop()
	resident, anon := make([]int, 0, samples), make([]int, 0, samples)
	var wrong error
	warm := 0
	for len(resident) < samples && wrong == nil {
		select {
		case wrong = <-fail:
		case <-every.C:
			if warm < fill || number(t, p, "evictions") == 0 && warm < 20*samples {
				warm++
				continue
			}
			resident, anon = append(resident, residentBytes(t, p)), append(anon, procStatus(t, p, "RssAnon"))
		}
	}
	stop.Store(true)
	watcher.Close()
	all.Wait()
	for len(fail) > 0 {
		wrong = errors.Join(wrong, <-fail)
	}
	if wrong != nil {
		t.Fatalf("%v\n%s", wrong, p.stderr)
	}
	if reply, err := operator.admin(fmt.Sprintf("cache_memlimit %d", memory)); reply != "OK" {
		t.Fatal(reply, err)
	}
	checked, errs := l.verify(p.addr)
	if len(errs) > 0 {
		t.Fatalf("%d of %d keys are wrong; the first:\n%s", len(errs), checked, joined(errs))
	}
	refused := 0
	for _, s := range soaking {
		refused += s.refused
	}
	if int64(refused) > done.Load()/100_000 {
		t.Errorf("%d of %d operations found no memory for a small value", refused, done.Load())
	}
	quarter := samples / 4
	for name, of := range map[string][]int{"VmRSS": resident, "RssAnon": anon} {
		first, last := slices.Max(of[:quarter]), slices.Max(of[samples-quarter:])
		t.Logf("%s at most %.1f MB in the first quarter, %.1f MB in the last", name, mb(first), mb(last))
		if last > first+slack {
			t.Errorf("%s grew from %.1f MB in the first quarter to %.1f MB in the last, want at most %d MB more", name, mb(first), mb(last), slack>>20)
		}
	}
	t.Logf("seed %d: %d operations in %v and before, %d dumps with %d lines, %d log lines; evictions %s, crawler_reclaimed %s, crawls %s, slabs_moved %s; %d small values refused; %d keys checked", seed,
		done.Load(), run, dumps, dumped, logged.Load(), stat(t, p.addr, "evictions"), stat(t, p.addr, "crawler_reclaimed"), stat(t, p.addr, "lru_crawler_starts"),
		stat(t, p.addr, "slabs_moved"), refused, checked)
	for name, n := range map[string]int{"dumps": dumps, "evictions": number(t, p, "evictions"), "crawls": number(t, p, "lru_crawler_starts"),
		"reclaimed by the crawler": number(t, p, "crawler_reclaimed"), "pages moved": number(t, p, "slabs_moved"), "log lines": int(logged.Load())} {
		if n == 0 {
			t.Errorf("no %s: the soak does not do what it should", name)
		}
	}
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr)
	}
	wantSound(t, file, memory)
}

// TestDumpListsWhatStaysWhileOthersWrite stores many items, and dumps them while eight clients write others. As documented at hearth.Walk, what is there all the
// time is listed once, and at least once if pages moved. How much longer the slowest writes take is asserted for many items only: a short dump is too short.
func TestDumpListsWhatStaysWhileOthersWrite(t *testing.T) {
	const clients = 8
	n, memory, atMost := 300_000, 256, 10.0
	if long {
		n, memory, atMost = 20_000_000, 4096, 2.0
	}
	p := startHearthd(t, "-e", newFile(t), "-m", fmt.Sprint(memory), "-t", "4")
	began := time.Now()
	if err := split(n, 4, func(_, from, to int) error {
		w, err := dialWire(p.addr)
		if err != nil {
			return err
		}
		defer w.Close()
		const batch = 500
		for ; from < to; from += batch {
			end := min(from+batch, to)
			for i := from; i < end; i++ {
				w.set(fmt.Sprintf("steady-%d", i), []byte("value"))
			}
			if err := w.w.Flush(); err != nil {
				return err
			}
			for range end - from {
				if err := w.stored(); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	filled := time.Since(began)
	// write has the clients write for as long as f runs, and returns the 99th percentile of the time that a set takes.
	write := func(f func()) (p99 time.Duration, sets int) {
		var stop atomic.Bool
		took := make([][]time.Duration, clients)
		failed := make(chan error, 1)
		go func() {
			failed <- split(clients, clients, func(id, _, _ int) error {
				w, err := dialWire(p.addr)
				if err != nil {
					return err
				}
				defer w.Close()
				for i := 0; !stop.Load(); i++ {
					began := time.Now()
					w.set(fmt.Sprintf("churn-%d-%d", id, i%5000), []byte("value"))
					if err := w.w.Flush(); err != nil {
						return err
					}
					if err := w.stored(); err != nil {
						return err
					}
					took[id] = append(took[id], time.Since(began))
				}
				return nil
			})
		}()
		f()
		stop.Store(true)
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		all := slices.Sorted(slices.Values(slices.Concat(took...)))
		return all[len(all)*99/100], len(all)
	}
	phase := 2 * time.Second
	if long {
		phase = 20 * time.Second
	}
	before, setsBefore := write(func() { <-time.After(phase) })
	listed := make([]uint8, n)
	dumps := 0
	var took time.Duration
	dumper, err := dialWire(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer dumper.Close()
	during, setsDuring := write(func() {
		for began := time.Now(); time.Since(began) < phase || dumps == 0; dumps++ {
			clear(listed)
			churn, dumpBegan := 0, time.Now()
			ok, err := dumper.dump(func(key []byte) {
				digits, ok := bytes.CutPrefix(key, []byte("steady-"))
				if i, err := strconv.Atoi(string(digits)); ok && err == nil && i < n {
					listed[i]++
				} else {
					churn++
				}
			})
			if err != nil || !ok {
				t.Errorf("dump %d: %v, %t", dumps, err, ok)
				return
			}
			took = time.Since(dumpBegan)
			missing, more := 0, 0
			for _, times := range listed {
				switch {
				case times == 0:
					missing++
				case times > 1:
					more++
				}
			}
			moved := number(t, p, "slabs_moved")
			if missing > 0 || more > 0 && moved == 0 {
				t.Errorf("dump %d: of %d items that were there all the time %d are not listed, %d more than once (%d pages moved)", dumps, n, missing, more, moved)
				return
			}
			if churn == 0 {
				t.Errorf("dump %d: none of the items that the clients write", dumps)
			}
		}
	})
	if e := number(t, p, "evictions"); e > 0 {
		t.Errorf("%d evictions: the items were not there all the time", e)
	}
	t.Logf("%d items stored in %v; %d dumps, the last took %v; a set's p99 %v without (%d sets), %v during dumps (%d sets): %.2f times", n, filled, dumps, took,
		before, setsBefore, during, setsDuring, float64(during)/float64(before))
	if float64(during) > atMost*float64(before) {
		t.Errorf("a set's p99 is %v during dumps, %v without: want at most %.0f times", during, before, atMost)
	}
}
