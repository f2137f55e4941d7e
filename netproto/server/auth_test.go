package server_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hearth/netproto/server"
)

const users = "alice:secret\nbob:s:2\r\nlast:x"

// authFile writes a file of users and loads it.
func authFile(t testing.TB, text string, newFile func(string) *server.AuthFile) *server.AuthFile {
	t.Helper()
	f := newFile(filepath.Join(t.TempDir(), "users"))
	writeUsers(t, f, text)
	if err := f.Load(); err != nil {
		t.Fatal(err)
	}
	return f
}

// writeUsers replaces the file in one step, so that no reload sees half of it.
func writeUsers(t testing.TB, f *server.AuthFile, text string) {
	t.Helper()
	tmp := f.Path() + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, f.Path()); err != nil {
		t.Fatal(err)
	}
}

func withUsers(t testing.TB, text string) func(*setup) {
	f := authFile(t, text, server.NewAuthFile)
	return func(o *setup) { o.server.Auth = f }
}

// token is the set that authenticates.
func token(text string) string { return fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", len(text), text) }

const (
	unauthenticated = "CLIENT_ERROR unauthenticated\r\n"
	authFailure     = "CLIENT_ERROR authentication failure\r\n"
	badToken        = "CLIENT_ERROR bad authentication token format\r\n"
	badTermination  = "CLIENT_ERROR bad command line termination\r\n"
	tokenTooLong    = "CLIENT_ERROR auth token too long\r\n"
	stored          = "STORED\r\n"
	version         = "VERSION " + server.DefaultVersion + "\r\n"
)

// authTable is what is sent on a new connection and what comes back. Debian's memcached gives the same replies, apart from the rows that are
// newer: 1.6.18 takes a first line of any length, leading blanks and tokens of any size, and cuts words from a pipelined reply.
var authTable = []struct {
	send, reply string
	closes      bool
	newer       bool
}{
	{send: "get a\r\n", reply: unauthenticated},
	{send: "version\r\n", reply: unauthenticated},
	{send: "stats\r\n", reply: unauthenticated},
	{send: "flush_all\r\n", reply: unauthenticated},
	{send: "quit\r\n", reply: unauthenticated},
	{send: "shutdown\r\n", reply: unauthenticated},
	{send: "mg a v\r\n", reply: unauthenticated},
	{send: "ms a 1\r\n", reply: unauthenticated},
	{send: "add a 0 0 12\r\n", reply: unauthenticated},
	{send: "SET a 0 0 12\r\n", reply: unauthenticated},
	{send: "settings\r\n", reply: unauthenticated},
	{send: "abcde\n", reply: unauthenticated},
	{send: "set a 0 0\r\n", reply: unauthenticated},
	{send: "set a 0 0 -1\r\n", reply: unauthenticated},
	{send: "set a 0 0 12x\r\n", reply: unauthenticated},
	{send: "set a 0 0 99999999999999999999\r\n", reply: unauthenticated},
	{send: " set a 0 0 12\r\n", reply: unauthenticated, newer: true},
	{send: "mn\r\n", closes: true, newer: true},
	{send: "\r\n", closes: true, newer: true},
	{send: "abcd\n", closes: true, newer: true},
	{send: strings.Repeat("x", 2049), closes: true},
	{send: strings.Repeat("x", 2100) + "\n", reply: unauthenticated},
	{send: "\x80\x0b" + strings.Repeat("\x00", 22) + "\n", reply: unauthenticated},
	{send: token("alice secret") + "version\r\n", reply: stored + version, newer: true},
	{send: token("bob s:2"), reply: stored},
	{send: token("last x"), reply: stored},
	{send: token(" alice  secret"), reply: stored},
	{send: token("alice secret more"), reply: stored},
	{send: "set a x y 12\nalice secret\r\n", reply: stored},
	{send: "set a 0 0 12 noreply\r\nalice secret\r\n", reply: stored},
	{send: "set " + strings.Repeat("k", 300) + " 0 0 12\r\nalice secret\r\n", reply: stored},
	{send: token("alice bad"), reply: authFailure},
	{send: token("alice secre"), reply: authFailure},
	{send: token("alice secrets"), reply: authFailure},
	{send: token("alic secret"), reply: authFailure},
	{send: token("bob s"), reply: authFailure},
	{send: token("alice:secret x"), reply: authFailure},
	{send: token("alice"), reply: badToken},
	{send: token("alice "), reply: badToken},
	{send: token(""), reply: badToken},
	{send: "set k 0 0 12\r\nalice secretxx", reply: badTermination},
	{send: "set k 0 0 11\r\nalice secret\r\n", reply: badTermination, closes: true, newer: true}, // what is left is a line too short
	{send: token(strings.Repeat("x", 16384)), reply: badToken, newer: true},
	{send: "set k 0 0 16385\r\n" + strings.Repeat("x", 16387), reply: tokenTooLong, newer: true},
	{send: strings.Repeat(token("alice bad"), 10), reply: strings.Repeat(authFailure, 10), closes: true, newer: true},
	{send: "get a\r\n" + token("alice bad") + "set elsewhere 0 0 1\r\nx\r\n" + token("bob s:2") + "get elsewhere\r\n",
		reply: unauthenticated + authFailure + badToken + stored + "END\r\n", newer: true},
}

func TestOnlyAnAuthenticatingSetIsAnsweredBeforeAuthentication(t *testing.T) {
	oracle := ""
	for _, begin := range []func() string{
		func() string { return startServer(t, withUsers(t, users)) },
		func() string {
			return startServer(t, withUsers(t, users), func(o *setup) { o.server.UnixSocket = t.TempDir() + "/s" })
		},
		func() string {
			oracle = startMemcached(t, "-Y", authFile(t, users, server.NewAuthFile).Path())
			return oracle
		},
	} {
		addr := begin()
		if addr == "" {
			continue // no memcached here
		}
		for _, row := range authTable {
			if addr == oracle && row.newer {
				continue
			}
			t.Logf("%s: %q", addr, clip(row.send)) // the last one is the one that failed
			c := dial(t, addr)
			c.send("%s", row.send)
			c.want(row.reply)
			if row.closes {
				c.wantEOF()
			} else if c.ask(token("alice secret"), stored); c.r.Buffered() > 0 { // a connection that answers is open, and all that came was wanted
				t.Errorf("%s: %q: more than %q", addr, clip(row.send), row.reply)
			}
			c.Close()
		}
	}
}

func TestAuthenticationIsCountedAndShown(t *testing.T) {
	f := authFile(t, users, server.NewAuthFile)
	c := dial(t, startServer(t, func(o *setup) { o.server.Auth = f }))
	c.ask("get a\r\n", unauthenticated)
	c.ask(token("alice bad"), authFailure)
	c.ask(token("alice"), badToken)
	c.ask(token("alice secret"), stored)
	c.ask(token("alice secret")+"get k\r\n", "STORED\r\nVALUE k 0 12\r\nalice secret\r\nEND\r\n") // an ordinary set by now
	if cmds, errs := c.stat("auth_cmds"), c.stat("auth_errors"); cmds != 2 || errs != 1 {
		t.Errorf("auth_cmds %d, auth_errors %d, want 2 and 1", cmds, errs)
	}
	s := c.stats(" settings")
	if s["auth_enabled_ascii"] != f.Path() || s["auth_enabled_sasl"] != "no" || s["binding_protocol"] != "ascii" {
		t.Errorf("auth_enabled_ascii %s, auth_enabled_sasl %s, binding_protocol %s", s["auth_enabled_ascii"], s["auth_enabled_sasl"], s["binding_protocol"])
	}
	c.ask("stats reset\r\n", "RESET\r\n")
	if n := c.stat("auth_cmds"); n != 0 {
		t.Errorf("auth_cmds %d after stats reset", n)
	}
}

func TestAuthFileIsReadAsMemcachedReadsIt(t *testing.T) {
	const bad = "has a malformed entry. Should be 'user:password'"
	long := strings.Repeat("p", 256-len("u:"))
	for _, row := range []struct{ text, user, password, err string }{
		{text: "", user: "a", password: "b"},
		{text: "a:b", user: "a", password: "b"},
		{text: "a:b\r\nc:d\r\n", user: "c", password: "d"},
		{text: "a:b:c\n", user: "a", password: "b:c"},
		{text: "u:" + long, user: "u", password: long},
		{text: "1:p\n2:p\n3:p\n4:p\n5:p\n6:p\n7:p\n8:p\n9:p\nnonsense\n", user: "8", password: "p"},
		{text: "1:p\n2:p\n3:p\n4:p\n5:p\n6:p\n7:p\n8:p\n9:p\nnonsense\n", user: "9", password: "-"},
		{text: "u:" + long + "p", err: bad},
		{text: "\n", err: bad},
		{text: "a\n", err: bad},
		{text: "a:b\n\nc:d\n", err: bad},
		{text: "a:b\nc", err: bad},
		{text: "a\x00:b\n", err: bad},
	} {
		f := server.NewAuthFile(filepath.Join(t.TempDir(), "users"))
		writeUsers(t, f, row.text)
		err := f.Load()
		if row.err != "" {
			if err == nil || !strings.Contains(err.Error(), row.err) {
				t.Errorf("%q: %v, want %s", row.text, err, row.err)
			}
			continue
		}
		want := row.text != "" && row.password != "-"
		if err != nil || f.Check(row.user, row.password) != want {
			t.Errorf("%q: %v; %s gets in: %v, want %v", row.text, err, row.user, !want, want)
		}
	}
}

// TestReloadUnderLoadDropsNobodyAndTakesEffect has the file change between two sets of users, and to nonsense, while clients log in and work.
func TestReloadUnderLoadDropsNobodyAndTakesEffect(t *testing.T) {
	f := authFile(t, "always:a\nodd:o\n", server.NewAuthFile)
	addr := startServer(t, func(o *setup) { o.server.Auth = f })
	var stop atomic.Bool
	var works, logins [4]atomic.Int64
	var wg sync.WaitGroup
	for i := range works {
		wg.Go(func() { // one connection for all the time
			c := dial(t, addr)
			c.ask(token("always a"), stored)
			for n := 0; !stop.Load(); n++ {
				c.ask(fmt.Sprintf("set %d 0 0 1\r\nx\r\nget %d\r\n", i, i), fmt.Sprintf("STORED\r\nVALUE %d 0 1\r\nx\r\nEND\r\n", i))
				works[i].Add(1)
			}
		})
		wg.Go(func() { // many of them
			for !stop.Load() {
				c := dial(t, addr)
				c.ask(token("nobody a"), authFailure)
				c.send("%s", token("odd o"))
				if reply := c.line() + "\r\n"; reply == authFailure {
					c.ask(token("always a")+"get none\r\n", stored+"END\r\n")
				} else if reply != stored {
					t.Errorf("login: %q", reply)
				}
				c.Close()
				logins[i].Add(1)
			}
		})
	}
	reloads := 0
	busy := func() bool {
		for i := range works {
			if works[i].Load() < 100 || logins[i].Load() < 20 {
				return false
			}
		}
		return true
	}
	for ; reloads < 300 || !busy(); reloads++ {
		switch reloads % 3 {
		case 0:
			writeUsers(t, f, "always:a\n")
		case 1:
			writeUsers(t, f, "odd:o\nalways:a\n")
		case 2:
			writeUsers(t, f, "always:\n\n")
		}
		if err := f.Load(); (err != nil) != (reloads%3 == 2) {
			t.Errorf("reload %d: %v", reloads, err)
		}
	}
	stop.Store(true)
	wg.Wait()
	writeUsers(t, f, "always:a\n")
	if err := f.Load(); err != nil {
		t.Fatal(err)
	}
	dial(t, addr).ask(token("odd o"), authFailure)
}

// rawPacket is a binary request without extras.
func rawPacket(op byte, key, value string) string {
	h := make([]byte, 24)
	h[0], h[1] = 0x80, op
	binary.BigEndian.PutUint16(h[2:], uint16(len(key)))
	binary.BigEndian.PutUint32(h[8:], uint32(len(key)+len(value)))
	copy(h[12:], "opaq")
	return string(h) + key + value
}

// rawReply is the reply to it.
func rawReply(op byte, status uint16, body string) string {
	h := make([]byte, 24)
	h[0], h[1] = 0x81, op
	binary.BigEndian.PutUint16(h[6:], status)
	binary.BigEndian.PutUint32(h[8:], uint32(len(body)))
	copy(h[12:], "opaq")
	return string(h) + body
}

func TestSASLAdmitsNothingButItselfAndVersionBeforeIt(t *testing.T) {
	const (
		noop, vers, stat, list, auth, step = 0x0a, 0x0b, 0x10, 0x20, 0x21, 0x22
		plain                              = "\x00alice\x00secret"
	)
	set := "\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0aopaq" + strings.Repeat("\x00", 8) + strings.Repeat("\x00", 8) + "kv"
	ok, no, end := rawReply(auth, 0, "Authenticated"), rawReply(auth, 0x20, "Auth failure."), rawReply(noop, 0, "")
	f := authFile(t, users+"\n\nno user\nninth:9\n", server.NewPasswordDB)
	r := start(t, func(o *setup) { o.server.SASL = f })
	rows := []struct {
		send, reply string
		closes      bool
	}{
		{send: rawPacket(list, "", ""), reply: rawReply(list, 0, "PLAIN")},
		{send: rawPacket(vers, "", ""), reply: rawReply(vers, 0, server.DefaultVersion)},
		{send: rawPacket(noop, "", ""), reply: rawReply(noop, 0x20, "Auth failure."), closes: true},
		{send: rawPacket(0x00, "k", ""), reply: rawReply(0x00, 0x20, "Auth failure."), closes: true},
		{send: rawPacket(stat, "", ""), reply: rawReply(stat, 0x20, "Auth failure."), closes: true},
		{send: rawPacket(0x1b, "", "1234"), reply: rawReply(0x1b, 0x20, "Auth failure."), closes: true},
		{send: rawPacket(0xff, "", ""), reply: rawReply(0xff, 0x20, "Auth failure."), closes: true},
		{send: set + rawPacket(auth, "PLAIN", plain), reply: rawReply(0x01, 0x20, "Auth failure."), closes: true},
		{send: "version\r\n" + strings.Repeat("x", 24), closes: true},
		{send: rawPacket(auth, "PLAIN", plain) + rawPacket(noop, "", ""), reply: ok + end},
		{send: rawPacket(auth, "PLAIN", "alice\x00alice\x00secret") + rawPacket(noop, "", ""), reply: ok + end},
		{send: rawPacket(auth, "PLAIN", "\x00ninth\x009"), reply: ok},
		{send: rawPacket(auth, "PLAIN", "\x00alice\x00bad") + rawPacket(auth, "PLAIN", plain), reply: no + ok},
		{send: rawPacket(auth, "PLAIN", "\x00alice\x00bad") + rawPacket(noop, "", ""), reply: no + rawReply(noop, 0x20, "Auth failure."), closes: true},
		{send: rawPacket(auth, "PLAIN", "bob\x00alice\x00secret"), reply: no},
		{send: rawPacket(auth, "PLAIN", "\x00alice\x00secret\x00"), reply: no},
		{send: rawPacket(auth, "PLAIN", "alice secret"), reply: no},
		{send: rawPacket(auth, "PLAIN", "\x00\x00"), reply: no},
		{send: rawPacket(auth, "CRAM-MD5", plain), reply: no},
		{send: rawPacket(auth, "plain", plain), reply: no},
		{send: rawPacket(auth, strings.Repeat("m", 33), plain), reply: rawReply(auth, 0x04, "Invalid arguments")},
		{send: rawPacket(auth, "PLAIN", strings.Repeat("x", 16385)), reply: rawReply(auth, 0x04, "Invalid arguments")},
		{send: rawPacket(auth, "PLAIN", "") + rawPacket(step, "PLAIN", plain) + rawPacket(noop, "", ""),
			reply: rawReply(auth, 0x21, "") + rawReply(step, 0, "Authenticated") + end},
		{send: rawPacket(step, "PLAIN", plain), reply: rawReply(step, 0x20, "Auth failure.")},
		{send: rawPacket(auth, "PLAIN", "") + rawPacket(step, "PLAIN", "x") + rawPacket(step, "PLAIN", plain),
			reply: rawReply(auth, 0x21, "") + strings.Repeat(rawReply(step, 0x20, "Auth failure."), 2)},
		{send: rawPacket(auth, "PLAIN", plain) + rawPacket(auth, "PLAIN", "x") + rawPacket(noop, "", ""), // who fails again is out
			reply: ok + no + rawReply(noop, 0x20, "Auth failure."), closes: true},
		{send: strings.Repeat(rawPacket(auth, "PLAIN", "x"), 10) + rawPacket(auth, "PLAIN", plain), reply: strings.Repeat(no, 10), closes: true},
	}
	for _, row := range rows {
		c := dial(t, r.addr)
		c.send("%s", row.send)
		c.want(row.reply)
		if row.closes {
			c.wantEOF()
		} else {
			c.ask(rawPacket(list, "", ""), rawReply(list, 0, "PLAIN"))
		}
		c.Close()
	}
	if n := r.cache.Stats().CmdSet; n != 0 {
		t.Errorf("%d sets came through", n)
	}
}

func TestSASLIsUnknownWithoutIt(t *testing.T) {
	c := dial(t, startServer(t))
	for op := byte(0x21); op <= 0x22; op++ {
		c.ask(rawPacket(op, "PLAIN", "\x00a\x00b"), rawReply(op, 0x81, "Unknown command"))
	}
	c.ask(rawPacket(0x20, "", ""), rawReply(0x20, 0x81, "Unknown command"))
}

// TestTokensAreNotLogged: request lines are, at this verbosity.
func TestTokensAreNotLogged(t *testing.T) {
	var log safeBuffer
	c := dial(t, startServer(t, withUsers(t, users), func(o *setup) {
		o.server.Verbosity, o.server.Logger = 3, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}))
	c.ask(token("alice wrong"), authFailure)
	c.ask(token("alice secret"), stored)
	c.ask("get logged\r\n", "END\r\n")
	if text := log.String(); !strings.Contains(text, "get logged") || strings.Contains(text, "secret") || strings.Contains(text, "wrong") {
		t.Errorf("logged:\n%s", text)
	}
}

// safeBuffer is a buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
