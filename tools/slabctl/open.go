package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"hearth/mmapslab"
	"hearth/restore"
)

// arguments checks how many there are; names are for the message.
func arguments(c *cli.Context, names ...string) error {
	if c.NArg() != len(names) {
		return fmt.Errorf("slabctl: %s: %d arguments, want %d: %s", c.Command.Name, c.NArg(), len(names), strings.Join(names, " "))
	}
	return nil
}

// inspect is restore.Inspect; tests stop the clock.
var inspect = func(path string) (*restore.Inspected, error) {
	in, err := restore.Inspect(path)
	if err == nil && in.Server != "" {
		yieldToServer()
	}
	return in, err
}

// open opens the file at path for a verb that reads items.
func open(c *cli.Context, path string) (*restore.Inspected, error) {
	in, err := inspect(path)
	if err != nil {
		return nil, fmt.Errorf("slabctl: %w", err)
	}
	if in.Err == nil && in.IndexErr == nil {
		return in, nil
	}
	err = fmt.Errorf("slabctl: %w", errors.Join(in.Err, in.IndexErr))
	in.Close()
	return nil, err
}

// withFile is the action of a verb with the arguments FILE and names.
func withFile(do func(c *cli.Context, in *restore.Inspected) error, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := arguments(c, append([]string{"FILE"}, names...)...); err != nil {
			return err
		}
		in, err := open(c, c.Args().First())
		if err != nil {
			return err
		}
		defer in.Close()
		return restoreErr(do(c, in))
	}
}

func restoreErr(err error) error {
	if errors.Is(err, restore.ErrFault) {
		return fmt.Errorf("slabctl: %w: did a server start cold on the file meanwhile?", err)
	}
	return err
}

// note says something beside the output.
func note(c *cli.Context, format string, args ...any) {
	fmt.Fprintf(c.App.ErrWriter, "slabctl: "+format+"\n", args...)
}

func workers(c *cli.Context) int {
	if n := c.Int("workers"); n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// walk walks all items with all workers and says what it left out.
func walk(c *cli.Context, in *restore.Inspected, what string, visit func(worker int, it *mmapslab.Item, m mmapslab.Meta)) error {
	return walkWith(c, in, what, restore.WalkOptions{Workers: workers(c)}, visit)
}

// walkInOrder walks in the order of the file.
func walkInOrder(c *cli.Context, in *restore.Inspected, what string, o restore.WalkOptions, visit func(it *mmapslab.Item, m mmapslab.Meta)) error {
	o.Workers = 1
	return walkWith(c, in, what, o, func(_ int, it *mmapslab.Item, m mmapslab.Meta) { visit(it, m) })
}

func walkWith(c *cli.Context, in *restore.Inspected, what string, o restore.WalkOptions, visit func(worker int, it *mmapslab.Item, m mmapslab.Meta)) error {
	if o.Pace == nil {
		o.Pace = pace(c, in)
	}
	bar := newBar(c, what, o.Pace != nil)
	o.Progress = bar.set
	walked, err := in.Walk(c.Context, o, visit)
	bar.end()
	noteAnew(c, walked.Anew)
	if walked.Changed > 0 {
		note(c, "skipped %d items that changed while they were read: pid %s serves from the file", walked.Changed, in.Server)
	}
	if walked.Invalid > 0 {
		note(c, "skipped %d index words that name no whole item: see slabctl check", walked.Invalid)
	}
	return err
}

// begunAnew says how often a scan of a live server's index was.
const begunAnew = "begun anew %d times, since the index grew meanwhile"

func noteAnew(c *cli.Context, times int) {
	if times > 0 {
		note(c, begunAnew, times)
	}
}

// bar is a progress bar on stderr, where that is a terminal.
type bar struct{ *progressbar.ProgressBar }

func newBar(c *cli.Context, what string, paced bool) *bar {
	f, ok := c.App.ErrWriter.(*os.File)
	if c.Bool("no-progress") || !ok || !term.IsTerminal(int(f.Fd())) {
		return &bar{}
	}
	if paced {
		what += ", at work a twentieth of the time (see --full-speed)"
	}
	return &bar{progressbar.NewOptions(1, progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(f), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(), progressbar.OptionSetPredictTime(true), progressbar.OptionEnableColorCodes(false))}
}

func (b *bar) set(done, of int) {
	if b.ProgressBar != nil {
		b.ChangeMax(of)
		b.Set(done)
	}
}

func (b *bar) end() {
	if b.ProgressBar != nil {
		b.Finish()
	}
}

// colored tells whether the output is for a terminal that shows colours.
func colored(c *cli.Context) bool {
	f, ok := c.App.Writer.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// paint colours text by an ANSI code, where there are colours.
func paint(c *cli.Context, code, text string) string {
	if !colored(c) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

const (
	red, green, yellow, bold, dim = "31", "32", "33", "1", "2"
)

// width is how many columns lines may take: the terminal's, $COLUMNS, or 100.
func width(c *cli.Context) int {
	if f, ok := c.App.Writer.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n >= 20 {
		return n
	}
	return 100
}

// table writes columns, aligned right; a last one whose head begins with a space is left as it is, for keys and what else may be long.
type table struct {
	w    *tabwriter.Writer
	text bool
}

func newTable(c *cli.Context, heads ...string) *table {
	t := &table{tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', tabwriter.AlignRight), strings.HasPrefix(heads[len(heads)-1], " ")}
	cells := make([]any, len(heads))
	for i, h := range heads {
		cells[i] = h
	}
	t.row(cells...)
	return t
}

func (t *table) row(cells ...any) {
	for i, cell := range cells {
		fmt.Fprint(t.w, cell)
		if !t.text || i < len(cells)-1 {
			fmt.Fprint(t.w, "\t")
		}
	}
	fmt.Fprintln(t.w)
}

func (t *table) end() { t.w.Flush() }

// size is a number of bytes in words.
func size[N int | int64 | uint64](n N) string {
	switch v := float64(n); {
	case v >= 1<<30:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case v >= 1<<20:
		return fmt.Sprintf("%.2f MiB", v/(1<<20))
	case v >= 10<<10:
		return fmt.Sprintf("%.1f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%d B", int64(n))
}

// span is a number of seconds in words.
func span(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	switch {
	case seconds < 0:
		return "-" + span(-seconds)
	case seconds < 120:
		return fmt.Sprintf("%ds", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case seconds < 2*86400:
		return fmt.Sprintf("%.1fh", d.Hours())
	}
	return fmt.Sprintf("%.1fd", d.Hours()/24)
}

// percent is a share.
func percent[N int | int64 | uint64](part, of N) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(of))
}

// blocks draws a bar of up to n columns for a share.
func blocks(share float64, n int) string {
	const eighths = " ▏▎▍▌▋▊▉"
	full := share * float64(n)
	s := strings.Repeat("█", int(full))
	if part := int((full - float64(int(full))) * 8); part > 0 {
		s += string([]rune(eighths)[part])
	}
	return s
}

// quoteKey is a key as it can be shown: quoted if it has anything but printable characters.
func quoteKey(key []byte) string {
	for _, r := range string(key) {
		if r <= ' ' || r == '"' || r == 0x7f || !strconv.IsPrint(r) {
			return strconv.Quote(string(key))
		}
	}
	return string(key)
}

// place is a chunk's name: page and slot.
func place(in *restore.Inspected, ref mmapslab.Ref) string {
	page, slot := in.Store.Place(ref)
	return fmt.Sprintf("%d/%d", page, slot)
}

// parseSize reads a size with an optional unit: 1024, 4k, 256m, 1g.
func parseSize(s string) (int64, error) {
	text, unit := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "ib"), "b")), int64(1)
	if n := len(text); n > 0 {
		switch text[n-1] {
		case 'k':
			unit = 1 << 10
		case 'm':
			unit = 1 << 20
		case 'g':
			unit = 1 << 30
		}
		if unit > 1 {
			text = text[:n-1]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<62/unit {
		return 0, fmt.Errorf("slabctl: size %q, want a number with k, m or g", s)
	}
	return n * unit, nil
}

// newFile makes path by what write writes: under another name first, which goes away when write fails or is interrupted.
func newFile(path string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(dirOf(path), ".slabctl-*")
	if err != nil {
		return fmt.Errorf("slabctl: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("slabctl: %w", err)
	}
	return nil
}

func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	} else if i == 0 {
		return "/"
	}
	return "."
}
