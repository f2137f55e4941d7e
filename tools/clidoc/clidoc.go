// Package clidoc makes a man page and shell completions out of a program's definition for the cli package, so that they have what the program has.
package clidoc

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Man returns the manual page of a program, in roff.
func Man(a *cli.App, section int) (string, error) { return a.ToManWithSection(section) }

// Shells are those that Completion knows.
var Shells = []string{"bash", "zsh", "fish"}

// Completion returns a script that completes a program's commands and flags, and file names behind them.
func Completion(a *cli.App, shell string) (string, error) {
	switch shell {
	case "bash":
		return bash(a), nil
	case "zsh":
		return zsh(a), nil
	case "fish":
		return fish(a), nil
	}
	return "", fmt.Errorf("clidoc: shell %q, want one of %s", shell, strings.Join(Shells, ", "))
}

// flagWords are the flags as they are typed.
func flagWords(flags []cli.Flag) (words []string) {
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		for _, name := range f.Names() {
			words = append(words, dashed(name))
		}
	}
	return words
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// usage is a flag's or command's help on one line, without what a shell would take for its own.
func usage(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.NewReplacer("`", "", "'", "", "[", "(", "]", ")", `"`, "", ":", ",", `\`, "").Replace(text)
}

func commands(a *cli.App) (all []*cli.Command) {
	for _, c := range a.Commands {
		if !c.Hidden {
			all = append(all, c)
		}
	}
	return all
}

// identifier is a program's name as shells allow it in a function's.
func identifier(name string) string { return "_" + strings.ReplaceAll(name, "-", "_") }

func bash(a *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion for %s; made from its flags\n%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words= i command=\n", a.Name, identifier(a.Name))
	var names []string
	for _, c := range commands(a) {
		names = append(names, c.Name)
	}
	if len(names) > 0 {
		fmt.Fprintf(&b, "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tcase ${COMP_WORDS[i]} in\n\t\t%s) command=${COMP_WORDS[i]}; break ;;\n\t\tesac\n\tdone\n", strings.Join(names, "|"))
		b.WriteString("\tcase $command in\n")
		for _, c := range commands(a) {
			fmt.Fprintf(&b, "\t%s) words='%s' ;;\n", c.Name, strings.Join(flagWords(c.Flags), " "))
		}
		fmt.Fprintf(&b, "\t*) words='%s' ;;\n\tesac\n", strings.Join(append(names, flagWords(a.Flags)...), " "))
		b.WriteString("\tif [[ $cur == -* || -z $command ]]; then\n")
	} else {
		fmt.Fprintf(&b, "\twords='%s'\n\tif [[ $cur == -* ]]; then\n", strings.Join(flagWords(a.Flags), " "))
	}
	fmt.Fprintf(&b, "\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n\telse\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n\tfi\n}\ncomplete -o filenames -F %s %s\n", identifier(a.Name), a.Name)
	return b.String()
}

// zshFlags are specifications for _arguments.
func zshFlags(flags []cli.Flag, indent string) string {
	var b strings.Builder
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if v, is := f.(cli.VisibleFlag); !ok || is && !v.IsVisible() {
			continue
		}
		for _, name := range f.Names() {
			value := ""
			if doc.TakesValue() {
				value = ":value:_files"
			}
			fmt.Fprintf(&b, "%s'%s[%s]%s' \\\n", indent, dashed(name), usage(doc.GetUsage()), value)
		}
	}
	return b.String()
}

func zsh(a *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# zsh completion for %s; made from its flags\n%s() {\n", a.Name, a.Name, identifier(a.Name))
	if len(commands(a)) == 0 {
		fmt.Fprintf(&b, "\t_arguments \\\n%s\t\t'*:file:_files'\n}\n%s \"$@\"\n", zshFlags(a.Flags, "\t\t"), identifier(a.Name))
		return b.String()
	}
	b.WriteString("\tlocal line state\n\t_arguments -C \\\n" + zshFlags(a.Flags, "\t\t") + "\t\t'1:command:->command' \\\n\t\t'*::argument:->argument'\n\tcase $state in\n\tcommand)\n\t\tlocal -a commands=(\n")
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "\t\t\t'%s:%s'\n", c.Name, usage(c.Usage))
	}
	b.WriteString("\t\t)\n\t\t_describe command commands ;;\n\targument)\n\t\tcase $line[1] in\n")
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "\t\t%s)\n\t\t\t_arguments \\\n%s\t\t\t\t'*:file:_files' ;;\n", c.Name, zshFlags(c.Flags, "\t\t\t\t"))
	}
	fmt.Fprintf(&b, "\t\tesac ;;\n\tesac\n}\n%s \"$@\"\n", identifier(a.Name))
	return b.String()
}

func fish(a *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %s; made from its flags\n", a.Name)
	flags := func(condition string, flags []cli.Flag) {
		for _, f := range flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if v, is := f.(cli.VisibleFlag); !ok || is && !v.IsVisible() {
				continue
			}
			line := "complete -c " + a.Name + condition
			for _, name := range f.Names() {
				if len(name) == 1 {
					line += " -s " + name
				} else {
					line += " -l " + name
				}
			}
			if doc.TakesValue() {
				line += " -r"
			}
			fmt.Fprintf(&b, "%s -d '%s'\n", line, usage(doc.GetUsage()))
		}
	}
	flags("", a.Flags)
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -a %s -d '%s'\n", a.Name, c.Name, usage(c.Usage))
		flags(fmt.Sprintf(" -n '__fish_seen_subcommand_from %s'", c.Name), c.Flags)
	}
	return b.String()
}
