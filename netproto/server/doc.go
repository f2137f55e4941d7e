// Package server serves the protocol of netproto from a hearth.Cache over sockets: listeners, workers, connections, and the one switch from
// verb to cache call to reply (execute.go). It does not know how items are kept, and it writes no wire text of its own.
//
// # Who runs
//
// One acceptor waits on the listeners and hands new connections to the workers round robin. Each of the -t workers owns an epoll instance,
// a session of the cache and its connections, on an OS thread of its own; nothing of a connection is touched by any other thread, apart
// from what `stats conns` shows and the buffer of a watcher. A worker's iteration is: wait, open a section of the session, give each connection that has something to
// do one turn, close the section; which, after some stores, is closed and opened anew between two turns, too. So a reply may point into the cache's
// memory until the end of the turn.
//
// # One turn
//
// A turn is at most one read, the requests in it, and one write:
//
//	pending output? ── write it; still some left: the turn ends here, the connection waits for EPOLLOUT and is not read
//	readable?       ── read once, up to inputSize; a read that was not full has emptied the socket, so nobody reads for EAGAIN; see conn.awaits
//	input           ── data block, or Parse and execute, until it is used up, -R requests are served, or the output does not go out
//	output          ── write once; what does not fit the socket becomes pending output
//
// Where there is no epoll, poll stands behind the same few functions, and ordinary system calls: see sys_other.go.
//
// A connection that stops at -R with input left goes to the ready list: the next iteration serves it without waiting for epoll, after
// everybody else had a turn.
//
// # Where bytes wait, and how much
//
//   - Input: in the worker's buffer during the turn. What is left over (part of a line, or requests behind -R) moves to a buffer of the
//     connection, small if possible; an idle connection has none. Only the line of a get may outgrow inputSize, up to netproto.MaxMultiget, and the
//     token of an authentication, up to netproto.MaxAuthToken; what all connections have beyond inputSize shares longLinesMost.
//   - Data blocks: go straight into the draft. Behind the first read of a line, readv fills the draft's memory and then the input buffer. Blocks that
//     nobody wants are dropped as they come.
//   - Output: in the worker's buffer during the turn; it is written early when it passes flushAt. Values up to copyMax are copied into it, a
//     larger one is sent by writev from where it lies.
//   - Pending output: small bytes are copied to the connection, a large value is pinned. There is at most one of each, because a connection with
//     pending output is neither read nor served: a client that does not read costs one output buffer and one pin, whatever it asked for. A get
//     in the middle keeps its place in the line.
//   - Log lines: in a buffer of the watcher, of a fixed size.
//
// # Who watches
//
// watch makes a connection one-way: log lines go out on it, what its client sends is dropped. Whoever has a line to log looks at one word (watchLog.mask), makes
// the line if somebody watches its kind, and copies it into each watcher's buffer, or counts it skipped: nobody waits for a watcher. A watcher's worker takes
// the lines out in the connection's turn, as much as makes it flush at a time. See watchLog for the lock.
//
// What waits in the cache's memory for clients, drafts and pinned items that are dead, is bounded by half of the memory limit: see waiting.go.
//
// # Who may
//
// With an auth file (-Y) or SASL (-S) a connection starts in authenticate: its input goes there and nowhere else until auth.done is set, which
// only countAttempt does. UDP has no connection to remember that, so the two exclude each other.
//
// # TLS
//
// With -Z the acceptor gives a connection to a goroutine for its handshake (tls.go), where Go's poller waits for the client, up to
// handshakeTimeout; few of them compute at a time, and a stop ends them all. Afterwards it belongs to a worker like any other (tls_conn.go): receive
// and send go through crypto/tls, and nothing else knows of it. What is different:
//
//   - crypto/tls may hold input that epoll knows nothing of. conn.hidden says so, and the connection stays in the ready list until a read has found
//     nothing more.
//   - Ciphertext waits in tlsConn.sealed, at most tlsTurn of it and the alerts; it is pending output as well, and counts as such in conn.pending.
//   - A large value is encrypted piece by piece from where it lies, as far as the socket takes it.
//   - Requests allocate what crypto/tls allocates.
//
// Load changes what new connections get. No session is resumed under another configuration than its own.
//
// # Invariants
//
// A connection speaks one protocol all its life, by the flag or by its first byte. Text requests go through execute.go, packets of the binary
// protocol through execute_binary.go; uploads, large values and stats are the same code for both.
//
// Replies go out in the order of the requests. A draft belongs to the connection that uploads it and ends in Commit or Discard, also
// when the connection dies: a short value is never stored. Every pin is undone once. No request allocates.
//
// A fault in the cache's memory, as SIGBUS, in the cache's background work too, or as EFAULT from a system call, ends Serve with a FaultError at once: see there.
package server
