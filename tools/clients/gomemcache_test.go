package clients_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// gomemcache has a check for each method of its client; those that stand together are in one.
var gomemcache = []struct {
	methods string
	check   func(t *testing.T, c *memcache.Client)
}{
	{"Set Get", func(t *testing.T, c *memcache.Client) {
		for _, value := range []string{"", "x", "a\r\nEND\r\n\x00", strings.Repeat("v", 900<<10)} {
			want(t, "set", c.Set(&memcache.Item{Key: "k", Value: []byte(value), Flags: 0xdeadbeef}), nil)
			item, err := c.Get("k")
			if err != nil || string(item.Value) != value || item.Flags != 0xdeadbeef {
				t.Errorf("get after set of %d bytes: %v, %v", len(value), item, err)
			}
		}
		_, err := c.Get("missing")
		want(t, "get", err, memcache.ErrCacheMiss)
		key := strings.Repeat("k", 250)
		want(t, "set, 250 bytes", c.Set(&memcache.Item{Key: key, Value: []byte("x")}), nil)
		holds(t, c, key, "x")
		want(t, "set, 251 bytes", c.Set(&memcache.Item{Key: key + "k"}), memcache.ErrMalformedKey)
		if err := c.Set(&memcache.Item{Key: "k", Value: make([]byte, 2<<20)}); err == nil || !strings.Contains(err.Error(), "object too large for cache") {
			t.Errorf("set of 2 MiB: %v", err)
		}
		_, err = c.Get("k")
		want(t, "get after it", err, memcache.ErrCacheMiss)
	}},
	{"Add Replace Append Prepend Delete", func(t *testing.T, c *memcache.Client) {
		item := func(value string) *memcache.Item { return &memcache.Item{Key: "s", Value: []byte(value)} }
		want(t, "replace", c.Replace(item("no")), memcache.ErrNotStored)
		want(t, "append", c.Append(item("no")), memcache.ErrNotStored)
		want(t, "prepend", c.Prepend(item("no")), memcache.ErrNotStored)
		want(t, "add", c.Add(item("one")), nil)
		want(t, "add again", c.Add(item("two")), memcache.ErrNotStored)
		holds(t, c, "s", "one")
		want(t, "replace", c.Replace(item("three")), nil)
		want(t, "append", c.Append(item("-end")), nil)
		want(t, "prepend", c.Prepend(item("start-")), nil)
		holds(t, c, "s", "start-three-end")
		want(t, "delete", c.Delete("s"), nil)
		want(t, "delete again", c.Delete("s"), memcache.ErrCacheMiss)
	}},
	{"CompareAndSwap", func(t *testing.T, c *memcache.Client) {
		want(t, "set", c.Set(&memcache.Item{Key: "cas", Value: []byte("one")}), nil)
		first, _ := c.Get("cas")
		second, _ := c.Get("cas")
		first.Value, second.Value = []byte("two"), []byte("three")
		want(t, "cas", c.CompareAndSwap(first), nil)
		want(t, "cas with an old id", c.CompareAndSwap(second), memcache.ErrCASConflict)
		holds(t, c, "cas", "two")
		want(t, "delete", c.Delete("cas"), nil)
		want(t, "cas of a missing key", c.CompareAndSwap(first), memcache.ErrCacheMiss)
	}},
	{"Increment Decrement", func(t *testing.T, c *memcache.Client) {
		want(t, "set", c.Set(&memcache.Item{Key: "n", Value: []byte("18446744073709551610")}), nil)
		n, err := c.Increment("n", 10)
		if n != 4 || err != nil {
			t.Errorf("increment wraps: %d, %v", n, err)
		}
		if n, err = c.Decrement("n", 100); n != 0 || err != nil {
			t.Errorf("decrement: %d, %v", n, err)
		}
		_, err = c.Increment("missing", 1)
		want(t, "increment", err, memcache.ErrCacheMiss)
		want(t, "set", c.Set(&memcache.Item{Key: "n", Value: []byte("abc")}), nil)
		if _, err := c.Decrement("n", 1); err == nil || !strings.Contains(err.Error(), "non-numeric") {
			t.Errorf("decrement of a word: %v", err)
		}
	}},
	{"Touch GetAndTouch", func(t *testing.T, c *memcache.Client) {
		want(t, "touch", c.Touch("missing", 600), memcache.ErrCacheMiss)
		_, err := c.GetAndTouch("missing", 600)
		want(t, "get and touch", err, memcache.ErrCacheMiss)
		want(t, "set", c.Set(&memcache.Item{Key: "brief", Value: []byte("x"), Expiration: 600}), nil)
		item, err := c.GetAndTouch("brief", 500)
		if err != nil || string(item.Value) != "x" {
			t.Errorf("get and touch: %v, %v", item, err)
		}
		want(t, "touch", c.Touch("brief", -1), nil)
		_, err = c.Get("brief")
		want(t, "get", err, memcache.ErrCacheMiss)
		want(t, "set", c.Set(&memcache.Item{Key: "brief", Value: []byte("x"), Expiration: 1}), nil)
		err = nil
		for end := time.Now().Add(patience); err == nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			_, err = c.Get("brief")
		}
		want(t, "get in the end", err, memcache.ErrCacheMiss)
	}},
	{"GetMulti", func(t *testing.T, c *memcache.Client) {
		var keys []string
		var wg sync.WaitGroup
		for i := range 500 {
			keys = append(keys, fmt.Sprint("many", i))
			wg.Go(func() {
				if err := c.Set(&memcache.Item{Key: keys[i], Value: []byte(keys[i])}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		items, err := c.GetMulti(append(keys, "missing"))
		if err != nil || len(items) != len(keys) {
			t.Errorf("get multi: %d items, %v", len(items), err)
		}
		for key, item := range items {
			if string(item.Value) != key {
				t.Errorf("%s: %q", key, item.Value)
			}
		}
	}},
	{"Ping FlushAll Close", func(t *testing.T, c *memcache.Client) {
		want(t, "ping", c.Ping(), nil)
		want(t, "set", c.Set(&memcache.Item{Key: "k", Value: []byte("x")}), nil)
		want(t, "flush all", c.FlushAll(), nil)
		_, err := c.Get("k")
		want(t, "get", err, memcache.ErrCacheMiss)
		want(t, "close", c.Close(), nil)
		want(t, "ping after close", c.Ping(), nil)
	}},
}

func want(t *testing.T, what string, got, wanted error) {
	t.Helper()
	if !errors.Is(got, wanted) {
		t.Errorf("%s: %v, want %v", what, got, wanted)
	}
}

func holds(t *testing.T, c *memcache.Client, key, value string) {
	t.Helper()
	if item, err := c.Get(key); err != nil || string(item.Value) != value {
		t.Errorf("get %.20s: %v, %v, want %.20q", key, item, err, value)
	}
}

func TestGomemcacheIsServedAsByMemcached(t *testing.T) {
	covered := map[string]bool{"DeleteAll": true} // below: it reaches one server only
	for _, g := range gomemcache {
		for _, m := range strings.Fields(g.methods) {
			covered[m] = true
		}
	}
	for m := range reflect.TypeFor[*memcache.Client]().Methods() {
		if !covered[m.Name] {
			t.Errorf("%s has no check", m.Name)
		}
	}
	for _, p := range programs(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(work, "gomemcache")
			if err != nil {
				t.Fatal(err)
			}
			file := []string{"-e", filepath.Join(dir, "memory")}
			main := p.startOnOnePort(t, dir, file...)
			second := p.start(t, dir, "-p", "-1")
			unix := p.start(t, dir, "-s", filepath.Join(dir, "socket"))
			for name, servers := range map[string][]string{"one": {main.addr}, "two": {main.addr, second.addr}, "unix": {unix.addr}} {
				c := memcache.New(servers...)
				c.Timeout = patience
				c.MaxIdleConns = 4
				for _, g := range gomemcache {
					t.Run(name+" "+g.methods, func(t *testing.T) { g.check(t, c) })
				}
			}

			c := memcache.New(main.addr)
			c.Timeout = patience
			want(t, "set", c.Set(&memcache.Item{Key: "k", Value: []byte("x")}), nil)
			want(t, "delete all", c.DeleteAll(), nil)
			_, err = c.Get("k")
			want(t, "get", err, memcache.ErrCacheMiss)
			for i := range 100 {
				want(t, "set", c.Set(&memcache.Item{Key: fmt.Sprint("warm", i), Value: bytes.Repeat([]byte{byte(i)}, i*100), Expiration: 600}), nil)
			}
			item, _ := c.Get("warm5")
			main.stop(t)
			if _, err := c.Get("warm1"); err == nil {
				t.Error("get from a stopped server: no error")
			}
			p.awaitNextTick()
			_, port, _ := net.SplitHostPort(main.addr)
			p.start(t, dir, append(file, "-p", port)...)
			for i := range 100 {
				holds(t, c, fmt.Sprint("warm", i), string(bytes.Repeat([]byte{byte(i)}, i*100)))
			}
			want(t, "cas with an id from before", c.CompareAndSwap(item), nil)
			want(t, "again", c.CompareAndSwap(item), memcache.ErrCASConflict)
		})
	}
}
