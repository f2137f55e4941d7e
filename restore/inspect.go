package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
)

// Inspected is a slab file opened to look at: nothing in it is changed, and nothing keeps a server from it. Its Parts serve for reading alone. They are there
// unless Err tells why the file cannot be read beyond its superblocks; Index is nil, too, when IndexErr tells so of the index.
type Inspected struct {
	Parts
	*mmapslab.Inspection
	File     *mmapslab.File
	Err      error
	IndexErr error
	Server   string // the pid of the process that serves from the file, "" for none
	Listed   bool   // lists, free chunks and counters are as a clean stop left them; otherwise they are the next start's to make anew
	Now      uint32 // the cache's time
}

// Inspect opens a file. It fails only where there is no file to read.
func Inspect(path string) (*Inspected, error) {
	file, err := mmapslab.OpenReadOnly(path)
	if err != nil {
		return nil, err
	}
	in := &Inspected{File: file, Server: file.Server(), Inspection: &mmapslab.Inspection{}}
	store, found, err := mmapslab.Inspect(file)
	if err != nil {
		in.Err = err
		return in, nil
	}
	in.Store, in.Inspection = store, found
	in.Order = lru.New(store, owner{}, lru.Defaults)
	state, half, size := store.IndexRegion()
	in.Index, in.IndexErr = index.Inspect(store.Arena(), index.Region{State: state, Half: half, HalfSize: size}, store)
	if in.IndexErr != nil {
		in.Index = nil
	}
	sb := file.Super
	stopped := sb.State == mmapslab.Clean || sb.State == mmapslab.CleanDurable
	if in.Listed = stopped && in.Server == "" && found.CheckpointErr == nil && in.Index != nil && found.Table == mmapslab.TableSaved; in.Listed {
		in.Order.Load(found.Checkpoint)
		in.Index.SetLen(int64(found.Checkpoint.Items))
	}
	in.Now = in.now()
	return in, nil
}

// now is the time that a start would go on from.
func (in *Inspected) now() uint32 {
	sb := in.File.Super
	if boot := SinceBoot(); sb.BootID == BootID() && sb.ClockBoot <= int64(boot) {
		return uint32(sb.ClockWall + (int64(boot)-sb.ClockBoot)/int64(time.Second))
	}
	return uint32(max(time.Now().Unix(), int64(in.Store.ClockWord().Load())))
}

// Close gives the file up.
func (in *Inspected) Close() error {
	if in.Store == nil {
		return in.File.Close()
	}
	return in.Store.Close()
}

// owner is the lru's where nobody serves: no item dies.
type owner struct{}

func (owner) Dead(mmapslab.Ref, uint32) bool { return false }
func (owner) Reap(mmapslab.Ref)              {}

// Fate is whether an item may still be given out.
type Fate int

// What may have become of an item that the index names.
const (
	Alive Fate = iota
	Expired
	Flushed
)

func (f Fate) String() string { return [...]string{"live", "expired", "flushed"}[f] }

// Fate tells what a server would make of an item now.
func (in *Inspected) Fate(it *mmapslab.Item, m mmapslab.Meta) Fate {
	if t := m.Exptime(); t != 0 && t <= in.Now {
		return Expired
	}
	w := in.Store.FlushWord().Load()
	epoch, deadline := uint32(w>>32), uint32(w)
	if deadline != 0 && deadline <= in.Now {
		epoch++
	}
	if int32(it.Epoch()-epoch) < 0 {
		return Flushed
	}
	return Alive
}

// ErrFault is matched by errors that tell of a part of the file which could not be read: another process cut the file off meanwhile, or the disk failed.
var ErrFault = errors.New("restore: the file could not be read")

// Guard runs f and turns a fault in the file's memory into an error.
func Guard(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if bad, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		}); ok {
			err = fmt.Errorf("%w: %v", ErrFault, bad)
		} else if r != nil {
			panic(r)
		}
	}()
	f()
	return nil
}

// inParallel has workers share the steps 0 to n-1 out; each calls pace, unless it is nil, before a step. It stops early when ctx is over.
func inParallel(ctx context.Context, workers int, pace func(context.Context), n int, step func(worker, i int)) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, max(workers, 1))
	for worker := range errs {
		run := func() {
			errs[worker] = Guard(func() {
				for ctx.Err() == nil {
					i := int(next.Add(1) - 1)
					if i >= n {
						return
					}
					if !turn(ctx, pace) {
						return
					}
					step(worker, i)
				}
			})
		}
		if len(errs) == 1 {
			run()
		} else {
			all.Go(run)
		}
	}
	all.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// turn waits until it is a step's turn, where steps are paced; false when ctx is over.
func turn(ctx context.Context, pace func(context.Context)) bool {
	if pace != nil {
		pace(ctx)
	}
	return ctx.Err() == nil
}

// marks are bits for the chunks of the pages that are assigned, to be set from any number of goroutines.
type marks [][]uint64

func newMarks(store *mmapslab.Store) marks {
	m := make(marks, store.Room()+1)
	for page := range m {
		if n := store.PerPage(uint32(page)); n > 0 {
			m[page] = make([]uint64, (n+63)/64)
		}
	}
	return m
}

func (m marks) add(page, slot uint32) (added bool) {
	bit := uint64(1) << (slot % 64)
	return atomic.OrUint64(&m[page][slot/64], bit)&bit == 0
}

func (m marks) has(page, slot uint32) bool {
	return atomic.LoadUint64(&m[page][slot/64])>>(slot%64)&1 == 1
}

// survey is what a look at the whole index tells: which chunks hold live items.
type survey struct {
	live, heads marks // heads: the item is chained
	items       atomic.Int64
	unfinished  atomic.Int64 // words of inserts that were under way
	anew        int          // scans before this one
}

// bucketsAStep is how much of the index one step of a scan looks at; tests take less.
var bucketsAStep uint32 = 8192

// look takes up what became of pages and tables on a live file.
func (p Parts) look() error {
	if err := p.Store.Reread(); err != nil {
		return err
	}
	var err error
	return errors.Join(Guard(func() { err = p.Index.Look() }), err)
}

// words visits all words of the index but empty ones. It ends early, and says so, when the tables of a live file become others: what it visited is to be forgotten then.
func (p Parts) words(ctx context.Context, o CheckOptions, visit func(w *index.Word)) (whole bool, err error) {
	steps, stop := context.WithCancel(ctx)
	defer stop()
	var outdated atomic.Bool
	buckets := p.Index.ScanBuckets()
	err = inParallel(steps, o.Workers, o.Pace, int((buckets+bucketsAStep-1)/bucketsAStep), func(_, i int) {
		from := uint32(i) * bucketsAStep
		p.Index.Scan(from, min(from+bucketsAStep, buckets), visit)
		if o.Live && p.Index.Outdated() {
			outdated.Store(true)
			stop()
		}
	})
	if outdated.Load() {
		return false, ctx.Err()
	}
	return true, err
}

// scan marks what the index names, and calls odd for each word that is not in order: it is in no state that it should be in, or names no chunk, or one that another
// word names. When the index of a live file grows meanwhile it begins anew, and calls forget: what odd was told does not count. That comes to an end, since a growth takes half as many items
// again as there are.
func (p Parts) scan(ctx context.Context, o CheckOptions, odd func(ref mmapslab.Ref), forget func()) (*survey, error) {
	for anew := 0; ; anew++ {
		if o.Live {
			if err := p.look(); err != nil {
				return nil, err
			}
		}
		s := &survey{live: newMarks(p.Store), heads: newMarks(p.Store), anew: anew}
		growing := p.Index.Growing()
		whole, err := p.words(ctx, o, func(w *index.Word) {
			switch answers := w.State == index.Live || w.State == index.Frozen; {
			case w.State == index.Tentative:
				s.unfinished.Add(1)
				return
			case w.State == index.Moved && growing && !w.Next:
				return
			case !answers, p.Store.ChunkSize(w.Ref) == 0:
				odd(w.Ref)
				return
			case w.State == index.Frozen && (!growing || w.Next):
				odd(w.Ref) // and answers readers all the same
			}
			page, slot := p.Store.Place(w.Ref)
			if w.Ref&mmapslab.Chained != 0 {
				s.heads.add(page, slot)
			}
			if s.live.add(page, slot) {
				s.items.Add(1)
			} else if !growing {
				odd(w.Ref)
			}
		})
		if whole || err != nil {
			return s, err
		}
		forget()
	}
}

// page calls visit for each item that was marked in a page.
func (s *survey) page(store *mmapslab.Store, page uint32, visit func(ref mmapslab.Ref)) {
	if s.live[page] == nil {
		return
	}
	for slot := range uint32(store.PerPage(page)) {
		if !s.live.has(page, slot) {
			continue
		}
		ref := store.RefAtPlace(page, slot)
		if s.heads.has(page, slot) {
			ref |= mmapslab.Chained
		}
		visit(ref)
	}
}

// pages are the numbers of the pages that are assigned.
func (p Parts) pages() (all []uint32) {
	for page := uint32(1); page <= uint32(p.Store.Room()); page++ {
		if p.Store.PageClass(page) != 0 {
			all = append(all, page)
		}
	}
	return all
}

// WalkOptions say how to walk.
type WalkOptions struct {
	Workers  int // that visit at a time; default 1: in the order of the file
	Progress func(done, of int)
	Pace     func(context.Context) // called by the workers before each step of some milliseconds: it may have them rest; nil: none
	Verify   bool                  // leave out items whose checksum does not match; always done on a live file
}

// Check is Parts.Check of all that there is, and looks at what else the file has: superblocks, page table, checkpoint, live words. Live and Unlisted of the options
// are set as the file is. What it cannot tell, since the file has nothing to compare it with: a changed exptime or time of last use, the counters of CAS and flush_all
// unless they fell behind, and bytes that nobody reads: free chunks and what is left of chunks behind their items.
func (in *Inspected) Check(ctx context.Context, o CheckOptions) (Checked, error) {
	var checked Checked
	var err error
	o.Live, o.Unlisted = in.Server != "", !in.Listed
	if in.Err == nil && in.IndexErr == nil {
		checked, err = in.Parts.Check(ctx, o)
	}
	all := in.checkHead()
	if in.Listed && err == nil {
		var sumErr error
		if err = Guard(func() { sumErr = in.Store.InspectLinkSum() }); sumErr != nil {
			all = append(all, Finding{in.File.Super.Layout.Span(mmapslab.SpanLinkSum).Offset, sumErr.Error(),
				"the next start sweeps, as after a kill; a stop by an older build leaves it so, too"})
		}
	}
	if sb := in.File.Super; in.Listed && checked.Unfinished > 0 {
		all = append(all, Finding{in.indexWords(), fmt.Sprintf("%d index words of unfinished inserts, in state %s", checked.Unfinished, sb.State),
			"a clean stop leaves none; they take room in the index until a sweep"})
	}
	checked.Findings = append(all, checked.Findings...)
	return checked, err
}

func (in *Inspected) indexWords() int64 {
	return in.File.Super.Layout.Span(mmapslab.SpanIndexWords).Offset
}

// checkHead looks at all that is neither index nor pages.
func (in *Inspected) checkHead() (all []Finding) {
	report := func(at int64, means, format string, args ...any) {
		all = append(all, Finding{at, fmt.Sprintf(format, args...), means})
	}
	for _, c := range in.File.Copies {
		if c.Super == nil {
			report(c.Offset, "the other copy counts, if it is whole; without one a start is cold", "superblock at %d: %s", c.Offset, c.Reason)
		}
	}
	const cold = "a start is cold"
	sb := in.File.Super
	for _, c := range in.File.Copies {
		if c.Super != nil && c.Super.Version != sb.Version {
			report(c.Offset+8, "the other copy counts; a newer build may have died before it wrote both", "superblock at %d: format version %d, the other copy's is %d", c.Offset, c.Super.Version, sb.Version)
		}
	}
	if in.Err != nil {
		report(0, cold, "%v", in.Err)
		return all
	}
	l := &sb.Layout
	if in.File.Size < int64(l.End) {
		report(in.File.Size, cold, "the file has %d bytes, want %d: it was cut off", in.File.Size, l.End)
	}
	if in.IndexErr != nil {
		report(in.indexWords(), "nothing says what is live: "+cold, "%v", in.IndexErr)
	}
	if stopped := sb.State == mmapslab.Clean || sb.State == mmapslab.CleanDurable; stopped && in.Server == "" {
		at := l.Span(mmapslab.SpanCheckpoint).Offset
		if in.CheckpointErr != nil {
			report(at, "the next start sweeps, as after a kill", "%v", in.CheckpointErr)
		} else if in.Table != mmapslab.TableSaved {
			report(at, "the next start sweeps, as after a kill", "there are pages with chunks of a size that the checkpoint does not know")
		}
	}
	for _, page := range in.Damaged {
		if p, err := in.Store.PageInfo(page); err == nil {
			report(p.At, "a start drops the page with its items", "page %d: descriptor %#x does not validate", page, p.Descriptor)
		}
	}
	for _, page := range in.Cut {
		if p, err := in.Store.PageInfo(page); err == nil {
			report(p.Offset, "its items are lost", "page %d lies behind the end of the file", page)
		}
	}
	for _, at := range in.Stray {
		report(at, "nothing, but nobody writes there: what else was hit?", "page table: bytes that are not zero")
	}
	if now := in.Store.ClockWord().Load(); now > 1<<32-1 || now != 0 && int64(now) < sb.ClockWall-1 {
		report(l.Span(mmapslab.SpanClock).Offset, "items expire early or late after another boot", "clock of %d seconds, want %d or a little more", now, sb.ClockWall)
	}
	return all
}

// Walked is what a walk came by.
type Walked struct {
	Items   int64 // visited
	Changed int64 // items that were replaced, moved or removed while they were looked at, and so left out
	Invalid int64 // left out, since what their index word names is no such item
	Anew    int   // how often the scan of the index was begun anew, since the index grew meanwhile
}

// Walk visits all items that the index names, dead ones included, page by page. While a server changes the file, an item is visited as it was at one moment, or left
// out: its copy is whole, and the index named it after it was made. it is valid during the call; worker is below Workers.
func (in *Inspected) Walk(ctx context.Context, o WalkOptions, visit func(worker int, it *mmapslab.Item, m mmapslab.Meta)) (walked Walked, err error) {
	if err := in.readable(); err != nil {
		return walked, err
	}
	workers := max(o.Workers, 1)
	var invalid atomic.Int64
	s, err := in.scan(ctx, CheckOptions{Live: in.Server != "", Workers: workers, Pace: o.Pace}, func(mmapslab.Ref) { invalid.Add(1) }, func() { invalid.Store(0) })
	if err != nil {
		return walked, err
	}
	walked.Anew = s.anew
	if in.Server == "" {
		walked.Invalid = invalid.Load()
	} else {
		walked.Changed = invalid.Load()
	}
	type worker struct {
		Walked
		it     mmapslab.Item // here, since visit may keep it from the stack
		buf    []byte
		hasher *mmapslab.Hasher
		_      [64]byte
	}
	all := make([]worker, workers)
	for i := range all {
		all[i].hasher = in.Store.Hasher()
	}
	pages := in.pages()
	var done atomic.Int64
	err = inParallel(ctx, workers, o.Pace, len(pages), func(n, i int) {
		w := &all[n]
		in.Store.Want(pages[i])
		s.page(in.Store, pages[i], func(ref mmapslab.Ref) {
			var ok bool
			w.it, ok = in.Store.Item(ref)
			if in.Server != "" {
				if ok {
					w.it, w.buf = in.Store.Snapshot(&w.it, w.buf)
					ok = len(w.it.Key()) > 0 && in.Store.Verify(&w.it) && in.holds(w.hasher.Sum(w.it.Key()), ref)
				}
				if !ok {
					w.Changed++
					return
				}
			} else if !ok || o.Verify && !in.Store.Verify(&w.it) {
				w.Invalid++
				return
			}
			w.Items++
			visit(n, &w.it, mmapslab.Meta(in.Store.Meta(ref).Load()))
		})
		in.Store.Forget(pages[i])
		if n := done.Add(1); o.Progress != nil {
			o.Progress(int(n), len(pages))
		}
	})
	for i := range all {
		walked.Items += all[i].Items
		walked.Changed += all[i].Changed
		walked.Invalid += all[i].Invalid
	}
	return walked, err
}

// holds is Index.Holds, after another look at the tables if need be.
func (in *Inspected) holds(h uint64, ref mmapslab.Ref) bool {
	return in.Index.Holds(h, ref) || in.Server != "" && in.Index.Look() == nil && in.Index.Holds(h, ref)
}

// Still tells of an item that Walk gave out, whose value was read since, whether the index names it as before. Without a server it does.
func (in *Inspected) Still(it *mmapslab.Item) bool {
	return in.Server == "" || in.holds(in.Store.Hasher().Sum(it.Key()), it.Ref())
}

// Find returns the item of a key, dead or alive.
func (in *Inspected) Find(key []byte) (it mmapslab.Item, ok bool, err error) {
	if err := in.readable(); err != nil {
		return it, false, err
	}
	err = Guard(func() {
		h := in.Store.Hasher().Sum(key)
		for range 3 {
			var ref mmapslab.Ref
			if ref, ok = in.Index.Find(h, key); !ok && in.Server != "" && in.Index.Look() == nil && in.Store.Reread() == nil {
				ref, ok = in.Index.Find(h, key)
			}
			if !ok {
				return
			}
			found, is := in.Store.Item(ref)
			if !is {
				continue // it changed since
			}
			if in.Server == "" {
				it = found
				return
			}
			if it, _ = in.Store.Snapshot(&found, nil); bytes.Equal(it.Key(), key) && in.holds(h, ref) {
				return
			}
		}
	})
	return it, ok, err
}

// readable tells why the items cannot be read, nil when they can.
func (in *Inspected) readable() error {
	if in.Err != nil {
		return in.Err
	}
	return in.IndexErr
}
