package hearth

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"hearth/index"
	"hearth/lru"
	"hearth/mmapslab"
	"hearth/mmapslab/fault"
	"hearth/restore"
)

// Cache is an open cache. Its own methods are safe for concurrent use; fast paths go by way of a Session.
type Cache struct {
	opts  Options
	store *mmapslab.Store
	index *index.Index
	order *lru.Order
	recl  *reclaimer

	time    timebase
	now     atomic.Uint32 // the cache's time; the keeper sets it
	started time.Duration // time since boot

	restart   restart                         // guarded by mu
	sweeper   atomic.Pointer[restore.Sweeper] // while a sweep runs beside the sessions
	sweepDone chan struct{}                   // closed when none runs
	full      atomic.Bool                     // there was no page to add
	events    [mmapslab.ClassIDs]classEvents
	observer  atomic.Pointer[func(*Event)] // nil: none

	mu       sync.Mutex
	sessions map[*Session]bool
	idle     []*Session // for calls outside of any worker
	past     counters   // of closed sessions
	closed   bool

	verifier atomic.Pointer[verifier] // nil most of the time
	corrupt  atomic.Uint64            // damaged items met since the start, beside those of the sweep
	damaged  atomic.Bool              // the next start has to sweep

	keeper   keeper
	scrubber scrubber
	crawler  crawler
	mover    mover
	fault    struct {
		told  atomic.Bool // somebody wants to hear of it
		seen  atomic.Pointer[Fault]
		notes *os.File // see Options.NoteCrashes; nil: none are made
		first chan *Fault
	}
}

// restart is how this start went.
type restart struct {
	verdict restore.Verdict
	attach  time.Duration
	sweep   time.Duration
	swept   restore.Swept
	items   int64

	unclean, ownFaults uint32 // see mmapslab.Superblock
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// ErrOption is matched by every error of Open about the options.
var ErrOption = errors.New("hearth: bad option")

// withDefaults fills in what is zero and checks the rest.
func (o Options) withDefaults() (Options, error) {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if o.MemoryLimit == 0 {
		o.MemoryLimit = 64 << 20
	}
	if o.GrowthFactor == 0 {
		o.GrowthFactor = 1.25
	}
	def(&o.MinSpace, 48)
	def(&o.MaxItemSize, 1<<20)
	def(&o.ChunkMax, min(512<<10, o.MaxItemSize))
	def(&o.LRU.HotPct, lru.Defaults.HotPct)
	def(&o.LRU.WarmPct, lru.Defaults.WarmPct)
	if o.LRU.HotMaxFactor == 0 {
		o.LRU.HotMaxFactor = lru.Defaults.HotMaxFactor
	}
	if o.LRU.WarmMaxFactor == 0 {
		o.LRU.WarmMaxFactor = lru.Defaults.WarmMaxFactor
	}
	if o.LRU.TempTTL == 0 && !o.LRU.Temp {
		o.LRU.TempTTL = lru.Defaults.TempTTL
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	bad := func(name string, found, want any) (Options, error) {
		return o, fmt.Errorf("%w: %s is %v, want %v", ErrOption, name, found, want)
	}
	switch {
	case o.MemoryLimit < mmapslab.PageSize || o.MemoryLimit/mmapslab.PageSize > mmapslab.MaxPages-mmapslab.ClassIDs:
		return bad("MemoryLimit", o.MemoryLimit, "1 MiB to 255 GiB")
	case !(o.GrowthFactor > 1):
		return bad("GrowthFactor", o.GrowthFactor, "above 1")
	case o.MinSpace < 1:
		return bad("MinSpace", o.MinSpace, "at least 1")
	case o.MaxItemSize < 1024 || o.MaxItemSize > 1<<30:
		return bad("MaxItemSize", o.MaxItemSize, "1024 to 1073741824")
	case int64(o.MaxItemSize) > o.MemoryLimit/2:
		return bad("MaxItemSize", o.MaxItemSize, fmt.Sprintf("at most half of MemoryLimit, %d", o.MemoryLimit/2))
	case o.ChunkMax < 1024 || o.ChunkMax > o.MaxItemSize || mmapslab.PageSize%o.ChunkMax != 0 || o.MaxItemSize%o.ChunkMax != 0:
		return bad("ChunkMax", o.ChunkMax, fmt.Sprintf("1024 to MaxItemSize, a divisor of the page size %d and of MaxItemSize %d", mmapslab.PageSize, o.MaxItemSize))
	case !validLRU(o.LRU):
		return bad("LRU", o.LRU, "shares of at least 0 that make at most 80, factors above 0")
	case o.Verify > VerifyNever:
		return bad("Verify", o.Verify, "VerifyAttach, VerifyAlways or VerifyNever")
	case o.ScrubRate < 0:
		return bad("ScrubRate", o.ScrubRate, "at least 0")
	case o.MaxDown < 0 || o.MaxDown%time.Second != 0:
		return bad("MaxDown", o.MaxDown, "whole seconds")
	case o.HeapArena && o.Path != "":
		return bad("HeapArena", true, "no Path beside it")
	}
	return o, nil
}

// ChunkSizes returns the slab class table that the options ask for: chunk sizes in bytes, those of class 1 first. o must be complete, as
// Cache.Options returns it.
func (o Options) ChunkSizes() []int {
	if len(o.SlabSizes) == 0 {
		return mmapslab.ChunkSizes(o.GrowthFactor, o.MinSpace, o.ChunkMax)
	}
	var sizes []int
	for _, size := range o.SlabSizes {
		if size = max((size+7)&^7, mmapslab.MinChunkSize); size < o.ChunkMax {
			sizes = append(sizes, size)
		}
	}
	return append(sizes, o.ChunkMax)
}

// firstBuckets is the size of a new index: memcached's 2^16 pointers.
var firstBuckets uint32 = 1 << 16 / 8 // tests make it smaller

// Open opens the cache in o.Path, warm if it can be, or makes a new one. It fails for options it cannot take (ErrOption), for a file that another
// process holds (mmapslab.ErrLocked) and for what the system refuses; a file that cannot be used is no error but a cold start, whose reason is logged.
func Open(o Options) (*Cache, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var file *mmapslab.File
	if o.Path != "" {
		if file, err = o.openFile(); err != nil {
			return nil, fmt.Errorf("hearth: %w", err)
		}
	}
	c, err := open(o, file)
	if err != nil {
		return nil, err
	}
	c.startKeeper()
	c.startScrubber()
	if c.sweeper.Load() != nil {
		go c.sweep(restore.SweepWorkers())
	} else {
		close(c.sweepDone)
	}
	return c, nil
}

// open is Open with complete options and the file, nil for none, without the background work.
func open(o Options, file *mmapslab.File) (c *Cache, err error) {
	began := time.Now()
	c = &Cache{opts: o, sessions: map[*Session]bool{}, started: o.Clock.Boot(), sweepDone: make(chan struct{})}
	c.mover.init()
	c.fault.first = make(chan *Fault, 1)
	c.crawler.settings.Store(&DefaultAutocrawl)
	verdict := restore.Verdict{Kind: restore.Cold, Reason: "no file"}
	if file != nil {
		if err = c.takeNote(file); err != nil {
			return nil, errors.Join(fmt.Errorf("hearth: %w", err), file.Close())
		}
		verdict = o.judge(file)
	}
	if verdict.Kind != restore.Cold {
		if v, err := c.attachOrNot(file, verdict); err != nil {
			// What the superblock promised is not there. Nothing was changed but what a cold start replaces.
			verdict = restore.Verdict{Kind: restore.Cold, Reason: err.Error()}
		} else {
			verdict = v
		}
	}
	if verdict.Kind == restore.Cold {
		if err := c.create(file); err != nil {
			if file != nil {
				file.Close()
			}
			return nil, fmt.Errorf("hearth: %w", err)
		}
	}
	super := c.store.Super()
	c.restart.verdict, c.restart.items, c.restart.unclean, c.restart.ownFaults = verdict, c.index.Len(), super.Unclean, super.OwnFaults
	c.verifyFromNow(verdict.Torn || verdict.Carried && o.Verify == VerifyAttach)
	c.restart.attach = time.Since(began)
	o.Logger.Info("cache opened", "file", o.Path, "start", verdict.Kind.String(), "reason", verdict.Reason, "items", c.restart.items,
		"attach", c.restart.attach, "sweep", c.restart.sweep, "sweeping", c.sweeper.Load() != nil)
	if err := c.store.HugePages(); err != nil {
		o.Logger.Warn("no huge pages", "err", err)
	}
	return c, nil
}

// takeNote counts what the last server said as it died, and has the same done for this one.
func (c *Cache) takeNote(file *mmapslab.File) error {
	if file.Note != "" {
		own := restore.OwnFault(file.Note)
		c.opts.Logger.Error("the last server left a note", "file", c.opts.Path, "of_its_own", own, "note", file.Note)
		if err := file.TakeNote(own); err != nil {
			return err
		}
	}
	if !c.opts.NoteCrashes {
		return nil
	}
	notes, err := file.OpenNotes()
	if err != nil {
		c.opts.Logger.Warn("crashes will not be noted", "err", err) // worse to diagnose, and no reason not to serve
		return nil
	}
	c.fault.notes = notes
	return debug.SetCrashOutput(notes, debug.CrashOptions{})
}

// openFile opens the file, or takes over the one that is open.
func (o *Options) openFile() (*mmapslab.File, error) {
	if o.File != nil {
		return mmapslab.Inherit(o.File, o.Path)
	}
	return mmapslab.OpenFile(o.Path, o.LockWait)
}

func (o *Options) judge(file *mmapslab.File) restore.Verdict {
	here := restore.Here{BootID: o.Clock.BootID(), SinceBoot: int64(o.Clock.Boot()), Wall: o.Clock.Wall()}
	policy := restore.Policy{MaxDown: int64(o.MaxDown / time.Second), PowerLoss: o.WarmAfterPowerLoss}
	return restore.Judge(file, int(o.MemoryLimit/mmapslab.PageSize), here, policy)
}

// CanTakeOver looks whether Open would start warm from o.File, which another cache still has open, and returns nil or why not. It judges the file as after a
// kill, which is the worst that the other can leave, and changes nothing.
func CanTakeOver(o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	if o.Path == "" || o.File == nil {
		return fmt.Errorf("%w: there is no file to take over", ErrOption)
	}
	file, err := o.openFile()
	if err != nil {
		return fmt.Errorf("hearth: %w", err)
	}
	defer file.Close()
	if v := o.judge(file); v.Kind == restore.Cold {
		return fmt.Errorf("hearth: take over %s: it would be cold: %s", o.Path, v.Reason)
	}
	return nil
}

func (c *Cache) config() mmapslab.Config {
	return mmapslab.Config{Pages: int(c.opts.MemoryLimit / mmapslab.PageSize), ChunkSizes: c.opts.ChunkSizes(),
		HugePages: c.opts.HugePages, Heap: c.opts.HeapArena}
}

// casByTime is where CAS ids begin that nobody remembers. The shift leaves room for four million stores a second, and keeps ids below 2^53, where
// JavaScript's numbers end, until 2038.
func (c *Cache) casByTime() uint64 { return uint64(c.opts.Clock.Wall()) << 22 }

// create makes an empty store.
func (c *Cache) create(file *mmapslab.File) (err error) {
	// CAS ids go on from those of any cache before, so that a client's old one never fits a new item: from what the file remembers, else from the time.
	lastCAS := c.casByTime()
	if file != nil {
		lastCAS = max(lastCAS, file.LastCAS())
	}
	c.setTime(timebase{c.opts.Clock.Wall(), c.started})
	seed := binary.NativeEndian.Uint64(randomBytes(8))
	if c.store, err = mmapslab.Create(file, c.config(), c.identity(), lastCAS, seed); err != nil {
		return err
	}
	region, options := c.indexParts()
	fault.Point("hearth.create.stored")
	if c.index, err = index.Create(c.store.Arena(), region, c.store, options, firstBuckets); err != nil {
		return err
	}
	return c.run()
}

// attachOrNot is attach, with an error for a fault in the file's memory: a disk that does not give back what it was given makes a cold start. Other panics are bugs; they
// end the process, and count (see takeNote).
func (c *Cache) attachOrNot(file *mmapslab.File, v restore.Verdict) (_ restore.Verdict, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if f := faultOf(recover()); f != nil {
			c.opts.Logger.Error("hearth: fault while attaching", "file", c.opts.Path, "address", fmt.Sprintf("%#x", f.Addr), "what", f.What, "stack", string(debug.Stack()))
			err = f
			if c.store != nil {
				err = errors.Join(err, c.store.Unmap())
			}
		}
	}()
	return c.attach(file, v)
}

// attach takes the file's contents over. It returns an error when the contents are not what the superblock promised: the file may be used for a
// cold start then.
func (c *Cache) attach(file *mmapslab.File, v restore.Verdict) (restore.Verdict, error) {
	store, damaged, err := mmapslab.Attach(file, c.config())
	if err != nil {
		return v, err
	}
	c.store = store
	super := store.Super()
	if super.BootID == c.opts.Clock.BootID() && super.ClockBoot <= int64(c.started) {
		c.setTime(timebase{super.ClockWall, time.Duration(super.ClockBoot)})
	} else {
		// Another boot: the wall clock counts, unless it runs behind the cache's own last second, where it cannot be right.
		c.setTime(timebase{max(c.opts.Clock.Wall(), int64(store.ClockWord().Load())), c.started})
	}
	// From here on the file is changed, so it must not look clean any more.
	if super.State == mmapslab.Running {
		store.Edit(func(sb *mmapslab.Superblock) { sb.Unclean++ })
	}
	err = c.run()
	fault.Point("hearth.attach.running")
	if err == nil && v.Torn {
		store.RaiseCAS(c.casByTime())
		err = store.BackPages()
	}
	if err == nil {
		if v.Kind == restore.Unclean {
			store.TakeBack()
		}
		region, options := c.indexParts()
		options.Torn = v.Torn
		c.index, err = index.Attach(store.Arena(), region, store, options)
		fault.Point("hearth.attach.indexed")
	}
	if err == nil {
		v, err = c.rebuild(v, &super, damaged)
	}
	if err != nil {
		return v, errors.Join(err, store.Unmap())
	}
	return v, nil
}

// rebuild takes free lists, LRU and counters over after a clean stop, and sweeps when that is not possible.
func (c *Cache) rebuild(v restore.Verdict, was *mmapslab.Superblock, damaged []uint32) (restore.Verdict, error) {
	limit, assigned, _ := c.store.Pages()
	excess := max(0, owed(was, assigned)-limit)
	why := ""
	switch {
	case v.Kind == restore.Unclean && len(damaged) == 0 && excess == 0 && !v.Torn:
		c.sweeper.Store(restore.NewSweeper(c.parts()))
		return v, nil
	case v.Kind == restore.Unclean:
		why = v.Reason
	case len(damaged) > 0:
		why = fmt.Sprintf("%d pages are damaged", len(damaged))
	case excess > 0:
		why = fmt.Sprintf("%d pages in use, limit now %d", assigned, limit)
	default:
		cp, err := c.store.ReadCheckpoint()
		if err == nil {
			fault.Point("hearth.attach.checkpoint")
			c.order.Load(cp)
			c.index.SetLen(int64(cp.Items))
			return v, nil
		}
		why = err.Error()
	}
	began := time.Now()
	fault.Point("hearth.attach.sweeping")
	swept, err := restore.Sweep(c.parts(), damaged, excess, v.Torn)
	fault.Point("hearth.attach.swept")
	if err != nil {
		return v, err
	}
	c.restart.swept, c.restart.sweep = swept, time.Since(began)
	if excess > 0 {
		if err := c.writeLimit(limit); err != nil {
			return v, err
		}
	}
	if v.Kind == restore.Clean {
		v.Reason += "; swept, since " + why
	}
	return v, nil
}

// sweep has so many workers rebuild after a kill what only a clean stop saves, while the sessions work.
func (c *Cache) sweep(workers int) {
	defer close(c.sweepDone)
	debug.SetPanicOnFault(true)
	defer c.catchFault()
	began := time.Now()
	team, sessions := make([]restore.Worker, workers), make([]*Session, workers)
	for i := range team {
		s := c.NewSession()
		sessions[i] = s
		team[i] = restore.Worker{Section: func(step func()) {
			s.Begin()
			defer s.End()
			step()
		}, Retire: s.retire}
	}
	swept := c.sweeper.Load().Run(team, c.recl.wait)
	c.sweeper.Store(nil)
	if _, _, pool := c.store.Pages(); pool > 0 {
		c.full.Store(false)
	}
	for _, s := range sessions {
		s.Close()
	}
	took := time.Since(began)
	c.mu.Lock()
	c.restart.swept, c.restart.sweep, c.restart.items = swept, took, swept.Items
	c.mu.Unlock()
	c.opts.Logger.Info("swept", "items", swept.Items, "invalid", swept.Invalid, "duplicate", swept.Duplicate, "unfinished", swept.Cleared, "workers", len(team), "took", took)
}

// WaitSwept returns when the sweep after a kill is over: until then Stats count what was swept so far, and memory comes free page by page. Everything else
// works meanwhile. After any other start it returns at once.
func (c *Cache) WaitSwept() { <-c.sweepDone }

func (c *Cache) parts() restore.Parts {
	return restore.Parts{Store: c.store, Index: c.index, Order: c.order}
}

// indexParts returns what the index is made with, and makes what it needs.
func (c *Cache) indexParts() (index.Region, index.Options) {
	c.order = lru.New(c.store, (*owner)(c), c.opts.LRU)
	if c.opts.TrackSizes {
		c.order.CountSizes(c.opts.MaxItemSize)
	}
	c.recl = newReclaimer(c.free, c.itemSize)
	state, half, size := c.store.IndexRegion()
	return index.Region{State: state, Half: half, HalfSize: size}, index.Options{
		AfterGrace: c.recl.after,
		Discard:    c.store.Discard,
		Populate:   c.store.BackIndex,
		Evict:      c.dropped,
	}
}

// owed is how many of the assigned pages count towards the memory limit. There are more than the limit that the superblock tells: the first pages of some
// classes, which are allowed on top. The superblock goes on telling the higher limit until its pages are given back, or a kill would hide them.
func owed(sb *mmapslab.Superblock, assigned int) int { return min(int(sb.PageLimit), assigned) }

// run marks the file as running, durably, before the first change.
func (c *Cache) run() error {
	limit, assigned, _ := c.store.Pages()
	c.store.Edit(func(sb *mmapslab.Superblock) {
		sb.Generation++
		sb.Stopped = 0
		sb.PageLimit = uint32(max(limit, owed(sb, assigned)))
	})
	return c.store.SetState(mmapslab.Running, c.identity())
}

func (c *Cache) identity() mmapslab.Identity {
	return mmapslab.Identity{BootID: c.opts.Clock.BootID(), ClockWall: c.time.wall, ClockBoot: int64(c.time.boot)}
}

// Close stops the cache clean, so that the next Open finds everything. While sessions are open or items pinned it fails and changes nothing. It
// fails, too, when the file cannot be saved; then the cache is closed, and the next start is as after a kill. After a Fault it returns that, and saves nothing.
func (c *Cache) Close() error { return c.close(c.store.MarkClean) }

// HandOver is Close for a cache that is opened again at once, within this boot: it does not wait for a disk.
func (c *Cache) HandOver() error {
	return c.close(func(id mmapslab.Identity) error { return c.store.SetState(mmapslab.Clean, id) })
}

// File returns a descriptor of the open slab file, the caller's own. While it is open, here or in a process that inherited it, the file stays locked, also when the
// cache is closed; Options.File is where the next cache takes it from. The two must not be open at a time. Without a file it fails.
func (c *Cache) File() (*os.File, error) {
	if c.store.File() == nil {
		return nil, fmt.Errorf("%w: there is no file", ErrOption)
	}
	return c.store.File().Share()
}

// close is Close; mark marks the saved file as clean.
func (c *Cache) close(mark func(mmapslab.Identity) error) error {
	c.crawler.hold(true)
	defer c.crawler.hold(false)
	c.StopCrawl()
	<-c.sweepDone // a second for ten million items; stopping in between would only have the next start do it again
	if err := c.faulted(); err != nil {
		return err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return fmt.Errorf("hearth: close: %w", ErrClosed)
	}
	for _, s := range c.idle {
		c.dropLocked(s)
	}
	c.idle = nil
	open := len(c.sessions) - 1 // the keeper's own
	if c.scrubber.stop != nil {
		open--
	}
	if open > 0 {
		c.mu.Unlock()
		return fmt.Errorf("hearth: close: %d sessions are open, want none", open)
	}
	if n := c.recl.pins.Load(); n != 0 {
		c.mu.Unlock()
		return fmt.Errorf("hearth: close: %d items are pinned, want none", n)
	}
	c.closed = true
	c.mu.Unlock()
	c.stopScrubber()
	c.stopKeeper()
	if err := c.faulted(); err != nil {
		return err
	}
	began := time.Now()
	c.recl.collect(nil)
	items := c.index.Len()
	fault.Point("hearth.close.drained")
	err := c.save(mark)
	fault.Point("hearth.close.saved")
	err = errors.Join(err, c.store.Close())
	if c.opts.NoteCrashes && c.opts.Path != "" {
		err = errors.Join(err, debug.SetCrashOutput(nil, debug.CrashOptions{}))
	}
	c.opts.Logger.Info("cache closed", "file", c.opts.Path, "items", items, "took", time.Since(began), "error", err)
	return err
}

// save writes the checkpoint and marks the file as clean.
func (c *Cache) save(mark func(mmapslab.Identity) error) error {
	if c.store.Anonymous() {
		return nil
	}
	cp := &mmapslab.Checkpoint{Items: uint64(c.index.Len())}
	c.order.Save(cp)
	if err := c.store.WriteCheckpoint(cp); err != nil {
		return err
	}
	if c.damaged.Load() {
		c.opts.Logger.Warn("the next start sweeps, since damaged items were found", "file", c.opts.Path, "items", c.corrupt.Load())
		c.store.VoidCheckpoint()
	}
	fault.Point("hearth.close.checkpoint")
	c.store.Edit(func(sb *mmapslab.Superblock) { sb.Stopped, sb.Unclean, sb.OwnFaults = c.opts.Clock.Wall(), 0, 0 })
	return mark(c.identity())
}

// Check proves that the cache is consistent, and returns what it finds wrong. No session may be in a section, and no draft under way.
func (c *Cache) Check() []restore.Finding {
	<-c.sweepDone
	c.pauseKeeper(true)
	defer c.pauseKeeper(false)
	c.crawler.step.Lock()
	defer c.crawler.step.Unlock()
	c.index.HoldGrowth(true)
	defer c.index.HoldGrowth(false)
	c.index.FinishGrowth()
	c.recl.collect(nil)
	return restore.Check(c.parts(), nil)
}

func (c *Cache) setTime(b timebase) {
	c.time = b
	c.now.Store(b.at(c.opts.Clock.Boot()))
}

// tick advances the cache's time.
func (c *Cache) tick() {
	now := c.time.at(c.opts.Clock.Boot())
	if c.now.Swap(now) != now {
		c.store.ClockWord().Store(uint64(now))
	}
}

// Now returns the cache's time: seconds since 1970, as exptimes count.
func (c *Cache) Now() uint32 { return c.now.Load() }

// Uptime returns the time since Open.
func (c *Cache) Uptime() time.Duration { return c.opts.Clock.Boot() - c.started }

// Options returns the options with the defaults filled in.
func (c *Cache) Options() Options { return c.opts }
