package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
)

// Finding is one thing that a check found wrong.
type Finding struct {
	Offset int64  // where in the file; 0 when it is about no single place, or the first superblock
	What   string // what is there, and what should be
	Means  string // what that does to a cache
}

func (f Finding) String() string {
	if f.Offset == 0 {
		return f.What
	}
	return fmt.Sprintf("offset %#x: %s", f.Offset, f.What)
}

// findingsMost bounds how many findings are kept: a file that is damaged throughout need not be listed.
const findingsMost = 100

// CheckOptions say what to check, and how.
type CheckOptions struct {
	Loose    map[mmapslab.Ref]bool // chunks that belong to somebody though no item has them, such as uploads that are under way
	Unlisted bool                  // lists, free chunks and counters are not in order, and no finding: a kill leaves them so
	Live     bool                  // others change everything meanwhile; what they changed is no finding, and lists and free chunks are not looked at
	Workers  int                   // default 1
	Progress func(done, of int)
	Pace     func(context.Context) // as WalkOptions.Pace
}

// Checked is what a check found.
type Checked struct {
	Findings   []Finding // by offset
	More       int       // further ones, which are not listed
	Items      int64     // that the index names
	Unfinished int64     // inserts that were under way: no finding after a kill
	Changed    int64     // items that could not be judged on a live file, since they changed all the time
	Anew       int       // how often a scan of the index was begun anew, since the index of a live file grew meanwhile
}

// Check looks whether index, items, lists and free chunks agree, checksums included; nobody may use the parts meanwhile, and nothing may wait to be
// reclaimed. Each chunk of an assigned page must be exactly one of: a live item, part of a chain, or free; chunks in loose are known to
// belong to somebody, such as uploads that are under way. It returns nothing when all is well.
func Check(p Parts, loose map[mmapslab.Ref]bool) []Finding {
	checked, err := p.Check(context.Background(), CheckOptions{Loose: loose})
	if err != nil {
		checked.Findings = append(checked.Findings, Finding{What: err.Error()})
	}
	return checked.Findings
}

// Check is Check with options. It changes nothing. It goes
//
//  1. over the index once, to learn which chunks hold items,
//  2. over the pages, in the order of the file, and looks at each item, and whether the index finds it by its key,
//  3. over the index once more, when there were suspects, to tell what is wrong with the words that name them,
//  4. over lists and free chunks, in the link region alone.
//
// So each part of the file is read in order, the index apart, and need not stay in memory. On a live file what looks wrong in step 2 is mostly an item that was
// replaced, or a page that was moved, after step 1. So step 3 judges a suspect with its word in hand: only if the word stands there before and after, and the
// item between the two is no good, and that several times over, is it a finding. That is what R5 and R6 allow to conclude: an item does not change while a word
// names it, and its chunk is not reused before the word has changed. For the word to change and come back in between, each time, somebody must store an item of the same
// key in the same chunk again while we read it.
func (p Parts) Check(ctx context.Context, o CheckOptions) (Checked, error) {
	c := &checker{p: p, o: o, suspects: map[mmapslab.Ref]bool{}}
	err := c.run(ctx)
	if len(c.found) > 0 {
		slices.SortStableFunc(c.found, func(a, b Finding) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	c.Findings = c.found
	return c.Checked, err
}

type checker struct {
	Checked
	p     Parts
	o     CheckOptions
	s     *survey
	data  marks    // parts of chains
	state [][]byte // by page and slot, what Meta says of a live item's list, see stateOf; only when lists are looked at
	taken [mmapslab.ClassIDs]atomic.Uint64
	lists [mmapslab.ClassIDs * 4]atomic.Uint64 // bytes of live items by class and segment

	mu       sync.Mutex
	found    []Finding
	suspects map[mmapslab.Ref]bool
}

func (c *checker) report(offset int64, means, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) == findingsMost {
		c.More++
		return
	}
	c.found = append(c.found, Finding{offset, fmt.Sprintf(format, args...), means})
}

// suspect notes an item for step 3.
func (c *checker) suspect(ref mmapslab.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspects[ref] = true
}

func (c *checker) run(ctx context.Context) (err error) {
	if c.s, err = c.p.scan(ctx, c.o, c.suspect, func() { clear(c.suspects) }); err != nil {
		return err
	}
	c.Items, c.Unfinished, c.Anew = c.s.items.Load(), c.s.unfinished.Load(), c.s.anew
	c.data = newMarks(c.p.Store)
	c.state = make([][]byte, len(c.data))
	if err := c.pages(ctx); err != nil {
		return err
	}
	if err := c.explain(ctx); err != nil || c.o.Live {
		return err
	}
	for ref := range c.o.Loose {
		c.take(ref, "chunk in use")
	}
	if !c.o.Unlisted {
		if n := c.p.Index.Len(); n != c.Items {
			c.report(0, "curr_items would be wrong", "index counts %d items, has %d", n, c.Items)
		}
		return Guard(func() {
			c.p.Store.ForgetAll()
			c.checkLists()
			c.checkFree()
		})
	}
	return nil
}

// What findings mean to a cache, where several say the same.
const (
	meansLost  = "the item cannot be trusted: a server that verifies answers a miss, and a sweep may drop it"
	meansNoKey = "gets of this key miss, and the memory is taken"
	meansTwice = "two items would change the same memory"
	meansOrder = "the order of eviction is broken; a sweep makes it anew"
	meansFree  = "memory would be lost, or given out twice; a sweep makes the free chunks anew"
)

// fetchAtOnce is for how many items the index's buckets, which lie all over it, are fetched at a time: one after the other, waiting for them is most of the check.
const fetchAtOnce = 32

// pages is step 2.
func (c *checker) pages(ctx context.Context) error {
	pages := c.p.pages()
	hashers := make([]*mmapslab.Hasher, max(c.o.Workers, 1))
	for i := range hashers {
		hashers[i] = c.p.Store.Hasher()
	}
	var done atomic.Int64
	return inParallel(ctx, c.o.Workers, c.o.Pace, len(pages), func(worker, i int) {
		page := pages[i]
		c.p.Store.Want(page)
		if !c.o.Unlisted && !c.o.Live && c.s.live[page] != nil {
			c.state[page] = make([]byte, c.p.Store.PerPage(page))
		}
		var buf []byte
		live := uint64(0)
		batch, homes := make([]mmapslab.Ref, 0, fetchAtOnce), make([]int64, 0, fetchAtOnce)
		judge := func() {
			c.p.Store.Arena().Prefetch(homes)
			for _, ref := range batch {
				if buf = c.item(ref, hashers[worker], buf); ref&mmapslab.Chained != 0 {
					c.chain(ref)
				}
			}
			batch, homes = batch[:0], homes[:0]
		}
		c.s.page(c.p.Store, page, func(ref mmapslab.Ref) {
			live++
			if it, ok := c.p.Store.Item(ref); ok {
				_, home := c.p.Index.Hint(hashers[worker].Sum(it.Key()))
				homes = append(homes, home)
			}
			if batch = append(batch, ref); len(batch) == fetchAtOnce {
				judge()
			}
		})
		judge()
		c.taken[c.p.Store.PageClass(page)].Add(live)
		c.p.Store.Forget(page)
		if n := done.Add(1); c.o.Progress != nil {
			c.o.Progress(int(n), len(pages))
		}
	})
}

// item looks at one item. What is not in order makes it a suspect.
func (c *checker) item(ref mmapslab.Ref, hasher *mmapslab.Hasher, buf []byte) []byte {
	it, ok := c.p.Store.Item(ref)
	if ok && c.o.Live {
		it, buf = c.p.Store.Snapshot(&it, buf)
		ok = len(it.Key()) > 0
	}
	if !ok || !c.p.Store.Verify(&it) {
		c.suspect(ref)
		return buf
	}
	h := hasher.Sum(it.Key())
	first, found := c.p.Index.Find(h, it.Key())
	if !found && c.o.Live && c.p.Index.Look() == nil {
		first, _ = c.p.Index.Find(h, it.Key())
	}
	if first != ref || it.Hash() != uint32(h>>32) || c.ahead(&it) {
		c.suspect(ref)
	}
	m := mmapslab.Meta(c.p.Store.Meta(ref).Load())
	if page, slot := c.p.Store.Place(ref); c.state[page] != nil {
		c.state[page][slot] = stateOf(m)
		c.lists[c.p.Store.ListClass(ref)*4+m.Segment()].Add(uint64(it.Size()))
		if m&mmapslab.Linked == 0 {
			c.report(ref.Offset(), meansOrder, "live item %q is in no list", it.Key())
		}
		if apart := m&mmapslab.ListedApart != 0; apart != (ref&mmapslab.Chained != 0) {
			c.report(ref.Offset(), meansOrder, "item %q is listed apart: %t, want %t", it.Key(), apart, !apart)
		}
	}
	return buf
}

// ahead tells whether an item has a flush epoch that was not there yet. One that is ahead by one was stored after the moment of a flush with a delay.
func (c *checker) ahead(it *mmapslab.Item) bool {
	return int32(it.Epoch()-uint32(c.p.Store.FlushWord().Load()>>32)) > 1
}

// stateOf is what the check of lists needs of Meta: bit 0 that the item is live, bit 1 that it is linked, then its segment.
func stateOf(m mmapslab.Meta) byte {
	s := byte(m.Segment())<<2 | 1
	if m&mmapslab.Linked != 0 {
		s |= 2
	}
	return s
}

// chain marks the data chunks of a chained item.
func (c *checker) chain(ref mmapslab.Ref) {
	it, ok := c.p.Store.Item(ref)
	if !ok {
		return
	}
	c.p.Store.Chain(&it, func(data mmapslab.Ref, _ []byte) { c.take(data, "data chunk") })
}

// take notes a chunk that must not be anything else.
func (c *checker) take(ref mmapslab.Ref, as string) {
	if c.o.Live {
		return
	}
	if c.p.Store.ChunkSize(ref) == 0 {
		c.report(ref.Offset(), meansTwice, "%s where no chunk starts", as)
		return
	}
	c.taken[c.p.Store.Class(ref)].Add(1)
	if page, slot := c.p.Store.Place(ref); c.s.live.has(page, slot) || !c.data.add(page, slot) {
		c.report(ref.Offset(), meansTwice, "%s in a chunk that is something else already", as)
	}
}

// On a live file a suspect is one only if it stays one.
const (
	explainTimes = 4
	explainPause = 10 * time.Millisecond
)

// explain is step 3.
func (c *checker) explain(ctx context.Context) error {
	if len(c.suspects) == 0 {
		return nil
	}
	if !c.o.Live {
		_, err := c.explainOnce(ctx)
		return err
	}
	first := int64(len(c.suspects))
	for times := 0; times < explainTimes; {
		if err := c.p.look(); err != nil {
			return err
		}
		c.found, c.More = nil, 0
		suspects := c.suspects
		whole, err := c.explainOnce(ctx)
		if err != nil {
			return err
		}
		if !whole {
			c.suspects = suspects
			c.Anew++
			continue
		}
		if times++; len(c.suspects) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(explainPause):
		}
	}
	c.Changed = first - int64(len(c.suspects))
	return nil
}

// explainOnce reports what is wrong with the words that name suspects, and leaves of the suspects those. Not whole, it means nothing: the tables became others.
func (c *checker) explainOnce(ctx context.Context) (whole bool, err error) {
	suspects := c.suspects
	c.suspects = map[mmapslab.Ref]bool{}
	var words []index.Word
	growing := c.p.Index.Growing()
	o := c.o
	o.Workers = 1
	whole, err = c.p.words(ctx, o, func(w *index.Word) {
		if suspects[w.Ref] && w.State != index.Tentative && !(growing && !w.Next && w.State == index.Moved) {
			words = append(words, *w)
		}
	})
	if err != nil || !whole {
		return whole, err
	}
	err = Guard(func() {
		hasher := c.p.Store.Hasher()
		named := map[mmapslab.Ref]index.Word{}
		for _, w := range words {
			if !c.p.Index.Still(&w) {
				continue
			}
			offset, what, means := c.judge(&w, hasher, named, growing)
			if what == "" || !c.p.Index.Still(&w) {
				continue
			}
			c.suspects[w.Ref] = true
			c.report(offset, means, "%s", what)
		}
		whole = !c.o.Live || !c.p.Index.Outdated()
	})
	return whole, err
}

// judge says what is wrong with a word, and where; nothing when all is well.
func (c *checker) judge(w *index.Word, hasher *mmapslab.Hasher, named map[mmapslab.Ref]index.Word, growing bool) (at int64, what, means string) {
	say := func(at int64, means, format string, args ...any) (int64, string, string) {
		return at, fmt.Sprintf(format, args...), means
	}
	if w.State != index.Live && w.State != index.Frozen {
		return say(w.Offset, "a slot of the index is lost until a sweep clears it, and an item may have been here", "index word %#x is in state %d, want 0 to 3", w.Raw, w.State)
	}
	if c.p.Store.ChunkSize(w.Ref) == 0 {
		return say(w.Offset, "an item is lost: its key misses", "live item where no chunk starts, at offset %#x", w.Ref.Offset())
	}
	chunk := w.Ref &^ mmapslab.Chained
	if other, twice := named[chunk]; twice && !(growing && w.Next != other.Next) {
		return say(w.Ref.Offset(), meansTwice, "live item in a chunk that is something else already: the index words at offsets %#x and %#x name it", other.Offset, w.Offset)
	}
	named[chunk] = *w
	if w.State == index.Frozen && (!growing || w.Next) {
		return say(w.Offset, "the key can be read but not changed", "index word %#x is frozen where nothing grows", w.Raw)
	}
	it, ok := c.p.Store.Item(w.Ref)
	if ok && c.o.Live {
		it, _ = c.p.Store.Snapshot(&it, nil)
		ok = len(it.Key()) > 0
	}
	at = w.Ref.Offset()
	if !ok {
		return say(at, meansLost, "index word names no item: the word at offset %#x", w.Offset)
	}
	h := hasher.Sum(it.Key())
	window := index.Buckets(uint32(h>>32), w.Buckets)
	// During a growth the words of one item are in two tables; Find looks at both.
	first, _ := c.p.Index.Find(h, it.Key())
	switch {
	case w.Ref&mmapslab.Chained != 0 && !c.p.Store.Chain(&it, func(mmapslab.Ref, []byte) {}):
		return say(at, meansLost, "chain of item %q is broken", it.Key())
	case !c.p.Store.Verify(&it):
		return say(at, meansLost, "checksum of item %q does not match", it.Key())
	case it.Hash() != uint32(h>>32):
		return say(at, meansNoKey, "item %q has hash %08x, want %08x", it.Key(), it.Hash(), h>>32)
	case !slices.Contains(window[:], w.Bucket):
		return say(at, meansNoKey, "item %q is in bucket %d, want one of %d", it.Key(), w.Bucket, window)
	case w.Tag != uint32(h)&index.TagMask:
		return say(at, meansNoKey, "item %q has tag %05x, want %05x", it.Key(), w.Tag, uint32(h)&index.TagMask)
	case first != w.Ref:
		return say(at, "the key has two values, and a delete leaves one", "item %q is live a second time, at offset %#x", it.Key(), first.Offset())
	case c.ahead(&it):
		return say(at, "the next flush_all does not reach the item", "item %q has flush epoch %d, the file %d", it.Key(), it.Epoch(), c.p.Store.FlushWord().Load()>>32)
	}
	return 0, "", ""
}

// checkLists looks whether the LRU's lists are whole, and hold as many items as are live. What the items say about their lists, step 2 has noted.
func (c *checker) checkLists() {
	p := c.p
	var linked uint64
	for class := 1; class < mmapslab.ClassIDs; class++ {
		for segment := lru.Hot; segment <= lru.Temp; segment++ {
			var count uint64
			var last uint32
			wantCount, wantBytes, tail := p.Order.Walk(class, segment, func(id, prev uint32) bool {
				ref := p.Store.RefOf(id)
				if ref == 0 {
					c.report(0, meansOrder, "class %d segment %d: list holds a chunk that is no item: %#x, which is none at all", class, segment, id)
					return false
				}
				page, slot := p.Store.Place(ref)
				state := c.state[page][slot]
				if state == 0 {
					if it, ok := p.Store.Item(p.Store.ItemRef(id)); !ok {
						c.report(ref.Offset(), meansOrder, "class %d segment %d: list holds a chunk that is no item", class, segment)
						return false
					} else {
						c.report(ref.Offset(), meansOrder, "class %d segment %d: list holds item %q, which is not live", class, segment, it.Key())
					}
				} else {
					if c.s.heads.has(page, slot) {
						ref |= mmapslab.Chained
					}
					in, isLinked := int(state>>2), state&2 != 0
					if p.Store.ListClass(ref) != class || in != segment || !isLinked || p.Store.Link(id).Prev != prev {
						c.report(ref.Offset(), meansOrder, "class %d segment %d: item of class %d, segment %d, linked %t, after chunk %#x, want %#x", class, segment,
							p.Store.ListClass(ref), in, isLinked, p.Store.Link(id).Prev, prev)
					}
				}
				count, last = count+1, id
				return count <= uint64(c.Items)
			})
			if bytes := c.lists[class*4+segment].Load(); count != wantCount || bytes != wantBytes && !p.Order.Estimated(class) || last != tail {
				c.report(0, meansOrder, "class %d segment %d: list has %d items up to chunk %#x, and its items %d bytes, counted %d of %d up to %#x",
					class, segment, count, last, bytes, wantCount, wantBytes, tail)
			}
			linked += count
		}
	}
	if linked != uint64(c.Items) {
		c.report(0, meansOrder, "lists hold %d items, index has %d", linked, c.Items)
	}
}

// checkFree looks whether the free chunks are those that nothing else is in, and counts the chunks that are neither.
func (c *checker) checkFree() {
	p := c.p
	for class := 1; class < mmapslab.ClassIDs; class++ {
		info, ok := p.Store.ClassInfo(class)
		if !ok {
			continue
		}
		total := info.Pages * uint64(info.PerPage)
		var listed uint64
		count, fresh := p.Store.WalkFree(class, func(id uint32) bool {
			ref := p.Store.RefOf(id)
			c.take(ref, "free chunk")
			if p.Store.Class(ref) != class {
				c.report(ref.Offset(), meansFree, "free list of class %d holds a chunk of class %d", class, p.Store.Class(ref))
				return false
			}
			listed++
			return listed <= total
		})
		if listed+fresh != count {
			c.report(0, meansFree, "class %d: %d free chunks in the list and %d in a fresh page, counted %d", class, listed, fresh, count)
		}
		if lost := int64(total) - int64(c.taken[class].Load()+fresh); lost != 0 {
			c.report(0, meansFree, "class %d: %d chunks are neither used nor free", class, lost)
		}
	}
}
