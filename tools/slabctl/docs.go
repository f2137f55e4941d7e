package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/tools/clidoc"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "a script that completes commands and flags, for " + strings.Join(clidoc.Shells, ", "), ArgsUsage: "SHELL",
		Description: "source <(slabctl completion bash)",
		Action: func(c *cli.Context) error {
			if err := arguments(c, "SHELL"); err != nil {
				return err
			}
			text, err := clidoc.Completion(app(), c.Args().First(), nil)
			if err != nil {
				return fmt.Errorf("slabctl: %w", err)
			}
			_, err = fmt.Fprint(c.App.Writer, text)
			return err
		},
	}
}

func manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "the manual page, for man -l -",
		Action: func(c *cli.Context) error {
			text, err := clidoc.Man(app(), 1)
			if err != nil {
				return fmt.Errorf("slabctl: %w", err)
			}
			_, err = fmt.Fprint(c.App.Writer, text)
			return err
		},
	}
}
