package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hearth/mmapslab"
	"hearth/restore"
)

// copyOf copies a file, holes left as such.
func copyOf(t testing.TB, path string) string {
	t.Helper()
	to := fmt.Sprintf("%s.%d", path, rand.Uint64())
	if out, err := exec.Command("cp", "--sparse=always", path, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return to
}

// flip changes bits of a byte and returns what it was.
func flip(t testing.TB, path string, at int64, bits byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	b[0] ^= bits
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func itemOffset(t testing.TB, path, key string) int64 {
	t.Helper()
	in, err := restore.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	it, ok, err := in.Find([]byte(key))
	if err != nil || !ok {
		t.Fatalf("%s: found %t, %v", key, ok, err)
	}
	return it.Ref().Offset()
}

// extent is a part of a file where each bit means something and has something to be compared with.
type extent struct {
	what     string
	at, size int64
}

// meaningful returns all parts of a cleanly stopped file in which no damage may pass: what is left out has no redundancy, see restore.Inspected.Check.
func meaningful(t testing.TB, path string) (all []extent) {
	t.Helper()
	in, err := restore.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	l := in.File.Super.Layout
	for _, s := range l.Spans()[:2] {
		all = append(all, extent{s.Name, s.Offset, s.Length})
	}
	all = append(all, extent{"index words", l.Span(mmapslab.SpanIndexWords).Offset, 8}, extent{"checkpoint", l.Span(mmapslab.SpanCheckpoint).Offset, l.Span(mmapslab.SpanCheckpoint).Length})
	if sum := l.Span(mmapslab.SpanLinkSum); in.File.OnDisk {
		all = append(all, extent{sum.Name, sum.Offset, sum.Length})
	}
	for page := uint32(1); page <= in.Store.LastPage(); page++ {
		p, err := in.Store.PageInfo(page)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, extent{"page descriptor", p.At, 64})
	}
	_, half, _ := in.Store.IndexRegion()
	all = append(all, extent{"index", half[0], int64(in.Index.Stats().Buckets) * 64})
	links := l.Span("links").Offset
	_, err = in.Walk(t.Context(), restore.WalkOptions{}, func(_ int, it *mmapslab.Item, _ mmapslab.Meta) {
		at := it.Ref().Offset()
		all = append(all, extent{"item header", at, 32}, extent{"segment and lists of an item", at + 32, 1})
		all[len(all)-1].size = -1 // only some of its bits, see below
		key := at + mmapslab.HeaderSize
		if it.Ref()&mmapslab.Chained != 0 {
			all = append(all, extent{"ref of a chain", at + mmapslab.HeaderSize, 8})
			key += mmapslab.ChainRefSize
			in.Store.Chain(it, func(data mmapslab.Ref, part []byte) {
				all = append(all, extent{"kind of a data chunk", data.Offset(), 1}, extent{"length and next of a data chunk", data.Offset() + 4, 12},
					extent{"data chunk", data.Offset() + mmapslab.DataHeaderSize, int64(len(part))})
			})
		}
		all = append(all, extent{"key and value", key, int64(len(it.Key()) + len(it.Value()))}, extent{"link", links + int64(in.Store.ID(it.Ref()))*8, 8})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever bit of a stopped file is changed, where a change can be told, check says where and what, exits with 1, never calls the file sound, and does not crash; and nor
// does any other verb.
func TestCheckNamesEachDamage(t *testing.T) {
	file := small(t)
	all := meaningful(t, file)
	tries := 100
	if os.Getenv("HEARTH_LONG") != "" {
		tries = 1000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	byWhat := map[string][]extent{}
	var names []string
	for _, e := range all {
		if byWhat[e.what] == nil {
			names = append(names, e.what)
		}
		byWhat[e.what] = append(byWhat[e.what], e)
	}
	kinds := map[string]int{}
	damaged := copyOf(t, file)
	for i := range tries {
		what := names[i%len(names)]
		e := byWhat[what][r.IntN(len(byWhat[what]))]
		at, bits := e.at, byte(1)<<r.IntN(8)
		switch {
		case e.size < 0: // Meta's bits 3 to 6, as doc.go has them: linked, listed apart, segment
			bits = byte(8) << r.IntN(4)
		default:
			at += r.Int64N(e.size)
		}
		flip(t, damaged, at, bits)
		out, _, err := slabctl(t, strings.NewReader(""), "check", damaged)
		if err == nil || strings.Contains(out, "sound:") && !strings.Contains(out, "not sound:") || !strings.Contains(out, "DAMAGED 0x") {
			t.Errorf("%s: byte %#x, bits %#x: error %v, check says\n%s", e.what, at, bits, err, out)
		}
		for _, line := range strings.Split(out, "\n") {
			if f := strings.Fields(line); len(f) > 3 && f[0] == "DAMAGED" {
				kinds[f[2]+" "+f[3]]++
			}
		}
		if i%10 == 0 {
			others(t, damaged)
		}
		flip(t, damaged, at, bits)
	}
	if out, _, err := slabctl(t, strings.NewReader(""), "check", damaged); err != nil {
		t.Errorf("changed back: %v\n%s", err, out)
	}
	t.Logf("%d damages, findings by how they begin: %v", tries, kinds)
}

// The sum of the links is compared on a disk alone, as a start does: elsewhere its bytes mean nothing, whatever they are. None at all is no damage.
func TestSumOfLinksCountsOnADisk(t *testing.T) {
	stopClock(t)
	for _, dir := range []string{t.TempDir(), memoryDir(t)} {
		path := filepath.Join(dir, "slab")
		writeFile(t, path, 16, things(60))
		in, err := restore.Inspect(path)
		if err != nil {
			t.Fatal(err)
		}
		onDisk, sum := in.File.OnDisk, in.File.Super.Layout.Span(mmapslab.SpanLinkSum)
		saved := slices.Clone(in.Store.Arena().Bytes(sum.Offset, int(sum.Length)))
		in.Close()
		if written := !bytes.Equal(saved, make([]byte, len(saved))); written != onDisk {
			t.Errorf("on a disk: %t, sum %x", onDisk, saved)
		}
		for i := range sum.Length {
			flip(t, path, sum.Offset+i, 1<<(i%8))
			out, _, err := slabctl(t, strings.NewReader(""), "check", path)
			if found := err != nil && strings.Contains(out, fmt.Sprintf("DAMAGED %#012x  mmapslab: checkpoint", sum.Offset)); found != onDisk {
				t.Errorf("on a disk: %t, byte %d of the sum: error %v, check says\n%s", onDisk, i, err, out)
			}
			flip(t, path, sum.Offset+i, 1<<(i%8))
		}
		for i, b := range saved {
			flip(t, path, sum.Offset+int64(i), b)
		}
		if out := must(t, "check", path); !strings.Contains(out, "sound: 66 items") {
			t.Errorf("without a sum check says %s", out)
		}
	}
}

// others runs the other verbs, which may fail but not crash.
func others(t *testing.T, path string) {
	t.Helper()
	for _, args := range [][]string{{"info"}, {"classes"}, {"pages"}, {"stats"}, {"prefixes"}, {"top"}, {"items"}, {"dump", "--format", "json"}, {"report", "-o", "damaged.html"}, {"tune"}} {
		slabctl(t, strings.NewReader(""), append(args, path)...)
	}
	slabctl(t, strings.NewReader(""), "get", path, "user:5")
	slabctl(t, strings.NewReader(""), "page", path, "1")
	slabctl(t, strings.NewReader(""), "item", path, "1/1")
}

// Files of garbage are refused or found damaged, and crash no verb: parts overwritten at random, cut off, of another version, no slab files at all.
func TestGarbageCrashesNothing(t *testing.T) {
	file := small(t)
	r := rand.New(rand.NewPCG(3, 4))
	in, err := restore.Inspect(file)
	if err != nil {
		t.Fatal(err)
	}
	l := in.File.Super.Layout
	in.Close()
	write := func(path string, at int64, b []byte) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	garbage := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for name, damage := range map[string]func(path string){
		"pages":       func(path string) { write(path, int64(l.Pages), garbage(12<<20)) },
		"index":       func(path string) { write(path, int64(l.Index[0]), garbage(512<<10)) },
		"links":       func(path string) { write(path, int64(l.Links), garbage(1<<20)) },
		"page table":  func(path string) { write(path, 1<<20, garbage(64<<10)) },
		"index words": func(path string) { write(path, 8320, garbage(24)) },
		"checkpoint":  func(path string) { write(path, 12288, garbage(15000)) },
		"superblocks": func(path string) { write(path, 8, garbage(5000)) },
		"cut in pages": func(path string) {
			if err := os.Truncate(path, int64(l.Pages)+3<<20+77); err != nil {
				t.Fatal(err)
			}
		},
		"cut in index": func(path string) {
			if err := os.Truncate(path, int64(l.Index[0])+1000); err != nil {
				t.Fatal(err)
			}
		},
		"cut to nothing": func(path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		},
		"another version": func(path string) {
			write(path, 8, []byte{99, 0, 0, 0})
			write(path, 4096+8, []byte{99, 0, 0, 0})
		},
		"version of one copy": func(path string) { write(path, 4096+8, []byte{66}) },
		"a text": func(path string) {
			if err := os.WriteFile(path, []byte("not a slab file\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := copyOf(t, file)
			damage(path)
			out, _, err := slabctl(t, strings.NewReader(""), "check", path)
			if err == nil || !strings.Contains(out, "not sound") {
				t.Errorf("error %v, check says\n%s", err, out)
			}
			if name == "another version" && !strings.Contains(out, "format version 99, want") {
				t.Errorf("check says\n%s", out)
			}
			others(t, path)
			if out := must(t, "info", path); !strings.Contains(out, "a start") {
				t.Errorf("info says\n%s", out)
			}
		})
	}
}

// What check --repair writes is sound, has all items but the damaged ones, and the damaged file stays as it is.
func TestRepairWritesWhatIsSound(t *testing.T) {
	file := small(t)
	damaged := copyOf(t, file)
	flip(t, damaged, itemOffset(t, file, "user:5")+50, 4)       // a value
	flip(t, damaged, itemOffset(t, file, "session:6")+41, 1)    // a key
	flip(t, damaged, itemOffset(t, file, "img:thumb:2")+16, 64) // a length
	before := sum(t, damaged)
	out, _, err := slabctl(t, strings.NewReader(""), "check", damaged, "--repair", "repaired.slab")
	if err == nil {
		t.Errorf("check of a damaged file exits with 0:\n%s", out)
	}
	if sum(t, damaged) != before {
		t.Error("the damaged file was changed")
	}
	if out := must(t, "check", "repaired.slab"); !strings.Contains(out, "sound: 61 items") { // of 66, 2 are dead
		t.Errorf("check of the repaired file says %s", out)
	}
	diff, _, _ := slabctl(t, strings.NewReader(""), "diff", file, "repaired.slab")
	for _, key := range []string{"- user:5\n", "- session:6\n", "- img:thumb:2\n", "only in A:     3 items", "only in B:     0 items", "different:     0 items"} {
		if !strings.Contains(diff, key) {
			t.Errorf("diff does not have %q:\n%s", key, diff)
		}
	}
	if left, _ := filepath.Glob(".repaired*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
