package netproto_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hearth/netproto"
)

// show writes a request as one line, with the fields that its verb has a use for.
func show(r *netproto.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", r.Verb)
	switch v := r.Verb; {
	case v == netproto.VerbBad:
		fmt.Fprintf(&b, " reply=%q swallow=%d close=%t", r.Reply, r.Swallow, r.Close)
	case v <= netproto.VerbGats:
		fmt.Fprintf(&b, " exptime=%d keys=%q", r.Exptime, keys(r))
	case v == netproto.VerbAdmin:
		fmt.Fprintf(&b, " %+v", r.Admin)
	case v == netproto.VerbStats || v == netproto.VerbShutdown:
		fmt.Fprintf(&b, " args=%q", r.Args)
	case v == netproto.VerbFlushAll || v == netproto.VerbVersion || v == netproto.VerbQuit || v == netproto.VerbVerbosity:
		fmt.Fprintf(&b, " exptime=%d level=%d", r.Exptime, r.Level)
	default:
		fmt.Fprintf(&b, " key=%q flags=%d exptime=%d size=%d cas=%d delta=%d", r.Key, r.Flags, r.Exptime, r.Size, r.CAS, r.Delta)
	}
	if r.Noreply {
		b.WriteString(" noreply")
	}
	return b.String()
}

func keys(r *netproto.Request) (all []string) {
	k := r.Keys
	for key, ok := k.Next(); ok; key, ok = k.Next() {
		all = append(all, string(key))
	}
	return all
}

var (
	key250 = strings.Repeat("k", 250)
	key251 = strings.Repeat("k", 251)
)

// dirty is a request with something in every field, which Parse must not let through.
func dirty() netproto.Request {
	return netproto.Request{
		Verb: 99, Noreply: true, Close: true, Flags: 99, Key: []byte("stale"), Exptime: 99, Size: 99, CAS: 99, Delta: 99, Level: 99,
		Args: [][]byte{[]byte("stale")}, Reply: "stale", Swallow: 99,
	}
}

func parseLine(t *testing.T, line string) *netproto.Request {
	t.Helper()
	r := dirty()
	if n := netproto.Parse([]byte(line+"get next\r\n"), &r); n != len(line) {
		t.Errorf("%q: consumed %d bytes, want the line's %d", line, n, len(line))
	}
	return &r
}

func TestReadsEveryCommand(t *testing.T) {
	line := func(verb netproto.Verb, rest string) string { return fmt.Sprintf("%d %s", verb, rest) }
	store := func(verb netproto.Verb, flags, exptime, size, cas int64, more string) string {
		return line(verb, fmt.Sprintf("key=%q flags=%d exptime=%d size=%d cas=%d delta=0%s", "k", flags, exptime, size, cas, more))
	}
	keyed := func(verb netproto.Verb, exptime int64, delta uint64, more string) string {
		return line(verb, fmt.Sprintf("key=%q flags=0 exptime=%d size=0 cas=0 delta=%d%s", "k", exptime, delta, more))
	}
	for _, test := range []struct{ in, want string }{
		{"get k", line(netproto.VerbGet, `exptime=0 keys=["k"]`)},
		{"get noreply", line(netproto.VerbGet, `exptime=0 keys=["noreply"]`)},
		{"get  a   b ", line(netproto.VerbGet, `exptime=0 keys=["a" "b"]`)},
		{"get a a", line(netproto.VerbGet, `exptime=0 keys=["a" "a"]`)},
		{"get a\tb \x00 \x80\xff", line(netproto.VerbGet, `exptime=0 keys=["a\tb" "\x00" "\x80\xff"]`)},
		{"get a\r", line(netproto.VerbGet, `exptime=0 keys=["a\r"]`)},
		{"get / HTTP/1.1", line(netproto.VerbGet, `exptime=0 keys=["/" "HTTP/1.1"]`)},
		{"get " + key250, line(netproto.VerbGet, fmt.Sprintf(`exptime=0 keys=[%q]`, key250))},
		{"gets a b", line(netproto.VerbGets, `exptime=0 keys=["a" "b"]`)},
		{"gat 5 a b", line(netproto.VerbGat, `exptime=5 keys=["a" "b"]`)},
		{"gat -1 a noreply", line(netproto.VerbGat, `exptime=-1 keys=["a" "noreply"]`)},
		{"gats 2147483647 a", line(netproto.VerbGats, `exptime=2147483647 keys=["a"]`)},

		{"set k 1 2 3", store(netproto.VerbSet, 1, 2, 3, 0, "")},
		{"add k 1 2 3", store(netproto.VerbAdd, 1, 2, 3, 0, "")},
		{"replace k 1 2 3", store(netproto.VerbReplace, 1, 2, 3, 0, "")},
		{"append k 1 2 3", store(netproto.VerbAppend, 1, 2, 3, 0, "")},
		{"prepend k 1 2 3", store(netproto.VerbPrepend, 1, 2, 3, 0, "")},
		{"cas k 1 2 3 4", store(netproto.VerbCas, 1, 2, 3, 4, "")},
		{"cas k 1 2 3 4 noreply", store(netproto.VerbCas, 1, 2, 3, 4, " noreply")},
		{"set k 1 2 3 noreply", store(netproto.VerbSet, 1, 2, 3, 0, " noreply")},
		{"set k 1 2 3 junk", store(netproto.VerbSet, 1, 2, 3, 0, "")},
		{"set k 1 2 3 junk more noreply", store(netproto.VerbSet, 1, 2, 3, 0, " noreply")},
		{"set k 1 2 3 noreply junk", store(netproto.VerbSet, 1, 2, 3, 0, "")},
		{"set  k  1  2  3  noreply ", store(netproto.VerbSet, 1, 2, 3, 0, " noreply")},
		{"set k 1 2 3 " + words(6, 22) + " noreply", store(netproto.VerbSet, 1, 2, 3, 0, " noreply")},
		{"set k 1 2 3 " + words(6, 22) + " noreply x", store(netproto.VerbSet, 1, 2, 3, 0, " noreply")},
		{"set k 1 2 3 " + words(6, 23) + " noreply", store(netproto.VerbSet, 1, 2, 3, 0, "")},
		{"cas k 1 2 3 4 " + words(7, 22) + " noreply", store(netproto.VerbCas, 1, 2, 3, 4, " noreply")},
		{"cas k 1 2 3 4 " + words(7, 23) + " noreply", store(netproto.VerbCas, 1, 2, 3, 4, "")},

		{"delete k", keyed(netproto.VerbDelete, 0, 0, "")},
		{"delete k 0", keyed(netproto.VerbDelete, 0, 0, "")},
		{"delete k any thing", keyed(netproto.VerbDelete, 0, 0, "")},
		{"delete k any noreply", keyed(netproto.VerbDelete, 0, 0, " noreply")},
		{"delete k noreply", keyed(netproto.VerbDelete, 0, 0, " noreply")},
		{"delete k " + words(3, 22) + " noreply", keyed(netproto.VerbDelete, 0, 0, " noreply")},
		{"delete k " + words(3, 23) + " noreply", keyed(netproto.VerbDelete, 0, 0, "")},
		{"incr k 5", keyed(netproto.VerbIncr, 0, 5, "")},
		{"incr k 5 noreply", keyed(netproto.VerbIncr, 0, 5, " noreply")},
		{"incr k 5 x y", keyed(netproto.VerbIncr, 0, 5, "")},
		{"decr k 18446744073709551615", keyed(netproto.VerbDecr, 0, 1<<64-1, "")},
		{"touch k 5", keyed(netproto.VerbTouch, 5, 0, "")},
		{"touch k -5 noreply", keyed(netproto.VerbTouch, -5, 0, " noreply")},

		{"flush_all", line(netproto.VerbFlushAll, "exptime=0 level=0")},
		{"flush_all 5", line(netproto.VerbFlushAll, "exptime=5 level=0")},
		{"flush_all -5", line(netproto.VerbFlushAll, "exptime=-5 level=0")},
		{"flush_all 5 x", line(netproto.VerbFlushAll, "exptime=5 level=0")},
		{"flush_all noreply", line(netproto.VerbFlushAll, "exptime=0 level=0 noreply")},
		{"flush_all 5 noreply", line(netproto.VerbFlushAll, "exptime=5 level=0 noreply")},
		{"verbosity 1", line(netproto.VerbVerbosity, "exptime=0 level=1")},
		{"verbosity 7", line(netproto.VerbVerbosity, "exptime=0 level=2")},
		{"verbosity 4294967295", line(netproto.VerbVerbosity, "exptime=0 level=2")},
		{"verbosity 4294967296", line(netproto.VerbVerbosity, "exptime=0 level=0")},
		{"verbosity 1 noreply", line(netproto.VerbVerbosity, "exptime=0 level=1 noreply")},
		{"verbosity 1 x", line(netproto.VerbVerbosity, "exptime=0 level=1")},
		{"version", line(netproto.VerbVersion, "exptime=0 level=0")},
		{"version noreply", line(netproto.VerbVersion, "exptime=0 level=0")},
		{"quit", line(netproto.VerbQuit, "exptime=0 level=0")},
		{"quit now", line(netproto.VerbQuit, "exptime=0 level=0")},
		{"stats", line(netproto.VerbStats, `args=[]`)},
		{"stats items", line(netproto.VerbStats, `args=["items"]`)},
		{"stats  detail  on ", line(netproto.VerbStats, `args=["detail" "on"]`)},
		{"stats reset noreply", line(netproto.VerbStats, `args=["reset"] noreply`)},
		{"stats noreply", line(netproto.VerbStats, `args=[] noreply`)},
		{"stats " + words(2, 40), line(netproto.VerbStats, fmt.Sprintf("args=%q", strings.Fields(words(2, 23))))},
		{"shutdown", line(netproto.VerbShutdown, `args=[]`)},
		{"shutdown graceful", line(netproto.VerbShutdown, `args=["graceful"]`)},
		{"shutdown graceful noreply", line(netproto.VerbShutdown, `args=["graceful"] noreply`)},
		{"shutdown noreply", line(netproto.VerbShutdown, `args=["noreply"] noreply`)},
	} {
		for _, newline := range []string{"\r\n", "\n"} {
			if newline == "\n" && strings.HasSuffix(test.in, "\r") {
				continue // that \r would belong to the newline
			}
			if got := show(parseLine(t, test.in+newline)); got != test.want {
				t.Errorf("%q:\n got %s\nwant %s", test.in+newline, got, test.want)
			}
		}
	}
}

// words returns the numbers from first to last as words.
func words(first, last int) string {
	var w []string
	for i := first; i <= last; i++ {
		w = append(w, fmt.Sprint(i))
	}
	return strings.Join(w, " ")
}

func TestAnswersBadLines(t *testing.T) {
	const format, exptime, delta = netproto.BadFormat, netproto.InvalidExptime, netproto.InvalidDelta
	for _, test := range []struct {
		in      string // without CRLF unless it has a \n
		reply   string
		swallow int64
	}{
		{"", format, 0}, {"\n", format, 0}, {" \n", format, 0}, {"a", format, 0}, {"mn\n", format, 0}, {"ab\n", format, 0},
		{"ab", netproto.Error, 0}, {"abc\n", netproto.Error, 0}, {"    ", netproto.Error, 0}, {"foo noreply", netproto.Error, 0},
		{" get x", netproto.Error, 0}, {"GET k", netproto.Error, 0}, {"get\tk", netproto.Error, 0}, {"quitx", netproto.Error, 0},
		{"foo http/1.1", netproto.Error, 0}, {"foo HTTP/1.1 x", netproto.Error, 0}, {"foo " + words(2, 23) + " HTTP/1.1", netproto.Error, 0},

		{"lru tune", netproto.Error, 0}, {"lru_crawler", netproto.Error, 0}, {"cache_memlimit", netproto.Error, 0},
		{"bget k", netproto.Error, 0},

		{"get", format, 0}, {"get ", format, 0}, {"gets   ", format, 0}, {"get " + key251, format, 0}, {"get a " + key251 + " b", format, 0},
		{"get " + strings.Repeat("kkkkkkkk ", 100) + key251, format, 0},
		{"gat", format, 0}, {"gat 1", format, 0}, {"gat x", format, 0}, {"gats 1 " + key251, format, 0},
		{"gat x k", exptime, 0}, {"gat 1x k", exptime, 0}, {"gat 2147483648 k", exptime, 0}, {"gats -2147483649 k", exptime, 0},
		{"gat x " + key251, exptime, 0},

		{"set", format, 0}, {"set k", format, 0}, {"set k 0 0", format, 0}, {"set k noreply", format, 0}, {"set noreply", format, 0},
		{"set k 0 0 x", format, 0}, {"set k 0 0 -1", format, 0}, {"set k 0 0 +1", format, 0}, {"set k 0 0 1x", format, 0},
		{"set k 0 0 2147483646", format, 0}, {"set k 0 0 99999999999999999999", format, 0}, {"set k x x -1", format, 0},
		{"set k x 0 5", format, 7}, {"set k -1 0 5", format, 7}, {"set k 18446744073709551616 0 5", format, 7}, {"set k 0 x 5", format, 7},
		{"set k 0 9223372036854775808 5", format, 7}, {"set k 1x 0 5", format, 7}, {"set " + key251 + " 0 0 0", format, 2},
		{"set k x 0 2147483645", format, 1<<31 - 1},
		{"set k 0 0 noreply", "", 0}, {"set k 0 0 -1 noreply", "", 0}, {"set k x 0 5 noreply", "", 7}, {"set " + key251 + " 0 0 5 noreply", "", 7},
		{"cas k 0 0 5", format, 0}, {"cas k 0 0 x 1", format, 0}, {"cas k 0 0 5 x", format, 7}, {"cas k 0 0 5 -1", format, 7},
		{"cas k 0 0 5 18446744073709551616", format, 7}, {"cas k 0 0 5 noreply", "", 7}, {"cas k 0 0 5 x noreply", "", 7},

		{"delete", format, 0}, {"delete ", format, 0}, {"delete " + key251, format, 0}, {"delete " + key251 + " noreply", "", 0},
		{"incr", format, 0}, {"incr k", format, 0}, {"incr " + key251 + " 1", format, 0}, {"incr " + key251 + " x", format, 0},
		{"incr k x", delta, 0}, {"incr k -1", delta, 0}, {"decr k 18446744073709551616", delta, 0}, {"incr k 1x", delta, 0},
		{"incr k x noreply", "", 0}, {"incr k noreply", "", 0},
		{"touch", format, 0}, {"touch k", format, 0}, {"touch " + key251 + " 1", format, 0}, {"touch k x", exptime, 0},
		{"touch k 2147483648", exptime, 0}, {"touch k noreply", "", 0}, {"touch k x noreply", "", 0},
		{"flush_all x", exptime, 0}, {"flush_all 2147483648", exptime, 0}, {"flush_all x noreply", "", 0}, {"flush_all 1 2 3", netproto.Error, 0},
		{"flush_all 1 2 noreply", netproto.Error, 0},
		{"verbosity", format, 0}, {"verbosity x", format, 0}, {"verbosity -1", format, 0}, {"verbosity noreply", "", 0},
		{"verbosity x noreply", "", 0}, {"verbosity 1 2 3", netproto.Error, 0},
	} {
		line := test.in
		if !strings.HasSuffix(line, "\n") {
			line += "\r\n"
		}
		r := parseLine(t, line)
		if r.Verb != netproto.VerbBad || r.Reply != test.reply || r.Swallow != test.swallow || r.Close || r.Noreply {
			t.Errorf("%q: got %s, want a bad request with reply %q and %d bytes to swallow", line, show(r), test.reply, test.swallow)
		}
	}
}

func TestHangsUpOnHTTP(t *testing.T) {
	for _, line := range []string{"GET / HTTP/1.1", "POST /x HTTP/", "HTTP/1.1", "foo " + words(2, 22) + " HTTP/1.0", "foo " + words(2, 22) + " HTTP/1.0 24"} {
		if r := parseLine(t, line+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != "" || !r.Close || r.Swallow != 0 {
			t.Errorf("%q: got %s, want a silent close", line, show(r))
		}
	}
}

func TestReadsNumbersAsMemcached(t *testing.T) {
	for _, test := range []struct {
		word    string
		flags   int64 // of set; -1: refused
		exptime int64 // of set; 1<<40: refused
		strict  int64 // exptime of touch; 1<<40: refused
		delta   string
	}{
		{"0", 0, 0, 0, "0"},
		{"007", 7, 7, 7, "7"},
		{"+5", 5, 5, 5, "5"},
		{"\t5", 5, 5, 5, "5"},
		{"5\tx", 5, 5, 5, "5"},
		{"\v\f\r+5\r", 5, 5, 5, "5"},
		{"-0", 0, 0, 0, "0"},
		{"-1", -1, -1, -1, ""},
		{"2147483647", 1<<31 - 1, 1<<31 - 1, 1<<31 - 1, "2147483647"},
		{"2147483648", 1 << 31, -1 << 31, 1 << 40, "2147483648"},
		{"-2147483648", -1, -1 << 31, -1 << 31, ""},
		{"-2147483649", -1, 1<<31 - 1, 1 << 40, ""},
		{"4294967295", 1<<32 - 1, -1, 1 << 40, "4294967295"},
		{"4294967297", 1, 1, 1 << 40, "4294967297"},
		{"4294967396", 100, 100, 1 << 40, "4294967396"},
		{"9223372036854775807", 1<<32 - 1, -1, 1 << 40, "9223372036854775807"},
		{"9223372036854775808", 0, 1 << 40, 1 << 40, "9223372036854775808"},
		{"-9223372036854775808", -1, 0, 1 << 40, ""},
		{"-9223372036854775809", 1<<32 - 1, 1 << 40, 1 << 40, "9223372036854775807"},
		{"18446744073709551615", 1<<32 - 1, 1 << 40, 1 << 40, "18446744073709551615"},
		{"-18446744073709551615", 1, 1 << 40, 1 << 40, "1"},
		{"18446744073709551616", -1, 1 << 40, 1 << 40, ""},
		{"00000000000000000000000000000000001", 1, 1, 1, "1"},
		{"+", -1, 1 << 40, 1 << 40, ""}, {"-", -1, 1 << 40, 1 << 40, ""}, {"+-1", -1, 1 << 40, 1 << 40, ""}, {"\t", -1, 1 << 40, 1 << 40, ""},
		{"1.5", -1, 1 << 40, 1 << 40, ""}, {"0x1", -1, 1 << 40, 1 << 40, ""}, {"1,", -1, 1 << 40, 1 << 40, ""}, {"1\x00", -1, 1 << 40, 1 << 40, ""},
	} {
		r := parseLine(t, "set k "+test.word+" 0 1\r\n")
		if got := int64(r.Flags); (test.flags < 0) != (r.Verb == netproto.VerbBad) || test.flags >= 0 && got != test.flags {
			t.Errorf("flags %q: got %s, want %d", test.word, show(r), test.flags)
		}
		r = parseLine(t, "set k 0 "+test.word+" 1\r\n")
		if (test.exptime == 1<<40) != (r.Verb == netproto.VerbBad) || test.exptime != 1<<40 && r.Exptime != test.exptime {
			t.Errorf("set with exptime %q: got %s, want %d", test.word, show(r), test.exptime)
		}
		for _, line := range []string{"touch k " + test.word + " x", "gat " + test.word + " k", "flush_all " + test.word + " x"} {
			r = parseLine(t, line+"\r\n")
			if (test.strict == 1<<40) != (r.Verb == netproto.VerbBad) || test.strict != 1<<40 && r.Exptime != test.strict {
				t.Errorf("%q: got %s, want exptime %d", line, show(r), test.strict)
			}
		}
		for _, line := range []string{"incr k " + test.word + " x", "cas k 0 0 1 " + test.word + " x"} {
			r = parseLine(t, line+"\r\n")
			if got := fmt.Sprint(r.Delta + r.CAS); (test.delta == "") != (r.Verb == netproto.VerbBad) || test.delta != "" && got != test.delta {
				t.Errorf("%q: got %s, want %s", line, show(r), test.delta)
			}
		}
	}
	for word, want := range map[string]int{
		"0": 0, "-0": 0, "00000000000000000000000000012": 12, "2147483645": 1<<31 - 3, "2147483646": -1, "-1": -1, "+1": -1, "\t1": -1, "1\t": -1, "-": -1, "1x": -1,
	} {
		if r := parseLine(t, "set k 0 0 "+word+" x\r\n"); (want < 0) != (r.Verb == netproto.VerbBad) || want >= 0 && r.Size != want {
			t.Errorf("length %q: got %s, want %d", word, show(r), want)
		}
	}
}

func TestTakesKeysUpTo250BytesWhereverTheyStand(t *testing.T) {
	for before := 0; before <= 600; before += 7 {
		for length := 248; length <= 253; length++ {
			for _, after := range []string{"", " ", " b", " " + key250} {
				line := "get " + strings.Repeat("aaa ", before/4) + strings.Repeat("k", length) + after
				r := parseLine(t, line+"\r\n")
				if want := length <= 250; (r.Verb == netproto.VerbGet) != want {
					t.Fatalf("a key of %d bytes after %d bytes and before %q: got %s", length, before/4*4, after, show(r))
				}
				if r.Verb == netproto.VerbGet && strings.Join(keys(r), " ") != strings.Join(strings.Fields(line)[1:], " ") {
					t.Fatalf("%q: got keys %q", line, keys(r))
				}
			}
		}
	}
}

func TestBoundsUnfinishedLines(t *testing.T) {
	blanks := func(n int) string { return strings.Repeat(" ", n) }
	fill := func(start string, n int) string { return start + strings.Repeat("k ", n)[:n-len(start)] }
	for _, test := range []struct {
		name, in string
		n        int
	}{
		{"nothing", "", 0},
		{"half a word", "ge", 0},
		{"up to the limit", fill("set ", netproto.MaxLine), 0},
		{"one byte over", fill("set ", netproto.MaxLine+1), netproto.MaxLine + 1},
		{"a get", fill("get ", netproto.MaxLine+1), 0},
		{"a gets", fill("gets ", netproto.MaxLine+1), 0},
		{"a gat", fill("gat 0 ", netproto.MaxLine+1), netproto.MaxLine + 1},
		{"getx", fill("getx ", netproto.MaxLine+1), netproto.MaxLine + 1},
		{"100 blanks and a get", fill(blanks(100)+"get ", netproto.MaxLine+1), 0},
		{"100 blanks and a gets", fill(blanks(100)+"gets ", netproto.MaxLine+1), 0},
		{"101 blanks and a get", fill(blanks(101)+"get ", netproto.MaxLine+1), netproto.MaxLine + 1},
		{"blanks", blanks(netproto.MaxLine + 1), netproto.MaxLine + 1},
		{"the longest get", fill("get ", netproto.MaxMultiget), 0},
		{"a get too long", fill("get ", netproto.MaxMultiget+1), netproto.MaxMultiget + 1},
	} {
		r := dirty()
		if n := netproto.Parse([]byte(test.in), &r); n != test.n {
			t.Errorf("%s: consumed %d bytes, want %d", test.name, n, test.n)
		} else if n == 0 && (r.Verb != 99 || r.Reply != "stale") {
			t.Errorf("%s: asks for more, but has changed the request: %s", test.name, show(&r))
		} else if n > 0 && (r.Verb != netproto.VerbBad || !r.Close || r.Reply != "" || r.Swallow != 0) {
			t.Errorf("%s: got %s, want a silent close", test.name, show(&r))
		}
	}
	long := fill("get ", 20000)
	if r := parseLine(t, long+"\r\n"); len(keys(r)) != (20000-4)/2 {
		t.Errorf("a get of 20000 bytes gave %d keys", len(keys(r)))
	}
	if r := parseLine(t, "delete k "+strings.Repeat("x", 5000)+"\r\n"); r.Verb != netproto.VerbDelete {
		t.Errorf("a long line that is there as a whole: got %s, want a delete", show(r))
	}
}

func TestDoesNotAllocate(t *testing.T) {
	var r netproto.Request
	dst := make([]byte, 0, 256)
	for _, line := range []string{
		"get a b c d\r\n", "gat 0 a\r\n", "set k 0 0 5 noreply\r\n", "cas k 1 2 3 4\r\n", "delete k\r\n", "incr k 1\r\n", "touch k 1\r\n", "flush_all\r\n",
		"verbosity 1\r\n", "version\r\n", "stats a b c d e f g h\r\n", "shutdown graceful\r\n", "foo\r\n", "foo HTTP/1.1\r\n", "set k x 0 1\r\n", "set k \t1 0 1\r\n", "get",
		"get " + key251 + "\r\n",
	} {
		in := []byte(line)
		if n := testing.AllocsPerRun(100, func() {
			netproto.Parse(in, &r)
			for k := r.Keys; ; {
				if _, ok := k.Next(); !ok {
					break
				}
			}
		}); n != 0 {
			t.Errorf("%q: %v allocations", line, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		dst = netproto.AppendValueHeaderCAS(dst[:0], in5, 1<<32-1, 1<<20, 1<<64-1)
		dst = netproto.AppendNumber(dst, 1<<64-1)
		dst = netproto.AppendStat(dst, "curr_items", []byte("18446744073709551615"))
	}); n != 0 {
		t.Errorf("replies: %v allocations", n)
	}
}

var in5 = []byte("key:5")

func ExampleParse() {
	in := []byte("get a b\r\nset c 0 60 5\r\nhello\r\nincr d one\r\nver")
	var req netproto.Request
	for n := netproto.Parse(in, &req); n > 0; n = netproto.Parse(in, &req) {
		in = in[n:]
		switch {
		case req.Verb == netproto.VerbGet:
			for key, ok := req.Keys.Next(); ok; key, ok = req.Keys.Next() {
				fmt.Printf("get %s\n", key)
			}
		case req.Verb.Stores():
			fmt.Printf("store %s: %s\n", req.Key, in[:req.Size])
			in = in[req.Size+len(netproto.CRLF):]
		case req.Verb == netproto.VerbBad:
			in = in[req.Swallow:]
			fmt.Println(strings.TrimSpace(req.Reply))
		}
	}
	fmt.Printf("more needed after %s\n", in)
	// Output:
	// get a
	// get b
	// store c: hello
	// CLIENT_ERROR invalid numeric delta argument
	// more needed after ver
}

// TestTakesOnlyTheKeyThatIsNext takes each key of a line by what Next has found, and nothing else.
func TestTakesOnlyTheKeyThatIsNext(t *testing.T) {
	var r netproto.Request
	netproto.Parse([]byte("get a bb  ccc a \r\n"), &r)
	var took []bool
	for all := keys(&r); len(all) > 0; all = all[1:] {
		next := r.Keys
		key, _ := next.Next()
		for _, other := range [][]byte{nil, {}, bytes.Clone(key), key[:len(key)-1], append(bytes.Clone(key), 'x')} {
			if len(other) != len(key) || &other[0] != &key[0] {
				if taken := r.Keys; taken.Take(other) {
					t.Errorf("takes %q, the next is %q", other, key)
				}
			}
		}
		taken := r.Keys
		if took = append(took, taken.Take(key)); took[len(took)-1] {
			next = taken
		}
		if r.Keys = next; !slices.Equal(keys(&r), all[1:]) {
			t.Errorf("behind %q are %q, want %q", key, keys(&r), all[1:])
		}
	}
	if want := []bool{true, true, false, true}; !slices.Equal(took, want) {
		t.Errorf("took %v, want %v: two spaces are Next's", took, want)
	}
}

func TestWritesReplies(t *testing.T) {
	for n := range 11000 {
		if got, want := string(netproto.AppendValueHeader(nil, in5, uint32(n), n)), fmt.Sprintf("VALUE key:5 %d %d\r\n", n, n); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}

	for _, test := range []struct {
		got  []byte
		want string
	}{
		{netproto.AppendValueHeader([]byte("x"), in5, 0, 0), "xVALUE key:5 0 0\r\n"},
		{netproto.AppendValueHeader(nil, in5, 1<<32-1, 1048576), "VALUE key:5 4294967295 1048576\r\n"},
		{netproto.AppendValueHeaderCAS(nil, in5, 7, 12, 1<<64-1), "VALUE key:5 7 12 18446744073709551615\r\n"},
		{netproto.AppendNumber(nil, 1<<64-1), "18446744073709551615\r\n"},
		{netproto.AppendVersion(nil, "1.6.42"), "VERSION 1.6.42\r\n"},
		{netproto.AppendStat(nil, "pid", []byte("5")), "STAT pid 5\r\n"},
		{netproto.AppendPrefix(nil, "user", 1, 2, 3, 4), "PREFIX user get 1 hit 2 set 3 del 4\r\n"},
	} {
		if string(test.got) != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	key := "user:session:0123456789abcdef"
	for _, bench := range []struct{ name, line string }{
		{"get", "get " + key + "\r\n"},
		{"set", "set " + key + " 0 3600 100\r\n"},
		{"set-noreply", "set " + key + " 0 3600 100 noreply\r\n"},
		{"cas", "cas " + key + " 0 0 100 123456789\r\n"},
		{"incr", "incr " + key + " 1\r\n"},
		{"multiget-100", "get" + strings.Repeat(" "+key, 100) + "\r\n"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			in := bytes.Repeat([]byte(bench.line), 3) // two more requests behind the first
			var r netproto.Request
			total := 0
			b.ReportAllocs()
			b.SetBytes(int64(len(bench.line)))
			for b.Loop() {
				netproto.Parse(in, &r)
				if r.Verb == netproto.VerbGet {
					for k, ok := r.Keys.Next(); ok; k, ok = r.Keys.Next() {
						total += len(k)
					}
				}
			}
			_ = total
		})
	}
}

func BenchmarkAppendValueHeader(b *testing.B) {
	key, dst := []byte("user:session:0123456789abcdef"), make([]byte, 0, 100)
	for b.Loop() {
		dst = netproto.AppendValueHeader(dst[:0], key, 0, 100)
	}
}
