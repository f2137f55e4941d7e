package hearth_test

import (
	"fmt"
	"testing"

	"hearth"
)

// TestExpectChangesNoOutcome asks for what was expected, for something else, in another order, twice, and after the keys were forgotten.
func TestExpectChangesNoOutcome(t *testing.T) {
	c := open(t, heap(8))
	s := session(t, c)
	const n = 1000
	in(s, func() {
		for i := range n {
			if _, st := store(s, hearth.Set, fmt.Sprint("key", i), fmt.Sprint("value", i), 0, 0); st != hearth.OK {
				t.Fatal(st)
			}
		}
	})
	var it hearth.Item
	get := func(i int, key []byte) {
		t.Helper()
		if st := s.Get(key, &it); i < n && (st != hearth.OK || string(it.AppendValue(nil)) != fmt.Sprint("value", i)) || i >= n && st != hearth.Miss {
			t.Errorf("%s: %v %q", key, st, it.AppendValue(nil))
		}
	}
	for round := range 200 {
		var keys [][]byte
		var which []int
		for j := range 1 + round%hearth.ExpectMost {
			i := (round*37 + j*101) % (n + n/10) // some are not there
			which, keys = append(which, i), append(keys, fmt.Append(nil, "key", i))
		}
		in(s, func() {
			s.Expect(keys)
			for j, key := range keys {
				switch round % 4 {
				case 0: // as expected
					get(which[j], key)
				case 1: // each twice
					get(which[j], key)
					get(which[j], key)
				case 2: // the other way round
					get(which[len(keys)-1-j], keys[len(keys)-1-j])
				case 3: // overwritten, deleted and stored again, and with bytes of its own
					if _, st := store(s, hearth.Set, string(key), fmt.Sprint("value", which[j]), 0, 0); st != hearth.OK {
						t.Error(st)
					}
					get(which[j]%n, fmt.Append(nil, "key", which[j]%n))
					if s.Delete(key); which[j] < n {
						store(s, hearth.Add, string(key), fmt.Sprint("value", which[j]), 0, 0)
					}
				}
			}
			if round%4 == 0 && s.Expected() != nil {
				t.Errorf("%s is yet to come", s.Expected())
			}
			s.Expect(keys)
			s.Expect(nil)
			copy(keys[0], "none") // a new key where another one was
			get(n, keys[0])
		})
	}
}

// TestPauseFreesWhatWasReplaced: within a long section nothing would be freed.
func TestPauseFreesWhatWasReplaced(t *testing.T) {
	c := open(t, heap(8))
	c.Pause(true) // the keeper has sections, too
	defer c.Pause(false)
	s := session(t, c)
	in(s, func() {
		var most int64
		for i := range 1000 {
			if _, st := store(s, hearth.Set, "key", fmt.Sprint("value", i), 0, 0); st != hearth.OK {
				t.Fatal(st)
			}
			s.Pause()
			most = max(most, c.Waiting())
		}
		if most > 32 {
			t.Errorf("%d items waited to be freed", most)
		}
		if value, ok := get(s, "key"); !ok || value != "value999" {
			t.Errorf("%q", value)
		}
	})
}
