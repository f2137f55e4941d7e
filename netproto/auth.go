package netproto

import "bytes"

// A server with an auth file speaks this much of the text protocol until the client has told who it is: a set, whose key, flags and exptime
// mean nothing and whose value is "user password". Any client library can so authenticate.

const (
	// MaxAuthToken is the longest value of such a set.
	MaxAuthToken = 16 << 10
	// minAuthLine is the shortest line that is answered before authentication, newline included.
	minAuthLine = 6
	// minAuthWords is how many words the line of a set has; more are ignored, a noreply too.
	minAuthWords = 5
)

// AuthLine is a line that was sent before authentication.
type AuthLine struct {
	Token   int    // bytes of the token that follows, its CRLF included; 0: none
	Reply   string // what to answer if there is none; "": close the connection
	Swallow int64  // bytes to drop before Reply is sent
}

// ParseAuthLine reads the line at the start of buf. Its results are those of Parse; nothing but a set is ever accepted.
func ParseAuthLine(buf []byte) (line AuthLine, n int) {
	end := bytes.IndexByte(buf, '\n')
	switch {
	case end < 0 && len(buf) <= MaxLine:
		return AuthLine{}, 0
	case end < 0:
		return AuthLine{}, len(buf)
	case end+1 < minAuthLine:
		return AuthLine{}, end + 1
	}
	n = end + 1
	text := bytes.TrimSuffix(buf[:end], []byte("\r"))
	unauthenticated := AuthLine{Reply: Unauthenticated}
	if !bytes.HasPrefix(text, []byte("set ")) {
		return unauthenticated, n
	}
	var size []byte
	for range minAuthWords {
		size, text = word(text)
	}
	// An empty word is no number, so a line with fewer words fails here too.
	switch length, ok := parseUint(size); {
	case !ok || length > 1<<32-1:
		return unauthenticated, n
	case length > MaxAuthToken:
		return AuthLine{Reply: AuthTokenTooLong, Swallow: int64(length) + 2}, n
	default:
		return AuthLine{Token: int(length) + 2}, n
	}
}

// ParseAuthToken takes a token apart, CRLF included. The words after the password are ignored. A reply that is not empty says what is wrong.
func ParseAuthToken(token []byte) (user, password []byte, reply string) {
	words, ok := bytes.CutSuffix(token, []byte(CRLF))
	if !ok {
		return nil, nil, BadAuthTermination
	}
	user, words = word(words)
	if password, _ = word(words); len(password) == 0 {
		return nil, nil, BadAuthToken
	}
	return user, password, ""
}
