//go:build faults

package hearth_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hearth"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
)

// Where mmapslab's format has its superblocks.
const superblocks = 8192

// image reads the file without its superblocks, holes included, in pages of which only those that are not zero are kept.
func image(t *testing.T, path string) map[int64]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages := map[int64]string{}
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(superblocks); ; {
		if next, err := f.Seek(at, 3); err == nil { // SEEK_DATA
			at = max(at, next&^4095)
		} else {
			return pages
		}
		n, _ := f.ReadAt(buf, at)
		for i := 0; i < n; i += 4096 {
			if p := buf[i:min(i+4096, n)]; !bytes.Equal(p, zero[:len(p)]) {
				pages[at+int64(i)] = string(p)
			}
		}
		at += int64(n)
	}
}

func fileState(t *testing.T, path string) mmapslab.State {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 44)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return mmapslab.State(b[40])
}

// On a disk, the superblocks say running, and the disk has confirmed it, before anything else in the file changes: otherwise a power loss could leave changed pages
// behind a superblock that still says clean. The other way round, everything is confirmed before they say clean and durable.
func TestDurableMarksComeBeforeAndAfterAllChanges(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, MaxItemSize: 1 << 20}
	file, err := mmapslab.OpenFile(o.Path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if file.Close(); !file.OnDisk {
		t.Skip("the directory for tests is in memory")
	}
	for _, clean := range []bool{true, false} {
		fillFile(t, o, 2000, clean)
		before := image(t, o.Path)
		var synced []mmapslab.State
		var images []map[int64]string
		fault.Set(func(point string) {
			if point == "mmapslab.synced" {
				synced, images = append(synced, fileState(t, o.Path)), append(images, image(t, o.Path))
			}
		})
		defer fault.Set(nil)
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.WaitSwept()
		if len(synced) != 1 || synced[0] != mmapslab.Running {
			t.Fatalf("clean %t: synced at a start in states %v, want once, running", clean, synced)
		}
		if at := differ(before, images[0]); at != "" {
			t.Errorf("clean %t: %s had changed before the state was durable", clean, at)
		}
		do(c, func(s *hearth.Session) { store(s, hearth.Set, "another", "value", 0, 0) })
		synced, images = nil, nil
		closeCache(t, c)
		fault.Set(nil)
		if len(synced) != 2 || synced[0] != mmapslab.Clean || synced[1] != mmapslab.CleanDurable {
			t.Fatalf("clean %t: synced at a stop in states %v, want clean, then clean and durable", clean, synced)
		}
		if at := differ(images[0], images[1]) + differ(images[1], image(t, o.Path)); at != "" {
			t.Errorf("clean %t: %s changed after it was said to be durable", clean, at)
		}
	}
}

func differ(a, b map[int64]string) string {
	for at := range a {
		if a[at] != b[at] {
			return fmt.Sprintf("offset %d", at)
		}
	}
	for at := range b {
		if a[at] != b[at] {
			return fmt.Sprintf("offset %d", at)
		}
	}
	return ""
}

// A fault of the memory in an attach is a cold start that tells of it, and the next one is warm.
func TestFaultWhileAttachingIsAColdStart(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
	fillFile(t, o, 500, true)
	fault.Set(func(point string) {
		if point == "hearth.attach.running" {
			fault.Set(nil)
			if err := os.Truncate(o.Path, superblocks); err != nil {
				t.Error(err)
			}
		}
	})
	defer fault.Set(nil)
	if _, reason := wantFile(t, o, 500, "cold", true); !strings.Contains(reason, "hearth: fault in the cache's memory at address") {
		t.Error(reason)
	}
	wantFile(t, o, 0, "clean", true)
}
