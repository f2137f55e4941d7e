package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func itemsCommand() *cli.Command {
	return &cli.Command{
		Name: "items", Usage: "list items, filtered, in the order of the file", ArgsUsage: "FILE",
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 50, Usage: "show up to `N` items; 0: all"},
			&cli.StringFlag{Name: "after", Usage: "go on behind the item at `REF`, as the line at the end of a page of items says"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON lines"},
			&cli.BoolFlag{Name: "count", Usage: "print how many items there are, and their bytes"},
		}, filterFlags()...),
		Action: withFile(items),
	}
}

func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "class", Usage: "of slab class `ID`"},
		&cli.StringFlag{Name: "segment", Usage: "in the LRU segment `NAME`: hot, warm, cold or temp"},
		&cli.StringFlag{Name: "prefix", Usage: "keys that begin with `TEXT`"},
		&cli.StringFlag{Name: "regex", Usage: "keys that match the regular expression `RE`"},
		&cli.BoolFlag{Name: "expired", Usage: "expired or flushed items, which are not shown otherwise"},
		&cli.StringFlag{Name: "ttl", Usage: "that expire within `FROM-TO` seconds from now; either may be left out. none: that never do"},
		&cli.StringFlag{Name: "size", Usage: "of `FROM-TO` bytes with header and key; either may be left out"},
		&cli.StringFlag{Name: "idle", Usage: "last used `FROM-TO` seconds ago; either may be left out"},
	}
}

// filter is what the flags ask for.
type filter func(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) bool

func newFilter(c *cli.Context) (filter, error) {
	var all []filter
	if c.IsSet("class") {
		class := c.Int("class")
		all = append(all, func(in *restore.Inspected, it *mmapslab.Item, _ mmapslab.Meta) bool {
			return in.Store.ListClass(it.Ref()) == class
		})
	}
	if name := c.String("segment"); name != "" {
		segment := -1
		for i, s := range segments {
			if s == name {
				segment = i
			}
		}
		if segment < 0 {
			return nil, fmt.Errorf("slabctl: --segment %q, want hot, warm, cold or temp", name)
		}
		all = append(all, func(_ *restore.Inspected, _ *mmapslab.Item, m mmapslab.Meta) bool { return m.Segment() == segment })
	}
	if prefix := c.String("prefix"); prefix != "" {
		all = append(all, func(_ *restore.Inspected, it *mmapslab.Item, _ mmapslab.Meta) bool {
			return strings.HasPrefix(string(it.Key()), prefix)
		})
	}
	if text := c.String("regex"); text != "" {
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("slabctl: --regex: %w", err)
		}
		all = append(all, func(_ *restore.Inspected, it *mmapslab.Item, _ mmapslab.Meta) bool { return re.Match(it.Key()) })
	}
	if c.String("ttl") == "none" {
		all = append(all, func(_ *restore.Inspected, _ *mmapslab.Item, m mmapslab.Meta) bool { return m.Exptime() == 0 })
	} else if text := c.String("ttl"); text != "" {
		from, to, err := parseRange("ttl", text)
		if err != nil {
			return nil, err
		}
		all = append(all, func(in *restore.Inspected, _ *mmapslab.Item, m mmapslab.Meta) bool {
			ttl := int64(m.Exptime()) - int64(in.Now)
			return m.Exptime() != 0 && ttl >= from && ttl <= to
		})
	}
	for name, value := range map[string]func(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) int64{
		"size": func(_ *restore.Inspected, it *mmapslab.Item, _ mmapslab.Meta) int64 { return int64(it.Size()) },
		"idle": func(in *restore.Inspected, _ *mmapslab.Item, m mmapslab.Meta) int64 { return int64(m.Age(in.Now)) },
	} {
		text := c.String(name)
		if text == "" {
			continue
		}
		from, to, err := parseRange(name, text)
		if err != nil {
			return nil, err
		}
		all = append(all, func(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) bool {
			v := value(in, it, m)
			return v >= from && v <= to
		})
	}
	dead := c.Bool("expired")
	all = append(all, func(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) bool {
		return (in.Fate(it, m) != restore.Alive) == dead
	})
	return func(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) bool {
		for _, f := range all {
			if !f(in, it, m) {
				return false
			}
		}
		return true
	}, nil
}

// parseRange reads FROM-TO, FROM-, -TO, or one number for both.
func parseRange(flag, text string) (from, to int64, err error) {
	a, b, isRange := strings.Cut(text, "-")
	if from, to = 0, 1<<62; a != "" {
		from, err = parseSize(a)
	}
	if !isRange {
		to = from
	} else if b != "" && err == nil {
		to, err = parseSize(b)
	}
	if err != nil || a == "" && b == "" {
		return 0, 0, fmt.Errorf("slabctl: --%s %q, want FROM-TO, FROM- or -TO", flag, text)
	}
	return from, to, nil
}

func items(c *cli.Context, in *restore.Inspected) error {
	wanted, err := newFilter(c)
	if err != nil {
		return err
	}
	after := mmapslab.Ref(0)
	if text := c.String("after"); text != "" {
		if after, err = parseRef(in, text); err != nil {
			return err
		}
	}
	limit, asJSON, counting := c.Int("limit"), c.Bool("json"), c.Bool("count")
	var found []itemJSON
	var more, bytes int64
	e := jsonLines(c.App.Writer)
	// The walk goes on when the page is full, since how many are left is to be told; it costs a second for ten million.
	err = walkInOrder(c, in, "items", restore.WalkOptions{}, func(it *mmapslab.Item, m mmapslab.Meta) {
		if it.Ref()&^mmapslab.Chained <= after || !wanted(in, it, m) {
			return
		}
		bytes += int64(it.Size())
		if counting || limit > 0 && len(found) >= limit {
			more++
			return
		}
		found = append(found, describe(in, it, m))
		if j := &found[len(found)-1]; len(j.KeyBase64) > 0 { // it points into the walk's buffer
			j.KeyBase64 = append([]byte(nil), j.KeyBase64...)
		}
		if asJSON && limit == 0 {
			e.Encode(found[0])
			found = found[:0]
		}
	})
	if err != nil {
		return err
	}
	if counting {
		fmt.Fprintf(c.App.Writer, "%d items, %s\n", more, size(bytes))
		return nil
	}
	if asJSON {
		for _, j := range found {
			if err := e.Encode(j); err != nil {
				return err
			}
		}
	} else {
		itemTable(c, found)
	}
	if more > 0 && len(found) > 0 {
		note(c, "%d more: --after %s", more, found[len(found)-1].Place)
	}
	return nil
}

// itemTable lists items; keys come last, since they may be long.
func itemTable(c *cli.Context, all []itemJSON) {
	t := newTable(c, "place", "class", "lru", "size", "value", "flags", "ttl", "idle", "fetched", " key")
	for i := range all {
		j := &all[i]
		ttl, fetched := "-", "no"
		if j.TTL != nil {
			ttl = span(*j.TTL)
		}
		if j.Fetched {
			fetched = "yes"
		}
		t.row(j.Place, j.Class, j.Segment, j.Size, j.ValueSize, j.Flags, ttl, span(int64(j.Idle)), fetched, " "+quoteKey(j.key()))
	}
	t.end()
}
