//go:build long

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// largeItems is how many items the file of the figures has; HEARTH_ITEMS changes it.
func largeItems() int {
	if n, err := strconv.Atoi(os.Getenv("HEARTH_ITEMS")); err == nil && n > 0 {
		return n
	}
	return 10_000_000
}

// writeLarge makes a file of n items of about 130 bytes under a thousand prefixes.
func writeLarge(t testing.TB, path string, n int) {
	t.Helper()
	w := fixtureWriter(t, path, n/4000+200, n)
	value := []byte(strings.Repeat("v", 200))
	for i := range n {
		th := thing{key: fmt.Sprintf("app%d:user:%d", i*7919%1000, i), value: value[:40+i%60], idle: uint32(i % 86400), segment: i % 3, fetched: i%3 == 0}
		if i%2 == 0 {
			th.ttl = int64(1 + i%1_000_000)
		}
		addThing(t, w, &th, uint64(i+1))
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// With ten million items check takes 10 s at most, prefixes 5 s and report 15 s, on two processors, with 300 MiB resident, pages of the file included.
func TestTenMillionItemsTakeSeconds(t *testing.T) {
	dir := memoryDir(t)
	file, program := filepath.Join(dir, "large.slab"), build(t, dir, "hearth/tools/slabctl")
	writeLarge(t, file, largeItems())
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // what was resident here at most, a process that is started inherits
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		most time.Duration
	}{
		{[]string{"check", file}, 10 * time.Second},
		{[]string{"prefixes", file}, 5 * time.Second},
		{[]string{"report", file, "-o", filepath.Join(dir, "report.html")}, 15 * time.Second},
	} {
		cmd := exec.Command(program, c.args...)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(began)
		if err != nil {
			t.Errorf("%v: %v\n%s", c.args, err, out)
			continue
		}
		resident := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss / 1024
		t.Logf("%s: %.1f s, %d MiB resident at most", c.args[0], took.Seconds(), resident)
		if took > c.most || resident > 300 {
			t.Errorf("%s took %v and %d MiB, want at most %v and 300 MiB", c.args[0], took, resident, c.most)
		}
	}
}
