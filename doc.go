// Package hearth is a cache with memcached's semantics whose memory can be a file: after a clean stop, a crash or a kill -9 the next Open finds
// what was stored, and nothing that was deleted, overwritten, expired or flushed. It is the library under the server hearthd, and can be
// embedded: see Open, Cache and Session.
//
// It is the only place that orders changes to index, items and LRU. It refuses to know sockets and wire text; how an item is laid out is
// mmapslab's business, how a key is found index's, who is evicted next lru's, and what an existing file is worth restore's.
//
// It is not a database. What is stored may be evicted at any time; nothing is synced to a disk before it is acknowledged, so a power loss
// means an empty cache; there are no transactions over several keys, and keys cannot be listed in order.
//
// # How to use it
//
// Cache has Get, Set and Delete for programs that need no more. Do gives a function a Session, which has all of memcached's operations and hands out values
// without copying them. A program with workers of its own makes a Session for each with NewSession, opens a section around each
// iteration of the worker's loop, and lets each draft, item and pin go by the rules that Session tells.
//
// # The order of stores
//
// An item is live while a word of the index names it, and only then. Two others may look at any moment: a reader, and the next start after a
// kill, which finds each thread stopped between two of its stores. So each change is one store, with this order around it:
//
//  1. The item is written whole: header, key, value, checksum (Draft, mmapslab.Store.Seal). Published before, a reader would find bytes that
//     nobody stored, and the next start a live word that names garbage.
//  2. It is linked into the LRU (Session.store). Published before, somebody else could delete the item, find it in no list, and free it; the link
//     made after that would put a free chunk into a list. The next start does not mind: it makes the lists anew from the index.
//  3. Its word is stored (index.Insert, Replace): from here on readers find the new value, and so does the next start.
//  4. The operation is acknowledged: the caller returns to the client. Acknowledged before 3, a kill in between would lose it.
//  5. The item that it replaced is unlinked from its list, with others at the end of the section (Session.leave). Before 3, an eviction could not find an item that
//     is still live; and whoever fails at 3 would have to link it again.
//  6. It is retired (reclaimer): its chunks come free once every session has left the section it was in. Before 3, or at once, a
//     reader would see its bytes overwritten, and the next start might find a live word whose chunk holds another item half written.
//
// Delete and eviction are 3 with the empty word, then 5 and 6. Several may try to take the same word away, and one wins; only that one does 5 and 6,
// so an item is unlinked and retired once. What a reader is given stays as it is until its section ends, pins apart.
//
// The page mover puts a copy of an item in another chunk in its place, by the same steps: see mover.
//
// Items do not change, so append, incr and the like make a new one out of the old and do the same; the word decides between two of
// them, and the loser starts over. The exptime does change, in the item's Meta: Session.touch tells how it and the copies go together. flush_all is
// one store to one word of the file; an item carries the flush epoch under which its key was judged, a copy that of its original.
//
// # Sections
//
// A session announces when it enters a section and when it leaves; retired memory waits for all that were in one. See reclaimer for the argument.
// A session that stays inside keeps all others from reusing memory: they answer out of memory after a quarter of a second. So sections are short and
// nobody blocks in them. An operation that finds no memory renews its own section, since what it waits for may be what it retired itself; that is
// why items handed out before stay valid only until the next call.
//
// # Locks
//
// None is taken to get an item. An arrow says what may be taken while the left one is held; nothing else is nested.
//
//	keeper.pause → crawler.mu          a round starts a crawl
//	keeper.pause → crawler.step        Check keeps crawls out, too
//	crawler.mu → Cache.mu              a crawl and its session begin together
//	crawler.step → what is below       a crawl removes items as any session does
//	keeper.pause → Cache.mu            a round of the keeper lists the sessions
//	keeper.pause → everything below    a round does the work of all parts; Check keeps rounds out by it
//	Cache.mu → reclaimer.slotMu        a session and its slot come together
//	reclaimer.slotMu → a limbo's mu    a slot goes when nothing waits in its limbo
//	reclaimer.slotMu → Store.magazineMu  and its magazine with it
//	a limbo's mu → reclaimer.pinMu     of what is freed, pinned items stay
//	a limbo's mu → a magazine's mu     retired chunks go to the magazine of who collects them, in the order they were retired
//	a limbo's mu → a store class's mu  or to the free lists
//	a limbo's mu → an LRU class's lock marks of an item that was moved go to its copy when the last reader of the old one has left
//	Store.magazineMu → a magazine's mu → a store class's mu  free chunks are counted, and taken back from magazines
//	mover.mu → a class's locks         who asks for a page, and the automover, look at the classes; one lock of theirs at a time
//	a store class's adding → its mu, and Store.pageMu  a class without chunks takes a page; memory for it is had under none but adding
//	a Sweeper's lock of a page → an LRU class's lock  a page's items are linked before anybody may take it for swept
//	a Sweeper's lock of a page → a store class's mu   and its free chunks are listed
//	a Sweeper's lock of a page → Sweeper.mu           what is left for the end is noted
//	keeper.pause → Observe's function  takes its own locks last: it must not call back
//
// Background work that meets a fault in the cache's memory ends, and lets go of what it holds with the rest half done: see Fault.
//
// An LRU class's lock stands alone: under it items are moved, never removed. Removing one takes its index word first, and that may move
// buckets, evict and retire. So the LRU says who goes, lets go of its lock, and the root package removes that item by the index like any other.
package hearth
