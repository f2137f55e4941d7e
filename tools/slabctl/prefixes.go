package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func prefixesCommand() *cli.Command {
	return &cli.Command{
		Name: "prefixes", Usage: "which prefixes of keys take the memory", ArgsUsage: "FILE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "delimiter", Aliases: []string{"D"}, Value: ":", Usage: "what ends a prefix"},
			&cli.IntFlag{Name: "depth", Value: 1, Usage: "prefixes of up to `N` parts"},
			&cli.StringFlag{Name: "by", Value: "bytes", Usage: "bytes, items or waste: what slack and dead items take"},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "show `N` prefixes"},
		},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			p, err := newPrefixes(c.String("delimiter"), c.Int("depth"), workers(c))
			if err != nil {
				return err
			}
			by, ok := prefixOrders[c.String("by")]
			if !ok {
				return fmt.Errorf("slabctl: --by %q, want bytes, items or waste", c.String("by"))
			}
			if err := walk(c, in, "prefixes", func(worker int, it *mmapslab.Item, m mmapslab.Meta) { p.add(worker, in, it, m) }); err != nil {
				return err
			}
			rows, others := p.top(by, c.Int("limit"))
			var all int64
			for _, r := range append(rows, others) {
				all += r.Bytes
			}
			t := newTable(c, "items", "bytes", "share", "memory", "waste", "dead", "fetched", " prefix")
			for _, r := range append(rows, others) {
				if r.Items > 0 {
					t.row(r.Items, size(r.Bytes), percent(r.Bytes, all), size(r.Memory), size(r.waste()), r.Dead.Items, percent(r.Fetched, r.Items), " "+r.Name)
				}
			}
			t.end()
			if p.short > 0 {
				note(c, "too many prefixes to count them all: each may be short by up to %s", size(p.short))
			}
			return nil
		}),
	}
}

// prefixRow is what the items of a prefix take.
type prefixRow struct {
	Name string
	tally
	Memory  int64 // bytes of their chunks
	Dead    tally // expired or flushed
	Fetched int64
}

// waste is what of the memory holds nothing that a client can get.
func (r *prefixRow) waste() int64 { return r.Memory - r.Bytes + r.Dead.Bytes }

func (r *prefixRow) merge(o *prefixRow) {
	r.tally.merge(o.tally)
	r.Dead.merge(o.Dead)
	r.Memory += o.Memory
	r.Fetched += o.Fetched
}

var prefixOrders = map[string]func(r *prefixRow) int64{
	"bytes": func(r *prefixRow) int64 { return r.Bytes },
	"items": func(r *prefixRow) int64 { return r.Items },
	"waste": (*prefixRow).waste,
}

// prefixes counts by prefix. There may be as many prefixes as keys: beyond prefixesMost of a worker the smaller half is added to the others, and what they had by then is the
// most by which a prefix that comes again is short (lossy counting, Manku and Motwani 2002).
type prefixes struct {
	delimiter []byte
	depth     int
	workers   []prefixWorker
	short     int64 // bytes
}

type prefixWorker struct {
	rows   map[string]*prefixRow
	others prefixRow
	short  int64
	_      [64]byte
}

const prefixesMost = 100_000

func newPrefixes(delimiter string, depth, workers int) (*prefixes, error) {
	if delimiter == "" || depth < 1 {
		return nil, fmt.Errorf("slabctl: delimiter %q and depth %d, want a delimiter and at least 1", delimiter, depth)
	}
	p := &prefixes{delimiter: []byte(delimiter), depth: depth, workers: make([]prefixWorker, workers)}
	for i := range p.workers {
		p.workers[i].rows = map[string]*prefixRow{}
	}
	return p, nil
}

// noPrefix stands for keys without a delimiter.
const noPrefix = "(none)"

// of returns the prefix of a key, delimiter included; nil for none.
func (p *prefixes) of(key []byte) []byte {
	at := 0
	for range p.depth {
		i := bytes.Index(key[at:], p.delimiter)
		if i < 0 {
			break
		}
		at += i + len(p.delimiter)
	}
	return key[:at]
}

func (p *prefixes) add(worker int, in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) {
	w := &p.workers[worker]
	prefix := p.of(it.Key())
	r := w.rows[string(prefix)]
	if r == nil {
		if len(w.rows) >= prefixesMost {
			w.prune()
		}
		r = &prefixRow{Name: string(prefix)}
		w.rows[r.Name] = r
	}
	r.tally.add(it.Size())
	r.Memory += memoryOf(in, it)
	if m&mmapslab.Fetched != 0 {
		r.Fetched++
	}
	if in.Fate(it, m) != restore.Alive {
		r.Dead.add(it.Size())
	}
}

// memoryOf is what an item's chunks take.
func memoryOf(in *restore.Inspected, it *mmapslab.Item) int64 {
	n := int64(in.Store.ChunkSize(it.Ref()))
	if it.Ref()&mmapslab.Chained != 0 {
		in.Store.Chain(it, func(data mmapslab.Ref, _ []byte) { n += int64(in.Store.ChunkSize(data)) })
	}
	return n
}

func (w *prefixWorker) prune() {
	rows := make([]*prefixRow, 0, len(w.rows))
	for _, r := range w.rows {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b *prefixRow) int { return cmp.Or(cmp.Compare(a.Bytes, b.Bytes), cmp.Compare(a.Name, b.Name)) })
	for _, r := range rows[:len(rows)/2] {
		w.others.merge(r)
		w.short = max(w.short, r.Bytes)
		delete(w.rows, r.Name)
	}
}

// top returns the n largest by what by says, and the sum of the others.
func (p *prefixes) top(by func(r *prefixRow) int64, n int) (rows []prefixRow, others prefixRow) {
	sum := map[string]*prefixRow{}
	for i := range p.workers {
		w := &p.workers[i]
		p.short += w.short
		others.merge(&w.others)
		for name, r := range w.rows {
			if sum[name] == nil {
				sum[name] = &prefixRow{Name: name}
			}
			sum[name].merge(r)
		}
	}
	all := make([]*prefixRow, 0, len(sum))
	for _, r := range sum {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *prefixRow) int { return cmp.Or(cmp.Compare(by(b), by(a)), cmp.Compare(a.Name, b.Name)) })
	for i, r := range all {
		if n > 0 && i >= n {
			others.merge(r)
			continue
		}
		if r.Name = quoteKey([]byte(r.Name)); r.Name == "" {
			r.Name = noPrefix
		}
		rows = append(rows, *r)
	}
	others.Name = fmt.Sprintf("(%d others)", max(0, len(all)-len(rows)))
	return rows, others
}
