package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"hearth/tools/clidoc"
)

// version is set at link time in a release.
var version string

func main() {
	// The first signal ends the work in order, so that nothing half done stays; a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := app()
	if err := a.RunContext(ctx, flagsFirst(a, os.Args)); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("slabctl: interrupted")
		}
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
		os.Exit(1)
	}
}

func app() *cli.App {
	a := &cli.App{
		Name:    "slabctl",
		Usage:   "look into slab files, of live, stopped and dead servers",
		Version: clidoc.Version(version),
		Description: "slabctl opens slab files read-only and changes nothing in them, whether or not a server has them open.\n" +
			"Beside a live server it works a twentieth of the time, which the server's latencies hardly show, unless it is told --full-speed.",
		Commands: []*cli.Command{
			infoCommand(), checkCommand(), classesCommand(), pagesCommand(), statsCommand(), sizesCommand(), ttlCommand(), agesCommand(), prefixesCommand(), topCommand(),
			itemsCommand(), getCommand(), pageCommand(), itemCommand(), dumpCommand(), loadCommand(), resizeCommand(), diffCommand(), tuneCommand(), reportCommand(),
			completionCommand(), manCommand(),
		},
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-progress", Usage: "show no progress bar"},
			&cli.IntFlag{Name: "workers", Usage: "read with `N` threads", DefaultText: "one for each processor"},
			&cli.BoolFlag{Name: "full-speed", Usage: "beside a live server, work all the time instead of a twentieth of it, at the cost of the server's latencies"},
		},
		ErrWriter:       os.Stderr,
		OnUsageError:    oneLine,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		CommandNotFound: func(c *cli.Context, name string) { fmt.Fprintf(c.App.ErrWriter, "slabctl: no command %q\n", name) },
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("slabctl: no command %q; see slabctl -h", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, cmd := range a.Commands {
		cmd.OnUsageError, cmd.HideHelpCommand = oneLine, true
	}
	return a
}

// oneLine refuses a bad flag without the page of help that cli prints around it.
func oneLine(c *cli.Context, err error, _ bool) error {
	return fmt.Errorf("slabctl: %w; see slabctl %s -h", err, c.Command.Name)
}

// fail is the error of a verb that found what it looked for and is not pleased, or did not; the text was printed already.
func fail() error { return cli.Exit("", 1) }

// flagsFirst puts the flags of a command before its arguments, where the cli package wants them.
func flagsFirst(a *cli.App, args []string) []string {
	at := 1
	for at < len(args) && strings.HasPrefix(args[at], "-") {
		at++
		if takesValue(a.Flags, args[at-1]) {
			at++
		}
	}
	if at >= len(args) {
		return args
	}
	cmd := a.Command(args[at])
	if cmd == nil {
		return args
	}
	var flags, global, plain []string
	for i := at + 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			plain = append(plain, args[i+1:]...)
			break
		}
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			plain = append(plain, arg)
			continue
		}
		to := &flags
		if known(a.Flags, arg) && !known(cmd.Flags, arg) {
			to = &global
		}
		*to = append(*to, arg)
		if (takesValue(cmd.Flags, arg) || to == &global && takesValue(a.Flags, arg)) && i+1 < len(args) {
			i++
			*to = append(*to, args[i])
		}
	}
	out := append(append([]string{}, args[:at]...), global...)
	out = append(append(out, args[at]), flags...)
	return append(append(out, "--"), plain...)
}

func find(flags []cli.Flag, arg string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func known(flags []cli.Flag, arg string) bool { return find(flags, arg) != nil }

// takesValue tells whether the flag's value is the next argument.
func takesValue(flags []cli.Flag, arg string) bool {
	f, ok := find(flags, arg).(cli.DocGenerationFlag)
	return ok && f.TakesValue() && !strings.Contains(arg, "=")
}
