package main

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "the largest, oldest or coldest items", ArgsUsage: "FILE",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "by", Value: "size", Usage: "size, age (stored first, by CAS) or idle (not used for longest)"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "show `N` items"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON lines"},
		}, filterFlags()...),
		Action: withFile(top),
	}
}

// ranked is an item with what it is ranked by; the largest come first, then the earlier in the file.
type ranked struct {
	by   uint64
	ref  mmapslab.Ref
	item itemJSON
}

func (r *ranked) compare(o *ranked) int {
	return cmp.Or(cmp.Compare(o.by, r.by), cmp.Compare(r.ref, o.ref))
}

// ranks keeps the first few of many: a heap with the last of them on top.
type ranks []*ranked

func (r ranks) Len() int           { return len(r) }
func (r ranks) Less(i, j int) bool { return r[i].compare(r[j]) > 0 }
func (r ranks) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *ranks) Push(x any)        { *r = append(*r, x.(*ranked)) }
func (r *ranks) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

func top(c *cli.Context, in *restore.Inspected) error {
	by, ok := map[string]func(it *mmapslab.Item, m mmapslab.Meta) uint64{
		"size": func(it *mmapslab.Item, _ mmapslab.Meta) uint64 { return uint64(it.Size()) },
		"age":  func(it *mmapslab.Item, _ mmapslab.Meta) uint64 { return ^it.CAS() },
		"idle": func(_ *mmapslab.Item, m mmapslab.Meta) uint64 { return uint64(m.Age(in.Now)) },
	}[c.String("by")]
	if !ok {
		return fmt.Errorf("slabctl: --by %q, want size, age or idle", c.String("by"))
	}
	wanted, err := newFilter(c)
	if err != nil {
		return err
	}
	n := max(c.Int("limit"), 1)
	all := make([]ranks, workers(c))
	err = walk(c, in, "top", func(worker int, it *mmapslab.Item, m mmapslab.Meta) {
		r := &all[worker]
		one := ranked{by: by(it, m), ref: it.Ref() &^ mmapslab.Chained}
		if r.Len() == n && one.compare((*r)[0]) > 0 || !wanted(in, it, m) {
			return
		}
		one.item = describe(in, it, m)
		one.item.KeyBase64 = slices.Clone(one.item.KeyBase64)
		if heap.Push(r, &one); r.Len() > n {
			heap.Pop(r)
		}
	})
	if err != nil {
		return err
	}
	joined := slices.Concat(all...)
	slices.SortFunc(joined, (*ranked).compare)
	var found []itemJSON
	for _, r := range joined[:min(n, len(joined))] {
		found = append(found, r.item)
	}
	if c.Bool("json") {
		e := jsonLines(c.App.Writer)
		for _, j := range found {
			if err := e.Encode(j); err != nil {
				return err
			}
		}
		return nil
	}
	itemTable(c, found)
	return nil
}
