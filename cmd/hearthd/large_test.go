package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
	"time"
)

// bigClient sends and reads values that are too large to be held, and looks at the server's heap all the while: large values go straight from the socket
// into their chunks, and from there to the socket.
type bigClient struct {
	t     *testing.T
	p     *proc
	c     net.Conn
	r     *bufio.Reader
	piece []byte
	most  int // of RssAnon so far
	since int // bytes since the last look
}

// heapSlack is what RssAnon may rise to above what it was: buffers, stacks, and what Go's collector leaves between two runs.
const heapSlack = 8 << 20

func newBigClient(t *testing.T, p *proc) *bigClient {
	c, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &bigClient{t: t, p: p, c: c, r: bufio.NewReaderSize(c, 64<<10), piece: make([]byte, 64<<10)}
}

// moved looks at the server's heap every few megabytes, and extends the deadline: a peer that still moves is waited for.
func (b *bigClient) moved(n int) {
	if b.since += n; b.since >= 4<<20 {
		b.since = 0
		b.c.SetDeadline(time.Now().Add(patience))
		b.look()
	}
}

func (b *bigClient) look() { b.most = max(b.most, procStatus(b.t, b.p, "RssAnon")) }

// random are n bytes that follow from seed.
func random(seed byte, n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), int64(n))
}

// store sends a value of n bytes that follow from seed, and adds them to sum.
func (b *bigClient) store(command, key string, seed byte, n int, sum hash.Hash) {
	b.t.Helper()
	b.c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(b.c, "%s %s 0 0 %d\r\n", command, key, n)
	for from := io.TeeReader(random(seed, n), sum); ; {
		m, err := io.ReadFull(from, b.piece)
		if _, werr := b.c.Write(b.piece[:m]); werr != nil {
			b.t.Fatal(werr)
		}
		if b.moved(m); err != nil {
			break
		}
	}
	io.WriteString(b.c, "\r\n")
	b.c.SetDeadline(time.Now().Add(5 * patience)) // an append copies the value before it answers
	if line := b.line(); line != "STORED\r\n" {
		b.t.Fatalf("%s of %d bytes: %q", command, n, line)
	}
	b.look()
}

func (b *bigClient) line() string {
	b.t.Helper()
	line, err := b.r.ReadString('\n')
	if err != nil {
		b.t.Fatal(err)
	}
	return line
}

// wants reads the value, which must have n bytes with the sum.
func (b *bigClient) wants(key string, n int, sum hash.Hash) {
	b.t.Helper()
	b.c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(b.c, "get %s\r\n", key)
	if line, want := b.line(), fmt.Sprintf("VALUE %s 0 %d\r\n", key, n); line != want {
		b.t.Fatalf("get: %q, want %q", line, want)
	}
	got := sha256.New()
	for left := n; left > 0; {
		m, err := b.r.Read(b.piece[:min(left, len(b.piece))])
		if err != nil {
			b.t.Fatalf("%d bytes before the end: %v", left, err)
		}
		got.Write(b.piece[:m])
		left -= m
		b.moved(m)
	}
	if end := b.line() + b.line(); end != "\r\nEND\r\n" {
		b.t.Fatalf("behind the value: %q", end)
	}
	if !bytes.Equal(got.Sum(nil), sum.Sum(nil)) {
		b.t.Errorf("%s: %d bytes with another checksum than what was stored", key, n)
	}
	b.look()
}

// ask sends a line and returns the first of the reply.
func (b *bigClient) ask(line string) string {
	b.t.Helper()
	io.WriteString(b.c, line+"\r\n")
	return b.line()
}

func stats(t *testing.T, p *proc, name string) int {
	n, err := strconv.Atoi(stat(t, p.addr, name))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// move has pages of the class of the largest chunks emptied, so that what is in them moves.
func (b *bigClient) move(pages int) {
	b.t.Helper()
	class := "39" // of memcached's default table
	for end := time.Now().Add(2 * patience); pages > 0; {
		before := stats(b.t, b.p, "slabs_moved")
		reply := b.ask("slabs reassign " + class + " 1")
		for reply == "OK\r\n" && stats(b.t, b.p, "slab_reassign_running") != 0 && time.Now().Before(end) {
			time.Sleep(time.Millisecond) // nobody tells when a page has moved
		}
		if after := stats(b.t, b.p, "slabs_moved"); after > before {
			pages -= after - before
		} else if time.Now().After(end) {
			b.t.Fatalf("%d pages are still to move; the last reply is %q", pages, reply)
		}
	}
	b.look()
}

// Sixteenths of the largest value: 14 are stored, 1 appended, and the whole overwritten by 12. In the long run the value comes close to a gigabyte.
func TestLargeValuesTakeNoHeap(t *testing.T) {
	itemMax := 64 << 20
	if os.Getenv("HEARTH_LONG") != "" {
		itemMax = 1 << 30
	}
	mib := func(n int) string { return strconv.Itoa(n>>20) + "m" }
	p := startHearthd(t, "-e", newFile(t), "-m", strconv.Itoa(4*itemMax>>20), "-I", mib(itemMax), "-t", "2", "-o", "no_slab_automove")
	b := newBigClient(t, p)
	store(t, p.addr, "neighbour", "still here")
	b.look()
	before, unit := b.most, itemMax/16

	sum := sha256.New()
	b.store("set", "big", 1, 14*unit, sum)
	b.store("set", "room", 0, unit, sha256.New()) // moves evict where there is no free chunk, so there are some
	b.ask("delete room")
	b.wants("big", 14*unit, sum)
	b.move(3)
	b.wants("big", 14*unit, sum)
	b.store("append", "big", 2, unit, sum)
	b.wants("big", 15*unit, sum)
	b.move(3)
	if rescued := stats(t, p, "slab_reassign_chunk_rescues"); rescued == 0 {
		t.Error("no part of the value was moved")
	}
	b.wants("big", 15*unit, sum)

	sum = sha256.New()
	b.store("set", "big", 3, 12*unit, sum)
	b.wants("big", 12*unit, sum)
	if reply := b.ask("delete big"); reply != "DELETED\r\n" {
		t.Errorf("delete: %q", reply)
	}
	if reply := b.ask("get big"); reply != "END\r\n" {
		t.Errorf("get of the deleted value: %q", reply)
	}
	// Its memory is free again: two more of the kind fit without an eviction.
	for _, key := range []string{"one", "two"} {
		sum = sha256.New()
		b.store("set", key, 4, 14*unit, sum)
		b.wants(key, 14*unit, sum)
	}
	if n := stats(t, p, "evictions"); n != 0 || !holds(t, p.addr, "neighbour", "still here") {
		t.Errorf("%d items were evicted", n)
	}
	if b.most > before+heapSlack {
		t.Errorf("RssAnon was %d kB before and up to %d kB meanwhile", before>>10, b.most>>10)
	}
	t.Logf("RssAnon was %d kB before and at most %d kB meanwhile", before>>10, b.most>>10)
}
