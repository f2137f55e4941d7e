package hearth_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hearth"
)

// walk walks over the cache, with a section for each step as a server has it, and returns how often it met each key.
func walk(c *hearth.Cache) map[string]int {
	met := map[string]int{}
	var w hearth.Walk
	for more := true; more; {
		do(c, func(s *hearth.Session) { more = w.Next(s, func(it *hearth.Item) { met[string(it.Key)]++ }) })
	}
	return met
}

func putMany(t testing.TB, c *hearth.Cache, format string, n int) {
	t.Helper()
	do(c, func(s *hearth.Session) {
		for i := range n {
			if st := put(t, s, hearth.Set, fmt.Sprintf(format, i), []byte("value")); st != hearth.OK {
				t.Fatal(i, st)
			}
			if i%100 == 0 {
				s.End()
				s.Begin()
			}
		}
	})
}

func TestWalkOfAnEmptyCacheMeetsNothing(t *testing.T) {
	if met := walk(open(t, hearth.Options{})); len(met) != 0 {
		t.Errorf("met %v", met)
	}
}

// TestWalkMeetsWhatIsLiveThroughoutOnce walks while others replace, delete and add items, so many that the index grows under it several times.
func TestWalkMeetsWhatIsLiveThroughoutOnce(t *testing.T) {
	for _, o := range []hearth.Options{{HeapArena: true, MemoryLimit: 64 << 20}, {Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 64 << 20}} {
		c := open(t, o)
		const steady, most = 20000, 60000
		putMany(t, c, "steady%d", steady)
		putMany(t, c, "churn%d", steady)
		var stop atomic.Bool
		var writers sync.WaitGroup
		var added atomic.Int64
		for n := range 2 {
			writers.Go(func() {
				for i := 0; !stop.Load(); i++ {
					do(c, func(s *hearth.Session) {
						for j := range 32 {
							key := fmt.Sprint("churn", (i*32+j)*7%steady)
							if (i+j)%3 == 0 {
								s.Delete([]byte(key))
							} else {
								put(t, s, hearth.Set, key, []byte("other"))
							}
							if a := added.Add(1); a < most {
								put(t, s, hearth.Set, fmt.Sprint("new", n, "-", a), []byte("new"))
							}
						}
					})
				}
			})
		}
		buckets := c.Stats().HashBuckets
		walks := 0
		for ; walks < 2 || added.Load() < most && walks < 1000; walks++ {
			met := walk(c)
			for i := range steady {
				if n := met[fmt.Sprint("steady", i)]; n != 1 {
					t.Fatalf("walk %d: steady%d met %d times, want once", walks, i, n)
				}
			}
		}
		stop.Store(true)
		writers.Wait()
		if grown := c.Stats().HashBuckets; grown == buckets {
			t.Errorf("the index did not grow: %d buckets", grown)
		}
		t.Logf("%d walks, %d items", walks, c.Stats().CurrItems)
		if c.Stats().Evictions > 0 {
			t.Error("items were evicted, so none may be called live throughout")
		}
	}
}

// TestWalkStartsOverWhenTheIndexGrows takes single steps, so that a growth begins and ends between two of them.
func TestWalkStartsOverWhenTheIndexGrows(t *testing.T) {
	c := open(t, hearth.Options{})
	const steady = 30000
	putMany(t, c, "steady%d", steady)
	var w hearth.Walk
	met := map[string]int{}
	step := func() (more bool) {
		do(c, func(s *hearth.Session) { more = w.Next(s, func(it *hearth.Item) { met[string(it.Key)]++ }) })
		return more
	}
	buckets := c.Stats().HashBuckets
	for range buckets / 64 / 2 {
		step()
	}
	half := len(met)
	putMany(t, c, "new%d", 100000)
	for growing := true; growing; growing = c.Stats().HashIsExpanding {
		step()
	}
	if grown := c.Stats().HashBuckets; grown == buckets || half < steady/3 || half > steady {
		t.Fatalf("%d buckets after %d; %d items met before", grown, buckets, half)
	}
	for step() {
	}
	for i := range steady {
		if n := met[fmt.Sprint("steady", i)]; n != 1 {
			t.Fatalf("steady%d met %d times, want once", i, n)
		}
	}
}

func TestWalkKeepsNoGrowthBack(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 128 << 20})
	c.Pause(true) // a keeper that loses the processor in a section would
	defer c.Pause(false)
	putMany(t, c, "steady%d", 1000)
	var w hearth.Walk
	do(c, func(s *hearth.Session) { w.Next(s, func(*hearth.Item) {}) }) // and there its reader stops
	putMany(t, c, "new%d", 300000)
	if st := c.Stats(); st.Evictions != 0 || st.CurrItems != 301000 {
		t.Errorf("%d items, %d evictions under a walk that stands still", st.CurrItems, st.Evictions)
	}
}

// TestLongSectionKeepsNoGrowthBack stores so much in one section that the index grows several times: each growth waits for the sections that saw the one before.
func TestLongSectionKeepsNoGrowthBack(t *testing.T) {
	c := open(t, hearth.Options{MemoryLimit: 128 << 20})
	c.Pause(true) // as above
	defer c.Pause(false)
	buckets := c.Stats().HashBuckets
	do(c, func(s *hearth.Session) {
		for i := range 300000 {
			if st := put(t, s, hearth.Set, fmt.Sprint("key", i), []byte("value")); st != hearth.OK {
				t.Fatal(i, st)
			}
		}
	})
	if st := c.Stats(); st.Evictions != 0 || st.CurrItems != 300000 || st.HashBuckets < 4*buckets {
		t.Errorf("%d items, %d evictions, %d buckets after %d", st.CurrItems, st.Evictions, st.HashBuckets, buckets)
	}
}

func TestWalkLeavesDeadItemsOut(t *testing.T) {
	clock := newClock()
	c := open(t, hearth.Options{Clock: clock})
	do(c, func(s *hearth.Session) {
		for i := range 100 {
			putFor(t, s, fmt.Sprint("brief", i), 10)
			putFor(t, s, fmt.Sprint("long", i), 1000)
		}
	})
	clock.pass(c, 20)
	if met := walk(c); len(met) != 100 || met["long7"] != 1 {
		t.Errorf("met %d keys, want the 100 that are not expired", len(met))
	}
}

// putFor stores a value that expires after seconds.
func putFor(t testing.TB, s *hearth.Session, key string, seconds int64) {
	t.Helper()
	var d hearth.Draft
	if st := s.Prepare(&d, hearth.Set, []byte(key), 0, seconds, 5); st != hearth.OK {
		t.Fatal(st)
	}
	s.Write(&d, []byte("value"))
	if _, st := s.Commit(&d, 0); st != hearth.OK {
		t.Fatal(st)
	}
}

func TestCrawlReclaimsDeadItemsOfItsClasses(t *testing.T) {
	clock := newClock()
	c := open(t, hearth.Options{Clock: clock})
	c.SetAutocrawl(hearth.AutocrawlSettings{Off: true})
	const n = 3000
	large := make([]byte, 500)
	do(c, func(s *hearth.Session) {
		for i := range n {
			putFor(t, s, fmt.Sprint("live", i), 0)
			if put(t, s, hearth.Set, fmt.Sprint("large", i), large) != hearth.OK {
				t.Fatal("not stored")
			}
		}
		for i := range n {
			putFor(t, s, fmt.Sprint("brief", i), 10)
		}
	})
	clock.pass(c, 20)
	c.Pause(true) // or the maintainer finds some of the dead at the ends of its lists
	defer c.Pause(false)
	before := c.Stats()
	if before.CurrItems != 3*n {
		t.Fatalf("%d items before the crawl, want the dead among %d", before.CurrItems, 3*n)
	}
	if !c.Crawl(hearth.CrawlOptions{Class: func(id int) bool { return id != 1 }}) {
		t.Fatal("busy")
	}
	waitCrawl(t, c)
	if st := c.Stats(); st.CurrItems != 3*n || st.CrawlerReclaimed != 0 {
		t.Errorf("a crawl of other classes: %d items, %d reclaimed", st.CurrItems, st.CrawlerReclaimed)
	}
	if !c.Crawl(hearth.CrawlOptions{Most: 100}) {
		t.Fatal("busy")
	}
	waitCrawl(t, c)
	for _, class := range c.ClassStats() {
		if n := class.CrawlerItemsChecked; class.ID == 1 && (n < 100 || n > 4*100) {
			t.Errorf("%d items looked at by a crawl of 100 items in each of four segments", n)
		}
	}
	if !c.Crawl(hearth.CrawlOptions{}) {
		t.Fatal("busy")
	}
	waitCrawl(t, c)
	st := c.Stats()
	if st.CurrItems != 2*n || st.CrawlerReclaimed != n || st.Evictions != 0 || st.CrawlerStarts != 3 {
		t.Errorf("%d items, %d reclaimed, %d evictions, %d starts; want %d, %d, 0, 3", st.CurrItems, st.CrawlerReclaimed, st.Evictions, st.CrawlerStarts, 2*n, n)
	}
	do(c, func(s *hearth.Session) {
		for i := range n {
			if _, ok := get(s, fmt.Sprint("live", i)); !ok {
				t.Fatalf("live%d is gone", i)
			}
		}
	})
}

func TestOneCrawlAtATimeAndCloseEndsIt(t *testing.T) {
	c, err := hearth.Open(hearth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	putMany(t, c, "k%d", 2000)
	if !c.Crawl(hearth.CrawlOptions{Sleep: time.Hour}) || c.Crawl(hearth.CrawlOptions{}) {
		t.Error("two crawls at a time")
	}
	c.StopCrawl()
	if !c.Crawl(hearth.CrawlOptions{Sleep: time.Hour}) {
		t.Error("no crawl after a stopped one")
	}
	closeCache(t, c)
	if c.Crawl(hearth.CrawlOptions{}) {
		t.Error("a crawl of a closed cache")
	}
}

func waitCrawl(t testing.TB, c *hearth.Cache) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); c.Stats().CrawlerRunning; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the crawl does not end")
		}
	}
}

func TestSizesAreCountedOverARestart(t *testing.T) {
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), TrackSizes: true}
	sizes := func(c *hearth.Cache) (n int) {
		c.ItemSizes(func(_, items int) { n += items })
		return n
	}
	c, err := hearth.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	putMany(t, c, "k%d", 500)
	closeCache(t, c)
	if c = open(t, o); sizes(c) != 500 {
		t.Errorf("%d items counted, want 500", sizes(c))
	}
}

// BenchmarkWalk walks over a million items.
func BenchmarkWalk(b *testing.B) {
	c := open(b, hearth.Options{MemoryLimit: 256 << 20})
	putMany(b, c, "key%d", 1000000)
	for b.Loop() {
		n := 0
		var w hearth.Walk
		for more := true; more; {
			do(c, func(s *hearth.Session) { more = w.Next(s, func(*hearth.Item) { n++ }) })
		}
		if n != 1000000 {
			b.Fatal(n)
		}
	}
}
