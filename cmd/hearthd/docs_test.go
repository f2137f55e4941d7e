package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hearth/tools/clidoc"
	"hearth/tools/clidoc/clidoctest"
)

// The manual page and the completions in docs are those of the flags that there are. They are files rather than flags of the server, whose flags are memcached's.
func TestDocsHaveEveryFlag(t *testing.T) {
	a := newApp((&settings{}).flags())
	a.Version = "" // it would change the page with each release
	a.UsageText, a.Description = "hearthd [flags]", "Extended options, for -o:\n\n```\n"+suboptionHelp()+"```\n"
	want := map[string]string{}
	var err error
	if want["hearthd.1"], err = clidoc.Man(a, 1); err != nil {
		t.Fatal(err)
	}
	values := map[string]clidoc.Words{"protocol": {Words: []string{"ascii", "auto", "binary"}}, "extended": {List: true, Words: suboptionWords()}}
	for _, shell := range clidoc.Shells {
		if want["hearthd."+shell], err = clidoc.Completion(a, shell, values); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range want {
		path := filepath.Join("docs", name)
		if *update {
			if err := os.MkdirAll("docs", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s is not that of the flags (%v): go test -run Docs -update", path, err)
		}
	}
}

// suboptionWords are the names of the -o table as they are typed, those that want a value with "=".
func suboptionWords() (words []string) {
	for _, o := range suboptionTable {
		switch {
		case o.help == hidden:
		case o.missing != "":
			words = append(words, o.name+"=")
		default:
			words = append(words, o.name)
		}
	}
	return words
}

// Shells offer the flags, files, and the words of -o, in a list too.
func TestShellsComplete(t *testing.T) {
	for _, shell := range clidoc.Shells {
		t.Run(shell, func(t *testing.T) {
			script, err := os.ReadFile(filepath.Join("docs", "hearthd."+shell))
			if err != nil {
				t.Fatal(err)
			}
			for line, want := range map[string]string{
				"hearthd --memory":              "--memory-file --memory-limit",
				"hearthd -e docs_te":            "docs_test.go",
				"hearthd -B a":                  "ascii auto",
				"hearthd -m 64 -o warm_max_d":   "warm_max_down=",
				"hearthd --extended=warm_max_d": "warm_max_down=",
				"hearthd -o slab_reassign,hot_lru_pct=20,slab_automove_r": "slab_automove_ratio=",
			} {
				got := clidoctest.Complete(t, shell, "hearthd", string(script), line)
				for i, word := range got {
					word = word[strings.LastIndex(word, ",")+1:] // some have what is typed in front
					got[i] = strings.TrimPrefix(word, "--extended=")
				}
				slices.Sort(got)
				if !slices.Equal(got, strings.Fields(want)) {
					t.Errorf("%q: %q, want %q", line, got, want)
				}
			}
		})
	}
}
