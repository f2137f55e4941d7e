package server

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

// stillClock is a clock in which no time passes, so that two runs of one stream differ in nothing.
type stillClock struct{}

func (stillClock) Wall() int64         { return 1_700_000_000 }
func (stillClock) Boot() time.Duration { return time.Hour }
func (stillClock) BootID() [16]byte    { return [16]byte{1} }

// serveBench is a bench whose server forgets everything between streams.
type serveBench struct {
	*bench
	lru     hearth.LRUSettings
	memory  int64
	baseCAS uint64 // the CAS ids of a stream are above it
}

func newServeBench(t testing.TB, o Options) *serveBench {
	b := newBench(t, hearth.Options{MemoryLimit: 64 << 20, Clock: stillClock{}}, o)
	return &serveBench{bench: b, lru: b.cache.LRU(), memory: b.cache.MemoryLimit()}
}

// forget brings cache and server back to where a new one begins, as far as a reply can tell; CAS ids go on.
func (b *serveBench) forget() {
	b.cache.StopCrawl()
	if err := b.cache.SetLRU(b.lru); err != nil {
		b.t.Fatal(err)
	}
	if err := b.cache.SetMemoryLimit(b.memory); err != nil {
		b.t.Fatal(err)
	}
	b.s.tune = DefaultTuning
	b.s.prefixes.on.Store(false)
	b.s.prefixes.reset()
	b.w.s.Begin()
	defer b.w.s.End()
	var d hearth.Draft
	if st := b.w.s.Prepare(&d, hearth.Set, []byte("base"), 0, 0, 0); st != hearth.OK {
		b.t.Fatal("no memory for one item: ", st)
	}
	b.baseCAS, _ = b.w.s.Commit(&d, 0)
	b.w.s.FlushAll(0)
}

// Rows of stats, what depends on pages and crawls of streams before this one, and the mark of a first fetch, which package lru may lose to the keeper.
var (
	longNumber  = regexp.MustCompile(`\d{5,20}`)
	statRow     = regexp.MustCompile(`(?m)^STAT .*\r\n`)
	fetchedMark = regexp.MustCompile(` (fetch=(yes|no)|h[01])\b`)
	otherAnswer = strings.NewReplacer(netproto.CrawlBusy, netproto.OK, netproto.ReassignBadClass, netproto.ReassignOff, netproto.ReassignNoSpare, netproto.ReassignOff)
)

// comparable takes out of replies what may differ between two runs of one stream: CAS ids count from the start of the stream, rows of stats are gone.
func (b *serveBench) comparable(replies []byte) string {
	const most = 1 << 16 // CAS ids of one stream
	if len(replies) > 0 && replies[0] == 0x81 {
		var kept []byte
		for len(replies) >= 24 {
			size := min(24+int(binary.BigEndian.Uint32(replies[8:])), len(replies))
			packet := bytes.Clone(replies[:size])
			replies = replies[size:]
			if cas := binary.BigEndian.Uint64(packet[16:]) - b.baseCAS; cas < most {
				binary.BigEndian.PutUint64(packet[16:], cas)
			}
			if packet[1] != byte(netproto.OpStat) {
				kept = append(kept, packet...)
			}
		}
		return string(append(kept, replies...))
	}
	text := fetchedMark.ReplaceAll(statRow.ReplaceAll(replies, nil), nil)
	text = longNumber.ReplaceAllFunc(text, func(digits []byte) []byte {
		if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil && n-b.baseCAS < most {
			return strconv.AppendUint(nil, n-b.baseCAS, 10)
		}
		return digits
	})
	return otherAnswer.Replace(string(text))
}

// dependsOnTime tells of streams whose replies depend on what else goes on: a dump wants the replies before it to be gone, cachedump shows a list that the
// keeper orders, and watch shows what happens.
func dependsOnTime(stream []byte) bool {
	return bytes.Contains(stream, []byte("dump")) || bytes.Contains(stream, []byte("watch"))
}

// serveSeeds are streams with something of everything.
func serveSeeds() (seeds [][]byte) {
	packet := func(op byte, ext, key, value string) string {
		h := []byte{0x80, op, 0, byte(len(key)), byte(len(ext)), 0, 0, 0, 0, 0, 0, byte(len(ext) + len(key) + len(value)), 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}
		return string(h) + ext + key + value
	}
	zeros := strings.Repeat("\x00", 20)
	for _, s := range []string{
		"set a 1 0 3\r\nabc\r\nget a b\r\ngets a\r\nappend a 0 0 1\r\nd\r\nprepend a 0 0 1\r\nz\r\nget a\r\n",
		"set n 0 0 2\r\n41\r\nincr n 1\r\ndecr n 50\r\nincr a 1\r\ntouch n 10\r\ngat 0 n\r\ngats 5 n\r\ndelete n\r\ndelete n\r\n",
		"add a 0 0 1 noreply\r\nx\r\nreplace a 0 -1 1\r\ny\r\nget a\r\ncas a 0 0 1 5\r\nz\r\nflush_all\r\nget a\r\nflush_all 10 noreply\r\nmn\r\n",
		"set a 0 0 3\r\nabcde\r\nget a\r\nset a 0 0 x\r\nset a 0 0 -1\r\nset a 0 0 2000000\r\nabc", "set a 0 0 1048576\r\nabc", "get " + strings.Repeat("k ", 100) + "\r\nget\r\n\r\n\n \nGET\r\n",
		"ms a 3 T0 F5 c I\r\nabc\r\nmg a s t c f k v O7 h l b\r\nmg a v h t\r\nmn\r\nmd a I T30\r\nmg a v c R5\r\nms a 1 C1\r\nx\r\nma a\r\nme a\r\n",
		"mg YQ== b k v N5\r\nmg YQ== b k v q\r\nma c N0 J7 v t\r\nma c MD D3 v q\r\nms e 0 E99\r\n\r\nmg e c s\r\nms e 2 MA c\r\nab\r\nmg e v\r\nmn\r\n",
		"slabs reassign 1 2\r\nslabs automove 1\r\nlru tune 10 25 0.1 2.0\r\nlru mode flat\r\nlru temp_ttl 5\r\nlru_crawler disable\r\nlru_crawler crawl all\r\ncache_memlimit 65\r\nverbosity 1\r\n",
		"stats\r\nstats settings\r\nstats items\r\nstats conns\r\nstats detail on\r\nset p:a 0 0 1\r\nx\r\nget p:a\r\nstats detail dump\r\nstats reset\r\nstats sizes\r\nversion\r\nquit\r\nget a\r\n",
		"shutdown\r\nGET / HTTP/1.1\r\n\r\nget a\r\n", "lru_crawler metadump all\r\nlru_crawler mgdump all\r\nstats cachedump 1 1\r\nwatch\r\n", "set a 0 0 0\r\n\r\nset b 0 0 3\r\n\r\n\r\n\r\nget a b\r\n",
		packet(0x01, "\x00\x00\x00\x05\x00\x00\x00\x00", "a", "value") + packet(0x00, "", "a", "") + packet(0x0d, "", "none", "") + packet(0x0a, "", "", ""),
		packet(0x05, zeros, "n", "") + packet(0x06, zeros, "n", "") + packet(0x0e, "", "n", "1") + packet(0x0c, "", "n", "") + packet(0x04, "", "n", "") + packet(0x08, "", "", ""),
		packet(0x11, "\x00\x00\x00\x05\x00\x00\x00\x00", "a", "v") + packet(0x1d, "\x00\x00\x00\x00", "a", "") + packet(0x10, "", "", "") + packet(0x0b, "", "", "") + packet(0x07, "", "", "") + packet(0x0a, "", "", ""),
		packet(0x30, "", "a", "v") + packet(0x01, "", "a", "v") + packet(0x21, "", "PLAIN", "\x00u\x00p") + packet(0x1b, "\x00\x00\x00\x05", "", ""), "\x80\x01\x00\x01\x08\x00\x00\x00\x7f\xff\xff\xff",
	} {
		seeds = append(seeds, []byte(s))
	}
	return seeds
}

// FuzzServe plays a connection's worth of bytes whole and split at every byte, or at points all over a long one: the replies are the same, and so is whether
// the connection is still open.
func FuzzServe(f *testing.F) {
	for _, seed := range serveSeeds() {
		f.Add(seed)
	}
	b := newServeBench(f, Options{})
	f.Fuzz(func(t *testing.T, stream []byte) {
		b.t = t
		if len(stream) > 1000 {
			return
		}
		play := func(parts ...[]byte) (string, bool) {
			b.forget()
			replies, _, closed := b.play(parts...)
			return b.comparable(replies), closed
		}
		want, wantClosed := play(stream)
		for _, parts := range splits(stream) {
			if got, closed := play(parts...); (got != want || closed != wantClosed) && !dependsOnTime(stream) {
				t.Fatalf("%q: in parts of %d and %d bytes (of %d):\n got %q, closed %v\nwant %q, closed %v", stream, len(parts[0]), len(parts[1]), len(parts), got, closed, want, wantClosed)
			}
		}
	})
}

// splits are the ways to split a stream in two, of a long one those around its line ends and some in between, and the one in single bytes.
func splits(stream []byte) (all [][][]byte) {
	if len(stream) < 2 {
		return nil
	}
	const most = 64
	step := (len(stream) + most - 1) / most
	for at := 1; at < len(stream); at++ {
		if at%step == 0 || stream[at] == '\n' || stream[at-1] == '\n' {
			all = append(all, [][]byte{stream[:at], stream[at:]})
		}
	}
	single := make([][]byte, len(stream))
	for i := range stream {
		single[i] = stream[i : i+1]
	}
	return append(all, single)
}

// udpBench is a serveBench with a UDP port and a client of it.
type udpBench struct {
	*serveBench
	conn   *conn // the worker's
	client int
	buf    [64 << 10]byte
}

func newUDPBench(t testing.TB) *udpBench {
	b := &udpBench{serveBench: newServeBench(t, Options{Listen: []string{"127.0.0.1"}, UDPPort: -1})}
	fd := b.w.udp[0].fd
	b.w.startUDP()
	b.conn = b.w.conns[fd]
	client, err := openUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	b.client = client.fd
	addr, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.Connect(b.client, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before those of the bench
		unix.Close(b.client)
		b.w.close(b.conn, "normal")
		closeListeners(b.s.udp)
	})
	return b
}

// ask sends a datagram, has it served, and returns the datagrams of the reply. On the loopback what was sent is there.
func (b *udpBench) ask(datagram []byte) (replies [][]byte) {
	if _, err := unix.Write(b.client, datagram); err != nil {
		b.t.Fatal(err)
	}
	b.w.s.Begin()
	b.w.turn(b.conn, unix.EPOLLIN)
	b.w.s.End()
	for {
		n, err := unix.Read(b.client, b.buf[:])
		if err != nil {
			return replies
		}
		replies = append(replies, bytes.Clone(b.buf[:n]))
	}
}

// FuzzUDP sends datagrams. Those that are no whole request, or begin as a reply does, get no reply; the others get the reply that the same bytes get on a connection, in datagrams that are
// numbered from 0, all full but the last, and carry the id of the request. The request in two datagrams, split anywhere, is not one.
func FuzzUDP(f *testing.F) {
	for _, seed := range serveSeeds() {
		f.Add(append([]byte("\x12\x34\x00\x00\x00\x01\x00\x00"), seed...))
	}
	long := "set a 0 0 700\r\n" + strings.Repeat("v", 700) + "\r\n"
	for _, datagram := range []string{
		"", "\x00\x01\x00\x00\x00\x01\x00", "\x00\x01\x00\x00\x00\x01\x00\x00", "\x00\x01\x00\x00\x00\x02\x00\x00version\r\n", "\x00\x01\x00\x01\x00\x01\xff\xffversion\r\n",
		"\x00\x01\x00\x00\x01\x00\x00\x00version\r\n", "\xff\xff\x00\x00\x00\x01\x00\x00" + long + "get a a a a a a\r\nmg a v\r\n", "\x00\x02\x00\x00\x00\x01\x00\x00" + long + "get a a\r",
	} {
		f.Add([]byte(datagram))
	}
	b := newUDPBench(f)
	f.Fuzz(func(t *testing.T, datagram []byte) {
		b.t = t
		if len(datagram) > 1400 {
			return
		}
		b.forget()
		var got []byte
		replies := b.ask(datagram)
		if len(replies) > 0 && binary.BigEndian.Uint16(replies[0][4:]) > 50 {
			return // a socket may not buffer that many
		}
		for seq, reply := range replies {
			if len(reply) <= 8 || len(reply) > 1400 || seq < len(replies)-1 && len(reply) < 1400 {
				t.Fatalf("%q: datagram %d of %d has %d bytes", datagram, seq, len(replies), len(reply))
			}
			frame := append(bytes.Clone(datagram[:2]), byte(seq>>8), byte(seq), byte(len(replies)>>8), byte(len(replies)), 0, 0)
			if !bytes.Equal(reply[:8], frame) {
				t.Fatalf("%q: datagram %d of %d begins with %x", datagram, seq, len(replies), reply[:8])
			}
			got = append(got, reply[8:]...)
		}
		if len(datagram) <= 8 || datagram[4] != 0 || datagram[5] != 1 || bytes.IndexByte([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\x81"), datagram[8]) >= 0 {
			if len(replies) > 0 {
				t.Fatalf("%q: no request, but a reply: %q", datagram, got)
			}
			return
		}
		text := b.comparable(got)
		b.forget()
		request := datagram[8:]
		replied, _, _ := b.play(request)
		if want := b.comparable(replied); text != want && !dependsOnTime(request) {
			t.Fatalf("%q:\n got %q\nwant %q", datagram, text, want)
		}
		for _, parts := range splits(request) {
			for seq, part := range parts {
				half := append([]byte{datagram[0], datagram[1], byte(seq >> 8), byte(seq), byte(len(parts) >> 8), byte(len(parts)), 0, 0}, part...)
				if replies := b.ask(half); len(replies) > 0 {
					t.Fatalf("%q: a reply to part %d of %d: %q", datagram, seq, len(parts), replies[0])
				}
			}
		}
	})
}
