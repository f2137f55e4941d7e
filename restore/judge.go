package restore

import (
	"fmt"

	"hearth/mmapslab"
)

// Kind is how a start finds the cache.
type Kind int

const (
	// Cold starts with an empty cache.
	Cold Kind = iota
	// Clean takes everything over as an orderly stop left it.
	Clean
	// Unclean takes over what the index names, after a kill.
	Unclean
)

func (k Kind) String() string { return [...]string{"cold", "clean", "unclean"}[k] }

// Verdict is what Judge decided. Reason says why: for Cold what was found and what was wanted.
type Verdict struct {
	Kind   Kind
	Reason string
}

// Here is where and when the judging happens.
type Here struct {
	BootID    [16]byte
	SinceBoot int64 // nanoseconds
}

// Judge decides by the superblock alone, in constant time, what an opened file is worth to a server with pages of memory. It changes nothing. The
// first line that matches decides.
func Judge(f *mmapslab.File, pages int, here Here) Verdict {
	cold := func(format string, args ...any) Verdict { return Verdict{Cold, fmt.Sprintf(format, args...)} }
	sb := f.Super
	if sb == nil {
		return cold("%s", f.Reason)
	}
	l := &sb.Layout
	clean := sb.State == mmapslab.Clean || sb.State == mmapslab.CleanDurable
	sameBoot := sb.BootID == here.BootID && sb.ClockBoot <= here.SinceBoot // a machine restored from an image may repeat its boot id
	switch {
	case sb.Version != mmapslab.Version:
		return cold("format version %d, want %d", sb.Version, mmapslab.Version)
	case sb.Incompat != 0:
		return cold("incompatible features %#x, want none", sb.Incompat)
	case sb.Arch != mmapslab.Arch():
		return cold("architecture %#x, want %#x", sb.Arch, mmapslab.Arch())
	case l.PageSize != mmapslab.PageSize:
		return cold("page size %d, want %d", l.PageSize, mmapslab.PageSize)
	case !l.Valid():
		return cold("layout %+v is impossible", *l)
	case f.Size < int64(l.End):
		return cold("file of %d bytes, want %d: it was cut off", f.Size, l.End)
	case sb.State == mmapslab.Creating:
		return cold("state %s, want running or clean: the server died while it made the file", sb.State)
	case !clean && sb.State != mmapslab.Running:
		return cold("%s, want running or clean", sb.State)
	case int(l.Room) < pages:
		return cold("room for %d pages of memory, want %d", l.Room, pages)
	case !clean && (sb.Inode != f.Inode || sb.Device != f.Device):
		return cold("file %d:%d, want %d:%d: it is a copy of one that was not closed", f.Device, f.Inode, sb.Device, sb.Inode)
	case sb.State == mmapslab.CleanDurable:
		return Verdict{Clean, "clean stop, confirmed by the disk"}
	case !sameBoot:
		return cold("written under boot %x, now %x: after a power loss the file may be old in parts", sb.BootID, here.BootID)
	case f.OnDisk && sb.MountID != f.MountID:
		// Memory file systems have no older state to fall back to, and a container sees a new mount at each start.
		return cold("written under mount %d, now %d: after losing the disk the file may be old in parts", sb.MountID, f.MountID)
	case sb.State == mmapslab.Clean:
		return Verdict{Clean, "clean stop"}
	}
	return Verdict{Unclean, fmt.Sprintf("the last server, pid %d, was killed", sb.PID)}
}
