package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// wire is a connection that pipelines, for loads that a client with one request at a time would take minutes for.
type wire struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func dialWire(addr string) (*wire, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &wire{c, bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)}, nil
}

// newWire is dialWire for a test, which does not wait for ever.
func newWire(t testing.TB, addr string) *wire {
	t.Helper()
	w, err := dialWire(addr)
	if err != nil {
		t.Fatal(err)
	}
	w.SetDeadline(time.Now().Add(patience))
	return w
}

func (w *wire) set(key string, value []byte) {
	w.w.WriteString("set ")
	w.w.WriteString(key)
	w.w.WriteString(" 0 0 ")
	w.w.WriteString(strconv.Itoa(len(value)))
	w.w.WriteString("\r\n")
	w.w.Write(value)
	w.w.WriteString("\r\n")
}

// stored reads the reply to a set.
func (w *wire) stored() error {
	line, err := w.r.ReadSlice('\n')
	if err == nil && string(line) != "STORED\r\n" {
		err = fmt.Errorf("set: %q, want STORED", line)
	}
	return err
}

// numbered is a large set of keys whose values tell key and version. Each key has one writer, which has at most one version under way.
type numbered struct {
	size        int      // of a value in bytes
	sent, acked []uint32 // versions by number; 0: never set
}

func newNumbered(n, size int) *numbered {
	return &numbered{size, make([]uint32, n), make([]uint32, n)}
}

func (s *numbered) key(i int) string { return fmt.Sprintf("item-%08d", i) }

// value is a record where there is room for one, else digits that follow from number and version.
func (s *numbered) value(i int, version uint32) []byte {
	if s.size < 60 {
		x := (uint64(i)<<32 | uint64(version)) * 0x9e3779b97f4a7c15
		return fmt.Appendf(nil, "%0*d", s.size, (x^x>>29)%10_000_000_000)
	}
	return appendRecord(nil, s.key(i), 0, version, s.size)
}

// load stores the next version of the keys from..to-1: pipelined, or one by one with gomemcache. It stops at the first error.
func (s *numbered) load(addr string, from, to int, pipelined bool, done *atomic.Int64) error {
	if !pipelined {
		c := dial(addr)
		defer c.Close()
		for i := from; i < to; i++ {
			s.sent[i]++
			if err := c.Set(&memcache.Item{Key: s.key(i), Value: s.value(i, s.sent[i])}); err != nil {
				return err
			}
			s.acked[i] = s.sent[i]
			done.Add(1)
		}
		return nil
	}
	w, err := dialWire(addr)
	if err != nil {
		return err
	}
	defer w.Close()
	const batch = 200
	for ; from < to; from += batch {
		end := min(from+batch, to)
		for i := from; i < end; i++ {
			s.sent[i]++
			w.set(s.key(i), s.value(i, s.sent[i]))
		}
		if err := w.w.Flush(); err != nil {
			return err
		}
		for i := from; i < end; i++ {
			if err := w.stored(); err != nil {
				return err
			}
			s.acked[i] = s.sent[i]
			done.Add(1)
		}
	}
	return nil
}

// split calls f for parts of 0..n-1, all at once.
func split(n, parts int, f func(part, from, to int) error) error {
	errs := make(chan error, parts)
	for p := range parts {
		go func() { errs <- f(p, n*p/parts, n*(p+1)/parts) }()
	}
	var first error
	for range parts {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// verify reads keys with gomemcache: all of them, or each step'th. It returns how many it read, how many were lost, and how many wrong.
func (s *numbered) verify(addr string, step int) (read, lost, wrong int, first error) {
	var mu sync.Mutex
	err := split(len(s.acked), 4, func(_, from, to int) error {
		c := dial(addr)
		defer c.Close()
		const batch = 100
		for ; from < to; from += batch * step {
			var keys []string
			for i := from; i < min(from+batch*step, to); i += step {
				keys = append(keys, s.key(i))
			}
			items, err := c.GetMulti(keys)
			if err != nil {
				return err
			}
			mu.Lock()
			for n, key := range keys {
				i := from + n*step
				e := entry{key: key, seq: s.sent[i], may: [][]byte{nil}}
				if s.acked[i] != 0 {
					e.expect(s.value(i, s.acked[i]))
				}
				if s.sent[i] != s.acked[i] {
					e.maybe(s.value(i, s.sent[i]))
				}
				var got []byte
				if it := items[key]; it != nil {
					got = it.Value
				}
				read++
				if err := e.read(got, false); err != nil {
					if got == nil {
						lost++
					} else {
						wrong++
					}
					if first == nil {
						first = err
					}
				}
				if s.acked[i] != s.sent[i] && got != nil && bytes.Equal(got, s.value(i, s.sent[i])) {
					s.acked[i] = s.sent[i]
				}
				s.sent[i] = s.acked[i] // what did not arrive by now never will
			}
			mu.Unlock()
		}
		return nil
	})
	if first == nil {
		first = err
	}
	return
}

// restarted starts hearthd on the port of addr and returns it with the time from just before the exec to the first correct reply, for which it asks in a
// tight loop. want is what key holds.
func restarted(t *testing.T, addr, key string, want []byte, args ...string) (*proc, time.Duration) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	// From another address: a connection from 127.0.0.1 to a port that nobody listens on yet can end up at itself.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	reply := fmt.Appendf(nil, "VALUE %s 0 %d\r\n%s\r\nEND\r\n", key, len(want), want)
	ask := func() ([]byte, error) {
		c, err := dialer.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "get %s\r\n", key)
		got := make([]byte, len(reply))
		n, err := io.ReadFull(c, got)
		if err == io.ErrUnexpectedEOF {
			err = nil
		}
		return got[:n], err
	}
	first := make(chan time.Duration, 1)
	p := launchAs(t, func(*exec.Cmd) {
		began := time.Now()
		go func() {
			for time.Since(began) < patience {
				got, err := ask()
				if err == nil && !bytes.Equal(got, reply) {
					t.Errorf("first reply %q, want %q", got, reply)
				}
				if err == nil {
					first <- time.Since(began)
					return
				}
			}
			first <- patience
		}()
	}, append([]string{"-u", me(), "-l", "127.0.0.1", "-p", port}, args...)...)
	if p.addr == "" {
		t.Fatalf("hearthd %q did not start again: %v\n%s", args, p.err, p.stderr)
	}
	return p, <-first
}

// TestMillionItemsSurviveEveryEnd stores a million items over TCP and ends the server while more are written, by SIGKILL and by each signal that means
// stop. It starts again on the same file at once.
func TestMillionItemsSurviveEveryEnd(t *testing.T) {
	const items, more = 1_000_000, 200_000 // more are written while it ends
	const firstReply = 100 * time.Millisecond
	args := []string{"-e", newFile(t), "-m", "400"}
	s := newNumbered(items+more, 100)
	p := startHearthd(t, args...)
	var stored atomic.Int64
	began := time.Now()
	if err := split(items, 8, func(part, from, to int) error { return s.load(p.addr, from, to, part%2 == 0, &stored) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d items of %d bytes stored over 8 connections, half of them with gomemcache, in %v", stored.Load(), s.size, time.Since(began))

	for _, end := range []struct {
		signal syscall.Signal
		kind   string
		exit   int
	}{{syscall.SIGKILL, "unclean", -int(syscall.SIGKILL)}, {syscall.SIGTERM, "clean", 0}, {syscall.SIGUSR1, "clean", 0}, {syscall.SIGINT, "clean", 0}} {
		// New items behind the million, and new versions of old ones, until the server is gone.
		const writers, before = 6, 20_000 // the last writer's part has the new items
		var written atomic.Int64
		enough := make(chan bool)
		ended := make(chan error, 1)
		var once sync.Once
		go func() {
			ended <- split(items+more, writers, func(part, from, to int) error {
				draw := rand.New(rand.NewPCG(uint64(end.signal), uint64(part)))
				for {
					at := from + 1 + draw.IntN(to-from-1001) // never number 0, which is asked for first
					if err := s.load(p.addr, at, at+1000, part%2 == 0, &written); err != nil {
						return err
					}
					if written.Load() > before {
						once.Do(func() { close(enough) })
					}
				}
			})
		}()
		select {
		case <-enough:
		case err := <-ended:
			t.Fatalf("a write failed while the server ran: %v\n%s", err, p.stderr)
		}
		signalled := time.Now()
		if code := p.stop(t, end.signal); code != end.exit {
			t.Fatalf("%v: exit %d, want %d\n%s", end.signal, code, end.exit, p.stderr)
		}
		stop := time.Since(signalled)
		if err := <-ended; !cutOff(err) {
			t.Fatalf("%v: a client was told %v", end.signal, err)
		}
		addr := p.addr
		var took time.Duration
		p, took = restarted(t, addr, s.key(0), settledValue(t, s, 0), args...)
		gap := time.Since(signalled)
		kind, sweep := stat(t, p.addr, "restart_kind"), stat(t, p.addr, "restart_sweep_ms")
		read, lost, wrong, err := s.verify(p.addr, 1)
		t.Logf("%v under load: %d more stores acknowledged; stopped in %v; exec to first correct reply %v (attach %s us, sweep %s ms); signal to serving again %v; "+
			"restart_kind %s; %d keys read: %d acknowledged lost, %d wrong", end.signal, written.Load(), stop, took, stat(t, p.addr, "restart_attach_us"), sweep,
			gap, kind, read, lost, wrong)
		if lost+wrong > 0 || err != nil {
			t.Errorf("%v: lost %d, wrong %d; the first: %v", end.signal, lost, wrong, err)
		}
		if kind != end.kind {
			t.Errorf("%v: restart_kind %s, want %s", end.signal, kind, end.kind)
		}
		if took > firstReply {
			t.Errorf("%v: first correct reply after %v, want at most %v", end.signal, took, firstReply)
		}
	}
	if evicted := stat(t, p.addr, "evictions"); evicted != "0" {
		t.Errorf("%s evictions: the test needs more memory", evicted)
	}
}

// settledValue is what number i holds, which must be settled.
func settledValue(t *testing.T, s *numbered, i int) []byte {
	t.Helper()
	if s.acked[i] != s.sent[i] || s.acked[i] == 0 {
		t.Fatalf("%s is not settled", s.key(i))
	}
	return s.value(i, s.acked[i])
}

var itemsWanted = flag.Int("items", 10_000_000, "how many items TestTenMillionItemsStopAndStartAtOnce stores, at 120 bytes of memory each")

// TestTenMillionItemsStopAndStartAtOnce: neither end of a clean stop grows with the number of items, nor does the start after a kill: what takes time then, the sweep, is beside it.
func TestTenMillionItemsStopAndStartAtOnce(t *testing.T) {
	if os.Getenv("HEARTH_LONG") == "" {
		t.Skip("takes a minute and 1.5 GB; set HEARTH_LONG=1")
	}
	items, sample := *itemsWanted, *itemsWanted/100_000
	const firstReply = 100 * time.Millisecond
	stopMost := 100*time.Millisecond + time.Duration(items)*10*time.Nanosecond  // the system takes the mapping apart
	sweepMost := 500*time.Millisecond + time.Duration(items)*50*time.Nanosecond // a second for ten million, three for fifty
	args := []string{"-e", newFile(t), "-m", fmt.Sprint(items * 120 >> 20)}
	s := newNumbered(items, 10)
	p := startHearthd(t, args...)
	began := time.Now()
	if err := split(items, 4, func(_, from, to int) error { return s.load(p.addr, from, to, true, new(atomic.Int64)) }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d items of %d bytes stored in %v; index_bytes %s, VmRSS %.0f MB", items, s.size, time.Since(began), stat(t, p.addr, "index_bytes"), mb(residentBytes(t, p)))
	for round := range 3 {
		signalled := time.Now()
		if code := p.stop(t, syscall.SIGTERM); code != 0 {
			t.Fatalf("exit %d\n%s", code, p.stderr)
		}
		stop := time.Since(signalled)
		told := regexp.MustCompile(`took=(\S+)`).FindStringSubmatch(p.stderr.String())
		var took time.Duration
		p, took = restarted(t, p.addr, s.key(round), s.value(round, 1), args...)
		kind, attach, number := stat(t, p.addr, "restart_kind"), stat(t, p.addr, "restart_attach_us"), stat(t, p.addr, "curr_items")
		step := sample
		if round == 1 && items <= 10_000_000 { // every key once, after some time in service
			step = 1
		}
		read, lost, wrong, err := s.verify(p.addr, step)
		t.Logf("SIGTERM to exit %v (of it Close %v); exec to first correct reply %v (attach %s us); restart_kind %s, curr_items %s; %d keys read: %d lost, %d wrong; "+
			"index_bytes %s, index_load %s, evictions %s", stop, told, took, attach, kind, number, read, lost, wrong,
			stat(t, p.addr, "index_bytes"), stat(t, p.addr, "index_load"), stat(t, p.addr, "evictions"))
		if kind != "clean" || lost+wrong > 0 || err != nil || number != fmt.Sprint(items) {
			t.Errorf("restart_kind %s, curr_items %s, lost %d, wrong %d: %v", kind, number, lost, wrong, err)
		}
		if stop > stopMost {
			t.Errorf("stopped after %v, want at most %v", stop, stopMost)
		}
		if took > firstReply {
			t.Errorf("first correct reply after %v, want at most %v", took, firstReply)
		}
	}
	for round := range 3 {
		p.stop(t, syscall.SIGKILL)
		var took time.Duration
		p, took = restarted(t, p.addr, s.key(7+round), s.value(7+round, 1), args...)
		for end := time.Now().Add(patience); !strings.Contains(p.stderr.String(), "msg=swept") && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		} // nobody asks meanwhile: the sweep is what is measured
		ms := number(t, p, "restart_sweep_ms")
		read, lost, wrong, err := s.verify(p.addr, sample)
		t.Logf("after SIGKILL: exec to first correct reply %v, the sweep took %d ms; %d keys read: %d lost, %d wrong", took, ms, read, lost, wrong)
		if n := number(t, p, "curr_items"); lost+wrong > 0 || err != nil || n != items {
			t.Errorf("after SIGKILL: lost %d, wrong %d: %v; curr_items %d, want %d", lost, wrong, err, n, items)
		}
		if sweep := time.Duration(ms) * time.Millisecond; took > firstReply || sweep > sweepMost || sweep == 0 {
			t.Errorf("after SIGKILL: first correct reply after %v, want at most %v; the sweep took %v, want at most %v", took, firstReply, sweep, sweepMost)
		}
	}
}
