package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func tuneCommand() *cli.Command {
	return &cli.Command{
		Name: "tune", Usage: "which -f, slab_sizes and -m would suit the items in the file", ArgsUsage: "FILE",
		Description: "For the live items of the file: the pages that they need under the file's own class table, under the best growth factor, and under the best table of sizes. What is\n" +
			"left for others to fill counts as needed: pages are whole.",
		Flags: []cli.Flag{&cli.IntFlag{Name: "classes", Value: 62, Usage: "propose up to `N` sizes for slab_sizes"}},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			d, err := demandOf(c, in)
			if err != nil {
				return err
			}
			return tune(c, in, d)
		}),
	}
}

// demand is how many chunks of at least so many bytes the live items need: sizes in steps of 8, as chunks have.
type demand struct {
	chunks   []int64 // by size / 8
	bytes    int64   // of the items
	items    int64
	chunkMax int
}

func demandOf(c *cli.Context, in *restore.Inspected) (*demand, error) {
	table := tableOf(in)
	total := &demand{chunkMax: table[len(table)-1]}
	parts := make([]demand, workers(c))
	for i := range parts {
		parts[i].chunks = make([]int64, total.chunkMax/8+1)
	}
	err := walk(c, in, "sizes", func(worker int, it *mmapslab.Item, m mmapslab.Meta) {
		if in.Fate(it, m) != restore.Alive {
			return
		}
		d := &parts[worker]
		d.items++
		d.bytes += int64(it.Size())
		need := func(size int) { d.chunks[min((size+7)/8, len(d.chunks)-1)]++ }
		if it.Ref()&mmapslab.Chained == 0 {
			need(it.Size())
			return
		}
		need(mmapslab.HeaderSize + mmapslab.ChainRefSize + len(it.Key()))
		for left := it.ValueLen(); left > 0; {
			n := min(left, total.chunkMax-mmapslab.DataHeaderSize)
			need(n + mmapslab.DataHeaderSize)
			left -= n
		}
	})
	total.chunks = make([]int64, total.chunkMax/8+1)
	for _, p := range parts {
		total.items += p.items
		total.bytes += p.bytes
		for i, n := range p.chunks {
			total.chunks[i] += n
		}
	}
	return total, err
}

// pages returns how many pages the items need under a class table.
func (d *demand) pages(table []int) (pages int64) {
	class, chunks := 0, int64(0)
	close := func() {
		pages += pagesFor(chunks, table[class])
		class, chunks = class+1, 0
	}
	for i, n := range d.chunks {
		for i*8 > table[class] {
			close()
		}
		chunks += n
	}
	close()
	return pages
}

func pagesFor(chunks int64, size int) int64 {
	perPage := int64(mmapslab.PageSize / size)
	return (chunks + perPage - 1) / perPage
}

// bestFactor tries growth factors as one would type them.
func (d *demand) bestFactor() (factor float64, pages int64) {
	pages = math.MaxInt64
	for percent := 200; percent >= 102; percent-- { // of equal ones the largest: fewer classes
		f := float64(percent) / 100
		if p := d.pages(mmapslab.ChunkSizes(f, 48, d.chunkMax)); p < pages {
			factor, pages = f, p
		}
	}
	return factor, pages
}

// sizesMost bounds how many sizes are considered as ends of classes: neighbours are taken together when there are more.
const sizesMost = 600

// sizesApart is by how much more than that sizes of slab_sizes must differ, as in memcached.
const sizesApart = 8

// bestSizes finds the table of up to most sizes, and the largest chunk, that needs the fewest pages; of those that need the same, one with the fewest sizes. It is the
// segmentation of the sorted sizes into classes by dynamic programming, each class costing the pages that its items need in chunks of its largest size.
func (d *demand) bestSizes(most int) (table []int) {
	type group struct {
		size   int // the largest of its sizes
		chunks int64
	}
	var groups []group
	var total int64
	for i, n := range d.chunks {
		if n > 0 && i*8 < d.chunkMax {
			groups = append(groups, group{max(i*8, mmapslab.MinChunkSize), n})
			total += n
		}
	}
	// Too many: join those within a step of each other, and raise the step until they are few enough.
	for step := 1.002; len(groups) > sizesMost; step = 1 + (step-1)*1.5 {
		var joined []group
		for _, g := range groups {
			if last := len(joined) - 1; last >= 0 && float64(g.size) <= float64(joined[last].size)*step {
				joined[last] = group{g.size, joined[last].chunks + g.chunks}
			} else {
				joined = append(joined, g)
			}
		}
		groups = joined
	}
	n := len(groups)
	if n == 0 {
		return []int{d.chunkMax}
	}
	sum := make([]int64, n+1)
	for i, g := range groups {
		sum[i+1] = sum[i] + g.chunks
	}
	most = min(most, n)
	// best[k][i] is the fewest pages for the first i groups in k classes; from says where the last class begins.
	const never = math.MaxInt64 / 2
	best := make([][]int64, most+1)
	from := make([][]int, most+1)
	for k := range best {
		best[k], from[k] = slices.Repeat([]int64{never}, n+1), make([]int, n+1)
	}
	best[0][0] = 0
	for k := 1; k <= most; k++ {
		for i := k; i <= n; i++ {
			for j := i - 1; j >= k-1; j-- {
				if j > 0 && groups[i-1].size <= groups[j-1].size+sizesApart {
					continue
				}
				if cost := best[k-1][j] + pagesFor(sum[i]-sum[j], groups[i-1].size); cost < best[k][i] {
					best[k][i], from[k][i] = cost, j
				}
			}
		}
	}
	k := 1
	for try := 2; try <= most; try++ {
		if best[try][n] < best[k][n] {
			k = try
		}
	}
	for i := n; i > 0; i, k = from[k][i], k-1 {
		table = append(table, groups[i-1].size)
	}
	slices.Reverse(table)
	return append(table, d.chunkMax)
}

func tune(c *cli.Context, in *restore.Inspected, d *demand) error {
	if d.items == 0 {
		return fmt.Errorf("slabctl: tune: there are no live items to go by")
	}
	most := min(max(c.Int("classes"), 1), 62)
	own := tableOf(in)
	now := d.pages(own)
	factor, byFactor := d.bestFactor()
	sizes := d.bestSizes(most)
	bySizes := d.pages(sizes)
	w := c.App.Writer
	limit, assigned, _ := in.Store.Pages()
	fmt.Fprintf(w, "%d live items of %s; %d pages of %d are assigned\n\n", d.items, size(d.bytes), assigned, limit)
	t := newTable(c, "class table", "classes", "pages", "memory", "saved", "of memory used")
	row := func(name string, classes int, pages int64) {
		t.row(name, classes, pages, size(pages*mmapslab.PageSize), size((now-pages)*mmapslab.PageSize), percent(d.bytes, pages*mmapslab.PageSize))
	}
	row("the file's own", len(own), now)
	row(fmt.Sprintf("-f %.2f", factor), len(mmapslab.ChunkSizes(factor, 48, d.chunkMax)), byFactor)
	row("slab_sizes", len(sizes), bySizes)
	t.end()
	fmt.Fprintln(w)
	best, flag := bySizes, "-o slab_sizes="+dashes(sizes[:len(sizes)-1])
	if byFactor <= bySizes || len(sizes) == 1 {
		best, flag = byFactor, fmt.Sprintf("-f %.2f", factor)
	}
	if best >= now {
		best, flag = now, ""
		fmt.Fprintln(w, "The class table suits the items: leave it.")
	} else {
		fmt.Fprintf(w, "%s saves %s.\n", flag, size((now-best)*mmapslab.PageSize))
	}
	// A tenth for growth, and for classes that come and go.
	memory := best + max(best/10, 4)
	fmt.Fprintf(w, "-m %d holds what is live now and a tenth more; the file has %d.\n", memory, limit)
	if flag != "" {
		fmt.Fprintf(w, "\nhearthd -m %d %s\nslabctl resize FILE OUT --memory %dm %s\n", memory, flag, memory, strings.Replace(flag, "-o slab_sizes=", "--slab-sizes ", 1))
	}
	return nil
}

func dashes(sizes []int) string {
	words := make([]string, len(sizes))
	for i, s := range sizes {
		words[i] = strconv.Itoa(s)
	}
	return strings.Join(words, "-")
}
