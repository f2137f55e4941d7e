package netproto_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"hearth/netproto"
)

// TestAuthLineIsASetOrNothing holds the order of the checks; the server's tests hold what clients see of it.
func TestAuthLineIsASetOrNothing(t *testing.T) {
	unauthenticated := netproto.AuthLine{Reply: netproto.Unauthenticated}
	for line, want := range map[string]netproto.AuthLine{
		"set k 0 0 5\r\n":                  {Token: 7},
		"set k 0 0 0\n":                    {Token: 2},
		"set  k x y 5 noreply\r\n":         {Token: 7},
		"set k 0 0 16384\r\n":              {Token: 16386},
		"set k 0 0 16385\r\n":              {Reply: netproto.AuthTokenTooLong, Swallow: 16387},
		"set k 0 0 4294967295\r\n":         {Reply: netproto.AuthTokenTooLong, Swallow: 1<<32 + 1},
		"set k 0 0 4294967296\r\n":         unauthenticated,
		"set k 0 0 -5\r\n":                 unauthenticated,
		"set k 0 0 \r\n":                   unauthenticated,
		"set\tk 0 0 5\r\n":                 unauthenticated,
		"sets k 0 0 5\r\n":                 unauthenticated,
		"\x00set k 0 0 5\n":                unauthenticated,
		"cas k 0 0 5 1\r\n":                unauthenticated,
		"set k\r\n":                        unauthenticated,
		"abcd\n":                           {},
		"\n":                               {},
		strings.Repeat("x", 2048) + "yz\n": unauthenticated,
	} {
		if got, n := netproto.ParseAuthLine([]byte(line + "rest\n")); got != want || n != len(line) {
			t.Errorf("%.60q: %+v and %d bytes, want %+v and %d", line, got, n, want, len(line))
		}
		for i := range min(len(line), netproto.MaxLine+1) { // a line that is not whole is waited for
			if got, n := netproto.ParseAuthLine([]byte(line[:i])); n != 0 || got != (netproto.AuthLine{}) {
				t.Errorf("%.60q: %+v and %d bytes", line[:i], got, n)
			}
		}
	}
	if got, n := netproto.ParseAuthLine(make([]byte, netproto.MaxLine+1)); got != (netproto.AuthLine{}) || n != netproto.MaxLine+1 {
		t.Errorf("a long line without an end: %+v and %d bytes", got, n)
	}
}

func TestPlainMessageNamesItsUserOnly(t *testing.T) {
	for message, want := range map[string]string{
		"\x00u\x00p": "u/p", "u\x00u\x00p": "u/p", "\x00u\x00": "u/", "\x00u p\x00q:r": "u p/q:r",
		"": "-", "u": "-", "\x00u": "-", "\x00\x00p": "-", "v\x00u\x00p": "-", "\x00u\x00p\x00": "-", "\x00u\x00p\x00q": "-", "uu\x00u\x00p": "-",
	} {
		user, password, ok := netproto.ParsePlain([]byte(message))
		if got := fmt.Sprintf("%s/%s", user, password); ok != (want != "-") || ok && got != want {
			t.Errorf("%q: %s, %v, want %s", message, got, ok, want)
		}
	}
}

func TestUDPFrameHoldsOneRequest(t *testing.T) {
	for datagram, want := range map[string]string{
		"\x12\x34\x00\x00\x00\x01\x00\x00x": "x", "\x12\x34\x00\x05\x00\x01\xff\xffxyz": "xyz",
		"": "-", "\x12\x34\x00\x00\x00\x01\x00": "-", "\x12\x34\x00\x00\x00\x01\x00\x00": "-", "\x12\x34\x00\x00\x00\x00\x00\x00x": "-",
		"\x12\x34\x00\x00\x00\x02\x00\x00x": "-", "\x12\x34\x00\x00\x01\x01\x00\x00x": "-",
	} {
		id, request, ok := netproto.ParseUDP([]byte(datagram))
		if ok != (want != "-") || ok && (string(request) != want || id != 0x1234) {
			t.Errorf("%q: %#x, %q, %v, want %q", datagram, id, request, ok, want)
		}
	}
	if got := netproto.AppendUDPHeader([]byte("a"), 0x1234, 0x0102, 0x0506); !bytes.Equal(got, []byte("a\x12\x34\x01\x02\x05\x06\x00\x00")) {
		t.Errorf("%q", got)
	}
	for size, want := range map[int]int{0: 0, 1: 1, 1392: 1, 1393: 2, 2784: 2, 2785: 3} {
		if got := netproto.UDPDatagrams(size); got != want {
			t.Errorf("%d bytes in %d datagrams, want %d", size, got, want)
		}
	}
}
