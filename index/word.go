package index

import "hearth/mmapslab"

// The word, to scale, one column a bit and a half:
//
//	63                                     23 22                3 2  0
//	┌────────────────────────────────────────┬───────────────────┬────┐
//	│ ref: 41                                │ tag: 20           │ st │
//	└────────────────────────────────────────┴───────────────────┴────┘
//
// ref is the mmapslab.Ref of the item (opaque here), or a token while the word is TENTATIVE; tag is the low 20 bits of the key's hash.
// LIVE and FROZEN differ in bit 0 alone and MOVED is bit 2 alone, so that a lookup needs one mask to find "answers a reader" and one OR to
// learn that it must look in the new table too.
const (
	stateEmpty     = 0 // the all-zero word: a sparse file is an empty table
	stateTentative = 1 // a writer's claim on the slot; carries a token, answers nobody
	stateLive      = 2 // the key's item is ref
	stateFrozen    = 3 // as LIVE for readers, but immutable: it is being copied into the new table
	stateMoved     = 4 // nothing will ever be here again: look in the new table. Terminal until the half is discarded

	stateBits = 3
	TagBits   = 20 // of the hash, the low ones
	refShift  = stateBits + TagBits

	stateMask = 1<<stateBits - 1
	TagMask   = 1<<TagBits - 1
	refMask   = 1<<mmapslab.RefBits - 1

	// keyMask keeps the tag and the two state bits that LIVE and FROZEN share; see answer.
	keyMask = TagMask<<stateBits | stateLive | stateMoved

	movedWord = uint64(stateMoved)
)

// The widths fill the word: this does not compile when they do not.
var _ [0]struct{} = [64 - mmapslab.RefBits - refShift]struct{}{}

func pack(ref mmapslab.Ref, tag uint64, state uint64) uint64 {
	return uint64(ref)<<refShift | tag<<stateBits | state
}

func refOf(w uint64) mmapslab.Ref { return mmapslab.Ref(w >> refShift) }
func tagOf(w uint64) uint64       { return w >> stateBits & TagMask }
func stateOf(w uint64) uint64     { return w & stateMask }

// answer is what w&keyMask equals when the word answers a reader of a key with this hash.
func answer(h uint64) uint64 { return h&TagMask<<stateBits | stateLive }

func homeBucket(h32, buckets uint32) uint32 { return uint32(uint64(h32) * uint64(buckets) >> 32) }

// Buckets returns the four buckets that a key may be in, its home bucket first, in a table of so many buckets (an even number, at least 4), from the
// high 32 bits of its hash. They are two different pairs of neighbours, so no slot comes twice.
func Buckets(h32, buckets uint32) [windowBuckets]uint32 {
	home := homeBucket(h32, buckets)
	other := otherPair(h32, home, buckets)
	return [windowBuckets]uint32{home, home ^ 1, 2 * other, 2*other + 1}
}

// Pairs returns the pairs that Buckets has: bucket b is in pair b/2.
func Pairs(h32, buckets uint32) (home, other uint32) {
	home = homeBucket(h32, buckets)
	return home / 2, otherPair(h32, home, buckets)
}

func otherPair(h32, home, buckets uint32) uint32 {
	// Keys of one home differ in the low bits of h32; the product carries them to the top (Fibonacci hashing, Knuth 6.4).
	pairs := buckets / 2
	other := home/2 + 1 + uint32(uint64(h32*0x9e3779b1)*uint64(pairs-1)>>32)
	if other >= pairs {
		other -= pairs
	}
	return other
}
