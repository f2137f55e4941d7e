//go:build faults

package hearth_test

import (
	"fmt"
	"strings"
	"testing"

	"hearth"
	"hearth/mmapslab/fault"
)

// storesOf counts the stores to a word.
type storesOf struct {
	off int64
	n   int
}

func (s *storesOf) Use(int64)            {}
func (s *storesOf) HandedOut(int64, int) {}

func (s *storesOf) Stored(off int64, _ uint64) {
	if off == s.off {
		s.n++
	}
}

// A flush is one store (R7): a kill between two would leave a flush that nobody asked for, or take back one that was acknowledged and waits for its moment.
func TestAFlushIsOneStore(t *testing.T) {
	const flushWord = 8192 + 64 // see mmapslab's format
	c, err := hearth.OpenHeap(hearth.Options{MemoryLimit: 2 << 20, Clock: newClock()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := c.NewSession()
	stores := &storesOf{off: flushWord}
	c.Arena().Trace(stores)
	defer c.Arena().Trace(nil)
	for i, exptime := range []int64{0, 100, 200, 0, 0} {
		in(s, func() { s.FlushAll(exptime) })
		if stores.n != i+1 {
			t.Fatalf("%d stores for %d flushes, the last one with exptime %d", stores.n, i+1, exptime)
		}
	}
}

// A flush that is acknowledged while an item is being copied is one of the copy, too.
func TestAFlushReachesCopiesUnderWay(t *testing.T) {
	c := open(t, heap(8))
	s, other := session(t, c), session(t, c)
	for name, copies := range map[string]func(key []byte){
		"incr":       func(key []byte) { s.Incr(key, 1) },
		"append":     func(key []byte) { put(t, s, hearth.Append, string(key), []byte("0")) },
		"invalidate": func(key []byte) { s.MetaDelete(key, &hearth.DeleteOptions{Invalidate: true}) },
		"touch": func(key []byte) {
			s.Claim(key)
			s.Touch(key, 100)
		},
	} {
		in(s, func() { put(t, s, hearth.Set, name, []byte("5")) })
		flushed := false
		fault.Set(func(point string) {
			if point == "hearth.remake.claimed" && !flushed {
				flushed = true
				in(other, func() { other.FlushAll(0) })
			}
		})
		in(s, func() { copies([]byte(name)) })
		fault.Set(nil)
		if !flushed {
			t.Errorf("%s copied nothing", name)
		}
		in(s, func() { wantMiss(t, s, name) })
	}
}

// What is stored while a flush comes by has the flush epoch by which its key was judged: an add that succeeds since the flush has freed the key stays, and what others store
// after the flush is not replaced by something flushed.
func TestAFlushBesideAStoreLosesNothing(t *testing.T) {
	large := strings.Repeat("large", 60_000) // in chunks
	for _, at := range []string{"hearth.draft.sealed", "hearth.draft.linked"} {
		for _, value := range []string{"mine", large} {
			for mode, name := range map[hearth.Mode]string{hearth.Set: "set", hearth.Add: "add", hearth.Replace: "replace"} {
				t.Run(fmt.Sprintf("%s/%s/%d", at, name, len(value)), func(t *testing.T) {
					o := heap(16)
					o.ChunkMax = 64 << 10
					c := open(t, o)
					s, other := session(t, c), session(t, c)
					if mode != hearth.Add || at == "hearth.draft.sealed" {
						in(other, func() { put(t, other, hearth.Set, "key", []byte("old")) })
					}
					passed := false
					fault.Set(func(point string) {
						if point != at || passed {
							return
						}
						passed = true
						in(other, func() {
							if mode == hearth.Add {
								put(t, other, hearth.Set, "key", []byte("other")) // where the key was free, its insertion is taken away from the add
								other.FlushAll(0)
								return
							}
							other.FlushAll(0)
							put(t, other, hearth.Set, "key", []byte("other"))
						})
					})
					defer fault.Set(nil)
					in(s, func() {
						if st := put(t, s, mode, "key", []byte(value)); st != hearth.OK {
							t.Errorf("%v, want it stored", st)
						}
						if got, _ := get(s, "key"); got != value {
							t.Errorf("%.20q of %d bytes, want the %d that were stored", got, len(got), len(value))
						}
					})
					if !passed {
						t.Errorf("%s was not passed", at)
					}
					check(t, c)
				})
			}
		}
	}
}
