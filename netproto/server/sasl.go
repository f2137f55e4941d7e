package server

import "hearth/netproto"

// saslState is a packet of SASL whose value is being read. authState.token is the value's length.
type saslState struct {
	reading bool
	plain   bool // the mechanism is ours
	begun   bool // the mechanism was chosen without a message, which is to come in a step
	id      netproto.BinaryID
}

// authenticateBinary is authenticate for the binary protocol: nothing is served but what leads to authentication, and version. Anything else
// ends the connection.
func (w *worker) authenticateBinary(c *conn, in []byte) int {
	a := &c.auth
	if a.sasl.reading {
		if len(in) < a.token {
			return 0
		}
		n := a.token
		a.token, a.sasl.reading = 0, false
		w.judgeSASL(c, in[:n])
		return n
	}
	n := netproto.ParseBinary(in, &w.bin)
	switch req := &w.bin; {
	case n == 0:
	case req.Bad && req.Close:
		w.refuseBinary(c)
	case !req.Bad && req.Op == netproto.OpVersion:
		w.o.small = req.AppendVersion(w.o.small, w.srv.o.Version)
	case !req.Bad && isSASL(req.Op):
		w.executeSASL(c)
	default:
		w.binaryError(netproto.BinaryAuth, "")
		c.closing = true
	}
	return n
}

func isSASL(op netproto.Opcode) bool {
	return op == netproto.OpSASLListMechs || op == netproto.OpSASLAuth || op == netproto.OpSASLStep
}

// executeSASL serves w.bin, a packet of SASL, before or after authentication. Who authenticates again has lost what was granted before, also
// when it fails. The value of the packet comes to authenticateBinary.
func (w *worker) executeSASL(c *conn) {
	req, a := &w.bin, &c.auth
	switch {
	case req.Op == netproto.OpSASLListMechs:
		w.o.small = req.AppendText(w.o.small, netproto.BinaryOK, netproto.SASLMechanisms)
		return
	case len(req.Key) > netproto.MaxMechanism || req.Size > netproto.MaxAuthToken:
		w.dropBinary(c, netproto.BinaryInvalid, "")
		return
	}
	a.done, a.token = false, req.Size
	a.sasl.reading, a.sasl.plain, a.sasl.id = true, string(req.Key) == netproto.SASLMechanisms, req.BinaryID
	if req.Size == 0 { // serve does not look at empty input
		a.sasl.reading = false
		w.judgeSASL(c, nil)
	}
}

// judgeSASL answers a packet of SASL whose value is there.
func (w *worker) judgeSASL(c *conn, message []byte) {
	a := &c.auth
	s := &a.sasl
	begun, first := s.begun, s.id.Opcode == netproto.OpSASLAuth
	s.begun = false
	if first && s.plain && len(message) == 0 {
		s.begun = true
		w.o.small = s.id.AppendText(w.o.small, netproto.BinaryAuthContinue, "")
		return
	}
	name, password, ok := netproto.ParsePlain(message)
	ok = ok && s.plain && (first || begun) && w.srv.o.SASL.check(name, password)
	if w.countAttempt(a, ok); ok {
		w.o.small = s.id.AppendText(w.o.small, netproto.BinaryOK, netproto.Authenticated)
		return
	}
	w.o.small = s.id.AppendError(w.o.small, netproto.BinaryAuth, "")
	c.closing = a.failures == maxAuthFailures
}
