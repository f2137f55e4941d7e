package restore

import (
	"fmt"
	"strings"

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
	// Carried: the file was read from a disk, or copied, since it was written, maybe on another machine. Its items' checksums are worth a look. Otherwise its pages have stayed in
	// memory, and nothing could happen to them that could not while they were served.
	Carried bool
	// Torn: it may be old in parts, as after a power loss, and is taken over all the same. Nothing but the items can be trusted, and these only with their checksums.
	Torn bool
}

// Here is where and when the judging happens.
type Here struct {
	BootID    [16]byte
	SinceBoot int64 // nanoseconds
	Wall      int64 // seconds since 1970
}

// Policy is what the operator wants beyond what is safe, or below it.
type Policy struct {
	MaxDown   int64 // how many seconds nobody may have served the file; 0: any number
	PowerLoss bool  // take over what a power loss left
}

// FaultsMost is how many servers in a row may die by faults of their own before one starts cold: it may be the file that kills them.
const FaultsMost = 3

// Judge decides by the superblock alone, in constant time, what an opened file is worth to a server with pages of memory. It changes nothing. The
// first line that matches decides.
func Judge(f *mmapslab.File, pages int, here Here, want Policy) Verdict {
	cold := func(format string, args ...any) Verdict {
		return Verdict{Kind: Cold, Reason: fmt.Sprintf(format, args...)}
	}
	sb := f.Super
	if sb == nil {
		return cold("%s", f.Reason)
	}
	l := &sb.Layout
	clean := sb.State == mmapslab.Clean || sb.State == mmapslab.CleanDurable
	sameBoot := sb.BootID == here.BootID && sb.ClockBoot <= here.SinceBoot // a machine restored from an image may repeat its boot id
	copied := sb.Inode != f.Inode || sb.Device != f.Device
	warm := Verdict{Kind: Clean, Reason: "clean stop", Carried: !sameBoot || copied || f.OnDisk && sb.MountID != f.MountID}
	torn := ""
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
	case !clean && copied:
		return cold("file %d:%d, want %d:%d: it is a copy of one that was not closed", f.Device, f.Inode, sb.Device, sb.Inode)
	case sb.OwnFaults >= FaultsMost:
		return cold("%d servers in a row died by faults of their own, want fewer than %d%s", sb.OwnFaults, FaultsMost, firstLine(": ", f.Note))
	case sb.State == mmapslab.CleanDurable:
		warm.Reason = "clean stop, confirmed by the disk"
	case !sameBoot:
		torn = fmt.Sprintf("written under boot %x, now %x: after a power loss the file may be old in parts", sb.BootID, here.BootID)
	case f.OnDisk && sb.MountID != f.MountID:
		// Memory file systems have no older state to fall back to, and a container sees a new mount at each start.
		torn = fmt.Sprintf("written under mount %d, now %d: after losing the disk the file may be old in parts", sb.MountID, f.MountID)
	case sb.State == mmapslab.Running:
		warm = Verdict{Kind: Unclean, Reason: fmt.Sprintf("the last server, pid %d, was killed", sb.PID)}
		if OwnFault(f.Note) {
			warm.Reason = fmt.Sprintf("the last server, pid %d, died by a fault of its own, %d in a row%s", sb.PID, sb.OwnFaults, firstLine(": ", f.Note))
		}
	}
	if torn != "" {
		if !want.PowerLoss {
			return cold("%s", torn)
		}
		warm = Verdict{Kind: Unclean, Reason: torn, Carried: true, Torn: true}
	}
	if want.MaxDown > 0 {
		if down := downFor(f, here, sameBoot); down < 0 {
			return cold("last served %d s in the future: how long nobody did is unknown, want at most %d s (warm_max_down)", -down, want.MaxDown)
		} else if down > want.MaxDown {
			return cold("down for %d s, want at most %d (warm_max_down)", down, want.MaxDown)
		}
	}
	return warm
}

// downFor tells for how many seconds nobody has served the file. Within a boot the clock that no one sets tells, over boots only the wall clock can.
func downFor(f *mmapslab.File, here Here, sameBoot bool) int64 {
	sb := f.Super
	switch {
	case sameBoot:
		const second = 1e9
		return sb.ClockWall + (here.SinceBoot-sb.ClockBoot)/second - int64(f.LastSecond)
	case sb.Stopped != 0:
		return here.Wall - sb.Stopped
	}
	return here.Wall - int64(f.LastSecond)
}

// OwnFault tells whether a note that a server left as it died (mmapslab.File.OpenNotes) is about a panic or a fault of its own, rather than a signal that somebody sent.
//
// The note is the Go runtime's crash report: it writes one for a panic that nobody recovers, in whatever goroutine, for a fatal error, and for a signal that it
// does not know what to do with. So there is no mark to be set before a dangerous stretch and to be cleared behind it, which a kill would leave behind: SIGKILL, by the OOM
// killer too, SIGTERM and their like end a process without a word, and so do not count, attaching or not, however many come. Signals that make the runtime write a report
// although somebody sent them, such as SIGQUIT and SIGABRT, have a report that begins with the signal's name and says where it comes from: a sigcode of 0
// or below is another process (SI_USER, SI_QUEUE, SI_TKILL), as sigaction(2) has it.
func OwnFault(note string) bool {
	if note == "" {
		return false
	}
	first, rest, _ := strings.Cut(note, "\n")
	second, _, _ := strings.Cut(rest, "\n")
	_, code, told := strings.Cut(second, "sigcode=")
	sent := strings.HasPrefix(first, "SIG") && told && (strings.HasPrefix(code, "0") || strings.HasPrefix(code, "-"))
	return !sent
}

// firstLine returns sep and the first line of a note, shortened, or nothing.
func firstLine(sep, note string) string {
	const most = 200
	line, _, _ := strings.Cut(strings.TrimSpace(note), "\n")
	if line == "" {
		return ""
	}
	return sep + strings.ToValidUTF8(line[:min(len(line), most)], "?")
}
