package server_test

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"hearth/netproto"
	"hearth/netproto/server"
)

const (
	lastCAS   = 1<<63 + 1 // in a packet: the CAS id that the last answer with one had
	binaryBad = `"" "" "Invalid arguments"`
	unknown   = `"" "" "Unknown command"`
	authFails = `"" "" "Auth failure."`
)

// binaryRow is one claim about packets. It has a connection of its own and starts with an empty cache.
type binaryRow struct {
	name   string
	given  []packet
	send   []packet
	raw    string   // sent behind send
	want   []string // opcode, status, extras, key and value of each answer
	closes bool
	but    string // why memcached 1.6.18 answers otherwise
	alone  string // why memcached is not asked at all
}

func runBinaryRows(t *testing.T, rows []binaryRow, opt func(*setup), memcachedArgs ...string) {
	t.Helper()
	addrs := both(t, opt, memcachedArgs...)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for i, addr := range addrs {
				if i == 1 && r.alone != "" {
					continue
				}
				if got := r.play(t, addr); slices.Equal(got, r.want) != (i == 0 || r.but == "") {
					t.Errorf("%s:\n got %s\nwant %s\n%s", addr, strings.Join(got, "\n     "), strings.Join(r.want, "\n     "), r.but)
				}
			}
		})
	}
}

// play sends a row and returns the answers to what follows given.
func (r binaryRow) play(t *testing.T, addr string) (answers []string) {
	t.Helper()
	c := dial(t, addr)
	var cas uint64
	const end = 0xfffffffe // the opaque of the noop that ends what is read
	talk := func(ps []packet, raw string, closes bool) (answers []string) {
		ps = slices.Clone(ps)
		for i := range ps {
			if ps[i].opaque = uint32(i + 1); ps[i].cas == lastCAS {
				ps[i].cas = cas
			}
		}
		if !closes {
			ps = append(ps, packet{op: 0x0a, opaque: end})
		}
		c.send("%s", string(join(ps))+raw)
		for {
			a, err := readAnswer(c.r)
			if closes && err != nil && (err == io.EOF || strings.Contains(err.Error(), "reset")) {
				return answers
			}
			if err != nil {
				t.Fatalf("%s: after %q: %v", addr, answers, err)
			}
			if a.opaque == end {
				return answers
			}
			if a.opaque > uint32(len(ps)) {
				t.Fatalf("%s: an answer with opaque %#x", addr, a.opaque)
			}
			if a.cas != 0 {
				cas = a.cas
			}
			answers = append(answers, a.String())
		}
	}
	talk([]packet{{op: 0x18}}, "", false)
	for _, a := range talk(r.given, "", false) {
		if !strings.Contains(a[5:], "0x00 ") {
			t.Fatalf("what is given fails: %s", a)
		}
	}
	return talk(r.send, r.raw, r.closes)
}

func TestBinary(t *testing.T) {
	ok := func(op int) string { return fmt.Sprintf("%#02x 0x00 %s", op, empty) }
	reply := func(op, status int, rest string) string { return fmt.Sprintf("%#02x %#02x %s", op, status, rest) }
	number := func(op int, n uint64) string { return fmt.Sprintf(`%#02x 0x00 "" "" %q`, op, be(n)) }
	const flags = `"\x00\x00\x00\x05"`
	given := []packet{{op: 0x01, ext: flagsFor(5, 0), key: "a", value: "abc"}}
	digits := []packet{setPacket(0x01, "n", "10")}
	touch := func(op netproto.Opcode, key string) packet { return packet{op: op, ext: be(uint32(0)), key: key} }
	counts := func(op netproto.Opcode, exptime uint32) packet {
		return packet{op: op, ext: counting(2, 7, exptime), key: "n"}
	}
	const other = 1 << 40 // a CAS that nothing has
	one := func(p packet) []packet { return []packet{p} }
	rows := []binaryRow{
		{name: "GET hit", given: given, send: one(keyPacket(0x00, "a")), want: []string{`0x00 0x00 ` + flags + ` "" "abc"`}},
		{name: "GET miss", send: one(keyPacket(0x00, "a")), want: []string{reply(0x00, 1, notFound)}},
		{name: "GETQ hit keeps its opcode", given: given, send: one(keyPacket(0x09, "a")), want: []string{`0x09 0x00 ` + flags + ` "" "abc"`}},
		{name: "GETQ miss is not answered", send: one(keyPacket(0x09, "a"))},
		{name: "GETK hit returns the key", given: given, send: one(keyPacket(0x0c, "a")), want: []string{`0x0c 0x00 ` + flags + ` "a" "abc"`}},
		{name: "GETK miss returns the key without a text", send: one(keyPacket(0x0c, "a")), want: []string{`0x0c 0x01 "" "a" ""`}},
		{name: "GETKQ hit", given: given, send: one(keyPacket(0x0d, "a")), want: []string{`0x0d 0x00 ` + flags + ` "a" "abc"`}},
		{name: "GETKQ miss is not answered", send: one(keyPacket(0x0d, "a"))},
		{name: "GAT hit", given: given, send: one(touch(0x1d, "a")), want: []string{`0x1d 0x00 ` + flags + ` "" "abc"`}},
		{name: "GAT miss", send: one(touch(0x1d, "a")), want: []string{reply(0x1d, 1, notFound)}},
		{name: "GATQ hit", given: given, send: one(touch(0x1e, "a")), want: []string{`0x1e 0x00 ` + flags + ` "" "abc"`}},
		{name: "GATQ miss is not answered", send: one(touch(0x1e, "a"))},
		{name: "GATK hit", given: given, send: one(touch(0x23, "a")), want: []string{`0x23 0x00 ` + flags + ` "a" "abc"`}},
		{name: "GATK miss returns the key without a text", send: one(touch(0x23, "a")), want: []string{`0x23 0x01 "" "a" ""`}},
		{name: "GATKQ hit", given: given, send: one(touch(0x24, "a")), want: []string{`0x24 0x00 ` + flags + ` "a" "abc"`}},
		{name: "GATKQ miss is not answered", send: one(touch(0x24, "a"))},
		{name: "TOUCH hit has flags and no value", given: given, send: one(touch(0x1c, "a")), want: []string{`0x1c 0x00 ` + flags + ` "" ""`}},
		{name: "TOUCH miss", send: one(touch(0x1c, "a")), want: []string{reply(0x1c, 1, notFound)}},

		{name: "SET", send: one(setPacket(0x01, "a", "1")), want: []string{ok(0x01)}},
		{name: "SETQ is not answered", send: []packet{setPacket(0x11, "a", "1"), keyPacket(0x00, "a")}, want: []string{`0x00 0x00 "\x00\x00\x00\x00" "" "1"`}},
		{name: "SET with the item's CAS", given: given, send: one(setPacket(0x01, "a", "1").withCAS(lastCAS)), want: []string{ok(0x01)}},
		{name: "SET with another CAS", given: given, send: one(setPacket(0x01, "a", "1").withCAS(other)), want: []string{reply(0x01, 2, exists)}},
		{name: "SET with a CAS where no item is", send: one(setPacket(0x01, "a", "1").withCAS(other)), want: []string{reply(0x01, 1, notFound)}},
		{name: "SETQ with another CAS is answered", given: given, send: one(setPacket(0x11, "a", "1").withCAS(other)), want: []string{reply(0x11, 2, exists)}},
		{name: "SET too large deletes the old value", given: given, send: []packet{setPacket(0x01, "a", strings.Repeat("x", 1<<20)), keyPacket(0x00, "a")}, want: []string{reply(0x01, 3, tooLarge), reply(0x00, 1, notFound)}},
		{name: "SETQ too large deletes the old value", given: given, send: []packet{setPacket(0x11, "a", strings.Repeat("x", 1<<20)), keyPacket(0x00, "a")}, want: []string{reply(0x11, 3, tooLarge), reply(0x00, 1, notFound)}},
		{name: "SET with a CAS too large deletes the old value", given: given, send: []packet{setPacket(0x01, "a", strings.Repeat("x", 1<<20)).withCAS(lastCAS), keyPacket(0x00, "a")}, want: []string{reply(0x01, 3, tooLarge), reply(0x00, 1, notFound)}},
		{name: "SET's expiration is unsigned", send: []packet{{op: 0x01, ext: flagsFor(0, 0xffffffff), key: "a", value: "1"}, keyPacket(0x00, "a")}, want: []string{ok(0x01), `0x00 0x00 "\x00\x00\x00\x00" "" "1"`}},
		{name: "ADD", send: one(setPacket(0x02, "a", "1")), want: []string{ok(0x02)}},
		{name: "ADD of an item", given: given, send: []packet{setPacket(0x02, "a", "1"), setPacket(0x12, "a", "1")}, want: []string{reply(0x02, 2, exists), reply(0x12, 2, exists)}},
		{name: "ADDQ is not answered", send: one(setPacket(0x12, "a", "1"))},
		{name: "REPLACE", given: given, send: one(setPacket(0x03, "a", "1")), want: []string{ok(0x03)}},
		{name: "REPLACE of no item", send: []packet{setPacket(0x03, "a", "1"), setPacket(0x13, "a", "1")}, want: []string{reply(0x03, 1, notFound), reply(0x13, 1, notFound)}},
		{name: "REPLACEQ is not answered", given: given, send: one(setPacket(0x13, "a", "1"))},
		{name: "APPEND and PREPEND keep the flags", given: given, send: []packet{{op: 0x0e, key: "a", value: "d"}, {op: 0x0f, key: "a", value: "_"}, keyPacket(0x00, "a")}, want: []string{ok(0x0e), ok(0x0f), `0x00 0x00 ` + flags + ` "" "_abcd"`}},
		{name: "APPEND and PREPEND to no item", send: []packet{{op: 0x0e, key: "a", value: "d"}, {op: 0x0f, key: "a", value: "d"}, {op: 0x19, key: "a", value: "d"}}, want: []string{reply(0x0e, 5, notStored), reply(0x0f, 5, notStored), reply(0x19, 5, notStored)}},
		{name: "APPENDQ and PREPENDQ are not answered", given: given, send: []packet{{op: 0x19, key: "a", value: "d"}, {op: 0x1a, key: "a", value: "_"}}},

		{name: "DELETE", given: given, send: []packet{keyPacket(0x04, "a"), keyPacket(0x04, "a")}, want: []string{ok(0x04), reply(0x04, 1, notFound)}},
		{name: "DELETEQ is answered when it fails", given: given, send: []packet{keyPacket(0x14, "a"), keyPacket(0x14, "a")}, want: []string{reply(0x14, 1, notFound)}},
		{name: "DELETE honours the CAS", given: given, send: []packet{keyPacket(0x04, "a").withCAS(other), keyPacket(0x04, "a").withCAS(lastCAS)}, want: []string{reply(0x04, 2, exists), ok(0x04)}},
		{name: "INCR and DECR", given: digits, send: []packet{counts(0x05, 0), counts(0x06, 0)}, want: []string{number(0x05, 12), number(0x06, 10)}},
		{name: "INCRQ and DECRQ are not answered", given: digits, send: []packet{counts(0x15, 0), counts(0x16, 0)}},
		{name: "INCR of no item creates the initial value", send: []packet{counts(0x05, 0), counts(0x05, 0)}, want: []string{number(0x05, 7), number(0x05, 9)}},
		{name: "INCR with expiration 0xffffffff does not create", send: one(counts(0x05, 0xffffffff)), want: []string{reply(0x05, 1, notFound)}},
		{name: "INCR of a word", given: given, send: one(packet{op: 0x05, ext: counting(1, 0, 0), key: "a"}), want: []string{reply(0x05, 6, nonNumeric)}},
		{name: "INCRQ of a word is answered", given: given, send: one(packet{op: 0x15, ext: counting(1, 0, 0), key: "a"}), want: []string{reply(0x15, 6, nonNumeric)}},

		{name: "FLUSH", given: given, send: []packet{{op: 0x08}, keyPacket(0x00, "a")}, want: []string{ok(0x08), reply(0x00, 1, notFound)}},
		{name: "FLUSH with an expiration", given: given, send: []packet{{op: 0x08, ext: be(uint32(1000))}, keyPacket(0x00, "a")}, want: []string{ok(0x08), `0x00 0x00 ` + flags + ` "" "abc"`}},
		{name: "FLUSHQ is not answered", given: given, send: []packet{{op: 0x18}, keyPacket(0x00, "a")}, want: []string{reply(0x00, 1, notFound)}},
		{name: "NOOP", send: one(packet{op: 0x0a}), want: []string{ok(0x0a)}},
		{name: "QUIT is answered", send: one(packet{op: 0x07}), want: []string{ok(0x07)}, closes: true},
		{name: "QUITQ is not answered", send: one(packet{op: 0x17}), closes: true},
		{name: "STAT of an unknown key", send: one(keyPacket(0x10, "foo")), want: []string{reply(0x10, 1, notFound)}},
		{name: "STAT reset ends with an empty packet", send: one(keyPacket(0x10, "reset")), want: []string{ok(0x10)}},
		{name: "STAT detail on and off", send: []packet{keyPacket(0x10, "detail on"), keyPacket(0x10, "detail off")}, want: []string{ok(0x10), ok(0x10)}},
		{name: "STAT sizes", send: one(keyPacket(0x10, "sizes")), want: []string{`0x10 0x00 "" "sizes_status" "disabled"`, ok(0x10)}},
		{name: "SASL is unknown without -S", send: []packet{{op: 0x20}, {op: 0x21, key: "PLAIN", value: "\x00u\x00p"}, {op: 0x22, key: "PLAIN"}},
			want: []string{reply(0x20, 0x81, unknown), reply(0x21, 0x81, unknown), reply(0x22, 0x81, unknown)}},

		{name: "bad magic closes", raw: strings.Repeat("\x81", 24), closes: true},
		{name: "a body shorter than key and extras closes", raw: "\x80\x00\x00\x05" + strings.Repeat("\x00", 20) + "12345", want: []string{reply(0x00, 0x81, unknown)}, closes: true},
		{name: "a body beyond 1 GiB closes", raw: "\x80\x01\x00\x01\x08\x00\x00\x00\x40\x00\x00\x01" + strings.Repeat("\x00", 12+8) + "k", want: []string{reply(0x01, 4, binaryBad)}, closes: true, alone: "1.6.18 waits for the body"},
		{name: "a key longer than 250 closes", send: one(keyPacket(0x00, strings.Repeat("k", 251))), want: []string{reply(0x00, 4, binaryBad)}, closes: true},
		{name: "GET without a key closes", send: one(packet{op: 0x00}), want: []string{reply(0x00, 4, binaryBad)}, closes: true},
	}
	for _, op := range []netproto.Opcode{0x1b, 0x1f, 0x25, 0x30, 0x3c, 0xff} {
		rows = append(rows, binaryRow{name: fmt.Sprintf("opcode %#02x is unknown and its body is dropped", uint8(op)), send: one(packet{op: op, value: "\x80\x0abody"}), want: []string{reply(int(op), 0x81, unknown)}})
	}
	shapes := map[netproto.Opcode]struct{ ext, key int }{
		0x00: {0, 1}, 0x09: {0, 1}, 0x0c: {0, 1}, 0x0d: {0, 1}, 0x01: {8, 1}, 0x02: {8, 1}, 0x03: {8, 1}, 0x11: {8, 1}, 0x12: {8, 1}, 0x13: {8, 1}, 0x04: {0, 1}, 0x14: {0, 1},
		0x05: {20, 1}, 0x06: {20, 1}, 0x15: {20, 1}, 0x16: {20, 1}, 0x0e: {0, 1}, 0x0f: {0, 1}, 0x19: {0, 1}, 0x1a: {0, 1}, 0x1c: {4, 1}, 0x1d: {4, 1}, 0x1e: {4, 1}, 0x23: {4, 1}, 0x24: {4, 1},
		0x07: {0, 0}, 0x17: {0, 0}, 0x08: {4, 0}, 0x18: {4, 0}, 0x0a: {0, 0}, 0x0b: {0, 0},
	}
	for _, op := range slices.Sorted(maps.Keys(shapes)) {
		rows = append(rows, binaryRow{name: fmt.Sprintf("opcode %#02x with extras of another length closes", uint8(op)), closes: true,
			send: one(packet{op: op, ext: strings.Repeat("\x00", shapes[op].ext+1), key: strings.Repeat("k", shapes[op].key)}), want: []string{reply(int(op), 4, binaryBad)}})
	}
	runBinaryRows(t, rows, func(*setup) {})
}

func TestBinaryOptions(t *testing.T) {
	t.Run("-F", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.server.DisableFlushAll = true }, "-F") {
			c := dial(t, addr)
			c.wantAnswer("flush", packet{op: 0x08}, "0x08 0x20 "+authFails)
			if n := dial(t, addr).stat("cmd_flush"); n != 0 { // other than that of the text protocol
				t.Errorf("%s: cmd_flush is %d", addr, n)
			}
		}
	})
	t.Run("VERSION has the version string", func(t *testing.T) {
		dial(t, startServer(t)).wantAnswer("version", packet{op: 0x0b}, fmt.Sprintf(`0x0b 0x00 "" "" %q`, server.DefaultVersion))
	})
	t.Run("no memory", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.cache.NoEvict, o.cache.MemoryLimit = true, 8<<20 }, "-M", "-m", "8") {
			filling := dial(t, addr)
			fill(filling)
			c, value := dial(t, addr), strings.Repeat("x", 200)
			c.wantAnswer("add", setPacket(0x02, "victim", value), `0x02 0x82 "" "" "Out of memory allocating item"`)
			filling.ask("get victim\r\n", "VALUE victim 0 3\r\nold\r\nEND\r\n")
			c.wantAnswer("set", setPacket(0x01, "victim", value), `0x01 0x82 "" "" "Out of memory allocating item"`)
			filling.ask("get victim\r\n", "END\r\n")
		}
	})
	t.Run("a text port takes a packet for part of a line", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.server.Protocol = server.ProtocolASCII }, "-B", "ascii") {
			c := dial(t, addr)
			c.sendPackets(packet{op: 0x0b})
			c.ask("\r\n", "ERROR\r\n")
		}
	})
	t.Run("a binary port closes on a line when it is as long as a header", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.server.Protocol = server.ProtocolBinary }, "-B", "binary") {
			c := dial(t, addr)
			c.send("get aaaaaaaaaaaaaaaaa\r\n") // 23 bytes
			c.send("g")
			c.wantEOF()
		}
	})
	t.Run("the first byte tells the protocol", func(t *testing.T) {
		for _, addr := range both(t, func(*setup) {}) {
			c, d := dial(t, addr), dial(t, addr)
			c.wantAnswer("noop", packet{op: 0x0a}, "0x0a 0x00 "+empty)
			d.ask("mn\r\n", "MN\r\n")
			c.wantAnswer("noop", packet{op: 0x0a}, "0x0a 0x00 "+empty)
			d.send("%s\r\n", packet{op: 0x0b}.bytes())
			d.want("ERROR\r\n") // a line, and so for the life of the connection
		}
	})
}
