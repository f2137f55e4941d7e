package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What README shows of the verbs is what they print: each line is one of the golden file with the same command.
func TestReadmeShowsRealOutput(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string]string{}
	files, _ := filepath.Glob("testdata/*.txt")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		command, rest, _ := strings.Cut(string(text), "\n")
		golden[command] = "\n" + strings.ReplaceAll(rest, "\r", "")
	}
	_, block, _ := strings.Cut(string(readme), "```console\n$ slabctl")
	block, _, _ = strings.Cut("$ slabctl"+block, "\n```")
	var command string
	shown := 0
	for _, line := range strings.Split(block, "\n") {
		if strings.HasPrefix(line, "$ ") {
			if command = line; golden[command] == "" {
				t.Errorf("%s: there is no golden file", line)
			}
			shown++
		} else if line != "…" && !strings.Contains(golden[command], "\n"+line) {
			t.Errorf("%s does not print %q", command, line)
		}
	}
	if shown < 15 {
		t.Errorf("README shows %d commands", shown)
	}
	// The rest are named.
	for _, c := range app().Commands {
		if !strings.Contains(string(readme), "slabctl "+c.Name) && !strings.Contains(string(readme), "`"+c.Name) {
			t.Errorf("README does not name %s", c.Name)
		}
	}
}
