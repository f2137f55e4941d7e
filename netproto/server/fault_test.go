package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/netproto/server"
	"hearth/netproto/server/certtest"
)

// faultingServer serves a cache in a file that the test cuts short, and returns the process's exit code as hearthd would.
func faultingServer(path string) int {
	cache, err := hearth.Open(hearth.Options{Path: path})
	if err != nil {
		fmt.Println("open:", err)
		return 3
	}
	o := server.Options{Listen: []string{"127.0.0.1"}, Port: -1}
	if chain, key, ok := strings.Cut(os.Getenv("HEARTH_TEST_FAULT_TLS"), ":"); ok {
		o.TLS = server.NewTLS(server.TLSOptions{ChainCert: chain, Key: key})
		if err := o.TLS.Load(); err != nil {
			fmt.Println("load:", err)
			return 3
		}
	}
	srv, err := server.New(cache, o)
	if err != nil {
		fmt.Println("new:", err)
		return 3
	}
	fmt.Println(srv.Addrs()[0])
	if os.Getenv("HEARTH_TEST_FAULT_ROWS") != "" {
		none, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			fmt.Println("mmap:", err)
			return 3
		}
		go func() {
			sum := 0
			ok := srv.Rows("", func(string, string) { sum += int(none[sum]) })
			fmt.Println("rows:", ok, sum)
		}()
	}
	err = srv.Serve(context.Background())
	fmt.Println("ended:", err)
	if fault := (*server.FaultError)(nil); errors.As(err, &fault) {
		return 70
	}
	return 0
}

// A file that is cut short under the server is a fault at the next access, be it by the server itself or, for a large value, by writev.
func TestAFaultInTheMappingEndsTheProcess(t *testing.T) {
	for name, size := range map[string]int{"copied": 10000, "written from the mapping": 300000} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "HEARTH_TEST_FAULT_FILE="+path)
			if overTLS {
				chain, key, _ := certtest.New(t, "fault").Issue(t.TempDir(), "server", time.Now().Add(time.Hour))
				cmd.Env = append(cmd.Env, "HEARTH_TEST_FAULT_TLS="+chain+":"+key)
			}
			var out strings.Builder
			pr, pw, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout, cmd.Stderr = pw, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pw.Close()
			defer pr.Close()
			defer cmd.Process.Kill()
			pr.SetReadDeadline(time.Now().Add(maxWait))
			buf := make([]byte, 4096)
			n, err := pr.Read(buf)
			if _, _, err2 := net.SplitHostPort(strings.TrimSpace(string(buf[:n]))); err != nil || err2 != nil {
				t.Fatalf("the server said %q (%v)", buf[:n], err)
			}
			addr := strings.TrimSpace(string(buf[:n]))
			if overTLS {
				addr = "tls:" + addr
			}
			c := dial(t, addr)
			c.ask(fmt.Sprintf("set a 0 0 %d\r\n%s\r\n", size, strings.Repeat("x", size)), "STORED\r\n")
			value := find(t, path, bytes.Repeat([]byte("x"), size))
			// The item's header stays, so that it is the value's reader who meets the end, and not the cache's own background work.
			if err := os.Truncate(path, value+4096-value%4096); err != nil {
				t.Fatal(err)
			}
			c.send("get a\r\n")
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case err = <-done:
			case <-time.After(maxWait):
				t.Fatal("the process goes on")
			}
			n, _ = pr.Read(buf)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 70 || !strings.Contains(string(buf[:n]), "ended: server: fault in the cache's memory at address") {
				t.Errorf("ended with %v, said %q, %s", err, buf[:n], out.String())
			}
		})
	}
}

// Whoever reads the counters is no worker, and meets the same end.
func TestAFaultWhileRowsAreReadEndsServe(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HEARTH_TEST_FAULT_FILE="+filepath.Join(t.TempDir(), "cache"), "HEARTH_TEST_FAULT_ROWS=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 70 || !strings.Contains(string(out), "ended: server: fault in the cache's memory at address") {
		t.Errorf("ended with %v, said %s", err, out)
	}
}

// find returns the offset of what in the file, which has holes of gigabytes.
func find(t *testing.T, path string, what []byte) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for end := int64(0); ; {
		begin, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err != nil {
			t.Fatalf("the value is not in the file: %v", err)
		}
		if end, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, end-begin)
		if _, err := f.ReadAt(data, begin); err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(data, what); i >= 0 {
			return begin + int64(i)
		}
	}
}
