package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "which live keys two files have, and which of them differ", ArgsUsage: "A B",
		Description: "A line for each key: - is in A alone, + in B alone, ! in both with another value, flags or expiry. Exits with 1 when there is any.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 50, Usage: "show up to `N` keys; 0: all"},
			&cli.IntFlag{Name: "slack", Value: 1, Usage: "seconds by which expiry times may differ"},
		},
		Action: func(c *cli.Context) error {
			if err := arguments(c, "A", "B"); err != nil {
				return err
			}
			a, err := open(c, c.Args().Get(0))
			if err != nil {
				return err
			}
			defer a.Close()
			b, err := open(c, c.Args().Get(1))
			if err != nil {
				return err
			}
			defer b.Close()
			return restoreErr(diff(c, a, b))
		},
	}
}

// differences are counted by kind.
type differences struct {
	lines []string
	onlyA tally
	onlyB tally
	both  int64
	other map[string]int64 // what differs
	bytes int64            // of the items that are the same
}

func diff(c *cli.Context, a, b *restore.Inspected) error {
	d := &differences{other: map[string]int64{}}
	limit := c.Int("limit")
	var broken error
	keep := func(mark string, key []byte, what string) {
		if limit == 0 || len(d.lines) < limit {
			d.lines = append(d.lines, strings.TrimRight(fmt.Sprintf("%s %s  %s", mark, quoteKey(key), what), " "))
		}
	}
	each := func(from, in *restore.Inspected, name string, visit func(it *mmapslab.Item, m mmapslab.Meta, other *mmapslab.Item, found bool)) error {
		return walkInOrder(c, from, name, restore.WalkOptions{Pace: pace(c, a, b)}, func(it *mmapslab.Item, m mmapslab.Meta) {
			if from.Fate(it, m) != restore.Alive || broken != nil {
				return
			}
			other, found, err := in.Find(it.Key())
			if err != nil {
				broken = err
			} else if found && in.Fate(&other, metaOf(in, &other)) != restore.Alive {
				found = false
			}
			visit(it, m, &other, found)
		})
	}
	var left, right []byte
	err := each(a, b, "A", func(it *mmapslab.Item, m mmapslab.Meta, other *mmapslab.Item, found bool) {
		if !found {
			d.onlyA.add(it.Size())
			keep("-", it.Key(), "")
			return
		}
		d.both++
		left, _ = a.Store.AppendValue(it, left[:0])
		right, _ = b.Store.AppendValue(other, right[:0])
		var what []string
		if !bytes.Equal(left, right) {
			what = append(what, "value")
		}
		if it.ClientFlags() != other.ClientFlags() {
			what = append(what, "flags")
		}
		if x, y := int64(m.Exptime()), int64(metaOf(b, other).Exptime()); (x == 0) != (y == 0) || max(x, y)-min(x, y) > int64(c.Int("slack")) {
			what = append(what, "exptime")
		}
		if len(what) == 0 {
			d.bytes += int64(it.Size())
			return
		}
		for _, w := range what {
			d.other[w]++
		}
		d.other[""]++
		keep("!", it.Key(), strings.Join(what, ", "))
	})
	if err == nil && broken == nil {
		err = each(b, a, "B", func(it *mmapslab.Item, _ mmapslab.Meta, _ *mmapslab.Item, found bool) {
			if !found {
				d.onlyB.add(it.Size())
				keep("+", it.Key(), "")
			}
		})
	}
	if err == nil {
		err = broken
	}
	if err != nil {
		return err
	}
	w := c.App.Writer
	for _, line := range d.lines {
		fmt.Fprintln(w, paint(c, map[byte]string{'-': red, '+': green, '!': yellow}[line[0]], line))
	}
	all := d.onlyA.Items + d.onlyB.Items + d.other[""]
	if more := all - int64(len(d.lines)); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	fmt.Fprintf(w, "same in both:  %d items, %s\nonly in A:     %d items, %s\nonly in B:     %d items, %s\ndifferent:     %d items: %d values, %d flags, %d expiry times\n",
		d.both-d.other[""], size(d.bytes), d.onlyA.Items, size(d.onlyA.Bytes), d.onlyB.Items, size(d.onlyB.Bytes), d.other[""], d.other["value"], d.other["flags"], d.other["exptime"])
	if all > 0 {
		return fail()
	}
	return nil
}

func metaOf(in *restore.Inspected, it *mmapslab.Item) mmapslab.Meta {
	return mmapslab.Meta(in.Store.Meta(it.Ref()).Load())
}
