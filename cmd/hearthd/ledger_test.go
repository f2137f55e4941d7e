package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bradfitz/gomemcache/memcache"
)

// A value is one or more records, each of which says what it is, so that a wrong one tells whose it was and when it was stored:
//
//	key|client|seq|length|pattern|crc
//
// The length is that of the whole record in bytes, the checksum is over all before it.
const recordTail = 9 // "|" and the checksum in hex

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends a record of size bytes, or of as few as its head and tail need.
func appendRecord(dst []byte, key string, client int, seq uint32, size int) []byte {
	start := len(dst)
	dst = append(append(dst, key...), '|')
	dst = append(strconv.AppendInt(dst, int64(client), 10), '|')
	dst = append(strconv.AppendUint(dst, uint64(seq), 10), '|')
	size = max(size, len(dst)-start+len("1234|")+recordTail)
	dst = append(strconv.AppendInt(dst, int64(size), 10), '|')
	for x := uint64(seq)<<32 ^ uint64(crc32.Checksum(dst[start:], castagnoli)); len(dst)-start < size-recordTail; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		dst = append(dst, 'a'+byte(x>>32)%26)
	}
	return fmt.Appendf(dst, "|%08x", crc32.Checksum(dst[start:], castagnoli))
}

// describe tells what records a value is made of.
func describe(value []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes:", len(value))
	for len(value) > 0 {
		f := bytes.SplitN(value, []byte("|"), 5)
		size := -1
		if len(f) == 5 {
			size, _ = strconv.Atoi(string(f[3]))
		}
		if size < recordTail || size > len(value) {
			fmt.Fprintf(&b, " garbage %.40q", value)
			break
		}
		state := "whole"
		if want := fmt.Sprintf("%08x", crc32.Checksum(value[:size-recordTail], castagnoli)); string(value[size-recordTail+1:size]) != want {
			state = "torn"
		}
		fmt.Fprintf(&b, " %s record of key %s by client %s, seq %s;", state, f[0], f[1], f[2])
		value = value[size:]
	}
	return b.String()
}

// entry is what the ledger knows of one key, which only one client writes: the values that a get may return. In the manner of pebble's crash
// tests that is unset or set, one alternative, or maybe, several: an operation adds its outcome before it is sent, and its reply takes the rest
// away. A read settles it too, since nothing may change a value after it was seen.
type entry struct {
	key  string
	may  [][]byte // nil in it: a miss
	seq  uint32   // of the last operation
	cas  uint64   // of the value that was read last
	seen []byte   // that value
}

// expect replaces what the key may hold.
func (e *entry) expect(alternatives ...[]byte) { e.may = alternatives }

// maybe adds an outcome.
func (e *entry) maybe(value []byte) { e.may = append(e.may[:len(e.may):len(e.may)], value) }

// now is the value of an entry that is settled.
func (e *entry) now() []byte { return e.may[0] }

// read checks what a get returned, nil for a miss. A lossy cache may have evicted the value, but then it stays away.
func (e *entry) read(got []byte, lossy bool) error {
	for _, v := range e.may {
		if (v == nil) == (got == nil) && bytes.Equal(v, got) {
			e.expect(v)
			return nil
		}
	}
	if got == nil && lossy {
		e.expect(nil)
		return nil
	}
	var want []string
	for _, v := range e.may {
		if want = append(want, "a miss"); v != nil {
			want[len(want)-1] = describe(v)
		}
	}
	found, what := "lost: a miss", ""
	if got != nil {
		if found, what = "wrong", ": "+describe(got); len(e.may) == 1 && e.may[0] == nil {
			found = "resurrected"
		}
	}
	return fmt.Errorf("%s: %s%s; after seq %d want %s", e.key, found, what, e.seq, strings.Join(want, " or "))
}

// readItem is read, and looks whether the CAS is a new one for a new value and the old one for an old value. A touch that races with a copy of
// its item may renew the item, but nothing does here.
func (e *entry) readItem(it *memcache.Item, lossy bool) error {
	if it == nil {
		e.cas, e.seen = 0, nil
		return e.read(nil, lossy)
	}
	if err := e.read(it.Value, lossy); err != nil {
		return err
	}
	if it.CasID == e.cas && !bytes.Equal(it.Value, e.seen) {
		return fmt.Errorf("%s: CAS %d stands for two values: %s and %s", e.key, it.CasID, describe(e.seen), describe(it.Value))
	}
	if it.CasID < e.cas {
		return fmt.Errorf("%s: CAS %d after %d", e.key, it.CasID, e.cas)
	}
	e.cas, e.seen = it.CasID, it.Value
	return nil
}

// counter is a key that all clients increment by one: when nothing is under way its value is between the acknowledged and the sent increments.
type counter struct {
	key         string
	low, sent   atomic.Uint64
	gone, maybe atomic.Bool   // it must be a miss; it may be one
	life        atomic.Uint64 // one more whenever it is set to 0
}

// count is what a client last saw of a counter.
type count struct{ n, life uint64 }

func (c *counter) raise(n uint64) {
	for low := c.low.Load(); low < n && !c.low.CompareAndSwap(low, n); low = c.low.Load() {
	}
}

func (c *counter) read(it *memcache.Item, lossy bool) error {
	if it == nil {
		if !lossy && !c.gone.Load() && !c.maybe.Load() {
			return fmt.Errorf("%s: lost: a miss, want at least %d", c.key, c.low.Load())
		}
		c.gone.Store(true)
		c.maybe.Store(false)
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimRight(string(it.Value), " "), 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("%s: wrong: %q, want a number", c.key, it.Value)
	case c.gone.Load():
		return fmt.Errorf("%s: resurrected: %d, want a miss", c.key, n)
	case n < c.low.Load() || n > c.sent.Load():
		return fmt.Errorf("%s: wrong: %d, want %d, the acknowledged increments, to %d, the sent ones", c.key, n, c.low.Load(), c.sent.Load())
	}
	c.low.Store(n)
	c.sent.Store(n)
	c.maybe.Store(false)
	return nil
}

// ledger is the oracle of acknowledged operations.
type ledger struct {
	lossy    bool // the cache is too small for all: a miss is no loss
	clients  [][]*entry
	counters []*counter
	evicted  atomic.Int64 // keys that verify found gone although their last operation said stored
	flushing bool         // a flush_all was sent and not answered: all keys are gone, or none
}

func newLedger(clients, keys, counters int, lossy bool) *ledger {
	l := &ledger{lossy: lossy}
	for c := range clients {
		var mine []*entry
		for k := range keys {
			mine = append(mine, &entry{key: fmt.Sprintf("client-%d-key-%d", c, k), may: [][]byte{nil}})
		}
		l.clients = append(l.clients, mine)
	}
	for i := range counters {
		c := &counter{key: fmt.Sprintf("counter-%d", i)}
		c.gone.Store(true)
		l.counters = append(l.counters, c)
	}
	return l
}

// verify reads all keys when no client is at work, and returns how many it read and what is wrong with them.
func (l *ledger) verify(addr string) (checked int, wrong []error) {
	var mu sync.Mutex
	report := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		wrong = append(wrong, err)
	}
	var kept, dropped atomic.Int64 // by the unanswered flush_all
	var all sync.WaitGroup
	for _, mine := range l.clients {
		checked += len(mine)
		all.Add(1)
		go func() {
			defer all.Done()
			c := dial(addr)
			defer c.Close()
			const batch = 100
			for ; len(mine) > 0; mine = mine[min(batch, len(mine)):] {
				group := mine[:min(batch, len(mine))]
				var keys []string
				for _, e := range group {
					keys = append(keys, e.key)
				}
				items, err := c.GetMulti(keys)
				if err != nil {
					report(err)
					return
				}
				for _, e := range group {
					undecided := l.flushing && len(e.may) > 1 && e.now() != nil
					stored := len(e.may) == 1 && e.now() != nil
					if err := e.readItem(items[e.key], l.lossy); err != nil {
						report(err)
					} else if stored && e.now() == nil {
						l.evicted.Add(1)
					} else if undecided && e.now() == nil {
						dropped.Add(1)
					} else if undecided {
						kept.Add(1)
					}
				}
			}
		}()
	}
	all.Wait()
	if kept.Load() > 0 && dropped.Load() > 0 && !l.lossy {
		report(fmt.Errorf("flush_all without reply: %d keys are gone and %d are not, want all or none", dropped.Load(), kept.Load()))
	}
	l.flushing = false
	c := dial(addr)
	defer c.Close()
	for _, n := range l.counters {
		checked++
		it, err := c.Get(n.key)
		if err != nil && err != memcache.ErrCacheMiss {
			report(err)
		} else if err := n.read(it, l.lossy); err != nil {
			report(err)
		}
	}
	return checked, wrong
}

// dial returns a client with one connection and as much time as a test has.
func dial(addr string) *memcache.Client {
	c := memcache.New(addr)
	c.Timeout, c.MaxIdleConns = patience, 1
	return c
}

// cutOff tells whether an error is that the connection ended, rather than a reply.
func cutOff(err error) bool {
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &ne) && !ne.Timeout()
}

// errUnsettled is what a client meets after a flush_all was cut off, before it learns that its own connection is.
var errUnsettled = errors.New("an earlier operation has no reply")

// worker is one client of a ledger at work.
type worker struct {
	l    *ledger
	id   int
	conn *memcache.Client
	rand *rand.Rand
	size func(*rand.Rand) int // of a record

	sent, acked int
	noMemory    int
	last        map[*counter]count
}

// step does one random operation. It returns an error that cutOff knows when the connection ended, and any other when a reply contradicts the ledger.
func (w *worker) step() error {
	e := w.l.clients[w.id][w.rand.IntN(len(w.l.clients[w.id]))]
	if len(e.may) > 1 {
		return errUnsettled
	}
	old := e.now()
	err := w.change(e, old)
	if err == nil || !w.l.lossy || !strings.Contains(err.Error(), "SERVER_ERROR out of memory") {
		return err
	}
	// The few chunks of a class can all be in other uploads. A set has removed the old value then.
	w.noMemory++
	e.expect(old, nil)
	return w.get(e)
}

// change is step with a settled key that holds old.
func (w *worker) change(e *entry, old []byte) (err error) {
	record := func() []byte { e.seq++; return appendRecord(nil, e.key, w.id, e.seq, w.size(w.rand)) }
	w.sent++
	defer func() {
		if err == nil {
			w.acked++
		}
	}()
	// done settles an entry by a reply; misses is what it says that there was nothing.
	done := func(err, misses error, next []byte) error {
		switch {
		case err == nil:
			e.expect(next)
			return nil
		case err == misses && misses != nil:
			e.expect(old)
			return e.read(nil, w.l.lossy)
		}
		return err
	}
	found := func(err error) error { // for an operation that needs an item
		if old == nil && err == nil {
			return fmt.Errorf("%s: resurrected: an operation found it; after seq %d want a miss", e.key, e.seq)
		}
		return err
	}
	switch p := w.rand.IntN(100); {
	case p < 32: // set; a dead one now and then
		v := record()
		it := &memcache.Item{Key: e.key, Value: v}
		switch w.rand.IntN(10) {
		case 0:
			it.Expiration, v = -1, nil
		case 1:
			it.Expiration = 10_000
		}
		e.maybe(v)
		return done(w.conn.Set(it), nil, v)
	case p < 47:
		return w.get(e)
	case p < 57:
		e.maybe(nil)
		return done(found(w.conn.Delete(e.key)), memcache.ErrCacheMiss, nil)
	case p < 67 && len(old) < 64<<10: // append, prepend
		rec := record()
		next, op := append(old[:len(old):len(old)], rec...), w.conn.Append
		if w.rand.IntN(2) == 0 {
			next, op = append(rec[:len(rec):len(rec)], old...), w.conn.Prepend
		}
		if old != nil {
			e.maybe(next)
		}
		err := op(&memcache.Item{Key: e.key, Value: rec})
		if err == memcache.ErrNotStored && old != nil && w.l.lossy { // evicted, or no memory for the sum
			e.expect(old, nil)
			return w.get(e)
		}
		return done(found(err), memcache.ErrNotStored, next)
	case p < 75: // cas, sometimes with the wrong id
		it, err := w.conn.Get(e.key)
		if err == memcache.ErrCacheMiss {
			return e.readItem(nil, w.l.lossy)
		} else if err != nil {
			return err
		}
		if err := e.readItem(it, w.l.lossy); err != nil {
			return err
		}
		stale := w.rand.IntN(4) == 0
		if stale {
			it.CasID--
		}
		it.Value = record()
		if !stale {
			e.maybe(it.Value)
		}
		err = w.conn.CompareAndSwap(it)
		if stale {
			if err == nil {
				return fmt.Errorf("%s: cas took an id that it never had", e.key)
			} else if err == memcache.ErrCASConflict {
				return nil
			}
		}
		return done(err, memcache.ErrCacheMiss, it.Value)
	case p < 82: // touch or gat: to a time long from now, or to the past
		t, next := int32(20_000), old
		if w.rand.IntN(3) == 0 {
			t, next = -1, nil
			e.maybe(nil)
		}
		if w.rand.IntN(2) == 0 {
			return done(found(w.conn.Touch(e.key, t)), memcache.ErrCacheMiss, next)
		}
		it, err := w.conn.GetAndTouch(e.key, t)
		if err == nil {
			if err := (&entry{key: e.key, may: [][]byte{old}, seq: e.seq}).read(it.Value, false); err != nil {
				return err
			}
		}
		return done(found(err), memcache.ErrCacheMiss, next)
	case p < 87: // add, replace
		v := record()
		if w.rand.IntN(2) == 0 {
			if old == nil || w.l.lossy {
				e.maybe(v)
			}
			err := w.conn.Add(&memcache.Item{Key: e.key, Value: v})
			if err == memcache.ErrNotStored && old != nil {
				e.expect(old)
				return nil
			} else if err == nil && old != nil && !w.l.lossy {
				return fmt.Errorf("%s: lost: add stored; after seq %d want %s", e.key, e.seq, describe(old))
			}
			return done(err, nil, v)
		}
		if old != nil {
			e.maybe(v)
		}
		return done(found(w.conn.Replace(&memcache.Item{Key: e.key, Value: v})), memcache.ErrNotStored, v)
	default:
		return w.increment(w.l.counters[w.rand.IntN(len(w.l.counters))])
	}
}

func (w *worker) get(e *entry) error {
	it, err := w.conn.Get(e.key)
	if err != nil && err != memcache.ErrCacheMiss {
		return err
	}
	return e.readItem(it, w.l.lossy)
}

func (w *worker) increment(c *counter) error {
	gone := c.gone.Load()
	c.sent.Add(1)
	n, err := w.conn.Increment(c.key, 1)
	switch {
	case err == memcache.ErrCacheMiss && (gone || w.l.lossy):
		c.gone.Store(true)
		return nil
	case err == memcache.ErrCacheMiss:
		return fmt.Errorf("%s: lost: a miss, want at least %d", c.key, c.low.Load())
	case err != nil:
		return err
	case gone:
		return fmt.Errorf("%s: resurrected: %d, want a miss", c.key, n)
	case n <= w.last[c].n && w.last[c].life == c.life.Load():
		return fmt.Errorf("%s: %d after %d", c.key, n, w.last[c].n)
	}
	w.last[c] = count{n, c.life.Load()}
	c.raise(n)
	return nil
}

// flush does flush_all and makes the counters anew while no client is in an operation.
func (l *ledger) flush(conn *memcache.Client) error {
	for _, mine := range l.clients {
		for _, e := range mine {
			e.maybe(nil)
		}
	}
	for _, c := range l.counters {
		c.maybe.Store(true)
	}
	l.flushing = true
	if err := conn.FlushAll(); err != nil {
		return err
	}
	l.flushing = false
	for _, mine := range l.clients {
		for _, e := range mine {
			e.expect(nil)
		}
	}
	for _, c := range l.counters {
		c.gone.Store(true)
		c.maybe.Store(false)
	}
	return l.restartCounters(conn)
}

// restartCounters sets the counters that are gone to 0.
func (l *ledger) restartCounters(conn *memcache.Client) error {
	for _, c := range l.counters {
		if !c.gone.Load() {
			continue
		}
		c.life.Add(1)
		c.low.Store(0)
		c.sent.Store(0)
		c.maybe.Store(true)
		c.gone.Store(false)
		if err := conn.Set(&memcache.Item{Key: c.key, Value: []byte("0")}); err != nil {
			return err
		}
		c.maybe.Store(false)
	}
	return nil
}

// TestLedgerNamesWhatItFinds plants in a sound server what the kill tests look for: a test of the test.
func TestLedgerNamesWhatItFinds(t *testing.T) {
	p := startHearthd(t)
	conn := dial(p.addr)
	defer conn.Close()
	set := func(key string, value []byte) {
		t.Helper()
		if err := conn.Set(&memcache.Item{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	fresh := func(lossy bool) (*ledger, *entry, *counter) {
		l := newLedger(2, 50, 1, lossy)
		for id, mine := range l.clients {
			for _, e := range mine {
				e.seq = 2
				e.expect(appendRecord(nil, e.key, id, e.seq, 200))
				set(e.key, e.now())
			}
		}
		if err := l.restartCounters(conn); err != nil {
			t.Fatal(err)
		}
		l.counters[0].sent.Store(7)
		l.counters[0].low.Store(5)
		set(l.counters[0].key, []byte("6"))
		return l, l.clients[1][17], l.counters[0]
	}
	if _, wrong := func() (int, []error) { l, _, _ := fresh(false); return l.verify(p.addr) }(); len(wrong) > 0 {
		t.Fatalf("in a sound cache: %v", wrong)
	}
	for want, plant := range map[string]func(*ledger, *entry, *counter){
		"lost: a miss; after seq 2 want": func(_ *ledger, e *entry, _ *counter) { conn.Delete(e.key) },
		"client-1-key-17: wrong: 200 bytes: whole record of key client-1-key-17 by client 1, seq 1;": func(_ *ledger, e *entry, _ *counter) {
			set(e.key, appendRecord(nil, e.key, 1, 1, 200))
		},
		"client-1-key-17: wrong: 200 bytes: whole record of key client-1-key-3 by client 1, seq 2;": func(l *ledger, e *entry, _ *counter) {
			set(e.key, l.clients[1][3].now())
		},
		"client-1-key-17: wrong: 200 bytes: torn record of key client-1-key-17 by client 1, seq 2;": func(_ *ledger, e *entry, _ *counter) {
			v := bytes.Clone(e.now())
			v[100] ^= 1
			set(e.key, v)
		},
		"client-1-key-17: resurrected: 200 bytes: whole record":                         func(_ *ledger, e *entry, _ *counter) { e.expect(nil) },
		"counter-0: wrong: 4, want 5":                                                   func(_ *ledger, _ *entry, c *counter) { set(c.key, []byte("4")) },
		"counter-0: wrong: 8, want 5":                                                   func(_ *ledger, _ *entry, c *counter) { set(c.key, []byte("8")) },
		"counter-0: lost: a miss, want at least 5":                                      func(_ *ledger, _ *entry, c *counter) { conn.Delete(c.key) },
		"counter-0: resurrected: 6":                                                     func(_ *ledger, _ *entry, c *counter) { c.gone.Store(true) },
		"client-1-key-17: CAS 7 stands for two values":                                  nil,
		"flush_all without reply: 1 keys are gone and 99 are not, want all or none":     nil,
		"client-1-key-17: resurrected: 0 bytes:; after seq 2 want a miss":               nil,
		"client-1-key-17: wrong: 400 bytes: whole record of key client-1-key-17 by cli": func(_ *ledger, e *entry, _ *counter) { set(e.key, append(bytes.Clone(e.now()), e.now()...)) },
	} {
		var wrong []error
		l, e, c := fresh(false)
		switch {
		case plant != nil:
			plant(l, e, c)
			_, wrong = l.verify(p.addr)
		case strings.Contains(want, "CAS"):
			e.cas, e.seen = 7, []byte("x")
			wrong = append(wrong, e.readItem(&memcache.Item{CasID: 7, Value: e.now()}, false))
		case strings.Contains(want, "flush_all"):
			for _, mine := range l.clients {
				for _, e := range mine {
					e.maybe(nil)
				}
			}
			l.flushing = true
			conn.Delete(e.key)
			_, wrong = l.verify(p.addr)
		default: // an empty value is not a miss
			e.expect(nil)
			set(e.key, nil)
			_, wrong = l.verify(p.addr)
		}
		if len(wrong) != 1 || !strings.Contains(wrong[0].Error(), want) {
			t.Errorf("found %v\nwant one with %q", wrong, want)
		}
	}
	// A small cache may miss, but then for good.
	l, e, _ := fresh(true)
	v := e.now()
	conn.Delete(e.key)
	if _, wrong := l.verify(p.addr); len(wrong) > 0 {
		t.Errorf("a miss in a lossy cache: %v", wrong)
	}
	set(e.key, v)
	if _, wrong := l.verify(p.addr); len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "resurrected") {
		t.Errorf("evicted and back: found %v", wrong)
	}
}
