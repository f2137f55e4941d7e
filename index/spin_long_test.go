//go:build long

package index_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The models in testdata are the protocol; each named shortcut must fail, or the model proves nothing.
func TestSpinFindsNoErrorInTheModels(t *testing.T) {
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install spin gcc): the models were not checked", tool)
		}
	}
	for _, run := range []struct {
		name, model, depth string
		defines            []string
		fails              bool
	}{
		{name: "insert", model: "index-insert.pml", depth: "-m500000"},
		{name: "insert without the scan after placing", model: "index-insert.pml", depth: "-m500000", defines: []string{"-DNOSCAN"}, fails: true},
		{name: "grow", model: "index-grow.pml", depth: "-m800000"},
		{name: "grow without the last look", model: "index-grow.pml", depth: "-m800000", defines: []string{"-DNORECHECK"}, fails: true},
		{name: "insert into the old table during growth", model: "index-grow.pml", depth: "-m800000", defines: []string{"-DOLDSET"}},
		{name: "the same, ignoring MOVED in the scan", model: "index-grow.pml", depth: "-m800000", defines: []string{"-DOLDSET", "-DNOLOOK"}, fails: true},
	} {
		t.Run(run.name, func(t *testing.T) {
			dir := t.TempDir()
			model, err := filepath.Abs(filepath.Join("testdata", run.model))
			if err != nil {
				t.Fatal(err)
			}
			do := func(name string, args ...string) string {
				cmd := exec.Command(name, args...)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			do("spin", append(run.defines, "-a", model)...)
			do("gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
			out := do("./pan", run.depth)
			if strings.Contains(out, "max search depth too small") {
				t.Fatalf("search cut off at %s\n%s", run.depth, out)
			}
			errors := regexp.MustCompile(`errors: (\d+)`).FindStringSubmatch(out)
			states := regexp.MustCompile(`(\d+) states, stored`).FindStringSubmatch(out)
			if errors == nil || states == nil {
				t.Fatalf("no verdict in\n%s", out)
			}
			if failed := errors[1] != "0"; failed != run.fails {
				t.Errorf("errors: %s, want failure %v\n%s", errors[1], run.fails, out)
			}
			if _, err := os.Stat(filepath.Join(dir, run.model+".trail")); run.fails && err != nil {
				t.Errorf("a failure without a trail: %v", err)
			}
			t.Logf("%s states, errors: %s", states[1], errors[1])
		})
	}
}
