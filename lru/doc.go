// Package lru keeps the order in which items of a slab class are evicted: memcached's segmented LRU (items.c, and Dormando's "Replacing the cache
// replacement algorithm in memcached"). It knows lists, segments and their limits. It refuses to know what a key is and never frees memory:
// it says who goes next, and the root package removes that item from the index first.
//
// Each class has four lists. New items enter HOT, or TEMP if they expire soon. An item fetched twice since it entered is active. At the end of HOT or
// WARM an active item moves to the head of WARM, and any other to COLD once the list is over its share of the class's bytes or the item is
// idle for too long. An active item in COLD moves to WARM as soon as the maintainer hears of it. Eviction takes the end of COLD.
//
// Invariants:
//
//   - An item is in a list iff its Meta has Linked; which list, tell its class (mmapslab.Store.ListClass) and the segment in Meta. Linked and segment
//     change under the class's lock only.
//   - An item is linked before it is published in the index, and unlinked, after its index word was taken away, by the one who took it; its chunk is
//     reused only after that. So what is in a list has a whole header, and may be read under the lock.
//   - Links are chunk ids in the file's link region. They are taken over by the next start after a clean stop, and rebuilt by the sweep
//     after a kill, since a list is more than one word.
//   - A crawl's place in a list is an item that is in that list, or none: who leaves passes it on.
//
// A hit takes no lock: it sets bits in the item's Meta and, in COLD, puts a note into the worker's Ring.
package lru
