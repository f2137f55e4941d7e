// Package release_test tests what tools/release/build makes of the commit that is checked out. It compiles everything anew, and installs a Debian; so it
// runs with HEARTH_LONG=1 only, and needs root, debootstrap and systemd-nspawn (apt-get install debootstrap systemd-container) for the latter.
package release_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"debug/macho"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs a command that must succeed and returns what it prints on standard output.
func run(t *testing.T, dir string, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	errs := new(strings.Builder)
	cmd.Stderr = errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", command, err, out, errs)
	}
	return string(out)
}

// build clones the commit into a directory of its own and builds it there.
func build(t *testing.T, env []string, flags ...string) (out string) {
	t.Helper()
	if os.Getenv("HEARTH_LONG") == "" {
		t.Skip("takes minutes; set HEARTH_LONG=1")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	out = t.TempDir()
	run(t, "../..", nil, "git", "clone", "-q", ".", clone)
	run(t, clone, env, append([]string{filepath.Join(clone, "tools/release/build")}, append(flags, out)...)...)
	return out
}

// sums are the checksums of all files of a directory.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = sha256.Sum256(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTwoBuildsOfOneCommitAreTheSameBytes(t *testing.T) {
	one := build(t, nil)
	// Elsewhere, by somebody who has compiled nothing yet, in another time zone and with habits.
	two := build(t, []string{"GOCACHE=" + t.TempDir(), "TZ=Asia/Kathmandu", "GOFLAGS=-buildvcs=true", "GOAMD64=v2", "CGO_ENABLED=1", "LANG=C.UTF-8"})
	a, b := sums(t, one), sums(t, two)
	if len(a) < 12 || len(a) != len(b) {
		t.Fatalf("%d and %d files, want 12 at least and the same", len(a), len(b))
	}
	for name, sum := range a {
		if b[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		f, err := elf.Open(filepath.Join(one, "linux_"+arch, "hearthd"))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine {
			t.Errorf("%s: machine %v, want %v", arch, f.Machine, machine)
		}
		if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s: libraries %v, %v, want none", arch, libraries, err)
		}
		f.Close()
	}
	f, err := macho.Open(filepath.Join(one, "darwin_arm64", "hearthd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Cpu != macho.CpuArm64 {
		t.Errorf("darwin: %v, want %v", f.Cpu, macho.CpuArm64)
	}
	commit := strings.TrimSpace(run(t, "../..", nil, "git", "log", "-1", "--abbrev=12", "--format=%h"))
	tag, _ := exec.Command("git", "describe", "--exact-match", "--match", "v[0-9]*").Output()
	want := "0.0.0-"
	if len(tag) > 0 {
		want = string(bytes.TrimSpace(tag)[1:])
	}
	for program, flag := range map[string]string{"hearthd": "-V", "slabctl": "--version"} {
		if version := run(t, one, nil, "linux_amd64/"+program, flag); !strings.Contains(version, want) || len(tag) == 0 && !strings.Contains(version, "."+commit) {
			t.Errorf("%s says %q at commit %s", program, version, commit)
		}
	}
}

// A Debian of its own, with its own systemd as process 1, installs the package and goes through installed.sh.
func TestPackageServesAndStaysWarmUnderSystemd(t *testing.T) {
	if os.Getenv("HEARTH_LONG") != "" {
		for _, program := range []string{"debootstrap", "systemd-nspawn"} {
			if _, err := exec.LookPath(program); err != nil || os.Getuid() != 0 {
				t.Skipf("wants root and %s (apt-get install debootstrap systemd-container)", program)
			}
		}
	}
	out := build(t, nil)
	packages, _ := filepath.Glob(filepath.Join(out, "*_amd64.deb"))
	if len(packages) != 1 {
		t.Fatalf("packages %q", packages)
	}
	root := filepath.Join(t.TempDir(), "root")
	if kept := os.Getenv("HEARTH_DEBIAN"); kept != "" { // a root that debootstrap made before
		run(t, "", nil, "cp", "-a", kept, root)
	} else {
		run(t, "", nil, "debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,adduser,dbus,procps", "bookworm", root)
	}
	shared := t.TempDir()
	run(t, "", nil, "cp", packages[0], filepath.Join(shared, "hearth.deb"))
	run(t, "", nil, "cp", "installed.sh", shared)
	unit := "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nStandardOutput=file:/shared/said\nStandardError=inherit\nExecStart=/shared/installed.sh\n" +
		"ExecStopPost=/bin/systemctl --no-block poweroff\n"
	if err := os.WriteFile(filepath.Join(root, "etc/systemd/system/installed.service"), []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(root, "etc/systemd/system/multi-user.target.wants/installed.service")
	if err := os.Symlink("../installed.service", target); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-nspawn", "--quiet", "--directory="+root, "--register=no", "--keep-unit", "--private-network", "--console=pipe",
		"--bind="+shared+":/shared", "--boot")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	log, err := cmd.CombinedOutput()
	said, _ := os.ReadFile(filepath.Join(shared, "said"))
	if err != nil || string(said) != "ok\n" {
		t.Fatalf("the machine ended with %v\n%s\ninstalled.sh said:\n%s", err, log, said)
	}
}
