package restore_test

import (
	"context"
	"fmt"
	"testing"

	"hearth/mmapslab"
	"hearth/restore"
)

// grow ends what growth of the index is under way, then stores items until n more began. The last one stays under way if told so.
func (f *fixture) grow(t testing.TB, n int, underWay bool) {
	t.Helper()
	f.endGrowth()
	for i := range n {
		for !f.Index.Growing() {
			f.put(t, fmt.Sprint("more", len(f.items)), 10)
			f.Index.Help(1)
		}
		if i < n-1 || !underWay {
			f.endGrowth()
		}
	}
}

func (f *fixture) endGrowth() {
	for f.Index.Help(1 << 16) {
	}
}

// growing is a fixture with so many small items, and the same opened as the file of a live server.
func growing(t testing.TB, buckets uint32, items int) (*fixture, *restore.Inspected) {
	t.Helper()
	f := newFixtureOf(t, 16, buckets)
	f.fill(t, 0, 3)
	for i := range items {
		f.put(t, fmt.Sprint("small", i), 10)
	}
	in, err := restore.Inspect(f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	in.Server = "1"
	return f, in
}

// before calls do before the n-th step of a check or a walk, from 0 on.
func before(n int, do func()) func(context.Context) {
	return func(context.Context) {
		if n--; n == -1 {
			do()
		}
	}
}

// While the index of a live file is scanned it grows, once or several times, to the end or not: the scan begins anew where it has to, finds nothing wrong, and has all items.
func TestIndexGrowsDuringAScan(t *testing.T) {
	restore.SetBucketsAStep(t, 16)
	for name, c := range map[string]struct {
		growing    bool // at the beginning of the scan
		step       int  // before which the index grows
		growths    int
		underWay   bool // the last one, from then on
		wantedAnew int
	}{
		"begins":                        {false, 0, 1, true, 1},
		"begins and ends":               {false, 0, 1, false, 1},
		"twice, into the same half":     {false, 0, 2, false, 1},
		"begins between two steps":      {false, 2, 1, true, 1},
		"grows between two steps":       {false, 2, 1, false, 1},
		"twice between two steps":       {false, 2, 2, false, 1},
		"ends":                          {true, 0, 0, false, 0},
		"ends between two steps":        {true, 2, 0, false, 0},
		"ends, and the next one begins": {true, 2, 1, true, 1},
		"ends, and the next one ends":   {true, 2, 1, false, 1},
	} {
		for _, verb := range []string{"check", "walk"} {
			t.Run(verb+" "+name, func(t *testing.T) {
				f, in := growing(t, 64, 250)
				if c.growing {
					f.grow(t, 1, true)
				}
				pace := before(c.step, func() { f.grow(t, c.growths, c.underWay) })
				var got restore.Walked
				if verb == "check" {
					checked, err := in.Check(t.Context(), restore.CheckOptions{Pace: pace})
					if err != nil || len(checked.Findings) > 0 {
						t.Errorf("%v, findings %v", err, checked.Findings)
					}
					got = restore.Walked{Items: checked.Items, Changed: checked.Changed, Anew: checked.Anew}
				} else {
					var err error
					if got, err = in.Walk(t.Context(), restore.WalkOptions{Pace: pace}, func(int, *mmapslab.Item, mmapslab.Meta) {}); err != nil {
						t.Error(err)
					}
				}
				if want := (restore.Walked{Items: int64(len(f.items)), Anew: c.wantedAnew}); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				if f.Index.Growing() != c.underWay {
					t.Error("the index did not grow as it was to")
				}
			})
		}
	}
}

// While a check goes over the index once more, to tell what is wrong with suspects, the index grows twice each time: what it sees then, words of another table, is no finding.
func TestIndexGrowsWhileSuspectsAreExplained(t *testing.T) {
	const times, suspects = 4, 40 // as often as a suspect is looked at
	f, in := growing(t, 16, 10)
	_, pages, _ := f.Store.Pages()
	step, grew := 0, 0
	checked, err := in.Check(t.Context(), restore.CheckOptions{Pace: func(context.Context) {
		switch step++; {
		case step == 1:
			for i := range suspects { // in a page, of a class too, that came after the check began
				f.put(t, fmt.Sprint("late", i), 200)
			}
		case step > 1+pages && grew < times:
			grew++
			f.grow(t, 2, false)
		}
	}})
	if err != nil || len(checked.Findings) > 0 || checked.Anew != times || checked.Changed != suspects || grew != times {
		t.Errorf("%+v, %v, after %d times", checked, err, grew)
	}
}
