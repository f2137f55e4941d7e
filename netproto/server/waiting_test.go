package server_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"hearth"
)

// count returns how many connections are in a state.
func inState(c *client, state string) int { return strings.Count(statLines(c), ":state "+state) }

func withMemory(bytes int64) func(*setup) {
	return func(o *setup) { o.cache = hearth.Options{HeapArena: raceEnabled, MemoryLimit: bytes} }
}

func TestStalledUploadsLoseTheirMemoryAboveHalfOfIt(t *testing.T) {
	const limit, size = 16 << 20, 500_000 // a value takes the largest chunk
	r := start(t, withMemory(limit))
	other := dial(t, r.addr)
	small := make([]*client, 3) // the memory of these is nothing, but they are slow all the same
	for i := range small {
		small[i] = dial(t, r.addr)
		small[i].ask("version\r\nset s"+itoa(i)+" 0 0 1000\r\n", version)
	}
	fewer := make([]*client, limit/2/(512<<10)-1)
	for i := range fewer {
		fewer[i] = dial(t, r.addr)
		fewer[i].ask("version\r\nset k"+itoa(i)+" 0 0 "+itoa(size)+"\r\nab", version)
	}
	r.seconds(100)
	if n := inState(other, "conn_nread"); n != len(fewer)+len(small) {
		t.Fatalf("%d uploads within the bound go on, want %d", n, len(fewer)+len(small))
	}
	began := time.Now()
	more := make([]*client, 40)
	for i := range more {
		more[i] = dial(t, r.addr)
		more[i].ask("version\r\nset m"+itoa(i)+" 0 0 "+itoa(size)+"\r\n", version)
	}
	value := strings.Repeat("v", size)
	const refused, during = "SERVER_ERROR out of memory storing object\r\n", "SERVER_ERROR Out of memory during read\r\n"
	other.send("set big 0 0 %d\r\n%s\r\n", size, value)
	if reply := other.line() + "\r\n"; reply != refused && time.Since(began) < time.Second { // later the server's own clock may have ended some
		t.Errorf("beside stalled uploads: %q, want %q", reply, refused)
	}
	r.seconds(3)
	other.ask("set big 0 0 "+itoa(size)+"\r\n"+value+"\r\n", stored)
	fast := dial(t, r.addr)
	fast.ask("version\r\nset fast 0 0 "+itoa(size)+"\r\n"+value[:size-1], version)
	lost, kept := 0, 0
	for i, c := range append(fewer, more...) {
		rest := value
		if i < len(fewer) {
			rest = value[2:]
		}
		c.send("%s\r\n", rest)
		switch reply := c.line() + "\r\n"; reply {
		case during:
			lost++
		case stored:
			kept++
		case refused: // there was no memory for it from the start
		default:
			t.Fatalf("upload %d: %q", i, reply)
		}
	}
	fast.ask("v\r\n", stored)
	for _, c := range small {
		c.send("%s", value[:1000]+"\r\n")
		if reply := c.line() + "\r\n"; reply != stored && reply != during {
			t.Errorf("a small upload: %q", reply)
		}
	}
	t.Logf("%d uploads stalled: %d lost their memory, %d could go on", len(fewer)+len(more), lost, kept)
	if lost < len(fewer)/2 || kept == 0 {
		t.Errorf("%d uploads lost their memory and %d could go on, want the bound of half of it", lost, kept)
	}
}

func TestReadersThatStallOnDeadItemsAreClosedAboveHalfOfTheMemory(t *testing.T) {
	const limit, items, each = 32 << 20, 24, 50 // each: more than the socket's buffers take
	value := strings.Repeat("v", 1<<20-1000)
	r := start(t, withMemory(limit))
	other := dial(t, r.addr)
	readers := make([]*client, items)
	for i := range readers {
		key := "k" + itoa(i)
		other.ask("set "+key+" 0 0 "+itoa(len(value))+"\r\n"+value+"\r\n", stored)
		readers[i] = dial(t, r.addr)
		readers[i].send("get%s\r\n", strings.Repeat(" "+key, each))
	}
	until(t, "the replies to stall", func() bool { return inState(other, "conn_mwrite") == items })
	r.seconds(100)
	if n := inState(other, "conn_mwrite"); n != items {
		t.Fatalf("%d of %d readers of living items are left", n, items)
	}
	for i := range readers {
		other.ask("delete k"+itoa(i)+"\r\n", "DELETED\r\n")
	}
	until(t, "the items to be dead", func() bool { other.ask("version\r\n", version); return r.cache.PinnedDead() > limit/2 })
	r.seconds(3)
	until(t, "the pins to go", func() bool { return r.cache.PinnedDead() <= limit/2 })
	for range 16 { // a worker that found the bound exceeded just before may close one more: each answers when it has
		dial(t, r.addr).ask("version\r\n", version)
	}
	left := inState(other, "conn_mwrite")
	if left == 0 || left > items*3/4 {
		t.Errorf("%d of %d readers are left, want about those of half the memory", left, items)
	}
	for i := range limit/2>>20 - 2 {
		other.ask("set new"+itoa(i)+" 0 0 "+itoa(len(value))+"\r\n"+value+"\r\n", stored)
	}
	whole := 0
	for i, c := range readers {
		block := "VALUE k" + itoa(i) + " 0 " + itoa(len(value)) + "\r\n" + value + "\r\n"
		got := make([]byte, len(block))
		for { // some values of before the delete, then the end of the reply or of the connection
			if _, err := io.ReadFull(c.r, got[:5]); err == nil && string(got[:5]) == "END\r\n" {
				whole++
				break
			}
			n, err := io.ReadFull(c.r, got[5:])
			if err != nil {
				break
			}
			if string(got) != block {
				t.Fatalf("reader %d was sent %q, %d", i, clip(string(got)), n)
			}
		}
	}
	if whole != left {
		t.Errorf("%d readers got all they asked for, %d were left", whole, left)
	}
}

// TestLinesOfManyKeysShareABound has clients begin more long gets at once than there are buffers for.
func TestLinesOfManyKeysShareABound(t *testing.T) {
	const clients = 40
	key := " " + strings.Repeat("k", 200) // few gets: each line takes a buffer of 1 MB
	addr := startServer(t)
	line := strings.Repeat(key, 900_000/len(key))
	cs := make([]*client, clients)
	for i := range cs {
		cs[i] = dial(t, addr)
		io.WriteString(cs[i], "version\r\nget"+line) // fails when the server closes first
		cs[i].want(version)
	}
	served := 0
	for _, c := range cs {
		io.WriteString(c, "\r\n")
		if reply, err := c.r.ReadString('\n'); err == nil && reply == "END\r\n" {
			served++
		}
	}
	if served < 30 || served > 33 { // lines that grow at once see each other; the workers look at the sum and add to it each at its own time
		t.Errorf("%d of %d long gets were served, want about 32", served, clients)
	}
	again := dial(t, addr)
	again.ask("get"+strings.Repeat(key, 8_000_000/len(key))+"\r\n", "END\r\n")
}
