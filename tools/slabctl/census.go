package main

import (
	"math/bits"
	"slices"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

// census is what one walk over all items tells of them: the figures of classes, stats, sizes, ttl, ages, pages, tune and report.
type census struct {
	in      *restore.Inspected
	class   [mmapslab.ClassIDs]classCensus
	sizes   map[int]int64 // items by exact size, those of one chunk only
	chained map[int]int64 // and the chained ones
	ttl     scale         // live items that expire, by seconds left
	forever tally         // live items that do not
	expired tally
	flushed tally
	pages   []pageCensus // by page number
}

// tally is a number of items and their bytes.
type tally struct{ Items, Bytes int64 }

func (t *tally) add(bytes int) {
	t.Items++
	t.Bytes += int64(bytes)
}

func (t *tally) merge(u tally) {
	t.Items += u.Items
	t.Bytes += u.Bytes
}

// classCensus counts by slab class: lists of items, which chained ones are in by the largest class, and chunks, where they are.
type classCensus struct {
	lists   [len(segments)]tally
	ages    [len(segments)]scale
	oldest  [len(segments)]uint32
	fetched int64
	used    int64 // chunks with items or parts of them
	slack   int64 // bytes of these that hold nothing
	dead    int64 // bytes of expired and flushed items
}

// pageCensus is a page's share.
type pageCensus struct {
	used   uint32 // chunks
	bytes  uint32 // of items, or of parts of chains
	oldest uint32 // idle seconds
	newest uint32
	ages   uint64 // the sum, of items
	items  uint32
}

// scale is a histogram with buckets by powers of two: bucket i counts values from 2^(i-1) to 2^i-1, bucket 0 zeros.
type scale [40]tally

func (s *scale) add(v uint64, bytes int) { s[min(bits.Len64(v), len(s)-1)].add(bytes) }

func (s *scale) merge(t *scale) {
	for i := range s {
		s[i].merge(t[i])
	}
}

// bounds returns the values that bucket i counts.
func bounds(i int) (from, to int64) {
	if i == 0 {
		return 0, 0
	}
	return 1 << (i - 1), 1<<i - 1
}

func (s *scale) total() (t tally) {
	for i := range s {
		t.merge(s[i])
	}
	return t
}

// quantile returns the middle of the bucket in which the q-th part of the items ends.
func (s *scale) quantile(q float64) int64 {
	want := int64(q * float64(s.total().Items))
	for i := range s {
		if want -= s[i].Items; want < 0 || want == 0 && q == 1 {
			from, to := bounds(i)
			return (from + to + 1) / 2
		}
	}
	return 0
}

func newCensus(in *restore.Inspected) *census {
	return &census{in: in, sizes: map[int]int64{}, chained: map[int]int64{}, pages: make([]pageCensus, in.Store.Room()+1)}
}

// count walks the file.
func count(c *cli.Context, in *restore.Inspected, also ...func(worker int, it *mmapslab.Item, m mmapslab.Meta)) (*census, error) {
	n := workers(c)
	parts := make([]*census, n)
	total := newCensus(in)
	for i := range parts {
		parts[i] = newCensus(in)
	}
	err := walk(c, in, "count", func(worker int, it *mmapslab.Item, m mmapslab.Meta) {
		parts[worker].add(it, m)
		for _, f := range also {
			f(worker, it, m)
		}
	})
	for _, p := range parts {
		total.merge(p)
	}
	return total, err
}

func (n *census) add(it *mmapslab.Item, m mmapslab.Meta) {
	store, ref := n.in.Store, it.Ref()
	size, idle := it.Size(), m.Age(n.in.Now)
	k := &n.class[store.ListClass(ref)]
	k.lists[m.Segment()].add(size)
	k.ages[m.Segment()].add(uint64(idle), size)
	k.oldest[m.Segment()] = max(k.oldest[m.Segment()], idle)
	if m&mmapslab.Fetched != 0 {
		k.fetched++
	}
	in := size // bytes in the item's own chunk
	if ref&mmapslab.Chained != 0 {
		in = size - it.ValueLen()
		n.chained[size]++
		n.chain(it)
	} else {
		n.sizes[size]++
	}
	chunk := &n.class[store.Class(ref)]
	chunk.used++
	chunk.slack += int64(store.ChunkSize(ref) - in)
	switch fate := n.in.Fate(it, m); {
	case fate == restore.Expired:
		n.expired.add(size)
		chunk.dead += int64(size)
	case fate == restore.Flushed:
		n.flushed.add(size)
		chunk.dead += int64(size)
	case m.Exptime() == 0:
		n.forever.add(size)
	default:
		n.ttl.add(uint64(m.Exptime()-n.in.Now), size)
	}
	n.pages[store.PageOf(ref)].merge(pageCensus{used: 1, bytes: uint32(in), oldest: idle, newest: idle, ages: uint64(idle), items: 1})
}

func (p *pageCensus) merge(o pageCensus) {
	if p.items == 0 || o.items > 0 && o.newest < p.newest {
		p.newest = o.newest
	}
	p.oldest = max(p.oldest, o.oldest)
	p.used += o.used
	p.bytes += o.bytes
	p.ages += o.ages
	p.items += o.items
}

// chain counts the data chunks of a chained item.
func (n *census) chain(it *mmapslab.Item) {
	n.in.Store.Chain(it, func(data mmapslab.Ref, part []byte) {
		k := &n.class[n.in.Store.Class(data)]
		k.used++
		k.slack += int64(n.in.Store.ChunkSize(data) - mmapslab.DataHeaderSize - len(part))
		p := &n.pages[n.in.Store.PageOf(data)]
		p.used++
		p.bytes += uint32(mmapslab.DataHeaderSize + len(part))
	})
}

func (n *census) merge(p *census) {
	for i := range n.class {
		k, o := &n.class[i], &p.class[i]
		for s := range k.lists {
			k.lists[s].merge(o.lists[s])
			k.ages[s].merge(&o.ages[s])
			k.oldest[s] = max(k.oldest[s], o.oldest[s])
		}
		k.fetched += o.fetched
		k.used += o.used
		k.slack += o.slack
		k.dead += o.dead
	}
	for size, items := range p.sizes {
		n.sizes[size] += items
	}
	for size, items := range p.chained {
		n.chained[size] += items
	}
	for page := range n.pages {
		n.pages[page].merge(p.pages[page])
	}
	n.ttl.merge(&p.ttl)
	n.forever.merge(p.forever)
	n.expired.merge(p.expired)
	n.flushed.merge(p.flushed)
}

// classRow is a class that has pages.
type classRow struct {
	mmapslab.ClassInfo
	*classCensus
	items  tally
	chunks int64
	unused int64 // chunks without item; with Listed those are the free ones
	tail   int64 // bytes behind the last chunk of each page
}

// rows are the classes that have pages, by id.
func (n *census) rows() (all []classRow) {
	for id := range n.class {
		info, ok := n.in.Store.ClassInfo(id)
		if !ok || info.Pages == 0 {
			continue
		}
		r := classRow{ClassInfo: info, classCensus: &n.class[id], chunks: int64(info.Pages) * int64(info.PerPage)}
		for _, t := range r.lists {
			r.items.merge(t)
		}
		r.unused = r.chunks - r.used
		r.tail = int64(info.Pages) * int64(mmapslab.PageSize-info.PerPage*info.ChunkSize)
		all = append(all, r)
	}
	return all
}

// total are all items.
func (n *census) total() (t tally) {
	for i := range n.class {
		for _, l := range n.class[i].lists {
			t.merge(l)
		}
	}
	return t
}

// waste is memory of assigned pages that holds no live item, by cause.
type waste struct {
	Cause, Means string
	Bytes        int64
}

// wasted returns the causes in the order of their size, and the memory of the assigned pages.
func (n *census) wasted() (all []waste, memory int64) {
	var slack, unused, tail, pages int64
	for _, r := range n.rows() {
		slack += r.slack
		unused += r.unused * int64(r.ChunkSize)
		tail += r.tail
		pages += int64(r.Pages)
	}
	all = []waste{
		{"slack", "chunks are larger than their items: another -f or slab_sizes helps, see tune", slack},
		{"free chunks", "chunks of assigned pages without an item, which serve their class alone", unused},
		{"dead items", "expired or flushed, and not reclaimed yet", n.expired.Bytes + n.flushed.Bytes},
		{"page ends", "behind the last chunk of each page", tail},
		{"item headers", "40 bytes each, which hold CAS, flags, times and checksum", n.total().Items * mmapslab.HeaderSize},
	}
	slices.SortStableFunc(all, func(a, b waste) int { return int(min(max(b.Bytes-a.Bytes, -1), 1)) })
	return all, pages * mmapslab.PageSize
}

func (n *census) segment(s int) (t tally) {
	for i := range n.class {
		t.merge(n.class[i].lists[s])
	}
	return t
}
