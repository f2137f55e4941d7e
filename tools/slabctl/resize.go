package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func resizeCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "a new file of another size or class table with the same live items", ArgsUsage: "FILE OUT",
		Description: "A server with the same -m starts warm on OUT. What does not fit is left out: the items that were not used for longest. FILE stays as it is.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "`SIZE` of the new file's -m, with k, m or g; default: the same"},
			&cli.BoolFlag{Name: "force", Usage: "replace OUT"},
		}, tableFlags()...),
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			cfg, err := geometry(c, in)
			if err != nil {
				return err
			}
			return rewrite(c, in, c.Args().Get(1), cfg)
		}, "OUT"),
	}
}

// tableFlags shape a class table as the server's flags do.
func tableFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Float64Flag{Name: "factor", Aliases: []string{"f"}, Usage: "chunk size growth factor, the server's -f; default: the file's class table", DefaultText: "-"},
		&cli.IntFlag{Name: "min-space", Value: 48, Usage: "with -f: the server's -n"},
		&cli.StringFlag{Name: "slab-sizes", Usage: "chunk sizes, separated by dashes, as the server's -o slab_sizes"},
	}
}

// geometry is what the flags ask for, and the file's own for the rest.
func geometry(c *cli.Context, in *restore.Inspected) (cfg mmapslab.Config, err error) {
	limit, assigned, _ := in.Store.Pages()
	cfg.Pages = max(limit, 1)
	if c.Command.Name == "check" {
		cfg.Pages = max(limit, assigned)
	}
	if text := c.String("memory"); text != "" {
		n, err := parseSize(text)
		if err != nil {
			return cfg, err
		}
		if cfg.Pages = int(n / mmapslab.PageSize); cfg.Pages < 1 {
			return cfg, fmt.Errorf("slabctl: --memory %s, want at least 1m", text)
		}
	}
	cfg.ChunkSizes = tableOf(in)
	chunkMax := cfg.ChunkSizes[len(cfg.ChunkSizes)-1]
	switch {
	case c.String("slab-sizes") != "":
		cfg.ChunkSizes = nil
		for _, text := range strings.Split(c.String("slab-sizes"), "-") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return cfg, fmt.Errorf("slabctl: --slab-sizes %q, want numbers with dashes between", c.String("slab-sizes"))
			}
			if n = max((n+7)&^7, mmapslab.MinChunkSize); n < chunkMax {
				cfg.ChunkSizes = append(cfg.ChunkSizes, n)
			}
		}
		cfg.ChunkSizes = append(cfg.ChunkSizes, chunkMax)
	case c.IsSet("factor"):
		if f := c.Float64("factor"); !(f > 1) {
			return cfg, fmt.Errorf("slabctl: -f %v, want more than 1", f)
		}
		cfg.ChunkSizes = mmapslab.ChunkSizes(c.Float64("factor"), c.Int("min-space"), chunkMax)
	}
	return cfg, nil
}

// tableOf is the file's class table, the default one where it is not known.
func tableOf(in *restore.Inspected) (sizes []int) {
	if in.Table != mmapslab.TableFound {
		for id := 1; id <= in.Store.Largest(); id++ {
			if info, ok := in.Store.ClassInfo(id); ok {
				sizes = append(sizes, info.ChunkSize)
			}
		}
		return sizes
	}
	return mmapslab.ChunkSizes(1.25, 48, mmapslab.PageSize/2)
}

// rewrite makes out, under another name until it is whole.
func rewrite(c *cli.Context, in *restore.Inspected, out string, cfg mmapslab.Config) (err error) {
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) && !c.Bool("force") {
		return fmt.Errorf("slabctl: %s exists; --force replaces it", out)
	}
	if same(in.File.Path(), out) {
		return fmt.Errorf("slabctl: %s is the file itself, want another one", out)
	}
	if free, err := restore.Inspect(out); err == nil {
		server := free.Server
		free.Close()
		if server != "" {
			return fmt.Errorf("slabctl: pid %s serves from %s", server, out)
		}
	}
	temp := filepath.Join(filepath.Dir(out), fmt.Sprintf(".%s.%d", filepath.Base(out), os.Getpid()))
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	o := restore.WalkOptions{Pace: pace(c, in)}
	b := newBar(c, c.Command.Name, o.Pace != nil)
	o.Progress = b.set
	done, err := in.Rewrite(c.Context, temp, cfg, o)
	b.end()
	if err != nil {
		return err
	}
	// For the server that has the file: it may run as another user.
	if st, err := os.Stat(in.File.Path()); err == nil {
		os.Chmod(temp, st.Mode().Perm())
		if owner, ok := st.Sys().(*syscall.Stat_t); ok {
			os.Chown(temp, int(owner.Uid), int(owner.Gid)) // root alone may
		}
	}
	if err = os.Rename(temp, out); err != nil {
		return fmt.Errorf("slabctl: %w", err)
	}
	noteAnew(c, done.Anew)
	fmt.Fprintf(c.App.Writer, "%s: %d items in at most %d pages\n", out, done.Kept, cfg.Pages)
	for _, l := range []struct {
		n    int64
		what string
	}{{done.Dropped, "left out, since there was no room: those not used for longest"}, {done.Dead, "left out, expired or flushed"},
		{done.Invalid, "left out, damaged"}, {done.Changed + done.Bad, "left out, replaced while they were read"}} {
		if l.n > 0 {
			fmt.Fprintf(c.App.Writer, "%d items %s\n", l.n, l.what)
		}
	}
	return nil
}

func same(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// repair writes a file of the same shape with the items that are sound.
func repair(c *cli.Context, in *restore.Inspected, out string) error {
	if err := errors.Join(in.Err, in.IndexErr); err != nil {
		return fmt.Errorf("slabctl: nothing can be repaired: %w", err)
	}
	cfg, err := geometry(c, in)
	if err != nil {
		return err
	}
	return rewrite(c, in, out, cfg)
}
