package netproto

import "math"

// Numbers are read as memcached reads them. Most go through C's strtol and strtoul there: blanks before the number, a sign, and blanks (tabs;
// a space ends the word) with anything behind them are accepted. So are such numbers here; the loop at the top of each function is for what
// clients really send.

// parseUint reads a 64-bit number as strtoul does, which wraps negative ones around. memcached refuses those that do not come out positive.
func parseUint(s []byte) (v uint64, ok bool) {
	if v, ok = decimal(s); ok {
		return v, true
	}
	v, negative, ok := strtoull(s)
	if negative {
		v = -v
		ok = ok && int64(v) >= 0
	}
	return v, ok
}

// parseInt reads a number within int64.
func parseInt(s []byte) (v int64, ok bool) {
	if v, ok := decimal(s); ok && v <= math.MaxInt64 {
		return int64(v), true
	}
	m, negative, ok := strtoull(s)
	if negative {
		return -int64(m), ok && m <= -math.MinInt64
	}
	return int64(m), ok && m <= math.MaxInt64
}

// parseInt32 reads a number within int32.
func parseInt32(s []byte) (v int64, ok bool) {
	v, ok = parseInt(s)
	return v, ok && v == int64(int32(v))
}

// parseSize reads the length of a data block: digits only, since a misread length puts all that follows out of step.
func parseSize(s []byte) (n int, ok bool) {
	if len(s) > 1 && s[0] == '-' {
		v, ok := decimal(s[1:])
		return 0, ok && v == 0
	}
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	v, ok := decimal(s)
	return int(v), ok && v <= maxSize
}

// decimal reads 1 to 19 digits, which cannot overflow.
func decimal(s []byte) (v uint64, ok bool) {
	if len(s) == 0 || len(s) > 19 {
		return 0, false
	}
	for _, c := range s {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		v = v*10 + uint64(d)
	}
	return v, true
}

// strtoull reads magnitude and sign of a number by the rules of C's functions and of memcached's safe_strtol family around them.
func strtoull(s []byte) (v uint64, negative, ok bool) {
	i := 0
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		negative = s[i] == '-'
		i++
	}
	start := i
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		d := uint64(s[i] - '0')
		if v > (math.MaxUint64-d)/10 {
			return 0, negative, false
		}
		v = v*10 + d
	}
	return v, negative, i > start && (i == len(s) || isSpace(s[i]))
}

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
