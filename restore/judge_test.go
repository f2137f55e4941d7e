package restore_test

import (
	"fmt"
	"testing"

	"hearth/mmapslab"
	"hearth/restore"
)

var here = restore.Here{BootID: [16]byte{1, 2, 3}, SinceBoot: 1000}

// goodFile is a file on a disk whose last server stopped clean, within this boot.
func goodFile(t *testing.T) *mmapslab.File {
	t.Helper()
	f := newFixture(t)
	super := f.Store.Super()
	super.State, super.BootID, super.ClockBoot = mmapslab.Clean, here.BootID, here.SinceBoot
	super.Device, super.Inode, super.MountID, super.PID = 7, 8, 9, 4711
	return &mmapslab.File{Super: &super, Size: int64(super.Layout.End), Device: 7, Inode: 8, MountID: 9, OnDisk: true}
}

func TestJudgesEachDifferenceAlone(t *testing.T) {
	good := goodFile(t)
	end := int64(good.Super.Layout.End)
	for _, c := range []struct {
		name   string
		change func(f *mmapslab.File)
		kind   restore.Kind
		reason string
	}{
		{"nothing", func(f *mmapslab.File) {}, restore.Clean, "clean stop"},
		{"durable", func(f *mmapslab.File) { f.Super.State = mmapslab.CleanDurable }, restore.Clean, "clean stop, confirmed by the disk"},
		{"killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running }, restore.Unclean, "the last server, pid 4711, was killed"},

		{"no superblock", func(f *mmapslab.File) { f.Super, f.Reason = nil, "the file is new" }, restore.Cold, "the file is new"},
		{"version", func(f *mmapslab.File) { f.Super.Version = 9 }, restore.Cold, "format version 9, want 2"},
		{"feature", func(f *mmapslab.File) { f.Super.Incompat = 4 }, restore.Cold, "incompatible features 0x4, want none"},
		{"compatible feature", func(f *mmapslab.File) { f.Super.Compat = 4 }, restore.Clean, "clean stop"},
		{"arch", func(f *mmapslab.File) { f.Super.Arch = 0x177 }, restore.Cold, "architecture 0x177, want 0x1"},
		{"page size", func(f *mmapslab.File) { f.Super.Layout.PageSize = 4096 }, restore.Cold, "page size 4096, want 1048576"},
		{"layout", func(f *mmapslab.File) { f.Super.Layout.Links++ }, restore.Cold, ""},
		{"cut off", func(f *mmapslab.File) { f.Size-- }, restore.Cold, ""},
		{"longer", func(f *mmapslab.File) { f.Size++ }, restore.Clean, "clean stop"},
		{"creating", func(f *mmapslab.File) { f.Super.State = mmapslab.Creating }, restore.Cold,
			"state creating, want running or clean: the server died while it made the file"},
		{"no state", func(f *mmapslab.File) { f.Super.State = 77 }, restore.Cold, "state 77, want running or clean"},
		{"too small for -m", func(f *mmapslab.File) {
			f.Super.Layout = mmapslabLayout(t, 7, f)
			f.Size = int64(f.Super.Layout.End)
		}, restore.Cold, "room for 7 pages of memory, want 8"},

		{"copied, clean", func(f *mmapslab.File) { f.Inode = 99 }, restore.Clean, "clean stop"},
		{"copied, killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running; f.Inode = 99 }, restore.Cold,
			"file 7:99, want 7:8: it is a copy of one that was not closed"},
		{"on another device, killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running; f.Device = 3 }, restore.Cold,
			"file 3:8, want 7:8: it is a copy of one that was not closed"},

		{"boot, clean", func(f *mmapslab.File) { f.Super.BootID[0] = 9 }, restore.Cold,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts"},
		{"boot, killed", func(f *mmapslab.File) { f.Super.BootID[0] = 9; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts"},
		{"boot, durable", func(f *mmapslab.File) { f.Super.BootID[0] = 9; f.Super.State = mmapslab.CleanDurable }, restore.Clean,
			"clean stop, confirmed by the disk"},
		{"boot id again, earlier", func(f *mmapslab.File) { f.Super.ClockBoot = here.SinceBoot + 1; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under boot 01020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts"},

		{"mount, on disk", func(f *mmapslab.File) { f.MountID = 10 }, restore.Cold,
			"written under mount 9, now 10: after losing the disk the file may be old in parts"},
		{"mount, on disk, killed", func(f *mmapslab.File) { f.MountID = 10; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under mount 9, now 10: after losing the disk the file may be old in parts"},
		{"mount, durable", func(f *mmapslab.File) { f.MountID = 10; f.Super.State = mmapslab.CleanDurable }, restore.Clean,
			"clean stop, confirmed by the disk"},
		{"mount, in memory, killed", func(f *mmapslab.File) { f.MountID = 10; f.OnDisk = false; f.Super.State = mmapslab.Running }, restore.Unclean,
			"the last server, pid 4711, was killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, super := *good, *good.Super
			f.Super = &super
			c.change(&f)
			v := restore.Judge(&f, 8, here)
			want := c.reason
			switch c.name { // these name values that depend on the layout
			case "layout":
				want = v.Reason
				if v.Reason == "" {
					t.Error("no reason")
				}
			case "cut off":
				want = fmtBytes(end)
			}
			if v.Kind != c.kind || v.Reason != want {
				t.Errorf("%v: %s\nwant %v: %s", v.Kind, v.Reason, c.kind, want)
			}
		})
	}
}

func fmtBytes(end int64) string {
	return fmt.Sprintf("file of %d bytes, want %d: it was cut off", end-1, end)
}

// mmapslabLayout is the layout of a file with another room, taken from one: layouts are mmapslab's to make.
func mmapslabLayout(t *testing.T, room uint32, f *mmapslab.File) mmapslab.Layout {
	t.Helper()
	l := f.Super.Layout
	const huge = 2 << 20
	up := func(n uint64) uint64 { return (n + huge - 1) / huge * huge }
	l.Room = room
	l.HalfSize = up(uint64(room) * (mmapslab.PageSize / uint64(l.MinChunk)) * 10)
	l.Index = [2]uint64{huge, huge + l.HalfSize}
	l.Links = huge + 2*l.HalfSize
	l.Pages = up(l.Links + uint64(room+1)<<17)
	l.End = l.Pages + uint64(room)*mmapslab.PageSize
	if !l.Valid() {
		t.Fatalf("layout %+v", l)
	}
	return l
}
