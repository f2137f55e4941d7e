package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite memcached's answers in testdata/cmdlines.txt, and docs")

const cmdlines = "testdata/cmdlines.txt"

// answer is how a command line that does not lead to serving ends: "<exit code> <first line of stderr, or of stdout>".
func answer(t *testing.T, program, args string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = append([]string{"memcached"}, words(args)...) // getopt's messages start with it
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Sprintf("did not end within %v (%v)", patience, err)
	}
	if errs.Len() == 0 {
		errs = out
	}
	first, rest, _ := strings.Cut(errs.String(), "\n")
	for strings.HasPrefix(first, "time=") { // the log, which memcached has not: the verdict on the cache comes before the listeners
		first, rest, _ = strings.Cut(rest, "\n")
	}
	first = versionShown.ReplaceAllString(first, "memcached N.N.N")
	return strings.TrimSpace(fmt.Sprintf("%d %s", cmd.ProcessState.ExitCode(), first)) // -1: died by a signal
}

// versionShown is how -V, -h and -i start; behind the number we add our own name.
var versionShown = regexp.MustCompile(`^memcached \d+\.\d+\.\d+( \(hearthd \S+\))?$`)

// words splits at blanks; "" is the empty word, and ~ a blank inside a word.
func words(line string) []string {
	ws := strings.Fields(line)
	for i, w := range ws {
		ws[i] = strings.ReplaceAll(strings.ReplaceAll(w, `""`, ""), "~", " ")
	}
	return ws
}

// TestEndsAsMemcachedDoes runs command lines that do not lead to serving and compares exit code and first line. The file holds memcached's answer
// below each, and ours where it differs, with the reason. Where memcached is installed its answers are checked against it.
func TestEndsAsMemcachedDoes(t *testing.T) {
	text, err := os.ReadFile(cmdlines)
	if err != nil {
		t.Fatal(err)
	}
	memcached, _ := exec.LookPath("memcached")
	if *update && memcached == "" {
		t.Fatal("-update needs memcached")
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	var rewritten []string
	cases := 0
	for i := 0; i < len(lines); {
		args, isCase := strings.CutPrefix(lines[i], "$")
		if !isCase {
			rewritten = append(rewritten, lines[i])
			i++
			continue
		}
		cases++
		head := lines[i]
		theirs, ours, why := "", "", ""
		for i++; i < len(lines) && lines[i] != "" && lines[i][0] != '$'; i++ {
			switch l := lines[i]; {
			case strings.HasPrefix(l, "  memcached: "):
				theirs = l[len("  memcached: "):]
			case strings.HasPrefix(l, "  hearthd: "):
				ours = l[len("  hearthd: "):]
			case strings.HasPrefix(l, "  why: "):
				why = l[len("  why: "):]
			default:
				t.Errorf("%s:%d: what is %q?", cmdlines, i+1, l)
			}
		}
		if memcached != "" {
			now := answer(t, memcached, args)
			if *update {
				theirs = now
			} else if now != theirs && isRecorded(memcached) {
				t.Errorf("memcached%s\nnow says %q\n%s has %q", args, now, cmdlines, theirs)
			}
		}
		rewritten = append(rewritten, head, "  memcached: "+theirs)
		want := theirs
		if ours != "" {
			rewritten = append(rewritten, "  hearthd: "+ours, "  why: "+why)
			if want = ours; why == "" || ours == theirs {
				t.Errorf("%s: a difference without a reason, or none: %s", args, ours)
			}
		}
		if os.Geteuid() != 0 && strings.Contains(theirs, "as root") {
			continue
		}
		if got := answer(t, binary, args); got != want {
			t.Errorf("hearthd%s\n got %q\nwant %q", args, got, want)
		}
	}
	if cases < 150 {
		t.Errorf("%d command lines, want at least 150", cases)
	}
	if *update {
		if err := os.WriteFile(cmdlines, []byte(strings.Join(rewritten, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// isRecorded tells whether this is the memcached that the file was made with.
func isRecorded(memcached string) bool {
	out, _ := exec.Command(memcached, "-V").Output()
	return strings.HasPrefix(string(out), "memcached 1.6.18")
}
