package main

import (
	"github.com/urfave/cli/v2"

	"hearth/restore"
)

func classesCommand() *cli.Command {
	return &cli.Command{
		Name: "classes", Usage: "slab classes: pages, chunks, items, and what of them is wasted", ArgsUsage: "FILE",
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			n, err := count(c, in)
			if err != nil {
				return err
			}
			t := newTable(c, "class", "chunk", "pages", "chunks", "used", "items", "hot", "warm", "cold", "temp", "bytes", "slack", "dead", "oldest")
			var pages uint64
			for _, r := range n.rows() {
				pages += r.Pages
				oldest := r.oldest[0]
				for _, age := range r.oldest {
					oldest = max(oldest, age)
				}
				t.row(r.ID, r.ChunkSize, r.Pages, r.chunks, percent(r.used, r.chunks), r.items.Items, r.lists[0].Items, r.lists[1].Items, r.lists[2].Items, r.lists[3].Items,
					size(r.items.Bytes), size(r.slack), size(r.dead), span(int64(oldest)))
			}
			total := n.total()
			t.row("all", "", pages, "", "", total.Items, n.segment(0).Items, n.segment(1).Items, n.segment(2).Items, n.segment(3).Items, size(total.Bytes), "", "", "")
			t.end()
			return nil
		}),
	}
}
