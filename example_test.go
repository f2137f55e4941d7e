package hearth_test

import (
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
