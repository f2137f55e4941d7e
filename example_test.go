package hearth_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"hearth"
)

func Example() {
	dir, err := os.MkdirTemp("", "hearth")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	options := hearth.Options{Path: filepath.Join(dir, "cache.slab"), MemoryLimit: 64 << 20}

	cache, err := hearth.Open(options)
	if err != nil {
		log.Fatal(err)
	}
	if err := cache.Set([]byte("greeting"), []byte("hello"), 0, time.Hour); err != nil {
		log.Fatal(err)
	}
	value, _, ok := cache.Get([]byte("greeting"), nil)
	fmt.Println(string(value), ok)
	if err := cache.Close(); err != nil {
		log.Fatal(err)
	}

	// The next process finds it.
	cache, err = hearth.Open(options)
	if err != nil {
		log.Fatal(err)
	}
	value, _, ok = cache.Get([]byte("greeting"), nil)
	fmt.Println(string(value), ok)
	stats := cache.Stats()
	fmt.Println(stats.RestartKind, stats.CurrItems)
	if err := cache.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello true
	// hello true
	// clean 1
}

// Get appends to a buffer of the caller's, which may be used again for the next value.
func ExampleCache_Get() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	if err := cache.Set([]byte("city"), []byte("Reykjavik"), 3, 0); err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 0, 64)
	for _, key := range []string{"city", "country"} {
		var flags uint32
		var ok bool
		buffer, flags, ok = cache.Get([]byte(key), buffer[:0])
		fmt.Printf("%s: %q %d %v\n", key, buffer, flags, ok)
	}
	// Output:
	// city: "Reykjavik" 3 true
	// country: "" 0 false
}

// A lifetime of 0 is for good; what does not fit leaves the key without a value rather than with the old one.
func ExampleCache_Set() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20, MaxItemSize: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	key := []byte("report")
	fmt.Println(cache.Set(key, []byte("short"), 0, time.Minute))
	fmt.Println(errors.Is(cache.Set(key, make([]byte, 2<<20), 0, time.Minute), hearth.ErrTooLarge))
	_, _, ok := cache.Get(key, nil)
	fmt.Println(ok)
	// Output:
	// <nil>
	// true
	// false
}

// Of several who change a value at the same time, one is told OK, and the others that they came too late.
func ExampleCache_Do_cas() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	key := []byte("seats")
	if err := cache.Set(key, []byte("12"), 0, 0); err != nil {
		log.Fatal(err)
	}
	swap := func(value string, cas uint64) (status hearth.Status) {
		cache.Do(func(s *hearth.Session) {
			var draft hearth.Draft
			if status = s.Prepare(&draft, hearth.CAS, key, 0, 0, len(value)); status != hearth.OK {
				return
			}
			if !s.Write(&draft, []byte(value)) {
				s.Discard(&draft)
				status = hearth.NoMemory
				return
			}
			_, status = s.Commit(&draft, cas)
		})
		return status
	}
	var seen uint64
	cache.Do(func(s *hearth.Session) {
		var item hearth.Item
		if s.Get(key, &item) == hearth.OK {
			seen = item.CAS
		}
	})
	fmt.Println(swap("11", seen) == hearth.OK, swap("11", seen) == hearth.Exists)
	// Output: true true
}

func ExampleCache_Items() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	for _, key := range []string{"user:1", "user:2", "page:1"} {
		if err := cache.Set([]byte(key), []byte("..."), 0, 0); err != nil {
			log.Fatal(err)
		}
	}
	// Whatever belongs to a user is to go.
	for item := range cache.Items() {
		if bytes.HasPrefix(item.Key, []byte("user:")) {
			cache.Delete(item.Key)
		}
	}
	for item := range cache.Items() {
		fmt.Printf("%s, %d bytes\n", item.Key, item.Len())
	}
	// Output: page:1, 3 bytes
}

func ExampleCache_Stats() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	if err := cache.Set([]byte("k"), []byte("v"), 0, 0); err != nil {
		log.Fatal(err)
	}
	cache.Get([]byte("k"), nil)
	cache.Get([]byte("missing"), nil)
	stats := cache.Stats()
	fmt.Println(stats.CurrItems, stats.CmdGet, stats.GetHits, stats.GetMisses, stats.CmdSet)
	// Output: 1 2 1 1 1
}

// Every start ends in serving, warm or cold; the cache tells which, and why.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "hearth")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	options := hearth.Options{Path: filepath.Join(dir, "cache.slab"), MemoryLimit: 8 << 20}
	for range 2 {
		cache, err := hearth.Open(options)
		if err != nil {
			log.Fatal(err) // the file is another process's, cannot be opened, or the options are wrong
		}
		stats := cache.Stats()
		fmt.Println(stats.RestartKind, stats.RestartReason != "", stats.CurrItems)
		if err := cache.Set([]byte("k"), []byte("v"), 0, 0); err != nil {
			log.Fatal(err)
		}
		if err := cache.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// cold true 0
	// clean true 1
}

// A value can be read where it lies, for as long as the section lasts.
func ExampleCache_Do() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 2 << 20, MaxItemSize: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	if err := cache.Set([]byte("page"), []byte("<html>"), 7, 0); err != nil {
		log.Fatal(err)
	}
	cache.Do(func(s *hearth.Session) {
		var item hearth.Item
		if s.Get([]byte("page"), &item) != hearth.OK {
			return
		}
		for _, piece := range item.Pieces(nil) {
			os.Stdout.Write(piece)
		}
		fmt.Println("", item.Flags, item.Len())
	})
	// Output: <html> 7 6
}

// A large value can be written into the cache's memory as it arrives, over several sections; nobody sees it before Commit.
func ExampleSession_Prepare() {
	cache, err := hearth.Open(hearth.Options{MemoryLimit: 8 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	session := cache.NewSession()
	defer session.Close()

	var draft hearth.Draft
	session.Begin()
	status := session.Prepare(&draft, hearth.Set, []byte("upload"), 0, 0, 800_000)
	session.End()
	for status == hearth.OK && draft.Remaining() > 0 {
		session.Begin()
		buffer := session.Next(&draft)
		if buffer == nil {
			status = hearth.NoMemory
		}
		draft.Wrote(len(buffer)) // after reading so much from a connection
		session.End()
	}
	session.Begin()
	if status == hearth.OK {
		_, status = session.Commit(&draft, 0)
	} else {
		session.Discard(&draft)
	}
	var item hearth.Item
	fmt.Println(status == hearth.OK, session.Get([]byte("upload"), &item) == hearth.OK, item.Len())
	count, _ := session.Incr([]byte("missing"), 1)
	fmt.Println(count)
	session.End()
	// Output:
	// true true 800000
	// 0
}
