package hearth

import (
	"fmt"

	"hearth/lru"
	"hearth/mmapslab"
)

// validLRU tells whether settings can be used: NaN, which an operator can type, is no factor.
func validLRU(l LRUSettings) bool {
	return l.HotPct >= 0 && l.WarmPct >= 0 && l.HotPct+l.WarmPct <= 80 && l.HotMaxFactor > 0 && l.WarmMaxFactor > 0
}

// LRU returns the settings of the LRU as they are now.
func (c *Cache) LRU() LRUSettings { return c.order.Settings() }

// SetLRU changes them, for items that are there as for new ones. They are not kept over a restart. All fields count: there are no defaults.
func (c *Cache) SetLRU(l LRUSettings) error {
	if !validLRU(l) {
		return fmt.Errorf("%w: LRU is %+v, want shares of at least 0 that make at most 80, factors above 0", ErrOption, l)
	}
	c.order.Tune(l)
	return nil
}

// ItemSizes calls row for each size, rounded up to a multiple of 32 bytes, that items have; counted is false without Options.TrackSizes.
func (c *Cache) ItemSizes(row func(size, items int)) (counted bool) { return c.order.Sizes(row) }

// SetMemoryLimit changes the memory for items, in bytes rounded down to whole pages. Raising it needs address space: eight times the limit that the cache or
// its file was made with, and at least 1 GiB in a file. After lowering it, pages above the limit are taken away from classes that have more than one, and given back to the system
// one by one, in the background.
func (c *Cache) SetMemoryLimit(bytes int64) error {
	pages := bytes / mmapslab.PageSize
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	was, _, _ := c.store.Pages()
	// The superblock tells the next start how many pages there may be at most, so it must say so before there are more.
	if pages > int64(was) && pages <= int64(c.store.Room()) {
		if err := c.writeLimit(int(pages)); err != nil {
			return err
		}
	}
	if pages > int64(c.store.Room()) || !c.store.SetLimit(int(pages)) {
		return fmt.Errorf("%w: MemoryLimit is %d, want %d to %d", ErrOption, bytes, mmapslab.PageSize, int64(c.store.Room())*mmapslab.PageSize)
	}
	c.full.Store(false)
	c.mover.shrink.Store(pages < int64(was))
	c.wakeKeeper()
	if pages < int64(was) {
		super := c.store.Super()
		_, assigned, _ := c.store.Pages()
		return c.writeLimit(max(int(pages), owed(&super, assigned)))
	}
	return nil
}

// MemoryLimit returns the memory for items in bytes as it is now.
func (c *Cache) MemoryLimit() int64 {
	limit, _, _ := c.store.Pages()
	return int64(limit) * mmapslab.PageSize
}

func (c *Cache) writeLimit(pages int) error {
	c.store.Edit(func(sb *mmapslab.Superblock) { sb.PageLimit = uint32(pages) })
	if err := c.store.SetState(mmapslab.Running, c.identity()); err != nil {
		return fmt.Errorf("hearth: set memory limit: %w", err)
	}
	return nil
}

// Cold calls visit for living items of a class at the head of its COLD list, the newest first, until there are no more of the first most or visit returns
// false. s is in a section; the items are valid as Session tells.
func (s *Session) Cold(class, most int, visit func(it *Item) bool) {
	if class < 1 || class >= mmapslab.ClassIDs {
		return
	}
	var it Item
	for _, ref := range s.c.order.Head(class, lru.Cold, most, nil) {
		f := found{ref: ref}
		if !s.c.store.Look(&f.item, ref) {
			continue
		}
		f.meta = mmapslab.Meta(s.c.store.Meta(ref).Load())
		if f.fate = s.c.fate(&f.item, f.meta, s.now); f.fate != alive {
			continue
		}
		s.view(&it, &f)
		if !visit(&it) {
			return
		}
	}
}

// HasClass tells whether there is a slab class of this id, and how many pages it has.
func (c *Cache) HasClass(id int) (pages uint64, ok bool) {
	if id < 1 || id >= mmapslab.ClassIDs {
		return 0, false
	}
	info, ok := c.store.ClassInfo(id)
	return info.Pages, ok
}
