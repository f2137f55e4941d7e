package hearth_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"hearth"
)

// crawls keeps what a cache tells of the crawls that it started.
type crawls struct {
	mu  sync.Mutex
	all []hearth.Event
}

func observeCrawls(c *hearth.Cache) *crawls {
	l := new(crawls)
	c.Observe(func(ev *hearth.Event) {
		if ev.Kind == hearth.EventCrawled {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.all = append(l.all, *ev)
		}
	})
	return l
}

// take returns the events since the last call.
func (l *crawls) take() []hearth.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.all = nil }()
	return l.all
}

// second lets a second pass, and what the keeper starts in it come to its end.
func second(t testing.TB, clock *fakeClock, c *hearth.Cache) {
	t.Helper()
	clock.pass(c, 1)
	c.Round()
	waitCrawl(t, c)
}

// putStill stores n items that the maintainer leaves where they are: they have a list for themselves, TEMP.
func putStill(t testing.TB, c *hearth.Cache, format string, n int, seconds func(i int) int64) {
	t.Helper()
	for i := range n {
		do(c, func(s *hearth.Session) { putFor(t, s, fmt.Sprintf(format, i), seconds(i)) })
	}
}

// still are options that have all items with a TTL in TEMP.
func still(clock *fakeClock) hearth.Options {
	o := heap(16)
	o.Clock = clock
	o.LRU.Temp, o.LRU.TempTTL = true, 1<<20
	return o
}

// TestCrawlsWhenEnoughHasExpired follows the plan of one LRU segment by what is logged of it. Each row stores items with so many seconds left, beside one that
// outlives the test, and says after how many seconds the crawls that follow come: five at least, and what of the wait memcached's rule gives. Waits swing, since
// the items have less time left from crawl to crawl.
func TestCrawlsWhenEnoughHasExpired(t *testing.T) {
	for name, row := range map[string]struct {
		ttl   func(i int) int64
		next  []uint32 // NextRun of the first crawls
		mark  uint64   // of the first
		worth uint64
	}{
		"most expire within a minute":                   {func(int) int64 { return 50 }, []uint32{5, 5, 5}, 3, 200},
		"most expire in the third minute":               {func(int) int64 { return 175 }, []uint32{65, 5, 65, 5}, 3, 200},
		"none expires within the hour":                  {func(int) int64 { return 10_000 }, []uint32{65, 125, 185, 245}, 3, 0},
		"a few expire in each minute from the third on": {func(i int) int64 { return 130 + int64(i%100)*60 }, []uint32{65, 5, 65}, 3, 4},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			c := open(t, still(clock))
			seen := observeCrawls(c)
			c.SetAutocrawl(hearth.AutocrawlSettings{Off: true})
			putStill(t, c, "k%d", 200, row.ttl)
			putStill(t, c, "last", 1, func(int) int64 { return 1 << 19 })
			second(t, clock, c)
			c.SetAutocrawl(hearth.AutocrawlSettings{})
			for range 5 { // what was due while crawls were off
				second(t, clock, c)
			}
			var got []hearth.Event
			due := map[int]uint32{0: 1} // by number of the crawl: seconds from the log line of the one before
			quiet := uint32(0)
			for range 1000 {
				second(t, clock, c)
				quiet++
				for _, ev := range seen.take() {
					if n := len(got); n > 0 {
						// It began a second after it was due, and is logged in the second after it ended.
						if due[n] = got[n-1].NextRun; quiet < due[n] || quiet > due[n]+3 {
							t.Errorf("crawl %d is logged after %d seconds, was due after %d", n, quiet, due[n])
						}
					}
					got, quiet = append(got, ev), 0
				}
				if len(got) >= len(row.next) {
					break
				}
			}
			if len(got) < len(row.next) {
				t.Fatalf("%d crawls in 1000 seconds, want %d: %+v", len(got), len(row.next), got)
			}
			first := got[0]
			if first.LowMark != row.mark || first.NextReclaims != row.worth || first.Examined != 201 || first.Reclaimed != 0 || first.Segment != 3 || first.SinceRun > 1 {
				t.Errorf("the first: %+v", first)
			}
			for i, want := range row.next {
				if got[i].NextRun != want {
					t.Errorf("crawl %d: the next is due after %d seconds, want %d: %+v", i, got[i].NextRun, want, got[i])
				}
			}
		})
	}
}

// TestCrawlsReclaimWhatNobodyTouches fills HOT, WARM and COLD with items that expire soon behind items that do not at the ends of the lists, where the maintainer stops.
func TestCrawlsReclaimWhatNobodyTouches(t *testing.T) {
	clock := newClock()
	o := heap(16)
	o.Clock = clock
	o.LRU = hearth.LRUSettings{HotPct: 40, WarmPct: 40, HotMaxFactor: 1e9, WarmMaxFactor: 1e9}
	c := open(t, o)
	seen := observeCrawls(c)
	const n = 3000
	settle := func() {
		for range 20 {
			c.Round()
		}
	}
	fill := func(what string, count int, ttl int64, active bool) {
		putStill(t, c, what+"%d", count, func(int) int64 { return ttl })
		if active { // two fetches make it active: it goes to WARM from the end of HOT or COLD
			for i := range count {
				for range 2 {
					do(c, func(s *hearth.Session) { get(s, fmt.Sprint(what, i)) })
				}
			}
		}
		settle()
	}
	fill("warm-live", 10, 0, true)
	fill("warm-brief", n, 20, true)
	fill("cold-live", 10, 0, false)
	fill("cold-brief", n, 20, false)
	fill("hot-live", 2*n/3, 0, false) // pushes the others out of HOT
	fill("hot-brief", n/2, 20, false)
	st := c.ClassStats()[0]
	if st.NumberHot < 100 || st.NumberWarm < 100 || st.NumberCold < 100 {
		t.Fatalf("HOT %d, WARM %d, COLD %d items: want some in each", st.NumberHot, st.NumberWarm, st.NumberCold)
	}
	live := 10 + 10 + 2*n/3
	clock.pass(c, 21)
	seconds := 0
	for ; c.Stats().CurrItems > uint64(live) && seconds < 100; seconds++ {
		second(t, clock, c)
	}
	after := c.Stats()
	dead := uint64(n + n + n/2)
	if after.CurrItems != uint64(live) || after.CrawlerReclaimed+after.Reclaimed != dead || after.CrawlerReclaimed < dead/2 || after.Evictions != 0 {
		t.Errorf("after %d seconds %d items, want %d; reclaimed by the crawler %d, by the maintainer %d, want %d, most by the crawler; %d evictions",
			seconds, after.CurrItems, live, after.CrawlerReclaimed, after.Reclaimed, dead, after.Evictions)
	}
	if seconds > 10 { // what expires within a minute is crawled for every five seconds
		t.Errorf("it took %d seconds", seconds)
	}
	second(t, clock, c)
	var reclaimed uint64
	for _, ev := range seen.take() {
		reclaimed += ev.Reclaimed
	}
	if reclaimed != after.CrawlerReclaimed {
		t.Errorf("the log says that %d were reclaimed, stats say %d", reclaimed, after.CrawlerReclaimed)
	}
	t.Logf("HOT %d, WARM %d, COLD %d; %d reclaimed by the crawler, %d by the maintainer, in %d seconds", st.NumberHot, st.NumberWarm, st.NumberCold,
		after.CrawlerReclaimed, after.Reclaimed, seconds)
}

// TestNoCrawlStartsByItselfWhenOff holds, too, that one that was asked for is not told of.
func TestNoCrawlStartsByItselfWhenOff(t *testing.T) {
	clock := newClock()
	c := open(t, still(clock))
	c.SetAutocrawl(hearth.AutocrawlSettings{Off: true})
	putStill(t, c, "k%d", 100, func(i int) int64 { return 10 + int64(i)*1000 })
	for range 100 {
		second(t, clock, c)
	}
	if st := c.Stats(); st.CrawlerStarts != 0 || st.CrawlerReclaimed != 0 {
		t.Errorf("%d starts, %d reclaimed", st.CrawlerStarts, st.CrawlerReclaimed)
	}
	seen := observeCrawls(c)
	if !c.Crawl(hearth.CrawlOptions{}) {
		t.Error("busy")
	}
	waitCrawl(t, c)
	second(t, clock, c)
	if all := seen.take(); len(all) > 0 || c.Stats().CrawlerStarts != 1 {
		t.Errorf("a crawl that was asked for: %d starts, told of %+v", c.Stats().CrawlerStarts, all)
	}
	c.SetAutocrawl(hearth.DefaultAutocrawl)
	for range 7 {
		second(t, clock, c)
	}
	if st := c.Stats(); st.CrawlerStarts < 2 {
		t.Error("no start after crawls were allowed again")
	}
}

// TestCrawlThatStartedByItselfGivesWay has one rest for an hour after a thousand items, so that it is still running when somebody asks for another.
func TestCrawlThatStartedByItselfGivesWay(t *testing.T) {
	clock := newClock()
	c := open(t, still(clock))
	c.SetAutocrawl(hearth.AutocrawlSettings{Off: true})
	putStill(t, c, "k%d", 2000, func(int) int64 { return 50 })
	c.SetAutocrawl(hearth.AutocrawlSettings{Sleep: time.Hour})
	clock.pass(c, 10)
	c.Round()
	if !c.Stats().CrawlerRunning {
		t.Fatal("none started")
	}
	if !c.Crawl(hearth.CrawlOptions{}) {
		t.Fatal("busy")
	}
	waitCrawl(t, c)
	c.SetAutocrawl(hearth.DefaultAutocrawl)
	starts := c.Stats().CrawlerStarts
	for range 60 {
		second(t, clock, c)
	}
	if st := c.Stats(); st.CrawlerStarts != starts || st.CurrItems != 2000 && st.Reclaimed == 0 {
		t.Errorf("%d starts within the minute after, %d items", st.CrawlerStarts-starts, st.CurrItems)
	}
	putStill(t, c, "more%d", 100, func(int) int64 { return 50 })
	second(t, clock, c)
	if st := c.Stats(); st.CrawlerStarts == starts {
		t.Error("no start after that minute")
	}
}

// TestAutocrawlLooksAtNoMoreThanTold: the first crawl meets the oldest.
func TestAutocrawlLooksAtNoMoreThanTold(t *testing.T) {
	clock := newClock()
	c := open(t, still(clock))
	c.SetAutocrawl(hearth.AutocrawlSettings{Most: 150})
	seen := observeCrawls(c)
	c.Pause(true)
	putStill(t, c, "k%d", 1000, func(int) int64 { return 5000 })
	c.Pause(false)
	var all []hearth.Event
	for s := 0; s < 3 && len(all) == 0; s++ { // the crawl comes in the first of them at the latest, its log line in the next
		second(t, clock, c)
		all = append(all, seen.take()...)
	}
	if len(all) == 0 || all[0].Examined != 150 {
		t.Errorf("%+v; %d starts", all, c.Stats().CrawlerStarts)
	}
}

// TestConcurrentUseWhileCrawlsStart has sessions change the lists under crawls, one a second of a fast clock; Check at the end proves the lists whole.
func TestConcurrentUseWhileCrawlsStart(t *testing.T) {
	clock := newClock()
	o := heap(4)
	o.Clock = clock
	c := open(t, o)
	var writers sync.WaitGroup
	for n := range 3 {
		writers.Go(func() {
			for i := range 3000 {
				do(c, func(s *hearth.Session) {
					for j := range 8 {
						key := fmt.Sprint(n, "-", i*8+j)
						putFor(t, s, key, int64(j)) // 0: stays
						get(s, fmt.Sprint(n, "-", i*4+j))
						get(s, fmt.Sprint(n, "-", i*4+j))
						if j == 3 {
							s.Delete([]byte(key))
						}
					}
				})
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for working := true; working; {
		select {
		case <-done:
			working = false
		default:
			clock.pass(c, 1)
			c.Round()
		}
	}
	for range 10 {
		second(t, clock, c)
	}
	if st := c.Stats(); st.CrawlerStarts == 0 || st.CrawlerReclaimed == 0 {
		t.Errorf("%d starts, %d reclaimed: nothing was tried", st.CrawlerStarts, st.CrawlerReclaimed)
	}
}
