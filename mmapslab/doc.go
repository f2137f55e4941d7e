// Package mmapslab is the slab file: the memory of a cache laid out in one file that is mapped, so that whatever a process stored is
// still there when it is gone. It knows superblock, page table, slab classes, pages, chunks and the layout of items. It refuses to know
// what keys mean, which items are live (the index tells), in which order they are evicted, and who may still be reading a chunk.
//
// # The file
//
//	      0  superblock A           208 bytes and their crc32c, in a page of its own
//	   4096  superblock B           the same
//	   8192  live words             four cache lines
//	  12288  checkpoint             written by a clean stop
//	1048576  page table             64 bytes a page
//	Index[0] index, half 0          one of them is the table, the other is empty or being grown into
//	Index[1] index, half 1
//	Links    link region            131072 bytes a page: 8 for each of the most chunks that it can have
//	Pages    slab pages             1 MiB each; pages are numbered from 1
//	End      last words             text, if the last process died by a fault of its own
//
// The superblock says where the regions are, but they follow from its Room and MinChunk alone (see layoutFor): a start refuses a layout that
// it would not have made. Regions begin at 2 MiB boundaries, so that huge pages fit. The file is as long as the layout and sparse: what was
// never used reads as zero and takes no memory, and so zero means "nothing there" everywhere: an EMPTY index word, a free page, the nil Ref,
// no chunk. The room is eight times the memory limit, so that a larger limit needs no new layout.
//
// The superblock and the checkpoint are little endian; words that change while serving are in the machine's byte order, which Arch
// names. Times are seconds since 1970. Ref, the name of a chunk in all persistent places, is its offset in units of 8 bytes: never an address,
// since the file is mapped elsewhere each time. In the link region 4 bytes do: a chunk id is page:18 | slot:14.
//
// # Superblock
//
//	  0 magic 8                "Hearth\r\n"
//	  8 version 4              see Version
//	 12 arch 4                 see Arch
//	 16 compat 8 | incompat 8  feature bits, none yet
//	 32 sequence 8             one more at each write
//	 40 state 4                creating, running, clean, clean and durable
//	 44 unclean starts 4 | own faults 4 | page limit 4   both counts are since the last clean stop
//	 56 generation 8           one more at each start
//	 64 hash seed 8            of xxhash64, by which the index is laid out
//	 72 page size 4 | room 4 | min chunk 4 | 0
//	 88 index 2×8 | half size 8 | links 8 | pages 8 | end 8
//	136 boot id 16
//	152 mount id 8 | device 8 | inode 8
//	176 clock wall 8 | clock boot 8
//	192 stopped 8
//	200 pid 4 | 0
//	208 crc32c 4               of all before
//
// Both copies are written at each change of state, B before A, so a kill in between leaves one that is whole: the one with the higher sequence counts.
// The version is looked at before the checksum, because a later version may put the checksum elsewhere; but a copy that is whole
// counts more than one of another version, which may be a flipped bit. Writing the state is the first thing that a start does to the
// file, and on a disk it waits until that is durable: a file that was ever changed never looks clean.
//
// What a process says as it dies by a panic or a fault is appended to the file, behind the layout's end (File.OpenNotes). The next start takes it away and counts it in own faults, before
// it does anything else and without changing the state.
//
// # Live words
//
//	8192  CAS handed out last
//	8256  flush epoch:32 | deadline:32
//	8320  index: state, buckets of half 0, buckets of half 1
//	8384  the cache's time
//
// They are not in the superblock because they change at every request or second, and a checksum would tear; each is one atomic
// word. Each has a cache line, since every store touches the first and every lookup of a key the second. flush_all is one store to
// one word (R7): an item whose epoch is before the word's is flushed, and once deadline is past, so is an item of the word's own.
//
// # Page table
//
// A page is free, assigned to chunks of a size, or draining. Its descriptor is one word, so that a kill finds one state or the other (R8):
//
//	63      62..48          47..24        23..16   15..0
//	 0   generation   chunk size / 8      state    check
//
// The check is the low half of the crc32c of the word without it. A page whose descriptor does not validate is left out, and emptied by the sweep. The
// descriptor names the chunk size rather than the class: another class table shapes new pages only. A line for each page, although a
// word would do, keeps pages that are assigned at once by several threads apart, and leaves room.
//
// A page is backed by memory before its descriptor says so (R10). Swapped, a full disk would be found by the first store into
// the page, as a SIGBUS; in a crash image, a page without memory would be taken for one with chunks.
//
// # Chunks
//
// An item starts a chunk:
//
//	 0  kind 'I' 1 | key length 1 | item flags 2 | flush epoch 4
//	 8  CAS 8
//	16  value length 4 | client flags 4
//	24  high half of the key's hash 4 | crc32c 4
//	32  Meta 8
//	40  key, then value
//
// An item that is larger than the largest chunk is chained: flag 15 is set, the first data chunk's Ref is at 40, and the key begins at 48.
// The value lies in data chunks alone:
//
//	 0  kind 'D' 1 | 0 | bytes used 4
//	 8  Ref of the next data chunk, 0 in the last
//	16  zeros
//	32  Ref of the item, shifted left by 8
//	40  bytes of the value
//
// Meta is the one word that changes after an item is published (R6): see Meta for its bits. Everything else is written before the index
// word that names the item, which is what makes it live, and never again until the chunk is free and nobody can be reading it (R1, R4, R5). So a
// kill finds whole items behind all live words, and garbage only where no word points. Nothing in a chunk says whether it is live: what would,
// would have to change together with the index word, and a kill between the two would bring deleted values back. The other way round, a free chunk is no item
// (see Store.Free), though a kill may leave one that looks like it until the sweep comes by.
//
// The word at 32 has its meaning in free and data chunks too: its Linked bit is clear. That is why data chunks begin their bytes at 40. The LRU
// keeps notes about hits, which may name a chunk that has become something else since, and tells by this bit. In a data chunk the rest of the word says
// whose it is, for who has to move it. That is a hint, like a note: it may be old, and only the item's own chain tells whether it is true.
//
// The crc32c is of bytes 0 to 27, the key, and all bytes of the value; it starts from the item's own Ref, so that a Ref that a
// flipped bit sent elsewhere does not validate. The Refs of data chunks are not in it, since one that leads elsewhere brings other bytes: so a data
// chunk is moved by one store to the Ref that leads to it. It is for damage: a kill leaves no item that it would find. The Chained
// bit stands in the item and in its Ref: the sweep needs it without reading every item, those who come by a chunk id without the Ref.
//
// Meta and the live words have no checksum, since they change in place and have no room for one: a touch would be two stores, or a word that says less. Damage there brings no byte
// that nobody stored and no value that was replaced or deleted, which the index words tell. A bit that flips in an exptime lets the item expire early or late; in the flush word it
// flushes what was not, or takes a flush back; in the cache's time or its last CAS it moves these.
//
// # Free chunks, lists and the checkpoint
//
// A chunk's Link, prev:32 | next:32, is in the link region rather than in the chunk, so that walking a list reads memory that holds nothing
// else. Free chunks are lists through next; a chunk is in one list at most. A list takes more than one word to change, so a kill may leave
// it broken: links are trusted only together with the checkpoint of a clean stop, and made anew out of the index otherwise. On a disk, whose cache may have been
// read anew since, they have a checksum of their own: the sum of a crc32c for each assigned page, started from its number, of the Links of its chunks. In a memory file
// system they are trusted as they are while serving, so that neither stop nor start takes time with the number of chunks. A link that changed all the same cuts a
// free list short, since Alloc looks whether what it found is a free chunk, or makes an LRU list that Check finds broken.
//
//	    0  by class id, 128 of them: chunk size 4 | first free chunk 4 | fresh page 4 | fresh slot 4 | free chunks 8
//	 3072  live items 8
//	 3080  by class id and segment, 128×4: head 4 | tail 4 | items 8 | bytes 8
//	15368  crc32c 4
//	15372  sum of the links 8 | crc32c of these two words 4   on a disk; builds before it leave zeros, or one that does not fit
//
// A page is carved up as it is needed: slots of the fresh page from the fresh slot on were never used, and are in no list.
//
// # Rules
//
// R1 to R10 are those of the design: what is live is told by one index word (R1); nothing in the file is a lock or an address (R3); words
// before the index word, then the acknowledgment, then the old chunk's end (R4); reuse only after every reader has moved on (R5, which the
// root package sees to); items do not change (R6); flush_all and a page's state are one word each (R7, R8); every word that
// is read from the file is bounds-checked once before it is used (R9): Item, Chain, RefOf and ChunkSize take any number and answer
// "nothing there"; memory is allocated before it is touched (R10).
//
// Store's methods take the class's lock, then that of the pages, and nothing under these.
//
// # Versions
//
//	1  superblock, page table, index of 41-bit Refs, links, items with 40-byte headers
//	2  data chunks name their item, and its checksum leaves the Ref of the first one out
//	   a checksum of the links behind the checkpoint, which builds before it pass over, and whose lack means a sweep
package mmapslab
