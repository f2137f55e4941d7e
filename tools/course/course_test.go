// Package course_test runs what the documents tell a reader to type: README.md's and the course's.
//
// A block of the course marked console is a terminal: lines after "$ " are commands, "> " continues one, and what stands below is what it prints, line by line. "..." in a line
// stands for any text, and alone on a line for any lines. A block marked sh is run and must succeed; one that starts a server is stopped when it serves. A block marked text is
// for reading.
//
// All of it runs in namespaces of its own, where port 11211 is free whoever has it outside, /dev/shm is empty, and nothing outlives the test. That takes root.
package course_test

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait for a command: it is not a time that it is expected to take.
const patience = 2 * time.Minute

var update = flag.Bool("update", false, "write what the commands print into the course, where it differs")

// block is one of a document, with its fences.
type block struct {
	kind  string
	line  int // of the first line inside, from 1
	lines []string
}

func blocks(t *testing.T, path string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inside, indent := false, ""
	for i, line := range strings.Split(string(text), "\n") {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "```") || inside && strings.HasPrefix(line, indent) {
			if !inside {
				indent = line[:len(line)-len(strings.TrimLeft(line, " "))] // of a block in a list
			}
			line = strings.TrimPrefix(line, indent)
		}
		switch {
		case !inside && strings.HasPrefix(line, "```"):
			all = append(all, block{kind: line[3:], line: i + 2})
			inside = true
		case line == "```":
			inside = false
		case inside:
			b := &all[len(all)-1]
			b.lines = append(b.lines, line)
		}
	}
	return all
}

// shell is a bash in namespaces of its own, to which commands are given one at a time.
type shell struct {
	t    *testing.T
	in   io.Writer
	out  chan string
	next int
	dir  string
}

// marker ends the output of a command. No program prints it by itself.
const marker = "\x01end of command "

func newShell(t *testing.T, dir string, env ...string) *shell {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces take root")
	}
	need(t, "util-linux iproute2 netcat-openbsd", "unshare", "ip", "nc")
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "bash")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s := &shell{t: t, in: in, out: make(chan string, 1<<10), dir: t.TempDir()}
	go func() {
		defer close(s.out)
		for lines := bufio.NewReader(r); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			s.out <- strings.TrimRight(line, "\r\n")
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // and with it, by --kill-child, all that it started
		cmd.Wait()
		for range s.out {
		}
		r.Close()
	})
	if out, code := s.run("mount -t proc proc /proc && mount -t tmpfs tmpfs /dev/shm && ip link set lo up"); code != "0" {
		t.Fatalf("cannot prepare the namespaces: %q", out)
	}
	return s
}

// run runs a command in the shell, whose directory, variables, functions and jobs are there for the next one, and returns what was printed.
func (s *shell) run(command string) (out []string, code string) {
	s.t.Helper()
	s.next++
	file := filepath.Join(s.dir, fmt.Sprint(s.next))
	if err := os.WriteFile(file, []byte(command+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(s.in, ". %s </dev/null\nprintf '\\n%s%%d\\n' $?\n", file, marker)
	for limit := time.After(patience); ; {
		select {
		case line, ok := <-s.out:
			if !ok {
				s.t.Fatalf("the shell ended in %q; output %q", command, out)
			}
			if text, found := strings.CutPrefix(line, marker); found {
				if n := len(out); n > 0 && out[n-1] == "" {
					out = out[:n-1] // of the marker's own line end
				}
				return out, text
			}
			out = append(out, line)
		case <-limit:
			s.t.Fatalf("%q does not end; output %q", command, out)
		}
	}
}

// exchange is a command of a console block and what it prints.
type exchange struct {
	line    int
	command string
	want    []string
}

func exchanges(b block) (all []exchange) {
	for i, line := range b.lines {
		switch {
		case strings.HasPrefix(line, "$ "):
			all = append(all, exchange{line: b.line + i, command: line[2:]})
		case strings.HasPrefix(line, "> ") && len(all) > 0 && len(all[len(all)-1].want) == 0:
			all[len(all)-1].command += "\n" + line[2:]
		case len(all) > 0:
			all[len(all)-1].want = append(all[len(all)-1].want, line)
		}
	}
	return all
}

// fits compares output with what is written, in which "..." stands for anything.
func fits(want, got []string) bool {
	var re strings.Builder
	for _, line := range want {
		if line == "..." {
			re.WriteString(`(.*\n)*`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\n`)
	}
	text := ""
	for _, line := range got {
		text += line + "\n"
	}
	return regexp.MustCompile("^" + re.String() + "$").MatchString(text)
}

// build puts the programs of the documents into a directory for PATH.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "hearth/cmd/hearthd", "hearth/tools/cluster").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// need skips a test for want of programs that HEARTH_CLIENTS=1 says must be there.
func need(t *testing.T, packages string, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv("HEARTH_CLIENTS") == "1" {
			t.Fatalf("%s is not installed (apt-get install %s)", program, packages)
		}
		t.Skipf("%s is not installed (apt-get install %s)", program, packages)
	}
}

// nodeModules has npm's memcached, in the version that tools/clients tests.
func nodeModules(t *testing.T) string {
	t.Helper()
	need(t, "nodejs npm", "node", "npm")
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile("../clients/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		if os.Getenv("HEARTH_CLIENTS") == "1" {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		t.Skipf("npm ci: %v\n%s", err, out)
	}
	return filepath.Join(dir, "node_modules")
}

func TestCourseShowsWhatIsPrinted(t *testing.T) {
	const path = "README.md"
	sh := newShell(t, t.TempDir(), "PATH="+build(t)+":"+os.Getenv("PATH"), "NODE_PATH="+nodeModules(t))
	steps, replaced := 0, map[int][]string{}
	for _, b := range blocks(t, path) {
		switch b.kind {
		case "console":
			for _, e := range exchanges(b) {
				steps++
				got, _ := sh.run(e.command)
				if fits(e.want, got) {
					continue
				}
				if *update {
					replaced[e.line] = got
					continue
				}
				t.Errorf("%s:%d: %s\nprints\n%s\nwant\n%s", path, e.line, e.command, strings.Join(got, "\n"), strings.Join(e.want, "\n"))
			}
		case "text":
		default:
			t.Errorf("%s:%d: a block marked %q: want console or text", path, b.line, b.kind)
		}
	}
	if steps < 20 {
		t.Errorf("%d commands, want the whole course", steps)
	}
	if *update {
		rewrite(t, path, replaced)
	}
}

// README's blocks, in the order they are in, in a copy of the repository; with HEARTH_LONG=1 in a fresh clone of the commit, by somebody who has neither compiled nor
// fetched anything.
func TestReadmesBlocksRun(t *testing.T) {
	long := os.Getenv("HEARTH_LONG") != ""
	dir := "../.."
	env := []string{"GOBIN=" + t.TempDir()}
	if long {
		dir = filepath.Join(t.TempDir(), "clone")
		env = append(env, "GOPATH="+t.TempDir(), "GOCACHE="+t.TempDir(), "GOFLAGS=-modcacherw")
		if out, err := exec.Command("git", "clone", "-q", "../..", dir).CombinedOutput(); err != nil {
			t.Fatalf("git clone: %v\n%s", err, out)
		}
		for _, module := range []string{".", "tools/release/nfpm"} {
			fetch := exec.Command("go", "mod", "download") // the namespaces have no way out
			fetch.Dir, fetch.Env = filepath.Join(dir, module), append(os.Environ(), env...)
			if out, err := fetch.CombinedOutput(); err != nil {
				t.Fatalf("go mod download: %v\n%s", err, out)
			}
		}
	}
	sh := newShell(t, dir, env...)
	ran := 0
	for _, b := range blocks(t, "../../README.md") {
		command := strings.Join(b.lines, "\n")
		switch {
		case b.kind == "text" || b.kind == "go" || b.kind == "console": // the last has a test where the tool is that it shows
			continue
		case b.kind != "sh":
			t.Errorf("README.md:%d: a block marked %q: want sh, console, go or text", b.line, b.kind)
			continue
		case command == ".ci/run":
			continue // runs this test, and is run by CI
		case !long && (strings.Contains(command, "mcbench compare") || strings.Contains(command, "release/build")):
			t.Logf("README.md:%d: takes minutes, and is run with HEARTH_LONG=1", b.line)
			continue
		}
		ran++
		log := filepath.Join(sh.dir, fmt.Sprint("log", ran))
		script := filepath.Join(sh.dir, fmt.Sprint("block", ran))
		if err := os.WriteFile(script, []byte(command+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		// A server that says that it has started is told to stop, and must end well.
		sh.run(fmt.Sprintf("bash -e %s >%s 2>&1 & block=$!", script, log))
		limit := time.Now().Add(10 * patience)
		for stopped := false; ; {
			if _, code := sh.run("kill -0 $block 2>/dev/null"); code != "0" {
				break
			}
			text, _ := os.ReadFile(log)
			if m := regexp.MustCompile(`msg=started .*pid=(\d+)`).FindSubmatch(text); m != nil && !stopped {
				stopped = true
				sh.run("kill -TERM " + string(m[1]))
			}
			if time.Now().After(limit) {
				t.Fatalf("README.md:%d: does not end\n%s\n%s", b.line, command, text)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if _, code := sh.run("wait $block"); code != "0" {
			text, _ := os.ReadFile(log)
			t.Errorf("README.md:%d: exit code %s\n%s\n%s", b.line, code, command, text)
		}
	}
	if ran < 2 {
		t.Errorf("%d blocks ran", ran)
	}
}

// rewrite puts other output below the commands at those lines.
func rewrite(t *testing.T, path string, replaced map[int][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	var out []string
	for i := 0; i < len(lines); i++ {
		out = append(out, lines[i])
		got, ok := replaced[i+1]
		if !ok {
			continue
		}
		for i++; strings.HasPrefix(lines[i], "> "); i++ {
			out = append(out, lines[i])
		}
		out = append(out, got...)
		for ; lines[i] != "```" && !strings.HasPrefix(lines[i], "$ "); i++ {
		}
		i--
	}
	if err := os.WriteFile(path, []byte(strings.Join(out, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
