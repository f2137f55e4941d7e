package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"hearth/tools/clidoc"
	"hearth/tools/clidoc/clidoctest"
)

// The manual page and the completions have every command and every flag, and shells that are installed can read them.
func TestDocsHaveEveryCommandAndFlag(t *testing.T) {
	man := must(t, "man")
	for _, shell := range append([]string{"man"}, clidoc.Shells...) {
		text := man
		if shell != "man" {
			text = must(t, "completion", shell)
			if path, err := exec.LookPath(shell); err == nil {
				cmd := exec.Command(path, "-n", "/dev/stdin")
				cmd.Stdin = strings.NewReader(text)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s -n: %v\n%s", shell, err, out)
				}
			}
		}
		for _, c := range app().Commands {
			if !strings.Contains(text, c.Name) {
				t.Errorf("%s: no command %s", shell, c.Name)
			}
			for _, f := range c.Flags {
				for _, name := range f.Names() {
					if !strings.Contains(text, "-"+name) && !strings.Contains(text, " "+name) {
						t.Errorf("%s: %s has no flag %s", shell, c.Name, name)
					}
				}
			}
		}
	}
	if _, _, err := slabctl(t, strings.NewReader(""), "completion", "csh"); err == nil {
		t.Error("completion csh succeeds")
	}
}

// Shells offer the commands, the flags of the command, and files.
func TestShellsComplete(t *testing.T) {
	for _, shell := range clidoc.Shells {
		t.Run(shell, func(t *testing.T) {
			for line, want := range map[string]string{
				"slabctl re":                          "resize report",
				"slabctl --no-progress prefixes --de": "--delimiter --depth",
				"slabctl prefixes docs_te":            "docs_test.go",
			} {
				if got := clidoctest.Complete(t, shell, "slabctl", must(t, "completion", shell), line); !sameWords(got, strings.Fields(want)) {
					t.Errorf("%q: %q, want %q", line, got, want)
				}
			}
		})
	}
}

func sameWords(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestVersionIsTheOneOfTheBuild(t *testing.T) {
	was := version
	t.Cleanup(func() { version = was })
	version = "1.2.3"
	if got := must(t, "--version"); got != "slabctl version 1.2.3\n" {
		t.Errorf("%q", got)
	}
}

// Bad command lines are one line each, and do not exit with 0.
func TestBadCommandLinesAreOneLine(t *testing.T) {
	file := small(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nonsense"}, `slabctl: no command "nonsense"`},
		{[]string{"info"}, "slabctl: info: 0 arguments, want 1: FILE"},
		{[]string{"info", "/nowhere/at/all"}, "slabctl: mmapslab: open: open /nowhere/at/all: no such file"},
		{[]string{"info", "."}, "slabctl: mmapslab: open .: it is d"},
		{[]string{"top", file, "--by", "colour"}, `slabctl: --by "colour", want size, age or idle`},
		{[]string{"top", file, "--what"}, "slabctl: flag provided but not defined: -what; see slabctl top -h"},
		{[]string{"items", file, "--segment", "mild"}, `slabctl: --segment "mild", want hot, warm, cold or temp`},
		{[]string{"items", file, "--ttl", "soon"}, `slabctl: --ttl "soon", want FROM-TO, FROM- or -TO`},
		{[]string{"items", file, "--regex", "("}, "slabctl: --regex: error parsing regexp"},
		{[]string{"items", file, "--after", "99/1"}, "slabctl: 99/1: there is no such chunk"},
		{[]string{"prefixes", file, "--by", "colour"}, `slabctl: --by "colour", want bytes, items or waste`},
		{[]string{"dump", file, "--format", "xml"}, `slabctl: --format "xml", want set, ms, json or csv`},
		{[]string{"page", file, "x"}, `slabctl: page "x", want a number`},
		{[]string{"page", file, "5000"}, "slabctl: mmapslab: page 5000, want 1 to 1024"},
		{[]string{"resize", file, file, "--force"}, "is the file itself, want another one"},
		{[]string{"resize", file, "out", "--memory", "lots"}, `slabctl: size "lots", want a number with k, m or g`},
		{[]string{"resize", file, "out", "-f", "1"}, "slabctl: -f 1, want more than 1"},
		{[]string{"resize", file, "out", "--slab-sizes", "1-x"}, `slabctl: --slab-sizes "1-x", want numbers with dashes between`},
		{[]string{"stats", file, "reset"}, "slabctl: stats reset: want items, slabs or sizes"},
		{[]string{"load", "/nowhere/at/all"}, "slabctl: load: open /nowhere/at/all"},
	} {
		out, _, err := slabctl(t, strings.NewReader(""), c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(out, "USAGE") {
			t.Errorf("%v: %v, want %q; printed %q", c.args, err, c.want, out)
		}
	}
}
