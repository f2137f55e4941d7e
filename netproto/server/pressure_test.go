package server_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hearth/netproto/server"
)

// pressureRules tell how stats items and stats slabs of ours and memcached's compare after the same load at full memory. Keys that no rule names must be equal. share is
// how far apart two numbers may be, as a share of the larger one, and plus by how many more.
var pressureRules = map[string]struct {
	share, plus float64
	why         string
}{
	"evicted":               {0, 20, "up to 16 chunks of a class are evicted ahead; less those, see derived, it is equal"},
	"number":                {0, 20, "see evicted"},
	"used_chunks":           {0, 20, "see evicted"},
	"free_chunks":           {0, 20, "see evicted"},
	"evictions":             {0, 60, "see evicted, for three classes"},
	"curr_items":            {0, 60, "see evictions"},
	"number_hot":            {0.05, 20, "its share is in bytes, and items are smaller here"},
	"number_warm+cold":      {0.02, 20, "see number_hot"},
	"number_warm":           {0.9, 40, "WARM gives up what is older than some times COLD's oldest, in whole seconds: it matters when the second is full"},
	"number_cold":           {0.9, 40, "see number_warm"},
	"moves_to_cold":         {0.15, 40, "see number_warm"},
	"moves_to_warm":         {0.02, 20, "the maintainer may be on its way"},
	"hits_to_hot":           {0.02, 20, "see moves_to_warm"},
	"hits_to_cold":          {0.02, 20, "see moves_to_warm"},
	"evicted_unfetched":     {0.15, 40, "see number_warm: what was fetched twice is there"},
	"mem_requested":         {0.2, 0, "the item header is smaller here"},
	"bytes":                 {0.2, 0, "see mem_requested"},
	"age":                   {0, 30, "seconds that the load took"},
	"age_hot":               {0, 30, "see age"},
	"age_warm":              {0, 30, "see age"},
	"evicted_time":          {0, 30, "see age"},
	"crawler_items_checked": {1, 0, "crawls start by themselves at other moments"},
	"direct_reclaims":       {0, 60, "stores that had to evict, here for the next one: see evictions"},
	"lrutail_reflocked":     {0, 40, "there a value is held while its reply is on its way; here nothing is"},
	"reclaimed":             {1, 0, "the maintainer or the crawler, whoever comes first: the sum is waited for"},
	"crawler_reclaimed":     {1, 0, "see reclaimed"},
}

// derived adds sums and differences of a class's stats that are to be compared too.
func derived(items, slabs map[string]string) {
	for key, number := range maps.Clone(items) {
		if class, ok := strings.CutSuffix(key, ":number"); ok {
			_, id, _ := strings.Cut(class, ":")
			items[class+":number+free"] = strconv.Itoa(atoi(number) + atoi(slabs[id+":free_chunks"]))
			items[class+":number_warm+cold"] = strconv.Itoa(atoi(items[class+":number_warm"]) + atoi(items[class+":number_cold"]))
			if evicted := atoi(items[class+":evicted"]); evicted > 0 {
				items[class+":evicted-free"] = strconv.Itoa(evicted - atoi(slabs[id+":free_chunks"]))
			}
		}
	}
}

// TestCountsAsMemcachedUnderPressure gives both the same chunk sizes, memory and seeded load from one connection, paced so that the maintainers keep up: sets of three sizes
// until memory has been filled three times, gets of some keys once or twice while they are new, deletes, and items that are dead at once in a class of their own.
func TestCountsAsMemcachedUnderPressure(t *testing.T) {
	socket := startMemcached(t, "-m", "8", "-o", "slab_sizes=160-800-4000-8000,no_slab_reassign,slab_automove=0")
	if socket == "" {
		t.Skip("no memcached on this machine")
	}
	if testing.Short() {
		t.Skip("seconds of waiting for maintainers")
	}
	ours := start(t, func(o *setup) {
		o.cache.MemoryLimit, o.cache.SlabSizes, o.cache.NoPageMoves = 8<<20, []int{160, 800, 4000, 8000}, true
		tuning := server.DefaultTuning
		tuning.Automove = 0
		o.server.Tuning, o.server.Threads = &tuning, 2
	})
	const seed, sets, dead, batch = 7, 20_000, 100, 100
	t.Logf("seed %d", seed)
	type result struct{ general, items, slabs map[string]string }
	results := map[string]result{}
	for _, name := range []string{"memcached", "ours"} { // in this order: a maintainer that is left alone there sleeps up to a second
		addr, nap := socket, time.Duration(0)
		if name == "ours" {
			addr, nap = ours.addr, 30*time.Millisecond
		}
		c := dial(t, addr)
		r := rand.New(rand.NewPCG(seed, 0))
		sizes := []int{60, 600, 3000}
		c.ask("lru tune 20 40 100000 100000\r\n", "OK\r\n") // shares alone decide, not how many seconds this machine takes
		// A maintainer that sleeps moves nothing: here it is through when nothing has moved for longer than it sleeps while there is something to move, there as soon as
		// two looks are the same, since it would begin to sleep in the pauses and leave its work to the stores.
		through := func() {
			last, since := "", time.Now()
			until(t, "the maintainer is through", func() bool {
				s := c.stats("")
				was := last
				if last = s["moves_to_cold"] + " " + s["moves_to_warm"] + " " + s["moves_within_lru"]; last != was {
					since = time.Now()
				}
				return last == was && time.Since(since) >= nap
			})
		}
		for i := 0; i < sets; i += batch {
			var text, want strings.Builder
			for n := i; n < i+batch; n++ {
				value := strings.Repeat("x", sizes[r.IntN(len(sizes))])
				fmt.Fprintf(&text, "set key%06d 0 0 %d\r\n%s\r\n", n, len(value), value)
				want.WriteString("STORED\r\n")
				switch p := r.IntN(20); {
				case p < 6:
					for range 1 + p%2 {
						fmt.Fprintf(&text, "get key%06d\r\n", n)
						fmt.Fprintf(&want, "VALUE key%06d 0 %d\r\n%s\r\nEND\r\n", n, len(value), value)
					}
				case p == 6:
					fmt.Fprintf(&text, "delete key%06d\r\n", n)
					want.WriteString("DELETED\r\n")
				case p == 7:
					text.WriteString("get nothing\r\n")
					want.WriteString("END\r\n")
				}
			}
			c.ask(text.String(), want.String())
			through()
		}
		for n := range dead {
			c.ask(fmt.Sprintf("set dead%d 0 -1 5000\r\n%s\r\n", n, strings.Repeat("x", 5000)), "STORED\r\n")
		}
		until(t, "a crawl begins", func() bool {
			c.send("lru_crawler crawl all\r\n")
			return c.line() == "OK"
		})
		// Their chunks, too, which are freed here when nobody can be reading them any more.
		until(t, "the dead are gone", func() bool {
			s := c.stats("")
			return atoi(s["crawler_reclaimed"])+atoi(s["reclaimed"]) == dead && c.stats(" slabs")["4:used_chunks"] == "0"
		})
		results[name] = result{c.stats(""), c.stats(" items"), c.stats(" slabs")}
	}
	a, b := results["ours"], results["memcached"]
	compare := func(what string, a, b map[string]string) {
		if ka, kb := slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)); !slices.Equal(ka, kb) {
			t.Errorf("%s: keys differ\n     ours %v\nmemcached %v", what, ka, kb)
		}
		for _, key := range slices.Sorted(maps.Keys(a)) {
			x, y := float64(atoi(a[key])), float64(atoi(b[key]))
			rule := pressureRules[key[strings.LastIndexByte(key, ':')+1:]]
			if off := math.Abs(x - y); off > rule.share*max(x, y)+rule.plus {
				t.Errorf("%s: %s is %v here, %v in memcached; they may be %.0f %% and %.0f more apart (%q)", what, key, x, y, rule.share*100, rule.plus, rule.why)
			}
		}
	}
	derived(a.items, a.slabs)
	derived(b.items, b.slabs)
	compare("stats items", a.items, b.items)
	compare("stats slabs", a.slabs, b.slabs)
	general := func(all map[string]string) map[string]string {
		some := map[string]string{}
		for _, key := range []string{"evictions", "evicted_unfetched", "evicted_active", "moves_to_cold", "moves_to_warm", "moves_within_lru", "curr_items", "total_items", "bytes",
			"cmd_set", "cmd_get", "get_hits", "get_misses", "delete_hits", "expired_unfetched", "slabs_moved"} {
			some[key] = all[key]
		}
		return some
	}
	compare("stats", general(a.general), general(b.general))
	if atoi(a.general["evictions"]) < sets/3 {
		t.Errorf("%s evictions: no pressure", a.general["evictions"])
	}
	for _, key := range []string{"evictions", "evicted_unfetched", "evicted_active", "moves_to_cold", "moves_to_warm", "moves_within_lru", "curr_items", "crawler_reclaimed", "reclaimed"} {
		t.Logf("%s: %s here, %s in memcached", key, a.general[key], b.general[key])
	}
}

// atoi is the number, or 0.
func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
