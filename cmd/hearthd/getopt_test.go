package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNormaliseFollowsGetopt(t *testing.T) {
	for _, c := range []struct {
		line string // words split at blanks; _ is a blank inside a word
		want string
		err  string
	}{
		{"-m64 -p11212", "--memory-limit=64 --port=11212", ""},
		{"-m 64", "--memory-limit=64", ""},
		{"-vvd", "--verbose --verbose --daemon", ""},
		{"-vvverbose", "--verbose --verbose --verbose --memory-file=rbose", ""},
		{"-vm64", "--verbose --memory-limit=64", ""},
		{"--memory-limit=64 --memory-limit 65", "--memory-limit=64 --memory-limit=65", ""},
		{"--memory-l=1", "--memory-limit=1", ""},
		{"--mem 64", "", "x: option '--mem' is ambiguous; possibilities: '--memory-limit' '--memory-file'"},
		{"--enable-s", "", "x: option '--enable-s' is ambiguous; possibilities: '--enable-shutdown' '--enable-ssl' '--enable-sasl'"},
		{"--max=3", "", "x: option '--max=3' is ambiguous; possibilities: '--max-reqs-per-event' '--max-item-size'"},
		{"--verbose=3 --verbose 3", "--verbose=3 --verbose", ""},
		{"--port= --listen=a=b", "--port= --listen=a=b", ""},
		{"-m -V", "--memory-limit=-V", ""},
		{"word -V other", "--version", ""},
		{"-v -- -V", "--verbose", ""},
		{"- -V", "--version", ""},
		{"_-V __-m _5", "--version --memory-limit=5", ""},
		{"-D:", "--D=:", ""},
		{"-v -Q -V", "--verbose", "x: invalid option -- 'Q'"},
		{"-vQ", "--verbose", "x: invalid option -- 'Q'"},
		{"-u", "", "x: option requires an argument -- 'u'"},
		{"--port", "", "x: option '--port' requires an argument"},
		{"--version=3", "", "x: option '--version' doesn't allow an argument"},
		{"--napi_ids=2", "", "x: unrecognized option '--napi_ids=2'"},
		{"-d=1", "--daemon", "x: invalid option -- '='"},
	} {
		argv := []string{"x"}
		for _, w := range strings.Fields(c.line) {
			argv = append(argv, strings.ReplaceAll(w, "_", " "))
		}
		if strings.Contains(c.line, "napi_ids") {
			argv = strings.Fields("x " + c.line)
		}
		got, err := normalise(argv, new(settings).flags(), false)
		if strings.Join(got, " ") != c.want || errText(err) != c.err {
			t.Errorf("%s:\n got %q, error %q\nwant %q, error %q", c.line, got, errText(err), c.want, c.err)
		}
	}
}

func TestFirstOtherWordEndsTheOptionsWhenPOSIXLYCORRECT(t *testing.T) {
	got, err := normalise([]string{"x", "-v", "word", "-V"}, new(settings).flags(), true)
	if strings.Join(got, " ") != "--verbose" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestNormaliseAgreesWithTheCLibrary compares with the C library's getopt_long on random command lines.
func TestNormaliseAgreesWithTheCLibrary(t *testing.T) {
	flags := new(settings).flags()
	ask := startGetopt(t)
	words := []string{"-", "--", "-v", "-vv", "-m", "-m64", "-vm", "-vm64", "-Q", "-vQd", "-:", "-;", "-=", "-D", "-Dx", "word", "=", "--=", "--=x", "-W", "-W;",
		"--v", "--ver", "--verb", "--verbose=", "--p", "--po", "--port", "--port=", "--port=-p", "--mem", "--memory-f", "--memory-f=x", "--help=1", "--x", "--d", "--disable-c", "-vverbose", "---v", "-é"}
	rapid.Check(t, func(rt *rapid.T) {
		argv := []string{"x"}
		for range rapid.IntRange(0, 5).Draw(rt, "n") {
			argv = append(argv, rapid.SampledFrom(words).Draw(rt, "word"))
		}
		posix := rapid.Bool().Draw(rt, "posix")
		got, err := normalise(argv, flags, posix)
		have := strings.Join(got, "\n")
		if err != nil {
			have = strings.TrimPrefix(have+"\n"+err.Error(), "\n")
		}
		if want := ask(argv, posix); have != want {
			rt.Fatalf("%q (posix %v):\n got %q\nwant %q", argv, posix, have, want)
		}
	})
}

// startGetopt builds and starts a program that reads command lines and writes what getopt_long makes of them, in normalise's form.
func startGetopt(t *testing.T) func(argv []string, posix bool) string {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to build the reference with")
	}
	var short, long strings.Builder
	for _, f := range new(settings).flags() {
		o := f.(*option)
		short.WriteString(string(o.short))
		if o.takes == oneValue {
			short.WriteByte(':')
		}
		if o.long != "" {
			fmt.Fprintf(&long, "{%q, %d, 0, '%c'},\n", o.long, map[takes]int{nothing: 0, oneValue: 1, maybeValue: 2}[o.takes], o.short)
		}
	}
	src := fmt.Sprintf(`
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static const struct option longs[] = {%s{0,0,0,0}};
int main(void) {
	static char line[65536];
	static char *argv[64];
	while (fgets(line, sizeof line, stdin)) {  // words end in \001, the line in \n; the first word says whether to be POSIX
		int argc = 0;
		for (char *p = line, *e; (e = strchr(p, 1)); p = e + 1) { *e = 0; argv[argc++] = p; }
		argv[argc] = 0;
		if (*argv[0] == '1') setenv("POSIXLY_CORRECT", "1", 1); else unsetenv("POSIXLY_CORRECT");
		optind = 0;
		int c;
		while ((c = getopt_long(argc - 1, argv + 1, %q, longs, 0)) != -1 && c != '?') {
			const struct option *o = longs;
			while (o->name && o->val != c) o++;
			char d[2] = {c, 0};
			printf("--%%s%%s%%s\n", o->name ? o->name : d, optarg ? "=" : "", optarg ? optarg : "");
		}
		fflush(stdout);
		printf("\001\n");
		fflush(stdout);
	}
}`, long.String(), short.String())
	dir := t.TempDir()
	file := filepath.Join(dir, "getopt.c")
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-D_GNU_SOURCE", "-o", filepath.Join(dir, "getopt"), file).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(dir, "getopt"))
	in, _ := cmd.StdinPipe()
	r, w, err := os.Pipe() // one pipe for both, so that getopt's complaint keeps its place
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { in.Close(); cmd.Wait(); r.Close() })
	out := bufio.NewReader(r)
	return func(argv []string, posix bool) string {
		head := "0"
		if posix {
			head = "1"
		}
		io.WriteString(in, head+"\x01"+strings.Join(argv, "\x01")+"\x01\n")
		var lines []string
		var bad string
		for {
			line, err := out.ReadString('\n')
			if err != nil {
				t.Fatalf("the reference died: %v", err)
			}
			switch line = strings.TrimSuffix(line, "\n"); {
			case line == "\x01":
				if bad != "" {
					lines = append(lines, bad)
				}
				return strings.Join(lines, "\n")
			case strings.HasPrefix(line, "x: "): // stderr is not buffered and overtakes
				bad = line
			default:
				lines = append(lines, line)
			}
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
