package hearth_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hearth"
	"hearth/mmapslab/fault"
)

// childEnv tells a process of this test program that it is to be a server on the file in its first argument, and how that ends.
const childEnv = "HEARTH_TEST_CHILD"

func beChild(how string) {
	if how == "panic attaching" {
		fault.Set(func(point string) {
			if point == "hearth.attach.running" {
				panic("attaching")
			}
		})
	}
	c, err := hearth.Open(hearth.Options{Path: os.Args[1], MemoryLimit: 16 << 20, NoteCrashes: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(c.Stats().RestartKind)
	switch how {
	case "panic":
		go func() { panic("boom") }()
	case "deadlock": // a fatal error, which is no panic
		c.WaitSwept()
		go func() {
			m := map[int]int{}
			for range 8 {
				go func() {
					for i := 0; ; i++ {
						m[i%8] = i
					}
				}()
			}
		}()
	case "fault":
		c.NoteFault(fmt.Errorf("hearth: fault in the cache's memory: a test"))
		os.Exit(70)
	}
	os.Stdin.Read(make([]byte, 1)) // until it is killed
	select {}
}

// child lets another process serve the file until it dies: by itself, or by the signal. It returns how it started.
func child(t *testing.T, path, how string, end syscall.Signal) (kind string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, path)
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if end != 0 {
		cmd.Process.Signal(end)
	}
	if cmd.Wait() == nil {
		t.Fatalf("%s, %v: it ended well", how, end)
	}
	return strings.TrimSpace(line)
}

// Faults of a server's own count, whatever they are, and signals from outside do not, however many and whatever report they make the runtime write.
func TestCrashLoopEndsInAColdStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts thirty processes")
	}
	o := hearth.Options{Path: filepath.Join(t.TempDir(), "slab"), MemoryLimit: 16 << 20, NoteCrashes: true}
	die := func(want string, ends ...any) {
		t.Helper()
		for _, end := range ends {
			how, signal := "serve", syscall.Signal(0)
			switch end := end.(type) {
			case string:
				how = end
			case syscall.Signal:
				signal = end
			}
			if kind := child(t, o.Path, how, signal); kind != want {
				t.Fatalf("before %v the start was %s, want %s", end, kind, want)
			}
			want = "unclean"
		}
	}
	var outside []any
	for range 3 {
		outside = append(outside, syscall.SIGKILL, syscall.SIGABRT, syscall.SIGQUIT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGTERM)
	}
	fillFile(t, o, 300, true)
	die("clean", outside...)
	die("unclean", "panic", "fault")
	if _, reason := wantFile(t, o, 300, "unclean", false); !strings.HasSuffix(reason, "died by a fault of its own, 2 in a row: hearth: fault in the cache's memory: a test") {
		t.Error(reason)
	}
	// That was a clean stop: it starts over. What comes from outside in between leaves the count as it is.
	fillFile(t, o, 300, true)
	die("clean", "deadlock", "panic", syscall.SIGKILL, syscall.SIGQUIT)
	want := "3 servers in a row died by faults of their own, want fewer than 3: panic: boom"
	if fault.Enabled {
		die("", "panic attaching")
		want = "3 servers in a row died by faults of their own, want fewer than 3: panic: attaching"
	} else {
		die("unclean", "panic")
	}
	found, reason := wantFile(t, o, 300, "cold", true)
	if found != 0 || !strings.HasPrefix(reason, want) {
		t.Errorf("%d items, %s", found, reason)
	}
	wantFile(t, o, 0, "clean", true)
}
