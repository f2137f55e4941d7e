package netproto

import "bytes"

// SASL over the binary protocol: a packet whose key names the mechanism and whose value is a message of it. There is one mechanism, PLAIN.

const (
	// BinaryAuthContinue asks for another message, in a step packet.
	BinaryAuthContinue BinaryStatus = 0x21

	SASLMechanisms = "PLAIN"         // the answer to the list of mechanisms
	Authenticated  = "Authenticated" // the body of a success
	// MaxMechanism is the longest name of a mechanism.
	MaxMechanism = 32
)

// AppendText appends a reply whose body is a text, or nothing.
func (id BinaryID) AppendText(dst []byte, st BinaryStatus, text string) []byte {
	return append(id.appendHeader(dst, st, 0, 0, 0, len(text)), text...)
}

// ParsePlain takes a message of PLAIN apart (RFC 4616): whom to act as, the user and the password, with NULs between them. To act as
// somebody else is refused.
func ParsePlain(message []byte) (user, password []byte, ok bool) {
	as, rest, ok := bytes.Cut(message, []byte{0})
	if !ok {
		return nil, nil, false
	}
	user, password, ok = bytes.Cut(rest, []byte{0})
	if !ok || len(user) == 0 || bytes.IndexByte(password, 0) >= 0 || len(as) > 0 && !bytes.Equal(as, user) {
		return nil, nil, false
	}
	return user, password, true
}
