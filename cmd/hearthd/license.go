package main

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// The licenses of the Go runtime and of the modules that are linked in ask for their text to go with the program. A test compares the list
// with what is linked.
//
//go:embed licenses/*.txt
var licenses embed.FS

func licenseText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nhearthd contains the following work of others.\n", versionLine())
	files, _ := fs.Glob(licenses, "licenses/*.txt")
	for _, f := range files {
		text, _ := licenses.ReadFile(f)
		fmt.Fprintf(&b, "\n---- %s\n\n%s\n", strings.TrimSuffix(strings.TrimPrefix(f, "licenses/"), ".txt"), strings.TrimSpace(string(text)))
	}
	return b.String()
}
