package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/lru"
	"hearth/mmapslab"
)

func statsCommand() *cli.Command {
	return &cli.Command{
		Name: "stats", Usage: "the server's stats, as far as the file has them", ArgsUsage: "FILE [items|slabs|sizes]",
		Description: "Counters of requests are not in the file. Names and meanings are the server's; what is expired or flushed and not reclaimed counts, as it does there.",
		Action: func(c *cli.Context) error {
			kind := ""
			if c.NArg() == 2 {
				kind = c.Args().Get(1)
			} else if err := arguments(c, "FILE"); err != nil {
				return err
			}
			in, err := open(c, c.Args().First())
			if err != nil {
				return err
			}
			defer in.Close()
			print, ok := map[string]func(n *census, stat func(name string, value any)){"": statsAll, "items": statsItems, "slabs": statsSlabs, "sizes": statsSizes}[kind]
			if !ok {
				return fmt.Errorf("slabctl: stats %s: want items, slabs or sizes", kind)
			}
			n, err := count(c, in)
			if err != nil {
				return restoreErr(err)
			}
			print(n, func(name string, value any) { fmt.Fprintf(c.App.Writer, "STAT %s %v\r\n", name, value) })
			fmt.Fprint(c.App.Writer, "END\r\n")
			return nil
		},
	}
}

func statsAll(n *census, stat func(name string, value any)) {
	store := n.in.Store
	limit, assigned, _ := store.Pages()
	x := n.in.Index.Stats()
	total := n.total()
	stat("time", n.in.Now)
	stat("limit_maxbytes", int64(limit)*mmapslab.PageSize)
	stat("bytes", total.Bytes)
	stat("curr_items", total.Items)
	stat("slab_global_page_pool", max(0, int(store.LastPage())-assigned))
	stat("hash_bytes", x.Bytes)
	stat("hash_is_expanding", btoi(x.Growing))
	stat("index_bytes", x.Bytes)
	stat("index_load", fmt.Sprintf("%.3f", float64(total.Items)/(float64(x.Buckets)*8)))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func statsItems(n *census, stat func(name string, value any)) {
	for _, r := range n.rows() {
		if r.items.Items == 0 {
			continue
		}
		s := func(name string, value any) { stat(fmt.Sprintf("items:%d:%s", r.ID, name), value) }
		s("number", r.items.Items)
		for i, name := range segments {
			if i != lru.Temp || r.lists[i].Items > 0 { // the server has it with -o temporary_ttl alone
				s("number_"+name, r.lists[i].Items)
			}
		}
		s("age_hot", r.oldest[0])
		s("age_warm", r.oldest[1])
		s("age", r.oldest[2])
		s("mem_requested", r.items.Bytes)
	}
}

func statsSlabs(n *census, stat func(name string, value any)) {
	active, memory := 0, int64(0)
	for _, r := range n.rows() {
		s := func(name string, value any) { stat(fmt.Sprintf("%d:%s", r.ID, name), value) }
		s("chunk_size", r.ChunkSize)
		s("chunks_per_page", r.PerPage)
		s("total_pages", r.Pages)
		s("total_chunks", r.chunks)
		s("used_chunks", r.used)
		s("free_chunks", r.unused)
		active++
		memory += int64(r.Pages) * mmapslab.PageSize
	}
	stat("active_slabs", active)
	stat("total_malloced", memory)
}

func statsSizes(n *census, stat func(name string, value any)) {
	const unit = 32
	rows := map[int]int64{}
	var order []int
	for _, sizes := range []map[int]int64{n.sizes, n.chained} {
		for size, items := range sizes {
			row := (size + unit - 1) / unit * unit
			if rows[row] == 0 {
				order = append(order, row)
			}
			rows[row] += items
		}
	}
	sortInts(order)
	for _, row := range order {
		stat(fmt.Sprint(row), rows[row])
	}
}
