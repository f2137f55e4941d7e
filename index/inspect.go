package index

import (
	"fmt"

	"hearth/mmapslab"
)

// State is that of a word.
type State uint8

// The states of words, see word.go. Higher ones are damage.
const (
	Empty     = State(stateEmpty)
	Tentative = State(stateTentative)
	Live      = State(stateLive)
	Frozen    = State(stateFrozen)
	Moved     = State(stateMoved)
)

// Word is a word of the index as it was found. Ref and Tag mean something while it is live or frozen.
type Word struct {
	Offset  int64 // in the file
	Ref     mmapslab.Ref
	Tag     uint32
	State   State
	Bucket  uint32
	Buckets uint32 // of the table it is in
	Next    bool   // that is the table which is grown into
	Raw     uint64
}

// Inspect reads the index that the words in the region make up, as Attach does, and changes nothing, so that it may be in use by another process. What it
// returns is for Find, Holds, Scan and Look alone.
func Inspect(a *mmapslab.Arena, r Region, items Items) (*Index, error) {
	x, err := newIndex(a, r, items, Options{})
	if err != nil {
		return nil, err
	}
	return x, x.Look()
}

// Look takes up what became of the tables since Inspect.
func (x *Index) Look() error {
	s, n := x.stateWords()
	half, growing, err := x.region.judge(s, n)
	if err != nil {
		return err
	}
	v := &view{cur: x.table(half, uint32(n[half]))}
	if growing {
		v.next, v.grow = x.table(1-half, uint32(n[1-half])), newGrowth(uint32(n[half]), uint32(n[1-half]))
	}
	x.view.Store(v)
	return nil
}

// stateWords reads the state words as they were at one moment: a count that becomes 0 after its half is out of use must not be taken for the count of a half in use.
func (x *Index) stateWords() (s uint64, n [2]uint64) {
	for {
		s, n = x.state[0].Load(), [2]uint64{x.state[1].Load(), x.state[2].Load()}
		if x.state[0].Load() == s {
			return s, n
		}
	}
}

// Outdated tells, of an index that is inspected, whether the tables are others than those of the last Look: what Scan visited since may be no word, and not all there was. That a growth came to
// its end is no such change: what left the one table is in the other, behind it in the scan.
func (x *Index) Outdated() bool {
	v := x.view.Load()
	s, n := x.stateWords()
	if v.next == nil {
		return s != stateWord(v.cur.half, false) || n[v.cur.half] != uint64(v.cur.buckets)
	}
	return s != stateWord(v.cur.half, true) && s != stateWord(v.next.half, false) || n[v.next.half] != uint64(v.next.buckets)
}

// judge tells whether state words can be those of an index.
func (r Region) judge(s uint64, n [2]uint64) (half int, growing bool, err error) {
	half, growing = int(s&1), s&2 != 0
	fits := uint64(r.maxFit())
	switch {
	case s != stateWord(half, growing):
		err = fmt.Errorf("%w: state %#x, want %#x with flags 3", ErrCorrupt, s, stateWord(0, false))
	case n[half] < minBuckets || n[half] > fits || n[1-half] > fits || (n[0]|n[1])%2 != 0:
		err = fmt.Errorf("%w: %d and %d buckets, half %d in use, want even numbers up to %d and at least %d there", ErrCorrupt, n[0], n[1], half, fits, minBuckets)
	case growing && n[1-half] < minBuckets:
		err = fmt.Errorf("%w: growing from %d to %d buckets, want at least %d", ErrCorrupt, n[half], n[1-half], minBuckets)
	}
	return half, growing, err
}

// ScanBuckets is the end of a whole scan: the buckets of the table, and those of the table that is grown into behind them.
func (x *Index) ScanBuckets() uint32 {
	v := x.view.Load()
	n := v.cur.buckets
	if v.next != nil {
		n += v.next.buckets
	}
	return n
}

// Scan visits all words but empty ones of the buckets [from,to), whatever their state, and changes nothing. While others change the index a word may be
// another one as soon as it was visited, see Still.
func (x *Index) Scan(from, to uint32, visit func(w *Word)) {
	v := x.view.Load()
	var w Word
	for b := from; b < to; b++ {
		t, bucket := v.cur, b
		if b >= t.buckets {
			if t, bucket = v.next, b-t.buckets; t == nil || bucket >= t.buckets {
				return
			}
		}
		words := t.words[int64(bucket)*bucketWords:][:bucketWords]
		for i := range words {
			raw := words[i].Load()
			if raw == 0 {
				continue
			}
			w = Word{
				Offset: x.region.Half[t.half] + (int64(bucket)*bucketWords+int64(i))*8, Ref: refOf(raw), Tag: uint32(tagOf(raw)), State: State(stateOf(raw)),
				Bucket: bucket, Buckets: t.buckets, Next: t != v.cur, Raw: raw,
			}
			visit(&w)
		}
	}
}

// Still tells whether the word stands where it was found.
func (x *Index) Still(w *Word) bool { return x.arena.Word(w.Offset).Load() == w.Raw }

// Growing tells whether items are on their way from one table to the other.
func (x *Index) Growing() bool { return x.view.Load().next != nil }
