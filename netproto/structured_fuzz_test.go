package netproto_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hearth/netproto"
)

// FuzzParse finds few lines that get past the first word of a command. The fuzzers here choose words from tables instead, an input byte each, so that
// nearly every input is a line with something to it.

// numberTokens are the numbers that flags get, each with the types that hold it.
var numberTokens = []numberToken{
	{"0", true, true, true}, {"1", true, true, true}, {"2147483647", true, true, true}, {"-1", true, false, false}, {"-2147483648", true, false, false},
	{"2147483648", false, true, true}, {"4294967295", false, true, true}, {"4294967296", false, false, true}, {"18446744073709551615", false, false, true},
	{"18446744073709551616", false, false, false}, {"", false, false, false}, {"x", false, false, false}, {"-2147483649", false, false, false}, {"007", true, true, true},
}

type numberToken struct {
	text                  string
	int32, uint32, uint64 bool
}

// metaLetters are the flags there are, each twice, so that most bytes choose one, and some that are none.
const metaLetters = "bcfhklqstuvxCDEFIJLMNOPRTbcfhklqstuvxCDEFIJLMNOPRTzAZS1-\x00\xff"

// metaLine is a meta command, and what a second reading of its flags found wrong with them.
type metaLine struct {
	command, key string
	flags        []string
	problems     map[string]bool // the replies that may be expected; none: the line is right
}

// chooseMeta makes two bytes of choices a flag: its letter and its token.
func chooseMeta(command, key string, choices []byte, word string) *metaLine {
	m := &metaLine{command: command, key: key, problems: map[string]bool{}}
	bad := func(is bool, reply string) {
		if is {
			m.problems[reply] = true
		}
	}
	bad(len(key) > netproto.MaxKey, netproto.BadFormat)
	for ; len(choices) >= 2; choices = choices[2:] {
		letter := metaLetters[int(choices[0])%len(metaLetters)]
		n := numberTokens[int(choices[1])%len(numberTokens)]
		token := n.text
		numeric := strings.IndexByte("CDEFJNRT", letter) >= 0
		if !numeric && choices[1]&1 == 1 {
			token = word
		}
		flag := string([]byte{letter}) + token
		bad(!('0' <= letter && letter <= '9' || 'a' <= letter && letter <= 'z' || 'A' <= letter && letter <= 'Z'), netproto.BadFormat)
		bad(strings.IndexByte("zAZS1", letter) >= 0, netproto.InvalidFlag)
		bad(slices.ContainsFunc(m.flags, func(f string) bool { return f[0] == letter }), netproto.DuplicateFlag)
		switch letter {
		case 'N', 'R', 'T':
			bad(!n.int32, netproto.BadToken)
		case 'C', 'E':
			bad(!n.uint64, netproto.BadToken)
		case 'J':
			bad(!n.uint64, netproto.InvalidInitial)
		case 'D':
			bad(!n.uint64, netproto.InvalidMetaDelta)
		case 'F':
			bad(!n.uint32, netproto.BadFormat)
		case 'O':
			bad(len(token) > 31, netproto.OpaqueTooLong)
		case 'b':
			_, err := base64.StdEncoding.DecodeString(key)
			bad(err != nil || key == "" || strings.Contains(key, "\r"), netproto.BadBase64)
		case 'M':
			bad(command == "ms" && (token == "" || !strings.Contains("SEAPR", token[:1])), netproto.InvalidStoreMode)
			bad(command == "ma" && (token == "" || !strings.Contains("ID+-", token[:1])), netproto.InvalidNumberMode)
		}
		m.flags = append(m.flags, flag)
	}
	words := 2 + len(m.flags)
	if command == "ms" {
		words++
	}
	bad(words > 20, netproto.TooManyFlags)
	if command == "ma" {
		for _, reply := range []string{netproto.TooManyFlags, netproto.DuplicateFlag, netproto.InvalidFlag, netproto.BadToken, netproto.InvalidInitial, netproto.InvalidMetaDelta,
			netproto.BadBase64, netproto.BadFormat} {
			bad(m.problems[reply], netproto.InvalidOrDupFlag) // its one reply to them all, for BadFormat of F only
		}
	}
	return m
}

// check compares an accepted request with the words it was made of.
func (m *metaLine) check(r *netproto.Request, size int) error {
	got := make([]string, len(r.MetaFlags))
	for i, f := range r.MetaFlags {
		got[i] = string([]byte{f.Letter}) + string(f.Token)
	}
	if !slices.Equal(got, m.flags) {
		return fmt.Errorf("flags %q, want %q", got, m.flags)
	}
	token := func(letter byte) (text string, has bool) {
		i := slices.IndexFunc(m.flags, func(f string) bool { return f[0] == letter })
		if has = i >= 0; has {
			text = m.flags[i][1:]
		}
		return text, has
	}
	for letter := byte('A'); letter <= 'z'; letter++ {
		if _, has := token(letter); r.Has(letter) != has {
			return fmt.Errorf("Has(%q) is %v", letter, !has)
		}
	}
	number := func(letter byte, fallback string) string {
		text, has := token(letter)
		if !has {
			return fallback
		}
		if text = strings.TrimLeft(text, "0"); text == "" {
			text = "0"
		}
		return text
	}
	u := func(n uint64) string { return strconv.FormatUint(n, 10) }
	d := func(n int64) string { return strconv.FormatInt(n, 10) }
	for letter, field := range map[byte][2]string{
		'T': {d(r.Exptime), "0"}, 'N': {d(r.Vivify), "0"}, 'R': {d(r.Recache), "0"}, 'C': {u(r.CAS), "0"}, 'E': {u(r.NewCAS), "0"}, 'J': {u(r.Initial), "0"},
		'D': {u(r.Delta), "1"}, 'F': {u(uint64(r.Flags)), "0"},
	} {
		if want := number(letter, field[1]); field[0] != want {
			return fmt.Errorf("the field of %q is %s, want %s", letter, field[0], want)
		}
	}
	key, mode := m.key, byte(0)
	if r.Has('b') {
		raw, _ := base64.StdEncoding.DecodeString(m.key)
		key = string(raw)
	}
	switch text, has := token('M'); {
	case m.command == "ms" && !has:
		mode = 'S'
	case m.command == "ms":
		mode = text[0]
	case m.command == "ma":
		if mode = 'I'; has && strings.Contains("D-", text[:1]) {
			mode = 'D'
		}
	}
	if string(r.Key) != key || string(r.KeyToken) != m.key || r.KeyBinary != r.Has('b') || r.Noreply != r.Has('q') || r.Size != size || r.Mode != mode {
		return fmt.Errorf("got %s, want key %q, size %d, mode %q", showMeta(r), key, size, mode)
	}
	return nil
}

// FuzzMeta makes meta commands out of all flags with all kinds of tokens, and reads them a second time in the most direct way: right lines are accepted with
// every field as it was written, wrong ones are answered with a reply that tells of something that is wrong with them, and how the bytes come changes nothing.
func FuzzMeta(f *testing.F) {
	// The choices that make these flags; a token that is no number stands for word.
	choices := func(flags string) (choices []byte) {
		for _, flag := range strings.Fields(flags) {
			token := slices.IndexFunc(numberTokens, func(n numberToken) bool { return n.text == flag[1:] })
			if strings.Contains("CDEFJNRT", flag[:1]) {
				choices = append(choices, byte(strings.Index(metaLetters, flag[:1])), byte(token))
			} else {
				choices = append(choices, byte(strings.Index(metaLetters, flag[:1])), byte(len(flag)&1^1))
			}
		}
		return choices
	}
	const every = "b c f h k l q s t u v x C1 D2147483648 E0 F4294967295 I J18446744073709551615 L MX N-1 O P R-2147483648 T2147483647"
	f.Add(byte(0), "k", "", uint16(0), choices("v"))
	f.Add(byte(0), "YQ==", "opaque", uint16(0), choices("b k v t c s f h l q OX N0 R1 T-1"))
	f.Add(byte(1), "k", "SET", uint16(3), choices("T1 F1 C1 E1 MX q I OX k c b"))
	f.Add(byte(1), "YQ==", "Append", uint16(0), choices("b MX N007"))
	f.Add(byte(2), "k", strings.Repeat("o", 32), uint16(0), choices("OX I T1 x"))
	f.Add(byte(3), "k", "Decr", uint16(0), choices("MX N0 J1 D1 T1 R1 v"))
	f.Add(byte(3), "k", "", uint16(0), choices(every))
	f.Add(byte(1), key251, "-", uint16(5), choices("v v z"))
	f.Add(byte(0), "k", "-", uint16(0), choices("v t v"))
	f.Add(byte(0), "k", "", uint16(0), choices("T2147483648 F4294967296 C-1 E18446744073709551616 N R0 1"))
	f.Fuzz(func(t *testing.T, command byte, key, word string, size uint16, choices []byte) {
		if key == "" || strings.ContainsAny(key, " \n\r") || len(key) > 300 || strings.ContainsAny(word, " \n\r") || len(word) > 100 || len(choices) > 60 {
			t.Skip("not words of a line")
		}
		m := chooseMeta([]string{"mg", "ms", "md", "ma"}[command%4], key, choices, word)
		line, block := m.command+" "+key, ""
		if m.command == "ms" {
			size %= 40
			line += fmt.Sprintf(" %d", size)
			block = strings.Repeat("v", int(size)) + "\r\n"
		} else {
			size = 0
		}
		line = strings.Join(append([]string{line}, m.flags...), " ") + "\r\n"
		r := parseLine(t, line)
		switch {
		case r.Verb == netproto.VerbBad && !m.problems[r.Reply]:
			t.Fatalf("%q: refused with %q, want one of %v", line, r.Reply, m.problems)
		case r.Verb == netproto.VerbBad && r.Swallow != int64(len(block)):
			t.Fatalf("%q: drops %d bytes of a block of %d", line, r.Swallow, len(block))
		case r.Verb != netproto.VerbBad && len(m.problems) > 0:
			t.Fatalf("%q: accepted, want one of %v", line, m.problems)
		case r.Verb != netproto.VerbBad:
			if err := m.check(r, int(size)); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		sameWhenSplit(t, []byte(line+block+"mn\r\n"))
	})
}

// sameWhenSplit reads a stream of whole requests at once and byte by byte.
func sameWhenSplit(t *testing.T, stream []byte) {
	t.Helper()
	whole, split := parseStream(t, stream, len(stream)), parseStream(t, stream, 1)
	if !slices.Equal(whole, split) {
		t.Fatalf("%q: byte by byte\n got %+v\nwant %+v", stream, split, whole)
	}
	if len(whole) == 0 || whole[len(whole)-1].end != len(stream) {
		t.Fatalf("%q: read up to %+v", stream, whole)
	}
}

// adminWords are all words that admin commands know, and some for their places.
var adminWords = strings.Fields("slabs reassign automove ratio freeratio window lru tune mode flat segmented temp_ttl lru_crawler enable disable sleep tocrawl crawl metadump mgdump " +
	"cache_memlimit watch refresh_certs all hash noreply 0 1 2 3 -1 63 64 80 81 1000000 1000001 1800 1801 4294967296 18446744073709551615 18446744073709551616 0.5 -0.5 nan inf 1e400 1,2 1,,63 , x")

// FuzzAdmin makes admin commands, an input byte a word; word stands for bytes beyond the table. What is accepted lies within the ranges that Admin tells,
// a noreply changes nothing but Noreply, and so does not how the bytes come.
func FuzzAdmin(f *testing.F) {
	index := func(line string) (choices []byte) {
		for _, w := range strings.Fields(line) {
			choices = append(choices, byte(slices.Index(adminWords, w)))
		}
		return choices
	}
	for _, seed := range []string{
		"slabs reassign -1 2", "slabs automove 2", "slabs automove ratio 0.5", "slabs automove window 1800", "slabs automove freeratio 1e400", "lru tune 1 80 0.5 inf",
		"lru tune 1 80 nan 0.5", "lru mode flat", "lru mode segmented noreply", "lru temp_ttl -1", "lru_crawler enable", "lru_crawler sleep 1000000", "lru_crawler tocrawl 4294967296",
		"lru_crawler crawl 1,,63", "lru_crawler metadump all noreply", "lru_crawler mgdump hash", "cache_memlimit 64 noreply", "watch", "refresh_certs x", "lru_crawler crawl ,",
	} {
		f.Add(index(seed), "x")
	}
	f.Fuzz(func(t *testing.T, choices []byte, word string) {
		if len(choices) == 0 || len(choices) > 30 || word == "" || strings.ContainsAny(word, " \n\r") || len(word) > 100 {
			t.Skip("not words of a line")
		}
		words := make([]string, len(choices))
		for i, c := range choices {
			words[i] = word
			if int(c) < len(adminWords) {
				words[i] = adminWords[c]
			}
		}
		line := strings.Join(words, " ")
		r := *parseLine(t, line+"\r\n")
		if a := &r.Admin; r.Verb == netproto.VerbAdmin {
			limits := map[netproto.AdminOp][2]int64{
				netproto.AdminReassign: {math.MinInt32, math.MaxInt32}, netproto.AdminAutomove: {0, 2}, netproto.AdminAutomoveWindow: {3, 1800}, netproto.AdminTune: {0, 80},
				netproto.AdminTempTTL: {math.MinInt32, math.MaxInt32}, netproto.AdminCrawlerSleep: {0, 1e6}, netproto.AdminCrawlerToCrawl: {0, math.MaxUint32}, netproto.AdminMemlimit: {8, 1e9},
			}[a.Op]
			inRange := a.A >= limits[0] && a.A <= limits[1] && !math.IsNaN(a.X) && !math.IsNaN(a.Y)
			switch a.Op {
			case netproto.AdminTune:
				inRange = inRange && a.B >= 0 && a.A+a.B <= 80 && a.X > 0 && a.Y > 0
			case netproto.AdminCrawl, netproto.AdminMetadump, netproto.AdminMgdump:
				some := a.Classes.All || a.Classes.Hash
				for id := range 64 {
					some = some || a.Classes.Has(id)
				}
				inRange = inRange && (some || a.Problem != "") && !(a.Classes.Has(0) && !a.Classes.All && !a.Classes.Hash)
			}
			if !inRange {
				t.Fatalf("%q: %s", line, show(&r))
			}
		}
		// A noreply counts among the words of cache_memlimit, and from the 23rd word on nothing is seen.
		if r.Verb == netproto.VerbAdmin && !slices.Contains(words, "noreply") && len(words) < 22 && (words[0] != "cache_memlimit" || len(words) < 3) {
			quiet := *parseLine(t, line+" noreply\r\n")
			r.Noreply = true
			if got, want := show(&quiet), show(&r); got != want {
				t.Fatalf("%q with noreply:\n got %s\nwant %s", line, got, want)
			}
		}
		sameWhenSplit(t, []byte(line+"\r\nmn\r\n"))
	})
}
