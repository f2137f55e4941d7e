package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// skipWithoutHugePages skips the test where -L is refused.
func skipWithoutHugePages(t *testing.T) {
	if err := hugePagesHere(); err != nil {
		t.Skip(err)
	}
}

// mapped is a mapping of a process.
type mapped struct {
	path    string
	advised bool // VmFlags has hg
	huge    int  // kB in huge pages
}

// mappings reads the mappings of a process.
func mappings(t *testing.T, pid int) (all []mapped) {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(smaps)) {
		words := strings.Fields(line)
		key, isRow := strings.CutSuffix(words[0], ":")
		switch {
		case !isRow:
			all = append(all, mapped{path: strings.Join(words[5:], " ")})
		case key == "AnonHugePages" || key == "ShmemPmdMapped":
			kb := 0
			fmt.Sscan(words[1], &kb)
			all[len(all)-1].huge += kb
		case key == "VmFlags":
			all[len(all)-1].advised = strings.Contains(line+" ", " hg ")
		}
	}
	return all
}

// fill stores 6 MB, items from a number on.
func fill(t *testing.T, addr string, from int) {
	t.Helper()
	s := newNumbered(from+64, 100<<10)
	if err := s.load(addr, from, from+64, true, new(atomic.Int64)); err != nil {
		t.Fatal(err)
	}
}

func TestLargePagesAreAskedForWithLAlone(t *testing.T) {
	linuxOnly(t)
	skipWithoutHugePages(t)
	for _, args := range [][]string{{"-L"}, {"-k"}} {
		p := startHearthd(t, append(args, "-m", "64")...)
		fill(t, p.addr, 0)
		advised, huge := 0, 0
		for _, m := range mappings(t, p.cmd.Process.Pid) {
			if m.advised && m.path == "" {
				advised++
				huge += m.huge
			}
		}
		if want := args[0] == "-L"; want != (advised > 0) {
			t.Errorf("%s: %d anonymous mappings have the flag hg", args, advised)
		}
		t.Logf("%s: %d kB of huge pages after 6 MB of items", args, huge)
	}
}

func TestLargePagesOfAFile(t *testing.T) {
	linuxOnly(t)
	skipWithoutHugePages(t)
	ofFile := func(p *proc, file string) (all mapped) {
		for _, m := range mappings(t, p.cmd.Process.Pid) {
			if m.path == file {
				all.advised = all.advised || m.advised
				all.huge += m.huge
			}
		}
		return all
	}
	const line = "no huge pages"

	// Where the file system has none, that is told and nothing else is different.
	file := newFile(t)
	p := startHearthd(t, "-L", "-e", file)
	store(t, p.addr, "k", "v")
	if got := strings.Count(p.stderr.String(), line); got != 1 && ofFile(p, file).huge == 0 {
		t.Errorf("%d lines tell that there are none\n%s", got, p.stderr)
	}
	p.stop(t, syscall.SIGKILL)
	if p = startHearthd(t, "-L", "-e", file); !holds(t, p.addr, "k", "v") {
		t.Error("the item is gone")
	}
	p.stop(t, syscall.SIGTERM)
	if p = startHearthd(t, "-e", file); strings.Contains(p.stderr.String(), line) {
		t.Errorf("nobody asked for them:\n%s", p.stderr)
	}

	file = filepath.Join(mountHuge(t, "size=256m"), "slab")
	for _, start := range []string{"cold", "warm"} {
		before := fallbacks(t)
		p = startHearthd(t, "-L", "-e", file)
		fill(t, p.addr, 0)
		if m := ofFile(p, file); !m.advised || m.huge == 0 && fallbacks(t) == before || strings.Contains(p.stderr.String(), line) {
			t.Errorf("%s, on a tmpfs with huge=advise: %+v\n%s", start, m, p.stderr)
		}
		p.stop(t, syscall.SIGTERM)
	}
}

// mountHuge mounts a tmpfs that gives huge pages to those who ask.
func mountHuge(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "huge=advise,"+size); err != nil {
		t.Skipf("mount a tmpfs with huge=advise: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fallbacks counts how often the kernel gave a file small pages since it had no huge one.
func fallbacks(t *testing.T) (n int) {
	t.Helper()
	vmstat, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	_, row, _ := strings.Cut(string(vmstat), "thp_file_fallback ")
	fmt.Sscan(row, &n)
	return n
}

func TestLargePagesOfAFullFileSystemAreEvictions(t *testing.T) {
	skipWithoutHugePages(t)
	p := startHearthd(t, "-L", "-m", "64", "-e", filepath.Join(mountHuge(t, "size=28m"), "slab"))
	for i := range 8 { // 48 MB
		fill(t, p.addr, 64*i)
		store(t, p.addr, "last", "value")
	}
	if !holds(t, p.addr, "last", "value") {
		t.Error("the last item is gone")
	}
}

func TestLargePagesAreRefusedWhereTheKernelHasNone(t *testing.T) {
	was := thpSettings
	defer func() { thpSettings = was }()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	absent := filepath.Join(dir, "absent")
	for _, c := range []struct {
		settings []string
		want     string
	}{
		{[]string{write("never", "always madvise [never]\n"), absent}, "Transparent huge pages support disabled."},
		{[]string{absent, write("redhat", "always madvise [never]\n")}, "Transparent huge pages support disabled."},
		{[]string{write("empty", "")}, "Transparent huge pages could not read the configuration."},
		{[]string{absent}, "Transparent huge pages support not detected."},
		{[]string{absent, write("madvise", "always [madvise] never\n")}, ""},
		{[]string{write("always", "[always] madvise never\n")}, ""},
	} {
		thpSettings = c.settings
		cfg, err := parseLine("-L")
		if c.want == "" {
			if err != nil || !cfg.cache.HugePages {
				t.Errorf("%v: %v", c.settings, err)
			}
			continue
		}
		var stop *exit
		if want := c.want + "\nWill use default page size.\nCannot enable large pages on this system\n(There is no support as of this version)\n"; !errors.As(err, &stop) ||
			stop.code != 1 || stop.stderr != want {
			t.Errorf("%v: %v, want exit 1 and %q", c.settings, err, want)
		}
	}
	if memcached, err := exec.LookPath("memcached"); err == nil { // the words are memcached's
		program, err := os.ReadFile(memcached)
		if err != nil {
			t.Fatal(err)
		}
		for _, words := range []string{"Transparent huge pages support disabled.", "Transparent huge pages could not read the configuration.",
			"Transparent huge pages support not detected.", "Will use default page size.", "Cannot enable large pages on this system", "(There is no support as of this version)"} {
			if !strings.Contains(string(program), words) {
				t.Errorf("memcached does not say %q", words)
			}
		}
	}
}
