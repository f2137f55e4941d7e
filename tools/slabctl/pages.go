package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func pagesCommand() *cli.Command {
	return &cli.Command{
		Name: "pages", Usage: "a map of the pages: class, fill and age", ArgsUsage: "FILE",
		Description: "The map has a letter a page, by class, and a dot for a free one; a capital when the page is at least half full. --list has a line a page.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "list", Aliases: []string{"l"}, Usage: "a line for each page"},
			&cli.IntFlag{Name: "class", Usage: "only pages of slab class `ID`"},
		},
		Action: withFile(pages),
	}
}

// pageRow is what can be said of a page.
type pageRow struct {
	mmapslab.PageInfo
	pageCensus
	perPage int
}

func (p *pageRow) fill() float64 { return float64(p.used) / float64(max(p.perPage, 1)) }

// age is the mean idle time of the page's items in seconds.
func (p *pageRow) age() int64 { return int64(p.ages / uint64(max(p.items, 1))) }

// pageRows are all pages up to the last one that was ever assigned.
func (n *census) pageRows() (all []pageRow, err error) {
	for page := uint32(1); page <= n.in.Store.LastPage(); page++ {
		info, err := n.in.Store.PageInfo(page)
		if err != nil {
			return nil, err
		}
		all = append(all, pageRow{info, n.pages[page], n.in.Store.PerPage(page)})
	}
	return all, nil
}

func pages(c *cli.Context, in *restore.Inspected) error {
	n, err := count(c, in)
	if err != nil {
		return err
	}
	rows, err := n.pageRows()
	if err != nil {
		return err
	}
	if c.IsSet("class") {
		kept := rows[:0]
		for _, r := range rows {
			if r.ClassID == c.Int("class") {
				kept = append(kept, r)
			}
		}
		rows = kept
	}
	if c.Bool("list") {
		t := newTable(c, "page", "offset", "state", "class", "chunk", "generation", "used", "fill", "items", "bytes", "newest", "mean", "oldest")
		for i := range rows {
			r := &rows[i]
			t.row(r.Page, fmt.Sprintf("%#x", r.Offset), r.State, r.ClassID, r.ChunkSize, r.Generation, fmt.Sprintf("%d/%d", r.used, r.perPage), fmt.Sprintf("%.0f%%", 100*r.fill()),
				r.items, size(int64(r.bytes)), span(int64(r.newest)), span(r.age()), span(int64(r.oldest)))
		}
		t.end()
		return nil
	}
	pageMap(c, rows)
	return nil
}

// letters are the classes' names on the map, in turn.
const letters = "abcdefghijklmnopqrstuvwxyz"

// palette are ANSI colours for classes, in turn.
var palette = [...]string{"31", "32", "33", "34", "35", "36", "91", "92", "93", "94", "95", "96"}

func pageMap(c *cli.Context, rows []pageRow) {
	w := c.App.Writer
	perLine := max(10, (width(c)-8)/10*10)
	type sum struct {
		pages int
		size  int
		fill  float64
		age   int64
	}
	classes := map[int]*sum{}
	var order []int
	nth := map[int]int{}
	for _, r := range rows {
		if r.ClassID != 0 && classes[r.ClassID] == nil {
			classes[r.ClassID] = &sum{size: r.ChunkSize}
			order = append(order, r.ClassID)
		}
	}
	// By id, so that neighbours on the map of one file are so on that of another.
	sortInts(order)
	for i, id := range order {
		nth[id] = i
	}
	for i := range rows {
		r := &rows[i]
		if i%perLine == 0 {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%6d  ", r.Page)
		}
		switch {
		case r.State == "damaged":
			fmt.Fprint(w, paint(c, "41", "!"))
		case r.ClassID == 0:
			fmt.Fprint(w, paint(c, dim, "."))
		default:
			s := classes[r.ClassID]
			s.pages++
			s.fill += r.fill()
			s.age += r.age()
			letter := letters[nth[r.ClassID]%len(letters)]
			if r.fill() >= 0.5 {
				letter -= 'a' - 'A'
			}
			fmt.Fprint(w, paint(c, palette[nth[r.ClassID]%len(palette)], string(letter)))
		}
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w)
	t := newTable(c, "letter", "class", "chunk", "pages", "fill", "age", " ")
	for i, id := range order {
		s := classes[id]
		fill := s.fill / float64(max(s.pages, 1))
		t.row(string(letters[i%len(letters)]), id, s.size, s.pages, fmt.Sprintf("%.1f%%", 100*fill), span(s.age/int64(max(s.pages, 1))), "  "+blocks(fill, 20))
	}
	t.end()
}
