package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// fillOver stores so many items, with keys of 20 bytes, and returns how many the server then holds.
func fillOver(t *testing.T, addr string, items, size int) int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, value := bufio.NewWriterSize(c, 1<<20), bytes.Repeat([]byte("v"), size)
	for i := range items {
		fmt.Fprintf(w, "set k%019d 0 0 %d noreply\r\n%s\r\n", i, size, value)
	}
	w.WriteString("mn\r\n")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "MN\r\n" {
		t.Fatalf("got %q, %v, want MN: a store was refused", line, err)
	}
	n, err := strconv.Atoi(stat(t, addr, "curr_items"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHoldsMoreItemsThanMemcached fills both with items of one size after the other, each over a fresh start.
func TestHoldsMoreItemsThanMemcached(t *testing.T) {
	memcached, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("memcached is not installed (apt-get install memcached)")
	}
	mib := 16
	if os.Getenv("HEARTH_LONG") != "" {
		mib = 1024
	}
	var ratios []float64
	for _, size := range []int{10, 50, 100, 300, 1000} {
		items := mib << 20 / (60 + size) * 11 / 10
		m := fmt.Sprint(mib)
		p := startHearthd(t, "-m", m)
		ours := fillOver(t, p.addr, items, size)
		p.stop(t, syscall.SIGTERM)
		addr, said := startMemcached(t, memcached, "-l", "127.0.0.1", "-m", m)
		if addr == "" {
			t.Fatal(said)
		}
		theirs := fillOver(t, addr, items, size)
		ratio := float64(ours) / float64(theirs)
		ratios = append(ratios, ratio)
		t.Logf("-m %d, values of %d bytes: %d items, memcached %d: %.3f", mib, size, ours, theirs, ratio)
		if ratio < 1 {
			t.Errorf("values of %d bytes: %d items, memcached holds %d", size, ours, theirs)
		}
	}
	if slices.Sort(ratios); ratios[len(ratios)/2] < 1.08 {
		t.Errorf("the median is %.3f times memcached's, want 1.08", ratios[len(ratios)/2])
	}
}
