package hearth_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hearth"
)

// call is one operation of a history, and its outcome.
type call struct {
	op      string
	key     string
	value   string // given
	cas     uint64 // given
	exptime uint32 // given, in seconds since 1970; 0: never
}

type outcome struct {
	status  hearth.Status
	value   string
	cas     uint64
	exptime uint32
}

// register is a key's state: cas 0 means there is no item.
type register struct {
	value   string
	cas     uint64
	exptime uint32
}

func (r register) String() string {
	if r.cas == 0 {
		return "a miss"
	}
	return fmt.Sprintf("%d bytes %.30q, cas %d, exptime %d", len(r.value), r.value, r.cas, r.exptime)
}

// step says what a call may do to a key, as the protocol tells it.
func step(r register, in call, out outcome) (ok bool, next register) {
	there := r.cas != 0
	fails := func(want hearth.Status) (bool, register) { return out.status == want, r }
	becomes := func(value string, exptime uint32) (bool, register) {
		return out.status == hearth.OK, register{value, out.cas, exptime}
	}
	switch in.op {
	case "get", "peek":
		if !there {
			return fails(hearth.Miss)
		}
		return out.status == hearth.OK && register{out.value, out.cas, out.exptime} == r, r
	case "gat":
		if !there {
			return fails(hearth.Miss)
		}
		return out.status == hearth.OK && out.value == r.value && out.cas == r.cas, register{r.value, r.cas, in.exptime}
	case "set":
		return becomes(in.value, in.exptime)
	case "add":
		if there {
			return fails(hearth.NotStored)
		}
		return becomes(in.value, in.exptime)
	case "append", "prepend":
		switch {
		case !there:
			return fails(hearth.NotStored)
		case in.op == "append":
			return becomes(r.value+in.value, r.exptime)
		}
		return becomes(in.value+r.value, r.exptime)
	case "cas":
		switch {
		case !there:
			return fails(hearth.Miss)
		case r.cas != in.cas:
			return fails(hearth.Exists)
		}
		return becomes(in.value, in.exptime)
	case "incr":
		if !there {
			return fails(hearth.Miss)
		}
		n, err := strconv.ParseUint(r.value, 10, 64)
		if err != nil {
			return fails(hearth.NonNumeric)
		}
		return out.status == hearth.OK && out.value == fmt.Sprint(n+1), register{out.value, out.cas, r.exptime}
	case "touch":
		if !there {
			return fails(hearth.Miss)
		}
		return out.status == hearth.OK, register{r.value, r.cas, in.exptime}
	case "flush": // of all keys: a call for each
		return out.status == hearth.OK, register{}
	case "delete", "expire":
		if !there {
			return fails(hearth.Miss)
		}
		return out.status == hearth.OK, register{}
	}
	panic(in.op)
}

// registers is the porcupine model; with losses, an item may vanish before any step, as an evicted one does, and calls may find no memory.
func registers(losses bool) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
			by := map[string][]porcupine.Operation{}
			for _, op := range history {
				k := op.Input.(call).key
				by[k] = append(by[k], op)
			}
			for _, part := range by {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() []any { return []any{register{}} },
		Step: func(state, in, out any) (next []any) {
			if ok, r := step(state.(register), in.(call), out.(outcome)); ok {
				next = append(next, r)
			}
			if losses {
				if ok, r := step(register{}, in.(call), out.(outcome)); ok {
					next = append(next, r)
				}
				// Where memory is full, sections that stay open can keep all of it for a while.
				if in, st := in.(call), out.(outcome).status; st == hearth.NoMemory || st == hearth.NotStored && strings.HasSuffix(in.op, "pend") {
					next = append(next, state.(register), register{})
				}
			}
			return next
		},
	}
	return m.ToModel()
}

// perform does one call.
func perform(s *hearth.Session, in call) outcome { return performOn(s, in, []byte(in.key)) }

// performOn is perform with the bytes of the key, which the session may have been told to expect.
func performOn(s *hearth.Session, in call, key []byte) (out outcome) {
	var it hearth.Item
	switch in.op {
	case "get":
		if out.status = s.Get(key, &it); out.status == hearth.OK {
			out.value, out.cas, out.exptime = string(it.AppendValue(nil)), it.CAS, it.Exptime
		}
	case "peek": // leaves no trace; to the model it is a get
		var got hearth.Fetch
		if out.status = s.MetaGet(key, &hearth.GetOptions{Peek: true}, &got); out.status == hearth.OK {
			out.value, out.cas, out.exptime = string(got.AppendValue(nil)), got.CAS, got.Exptime
		}
	case "gat":
		if out.status = s.GetAndTouch(key, int64(in.exptime), &it); out.status == hearth.OK {
			out.value, out.cas, out.exptime = string(it.AppendValue(nil)), it.CAS, it.Exptime
		}
	case "incr":
		var n uint64
		if n, out.status = s.Arith(key, &hearth.ArithOptions{Delta: 1}, &it); out.status == hearth.OK {
			out.value, out.cas = fmt.Sprint(n), it.CAS
		}
	case "touch":
		out.status = s.Touch(key, int64(in.exptime))
	case "expire":
		out.status = s.Touch(key, -1)
	case "delete":
		out.status = s.Delete(key)
	case "flush":
		s.FlushAll(0)
	default:
		mode := map[string]hearth.Mode{"set": hearth.Set, "add": hearth.Add, "append": hearth.Append, "prepend": hearth.Prepend, "cas": hearth.CAS}[in.op]
		out.cas, out.status = store(s, mode, in.key, in.value, int64(in.exptime), in.cas)
	}
	return out
}

// farExptime is a moment long from now.
func farExptime(r *rand.Rand) uint32 { return 2_100_000_000 + uint32(r.IntN(1e6)) }

// history lets goroutines work on few keys and returns what each saw. Times are taken from the clock rather than from a shared counter,
// whose synchronization would hide races from the detector.
func history(t *testing.T, c *hearth.Cache, goroutines, calls, keys int, beside func(s *hearth.Session, r *rand.Rand)) []porcupine.Operation {
	t.Helper()
	began := time.Now()
	all := make([][]porcupine.Operation, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			s := c.NewSession()
			defer s.Close()
			r := rand.New(rand.NewPCG(uint64(g), 1))
			var seen uint64
			for i := range calls {
				in := call{op: []string{"get", "get", "set", "add", "append", "cas", "incr", "incr", "touch", "gat", "delete"}[r.IntN(11)], key: fmt.Sprint("key", r.IntN(keys))}
				switch in.op {
				case "set", "add", "cas":
					in.value = fmt.Sprint(r.IntN(1e4))
					if r.IntN(8) == 0 {
						in.value = fmt.Sprint(g, i) + strings.Repeat("v", 3000) // chained
					}
					in.cas = seen
				case "touch", "gat":
					in.exptime = farExptime(r)
				case "append":
					in.value = fmt.Sprint(r.IntN(10))
				}
				s.Begin()
				key := []byte(in.key)
				if r.IntN(2) == 0 { // what it finds is what is there when it is called, not when it was expected
					s.Expect([][]byte{key})
					runtime.Gosched()
				}
				called := time.Since(began).Nanoseconds()
				out := performOn(s, in, key)
				returned := time.Since(began).Nanoseconds()
				if out.status == hearth.OK && out.cas != 0 {
					seen = out.cas
				}
				s.End()
				all[g] = append(all[g], porcupine.Operation{ClientId: g, Input: in, Call: called, Output: out, Return: returned})
				if beside != nil {
					s.Begin()
					beside(s, r)
					s.End()
				}
			}
		})
	}
	wg.Wait()
	var ops []porcupine.Operation
	for _, part := range all {
		ops = append(ops, part...)
	}
	return ops
}

func wantLinearizable(t *testing.T, losses bool, ops []porcupine.Operation) {
	t.Helper()
	if result := porcupine.CheckOperationsTimeout(registers(losses), ops, 20*time.Second); result != porcupine.Ok {
		t.Errorf("history of %d operations: %v", len(ops), result)
	}
}

func TestOperationsAreLinearizable(t *testing.T) {
	o := heap(8)
	o.ChunkMax, o.MaxItemSize = 2048, 256<<10
	for round := range 3 {
		c := open(t, o)
		wantLinearizable(t, false, history(t, c, 8, 150, 3+round, nil))
	}
}

func TestOperationsAreLinearizableWhileItemsAreEvicted(t *testing.T) {
	o := heap(2)
	o.ChunkMax, o.MaxItemSize = 2048, 256<<10
	c := open(t, o)
	value := strings.Repeat("x", 1000)
	ops := history(t, c, 8, 150, 4, func(s *hearth.Session, r *rand.Rand) {
		for range 4 {
			store(s, hearth.Set, fmt.Sprint("churn", r.IntN(1e5)), value, 0, 0)
		}
	})
	wantLinearizable(t, true, ops)
	if st := c.Stats(); st.Evictions == 0 {
		t.Error("nothing was evicted")
	}
}

// moving is a small cache of two classes whose pages move back and forth until stop is called, while items are evicted and crawls go round.
func moving(t *testing.T, seed uint64) (_ *hearth.Cache, stop func() hearth.Stats) {
	t.Helper()
	o := heap(3)
	o.MaxItemSize, o.ChunkMax, o.SlabSizes = 256<<10, 2048, []int{1024} // values above are no numbers to the cache
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		r := rand.New(rand.NewPCG(seed, 8))
		for {
			select {
			case <-done:
				return
			default:
			}
			if src := 1 + r.IntN(2); r.IntN(4) == 0 {
				c.CancelMove()
			} else {
				c.EmptyPage(src, r.IntN(2)*(3-src))
			}
			c.CrawlNow()
			c.Round()
		}
	}()
	return c, func() hearth.Stats {
		close(done)
		<-over
		check(t, c)
		st := c.Stats()
		closeCache(t, c)
		return st
	}
}

// churnBeside makes others' items go.
func churnBeside(s *hearth.Session, r *rand.Rand) {
	for range 3 {
		store(s, hearth.Set, fmt.Sprint("churn", r.IntN(1e5)), strings.Repeat("x", r.IntN(3500)), 0, 0)
	}
}

// TestHistoriesAreLinearizableWhilePagesMove is with evictions, page moves and crawls. Each history is judged a second time with one answer in it replaced by what the key held before: that must be found.
// With kills in it, see TestEveryStoreLeavesWhatWasAcknowledged.
func TestHistoriesAreLinearizableWhilePagesMove(t *testing.T) {
	histories := 50
	switch {
	case os.Getenv("HEARTH_LONG") != "":
		histories = 1000
	case testing.Short() && raceEnabled:
		histories = 4
	}
	planted, moves, evictions, calls := 0, uint64(0), uint64(0), 0
	for i := range histories {
		seed := max(*seedWanted, 1) + uint64(i)
		c, stop := moving(t, seed)
		ops := history(t, c, 8, 120, 6, churnBeside)
		st := stop()
		moves, evictions = moves+st.SlabsMoved, evictions+st.Evictions
		calls += len(ops)
		wantLinearizable(t, true, ops)
		if old, ok := bringBack(ops, rand.New(rand.NewPCG(seed, 9))); ok {
			if planted++; porcupine.CheckOperationsTimeout(registers(true), old, 20*time.Second) != porcupine.Illegal {
				t.Errorf("a value that came back was not found")
			}
		}
		if t.Failed() {
			t.Fatalf("again with: go test -run %s -seed %d .", t.Name(), seed)
		}
	}
	t.Logf("%d histories of %d calls, %d evictions, %d pages moved: all in order; %d planted values that came back, all found", histories, calls, evictions, moves, planted)
	if planted < histories*3/4 || evictions == 0 {
		t.Errorf("%d planted in %d histories, %d evictions", planted, histories, evictions)
	}
}

// bringBack returns the history with the answer of one get replaced by a value that another call had overwritten before it was called.
func bringBack(ops []porcupine.Operation, r *rand.Rand) (changed []porcupine.Operation, ok bool) {
	changed = append(changed, ops...)
	for _, i := range r.Perm(len(ops)) {
		get := ops[i]
		if get.Input.(call).op != "get" {
			continue
		}
		for _, j := range r.Perm(len(ops)) {
			was, set := ops[j], ops[j].Input.(call)
			out := was.Output.(outcome)
			if set.op != "set" || set.key != get.Input.(call).key || out.status != hearth.OK {
				continue
			}
			for _, over := range ops { // a set that began after the first was over, and was over before the get began
				if in := over.Input.(call); in.op == "set" && in.key == set.key && over.Output.(outcome).status == hearth.OK && was.Return < over.Call && over.Return < get.Call {
					changed[i].Output = outcome{value: set.value, cas: out.cas}
					return changed, true
				}
			}
		}
	}
	return nil, false
}

// The test of the test: outcomes that no order of the calls explains are found.
func TestTheModelFindsWrongHistories(t *testing.T) {
	op := func(client int, in call, out outcome, from, to int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Output: out, Call: from, Return: to}
	}
	set := op(0, call{op: "set", key: "k", value: "1"}, outcome{cas: 5}, 0, 1)
	for name, ops := range map[string][]porcupine.Operation{
		"lost":       {set, op(1, call{op: "get", key: "k"}, outcome{status: hearth.Miss}, 2, 3)},
		"torn":       {set, op(1, call{op: "get", key: "k"}, outcome{value: "2", cas: 5}, 2, 3)},
		"back again": {set, op(0, call{op: "delete", key: "k"}, outcome{}, 2, 3), op(1, call{op: "get", key: "k"}, outcome{value: "1", cas: 5}, 4, 5)},
		"add twice":  {op(0, call{op: "add", key: "k"}, outcome{cas: 1}, 0, 9), op(1, call{op: "add", key: "k"}, outcome{cas: 2}, 0, 9)},
		"cas twice": {set, op(0, call{op: "cas", key: "k", cas: 5}, outcome{cas: 6}, 2, 9),
			op(1, call{op: "cas", key: "k", cas: 5}, outcome{cas: 7}, 2, 9)},
		"lost incr": {set, op(0, call{op: "incr", key: "k"}, outcome{value: "2", cas: 6}, 2, 9), op(1, call{op: "incr", key: "k"}, outcome{value: "2", cas: 7}, 2, 9)},
	} {
		if porcupine.CheckOperations(registers(false), ops) {
			t.Errorf("%s: found in order", name)
		}
	}
	if !porcupine.CheckOperations(registers(true), []porcupine.Operation{set, op(1, call{op: "get", key: "k"}, outcome{status: hearth.Miss}, 2, 3)}) {
		t.Error("an eviction is not allowed where it should be")
	}
}
