package netproto_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"hearth/netproto"
)

// packet makes a request with a given CAS of 77.
func packet(op netproto.Opcode, ext, key, value string) []byte {
	b := []byte{netproto.BinaryMagic, byte(op), byte(len(key) >> 8), byte(len(key)), byte(len(ext)), 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(len(ext)+len(key)+len(value)))
	b = append(b, "\x01\x02\x03\x04"...)
	b = binary.BigEndian.AppendUint64(b, 77)
	return append(b, ext+key+value...)
}

// showBinary writes out what a request says beyond its first bytes.
func showBinary(r *netproto.BinaryRequest) string {
	if r.Bad {
		return fmt.Sprintf("bad %#x drop %d close %t", uint16(r.Status), r.Size, r.Close)
	}
	return fmt.Sprintf("%#x quiet %t %q flags %d exptime %d delta %d initial %d size %d",
		uint8(r.Op), r.Quiet, r.Key, r.Flags, r.Exptime, r.Delta, r.Initial, r.Size)
}

const (
	ext4  = "\xff\xff\xff\xfe"
	ext8  = "\x00\x00\x00\x05" + ext4
	ext20 = "\x00\x00\x00\x00\x00\x00\x00\x07" + "\x80\x00\x00\x00\x00\x00\x00\x00" + "\xff\xff\xff\xff"
)

func TestBinaryPacketsOfEveryOpcode(t *testing.T) {
	rest := func(exptime uint32) string {
		return fmt.Sprintf(`"key" flags 0 exptime %d delta 0 initial 0 size `, exptime)
	}
	none := `"" flags 0 exptime 0 delta 0 initial 0 size 0`
	set := `"key" flags 5 exptime 4294967294 delta 0 initial 0 size 3`
	count := `"key" flags 0 exptime 4294967295 delta 7 initial 9223372036854775808 size 0`
	for _, c := range []struct {
		loud, quiet     netproto.Opcode // the same when there is no quiet one
		ext, key, value string
		want            string
	}{
		{0x00, 0x09, "", "key", "", rest(0) + "0"},
		{0x01, 0x11, ext8, "key", "abc", set},
		{0x02, 0x12, ext8, "key", "abc", set},
		{0x03, 0x13, ext8, "key", "abc", set},
		{0x04, 0x14, "", "key", "", rest(0) + "0"},
		{0x05, 0x15, ext20, "key", "", count},
		{0x06, 0x16, ext20, "key", "", count},
		{0x07, 0x17, "", "", "", none},
		{0x08, 0x18, "", "", "", none},
		{0x08, 0x18, ext4, "", "", `"" flags 0 exptime 4294967294 delta 0 initial 0 size 0`},
		{0x0a, 0x0a, "", "", "", none},
		{0x0b, 0x0b, "", "", "", none},
		{0x0c, 0x0d, "", "key", "", rest(0) + "0"},
		{0x0e, 0x19, "", "key", "abc", rest(0) + "3"},
		{0x0f, 0x1a, "", "key", "abc", rest(0) + "3"},
		{0x10, 0x10, "", "", "", none},
		{0x10, 0x10, "", "key", "", rest(0) + "0"},
		{0x1c, 0x1c, ext4, "key", "", rest(0xfffffffe) + "0"},
		{0x1d, 0x1e, ext4, "key", "", rest(0xfffffffe) + "0"},
		{0x20, 0x20, "", "", "", none},
		{0x21, 0x21, "", "key", "abc", rest(0) + "3"},
		{0x22, 0x22, "", "key", "abc", rest(0) + "3"},
		{0x23, 0x24, ext4, "key", "", rest(0xfffffffe) + "0"},
	} {
		for _, op := range []netproto.Opcode{c.loud, c.quiet} {
			var r netproto.BinaryRequest
			b := packet(op, c.ext, c.key, c.value)
			want := fmt.Sprintf("%#x quiet %t %s", uint8(c.loud), op != c.loud, c.want)
			n := netproto.ParseBinary(b, &r)
			if got := showBinary(&r); got != want || n != len(b)-len(c.value) {
				t.Errorf("opcode %#x: took %d of %d bytes\n got %s\nwant %s", op, n, len(b), got, want)
			}
			if r.Opcode != op || r.Opaque != [4]byte{1, 2, 3, 4} || r.CAS != 77 {
				t.Errorf("opcode %#x: %#x opaque %v CAS %d", op, r.Opcode, r.Opaque, r.CAS)
			}
		}
	}
}

func TestBadBinaryPackets(t *testing.T) {
	const (
		closed  = "bad 0x0 drop 0 close true"
		invalid = "bad 0x4 drop 0 close true"
		unknown = "bad 0x81 drop 0 close true"
	)
	lengths := func(key uint16, ext uint8, body uint32) []byte {
		b := packet(netproto.OpSet, "", "", "")
		binary.BigEndian.PutUint16(b[2:], key)
		b[4] = ext
		binary.BigEndian.PutUint32(b[8:], body)
		return b
	}
	magic := packet(netproto.OpNoop, "", "", "")
	magic[0] = 0x81
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"a reply's magic", magic, closed},
		{"text", []byte("get a\r\nget a\r\nget a\r\nget a\r\n"), closed},
		{"key longer than body", lengths(4, 0, 3), unknown},
		{"key and extras longer than body", lengths(4, 8, 11), unknown},
		{"body over a gigabyte", lengths(4, 8, 1<<30+1), invalid},
		{"body of the most there is", lengths(4, 8, 1<<32-1), invalid},
		{"key too long", lengths(251, 8, 259), invalid},
		{"key too long, unknown opcode", packet(0x1b, "", strings.Repeat("k", 251), ""), invalid},
		{"set without key", packet(netproto.OpSet, ext8, "", "v"), invalid},
		{"set without extras", packet(netproto.OpSet, "", "k", "v"), invalid},
		{"set with 4 bytes of extras", packet(netproto.OpSetQ, ext4, "k", "v"), invalid},
		{"get without key", packet(netproto.OpGet, "", "", ""), invalid},
		{"get with extras", packet(netproto.OpGetKQ, ext4, "k", ""), invalid},
		{"get with value", packet(netproto.OpGet, "", "k", "v"), invalid},
		{"delete with value", packet(netproto.OpDelete, "", "k", "v"), invalid},
		{"delete with extras", packet(netproto.OpDelete, ext4, "k", ""), invalid},
		{"incr with 8 bytes of extras", packet(netproto.OpIncr, ext8, "k", ""), invalid},
		{"incr with value", packet(netproto.OpIncr, ext20, "k", "v"), invalid},
		{"append with extras", packet(netproto.OpAppend, ext8, "k", "v"), invalid},
		{"append without key", packet(netproto.OpAppend, "", "", "v"), invalid},
		{"touch without extras", packet(netproto.OpTouch, "", "k", ""), invalid},
		{"touch without key", packet(netproto.OpTouch, ext4, "", ""), invalid},
		{"touch with value", packet(netproto.OpTouch, ext4, "k", "v"), invalid},
		{"flush with key", packet(netproto.OpFlush, "", "k", ""), invalid},
		{"flush with 8 bytes of extras", packet(netproto.OpFlush, ext8, "", ""), invalid},
		{"flush with value", packet(netproto.OpFlush, ext4, "", "v"), invalid},
		{"noop with key", packet(netproto.OpNoop, "", "k", ""), invalid},
		{"noop with value", packet(netproto.OpNoop, "", "", "v"), invalid},
		{"version with extras", packet(netproto.OpVersion, ext4, "", ""), invalid},
		{"quit with value", packet(netproto.OpQuit, "", "", "v"), invalid},
		{"stat with extras", packet(netproto.OpStat, ext4, "", ""), invalid},
		{"stat with value", packet(netproto.OpStat, "", "items", "v"), invalid},
		{"SASL without mechanism", packet(netproto.OpSASLAuth, "", "", "v"), invalid},
		{"verbosity", packet(0x1b, ext4, "", ""), "bad 0x81 drop 4 close false"},
		{"0x1f", packet(0x1f, "", "", ""), "bad 0x81 drop 0 close false"},
		{"0x30", packet(0x30, ext20, "key", "value"), "bad 0x81 drop 28 close false"},
		{"0xff", packet(0xff, "", "key", ""), "bad 0x81 drop 3 close false"},
	} {
		for _, b := range [][]byte{c.b, c.b[:24]} { // the header is all that counts
			var r netproto.BinaryRequest
			if n := netproto.ParseBinary(b, &r); n != 24 || showBinary(&r) != c.want {
				t.Errorf("%s: took %d, %s, want %s", c.name, n, showBinary(&r), c.want)
			}
		}
	}
}

func TestBinaryTakesTheLongestKeyAndBody(t *testing.T) {
	var r netproto.BinaryRequest
	key := strings.Repeat("k", netproto.MaxKey)
	b := packet(netproto.OpIncr, ext20, key, "")
	if n := netproto.ParseBinary(b, &r); r.Bad || n != len(b) || n != netproto.MaxBinaryRequest || string(r.Key) != key {
		t.Errorf("longest key: took %d of %d, %s", n, len(b), showBinary(&r))
	}
	b = packet(netproto.OpSet, ext8, "k", "")
	binary.BigEndian.PutUint32(b[8:], 1<<30)
	if netproto.ParseBinary(b, &r); r.Bad || r.Size != 1<<30-9 {
		t.Errorf("longest body: %s", showBinary(&r))
	}
}

func TestBinaryReplies(t *testing.T) {
	id := netproto.BinaryID{Opcode: netproto.OpGetKQ, Opaque: [4]byte{1, 2, 3, 4}}
	header := func(key, ext, status, body, cas byte) string {
		return string([]byte{0x81, 0x0d, 0, key, ext, 0, 0, status, 0, 0, 0, body, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, cas})
	}
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{id.AppendOK(nil, 9), header(0, 0, 0, 0, 9)},
		{id.AppendError(nil, netproto.BinaryTooLarge, ""), header(0, 0, 3, 10, 0) + "Too large."},
		{id.AppendError(nil, netproto.BinaryNoMemory, "no"), header(0, 0, 0x82, 2, 0) + "no"},
		{id.AppendMiss(nil, []byte("key")), header(3, 0, 1, 3, 0) + "key"},
		{id.AppendValue(nil, []byte("key"), 0x01020304, 9, 5), header(3, 4, 0, 12, 9) + "\x01\x02\x03\x04key"},
		{id.AppendValue(nil, nil, 7, 9, 0), header(0, 4, 0, 4, 9) + "\x00\x00\x00\x07"},
		{id.AppendNumber(nil, 1<<56+2, 9), header(0, 0, 0, 8, 9) + "\x01\x00\x00\x00\x00\x00\x00\x02"},
		{id.AppendVersion(nil, "1.6.42"), header(0, 0, 0, 6, 0) + "1.6.42"},
		{id.AppendStat(nil, "pid", []byte("12")), header(3, 0, 0, 5, 0) + "pid12"},
		{id.AppendStat(nil, "", nil), header(0, 0, 0, 0, 0)},
	} {
		if string(c.got) != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for st, want := range map[netproto.BinaryStatus]string{
		0x01: "Not found", 0x02: "Data exists for key.", 0x03: "Too large.", 0x04: "Invalid arguments", 0x05: "Not stored.",
		0x06: "Non-numeric server-side value for incr or decr", 0x20: "Auth failure.", 0x81: "Unknown command", 0x82: "Out of memory",
	} {
		if st.Text() != want {
			t.Errorf("status %#x: %q, want %q", uint16(st), st.Text(), want)
		}
	}
}

func TestBinaryAllocatesNothing(t *testing.T) {
	var r netproto.BinaryRequest
	dst := make([]byte, 0, 4096)
	stream := bytes.Join([][]byte{packet(netproto.OpSet, ext8, "key", ""), packet(netproto.OpIncr, ext20, "key", ""), packet(0x30, ext4, "k", "")}, nil)
	if n := testing.AllocsPerRun(100, func() {
		dst = dst[:0]
		for rest := stream; len(rest) > 0; rest = rest[min(len(rest), r.Size):] {
			rest = rest[netproto.ParseBinary(rest, &r):]
			if !r.Bad {
				r.Size = 0
			}
			dst = r.AppendError(r.AppendValue(r.AppendNumber(r.AppendMiss(dst, r.Key), 1, 2), r.Key, 3, 4, 5), netproto.BinaryInvalid, "")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// parsedPacket is one packet of a stream: what it said, and where it and its value ended.
type parsedPacket struct {
	what      string
	head, end int
	closes    bool
	missing   int // bytes of the value that the stream does not have
}

// parsePackets reads packets as a server does, given step more bytes whenever more are needed, and skips values.
func parsePackets(t *testing.T, stream []byte, step int) (all []parsedPacket) {
	var r netproto.BinaryRequest
	at, have := 0, min(step, len(stream))
	for {
		n := netproto.ParseBinary(stream[at:have:have], &r)
		if n < 0 || n > have-at {
			t.Fatalf("took %d of %d bytes %q", n, have-at, stream[at:have])
		}
		if n == 0 {
			if have-at >= netproto.MaxBinaryRequest {
				t.Fatalf("wants more than %d bytes %q", have-at, stream[at:have])
			}
			if have == len(stream) {
				return all
			}
			have = min(have+step, len(stream))
			continue
		}
		if len(r.Key) > netproto.MaxKey || r.Size < 0 {
			t.Fatalf("key of %d bytes, value of %d", len(r.Key), r.Size)
		}
		p := parsedPacket{what: fmt.Sprintf("%x %x %x %s", r.Opcode, r.Opaque, r.CAS, showBinary(&r)), head: n, closes: r.Close}
		if k := len(r.Key); k > 0 && &r.Key[k-1] != &stream[at+n-1] {
			t.Fatal("the key is not the last of the bytes that were taken")
		}
		at += n
		if r.Size > len(stream)-at {
			p.missing = r.Size - (len(stream) - at)
		}
		at += r.Size - p.missing
		have = max(have, at)
		p.end = at
		if all = append(all, p); p.closes || p.missing > 0 {
			return all
		}
	}
}

func FuzzBinary(f *testing.F) {
	for _, ops := range [][]byte{
		packet(netproto.OpSet, ext8, "key", "value"), packet(netproto.OpGetKQ, "", "key", ""), packet(netproto.OpIncr, ext20, "n", ""),
		packet(netproto.OpFlush, ext4, "", ""), packet(netproto.OpFlushQ, "", "", ""), packet(netproto.OpStat, "", "detail dump", ""),
		packet(netproto.OpAppendQ, "", "key", "value"), packet(netproto.OpGatK, ext4, "key", ""), packet(0x30, ext20, "key", "value"),
		packet(netproto.OpSet, ext4, "key", "value"), packet(netproto.OpGet, "", key251, ""), packet(netproto.OpSASLAuth, "", "PLAIN", "\x00u\x00p"),
	} {
		f.Add(ops, 7)
		f.Add(bytes.Join([][]byte{ops, packet(netproto.OpNoop, "", "", ""), ops, packet(netproto.OpQuitQ, "", "", "")}, nil), 5)
	}
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		whole := parsePackets(t, stream, max(len(stream), 1))
		for _, step := range []int{1, max(1, min(step, len(stream)))} {
			split := parsePackets(t, stream, step)
			for i, want := range whole {
				if i == len(split) || split[i] != want {
					t.Fatalf("%d bytes at a time: packet %d of %d:\n got %+v\nwant %+v", step, i, len(whole), split[min(i, len(split)):], want)
				}
			}
			if len(split) > len(whole) {
				t.Fatalf("%d bytes at a time: an extra packet %+v", step, split[len(whole)])
			}
		}
	})
}
