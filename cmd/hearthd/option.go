package main

import (
	"flag"
	"fmt"

	"github.com/urfave/cli/v2"
)

// What an option takes.
type takes uint8

const (
	nothing takes = iota
	oneValue
	maybeValue // only attached to the long form: --verbose=3
)

// option is a row of the flag table. To the cli package it is a Flag of its own kind, since the ready-made ones keep the last value only and
// know no order between flags, while memcached acts on each as it meets it: `-c 0 -V` complains, `-V -c 0` prints the version.
type option struct {
	short    byte
	long     string // "" for -D, which has only a letter
	takes    takes
	arg      string // the value's name in the help
	help     string // further lines are indented when printed
	fallback string // the default, in the help
	set      func(value string) error

	seen bool
}

func opt(short byte, long string, takes takes, arg, help, fallback string, set func(string) error) *option {
	return &option{short: short, long: long, takes: takes, arg: arg, help: help, fallback: fallback, set: set}
}

// name is the one name under which the option is registered with the flag package. The other one is for the documents: had both been
// registered, cli would set the second to a copy of the first, and so act on it twice.
func (o *option) name() string {
	if o.long != "" {
		return o.long
	}
	return string(o.short)
}

func (o *option) Apply(fs *flag.FlagSet) error {
	fs.Var(flagValue{o}, o.name(), o.help)
	return nil
}

func (o *option) Names() []string {
	if o.long == "" {
		return []string{string(o.short)}
	}
	return []string{o.long, string(o.short)}
}

func (o *option) String() string         { return cli.FlagStringer(o) }
func (o *option) IsSet() bool            { return o.seen }
func (o *option) IsVisible() bool        { return true }
func (o *option) TakesValue() bool       { return o.takes == oneValue }
func (o *option) GetUsage() string       { return o.help }
func (o *option) GetValue() string       { return o.fallback }
func (o *option) GetDefaultText() string { return o.fallback }
func (o *option) GetEnvVars() []string   { return nil }

// flagValue is an option as the flag package sees it.
type flagValue struct{ *option }

func (v flagValue) Set(s string) error {
	v.seen = true
	return v.set(s)
}
func (v flagValue) String() string   { return "" }
func (v flagValue) IsBoolFlag() bool { return v.takes != oneValue }

// exit is the error of a command line that does not lead to serving: what to print where, and the exit code.
type exit struct {
	code           int
	stdout, stderr string // whole lines
}

func (e *exit) Error() string { return fmt.Sprintf("exit %d: %s", e.code, e.stderr) }

// The exit codes of sysexits.h in use, besides 1. All but one are memcached's.
const (
	exUsage    = 64
	exNoUser   = 67
	exSoftware = 70 // ours: a fault in the mapping
	exOSErr    = 71
)

func fail(code int, format string, args ...any) error {
	return &exit{code: code, stderr: fmt.Sprintf(format, args...) + "\n"}
}
