package netproto

import (
	"strconv"
)

// LogKinds is a set of kinds of log lines, which clients ask for by watch.
type LogKinds uint32

const (
	LogFetchers LogKinds = 1 << iota
	LogMutations
	LogEvictions
	LogConnEvents
	LogSysEvents
	LogDeletions
)

// logKinds are the words of watch. For the last four, as in memcached without its proxy, there are no lines.
var logKinds = map[string]LogKinds{
	"fetchers": LogFetchers, "mutations": LogMutations, "evictions": LogEvictions, "connevents": LogConnEvents, "sysevents": LogSysEvents,
	"deletions": LogDeletions, "rawcmds": 0, "proxyreqs": 0, "proxyevents": 0, "proxyuser": 0,
}

// watch reads the kinds, fetchers if there are none. A wrong one is only said to those who may watch at all.
func (r *Request) watch(line []byte) {
	args, _ := r.admin(line, 0)
	if len(args) == 0 {
		r.Admin.Watch = LogFetchers
	}
	for _, arg := range args {
		kind, ok := logKinds[string(arg)]
		if !ok {
			r.Admin.Problem = Error
		}
		r.Admin.Watch |= kind
	}
	r.do(AdminWatch)
}

// Outcomes of a lookup in AppendLogGet, and those of a store in AppendLogStore.
const (
	LogNotFound  = "not_found"
	LogFound     = "found"
	LogFlushed   = "flushed"
	LogExpired   = "expired"
	LogNotStored = "not_stored"
	LogStored    = "stored"
	LogExists    = "exists"
	LogTooLarge  = "too_large"
	LogNoMemory  = "no_memory"
)

// Commands in AppendLogStore and AppendLogDelete.
const (
	LogNoCommand  = "null" // of a packet whose value was refused
	LogSet        = "set"
	LogAdd        = "add"
	LogReplace    = "replace"
	LogAppend     = "append"
	LogPrepend    = "prepend"
	LogCAS        = "cas"
	LogDelete     = "delete"
	LogMetaDelete = "md"
)

// Reasons in AppendLogConnClose.
const (
	LogCloseError    = "error"
	LogCloseNormal   = "normal"
	LogCloseIdle     = "idle_timeout"
	LogCloseShutdown = "shutdown"
)

// MaxLogLine is the longest body of a log line: a key of MaxKey bytes, each of which takes three, and what stands around it.
const MaxLogLine = 3*MaxKey + 250

// AppendLogHead appends how each log line begins; its body follows. The microseconds are not padded, as in memcached: ts is no decimal fraction.
func AppendLogHead(dst []byte, seconds int64, micros int, id uint64) []byte {
	dst = strconv.AppendInt(append(dst, "ts="...), seconds, 10)
	dst = strconv.AppendInt(append(dst, '.'), int64(micros), 10)
	dst = strconv.AppendUint(append(dst, " gid="...), id, 10)
	return append(dst, ' ')
}

// logInt appends a name, an equals sign and a number.
func logInt(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(append(dst, name...), '='), n, 10)
}

func logKey(dst []byte, line string, key []byte) []byte {
	return appendURI(append(append(append(dst, "type="...), line...), " key="...), key)
}

// AppendLogGet appends the body of a line about a lookup.
func AppendLogGet(dst, key []byte, status string, class, fd, size int) []byte {
	dst = logKey(dst, "item_get", key)
	dst = append(append(dst, " status="...), status...)
	dst = logInt(dst, " clsid", int64(class))
	dst = logInt(dst, " cfd", int64(fd))
	return append(logInt(dst, " size", int64(size)), '\n')
}

// AppendLogStore appends the body of a line about a store. ttl is 0 for an item that stays and -1 for one that is over already; memcached's wraps around then.
func AppendLogStore(dst, key []byte, status, command string, ttl int64, class, fd, size int) []byte {
	dst = logKey(dst, "item_store", key)
	dst = append(append(dst, " status="...), status...)
	dst = append(append(dst, " cmd="...), command...)
	dst = logInt(dst, " ttl", ttl)
	dst = logInt(dst, " clsid", int64(class))
	dst = logInt(dst, " cfd", int64(fd))
	return append(logInt(dst, " size", int64(size)), '\n')
}

// AppendLogDelete appends the body of a line about an item that a client deleted.
func AppendLogDelete(dst, key []byte, command string, class, size int) []byte {
	dst = logKey(dst, "deleted", key)
	dst = append(append(dst, " cmd="...), command...)
	dst = logInt(dst, " clsid", int64(class))
	return append(logInt(dst, " size", int64(size)), '\n')
}

// AppendLogEviction appends the body of a line about an evicted item; ttl is -1 for one that would have stayed.
func AppendLogEviction(dst, key []byte, fetched bool, ttl, lastAccess int64, class, size int) []byte {
	dst = logKey(dst, "eviction", key)
	if fetched {
		dst = append(dst, " fetch=yes"...)
	} else {
		dst = append(dst, " fetch=no"...)
	}
	dst = logInt(dst, " ttl", ttl)
	dst = logInt(dst, " la", lastAccess)
	dst = logInt(dst, " clsid", int64(class))
	return append(logInt(dst, " size", int64(size)), '\n')
}

// LogPeer is a client in a log line.
type LogPeer struct {
	IP        string // "unix" on a unix socket
	Port      int
	Transport string // LogTCP, LogLocal
	FD        int
}

// Transports of a LogPeer. There are no lines about UDP, which has no connections.
const (
	LogTCP   = "tcp"
	LogLocal = "local"
	LogUnix  = "unix" // the IP where there is none
)

func (p *LogPeer) append(dst []byte, line string) []byte {
	dst = append(append(append(dst, "type="...), line...), " rip="...)
	dst = logInt(append(dst, p.IP...), " rport", int64(p.Port))
	return append(append(dst, " transport="...), p.Transport...)
}

// AppendLogConnNew appends the body of a line about a new connection.
func AppendLogConnNew(dst []byte, p *LogPeer) []byte {
	return append(logInt(p.append(dst, "conn_new"), " cfd", int64(p.FD)), '\n')
}

// AppendLogConnClose appends the body of a line about a connection that ends.
func AppendLogConnClose(dst []byte, p *LogPeer, reason string) []byte {
	dst = append(append(p.append(dst, "conn_close"), " reason="...), reason...)
	return append(logInt(dst, " cfd", int64(p.FD)), '\n')
}

// AppendLogConnError appends the body of a line about a connection that failed.
func AppendLogConnError(dst []byte, fd int, message string) []byte {
	return logFailure(dst, "type=connerr", fd, message)
}

// AppendLogTLSError appends the body of a line about a TLS connection that failed, in its handshake or later.
func AppendLogTLSError(dst []byte, fd int, message string) []byte {
	return logFailure(dst, "type=conntlserr", fd, message)
}

// logFailure appends a line of a connection's error. A message may quote what came from outside, so it is cut, and has no line ends.
func logFailure(dst []byte, line string, fd int, message string) []byte {
	const most = 256
	dst = logInt(append(dst, line...), " fd", int64(fd))
	dst = append(dst, " msg="...)
	for _, b := range []byte(message[:min(len(message), most)]) {
		if b < ' ' || b == 0x7f {
			b = '?'
		}
		dst = append(dst, b)
	}
	return append(dst, '\n')
}

// LogCrawl is a crawl of an LRU segment that started by itself, and how it was settled when the next one does. Times are in seconds.
type LogCrawl struct {
	Class, Segment                             int // 0 HOT to 3 TEMP
	LowMark, NextReclaims, Examined, Reclaimed uint64
	SinceRun, NextRun, Elapsed                 uint32
}

// AppendLogCrawl appends the body of a line about a crawl.
func AppendLogCrawl(dst []byte, c *LogCrawl) []byte {
	dst = logInt(append(dst, "type=lru_crawler"...), " crawler", int64(c.Class))
	dst = append(append(dst, " lru="...), [...]string{"hot", "warm", "cold", "temp"}[c.Segment&3]...)
	dst = logInt(dst, " low_mark", int64(c.LowMark))
	dst = logInt(dst, " next_reclaims", int64(c.NextReclaims))
	dst = logInt(dst, " since_run", int64(c.SinceRun))
	dst = logInt(dst, " next_run", int64(c.NextRun))
	dst = logInt(dst, " elapsed", int64(c.Elapsed))
	dst = logInt(dst, " examined", int64(c.Examined))
	return append(logInt(dst, " reclaimed", int64(c.Reclaimed)), '\n')
}

// AppendLogMove appends the body of a line about a page that moved, or did not, from one slab class to another.
func AppendLogMove(dst []byte, from, to int, ok bool) []byte {
	dst = logInt(append(dst, "type=slab_move"...), " src", int64(from))
	dst = logInt(dst, " dst", int64(to))
	if ok {
		return append(dst, " state=ok\n"...)
	}
	return append(dst, " state=fail\n"...)
}

// AppendLogSkipped appends the line about lines that a watcher did not get, in their place.
func AppendLogSkipped(dst []byte, n uint64) []byte {
	return append(strconv.AppendUint(append(dst, "skipped="...), n, 10), '\n')
}
