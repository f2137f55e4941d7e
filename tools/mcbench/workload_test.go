package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Each rank's count is within five standard deviations of what the distribution has, and so is the tail's.
func TestZipfDrawsFollowTheDistribution(t *testing.T) {
	const n, draws = 1000, 400_000
	for _, skew := range []float64{0.5, 0.99, 1, 1.5} {
		draw, r := newZipf(n, skew), rand.New(rand.NewPCG(1, 2))
		var counts [n + 1]int
		for range draws {
			counts[draw(r)]++
		}
		sum := 0.0
		for k := 1; k <= n; k++ {
			sum += math.Pow(float64(k), -skew)
		}
		check := func(what string, got int, p float64) {
			if want := p * draws; math.Abs(float64(got)-want) > 5*math.Sqrt(want) {
				t.Errorf("skew %v, %s: got %d draws of %d, want about %.0f", skew, what, got, draws, want)
			}
		}
		tail, tailP := 0, 0.0
		for k := 1; k <= n; k++ {
			p := math.Pow(float64(k), -skew) / sum
			if k <= 20 {
				check("rank "+string(rune('0'+k/10))+string(rune('0'+k%10)), counts[k], p)
			}
			if k > n/2 {
				tail, tailP = tail+counts[k], tailP+p
			}
		}
		check("upper half", tail, tailP)
	}
}

func TestEveryChangedByteOfAValueIsNoticed(t *testing.T) {
	key := []byte("key")
	for size := range 40 {
		value := appendValue(nil, key, size)
		if len(value) != size || !isValue(value, key) {
			t.Fatalf("%d bytes: not their key's value", size)
		}
		if size > 0 && isValue(value, []byte("other")) {
			t.Errorf("%d bytes: taken for another key's", size)
		}
		for i := range value {
			value[i] ^= 1
			if isValue(value, key) {
				t.Errorf("%d bytes, byte %d changed: not noticed", size, i)
			}
			value[i] ^= 1
		}
	}
}
