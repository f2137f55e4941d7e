/*
Package index maps the hash of a key to the Ref of its item: a lock-free hash table with open addressing, in two halves of a region of the slab
file. It is the only source of truth for "is this key live": a key is live iff one LIVE (or FROZEN) word in its window refers to its item.

It does not know what an item is, who retires it, or how sections of readers are kept: it asks Items and Options. It holds no lock, in the file or
out of it.

# The word

	63                                     23 22                3 2  0
	┌────────────────────────────────────────┬───────────────────┬────┐
	│ ref: 41  (TENTATIVE: a token)          │ tag: 20           │ st │
	└────────────────────────────────────────┴───────────────────┴────┘

Eight words are a bucket, one cache line. A key has a window of four buckets, see Buckets. The tag is the low 20 bits of the key's hash h.

# States, and who moves a slot between them

	EMPTY      the zero word.
	TENTATIVE  a writer's claim; answers nobody. Its ref bits are a token of this writer and attempt.
	LIVE       the key's item is ref.
	FROZEN     answers readers as LIVE does, changed by nobody, on its way to the new table.
	MOVED      for ever, until the half is discarded: look in the new table.

	EMPTY → TENTATIVE      insert, copy: place
	TENTATIVE → LIVE       its owner alone: promote
	TENTATIVE → EMPTY      its owner (withdraw); any writer or copier with the same tag (kill); Sweep
	LIVE → LIVE'           Replace
	LIVE → EMPTY           Delete; Sweep; evict, in the new table, when the old slot of the item is MOVED
	LIVE → FROZEN          any helper, in the old table
	FROZEN → MOVED         any helper, when the copy is LIVE in the new table, or was
	EMPTY, TENTATIVE → MOVED   any helper

Words never move between slots, growth aside.

# Ordered stores: what a reader, and the sweep after a kill, would see were they swapped

Insert, place before scan (insertInto). Scanning first, two inserters would each see nothing, then both place and promote: Find returns one or
the other as slots come free, and the sweep finds two live items of one key, not knowing which was acknowledged last.

Insert, scan before promote (insertInto). The same two LIVE words, until the scan; a kill in that time leaves them.

Insert, promote before the caller's ack: swapped, a kill loses an acknowledged set. The item's bytes come before all of it (the caller): swapped, Find
returns a Ref to bytes that nobody wrote.

Replace and Delete are one store. The old item is retired after it (the caller): swapped, Find hands out a chunk that is reused.

Growth (start, moveSlot, copyItem, finish, discard) has its pairs in comments at those functions; in order: bucket count, State says growing, view,
FROZEN, copy LIVE, MOVED, State names the new table, view, grace period, discard, count 0, view.

In the image of a killed process TENTATIVE words were never acknowledged and are cleared; a FROZEN word and a LIVE one in the new table name one item, and
going on with the growth takes the FROZEN one away. After a power loss the file is not used, so no pair needs a flush.

# Never two live words of one key

In one table: let A and B promote words of a key with no time between at which the key was absent. Each placed, then scanned, then promoted, and
the store that places is sequentially consistent with the loads that scan. Say A placed first. If B placed before A's scan read B's slot, A killed
B's word, and B's promotion failed; or A found it LIVE and withdrew. If B placed after that, then B's scan, later still, found A's word: TENTATIVE, and
killed it, so that A's promotion failed; or LIVE, and withdrew. Tokens make "my word" mean mine: otherwise a killed writer could promote the word
that another put in the same slot. Same tag is enough to kill; only the same key is enough to withdraw.

Over two tables: a writer works in the new table only after it saw the whole old window MOVED. A word of the key that is LIVE in the old table then
would have been promoted by somebody who placed in a slot not yet MOVED; its scan after placing meets no FROZEN or MOVED word, or it withdraws; so when it
promotes, no word of this key can have left the window since it placed but by way of its own kill. A copier puts an item into the new table only while its
old slot is FROZEN, looked at after its scan and before its promotion. Its rivals are other copiers of the same item, with which the argument for
one table settles it, and writers, who come after MOVED: had it placed before another's copy was promoted, it was killed by that one's scan;
else the last look sees MOVED. index-grow.pml in testdata is this paragraph as a model, index-insert.pml the one above.

Find misses only at a moment when the key was absent: while a key stays present it stays in its slot, so a scan meets it there; if it went to the
new table meanwhile, the scan met MOVED there instead, and looks in the new table afterwards.

# A suspended thread keeps nobody from finishing

There is nothing to wait for. A TENTATIVE word of a sleeper is killed by those it concerns and is one slot of 32 to the others; in a window without
anything else it is killed by anybody. FROZEN words are copied by whoever needs them. Buckets claimed by a sleeping helper are moved by the second
pass. A sleeping starter's steps are done by the next starter, a sleeping finisher's by the next helper. Retries: a CAS fails because somebody else's
succeeded. Two inserters of one tag may kill each other in turn; a short random backoff parts them with probability one. What does wait is memory: a thread
asleep in a section, between the end of a growth and its AfterGrace, or at a piece of the old half, keeps that from being discarded and so the next growth
from starting, and full windows evict meanwhile. It costs items, not progress.

# No pause

What an insert, a replace or a delete does for a growth is bounded, whatever the size of the table: it moves helpPerInsert buckets (helpFit for Fit) and its own
window, and gets or gives back one piece of memory, once in prepareEvery inserts. The rest is Help's, which the maintenance goroutine calls in sections of their own.
These are 48 items at most (160 for Fit), of 1 us each with ten million of them, and a piece of 64 pages, 0.1 ms: 0.15 ms (0.26 ms). The end of a growth may add a
second piece, and each helper that sleeps the bucket it has claimed.

# Where a key may be, and twelve bytes an item

A key's window is two pairs of neighbouring buckets, picked by two functions of its hash; a new item goes into the home bucket up to homeFill words, else into
the emptiest bucket of the four. With two choices of 16 slots that may not be rearranged, the first window of a table fills up at a load of 0.83 with
65 thousand slots and 0.79 with 17 million (simulated; the reason is that the fuller of two random choices is hardly ever taken: Azar, Broder, Karlin and
Upfal, "Balanced allocations"). Four neighbours in a row, which are a cache line and a half cheaper for a miss, fill up at 0.57 and 0.40: then a table either
costs 18 bytes an item, or evicts items while memory is free. About 85 of 100 items stand in the pair of their home bucket. The pairs of a key are never
the same, so that no slot comes twice in a window; were it so, an inserter would meet its own word in the scan and kill it.

At rest a table costs 8 bytes over its load. It grows by half, so an item costs between 10.7 bytes and, right after a growth, 16; growing by less would copy
each item more often (nine times for steps of an eighth, three for steps of a half). Where the number of items does not rise any more, Fit takes a
table that is too large into one with a load of fitLoad, by the same steps as growth: 11.9 bytes. Not counted is the old half while items move or the old
half drains. Full windows evict only where the table is at its region's maximum, or the old half of the last growth still waits for readers.
*/
package index
