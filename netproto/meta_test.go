package netproto_test

import (
	"fmt"
	"strings"
	"testing"

	"hearth/netproto"
)

// showMeta writes a meta request as one line.
func showMeta(r *netproto.Request) string {
	if r.Verb == netproto.VerbBad {
		return fmt.Sprintf("%q %d", r.Reply, r.Swallow)
	}
	flags := ""
	for _, f := range r.MetaFlags {
		flags += " " + string(f.Letter) + string(f.Token)
	}
	return fmt.Sprintf("%d %q size=%d quiet=%t b=%t T%d F%d C%d E%d N%d R%d J%d D%d M%q%s", r.Verb, r.Key, r.Size, r.Noreply, r.KeyBinary, r.Exptime, r.Flags, r.CAS,
		r.NewCAS, r.Vivify, r.Recache, r.Initial, r.Delta, r.Mode, flags)
}

func TestReadsMetaFlags(t *testing.T) {
	mg, ms, md, ma := netproto.VerbMetaGet, netproto.VerbMetaSet, netproto.VerbMetaDelete, netproto.VerbMetaArith
	plain := func(v netproto.Verb, key string, mode byte, flags string) string {
		return fmt.Sprintf("%d %q size=0 quiet=false b=false T0 F0 C0 E0 N0 R0 J0 D1 M%q%s", v, key, mode, flags)
	}
	for in, want := range map[string]string{
		"mg k":                             plain(mg, "k", 0, ""),
		"mg  k  v  t ":                     plain(mg, "k", 0, " v t"),
		"mg k\tx v":                        plain(mg, "k\tx", 0, " v"),
		"mg " + key250:                     plain(mg, key250, 0, ""),
		"mg k s t c f k h l":               plain(mg, "k", 0, " s t c f k h l"),
		"mg k Pfoo Lbar/ u":                plain(mg, "k", 0, " Pfoo Lbar/ u"),
		"mg k vx Oab kx":                   plain(mg, "k", 0, " vx Oab kx"),
		"md k I x":                         plain(md, "k", 0, " I x"),
		"mg k O":                           plain(mg, "k", 0, " O"),
		"mg k O" + strings.Repeat("o", 31): plain(mg, "k", 0, " O"+strings.Repeat("o", 31)),
		"mg k T-5 F4294967295 C18446744073709551615 E7 N2147483647 R-2147483648 J3 D4 M! q": fmt.Sprintf(
			"%d \"k\" size=0 quiet=true b=false T-5 F4294967295 C18446744073709551615 E7 N2147483647 R-2147483648 J3 D4 M'\\x00' %s", mg,
			"T-5 F4294967295 C18446744073709551615 E7 N2147483647 R-2147483648 J3 D4 M! q"),
		"mg YQ== b":      fmt.Sprintf("%d \"a\" size=0 quiet=false b=true T0 F0 C0 E0 N0 R0 J0 D1 M'\\x00' b", mg),
		"mg DQoA k b":    fmt.Sprintf("%d \"\\r\\n\\x00\" size=0 quiet=false b=true T0 F0 C0 E0 N0 R0 J0 D1 M'\\x00' k b", mg),
		"ms k 5":         strings.Replace(plain(ms, "k", 'S', ""), "size=0", "size=5", 1),
		"ms k 0 MAppend": plain(ms, "k", 'A', " MAppend"),
		"ms k 0 ME":      plain(ms, "k", 'E', " ME"),
		"ms k 0 MP":      plain(ms, "k", 'P', " MP"),
		"ms k 0 MR":      plain(ms, "k", 'R', " MR"),
		"ma k":           plain(ma, "k", 'I', ""),
		"ma k M+":        plain(ma, "k", 'I', " M+"),
		"ma k M-":        plain(ma, "k", 'D', " M-"),
		"ma k MDecr":     plain(ma, "k", 'D', " MDecr"),
	} {
		if got := showMeta(parseLine(t, in+"\r\n")); got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
	long := strings.Repeat("QUFB", 62)
	if r := parseLine(t, "mg "+long+" b\r\n"); string(r.Key) != strings.Repeat("AAA", 62) || string(r.KeyToken) != long {
		t.Errorf("the longest key in base64: %s", showMeta(r))
	}
}

func TestAnswersBadMetaLines(t *testing.T) {
	all := " b N0 T0 R0 l O P L k s t c f v h u q x" // 20 words with command and key
	for _, test := range []struct{ flags, want string }{
		{" v v", netproto.DuplicateFlag}, {" v z", netproto.InvalidFlag}, {" 1", netproto.InvalidFlag}, {" s 1", netproto.InvalidFlag}, {" v Tx v", netproto.DuplicateFlag},
		{" Tx z v v", netproto.InvalidFlag}, {" v -", netproto.BadFormat}, {" z -", netproto.BadFormat}, {" \x00", netproto.BadFormat}, {" \xe9", netproto.BadFormat}, {" [", netproto.BadFormat},
		{" N", netproto.BadToken}, {" Tx", netproto.BadToken}, {" R2147483648", netproto.BadToken}, {" C-1", netproto.BadToken}, {" E18446744073709551616", netproto.BadToken},
		{" F-1", netproto.BadFormat}, {" F4294967296", netproto.BadFormat}, {" Fx Tx", netproto.BadToken}, {" Tx Fx", netproto.BadToken}, {" Jx", netproto.InvalidInitial},
		{" Dx", netproto.InvalidMetaDelta}, {" Jx Dx", netproto.InvalidMetaDelta}, {" Dx Jx", netproto.InvalidInitial}, {" b", netproto.BadBase64}, {" b Tx", netproto.BadToken},
		{" O" + strings.Repeat("o", 32), netproto.OpaqueTooLong}, {" Tx O" + strings.Repeat("o", 32), netproto.BadToken}, {all + " I", netproto.TooManyFlags}, {all + " I z", netproto.TooManyFlags},
	} {
		for _, command := range []string{"mg k!", "md k!", "ma k!", "ms k! 3", "mg k! q", "ms k! 3 q"} {
			if strings.HasSuffix(command, "q") && strings.HasPrefix(test.flags, all) {
				continue
			}
			want, swallow := test.want, int64(0)
			if strings.HasPrefix(command, "ma") && want != netproto.BadFormat && want != netproto.OpaqueTooLong || strings.HasPrefix(command, "ma") && strings.HasPrefix(test.flags, " F") {
				want = netproto.InvalidOrDupFlag
			}
			if strings.HasPrefix(command, "ms") {
				swallow = 5
				if want == netproto.TooManyFlags {
					command = strings.TrimSuffix(command, " q")
				}
			}
			if r := parseLine(t, command+test.flags+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != want || r.Swallow != swallow || r.Noreply {
				t.Errorf("%s%s: got %s, want %q and %d bytes dropped", command, test.flags, showMeta(r), want, swallow)
			}
		}
	}
	for line, want := range map[string]string{
		"ms": netproto.BadFormat, "mg": netproto.BadFormat, "mg ": netproto.BadFormat, "ms k": netproto.BadFormat, "ms k x": netproto.BadFormat, "ms k -1 v v": netproto.BadFormat,
		"ms k +1": netproto.BadFormat, "ms k 2147483646": netproto.BadFormat, "mg " + key251: netproto.BadFormat, "md " + key251 + " v v": netproto.BadFormat,
		"ma k MX": netproto.InvalidNumberMode, "ma k M": netproto.InvalidNumberMode, "ma k Md": netproto.InvalidNumberMode, "ma k MX O" + strings.Repeat("o", 32): netproto.InvalidNumberMode,
		"me": netproto.BadFormat, "me " + key251: netproto.BadFormat, "me !! b": netproto.BadFormat,
		"mg YQ b": netproto.BadBase64, "mg YQ= b": netproto.BadBase64, "mg YQ=== b": netproto.BadBase64, "mg Y\rQ= b": netproto.BadBase64, "mg YW-_ b": netproto.BadBase64, "mg ==== b": netproto.BadBase64,
	} {
		if r := parseLine(t, line+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != want || r.Swallow != 0 {
			t.Errorf("%q: got %s, want %q", line, showMeta(r), want)
		}
	}
	for line, want := range map[string]string{
		"ms k 3 MX": netproto.InvalidStoreMode, "ms k 3 M": netproto.InvalidStoreMode, "ms k 3 Ms": netproto.InvalidStoreMode, "ms " + key251 + " 3": netproto.BadFormat,
		"ms k 3 MX O" + strings.Repeat("o", 32): netproto.InvalidStoreMode,
	} {
		if r := parseLine(t, line+"\r\n"); r.Verb != netproto.VerbBad || r.Reply != want || r.Swallow != 5 {
			t.Errorf("%q: got %s, want %q and 5 bytes dropped", line, showMeta(r), want)
		}
	}
}

func TestMetaLinesDoNotAllocate(t *testing.T) {
	var r netproto.Request
	dst := make([]byte, 0, 512)
	for _, line := range []string{
		"mg k s t c f k v O7 q\r\n", "mg YQ== b k\r\n", "mg !! b\r\n", "ms k 5 T5 C5 MA O1\r\n", "ms k 5 Fx\r\n", "md k q\r\n", "ma k D5 MD\r\n", "mn\r\n", "me YQ== b\r\n",
		"mg " + strings.Repeat("QUFB", 62) + " b\r\n", "mg " + strings.Repeat("QUFB", 61) + "Q b\r\n",
	} {
		in := []byte(line)
		if n := testing.AllocsPerRun(100, func() { netproto.Parse(in, &r) }); n != 0 {
			t.Errorf("%q: %v allocations", line, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		dst = netproto.AppendFlagTTL(netproto.AppendFlagKey(netproto.AppendFlagUint(netproto.AppendMetaValue(dst[:0], 1<<20), 'c', 1<<64-1), in5, true), 500, 100)
		dst = netproto.AppendDebug(netproto.AppendMetaNumber(dst, 1<<64-1), &netproto.Debug{Key: in5})
	}); n != 0 {
		t.Errorf("replies: %v allocations", n)
	}
}

func TestWritesMetaReplies(t *testing.T) {
	for _, test := range []struct {
		got  []byte
		want string
	}{
		{netproto.AppendMetaValue([]byte("x"), 12), "xVA 12"},
		{netproto.AppendMetaNumber(nil, 0), "VA 1"},
		{netproto.AppendMetaNumber(nil, 9), "VA 1"},
		{netproto.AppendMetaNumber(nil, 10), "VA 2"},
		{netproto.AppendMetaNumber(nil, 1<<64-1), "VA 20"},
		{netproto.AppendFlag(nil, 'W', nil), " W"},
		{netproto.AppendFlag(nil, 'O', in5), " Okey:5"},
		{netproto.AppendFlagUint(nil, 'c', 1<<64-1), " c18446744073709551615"},
		{netproto.AppendFlagTTL(nil, 0, 100), " t-1"},
		{netproto.AppendFlagTTL(nil, 130, 100), " t30"},
		{netproto.AppendFlagTTL(nil, 1, 100), " t0"},
		{netproto.AppendFlagKey(nil, in5, false), " kkey:5"},
		{netproto.AppendFlagKey(nil, []byte("a\n"), true), " kYQo= b"},
		{netproto.AppendFlagKeyToken(nil, []byte("YQo="), true), " kYQo= b"},
		{netproto.AppendDebug(nil, &netproto.Debug{Key: in5, Exptime: 130, Now: 100, Age: 4, CAS: 9, Fetched: true, Class: 3, Size: 70}),
			"ME key:5 exp=30 la=4 cas=9 fetch=yes cls=3 size=70\r\n"},
		{netproto.AppendDebug(nil, &netproto.Debug{Key: in5}), "ME key:5 exp=-1 la=0 cas=0 fetch=no cls=0 size=0\r\n"},
	} {
		if string(test.got) != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
