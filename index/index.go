package index

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

const (
	bucketWords = 8
	bucketBytes = bucketWords * 8

	// A key may be in four buckets: two pairs, each of two neighbours, which the processor fetches together.
	windowBuckets = 4
	windowWords   = windowBuckets * bucketWords

	// minBuckets are two pairs: a window never has a slot twice.
	minBuckets = 4

	// homeFill is how many words an insert puts into the home bucket before it takes the emptiest bucket of the window. First fit would fill
	// windows earlier, emptiest-first throughout would cost every fourth hit the second pair; doc.go has the numbers.
	homeFill = 5

	maxBuckets = 1<<31 - 2

	counterStripes = 64 // a power of two

	// attemptsBeforeBackoff is how often an insert is killed before it starts to wait a little; see backoff.
	attemptsBeforeBackoff = 2
)

// ErrCorrupt is returned by Attach when the State words cannot be those of an index.
var ErrCorrupt = errors.New("index: corrupt state words")

// Items is what the index asks about items. Both methods are called inside the caller's read-side section only, with Refs read from words:
// they bounds-check them, since a bad disk may have put anything there.
type Items interface {
	Match(ref mmapslab.Ref, key []byte) bool // is it this key?
	Hash(ref mmapslab.Ref) uint32            // high 32 bits of the key's hash; any value for a Ref that names no item
}

// Region says where in the arena the index lives. State is the offset of three words: [0] which half is the table and whether it is growing
// into the other (see stateWord), [1] and [2] the buckets in half 0 and 1; 0 there means the half is all zero. They never share a half.
type Region struct {
	State    int64
	Half     [2]int64 // offsets of the halves, multiples of the page size so that Discard can give memory back
	HalfSize int64    // bytes of each half: reserved address space that reads as zero
}

// Options are the services the index needs. A nil AfterGrace is right only where one goroutine uses the index.
type Options struct {
	// AfterGrace runs f, on any goroutine, after every reader that is now in a section left it. Default: runs f at once.
	AfterGrace func(f func())
	// Discard zeroes [off,off+n) and gives the memory back, also in pieces. Default, and what happens when it fails: the words are zeroed one by one.
	Discard func(off, n int64) error
	// Populate makes sure that memory exists before it is written, in pieces of pieceBytes, all of it before a growth starts: an error, such
	// as a full disk, means that the table stays as it is and evicts, never a SIGBUS. Default: touching is enough.
	Populate func(off, n int64) error
	// Evict takes an item that growth had to drop because its neighbours filled a new window; the caller retires it as after a Delete that
	// returned true. Rare: growth finds a full window only when items come faster than they are moved. Called on the goroutine that inserts or helps. Default: the chunk is lost until
	// the next sweep.
	Evict func(ref mmapslab.Ref)
	// Torn says that the region may be old in parts, as after a power loss. Then Attach gives up where a growth was under way, since a half of it can be that of another
	// growth, and zeroes the half that is not in use whatever the State words say.
	Torn bool
}

// Result is the outcome of Insert.
type Result int

const (
	Inserted Result = iota // the key is live with the given ref
	Exists                 // the key is live with the returned ref; nothing changed
	Full                   // the window is full and growth cannot help now; Delete the returned ref and call again. Ref 0: damage, give up
	moving                 // internal: the window is being moved, work in the new table
)

func (r Result) String() string {
	return [...]string{"inserted", "exists", "full", "moving"}[r]
}

// Index is the hash index. All methods but Len, Stats and SetLen must be called inside a read-side section (see Options.AfterGrace).
type Index struct {
	arena  *mmapslab.Arena
	region Region
	items  Items
	opt    Options
	state  []mmapslab.Word // the three State words

	view atomic.Pointer[view]

	stripes [counterStripes]stripe

	held       atomic.Int32 // growth does not start; see HoldGrowth
	evicted    atomic.Int64
	growths    atomic.Int64
	discardErr atomic.Pointer[error]
}

// stripe is picked by the key's tag, so two writers share a cache line only when they are likely to meet in a window anyway.
type stripe struct {
	live  atomic.Int64  // inserts minus deletes; only the sum over all stripes means something
	token atomic.Uint64 // attempts so far, see Index.token
	_     [48]byte
}

// table is one half in use.
type table struct {
	half    int
	buckets uint32
	words   []mmapslab.Word
}

// window is the slots a key may be in: at(0) to at(7) are its home bucket, then come its neighbour and the other pair.
type window struct {
	words  []mmapslab.Word
	bucket [windowBuckets]uint32
}

func (w *window) at(i int) *mmapslab.Word {
	return &w.words[uint64(w.bucket[uint(i)/bucketWords%windowBuckets])*bucketWords+uint64(i)%bucketWords]
}

func (t *table) window(h uint64) window { return t.windowOf(uint32(h >> 32)) }

func (t *table) windowOf(h32 uint32) window { return window{t.words, Buckets(h32, t.buckets)} }

func (t *table) bucket(b uint32) *[bucketWords]mmapslab.Word {
	return (*[bucketWords]mmapslab.Word)(t.words[uint64(b)*bucketWords:])
}

// home is the first of Buckets.
func (t *table) home(h uint64) uint32 { return homeBucket(uint32(h>>32), t.buckets) }

// others are the rest of Buckets.
func (t *table) others(h uint64) [windowBuckets - 1]uint32 {
	all := Buckets(uint32(h>>32), t.buckets)
	return [windowBuckets - 1]uint32(all[1:])
}

func (t *table) total() int64 { return int64(t.buckets) }
func (t *table) bytes() int64 { return t.total() * bucketBytes }

// view is what an operation works with. It never changes; a new one replaces it. The order is one circle:
// {A, spare} → {A, next B} → {B} → (grace) → {B, old A} → {B, spare} → …
type view struct {
	cur   *table
	next  *table  // the table being grown into, or nil
	grow  *growth // cursors of that growth
	old   *old    // not nil: the other half is no table any more, and is being discarded
	spare *spare  // not nil: the other half is zero, growth may start
}

func (x *Index) table(half int, buckets uint32) *table {
	return &table{half, buckets, x.arena.Words(x.region.Half[half], int(buckets)*bucketWords)}
}

// maxFit is the largest table that fits into a half.
func (r Region) maxFit() uint32 {
	return uint32(min(max(r.HalfSize/bucketBytes, 0), maxBuckets)) &^ 1
}

func newIndex(a *mmapslab.Arena, r Region, items Items, o Options) (*Index, error) {
	for _, s := range [...]struct {
		what   string
		off, n int64
	}{{"state", r.State, 24}, {"half 0", r.Half[0], r.HalfSize}, {"half 1", r.Half[1], r.HalfSize}} {
		if s.off < 0 || s.off&7 != 0 || s.n < 0 || s.off > a.Size()-s.n {
			return nil, fmt.Errorf("index: %s at %d, %d bytes, want 8-byte aligned inside an arena of %d", s.what, s.off, s.n, a.Size())
		}
	}
	x := &Index{arena: a, region: r, items: items, opt: o, state: a.Words(r.State, 3)}
	if x.opt.AfterGrace == nil {
		x.opt.AfterGrace = func(f func()) { f() }
	}
	return x, nil
}

// Create makes an empty index in a region that is all zero. State[0] is stored last: before that the region does not attach.
func Create(a *mmapslab.Arena, r Region, items Items, o Options, buckets uint32) (*Index, error) {
	if buckets < minBuckets || buckets > r.maxFit() || buckets%2 != 0 {
		return nil, fmt.Errorf("index: create: %d buckets, want an even number from %d to %d", buckets, minBuckets, r.maxFit())
	}
	x, err := newIndex(a, r, items, o)
	if err != nil {
		return nil, err
	}
	t := x.table(0, buckets)
	if o.Populate != nil {
		if err := o.Populate(r.Half[0], t.bytes()); err != nil {
			return nil, fmt.Errorf("index: create: %w", err)
		}
	}
	x.state[1].Store(uint64(buckets))
	x.state[2].Store(0)
	x.state[0].Store(stateWord(0, false))
	x.view.Store(&view{cur: t, spare: &spare{}})
	return x, nil
}

// stateWord packs State[0]: present:1 | growing:1 | half:1. The present bit tells an index from a region nobody wrote.
func stateWord(half int, growing bool) uint64 {
	w := uint64(4) | uint64(half)
	if growing {
		w |= 2
	}
	return w
}

// Attach takes over the index that the words in the region make up, as an earlier process left it: at any point between two of its stores.
// A half-done growth goes on; a half that is neither the table nor growing is discarded. Nobody else may use the region yet. TENTATIVE words
// stay until Sweep, or until they are in somebody's way. Len is 0 until SetLen.
func Attach(a *mmapslab.Arena, r Region, items Items, o Options) (*Index, error) {
	x, err := newIndex(a, r, items, o)
	if err != nil {
		return nil, err
	}
	// Each word is read once and used only after it was judged.
	s, n := x.state[0].Load(), [2]uint64{x.state[1].Load(), x.state[2].Load()}
	half, growing, err := r.judge(s, n)
	if err != nil {
		return nil, err
	}
	if growing && o.Torn {
		return nil, fmt.Errorf("%w: it was growing", ErrCorrupt)
	}
	v := &view{cur: x.table(half, uint32(n[half])), spare: &spare{}}
	if growing {
		v.next, v.grow, v.spare = x.table(1-half, uint32(n[1-half])), newGrowth(uint32(n[half]), uint32(n[1-half])), nil
	} else if o.Torn {
		x.discardWhole(x.table(1-half, r.maxFit()))
	} else if n[1-half] != 0 {
		x.discardWhole(x.table(1-half, uint32(n[1-half])))
	}
	x.view.Store(v)
	return x, nil
}

// Find returns the item of the key. It takes no lock and does not allocate. The old window is read first: LIVE and FROZEN words both answer,
// since nobody changes a key in the new table before its whole old window is MOVED. A MOVED word sends us to the new table; where none was
// met the key cannot have been there. A view from before the growth is noticed by the same MOVED word.
func (x *Index) Find(h uint64, key []byte) (mmapslab.Ref, bool) {
	for v := x.view.Load(); ; {
		for t := v.cur; ; t = v.next {
			// Most keys are in their home bucket; where the others are is computed when it is needed.
			ref, seen := x.findIn(t, t.home(h), h, key)
			if ref == 0 {
				for _, b := range t.others(h) {
					var more uint64
					ref, more = x.findIn(t, b, h, key)
					if seen |= more; ref != 0 {
						break
					}
				}
			}
			if ref != 0 {
				return ref, true
			}
			if seen&stateMoved == 0 {
				return 0, false
			}
			if t == v.next || v.next == nil {
				break
			}
		}
		now := x.view.Load()
		if now == v { // a MOVED word where nothing grows: damage, which the sweep clears
			return 0, false
		}
		v = now
	}
}

// findIn is Find in one bucket; seen has the bits that any of its words has.
func (x *Index) findIn(t *table, bucket uint32, h uint64, key []byte) (ref mmapslab.Ref, seen uint64) {
	words, want := t.bucket(bucket), answer(h)
	mask, seen := answers(words, want)
	for mask != 0 {
		fault.Point("index.find.answered")
		w := words[bits.TrailingZeros64(mask)%bucketWords].Load()
		if w&keyMask != want { // it has changed since
			mask, seen = answers(words, want)
			continue
		}
		if x.items.Match(refOf(w), key) {
			return refOf(w), seen
		}
		mask &= mask - 1
	}
	return 0, seen
}

// answers has a bit for each word that is want under keyMask, the first word's the lowest; seen has the bits that any of the words has. It does not branch on what it sees: which word
// is a key's the processor cannot guess.
func answers(words *[bucketWords]mmapslab.Word, want uint64) (mask, seen uint64) {
	for i := range words {
		w := words[i].Load()
		other := w&keyMask ^ want
		mask = mask>>1 | (other-1)&^other&(1<<63) // the top bit where other is 0
		seen |= w
	}
	return mask >> (64 - bucketWords), seen
}

// A Hint looks for a key's item without touching items, for who has many keys to find: each step names the memory that the next one, or Find, is going to
// read, so that it can be fetched for all keys at once. It may be wrong in both ways, and is out of date at once.
type Hint struct {
	table *table
	hash  uint64
	slot  uint64 // of the table's words, one above that of the word that seems to be the key's; 0: none does
}

// Hint begins to look for a key with this hash and returns the offset in the arena of its home bucket.
func (x *Index) Hint(h uint64) (hint Hint, home int64) {
	t := x.view.Load().cur
	return Hint{table: t, hash: h}, x.offset(t, t.home(h))
}

// Hash returns the hash that the hint was begun with.
func (n *Hint) Hash() uint64 { return n.hash }

func (x *Index) offset(t *table, bucket uint32) int64 {
	return x.region.Half[t.half] + int64(bucket)*bucketBytes
}

// Home returns the first item in the home bucket that may be the key's, else 0.
func (n *Hint) Home() mmapslab.Ref { return n.guess(n.table.home(n.hash)) }

// AppendOther appends the offsets of the window's other buckets.
func (x *Index) AppendOther(offsets []int64, n *Hint) []int64 {
	for _, b := range n.table.others(n.hash) {
		offsets = append(offsets, x.offset(n.table, b))
	}
	return offsets
}

// Other is Home of the window's other buckets.
func (n *Hint) Other() mmapslab.Ref {
	for _, b := range n.table.others(n.hash) {
		if ref := n.guess(b); ref != 0 {
			return ref
		}
	}
	return 0
}

func (n *Hint) guess(bucket uint32) mmapslab.Ref {
	words := n.table.bucket(bucket)
	mask, _ := answers(words, answer(n.hash))
	if mask == 0 {
		return 0
	}
	i := bits.TrailingZeros64(mask) % bucketWords
	n.slot = uint64(bucket)*bucketWords + uint64(i) + 1
	return refOf(words[i].Load())
}

// Find returns the item of the word that Home or Other has met, if it answers now: if it is the key's, which the caller finds out, this is what Index.Find would return, for a
// word that answers is the only one that does for its key, in whichever table it is. 0: Index.Find has to look. The hint must be of the same section.
func (n *Hint) Find() mmapslab.Ref {
	if n.slot == 0 {
		return 0
	}
	w := n.table.words[n.slot-1].Load()
	if w&keyMask != answer(n.hash) {
		return 0
	}
	return refOf(w)
}

// Holds tells whether a live word of a key with this hash refers to ref.
func (x *Index) Holds(h uint64, ref mmapslab.Ref) bool {
	live := pack(ref, h&TagMask, stateLive)
	for v := x.view.Load(); ; {
		var seen uint64
		for t := v.cur; ; t = v.next {
			seen = 0
			win := t.window(h)
			for i := range windowWords {
				w := win.at(i).Load()
				if w == live || w == live|stateFrozen {
					return true
				}
				seen |= w
			}
			if seen&stateMoved == 0 {
				return false
			}
			if t == v.next || v.next == nil {
				break
			}
		}
		now := x.view.Load()
		if now == v {
			return false
		}
		v = now
	}
}

// Insert makes the key live with ref, if it is not live yet. ref must not be in the index. It returns Exists with the ref found, or Full with
// a live neighbour to evict. Each call moves a few buckets when the table grows.
func (x *Index) Insert(h uint64, key []byte, ref mmapslab.Ref) (Result, mmapslab.Ref) {
	if v := x.view.Load(); v.next != nil {
		x.help(v, v.grow.help)
	}
	for {
		v := x.view.Load()
		res, other := x.insertInto(v, v.cur, h, key, ref)
		if v.next != nil && (res == moving || res == Full) {
			x.moveWindow(v, h)
			res, other = x.insertInto(v, v.next, h, key, ref)
		}
		switch {
		case res == moving: // there is a newer view
		case res == Full && v.next == nil && x.force(v):
		default:
			return res, other
		}
	}
}

// away tells whether a FROZEN or MOVED word met in t sends a writer elsewhere. Such words appear only after the view that names the new table;
// met while the view is still the one without, they are damage: slots nobody can use until the sweep clears them.
func (x *Index) away(v *view, t *table) bool {
	return t == v.cur && v.next != nil || x.view.Load() != v
}

// insertInto is the insert protocol in one table of v; doc.go argues it.
func (x *Index) insertInto(v *view, t *table, h uint64, key []byte, ref mmapslab.Ref) (Result, mmapslab.Ref) {
	win, want, tag := t.window(h), answer(h), h&TagMask
	for attempt := 0; ; attempt++ {
		// 1. Is it there? Which slot to take?
		p := place{}
		for i := range windowWords {
			w := win.at(i).Load()
			switch st := stateOf(w); {
			case st == stateLive && w&keyMask == want && x.items.Match(refOf(w), key):
				return Exists, refOf(w)
			case (st == stateFrozen || st == stateMoved) && x.away(v, t):
				return moving, 0
			}
			p.see(i, w)
		}
		slot := p.slot()
		if slot < 0 {
			if victim := p.victim(&win, x.token(tag)); victim != 0 {
				return Full, refOf(victim)
			}
			if kill(&win) {
				continue
			}
			if x.away(v, t) {
				return moving, 0
			}
			return Full, 0
		}
		// 2. Place before scanning: of two racing inserters at least one sees the other.
		mine := pack(x.token(tag), tag, stateTentative)
		fault.Point("index.insert.placing")
		if !win.at(slot).CompareAndSwap(0, mine) {
			continue
		}
		fault.Point("index.insert.placed")
		// 3. Scan the whole window.
		for i := 0; i < windowWords; i++ {
			if i == slot {
				continue
			}
			w := win.at(i).Load()
			switch st := stateOf(w); {
			case st == stateLive && w&keyMask == want && x.items.Match(refOf(w), key):
				win.at(slot).CompareAndSwap(mine, 0)
				return Exists, refOf(w)
			case st == stateTentative && tagOf(w) == tag:
				if !win.at(i).CompareAndSwap(w, 0) {
					i-- // it changed, perhaps into the LIVE word of this key: read it again
				}
			case (st == stateFrozen || st == stateMoved) && x.away(v, t):
				win.at(slot).CompareAndSwap(mine, 0)
				return moving, 0
			}
		}
		fault.Point("index.insert.scanned")
		// 4. Promote. Only we do that to our word, so failure means that it was killed or MOVED: not inserted.
		fault.Point("index.insert.promoting")
		if win.at(slot).CompareAndSwap(mine, pack(ref, tag, stateLive)) {
			fault.Point("index.insert.promoted")
			x.count(tag, 1)
			return Inserted, 0
		}
		backoff(attempt)
	}
}

// token returns a number for a TENTATIVE word that no other writer or attempt has: 35 bits of a counter per stripe, and the stripe.
// It comes round after 2^35 attempts in one stripe, and would do harm only to a writer that slept since then and in whose very slot the same
// number stands again.
func (x *Index) token(tag uint64) mmapslab.Ref {
	s := tag % counterStripes
	return mmapslab.Ref((x.stripes[s].token.Add(1)*counterStripes | s) & refMask)
}

// backoff lets two inserters that keep killing each other get out of step. Nobody waits for anybody: it is bounded and random.
func backoff(attempt int) {
	if attempt < attemptsBeforeBackoff {
		return
	}
	for range rand.IntN(1 << min(attempt, 6)) {
		runtime.Gosched()
	}
}

// place collects, over one scan of a window, what is needed to choose a slot or a victim.
type place struct {
	empty [windowBuckets]int // empty words per bucket
	first [windowBuckets]int // the first of them
	live  int
}

func (p *place) see(i int, w uint64) {
	switch {
	case w == 0:
		b := i / bucketWords
		if p.empty[b]++; p.empty[b] == 1 {
			p.first[b] = i
		}
	case stateOf(w) == stateLive:
		p.live++
	}
}

// slot returns the slot to take: in the home bucket while that has room to spare, else in the emptiest bucket; -1 when all are full.
func (p *place) slot() int {
	best := 0
	if p.empty[0] <= bucketWords-homeFill {
		for b := range p.empty {
			if p.empty[b] > p.empty[best] {
				best = b
			}
		}
	}
	if p.empty[best] == 0 {
		return -1
	}
	return p.first[best]
}

// victim returns a LIVE word of a full window, another one each time, or 0.
func (p *place) victim(win *window, seed mmapslab.Ref) uint64 {
	if p.live == 0 {
		return 0
	}
	start := int(seed / counterStripes % windowWords)
	for i := range windowWords {
		if w := win.at((start + i) % windowWords).Load(); stateOf(w) == stateLive {
			return w
		}
	}
	return 0
}

// kill takes the slots of TENTATIVE words, and of words in no known state as a damaged file may have them, in a window without anything else to
// evict: their writers died or sleep. A false kill costs a retry. It returns false when there are only FROZEN and MOVED words.
func kill(win *window) (again bool) {
	for i := range windowWords {
		switch w := win.at(i).Load(); stateOf(w) {
		case stateFrozen, stateMoved:
		case stateLive:
			again = true
		default:
			again = true
			win.at(i).CompareAndSwap(w, 0)
		}
	}
	return again
}

// Replace makes the live word that holds old hold new, in one step; false when it no longer does.
func (x *Index) Replace(h uint64, old, new mmapslab.Ref) bool {
	fault.Point("index.replace.before")
	ok := x.swap(h, old, pack(new, h&TagMask, stateLive))
	fault.Point("index.replace.after")
	return ok
}

// Delete empties the live word that holds old; false when it no longer does. There are no tombstones: a lookup always scans the window.
func (x *Index) Delete(h uint64, old mmapslab.Ref) bool {
	fault.Point("index.delete.before")
	ok := x.swap(h, old, 0)
	fault.Point("index.delete.after")
	if ok {
		x.count(h&TagMask, -1)
	}
	return ok
}

// swap is one CAS on the LIVE word that holds old, in whichever table it is. A FROZEN word that holds it must not change: we finish the move
// of the window and try in the new table.
func (x *Index) swap(h uint64, old mmapslab.Ref, to uint64) bool {
	live := pack(old, h&TagMask, stateLive)
	for v := x.view.Load(); ; {
		for t := v.cur; ; t = v.next {
			win, elsewhere := t.window(h), false
			for i := 0; i < windowWords; i++ {
				switch w := win.at(i).Load(); {
				case w == live:
					if win.at(i).CompareAndSwap(w, to) {
						return true
					}
					i-- // frozen meanwhile, or gone: look again
				case w == live|stateFrozen || stateOf(w) == stateMoved:
					elsewhere = true
				}
			}
			if !elsewhere {
				return false
			}
			if t == v.next || v.next == nil {
				break
			}
			x.moveWindow(v, h)
		}
		now := x.view.Load()
		if now == v {
			return false
		}
		v = now
	}
}

// count adds to the live items, and now and then does a piece of what is to be done before the table can grow.
func (x *Index) count(tag uint64, by int64) {
	n := x.stripes[tag%counterStripes].live.Add(by)
	if by > 0 && n%prepareEvery == 0 {
		if v := x.view.Load(); v.old != nil {
			x.discardSome(v)
		} else if v.next == nil && x.load(v) > growLoad {
			x.start(v)
		}
	}
}

// Len returns the number of live items: exact when nobody writes.
func (x *Index) Len() int64 {
	var n int64
	for i := range x.stripes {
		n += x.stripes[i].live.Load()
	}
	return max(n, 0)
}

// SetLen makes Len return n, as found by a sweep or in the superblock. It is exact when nobody writes meanwhile; else off by their writes.
func (x *Index) SetLen(n int64) {
	for i := range x.stripes {
		n -= x.stripes[i].live.Load()
	}
	x.stripes[0].live.Add(n)
}

// AddLen corrects Len by n, for a sweep that counts beside writers.
func (x *Index) AddLen(n int64) { x.stripes[0].live.Add(n) }

// Stats are figures for operators.
type Stats struct {
	Buckets    uint32  // of the table
	Bytes      int64   // of memory in both halves, as far as buckets use it
	Items      int64   // as Len
	Load       float64 // items per slot of the table
	Growing    bool    // a growth is on its way
	Draining   bool    // a growth is done, its old half still waits for readers, or to be discarded
	Fitting    bool    // Fit has been asked, and is getting memory
	Growths    int64   // finished since Create or Attach
	Evicted    int64   // items dropped by growth; more than a handful means a hash that does not spread
	DiscardErr error   // last failure of Options.Discard; the memory was zeroed but not given back
}

// Stats returns the figures of now.
func (x *Index) Stats() Stats {
	v := x.view.Load()
	s := Stats{Buckets: v.cur.buckets, Bytes: v.cur.bytes(), Items: x.Len(), Load: x.load(v), Growing: v.next != nil,
		Draining: v.next == nil && v.spare == nil, Growths: x.growths.Load(), Evicted: x.evicted.Load()}
	s.Fitting = v.spare != nil && v.spare.fit.Load()
	if v.next != nil {
		s.Bytes += v.next.bytes()
	} else if n := x.state[2-v.cur.half].Load(); v.spare == nil && n <= uint64(x.region.maxFit()) {
		s.Bytes += int64(n) * bucketBytes
	}
	if e := x.discardErr.Load(); e != nil {
		s.DiscardErr = *e
	}
	return s
}

func (x *Index) load(v *view) float64 {
	return float64(x.Len()) / (float64(v.cur.buckets) * bucketWords)
}
