package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"hearth/restore"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "whether index, items, pages and links agree, checksums included", ArgsUsage: "FILE",
		Description: "Exits with 1 when anything is wrong. With --repair a new file is written with all items that are sound; FILE stays as it is.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "repair", Usage: "write a cleaned copy to `OUT`", TakesFile: true},
			&cli.BoolFlag{Name: "force", Usage: "replace OUT"},
		},
		Action: func(c *cli.Context) error {
			if err := arguments(c, "FILE"); err != nil {
				return err
			}
			in, err := inspect(c.Args().First())
			if err != nil {
				return fmt.Errorf("slabctl: %w", err)
			}
			defer in.Close()
			return restoreErr(check(c, in))
		},
	}
}

// look runs the check behind a progress bar.
func look(c *cli.Context, in *restore.Inspected) (restore.Checked, error) {
	o := restore.CheckOptions{Workers: workers(c), Pace: pace(c, in)}
	bar := newBar(c, "check", o.Pace != nil)
	defer bar.end()
	o.Progress = bar.set
	checked, err := in.Check(c.Context, o)
	if err == nil && in.Server == "" && in.File.Server() != "" {
		err = fmt.Errorf("slabctl: check: pid %s began to serve from the file meanwhile: check again", in.File.Server())
	}
	return checked, err
}

func check(c *cli.Context, in *restore.Inspected) error {
	checked, err := look(c, in)
	if err != nil {
		return err
	}
	w := c.App.Writer
	for _, f := range checked.Findings {
		fmt.Fprintf(w, "%s %#012x  %s\n", paint(c, red, "DAMAGED"), f.Offset, f.What)
		fmt.Fprintf(w, "%20s  %s\n", "", paint(c, dim, f.Means))
	}
	if checked.More > 0 {
		fmt.Fprintf(w, "and %d more\n", checked.More)
	}
	for _, line := range skipped(in, &checked) {
		fmt.Fprintln(w, line)
	}
	bad := len(checked.Findings) + checked.More
	if bad == 0 {
		fmt.Fprintf(w, "%s: %d items\n", paint(c, green, "sound"), checked.Items)
	} else {
		fmt.Fprintf(w, "%s: %d findings among %d items\n", paint(c, red, "not sound"), bad, checked.Items)
	}
	if out := c.String("repair"); out != "" {
		if err := repair(c, in, out); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fail()
	}
	return nil
}

// skipped says what a check did not look at.
func skipped(in *restore.Inspected, checked *restore.Checked) (lines []string) {
	switch {
	case in.Err != nil || in.IndexErr != nil:
		lines = append(lines, "not looked at: items and lists, which cannot be found")
	case in.Server != "":
		lines = append(lines, fmt.Sprintf("pid %s serves from the file. Not looked at: lists and free chunks, which change all the time, and %d items that changed meanwhile", in.Server, checked.Changed))
		if checked.Anew > 0 {
			lines = append(lines, fmt.Sprintf(begunAnew, checked.Anew))
		}
	case !in.Listed:
		lines = append(lines, "not looked at: lists and free chunks, which the next start makes anew")
	}
	if checked.Unfinished > 0 && !in.Listed {
		lines = append(lines, fmt.Sprintf("%d inserts were under way, which the next start clears", checked.Unfinished))
	}
	return lines
}
