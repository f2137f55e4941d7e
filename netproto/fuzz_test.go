package netproto_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"hearth/netproto"
)

// parsed is one request of a stream: what it said and where its line and its data block ended.
type parsed struct {
	what       string
	lineLen    int
	end        int
	hangsUp    bool
	blockAhead int // bytes of a data block that the stream does not have
}

// parseStream reads requests as a server does, given step more bytes whenever more are needed, and skips data blocks.
func parseStream(t *testing.T, stream []byte, step int) (all []parsed) {
	var r netproto.Request
	at, have := 0, min(step, len(stream))
	for {
		n := netproto.Parse(stream[at:have:have], &r)
		if n < 0 || n > have-at {
			t.Fatalf("consumed %d of %d bytes %q", n, have-at, stream[at:have])
		}
		if n == 0 {
			if have == len(stream) {
				return all
			}
			have = min(have+step, len(stream))
			continue
		}
		checkAliases(t, &r, stream[at:at+n])
		block := int64(r.Size) + 2
		if !r.Verb.Stores() {
			block = r.Swallow
		}
		what := show(&r)
		if r.Verb >= netproto.VerbMetaGet {
			if r.Verb == netproto.VerbMetaNoop {
				r.Key, r.KeyToken, r.MetaFlags = nil, nil, nil // stale
			}
			what = showMeta(&r)
		}
		p := parsed{what: what, lineLen: n, hangsUp: r.Verb == netproto.VerbBad && r.Close}
		at += n
		if rest := int64(len(stream) - at); block > rest {
			p.blockAhead = int(block - rest)
			block = rest
		}
		at += int(block)
		have = max(have, at)
		p.end = at
		if all = append(all, p); p.hangsUp || p.blockAhead > 0 || r.Verb == netproto.VerbQuit {
			return all
		}
	}
}

// checkAliases checks that all slices of r lie in line, by overwriting line for a moment.
func checkAliases(t *testing.T, r *netproto.Request, line []byte) {
	const mark = 0xA5
	var slices [][]byte
	switch {
	case r.Verb == netproto.VerbBad:
		return
	case r.Verb <= netproto.VerbGats:
		k := r.Keys
		for key, ok := k.Next(); ok; key, ok = k.Next() {
			slices = append(slices, key)
		}
		if len(slices) == 0 {
			t.Fatalf("%q: a get without keys", line)
		}
	case r.Verb == netproto.VerbAdmin:
		return // it keeps no words
	case r.Verb == netproto.VerbMetaNoop:
	case netproto.VerbMetaGet <= r.Verb && r.Verb <= netproto.VerbMetaDebug:
		if len(r.Key) == 0 || len(r.Key) > netproto.MaxKey {
			t.Fatalf("%q: a key of %d bytes", line, len(r.Key))
		}
		slices = [][]byte{r.KeyToken}
		if !r.KeyBinary {
			slices = append(slices, r.Key)
		}
		for _, f := range r.MetaFlags {
			if len(f.Token) > 0 {
				slices = append(slices, f.Token)
			}
		}
	case r.Verb == netproto.VerbStats || r.Verb == netproto.VerbShutdown:
		slices = r.Args
	case r.Verb.Stores() || r.Verb <= netproto.VerbTouch:
		slices = [][]byte{r.Key}
	}
	saved := bytes.Clone(line)
	for i := range line {
		line[i] = mark
	}
	for _, s := range slices {
		if len(s) == 0 || r.Verb <= netproto.VerbTouch && len(s) > netproto.MaxKey {
			t.Fatalf("%q: a word of %d bytes", saved, len(s))
		}
		if bytes.Count(s, []byte{mark}) != len(s) {
			t.Fatalf("%q: a slice lies outside of the line", saved)
		}
	}
	copy(line, saved)
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"get a b c\r\n", "gets a\nget b\n", "gat 1 a\r\ngats 2 b\r\n", "set k 1 2 3\r\nabc\r\nadd k 1 2 3 noreply\r\nabc\r\n", "cas k 0 0 1 99\r\na\r\n",
		"append k 0 0 0\r\n\r\nprepend k 0 0 0\r\n\r\nreplace k 0 0 0\r\n\r\n", "incr k 1\r\ndecr k 2 noreply\r\ntouch k 3\r\ndelete k\r\n",
		"flush_all 3 noreply\r\nversion\r\nverbosity 1\r\nstats items\r\nshutdown\r\nquit\r\nget a\r\n", "set k x 0 3\r\nabc\r\nget a\r\n",
		"set " + key251 + " 0 0 3\r\nabc\r\nget " + key251 + "\r\n", "GET / HTTP/1.1\r\n", "\r\n\n \n  \r\nmn\n", "set k -18446744073709551615 \t+1\tx 1\r\na\r\n",
		"get " + strings.Repeat("k ", 1100) + "\r\n", "delete " + strings.Repeat("k ", 1100) + "\r\n", strings.Repeat("x", 2100), "set k 0 0 2147483645\r\nabc",
		"mg k s t c f k v O7 q\r\nmg YQ== b k\r\nmn\r\nme YQ== b\r\n", "ms k 3 T5 F9 C5 I E7 MA N4 O1 c\r\nabc\r\nmg k\r\n", "ms k 3 v v\r\nabc\r\nms k -1 v v\r\n",
		"md k I T5 x q\r\nma k D5 J6 N7 MD v\r\nma k -\r\nma k M\r\n", "ms k 3 b\r\nabc\r\nms " + key251 + " 3\r\nabc\r\n", "mg k b N0 T0 R0 l O P L k s t c f v h u q x I\r\n",
	} {
		f.Add([]byte(seed), 7)
	}
	for _, seed := range []string{"slabs reassign 1 2\r\nslabs automove ratio 0.5 noreply\r\nslabs automove window 4\r\n", "lru tune 10 20 0.1 2\r\nlru mode flat\r\nlru temp_ttl -1\r\n",
		"lru_crawler crawl 1,2,,63\r\nlru_crawler metadump all\r\nlru_crawler sleep 5\r\nlru_crawler enable\r\n", "cache_memlimit 64\r\nwatch\r\nwatch fetchers deletions rawcmds noreply\r\nwatch fetch\r\nrefresh_certs noreply\r\n"} {
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		whole := parseStream(t, stream, max(len(stream), 1))
		for _, step := range []int{1, max(1, min(step, len(stream)))} {
			split := parseStream(t, stream, step)
			for i, want := range whole {
				if i == len(split) {
					t.Fatalf("%d bytes at a time: request %d of %d is missing: %s", step, i, len(whole), want.what)
				}
				if got := split[i]; got != want {
					if want.lineLen > netproto.MaxLine && got.hangsUp { // the exception that the package comment tells
						return
					}
					t.Fatalf("%d bytes at a time: request %d:\n got %+v\nwant %+v", step, i, got, want)
				}
			}
			if len(split) > len(whole) {
				t.Fatalf("%d bytes at a time: an extra request %+v", step, split[len(whole)])
			}
		}
	})
}

// FuzzNoreply makes lines that have all their words, right or wrong, and a noreply behind them.
func FuzzNoreply(f *testing.F) {
	f.Add("k", "1", "2", "3", "4")
	f.Add(key251, "x", "-1", "+3", "")
	f.Add("noreply", "noreply", "noreply", "noreply", "noreply")
	f.Fuzz(func(t *testing.T, key, flags, exptime, size, number string) {
		for _, w := range []string{key, flags, exptime, size, number} {
			if w == "" || len(w) > 400 || strings.ContainsAny(w, " \n\r") {
				t.Skip("not one word")
			}
		}
		for _, line := range []string{
			fmt.Sprintf("set %s %s %s %s", key, flags, exptime, size), fmt.Sprintf("add %s %s %s %s", key, flags, exptime, size),
			fmt.Sprintf("replace %s %s %s %s", key, flags, exptime, size), fmt.Sprintf("append %s %s %s %s", key, flags, exptime, size),
			fmt.Sprintf("prepend %s %s %s %s", key, flags, exptime, size), fmt.Sprintf("cas %s %s %s %s %s", key, flags, exptime, size, number),
			"delete " + key, fmt.Sprintf("incr %s %s", key, number), fmt.Sprintf("decr %s %s", key, number), fmt.Sprintf("touch %s %s", key, exptime),
			"flush_all", "flush_all " + exptime, "verbosity " + number, "stats " + key, "shutdown " + key,
			"slabs automove " + size, "slabs reassign " + exptime + " " + number, "lru tune " + exptime + " " + size + " 1 2", "lru temp_ttl " + exptime,
			"lru_crawler sleep " + size, "lru_crawler metadump " + key, "cache_memlimit " + number, "watch " + key,
		} {
			var loud, quiet netproto.Request
			netproto.Parse([]byte(line+"\r\n"), &loud)
			netproto.Parse([]byte(line+" noreply\r\n"), &quiet)
			if quiet.Reply != "" || quiet.Verb != netproto.VerbBad && !quiet.Noreply {
				t.Fatalf("%q with noreply: %s", line, show(&quiet))
			}
			if number == "noreply" || exptime == "noreply" || size == "noreply" || key == "noreply" {
				continue // the line had one already
			}
			if loud.Noreply || loud.Verb == netproto.VerbBad && loud.Reply == "" {
				t.Fatalf("%q without noreply: %s", line, show(&loud))
			}
			loud.Noreply, loud.Reply = quiet.Noreply, ""
			if got, want := show(&quiet), show(&loud); got != want {
				t.Fatalf("%q: noreply changes the request:\n got %s\nwant %s", line, got, want)
			}
		}
	})
}
