package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

//go:embed report.html.tmpl
var reportText string

var reportTemplate = template.Must(template.New("report").Parse(reportText))

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "one HTML page with all of it: page map, distributions, prefixes, waste, findings", ArgsUsage: "FILE",
		Description: "The page is self-contained. Charts have their figures as text.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "report.html", Usage: "write to `OUT`; - for stdout", TakesFile: true},
			&cli.StringFlag{Name: "delimiter", Aliases: []string{"D"}, Value: ":", Usage: "what ends a prefix"},
			&cli.IntFlag{Name: "depth", Value: 1, Usage: "prefixes of up to `N` parts"},
		},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			r, err := newReport(c, in)
			if err != nil {
				return err
			}
			if out := c.String("output"); out != "-" {
				if err := newFile(out, func(w io.Writer) error { return reportTemplate.Execute(w, r) }); err != nil {
					return err
				}
				fmt.Fprintln(c.App.Writer, out)
				return nil
			}
			return reportTemplate.Execute(c.App.Writer, r)
		}),
	}
}

// The report as the template has it.
type (
	report struct {
		File, Made, Server string
		Cards              []card
		Findings           []findingRow
		FindingCount       int
		Checked            string
		Skipped            []string
		PageText           string
		Classes            []classColor
		Maps               []pageMapView
		ClassRows          []classView
		Charts             []chart
	}
	card       struct{ Name, Value string }
	findingRow struct{ Offset, What, Means string }
	classColor struct{ ID, Hue, Saturation, Lighter int }
	classView  struct {
		ID, Chunk                                               int
		Pages, Used, Items, Hot, Warm, Cold, Temp, Bytes, Slack string
	}
	pageMapView struct {
		ID, Title, Alt string
		Columns, Rows  int
		Cells          []mapCell
		Keys           []mapKey
	}
	mapCell struct {
		X, Y           int
		Width          string
		Class, Opacity string
	}
	mapKey struct{ Class, Opacity, Label string }
	chart  struct {
		ID, Title, Text, Caption, Unit string
		Heads                          []cell
		Rows                           []chartRow
	}
	chartRow struct {
		Label, Note string
		Cells       []cell
		Share       string
	}
	cell struct {
		Name string
		Wide bool // not shown on a narrow screen
	}
)

func newReport(c *cli.Context, in *restore.Inspected) (*report, error) {
	checked, err := look(c, in)
	if err != nil {
		return nil, err
	}
	p, err := newPrefixes(c.String("delimiter"), c.Int("depth"), workers(c))
	if err != nil {
		return nil, err
	}
	n, err := count(c, in, func(worker int, it *mmapslab.Item, m mmapslab.Meta) { p.add(worker, in, it, m) })
	if err != nil {
		return nil, err
	}
	pages, err := n.pageRows()
	if err != nil {
		return nil, err
	}
	r := &report{File: in.File.Path(), Made: time.Unix(int64(in.Now), 0).UTC().Format("2006-01-02 15:04:05 UTC"), Server: in.Server}
	r.Checked, r.FindingCount, r.Skipped = grouped(checked.Items), len(checked.Findings)+checked.More, skipped(in, &checked)
	for _, f := range checked.Findings {
		r.Findings = append(r.Findings, findingRow{fmt.Sprintf("%#x", f.Offset), f.What, f.Means})
	}
	wasted, memory := n.wasted()
	r.cards(in, n, memory)
	r.classes(n)
	r.maps(n, pages)
	r.charts(n, p, wasted, memory)
	return r, nil
}

// grouped writes a number with spaces between the thousands.
func grouped[N int | int64 | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func (r *report) cards(in *restore.Inspected, n *census, memory int64) {
	limit, assigned, _ := in.Store.Pages()
	total := n.total()
	live := total.Items - n.expired.Items - n.flushed.Items
	x := in.Index.Stats()
	v := judge(in, limit)
	start := "cold: " + v.Reason
	if in.Server != "" {
		start = "refused, the file is in use"
	} else if v.Kind != restore.Cold {
		start = "warm: " + v.Reason
	}
	sb := in.File.Super
	r.Cards = []card{
		{"Live items", grouped(live)},
		{"Expired or flushed", grouped(total.Items - live)},
		{"Bytes of items", size(total.Bytes)},
		{"Memory of pages", fmt.Sprintf("%s of %s", size(memory), size(int64(limit)*mmapslab.PageSize))},
		{"Pages", fmt.Sprintf("%s of %s", grouped(assigned), grouped(limit))},
		{"Index", fmt.Sprintf("%s, %.0f%% full", size(x.Bytes), 100*float64(total.Items)/(float64(x.Buckets)*8))},
		{"State", sb.State.String()},
		{"A start would be", start},
	}
}

func (r *report) classes(n *census) {
	for i, row := range n.rows() {
		// The golden angle keeps neighbours apart; lightness tells those apart that share a hue.
		r.Classes = append(r.Classes, classColor{row.ID, i * 137 % 360, 45 + 20*(i%2), -14 + 14*(i/2%3)})
		l := func(s int) string { return grouped(row.lists[s].Items) }
		r.ClassRows = append(r.ClassRows, classView{row.ID, row.ChunkSize, grouped(row.Pages), percent(row.used, row.chunks), grouped(row.items.Items), l(0), l(1), l(2), l(3),
			size(row.items.Bytes), size(row.slack)})
	}
}

// Cells of a map: of more pages than cellsMost, neighbours share one.
const (
	cellsMost   = 2048
	mapColumns  = 64
	opacitySeps = 5
)

// maps draws the pages by class, fill and age.
func (r *report) maps(n *census, pages []pageRow) {
	per := (len(pages) + cellsMost - 1) / cellsMost
	per = max(per, 1)
	count := (len(pages) + per - 1) / per
	columns := min(mapColumns, max(count, 24))
	byClass := pageMapView{ID: "class", Title: "By slab class", Columns: columns, Rows: max(1, (count+columns-1)/columns)}
	byFill, byAge := byClass, byClass
	byFill.ID, byFill.Title = "fill", "By fill"
	byAge.ID, byAge.Title = "age", "By age"
	var oldest, free, damaged int64
	var fill float64
	for i := range pages {
		oldest = max(oldest, pages[i].age())
		switch {
		case pages[i].State == "damaged":
			damaged++
		case pages[i].ClassID == 0:
			free++
		}
		fill += pages[i].fill()
	}
	scale := max(oldest, opacitySeps) // so that each step is of other seconds
	for i := range count {
		group := pages[i*per : min((i+1)*per, len(pages))]
		x, y := i%columns, i/columns
		var used, chunks, age, assigned, worst int64
		class := map[int]int{}
		for j := range group {
			g := &group[j]
			if g.State == "damaged" {
				worst++
			}
			if g.ClassID == 0 {
				continue
			}
			assigned++
			class[g.ClassID]++
			used, chunks, age = used+int64(g.used), chunks+int64(g.perPage), age+g.age()
		}
		cell := func(class string, share float64) mapCell {
			c := mapCell{X: x, Y: y, Width: ".9", Class: class}
			if share >= 0 {
				c.Opacity = opacity(share)
			}
			return c
		}
		if assigned == 0 {
			name := "none"
			if worst > 0 {
				name = "damaged"
			}
			for _, m := range []*pageMapView{&byClass, &byFill, &byAge} {
				m.Cells = append(m.Cells, cell(name, -1))
			}
			continue
		}
		most := 0
		for id, n := range class {
			if most == 0 || n > class[most] || n == class[most] && id < most {
				most = id
			}
		}
		name := fmt.Sprintf("c%d", most)
		if worst > 0 {
			name = "damaged"
		}
		byClass.Cells = append(byClass.Cells, cell(name, -1))
		byFill.Cells = append(byFill.Cells, cell("seq", float64(used)/float64(max(chunks, 1))))
		byAge.Cells = append(byAge.Cells, cell("seq", float64(age/assigned)/float64(scale)))
	}
	each := "Each cell is a page"
	if per > 1 {
		each = fmt.Sprintf("Each cell is %d pages, in the colour of the class that has most of them", per)
	}
	assigned := int64(len(pages)) - free - damaged
	r.PageText = fmt.Sprintf("%s pages of 1 MiB are assigned to classes, %s below the last of them are free, %s damaged. %s; they are in the order of the file, line by line.",
		grouped(assigned), grouped(free), grouped(damaged), each)
	rows := n.rows()
	largest := slices.Clone(rows)
	slices.SortStableFunc(largest, func(a, b classRow) int { return int(b.Pages) - int(a.Pages) })
	byClass.Alt = "No pages are assigned."
	if len(largest) > 0 {
		byClass.Alt = "Most pages:"
		for i, row := range largest[:min(3, len(largest))] {
			byClass.Alt += fmt.Sprintf("%s class %d with %s of %s", map[bool]string{true: ",", false: ""}[i > 0], row.ID, grouped(row.Pages), grouped(assigned))
		}
		byClass.Alt += ". The table of slab classes has all."
	}
	for _, row := range rows {
		byClass.Keys = append(byClass.Keys, mapKey{fmt.Sprintf("c%d", row.ID), "", fmt.Sprintf("%d: %s B", row.ID, grouped(row.ChunkSize))})
	}
	byClass.Keys = append(byClass.Keys, mapKey{"none", "", "free"})
	byFill.Alt = fmt.Sprintf("Share of a page's chunks that are in use: %.0f%% on average.", 100*fill/float64(max(assigned, 1)))
	byAge.Alt = fmt.Sprintf("Mean time since the items of a page were used: up to %s.", span(oldest))
	for i := range opacitySeps {
		share := (float64(i) + 0.5) / opacitySeps
		byFill.Keys = append(byFill.Keys, mapKey{"seq", opacity(share), fmt.Sprintf("%d–%d%%", 100*i/opacitySeps, 100*(i+1)/opacitySeps)})
		byAge.Keys = append(byAge.Keys, mapKey{"seq", opacity(share), fmt.Sprintf("up to %s", span(scale*int64(i+1)/opacitySeps))})
	}
	r.Maps = []pageMapView{byClass, byFill, byAge}
}

// opacity is one of a few steps for a share of 0 to 1.
func opacity(share float64) string {
	step := min(int(share*opacitySeps), opacitySeps-1)
	return fmt.Sprintf("%.2f", 0.15+0.85*float64(step)/(opacitySeps-1))
}

// charts are tables with bars.
func (r *report) charts(n *census, p *prefixes, wasted []waste, memory int64) {
	share := func(part, most int64) string { return fmt.Sprintf("%.1f", 100*float64(part)/float64(max(most, 1))) }
	w := chart{ID: "waste", Title: "Wasted bytes by cause", Unit: "cause", Caption: "Memory of assigned pages that holds no live key or value", Heads: []cell{{"bytes", false}, {"of memory", false}}}
	for _, row := range wasted {
		w.Rows = append(w.Rows, chartRow{row.Cause, row.Means, []cell{{size(row.Bytes), false}, {percent(row.Bytes, memory), false}}, share(row.Bytes, memory)})
	}
	if len(wasted) > 0 {
		w.Text = fmt.Sprintf("The largest is %s: %s of %s.", wasted[0].Cause, size(wasted[0].Bytes), size(memory))
	}
	histogram := func(id, title, unit, caption string, bins []bin) chart {
		ch := chart{ID: id, Title: title, Unit: unit, Caption: caption, Heads: []cell{{"items", false}, {"share", true}, {"bytes", false}}}
		var most, all int64
		peak := ""
		for _, b := range bins {
			if all += b.Items; b.Items > most {
				most, peak = b.Items, b.Label
			}
		}
		for _, b := range bins {
			ch.Rows = append(ch.Rows, chartRow{b.Label, "", []cell{{grouped(b.Items), false}, {percent(b.Items, all), true}, {size(b.Bytes), false}}, share(b.Items, most)})
		}
		ch.Text = "There are no items."
		if most > 0 {
			ch.Text = fmt.Sprintf("Most items, %s of %s, are in one row: %s.", grouped(most), grouped(all), peak)
		}
		return ch
	}
	px := chart{ID: "prefixes", Title: "Top prefixes", Unit: "prefix", Caption: "By bytes of items; waste is slack and dead items", Heads: []cell{{"items", false}, {"bytes", false}, {"memory", true}, {"waste", true}, {"fetched", true}}}
	rows, others := p.top(prefixOrders["bytes"], 20)
	var most int64
	for _, row := range rows {
		most = max(most, row.Bytes)
	}
	if others.Items > 0 {
		rows = append(rows, others)
	}
	for i, row := range rows {
		bar := share(row.Bytes, most)
		if others.Items > 0 && i == len(rows)-1 { // beside it the others' bars would vanish
			bar = ""
		}
		px.Rows = append(px.Rows, chartRow{row.Name, "", []cell{{grouped(row.Items), false}, {size(row.Bytes), false}, {size(row.Memory), true}, {size(row.waste()), true}, {percent(row.Fetched, row.Items), true}}, bar})
	}
	px.Text = "There are no items."
	if len(rows) > 0 {
		px.Text = fmt.Sprintf("%s has %s of the bytes.", rows[0].Name, percent(rows[0].Bytes, n.total().Bytes))
	}
	r.Charts = []chart{
		w,
		px,
		histogram("sizes", "Sizes", "bytes", "Items by size, header and key included", n.sizeBins(0)),
		histogram("ttl", "Time to live", "expires within", "Items by the time that is left to them", n.ttlBins()),
		histogram("ages", "Ages", "used within", "Items by the time since the last use that the LRU took notice of", n.ageBins()),
	}
}
