package mmapslab

import "github.com/cespare/xxhash/v2"

// Hasher computes keys' hashes: xxhash64 with the file's seed, which is part of the format. It is not safe for concurrent use; it never allocates.
type Hasher struct {
	digest xxhash.Digest
	seed   uint64
}

// Hasher returns a hasher for this store's keys.
func (s *Store) Hasher() *Hasher { return &Hasher{seed: s.super.HashSeed} }

// Sum returns the hash of a key.
func (h *Hasher) Sum(key []byte) uint64 {
	h.digest.ResetWithSeed(h.seed)
	h.digest.Write(key) // never fails
	return h.digest.Sum64()
}
