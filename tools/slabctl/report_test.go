package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// element is a start tag.
type element struct {
	name  string
	attrs map[string]string
}

// parseHTML reads a page whose tags all nest, and fails where they do not.
func parseHTML(t *testing.T, page string) (all []element, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.Entity = true, xml.HTMLEntity
	var b strings.Builder
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all, b.String()
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{token.Name.Local, map[string]string{}}
			for _, a := range token.Attr {
				name := a.Name.Local
				if a.Name.Space != "" {
					name = a.Name.Space + ":" + name
				}
				e.attrs[name] = a.Value
			}
			all = append(all, e)
		case xml.CharData:
			b.Write(token)
		}
	}
}

// A report is one page: its tags nest, ids are unique and there, nothing comes from elsewhere, every chart has its figures as text, and keys cannot break out of it.
func TestReportIsOnePageThatSaysEverythingInText(t *testing.T) {
	file := small(t)
	before := sum(t, file)
	all := append(things(300), thing{key: "<script>alert(1)</script>:x", value: make([]byte, 30000)})
	writeFile(t, "odd.slab", 64, all)
	damaged := copyOf(t, file)
	flip(t, damaged, itemOffset(t, file, "user:5")+50, 1)
	empty := "empty.slab"
	writeFile(t, empty, 8, nil)
	for _, name := range []string{file, "odd.slab", damaged, empty} {
		t.Run(name, func(t *testing.T) {
			must(t, "report", name, "-o", "report.html")
			page, err := os.ReadFile("report.html")
			if err != nil {
				t.Fatal(err)
			}
			elements, text := parseHTML(t, string(page))
			ids := map[string]int{}
			for _, e := range elements {
				if id := e.attrs["id"]; id != "" {
					ids[id]++
				}
			}
			for id, n := range ids {
				if n > 1 {
					t.Errorf("id %q comes %d times", id, n)
				}
			}
			maps := 0
			for _, e := range elements {
				for _, id := range strings.Fields(e.attrs["aria-labelledby"]) {
					if ids[id] == 0 {
						t.Errorf("%s is labelled by %q, which is not there", e.name, id)
					}
				}
				for _, attr := range []string{"src", "href", "action", "data", "poster"} {
					if e.attrs[attr] != "" {
						t.Errorf("%s has %s=%q", e.name, attr, e.attrs[attr])
					}
				}
				switch e.name {
				case "script", "link", "img", "iframe", "object":
					t.Errorf("the page has a %s", e.name)
				case "svg":
					if e.attrs["role"] == "img" {
						maps++
						if len(strings.Fields(e.attrs["aria-labelledby"])) != 2 {
							t.Errorf("a chart has the alternatives %q, want a title and a text", e.attrs["aria-labelledby"])
						}
					} else if e.attrs["aria-hidden"] != "true" && e.attrs["class"] != "bar" {
						t.Errorf("a picture %v is neither labelled nor hidden", e.attrs)
					}
				}
			}
			if maps != 3 {
				t.Errorf("%d page maps, want 3: class, fill, age", maps)
			}
			if regexp.MustCompile(`url\(|@import|https?://`).Match(page) {
				t.Error("the page loads something")
			}
			for _, want := range []string{"check", "pages", "waste", "prefixes", "sizes", "ttl", "ages", "summary"} {
				if ids[want] != 1 {
					t.Errorf("there is no section %q", want)
				}
			}
			switch name {
			case file:
				for _, want := range []string{"Sound: 66 items", "img:", "slack"} {
					if !strings.Contains(text, want) {
						t.Errorf("the text does not have %q", want)
					}
				}
			case damaged:
				if !strings.Contains(text, `checksum of item "user:5" does not match`) {
					t.Error("the text does not have the finding")
				}
			}
		})
	}
	if after := sum(t, file); after != before {
		t.Error("report changed the file")
	}
}

// chromium runs a headless browser on a page and gives what it prints; the test is skipped where there is none.
func chromium(t *testing.T, page string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	cmd := exec.Command(path, append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(), "--hide-scrollbars", "--allow-file-access-from-files", "--virtual-time-budget=5000"}, append(args, "file://"+page)...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

// In a browser no text runs over the edge of a phone, a tablet or a desk's screen, nor over its neighbours.
func TestReportFitsScreens(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed")
	}
	small(t)
	writeFile(t, "odd.slab", 64, things(300))
	must(t, "report", "odd.slab", "-o", "report.html")
	widths := []int{360, 768, 1280}
	var frames strings.Builder
	for _, w := range widths {
		fmt.Fprintf(&frames, `<iframe src="report.html" style="width:%dpx;height:600px;border:0"></iframe>`, w)
	}
	const script = `<script>onload = () => { const out = []; for (const f of document.querySelectorAll("iframe")) { const d = f.contentDocument; const w = d.documentElement.clientWidth;
let over = []; for (const e of d.querySelectorAll("body *")) { const s = f.contentWindow.getComputedStyle(e); if (s.display === "none" || e.closest(".scroll")) continue; const r = e.getBoundingClientRect(); if (r.right > w + 1) over.push(e.tagName + "." + e.className); }
out.push(w + " wide, " + d.documentElement.scrollWidth + " needed, over the edge: " + over.length + " " + over.slice(0, 3)); } document.title = "done"; document.body.innerText = out.join("\n"); }</script>`
	page, err := filepath.Abs("frames.html")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("<!DOCTYPE html><title>x</title><body>"+frames.String()+script), 0o644); err != nil {
		t.Fatal(err)
	}
	out := chromium(t, page, "--dump-dom")
	found := regexp.MustCompile(`(\d+) wide, (\d+) needed, over the edge: (\d+)[^<\n]*`).FindAllStringSubmatch(out, -1)
	if len(found) != len(widths) {
		t.Fatalf("the browser measured %d frames, want %d:\n%s", len(found), len(widths), out)
	}
	for _, m := range found {
		if m[1] != m[2] || m[3] != "0" {
			t.Errorf("%s", m[0])
		}
	}
	if !slices.ContainsFunc(found, func(m []string) bool { return m[1] == "360" }) {
		t.Errorf("no frame was 360 wide: %v", found)
	}
}
