package server_test

import (
	"os"
	"strings"
	"testing"

	"hearth/netproto/server"
)

// talkRow is one claim about what a new connection hears.
type talkRow struct {
	name, send, reply string
	rest, restReply   string // what is sent then, and the reply to that
	closes            bool
	but               string // why memcached 1.6.18 is not asked: it answers otherwise, or not at all
}

// runTalks checks rows against addrs, ours first. A connection that does not close is asked for probe, and must have sent nothing before that.
func runTalks(t *testing.T, rows []talkRow, addrs []string, probe, answer string) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for i, addr := range addrs {
				if i > 0 && r.but != "" {
					continue
				}
				c := dial(t, addr)
				c.send("%s", r.send)
				c.want(r.reply)
				if r.rest != "" {
					c.ask(r.rest, r.restReply)
				}
				if r.closes {
					c.wantEOF()
				} else {
					c.ask(probe, answer)
				}
			}
		})
	}
}

func TestAuthFile(t *testing.T) {
	const user = "alice secret"
	f := authFile(t, users, server.NewAuthFile)
	addrs := both(t, func(o *setup) { o.server.Auth = f }, "-Y", f.Path())
	runTalks(t, []talkRow{
		{name: "a set with user and password authenticates", send: token(user), reply: stored},
		{name: "key flags and exptime of that set do not matter", send: "set whatever 7 99 12\r\nalice secret\r\n", reply: stored},
		{name: "afterwards commands are served", send: token(user) + "get a\r\n", reply: stored + "END\r\n", but: "1.6.18 cuts words from a pipelined reply"},
		{name: "the last line of the file needs no newline", send: token("last x"), reply: stored},
		{name: "a password may have a colon", send: token("bob s:2"), reply: stored},
		{name: "any other command is unauthenticated", send: "get a\r\n", reply: unauthenticated},
		{name: "version is unauthenticated", send: "version\r\n", reply: unauthenticated},
		{name: "a meta command is unauthenticated", send: "mg a v\r\n", reply: unauthenticated},
		{name: "add is unauthenticated", send: "add a 0 0 12\r\n", reply: unauthenticated},
		{name: "a wrong password is a failure", send: token("alice wrong"), reply: authFailure},
		{name: "an unknown user is a failure", send: token("nobody secret"), reply: authFailure},
		{name: "a token without a blank is bad", send: token("alice"), reply: badToken},
		{name: "a token of more than 16384 bytes is too long", send: "set a 0 0 16385\r\n" + strings.Repeat("x", 16387), reply: tokenTooLong, but: "1.6.18 takes it"},
		{name: "a token must end in a line end", send: "set a 0 0 12\r\nalice secretxx", reply: badTermination},
		{name: "a first line below six bytes closes", send: "mn\r\n", closes: true, but: "1.6.18 answers it"},
		{name: "2 KiB without a newline close", send: strings.Repeat("x", 2049), closes: true},
		{name: "a packet is a line", send: "\x80\x0b" + strings.Repeat("\x00", 22) + "\n", reply: unauthenticated},
		{name: "ten wrong passwords close", send: strings.Repeat(token("alice wrong"), 10), reply: strings.Repeat(authFailure, 10), closes: true, but: "memcached has no limit"},
	}, addrs, token(user), stored)

	t.Run("is per connection", func(t *testing.T) {
		for _, addr := range addrs {
			dial(t, addr).ask(token(user), stored)
			dial(t, addr).ask("get a\r\n", unauthenticated)
		}
	})
	t.Run("a unix socket is no exception", func(t *testing.T) {
		path := t.TempDir() + "/s"
		dial(t, startServer(t, func(o *setup) { o.server.Auth, o.server.UnixSocket = f, path })).ask("get a\r\n", unauthenticated)
	})
	t.Run("eight entries count", func(t *testing.T) {
		many := authFile(t, "1:p\n2:p\n3:p\n4:p\n5:p\n6:p\n7:p\n8:p\n9:p\nno entry\n", server.NewAuthFile)
		for _, addr := range both(t, func(o *setup) { o.server.Auth = many }, "-Y", many.Path()) {
			dial(t, addr).ask(token("8 p"), stored)
			dial(t, addr).ask(token("9 p"), authFailure)
		}
	})
	t.Run("a malformed line is refused by name", func(t *testing.T) {
		bad := authFile(t, users, server.NewAuthFile)
		writeUsers(t, bad, "alice\n")
		if err := bad.Load(); err == nil || !strings.Contains(err.Error(), "has a malformed entry. Should be 'user:password'") {
			t.Errorf("load: %v", err)
		}
		if !bad.Check("alice", "secret") {
			t.Error("a bad file replaced the users")
		}
	})
	t.Run("a line has 256 bytes at most", func(t *testing.T) {
		long := strings.Repeat("p", 254)
		if err := os.WriteFile(f.Path()+".long", []byte("u:"+long+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		file := server.NewAuthFile(f.Path() + ".long")
		if err := file.Load(); err != nil || !file.Check("u", long) {
			t.Errorf("256 bytes: %v", err)
		}
		writeUsers(t, file, "u:"+long+"p\n")
		if file.Load() == nil {
			t.Error("257 bytes are taken")
		}
	})
	t.Run("auth_cmds counts attempts and auth_errors failures", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.server.Auth = f }, "-Y", f.Path()) {
			c := dial(t, addr)
			c.ask(token("alice wrong"), authFailure)
			c.ask(token(user), stored)
			if cmds, errs := c.stat("auth_cmds"), c.stat("auth_errors"); cmds != 2 || errs != 1 {
				t.Errorf("%s: auth_cmds %d, auth_errors %d; want 2 and 1", addr, cmds, errs)
			}
		}
	})
}

func TestSASL(t *testing.T) {
	const noop, vers, list, auth, step = 0x0a, 0x0b, 0x20, 0x21, 0x22
	const plain, fails = "\x00alice\x00secret", "Auth failure."
	f := authFile(t, users, server.NewPasswordDB)
	addr := startServer(t, func(o *setup) { o.server.SASL = f })
	ok := rawReply(auth, 0, "Authenticated")
	runTalks(t, []talkRow{
		{name: "LIST_MECHS", send: rawPacket(list, "", ""), reply: rawReply(list, 0, "PLAIN")},
		{name: "VERSION is served before", send: rawPacket(vers, "", ""), reply: rawReply(vers, 0, server.DefaultVersion)},
		{name: "AUTH admits", send: rawPacket(auth, "PLAIN", plain) + rawPacket(noop, "", ""), reply: ok + rawReply(noop, 0, "")},
		{name: "AUTH with a wrong password", send: rawPacket(auth, "PLAIN", "\x00alice\x00wrong"), reply: rawReply(auth, 0x20, fails)},
		{name: "AUTH in two steps", send: rawPacket(auth, "PLAIN", "") + rawPacket(step, "PLAIN", plain), reply: rawReply(auth, 0x21, "") + rawReply(step, 0, "Authenticated")},
		{name: "a mechanism name of more than 32 bytes is invalid", send: rawPacket(auth, strings.Repeat("m", 33), plain), reply: rawReply(auth, 0x04, "Invalid arguments")},
		{name: "anything else before is refused and closes", send: rawPacket(noop, "", ""), reply: rawReply(noop, 0x20, fails), closes: true},
		{name: "GET before is refused and closes", send: rawPacket(0x00, "k", ""), reply: rawReply(0x00, 0x20, fails), closes: true},
		{name: "an unknown opcode before is refused and closes", send: rawPacket(0x30, "", ""), reply: rawReply(0x30, 0x20, fails), closes: true},
		{name: "a text line closes", send: "get a\r\n" + strings.Repeat("x", 24), closes: true},
	}, []string{addr}, rawPacket(list, "", ""), rawReply(list, 0, "PLAIN"))
}
