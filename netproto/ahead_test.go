package netproto_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"hearth/netproto"
)

func TestLooksAheadForTheKeysThatParseFinds(t *testing.T) {
	for _, test := range []struct {
		in   string
		keys []string
	}{
		{"get a\r\nget bb  ccc \r\ngets d\n", []string{"a", "bb", "ccc", "d"}},
		{"gat 5 a b\r\ngats 0 c\r\ntouch d 1\r\nincr e 1\r\ndelete f\r\n", []string{"a", "b", "c", "d", "e", "f"}},
		{"set a 0 0 9\r\nget x\r\nyz\r\nget b\r\ncas c 0 0 2 77 noreply\r\n..\r\nappend d 1 2 0\r\n\r\nget e\r\n", []string{"a", "b", "c", "d", "e"}},
		{"mg a v\r\nms b 5 T0\r\nget x\r\nmd c q\r\nmn\r\nma d\r\nmg e\r\n", []string{"a", "b", "c", "d", "e"}},
		{"set a 0 0 100\r\nget b\r\n", []string{"a"}},                         // the block goes on
		{"set a 0 0 99999999999999999999\r\nget b\r\n", []string{"a"}},        // no number
		{"set a 0 0 -1\r\nget b\r\n", []string{"a"}},                          // likewise
		{"set a\r\n\r\n", []string{"a"}},                                      // no size
		{"\r\n\n \r\nget\r\nget \r\nquit\r\nversion\r\n", nil},                // no keys
		{"get a\r\nget b", []string{"a"}},                                     // no whole line
		{"get 1 2 3 4 5 6 7 8 9\r\n", []string{"1", "2", "3", "4", "5", "6"}}, // as many as there is room for
	} {
		var got []string
		for _, key := range netproto.Ahead(make([][]byte, 0, 6), []byte(test.in)) {
			got = append(got, string(key))
		}
		if !slices.Equal(got, test.keys) {
			t.Errorf("%q: %q, want %q", test.in, got, test.keys)
		}
	}
}

func TestLooksAheadForTheKeysOfPackets(t *testing.T) {
	in := slices.Concat(packet(netproto.OpGetKQ, "", "a", ""), packet(netproto.OpSet, ext8, "bb", "value"), packet(netproto.OpNoop, "", "", ""), packet(netproto.OpGet, "", "c", ""), packet(netproto.OpSet, ext8, "d", "long"))
	for n, want := range map[int]string{len(in): "[a bb c d]", len(in) - 1: "[a bb c d]", len(in) - 5: "[a bb c]", 24: "[]", 25: "[a]", 0: "[]"} {
		if got := fmt.Sprintf("%s", netproto.AheadBinary(make([][]byte, 0, 8), in[:n])); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	bad := packet(netproto.OpGet, "", "key", "")
	binary.BigEndian.PutUint32(bad[8:], 1) // less than the key
	if keys := netproto.AheadBinary(make([][]byte, 0, 8), bad); len(keys) > 0 {
		t.Errorf("%q", keys)
	}
}

func FuzzAhead(f *testing.F) {
	f.Add([]byte("set a 0 0 3\r\nabc\r\nget a b\r\n"))
	f.Add(packet(netproto.OpSet, ext8, "k", "v"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, ahead := range []func([][]byte, []byte) [][]byte{netproto.Ahead, netproto.AheadBinary} {
			if keys := ahead(make([][]byte, 0, 4), in); len(keys) > 4 || slices.ContainsFunc(keys, func(k []byte) bool { return len(k) == 0 }) {
				t.Errorf("%q", keys)
			}
		}
	})
}
