package hearth_test

import (
	"fmt"
	"os"
	"testing"

	"hearth"
)

// BenchmarkSweepAfterKill sweeps what a kill left of a million items of ten bytes, with nobody else at work. HEARTH_SWEEP_ITEMS says how many others.
func BenchmarkSweepAfterKill(b *testing.B) {
	items := 1_000_000
	fmt.Sscan(os.Getenv("HEARTH_SWEEP_ITEMS"), &items)
	dir, err := os.MkdirTemp("/dev/shm", "hearth-sweep")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(dir)
	o := hearth.Options{Path: dir + "/slab", MemoryLimit: int64(items)*120 + 64<<20}
	c, err := hearth.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	for i := range items {
		if err := c.Set(fmt.Appendf(nil, "item-%08d", i), []byte("0123456789"), 0, 0); err != nil {
			b.Fatal(err)
		}
	}
	if st := c.Stats(); st.CurrItems != uint64(items) {
		b.Fatalf("%d items stored, want %d; evictions %d", st.CurrItems, items, st.Evictions)
	}
	var took int64
	for b.Loop() {
		b.StopTimer()
		if err := c.Abandon(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if c, err = hearth.Open(o); err != nil {
			b.Fatal(err)
		}
		c.WaitSwept()
		took += c.Stats().RestartSweepMillis
	}
	if n := c.Stats().CurrItems; n != uint64(items) {
		b.Errorf("%d items, want %d", n, items)
	}
	b.ReportMetric(float64(took)/float64(b.N), "sweep-ms/op")
	c.Close()
}
