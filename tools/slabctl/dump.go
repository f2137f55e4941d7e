package main

import (
	"bufio"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"hearth/mmapslab"
	"hearth/restore"
)

func dumpCommand() *cli.Command {
	return &cli.Command{
		Name: "dump", Usage: "all live items, as lines that memcached understands, JSON lines, or metadata in CSV", ArgsUsage: "FILE",
		Description: "Expiry times are absolute, as clients of the protocol may give them. The lines ask for no answer, so that they can be piped into any server, say by nc -N;\n" +
			"slabctl load asks for answers, and counts them. Keys that the text protocol cannot say are dumped as meta commands with a base64 key.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "set", Usage: "set, ms, json or csv (without values)"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `OUT` instead of stdout", TakesFile: true},
			&cli.BoolFlag{Name: "dead", Usage: "expired and flushed items too (json and csv)"},
			&cli.StringFlag{Name: "prefix", Usage: "only keys that begin with `TEXT`"},
		},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			if out := c.String("output"); out != "" {
				return newFile(out, func(w io.Writer) error { return dump(c, in, w) })
			}
			return dump(c, in, c.App.Writer)
		}),
	}
}

// encoder writes items in one format.
type encoder interface {
	encode(it *mmapslab.Item, m mmapslab.Meta, value []byte) error
	flush() error
}

func newEncoder(format string, in *restore.Inspected, w io.Writer) (e encoder, values bool, err error) {
	b := bufio.NewWriterSize(w, 1<<18)
	switch format {
	case "set", "ms":
		return &lineEncoder{w: b, meta: format == "ms"}, true, nil
	case "json":
		return &jsonEncoder{in, b, jsonLines(b)}, true, nil
	case "csv":
		e := &csvEncoder{in, csv.NewWriter(b), b}
		return e, false, e.w.Write([]string{"key", "class", "segment", "size", "value_size", "flags", "exptime", "ttl", "idle", "fetched", "cas", "fate", "place"})
	}
	return nil, false, fmt.Errorf("slabctl: --format %q, want set, ms, json or csv", format)
}

func dump(c *cli.Context, in *restore.Inspected, w io.Writer) error {
	e, values, err := newEncoder(c.String("format"), in, w)
	if err != nil {
		return err
	}
	dead := c.Bool("dead") && (c.String("format") == "json" || c.String("format") == "csv")
	prefix := c.String("prefix")
	var value []byte
	var count, bad, unsaid int64
	failed := err
	walkErr := walkInOrder(c, in, "dump", restore.WalkOptions{Verify: true}, func(it *mmapslab.Item, m mmapslab.Meta) {
		if failed != nil || !dead && in.Fate(it, m) != restore.Alive || len(it.Key()) < len(prefix) || string(it.Key()[:len(prefix)]) != prefix {
			return
		}
		if values {
			var ok bool
			if value, ok = in.Store.AppendValue(it, value[:0]); !ok || it.Ref()&mmapslab.Chained != 0 && !in.Still(it) {
				bad++
				return
			}
		}
		switch err := e.encode(it, m, value); err {
		case nil:
			count++
		case errKey:
			unsaid++
		default:
			failed = err
		}
	})
	if failed == nil {
		failed = e.flush()
	}
	if failed == nil {
		failed = walkErr
	}
	if bad > 0 {
		note(c, "left out %d items whose value changed or whose checksum does not match", bad)
	}
	if unsaid > 0 {
		note(c, "left out %d items whose binary keys are too long for the protocol: --format json has them", unsaid)
	}
	if failed == nil && c.String("output") != "" {
		note(c, "dumped %d items", count)
	}
	return failed
}

// errKey is returned for a key that no line can say.
var errKey = fmt.Errorf("slabctl: key too long in base64")

// lineEncoder writes set or ms commands.
type lineEncoder struct {
	w    *bufio.Writer
	meta bool
	buf  []byte
}

// isKey tells whether the text protocol can say a key.
func isKey(key []byte) bool {
	for _, b := range key {
		if b <= ' ' || b == 0x7f {
			return false
		}
	}
	return true
}

func (e *lineEncoder) encode(it *mmapslab.Item, m mmapslab.Meta, value []byte) (err error) {
	e.buf, err = appendCommand(e.buf[:0], e.meta, true, it.Key(), it.ClientFlags(), m.Exptime(), it.Flags()&flagBinaryKey != 0, len(value))
	if err == nil {
		_, err = e.w.Write(e.buf)
	}
	if err == nil {
		_, err = e.w.Write(value)
	}
	if err == nil {
		_, err = e.w.WriteString("\r\n")
	}
	return err
}

// appendCommand appends the line that stores an item: set, or ms where that is wanted or the key needs it.
func appendCommand(dst []byte, meta, quiet bool, key []byte, flags, exptime uint32, binary bool, size int) ([]byte, error) {
	if binary = binary || !isKey(key); !binary && !meta {
		dst = append(append(append(dst, "set "...), key...), ' ')
		dst = strconv.AppendUint(dst, uint64(flags), 10)
		dst = strconv.AppendUint(append(dst, ' '), uint64(exptime), 10)
		dst = strconv.AppendInt(append(dst, ' '), int64(size), 10)
		if quiet {
			dst = append(dst, " noreply"...)
		}
		return append(dst, "\r\n"...), nil
	}
	dst = append(dst, "ms "...)
	if binary {
		if base64.StdEncoding.EncodedLen(len(key)) > mmapslab.MaxKey {
			return dst, errKey
		}
		dst = base64.StdEncoding.AppendEncode(dst, key)
	} else {
		dst = append(dst, key...)
	}
	dst = strconv.AppendInt(append(dst, ' '), int64(size), 10)
	if binary {
		dst = append(dst, " b"...)
	}
	if flags != 0 {
		dst = strconv.AppendUint(append(dst, " F"...), uint64(flags), 10)
	}
	if exptime != 0 {
		dst = strconv.AppendUint(append(dst, " T"...), uint64(exptime), 10)
	}
	if quiet {
		dst = append(dst, " q"...)
	}
	return append(dst, "\r\n"...), nil
}

func (e *lineEncoder) flush() error { return e.w.Flush() }

type jsonEncoder struct {
	in *restore.Inspected
	b  *bufio.Writer
	e  *json.Encoder
}

// jsonLines is an encoder of a value a line.
func jsonLines(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

func (e *jsonEncoder) encode(it *mmapslab.Item, m mmapslab.Meta, value []byte) error {
	j := describe(e.in, it, m)
	j.setValue(value)
	return e.e.Encode(&j)
}

func (e *jsonEncoder) flush() error { return e.b.Flush() }

func (j *itemJSON) setValue(value []byte) {
	if text := string(value); utf8.ValidString(text) {
		j.Value = &text
	} else {
		j.Base64 = value
	}
}

func (j *itemJSON) key() []byte {
	if j.Key != "" {
		return []byte(j.Key)
	}
	return j.KeyBase64
}

// isText tells whether text can be printed as it is.
func isText(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

type csvEncoder struct {
	in *restore.Inspected
	w  *csv.Writer
	b  *bufio.Writer
}

func (e *csvEncoder) encode(it *mmapslab.Item, m mmapslab.Meta, _ []byte) error {
	j := describe(e.in, it, m)
	ttl := ""
	if j.TTL != nil {
		ttl = fmt.Sprint(*j.TTL)
	}
	key := j.Key
	if key == "" {
		key = "base64:" + base64.StdEncoding.EncodeToString(j.KeyBase64)
	}
	n := func(v int) string { return strconv.Itoa(v) }
	return e.w.Write([]string{key, n(j.Class), j.Segment, n(j.Size), n(j.ValueSize), n(int(j.Flags)), n(int(j.Exptime)), ttl, n(int(j.Idle)), strconv.FormatBool(j.Fetched),
		strconv.FormatUint(j.CAS, 10), j.Fate, j.Place})
}

func (e *csvEncoder) flush() error {
	e.w.Flush()
	if err := e.w.Error(); err != nil {
		return err
	}
	return e.b.Flush()
}
