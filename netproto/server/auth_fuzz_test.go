package server

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"hearth"
	"hearth/netproto"
)

const fuzzUsers = "alice:secret\nb:2\n"

// Whatever else a stream holds, without one of these it authenticates nobody.
var (
	authPattern  = regexp.MustCompile(`\r?\n *(alice +secret|b +2)( |\r\n)`)
	plainPattern = regexp.MustCompile(`\x00(alice\x00secret|b\x002)`)
)

// modelAuth reads a stream again, in the most direct way: where authentication ends, or -1. sure: the model knows all that the stream holds.
func modelAuth(stream []byte) (end int, sure bool) {
	failures, at := 0, 0
	for {
		i := bytes.IndexByte(stream[at:], '\n')
		if i < 0 || i+1 < 6 {
			return -1, true
		}
		line := strings.TrimSuffix(string(stream[at:at+i]), "\r")
		if i > 2048 {
			return -1, false // whether it is looked at depends on how it comes
		}
		at += i + 1
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
		if !strings.HasPrefix(line, "set ") || len(words) < 5 {
			continue
		}
		size, err := strconv.ParseUint(words[4], 10, 63)
		if err != nil && strings.ContainsAny(words[4], "0123456789") {
			return -1, false // C reads numbers in more ways
		}
		switch {
		case err != nil || size >= 1<<32:
			continue
		case uint64(len(stream)-at) < size+2:
			return -1, true
		case size > 16384:
			at += int(size) + 2
			continue
		}
		token := string(stream[at : at+int(size)+2])
		at += len(token)
		body, ok := strings.CutSuffix(token, "\r\n")
		words = strings.FieldsFunc(body, func(r rune) bool { return r == ' ' })
		if !ok || len(words) < 2 {
			continue
		}
		if user := words[0] + ":" + words[1] + "\n"; strings.Contains("\n"+fuzzUsers, "\n"+user) && !strings.Contains(words[0], ":") {
			return at, true
		}
		if failures++; failures == 10 {
			return -1, true
		}
	}
}

// FuzzAuth plays streams to a server that wants authentication, whole, split at every byte, and byte by byte. Nothing in them reaches the cache
// before a set that names a user and its password, and how they are split changes nothing.
func FuzzAuth(f *testing.F) {
	for _, seed := range []string{
		"set k 0 0 12\r\nalice secret\r\n", "get a\r\nset k 0 0 3\nb 2\r\nget a\r\n", "set k 0 0 9\r\nalice bad\r\nset k 0 0 3\r\nb 2\r\n",
		"set k 0 0 5\r\nalice\r\nset k 0 0 3\r\nb 2\r\r\n", "set k 0 0 20000\r\nset k 0 0 3\r\nb 2\r\n", "ms k 1\r\nx\r\nmg k v\r\nflush_all\r\nquit\r\n",
		strings.Repeat("set k 0 0 3\r\nb 3\r\n", 12), "set k 0 0 3 noreply\r\n b  2\r\n", "set \r\n\r\nset k 0 0 3\r\nb 2\r\n", "\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0a",
		"set k 0 0 30\r\nset k 0 0 3\r\nb 2\r\nxxxxxxxxxxxxx\r\n", "set k 0 0 +3\r\nb 2\r\n", strings.Repeat("x", 2100) + "\nset k 0 0 3\r\nb 2\r\n", "set k 0 0 0\r\n\r\nset a 0 0 1\r\nx\r\n",
	} {
		f.Add([]byte(seed))
	}
	name := filepath.Join(f.TempDir(), "users")
	if err := os.WriteFile(name, []byte(fuzzUsers), 0o600); err != nil {
		f.Fatal(err)
	}
	users := NewAuthFile(name)
	if err := users.Load(); err != nil {
		f.Fatal(err)
	}
	b := newBench(f, hearth.Options{MemoryLimit: 8 << 20}, Options{Auth: users})
	f.Fuzz(func(t *testing.T, stream []byte) {
		b.t = t
		const canary = "\r\n\r\nset canary 0 0 1\r\nx\r\n"
		end, sure := modelAuth(append(stream[:len(stream):len(stream)], canary...))
		served := false // the canary may be, by right
		if sure && end >= 0 && end <= len(stream) {
			stream = stream[:end] // the rest is served as on any connection
		} else {
			served = sure && end >= 0
			stream = append(stream[:len(stream):len(stream)], canary...)
		}
		before := b.cache.Stats()
		replies, authenticated, closed := b.play(stream)
		check := func(r []byte, authenticated, last bool) {
			t.Helper()
			if authenticated && !authPattern.Match(stream) || sure && authenticated != (end >= 0) {
				t.Fatalf("%q: authenticated %v, want %v", stream, authenticated, end >= 0)
			}
			if authenticated && (!sure || served) || !last { // all splits are looked at together: to count takes long
				return
			}
			if after := b.cache.Stats(); after.CmdSet != before.CmdSet || after.TotalItems != before.TotalItems || after.CmdGet != before.CmdGet ||
				after.CmdTouch != before.CmdTouch || after.CmdFlush != before.CmdFlush || after.DeleteMisses != before.DeleteMisses || after.IncrMisses != before.IncrMisses {
				t.Fatalf("%q: something came through: %+v", stream, after)
			}
			for line := range bytes.Lines(r) {
				switch string(line) {
				case netproto.Unauthenticated, netproto.AuthFailure, netproto.AuthTokenTooLong, netproto.BadAuthToken, netproto.BadAuthTermination:
				case netproto.Stored:
					if !authenticated {
						t.Fatalf("%q: STORED without authentication", stream)
					}
				default:
					t.Fatalf("%q: reply %q", stream, line)
				}
			}
		}
		check(replies, authenticated, true)
		if !sure && authenticated || len(stream) > 600 {
			return
		}
		single := make([][]byte, len(stream))
		for i := range stream {
			single[i] = stream[i : i+1]
		}
		for i := range stream {
			parts := [][]byte{stream[:i], stream[i:]}
			if i == 0 {
				parts = single
			}
			r, a, c := b.play(parts...)
			check(r, a, i == len(stream)-1)
			if !bytes.Equal(r, replies) || a != authenticated || c != closed {
				t.Fatalf("%q: split at %d: %q, authenticated %v, closed %v; whole: %q, %v, %v", stream, i, r, a, c, replies, authenticated, closed)
			}
		}
	})
}

// FuzzSASL is FuzzAuth for the binary protocol: without a message of PLAIN that names a user and its password nothing comes through.
func FuzzSASL(f *testing.F) {
	packet := func(op byte, key, value string) string {
		return string([]byte{0x80, op, 0, byte(len(key)), 0, 0, 0, 0, 0, 0, 0, byte(len(key) + len(value)), 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}) + key + value
	}
	for _, seed := range []string{
		packet(0x21, "PLAIN", "\x00b\x002"), packet(0x21, "PLAIN", "\x00b\x003") + packet(0x21, "PLAIN", "\x00b\x002"), packet(0x20, "", "") + packet(0x0b, "", "") + packet(0x0a, "", ""),
		packet(0x21, "PLAIN", "") + packet(0x22, "PLAIN", "\x00b\x002"), packet(0x22, "PLAIN", "\x00b\x002"), packet(0x21, "X", "\x00b\x002"), packet(0x1b, "", "\x00b\x002"),
	} {
		f.Add([]byte(seed))
	}
	name := filepath.Join(f.TempDir(), "users")
	if err := os.WriteFile(name, []byte(fuzzUsers), 0o600); err != nil {
		f.Fatal(err)
	}
	users := NewPasswordDB(name)
	if err := users.Load(); err != nil {
		f.Fatal(err)
	}
	b := newBench(f, hearth.Options{MemoryLimit: 8 << 20}, Options{SASL: users})
	canary := "\x80\x01\x00\x06\x08\x00\x00\x00\x00\x00\x00\x0f" + strings.Repeat("\x00", 20) + "canaryx"
	f.Fuzz(func(t *testing.T, stream []byte) {
		b.t = t
		if len(stream) > 400 {
			return
		}
		stream = append(stream[:len(stream):len(stream)], canary...)
		before := b.cache.Stats()
		mayPass := plainPattern.Match(stream)
		replies, authenticated, closed := b.play(stream)
		check := func(authenticated bool) {
			t.Helper()
			if mayPass {
				return
			}
			if after := b.cache.Stats(); authenticated || after.CmdSet != before.CmdSet || after.TotalItems != before.TotalItems || after.CmdGet != before.CmdGet ||
				after.CmdTouch != before.CmdTouch || after.CmdFlush != before.CmdFlush {
				t.Fatalf("%q: something came through: authenticated %v, %+v", stream, authenticated, after)
			}
		}
		check(authenticated)
		for i := range stream {
			r, a, c := b.play(stream[:i], stream[i:])
			check(a)
			if !mayPass && (!bytes.Equal(r, replies) || a != authenticated || c != closed) {
				t.Fatalf("%q: split at %d: %q, authenticated %v, closed %v; whole: %q, %v, %v", stream, i, r, a, c, replies, authenticated, closed)
			}
		}
	})
}
