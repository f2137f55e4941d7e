package restore_test

import (
	"fmt"
	"testing"

	"hearth/mmapslab"
	"hearth/restore"
)

var here = restore.Here{BootID: [16]byte{1, 2, 3}, SinceBoot: 5000e9, Wall: 1_700_000_000}

// What the Go runtime writes when a program ends by itself, and when somebody sends it a signal.
const (
	ownPanic  = "panic: boom\n\ngoroutine 18 [running]:\nmain.main.func1()\n"
	ownFault  = "[signal SIGBUS: bus error code=0x2 addr=0x7ff54c235000 pc=0x4a14d3]\n\ngoroutine 1 gp=0x1ba303e3e1e0 m=0 mp=0x58b000 [running]:\n"
	ownThrow  = "\ngoroutine 19 [running]:\ninternal/runtime/maps.fatal({0x4cb0f8?, 0x0?})\n"
	ownSignal = "SIGSEGV: segmentation violation\nPC=0x40866e m=0 sigcode=1 addr=0x1d99\n"
	sentQuit  = "SIGQUIT: quit\nPC=0x481141 m=0 sigcode=0\n"
	sentAbort = "SIGABRT: abort\nPC=0x481141 m=0 sigcode=0\n\ngoroutine 1 [running]:\n"
	sentSegv  = "SIGSEGV: segmentation violation\nPC=0x40866e m=0 sigcode=-6 addr=0x1d99\n"
)

func TestTellsItsOwnFaultsFromSignalsThatWereSent(t *testing.T) {
	for note, want := range map[string]bool{ownPanic: true, ownFault: true, ownThrow: true, ownSignal: true, sentQuit: false, sentAbort: false, sentSegv: false, "": false,
		"hearth: fault in the cache's memory at address 0x7: bus error\n": true} {
		if got := restore.OwnFault(note); got != want {
			t.Errorf("%q: %t", note, got)
		}
	}
}

// goodFile is a file on a disk whose last server stopped clean, within this boot.
func goodFile(t *testing.T) *mmapslab.File {
	t.Helper()
	f := newFixture(t)
	super := f.Store.Super()
	super.State, super.BootID, super.ClockBoot, super.ClockWall = mmapslab.Clean, here.BootID, here.SinceBoot-500e9, here.Wall-500
	super.Stopped = here.Wall - 100
	super.Device, super.Inode, super.MountID, super.PID = 7, 8, 9, 4711
	return &mmapslab.File{Super: &super, Size: int64(super.Layout.End), Device: 7, Inode: 8, MountID: 9, OnDisk: true, LastSecond: uint64(here.Wall - 100)}
}

func TestJudgesEachDifferenceAlone(t *testing.T) {
	good := goodFile(t)
	end := int64(good.Super.Layout.End)
	none := restore.Policy{}
	for _, c := range []struct {
		name   string
		change func(f *mmapslab.File)
		kind   restore.Kind
		reason string
		want   restore.Policy
	}{
		{"nothing", func(f *mmapslab.File) {}, restore.Clean, "clean stop", none},
		{"durable", func(f *mmapslab.File) { f.Super.State = mmapslab.CleanDurable }, restore.Clean, "clean stop, confirmed by the disk", none},
		{"killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running }, restore.Unclean, "the last server, pid 4711, was killed", none},

		{"no superblock", func(f *mmapslab.File) { f.Super, f.Reason = nil, "the file is new" }, restore.Cold, "the file is new", none},
		{"version", func(f *mmapslab.File) { f.Super.Version = 9 }, restore.Cold, "format version 9, want 2", none},
		{"feature", func(f *mmapslab.File) { f.Super.Incompat = 4 }, restore.Cold, "incompatible features 0x4, want none", none},
		{"compatible feature", func(f *mmapslab.File) { f.Super.Compat = 4 }, restore.Clean, "clean stop", none},
		{"arch", func(f *mmapslab.File) { f.Super.Arch = 0x177 }, restore.Cold, "architecture 0x177, want 0x1", none},
		{"page size", func(f *mmapslab.File) { f.Super.Layout.PageSize = 4096 }, restore.Cold, "page size 4096, want 1048576", none},
		{"layout", func(f *mmapslab.File) { f.Super.Layout.Links++ }, restore.Cold, "", none},
		{"cut off", func(f *mmapslab.File) { f.Size-- }, restore.Cold, "", none},
		{"longer", func(f *mmapslab.File) { f.Size++ }, restore.Clean, "clean stop", none},
		{"creating", func(f *mmapslab.File) { f.Super.State = mmapslab.Creating }, restore.Cold,
			"state creating, want running or clean: the server died while it made the file", none},
		{"no state", func(f *mmapslab.File) { f.Super.State = 77 }, restore.Cold, "state 77, want running or clean", none},
		{"too small for -m", func(f *mmapslab.File) {
			f.Super.Layout = mmapslabLayout(t, 7, f)
			f.Size = int64(f.Super.Layout.End)
		}, restore.Cold, "room for 7 pages of memory, want 8", none},

		{"copied, clean", func(f *mmapslab.File) { f.Inode = 99 }, restore.Clean, "clean stop", none},
		{"copied, killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running; f.Inode = 99 }, restore.Cold,
			"file 7:99, want 7:8: it is a copy of one that was not closed", none},
		{"on another device, killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running; f.Device = 3 }, restore.Cold,
			"file 3:8, want 7:8: it is a copy of one that was not closed", none},

		{"boot, clean", func(f *mmapslab.File) { f.Super.BootID[0] = 9 }, restore.Cold,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts", none},
		{"boot, killed", func(f *mmapslab.File) { f.Super.BootID[0] = 9; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts", none},
		{"boot, durable", func(f *mmapslab.File) { f.Super.BootID[0] = 9; f.Super.State = mmapslab.CleanDurable }, restore.Clean,
			"clean stop, confirmed by the disk", none},
		{"boot id again, earlier", func(f *mmapslab.File) { f.Super.ClockBoot = here.SinceBoot + 1; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under boot 01020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts", none},

		{"mount, on disk", func(f *mmapslab.File) { f.MountID = 10 }, restore.Cold,
			"written under mount 9, now 10: after losing the disk the file may be old in parts", none},
		{"mount, on disk, killed", func(f *mmapslab.File) { f.MountID = 10; f.Super.State = mmapslab.Running }, restore.Cold,
			"written under mount 9, now 10: after losing the disk the file may be old in parts", none},
		{"mount, durable", func(f *mmapslab.File) { f.MountID = 10; f.Super.State = mmapslab.CleanDurable }, restore.Clean,
			"clean stop, confirmed by the disk", none},
		{"mount, in memory, killed", func(f *mmapslab.File) { f.MountID = 10; f.OnDisk = false; f.Super.State = mmapslab.Running }, restore.Unclean,
			"the last server, pid 4711, was killed", none},

		{"down for just long enough", func(f *mmapslab.File) {}, restore.Clean, "clean stop", restore.Policy{MaxDown: 100}},
		{"down for too long", func(f *mmapslab.File) {}, restore.Cold, "down for 100 s, want at most 99 (warm_max_down)", restore.Policy{MaxDown: 99}},
		{"down for too long, killed", func(f *mmapslab.File) { f.Super.State, f.Super.Stopped = mmapslab.Running, 0 }, restore.Cold,
			"down for 100 s, want at most 99 (warm_max_down)", restore.Policy{MaxDown: 99}},
		{"down for long enough, the wall clock was set", func(f *mmapslab.File) { f.Super.Stopped = here.Wall - 1e6 }, restore.Clean, "clean stop", restore.Policy{MaxDown: 100}},
		{"last second in the future", func(f *mmapslab.File) { f.LastSecond = uint64(here.Wall + 9) }, restore.Cold,
			"last served 9 s in the future: how long nobody did is unknown, want at most 3600 s (warm_max_down)", restore.Policy{MaxDown: 3600}},
		{"last second in the future, no matter", func(f *mmapslab.File) { f.LastSecond = uint64(here.Wall + 9) }, restore.Clean, "clean stop", none},
		{"down for too long over a boot", func(f *mmapslab.File) {
			f.Super.BootID[0], f.Super.State, f.LastSecond = 9, mmapslab.CleanDurable, uint64(here.Wall)
		}, restore.Cold, "down for 100 s, want at most 99 (warm_max_down)", restore.Policy{MaxDown: 99}},
		{"stopped in the future of a wall clock that was set", func(f *mmapslab.File) {
			f.Super.BootID[0], f.Super.State, f.Super.Stopped = 9, mmapslab.CleanDurable, here.Wall+1e6
		}, restore.Cold, "last served 1000000 s in the future: how long nobody did is unknown, want at most 99 s (warm_max_down)", restore.Policy{MaxDown: 99}},

		{"power loss", func(f *mmapslab.File) { f.Super.BootID[0], f.Super.State = 9, mmapslab.Running }, restore.Unclean,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts",
			restore.Policy{PowerLoss: true}},
		{"power loss after a clean stop", func(f *mmapslab.File) { f.Super.BootID[0] = 9 }, restore.Unclean,
			"written under boot 09020300000000000000000000000000, now 01020300000000000000000000000000: after a power loss the file may be old in parts",
			restore.Policy{PowerLoss: true}},
		{"power loss, down for too long", func(f *mmapslab.File) {
			f.Super.BootID[0], f.Super.State, f.Super.Stopped = 9, mmapslab.Running, 0
		}, restore.Cold, "down for 100 s, want at most 60 (warm_max_down)", restore.Policy{PowerLoss: true, MaxDown: 60}},
		{"power loss of a copy", func(f *mmapslab.File) { f.Super.BootID[0], f.Super.State, f.Inode = 9, mmapslab.Running, 99 }, restore.Cold,
			"file 7:99, want 7:8: it is a copy of one that was not closed", restore.Policy{PowerLoss: true}},
		{"lost mount", func(f *mmapslab.File) { f.MountID, f.Super.State = 10, mmapslab.Running }, restore.Unclean,
			"written under mount 9, now 10: after losing the disk the file may be old in parts", restore.Policy{PowerLoss: true}},

		{"a fault of its own", func(f *mmapslab.File) { f.Super.State, f.Super.OwnFaults, f.Note = mmapslab.Running, 1, ownPanic }, restore.Unclean,
			"the last server, pid 4711, died by a fault of its own, 1 in a row: panic: boom", none},
		{"killed after faults of its own", func(f *mmapslab.File) { f.Super.State, f.Super.OwnFaults = mmapslab.Running, 2 }, restore.Unclean,
			"the last server, pid 4711, was killed", none},
		{"killed by a signal that makes a note", func(f *mmapslab.File) { f.Super.State, f.Note = mmapslab.Running, sentAbort }, restore.Unclean,
			"the last server, pid 4711, was killed", none},
		{"killed a thousand times", func(f *mmapslab.File) { f.Super.State, f.Super.Unclean = mmapslab.Running, 1000 }, restore.Unclean,
			"the last server, pid 4711, was killed", none},
		{"a crash loop", func(f *mmapslab.File) { f.Super.State, f.Super.OwnFaults, f.Note = mmapslab.Running, 3, ownPanic }, restore.Cold,
			"3 servers in a row died by faults of their own, want fewer than 3: panic: boom", none},
		{"a crash loop before the first change", func(f *mmapslab.File) { f.Super.OwnFaults = 3 }, restore.Cold,
			"3 servers in a row died by faults of their own, want fewer than 3", none},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, super := *good, *good.Super
			f.Super = &super
			c.change(&f)
			v := restore.Judge(&f, 8, here, c.want)
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

// Checksums are looked at where the bytes have been elsewhere than in this machine's memory.
func TestKnowsAFileThatWasCarried(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(f *mmapslab.File)
		carried bool
	}{
		{"it stayed", func(*mmapslab.File) {}, false},
		{"killed", func(f *mmapslab.File) { f.Super.State = mmapslab.Running }, false},
		{"another mount of what is in memory", func(f *mmapslab.File) { f.MountID, f.OnDisk = 10, false }, false},
		{"another boot", func(f *mmapslab.File) { f.Super.BootID[0] = 9 }, true},
		{"another mount", func(f *mmapslab.File) { f.MountID = 10 }, true},
		{"a copy", func(f *mmapslab.File) { f.Inode = 99 }, true},
		{"on another device", func(f *mmapslab.File) { f.Device = 99 }, true},
	} {
		f := goodFile(t)
		f.Super.State = mmapslab.CleanDurable
		c.change(f)
		if v := restore.Judge(f, 8, here, restore.Policy{}); v.Kind == restore.Cold || v.Carried != c.carried {
			t.Errorf("%s: %v, carried %t, want %t", c.name, v.Kind, v.Carried, c.carried)
		}
	}
}
