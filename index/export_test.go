package index

import "hearth/mmapslab"

// What tests need to see of words and views.

const (
	StateEmpty     = stateEmpty
	StateTentative = stateTentative
	StateLive      = stateLive
	StateFrozen    = stateFrozen
	StateMoved     = stateMoved
	BucketWords    = bucketWords
	ForceLoad      = forceLoad
	SmallBuckets   = smallBuckets
	GrowLoad       = growLoad
	PieceBytes     = pieceBytes
	WindowBuckets  = windowBuckets
	HelpPerInsert  = helpPerInsert
	HelpFit        = helpFit
)

func Pack(ref mmapslab.Ref, tag, state uint64) uint64 { return pack(ref, tag, state) }
func Unpack(w uint64) (ref mmapslab.Ref, tag uint64, state uint64) {
	return refOf(w), tagOf(w), stateOf(w)
}
func Grown(buckets uint32) uint64 { return grown(buckets) }

// Start begins a growth whatever the load.
func (x *Index) Start() bool { return x.start(x.view.Load()) }

// Tables returns the words of the table and, during growth, of the next one.
func (x *Index) Tables() (tables [][]uint64) {
	v := x.view.Load()
	for _, t := range []*table{v.cur, v.next} {
		if t == nil {
			continue
		}
		words := make([]uint64, len(t.words))
		for i := range t.words {
			words[i] = t.words[i].Load()
		}
		tables = append(tables, words)
	}
	return tables
}
