package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"hearth/restore"
)

func pageCommand() *cli.Command {
	return &cli.Command{
		Name: "page", Usage: "a labelled hexdump of a page: its descriptor and its chunks", ArgsUsage: "FILE N",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "slot", Usage: "begin with slot `N`"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 4, Usage: "show `N` chunks; 0: all"},
			&cli.IntFlag{Name: "value", Value: 64, Usage: "show up to `N` bytes of each value"},
		},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			n, err := strconv.ParseUint(c.Args().Get(1), 10, 32)
			if err != nil {
				return fmt.Errorf("slabctl: page %q, want a number", c.Args().Get(1))
			}
			p, err := in.Store.PageInfo(uint32(n))
			if err != nil {
				return fmt.Errorf("slabctl: %w", err)
			}
			w := c.App.Writer
			fmt.Fprintf(w, "page %d at %#x: %s", p.Page, p.Offset, p.State)
			perPage := in.Store.PerPage(p.Page)
			if perPage > 0 {
				fmt.Fprintf(w, ", class %d, %d chunks of %d bytes, generation %d", p.ClassID, perPage, p.ChunkSize, p.Generation)
			}
			fmt.Fprintf(w, "\n%010x  %016x                  descriptor: generation 16, chunk size / 8 24, state 8, check 16\n", p.At, p.Descriptor)
			from, to := c.Int("slot"), perPage
			if limit := c.Int("limit"); limit > 0 {
				to = min(to, from+limit)
			}
			return restore.Guard(func() {
				for slot := max(from, 0); slot < to; slot++ {
					fmt.Fprintln(w)
					dumpChunk(w, in, in.Store.RefAtPlace(p.Page, uint32(slot)), c.Int("value"))
				}
				if to < perPage {
					fmt.Fprintf(w, "\nand %d chunks more: --slot %d\n", perPage-to, to)
				}
			})
		}, "N"),
	}
}
