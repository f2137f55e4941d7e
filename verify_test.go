package hearth_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth"
	"hearth/mmapslab"
)

// flipAt inverts bits of the byte at an offset of the file.
func flipAt(t *testing.T, path string, at int64, bits byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= bits
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// damagedFile fills a file as fillFile does, stops clean, and flips a bit of each of these keys' values. Key 500 is chained.
func damagedFile(t *testing.T, o hearth.Options, n int, keys ...int) {
	t.Helper()
	fillFile(t, o, n, true)
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	for _, i := range keys {
		_, value := c.Offset(fmt.Sprint("key", i))
		at = append(at, value)
	}
	closeCache(t, c)
	for _, at := range at {
		flipAt(t, o.Path, at, 4)
	}
}

func TestDamagedItemsAreMisses(t *testing.T) {
	const n = 1200
	damaged := []int{3, 77, 500, 1000, 1001}
	isDamaged := func(i int) bool {
		for _, d := range damaged {
			if d == i {
				return true
			}
		}
		return false
	}
	clock := newClock()
	for _, mode := range []string{"always", "another boot", "power loss", "scrubbed"} {
		t.Run(mode, func(t *testing.T) {
			o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, Clock: clock}
			damagedFile(t, o, n, damaged...)
			kind := "clean"
			switch mode {
			case "always":
				o.Verify = hearth.VerifyAlways
			case "power loss":
				c, err := hearth.Open(o)
				if err == nil {
					err = c.Abandon()
				}
				if err != nil {
					t.Fatal(err)
				}
				o.WarmAfterPowerLoss, o.Verify = true, hearth.VerifyNever // what the one says goes without saying
				kind = "unclean"
				fallthrough
			case "another boot":
				other := newClock()
				other.id = 2
				o.Clock = other
			}
			c, err := hearth.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			st := c.Stats()
			if st.RestartKind == "cold" && mode == "another boot" && strings.Contains(st.RestartReason, "written under boot") {
				closeCache(t, c)
				t.Skip("the directory for tests is in memory, where no boot is crossed")
			}
			if st.RestartKind != kind {
				t.Fatalf("start %s: %s", st.RestartKind, st.RestartReason)
			}
			if mode != "scrubbed" {
				do(c, func(s *hearth.Session) {
					if _, st := store(s, hearth.Append, "key77", "more", 0, 0); st != hearth.NotStored {
						t.Errorf("append to a damaged item: %v", st)
					}
				})
			} else {
				s := c.NewSession()
				if !c.ScrubNow(s) {
					t.Error("the scrubber did not come to its end")
				}
				s.Close()
				if st := c.Stats(); st.CorruptItems != uint64(len(damaged)) || st.ScrubPasses != 1 || st.ScrubBytes == 0 {
					t.Errorf("%d corrupt, %d passes, %d bytes", st.CorruptItems, st.ScrubPasses, st.ScrubBytes)
				}
			}
			do(c, func(s *hearth.Session) {
				for i := range n {
					v, ok := get(s, fmt.Sprint("key", i))
					if ok == isDamaged(i) || ok && v != fileValue(i) {
						t.Errorf("key%d: found %t", i, ok)
					}
				}
			})
			if st := c.Stats(); st.CorruptItems != uint64(len(damaged)) || int(st.CurrItems) != n-len(damaged) {
				t.Errorf("%d corrupt, %d items", st.CorruptItems, st.CurrItems)
			}
			churn(t, c, 900, 3000)
			closeCache(t, c)
			// The damaged chains' chunks come back with the next start.
			o.WarmAfterPowerLoss, o.Verify = false, hearth.VerifyAttach
			if _, reason := wantFile(t, o, 0, "clean", true); !strings.Contains(reason, "; swept, since mmapslab: checkpoint: corrupt") {
				t.Error(reason)
			}
		})
	}
}

// What is no item is not trusted either after a power loss: the CAS ids and the index's spare half may be old, and pages may have lost their memory.
func TestWhatIsNoItemIsMadeAnewAfterAPowerLoss(t *testing.T) {
	const n, wordCAS, lostBytes = 1200, 8192, 64 << 10
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, Clock: newClock()}
	fillFile(t, o, n, false)
	f, err := os.OpenFile(o.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	word := func(at int64) int64 {
		var b [8]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		return int64(binary.NativeEndian.Uint64(b[:]))
	}
	last, spare, pages := uint64(word(wordCAS)), word(96), word(120) // two of the superblock's Layout
	for at, w := range map[int64]uint64{wordCAS: 1, spare: 1<<23 | 2} {
		if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, w), at); err != nil {
			t.Fatal(err)
		}
	}
	takeSnapshot(t, o.Path).without(pages, lostBytes).write(t, o.Path)
	if takeSnapshot(t, o.Path).hasMemory(pages, lostBytes) {
		t.Skip("no holes here")
	}
	clock := newClock()
	clock.id = 2
	clock.pass(nil, 3600)
	o.Clock, o.WarmAfterPowerLoss = clock, true
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.RestartKind != "unclean" {
		t.Fatalf("start %s: %s", st.RestartKind, st.RestartReason)
	}
	if !takeSnapshot(t, o.Path).hasMemory(pages, mmapslab.PageSize) {
		t.Errorf("the page at %#x lacks memory", pages)
	}
	if w := word(spare); w != 0 {
		t.Errorf("the index's spare half begins with %#x, want 0", w)
	}
	do(c, func(s *hearth.Session) {
		if id, st := store(s, hearth.Set, "key1", "new", 0, 0); st != hearth.OK || id <= last {
			t.Errorf("CAS %d after %d, status %d", id, last, st)
		}
	})
	check(t, c)
	closeCache(t, c)
}

// Each item is verified once after a start that crossed a boot, and not at all once the scrubber has been everywhere; without crossing one, not at all.
func TestVerifiesAtTheFirstTouchOnly(t *testing.T) {
	clock := newClock()
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, Clock: clock}
	fillFile(t, o, 600, true)
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if c.Verifying() {
		t.Error("verifies within a boot")
	}
	closeCache(t, c)
	clock.id = 2
	if c, err = hearth.Open(o); err != nil {
		t.Fatal(err)
	}
	defer closeCache(t, c)
	if kind := c.Stats().RestartKind; kind == "cold" {
		t.Skip("the directory for tests is in memory, where no boot is crossed")
	}
	flip := func(key string) {
		_, value := c.Offset(key)
		flipAt(t, o.Path, value, 1)
	}
	read := func(key string) (ok bool) {
		do(c, func(s *hearth.Session) { _, ok = get(s, key) })
		return ok
	}
	if !read("key9") {
		t.Error("key9 is gone")
	}
	flip("key9")
	flip("key10")
	if !read("key9") || read("key10") {
		t.Error("key9 was verified twice, or key10 not")
	}
	flip("key9")
	s := c.NewSession()
	defer s.Close()
	if !c.Verifying() || !c.ScrubNow(s) || c.Verifying() {
		t.Error("verifies after all was verified, or not before")
	}
	flip("key11")
	if !read("key11") {
		t.Error("key11 was verified though the scrubber had been there")
	}
	flip("key11")
}

// Index words to which no key leads and items that no word names, as damage may leave them, stay nowhere: the scrubber removes the former, eviction the latter, and the next
// start brings their chunks back.
func TestScrubberAndEvictionEndWhatDamagedWordsLeave(t *testing.T) {
	for _, scrub := range []bool{true, false} {
		o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 4 << 20, MaxItemSize: 1 << 20, NoPageMoves: true}
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		const damaged = 200
		do(c, func(s *hearth.Session) {
			for i := range 2000 {
				store(s, hearth.Set, fmt.Sprint("key", i), strings.Repeat("x", 900), 0, 0)
			}
		})
		for i := range damaged {
			if !c.Misplace(fmt.Sprint("key", i)) {
				t.Fatal(i)
			}
		}
		if scrub {
			s := c.NewSession()
			c.ScrubNow(s)
			s.Close()
			if st := c.Stats(); st.CorruptItems != damaged || st.CurrItems != 2000-damaged {
				t.Errorf("%d corrupt, %d items", st.CorruptItems, st.CurrItems)
			}
		}
		for range 5 {
			churn(t, c, 900, 5000)
		}
		want := uint64(damaged)
		if scrub {
			want *= 2 // words, then items
		}
		if n := c.Stats().CorruptItems; n < want*9/10 || n > want {
			t.Errorf("scrub %t: %d corrupt, want about %d", scrub, n, want)
		}
		closeCache(t, c)
		if c, err = hearth.Open(o); err != nil {
			t.Fatal(err)
		}
		if reason := c.Stats().RestartReason; !strings.Contains(reason, "; swept, since") {
			t.Error(reason)
		}
		check(t, c)
		closeCache(t, c)
	}
}

// TestNoFlippedBitOfAWordBringsAValueBack flips each bit of each index word of keys whose values were replaced over and over, so that old ones are all around, with right
// checksums.
func TestNoFlippedBitOfAWordBringsAValueBack(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 4 << 20, MaxItemSize: 1 << 20, SlabSizes: []int{128, 512}, Verify: hearth.VerifyAlways, HeapArena: true})
	const keys, times = 40, 20
	value := func(n, seq int) string { return strings.Repeat(fmt.Sprint(n, ".", seq, "|"), 10) }
	for seq := range times {
		for n := range keys {
			do(c, func(s *hearth.Session) { store(s, hearth.Set, fmt.Sprint("key", n), value(n, seq), 0, 0) })
		}
	}
	for c.Waiting() > 0 { // until what was replaced is free
		c.Round()
	}
	region := c.IndexEnd()
	flipped := 0
	for off := region[0]; off < region[1]; off += 8 {
		w := c.Arena().Word(off)
		was := w.Load()
		if was == 0 {
			continue
		}
		for bit := range 64 {
			w.Store(was ^ 1<<bit)
			do(c, func(s *hearth.Session) {
				for n := range keys {
					if got, ok := get(s, fmt.Sprint("key", n)); ok && got != value(n, times-1) {
						t.Errorf("word %#x with bit %d flipped: key%d is %.30q", was, bit, n, got)
					}
				}
			})
			w.Store(was)
			flipped++
		}
	}
	if flipped != keys*64 {
		t.Errorf("%d bits flipped, want those of %d words", flipped, keys)
	}
}
