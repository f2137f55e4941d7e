package hearth_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth"
)

// moved waits for the move that was asked for to end, and helps.
func moved(t testing.TB, c *hearth.Cache) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); c.Stats().SlabReassignRunning; c.Round() {
		if time.Now().After(end) {
			t.Fatalf("the page does not move: %+v", c.Stats())
		}
	}
}

// movePage moves a page and waits for it.
func movePage(t testing.TB, c *hearth.Cache, src, dst int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; c.Round() {
		result := c.MovePage(src, dst)
		if result == hearth.MoveStarted {
			break
		}
		if result != hearth.MoveBusy || time.Now().After(end) {
			t.Fatalf("move of a page from %d to %d: %d", src, dst, result)
		}
	}
	before := c.Stats().SlabsMoved
	moved(t, c)
	if after := c.Stats().SlabsMoved; after == 0 || after < before {
		t.Fatalf("%d pages moved, %d before", after, before)
	}
}

// keepMoving moves pages from anywhere to anywhere, without evicting, until stop is called. Moves that find no room are broken off.
func keepMoving(t testing.TB, c *hearth.Cache) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	r := rand.New(rand.NewPCG(7, 7))
	go func() {
		defer close(done)
		for rounds := 0; ; rounds++ {
			select {
			case <-end:
				c.CancelMove()
				return
			default:
			}
			if c.Round(); rounds < 1000 && c.Stats().SlabReassignRunning {
				continue
			}
			rounds = 0
			c.CancelMove()
			var classes []int
			for _, class := range c.ClassStats() {
				classes = append(classes, class.ID)
			}
			if len(classes) > 0 {
				src, dst := classes[r.IntN(len(classes))], classes[r.IntN(len(classes))]
				if r.IntN(4) > 0 { // pages must not pile up in classes that have no use for them
					dst = 0
				}
				if src != dst {
					c.EmptyPage(src, dst)
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		for wait := time.Now().Add(20 * time.Second); time.Now().Before(wait); time.Sleep(time.Millisecond) {
			if st := c.Stats(); st.SlabReassignRescues+st.SlabReassignChunkRescues > 0 {
				break // on a busy machine the caller's work may be done before the first move
			}
		}
		close(end)
		<-done
		if st := c.Stats(); st.SlabReassignRescues+st.SlabReassignChunkRescues == 0 {
			t.Errorf("%d pages and %d items moved", st.SlabsMoved, st.SlabReassignRescues)
		}
	})
}

// room gives the classes of values of these sizes two pages and more, half empty, so that what is in one can move to another.
func room(t testing.TB, c *hearth.Cache, sizes ...int) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for _, size := range sizes {
			n := 5 << 19 / (size + 48)
			for i := range n {
				if st := put(t, s, hearth.Set, fmt.Sprintf("room%d-%d", size, i), make([]byte, size)); st != hearth.OK {
					t.Fatal(st)
				}
			}
			for i := range n {
				if i%2 == 0 {
					s.Delete(fmt.Appendf(nil, "room%d-%d", size, i))
				}
			}
		}
	})
}

func classPages(c *hearth.Cache, id int) uint64 {
	pages, _ := c.HasClass(id)
	return pages
}

func noAutomove(t testing.TB, c *hearth.Cache) {
	t.Helper()
	if err := c.SetAutomove(hearth.AutomoveSettings{Window: 10}); err != nil {
		t.Fatal(err)
	}
}

func TestMovedItemsStayAsTheyWere(t *testing.T) {
	o := hearth.Options{MemoryLimit: 64 << 20, MaxItemSize: 512 << 10, ChunkMax: 16 << 10}
	o.LRU.Flat = true
	clock := newClock()
	o.Clock = clock
	c := open(t, o)
	noAutomove(t, c)
	s := session(t, c)
	type seen struct {
		value        string
		flags, until uint32
		cas          uint64
	}
	state := func() (order []string, items map[string]seen) {
		items = map[string]seen{}
		in(s, func() {
			for class := 1; class < 64; class++ {
				s.Cold(class, 1e6, func(it *hearth.Item) bool {
					order = append(order, string(it.Key))
					items[string(it.Key)] = seen{string(it.AppendValue(nil)), it.Flags, it.Exptime, it.CAS}
					return true
				})
			}
		})
		return order, items
	}
	value := func(i int) string { return strings.Repeat(fmt.Sprint("v", i, " "), 1+i%3*300) }
	in(s, func() {
		for i := range 6000 {
			if _, st := store(s, hearth.Set, fmt.Sprint("key", i), value(i), int64(i%2*(1000+i)), 0); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
		for i := range 60 { // chained
			if _, st := store(s, hearth.Set, fmt.Sprint("large", i), strings.Repeat(value(i), 20), 0, 0); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
		for i := range 6000 { // room for what moves
			if i%3 > 0 && i%2 > 0 {
				s.Delete(fmt.Appendf(nil, "key%d", i))
			}
		}
		for i := range 60 {
			if i%3 > 0 && i%2 > 0 {
				s.Delete(fmt.Appendf(nil, "large%d", i))
			}
		}
	})
	order, items := state()
	for _, class := range c.ClassStats() {
		for free := class.FreeChunks; free > uint64(class.ChunksPerPage); free -= uint64(class.ChunksPerPage) {
			movePage(t, c, class.ID, 0)
		}
	}
	st := c.Stats()
	if st.SlabReassignRescues == 0 || st.SlabReassignChunkRescues == 0 || st.Evictions != 0 || st.GlobalPagePool == 0 {
		t.Fatalf("%d items and %d data chunks moved, %d evictions, %d pages in the pool", st.SlabReassignRescues, st.SlabReassignChunkRescues, st.Evictions, st.GlobalPagePool)
	}
	orderNow, itemsNow := state()
	if !slices.Equal(order, orderNow) {
		t.Errorf("the LRU's order is another: %d items, were %d", len(orderNow), len(order))
	}
	for key, want := range items {
		if got := itemsNow[key]; got != want {
			t.Errorf("%s: %.60v, want %.60v", key, got, want)
		}
		in(s, func() { wantValue(t, s, key, want.value) })
	}
}

// A move with a full class evicts from its COLD list, and the other class gets the page.
func TestAPageServesItsNewClass(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 8 << 20})
	noAutomove(t, c)
	churn(t, c, 100, 60000)
	const to = 18
	from := c.ClassStats()[0].ID
	if classPages(c, from) < 5 {
		t.Fatalf("%d pages", classPages(c, from))
	}
	before := c.Stats()
	for n := range uint64(3) {
		movePage(t, c, from, to)
		if got := classPages(c, to); got != n+1 {
			t.Fatalf("%d pages after %d moves", got, n+1)
		}
	}
	st := c.Stats()
	if st.SlabsMoved != 3 || st.Evictions == before.Evictions || st.TotalMalloced != before.TotalMalloced {
		t.Errorf("%d moves, %d evictions, %d bytes, had %d", st.SlabsMoved, st.Evictions-before.Evictions, st.TotalMalloced, before.TotalMalloced)
	}
	do(c, func(s *hearth.Session) {
		evicted := c.Stats().Evictions
		for i := range 3 * 200 {
			if st := put(t, s, hearth.Set, fmt.Sprint("4k", i), bytes.Repeat([]byte{byte(i)}, 4200)); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
		for i := range 3 * 200 {
			wantValue(t, s, fmt.Sprint("4k", i), strings.Repeat(string([]byte{byte(i)}), 4200))
		}
		if n := c.Stats().Evictions - evicted; n != 0 {
			t.Errorf("%d evictions in a class with three pages for that", n)
		}
	})
}

func TestMovesAreRefusedInMemcachedsOrder(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 8 << 20})
	noAutomove(t, c)
	for _, tt := range []struct {
		src, dst int
		want     hearth.MoveResult
	}{{1, 1, hearth.MoveSame}, {-1, 5, hearth.MoveBadClass}, {0, 5, hearth.MoveNoSpare}, {5, 0, hearth.MoveNoSpare}, {40, 1, hearth.MoveBadClass}, {1, 99, hearth.MoveBadClass},
		{-2, 1, hearth.MoveBadClass}} {
		if got := c.MovePage(tt.src, tt.dst); got != tt.want {
			t.Errorf("from %d to %d: %d, want %d", tt.src, tt.dst, got, tt.want)
		}
	}
	churn(t, c, 100, 20000)
	c.Do(func(*hearth.Session) {
		if got, again := c.MovePage(-1, 0), c.MovePage(1, 1); got != hearth.MoveStarted || again != hearth.MoveBusy {
			t.Errorf("%d and %d", got, again)
		}
	})
	moved(t, c)
	movePage(t, c, c.ClassStats()[0].ID, 0)
	if st := c.Stats(); st.GlobalPagePool != 2 {
		t.Fatalf("%d pages in the pool", st.GlobalPagePool)
	}
	movePage(t, c, 0, 7)
	if st := c.Stats(); st.GlobalPagePool != 1 || classPages(c, 7) != 1 {
		t.Errorf("%d pages in the pool, %d in class 7", st.GlobalPagePool, classPages(c, 7))
	}
}

// Whoever pinned a large item before or after its head or parts moved reads its bytes to the end, though the item is deleted and all memory used again.
func TestPinnedLargeItemsKeepTheirBytesWhilePagesMove(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 16 << 20, MaxItemSize: 1 << 20, ChunkMax: 16 << 10})
	noAutomove(t, c)
	s := session(t, c)
	const n = 16
	value := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%07d ", i)), 50000) }
	type reading struct {
		pieces [][]byte
		pin    hearth.Pin
		want   []byte
	}
	var readers []reading
	read := func() {
		in(s, func() {
			for i := range n {
				var it hearth.Item
				if s.Get(fmt.Appendf(nil, "large%d", i), &it) == hearth.OK {
					readers = append(readers, reading{it.Pieces(nil), s.Pin(&it), value(i)})
				}
			}
		})
	}
	in(s, func() {
		for i := range n {
			put(t, s, hearth.Set, fmt.Sprint("large", i), value(i))
		}
		for i := range n / 2 { // room for what moves
			s.Delete(fmt.Appendf(nil, "large%d", i))
		}
	})
	for round := range 4 {
		read()
		for _, class := range c.ClassStats() {
			for range class.Pages {
				c.EmptyPage(class.ID, 0)
				for range 20 { // pinned chunks keep the page from going
					c.Round()
				}
				c.CancelMove()
			}
		}
		in(s, func() {
			s.Delete(fmt.Appendf(nil, "large%d", n/2+round))
		})
		churn(t, c, 12000, 400)
	}
	if st := c.Stats(); st.SlabReassignRescues == 0 || st.SlabReassignChunkRescues == 0 {
		t.Fatalf("%d items and %d data chunks moved", st.SlabReassignRescues, st.SlabReassignChunkRescues)
	}
	for i, r := range readers {
		if got := bytes.Join(r.pieces, nil); !bytes.Equal(got, r.want) {
			t.Errorf("reader %d: %d bytes, or others than %.8s", i, len(got), r.want)
		}
		s.Unpin(r.pin)
	}
}

// Appends and prepends over values from 16 B to 1 MB, large ones in chunks of 16 KB, while pages move: each value is what was put together.
func TestAppendsStayWholeWhilePagesMove(t *testing.T) {
	const workers = 4
	calls := 1000
	o := hearth.Options{MemoryLimit: 256 << 20, MaxItemSize: 2 << 20, ChunkMax: 16 << 10}
	switch {
	case raceEnabled || testing.Short():
		calls, o.HeapArena = 300, true
	case os.Getenv("HEARTH_LONG") != "":
		calls = 8000
	}
	c := open(t, o)
	stop := keepMoving(t, c)
	defer stop()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			s := c.NewSession()
			defer s.Close()
			have := map[string][]byte{}
			for i := range calls / workers {
				key := fmt.Sprintf("w%d-%d", w, r.IntN(8))
				add := bytes.Repeat(fmt.Appendf(nil, "%d.%d ", w, i), 1+r.IntN(1<<r.IntN(14)))
				s.Begin()
				old, there := have[key]
				switch {
				case !there || len(old)+len(add) > 1<<20:
					if st := put(t, s, hearth.Set, key, add); st != hearth.OK {
						t.Errorf("set: %d", st)
					}
					have[key] = add
				case i%2 == 0:
					if st := put(t, s, hearth.Append, key, add); st != hearth.OK {
						t.Errorf("append: %d", st)
					}
					have[key] = append(old, add...)
				default:
					if st := put(t, s, hearth.Prepend, key, add); st != hearth.OK {
						t.Errorf("prepend: %d", st)
					}
					have[key] = append(add, old...)
				}
				s.End()
				s.Begin()
				if got, ok := get(s, key); !ok || got != string(have[key]) {
					t.Errorf("%s: found %t, %d bytes, want %d, or others", key, ok, len(got), len(have[key]))
				}
				s.End()
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	stop()
	st := c.Stats()
	if st.Evictions != 0 {
		t.Errorf("%d evictions", st.Evictions)
	}
	t.Logf("%d pages, %d items, %d data chunks moved", st.SlabsMoved, st.SlabReassignRescues, st.SlabReassignChunkRescues)
}

func TestOperationsAreLinearizableWhilePagesMove(t *testing.T) {
	for _, file := range []bool{false, true} {
		o := heap(64)
		o.ChunkMax, o.MaxItemSize = 2048, 256<<10
		if file {
			o.HeapArena, o.Path = false, filepath.Join(t.TempDir(), "slab")
		}
		for round := range 2 {
			func() {
				c := open(t, o)
				if file {
					o.Path += "+"
				}
				room(t, c, 5, 3100)
				stop := keepMoving(t, c)
				defer stop()
				wantLinearizable(t, false, history(t, c, 8, 150, 3+round, nil))
				if st := c.Stats(); st.Evictions != 0 {
					t.Errorf("%d evictions", st.Evictions)
				}
			}()
		}
	}
}

// An exptime that a touch has acknowledged, and the mark of a fetch, are there after any number of moves.
func TestTouchesAndFetchesSurviveMoves(t *testing.T) {
	clock := newClock()
	o := heap(8)
	o.Clock = clock
	c := open(t, o)
	room(t, c, 5)
	stop := keepMoving(t, c)
	defer stop()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			s := c.NewSession()
			defer s.Close()
			key := fmt.Sprint("key", w)
			for i := range 3000 {
				ttl := int64(1000 + i)
				in(s, func() {
					if i%50 == 0 {
						if _, st := store(s, hearth.Set, key, "value", 10, 0); st != hearth.OK {
							t.Errorf("set: %d", st)
						}
					}
					var got hearth.Fetch
					if st := s.Touch([]byte(key), ttl); st != hearth.OK {
						t.Errorf("touch: %d", st)
					}
					st := s.MetaGet([]byte(key), &hearth.GetOptions{Peek: true}, &got)
					if want := uint32(clock.Wall() + ttl); st != hearth.OK || got.Exptime != want {
						t.Errorf("%s: status %d, exptime %d, want %d", key, st, got.Exptime, want)
					}
				})
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	stop()
}

// An upload that does not go on keeps its page from moving; after a while the page is its class's again, and another move can begin.
func TestAStalledUploadGivesThePageBack(t *testing.T) {
	o := heap(16)
	clock := newClock()
	o.Clock = clock
	c := open(t, o)
	noAutomove(t, c)
	s := session(t, c)
	var d hearth.Draft
	in(s, func() {
		wantStatus(t, "upload", s.Prepare(&d, hearth.Set, []byte("slow"), 0, 0, 1000), hearth.OK)
		for i := range 10 {
			put(t, s, hearth.Set, fmt.Sprint("key", i), make([]byte, 1000))
		}
	})
	class := c.ClassStats()[0].ID
	if !c.EmptyPage(class, 0) {
		t.Fatal("no move")
	}
	c.Round()
	in(s, func() { // these have a page of their own, where the others can go
		for i := range 10 {
			put(t, s, hearth.Set, fmt.Sprint("other", i), make([]byte, 1000))
		}
	})
	for i := 0; c.Stats().SlabReassignRescues < 10; i++ {
		if c.Round(); i > 1e6 {
			t.Fatal("the other items do not move")
		}
	}
	for range 100 {
		c.Round()
	}
	if st := c.Stats(); !st.SlabReassignRunning || st.SlabReassignBusyItems == 0 || st.SlabReassignLastBusy != "busy_uploading" {
		t.Errorf("running: %t, busy %d: %s", st.SlabReassignRunning, st.SlabReassignBusyItems, st.SlabReassignLastBusy)
	}
	clock.pass(c, 31)
	moved(t, c)
	if st := c.Stats(); st.SlabsMoved != 0 || classPages(c, class) != 2 {
		t.Errorf("%d pages moved, the class has %d", st.SlabsMoved, classPages(c, class))
	}
	check := func() {
		in(s, func() {
			for i := range 10 {
				wantValue(t, s, fmt.Sprint("key", i), string(make([]byte, 1000)))
			}
		})
	}
	check()
	in(s, func() {
		s.Write(&d, bytes.Repeat([]byte("x"), 1000))
		_, st := s.Commit(&d, 0)
		wantStatus(t, "the rest of the upload", st, hearth.OK)
		wantValue(t, s, "slow", strings.Repeat("x", 1000))
	})
	movePage(t, c, class, 0)
	movePage2 := c.MovePage(class, 0)
	if movePage2 != hearth.MoveNoSpare {
		t.Errorf("another page of %d: %d", classPages(c, class), movePage2)
	}
	check()
}

func TestALowerMemoryLimitGivesPagesBack(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 32 << 20}
	c := open(t, o)
	churn(t, c, 100, 100000)
	churn(t, c, 5000, 4000)
	if st := c.Stats(); st.TotalMalloced < 30<<20 {
		t.Fatalf("%d bytes", st.TotalMalloced)
	}
	if err := c.SetMemoryLimit(12 << 20); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); c.Stats().TotalMalloced > 12<<20 || c.Stats().SlabReassignRunning; c.Round() {
		if time.Now().After(end) {
			t.Fatalf("still %d bytes", c.Stats().TotalMalloced)
		}
	}
	st := c.Stats()
	if st.CurrItems == 0 || st.TotalMalloced < 11<<20 {
		t.Errorf("%d items in %d bytes are left", st.CurrItems, st.TotalMalloced)
	}
	churn(t, c, 5000, 4000)
	if st := c.Stats(); st.TotalMalloced > 12<<20 {
		t.Errorf("%d bytes again", st.TotalMalloced)
	}
}

// A restart in the middle of a move, clean or not, finds everything, and the page in its class.
func TestARestartInTheMiddleOfAMoveKeepsEverything(t *testing.T) {
	for _, clean := range []bool{true, false} {
		o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20}
		c, err := hearth.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.Pause(true)
		var pin hearth.Pin
		s := c.NewSession()
		in(s, func() {
			for i := range 2500 {
				put(t, s, hearth.Set, fmt.Sprint("key", i), make([]byte, 1000))
			}
			for i := range 2500 {
				if i%5 != 1 {
					s.Delete(fmt.Appendf(nil, "key%d", i))
				}
			}
			var it hearth.Item
			s.Get([]byte("key1"), &it)
			pin = s.Pin(&it) // the first page stays busy
		})
		c.Pause(false)
		if c.MovePage(c.ClassStats()[0].ID, 0) != hearth.MoveStarted {
			t.Fatal("no move")
		}
		for i := 0; c.Stats().SlabReassignRescues < 100; i++ {
			if c.Round(); i > 1e6 {
				t.Fatal("nothing moves")
			}
		}
		for range 10 {
			c.Round()
		}
		if !c.Stats().SlabReassignRunning {
			t.Fatal("the page is gone, though an item in it is pinned")
		}
		s.Unpin(pin)
		s.Close()
		if clean {
			c.Pause(true) // or the move might end
			go c.Pause(false)
			closeCache(t, c)
		} else if err := c.Abandon(); err != nil {
			t.Fatal(err)
		}
		c = open(t, o)
		c.WaitSwept()
		check(t, c)
		do(c, func(s *hearth.Session) {
			for i := range 2500 {
				if _, ok := get(s, fmt.Sprint("key", i)); ok != (i%5 == 1) {
					t.Fatalf("clean: %t: key%d: found %t", clean, i, ok)
				}
			}
		})
		if st := c.Stats(); st.CurrItems != 500 {
			t.Errorf("clean: %t: %d items, want 500", clean, st.CurrItems)
		}
	}
}

// With mode 2 each eviction asks for a page from any class; without the page mover nothing does.
func TestAutomoveAtEveryEviction(t *testing.T) {
	for _, off := range []bool{false, true} {
		c := open(t, hearth.Options{MemoryLimit: 8 << 20, NoPageMoves: off})
		if err := c.SetAutomove(hearth.AutomoveSettings{Mode: 2, Window: 10}); err != nil {
			t.Fatal(err)
		}
		churn(t, c, 100, 60000)
		for range 20 {
			churn(t, c, 4100, 700)
			for range 10 {
				c.Round()
			}
		}
		classes := c.ClassStats()
		large := classes[len(classes)-1]
		if off && (large.Pages != 1 || c.Stats().SlabsMoved != 0 || c.MovePage(large.ID, 0) != hearth.MoveOff) || !off && large.Pages < 3 {
			t.Errorf("without the page mover %t: %d pages, %d moves", off, large.Pages, c.Stats().SlabsMoved)
		}
	}
}
