package mmapslab_test

import (
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// The hash is part of the format: short keys' is the library's too.
func TestHashIsXXHash64(t *testing.T) {
	s := newHeapStore(t, 1, 96)
	seed, hasher := s.Super().HashSeed, s.Hasher()
	if seed == 0 {
		t.Fatal("no seed")
	}
	r := rand.NewChaCha8([32]byte{1})
	for n := range 251 {
		for range 20 {
			key := make([]byte, n)
			r.Read(key)
			d := xxhash.NewWithSeed(seed)
			d.Write(key)
			if got, want := hasher.Sum(key), d.Sum64(); got != want {
				t.Fatalf("%d bytes %x: %#x, want %#x", n, key, got, want)
			}
		}
	}
}

func BenchmarkHash(b *testing.B) {
	h, key := newHeapStore(b, 1, 96).Hasher(), []byte("item-00001234")
	for b.Loop() {
		h.Sum(key)
	}
}
