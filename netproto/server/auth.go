package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hearth/netproto"
)

const (
	// maxUsers is how many lines of an auth file count; those behind are ignored.
	maxUsers = 8
	// maxUserLine is the longest line of an auth file, without its end.
	maxUserLine = 256
	// maxSmallFile bounds what is read of a file of users or certificates, so that a wrong path does not fill the memory.
	maxSmallFile = 1 << 20
	// maxAuthFailures closes a connection that only guesses. memcached lets it guess on.
	maxAuthFailures = 10
)

// AuthFile holds the users who may authenticate (-Y). Load reads them, at the start and again whenever the file has changed; both are safe
// while the server runs. Before the first Load nobody gets in.
type AuthFile struct {
	path  string
	pwdb  bool // of SASL: any number of users, and other lines are passed over
	users atomic.Pointer[[]user]
}

// user is a line of the file, as digests: to compare those takes the same time whatever the lengths are and wherever they differ.
type user struct{ name, password [sha256.Size]byte }

// NewAuthFile returns the auth file at path, not loaded yet.
func NewAuthFile(path string) *AuthFile { return &AuthFile{path: path} }

// NewPasswordDB returns the password file of SASL, not loaded yet. Its lines are those of an auth file, but there may be any number, and those
// that name no user mean nothing, as in a memcached built for such files. That one reads the file for each attempt; this one when told to Load.
func NewPasswordDB(path string) *AuthFile { return &AuthFile{path: path, pwdb: true} }

// Path returns the file's path, "" of no file.
func (f *AuthFile) Path() string {
	if f == nil {
		return ""
	}
	return f.path
}

// Load replaces the users by those in the file. After an error the users are as before. Connections that have authenticated stay so.
func (f *AuthFile) Load() error {
	text, err := readSmallFile(f.path)
	if err != nil {
		//lint:ignore ST1005 memcached's words
		return fmt.Errorf("Could not open authfile [%s] for reading, error %w", f.path, inCWords(err))
	}
	users, ok := parseUsers(text, f.pwdb)
	if !ok {
		//lint:ignore ST1005 memcached's words
		return fmt.Errorf("Authfile [%s] has a malformed entry. Should be 'user:password'", f.path)
	}
	f.users.Store(&users)
	return nil
}

func readSmallFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	switch info, err := file.Stat(); {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, unix.EISDIR
	case info.Size() > maxSmallFile:
		return nil, unix.EFBIG
	}
	return io.ReadAll(io.LimitReader(file, maxSmallFile))
}

// parseUsers reads lines of user:password; the user ends at the first colon. Every line up to the last that counts must be one, so an empty
// line is none either.
func parseUsers(text []byte, pwdb bool) (users []user, ok bool) {
	for len(text) > 0 && (pwdb || len(users) < maxUsers) {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		name, password, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(line) > maxUserLine || bytes.IndexByte(line, 0) >= 0 {
			if pwdb {
				continue
			}
			return nil, false
		}
		users = append(users, user{sha256.Sum256(name), sha256.Sum256(password)})
	}
	return users, true
}

// check tells whether there is such a user. It looks at all of them, whichever it is.
func (f *AuthFile) check(name, password []byte) bool {
	users := f.users.Load()
	if users == nil {
		return false
	}
	asked, found := user{sha256.Sum256(name), sha256.Sum256(password)}, 0
	for i := range *users {
		u := &(*users)[i]
		found |= subtle.ConstantTimeCompare(u.name[:], asked.name[:]) & subtle.ConstantTimeCompare(u.password[:], asked.password[:])
	}
	return found == 1
}

// authState is how far a connection is with its authentication.
type authState struct {
	done     bool // or none is needed
	token    int  // bytes of a token that is being read; 0: a line comes next
	failures int
	sasl     saslState
}

// authenticate serves what comes before authentication, up to one line or token at a time, and returns how much of in that was; 0: more is
// needed. Nothing of it reaches the parser, the cache or the log.
func (w *worker) authenticate(c *conn, in []byte) int {
	if w.srv.o.SASL != nil {
		return w.authenticateBinary(c, in)
	}
	a := &c.auth
	if a.token == 0 {
		line, n := netproto.ParseAuthLine(in)
		switch {
		case n == 0:
		case line.Token > 0:
			a.token = line.Token
		case line.Swallow > 0:
			w.dropBlock(c, line.Swallow, line.Reply)
		default:
			w.o.small = append(w.o.small, line.Reply...)
			c.closing = line.Reply == ""
		}
		return n
	}
	if len(in) < a.token {
		return 0
	}
	token := in[:a.token]
	a.token = 0
	name, password, reply := netproto.ParseAuthToken(token)
	if reply == "" {
		if reply = netproto.AuthFailure; w.srv.o.Auth.check(name, password) {
			reply = netproto.Stored
		}
		w.countAttempt(a, reply == netproto.Stored)
		c.closing = a.failures == maxAuthFailures
	}
	w.o.small = append(w.o.small, reply...)
	return len(token)
}

// countAttempt counts an attempt and keeps its result.
func (w *worker) countAttempt(a *authState, ok bool) {
	w.counters.authCmds.Add(1)
	if a.done = ok; !ok {
		w.counters.authErrors.Add(1)
		a.failures++
		if w.srv.verbosity.Load() >= 1 {
			peer, _ := unix.Getpeername(w.fd)
			w.srv.o.Logger.Warn("server: authentication failed", "client", addrText(netAddr(peer)), "failures", a.failures)
		}
	}
}
