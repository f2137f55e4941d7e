package mmapslab_test

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hearth/mmapslab"
)

// saved is what an item of ours needs less than one of memcached's, in whole words.
const saved = 16

func TestDefaultClassesAreMemcachedsLessTheHeaderSaved(t *testing.T) {
	memcached := []int{96, 120, 152, 192, 240, 304, 384, 480, 600, 752, 944, 1184, 1480, 1856, 2320, 2904, 3632, 4544, 5680, 7104, 8880, 11104, 13880,
		17352, 21696, 27120, 33904, 42384, 52984, 66232, 82792, 103496, 129376, 161720, 202152, 252696, 315872, 394840, 524288}
	got := mmapslab.ChunkSizes(1.25, 48, 512<<10)
	if len(got) != len(memcached) {
		t.Fatalf("%d classes, want %d", len(got), len(memcached))
	}
	for i, size := range memcached {
		if want := size - saved; got[i] != want && i < len(got)-1 || i == len(got)-1 && got[i] != size {
			t.Errorf("class %d: chunks of %d, memcached's are of %d", i+1, got[i], size)
		}
	}
}

func TestClassesAreThoseThatMemcachedPrintsLessTheHeaderSaved(t *testing.T) {
	path, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("memcached is not installed")
	}
	unit := 1 // of slab_chunk_max: KiB today, bytes in older versions
	if sizes := printed(t, path, "-o", "slab_chunk_max=512"); sizes[len(sizes)-1] == 512 {
		unit = 1024
	}
	for _, c := range []struct {
		factor  string
		min, kb int
	}{
		{"1.25", 48, 512}, {"1.25", 48, 1024}, {"1.25", 48, 1}, {"1.25", 64, 512}, {"1.25", 16, 512}, {"1.25", 100, 256}, {"1.25", 8, 512},
		{"1.25", 1, 512}, {"1.05", 48, 512}, {"1.05", 1, 512}, {"1.08", 48, 512}, {"1.1", 72, 128}, {"1.15", 48, 64}, {"1.2", 33, 512},
		{"1.3", 48, 512}, {"1.5", 48, 512}, {"1.5", 200, 16}, {"2", 48, 512}, {"2", 80, 1024}, {"3.7", 48, 512}, {"10", 500, 512}, {"1.01", 48, 512},
		{"1.0625", 48, 1024}, {"1.125", 4000, 1024},
	} {
		t.Run(fmt.Sprintf("f%s,n%d,%dk", c.factor, c.min, c.kb), func(t *testing.T) {
			t.Parallel()
			var want []int
			theirs := printed(t, path, "-f", c.factor, "-n", fmt.Sprint(c.min), "-o", fmt.Sprintf("slab_chunk_max=%d", c.kb*unit))
			for i, size := range theirs {
				// The documented differences.
				if i < len(theirs)-1 {
					size = max(size-saved, mmapslab.MinChunkSize)
				}
				if len(want) == 0 || size != want[len(want)-1] {
					want = append(want, size)
				}
			}
			var factor float64
			fmt.Sscan(c.factor, &factor)
			if got := mmapslab.ChunkSizes(factor, c.min, c.kb<<10); !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// printed returns the chunk sizes that memcached -vv prints.
func printed(t *testing.T, path string, args ...string) (sizes []int) {
	t.Helper()
	cmd := exec.Command(path, append([]string{"-vv", "-u", "root", "-t", "1", "-s", filepath.Join(t.TempDir(), "s")}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for lines := bufio.NewScanner(stderr); lines.Scan() && strings.HasPrefix(lines.Text(), "slab class"); {
		var class, size int
		if _, err := fmt.Sscanf(lines.Text(), "slab class %d: chunk size %d", &class, &size); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size)
	}
	if len(sizes) == 0 {
		t.Fatal("memcached printed no classes")
	}
	return sizes
}

func TestRefusesClassTables(t *testing.T) {
	for _, sizes := range [][]int{nil, {56}, {100}, {96, 96}, {120, 96}, {96, mmapslab.PageSize + 8}, make([]int, 64)} {
		if _, err := mmapslab.Create(nil, mmapslab.Config{Pages: 1, ChunkSizes: sizes, Heap: true}, id, 0, 0); err == nil ||
			!strings.Contains(err.Error(), "mmapslab: chunk sizes: ") {
			t.Errorf("sizes %v: %v", sizes, err)
		}
	}
}
