//go:build faults

package hearth_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hearth"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
	"hearth/restore"
)

// What a kill leaves is a prefix of the stores. Here a script runs on an arena that tells of each of them: two sessions, and the keeper's work, on a stage that changes between
// them at accesses to the index and at fault points; over several lives, each of which ends with a clean stop or a kill. Then every prefix of the stores is an image:
// it is opened as a start would, Check goes over it, and each of the script's keys is read. What was read is part of the history, as a get that took no
// time, and the history must be linearizable: so what was acknowledged is there, what is under way is there or not, nothing comes back, and nothing is torn.
//
// Stores that are not atomic are found by comparing what was handed out with a copy, at the next atomic store or point: words of 8 bytes, in rising, falling or
// random order, since between two atomic stores the program promises none.

// Rules of the design broken on purpose, one at a time, and what found it first, of: the tests of the package that is broken, where it is index, or the rule is R9 or
// R10; every store (here, 3000 images); points (kill_faults_test.go, 100 lives); histories (linear_test.go, and TestOperationsAreLinearizableWhilePagesMove); the other packages' tests; all others of this one.
//
//	R1   a replace is a delete and an insert                                every store
//	R1   the sweep takes for live what no word names, but is whole          every store
//	R2   a delete moves another word into the slot it leaves                index: crash images, histories
//	R2   an insert moves a neighbour out of a full home bucket              TestWalkMeetsWhatIsLiveThroughoutOnce
//	R2   a growth promotes a copy without a last look                       index: crash images, histories
//	R2   a growth says MOVED before it copies                               index: crash images, histories
//	R3   a chain names its first chunk by address                           every store
//	R3   Copying is a lock, for which a touch waits                         histories
//	R3   a page move takes a lock that is in the file                       TestAKillAtAnyPointOfAMoveLosesNothing
//	R4   an item is published before its checksum                           every store
//	R4   a copy is published before its CAS                                 every store
//	R4   a part of a chain is published before its bytes                    every store
//	R4   an insert is acknowledged though its promotion failed              index: crash images, histories
//	R5   what is retired is stamped with the epoch before                   TestReadersNeverSeeReusedMemory, TestASectionKeepsItsItemsBytes, and four more
//	R5   a copy goes on after its section was renewed                       histories
//	R5   an evicted chunk is free before its word goes                      every store
//	R5   the old half is zeroed without a grace period                      index: TestOldHalfIsDiscardedOnlyAfterGrace, crash images, histories
//	R6   a touch ignores that the item is being copied                      histories
//	R6   a number is written in place                                       every store
//	R6   the exptime is read before the claim                               TestTouchesAndCopiesDoNotUndoEachOther
//	R6   the mark of a hit stores all of Meta                               lru: TestHitSetsFetchedWhateverElseChanges
//	R6   a page move does not claim what it copies                          TestWhatHappensDuringAMoveIsNotForgotten
//	R7   the flush word is not in the file                                  every store
//	R7   the flush word is stored by the keeper, after OK                   TestDowntimeCountsForTTLs
//	R7   a flush is two stores                                              TestAFlushIsOneStore
//	R7   a store keeps the flush epoch of before its look                   TestAFlushBesideAStoreLosesNothing
//	R7   a copy takes the flush epoch of now                                TestAFlushReachesCopiesUnderWay
//	R8   a page is assigned before it is zero                               histories
//	R8   a draining page's descriptor gets its check by a second store      every store
//	R8   both superblocks are written before either gets its checksum       every store
//	R8   a growth under way is not taken up by the next start               index: crash images, TestFollowsAMapOverGrowthAndAttach
//	R8   a growth is announced before its size                              index: TestStateWordsAttachAfterEveryStore
//	R8   an old half is called zero before it is                            index: TestAHalfIsCalledZeroOnlyWhenItIs
//	R9   an item may be longer than its chunk                               mmapslab, restore: TestVerifyFindsEveryFlippedBit, TestSweepDropsWordsThatNameNoItem
//	R9   a part of a chain may be longer than its chunk                     mmapslab: TestVerifyFindsEveryFlippedBit
//	R9   a length is read again after it was checked                        mmapslab: TestAViewKeepsToTheLengthsThatWereChecked
//	R9   a list may lead to a page that cannot be                           mmapslab: TestLinksOfAPageThatCannotBeAreNobodys
//	R10  a page gets no memory when it is assigned                          mmapslab: TestAFullDiskIsNoPageAndNoFault
//	R10  a page's links get none                                            mmapslab: TestAnAssignedPageHasMemoryForItsLinksToo
//	R10  the index grows into memory that it was refused                    index: TestDoesNotGrowIntoMemoryItCannotHave
//	R10  what a power loss took of a page's memory is not asked for again   TestWhatIsNoItemIsMadeAnewAfterAPowerLoss
//
// Harmless is a descriptor that gets its check by a second store when the page is assigned: a kill in between costs the page, in which there is nothing yet.

var imagesWanted = flag.Int("images", 0, "how many crash images TestEveryStoreLeavesWhatWasAcknowledged opens, over all profiles; 0: 20000, with HEARTH_LONG 1000000, with -short 4000")

// change is a word that changed.
type change struct {
	at, off int64 // when, and where
	is      uint64
}

type span struct {
	off int64
	n   int
}

// recorder is the Tracer of a script.
type recorder struct {
	mem, copy []byte // of the arena, as it is and as the log tells
	order     func(offs []int64)
	tick      int64
	log       []change
	fresh     []span // handed out since the last look
	old       []span // the last few before
	use       func(off int64)
	touched   []bool // by MiB
}

const oldSpans, freshSpans = 8, 64

func (r *recorder) HandedOut(off int64, n int) {
	r.touched[off>>20] = true
	s := span{off &^ 7, n + int(off&7)}
	if slices.Contains(r.fresh, s) {
		return
	}
	if r.fresh = append(r.fresh, s); len(r.fresh) > freshSpans {
		r.look()
		r.fresh = append(r.fresh, s)
	}
}

func (r *recorder) Use(off int64) {
	if r.use != nil {
		r.use(off)
	}
}

func (r *recorder) Stored(off int64, _ uint64) {
	r.touched[off>>20] = true
	is := binary.NativeEndian.Uint64(r.mem[off:])
	if was := r.copy[off:]; binary.NativeEndian.Uint64(was) != is {
		binary.NativeEndian.PutUint64(was, is)
		r.look()
		r.add(off, is)
		return
	}
	r.look()
}

func (r *recorder) add(off int64, is uint64) {
	r.tick++
	r.log = append(r.log, change{r.tick, off, is})
}

// look finds what changed in what was handed out.
func (r *recorder) look() {
	var offs []int64
	for _, spans := range [][]span{r.old, r.fresh} {
		for _, s := range spans {
			offs = r.differ(offs, s)
		}
	}
	r.old = append(r.old, r.fresh...)
	r.old = slices.Delete(r.old, 0, max(0, len(r.old)-oldSpans))
	r.fresh = r.fresh[:0]
	if len(offs) == 0 {
		return
	}
	slices.Sort(offs)
	offs = slices.Compact(offs)
	r.order(offs)
	for _, off := range offs {
		copy(r.copy[off:off+8], r.mem[off:])
		r.add(off, binary.NativeEndian.Uint64(r.mem[off:]))
	}
}

func (r *recorder) differ(offs []int64, s span) []int64 {
	const block = 512
	end := min(s.off+int64(s.n+7)&^7, int64(len(r.mem)))
	for off := s.off; off < end; off += block {
		to := min(off+block, end)
		if bytes.Equal(r.mem[off:to], r.copy[off:to]) {
			continue
		}
		for ; off < to; off += 8 {
			if !bytes.Equal(r.mem[off:off+8], r.copy[off:off+8]) {
				offs = append(offs, off)
			}
		}
		off = to - block
	}
	return offs
}

// crashProfile is a cache and what is done to it.
type crashProfile struct {
	options hearth.Options
	lossy   bool
	buckets []uint32 // a new index has one of these, in turn
	keys    int
	size    func(r *rand.Rand, key int) int
	fill    int  // keys that are set before the images begin
	late    bool // images begin after that; else with the first store of all
	lives   int
	ops     int // of each session in a life
	limits  []int64
	classes []int // whose pages move
}

var crashProfiles = map[string]crashProfile{
	// Nothing is evicted; an index that began with the fewest buckets grows when the keeper first looks; large values are chained, and pages move. Chunks are large so that
	// there are few: each start goes over all of them.
	"roomy": {
		options: hearth.Options{MemoryLimit: 40 << 20, MaxItemSize: 64 << 10, ChunkMax: 4096, SlabSizes: []int{2048}},
		buckets: []uint32{64, 4, 8, 4}, keys: 40, fill: 28, lives: 3, ops: 16, classes: []int{1, 2},
		size: func(r *rand.Rand, key int) int {
			if key%6 == 0 && r.IntN(2) == 0 {
				return 4100 + r.IntN(300)
			}
			return r.IntN(150)
		},
	},
	// Two pages of 64 chunks are full from the beginning, and move.
	"evicting": {
		options: hearth.Options{MemoryLimit: 2 << 20, MaxItemSize: 1 << 20, ChunkMax: 32768, SlabSizes: []int{16384}},
		lossy:   true, buckets: []uint32{16, 32}, keys: 140, fill: 140, late: true, lives: 2, ops: 16, limits: []int64{1 << 20, 2 << 20}, classes: []int{1, 2},
		size: func(r *rand.Rand, key int) int { return r.IntN(150) },
	},
}

// script is a run and its log.
type script struct {
	crashProfile
	seed    uint64
	rand    *rand.Rand
	rec     *recorder
	made    int // changes until the cache was created, and
	began   int // until images count
	history []porcupine.Operation
	stage   *fault.Stage
	numbers int // to make values unique
	moves   uint64
	growths int64
}

// crashClock stands still.
var crashClock = newClock()

func (p crashProfile) run(t testing.TB, seed uint64, size int64) *script {
	s := &script{crashProfile: p, seed: seed, rand: rand.New(rand.NewPCG(seed, 0))}
	s.options.Clock = crashClock
	orders := []func([]int64){func([]int64) {}, slices.Reverse[[]int64],
		func(offs []int64) { s.rand.Shuffle(len(offs), func(i, j int) { offs[i], offs[j] = offs[j], offs[i] }) }}
	arena := mmapslab.NewHeapArena(size)
	s.rec = &recorder{mem: arena.Bytes(0, int(size)), copy: mmapslab.NewHeapArena(size).Bytes(0, int(size)), order: orders[seed%3], touched: make([]bool, size>>20+1)}
	defer hearth.SetFirstBuckets(hearth.SetFirstBuckets(p.buckets[seed%uint64(len(p.buckets))]))
	arena.Trace(s.rec)
	defer arena.Trace(nil)
	fault.Set(func(point string) {
		s.rec.look()
		switch {
		case s.rec.use == nil, point == "hearth.reclaim.freeing": // under a lock
		case strings.HasSuffix(point, ".waiting"):
			s.stage.Yield()
		case strings.HasPrefix(point, "hearth."):
			s.stage.Pass()
		}
	})
	defer fault.Set(nil)
	for life := range p.lives {
		c, err := hearth.OpenHeap(s.options, arena)
		if err == nil && c.Arena() != arena {
			err = fmt.Errorf("cold start: %s", c.Stats().RestartReason)
		}
		if err != nil {
			t.Fatalf("seed %d, life %d: %v", seed, life, err)
		}
		s.rec.look()
		if life == 0 {
			s.made = len(s.rec.log)
			s.begin(c)
			s.began = len(s.rec.log)
		}
		s.live(c, life)
		if s.rand.IntN(2) == 0 {
			if err := c.Close(); err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
		}
		s.rec.look()
	}
	// The test of the recorder: it missed nothing.
	for off := 0; off < len(s.rec.mem); off += 1 << 20 {
		if s.rec.touched[off>>20] && !bytes.Equal(s.rec.mem[off:min(off+1<<20, len(s.rec.mem))], s.rec.copy[off:min(off+1<<20, len(s.rec.mem))]) {
			t.Fatalf("seed %d: the log lacks a store between %#x and %#x", seed, off, off+1<<20)
		}
	}
	return s
}

func (s *script) key(n int) string { return fmt.Sprint("key", n) }

// value is one that was never stored before; every fourth key's is a number.
func (s *script) value(r *rand.Rand, key int) string {
	s.numbers++
	if key%4 == 1 {
		return fmt.Sprint(s.numbers)
	}
	v := fmt.Sprintf("%d/%d|", key, s.numbers)
	return v + strings.Repeat(v, s.size(r, key)/len(v))
}

// begin does what no images are of.
func (s *script) begin(c *hearth.Cache) {
	session := c.NewSession()
	defer session.Close()
	for n := range s.fill {
		s.do(session, 0, call{op: "set", key: s.key(n), value: s.value(s.rand, n)})
	}
}

// do is one call of a client, in a section of its own.
func (s *script) do(session *hearth.Session, client int, in call) outcome {
	s.rec.tick++
	called := s.rec.tick
	session.Begin()
	out := perform(session, in)
	session.End()
	s.rec.look()
	s.rec.tick++
	keys := []string{in.key}
	if in.op == "flush" {
		keys = nil
		for n := range s.keys {
			keys = append(keys, s.key(n))
		}
	}
	for _, key := range keys {
		in.key = key
		s.history = append(s.history, porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: s.rec.tick})
	}
	return out
}

// live is a life: two sessions and the keeper.
func (s *script) live(c *hearth.Cache, life int) {
	s.stage = &fault.Stage{Rand: s.rand, Every: 1 + s.rand.IntN(30)}
	var actors []func()
	for client := range 2 {
		r := rand.New(rand.NewPCG(s.seed, uint64(100*life+client+1)))
		session := c.NewSession()
		actors = append(actors, func() {
			defer session.Close()
			var seen uint64
			for range s.ops {
				n := r.IntN(s.keys)
				in := call{key: s.key(n)}
				switch p := r.IntN(100); {
				case p < 8:
					in.op = "get"
				case p < 32:
					in.op = "set"
				case p < 40:
					in.op = "add"
				case p < 47:
					in.op = "append"
				case p < 51:
					in.op = "prepend"
				case p < 58:
					in.op = "cas"
				case p < 66:
					n = n/4*4 + 1
					in.op, in.key = "incr", s.key(n)
				case p < 73:
					in.op = "touch"
				case p < 78:
					in.op = "gat"
				case p < 86:
					in.op = "delete"
				case p < 90:
					in.op = "expire"
				case p < 93:
					in.op = "flush"
				default: // the same key again: both sessions like few keys better
					n = r.IntN(3)
					in.op, in.key = []string{"set", "incr", "append", "touch", "delete"}[r.IntN(5)], s.key(n)
				}
				switch in.op {
				case "set", "add", "cas", "append", "prepend":
					if in.value = s.value(r, n); in.op == "cas" {
						in.cas = seen
					}
				case "touch", "gat":
					in.exptime = farExptime(r)
				}
				if out := s.do(session, client, in); out.status == hearth.OK && out.cas != 0 {
					seen = out.cas
				}
			}
		})
	}
	actors = append(actors, func() {
		for range 300 {
			c.Round()
			if s.stage.Left() == 1 {
				return
			}
			switch s.rand.IntN(8) {
			case 0, 4, 5:
				src, dst := s.classes[s.rand.IntN(len(s.classes))], 0
				if s.rand.IntN(3) > 0 {
					dst = s.classes[s.rand.IntN(len(s.classes))]
				}
				if src != dst {
					c.EmptyPage(src, dst)
				}
			case 1:
				c.CancelMove()
			case 2:
				c.CrawlNow()
			case 3:
				if len(s.limits) > 0 {
					c.SetMemoryLimit(s.limits[s.rand.IntN(len(s.limits))])
				}
			}
			s.stage.Yield()
		}
	})
	region := c.IndexEnd()
	s.rec.use = func(off int64) {
		if off >= region[0] && off < region[1] {
			s.stage.Pass()
		}
	}
	s.stage.Run(actors...)
	s.rec.use = nil
	for range s.rand.IntN(4) {
		c.Round()
	}
	s.moves += c.Stats().SlabsMoved
	s.growths += c.Growths()
}

// imager opens images.
type imager struct {
	s          *script
	arena      *mmapslab.Arena
	mem, clean []byte
	mu         sync.Mutex
	isDirty    []bool
	touched    []bool  // by MiB
	dirty      []int64 // blocks that the cache may have changed
	reads      map[string][]read
}

// read is what images gave for a key, from the first to the last in a row that gave it.
type read struct {
	from, to int64
	out      outcome
}

const undoBlock = 1024

func (im *imager) Use(int64) {}

func (im *imager) Stored(off int64, _ uint64) { im.HandedOut(off, 8) }

// HandedOut takes a chunk for read only behind its first bytes: a start writes nothing there, and the probe's values are small. See same.
func (im *imager) HandedOut(off int64, n int) {
	if n < mmapslab.PageSize {
		n = min(n, undoBlock)
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.touched[off>>20] = true
	for b := off / undoBlock; b <= (off+int64(n)-1)/undoBlock; b++ {
		if !im.isDirty[b] {
			im.isDirty[b] = true
			im.dirty = append(im.dirty, b)
		}
	}
}

// same is the test of undo.
func (im *imager) same() error {
	for off := 0; off < len(im.mem); off += 4096 {
		if end := min(off+4096, len(im.mem)); im.touched[off>>20] && !bytes.Equal(im.mem[off:end], im.clean[off:end]) {
			return fmt.Errorf("the start changed something at %#x that was not put right", off)
		}
	}
	return nil
}

func (im *imager) undo() {
	for _, b := range im.dirty {
		im.isDirty[b] = false
		copy(im.mem[b*undoBlock:(b+1)*undoBlock], im.clean[b*undoBlock:])
	}
	im.dirty = im.dirty[:0]
}

// images opens the images from..to, of which image n is what the first n changes leave.
func (im *imager) images(from, to int) error {
	for i := range to {
		ch := im.s.rec.log[i]
		binary.NativeEndian.PutUint64(im.mem[ch.off:], ch.is)
		binary.NativeEndian.PutUint64(im.clean[ch.off:], ch.is)
		if i+1 > from {
			if err := im.image(i+1, ch.at); err != nil {
				return fmt.Errorf("image %d, after the store at %#x: %w", i+1, ch.off, err)
			}
		}
	}
	return im.same()
}

func (im *imager) image(n int, at int64) error {
	defer im.undo()
	if file := mmapslab.HeapFile(im.arena); restore.Judge(file, 1, restore.Here{BootID: crashClock.BootID(), SinceBoot: int64(crashClock.Boot()), Wall: crashClock.Wall()}, restore.Policy{}).Kind == restore.Cold {
		if n < im.s.made {
			return nil
		}
		return fmt.Errorf("cold")
	}
	c, err := im.open()
	if err != nil {
		return err
	}
	session := c.NewSession()
	outs := make([]outcome, im.s.keys)
	for k := range outs {
		session.Begin()
		outs[k] = perform(session, call{op: "peek", key: im.s.key(k)})
		session.End()
	}
	for k, out := range outs {
		key := im.s.key(k)
		runs := im.reads[key]
		if len(runs) > 0 && runs[len(runs)-1].out == out {
			runs[len(runs)-1].to = at
		} else {
			im.reads[key] = append(runs, read{at, at, out})
		}
	}
	if n%8 != 0 {
		return nil
	}
	// Some serve a little, and are killed again.
	probe := call{op: "set", key: im.s.key(n % im.s.keys), value: strings.Repeat("probe", n%60)}
	session.Begin()
	out := perform(session, probe)
	session.End()
	if c, err = im.open(); err != nil {
		return fmt.Errorf("killed a second time: %w", err)
	}
	if out.status != hearth.OK {
		return nil
	}
	session = c.NewSession()
	session.Begin()
	defer session.End()
	if got := perform(session, call{op: "peek", key: probe.key}); got != (outcome{value: probe.value, cas: out.cas}) {
		return fmt.Errorf("killed a second time: %s is %+v, want %+v", probe.key, got, out)
	}
	return nil
}

func (im *imager) open() (*hearth.Cache, error) {
	c, err := hearth.OpenHeap(im.s.options, im.arena)
	if err != nil {
		return nil, err
	}
	if c.Arena() != im.arena {
		return nil, fmt.Errorf("cold start: %s", c.Stats().RestartReason)
	}
	if found := c.Check(); len(found) > 0 {
		return nil, fmt.Errorf("check: %v", found)
	}
	return c, nil
}

// check opens every image, and judges what all of them gave.
func (s *script) check(t testing.TB, size int64) (images int) {
	const workers = 2
	var all sync.WaitGroup
	var imagers [workers]*imager
	var errs [workers]error
	n := len(s.rec.log) - s.began
	for w := range workers {
		arena, clean := mmapslab.NewHeapArena(size), mmapslab.NewHeapArena(size)
		im := &imager{s: s, arena: arena, mem: arena.Bytes(0, int(size)), clean: clean.Bytes(0, int(size)), isDirty: make([]bool, size/undoBlock), touched: make([]bool, size>>20+1), reads: map[string][]read{}}
		imagers[w] = im
		arena.Trace(im)
		defer arena.Trace(nil)
		from, to := s.began+n*w/workers, s.began+n*(w+1)/workers
		if w == 0 {
			from = 0
			if s.late {
				from = s.began
			}
		}
		images += to - from
		all.Go(func() { errs[w] = im.images(from, to) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			s.fail(t, "%v", err)
			return images
		}
	}
	history := s.history
	for w, im := range imagers {
		for key, runs := range im.reads {
			for _, run := range runs {
				in := call{op: "peek", key: key}
				history = append(history, porcupine.Operation{ClientId: 10 + w, Input: in, Output: run.out, Call: run.from, Return: run.from})
				if run.to != run.from {
					history = append(history, porcupine.Operation{ClientId: 10 + w, Input: in, Output: run.out, Call: run.to, Return: run.to})
				}
			}
		}
	}
	model := registers(s.lossy)
	for _, part := range model.Partition(history) {
		if result := porcupine.CheckOperationsTimeout(model, part, 20*time.Second); result != porcupine.Ok {
			slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			var b strings.Builder
			for _, op := range part {
				in, out := op.Input.(call), op.Output.(outcome)
				fmt.Fprintf(&b, "\n  client %d, %d to %d: %s %.30q cas %d exptime %d: status %d, %v", op.ClientId, op.Call, op.Return, in.op, in.value, in.cas, in.exptime, out.status,
					register{out.value, out.cas, out.exptime})
			}
			s.fail(t, "%s: the history is %v: %s", part[0].Input.(call).key, result, b.String())
			return images
		}
	}
	return images
}

func (s *script) fail(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Errorf("seed %d: %s\nagain with: go test -tags faults -run '%s' -seed %d -images 1 .", s.seed, fmt.Sprintf(format, args...), t.Name(), s.seed)
}

// TestEveryStoreLeavesWhatWasAcknowledged is told at the top of the file.
func TestEveryStoreLeavesWhatWasAcknowledged(t *testing.T) {
	if invariants.Enabled {
		t.Skip("what is freed is poisoned, which makes most of the images: they are looked at without")
	}
	wanted := 20_000
	switch {
	case *imagesWanted > 0:
		wanted = *imagesWanted
	case os.Getenv("HEARTH_LONG") != "":
		wanted = 1_000_000
	case testing.Short():
		wanted = 4_000
	}
	for name, p := range crashProfiles {
		t.Run(name, func(t *testing.T) {
			p.options.Clock = crashClock
			c, err := hearth.OpenHeap(p.options, nil)
			if err != nil {
				t.Fatal(err)
			}
			size := c.Arena().Size()
			images, scripts, ops, moves, growths := 0, 0, 0, uint64(0), int64(0)
			began := time.Now()
			for seed := max(*seedWanted, 1); images < max(1, wanted/len(crashProfiles)) && !t.Failed(); seed++ {
				s := p.run(t, seed, size)
				images += s.check(t, size)
				scripts++
				ops += len(s.history)
				moves += s.moves
				growths += s.growths
			}
			t.Logf("%d images of %d scripts in %v; %d operations, %d pages moved, the index grew %d times", images, scripts, time.Since(began).Round(time.Millisecond), ops, moves, growths)
			if *imagesWanted == 0 && *seedWanted == 0 && p.fill < p.keys && growths == 0 {
				t.Error("the index never grew")
			}
		})
	}
}
