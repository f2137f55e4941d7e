// Package netproto turns bytes into requests and appends replies to a buffer, in memcached's words. Every string that goes over the wire
// stands here and nowhere else.
//
// It knows no sockets, no goroutines and no store: Parse reads one command line out of a buffer that the caller filled, and the caller
// reads the data block, asks the cache and appends the reply. So the parser can be fuzzed alone, and the same code serves TCP, unix
// sockets and TLS.
//
// # Invariants
//
// Parse consumes whole command lines only, never a data block: after a storage command its Size bytes and a CRLF follow in the input.
//
// Nothing is allocated, and nothing copied but keys in base64, which are decoded into the Request. All other slices in a Request alias the input and
// live as long as the bytes that were consumed.
//
// A request does not depend on how its bytes arrive: Parse consumes nothing and asks for more until the line is whole. The one exception
// is memcached's own: a line longer than MaxLine is served if its end is in the buffer when it is first looked at, and closes the
// connection otherwise. Only get and gets may grow, up to MaxMultiget.
//
// A line that cannot be served is a VerbBad request, which says everything there is to do about it: bytes to drop, a reply, whether to close.
// So the caller needs no error handling of its own, and the texts stay here.
//
// # The line
//
// Words are separated by single spaces, runs of spaces count as one, and the command stands in column 0. All other bytes, tabs and NULs
// and those from 0x80 on, are ordinary. The line ends in \n, with or without \r before it. From the word maxWords on nothing is seen,
// so a noreply behind it has no effect; the keys of a get are not bounded by this.
//
// # The packet
//
// The binary protocol has a parser of its own, ParseBinary, with the same promises: it takes header, extras and key, a value of Size bytes follows,
// and a packet that cannot be served says what to do about it. Which of the two protocols a connection speaks is the caller's to find out.
package netproto
