package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// request is one for a key; who misses stores a value of that size and TTL.
type request struct {
	key  string
	size int // bytes
	ttl  int // seconds, 0: none
}

// readTrace reads lines of "key size" or "key size ttl", gzipped when the name ends in .gz.
func readTrace(path string) ([]request, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := io.Reader(f)
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("mcbench: trace %s: %w", path, err)
		}
	}
	var rs []request
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		r := request{key: words[0]}
		bad := len(words) < 2 || len(words) > 3 || len(r.key) > 250
		if !bad {
			r.size, err = strconv.Atoi(words[1])
			bad = err != nil || r.size < 0
		}
		if !bad && len(words) == 3 {
			r.ttl, err = strconv.Atoi(words[2])
			bad = err != nil || r.ttl < 0
		}
		if bad {
			return nil, fmt.Errorf("mcbench: trace %s:%d: %q, want key size [ttl]", path, n, lines.Text())
		}
		rs = append(rs, r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("mcbench: trace %s: %w", path, err)
	}
	return rs, nil
}

// mixedSizes are bytes of values as caches of web sites hold them: most are small, most memory is in the large ones.
var mixedSizes = []int{20, 50, 100, 100, 200, 300, 500, 1000, 2000, 8000}

// sizeOf gives key number k its size, the same each time.
func sizeOf(k uint64) int {
	r := rand.New(rand.NewPCG(k, 1))
	base := mixedSizes[r.IntN(len(mixedSizes))]
	return base/2 + r.IntN(base)
}

// zipf makes n requests for keys 1 to keys, the k-th as likely as 1/k^skew, in no order of the key names.
func zipf(seed uint64, n int, keys uint64, skew float64) []request {
	r := rand.New(rand.NewPCG(seed, 2))
	draw := newZipf(keys, skew)
	rs := make([]request, n)
	for i := range rs {
		k := draw(r)
		rs[i] = request{key: "key:" + strconv.FormatUint(k, 10), size: sizeOf(k)}
	}
	return rs
}

// newZipf draws from 1 to n with any skew above 0, which rand.Zipf does above 1 only. It is rejection-inversion: W. Hörmann and G. Derflinger,
// "Rejection-inversion to generate variates from monotone discrete distributions", 1996.
func newZipf(n uint64, skew float64) func(r *rand.Rand) uint64 {
	h := func(x float64) float64 { return math.Pow(x, -skew) }
	integral := func(x float64) float64 { l := math.Log(x); return overX(math.Expm1, (1-skew)*l) * l }
	inverse := func(x float64) float64 { return math.Exp(overX(math.Log1p, max(x*(1-skew), -1)) * x) }
	first, last := integral(1.5)-1, integral(float64(n)+0.5)
	s := 2 - inverse(integral(2.5)-h(2))
	return func(r *rand.Rand) uint64 {
		for {
			u := last + r.Float64()*(first-last)
			x := inverse(u)
			k := min(max(uint64(x+0.5), 1), n)
			if float64(k)-x <= s || u >= integral(float64(k)+0.5)-h(float64(k)) {
				return k
			}
		}
	}
}

// overX is f(x)/x for an f that is x near 0.
func overX(f func(float64) float64, x float64) float64 {
	if math.Abs(x) < 1e-8 {
		return 1
	}
	return f(x) / x
}

// scans mixes walks over keys that nobody asks for again into rs: after every so many requests a scan of the given length.
func scans(rs []request, every, length int) []request {
	var out []request
	next := 0
	for i, r := range rs {
		out = append(out, r)
		if i%every == every-1 {
			for range length {
				out = append(out, request{key: "scan:" + strconv.Itoa(next), size: sizeOf(uint64(next))})
				next++
			}
		}
	}
	return out
}

// shortTTLs gives a share of the keys a short TTL, by the key so that it is the same each time.
func shortTTLs(rs []request, share float64, ttl int) []request {
	for i := range rs {
		h := rand.New(rand.NewPCG(xxhash.Sum64String(rs[i].key), 3))
		if rs[i].ttl = 3600; h.Float64() < share {
			rs[i].ttl = 1 + h.IntN(ttl)
		}
	}
	return rs
}

// appendValue appends size bytes that tell their key: its hash, again and again.
func appendValue(dst, key []byte, size int) []byte {
	dst = slices.Grow(dst, size)
	value := dst[len(dst) : len(dst)+size]
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], xxhash.Sum64(key))
	for n := copy(value, word[:]); n < size; n *= 2 {
		copy(value[n:], value[:n])
	}
	return dst[:len(dst)+size]
}

func isValue(value, key []byte) bool {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], xxhash.Sum64(key))
	n := min(len(value), len(word))
	return bytes.Equal(value[:n], word[:n]) && bytes.Equal(value[n:], value[:len(value)-n])
}
