package main

import (
	"os"
	"path/filepath"
	"testing"

	"hearth/tools/clidoc"
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
	for _, shell := range clidoc.Shells {
		if want["hearthd."+shell], err = clidoc.Completion(a, shell); err != nil {
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
