package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth/netproto"
	"hearth/netproto/server"
)

// packet is a request of the binary protocol.
type packet struct {
	op              netproto.Opcode
	ext, key, value string
	cas             uint64
	opaque          uint32
}

func (p packet) bytes() []byte {
	b := []byte{netproto.BinaryMagic, byte(p.op), byte(len(p.key) >> 8), byte(len(p.key)), byte(len(p.ext)), 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.ext)+len(p.key)+len(p.value)))
	b = binary.BigEndian.AppendUint32(b, p.opaque)
	b = binary.BigEndian.AppendUint64(b, p.cas)
	return append(b, p.ext+p.key+p.value...)
}

// be writes numbers as they stand in extras.
func be(numbers ...any) string {
	var b bytes.Buffer
	for _, n := range numbers {
		binary.Write(&b, binary.BigEndian, n)
	}
	return b.String()
}

// flagsFor makes the extras of set, add and replace, counting those of incr and decr.
func flagsFor(flags, exptime uint32) string                 { return be(flags, exptime) }
func counting(delta, initial uint64, exptime uint32) string { return be(delta, initial, exptime) }
func setPacket(op netproto.Opcode, key, value string) packet {
	return packet{op: op, ext: flagsFor(0, 0), key: key, value: value}
}
func keyPacket(op netproto.Opcode, key string) packet { return packet{op: op, key: key} }
func (p packet) withCAS(cas uint64) packet            { p.cas = cas; return p }
func (c *client) sendPackets(ps ...packet)            { c.t.Helper(); c.send("%s", join(ps)) }
func (c *client) askPacket(p packet) answer           { c.t.Helper(); c.sendPackets(p); return c.answer() }
func (c *client) wantAnswer(what string, p packet, want string) {
	c.t.Helper()
	wantShown(c.t, what, c.askPacket(p), want)
}

func join(ps []packet) (b []byte) {
	for _, p := range ps {
		b = append(b, p.bytes()...)
	}
	return b
}

// answer is a reply of the binary protocol.
type answer struct {
	op              netproto.Opcode
	status          netproto.BinaryStatus
	opaque          uint32
	cas             uint64
	ext, key, value string
}

// readAnswer reads one reply and checks what must hold for all of them.
func readAnswer(r io.Reader) (a answer, err error) {
	var h [24]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return a, err
	}
	key, ext, body := int(binary.BigEndian.Uint16(h[2:])), int(h[4]), int(binary.BigEndian.Uint32(h[8:]))
	if h[0] != 0x81 || h[5] != 0 || ext+key > body || body > 2<<20 {
		return a, fmt.Errorf("bad reply header % x", h)
	}
	a = answer{op: netproto.Opcode(h[1]), status: netproto.BinaryStatus(binary.BigEndian.Uint16(h[6:])),
		opaque: binary.BigEndian.Uint32(h[12:]), cas: binary.BigEndian.Uint64(h[16:])}
	b := make([]byte, body)
	if _, err = io.ReadFull(r, b); err != nil {
		return a, err
	}
	a.ext, a.key, a.value = string(b[:ext]), string(b[ext:ext+key]), string(b[ext+key:])
	return a, nil
}

func (c *client) answer() answer {
	c.t.Helper()
	a, err := readAnswer(c.r)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// String shows a reply without opaque and CAS.
func (a answer) String() string {
	return fmt.Sprintf("%#02x %#02x %q %q %q", uint8(a.op), uint16(a.status), a.ext, a.key, clip(a.value))
}

func wantShown(t testing.TB, what string, a answer, want string) {
	t.Helper()
	if a.String() != want {
		t.Fatalf("%s:\n got %s\nwant %s", what, a, want)
	}
}

const (
	notFound   = `"" "" "Not found"`
	exists     = `"" "" "Data exists for key."`
	notStored  = `"" "" "Not stored."`
	nonNumeric = `"" "" "Non-numeric server-side value for incr or decr"`
	tooLarge   = `"" "" "Too large."`
	empty      = `"" "" ""`
)

// TestBinaryOpcodesAndStatuses walks through all opcodes on one connection, each with all its outcomes.
func TestBinaryOpcodesAndStatuses(t *testing.T) {
	c := dial(t, startServer(t))
	const absent = 1 << 62 // a CAS that nothing has
	forever, number := be(uint32(0)), func(n uint64) string { return fmt.Sprintf(`"" "" %q`, be(n)) }
	for i, step := range []struct {
		p    packet
		want string // status and body; "" when it is not answered
	}{
		{setPacket(0x01, "k", "v"), "0x00 " + empty},
		{setPacket(0x01, "k", "w").withCAS(absent), "0x02 " + exists},
		{setPacket(0x01, "none", "w").withCAS(absent), "0x01 " + notFound},
		{setPacket(0x11, "k", "q"), ""},
		{setPacket(0x11, "k", "w").withCAS(absent), "0x02 " + exists},
		{keyPacket(0x00, "k"), `0x00 "\x00\x00\x00\x00" "" "q"`},
		{packet{op: 0x01, ext: flagsFor(0xffeffeff, 0), key: "k", value: "v"}, "0x00 " + empty},
		{keyPacket(0x00, "k"), `0x00 "\xff\xef\xfe\xff" "" "v"`},
		{keyPacket(0x09, "k"), `0x00 "\xff\xef\xfe\xff" "" "v"`},
		{keyPacket(0x0c, "k"), `0x00 "\xff\xef\xfe\xff" "k" "v"`},
		{keyPacket(0x0d, "k"), `0x00 "\xff\xef\xfe\xff" "k" "v"`},
		{keyPacket(0x00, "none"), "0x01 " + notFound},
		{keyPacket(0x09, "none"), ""},
		{keyPacket(0x0c, "none"), `0x01 "" "none" ""`},
		{keyPacket(0x0d, "none"), ""},

		{setPacket(0x02, "k", "a"), "0x02 " + exists},
		{setPacket(0x12, "k", "a"), "0x02 " + exists},
		{setPacket(0x02, "none", "a").withCAS(absent), "0x01 " + notFound},
		{setPacket(0x02, "added", "a"), "0x00 " + empty},
		{setPacket(0x12, "added too", "b"), ""},
		{keyPacket(0x00, "added too"), `0x00 "\x00\x00\x00\x00" "" "b"`},
		{setPacket(0x03, "none", "a"), "0x01 " + notFound},
		{setPacket(0x13, "none", "a"), "0x01 " + notFound},
		{setPacket(0x03, "added", "r"), "0x00 " + empty},
		{setPacket(0x13, "added", "s"), ""},
		{setPacket(0x03, "added", "s").withCAS(absent), "0x02 " + exists},
		{keyPacket(0x00, "added"), `0x00 "\x00\x00\x00\x00" "" "s"`},
		{packet{op: 0x0e, key: "added", value: "t"}, "0x00 " + empty},
		{packet{op: 0x19, key: "added", value: "u"}, ""},
		{packet{op: 0x0f, key: "added", value: "r"}, "0x00 " + empty},
		{packet{op: 0x1a, key: "added", value: "q"}, ""},
		{packet{op: 0x0e, key: "added"}, "0x00 " + empty},
		{packet{op: 0x0e, key: "added", value: "x", cas: absent}, "0x02 " + exists},
		{packet{op: 0x19, key: "none", value: "x"}, "0x05 " + notStored},
		{packet{op: 0x0f, key: "none", value: "x"}, "0x05 " + notStored},
		{keyPacket(0x00, "added"), `0x00 "\x00\x00\x00\x00" "" "qrstu"`},

		{packet{op: 0x05, ext: counting(5, 10, netproto.NoCreate), key: "n"}, "0x01 " + notFound},
		{packet{op: 0x15, ext: counting(5, 10, netproto.NoCreate), key: "n"}, "0x01 " + notFound},
		{packet{op: 0x05, ext: counting(5, 10, 0), key: "n"}, "0x00 " + number(10)},
		{packet{op: 0x05, ext: counting(5, 10, 0), key: "n"}, "0x00 " + number(15)},
		{packet{op: 0x06, ext: counting(4, 10, netproto.NoCreate), key: "n"}, "0x00 " + number(11)},
		{packet{op: 0x15, ext: counting(1, 10, 0), key: "n"}, ""},
		{packet{op: 0x16, ext: counting(3, 10, 0), key: "n"}, ""},
		{packet{op: 0x05, ext: counting(1, 1, 0), key: "n", cas: absent}, "0x02 " + exists},
		{keyPacket(0x00, "n"), `0x00 "\x00\x00\x00\x00" "" "9 "`}, // the length of "10" stays
		{packet{op: 0x05, ext: counting(1<<64-1, 0, 0), key: "n"}, "0x00 " + number(8)},
		{packet{op: 0x06, ext: counting(100, 0, 0), key: "n"}, "0x00 " + number(0)},
		{packet{op: 0x16, ext: counting(1, 1<<64-1, 0), key: "m"}, ""},
		{packet{op: 0x06, ext: counting(0, 0, 0), key: "m"}, "0x00 " + number(1<<64-1)},
		{packet{op: 0x05, ext: counting(1, 0, 0), key: "k"}, "0x06 " + nonNumeric},
		{packet{op: 0x16, ext: counting(1, 0, 0), key: "k"}, "0x06 " + nonNumeric},

		{packet{op: 0x1c, ext: forever, key: "k"}, `0x00 "\xff\xef\xfe\xff" "" ""`},
		{packet{op: 0x1c, ext: forever, key: "none"}, "0x01 " + notFound},
		{packet{op: 0x1d, ext: forever, key: "k"}, `0x00 "\xff\xef\xfe\xff" "" "v"`},
		{packet{op: 0x1d, ext: forever, key: "none"}, "0x01 " + notFound},
		{packet{op: 0x1e, ext: forever, key: "k"}, `0x00 "\xff\xef\xfe\xff" "" "v"`},
		{packet{op: 0x1e, ext: forever, key: "none"}, ""},
		{packet{op: 0x23, ext: forever, key: "k"}, `0x00 "\xff\xef\xfe\xff" "k" "v"`},
		{packet{op: 0x23, ext: forever, key: "none"}, `0x01 "" "none" ""`},
		{packet{op: 0x24, ext: forever, key: "k"}, `0x00 "\xff\xef\xfe\xff" "k" "v"`},
		{packet{op: 0x24, ext: forever, key: "none"}, ""},

		// Expirations are unsigned: the last is in 2106. One in 1970 is past.
		{packet{op: 0x01, ext: flagsFor(0, 0xffffffff), key: "far", value: "v"}, "0x00 " + empty},
		{keyPacket(0x00, "far"), `0x00 "\x00\x00\x00\x00" "" "v"`},
		{packet{op: 0x1c, ext: be(uint32(0x80000000)), key: "far"}, `0x00 "\x00\x00\x00\x00" "" ""`},
		{keyPacket(0x00, "far"), `0x00 "\x00\x00\x00\x00" "" "v"`},
		{packet{op: 0x1d, ext: be(uint32(2592001)), key: "far"}, `0x00 "\x00\x00\x00\x00" "" "v"`},
		{keyPacket(0x00, "far"), "0x01 " + notFound},
		{packet{op: 0x06, ext: counting(1, 3, 2592001), key: "past"}, "0x00 " + number(3)},
		{packet{op: 0x06, ext: counting(1, 3, netproto.NoCreate), key: "past"}, "0x01 " + notFound},

		{keyPacket(0x04, "k").withCAS(absent), "0x02 " + exists},
		{keyPacket(0x14, "k").withCAS(absent), "0x02 " + exists},
		{keyPacket(0x04, "k"), "0x00 " + empty},
		{keyPacket(0x04, "k"), "0x01 " + notFound},
		{keyPacket(0x14, "n"), ""},
		{keyPacket(0x14, "n"), "0x01 " + notFound},

		{packet{op: 0x08, ext: be(uint32(1000))}, "0x00 " + empty},
		{keyPacket(0x00, "added"), `0x00 "\x00\x00\x00\x00" "" "qrstu"`},
		{packet{op: 0x18, ext: forever}, ""},
		{keyPacket(0x00, "added"), "0x01 " + notFound},
		{setPacket(0x01, "k", "v"), "0x00 " + empty},
		{packet{op: 0x08}, "0x00 " + empty},
		{keyPacket(0x00, "k"), "0x01 " + notFound},

		{packet{op: 0x0a}, "0x00 " + empty},
		{packet{op: 0x0b}, fmt.Sprintf(`0x00 "" "" %q`, server.DefaultVersion)},
		{packet{op: 0x1b, ext: be(uint32(1))}, `0x81 "" "" "Unknown command"`},
		{packet{op: 0x30, ext: be(uint32(1)), key: "key", value: strings.Repeat("v", 50000)}, `0x81 "" "" "Unknown command"`},
		{packet{op: 0x20}, `0x81 "" "" "Unknown command"`},
		{packet{op: 0x21, key: "PLAIN", value: "\x00u\x00p"}, `0x81 "" "" "Unknown command"`},
		{packet{op: 0x22, key: "PLAIN"}, `0x81 "" "" "Unknown command"`},
	} {
		what := fmt.Sprintf("step %d, opcode %#x", i, uint8(step.p.op))
		step.p.opaque = uint32(i + 1)
		c.sendPackets(step.p, packet{op: 0x0a, opaque: 0xffffffff})
		a := c.answer()
		if step.want != "" {
			wantShown(t, what, a, fmt.Sprintf("%#02x %s", uint8(step.p.op), step.want))
			if a.opaque != step.p.opaque {
				t.Fatalf("%s: opaque %d, want %d", what, a.opaque, step.p.opaque)
			}
			a = c.answer()
		}
		if a.op != 0x0a || a.opaque != 0xffffffff {
			t.Fatalf("%s: got %s, want the noop's reply", what, a)
		}
	}
	c.wantAnswer("quit", packet{op: 0x07}, "0x07 0x00 "+empty)
	c.wantEOF()
}

func TestBinaryCASIsThatOfTheItem(t *testing.T) {
	c := dial(t, startServer(t))
	stored := c.askPacket(setPacket(0x01, "k", "1"))
	var last uint64
	for _, p := range []packet{
		keyPacket(0x00, "k"), keyPacket(0x0c, "k"), {op: 0x1c, ext: be(uint32(0)), key: "k"}, {op: 0x1d, ext: be(uint32(0)), key: "k"},
	} {
		if a := c.askPacket(p); a.cas != stored.cas || a.cas == 0 {
			t.Errorf("opcode %#x: CAS %d, want %d", p.op, a.cas, stored.cas)
		}
	}
	last = stored.cas
	for _, p := range []packet{
		setPacket(0x01, "k", "2"), setPacket(0x02, "k", "3"), setPacket(0x03, "k", "4"), {op: 0x0e, key: "k", value: "5"}, {op: 0x0f, key: "k", value: "6"},
		{op: 0x05, ext: counting(1, 0, 0), key: "k"}, {op: 0x06, ext: counting(1, 0, 0), key: "k"},
	} {
		a := c.askPacket(p.withCAS(last))
		if a.status != netproto.BinaryOK || a.cas == last || a.cas == 0 {
			t.Fatalf("opcode %#x with CAS %d: %s, CAS %d", p.op, last, a, a.cas)
		}
		if got := c.askPacket(keyPacket(0x00, "k")); got.cas != a.cas {
			t.Fatalf("opcode %#x answers CAS %d, the item has %d", p.op, a.cas, got.cas)
		}
		if again := c.askPacket(p.withCAS(last)); again.status != netproto.BinaryExists || again.cas != 0 {
			t.Fatalf("opcode %#x with an old CAS: %s, CAS %d", p.op, again, again.cas)
		}
		last = a.cas
	}
	if a := c.askPacket(keyPacket(0x04, "k").withCAS(last)); a.status != netproto.BinaryOK || a.cas != 0 {
		t.Errorf("delete: %s, CAS %d", a, a.cas)
	}
	if a := c.askPacket(packet{op: 0x05, ext: counting(1, 0, 0), key: "new"}); a.cas == 0 || a.cas != c.askPacket(keyPacket(0x00, "new")).cas {
		t.Errorf("incr of a new item: CAS %d", a.cas)
	}
}

func TestBinaryWithoutCASIgnoresIt(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) { o.cache.NoCAS = true }))
	for i, step := range []struct {
		p      packet
		status netproto.BinaryStatus
	}{ // as memcached -C
		{setPacket(0x01, "k", "1"), 0}, {setPacket(0x01, "k", "1").withCAS(9), 0}, {setPacket(0x02, "new", "1").withCAS(9), 0},
		{packet{op: 0x0e, key: "k", value: "1", cas: 9}, 0}, {packet{op: 0x05, ext: counting(1, 0, 0), key: "k"}, 0},
		{packet{op: 0x05, ext: counting(1, 0, 0), key: "k", cas: 9}, 2}, {keyPacket(0x04, "k").withCAS(9), 2}, {keyPacket(0x00, "k"), 0},
	} {
		if a := c.askPacket(step.p); a.status != step.status || a.cas != 0 {
			t.Errorf("step %d: %s CAS %d, want status %#x", i, a, a.cas, uint16(step.status))
		}
	}
}

// TestBinaryBadPacketsEndTheConnection sees the reply, if there is one, and nothing behind it.
func TestBinaryBadPacketsEndTheConnection(t *testing.T) {
	addr := startServer(t)
	noop := packet{op: 0x0a}.bytes()
	short := setPacket(0x01, "key", "v").bytes()
	short[11] = 10 // less than extras and key
	magic := append(bytes.Clone(noop), noop...)
	magic[24] = 0x81
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"body too short", `0x01 0x81 "" "" "Unknown command"`, short},
		{"key too long", `0x00 0x04 "" "" "Invalid arguments"`, keyPacket(0x00, strings.Repeat("k", 251)).bytes()},
		{"get without key", `0x09 0x04 "" "" "Invalid arguments"`, keyPacket(0x09, "").bytes()},
		{"touch with value", `0x1c 0x04 "" "" "Invalid arguments"`, packet{op: 0x1c, ext: be(uint32(0)), key: "k", value: "v"}.bytes()},
		{"bad magic", "0x0a 0x00 " + empty, magic},
		{"quitq", "", packet{op: 0x17}.bytes()},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, addr)
			conn.send("%s", append(c.b, noop...))
			if c.want != "" {
				wantShown(t, c.name, conn.answer(), c.want)
			}
			conn.wantEOF()
		})
	}
}

func TestBinaryTooLargeKeepsTheOldValueExceptForSet(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	big := strings.Repeat("x", 1<<20)
	for _, op := range []netproto.Opcode{0x01, 0x11, 0x02, 0x12, 0x03, 0x13, 0x0e, 0x19, 0x0f, 0x1a} {
		p := setPacket(op, "k", big)
		if op >= 0x19 || op == 0x0e || op == 0x0f {
			p.ext = ""
		}
		for _, cas := range []uint64{0, 5} {
			c.askPacket(setPacket(0x01, "k", "old"))
			c.wantAnswer("too large", p.withCAS(cas), fmt.Sprintf("%#02x 0x03 %s", uint8(op), tooLarge))
			want := netproto.BinaryOK
			if op == 0x01 || op == 0x11 {
				want = netproto.BinaryNotFound
			}
			if a := c.askPacket(keyPacket(0x00, "k")); a.status != want {
				t.Errorf("opcode %#x: the old value afterwards: %s", uint8(op), a)
			}
		}
	}
	// The largest value that fits, and one byte more.
	for _, extra := range []int{0, 1} {
		want := "0x00 " + empty
		if extra == 1 {
			want = "0x03 " + tooLarge
		}
		c.wantAnswer("largest", setPacket(0x01, "k", big[:1048516+extra]), "0x01 "+want)
	}
	// A sum that is too large is not stored, whatever the parts are.
	c.askPacket(setPacket(0x01, "k", big[:600000]))
	c.wantAnswer("sum", packet{op: 0x0e, key: "k", value: big[:600000]}, "0x0e 0x05 "+notStored)
}

// TestBinaryOutOfMemory fills a cache that must not evict.
func TestBinaryOutOfMemory(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) {
		o.cache.NoEvict, o.cache.MemoryLimit, o.cache.MaxItemSize, o.cache.ChunkMax = true, 8<<20, 4<<20, 512<<10
	}))
	value := strings.Repeat("x", 400<<10)
	full := false
	for i := 0; i < 100 && !full; i++ {
		a := c.askPacket(setPacket(0x01, fmt.Sprint("k", i), value))
		if full = a.status == netproto.BinaryNoMemory; full {
			wantShown(t, "no memory", a, `0x01 0x82 "" "" "Out of memory allocating item"`)
		}
	}
	if !full {
		t.Fatal("the cache never filled up")
	}
	// The head of a chained item finds a chunk of a small class, its values none: the rest is swallowed before the answer, and the old value stays.
	c.askPacket(setPacket(0x01, "k0", "old"))
	c.sendPackets(setPacket(0x01, "k0", strings.Repeat("y", 3<<20)), packet{op: 0x0a})
	wantShown(t, "no memory for a later chunk", c.answer(), `0x01 0x82 "" "" "Out of memory during read"`)
	wantShown(t, "noop behind it", c.answer(), "0x0a 0x00 "+empty)
	c.wantAnswer("old value", keyPacket(0x00, "k0"), `0x00 0x00 "\x00\x00\x00\x00" "" "old"`)
}

// TestBinaryAnswersDoNotDependOnPackets sends one conversation whole, byte by byte and cut in two at every byte.
func TestBinaryAnswersDoNotDependOnPackets(t *testing.T) {
	addr := startServer(t)
	stream := join([]packet{
		{op: 0x18}, setPacket(0x01, "k", "value"), setPacket(0x11, "k2", "v2"), setPacket(0x12, "k", "never"), {op: 0x19, key: "k", value: "+"},
		setPacket(0x01, "empty", ""), keyPacket(0x0d, "k"), keyPacket(0x09, "none"), {op: 0x05, ext: counting(2, 40, 0), key: "n"},
		{op: 0x15, ext: counting(2, 40, 0), key: "n"}, {op: 0x30, ext: be(uint32(3)), key: "kk", value: "vv"}, keyPacket(0x00, "empty"),
		{op: 0x1c, ext: be(uint32(0)), key: "k2"}, keyPacket(0x14, "k2"), keyPacket(0x04, "k2"), {op: 0x0b}, {op: 0x21, key: "m", value: "x"}, {op: 0x07},
	})
	talk := func(cuts ...int) string {
		c := dial(t, addr)
		from := 0
		for _, cut := range append(cuts, len(stream)) {
			c.send("%s", stream[from:cut])
			from = cut
		}
		var said strings.Builder
		for {
			a, err := readAnswer(c.r)
			if err == io.EOF {
				c.Close()
				return said.String()
			}
			if err != nil {
				t.Fatalf("cut at %v, after %s: %v", cuts, said.String(), err)
			}
			fmt.Fprintln(&said, a)
		}
	}
	want := talk()
	if n := strings.Count(want, "\n"); n != 12 {
		t.Fatalf("%d answers:\n%s", n, want)
	}
	var all []int
	for i := 1; i < len(stream); i++ {
		all = append(all, i)
		if got := talk(i); got != want {
			t.Fatalf("cut at %d:\n%s\nwant:\n%s", i, got, want)
		}
	}
	if got := talk(all...); got != want {
		t.Fatalf("byte by byte:\n%s\nwant:\n%s", got, want)
	}
}

// TestBinaryLargeValuesArePipelined stores and fetches values of one and of many chunks, with small replies around them, faster than the client reads.
func TestBinaryLargeValuesArePipelined(t *testing.T) {
	c := dial(t, startServer(t))
	random := rand.New(rand.NewPCG(1, 2))
	var sizes []int
	values := map[string]string{}
	var sets, gets []packet
	for i, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 40_000, 300_000, 524_000, 600_000, 1_048_000} {
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		key := fmt.Sprint("k", i)
		sizes, values[key] = append(sizes, size), string(b)
		sets = append(sets, setPacket(0x11, key, string(b)))
		gets = append(gets, keyPacket(0x0d, key), keyPacket(0x09, "none"), packet{op: 0x0a})
	}
	for len(gets) < 300 {
		gets = append(gets, gets[:3*len(sizes)]...)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.Write(join(append(sets, gets...)))
	}()
	defer func() { c.Close(); <-sent }()
	for i := 0; i < len(gets); i += 3 {
		a, want := c.answer(), values[gets[i].key]
		if a.op != 0x0d || a.key != gets[i].key || a.value != want {
			t.Fatalf("get %d: %s, want %s of %d bytes", i, a, gets[i].key, len(want))
		}
		wantShown(t, "noop", c.answer(), "0x0a 0x00 "+empty)
	}
}

func TestBinaryUploadThatIsCutOffStoresNothing(t *testing.T) {
	r := start(t)
	c := dial(t, r.addr)
	c.askPacket(setPacket(0x01, "k", "old"))
	used := r.usedChunks()
	for _, size := range []int{100, 700_000} {
		other := dial(t, r.addr)
		b := setPacket(0x01, "k", strings.Repeat("x", size)).bytes()
		other.send("%s", b[:len(b)-1])
		until(t, "the upload has begun", func() bool { return r.usedChunks() > used })
		other.Close()
		until(t, "its memory is back", func() bool { return r.usedChunks() <= used })
		c.wantAnswer("old value", keyPacket(0x00, "k"), `0x00 0x00 "\x00\x00\x00\x00" "" "old"`)
	}
}

// binaryStats asks for stats and returns the rows, or the error.
func (c *client) binaryStats(key string) (rows map[string]string, failed string) {
	c.t.Helper()
	c.sendPackets(packet{op: 0x10, key: key, opaque: 7})
	rows = map[string]string{}
	for {
		a := c.answer()
		switch {
		case a.op != 0x10 || a.opaque != 7 || a.ext != "":
			c.t.Fatalf("stat %q: %s opaque %d", key, a, a.opaque)
		case a.status != netproto.BinaryOK:
			return nil, a.value
		case a.key == "" && a.value == "":
			return rows, ""
		}
		rows[a.key] = a.value
	}
}

func TestBinaryStatsAreThoseOfTheTextProtocol(t *testing.T) {
	addr := startServer(t)
	c, text := dial(t, addr), dial(t, addr)
	c.askPacket(setPacket(0x01, "a:b", "v"))
	for _, sub := range []string{"", "settings", "items", "slabs", "sizes", "conns"} {
		rows, failed := c.binaryStats(sub)
		lines := text.stats(" " + sub)
		if failed != "" || len(rows) == 0 || len(rows) != len(lines) {
			t.Errorf("stat %q: %d rows and %q, %d lines", sub, len(rows), failed, len(lines))
		}
		for name, value := range rows {
			if line, ok := lines[name]; !ok || sub == "settings" && line != value {
				t.Errorf("stat %q: %s %q, in text %q", sub, name, value, line)
			}
		}
	}
	for _, sub := range []string{"foo", "setting", "settingsx", "resets", "detail", "detail x", "detail dumps", "cachedump 1 1"} {
		if rows, failed := c.binaryStats(sub); failed != "Not found" {
			t.Errorf("stat %q: %v %q", sub, rows, failed)
		}
	}
	c.binaryStats("detail on")
	for _, p := range []packet{
		keyPacket(0x00, "p:none"), setPacket(0x01, "p:k", "1"), keyPacket(0x00, "p:k"), {op: 0x1c, ext: be(uint32(0)), key: "p:k"},
		{op: 0x1d, ext: be(uint32(0)), key: "p:k"}, {op: 0x0e, key: "p:k", value: "2"}, {op: 0x05, ext: counting(1, 0, 0), key: "p:k"}, keyPacket(0x04, "p:k"),
	} {
		c.askPacket(p)
	}
	if rows, failed := c.binaryStats("detail dump"); failed != "" || rows["detailed"] != "PREFIX p get 4 hit 3 set 2 del 1\r\nEND\r\n" {
		t.Errorf("detail dump: %q %q", rows, failed)
	}
	c.binaryStats("detail off")
	if text.stats(" settings")["detail_enabled"] != "no" {
		t.Error("detail off leaves it on")
	}
	if n := text.stat("cmd_set"); n != 3 {
		t.Errorf("cmd_set %d, want 3", n)
	}
	if rows, failed := c.binaryStats("reset"); failed != "" || len(rows) != 0 {
		t.Errorf("reset: %v %q", rows, failed)
	}
	if n := text.stat("cmd_set"); n != 0 {
		t.Errorf("cmd_set %d after a reset", n)
	}
}

func TestBinaryRefusesWhatTheOperatorForbids(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) { o.server.DisableFlushAll, o.server.DisableDumping = true, true }))
	c.askPacket(setPacket(0x01, "k", "v"))
	const auth = ` 0x20 "" "" "Auth failure."`
	c.wantAnswer("flush", packet{op: 0x08}, "0x08"+auth)
	c.wantAnswer("flushq", packet{op: 0x18, ext: be(uint32(9))}, "0x18"+auth)
	for _, sub := range []string{"detail on", "detail dump", "detail"} {
		c.wantAnswer(sub, keyPacket(0x10, sub), "0x10"+auth)
	}
	c.wantAnswer("get", keyPacket(0x00, "k"), `0x00 0x00 "\x00\x00\x00\x00" "" "v"`)
}

func TestProtocolIsThatOfTheFirstByteOrTheFlag(t *testing.T) {
	for _, c := range []struct {
		protocol server.Protocol
		name     string
		text     bool // is served
		binary   bool
	}{{server.ProtocolAuto, "auto-negotiate", true, true}, {server.ProtocolASCII, "ascii", true, false}, {server.ProtocolBinary, "binary", false, true}} {
		addr := startServer(t, func(o *setup) { o.server.Protocol = c.protocol })
		text := dial(t, addr)
		if c.text {
			// Packets behind a line are text: here one line.
			text.ask("version\r\n", "VERSION "+server.DefaultVersion+"\r\n")
			text.ask(string(packet{op: 0x0b}.bytes())+"\n", "ERROR\r\n")
			if got := text.stats(" settings")["binding_protocol"]; got != c.name {
				t.Errorf("binding_protocol %q, want %q", got, c.name)
			}
		} else {
			text.send("version\r\nversion\r\nversion\r\n")
			text.wantEOF()
		}
		conn := dial(t, addr)
		switch {
		case c.binary:
			conn.wantAnswer("noop", packet{op: 0x0a}, "0x0a 0x00 "+empty)
			conn.send("version\r\nversion\r\nversion\r\n")
			conn.wantEOF()
		default:
			conn.ask(string(packet{op: 0x0b}.bytes())+"\n", "ERROR\r\n")
		}
	}
}

func TestBinarySharesItemsWithText(t *testing.T) {
	addr := startServer(t)
	c, text := dial(t, addr), dial(t, addr)
	c.askPacket(packet{op: 0x01, ext: flagsFor(7, 0), key: "k", value: "v"})
	text.ask("get k\r\n", "VALUE k 7 1\r\nv\r\nEND\r\n")
	text.ask("set k 8 0 4\r\na\r\nb\r\n", "STORED\r\n")
	c.wantAnswer("get", keyPacket(0x00, "k"), `0x00 0x00 "\x00\x00\x00\b" "" "a\r\nb"`)
	key := "a b\r\n\x00" // what no text command can name
	c.askPacket(setPacket(0x01, key, "v"))
	c.wantAnswer("getk", keyPacket(0x0c, key), fmt.Sprintf(`0x0c 0x00 "\x00\x00\x00\x00" %q "v"`, key))
}

// capable runs libmemcached's test program against a server and returns the names of its tests that passed and failed.
func capable(t *testing.T, addr, protocol string) (passed, failed []string) {
	t.Helper()
	program, err := exec.LookPath("memccapable")
	if err != nil {
		t.Skip("no memccapable on this machine (apt-get install libmemcached-tools)")
	}
	host, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command(program, "-t", "3", "-h", host, "-p", port, protocol)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	kill := time.AfterFunc(3*maxWait, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Run() // its exit code only says what the lines do
	for _, m := range regexp.MustCompile(`((?:ascii|binary)(?: [a-z]+)+) +(\[pass\])?`).FindAllStringSubmatch(stdout.String(), -1) {
		if m[2] != "" {
			passed = append(passed, m[1])
		} else { // the [FAIL] goes to stderr
			failed = append(failed, m[1])
		}
	}
	return passed, failed
}

// TestMemccapable holds us to libmemcached's idea of both protocols. Three tests of the text protocol fail because they want what memcached did up to
// 1.6.18 at least, and not what the one we follow does.
func TestMemccapable(t *testing.T) {
	newer := []string{
		"ascii delete",         // wants `delete key 0 x` to be an error: words behind the key are ignored
		"ascii delete noreply", // likewise
		"ascii stat",           // wants `stats noreply` to be an error that is answered: a noreply is heard
	}
	for _, protocol := range []string{"-a", "-b"} {
		passed, failed := capable(t, startServer(t), protocol)
		t.Logf("memccapable %s: %d passed, %d failed: %q", protocol, len(passed), len(failed), failed)
		var expected []string
		if protocol == "-a" {
			expected = newer
		}
		if len(passed)+len(failed) != 27 || !slices.Equal(failed, expected) {
			t.Errorf("memccapable %s: %d passed, failed %q, want 27 in all and these failures: %q", protocol, len(passed), failed, expected)
		}
	}
}

func TestBinaryGetsAndSetsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := dial(t, startServer(t, func(o *setup) { o.server.Threads = 1 }))
	c.askPacket(setPacket(0x01, "a", "0123456789"))
	c.askPacket(setPacket(0x01, "big", strings.Repeat("b", 50000)))
	raw, err := c.socket().File() // blocking, outside Go's poller
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	fd := int(raw.Fd())
	unix.SetNonblock(fd, false)
	buf := make([]byte, 1<<17)
	noop := packet{op: 0x0a}
	for _, test := range []struct {
		name string
		ask  []packet
		n    int // bytes of the reply
	}{
		{"get", []packet{keyPacket(0x00, "a")}, 24 + 4 + 10},
		{"large getk", []packet{keyPacket(0x0c, "big")}, 24 + 4 + 3 + 50000},
		{"quiet get", []packet{keyPacket(0x09, "none"), noop}, 24},
		{"quiet set", []packet{setPacket(0x11, "b", "0123456789"), noop}, 24},
		{"gat", []packet{{op: 0x1d, ext: be(uint32(0)), key: "a"}}, 24 + 4 + 10},
		{"unknown", []packet{{op: 0x30, key: "a", value: "value"}}, 24 + len("Unknown command")},
	} {
		request, reply := join(test.ask), make([]byte, test.n)
		unix.Write(fd, request)
		for got := 0; got < test.n; {
			n, err := unix.Read(fd, reply[got:])
			if n <= 0 {
				t.Fatal(err)
			}
			got += n
		}
		run := func(n int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				roundTrip(t, fd, request, reply, buf)
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		run(100)
		const rounds = 2000
		if n := run(rounds); n > rounds/2 && !(server.Portable && test.name == "large getk") { // as in TestRequestsDoNotAllocate
			t.Errorf("%s: %d allocations in %d requests", test.name, n, rounds)
		}
	}
}
