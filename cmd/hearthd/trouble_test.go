package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
