package mmapslab_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth/mmapslab"
)

var update = flag.Bool("update", false, "rewrite the dumps in testdata")

// field is a line of a dump.
type field struct {
	size  int
	label string
}

// dump labels the bytes of b, which lie at base, field by field. Long fields are cut into lines of 32 bytes.
func dump(t *testing.T, b []byte, base int, fields []field) string {
	t.Helper()
	var out strings.Builder
	at := 0
	for _, f := range fields {
		for left := f.size; left > 0; {
			n := min(left, 32)
			label := f.label
			if left != f.size {
				label = "  …"
			}
			fmt.Fprintf(&out, "%04x-%04x: %-64x  # %s\n", base+at, base+at+n, b[at:at+n], label)
			at, left = at+n, left-n
		}
	}
	if at != len(b) {
		t.Fatalf("labels for %d bytes of %d", at, len(b))
	}
	return out.String()
}

// compare compares a dump with the one in testdata, or writes it with -update.
func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; a format change needs a new version, and go test -update\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestFormatIsThatOfTheDumps(t *testing.T) {
	t.Run("superblock", func(t *testing.T) {
		sb := mmapslab.Superblock{
			Magic: mmapslab.Magic, Version: mmapslab.Version, Arch: 1, Sequence: 0x11, State: mmapslab.Running, Unclean: 0x12, OwnFaults: 0x13,
			PageLimit: 0x14, Generation: 0x15, HashSeed: 0x1617181920212223, Layout: mmapslab.LayoutFor(1024, 96), MountID: 0x24, Device: 0x25, Inode: 0x26,
			ClockWall: 0x6543210f, ClockBoot: 0x27, Stopped: 0x28, PID: 0x29,
		}
		copy(sb.BootID[:], "the id of a boot")
		compare(t, "superblock", dump(t, sb.Encode(), mmapslab.SuperblockA, []field{
			{8, `magic "Hearth\r\n"`}, {4, "version"}, {4, "arch"}, {8, "compat"}, {8, "incompat"}, {8, "sequence"},
			{4, "state: running"}, {4, "unclean starts"}, {4, "own faults"}, {4, "page limit"}, {8, "generation"}, {8, "hash seed"},
			{4, "page size"}, {4, "room in pages"}, {4, "min chunk"}, {4, "0"},
			{8, "index half 0"}, {8, "index half 1"}, {8, "half size"}, {8, "links"}, {8, "pages"}, {8, "end"},
			{16, "boot id"}, {8, "mount id"}, {8, "device"}, {8, "inode"}, {8, "clock wall"}, {8, "clock boot"}, {8, "stopped"}, {4, "pid"}, {4, "0"},
			{4, "crc32c"},
		}))
	})

	s := newHeapStore(t, 2, 96, 152, 304)
	a := s.Arena()

	t.Run("live-words", func(t *testing.T) {
		s.NextCAS()
		s.FlushWord().Store(7<<32 | 0x6543210f)
		s.ClockWord().Store(0x65432100)
		state, _, _ := s.IndexRegion()
		for i := range int64(3) {
			a.Word(state + i*8).Store(uint64(4 + i))
		}
		compare(t, "live-words", dump(t, a.Bytes(mmapslab.LiveWords, 256), mmapslab.LiveWords, []field{
			{8, "CAS handed out last"}, {56, "0"}, {4, "flush deadline"}, {4, "flush epoch"}, {56, "0"},
			{8, "index state"}, {8, "buckets of half 0"}, {8, "buckets of half 1"}, {40, "0"}, {8, "the cache's time"}, {56, "0"},
		}))
	})

	t.Run("page-descriptor", func(t *testing.T) {
		if !s.AddPage(2) {
			t.Fatal("no page")
		}
		compare(t, "page-descriptor", dump(t, a.Bytes(mmapslab.PageTable+64, 64), mmapslab.PageTable+64, []field{
			{2, "check"}, {1, "state: assigned"}, {3, "chunk size / 8: 152 bytes"}, {2, "generation"}, {56, "0"},
		}))
	})

	fields := mmapslab.Fields{Flags: 0x0102, ClientFlags: 0x03040506, Hash: 0x0708090a}
	meta := mmapslab.MakeMeta(0x65432222, 0x65432111).WithSegment(2) | mmapslab.Linked | mmapslab.Fetched

	t.Run("item", func(t *testing.T) {
		ref := alloc(t, s, 1)
		s.WriteItem(ref, []byte("a key"), 7, &fields, meta)
		it := s.Unsealed(ref)
		copy(it.Value(), "a value")
		s.Seal(ref, 0x1122334455, 3)
		compare(t, "item", dump(t, a.Bytes(ref.Offset(), 52), 0, itemFields(false, 5, 7)))
	})

	t.Run("chained-item", func(t *testing.T) {
		head := alloc(t, s, 1) | mmapslab.Chained
		s.WriteItem(head, []byte("a key"), 300, &fields, meta)
		value := bytes.Repeat([]byte("0123456789"), 30)
		chunks := []mmapslab.Ref{head}
		for at, left := 0, 300; left > 0; {
			ref := alloc(t, s, 3)
			n := min(left, 304-mmapslab.DataHeaderSize)
			copy(s.AppendData(chunks[len(chunks)-1], ref, n), value[at:at+n])
			chunks, at, left = append(chunks, ref), at+n, left-n
		}
		s.Seal(head, 0x1122334455, 3)
		it, ok := s.Item(head)
		if !ok || !s.Verify(&it) {
			t.Fatal("the item is none, or does not verify")
		}
		out := "chunk 1, class 1\n" + dump(t, a.Bytes(head.Offset(), 53), 0, itemFields(true, 5, 0))
		for i, ref := range chunks[1:] {
			used := [...]int{264, 36}[i]
			out += fmt.Sprintf("chunk %d, class 3, Ref %#x\n", i+2, uint64(ref)) + dump(t, a.Bytes(ref.Offset(), 40+used), 0, []field{
				{1, "kind 'D'"}, {3, "0"}, {4, "bytes used"}, {8, "Ref of the next data chunk"}, {16, "0"}, {8, "Ref of the item << 8, where an item has its Meta"}, {used, "value"},
			})
		}
		compare(t, "chained-item", out)
	})

	t.Run("checkpoint", func(t *testing.T) {
		cp := &mmapslab.Checkpoint{Items: 2}
		cp.Lists[1*4+2] = mmapslab.ListRecord{Head: 0x8001, Tail: 0x8002, Count: 2, Bytes: 104}
		if err := s.WriteCheckpoint(cp); err != nil {
			t.Fatal(err)
		}
		b := a.Bytes(mmapslab.CheckpointAt, mmapslab.CheckpointSize)
		class := func(id int) []field {
			what := fmt.Sprintf("class %d: ", id)
			return []field{{4, what + "chunk size"}, {4, what + "first free chunk"}, {4, what + "fresh page"}, {4, what + "fresh slot"}, {8, what + "free chunks"}}
		}
		const lists, list = 3080, 3080 + (1*4+2)*24
		out := dump(t, b[:4*24], 0, append(append(append(class(0), class(1)...), class(2)...), class(3)...))
		out += "…\n" + dump(t, b[3072:3080], 3072, []field{{8, "live items"}})
		out += "…\n" + dump(t, b[list:list+24], list, []field{{4, "class 1, COLD: head"}, {4, "tail"}, {8, "items"}, {8, "bytes"}})
		out += "…\n" + dump(t, b[lists+512*24:], lists+512*24, []field{{4, "crc32c"}, {8, "sum of the links"}, {4, "crc32c"}})
		compare(t, "checkpoint", out)
	})
}

func itemFields(chained bool, key, value int) []field {
	f := []field{
		{1, "kind 'I'"}, {1, "key length"}, {2, "item flags"}, {4, "flush epoch"}, {8, "CAS"}, {4, "value length"}, {4, "client flags"},
		{4, "high half of the hash"}, {4, "crc32c"}, {4, "Meta: time, segment, linked, fetched"}, {4, "Meta: exptime"},
	}
	if chained {
		f[2].label += ", chained"
		f = append(f, field{8, "Ref of the first data chunk"})
	}
	return append(f, field{key, "key"}, field{value, "value"})
}
