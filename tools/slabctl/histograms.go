package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"hearth/restore"
)

func sortInts(s []int) { slices.Sort(s) }

// bin is a bar of a histogram.
type bin struct {
	Label string
	tally
}

// draw prints bars; the longest takes the width that is left.
func draw(c *cli.Context, unit string, bins []bin) {
	var most, all int64
	for _, b := range bins {
		most, all = max(most, b.Items), all+b.Items
	}
	t := newTable(c, unit, "items", "share", "bytes", " ")
	room := max(10, width(c)-60)
	for _, b := range bins {
		t.row(b.Label, b.Items, percent(b.Items, all), size(b.Bytes), "  "+blocks(float64(b.Items)/float64(max(most, 1)), room))
	}
	t.end()
}

// bins are the buckets of a scale from the first to the last that has items.
func (s *scale) bins(label func(from, to int64) string) (all []bin) {
	first, last := -1, -1
	for i := range s {
		if s[i].Items > 0 {
			if last = i; first < 0 {
				first = i
			}
		}
	}
	for i := first; i >= 0 && i <= last; i++ {
		from, to := bounds(i)
		all = append(all, bin{label(from, to), s[i]})
	}
	return all
}

func sizesCommand() *cli.Command {
	return &cli.Command{
		Name: "sizes", Usage: "items by size, header and key included", ArgsUsage: "FILE",
		Flags: []cli.Flag{&cli.IntFlag{Name: "width", Usage: "bars of `N` bytes each instead of powers of two"}},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			n, err := count(c, in)
			if err != nil {
				return err
			}
			draw(c, "bytes", n.sizeBins(c.Int("width")))
			return nil
		}),
	}
}

// sizeBins are the items by size; with width 0 by powers of two.
func (n *census) sizeBins(width int) (all []bin) {
	var s scale
	linear := map[int]*tally{}
	for _, sizes := range []map[int]int64{n.sizes, n.chained} {
		for size, items := range sizes {
			t := tally{items, items * int64(size)}
			if width > 0 {
				if linear[size/width] == nil {
					linear[size/width] = &tally{}
				}
				linear[size/width].merge(t)
				continue
			}
			i := 0
			for ; i < len(s)-1; i++ {
				if _, to := bounds(i); int64(size) <= to {
					break
				}
			}
			s[i].merge(t)
		}
	}
	if width == 0 {
		return s.bins(func(from, to int64) string { return fmt.Sprintf("%d-%d", from, to) })
	}
	var keys []int
	for k := range linear {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		all = append(all, bin{fmt.Sprintf("%d-%d", k*width, (k+1)*width-1), *linear[k]})
	}
	return all
}

func ttlCommand() *cli.Command {
	return &cli.Command{
		Name: "ttl", Usage: "items by the time that is left to them", ArgsUsage: "FILE",
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			n, err := count(c, in)
			if err != nil {
				return err
			}
			draw(c, "expires within", n.ttlBins())
			return nil
		}),
	}
}

func (n *census) ttlBins() []bin {
	var all []bin
	for _, b := range []bin{{"expired", n.expired}, {"flushed", n.flushed}} {
		if b.Items > 0 {
			all = append(all, b)
		}
	}
	all = append(all, n.ttl.bins(func(_, to int64) string { return span(to + 1) })...)
	return append(all, bin{"never", n.forever})
}

func agesCommand() *cli.Command {
	return &cli.Command{
		Name: "ages", Usage: "how long items have not been used, by class and LRU segment", ArgsUsage: "FILE",
		Description: "The age counts from the last use that the LRU took notice of: a set, and from the second get on those that move an item. Quantiles are right within a factor of two.",
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			n, err := count(c, in)
			if err != nil {
				return err
			}
			t := newTable(c, "class", "chunk", "lru", "items", "bytes", "p10", "median", "p90", "oldest")
			for _, r := range n.rows() {
				for s := range r.lists {
					if r.lists[s].Items == 0 {
						continue
					}
					q := func(q float64) string { return span(min(r.ages[s].quantile(q), int64(r.oldest[s]))) }
					t.row(r.ID, r.ChunkSize, segments[s], r.lists[s].Items, size(r.lists[s].Bytes), q(0.1), q(0.5), q(0.9), span(int64(r.oldest[s])))
				}
			}
			t.end()
			return nil
		}),
	}
}

// ageBins are all items by age.
func (n *census) ageBins() []bin {
	var s scale
	for i := range n.class {
		for j := range n.class[i].ages {
			s.merge(&n.class[i].ages[j])
		}
	}
	return s.bins(func(_, to int64) string { return span(to + 1) })
}
