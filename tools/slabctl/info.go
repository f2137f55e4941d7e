package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func infoCommand() *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "what the file is, and what a start would make of it", ArgsUsage: "FILE",
		Flags: []cli.Flag{&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "the start's `SIZE` of -m in place of the file's"}},
		Action: func(c *cli.Context) error {
			if err := arguments(c, "FILE"); err != nil {
				return err
			}
			in, err := inspect(c.Args().First())
			if err != nil {
				return fmt.Errorf("slabctl: %w", err)
			}
			defer in.Close()
			return info(c, in)
		},
	}
}

func info(c *cli.Context, in *restore.Inspected) error {
	say := func(what, format string, args ...any) {
		fmt.Fprintf(c.App.Writer, "%-14s %s\n", what, fmt.Sprintf(format, args...))
	}
	f := in.File
	on := "memory"
	if f.OnDisk {
		on = "disk"
	}
	say("file", "%s, on %s, %s long", f.Path(), on, size(f.Size))
	sb := f.Super
	if sb == nil {
		say("superblock", "none: %s", f.Reason)
	} else {
		say("version", "%d, this build reads %d; architecture %#x", sb.Version, mmapslab.Version, sb.Arch)
	}
	if sb != nil && sb.Version == mmapslab.Version {
		infoSuper(in, say)
	}
	if in.Store != nil {
		infoContents(in, say)
	}
	if in.Err != nil {
		say("unreadable", "%v", in.Err)
	}
	pages := 0
	if sb != nil {
		pages = int(sb.PageLimit)
	}
	if m := c.String("memory"); m != "" {
		n, err := parseSize(m)
		if err != nil {
			return err
		}
		pages = int(n / mmapslab.PageSize)
	}
	switch v := judge(in, pages); {
	case in.Server != "":
		say("a start", "%s", paint(c, yellow, "would exit: pid "+in.Server+" serves from the file"))
	case v.Kind == restore.Cold:
		say("a start", "would be %s: %s", paint(c, red, "cold"), v.Reason)
	default:
		say("a start", "would be %s, %s: %s", paint(c, green, "warm"), v.Kind, v.Reason)
	}
	return nil
}

func infoSuper(in *restore.Inspected, say func(what, format string, args ...any)) {
	sb := in.File.Super
	state := sb.State.String()
	switch {
	case in.Server != "":
		state += ", pid " + in.Server + " serves from it"
	case sb.State == mmapslab.Running:
		state += fmt.Sprintf(": the last server, pid %d, was killed", sb.PID)
	case sb.Stopped != 0:
		state += ", stopped at " + stamp(sb.Stopped)
	}
	say("state", "%s", state)
	for _, c := range in.File.Copies {
		if c.Super == nil {
			say("superblock", "the copy at %d is damaged: %s", c.Offset, c.Reason)
		}
	}
	boot := "this boot"
	if sb.BootID != restore.BootID() {
		boot = "another boot"
	}
	say("written", "under %s, %x; clock %s", boot, sb.BootID, stamp(sb.ClockWall))
	say("starts", "%d, %d unclean in a row", sb.Generation, sb.Unclean)
	say("memory", "%d pages of 1 MiB, room for %d", sb.PageLimit, sb.Layout.Room)
	for _, s := range sb.Layout.Spans() {
		if s.Length > 4096 {
			say("  "+s.Name, "%#x, %s", s.Offset, size(s.Length))
		}
	}
}

func stamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05Z") }

func infoContents(in *restore.Inspected, say func(what, format string, args ...any)) {
	_, assigned, _ := in.Store.Pages()
	say("pages", "%d assigned, %d damaged, %d cut off", assigned, len(in.Damaged), len(in.Cut))
	say("class ids", "%s", [...]string{"from the last clean stop", "of the default table, which fits", "are guesses: the sizes that the pages have, numbered"}[in.Table])
	if in.IndexErr != nil {
		say("index", "unreadable: %v", in.IndexErr)
	} else {
		s := in.Index.Stats()
		growing := ""
		if s.Growing {
			growing = ", growing"
		}
		say("index", "%d buckets of 8, %s%s", s.Buckets, size(s.Bytes), growing)
	}
	if in.Listed {
		say("items", "%d, %.1f%% of the index", in.Index.Len(), 100*in.Index.Stats().Load)
	}
	word := in.Store.FlushWord().Load()
	flush := fmt.Sprintf("%d so far", uint32(word>>32))
	if at := uint32(word); at != 0 {
		flush += ", one waiting for " + stamp(int64(at))
	}
	say("flush_all", "%s", flush)
	say("last CAS", "%d", in.File.LastCAS())
}

// judge is what a start with so many pages, and no other policy, would make of the file.
func judge(in *restore.Inspected, pages int) restore.Verdict {
	return restore.Judge(in.File, pages, restore.Here{BootID: restore.BootID(), SinceBoot: int64(restore.SinceBoot()), Wall: time.Now().Unix()}, restore.Policy{})
}
