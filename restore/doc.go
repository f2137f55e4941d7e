// Package restore decides at start-up what an existing slab file is worth, and brings it back: Judge says warm or cold and why, Sweep rebuilds after a kill what
// only a clean stop saves, and Check proves that index, items, pages and lists agree. It refuses to know about serving.
//
// The index alone tells what is live (R1). After a kill each thread has stopped between two of its stores, so every live word names a whole item: it was
// written before the word. What a kill leaves broken is everything that takes more than one word: the LRU's links, the free lists and the counters. Sweep makes
// these anew out of the index; it never looks for items that the index does not name, since that is how deleted values come back.
//
// After a power loss any set of the file's pages may be old, the index's among them, and every checksum may be right all the same. So the file is trusted
// only within the boot that wrote it, or after a stop that saw the disk confirm all of it.
package restore
