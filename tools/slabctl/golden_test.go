package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

var update = flag.Bool("update", false, "rewrite testdata")

// machine are the parts of the output that another machine, or another run, has otherwise.
var machine = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`on (disk|memory),`), "on memory,"},
	{regexp.MustCompile(`(this|another) boot, [0-9a-f]{32}`), "this boot, BOOT"},
	{regexp.MustCompile(`clean, durable`), "clean"},
	{regexp.MustCompile(`clean stop, confirmed by the disk`), "clean stop"},
	{regexp.MustCompile(`architecture 0x2`), "architecture 0x1"},
}

// Each verb's output on a small file is that of testdata, and no verb changes a byte of the file.
func TestVerbsPrintWhatTheGoldenFilesHave(t *testing.T) {
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	file := small(t)
	before := sum(t, file)
	other := append(things(60), thing{key: "new", value: []byte("new")})[4:]
	other[1].value = []byte("another value")
	other[6].flags, other[7].ttl = 9, 0
	writeFile(t, "other.slab", 16, other)
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"info", []string{"info", file}, 0},
		{"check", []string{"check", file}, 0},
		{"classes", []string{"classes", file}, 0},
		{"pages", []string{"pages", file}, 0},
		{"pages-list", []string{"pages", file, "--list"}, 0},
		{"stats", []string{"stats", file}, 0},
		{"stats-items", []string{"stats", file, "items"}, 0},
		{"stats-slabs", []string{"stats", file, "slabs"}, 0},
		{"stats-sizes", []string{"stats", file, "sizes"}, 0},
		{"sizes", []string{"sizes", file}, 0},
		{"sizes-width", []string{"sizes", file, "--width", "100"}, 0},
		{"ttl", []string{"ttl", file}, 0},
		{"ages", []string{"ages", file}, 0},
		{"prefixes", []string{"prefixes", file}, 0},
		{"prefixes-depth", []string{"prefixes", "--depth", "2", "--by", "items", file}, 0},
		{"top", []string{"top", file, "-n", "5"}, 0},
		{"top-age", []string{"top", file, "-n", "5", "--by", "age"}, 0},
		{"top-idle", []string{"top", file, "-n", "5", "--by", "idle"}, 0},
		{"items", []string{"items", file, "-n", "8"}, 0},
		{"items-filtered", []string{"items", file, "--regex", "^session:[0-9]$", "--ttl", "100-", "--segment", "hot", "--size", "-200"}, 0},
		{"items-expired", []string{"items", file, "--expired", "--json"}, 0},
		{"items-count", []string{"items", file, "--count", "--prefix", "img:"}, 0},
		{"get", []string{"get", file, "user:5"}, 0},
		{"get-json", []string{"get", file, "--json", "grüße"}, 0},
		{"get-raw", []string{"get", file, "--raw", "session:6"}, 0},
		{"get-missing", []string{"get", file, "nobody"}, 1},
		{"get-expired", []string{"get", file, "gone:expired"}, 0},
		{"page", []string{"page", file, "1", "-n", "2"}, 0},
		{"item", []string{"item", file, "1/0"}, 0},
		{"item-chained", []string{"item", file, "4/6", "--value", "32"}, 0},
		{"item-offset", []string{"item", file, "0x18400058"}, 0},
		{"dump", []string{"dump", file, "--prefix", "user:1"}, 0},
		{"dump-ms", []string{"dump", file, "--prefix", "session:1", "--format", "ms"}, 0},
		{"dump-binary", []string{"dump", file, "--prefix", "two"}, 0},
		{"dump-json", []string{"dump", file, "--prefix", "user:2", "--format", "json"}, 0},
		{"dump-csv", []string{"dump", file, "--prefix", "user:", "--format", "csv", "--dead"}, 0},
		{"resize", []string{"resize", file, "out.slab", "--memory", "8m", "-f", "1.5"}, 0},
		{"resize-exists", []string{"resize", file, "out.slab", "--memory", "8m"}, 1},
		{"diff", []string{"diff", file, "other.slab"}, 1},
		{"diff-same", []string{"diff", file, file}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, beside, err := slabctl(t, strings.NewReader(""), c.args...)
			code := 0
			if err != nil {
				code = 1
				if exit := cli.ExitCoder(nil); !errors.As(err, &exit) || err.Error() != "" {
					beside += err.Error() + "\n"
				}
			}
			if code != c.code {
				t.Errorf("exit code %d, want %d: %v", code, c.code, err)
			}
			got := "$ slabctl " + strings.Join(c.args, " ") + "\n" + out
			if beside != "" {
				got += "(beside) " + beside
			}
			for _, m := range machine {
				got = m.re.ReplaceAllString(got, m.to)
			}
			path := filepath.Join(data, c.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs; go test -update\ngot:\n%s\nwant:\n%s", path, got, want)
			}
			if after := sum(t, file); after != before {
				t.Fatalf("the file's bytes have changed: %s, want %s", after, before)
			}
		})
	}
	if left := leftovers(t, "."); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
