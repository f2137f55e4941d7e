package netproto

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
)

// AdminOp is what an admin command asks for.
type AdminOp uint8

const (
	AdminReassign          AdminOp = iota + 1 // slabs reassign A B
	AdminAutomove                             // slabs automove A
	AdminAutomoveRatio                        // slabs automove ratio X
	AdminAutomoveFreeRatio                    // slabs automove freeratio X
	AdminAutomoveWindow                       // slabs automove window A
	AdminTune                                 // lru tune A B X Y
	AdminModeFlat                             // lru mode flat
	AdminModeSegmented                        // lru mode segmented
	AdminTempTTL                              // lru temp_ttl A
	AdminCrawlerEnable                        // lru_crawler enable
	AdminCrawlerDisable                       // lru_crawler disable
	AdminCrawlerSleep                         // lru_crawler sleep A
	AdminCrawlerToCrawl                       // lru_crawler tocrawl A
	AdminCrawl                                // lru_crawler crawl Classes
	AdminMetadump                             // lru_crawler metadump Classes
	AdminMgdump                               // lru_crawler mgdump Classes
	AdminMemlimit                             // cache_memlimit A
	AdminWatch                                // watch Watch
	AdminRefreshCerts                         // refresh_certs
	AdminDebugPause                           // debugtime p
	AdminDebugResume                          // debugtime r
	AdminDebugShift                           // debugtime A
)

// Admin holds the words of an admin command. Sub-commands match as whole words, where memcached takes any prefix of one.
type Admin struct {
	Op      AdminOp
	A, B    int64 // numbers, in the range that the command has for them
	X, Y    float64
	Classes Classes
	Watch   LogKinds
	Problem string // with Classes and Watch: what is wrong with them, to be said if the command is allowed at all
}

// Classes is a choice of slab classes.
type Classes struct {
	bits uint64
	All  bool
	Hash bool // all, in no order of classes; to memcached, a walk over its hash table
}

// Has tells whether a class is chosen.
func (c Classes) Has(id int) bool { return c.All || c.Hash || id < 64 && c.bits>>id&1 == 1 }

// Replies of admin commands, as whole lines.
const (
	ReassignBusy     = "BUSY currently processing reassign request\r\n"
	ReassignBadClass = "BADCLASS invalid src or dst class id\r\n"
	ReassignNoSpare  = "NOSPARE source class has no spare pages\r\n"
	ReassignSame     = "SAME src and dst class are identical\r\n"
	ReassignOff      = "CLIENT_ERROR slab reassignment disabled\r\n"
	WindowRange      = "CLIENT_ERROR automove window too low or too high\r\n"

	TuneShares  = "ERROR hot and warm pcts must not exceed 80\r\n"
	TuneFactors = "ERROR hot/warm age factors must be greater than 0\r\n"

	CrawlerOff      = "CLIENT_ERROR lru crawler disabled\r\n"
	CrawlerNoStart  = "ERROR failed to start lru crawler thread\r\n" // it runs already
	CrawlerLongRest = "CLIENT_ERROR sleep must be one second or less\r\n"
	CrawlBusy       = "BUSY currently processing crawler request\r\n"
	CrawlBadClass   = "BADCLASS invalid class id\r\n"
	CrawlNothing    = "NOTSTARTED no items to crawl\r\n"
	CrawlError      = "ERROR an unknown error happened\r\n"

	MetadumpOff       = "ERROR metadump not allowed\r\n"
	MgdumpOff         = "ERROR key dump not allowed\r\n"
	MetadumpPipelined = "ERROR cannot pipeline other commands before metadump\r\n"
	MgdumpPipelined   = "ERROR cannot pipeline other commands before mgdump\r\n"
	MgdumpEnd         = "EN\r\n"

	MemlimitTooSmall = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
	MemlimitNotBytes = "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
	MemlimitFailed   = "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"

	WatchOff       = "CLIENT_ERROR watch commands not allowed\r\n"
	WatchPipelined = "ERROR cannot pipeline other commands before watch\r\n"
	WatchTooMany   = "WATCHER_TOO_MANY log watcher limit reached\r\n"

	TLSNotThere = "Error TLS not enabled\r\n"
)

// RefreshReply answers refresh_certs. The error, why the certificates stay as they were, is in memcached's words already.
func RefreshReply(err error) string {
	if err != nil {
		return err.Error() + "\r\n"
	}
	return OK
}

// admin makes the words of the command, a noreply taken off, into args of at least min words; false: it is answered.
func (r *Request) admin(line []byte, min int) (args [][]byte, ok bool) {
	r.Admin = Admin{}
	args = r.split(line)
	r.cutNoreply(&args)
	if len(args) < min {
		r.fail(Error)
		return nil, false
	}
	return args, true
}

func (r *Request) do(op AdminOp) { r.Verb, r.Admin.Op = VerbAdmin, op }

// slabs handles slabs reassign and slabs automove.
func (r *Request) slabs(line []byte) {
	args, ok := r.admin(line, 2)
	if !ok {
		return
	}
	a := &r.Admin
	switch {
	case string(args[0]) == "reassign" && len(args) == 3:
		src, ok := parseInt(args[1])
		dst, ok2 := parseInt(args[2])
		if !ok || !ok2 {
			r.fail(BadFormat)
			return
		}
		a.A, a.B = int64(int32(src)), int64(int32(dst))
		r.do(AdminReassign)
	case string(args[0]) == "automove":
		r.automove(args[1:])
	default:
		r.fail(Error)
	}
}

func (r *Request) automove(args [][]byte) {
	a, ok, op := &r.Admin, true, AdminAutomove
	switch string(args[0]) {
	case "ratio":
		op = AdminAutomoveRatio
	case "freeratio":
		op = AdminAutomoveFreeRatio
	case "window":
		op = AdminAutomoveWindow
	default:
		level, ok := parseUint(args[0])
		switch {
		case !ok:
			r.fail(BadFormat)
		case level > 2:
			r.fail(Error)
		default:
			a.A = int64(level)
			r.do(op)
		}
		return
	}
	if len(args) < 2 {
		r.fail(Error)
		return
	}
	if op == AdminAutomoveWindow {
		var window uint64
		if window, ok = parseUint(args[1]); ok && (window < 3 || window > 1800) {
			r.fail(WindowRange)
			return
		}
		a.A = int64(window)
	} else {
		a.X, ok = parseFloat(args[1])
	}
	if !ok {
		r.fail(Error)
		return
	}
	r.do(op)
}

// lru handles lru tune, mode and temp_ttl.
func (r *Request) lru(line []byte) {
	args, ok := r.admin(line, 2)
	if !ok {
		return
	}
	a := &r.Admin
	switch word := string(args[0]); {
	case word == "tune" && len(args) >= 5:
		hot, ok1 := parseUint(args[1])
		warm, ok2 := parseUint(args[2])
		var ok3, ok4 bool
		a.X, ok3 = parseFloat(args[3])
		a.Y, ok4 = parseFloat(args[4])
		switch {
		case !ok1 || !ok2 || !ok3 || !ok4:
			r.fail(Error)
		case hot > 80 || warm > 80 || hot+warm > 80: // memcached's sum may overflow
			r.fail(TuneShares)
		case !(a.X > 0 && a.Y > 0):
			r.fail(TuneFactors)
		default:
			a.A, a.B = int64(hot), int64(warm)
			r.do(AdminTune)
		}
	case word == "mode" && string(args[1]) == "flat":
		r.do(AdminModeFlat)
	case word == "mode" && string(args[1]) == "segmented":
		r.do(AdminModeSegmented)
	case word == "temp_ttl":
		ttl, ok := parseInt(args[1])
		if !ok {
			r.fail(Error)
			return
		}
		a.A = int64(int32(ttl))
		r.do(AdminTempTTL)
	default:
		r.fail(Error)
	}
}

// lruCrawler handles the lru_crawler commands, which all have one or two words.
func (r *Request) lruCrawler(line []byte) {
	args, ok := r.admin(line, 1)
	if !ok {
		return
	}
	if len(args) == 1 {
		switch string(args[0]) {
		case "enable":
			r.do(AdminCrawlerEnable)
		case "disable":
			r.do(AdminCrawlerDisable)
		default:
			r.fail(Error)
		}
		return
	}
	a := &r.Admin
	op := map[string]AdminOp{"crawl": AdminCrawl, "metadump": AdminMetadump, "mgdump": AdminMgdump, "sleep": AdminCrawlerSleep,
		"tocrawl": AdminCrawlerToCrawl}[string(args[0])]
	switch {
	case op == 0 || len(args) != 2:
		r.fail(Error)
		return
	case op == AdminCrawlerSleep || op == AdminCrawlerToCrawl:
		n, ok := parseUint(args[1])
		switch n &= math.MaxUint32; {
		case !ok:
			r.fail(BadFormat)
			return
		case op == AdminCrawlerSleep && n > 1e6:
			r.fail(CrawlerLongRest)
			return
		}
		a.A = int64(n)
	default:
		a.Classes, a.Problem = parseClasses(args[1])
	}
	r.do(op)
}

// parseClasses reads all, hash or a list of class ids with commas.
func parseClasses(s []byte) (c Classes, problem string) {
	switch string(s) {
	case "all":
		return Classes{All: true}, ""
	case "hash":
		return Classes{Hash: true}, ""
	}
	for len(s) > 0 {
		var id []byte
		if id, s, _ = bytes.Cut(s, []byte{','}); len(id) == 0 {
			continue
		}
		n, ok := parseUint(id)
		if !ok || n < 1 || n > 63 {
			return c, CrawlBadClass
		}
		c.bits |= 1 << n
	}
	if c.bits == 0 {
		return c, CrawlNothing
	}
	return c, ""
}

// cacheMemlimit takes megabytes. Its words are counted with a noreply among them.
func (r *Request) cacheMemlimit(line []byte) {
	r.Admin = Admin{}
	args := r.split(line)
	n := len(args)
	r.cutNoreply(&args)
	var mb uint64
	ok := len(args) > 0 && n <= 2
	if ok {
		mb, ok = parseUint(args[0])
		mb &= math.MaxUint32
	}
	switch {
	case !ok:
		r.fail(Error)
	case mb < 8:
		r.fail(MemlimitTooSmall)
	case mb > 1e9:
		r.fail(MemlimitNotBytes)
	default:
		r.Admin.A = int64(mb)
		r.do(AdminMemlimit)
	}
}

// debugTime stops, resumes or shifts the clock. memcached has it in debug builds.
func (r *Request) debugTime(line []byte) {
	args, ok := r.admin(line, 1)
	if !ok {
		return
	}
	switch string(args[0]) {
	case "p":
		r.do(AdminDebugPause)
	case "r":
		r.do(AdminDebugResume)
	default:
		n, ok := parseInt(args[0])
		if !ok || n != int64(int32(n)) {
			r.fail(Error)
			return
		}
		r.Admin.A = n
		r.do(AdminDebugShift)
	}
}

// plain handles commands whose words do not matter here.
func (r *Request) plain(op AdminOp, line []byte) {
	if _, ok := r.admin(line, 0); ok {
		r.do(op)
	}
}

// parseFloat reads a number with decimals; NaN is none, as it would pass every check of a range.
func parseFloat(s []byte) (x float64, ok bool) {
	x, err := strconv.ParseFloat(string(s), 64)
	return x, err == nil && !math.IsNaN(x)
}

// DumpedItem is an item in a line of a dump.
type DumpedItem struct {
	Key       []byte
	KeyBinary bool
	Exptime   int64 // seconds since 1970, -1: never
	LastUse   int64 // likewise
	CAS       uint64
	Fetched   bool
	ClassID   int
	Size      int
	Flags     uint32
}

// AppendMetadump appends a line of lru_crawler metadump. The blank at its end, and the \n without a \r, are memcached's.
func AppendMetadump(dst []byte, it *DumpedItem) []byte {
	dst = appendURI(append(dst, "key="...), it.Key)
	dst = strconv.AppendInt(append(dst, " exp="...), it.Exptime, 10)
	dst = strconv.AppendInt(append(dst, " la="...), it.LastUse, 10)
	dst = strconv.AppendUint(append(dst, " cas="...), it.CAS, 10)
	if it.Fetched {
		dst = append(dst, " fetch=yes"...)
	} else {
		dst = append(dst, " fetch=no"...)
	}
	dst = strconv.AppendInt(append(dst, " cls="...), int64(it.ClassID), 10)
	dst = strconv.AppendInt(append(dst, " size="...), int64(it.Size), 10)
	dst = strconv.AppendUint(append(dst, " flags="...), uint64(it.Flags), 10)
	return append(dst, " \n"...)
}

// AppendMgdump appends a line of lru_crawler mgdump: a request for the key.
func AppendMgdump(dst []byte, it *DumpedItem) []byte {
	dst = append(dst, "mg "...)
	if it.KeyBinary {
		dst = base64.StdEncoding.AppendEncode(dst, it.Key)
		return append(dst, " b\r\n"...)
	}
	return append(append(dst, it.Key...), CRLF...)
}

// AppendCachedump appends a line of stats cachedump.
func AppendCachedump(dst, key []byte, size int, exptime uint32) []byte {
	dst = append(append(dst, "ITEM "...), key...)
	dst = strconv.AppendInt(append(dst, " ["...), int64(size), 10)
	dst = strconv.AppendUint(append(dst, " b; "...), uint64(exptime), 10)
	return append(dst, " s]\r\n"...)
}

// appendURI appends s with all but letters, digits, -, ., _ and ~ as %XX.
func appendURI(dst, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}
