package main

import (
	"encoding/base64"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func getCommand() *cli.Command {
	return &cli.Command{
		Name: "get", Usage: "the value of a key and what is known of it", ArgsUsage: "FILE KEY",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "raw", Usage: "print the value alone, byte for byte"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the value to `OUT`", TakesFile: true},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "base64", Usage: "KEY is given in base64"},
		},
		Action: withFile(get, "KEY"),
	}
}

func get(c *cli.Context, in *restore.Inspected) error {
	key := []byte(c.Args().Get(1))
	if c.Bool("base64") {
		var err error
		if key, err = base64.StdEncoding.DecodeString(string(key)); err != nil {
			return fmt.Errorf("slabctl: get: key %q: %w", c.Args().Get(1), err)
		}
	}
	var it mmapslab.Item
	var value []byte
	ok, whole := false, false
	for range 3 { // a live server may replace the item while its value is read
		var err error
		if it, ok, err = in.Find(key); err != nil || !ok {
			if err == nil {
				err = fmt.Errorf("slabctl: get: there is no item of key %s", quoteKey(key))
			}
			return err
		}
		if err := restore.Guard(func() { value, whole = in.Store.AppendValue(&it, nil) }); err != nil {
			return err
		}
		if whole && in.Still(&it) {
			break
		}
	}
	j := describe(in, &it, mmapslab.Meta(in.Store.Meta(it.Ref()).Load()))
	err := error(nil)
	out := c.String("output")
	switch {
	case out != "":
		err = newFile(out, func(w io.Writer) error { _, err := w.Write(value); return err })
		if err == nil {
			getText(c, &j, value, false)
		}
	case c.Bool("json"):
		j.setValue(value)
		err = jsonLines(c.App.Writer).Encode(j)
	case c.Bool("raw"):
		_, err = c.App.Writer.Write(value)
	default:
		getText(c, &j, value, true)
	}
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("slabctl: get: the checksum of the item at %s does not match", j.Place)
	}
	return nil
}

func getText(c *cli.Context, j *itemJSON, value []byte, show bool) {
	say := func(what, format string, args ...any) {
		fmt.Fprintf(c.App.Writer, "%-8s %s\n", what, fmt.Sprintf(format, args...))
	}
	say("key", "%s", quoteKey(j.key()))
	say("value", "%d bytes, client flags %d, CAS %d", j.ValueSize, j.Flags, j.CAS)
	expires := "never"
	if j.TTL != nil {
		expires = fmt.Sprintf("in %s, at %s", span(*j.TTL), stamp(int64(j.Exptime)))
	}
	say("expires", "%s", expires)
	use := fmt.Sprintf("%s ago", span(int64(j.Idle)))
	for _, b := range []struct {
		is   bool
		name string
	}{{j.Fetched, "fetched"}, {!j.Fetched, "never fetched"}, {j.Active, "active"}, {j.Stale, "stale"}, {j.Won, "win token given"}, {j.Binary, "binary key"}} {
		if b.is {
			use += ", " + b.name
		}
	}
	say("used", "%s", use)
	say("stored", "class %d, %s, %d bytes at %s", j.Class, j.Segment, j.Size, j.Place)
	if j.Fate != restore.Alive.String() {
		say("fate", "%s: a server does not give it out", paint(c, yellow, j.Fate))
	}
	if show {
		text := string(value)
		if !isText(text) {
			text = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(c.App.Writer, "\n%s\n", text)
	}
}
