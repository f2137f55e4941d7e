package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// normalise rewrites a command line that follows the rules of getopt_long into the only form that the cli package reads as getopt would:
// one --name or --name=value an option. The rules: values may be attached (-m64), short options grouped (-vvd), long ones cut to a unique
// prefix, options and other words mixed, and "--" ends the options. Words that are no options are dropped, as memcached does; leading
// white space of every word is skipped before anything else looks at it.
//
// An error has getopt's text. What stands before the faulty option is returned beside it, because it is acted on first: `-V -Q` prints the
// version.
func normalise(argv []string, flags []cli.Flag, posix bool) (args []string, err error) {
	words := make([]string, len(argv)-1)
	for i, w := range argv[1:] {
		words[i] = strings.TrimLeft(w, " \t\n\v\f\r")
	}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		var next []string // the option's words; a value taken from the following word shortens words
		switch {
		case w == "--":
			return args, nil
		case strings.HasPrefix(w, "--"):
			next, words, err = longOption(w[2:], words, flags)
		case len(w) > 1 && w[0] == '-':
			next, words, err = shortOptions(w[1:], words, flags)
		case posix: // POSIXLY_CORRECT: the first other word ends the options
			return args, nil
		}
		args = append(args, next...)
		if err != nil {
			return args, fmt.Errorf("%s: %w", argv[0], err)
		}
	}
	return args, nil
}

// longOption reads one word without its dashes; rest is what follows it.
func longOption(w string, rest []string, flags []cli.Flag) (args, left []string, err error) {
	name, value, attached := strings.Cut(w, "=")
	var found []*option
	for _, f := range flags {
		if o := f.(*option); o.long == name && name != "" {
			found = []*option{o}
			break
		} else if o.long != "" && strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	switch {
	case len(found) == 0:
		return nil, rest, fmt.Errorf("unrecognized option '--%s'", w)
	case len(found) > 1:
		var names strings.Builder
		for _, o := range found {
			fmt.Fprintf(&names, " '--%s'", o.long)
		}
		return nil, rest, fmt.Errorf("option '--%s' is ambiguous; possibilities:%s", w, names.String())
	}
	o := found[0]
	switch {
	case attached && o.takes == nothing:
		return nil, rest, fmt.Errorf("option '--%s' doesn't allow an argument", o.long)
	case attached:
		return []string{"--" + o.long + "=" + value}, rest, nil
	case o.takes != oneValue:
		return []string{"--" + o.long}, rest, nil
	case len(rest) == 0:
		return nil, rest, fmt.Errorf("option '--%s' requires an argument", o.long)
	}
	return []string{"--" + o.long + "=" + rest[0]}, rest[1:], nil
}

// shortOptions reads one word of grouped letters without its dash; rest is what follows it. An optional value belongs to the long
// form only: -vvverbose is -v -v -v -e rbose.
func shortOptions(w string, rest []string, flags []cli.Flag) (args, left []string, err error) {
	for i := range len(w) {
		var o *option
		for _, f := range flags {
			if f.(*option).short == w[i] {
				o = f.(*option)
			}
		}
		switch {
		case o == nil:
			return args, rest, errors.New("invalid option -- '" + w[i:i+1] + "'")
		case o.takes != oneValue:
			args = append(args, "--"+o.name())
		case i+1 < len(w):
			return append(args, "--"+o.name()+"="+w[i+1:]), rest, nil
		case len(rest) == 0:
			return args, rest, errors.New("option requires an argument -- '" + w[i:] + "'")
		default:
			return append(args, "--"+o.name()+"="+rest[0]), rest[1:], nil
		}
	}
	return args, rest, nil
}
