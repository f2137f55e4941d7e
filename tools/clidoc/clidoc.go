// Package clidoc makes a man page and shell completions out of a program's definition for the cli package, so that they have what the program has.
package clidoc

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

// Version is a program's own: what was set at link time, otherwise what the go command knew of the source.
func Version(linked string) string {
	if info, ok := debug.ReadBuildInfo(); ok && linked == "" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return cmp.Or(linked, "devel")
}

// Man returns the manual page of a program, in roff.
func Man(a *cli.App, section int) (string, error) {
	page := *a
	page.Flags = nil
	for _, f := range a.Flags {
		page.Flags = append(page.Flags, literal{f.(cli.DocGenerationFlag)})
	}
	return page.ToManWithSection(section)
}

// literal is a flag whose usage may have <words>, which are tags of HTML to the cli package's page.
type literal struct{ cli.DocGenerationFlag }

func (l literal) GetUsage() string {
	return strings.ReplaceAll(l.DocGenerationFlag.GetUsage(), "<", `\<`)
}

func (l literal) IsVisible() bool { return visible(l.DocGenerationFlag) }

// visible tells whether a flag is shown.
func visible(f cli.Flag) bool {
	v, ok := f.(cli.VisibleFlag)
	return !ok || v.IsVisible()
}

// Words are what the value of a flag can be.
type Words struct {
	Words []string
	List  bool // several, with commas between
}

// Shells are those that Completion knows.
var Shells = []string{"bash", "zsh", "fish"}

// Completion returns a script that completes a program's commands and flags, and file names behind them, but words where a flag, by its first name, has those.
func Completion(a *cli.App, shell string, values map[string]Words) (string, error) {
	switch shell {
	case "bash":
		return bash(a, values), nil
	case "zsh":
		return zsh(a, values), nil
	case "fish":
		return fish(a, values), nil
	}
	return "", fmt.Errorf("clidoc: shell %q, want one of %s", shell, strings.Join(Shells, ", "))
}

// flagWords are the flags as they are typed.
func flagWords(flags []cli.Flag) (words []string) {
	for _, f := range flags {
		if !visible(f) {
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

// bashBack steps back to the word behind a flag, or the flag itself: to bash "--flag=value" and "name=value" are three words each.
const bashBack = `	for ((i = COMP_CWORD; i > 1; i--)); do
		[[ ${COMP_WORDS[i]} == = || ${COMP_WORDS[i - 1]} == = ]] || break
	done
`

// bashValue completes a flag's value by words.
const bashValue = `	[[ $cur == -* ]] || case " ${COMP_WORDS[i - 1]} ${COMP_WORDS[i]} " in
	*" %s "*)
		[[ $cur != = ]] || cur=
		COMPREPLY=($(compgen -W '%s' -- "${cur##*,}"))
`

// bashList has what stands in front of the last comma stay, and no space behind a word.
const bashList = `		[[ $cur != *,* ]] || COMPREPLY=("${COMPREPLY[@]/#/${cur%,*},}")
		compopt -o nospace 2>/dev/null
`

func bash(a *cli.App, values map[string]Words) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion for %s; made from its flags\n%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words= i command=\n", a.Name, identifier(a.Name))
	if len(values) > 0 {
		b.WriteString(bashBack)
	}
	for _, f := range a.Flags {
		if w, ok := values[f.Names()[0]]; ok {
			fmt.Fprintf(&b, bashValue, strings.Join(flagWords([]cli.Flag{f}), ` "*|*" `), strings.Join(w.Words, " "))
			if w.List {
				b.WriteString(bashList)
			}
			b.WriteString("\t\treturn ;;\n\tesac\n")
		}
	}
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

// zshFlags are specifications for _arguments. Flags with words have them from a function of the program's.
func zshFlags(flags []cli.Flag, indent, program string, values map[string]Words) string {
	var b strings.Builder
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok || !visible(f) {
			continue
		}
		value := ""
		if _, ok := values[f.Names()[0]]; ok {
			value = ":value:" + program + "_" + f.Names()[0]
		} else if doc.TakesValue() {
			value = ":value:_files"
		}
		for _, name := range f.Names() {
			join := ""
			if value != "" && len(name) > 1 {
				join = "=" // --flag value and --flag=value
			}
			fmt.Fprintf(&b, "%s'%s%s[%s]%s' \\\n", indent, dashed(name), join, usage(doc.GetUsage()), value)
		}
	}
	return b.String()
}

func zsh(a *cli.App, values map[string]Words) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# zsh completion for %s; made from its flags\n", a.Name, a.Name)
	for _, f := range a.Flags {
		if w, ok := values[f.Names()[0]]; ok {
			list := ""
			if w.List {
				list = "compset -P '*,'; "
			}
			fmt.Fprintf(&b, "%s_%s() { %scompadd -S '' -- %s }\n", identifier(a.Name), f.Names()[0], list, strings.Join(w.Words, " "))
		}
	}
	fmt.Fprintf(&b, "%s() {\n", identifier(a.Name))
	if len(commands(a)) == 0 {
		fmt.Fprintf(&b, "\t_arguments \\\n%s\t\t'*:file:_files'\n}\n%s \"$@\"\n", zshFlags(a.Flags, "\t\t", identifier(a.Name), values), identifier(a.Name))
		return b.String()
	}
	b.WriteString("\tlocal line state\n\t_arguments -C \\\n" + zshFlags(a.Flags, "\t\t", identifier(a.Name), values) + "\t\t'1:command:->command' \\\n\t\t'*::argument:->argument'\n\tcase $state in\n\tcommand)\n\t\tlocal -a commands=(\n")
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "\t\t\t'%s:%s'\n", c.Name, usage(c.Usage))
	}
	b.WriteString("\t\t)\n\t\t_describe command commands ;;\n\targument)\n\t\tcase $line[1] in\n")
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "\t\t%s)\n\t\t\t_arguments \\\n%s\t\t\t\t'*:file:_files' ;;\n", c.Name, zshFlags(c.Flags, "\t\t\t\t", identifier(a.Name), nil))
	}
	fmt.Fprintf(&b, "\t\tesac ;;\n\tesac\n}\n%s \"$@\"\n", identifier(a.Name))
	return b.String()
}

func fish(a *cli.App, values map[string]Words) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %s; made from its flags\n", a.Name)
	flags := func(condition string, flags []cli.Flag) {
		for _, f := range flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if !ok || !visible(f) {
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
			if w, ok := values[f.Names()[0]]; ok && w.List {
				line += " -x -a '(__fish_append , " + strings.Join(w.Words, " ") + ")'"
			} else if ok {
				line += " -x -a '" + strings.Join(w.Words, " ") + "'"
			} else if doc.TakesValue() {
				line += " -r"
			}
			fmt.Fprintf(&b, "%s -d '%s'\n", line, usage(doc.GetUsage()))
		}
	}
	flags("", a.Flags)
	for _, c := range commands(a) {
		fmt.Fprintf(&b, "complete -c %s -f -n __fish_use_subcommand -a %s -d '%s'\n", a.Name, c.Name, usage(c.Usage))
		flags(fmt.Sprintf(" -n '__fish_seen_subcommand_from %s'", c.Name), c.Flags)
	}
	return b.String()
}
