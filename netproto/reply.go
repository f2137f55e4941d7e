package netproto

import "strconv"

// Replies that are the same every time, as whole lines.
const (
	CRLF = "\r\n"

	End       = "END\r\n" // closes the values of a get, and stats
	Stored    = "STORED\r\n"
	NotStored = "NOT_STORED\r\n"
	Exists    = "EXISTS\r\n"
	NotFound  = "NOT_FOUND\r\n"
	Deleted   = "DELETED\r\n"
	Touched   = "TOUCHED\r\n"
	OK        = "OK\r\n"
	Reset     = "RESET\r\n"

	Error        = "ERROR\r\n"
	TooManyConns = "ERROR Too many open connections\r\n" // the only words that a connection over the limit hears

	BadFormat           = "CLIENT_ERROR bad command line format\r\n"
	BadCommandLine      = "CLIENT_ERROR bad command line\r\n" // stats cachedump with too few words
	BadDataChunk        = "CLIENT_ERROR bad data chunk\r\n"   // no CRLF after the value
	InvalidExptime      = "CLIENT_ERROR invalid exptime argument\r\n"
	InvalidDelta        = "CLIENT_ERROR invalid numeric delta argument\r\n"
	NonNumeric          = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
	FlushNotAllowed     = "CLIENT_ERROR flush_all not allowed\r\n"
	InvalidShutdownMode = "CLIENT_ERROR invalid shutdown mode\r\n"
	StatsDetailUsage    = "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
	StatsDetailOff      = "CLIENT_ERROR stats detail not allowed\r\n"
	CachedumpOff        = "CLIENT_ERROR stats cachedump not allowed\r\n"
	IllegalSlabID       = "CLIENT_ERROR Illegal slab id\r\n"

	Unauthenticated    = "CLIENT_ERROR unauthenticated\r\n" // before authentication: anything but a set
	AuthFailure        = "CLIENT_ERROR authentication failure\r\n"
	AuthTokenTooLong   = "CLIENT_ERROR auth token too long\r\n"
	BadAuthToken       = "CLIENT_ERROR bad authentication token format\r\n"
	BadAuthTermination = "CLIENT_ERROR bad command line termination\r\n"

	TooLarge           = "SERVER_ERROR object too large for cache\r\n"
	NoMemoryStoring    = "SERVER_ERROR out of memory storing object\r\n"       // no room for the item's first chunk
	NoMemoryReading    = "SERVER_ERROR Out of memory during read\r\n"          // no room for a later chunk
	NoMemory           = "SERVER_ERROR out of memory\r\n"                      // incr, decr
	NoMemoryWriting    = "SERVER_ERROR out of memory writing get response\r\n" // a get
	ShutdownNotEnabled = "SERVER_ERROR: shutdown not enabled\r\n"              // the colon is memcached's
)

// AppendValueHeader appends the line before a value of get and gat. The value and CRLF follow.
func AppendValueHeader(dst, key []byte, flags uint32, size int) []byte {
	dst = appendValue(dst, key, flags, size)
	return append(dst, CRLF...)
}

// AppendValueHeaderCAS appends the line before a value of gets and gats.
func AppendValueHeaderCAS(dst, key []byte, flags uint32, size int, cas uint64) []byte {
	dst = append(appendValue(dst, key, flags, size), ' ')
	dst = strconv.AppendUint(dst, cas, 10)
	return append(dst, CRLF...)
}

func appendValue(dst, key []byte, flags uint32, size int) []byte {
	dst = append(dst, "VALUE "...)
	dst = append(dst, key...)
	dst = append(dst, ' ')
	dst = appendNumber(dst, uint64(flags))
	dst = append(dst, ' ')
	return appendNumber(dst, uint64(size))
}

// appendNumber is strconv.AppendUint. That one writes what has three digits and more into memory of its own first; flags and sizes mostly have no more than four, and each value
// has both: a twelfth of what a value takes.
func appendNumber(dst []byte, n uint64) []byte {
	switch digit := func(unit uint64) byte { return '0' + byte(n/unit%10) }; {
	case n < 10:
		return append(dst, digit(1))
	case n < 100:
		return append(dst, digit(10), digit(1))
	case n < 1000:
		return append(dst, digit(100), digit(10), digit(1))
	case n < 10000:
		return append(dst, digit(1000), digit(100), digit(10), digit(1))
	}
	return strconv.AppendUint(dst, n, 10)
}

// AppendNumber appends the new number after incr and decr.
func AppendNumber(dst []byte, n uint64) []byte {
	return append(strconv.AppendUint(dst, n, 10), CRLF...)
}

// AppendVersion appends the answer to version.
func AppendVersion(dst []byte, version string) []byte {
	dst = append(dst, "VERSION "...)
	dst = append(dst, version...)
	return append(dst, CRLF...)
}

// AppendStat appends a line of stats.
func AppendStat(dst []byte, name string, value []byte) []byte {
	dst = append(append(dst, "STAT "...), name...)
	dst = append(append(dst, ' '), value...)
	return append(dst, CRLF...)
}

// AppendPrefix appends a line of stats detail dump.
func AppendPrefix(dst []byte, prefix string, gets, hits, sets, deletes uint64) []byte {
	dst = append(append(dst, "PREFIX "...), prefix...)
	for _, f := range [...]struct {
		name  string
		value uint64
	}{{" get ", gets}, {" hit ", hits}, {" set ", sets}, {" del ", deletes}} {
		dst = strconv.AppendUint(append(dst, f.name...), f.value, 10)
	}
	return append(dst, CRLF...)
}
