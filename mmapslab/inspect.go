package mmapslab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// Inspecting a file is reading it without being its server: no lock is taken, which a server that starts meanwhile would take for another one's, no byte is
// changed, and nothing is promised about what others do to the file at the time.

// SuperCopy is one copy of the superblock as it was found.
type SuperCopy struct {
	Offset int64
	Super  *Superblock // nil, and Reason tells why
	Reason string
}

// OpenReadOnly opens an existing file for Inspect.
func OpenReadOnly(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mmapslab: open: %w", err)
	}
	if _, err = isAt(f, path); err == nil {
		file := &File{f: f, path: path}
		if err = file.look(); err == nil {
			return file, nil
		}
	}
	f.Close()
	return nil, err
}

// Server returns the pid of the process that holds the file's lock, "" when none does, as far as the kernel lets one know.
func (file *File) Server() string { return lockHolder(file.f) }

// Refresh reads the superblocks again.
func (file *File) Refresh() error {
	file.Super, file.Reason, file.Copies = nil, "", nil
	return file.look()
}

// TableSource says where an inspected store's slab classes come from: a file has their sizes in its pages, and their ids in its checkpoint alone.
type TableSource int

const (
	// TableSaved is the table of the last clean stop.
	TableSaved TableSource = iota
	// TableDefault is memcached's default table, which has all sizes that the pages have.
	TableDefault
	// TableFound are the sizes that the pages have, numbered from 1: the server's ids are others.
	TableFound
)

// Inspection is what Inspect found beside the store itself.
type Inspection struct {
	Damaged []uint32    // pages whose descriptor does not validate
	Stray   []int64     // offsets in the page table of bytes that nobody writes and that are not zero; the first of each page
	Cut     []uint32    // pages that lie, at least in part, behind the end of the file
	Table   TableSource // of the class ids
	// Checkpoint is that of the last clean stop, which is older than the file's contents unless its state is clean. Nil when there is none, and
	// CheckpointErr tells what is wrong with it when there should be one.
	Checkpoint    *Checkpoint
	CheckpointErr error
}

// Inspect maps a file to look at: what changes the store would fault. Free lists are there when the state is clean. Reading beyond what the file has, when
// another process cuts it off meanwhile, is a fault too: who reads sets debug.SetPanicOnFault.
func Inspect(file *File) (*Store, *Inspection, error) {
	sb := file.Super
	switch {
	case sb == nil:
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: %w: %s", file.path, ErrCorrupt, file.Reason)
	case sb.Version != Version:
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: format version %d, want %d", file.path, sb.Version, Version)
	case sb.Incompat != 0:
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: incompatible features %#x, want none", file.path, sb.Incompat)
	case sb.Arch != Arch():
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: architecture %#x, want %#x", file.path, sb.Arch, Arch())
	case !sb.Layout.Valid():
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: %w: layout %+v is impossible", file.path, ErrCorrupt, sb.Layout)
	}
	s := &Store{file: file, super: *sb, layout: sb.Layout, nextPage: 1, limit: int(sb.PageLimit), readOnly: true}
	size := min(file.Size, int64(s.layout.End)) &^ 7
	if table := int64(roundUp(pageTable+uint64(s.layout.Room+1)*descriptorSize, hugeSize)); size < table {
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: %w: %d bytes, want %d for the page table alone", file.path, ErrCorrupt, size, table)
	}
	if err := s.prepare(Config{}); err != nil {
		return nil, nil, err
	}
	found := &Inspection{}
	if err := s.inspectCheckpoint(found); err != nil {
		return nil, nil, err
	}
	words, stray, err := s.descriptors()
	if err != nil {
		return nil, nil, err
	}
	found.Stray = stray
	s.inspectClasses(found, words)
	bySize := s.bySize()
	for page, w := range words {
		s.inspectPage(uint32(page), w, bySize, found)
	}
	m, err := mmap.MapRegion(file.f, int(size), mmap.RDONLY, 0, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("mmapslab: map %s: %w", file.path, err)
	}
	s.arena = &Arena{mem: m, unmap: func() error { return m.Unmap() }}
	return s, found, nil
}

// descriptors reads the page table, by page. It is read rather than mapped, since a look at a hole that is mapped takes memory on a tmpfs.
func (s *Store) descriptors() (words []uint64, stray []int64, err error) {
	buf := make([]byte, (int64(s.layout.Room)+1)*descriptorSize)
	if _, err := s.file.f.ReadAt(buf, pageTable); err != nil {
		return nil, nil, fmt.Errorf("mmapslab: inspect %s: page table: %w", s.file.path, err)
	}
	words = make([]uint64, s.layout.Room+1)
	for page := range words {
		d := buf[page*descriptorSize:][:descriptorSize]
		from := 8
		if page == 0 { // there is no such page
			from = 0
		} else {
			words[page] = binary.NativeEndian.Uint64(d)
		}
		if at := slices.IndexFunc(d[from:], func(b byte) bool { return b != 0 }); at >= 0 {
			stray = append(stray, pageTable+int64(page*descriptorSize+from+at))
		}
	}
	return words, stray, nil
}

func (s *Store) inspectCheckpoint(found *Inspection) error {
	buf := make([]byte, checkpointLen+4)
	if _, err := s.file.f.ReadAt(buf, checkpointArea); err != nil && err != io.EOF {
		return fmt.Errorf("mmapslab: inspect %s: checkpoint: %w", s.file.path, err)
	}
	if bytes.Count(buf, []byte{0}) == len(buf) {
		if s.stopped() {
			found.CheckpointErr = fmt.Errorf("mmapslab: checkpoint: %w: there is none", ErrCorrupt)
		}
		return nil
	}
	found.Checkpoint, found.CheckpointErr = decodeCheckpoint(buf)
	return nil
}

// InspectLinkSum compares the links of a file that was stopped in order with their checksum, where a start would: not in a memory
// file system, where a stop writes none. That there is none on a disk is no error: the file may have been copied there. Faults are the caller's, so no other goroutine does a part of it.
func (s *Store) InspectLinkSum() error {
	if saved := s.savedLinkSum(); !s.linksMayChange() || bytes.Count(saved, []byte{0}) == len(saved) {
		return nil
	}
	var sum uint64
	for page := uint32(1); page <= s.layout.Room; page++ {
		sum += s.pageLinkSum(page)
	}
	return s.compareLinkSum(sum)
}

func (s *Store) stopped() bool { return s.super.State == Clean || s.super.State == CleanDurable }

// inspectClasses makes the class table.
func (s *Store) inspectClasses(found *Inspection, words []uint64) {
	sizes := map[uint32]bool{}
	for _, w := range words {
		if state, size, _, ok := unpackDescriptor(w); ok && state != pageFree {
			sizes[size] = true
		}
	}
	covered := func() bool {
		for size := range sizes {
			if s.bySize()[size] == 0 {
				return false
			}
		}
		return true
	}
	set := func(id int, size uint32) {
		if s.classes[id].shape = (shape{}); size != 0 {
			s.classes[id].shape = shapeOf(size)
		}
	}
	if cp := found.Checkpoint; cp != nil {
		for id, r := range cp.Classes {
			set(id, r.Size)
			if r.Size != 0 && id <= maxClasses {
				s.largest = id
			}
			if s.stopped() {
				c := &s.classes[id]
				c.freeHead, c.freshPage, c.freshNext = r.FreeHead, r.FreshPage, r.FreshNext
				c.free.Store(r.Free)
			}
		}
		if covered() {
			found.Table = TableSaved
			return
		}
	}
	for id := range s.classes {
		set(id, 0)
	}
	table := ChunkSizes(1.25, 48, PageSize/2)
	for i, size := range table {
		set(i+1, uint32(size))
	}
	s.largest = len(table)
	if found.Table = TableDefault; covered() {
		return
	}
	found.Table = TableFound
	for id := range s.classes {
		set(id, 0)
	}
	s.largest = 0
	for _, size := range slices.Sorted(maps.Keys(sizes)) {
		if s.largest < ClassIDs-1 {
			s.largest++
			set(s.largest, size)
		}
	}
}

// inspectPage takes a page's descriptor up.
func (s *Store) inspectPage(page uint32, w uint64, bySize map[uint32]uint32, found *Inspection) {
	s.classOf[page].Store(0)
	state, size, _, ok := unpackDescriptor(w)
	switch {
	case w == 0 || ok && state == pageFree:
	case !ok || bySize[size] == 0:
		found.Damaged = append(found.Damaged, page)
	case s.layout.pagesOffset(page)+PageSize > s.file.Size:
		found.Cut = append(found.Cut, page)
	default:
		s.classOf[page].Store(bySize[size])
		s.classes[bySize[size]].pages++
		s.assigned++
	}
}

func (s *Store) bySize() map[uint32]uint32 {
	bySize := map[uint32]uint32{}
	for id := range s.classes {
		if size := s.classes[id].size; size != 0 {
			bySize[size] = uint32(id)
		}
	}
	return bySize
}

// Reread takes up what became of the pages since Inspect: on a live file they change. Where a first page has a size that no class has, the class table was a guess: the size becomes a class
// behind those that servers have, so that the others keep their ids.
func (s *Store) Reread() error {
	words, _, err := s.descriptors()
	if err != nil {
		return err
	}
	s.assigned = 0
	for id := range s.classes {
		s.classes[id].pages = 0
	}
	bySize := s.bySize()
	for page, w := range words {
		if state, size, _, ok := unpackDescriptor(w); ok && state != pageFree && bySize[size] == 0 {
			bySize[size] = s.formerClass(size)
		}
		s.inspectPage(uint32(page), w, bySize, &Inspection{})
	}
	return nil
}

// PageInfo is what the file says of a page.
type PageInfo struct {
	Page       uint32
	Offset     int64 // of the page
	At         int64 // of its descriptor
	Descriptor uint64
	State      string // free, assigned, draining, or damaged
	ChunkSize  int
	Generation uint32 // how often it was assigned, modulo 2^15
	ClassID    int
}

// PageInfo returns what the file says of a page, 1 to Room.
func (s *Store) PageInfo(page uint32) (PageInfo, error) {
	if page < 1 || page > s.layout.Room {
		return PageInfo{}, fmt.Errorf("mmapslab: page %d, want 1 to %d", page, s.layout.Room)
	}
	p := PageInfo{Page: page, Offset: s.layout.pagesOffset(page), At: pageTable + int64(page)*descriptorSize, ClassID: s.PageClass(page)}
	var b [8]byte
	if _, err := s.file.f.ReadAt(b[:], p.At); err != nil {
		return p, fmt.Errorf("mmapslab: inspect %s: page table: %w", s.file.path, err)
	}
	p.Descriptor = binary.NativeEndian.Uint64(b[:])
	state, size, generation, ok := unpackDescriptor(p.Descriptor)
	p.ChunkSize, p.Generation = int(size), generation
	p.State = "damaged"
	if ok {
		p.State = [...]string{"free", "assigned", "draining"}[state]
	}
	return p, nil
}

// LastPage returns the highest page that is assigned, 0 when none is.
func (s *Store) LastPage() uint32 {
	for page := s.layout.Room; page > 0; page-- {
		if s.classOf[page].Load() != 0 {
			return page
		}
	}
	return 0
}

// Want reads a page that is going to be looked at ahead, with one system call instead of a fault for each part of it.
func (s *Store) Want(page uint32) {
	if s.readOnly {
		want(s.pageBytes(page))
	}
}

// Forget takes a page that was looked at out of the process's memory. It stays in the system's.
func (s *Store) Forget(page uint32) {
	if s.readOnly {
		unix.Madvise(s.pageBytes(page), unix.MADV_DONTNEED)
	}
}

// ForgetAll is Forget for the whole file.
func (s *Store) ForgetAll() {
	if s.readOnly {
		unix.Madvise(s.arena.mem, unix.MADV_DONTNEED)
	}
}

func (s *Store) pageBytes(page uint32) []byte {
	return s.arena.Bytes(s.layout.pagesOffset(page), PageSize)
}

// Snapshot copies an item's header and key, and its value unless it is chained, into buf, which is grown as needed, and returns a view of the copy: on a
// live file the item itself may become another one at any time. Verify tells whether the copy is whole.
func (s *Store) Snapshot(it *Item, buf []byte) (Item, []byte) {
	buf = append(buf[:0], it.head...)
	copied := *it
	copied.head = buf[:len(buf):len(buf)]
	return copied, buf
}

// AppendValue appends the whole value of an item, chained or not, and tells whether it was all there and is what was stored.
func (s *Store) AppendValue(it *Item, dst []byte) ([]byte, bool) {
	if it.ref&Chained == 0 {
		return append(dst, it.Value()...), s.Verify(it)
	}
	from := len(dst)
	whole := s.Chain(it, func(_ Ref, data []byte) { dst = append(dst, data...) })
	sum := crc32.Update(checksumStart(it.ref), castagnoli, it.head[:28])
	sum = crc32.Update(sum, castagnoli, it.head[it.keyStart:])
	sum = crc32.Update(sum, castagnoli, dst[from:])
	return dst, whole && sum == binary.NativeEndian.Uint32(it.head[28:])
}

// Span is a part of the file.
type Span struct {
	Name           string
	Offset, Length int64
}

// Spans returns the parts of the file in their order, as doc.go draws them.
func (l *Layout) Spans() []Span {
	half, room := int64(l.HalfSize), int64(l.Room)
	return []Span{
		{"superblock A", superblockA, superblockLen + 4},
		{"superblock B", superblockB, superblockLen + 4},
		{SpanCAS, wordCAS, 8},
		{SpanFlush, wordFlush, 8},
		{SpanIndexWords, wordIndex, 24},
		{SpanClock, wordClock, 8},
		{SpanCheckpoint, checkpointArea, checkpointLen + 4},
		{SpanLinkSum, checkpointArea + checkpointLen + 4, linkSumLen},
		{SpanTable, pageTable, (room + 1) * descriptorSize},
		{"index, half 0", int64(l.Index[0]), half},
		{"index, half 1", int64(l.Index[1]), half},
		{"links", int64(l.Links), (room + 1) * linkStride},
		{"slab pages", int64(l.Pages), room * PageSize},
	}
}

// Names of spans.
const (
	SpanCAS        = "last CAS"
	SpanFlush      = "flush word"
	SpanIndexWords = "index words"
	SpanClock      = "clock"
	SpanCheckpoint = "checkpoint"
	SpanLinkSum    = "sum of the links" // on a disk; elsewhere its bytes mean nothing
	SpanTable      = "page table"
)

// Span returns the part of a name.
func (l *Layout) Span(name string) Span {
	spans := l.Spans()
	return spans[slices.IndexFunc(spans, func(s Span) bool { return s.Name == name })]
}
