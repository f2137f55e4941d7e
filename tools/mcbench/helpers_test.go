package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
)

var work string // a directory of this test run

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "mcbench"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(work)
	os.Exit(code)
}

var buildHearthd = sync.OnceValues(func() (string, error) {
	path := filepath.Join(work, "hearthd")
	if out, err := exec.Command("go", "build", "-o", path, "hearth/cmd/hearthd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %v\n%s", err, out)
	}
	return path, nil
})

// serverLines are the command lines of hearthd, built here, and of memcached where it is installed.
func serverLines(t *testing.T, flags string) []string {
	t.Helper()
	hearthd, err := buildHearthd()
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	flags = fmt.Sprintf(" -u %s -l 127.0.0.1 -p {port} -U 0 %s", me.Username, flags)
	lines := []string{hearthd + flags + " -e {dir}/slab"}
	if path, err := exec.LookPath("memcached"); err == nil {
		lines = append(lines, path+flags)
	}
	return lines
}

// mcbench runs a command and gives what it prints.
func mcbench(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &out, &out
	err := a.Run(append([]string{"mcbench"}, args...))
	return out.String(), err
}

// mcbenchJSON runs a command that has to succeed and reads its JSON.
func mcbenchJSON[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	out, err := mcbench(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %v in %s", args, err, out)
	}
	return v
}

// fake is a server for the text protocol's get, set and stats that knows every key and can do wrong.
type fake struct {
	value  func(key []byte) []byte // what it answers
	before func()                  // called ahead of each answer to a get
}

// serve gives the address of a fake that lives as long as the test.
func (f fake) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); f.answer(c) })
		}
	})
	return l.Addr().String()
}

func (f fake) answer(c net.Conn) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch words := strings.Fields(line); words[0] {
		case "get":
			if f.before != nil {
				f.before()
			}
			for _, key := range words[1:] {
				value := f.value([]byte(key))
				fmt.Fprintf(w, "VALUE %s 0 %d\r\n%s\r\n", key, len(value), value)
			}
			w.WriteString("END\r\n")
		case "set":
			size, _ := strconv.Atoi(words[4])
			r.Discard(size + 2)
			w.WriteString("STORED\r\n")
		case "stats":
			fmt.Fprintf(w, "STAT pid %d\r\nEND\r\n", os.Getpid())
		default:
			w.WriteString("ERROR\r\n")
		}
		if r.Buffered() == 0 {
			w.Flush()
		}
	}
}

// right is the value of 100 bytes that belongs to a key.
func right(key []byte) []byte { return appendValue(nil, key, 100) }

// wrong is right but for one byte.
func wrong(key []byte) []byte {
	value := right(key)
	value[50+xxhash.Sum64(key)%50] ^= 1
	return value
}
