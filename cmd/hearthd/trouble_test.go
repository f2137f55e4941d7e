package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"golang.org/x/sys/unix"
)

// punch takes the memory of a stretch of a file away.
func punch(t *testing.T, path string, off, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, off, n)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAFileThatIsSpoiledUnderAServerIsTold cuts files off and punches holes into them while servers serve them. A server may die of it, with a line that says so and exit code
// 70, never in silence; and the next one serves.
func TestAFileThatIsSpoiledUnderAServerIsTold(t *testing.T) {
	for name, spoil := range map[string]func(path string, size int64){
		"cut off to nothing":     func(path string, _ int64) { os.Truncate(path, 0) },
		"cut off in the head":    func(path string, _ int64) { os.Truncate(path, 4096) },
		"cut off in the index":   func(path string, _ int64) { os.Truncate(path, 4<<20) },
		"cut off in the pages":   func(path string, size int64) { os.Truncate(path, size-(1000<<20)) },
		"hole for the head":      func(path string, _ int64) { punch(t, path, 0, 12288) },
		"hole for the index":     func(path string, _ int64) { punch(t, path, 2<<20, 8<<20) },
		"hole for everything":    func(path string, size int64) { punch(t, path, 0, size) },
		"hole for all the pages": func(path string, size int64) { punch(t, path, size-(1024<<20), 1024<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			file := newFile(t)
			p := startHearthd(t, "-e", file, "-m", "32")
			conn := dial(p.addr)
			value := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint(i, " "), 100)) }
			for i := range 2000 {
				if err := conn.Set(&memcache.Item{Key: fmt.Sprint("key", i), Value: value(i)}); err != nil {
					t.Fatal(err)
				}
			}
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			spoil(file, st.Size())
			ended := false
			for i := 0; i < 2000 && !ended; i++ {
				it, err := conn.Get(fmt.Sprint("key", i))
				if err == nil && string(it.Value) != string(value(i)) {
					t.Fatalf("key%d holds %.30q", i, it.Value)
				}
				if err == nil || err == memcache.ErrCacheMiss {
					err = conn.Set(&memcache.Item{Key: fmt.Sprint("new", i), Value: value(i)})
				}
				select {
				case <-p.done:
					ended = true
				default:
					if ended = err != nil && cutOff(err); !ended && err != nil && !strings.Contains(err.Error(), "SERVER_ERROR out of memory") {
						t.Fatalf("key%d: %v\n%s", i, err, p.stderr)
					}
				}
			}
			conn.Close()
			if !ended {
				p.cmd.Process.Signal(syscall.SIGTERM)
			}
			code := p.wait(t)
			if said := p.stderr.String(); code != 0 && !(code == 70 && strings.Contains(said, "fault in the cache's memory")) {
				t.Errorf("exit %d\n%s", code, said)
			}
			p = startHearthd(t, "-e", file, "-m", "32")
			store(t, p.addr, "k", "v")
			if !holds(t, p.addr, "k", "v") {
				t.Error("the next one does not serve")
			}
			t.Logf("exit %d; the next start is %s: %s", code, stat(t, p.addr, "restart_kind"), stat(t, p.addr, "restart_reason"))
		})
	}
}

// dataOf returns the parts of a mapped file that have memory.
func dataOf(t *testing.T, f *os.File, mem []byte) (parts [][]byte) {
	t.Helper()
	for end := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err != nil {
			return parts
		}
		if end, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, mem[from:end])
	}
}

// TestBitsThatFlipUnderAServerAreNotServed flips bits all over the file of a server that verifies, between what two clients store and read. A value is the one that was stored last, or
// gone.
func TestBitsThatFlipUnderAServerAreNotServed(t *testing.T) {
	const keys, clients = 1000, 2
	flips := 300
	if long {
		flips = 20_000
	}
	start := drawSeed(t)
	file := newFile(t)
	p := startHearthd(t, "-e", file, "-m", "16", "-o", "verify=always,slab_chunk_max=16,scrub_rate=100")
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	step, ended := make(chan bool), make(chan bool, clients)
	var stop atomic.Bool
	var all sync.WaitGroup
	var hits, misses atomic.Int64
	for client := range clients {
		all.Go(func() {
			defer func() { ended <- true }()
			draw := rand.New(rand.NewPCG(start, uint64(client+1)))
			conn := dial(p.addr)
			defer conn.Close()
			var entries [keys]entry
			for i := range entries {
				entries[i] = entry{key: fmt.Sprintf("key-%d-%d", client, i), may: [][]byte{nil}}
			}
			for !stop.Load() {
				select {
				case step <- true:
				default:
				}
				e := &entries[draw.IntN(keys)]
				it, err := conn.Get(e.key)
				var got []byte
				if err == nil {
					got = it.Value
					hits.Add(1)
				} else if misses.Add(1); err != memcache.ErrCacheMiss {
					t.Errorf("get: %v", err)
					return
				}
				if err := e.read(got, true); err != nil {
					t.Error(err)
					return
				}
				if draw.IntN(3) > 0 {
					continue
				}
				e.seq++
				size := 60 + draw.IntN(2000)
				if draw.IntN(50) == 0 { // chained
					size = 20_000 + draw.IntN(30_000)
				}
				value := appendRecord(nil, e.key, client, e.seq, size)
				switch err := conn.Set(&memcache.Item{Key: e.key, Value: value}); {
				case err == nil:
					e.expect(value)
				case strings.Contains(err.Error(), "SERVER_ERROR out of memory"): // then the old value is gone
					e.expect(nil)
				case strings.Contains(err.Error(), "SERVER_ERROR Out of memory during read"): // then, as in memcached, it stays
				default:
					t.Errorf("set: %v", err)
					return
				}
			}
		})
	}
	await := func(steps int) {
		for late := time.After(patience / 2); steps > 0; steps-- {
			select {
			case <-step:
			case <-ended:
				stop.Store(true)
				return
			case <-late:
				p.stop(t, syscall.SIGQUIT)
				t.Fatalf("it answers no more:\n%s", p.stderr)
			}
		}
	}
	draw, flipped := rand.New(rand.NewPCG(start, 0)), 0
	var parts [][]byte // what is no hole
	for await(5000); flipped < flips && !stop.Load(); await(5) {
		if flipped%1000 == 0 {
			parts = dataOf(t, f, mem)
		}
		part := parts[draw.IntN(len(parts))]
		if draw.IntN(2) == 0 { // else most would be in the pages
			part = parts[draw.IntN(min(len(parts), 8))]
		}
		for range 1000 {
			if at := draw.IntN(len(part)); part[at] != 0 {
				part[at] ^= 1 << draw.IntN(8)
				flipped++
				break
			}
		}
	}
	stop.Store(true)
	all.Wait()
	t.Logf("%d bits flipped; %d hits, %d misses, %s corrupt_items", flipped, hits.Load(), misses.Load(), stat(t, p.addr, "corrupt_items"))
	if hits.Load() == 0 || stat(t, p.addr, "corrupt_items") == "0" {
		t.Error("nothing was read, or no damage was found")
	}
	p.stop(t, syscall.SIGKILL)
	p = startHearthd(t, "-e", file, "-m", "16")
	store(t, p.addr, "k", "v")
	if !holds(t, p.addr, "k", "v") {
		t.Error("the next one does not serve")
	}
}

// TestNoRoomForTheFileIsSaid starts servers where a file may not be as long as the cache's, and where the file system is full from the beginning or soon.
func TestNoRoomForTheFileIsSaid(t *testing.T) {
	t.Run("RLIMIT_FSIZE", func(t *testing.T) {
		file := newFile(t)
		out, err := exec.Command("bash", "-c", `ulimit -f 1000; exec "$@"`, "bash", binary, "-u", me(), "-p", "-1", "-l", "127.0.0.1", "-e", file).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() <= 0 || !strings.Contains(string(out), "file too large") {
			t.Errorf("%v\n%s", err, out)
		}
		p := startHearthd(t, "-e", file)
		store(t, p.addr, "k", "v")
	})
	for _, mib := range []int{1, 4, 12} {
		t.Run(fmt.Sprintf("a file system of %d MiB", mib), func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
				t.Skipf("mount: %v", err)
			}
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
			p := launch(t, "-e", filepath.Join(dir, "slab"), "-m", "64")
			if p.addr == "" {
				if code := p.wait(t); code <= 0 || !strings.Contains(p.stderr.String(), "no space left on device") {
					t.Errorf("exit %d\n%s", code, p.stderr)
				}
				if mib > 1 {
					t.Errorf("it does not serve at all\n%s", p.stderr)
				}
				return
			}
			conn := dial(p.addr)
			defer conn.Close()
			stored, refused := 0, 0
			for i := range 1_500 {
				switch err := conn.Set(&memcache.Item{Key: fmt.Sprint("key", i), Value: []byte(strings.Repeat("v", i%2000))}); {
				case err == nil:
					stored++
				case strings.Contains(err.Error(), "SERVER_ERROR out of memory"):
					refused++
				default:
					t.Fatalf("key%d: %v\n%s", i, err, p.stderr)
				}
			}
			if code := p.stop(t, syscall.SIGKILL); code != -int(syscall.SIGKILL) || stored == 0 && mib > 1 {
				t.Errorf("exit %d, %d stored", code, stored)
			}
			p = startHearthd(t, "-e", filepath.Join(dir, "slab"), "-m", "64")
			if kind := stat(t, p.addr, "restart_kind"); kind != "unclean" {
				t.Errorf("start %s\n%s", kind, p.stderr)
			}
			t.Logf("%d stored, %d refused", stored, refused)
		})
	}
}
