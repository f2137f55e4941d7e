package mmapslab

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Hasher computes keys' hashes: xxhash64 with the file's seed, which is part of the format. It is not safe for concurrent use; it never allocates.
type Hasher struct {
	digest xxhash.Digest
	seed   uint64
}

// Hasher returns a hasher for this store's keys.
func (s *Store) Hasher() *Hasher { return &Hasher{seed: s.super.HashSeed} }

// The primes of xxhash64.
const (
	prime1 = 0x9e3779b185ebca87
	prime2 = 0xc2b2ae3d27d4eb4f
	prime3 = 0x165667b19e3779f9
	prime4 = 0x85ebca77c2b2ae63
	prime5 = 0x27d4eb2f165667c5
)

// Sum returns the hash of a key. With a seed the library has only its Digest, which takes longer to be filled than to hash what most keys are: shorter than a block of 32 bytes.
func (h *Hasher) Sum(key []byte) uint64 {
	if len(key) >= 32 {
		h.digest.ResetWithSeed(h.seed)
		h.digest.Write(key) // never fails
		return h.digest.Sum64()
	}
	sum := h.seed + prime5 + uint64(len(key))
	for ; len(key) >= 8; key = key[8:] {
		sum ^= bits.RotateLeft64(binary.LittleEndian.Uint64(key)*prime2, 31) * prime1
		sum = bits.RotateLeft64(sum, 27)*prime1 + prime4
	}
	if len(key) >= 4 {
		sum ^= uint64(binary.LittleEndian.Uint32(key)) * prime1
		sum = bits.RotateLeft64(sum, 23)*prime2 + prime3
		key = key[4:]
	}
	for _, b := range key {
		sum ^= uint64(b) * prime5
		sum = bits.RotateLeft64(sum, 11) * prime1
	}
	sum = (sum ^ sum>>33) * prime2
	sum = (sum ^ sum>>29) * prime3
	return sum ^ sum>>32
}
