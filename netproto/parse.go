package netproto

import (
	"bytes"
	"math"
)

const (
	// MaxKey is the longest key in bytes.
	MaxKey = 250
	// MaxLine is how many bytes may be waiting without a newline among them; more of them close the connection, multigets apart.
	MaxLine = 2048
	// MaxMultiget is what MaxLine is for get and gets. memcached has no such limit and grows until malloc fails.
	MaxMultiget = 8 << 20
	// MaxVerbosity is the highest level that `verbosity` sets.
	MaxVerbosity = 2
	// maxWords is how many words of a line are seen, the command included.
	maxWords = 23
	// minLine is the shortest line that is looked at, newline included.
	minLine = 4
	// maxSize is the longest data block that can be announced: with its CRLF it must fit an int32.
	maxSize = math.MaxInt32 - 2
)

// Verb is what a request asks for.
type Verb uint8

const (
	VerbBad Verb = iota // a line that cannot be served: drop Swallow bytes, send Reply, Close
	VerbGet
	VerbGets
	VerbGat
	VerbGats
	VerbSet
	VerbAdd
	VerbReplace
	VerbAppend
	VerbPrepend
	VerbCas
	VerbDelete
	VerbIncr
	VerbDecr
	VerbTouch
	VerbFlushAll
	VerbVersion
	VerbQuit
	VerbVerbosity
	VerbStats
	VerbShutdown
	VerbMetaGet
	VerbMetaSet
	VerbMetaDelete
	VerbMetaArith
	VerbMetaNoop
	VerbMetaDebug
	VerbAdmin
)

// Stores tells whether a data block follows the line.
func (v Verb) Stores() bool { return VerbSet <= v && v <= VerbCas || v == VerbMetaSet }

// Request is one parsed line. Parse sets the scalars that the verb has no use for to zero; Key, Keys, Args and the slices of MetaRequest are then stale.
type Request struct {
	Verb    Verb
	Noreply bool
	Close   bool     // VerbBad: close the connection when Reply is sent; silently if there is none
	Flags   uint32   // storage commands: the client's flags
	Key     []byte   // 1 to MaxKey bytes
	Keys    Keys     // get family: the keys, one to many
	Exptime int64    // storage, gat, gats, touch, flush_all: as the protocol has it, within int32
	Size    int      // storage commands: bytes of the value, without the CRLF that follows it
	CAS     uint64   // cas
	Delta   uint64   // incr, decr
	Level   int      // verbosity: 0 to MaxVerbosity
	Args    [][]byte // stats, shutdown: the words after the command, without a noreply at the end
	Reply   string   // VerbBad: the whole line to answer, or ""
	Swallow int64    // VerbBad: bytes of a data block, CRLF included, to drop before Reply is sent

	MetaRequest // meta commands; their q is Noreply, and F, T, C and D are Flags, Exptime, CAS and Delta

	Admin Admin // VerbAdmin: slabs, lru, lru_crawler, cache_memlimit, watch, refresh_certs, debugtime

	args [maxWords - 1][]byte // Args lies in it
}

// Keys are the keys of a get. Parse has checked them: there is at least one and none is too long.
type Keys struct{ rest []byte }

// Next returns the next key, in the order of the line and with its repetitions, and false after the last one.
func (k *Keys) Next() (key []byte, ok bool) {
	key, k.rest = word(k.rest)
	return key, len(key) > 0
}

// Take is Next for who knows the key already, the very bytes. False: it is not the next one, and nothing is done.
func (k *Keys) Take(key []byte) bool {
	n := 1 + len(key)
	if n == 1 || len(k.rest) < n || k.rest[0] != ' ' || &k.rest[1] != &key[0] || len(k.rest) > n && k.rest[n] != ' ' {
		return false
	}
	k.rest = k.rest[n:]
	return true
}

// Parse reads the command line at the start of buf into req and returns its length. 0 means that more bytes are needed. What follows
// the line, a data block or other requests, is not looked at.
func Parse(buf []byte, req *Request) (n int) {
	end := bytes.IndexByte(buf, '\n')
	if end < 0 {
		if len(buf) <= MaxLine || len(buf) <= MaxMultiget && mayGrow(buf) {
			return 0
		}
		req.reset()
		req.Close = true
		return len(buf)
	}
	n = end + 1
	line := buf[:end:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	req.reset()
	if n < minLine {
		req.Reply = BadFormat
		return n
	}
	command, args := line, []byte(nil)
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		command, args = line[:i], line[i:]
	}
	switch string(command) {
	case "get":
		req.get(VerbGet, args)
	case "gets":
		req.get(VerbGets, args)
	case "gat":
		req.gat(VerbGat, args)
	case "gats":
		req.gat(VerbGats, args)
	case "set":
		req.store(VerbSet, args)
	case "add":
		req.store(VerbAdd, args)
	case "replace":
		req.store(VerbReplace, args)
	case "append":
		req.store(VerbAppend, args)
	case "prepend":
		req.store(VerbPrepend, args)
	case "cas":
		req.store(VerbCas, args)
	case "delete":
		req.delete(args)
	case "incr":
		req.arith(VerbIncr, args)
	case "decr":
		req.arith(VerbDecr, args)
	case "touch":
		req.touch(args)
	case "flush_all":
		req.flushAll(args)
	case "verbosity":
		req.verbosity(args)
	case "stats":
		req.stats(args)
	case "shutdown":
		req.shutdown(args)
	case "slabs":
		req.slabs(args)
	case "lru":
		req.lru(args)
	case "lru_crawler":
		req.lruCrawler(args)
	case "cache_memlimit":
		req.cacheMemlimit(args)
	case "watch":
		req.watch(args)
	case "refresh_certs":
		req.plain(AdminRefreshCerts, args)
	case "debugtime":
		req.debugTime(args)
	case "mg":
		req.meta(VerbMetaGet, args)
	case "ms":
		req.meta(VerbMetaSet, args)
	case "md":
		req.meta(VerbMetaDelete, args)
	case "ma":
		req.meta(VerbMetaArith, args)
	case "mn":
		req.Verb = VerbMetaNoop
	case "me":
		req.metaDebug(args)
	case "version":
		req.Verb = VerbVersion
	case "quit":
		req.Verb = VerbQuit
	default:
		req.unknown(line)
	}
	return n
}

func (r *Request) reset() {
	r.Verb, r.Noreply, r.Close = VerbBad, false, false
	r.Flags, r.Exptime, r.Size, r.CAS, r.Delta, r.Level = 0, 0, 0, 0, 0, 0
	r.Reply, r.Swallow = "", 0
	r.MetaRequest.reset()
}
