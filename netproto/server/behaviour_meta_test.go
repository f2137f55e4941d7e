package server_test

import (
	"strings"
	"testing"
)

// Why memcached 1.6.18 answers meta commands otherwise, where many rows say the same.
const (
	noE        = "1.6.18 has no E"
	noX        = "1.6.18 has no x"
	noMsSize   = "1.6.18 has no s with ms"
	lateFlags  = "1.6.18 looks at flags one by one as it serves them"
	oneMdError = "1.6.18 has one text for all wrong flags of md"
)

const (
	dupFlag   = "CLIENT_ERROR duplicate flag\r\n"
	badFlag   = "CLIENT_ERROR invalid flag\r\n"
	badMaFlag = "CLIENT_ERROR invalid or duplicate flag\r\n"
	badNumber = "CLIENT_ERROR bad token in command line format\r\n"
	badBase64 = "CLIENT_ERROR error decoding key\r\n"
	longToken = "CLIENT_ERROR opaque token too long\r\n"
)

// setA stores an item and notes its cas as {1}.
const setA = "set a 5 0 3\r\nabc\r\ngets a\r\n"

func TestMetaLine(t *testing.T) {
	flags := strings.Fields("k O1 q s t c f v h u l T0 N0 R0 F1 C1 E1 M")
	runRows(t, []row{
		{name: "20 words are a command", given: setA, send: "mg a " + strings.Join(flags[:18], " ") + "\r\n", want: "VA 3 ka O1 s3 t-1 c{1} f5 h1 l0\r\nabc\r\n", but: "1.6.18 takes a word less"},
		{name: "21 words are too many", send: "mg a " + strings.Join(flags[:18], " ") + " P\r\n", want: "CLIENT_ERROR options flags are too long\r\n"},
		{name: "a flag seen twice is refused", given: setA, send: "mg a v v\r\n", want: dupFlag},
		{name: "a flag seen twice with other tokens is refused", given: setA, send: "mg a T1 T2\r\n", want: dupFlag},
		{name: "a flag of ms seen twice is refused and the block dropped", send: "ms a 7 c c\r\nversion\r\n", want: dupFlag},
		{name: "a flag of md seen twice is refused", given: setA, send: "md a q q\r\nmg a\r\n", want: dupFlag + "HD\r\n", but: oneMdError},
		{name: "a flag of ma seen twice is refused", send: "ma a q q\r\n", want: badMaFlag},
		{name: "an unknown flag is refused", given: setA, send: "mg a y\r\nmg a V\r\n", want: badFlag + badFlag},
		{name: "an unknown flag of ms is refused and the block dropped", send: "ms a 7 y\r\nversion\r\n", want: badFlag},
		{name: "an unknown flag of md is refused", given: setA, send: "md a y\r\nmg a\r\n", want: badFlag + "HD\r\n", but: oneMdError},
		{name: "ma has one text for all wrong flags", given: setA, send: "ma a y\r\nma a Nx\r\nma a Jx\r\nma a Dx\r\nma YQ b1 Fx\r\n", want: strings.Repeat(badMaFlag, 5)},
		{name: "a number is needed for N T R C E", send: "mg a N\r\nmg a Tx\r\nmg a R\r\nmg a Cx\r\nmg a E\r\n", want: strings.Repeat(badNumber, 5), but: noE},
		{name: "a number is needed for F", send: "ms a 7 Fx\r\nversion\r\n", want: badFormat},
		{name: "F takes 32 bits", send: "ms a 1 F4294967296\r\n1\r\nms a 1 F4294967295\r\n1\r\nmg a f\r\n", want: badFormat + "HD\r\nHD f4294967295\r\n", but: "1.6.18 cuts F"},
		{name: "a number is needed for J", send: "mg a Jx\r\n", want: "CLIENT_ERROR invalid numeric initial value\r\n"},
		{name: "a number is needed for D", send: "mg a Dx\r\n", want: "CLIENT_ERROR invalid numeric delta value\r\n"},
		{name: "b needs base64", send: "mg a b\r\nmg !!!! b\r\n", want: badBase64 + badBase64},
		{name: "an opaque of 31 characters is echoed", given: setA, send: "mg a O<o*31>\r\n", want: "HD O" + strings.Repeat("o", 31) + "\r\n"},
		{name: "an opaque of 32 characters is too long", given: setA, send: "mg a O<o*32>\r\n", want: longToken},
		{name: "a flag begins with a letter or a digit", send: "mg a -\r\nmg a v $\r\n", want: badFormat + badFormat, but: lateFlags},
		{name: "a digit is no flag", send: "mg a 1\r\n", want: badFlag},
		{name: "flags without use are ignored", given: setA, send: "mg a P L I x F1 M J1 D1\r\n", want: "HD\r\n", but: noX},
		{name: "flags without use are ignored by ms", send: "ms a 1 v f t h l u P L J1 D1 R1\r\n1\r\n", want: "HD\r\n"},
		{name: "flags without use are ignored by md", given: setA, send: "md a v f t h l u s c P L M J1 D1 R1 N1\r\n", want: "HD\r\n", but: "1.6.18 refuses some flags of other commands"},
		{name: "flags without use are ignored by ma", given: "set a 0 0 1\r\n1\r\n", send: "ma a f h l u s x P L R1 F1 I\r\n", want: "HD\r\n", but: noX},
		{name: "errors ignore q", send: "mg a q y\r\nms a 1 q y\r\n1\r\nma a q y\r\n", want: badFlag + badFlag + badMaFlag},
		// "SERVER_ERROR output line too long" is for a line above 1024 bytes, and none gets there: keys and opaques are bounded.
		{name: "the longest line of a reply is no \"output line too long\"", given: "set <k*250> 4294967295 0 1\r\nx\r\n", send: "mg <k*250> k O<o*31> f s t h l c v u\r\n",
			want: "VA 1 k<k*250> O<o*31> f4294967295 s1 t-1 h0 l0 c{1}\r\nx\r\n"},
		{name: "flags come back in the order of the request", given: setA, send: "mg a s O1 k c f v t\r\nmg a t f c k O1 s\r\n", want: "VA 3 s3 O1 ka c{1} f5 t-1\r\nabc\r\nHD t-1 f5 c{1} ka O1 s3\r\n"},
		{name: "no key is a bad command line", send: "mg\r\nmd\r\nma\r\nms a\r\nme\r\n", want: strings.Repeat(badFormat, 5), but: fewWords},
		{name: "a key longer than 250 is a bad command line", send: "mg <k*251>\r\nmd <k*251>\r\nma <k*251>\r\nms <k*251> 1\r\n1\r\nme <k*251>\r\n", want: strings.Repeat(badFormat, 4) + badFormat,
			but: "1.6.18 has another text for ma"},
		{name: "a bad length drops no block", send: "ms a x\r\nversion\r\nms a -1\r\nversion\r\n", want: badFormat + "VERSION\r\n" + badFormat + "VERSION\r\n"},
		{name: "a bad block is told in spite of q", given: setA, send: "ms a 3 q\r\nabcde", want: badChunk},
		{name: "a bad block leaves the old value", given: setA, send: "ms a 3\r\nabcdemg a v\r\n", want: badChunk + "VA 3\r\nabc\r\n"},
	}, nil)
}

func TestMetaFlag(t *testing.T) {
	runRows(t, []row{
		{name: "mg without flags", given: setA, send: "mg a\r\n", want: "HD\r\n"},
		{name: "mg miss", send: "mg a v\r\n", want: "EN\r\n"},
		{name: "mg miss with opaque and key", send: "mg a v O7 k\r\n", want: "EN O7 ka\r\n"},
		{name: "mg b", given: "ms AQL/ 1 b\r\n1\r\n", send: "mg AQL/ b k v\r\n", want: "VA 1 kAQL/ b\r\n1\r\n"},
		{name: "mg b of a key that was not stored in base64", given: "set \x01\x02\xff 0 0 1\r\n1\r\n", send: "mg AQL/ b k v\r\n", want: "VA 1 k\x01\x02\xff\r\n1\r\n"},
		{name: "mg c", given: setA, send: "mg a c\r\n", want: "HD c{1}\r\n"},
		{name: "mg C of the same cas keeps the value back", given: setA, send: "mg a v C{cas a}\r\n", want: "HD\r\n", but: "1.6.18 ignores C"},
		{name: "mg C of another cas", given: setA, send: "mg a v C1\r\n", want: "VA 3\r\nabc\r\n"},
		{name: "mg E is the cas of an item it makes", send: "mg a N0 E777777777 c\r\n", want: "HD c777777777 W\r\n", but: noE},
		{name: "mg f", given: setA, send: "mg a f\r\n", want: "HD f5\r\n"},
		{name: "mg h", given: "set a 0 0 1\r\n1\r\n", send: "mg a h\r\nmg a h\r\n", want: "HD h0\r\nHD h1\r\n"},
		{name: "mg k", given: setA, send: "mg a k\r\n", want: "HD ka\r\n"},
		{name: "mg l", given: setA, send: "mg a l\r\n", want: "HD l0\r\n"},
		{name: "mg N makes an empty item on a miss and wins it", send: "mg a N100 v t\r\nmg a v\r\n", want: "VA 0 t100 W\r\n\r\nVA 0 Z\r\n\r\n"},
		{name: "mg N of an item", given: setA, send: "mg a N100 t v\r\n", want: "VA 3 t-1\r\nabc\r\n"},
		{name: "mg O", given: setA, send: "mg a Oxyz\r\n", want: "HD Oxyz\r\n"},
		{name: "mg P and L are ignored", given: setA, send: "mg a P L\r\n", want: "HD\r\n"},
		{name: "mg q keeps a miss back", send: "mg a q v\r\nmn\r\n", want: "MN\r\n"},
		{name: "mg q tells a hit", given: setA, send: "mg a q v\r\n", want: "VA 3\r\nabc\r\n"},
		{name: "mg k q tells a hit without a value", given: setA, send: "mg a k q\r\n", want: "HD ka\r\n"},
		{name: "mg R wins when less time is left", given: "set a 0 100 1\r\n1\r\n", send: "mg a R200\r\nmg a R200\r\n", want: "HD W\r\nHD Z\r\n"},
		{name: "mg R does not win when more time is left", given: "set a 0 100 1\r\n1\r\n", send: "mg a R50\r\n", want: "HD\r\n"},
		{name: "mg R does not win an item without exptime", given: setA, send: "mg a R50\r\n", want: "HD\r\n"},
		{name: "mg s", given: setA, send: "mg a s\r\n", want: "HD s3\r\n"},
		{name: "mg t", given: "set a 0 100 1\r\n1\r\n", send: "mg a t\r\n", want: "HD t100\r\n"},
		{name: "mg t of no exptime is -1", given: setA, send: "mg a t\r\n", want: "HD t-1\r\n"},
		{name: "mg t before T is the old exptime", given: setA, send: "mg a t T100\r\nmg a T200 t\r\n", want: "HD t-1\r\nHD t200\r\n"},
		{name: "mg T touches", given: setA, send: "mg a T100\r\nmg a t\r\n", want: "HD\r\nHD t100\r\n"},
		{name: "mg u marks no hit", given: "set a 0 0 1\r\n1\r\n", send: "mg a u\r\nmg a h\r\n", want: "HD\r\nHD h0\r\n"},
		{name: "mg v", given: setA, send: "mg a v\r\n", want: "VA 3\r\nabc\r\n"},

		{name: "ms stores", send: "ms a 3\r\nabc\r\nget a\r\n", want: "HD\r\nVALUE a 0 3\r\nabc\r\nEND\r\n"},
		{name: "ms b marks the key as binary", send: "ms AQL/ 1 b k\r\n1\r\nmg AQL/ b k\r\nget \x01\x02\xff\r\n", want: "HD kAQL/ b\r\nHD kAQL/ b\r\nVALUE \x01\x02\xff 0 1\r\n1\r\nEND\r\n"},
		{name: "ms c is the new cas", send: "ms a 1 c\r\n1\r\nmg a c\r\n", want: "HD c{1}\r\nHD c{1}\r\n"},
		{name: "ms c is 0 when it does not store", given: setA, send: "ms a 1 ME c\r\n1\r\nms a 1 C1 c\r\n1\r\nms b 1 MR c\r\n1\r\n", want: "NS c0\r\nEX c0\r\nNS c0\r\n"},
		{name: "ms C of the same cas", given: setA, send: "ms a 1 C{cas a}\r\n1\r\n", want: "HD\r\n"},
		{name: "ms C of another cas", given: setA, send: "ms a 1 C1\r\n1\r\nmg a v\r\n", want: "EX\r\nVA 3\r\nabc\r\n"},
		{name: "ms C of no item", send: "ms a 1 C1\r\n1\r\n", want: "NF\r\n"},
		{name: "ms C MR of no item", send: "ms a 1 C1 MR\r\n1\r\n", want: "NF\r\n"},
		{name: "ms C MA of another cas", given: setA, send: "ms a 1 C1 MA\r\n1\r\nms a 1 C{cas a} MA\r\nd\r\nmg a v\r\n", want: "EX\r\nHD\r\nVA 4\r\nabcd\r\n"},
		{name: "ms C ME ignores the cas", send: "ms a 1 C1 ME\r\n1\r\n", want: "HD\r\n"},
		{name: "ms E is the new cas", send: "ms a 1 E777777777 c\r\n1\r\nmg a c\r\n", want: "HD c777777777\r\nHD c777777777\r\n", but: noE},
		{name: "ms F", send: "ms a 1 F7\r\n1\r\nmg a f\r\n", want: "HD\r\nHD f7\r\n"},
		{name: "ms I of a lower cas stores a stale item", given: setA, send: "ms a 1 I C1\r\n1\r\nmg a v\r\n", want: "HD\r\nVA 1 X W\r\n1\r\n"},
		{name: "ms I of a lower cas keeps the exptime", given: "set a 0 100 1\r\n1\r\n", send: "ms a 1 I C1 T200\r\n1\r\nmg a t\r\n", want: "HD\r\nHD t100 X W\r\n"},
		{name: "ms I of a lower cas keeps the token", given: "set a 0 100 1\r\n1\r\nmg a R200\r\n", send: "ms a 1 I C1\r\n1\r\nmg a\r\n", want: "HD\r\nHD Z X\r\n"},
		{name: "ms I of the same cas stores", given: setA, send: "ms a 1 I C{cas a}\r\n1\r\nmg a v\r\n", want: "HD\r\nVA 1\r\n1\r\n"},
		{name: "ms I of a higher cas", given: setA, send: "ms a 1 I C18446744073709551615\r\n1\r\nmg a v\r\n", want: "EX\r\nVA 3\r\nabc\r\n"},
		{name: "ms k", send: "ms a 1 k\r\n1\r\n", want: "HD ka\r\n"},
		{name: "ms ME adds", given: setA, send: "ms a 1 ME\r\n1\r\nms b 1 ME\r\n1\r\n", want: "NS\r\nHD\r\n"},
		{name: "ms MA appends", given: setA, send: "ms a 1 MA F9 T100\r\nd\r\nmg a v f t\r\nms b 1 MA\r\n1\r\n", want: "HD\r\nVA 4 f5 t-1\r\nabcd\r\nNS\r\n"},
		{name: "ms MP prepends", given: setA, send: "ms a 1 MP\r\nd\r\nmg a v\r\nms b 1 MP\r\n1\r\n", want: "HD\r\nVA 4\r\ndabc\r\nNS\r\n"},
		{name: "ms MR replaces", given: setA, send: "ms a 1 MR\r\nd\r\nmg a v\r\nms b 1 MR\r\n1\r\n", want: "HD\r\nVA 1\r\nd\r\nNS\r\n"},
		{name: "ms MS sets", given: setA, send: "ms a 1 MS\r\nd\r\nms b 1 MS\r\n1\r\n", want: "HD\r\nHD\r\n"},
		{name: "ms M looks at one character", send: "ms a 1 MSet\r\nd\r\n", want: "HD\r\n", but: "1.6.18 takes one character only"},
		{name: "ms M is case sensitive", send: "ms a 1 Ms\r\nd\r\n", want: "CLIENT_ERROR invalid mode for ms M token\r\n"},
		{name: "ms M of another mode", send: "ms a 1 MX\r\nd\r\nms a 1 M\r\nd\r\n", want: "CLIENT_ERROR invalid mode for ms M token\r\nCLIENT_ERROR invalid mode for ms M token\r\n", but: "1.6.18 has another text"},
		{name: "ms N with MA makes the item", send: "ms a 1 MA N100 T200\r\nd\r\nmg a v t\r\n", want: "HD\r\nVA 1 t100\r\nd\r\n", but: "1.6.18 does not"},
		{name: "ms N with MP makes the item", send: "ms a 1 MP N100\r\nd\r\nmg a v t\r\n", want: "HD\r\nVA 1 t100\r\nd\r\n", but: "1.6.18 does not"},
		{name: "ms O", send: "ms a 1 Oxyz\r\n1\r\n", want: "HD Oxyz\r\n"},
		{name: "ms q keeps success back", send: "ms a 1 q\r\n1\r\nmn\r\n", want: "MN\r\n"},
		{name: "ms q tells what was not stored", given: setA, send: "ms a 1 q ME\r\n1\r\nms a 1 q C1\r\n1\r\nms b 1 q C1\r\n1\r\n", want: "NS\r\nEX\r\nNF\r\n"},
		{name: "ms s is the stored size", send: "ms a 3 s\r\nabc\r\n", want: "HD s3\r\n", but: noMsSize},
		{name: "ms s of an append is the whole size", given: setA, send: "ms a 3 s MA\r\ndef\r\n", want: "HD s6\r\n", but: noMsSize},
		{name: "ms T", send: "ms a 1 T100\r\n1\r\nmg a t\r\n", want: "HD\r\nHD t100\r\n"},
		{name: "ms without T stays", given: "set a 0 100 1\r\n1\r\n", send: "ms a 1\r\n1\r\nmg a t\r\n", want: "HD\r\nHD t-1\r\n"},

		{name: "md deletes", given: setA, send: "md a\r\nmd a\r\n", want: "HD\r\nNF\r\n"},
		{name: "md b", given: "ms AQL/ 1 b\r\n1\r\n", send: "md AQL/ b k O1\r\nmd AQL/ b k O1\r\n", want: "HD kAQL/ b O1\r\nNF kAQL/ b O1\r\n"},
		{name: "md C of the same cas", given: setA, send: "md a C{cas a}\r\nmg a\r\n", want: "HD\r\nEN\r\n"},
		{name: "md C of another cas", given: setA, send: "md a C1\r\nmg a\r\n", want: "EX\r\nHD\r\n"},
		{name: "md E with I is the new cas", given: setA, send: "md a I E777777777\r\nmg a c\r\n", want: "HD\r\nHD c777777777 X W\r\n", but: noE},
		{name: "md E with x is the new cas", given: setA, send: "md a x E777777777\r\nmg a c\r\n", want: "HD\r\nHD c777777777\r\n", but: noE},
		{name: "md F is the flags of what x leaves", given: setA, send: "md a x F9\r\nmg a f\r\n", want: "HD\r\nHD f9\r\n", but: noX},
		{name: "md I makes stale with a new cas", given: setA, send: "md a I\r\nmg a c v\r\nmg a v\r\n", want: "HD\r\nVA 3 c{2} X W\r\nabc\r\nVA 3 Z X\r\nabc\r\n"},
		{name: "md I gives the token out anew", given: setA + "md a I\r\nmg a\r\n", send: "mg a\r\nmd a I\r\nmg a\r\n", want: "HD Z X\r\nHD\r\nHD X W\r\n"},
		{name: "md I keeps the exptime", given: "set a 0 100 1\r\n1\r\n", send: "md a I\r\nmg a t\r\n", want: "HD\r\nHD t100 X W\r\n"},
		{name: "md I T", given: setA, send: "md a I T100\r\nmg a t\r\n", want: "HD\r\nHD t100 X W\r\n"},
		{name: "md k and O", given: setA, send: "md a O1 k\r\n", want: "HD O1 ka\r\n"},
		{name: "md q keeps success back", given: setA, send: "md a q\r\nmn\r\nmg a\r\n", want: "MN\r\nEN\r\n"},
		{name: "md q tells what was not found", send: "md a q\r\n", want: "NF\r\n"},
		{name: "md q tells another cas", given: setA, send: "md a q C1\r\n", want: "EX\r\n"},
		{name: "md x leaves an empty item with the old cas", given: setA, send: "md a x\r\nmg a c f s v t\r\n", want: "HD\r\nVA 0 c{1} f0 s0 t-1\r\n\r\n", but: noX},
		{name: "md x T", given: setA, send: "md a x T100\r\nmg a t\r\n", want: "HD\r\nHD t100\r\n", but: noX},
		{name: "md x I", given: setA, send: "md a x I\r\nmg a v c\r\n", want: "HD\r\nVA 0 c{2} X W\r\n\r\n", but: noX},

		{name: "ma counts up by one", given: "set a 0 0 1\r\n1\r\n", send: "ma a\r\nmg a v\r\n", want: "HD\r\nVA 1\r\n2\r\n"},
		{name: "ma v", given: "set a 0 0 1\r\n9\r\n", send: "ma a v\r\n", want: "VA 2\r\n10\r\n"},
		{name: "ma b", given: "ms AQL/ 1 b\r\n1\r\n", send: "ma AQL/ b v k\r\nma AQI= b k\r\n", want: "VA 1 kAQL/ b\r\n2\r\nNF kAQI= b\r\n"},
		{name: "ma c is the new cas", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "ma a c\r\nmg a c\r\n", want: "HD c{2}\r\nHD c{2}\r\n"},
		{name: "ma c of no item is left out", send: "ma a c\r\n", want: "NF\r\n"},
		{name: "ma C of the same cas", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "ma a C{cas a}\r\n", want: "HD\r\n"},
		{name: "ma C of another cas", given: "set a 0 0 1\r\n1\r\n", send: "ma a C1\r\nmg a v\r\n", want: "EX\r\nVA 1\r\n1\r\n"},
		{name: "ma C0 is no check", given: "set a 0 0 1\r\n1\r\n", send: "ma a C0\r\n", want: "HD\r\n"},
		{name: "ma D", given: "set a 0 0 1\r\n1\r\n", send: "ma a D41 v\r\n", want: "VA 2\r\n42\r\n"},
		{name: "ma E is the new cas", given: "set a 0 0 1\r\n1\r\n", send: "ma a E777777777 c\r\n", want: "HD c777777777\r\n", but: noE},
		{name: "ma MI and M+", given: "set a 0 0 1\r\n1\r\n", send: "ma a MI v\r\nma a M+ v\r\n", want: "VA 1\r\n2\r\nVA 1\r\n3\r\n"},
		{name: "ma MD and M-", given: "set a 0 0 1\r\n2\r\n", send: "ma a MD v\r\nma a M- v\r\nma a MD v\r\n", want: "VA 1\r\n1\r\nVA 1\r\n0\r\nVA 1\r\n0\r\n"},
		{name: "ma M of another mode", send: "ma a MX\r\nma a Md\r\n", want: "CLIENT_ERROR invalid mode for ma M token\r\nCLIENT_ERROR invalid mode for ma M token\r\n"},
		{name: "ma N makes the item with J", send: "ma a N100 J5 v t\r\nmg a v t\r\n", want: "VA 1 t100\r\n5\r\nVA 1 t100\r\n5\r\n"},
		{name: "ma N makes the item with 0", send: "ma a N0 v\r\n", want: "VA 1\r\n0\r\n"},
		{name: "ma without N makes none", send: "ma a J5\r\nmg a\r\n", want: "NF\r\nEN\r\n"},
		{name: "ma O and k", given: "set a 0 0 1\r\n1\r\n", send: "ma a O1 k\r\nma b k O1\r\n", want: "HD O1 ka\r\nNF kb O1\r\n"},
		{name: "ma q keeps success back", given: "set a 0 0 1\r\n1\r\n", send: "ma a q\r\nma a q v\r\nmn\r\nmg a v\r\n", want: "MN\r\nVA 1\r\n3\r\n"},
		{name: "ma q tells what was not found", send: "ma a q\r\n", want: "NF\r\n"},
		{name: "ma q tells another cas", given: "set a 0 0 1\r\n1\r\n", send: "ma a q C1\r\n", want: "EX\r\n"},
		{name: "ma t", given: "set a 0 100 1\r\n1\r\n", send: "ma a t\r\n", want: "HD t100\r\n"},
		{name: "ma T", given: "set a 0 0 1\r\n1\r\n", send: "ma a t T100\r\nma a T200 t\r\n", want: "HD t-1\r\nHD t200\r\n"},
		{name: "ma of a word", given: setA, send: "ma a\r\nma a q\r\n", want: notANumber + notANumber},
		{name: "ma wraps at 64 bits", given: "set a 0 0 20\r\n18446744073709551615\r\n", send: "ma a v\r\n", want: "VA 1\r\n0\r\n"},
	}, nil)
}

// TestMetaItem has what becomes of stale items, of tokens and of keys in base64, and the commands without flags.
func TestMetaItem(t *testing.T) {
	runRows(t, []row{
		{name: "a stale item gives the token to the first reader", given: setA + "md a I\r\n", send: "mg a\r\nmg a\r\n", want: "HD X W\r\nHD Z X\r\n"},
		{name: "Z X W come behind the flags that were asked for", given: setA + "md a I\r\n", send: "mg a s v k\r\nmg a s v k\r\n", want: "VA 3 s3 ka X W\r\nabc\r\nVA 3 s3 ka Z X\r\nabc\r\n"},
		{name: "a get of a stale item is a hit", given: setA + "md a I\r\n", send: "get a\r\n", want: "VALUE a 5 3\r\nabc\r\nEND\r\n"},
		{name: "ms clears stale and token", given: setA + "md a I\r\nmg a\r\n", send: "ms a 1\r\n1\r\nmg a\r\n", want: "HD\r\nHD\r\n"},
		{name: "set clears stale and token", given: setA + "md a I\r\nmg a\r\n", send: "set a 0 0 1\r\n1\r\nmg a\r\n", want: "STORED\r\nHD\r\n"},
		{name: "a key in base64 may have 186 bytes", send: "ms " + strings.Repeat("QUFB", 62) + " 1 b\r\n1\r\nget <A*186>\r\n", want: "HD\r\nVALUE <A*186> 0 1\r\n1\r\nEND\r\n"},
		{name: "a key in base64 is bounded as it is sent", send: "mg " + strings.Repeat("QUFB", 63) + " b\r\n", want: badFormat},
		{name: "the key of an ordinary command may be asked for in base64", given: "set abc 0 0 1\r\n1\r\n", send: "mg YWJj b v\r\n", want: "VA 1\r\n1\r\n"},
		{name: "mn", send: "mn\r\n", want: "MN\r\n"},
		{name: "mn passes words over", send: "mn a b c\r\n", want: "MN\r\n"},
		{name: "mn with a bare newline is too short", send: "mn\n", want: badFormat, but: shortLines},
		{name: "me of an item", given: "set a 5 100 3\r\nabc\r\n", send: "me a\r\nmg a\r\nme a\r\n", want: "ME a exp=100 la=0 cas={1} fetch=no cls= size=\r\nHD\r\nME a exp=100 la=0 cas={1} fetch=yes cls= size=\r\n", but: "1.6.18 turns the sign of exp round"},
		{name: "me of an item without exptime", given: "set a 5 0 3\r\nabc\r\n", send: "me a\r\n", want: "ME a exp=-1 la=0 cas={1} fetch=no cls= size=\r\n"},
		{name: "me miss", send: "me a\r\n", want: "EN\r\n"},
		{name: "me b decodes the key", given: "ms w4A= 1 b\r\n1\r\n", send: "me w4A= b x\r\n", want: "ME w4A= exp=-1 la=0 cas={1} fetch=no cls= size=\r\n"},
		{name: "me b needs no further word", given: "ms w4A= 1 b\r\n1\r\n", send: "me w4A= b\r\n", want: "ME w4A= exp=-1 la=0 cas={1} fetch=no cls= size=\r\n"},
	}, nil)
}
