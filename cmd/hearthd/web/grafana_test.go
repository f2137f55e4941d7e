package web_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hearth/cmd/hearthd/web"
)

// grafana is where the dashboard and the alert rules are.
const grafana = "../../../tools/grafana"

// expressions are the texts in which metrics are named, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"dashboard.json", "alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(filepath.Join(grafana, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\b(?:memcached|hearth)_[a-z0-9_]+\b`)
	selector   = regexp.MustCompile(`\b((?:memcached|hearth)_[a-z0-9_]+)\{([^}]*)\}`)
	labelName  = regexp.MustCompile(`(\w+)=~?"`)
)

func TestDashboardAndAlertsNameMetricsAndLabelsThatExist(t *testing.T) {
	r := start(t, web.Options{})
	r.send("lru temp_ttl 60\r\nset temporary 0 30 1\r\nx\r\nmn\r\n", "MN\r\n")
	r.work()
	labels := map[string]map[string]bool{} // by metric
	for sample := range r.metrics() {
		name, rest, _ := strings.Cut(sample, "{")
		if labels[name] == nil {
			labels[name] = map[string]bool{"job": true, "instance": true} // Prometheus' own
		}
		for _, l := range labelName.FindAllStringSubmatch(rest, -1) {
			labels[name][l[1]] = true
		}
	}
	used := map[string]bool{}
	for file, text := range expressions(t) {
		if file == "dashboard.json" {
			text = strings.ReplaceAll(text, `\"`, `"`)
		}
		for _, name := range metricName.FindAllString(text, -1) {
			used[name] = true
			if labels[name] == nil {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
				if !labels[m[1]][l[1]] {
					t.Errorf("%s: %s has no label %s", file, m[1], l[1])
				}
			}
		}
	}
	if len(used) < 30 {
		t.Errorf("%d metrics are named", len(used))
	}
}

// The expressions' language is checked where Prometheus is installed; that the dashboard can be drawn at all, here.
func TestDashboardHasExpressionsInEveryPanel(t *testing.T) {
	var d struct {
		Title  string
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(expressions(t)["dashboard.json"]), &d); err != nil {
		t.Fatal(err)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: an id that is taken, no title, or nothing to show", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q lies over %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if len(d.Panels) < 20 || d.Title != "Hearth" {
		t.Errorf("%d panels, title %q", len(d.Panels), d.Title)
	}
}

func TestPromtoolFindsNoFaultInTheAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (apt-get install --no-install-recommends prometheus)")
	}
	// The dashboard's expressions become rules, which promtool can read.
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(expressions(t)["dashboard.json"]), &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(q.Expr)
			rules = append(rules, rule{"panel:expr", expr})
		}
	}
	for i := range rules {
		rules[i].Record += ":n" + strings.Repeat("x", i) // promtool refuses two of one name
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}}) // which is YAML too
	if err != nil {
		t.Fatal(err)
	}
	panels := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(panels, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}, {"check", "rules", panels}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = grafana
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
