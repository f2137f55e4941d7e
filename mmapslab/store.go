package mmapslab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"hearth/mmapslab/fault"
	"hearth/mmapslab/invariants"
)

// Config is the shape of a store. It is complete: defaults are the root package's.
type Config struct {
	Pages      int   // the memory limit in pages of PageSize
	ChunkSizes []int // the slab class table: class i+1 has chunks of ChunkSizes[i] bytes
	HugePages  bool  // ask for huge pages; see Store.HugePages
	Heap       bool  // keep the memory on the Go heap, for race tests; without a file only
}

// Identity is what a superblock says of where and when it was written.
type Identity struct {
	BootID    [16]byte
	ClockWall int64 // see Superblock
	ClockBoot int64
}

// ClassIDs is the number of class ids: 0 is none, 1 to 63 are configured, and from 64 on stand classes of an earlier configuration, whose
// pages are still there: nothing new is stored in them.
const ClassIDs = 128

// Store is the memory of a cache: pages, slab classes and their free chunks. Methods are safe for concurrent use unless they say otherwise.
//
// Lock order: a class's adding before its mu and before pageMu; magazineMu before a Magazine's mu, and that before a class's mu; nothing else is taken under them.
type Store struct {
	arena  *Arena
	file   *File // nil for anonymous and heap memory
	layout Layout
	super  Superblock // guarded by the caller of SetState: start and stop are single-threaded

	classes [ClassIDs]class
	largest int // the class id with the largest chunks

	readOnly bool // see Inspect

	hugePages   bool  // are asked for
	noHugePages error // see HugePages

	// classOf[page] is the class id of an assigned page, else 0.
	classOf []atomic.Uint32

	// unswept[page] is true while a sweep has not come to the page: see restore.Sweeper.
	unswept []atomic.Bool

	pageMu   sync.Mutex
	limit    int      // pages that may be assigned
	assigned int      // pages that are
	pool     []uint32 // free pages below nextPage
	nextPage uint32   // the first page that was never assigned

	magazineMu sync.Mutex
	magazines  []*Magazine

	cutLists       atomic.Uint64
	inlineReclaims atomic.Uint64 // chunks of draining pages that Alloc met, and left out
}

// class is one slab class. Its free chunks are a list through Link.Next, so that it survives a clean stop as it is; a fresh page is carved up
// as it is needed rather than strung into the list at once.
type class struct {
	shape
	draining  atomic.Uint32 // drain.page; changed under mu
	_         [64]byte      // who looks at an item needs the shape, and not the line that each Alloc changes
	adding    sync.Mutex
	mu        sync.Mutex
	freeHead  uint32        // chunk id
	free      atomic.Uint64 // chunks in the list, in the sieve, and left in the fresh page; not those in magazines. Changed under mu
	freshPage uint32
	freshNext uint32 // next slot of freshPage
	refills   uint64 // how often chunks went from here to a magazine
	pages     uint64
	drain     drain
	_         [64]byte // keep the locks of neighbours on lines of their own
}

// shape is what stays the same of a class once it is there.
type shape struct {
	size    uint32 // chunk size in bytes; 0: there is no such class
	perPage uint32
	inverse uint64 // of size, see slot
}

// inverseShift makes slot exact: a place in a page and a size have 20 bits each, so what rounding inverse up adds to the product is less than one size's share.
const inverseShift = 44

func shapeOf(size uint32) shape {
	return shape{size, PageSize / size, (1<<inverseShift + uint64(size) - 1) / uint64(size)}
}

// slot divides a place in a page by the chunk size: a multiplication costs a third of a division, and every look at an item does one.
func (c *shape) slot(place uint32) (slot, rest uint32) {
	slot = uint32(uint64(place) * c.inverse >> inverseShift)
	return slot, place - slot*c.size
}

// Create makes a new, empty store: in file, whatever it held before, or in memory when file is nil.
func Create(file *File, cfg Config, id Identity, lastCAS, seed uint64) (*Store, error) {
	s, err := newStore(file, cfg)
	if err != nil {
		return nil, err
	}
	room := uint32(min(max(8*cfg.Pages, 1024), MaxPages))
	if file == nil || file.heap {
		room = uint32(min(cfg.Pages+ClassIDs, MaxPages)) // there is no restart with another limit
		if !cfg.Heap && file == nil {
			room = max(room, uint32(min(8*cfg.Pages, MaxPages))) // address space for SetLimit
		}
	}
	s.layout = layoutFor(room, uint32(cfg.ChunkSizes[0]))
	switch {
	case file == nil:
	case file.heap && file.Super != nil:
		file.arena = nil // zeroing it would touch all of it
	case !file.heap:
		// Cutting the file off first gives the old contents' memory back and leaves zeros.
		for _, size := range []int64{0, int64(s.layout.End)} {
			if err := file.f.Truncate(size); err != nil {
				return nil, fmt.Errorf("mmapslab: set size of %s to %d: %w", file.path, size, err)
			}
		}
	}
	if err := s.mapArena(cfg); err != nil {
		return nil, err
	}
	if err := s.back(0, checkpointArea); err != nil {
		return nil, errors.Join(err, s.arena.unmapNow())
	}
	s.super = Superblock{Magic: magic, Version: Version, Arch: Arch(), HashSeed: seed, Layout: s.layout}
	s.arena.Word(wordCAS).Store(lastCAS)
	if err := s.prepare(cfg); err != nil {
		return nil, errors.Join(err, s.arena.unmapNow())
	}
	return s, s.SetState(Creating, id)
}

// Attach opens the store that file holds, as its superblock describes it; the caller has judged that it may be trusted. Nothing is changed
// before SetState. Pages whose descriptor does not validate are reported as damaged and left out.
func Attach(file *File, cfg Config) (s *Store, damaged []uint32, err error) {
	if s, err = newStore(file, cfg); err != nil {
		return nil, nil, err
	}
	s.super = *file.Super
	s.layout = s.super.Layout
	if !s.layout.Valid() || file.Size < int64(s.layout.End) {
		return nil, nil, fmt.Errorf("mmapslab: attach %s: %w: layout %+v in a file of %d bytes", file.path, ErrCorrupt, s.layout, file.Size)
	}
	if err := s.mapArena(cfg); err != nil {
		return nil, nil, err
	}
	if err := s.prepare(cfg); err != nil {
		return nil, nil, errors.Join(err, s.arena.unmapNow())
	}
	bySize := map[uint32]uint32{}
	for id := range s.classes {
		if size := s.classes[id].size; size != 0 {
			bySize[size] = uint32(id)
		}
	}
	table, err := s.readTable()
	if err != nil {
		return nil, nil, errors.Join(err, s.arena.unmapNow())
	}
	for page := uint32(1); page <= s.layout.Room; page++ {
		w := binary.NativeEndian.Uint64(table[page*descriptorSize:])
		if w == 0 {
			continue
		}
		for ; s.nextPage < page; s.nextPage++ {
			s.pool = append(s.pool, s.nextPage)
		}
		s.nextPage = page + 1
		state, size, _, ok := unpackDescriptor(w)
		id := bySize[size]
		if ok && state != pageFree && id == 0 {
			if id = s.formerClass(size); id != 0 {
				bySize[size] = id
			}
		}
		switch {
		case ok && state == pageFree:
			s.pool = append(s.pool, page)
		case !ok || id == 0:
			damaged = append(damaged, page)
		default:
			s.classOf[page].Store(id)
			s.classes[id].pages++
			s.assigned++
		}
	}
	return s, damaged, nil
}

// readTable reads the page table by a system call: in a mapping of a tmpfs that is full, to read what was never written is a SIGBUS.
func (s *Store) readTable() ([]byte, error) {
	n := (int(s.layout.Room) + 1) * descriptorSize
	if s.file.heap {
		return s.arena.Bytes(pageTable, n), nil
	}
	table := make([]byte, n)
	if _, err := s.file.f.ReadAt(table, pageTable); err != nil {
		return nil, fmt.Errorf("mmapslab: attach %s: page table: %w", s.file.path, err)
	}
	return table, nil
}

// formerClass makes a class for pages of a chunk size that is not in the table any more; 0 when the ids are used up.
func (s *Store) formerClass(size uint32) uint32 {
	for id := uint32(maxClasses + 1); id < ClassIDs; id++ {
		if c := &s.classes[id]; c.size == 0 {
			c.shape = shapeOf(size)
			return id
		}
	}
	return 0
}

// ErrCorrupt matches every error that says the file's contents are damaged.
var ErrCorrupt = errors.New("corrupt")

func newStore(file *File, cfg Config) (*Store, error) {
	if err := validateSizes(cfg.ChunkSizes); err != nil {
		return nil, err
	}
	if cfg.Pages < 1 || cfg.Pages > MaxPages-ClassIDs {
		return nil, fmt.Errorf("mmapslab: memory limit of %d pages, want 1 to %d", cfg.Pages, MaxPages-ClassIDs)
	}
	s := &Store{file: file, limit: cfg.Pages, nextPage: 1}
	for i, size := range cfg.ChunkSizes {
		s.classes[i+1].shape = shapeOf(uint32(size))
	}
	s.largest = len(cfg.ChunkSizes)
	return s, nil
}

func (s *Store) mapArena(cfg Config) (err error) {
	switch {
	case s.file != nil:
		s.arena, err = s.file.mapFile(int64(s.layout.End))
	case cfg.Heap:
		s.arena = NewHeapArena(int64(s.layout.End))
	default:
		s.arena, err = newAnonymousArena(int64(s.layout.End))
	}
	if err == nil && cfg.HugePages && s.arena.unmap != nil {
		s.hugePages, s.noHugePages = true, s.adviseHuge()
	}
	return err
}

// HugePages returns why huge pages, which were asked for, are not to be had; nil when they are, as far as one can know.
func (s *Store) HugePages() error { return s.noHugePages }

func (a *Arena) unmapNow() error {
	if a.unmap == nil {
		return nil
	}
	return a.unmap()
}

func (s *Store) prepare(cfg Config) error {
	if int(s.layout.Room) < cfg.Pages {
		return fmt.Errorf("mmapslab: memory limit of %d pages, the file has room for %d", cfg.Pages, s.layout.Room)
	}
	s.classOf = make([]atomic.Uint32, s.layout.Room+1)
	s.unswept = make([]atomic.Bool, s.layout.Room+1)
	return nil
}

// pagesOffset returns the offset of a page.
func (l *Layout) pagesOffset(page uint32) int64 { return int64(l.Pages) + int64(page-1)*PageSize }

// links returns where the Links of a page with so many chunks are, and how many bytes.
func (l *Layout) links(page, perPage uint32) (off, n int64) {
	return int64(l.Links) + int64(page)*linkStride, int64(perPage) * 8
}

func (s *Store) descriptor(page uint32) *Word {
	return s.arena.Word(pageTable + int64(page)*descriptorSize)
}

// Arena returns the store's memory, for the index.
func (s *Store) Arena() *Arena { return s.arena }

// IndexRegion returns where the index keeps its three state words and its halves, each of halfSize bytes.
func (s *Store) IndexRegion() (state int64, half [2]int64, halfSize int64) {
	return wordIndex, [2]int64{int64(s.layout.Index[0]), int64(s.layout.Index[1])}, int64(s.layout.HalfSize)
}

// BackIndex makes sure that a part of the index region has memory.
func (s *Store) BackIndex(off, n int64) error { return s.back(off, n) }

// Super returns a copy of the superblock as it was last written.
func (s *Store) Super() Superblock { return s.super }

// HashSeed returns the seed of the keys' hash, which is part of the file.
func (s *Store) HashSeed() uint64 { return s.super.HashSeed }

// NextCAS returns a CAS that was never handed out before. The counter is a word of the file, so a kill loses none; one atomic step in a
// line of its own costs less than blocks for each worker would save, and keeps the ids of one key rising.
func (s *Store) NextCAS() uint64 { return s.arena.Word(wordCAS).Add(1) }

// RaiseCAS has NextCAS go on behind cas at least. Nobody else may use the store.
func (s *Store) RaiseCAS(cas uint64) {
	if w := s.arena.Word(wordCAS); w.Load() < cas {
		w.Store(cas)
	}
}

// BackPages makes sure that all assigned pages have space on the disk (R10). They have, unless it has lost parts of the file.
func (s *Store) BackPages() error {
	for page := range s.classOf {
		if class := s.classOf[page].Load(); class != 0 {
			if err := s.allocate(s.layout.pagesOffset(uint32(page)), PageSize); err != nil {
				return err
			}
			if err := s.allocate(s.layout.links(uint32(page), s.classes[class].perPage)); err != nil {
				return err
			}
		}
	}
	return nil
}

// FlushWord is the flush state: epoch in the high half; in the low half the second from which epoch+1 counts, 0 for none.
func (s *Store) FlushWord() *Word { return s.arena.Word(wordFlush) }

// ClockWord holds the cache's time in seconds, for the next start after a kill.
func (s *Store) ClockWord() *Word { return s.arena.Word(wordClock) }

// SetState writes both superblocks with another state. Running is made durable before it returns when the file is on a disk, since the first
// change may follow. The copies are written one after the other, so a crash in between leaves the old state or the new one.
func (s *Store) SetState(state State, id Identity) error {
	sb := &s.super
	sb.State = state
	sb.Sequence++
	sb.BootID, sb.ClockWall, sb.ClockBoot = id.BootID, id.ClockWall, id.ClockBoot
	sb.PID = uint32(os.Getpid())
	if s.file != nil {
		sb.MountID, sb.Device, sb.Inode = s.file.MountID, s.file.Device, s.file.Inode
	}
	buf := sb.encode()
	for _, at := range []int64{superblockB, superblockA} {
		fault.Point("mmapslab.superblock.before")
		copy(s.arena.Bytes(at, len(buf)), buf)
		fault.Point("mmapslab.superblock.after")
	}
	if state == Running && s.file != nil && s.file.OnDisk {
		return s.sync(0, checkpointArea)
	}
	return nil
}

// Anonymous tells whether there is no file: nothing outlives the store.
func (s *Store) Anonymous() bool { return s.file == nil }

// Edit changes the superblock's counters; they are written by the next SetState.
func (s *Store) Edit(change func(sb *Superblock)) { change(&s.super) }

// PageOf returns the page number that ref lies in; 0 when it lies in none.
func (s *Store) PageOf(ref Ref) uint32 {
	at := uint64(ref.Offset())
	if at < s.layout.Pages || at >= s.layout.End {
		return 0
	}
	return uint32((at-s.layout.Pages)/PageSize) + 1
}

// Class returns the slab class of the chunk at ref, 0 when ref is in no assigned page.
func (s *Store) Class(ref Ref) int { return int(s.classOf[s.PageOf(ref)].Load()) }

// ListClass returns the class in whose LRU an item stands: its chunk's, but the largest for chained items, so that whoever needs large chunks finds
// those that hold them.
func (s *Store) ListClass(ref Ref) int {
	if ref&Chained != 0 {
		return s.largest
	}
	return s.Class(ref)
}

// ChunkSize returns the size of the chunk that starts at ref in bytes, 0 when none does.
func (s *Store) ChunkSize(ref Ref) int {
	page := s.PageOf(ref)
	c := &s.classes[s.classOf[page].Load()&(ClassIDs-1)].shape
	slot, rest := c.slot(uint32(uint64(ref.Offset())-s.layout.Pages) % PageSize)
	if rest != 0 || slot >= c.perPage {
		return 0
	}
	return int(c.size)
}

// ID returns the chunk id of ref: page number and slot. ref must be a chunk's.
func (s *Store) ID(ref Ref) uint32 {
	page := s.PageOf(ref)
	slot, _ := s.classes[s.classOf[page].Load()&(ClassIDs-1)].slot(uint32(uint64(ref.Offset())-s.layout.Pages) % PageSize)
	return page<<SlotBits | slot
}

// RefOf returns the Ref of a chunk id, without the Chained bit; 0 when there is no such chunk.
func (s *Store) RefOf(id uint32) Ref {
	page, slot := ChunkAt(id)
	if page == 0 || page > s.layout.Room {
		return 0
	}
	c := &s.classes[s.classOf[page].Load()]
	if slot >= c.perPage {
		return 0
	}
	return RefAt(s.layout.pagesOffset(page) + int64(slot)*int64(c.size))
}

// Place returns the page number and slot of the chunk at ref, which must be a chunk's.
func (s *Store) Place(ref Ref) (page, slot uint32) { return ChunkAt(s.ID(ref)) }

// Locate is Place for a Ref that may be anything; ok is false when no chunk starts there.
func (s *Store) Locate(ref Ref) (page, slot uint32, ok bool) {
	page = s.PageOf(ref)
	c := &s.classes[s.classOf[page].Load()].shape
	slot, rest := c.slot(uint32(uint64(ref.Offset())-s.layout.Pages) % PageSize)
	return page, slot, rest == 0 && slot < c.perPage
}

// ChunkID is the id of the chunk at a place.
func ChunkID(page, slot uint32) uint32 { return page<<SlotBits | slot }

// ChunkAt is the inverse of ChunkID.
func ChunkAt(id uint32) (page, slot uint32) { return id >> SlotBits, id & (1<<SlotBits - 1) }

// RefAtPlace is the inverse of Place.
func (s *Store) RefAtPlace(page, slot uint32) Ref { return s.RefOf(ChunkID(page, slot)) }

// PerPage returns how many chunks a page has, 0 for one that is not assigned.
func (s *Store) PerPage(page uint32) int { return int(s.classes[s.classOf[page].Load()].perPage) }

// AppendLines appends to offsets where the cache lines of an item are, its first ones only if it is large: for Prefetch. Nothing when ref is in no assigned page.
func (s *Store) AppendLines(offsets []int64, ref Ref) []int64 {
	const line, most = 64, 256 // bytes; what is behind them the processor fetches by itself, once it sees them read in order
	from, size := ref.Offset(), int64(s.classes[s.Class(ref)&(ClassIDs-1)].size)
	if size == 0 {
		return offsets
	}
	for at := from &^ (line - 1); at < from+min(size, most); at += line {
		offsets = append(offsets, at)
	}
	return offsets
}

// Link returns the list links of a chunk. Whoever uses them holds the lock of the list that the chunk is in. An id that damage made, of a page that cannot be, gets
// the links of page 0, which are nobody's.
func (s *Store) Link(id uint32) *Link {
	if id>>SlotBits > s.layout.Room {
		id = 0
	}
	return s.arena.link(s.LinkOffset(id))
}

// LinkOffset returns where the links of a chunk are, for Prefetch.
func (s *Store) LinkOffset(id uint32) int64 { return int64(s.layout.Links) + int64(id)*8 }

// ClassFor returns the smallest class whose chunks hold size bytes, 0 when none does.
func (s *Store) ClassFor(size int) int {
	lo, hi := 1, s.largest+1
	for lo < hi {
		if mid := (lo + hi) / 2; int(s.classes[mid].size) < size {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo > s.largest {
		return 0
	}
	return lo
}

// Largest returns the class with the largest chunks.
func (s *Store) Largest() int { return s.largest }

// ChunkMax returns the size of the largest chunks.
func (s *Store) ChunkMax() int { return int(s.classes[s.largest].size) }

// Alloc takes a free chunk of a class and says how many are left beside those in magazines; ok is false when the class has none at all. The chunk belongs to the
// caller alone; its bytes are undefined.
//
// There is none when nothing is left here after all magazines were emptied, and none was filled meanwhile: whoever else empties magazines leaves what is in them here, and who
// fills his own behind gather's back took a chunk for himself, so that it is others who get on for as long as this goes round.
func (s *Store) Alloc(classID int) (ref Ref, left uint64, ok bool) {
	c := &s.classes[classID]
	for gathered, seen := false, uint64(0); ; {
		c.mu.Lock()
		id := s.takeLocked(c)
		left = c.free.Load()
		refills := c.refills
		c.mu.Unlock()
		if id == 0 {
			if gathered && refills == seen {
				return 0, 0, false
			}
			s.gather(classID)
			gathered, seen = true, refills
			continue
		}
		if ref = s.taken(c, classID, id); ref != 0 {
			return ref, left, true
		}
	}
}

// takeLocked takes a free chunk of a class, that is in no magazine; 0 when there is none.
func (s *Store) takeLocked(c *class) (id uint32) {
	if id = c.freeHead; id != 0 {
		c.freeHead = s.Link(id).Next
	}
	for id == 0 && c.drain.sieve != 0 {
		if id = s.siftLocked(c); id == 0 {
			s.inlineReclaims.Add(1)
		}
	}
	if id == 0 && c.freshPage != 0 {
		id = c.freshPage<<SlotBits | c.freshNext
		if c.freshNext++; c.freshNext == c.perPage {
			c.freshPage = 0
		}
	}
	if id != 0 {
		c.free.Add(^uint64(0))
	}
	return id
}

// taken returns the Ref of a chunk that was taken as free; 0, with the free list dropped, when it is not.
func (s *Store) taken(c *class, classID int, id uint32) Ref {
	ref := s.RefOf(id)
	if ref == 0 || s.Class(ref) != classID || Meta(s.Meta(ref).Load())&Linked != 0 {
		if invariants.Enabled {
			panic(fmt.Sprintf("mmapslab: class %d: free list holds %#x, which is no free chunk of it", classID, id))
		}
		s.cutFree(c)
		return 0
	}
	return ref
}

// cutFree drops the free list of a class: it led to what is no free chunk. In memory file systems a clean stop leaves links to the next start without a checksum,
// which would take time with the number of items. Whatever is behind a damaged one is lost until the next sweep; used, it might be memory of a live item.
func (s *Store) cutFree(c *class) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freeHead, c.drain.sieve = 0, 0
	c.free.Store(0)
	if c.freshPage != 0 {
		c.free.Store(uint64(c.perPage - c.freshNext))
	}
	s.cutLists.Add(1)
}

// CutLists returns how many free lists were found damaged, and dropped.
func (s *Store) CutLists() uint64 { return s.cutLists.Load() }

// poison overwrites what is freed in invariants builds; the kind byte comes out as none.
const poison = 0xdb

// Free gives chunks back, of any classes. Nobody may hold a pointer into them. A chained item's data chunks are not followed.
//
// What was an item is none any more. It would be found by nobody, but for a bit that flips in the index word of its key: a value that was replaced, in the chunk beside that
// of the new one, would be back with a right checksum.
func (s *Store) Free(refs ...Ref) { s.FreeTo(nil, refs...) }

// FreeTo is Free for a worker with a magazine; nil: it has none.
func (s *Store) FreeTo(m *Magazine, refs ...Ref) {
	for i := 0; i < len(refs); {
		classID := s.Class(refs[i])
		c := &s.classes[classID]
		n := i + 1
		for n < len(refs) && s.Class(refs[n]) == classID {
			n++
		}
		for _, ref := range refs[i:n] {
			if invariants.Enabled {
				s.poison(ref)
			} else {
				s.forget(ref.Offset())
			}
		}
		if m == nil || !m.put(classID, refs[i:n]) {
			c.mu.Lock()
			for _, ref := range refs[i:n] {
				s.giveLocked(c, s.ID(ref))
			}
			c.mu.Unlock()
		}
		i = n
	}
}

// forget makes an item none.
func (s *Store) forget(off int64) {
	if kind := s.arena.Bytes(off, 1); kind[0] == kindItem {
		kind[0] = 0
	}
}

// give is giveLocked for several chunks.
func (s *Store) give(c *class, ids []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		s.giveLocked(c, id)
	}
}

// giveLocked takes a chunk back that is in no list.
func (s *Store) giveLocked(c *class, id uint32) {
	if id>>SlotBits == c.drain.page {
		c.noteLocked(id)
		return
	}
	s.pushFreeLocked(c, id)
	c.free.Add(1)
}

func (s *Store) poison(ref Ref) {
	size := s.ChunkSize(ref)
	if size == 0 {
		panic(fmt.Sprintf("mmapslab: free %#x: no chunk starts there", ref.Offset()))
	}
	b := s.arena.Bytes(ref.Offset(), size)
	if b[0] == poison {
		panic(fmt.Sprintf("mmapslab: free %#x: it is free already", ref.Offset()))
	}
	for at := int64(0); at < int64(size); at += 8 {
		s.arena.Word(ref.Offset() + at).Store(poison * 0x0101010101010101)
	}
	s.Meta(ref).Store(0)
}

// AddPage assigns a free page to a class: one of the global pool, else a new one below the limit. A class without any page gets its first one
// even above the limit, as in memcached, so that every size can be stored. False when there is none, or no memory for it.
//
// Getting memory for a page takes as long as a hundred sets, so it is not done under mu: others go on to free and to take chunks. Who comes second waits for
// the first one's page rather than take another. The page mover may give the class its first page meanwhile: then it has one above the limit, as a class may.
func (s *Store) AddPage(classID int) bool {
	c := &s.classes[classID]
	c.adding.Lock()
	defer c.adding.Unlock()
	c.mu.Lock()
	free, first := c.free.Load() > 0, c.pages == 0
	c.mu.Unlock()
	if free {
		return true // somebody else was faster
	}
	return s.takeAndAssign(classID, first)
}

// takeAndAssign gives a class a free page, above the limit if it is its first; false when there is none, or no memory for it.
func (s *Store) takeAndAssign(classID int, first bool) bool {
	page := s.takePage(first)
	if page == 0 {
		return false
	}
	if s.assign(page, classID) != nil {
		s.putBack(page)
		return false
	}
	return true
}

// backPage makes sure that a page, its links and its descriptor have memory.
func (s *Store) backPage(page, perPage uint32) error {
	if err := s.back(s.layout.pagesOffset(page), PageSize); err != nil {
		return err
	}
	if err := s.back(s.layout.links(page, perPage)); err != nil {
		return err
	}
	return s.back(pageTable+int64(page)*descriptorSize, descriptorSize)
}

// WantPage maps the memory of an assigned page, which is there, at one go: a fault for each 4 KiB would take longer than reading them.
func (s *Store) WantPage(page uint32) {
	if s.arena.unmap != nil {
		want(s.pageBytes(page))
	}
}

// WantLinks maps the Links of an assigned page's chunks, likewise, which are about to be written.
func (s *Store) WantLinks(page uint32) {
	if s.arena.unmap != nil {
		s.populate(s.layout.links(page, uint32(s.PerPage(page))))
	}
}

// assignLocked gives a page that has memory, all zero where a Meta can be, to a class.
func (s *Store) assignLocked(page uint32, c *class, classID int) {
	fault.Point("mmapslab.page.backed")
	d := s.descriptor(page)
	_, _, generation, _ := unpackDescriptor(d.Load())
	d.Store(packDescriptor(pageAssigned, c.size, generation+1))
	fault.Point("mmapslab.page.assigned")
	s.classOf[page].Store(uint32(classID))
	c.pages++
	c.free.Add(uint64(c.perPage))
	for ; c.freshPage != 0 && c.freshNext < c.perPage; c.freshNext++ { // only one page can be fresh
		s.pushFreeLocked(c, c.freshPage<<SlotBits|c.freshNext)
	}
	c.freshPage, c.freshNext = page, 0
}

// putBack puts a page that was counted as assigned, and is no class's, into the global page pool.
func (s *Store) putBack(page uint32) {
	s.pageMu.Lock()
	defer s.pageMu.Unlock()
	s.pool = append(s.pool, page)
	s.assigned--
}

func (s *Store) takePage(first bool) uint32 {
	s.pageMu.Lock()
	defer s.pageMu.Unlock()
	if s.assigned >= s.limit && !first {
		return 0
	}
	var page uint32
	switch {
	case len(s.pool) > 0:
		page = s.pool[len(s.pool)-1]
		s.pool = s.pool[:len(s.pool)-1]
	case s.nextPage <= s.layout.Room:
		page = s.nextPage
		s.nextPage++
	default:
		return 0
	}
	s.assigned++
	return page
}

// ClassInfo is the state of a slab class.
type ClassInfo struct {
	ID, ChunkSize, PerPage int
	Pages, Free            uint64 // Free counts chunks
}

// ClassInfo returns the state of one class; ok is false for an id without class.
func (s *Store) ClassInfo(id int) (info ClassInfo, ok bool) {
	c := &s.classes[id]
	s.magazineMu.Lock()
	defer s.magazineMu.Unlock()
	inMagazines := 0
	for _, m := range s.magazines { // all are locked at a time, or a chunk on its way between two places would count in both or in none
		m.mu.Lock()
		defer m.mu.Unlock()
		inMagazines += len(m.ids[id])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClassInfo{id, int(c.size), int(c.perPage), c.pages, c.free.Load() + uint64(inMagazines)}, c.size != 0
}

// ClassChunks returns how many chunks of a class make a page.
func (s *Store) ClassChunks(classID int) int { return int(s.classes[classID].perPage) }

// Pages returns the limit, the number of assigned pages, and that of the global pool.
func (s *Store) Pages() (limit, assigned, pool int) {
	s.pageMu.Lock()
	defer s.pageMu.Unlock()
	return s.limit, s.assigned, len(s.pool)
}

// SetLimit changes how many pages may be assigned; false when the store has no address space for so many. Pages above a lower limit stay assigned,
// only no new one is, and the global page pool's memory is given back.
func (s *Store) SetLimit(pages int) bool {
	s.pageMu.Lock()
	defer s.pageMu.Unlock()
	if pages < 1 || pages > int(s.layout.Room) {
		return false
	}
	if pages < s.limit {
		for _, page := range s.pool {
			s.Discard(s.layout.pagesOffset(page), PageSize) // failing, it costs memory and nothing else: AddPage asks for it again
		}
	}
	s.limit = pages
	return true
}

// Room returns how many pages the store has address space for.
func (s *Store) Room() int { return int(s.layout.Room) }

// PageClass returns the class that a page (1..Room) is assigned to, 0 for none.
func (s *Store) PageClass(page uint32) int { return int(s.classOf[page].Load()) }

// freeDescriptor has the page table say that a page is nobody's.
func (s *Store) freeDescriptor(page uint32) {
	d := s.descriptor(page)
	_, _, generation, _ := unpackDescriptor(d.Load())
	d.Store(packDescriptor(pageFree, 0, generation))
}

// DropPage frees a page whose chunks nobody uses. It is for start-up, before anything else runs: the free lists must not hold its chunks.
func (s *Store) DropPage(page uint32) error {
	fault.Point("mmapslab.page.before-free")
	s.freeDescriptor(page)
	fault.Point("mmapslab.page.freed")
	s.SetSwept(page, true)
	if id := s.classOf[page].Swap(0); id != 0 {
		s.classes[id].pages--
		s.assigned--
	}
	s.pool = append(s.pool, page)
	return s.Discard(s.layout.pagesOffset(page), PageSize)
}

// SetSwept says whether the free chunks and lists of a page are in order, which they are but for the time of a sweep after a kill.
func (s *Store) SetSwept(page uint32, swept bool) { s.unswept[page].Store(!swept) }

// PageSwept tells what SetSwept said of a page.
func (s *Store) PageSwept(page uint32) bool { return !s.unswept[page].Load() }

// Swept tells what SetSwept said of the page that ref lies in.
func (s *Store) Swept(ref Ref) bool { return s.PageSwept(s.PageOf(ref)) }

// RebuildFree makes the free list of a page from scratch: every slot that used, a bit for each, says is not taken. The class's free list must not hold any of its
// chunks yet, and nobody else may be at the page.
func (s *Store) RebuildFree(page uint32, used []uint64) {
	c := &s.classes[s.classOf[page].Load()]
	var head, tail uint32
	var n uint64
	for slot := c.perPage; slot > 0; slot-- {
		if word, bit := used[(slot-1)/64], uint64(1)<<((slot-1)%64); word&bit != 0 {
			if word&(bit<<1-1) == bit<<1-1 {
				slot -= (slot - 1) % 64 // all chunks up to this one
			}
			continue
		}
		id := page<<SlotBits | (slot - 1)
		off := s.layout.pagesOffset(page) + int64(slot-1)*int64(c.size)
		s.forget(off)
		if meta := s.arena.Word(off + metaOffset); meta.Load() != 0 {
			meta.Store(0)
		}
		s.Link(id).Next = head
		if head = id; tail == 0 {
			tail = id
		}
		n++
	}
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Link(tail).Next = c.freeHead
	c.freeHead = head
	c.free.Add(n)
}

// classRecord is a class in the checkpoint.
type classRecord struct {
	Size, FreeHead, FreshPage, FreshNext uint32
	Free                                 uint64
}

// WalkFree visits the free chunks of a class, those of the fresh page apart, for checking a quiet store. It stops when visit returns false. It
// returns how many free chunks the class counts, in a page that is draining too, and what is left of the fresh page.
func (s *Store) WalkFree(classID int, visit func(id uint32) bool) (count, fresh uint64) {
	c := &s.classes[classID]
	s.gather(classID)
	for _, head := range [...]uint32{c.freeHead, c.drain.sieve} {
		for id := head; id != 0 && visit(id); {
			id = s.Link(id).Next
		}
	}
	for slot := range uint32(len(c.drain.slots) * 64) {
		if c.drain.slots[slot/64]>>(slot%64)&1 == 1 && !visit(c.drain.page<<SlotBits|slot) {
			break
		}
	}
	if c.freshPage != 0 {
		fresh = uint64(c.perPage - c.freshNext)
	}
	return c.free.Load() + uint64(c.drain.count), fresh
}

// Checkpoint is what a clean stop saves beside the data, and what the next start takes up when the state was Clean.
type Checkpoint struct {
	Classes [ClassIDs]classRecord
	Items   uint64 // live ones
	Lists   [ClassIDs * 4]ListRecord
}

// ListRecord is an LRU list in the checkpoint.
type ListRecord struct {
	Head, Tail   uint32
	Count, Bytes uint64
}

// WriteCheckpoint saves cp, completed by the store's own part. Nobody may use the store any more.
func (s *Store) WriteCheckpoint(cp *Checkpoint) error {
	if err := s.back(checkpointArea, int64(roundUp(checkpointLen+4+linkSumLen, 4096))); err != nil {
		return err
	}
	for id := range s.classes {
		s.gather(id)
		s.CancelDrain(id)
		c := &s.classes[id]
		cp.Classes[id] = classRecord{c.size, c.freeHead, c.freshPage, c.freshNext, c.free.Load()}
	}
	buf := s.arena.Bytes(checkpointArea, checkpointLen+4)
	if _, err := binary.Encode(buf, binary.LittleEndian, cp); err != nil {
		return fmt.Errorf("mmapslab: checkpoint: %w", err)
	}
	binary.LittleEndian.PutUint32(buf[checkpointLen:], crc32.Checksum(buf[:checkpointLen], castagnoli))
	if s.linksMayChange() {
		s.encodeLinkSum(s.savedLinkSum(), s.linkSum())
	}
	return nil
}

// linksMayChange tells whether links can be others at the next start than at the last stop, though the state is Clean: where a disk has them meanwhile, or its cache. Then they have
// a checksum. Memory is trusted from stop to start as it is while serving, so that on a memory file system neither takes time with the number of chunks.
func (s *Store) linksMayChange() bool { return s.file == nil || s.file.OnDisk }

// encodeLinkSum makes what WriteCheckpoint saves of the links, which belongs to the checkpoint before it: an older build writes that without a sum.
func (s *Store) encodeLinkSum(buf []byte, sum uint64) {
	binary.LittleEndian.PutUint64(buf, sum)
	checkpoint := s.arena.Bytes(checkpointArea+checkpointLen, 4)
	binary.LittleEndian.PutUint32(buf[8:], crc32.Update(crc32.Checksum(checkpoint, castagnoli), castagnoli, buf[:8]))
}

func (s *Store) savedLinkSum() []byte {
	return s.arena.Bytes(checkpointArea+checkpointLen+4, linkSumLen)
}

// compareLinkSum tells whether the links of this sum are those that the checkpoint was written with.
func (s *Store) compareLinkSum(sum uint64) error {
	var want [linkSumLen]byte
	s.encodeLinkSum(want[:], sum)
	if got := s.savedLinkSum(); !bytes.Equal(got, want[:]) {
		return fmt.Errorf("mmapslab: checkpoint: %w: checksum of links %x, want %x", ErrCorrupt, got, want)
	}
	return nil
}

// linkSum is the sum of a crc32c for each assigned page, of its number and its chunks' Links. It takes about a nanosecond a chunk, shared by all processors.
func (s *Store) linkSum() uint64 {
	var next, sum atomic.Uint64
	var wait sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), runtime.NumCPU()) {
		wait.Go(func() {
			for page := next.Add(1); page <= uint64(s.layout.Room); page = next.Add(1) {
				sum.Add(s.pageLinkSum(uint32(page)))
			}
		})
	}
	wait.Wait()
	return sum.Load()
}

// pageLinkSum is a page's share of the sum.
func (s *Store) pageLinkSum(page uint32) uint64 {
	perPage := s.PerPage(page)
	if perPage == 0 {
		return 0
	}
	off, n := s.layout.links(page, uint32(perPage))
	return uint64(crc32.Update(page, castagnoli, s.arena.Bytes(off, int(n))))
}

// VoidCheckpoint makes the checkpoint one that does not validate.
func (s *Store) VoidCheckpoint() {
	buf := s.arena.Bytes(checkpointArea+checkpointLen, 4)
	binary.LittleEndian.PutUint32(buf, ^binary.LittleEndian.Uint32(buf))
}

// ReadCheckpoint takes the store's own part up and returns the rest. It fails with ErrCorrupt when the checkpoint does not validate, and when it was
// written under another class table; then nothing is changed.
func (s *Store) ReadCheckpoint() (*Checkpoint, error) {
	cp, err := decodeCheckpoint(s.arena.Bytes(checkpointArea, checkpointLen+4))
	if err != nil {
		return nil, err
	}
	// All or nothing: a caller that gets an error rebuilds the free lists from empty ones.
	for id := range s.classes {
		if size := cp.Classes[id].Size; size != s.classes[id].size {
			return nil, fmt.Errorf("mmapslab: checkpoint: class %d has chunks of %d bytes, want %d", id, size, s.classes[id].size)
		}
	}
	if s.linksMayChange() {
		if err := s.compareLinkSum(s.linkSum()); err != nil {
			return nil, err
		}
	}
	for id := range s.classes {
		c, r := &s.classes[id], &cp.Classes[id]
		c.freeHead, c.freshPage, c.freshNext = r.FreeHead, r.FreshPage, r.FreshNext
		c.free.Store(r.Free)
	}
	return cp, nil
}

func decodeCheckpoint(buf []byte) (*Checkpoint, error) {
	if got, want := binary.LittleEndian.Uint32(buf[checkpointLen:]), crc32.Checksum(buf[:checkpointLen], castagnoli); got != want {
		return nil, fmt.Errorf("mmapslab: checkpoint: %w: checksum %08x, want %08x", ErrCorrupt, got, want)
	}
	cp := new(Checkpoint)
	if _, err := binary.Decode(buf, binary.LittleEndian, cp); err != nil {
		return nil, fmt.Errorf("mmapslab: checkpoint: %w", err)
	}
	return cp, nil
}

// MarkClean writes the superblocks for a clean stop: Clean, then on a disk, after the data was flushed, CleanDurable. A failing flush leaves Clean:
// it is trusted within this boot only.
func (s *Store) MarkClean(id Identity) error {
	if err := s.SetState(Clean, id); err != nil || s.file == nil || !s.file.OnDisk {
		return err
	}
	if err := s.sync(0, int64(s.layout.End)); err != nil {
		return err
	}
	fault.Point("mmapslab.stop.synced")
	if err := s.SetState(CleanDurable, id); err != nil {
		return err
	}
	return s.sync(0, checkpointArea)
}

// File is the store's file, nil when its memory is anonymous.
func (s *Store) File() *File { return s.file }

// Unmap unmaps the memory and keeps the file and its lock, for another try at the same file.
func (s *Store) Unmap() error { return s.arena.unmapNow() }

// Close unmaps the memory and gives the file up. Nothing that came out of the store may be used after it.
func (s *Store) Close() error {
	err := s.arena.unmapNow()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}
