package server_test

import (
	"strings"
	"testing"
)

// The behaviour tests state memcached's behaviour a rule at a time: each row of a table is a claim, named by its name, with the bytes that are sent
// and those that come back. Where memcached is installed every row runs against it too and must hold there, or say why it does not.

// row is one claim. It has a connection of its own and starts with an empty cache.
type row struct {
	name  string
	given string // sent first; that the replies to it are no errors is all that is looked at
	send  string // in both, {cas KEY} is the CAS id in the last gets of KEY, and <x*1000> a thousand times x
	// want is the reply. CAS ids in it are numbered as they appear, given included: {1}, {2}, ...; times are rounded up to tens, ages down; classes and
	// sizes in the reply to me are left out, and so is the version (see transcript_test.go).
	want   string
	closes bool   // the server closes the connection then
	but    string // why memcached 1.6.18 answers otherwise
	alone  string // why memcached is not asked at all
}

// runRows checks rows against a server of ours, and against the memcached of this machine with the same options.
func runRows(t *testing.T, rows []row, opt func(*setup), memcachedArgs ...string) {
	t.Helper()
	if opt == nil {
		opt = func(*setup) {}
	}
	addr, oracle := startServer(t, opt), startMemcached(t, memcachedArgs...)
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.name] {
			t.Fatalf("two rows are named %q", r.name)
		}
		seen[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			if got, want := r.play(t, addr), inNotation(r.want); got != want {
				t.Errorf("sent\n     %s\n got %s\nwant %s", clip(r.send), indent(got), indent(want))
			}
			if oracle == "" || r.alone != "" {
				return
			}
			if got, want := r.play(t, oracle), inNotation(r.want); (got == want) == (r.but != "") {
				t.Errorf("sent\n     %s\nmemcached answers %s\nand the row has   %s\nthough it says why they differ: %q", clip(r.send), indent(got), indent(want), r.but)
			}
		})
	}
}

// play sends a row to a server and returns the reply in the notation of transcripts.
func (r row) play(t *testing.T, addr string) string {
	t.Helper()
	s := section{file: "row", name: r.name}
	if r.given != "" {
		s.exchanges = append(s.exchanges, &exchange{writes: []string{escape(r.given)}})
	}
	s.exchanges = append(s.exchanges, &exchange{writes: []string{escape(r.send)}, closes: r.closes})
	replies, err := play(s, addr)
	if err != nil {
		t.Fatal(err)
	}
	if r.given != "" && strings.Contains(replies[0], "ERROR") {
		t.Fatalf("what is given fails: %s", indent(replies[0]))
	}
	return replies[len(replies)-1]
}

// escape keeps the backslashes of a Go string from being read as those of a transcript.
func escape(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// inNotation writes the reply that a row wants as that of a server is written.
func inNotation(want string) string {
	m := masker{numbers: map[string]int{}, last: map[string]string{}}
	return m.mask([]byte(m.unmask(escape(want))))
}
