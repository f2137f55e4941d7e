package hearth

import (
	"log/slog"
	"os"
	"time"

	"hearth/lru"
)

// Options shape a cache. The zero value of each field means its default, which is memcached's.
type Options struct {
	// Path is the slab file that keeps the cache over restarts (-e). Empty: anonymous memory, nothing stays.
	Path string
	// File is the open file at Path, locked, of a cache that hands over: see Cache.File. It stays the caller's. Default: Open opens and locks the file.
	File *os.File
	// MemoryLimit is the memory for items in bytes (-m), rounded down to whole pages of 1 MiB; default 64 MiB, at most 256 GiB.
	MemoryLimit int64
	// GrowthFactor is the ratio of neighbouring chunk sizes (-f), above 1; default 1.25.
	GrowthFactor float64
	// MinSpace is the room for key, value and flags in the smallest chunk in bytes (-n), at least 1; default 48.
	MinSpace int
	// MaxItemSize bounds an item in bytes (-I), 1 KiB to 1 GiB and at most half of MemoryLimit; default 1 MiB.
	MaxItemSize int
	// ChunkMax is the largest chunk in bytes (-o slab_chunk_max); larger items are chained. It must divide the page size and
	// MaxItemSize. Default 512 KiB, or MaxItemSize when that is smaller.
	ChunkMax int
	// SlabSizes replaces the chunk sizes that MinSpace and GrowthFactor give (-o slab_sizes), ascending, in bytes; default none.
	SlabSizes []int
	// NoEvict answers "out of memory" instead of evicting (-M).
	NoEvict bool
	// NoCAS reports every CAS as 0 and refuses cas (-C).
	NoCAS bool
	// LRU shapes the order of eviction; zero fields mean memcached's defaults. SetLRU changes it later.
	LRU LRUSettings
	// NoPageMoves keeps pages in the slab classes that they were first given to, those of former class tables and a lower memory limit apart
	// (-o no_slab_reassign). SetAutomove says when they move otherwise.
	NoPageMoves bool
	// TrackSizes counts items by size for ItemSizes (-o track_sizes). It makes a start after a clean stop take time with the number of items.
	TrackSizes bool
	// HugePages asks the system for huge pages (-L). Where there are none, as in a file on a disk or on a tmpfs without huge=advise, a line tells, and
	// everything works without.
	HugePages bool
	// MaxDown starts cold what nobody has served for longer, in whole seconds: what clients wrote elsewhere meanwhile is missing here (-o warm_max_down). 0: no limit.
	MaxDown time.Duration
	// WarmAfterPowerLoss takes over what a power loss left of a file on a disk, instead of starting cold: whole items only, but old ones among them, deleted and
	// overwritten ones too (-o warm_after_power_loss=verify). Each item's checksum is looked at when it is touched first.
	WarmAfterPowerLoss bool
	// Verify says when items' checksums are looked at; default at the first touch after a start that crossed a boot (-o verify). A damaged item is a miss.
	Verify Verify
	// ScrubRate has all items looked at in the background, over and over, at so many bytes a second (-o scrub_rate); default 0, not at all.
	ScrubRate int64
	// NoteCrashes has the Go runtime write its report about a panic or fatal error of this process behind the end of the file, by debug.SetCrashOutput, of which
	// a process has one: for programs that serve one cache. The next Open logs it, and after three servers in a row that died this way it starts cold.
	NoteCrashes bool
	// LockWait is how long Open waits for another process that holds the file; default not at all.
	LockWait time.Duration
	// Logger gets one line for each start, stop and restart verdict; default none.
	Logger *slog.Logger
	// Clock replaces the system's clocks, for tests; default the system's.
	Clock Clock
	// HeapArena keeps the memory on the Go heap, where the race detector sees it, for tests; Path must be empty.
	HeapArena bool
}

// LRUSettings are memcached's tuning values of the LRU: `lru tune`, `lru mode` and `lru temp_ttl`.
type LRUSettings = lru.Settings

// Clock tells the time. Implementations must be safe for concurrent use.
type Clock interface {
	// Wall returns the wall clock in seconds since 1970.
	Wall() int64
	// Boot returns the time since boot, suspended time included; it never goes back.
	Boot() time.Duration
	// BootID names the boot that Boot counts from.
	BootID() [16]byte
}
