package main

import (
	"math"
	"strconv"
	"strings"
)

// The numbers on memcached's command line are read by C's functions, which take the longest prefix that is a number, so `-m 64MB` is 64.
// Start scripts live on that, and so do these.

const cSpace = " \t\n\v\f\r"

// strtol returns the number that s starts with, clamped to 64 bits, and what follows it; rest == s means there is none.
func strtol(s string, base int) (n int64, rest string) {
	t := strings.TrimLeft(s, cSpace)
	end := 0
	if end < len(t) && (t[end] == '+' || t[end] == '-') {
		end++
	}
	digits := end
	for end < len(t) && t[end] >= '0' && t[end] < byte('0'+base) { // bases up to 10
		end++
	}
	if end == digits {
		return 0, s
	}
	n, _ = strconv.ParseInt(t[:end], base, 64) // out of range: clamped
	return n, t[end:]
}

// atoi is C's, including what a number that fits no int becomes.
func atoi(s string) int {
	n, _ := strtol(s, 10)
	return int(int32(n))
}

// atof is C's: the longest prefix that is a number, else 0.
func atof(s string) float64 {
	s = strings.TrimLeft(s, cSpace)
	for end := len(s); end > 0; end-- {
		if f, err := strconv.ParseFloat(s[:end], 64); err == nil || math.IsInf(f, 0) {
			return f
		}
	}
	return 0
}

// safeStrtol is memcached's strict reader of a signed 32-bit number, safeStrtoul of an unsigned one, which cuts wider ones to 32 bits.
func safeStrtol(s string) (int, bool) {
	n, rest := strtol(s, 10)
	return int(n), endsNumber(s, rest) && n >= math.MinInt32 && n <= math.MaxInt32
}

func safeStrtoul(s string) (uint32, bool) {
	t := strings.TrimPrefix(strings.TrimLeft(s, cSpace), "+")
	end := 0
	for end < len(t) && t[end] >= '0' && t[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(t[:end], 10, 64)
	return uint32(n), err == nil && endsNumber(s, t[end:])
}

func endsNumber(s, rest string) bool {
	return len(rest) < len(s) && (rest == "" || strings.IndexByte(cSpace, rest[0]) >= 0)
}
