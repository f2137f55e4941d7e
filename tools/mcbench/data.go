package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// data are the keys and values of a load. What belongs to a key number is the same each time, so that every reply can be verified without remembering.
type data struct {
	keyLength int
	sizes     func(k uint64) int
	buf       []byte // the last key
}

// key is valid until the next call.
func (d *data) key(k uint64) []byte {
	d.buf = append(d.buf[:0], "k"...)
	for len(d.buf) < d.keyLength {
		d.buf = append(d.buf, '0')
	}
	for i := len(d.buf) - 1; k > 0; i-- {
		d.buf[i] = byte('0' + k%10)
		k /= 10
	}
	return d.buf
}

// minKeyLength is what k and the digits of the highest key number take.
func minKeyLength(keys uint64) int { return 1 + len(strconv.FormatUint(keys, 10)) }

// expect tells which of the keys that o still waits for a value's head names. Those before it are misses, counted once the value is there.
func (d *data) expect(o *op, key []byte, size int) (uint64, error) {
	for _, k := range o.keys[o.next:] {
		if !bytes.Equal(d.key(k), key) {
			continue
		}
		if want := d.sizes(k); size != want {
			return 0, fmt.Errorf("wrong size under key %q: got %d bytes, want %d", key, size, want)
		}
		return k, nil
	}
	return 0, fmt.Errorf("got a value of key %q, which was not asked for", key)
}

// check verifies the value that o got for key k, and counts it and the misses before it.
func (d *data) check(o *op, k uint64, value []byte, t *tally) error {
	for ; o.keys[o.next] != k; o.next++ {
		t.Misses++
	}
	o.next++
	t.Hits++
	if !isValue(value, d.key(k)) {
		return fmt.Errorf("wrong bytes under key %q", d.key(k))
	}
	return nil
}

// mix makes a number out of a key's and a purpose's that looks like chance: the end of splitmix64.
func mix(k, purpose uint64) uint64 {
	k += purpose * 0x9e3779b97f4a7c15
	k = (k ^ k>>30) * 0xbf58476d1ce4e5b9
	k = (k ^ k>>27) * 0x94d049bb133111eb
	return k ^ k>>31
}

// maxSize is the largest value to be had: an int32 in the binary protocol, with room for the key.
const maxSize = 1<<30 - 1

// parseSizes reads a distribution of value sizes in bytes: one size, a range low-high, shares size:weight,size:weight..., or "mixed" for mixedSizes.
func parseSizes(s string) (func(k uint64) int, error) {
	if s == "mixed" {
		return sizeOf, nil
	}
	var sizes, upTo []int // each size, and the sum of the weights with its own
	total := 0
	for part := range strings.SplitSeq(s, ",") {
		size, weight, isShare := strings.Cut(part, ":")
		if !isShare {
			if len(sizes) > 0 || part != s {
				return nil, badSizes(s)
			}
			low, high, err := parseRange(s)
			if err != nil {
				return nil, badSizes(s)
			}
			return func(k uint64) int { return low + int(mix(k, 1)%uint64(high-low+1)) }, nil
		}
		n, _, err := parseRange(size)
		w, err2 := strconv.Atoi(weight)
		if err != nil || err2 != nil || strings.Contains(size, "-") || w < 1 || w > maxSize {
			return nil, badSizes(s)
		}
		total += w
		sizes, upTo = append(sizes, n), append(upTo, total)
	}
	return func(k uint64) int {
		r := int(mix(k, 1) % uint64(total))
		i := 0
		for r >= upTo[i] {
			i++
		}
		return sizes[i]
	}, nil
}

func badSizes(s string) error {
	return fmt.Errorf("mcbench: --size %q: want bytes, LOW-HIGH, SIZE:WEIGHT,SIZE:WEIGHT... or mixed", s)
}

// parseRange reads a number or LOW-HIGH.
func parseRange(s string) (low, high int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	if low, err = strconv.Atoi(a); err == nil {
		high, err = strconv.Atoi(b)
	}
	if err == nil && (low < 0 || high < low || high > maxSize) {
		err = fmt.Errorf("out of range")
	}
	return low, high, err
}
