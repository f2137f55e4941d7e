package restore

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
)

// WriterOptions shape a new file.
type WriterOptions struct {
	Config  mmapslab.Config
	Seed    uint64 // of the hash
	LastCAS uint64
	Flush   uint64 // the flush word, see mmapslab.Store.FlushWord
	Now     uint32 // the cache's time
	Items   int64  // how many are to be expected, which spares the index growing
}

// Writer makes a new slab file, item by item, without a server: what it leaves is as after a clean stop.
type Writer struct {
	Parts
	id     mmapslab.Identity
	now    uint32
	hasher *mmapslab.Hasher
	Items  int64 // added
}

// firstBuckets is the least that an index is made with: the server's.
const firstBuckets = 1 << 16 / 8

// NewWriter makes the file at path, which must not exist.
func NewWriter(path string, o WriterOptions) (*Writer, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("restore: write %s: it exists", path)
	}
	file, err := mmapslab.OpenFile(path, 0)
	if err != nil {
		return nil, err
	}
	w := &Writer{now: o.Now, id: mmapslab.Identity{BootID: BootID(), ClockWall: int64(o.Now), ClockBoot: int64(SinceBoot())}}
	if w.Store, err = mmapslab.Create(file, o.Config, w.id, o.LastCAS, o.Seed); err != nil {
		file.Close()
		return nil, err
	}
	w.Store.FlushWord().Store(o.Flush)
	w.Store.ClockWord().Store(uint64(o.Now))
	w.Store.Edit(func(sb *mmapslab.Superblock) { sb.PageLimit = uint32(o.Config.Pages) })
	state, half, size := w.Store.IndexRegion()
	const load = 0.65
	buckets := max(firstBuckets, uint64(float64(o.Items)/(8*load))/2*2)
	buckets = min(buckets, uint64(size/64)/2*2)
	w.Index, err = index.Create(w.Store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, w.Store,
		index.Options{Populate: w.Store.BackIndex, Discard: w.Store.Discard}, uint32(buckets))
	if err != nil {
		w.Store.Close()
		return nil, err
	}
	w.Order = lru.New(w.Store, owner{}, lru.Defaults)
	w.hasher = w.Store.Hasher()
	return w, nil
}

// Add stores an item, which becomes the most recently used one of its segment; f.Hash is made here. False when there is no room for it. The key must be new.
func (w *Writer) Add(key, value []byte, f mmapslab.Fields, m mmapslab.Meta) bool {
	h := w.hasher.Sum(key)
	f.Hash = uint32(h >> 32)
	m &^= mmapslab.Copying | mmapslab.Linked | mmapslab.ListedApart
	chunks, chained := shape(w.Store, len(key), len(value))
	var refs []mmapslab.Ref
	var ref, last mmapslab.Ref
	for i, class := range chunks {
		chunk, ok := w.alloc(class)
		if !ok {
			w.Store.Free(refs...)
			return false
		}
		refs = append(refs, chunk)
		if i == 0 {
			if ref = chunk; chained {
				ref |= mmapslab.Chained
			}
			w.Store.WriteItem(ref, key, len(value), &f, m)
			last = ref
			continue
		}
		n := min(len(value), w.Store.ChunkMax()-mmapslab.DataHeaderSize)
		copy(w.Store.AppendData(last, chunk, n), value[:n])
		last, value = chunk, value[n:]
	}
	if !chained {
		it := w.Store.Unsealed(ref)
		copy(it.Value(), value)
	}
	w.Store.Seal(ref, f.CAS, f.Epoch)
	it, _ := w.Store.Item(ref)
	size := it.Size()
	w.Order.Link(ref, m.Segment(), size)
	for range 2 {
		if result, _ := w.Index.Insert(h, key, ref); result == index.Inserted {
			w.Items++
			return true
		}
		w.Index.FinishGrowth() // a window was full
	}
	w.Order.Unlink(ref, size)
	w.Store.Free(refs...)
	return false
}

func (w *Writer) alloc(class int) (mmapslab.Ref, bool) {
	ref, _, ok := w.Store.Alloc(class)
	if !ok && w.Store.AddPage(class) {
		ref, _, ok = w.Store.Alloc(class)
	}
	return ref, ok
}

// shape returns the classes of the chunks that an item takes, as the server picks them.
func shape(s *mmapslab.Store, key, value int) (classes []int, chained bool) {
	if size := mmapslab.ItemSize(key, value); size <= s.ChunkMax() {
		return []int{s.ClassFor(size)}, false
	}
	classes = []int{s.ClassFor(mmapslab.HeaderSize + mmapslab.ChainRefSize + key)}
	for value > 0 {
		n := min(value, s.ChunkMax()-mmapslab.DataHeaderSize)
		classes = append(classes, s.ClassFor(n+mmapslab.DataHeaderSize))
		value -= n
	}
	return classes, true
}

// Finish marks the file as one of a clean stop and closes it.
func (w *Writer) Finish() error {
	w.Index.FinishGrowth()
	cp := &mmapslab.Checkpoint{Items: uint64(w.Index.Len())}
	w.Order.Save(cp)
	err := w.Store.WriteCheckpoint(cp)
	if err == nil {
		w.Store.Edit(func(sb *mmapslab.Superblock) { sb.Stopped = int64(w.now) })
		err = w.Store.MarkClean(w.id)
	}
	if closing := w.Store.Close(); err == nil {
		err = closing
	}
	return err
}

// Abandon closes a file that is not going to be finished: it holds nothing.
func (w *Writer) Abandon() { w.Store.Close() }

// Rewritten says what became of the items of a file that was rewritten.
type Rewritten struct {
	Walked
	Kept    int64
	Dead    int64 // expired or flushed
	Dropped int64 // had no room
	Bad     int64 // with a checksum that does not match, or replaced meanwhile
}

// candidate is an item that may be kept.
type candidate struct {
	idle uint32
	cas  uint64
	ref  mmapslab.Ref
}

// Rewrite makes a new file at path of the shape cfg that holds the living items of in, with their CAS, flags, exptimes and what the LRU knows of them. Where there is not room
// for all, it keeps those that were used last, as long as their class has a chunk or there is a page to be had; among items of one second, those stored last.
func (in *Inspected) Rewrite(ctx context.Context, path string, cfg mmapslab.Config, o WalkOptions) (done Rewritten, err error) {
	var all []candidate
	o.Workers = 1
	o.Verify = true
	done.Walked, err = in.Walk(ctx, o, func(_ int, it *mmapslab.Item, m mmapslab.Meta) {
		if in.Fate(it, m) != Alive {
			done.Dead++
			return
		}
		all = append(all, candidate{m.Age(in.Now), it.CAS(), it.Ref()})
	})
	if err != nil {
		return done, err
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.idle, a.idle), cmp.Compare(a.cas, b.cas)) })
	w, err := NewWriter(path, WriterOptions{
		Config: cfg, Seed: in.Store.HashSeed(), LastCAS: in.File.LastCAS(), Flush: in.Store.FlushWord().Load(), Now: in.Now, Items: int64(len(all)),
	})
	if err != nil {
		return done, err
	}
	defer func() {
		if err != nil {
			w.Abandon()
		}
	}()
	if err = Guard(func() { all = in.fitting(w.Store, all, cfg.Pages, &done) }); err != nil {
		return done, err
	}
	var key, value []byte
	for i, c := range all {
		if i%1024 == 0 && !turn(ctx, o.Pace) {
			return done, ctx.Err()
		}
		err = Guard(func() {
			it, ok := in.Store.Item(c.ref)
			if ok && in.Server != "" {
				it, key = in.Store.Snapshot(&it, key)
			}
			if ok {
				value, ok = in.Store.AppendValue(&it, value[:0])
			}
			if !ok || it.CAS() != c.cas || !in.Still(&it) {
				done.Bad++
				return
			}
			f := mmapslab.Fields{Flags: it.Flags(), Epoch: it.Epoch(), CAS: it.CAS(), ClientFlags: it.ClientFlags()}
			if w.Add(it.Key(), value, f, mmapslab.Meta(in.Store.Meta(c.ref).Load())) {
				done.Kept++
			} else {
				done.Dropped++
			}
		})
		if err != nil {
			return done, err
		}
		if o.Progress != nil && i%4096 == 0 {
			o.Progress(i, len(all))
		}
	}
	return done, w.Finish()
}

// fitting returns those of all, which are in the order of their last use, that there is room for in a store with so many pages.
func (in *Inspected) fitting(s *mmapslab.Store, all []candidate, pages int, done *Rewritten) []candidate {
	var free [mmapslab.ClassIDs]int
	kept := len(all)
	for i := len(all) - 1; i >= 0; i-- {
		it, ok := in.Store.Item(all[i].ref)
		if !ok {
			done.Bad++
			continue
		}
		chunks, _ := shape(s, len(it.Key()), it.ValueLen())
		took := 0
		var opened []int
		for _, class := range chunks {
			if free[class] == 0 {
				if pages == 0 {
					break
				}
				pages--
				free[class] = s.ClassChunks(class)
				opened = append(opened, class)
			}
			free[class]--
			took++
		}
		if took < len(chunks) {
			for _, class := range chunks[:took] {
				free[class]++
			}
			for _, class := range opened {
				free[class] -= s.ClassChunks(class)
				pages++
			}
			done.Dropped++
			continue
		}
		kept--
		all[kept] = all[i]
	}
	return all[kept:]
}
