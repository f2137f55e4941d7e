// Package clidoctest asks shells what they would complete, for tests of completion scripts.
package clidoctest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs complete the line $1 by the script $2 for the program $3, below the empty directory $4, and print the words they offer.
var programs = map[string]string{
	// Readline parts words at "=" too.
	"bash": `. "$2"
read -ra COMP_WORDS <<<"${1//=/ = }"
[[ $1 != *" " ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"_$3"
printf '%s\n' "${COMPREPLY[@]}"`,

	"fish": `source $argv[2]
complete -C $argv[1] | string replace -r '\t.*' ''
true`,

	// The line editor wants a terminal, and is told to say when it reads.
	"zsh": `mkdir $4/functions
cp $2 $4/functions/_$3
cat >$4/setup <<END
fpath=($4/functions \$fpath)
autoload -Uz compinit
compinit -u -D
zstyle ':completion:*' insert-tab false
unsetopt auto_list beep
compadd() {
	if [[ \${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
		local -a offered
		builtin compadd -A offered "\$@"
		print -rl -- \$offered >>$4/offered
	fi
	builtin compadd "\$@"
}
zle-line-init() { print line editor }
zle -N zle-line-init
END
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "source $4/setup"
zpty -r terminal screen '*line editor*'
zpty -w -n terminal "$1"$'\t\x15'
zpty -w terminal exit
while zpty -r terminal screen; do :; done
cat $4/offered`,
}

// Complete returns what the shell offers behind a line by a program's completion script. It skips the test where the shell is not installed, but not with
// HEARTH_CLIENTS=1.
func Complete(t *testing.T, shell, program, script, line string) []string {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		text := fmt.Sprintf("%s is not installed (apt-get install %s)", shell, shell)
		if os.Getenv("HEARTH_CLIENTS") == "1" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-c", programs[shell], shell, line, file, program, dir}
	if shell == "fish" { // its arguments have no name in front
		args = append(args[:2], args[3:]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "TERM=dumb")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s, %q: %v\n%s", shell, line, err, out)
	}
	return strings.Fields(string(out))
}
