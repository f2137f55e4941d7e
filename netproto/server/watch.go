package server

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto"
)

// maxWatchers is how many connections may watch at a time; memcached's.
const maxWatchers = 20

// watchLog hands log lines to the connections that watch. Who could emit a line looks at mask first, and while nobody watches that is all it costs: each line is
// made in a function of its own behind that look.
//
// mu is taken last, whatever the emitter holds (a worker its section, the keeper its round, an admin command tuneMu), and under it nothing is taken and nobody
// waits: lines are copied into buffers that are there already, or counted. So an emitter never waits for a watcher, and a worker that emits for a watcher of its
// own is no special case: it appends, lets go, and takes the lines out again in that connection's turn. The worker of a watcher is woken under mu too, so that it
// cannot have closed its eventfd: it removes its watchers before it ends.
type watchLog struct {
	mask atomic.Uint32 // netproto.LogKinds that somebody watches; changed under mu

	mu       sync.Mutex
	watchers []*watcher
	gid      uint64 // of the last line
	line     []byte // the line that is being handed out

	written, sent, skipped atomic.Uint64 // lines; each is sent to, or skipped for, every watcher that asked for its kind
}

// watcher is what a connection has that watches. It is guarded by watchLog.mu, but for what never changes.
type watcher struct {
	w       *worker
	kinds   netproto.LogKinds
	buf     []byte // lines that wait to be sent; its capacity is all that there will be
	skipped uint64 // lines that found no room since the last one that did
}

// add makes a watcher; nil: there are enough.
func (s *Server) addWatcher(w *worker, kinds netproto.LogKinds) *watcher {
	l := &s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) == maxWatchers {
		return nil
	}
	wa := &watcher{w: w, kinds: kinds, buf: make([]byte, 0, s.o.WatcherLogSize)}
	l.watchers = append(l.watchers, wa)
	s.retuneLocked()
	return wa
}

func (s *Server) removeWatcher(wa *watcher) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.watchers = slices.DeleteFunc(s.log.watchers, func(other *watcher) bool { return other == wa })
	s.retuneLocked()
}

// retuneLocked sets mask to what is watched, and has the cache tell of its events if any of those are.
func (s *Server) retuneLocked() {
	var kinds netproto.LogKinds
	for _, wa := range s.log.watchers {
		kinds |= wa.kinds
	}
	s.log.mask.Store(uint32(kinds))
	if kinds&(netproto.LogEvictions|netproto.LogSysEvents) != 0 {
		s.cache.Observe(s.observe)
	} else {
		s.cache.Observe(nil)
	}
}

func (l *watchLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers)
}

func (l *watchLog) watched(kinds netproto.LogKinds) bool {
	return netproto.LogKinds(l.mask.Load())&kinds != 0
}

// emit hands a line out to those who watch its kind. body is not kept.
func (l *watchLog) emit(kind netproto.LogKinds, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.watched(kind) { // not any more: then there is no line, and no number for one
		return
	}
	now := time.Now() // under mu, so that the times of the lines rise as their numbers do
	l.gid++
	l.line = append(netproto.AppendLogHead(l.line[:0], now.Unix(), now.Nanosecond()/1000, l.gid), body...)
	l.written.Add(1)
	for _, wa := range l.watchers {
		if wa.kinds&kind == 0 {
			continue
		}
		if !wa.appendLocked(l.line) {
			wa.skipped++
			l.skipped.Add(1)
			continue
		}
		l.sent.Add(1)
	}
}

// appendLocked puts a line into the buffer, behind one about those that were skipped; false: there is no room. The worker is woken by the first line in an empty
// buffer only: it goes on until the buffer is empty again.
func (wa *watcher) appendLocked(line []byte) bool {
	was := len(wa.buf)
	next := wa.buf
	var about [32]byte
	if wa.skipped > 0 {
		gap := netproto.AppendLogSkipped(about[:0], wa.skipped)
		if was+len(gap)+len(line) > cap(next) {
			return false
		}
		next = append(next, gap...)
	} else if was+len(line) > cap(next) {
		return false
	}
	wa.buf, wa.skipped = append(next, line...), 0
	if was == 0 {
		wa.w.logged.Store(true)
		wa.w.wake.up()
	}
	return true
}

// take moves waiting bytes to dst, as many as make a worker flush, and tells whether more wait.
func (l *watchLog) take(wa *watcher, dst []byte) (_ []byte, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(wa.buf), flushAt)
	dst = append(dst, wa.buf[:n]...)
	wa.buf = wa.buf[:copy(wa.buf, wa.buf[n:])]
	if len(wa.buf) == 0 && wa.skipped > 0 {
		dst, wa.skipped = netproto.AppendLogSkipped(dst, wa.skipped), 0
	}
	return dst, len(wa.buf) > 0
}

// startWatch makes c a watcher. From then on it is one-way: what its client sends is read, to see when it goes, and dropped.
func (w *worker) startWatch(c *conn, a *netproto.Admin) (reply string) {
	switch {
	case w.srv.o.DisableWatch:
		return netproto.WatchOff
	case w.o.pending():
		return netproto.WatchPipelined
	case a.Problem != "":
		return a.Problem
	case c.udp != nil:
		return netproto.Error
	case w.req.Noreply: // in memcached it is a wrong word, of which nobody hears
		return ""
	}
	if c.watch = w.srv.addWatcher(w, a.Watch); c.watch == nil {
		return netproto.WatchTooMany
	}
	w.watching = append(w.watching, c)
	return netproto.OK
}

// endWatch forgets c.watch, if there is one.
func (w *worker) endWatch(c *conn) {
	if c.watch != nil {
		w.srv.removeWatcher(c.watch)
		w.watching = slices.DeleteFunc(w.watching, func(other *conn) bool { return other == c })
		c.watch = nil
	}
}

// queueWatchers gives the worker's watchers a turn, if one of them got lines in an empty buffer. logged is cleared before the buffers are looked at: a line that
// comes in between sets it again.
func (w *worker) queueWatchers() {
	if w.logged.Swap(false) {
		for _, c := range w.watching {
			w.queue(c)
		}
	}
}

// turnWatch is the turn of a watcher that has no pending output.
func (w *worker) turnWatch(c *conn, ev uint32) {
	if (ev != 0 || c.hidden()) && !w.stopping {
		if n, errno := w.receive(c, w.inputs[w.buf]); !w.wasRead(c, n, errno) && c.dead {
			c.reason = netproto.LogCloseError // memcached's word for it, also where the client just went
			return
		}
	}
	var more bool
	if w.o.small, more = w.srv.log.take(c.watch, w.o.small); w.flush(c) && more {
		w.queue(c)
	}
}

// seen is what a lookup found that was logged: the zero value if nothing, or if nobody watches.
type seen struct{ class, size int }

// logLookup logs a lookup of key that is about to be made, by looking itself: so the operations need not say what they found, and cost nothing more while nobody
// watches. Another worker may change the item before the operation gets there; then the line tells of the moment before.
func (w *worker) logLookup(key []byte) seen {
	if !w.srv.log.watched(netproto.LogFetchers | netproto.LogDeletions) {
		return seen{}
	}
	found, status := w.look(key)
	w.logGet(key, status, found)
	return found
}

func (w *worker) look(key []byte) (seen, string) {
	switch got := &w.logFetch; {
	case w.s.MetaGet(key, &hearth.GetOptions{Peek: true, Leave: true}, got) == hearth.OK:
		return seen{got.ClassID, got.Len()}, netproto.LogFound
	case got.Expired:
		return seen{}, netproto.LogExpired
	case got.Flushed:
		return seen{}, netproto.LogFlushed
	}
	return seen{}, netproto.LogNotFound
}

func (w *worker) logGet(key []byte, status string, found seen) {
	if w.srv.log.watched(netproto.LogFetchers) {
		var body [netproto.MaxLogLine]byte
		w.srv.log.emit(netproto.LogFetchers, netproto.AppendLogGet(body[:0], key, status, found.class, w.fd, found.size))
	}
}

// logDelete logs that the item that was there is deleted.
func (w *worker) logDelete(key []byte, st hearth.Status, command string, was seen) {
	if st == hearth.OK && was.class != 0 && w.srv.log.watched(netproto.LogDeletions) {
		var body [netproto.MaxLogLine]byte
		w.srv.log.emit(netproto.LogDeletions, netproto.AppendLogDelete(body[:0], key, command, was.class, was.size))
	}
}

func (w *worker) logStore(key []byte, status, command string, exptime uint32, stored seen) {
	if w.srv.log.watched(netproto.LogMutations) {
		var body [netproto.MaxLogLine]byte
		w.srv.log.emit(netproto.LogMutations,
			netproto.AppendLogStore(body[:0], key, status, command, ttl(exptime, w.s.Now(), 0), stored.class, w.fd, stored.size))
	}
}

// ttl is what is left until exptime: stays for an item that has none, -1 when it is over.
func ttl(exptime, now uint32, stays int64) int64 {
	switch {
	case exptime == 0:
		return stays
	case exptime <= now:
		return -1
	}
	return int64(exptime - now)
}

// count is Session.Arith, and logs it. What it makes where there was nothing logs as an add of its own, as in memcached.
func (w *worker) count(key []byte, o *hearth.ArithOptions, it *hearth.Item) (uint64, hearth.Status) {
	w.logLookup(key)
	n, st := w.s.Arith(key, o, it)
	if st == hearth.OK && o.Created && w.srv.log.watched(netproto.LogFetchers|netproto.LogMutations) {
		w.logGet(key, netproto.LogNotFound, seen{})
		w.logStore(key, netproto.LogStored, netproto.LogAdd, it.Exptime, seen{it.ClassID, it.Len()})
	}
	return n, st
}

// logCommands are the commands of the modes.
var logCommands = [...]string{hearth.Set: netproto.LogSet, hearth.Add: netproto.LogAdd, hearth.Replace: netproto.LogReplace, hearth.Append: netproto.LogAppend,
	hearth.Prepend: netproto.LogPrepend, hearth.CAS: netproto.LogCAS}

// prepareLogged is Session.Prepare, and logs why it fails. In memcached the class and connection in that line are wrong, and for a packet it may crash.
func (w *worker) prepareLogged(d *hearth.Draft, mode hearth.Mode, command string, key []byte, flags uint32, exptime int64, size int) hearth.Status {
	if !w.srv.log.watched(netproto.LogFetchers | netproto.LogMutations) {
		return w.s.Prepare(d, mode, key, flags, exptime, size)
	}
	found, was := w.look(key) // a set that fails takes it away
	st := w.s.Prepare(d, mode, key, flags, exptime, size)
	if st == hearth.OK {
		return st
	}
	status := netproto.LogNoMemory
	if st == hearth.TooLarge {
		status = netproto.LogTooLarge
	}
	w.logStore(key, status, command, 0, seen{})
	if mode == hearth.Set {
		w.logGet(key, was, found)
	}
	return st
}

// commit is Session.CommitMeta of the upload's draft, and logs it.
func (w *worker) commit(up *upload, o *hearth.StoreOptions) (uint64, hearth.Status) {
	if !w.srv.log.watched(netproto.LogFetchers | netproto.LogMutations) {
		return w.s.CommitMeta(&up.draft, o)
	}
	it := &w.logFetch.Item
	w.s.View(&up.draft, it)
	key := w.logKey[:copy(w.logKey[:], it.Key)] // the draft may be gone afterwards
	class, exptime := it.ClassID, it.Exptime
	w.logLookup(key)
	cas, st := w.s.CommitMeta(&up.draft, o)
	status := netproto.LogNoMemory
	switch st {
	case hearth.OK:
		status = netproto.LogStored
		if o.ClassID != 0 {
			class, exptime = o.ClassID, o.Exptime
		}
	case hearth.NotStored:
		status = netproto.LogNotStored
	case hearth.Exists:
		status = netproto.LogExists
	case hearth.Miss:
		status = netproto.LogNotFound
	}
	w.logStore(key, status, logCommands[o.Mode], exptime, seen{class, o.Size})
	return cas, st
}

// observe logs what the cache tells of. It runs on whichever thread did it.
func (s *Server) observe(ev *hearth.Event) {
	var body [netproto.MaxLogLine]byte
	switch {
	case ev.Kind == hearth.EventEvicted && s.log.watched(netproto.LogEvictions):
		s.log.emit(netproto.LogEvictions,
			netproto.AppendLogEviction(body[:0], ev.Key, ev.Fetched, ttl(ev.Exptime, s.cache.Now(), -1), int64(ev.Age), ev.Class, ev.Size))
	case ev.Kind == hearth.EventCrawled && s.log.watched(netproto.LogSysEvents):
		s.log.emit(netproto.LogSysEvents, netproto.AppendLogCrawl(body[:0], &netproto.LogCrawl{
			Class: ev.Class, Segment: ev.Segment, LowMark: ev.LowMark, NextReclaims: ev.NextReclaims, SinceRun: ev.SinceRun, NextRun: ev.NextRun,
			Elapsed: ev.Took, Examined: ev.Examined, Reclaimed: ev.Reclaimed,
		}))
	case ev.Kind == hearth.EventMoved && s.log.watched(netproto.LogSysEvents):
		s.log.emit(netproto.LogSysEvents, netproto.AppendLogMove(body[:0], ev.Class, ev.To, !ev.Failed))
	}
}

// logPeer is c's client; one on a unix socket has no address.
func logPeer(c *conn) netproto.LogPeer {
	if !c.peer.IsValid() {
		return netproto.LogPeer{IP: netproto.LogUnix, Transport: netproto.LogLocal, FD: c.fd}
	}
	return netproto.LogPeer{IP: c.peer.Addr().WithZone("").String(), Port: int(c.peer.Port()), Transport: netproto.LogTCP, FD: c.fd}
}

func (s *Server) logConnNew(c *conn) {
	if s.log.watched(netproto.LogConnEvents) {
		peer := logPeer(c)
		s.log.emit(netproto.LogConnEvents, netproto.AppendLogConnNew(nil, &peer))
	}
}

func (s *Server) logConnClose(c *conn, reason string) {
	if c.udp == nil && s.log.watched(netproto.LogConnEvents) {
		peer := logPeer(c)
		s.log.emit(netproto.LogConnEvents, netproto.AppendLogConnClose(nil, &peer, reason))
	}
}

func (s *Server) logConnError(c *conn, errno unix.Errno) {
	if s.log.watched(netproto.LogConnEvents) {
		s.log.emit(netproto.LogConnEvents, netproto.AppendLogConnError(nil, c.fd, sysError{errno}.Error()))
	}
}

func (s *Server) logTLSError(c *conn, err error) {
	if s.log.watched(netproto.LogConnEvents) {
		s.log.emit(netproto.LogConnEvents, netproto.AppendLogTLSError(nil, c.fd, err.Error()))
	}
}

// peerOf is the address of who was accepted; the zero value on a unix socket.
func peerOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
