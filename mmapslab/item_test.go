package mmapslab_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"hearth/mmapslab"
)

func TestMetaFieldsDoNotTouchEachOther(t *testing.T) {
	m := mmapslab.MakeMeta(0xfffffffe, 0x12345678)
	if m.Exptime() != 0xfffffffe || m.Age(0x12345679) != 1 || m.Segment() != 0 || m&(mmapslab.Linked|mmapslab.Fetched|mmapslab.Active|mmapslab.Copying|mmapslab.ListedApart) != 0 {
		t.Errorf("%#x", uint64(m))
	}
	for segment := range 4 {
		m = (m | mmapslab.Linked | mmapslab.Active).WithSegment(segment).WithExptime(uint32(segment)).WithTime(7)
		if m.Segment() != segment || m.Exptime() != uint32(segment) || m.Age(7) != 0 || m&mmapslab.Linked == 0 || m&mmapslab.Active == 0 || m&mmapslab.Copying != 0 {
			t.Errorf("segment %d: %#x", segment, uint64(m))
		}
	}
	// Time is kept modulo a year: the age is right across the turn.
	if age := mmapslab.MakeMeta(0, 1<<25-3).Age(1<<25 + 4); age != 7 {
		t.Errorf("age over the turn of the time field: %d, want 7", age)
	}
}

func TestItemGivesBackWhatWasWritten(t *testing.T) {
	s := newHeapStore(t, 8, 96, 600, 8192)
	for _, n := range []int{0, 1, 7, 500, 8192 - 40 - 3, 8192 - 40 - 2, 30000} {
		value := make([]byte, n)
		for i := range value {
			value[i] = byte(rand.Uint32())
		}
		ref := putItem(t, s, "key", value)
		it, ok := s.Item(ref)
		if !ok || !s.Verify(&it) || string(it.Key()) != "key" || it.ValueLen() != n || it.ClientFlags() != 5 || it.Epoch() != 1 {
			t.Fatalf("value of %d bytes: %t, key %q, length %d", n, ok, it.Key(), it.ValueLen())
		}
		var got []byte
		if ref&mmapslab.Chained == 0 {
			got = it.Value()
		} else if !s.Chain(&it, func(_ mmapslab.Ref, data []byte) { got = append(got, data...) }) {
			t.Errorf("value of %d bytes: broken chain", n)
		}
		if !bytes.Equal(got, value) {
			t.Errorf("value of %d bytes differs", n)
		}
		if chained := n > 8192-40-3; chained != (ref&mmapslab.Chained != 0) {
			t.Errorf("value of %d bytes: chained is %t", n, !chained)
		}
	}
}

// An item whose lengths change under a view of it, as a bad disk may have it, is as long there as it was when they were checked, and does not verify.
func TestAViewKeepsToTheLengthsThatWereChecked(t *testing.T) {
	s := newHeapStore(t, 8, 96, 600, 8192)
	for _, n := range []int{10, 30000} {
		ref := putItem(t, s, "key", make([]byte, n))
		it, ok := s.Item(ref)
		size := it.Size()
		b := s.Arena().Bytes(ref.Offset(), s.ChunkSize(ref))
		b[1] = 250
		binary.NativeEndian.PutUint32(b[16:], 1<<31)
		if !ok || string(it.Key()) != "key" || it.ValueLen() != n || it.Size() != size {
			t.Errorf("key %q, value of %d bytes, %d in all, want %d and %d", it.Key(), it.ValueLen(), it.Size(), n, size)
		}
		if ref&mmapslab.Chained == 0 && len(it.Value()) != n {
			t.Errorf("value of %d bytes, want %d", len(it.Value()), n)
		}
		if s.Verify(&it) {
			t.Error("it verifies")
		}
	}
}

func TestVerifyFindsEveryFlippedBit(t *testing.T) {
	s := newHeapStore(t, 8, 96, 304)
	t.Run("item", func(t *testing.T) {
		ref := putItem(t, s, "some key", []byte("some value"))
		flipAll(t, s, ref, ref, 0, 32)
		flipAll(t, s, ref, ref, 40, 40+18)
	})
	t.Run("chained", func(t *testing.T) {
		ref := putItem(t, s, "some key", bytes.Repeat([]byte("v"), 700))
		flipAll(t, s, ref, ref, 0, 32)
		flipAll(t, s, ref, ref, 40, 48+8)
		it, _ := s.Item(ref)
		var chunks []mmapslab.Ref
		if !s.Chain(&it, func(data mmapslab.Ref, _ []byte) { chunks = append(chunks, data) }) || len(chunks) != 3 {
			t.Fatalf("%d data chunks", len(chunks))
		}
		for _, data := range chunks {
			flipAll(t, s, ref, data, 0, 1)
			flipAll(t, s, ref, data, 4, 16)
		}
		flipAll(t, s, ref, chunks[0], 40, 304)
		flipAll(t, s, ref, chunks[2], 40, 40+700-2*264)
	})
	t.Run("misplaced", func(t *testing.T) {
		from, to := putItem(t, s, "key", []byte("value")), alloc(t, s, 1)
		copy(s.Arena().Bytes(to.Offset(), 96), s.Arena().Bytes(from.Offset(), 96))
		if it, ok := s.Item(to); !ok || s.Verify(&it) {
			t.Error("the copy of an item in another chunk verifies")
		}
	})
}

// flipAll flips each bit of bytes from to to of a chunk in turn, and wants the item not to be taken for whole.
func flipAll(t *testing.T, s *mmapslab.Store, item, chunk mmapslab.Ref, from, to int) {
	t.Helper()
	if it, ok := s.Item(item); !ok || !s.Verify(&it) {
		t.Fatal("the item is not whole to begin with")
	}
	b := s.Arena().Bytes(chunk.Offset(), s.ChunkSize(chunk))
	for bit := from * 8; bit < to*8; bit++ {
		b[bit/8] ^= 1 << (bit % 8)
		if it, ok := s.Item(item); ok && s.Verify(&it) {
			t.Errorf("bit %d of byte %d: not found", bit%8, bit/8)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestChainsEndWhateverIsInThem(t *testing.T) {
	s := newHeapStore(t, 8, 96, 304)
	value := make([]byte, 3*264)
	for i := range value {
		value[i] = byte(i * i / 7)
	}
	walk := func(ref mmapslab.Ref) (whole bool, steps int) {
		it, ok := s.Item(ref)
		if !ok {
			t.Fatal("no item")
		}
		whole = s.Chain(&it, func(mmapslab.Ref, []byte) { steps++ })
		if whole && s.Verify(&it) {
			t.Error("it verifies")
		}
		return whole, steps
	}
	chunks := func(ref mmapslab.Ref) (all []mmapslab.Ref) {
		it, _ := s.Item(ref)
		s.Chain(&it, func(data mmapslab.Ref, _ []byte) { all = append(all, data) })
		return all
	}
	next := func(ref mmapslab.Ref) int64 { return ref.Offset() + 8 }
	for name, damage := range map[string]func(head mmapslab.Ref, data []mmapslab.Ref){
		"ring of two":     func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[1])).Store(uint64(d[0])) },
		"ring of one":     func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[0])).Store(uint64(d[0])) },
		"too short":       func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[1])).Store(0) },
		"too long":        func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[2])).Store(uint64(d[0])) },
		"no chunk":        func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[0])).Store(uint64(d[1]) + 1) },
		"nowhere":         func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[0])).Store(1<<40 - 1) },
		"more than a Ref": func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word(next(d[0])).Store(1<<63 | uint64(d[1])) },
		"chained": func(_ mmapslab.Ref, d []mmapslab.Ref) {
			s.Arena().Word(next(d[0])).Store(uint64(d[1] | mmapslab.Chained))
		},
		"an item": func(h mmapslab.Ref, d []mmapslab.Ref) {
			s.Arena().Word(next(d[0])).Store(uint64(h &^ mmapslab.Chained))
		},
		"none used":    func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word32(d[1].Offset() + 4).Store(0) },
		"over its end": func(_ mmapslab.Ref, d []mmapslab.Ref) { s.Arena().Word32(d[1].Offset() + 4).Store(265) },
		"empty":        func(h mmapslab.Ref, _ []mmapslab.Ref) { s.Arena().Word(h.Offset() + 40).Store(0) },
		"wrong length": func(h mmapslab.Ref, _ []mmapslab.Ref) { s.Arena().Word32(h.Offset() + 16).Store(3*264 - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			ref := putItem(t, s, "key", value)
			damage(ref, chunks(ref))
			if whole, steps := walk(ref); steps > 3 || whole && name != "ring of two" && name != "ring of one" {
				t.Errorf("whole: %t, %d steps", whole, steps)
			}
		})
	}
}
