package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"hearth/lru"
	"hearth/mmapslab"
	"hearth/restore"
)

var segments = [...]string{lru.Hot: "hot", lru.Warm: "warm", lru.Cold: "cold", lru.Temp: "temp"}

// itemJSON is an item as dump, items and get show it. Key and value are base64 where they are not UTF-8.
type itemJSON struct {
	Key       string  `json:"key,omitempty"`
	KeyBase64 []byte  `json:"key_base64,omitempty"`
	Size      int     `json:"size"`       // bytes of header, key and value
	ValueSize int     `json:"value_size"` // bytes
	Flags     uint32  `json:"flags"`
	Exptime   uint32  `json:"exptime"`       // seconds since 1970, 0: never
	TTL       *int64  `json:"ttl,omitempty"` // seconds left
	CAS       uint64  `json:"cas"`
	Class     int     `json:"class"`
	Segment   string  `json:"segment"`
	Idle      uint32  `json:"idle"` // seconds since the last use that counted
	Fetched   bool    `json:"fetched"`
	Active    bool    `json:"active,omitempty"`
	Fate      string  `json:"fate"` // live, expired, flushed
	Stale     bool    `json:"stale,omitempty"`
	Won       bool    `json:"won,omitempty"`
	Binary    bool    `json:"binary_key,omitempty"`
	Place     string  `json:"place"`
	Value     *string `json:"value,omitempty"`
	Base64    []byte  `json:"value_base64,omitempty"`
}

// Item flags of the protocol, as the server's root package gives them out.
const (
	flagBinaryKey = 1 << iota
	flagStale
	flagWon
)

// describe fills in all but the value.
func describe(in *restore.Inspected, it *mmapslab.Item, m mmapslab.Meta) itemJSON {
	j := itemJSON{
		Size: it.Size(), ValueSize: it.ValueLen(), Flags: it.ClientFlags(), Exptime: m.Exptime(), CAS: it.CAS(), Class: in.Store.ListClass(it.Ref()),
		Segment: segments[m.Segment()], Idle: m.Age(in.Now), Fetched: m&mmapslab.Fetched != 0, Active: m&mmapslab.Active != 0, Fate: in.Fate(it, m).String(),
		Stale: it.Flags()&flagStale != 0, Won: it.Flags()&flagWon != 0, Binary: it.Flags()&flagBinaryKey != 0, Place: place(in, it.Ref()),
	}
	if key := string(it.Key()); isText(key) {
		j.Key = key
	} else {
		j.KeyBase64 = it.Key()
	}
	if j.Exptime != 0 {
		ttl := int64(j.Exptime) - int64(in.Now)
		j.TTL = &ttl
	}
	return j
}

func itemCommand() *cli.Command {
	return &cli.Command{
		Name: "item", Usage: "a labelled hexdump of an item, or of whatever is in its chunk", ArgsUsage: "FILE REF",
		Description: "REF is page/slot, as the other commands print it, or a byte offset in the file: 0x2c000 or 180224.",
		Flags:       []cli.Flag{&cli.IntFlag{Name: "value", Usage: "show up to `N` bytes of the value", Value: 256}},
		Action: withFile(func(c *cli.Context, in *restore.Inspected) error {
			ref, err := parseRef(in, c.Args().Get(1))
			if err != nil {
				return err
			}
			return restore.Guard(func() { dumpChunk(c.App.Writer, in, ref, c.Int("value")) })
		}, "REF"),
	}
}

// parseRef finds the chunk that text names, or that the byte at the offset lies in.
func parseRef(in *restore.Inspected, text string) (mmapslab.Ref, error) {
	if page, slot, ok := strings.Cut(text, "/"); ok {
		p, err1 := strconv.ParseUint(page, 10, 32)
		s, err2 := strconv.ParseUint(slot, 10, 14)
		if err1 == nil && err2 == nil && int(p) <= in.Store.Room() {
			if ref := in.Store.RefAtPlace(uint32(p), uint32(s)); ref != 0 {
				return ref, nil
			}
		}
		return 0, fmt.Errorf("slabctl: %s: there is no such chunk", text)
	}
	at, err := strconv.ParseInt(text, 0, 64)
	if err != nil || at < 0 {
		return 0, fmt.Errorf("slabctl: %q, want page/slot or an offset", text)
	}
	page := in.Store.PageOf(mmapslab.RefAt(at))
	if page == 0 || in.Store.PerPage(page) == 0 {
		return 0, fmt.Errorf("slabctl: offset %#x lies in no assigned page", at)
	}
	first := in.Store.RefAtPlace(page, 0)
	slot := (at - first.Offset()) / int64(in.Store.ChunkSize(first))
	if ref := in.Store.RefAtPlace(page, uint32(slot)); ref != 0 {
		return ref, nil
	}
	return 0, fmt.Errorf("slabctl: offset %#x lies behind the last chunk of page %d", at, page)
}

// field is a line of a labelled hexdump.
type field struct {
	size  int
	label string
}

// hexdump labels the bytes of b, which lie at base, field by field; long fields take lines of 16 bytes with their text.
func hexdump(w io.Writer, b []byte, base int64, fields []field) {
	at := 0
	for _, f := range fields {
		for left := f.size; left > 0 && at < len(b); {
			n := min(left, 16, len(b)-at)
			label := f.label
			if f.size > 16 {
				label = fmt.Sprintf("%-16s  %s", printable(b[at:at+n]), f.label)
				if left != f.size {
					label = printable(b[at : at+n])
				}
			}
			fmt.Fprintf(w, "%010x  %-32x  %s\n", base+int64(at), b[at:at+n], label)
			at, left = at+n, left-n
		}
	}
}

func printable(b []byte) string {
	out := make([]byte, len(b))
	for i, v := range b {
		if out[i] = '.'; v >= ' ' && v < 0x7f {
			out[i] = v
		}
	}
	return string(out)
}

// dumpChunk shows a chunk by what it seems to be; the index is asked what it is.
func dumpChunk(w io.Writer, in *restore.Inspected, ref mmapslab.Ref, valueMost int) {
	chunk := in.Store.Arena().Bytes(ref.Offset(), in.Store.ChunkSize(ref))
	meta := mmapslab.Meta(in.Store.Meta(ref).Load())
	kind, it := "free, or what a kill left", mmapslab.Item{}
	isItem := false
	for _, try := range []mmapslab.Ref{ref, ref | mmapslab.Chained} {
		if found, ok := in.Store.Item(try); ok && !isItem {
			it, isItem = found, true
		}
	}
	switch {
	case isItem && in.Index.Holds(in.Store.Hasher().Sum(it.Key()), it.Ref()):
		kind = "a live item"
	case isItem:
		kind = "an item that the index does not name: free, or what a kill left"
	case chunk[0] == 'D':
		kind = "part of a chain, or free"
	}
	fmt.Fprintf(w, "chunk %s at %#x, class %d of %d bytes: %s\n", place(in, ref), ref.Offset(), in.Store.Class(ref), len(chunk), kind)
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(chunk[at:]) }
	switch {
	case isItem:
		sum := "matches"
		if !in.Store.Verify(&it) {
			sum = "does not match"
		}
		fields := []field{
			{1, "kind: item"}, {1, fmt.Sprintf("key length %d", chunk[1])}, {2, fmt.Sprintf("item flags %#x", binary.NativeEndian.Uint16(chunk[2:]))}, {4, fmt.Sprintf("flush epoch %d", it.Epoch())},
			{8, fmt.Sprintf("CAS %d", it.CAS())}, {4, fmt.Sprintf("value length %d", it.ValueLen())}, {4, fmt.Sprintf("client flags %d", it.ClientFlags())},
			{4, fmt.Sprintf("hash %08x…", it.Hash())}, {4, "crc32c, " + sum},
		}
		fields = append(fields, metaFields(in, meta)...)
		if it.Ref()&mmapslab.Chained != 0 {
			fields = append(fields, field{8, "first data chunk"})
		}
		fields = append(fields, field{len(it.Key()), "key"}, field{min(len(it.Value()), valueMost), "value"})
		hexdump(w, chunk, ref.Offset(), fields)
		if it.Ref()&mmapslab.Chained != 0 {
			whole := in.Store.Chain(&it, func(data mmapslab.Ref, part []byte) {
				fmt.Fprintf(w, "data chunk %s at %#x: %d bytes\n", place(in, data), data.Offset(), len(part))
			})
			if !whole {
				fmt.Fprintln(w, "the chain is broken")
			}
		} else if rest := len(it.Value()) - valueMost; rest > 0 {
			fmt.Fprintf(w, "and %d bytes more\n", rest)
		}
	case chunk[0] == 'D':
		next := mmapslab.Ref(binary.NativeEndian.Uint64(chunk[8:]))
		hexdump(w, chunk, ref.Offset(), []field{{1, "kind: data"}, {3, "0"}, {4, fmt.Sprintf("bytes used %d", u32(4))}, {8, fmt.Sprintf("next data chunk: offset %#x", next.Offset())}, {16, "0"},
			{8, fmt.Sprintf("owner: offset %#x", in.Store.Owner(ref).Offset())}, {min(valueMost, len(chunk)-mmapslab.DataHeaderSize), "value"}})
	default:
		hexdump(w, chunk, ref.Offset(), []field{{min(valueMost, len(chunk)), "nothing that is read"}})
	}
	id := in.Store.ID(ref)
	if in.Listed {
		link := in.Store.Link(id)
		fmt.Fprintf(w, "chunk id %#x, link: behind %#x, before %#x\n", id, link.Prev, link.Next)
	}
}

func metaFields(in *restore.Inspected, m mmapslab.Meta) []field {
	var bits []string
	for _, b := range []struct {
		bit  mmapslab.Meta
		name string
	}{{mmapslab.Copying, "copying"}, {mmapslab.Active, "active"}, {mmapslab.Fetched, "fetched"}, {mmapslab.Linked, "linked"}, {mmapslab.ListedApart, "listed apart"}} {
		if m&b.bit != 0 {
			bits = append(bits, b.name)
		}
	}
	expires := "never expires"
	if t := m.Exptime(); t != 0 {
		expires = fmt.Sprintf("expires in %s", span(int64(t)-int64(in.Now)))
	}
	return []field{{4, fmt.Sprintf("%s, idle for %s; %s", segments[m.Segment()], span(int64(m.Age(in.Now))), strings.Join(bits, ", "))}, {4, expires}}
}
