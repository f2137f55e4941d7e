package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplayCountsHitsOfBothServersAlike(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	var lines strings.Builder
	for range 2 { // each key misses the first time, and hits the second time
		for k := range 300 {
			fmt.Fprintf(&lines, "key%d %d 60\n", k, k)
		}
	}
	lines.WriteString("key0 0\nkey1 1\n\n")
	if err := os.WriteFile(trace, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range serverLines(t, "-m 64") {
		for _, batch := range []string{"1", "7"} {
			got := mcbenchJSON[[]replayResult](t, "replay", "--json", "--server", line, "--trace", trace, "--batch", batch)
			want := 302.0 / 602
			if len(got) != 1 || got[0].Requests != 602 || got[0].HitRatio != want || got[0].Items != 300 || got[0].Refused != 0 || got[0].Resident == 0 {
				t.Errorf("%s, batch %s: got %+v, want a hit ratio of %v and 300 items", line, batch, got, want)
			}
		}
	}
}

func TestReplayNoticesAWrongValue(t *testing.T) {
	c, err := dial(fake{value: wrong}.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err = c.replay([]request{{key: "a", size: 100}}, pacing{batch: 1}); err == nil || !strings.Contains(err.Error(), `wrong bytes under key "a"`) {
		t.Errorf("got %v, want an error that names key a", err)
	}
}

func TestRefusesABadTrace(t *testing.T) {
	for _, line := range []string{"key", "key x", "key -1", "key 1 x", "key 1 2 3", strings.Repeat("k", 251) + " 1"} {
		trace := filepath.Join(t.TempDir(), "trace")
		if err := os.WriteFile(trace, []byte("good 1\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readTrace(trace); err == nil || !strings.Contains(err.Error(), "trace:2: ") {
			t.Errorf("%q: got %v, want an error for line 2", line, err)
		}
	}
}
