package hearth_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows is the picture of the packages: who may import whom. Fault points and invariants may be used everywhere.
var arrows = map[string][]string{
	"hearth/mmapslab":                 {},
	"hearth/mmapslab/fault":           {},
	"hearth/mmapslab/invariants":      {},
	"hearth/index":                    {"hearth/mmapslab"},
	"hearth/lru":                      {"hearth/mmapslab"},
	"hearth/restore":                  {"hearth/index", "hearth/lru", "hearth/mmapslab"},
	"hearth":                          {"hearth/restore", "hearth/index", "hearth/lru", "hearth/mmapslab"},
	"hearth/netproto":                 {},
	"hearth/netproto/server":          {"hearth/netproto", "hearth"},
	"hearth/netproto/server/certtest": {},
	"hearth/cmd/hearthd/web":          {},
	"hearth/cmd/hearthd":              {"hearth/cmd/hearthd/web", "hearth/netproto/server", "hearth", "hearth/tools/clidoc"},
	"hearth/tools/clidoc":             {},
	"hearth/tools/clidoc/clidoctest":  {},
	"hearth/tools/clients":            {},
	"hearth/tools/cluster":            {},
	"hearth/tools/container":          {},
	"hearth/tools/course":             {},
	"hearth/tools/mcbench":            {},
	"hearth/tools/release":            {},
	"hearth/tools/slabctl":            {"hearth/restore", "hearth/lru", "hearth/mmapslab", "hearth/tools/clidoc"},
}

// owners are the packages that alone may import a dependency. The server needs unsafe for system calls that the scheduler is not told of.
var owners = map[string][]string{
	"unsafe":                       {"hearth/mmapslab", "hearth/netproto/server"},
	"github.com/edsrzf/mmap-go":    {"hearth/mmapslab"},
	"github.com/cespare/xxhash/v2": {"hearth/mmapslab", "hearth/tools/mcbench"},
	"github.com/urfave/cli/v2":     {"hearth/cmd/hearthd", "hearth/tools/clidoc", "hearth/tools/cluster", "hearth/tools/mcbench", "hearth/tools/slabctl"},

	"golang.org/x/sys/unix": {"hearth", "hearth/mmapslab", "hearth/restore", "hearth/netproto/server", "hearth/cmd/hearthd", "hearth/tools/mcbench", "hearth/tools/slabctl"},

	"github.com/HdrHistogram/hdrhistogram-go": {"hearth/tools/mcbench"},
	"github.com/schollz/progressbar/v3":       {"hearth/tools/slabctl"},
	"golang.org/x/term":                       {"hearth/tools/mcbench", "hearth/tools/slabctl"},

	"github.com/coreos/go-systemd/v22/activation": {"hearth/cmd/hearthd"},
	"github.com/coreos/go-systemd/v22/daemon":     {"hearth/cmd/hearthd"},

	"github.com/prometheus/client_golang/prometheus":            {"hearth/cmd/hearthd/web"},
	"github.com/prometheus/client_golang/prometheus/collectors": {"hearth/cmd/hearthd/web"},
	"github.com/prometheus/client_golang/prometheus/promhttp":   {"hearth/cmd/hearthd/web"},

	"golang.org/x/net/netutil": {"hearth/cmd/hearthd/web"},
	"golang.org/x/time/rate":   {"hearth/cmd/hearthd/web", "hearth/tools/slabctl"},
}

func TestPackagesImportOnlyWhatStandsBelowThem(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	everywhere := []string{"hearth/mmapslab/fault", "hearth/mmapslab/invariants"}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		allowed, known := arrows[words[0]]
		if !known {
			t.Errorf("%s is not in the picture", words[0])
		}
		for _, to := range words[1:] {
			own := strings.HasPrefix(to, "hearth/") || to == "hearth"
			if own && !slices.Contains(allowed, to) && !slices.Contains(everywhere, to) {
				t.Errorf("%s imports %s, want only %v", words[0], to, allowed)
			}
			if owner, ok := owners[to]; ok && !slices.Contains(owner, words[0]) {
				t.Errorf("%s imports %s, want only %v to", words[0], to, owner)
			}
		}
	}
}
