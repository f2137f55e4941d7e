package server_test

import (
	"fmt"
	"strings"
	"testing"

	"hearth/netproto/server"
)

// Replies that many rows want.
const (
	badFormat   = "CLIENT_ERROR bad command line format\r\n"
	badChunk    = "CLIENT_ERROR bad data chunk\r\n"
	badExptime  = "CLIENT_ERROR invalid exptime argument\r\n"
	badDelta    = "CLIENT_ERROR invalid numeric delta argument\r\n"
	notANumber  = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
	objectLarge = "SERVER_ERROR object too large for cache\r\n"
	noMemory    = "SERVER_ERROR out of memory storing object\r\n"
	noMemoryGet = "SERVER_ERROR Out of memory during read\r\n"
)

// Why memcached 1.6.18 answers otherwise, where many rows say the same.
const (
	shortLines  = "1.6.18 answers ERROR to a line below four bytes"
	fewWords    = "1.6.18 answers ERROR to too few words"
	wordsPassed = "1.6.18 refuses words that are passed over now"
	strict32    = "1.6.18 cuts an exptime beyond 32 bits"
	oldDrop     = "1.6.18 drops a block two bytes short, or none, after a wrong word"
)

func TestText(t *testing.T) {
	runRows(t, []row{
		// The line.
		{name: "a line may end in a bare newline", given: "set a 0 0 1 noreply\r\n1\r\n", send: "get a\n", want: "VALUE a 0 1\r\n1\r\nEND\r\n"},
		{name: "runs of spaces are one separator", send: "set   a 0  0 1 \r\n1\r\nget  a   b \r\n", want: "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n"},
		{name: "a tab is part of a key", send: "set a\tb 0 0 1\r\n1\r\nget a\tb\r\n", want: "STORED\r\nVALUE a\tb 0 1\r\n1\r\nEND\r\n"},
		{name: "control bytes are part of a key", send: "set a\x01\x7f 0 0 1\r\n1\r\nget a\x01\x7f\r\n", want: "STORED\r\nVALUE a\x01\x7f 0 1\r\n1\r\nEND\r\n"},
		{name: "NUL is part of a key", send: "set a\x00b 0 0 1\r\n1\r\nget a a\x00b\r\n", want: "STORED\r\nVALUE a\x00b 0 1\r\n1\r\nEND\r\n",
			but: "1.6.18 ends the line at it"},
		{name: "bytes from 0x80 on are part of a key", send: "set \x80\xff 0 0 1\r\n1\r\nget \x80\xff\r\n", want: "STORED\r\nVALUE \x80\xff 0 1\r\n1\r\nEND\r\n"},
		{name: "a carriage return inside a line is part of a key", send: "set a\rb 0 0 1\r\n1\r\nget a\rb\r\n", want: "STORED\r\nVALUE a\rb 0 1\r\n1\r\nEND\r\n"},
		{name: "a command stands in column 0", send: " get x\r\n", want: "ERROR\r\n", but: "1.6.18 passes blanks before a command over"},
		{name: "an empty line is a bad command line", send: "\r\n", want: badFormat, but: shortLines},
		{name: "a blank and a newline are a bad command line", send: " \n", want: badFormat, but: shortLines},
		{name: "one letter is a bad command line", send: "a\r\n", want: badFormat, but: shortLines},
		{name: "four bytes are a line", send: "ab\r\n", want: "ERROR\r\n"},
		{name: "an unknown command is an error", send: "foo bar baz\r\n", want: "ERROR\r\n"},
		{name: "commands are lower case", send: "GET a\r\nSet a 0 0 1\r\nVERSION\r\n", want: "ERROR\r\nERROR\r\nERROR\r\n"},
		{name: "a prefix of a command is no command", send: "versio\r\n", want: "ERROR\r\n"},
		{name: "what begins with a command is no command", send: "versions\r\n", want: "ERROR\r\n"},
		{name: "bget is gone", send: "bget a\r\n", want: "ERROR\r\n", but: "1.6.18 still has it"},
		{name: "of a line's words 23 are seen", given: "set a 0 0 1\r\n1\r\n", send: "delete a" + strings.Repeat(" x", 20) + " noreply\r\nget a\r\n",
			want: "END\r\n", but: wordsPassed},
		{name: "a noreply behind the 23rd word is not seen", given: "set a 0 0 1\r\n1\r\n", send: "delete a" + strings.Repeat(" x", 21) + " noreply\r\nget a\r\n",
			want: "DELETED\r\nEND\r\n", but: wordsPassed},
		{name: "the keys of a get are not bounded", given: "set a 0 0 1\r\n1\r\n", send: "get" + strings.Repeat(" x", 500) + " a\r\n", want: "VALUE a 0 1\r\n1\r\nEND\r\n"},

		// Keys.
		{name: "a key of 250 bytes is stored", send: "set <k*250> 0 0 1\r\n1\r\nget <k*250>\r\n", want: "STORED\r\nVALUE <k*250> 0 1\r\n1\r\nEND\r\n"},
		{name: "set of a key longer than 250 is refused and the block dropped", send: "set <k*251> 0 0 7\r\nversion\r\n", want: badFormat, but: oldDrop},
		{name: "get of a key longer than 250 is one error line", given: "set a 0 0 1\r\n1\r\n", send: "get <k*251>\r\n", want: badFormat},
		{name: "get of a key longer than 250 drops the values before it", given: "set a 0 0 1\r\n1\r\n", send: "get a <k*251> a\r\n", want: badFormat},
		{name: "gat of a key longer than 250 is one error line", send: "gat 0 <k*251>\r\n", want: badFormat},
		{name: "delete of a key longer than 250 is refused", send: "delete <k*251>\r\n", want: badFormat},
		{name: "incr of a key longer than 250 is refused", send: "incr <k*251> 1\r\n", want: badFormat},
		{name: "touch of a key longer than 250 is refused", send: "touch <k*251> 1\r\n", want: badFormat},

		// The data block.
		{name: "a block may hold line ends", send: "set a 0 0 4\r\n\r\n\r\n\r\nget a\r\n", want: "STORED\r\nVALUE a 0 4\r\n\r\n\r\n\r\nEND\r\n"},
		{name: "a block must end in a line end", given: "set a 0 0 3\r\nold\r\n", send: "set a 0 0 3\r\nabcde", want: badChunk},
		{name: "a bare newline ends no block", send: "set a 0 0 3\r\nabc\nx", want: badChunk},
		{name: "after a bad block the old value stays", given: "set a 0 0 3\r\nold\r\nset a 0 0 3 noreply\r\nabcde", send: "get a\r\n", want: "VALUE a 0 3\r\nold\r\nEND\r\n"},
		{name: "what follows a bad block's two bytes is a command", send: "set a 0 0 3\r\nabcdefgh\r\n", want: badChunk + "ERROR\r\n"},
		{name: "a block that is too short takes what follows", send: "set a 0 0 9\r\nabc\r\nget a\r\n", want: badChunk + badFormat, but: shortLines},
		{name: "a bad length drops no block", send: "set a 0 0 x\r\nversion\r\n", want: badFormat + "VERSION\r\n"},
		{name: "a negative length drops no block", send: "set a 0 0 -1\r\nversion\r\n", want: badFormat + "VERSION\r\n"},
		{name: "a length with a plus is bad", send: "set a 0 0 +7\r\nversion\r\n", want: badFormat + "VERSION\r\n", but: "1.6.18 takes a plus"},
		{name: "a length beyond an int32 less two is bad", send: "set a 0 0 2147483646\r\nversion\r\n", want: badFormat + "VERSION\r\n"},
		{name: "bad flags drop the block", send: "set a x 0 7\r\nversion\r\n", want: badFormat, but: oldDrop},
		{name: "a bad exptime drops the block", send: "set a 0 x 7\r\nversion\r\n", want: badFormat, but: oldDrop},
		{name: "a bad cas drops the block", send: "cas a 0 0 7 x\r\nversion\r\n", want: badFormat, but: "1.6.18 drops no block then"},

		// Numbers.
		{name: "flags are cut to 32 bits", send: "set a 4294967297 0 1\r\n1\r\nget a\r\n", want: "STORED\r\nVALUE a 1 1\r\n1\r\nEND\r\n"},
		{name: "negative flags are refused", send: "set a -1 0 1\r\n1\r\n", want: badFormat, but: oldDrop},
		{name: "flags beyond 64 bits are refused", send: "set a 18446744073709551616 0 1\r\n1\r\n", want: badFormat, but: oldDrop},
		{name: "exptime 4294967295 of set has expired", send: "set a 0 4294967295 1\r\n1\r\nget a\r\n", want: "STORED\r\nEND\r\n"},
		{name: "exptime 2147483648 of set has expired", send: "set a 0 2147483648 1\r\n1\r\nget a\r\n", want: "STORED\r\nEND\r\n"},
		{name: "exptime 4294967396 of set is 100", send: "set a 0 4294967396 1\r\n1\r\nmg a t\r\n", want: "STORED\r\nHD t100\r\n"},
		{name: "a negative exptime has expired", send: "set a 0 -1 1\r\n1\r\nget a\r\n", want: "STORED\r\nEND\r\n"},
		{name: "exptime 0 is never", send: "set a 0 0 1\r\n1\r\nmg a t\r\n", want: "STORED\r\nHD t-1\r\n"},
		{name: "exptime of 30 days is relative", send: "set a 0 2592000 1\r\n1\r\nmg a t\r\n", want: "STORED\r\nHD t2592000\r\n"},
		{name: "a larger exptime is a moment", send: "set a 0 2592001 1\r\n1\r\nget a\r\n", want: "STORED\r\nEND\r\n"},
		{name: "touch takes 32 bits of exptime", given: "set a 0 0 1\r\n1\r\n", send: "touch a 2147483648\r\nget a\r\n", want: badExptime + "VALUE a 0 1\r\n1\r\nEND\r\n", but: strict32},
		{name: "gat takes 32 bits of exptime", given: "set a 0 0 1\r\n1\r\n", send: "gat 2147483648 a\r\nget a\r\n", want: badExptime + "VALUE a 0 1\r\n1\r\nEND\r\n", but: strict32},
		{name: "flush_all takes 32 bits of exptime", given: "set a 0 0 1\r\n1\r\n", send: "flush_all 2147483648\r\nget a\r\n", want: badExptime + "VALUE a 0 1\r\n1\r\nEND\r\n", but: strict32},

		// noreply.
		{name: "noreply silences success", send: "set a 0 0 1 noreply\r\n1\r\nadd b 0 0 1 noreply\r\n2\r\nincr a 1 noreply\r\ntouch a 0 noreply\r\ndelete b noreply\r\nget a b\r\n",
			want: "VALUE a 0 1\r\n2\r\nEND\r\n"},
		{name: "noreply silences failure", send: "add a 0 0 1 noreply\r\n1\r\nadd a 0 0 1 noreply\r\n1\r\ndelete b noreply\r\ntouch b 0 noreply\r\nincr b 1 noreply\r\n", want: ""},
		{name: "noreply silences errors behind it", send: "incr a x noreply\r\ntouch a x noreply\r\nset <k*251> 0 0 1 noreply\r\n1\r\nset a 0 0 1 noreply\r\n123", want: "", but: oldDrop},
		{name: "noreply silences a value that is too large", send: "set a 0 0 1048576 noreply\r\n<x*1048576>\r\n", want: ""},
		{name: "noreply silences a bad length", send: "set a 0 0 -1 noreply\r\n", want: ""},
		{name: "noreply does not silence too few words", send: "incr noreply\r\ntouch noreply\r\nset a noreply\r\n", want: badFormat + badFormat + badFormat, but: fewWords},
		{name: "noreply does not silence an unknown command", send: "foo noreply\r\n", want: "ERROR\r\n"},
		{name: "noreply is a key of get", send: "get noreply\r\n", want: "END\r\n"},
		{name: "noreply is a key of gat", given: "set noreply 0 0 1\r\n1\r\n", send: "gat 0 noreply\r\n", want: "VALUE noreply 0 1\r\n1\r\nEND\r\n"},
		{name: "noreply silences admin commands", send: "verbosity 0 noreply\r\nflush_all noreply\r\n", want: ""},
		{name: "noreply behind version is not looked for", send: "version noreply\r\n", want: "VERSION\r\n"},

		// get, gets, gat, gats.
		{name: "get leaves out what it misses", given: "set a 7 0 1\r\n1\r\n", send: "get b a c\r\n", want: "VALUE a 7 1\r\n1\r\nEND\r\n"},
		{name: "get repeats a key that is asked for twice", given: "set a 7 0 1\r\n1\r\n", send: "get a a\r\n", want: "VALUE a 7 1\r\n1\r\nVALUE a 7 1\r\n1\r\nEND\r\n"},
		{name: "get of nothing is a bad command line", send: "get\r\nget \r\n", want: badFormat + badFormat, but: fewWords},
		{name: "gets shows the cas", given: "set a 7 0 1\r\n1\r\n", send: "gets a\r\ngets a\r\n", want: "VALUE a 7 1 {1}\r\n1\r\nEND\r\nVALUE a 7 1 {1}\r\n1\r\nEND\r\n"},
		{name: "gat sets the exptime", given: "set a 7 0 1\r\n1\r\n", send: "gat 100 a b\r\nmg a t\r\n", want: "VALUE a 7 1\r\n1\r\nEND\r\nHD t100\r\n"},
		{name: "gats shows the cas and keeps it", given: "set a 7 0 1\r\n1\r\ngets a\r\n", send: "gats 100 a\r\n", want: "VALUE a 7 1 {1}\r\n1\r\nEND\r\n"},
		{name: "gat without a number is refused", send: "gat x a\r\ngats x a\r\n", want: badExptime + badExptime},
		{name: "gat without a key is a bad command line", send: "gat 0\r\n", want: badFormat, but: fewWords},
		{name: "an empty value is stored", send: "set a 0 0 0\r\n\r\nget a\r\n", want: "STORED\r\nVALUE a 0 0\r\n\r\nEND\r\n"},

		// set, add, replace, append, prepend, cas.
		{name: "set overwrites", given: "set a 1 100 1\r\n1\r\n", send: "set a 2 0 2\r\n22\r\nget a\r\nmg a t\r\n", want: "STORED\r\nVALUE a 2 2\r\n22\r\nEND\r\nHD t-1\r\n"},
		{name: "add stores what is not there only", send: "add a 0 0 1\r\n1\r\nadd a 0 0 1\r\n2\r\nget a\r\n", want: "STORED\r\nNOT_STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n"},
		{name: "replace stores what is there only", given: "set a 0 0 1\r\n1\r\n", send: "replace b 0 0 1\r\n1\r\nreplace a 5 0 1\r\n2\r\nget a b\r\n",
			want: "NOT_STORED\r\nSTORED\r\nVALUE a 5 1\r\n2\r\nEND\r\n"},
		{name: "append keeps flags and exptime", given: "set a 5 100 1\r\n1\r\n", send: "append a 9 0 1\r\n2\r\nmg a t f v\r\n", want: "STORED\r\nVA 2 t100 f5\r\n12\r\n"},
		{name: "prepend keeps flags and exptime", given: "set a 5 100 1\r\n1\r\n", send: "prepend a 9 0 1\r\n2\r\nmg a t f v\r\n", want: "STORED\r\nVA 2 t100 f5\r\n21\r\n"},
		{name: "append gives a new cas", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "append a 0 0 1\r\n2\r\ngets a\r\n", want: "STORED\r\nVALUE a 0 2 {2}\r\n12\r\nEND\r\n"},
		{name: "append and prepend need an item", send: "append a 0 0 1\r\n1\r\nprepend a 0 0 1\r\n1\r\n", want: "NOT_STORED\r\nNOT_STORED\r\n"},
		{name: "words between length and noreply are passed over", send: "set a 0 0 1 what ever noreply\r\n1\r\nset b 0 0 1 what ever\r\n1\r\nget a\r\n",
			want: "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n", but: wordsPassed},
		{name: "set without a length is a bad command line", send: "set a 0 0\r\n", want: badFormat, but: fewWords},
		{name: "cas stores when the cas is the item's", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "cas a 0 0 1 {cas a}\r\n2\r\ngets a\r\n", want: "STORED\r\nVALUE a 0 1 {2}\r\n2\r\nEND\r\n"},
		{name: "cas keeps an item with another cas", given: "set a 0 0 1\r\n1\r\ngets a\r\nset a 0 0 1\r\n2\r\n", send: "cas a 0 0 1 {cas a}\r\n3\r\nget a\r\n", want: "EXISTS\r\nVALUE a 0 1\r\n2\r\nEND\r\n"},
		{name: "cas of nothing finds nothing", send: "cas a 0 0 1 1\r\n1\r\nget a\r\n", want: "NOT_FOUND\r\nEND\r\n"},
		{name: "cas 0 exists", given: "set a 0 0 1\r\n1\r\n", send: "cas a 0 0 1 0\r\n2\r\n", want: "EXISTS\r\n"},
		{name: "cas takes a noreply", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "cas a 0 0 1 {cas a} noreply\r\n2\r\nget a\r\n", want: "VALUE a 0 1\r\n2\r\nEND\r\n"},

		// delete, incr, decr, touch.
		{name: "delete deletes", given: "set a 0 0 1\r\n1\r\n", send: "delete a\r\ndelete a\r\nget a\r\n", want: "DELETED\r\nNOT_FOUND\r\nEND\r\n"},
		{name: "delete passes other words over", given: "set a 0 0 1\r\n1\r\n", send: "delete a 10 more\r\n", want: "DELETED\r\n", but: wordsPassed},
		{name: "delete takes a noreply behind other words", given: "set a 0 0 1\r\n1\r\n", send: "delete a 10 noreply\r\nget a\r\n", want: "END\r\n", but: wordsPassed},
		{name: "delete without a key is a bad command line", send: "delete\r\n", want: badFormat, but: fewWords},
		{name: "incr counts up", given: "set a 5 0 2\r\n99\r\n", send: "incr a 1\r\nget a\r\n", want: "100\r\nVALUE a 5 3\r\n100\r\nEND\r\n"},
		{name: "incr keeps exptime and flags", given: "set a 5 100 2\r\n99\r\n", send: "incr a 1\r\nmg a t f v\r\n", want: "100\r\nVA 3 t100 f5\r\n100\r\n"},
		{name: "incr gives a new cas", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "incr a 1\r\ngets a\r\n", want: "2\r\nVALUE a 0 1 {2}\r\n2\r\nEND\r\n"},
		{name: "incr wraps at 64 bits", given: "set a 0 0 20\r\n18446744073709551615\r\n", send: "incr a 1\r\n", want: "0\r\n"},
		{name: "incr takes 64 bits", given: "set a 0 0 1\r\n0\r\n", send: "incr a 18446744073709551615\r\n", want: "18446744073709551615\r\n"},
		{name: "decr stops at zero", given: "set a 0 0 1\r\n5\r\n", send: "decr a 6\r\ndecr a 1\r\n", want: "0\r\n0\r\n"},
		{name: "decr pads with blanks", given: "set a 0 0 2\r\n10\r\n", send: "decr a 1\r\nget a\r\n", want: "9\r\nVALUE a 0 2\r\n9 \r\nEND\r\n"},
		{name: "incr and decr of nothing find nothing", send: "incr a 1\r\ndecr a 1\r\n", want: "NOT_FOUND\r\nNOT_FOUND\r\n"},
		{name: "incr by no number is refused", given: "set a 0 0 1\r\n1\r\n", send: "incr a x\r\ndecr a -1\r\nincr a 18446744073709551616\r\n", want: badDelta + badDelta + badDelta},
		{name: "incr of a word is refused", given: "set a 0 0 1\r\nx\r\n", send: "incr a 1\r\ndecr a 1\r\n", want: notANumber + notANumber},
		{name: "incr of an empty value is refused", given: "set a 0 0 0\r\n\r\n", send: "incr a 1\r\n", want: notANumber},
		{name: "incr of a number with a letter behind it is refused", given: "set a 0 0 2\r\n1x\r\n", send: "incr a 1\r\n", want: notANumber},
		{name: "incr of a negative number is refused", given: "set a 0 0 2\r\n-1\r\n", send: "incr a 1\r\n", want: notANumber},
		{name: "incr of a number beyond 64 bits is refused", given: "set a 0 0 20\r\n18446744073709551616\r\n", send: "incr a 1\r\n", want: notANumber},
		{name: "incr takes blanks and a plus before the number", given: "set a 0 0 3\r\n +1\r\n", send: "incr a 1\r\n", want: "2\r\n"},
		{name: "incr takes blanks behind the number", given: "set a 0 0 3\r\n1  \r\n", send: "incr a 1\r\n", want: "2\r\n"},
		{name: "incr takes the first of two numbers", given: "set a 0 0 3\r\n1 2\r\n", send: "incr a 1\r\n", want: "2\r\n"},
		{name: "incr of a value in several chunks is refused", given: "set a 0 0 600000 noreply\r\n<1*600000>\r\n", send: "incr a 1\r\n", want: notANumber},
		{name: "incr without a delta is a bad command line", send: "incr a\r\n", want: badFormat, but: fewWords},
		{name: "touch sets the exptime", given: "set a 0 0 1\r\n1\r\ngets a\r\n", send: "touch a 100\r\nmg a t c\r\n", want: "TOUCHED\r\nHD t100 c{1}\r\n"},
		{name: "touch 0 makes it stay", given: "set a 0 100 1\r\n1\r\n", send: "touch a 0\r\nmg a t\r\n", want: "TOUCHED\r\nHD t-1\r\n"},
		{name: "touch -1 makes it expire", given: "set a 0 0 1\r\n1\r\n", send: "touch a -1\r\nget a\r\n", want: "TOUCHED\r\nEND\r\n"},
		{name: "touch of nothing finds nothing", send: "touch a 0\r\n", want: "NOT_FOUND\r\n"},
		{name: "touch without a number is refused", given: "set a 0 0 1\r\n1\r\n", send: "touch a x\r\n", want: badExptime},
		{name: "touch without an exptime is a bad command line", send: "touch a\r\n", want: badFormat, but: fewWords},

		// flush_all, version, verbosity, quit.
		{name: "flush_all ends what is there", given: "set a 0 0 1\r\n1\r\n", send: "flush_all\r\nget a\r\nset a 0 0 1\r\n2\r\nget a\r\n", want: "OK\r\nEND\r\nSTORED\r\nVALUE a 0 1\r\n2\r\nEND\r\n"},
		{name: "flush_all of a negative time is at once", given: "set a 0 0 1\r\n1\r\n", send: "flush_all -1\r\nget a\r\n", want: "OK\r\nEND\r\n"},
		{name: "flush_all later leaves what is there", given: "set a 0 0 1\r\n1\r\n", send: "flush_all 100\r\nget a\r\n", want: "OK\r\nVALUE a 0 1\r\n1\r\nEND\r\n"},
		{name: "flush_all without a number is refused", given: "set a 0 0 1\r\n1\r\n", send: "flush_all x\r\nget a\r\n", want: badExptime + "VALUE a 0 1\r\n1\r\nEND\r\n"},
		{name: "flush_all of too many words is an error", send: "flush_all 0 0 noreply\r\n", want: "ERROR\r\n"},
		{name: "version tells it", send: "version\r\n", want: "VERSION\r\n"},
		{name: "verbosity is clamped", send: "verbosity 0\r\nverbosity 1\r\nverbosity 9\r\nverbosity 0\r\n", want: "OK\r\nOK\r\nOK\r\nOK\r\n"},
		{name: "verbosity without a number is a bad command line", send: "verbosity\r\nverbosity x\r\n", want: badFormat + badFormat, but: fewWords},
		{name: "quit closes", send: "quit\r\nversion\r\n", want: "", closes: true},

		// The largest value.
		{name: "the largest value with flags 0", send: "set a 0 0 1048516\r\n<x*1048516>\r\nset a 0 0 1048517\r\n<x*1048517>\r\n", want: "STORED\r\n" + objectLarge},
		{name: "the largest value with flags", send: "set a 1 0 1048512\r\n<x*1048512>\r\nset a 1 0 1048513\r\n<x*1048513>\r\n", want: "STORED\r\n" + objectLarge},
	}, nil)
}

// TestOldValueAfter shows what is left of the old value when the new one cannot be had.
func TestOldValueAfter(t *testing.T) {
	const old = "VALUE a 0 3\r\nold\r\nEND\r\n"
	given := "set a 0 0 3\r\nold\r\ngets a\r\n"
	var rows []row
	for _, mode := range []string{"set", "add", "replace", "append", "prepend"} {
		left := old
		if mode == "set" {
			left = "END\r\n"
		}
		rows = append(rows,
			row{name: mode + " too large", given: given, send: mode + " a 0 0 1048576\r\n<x*1048576>\r\nget a\r\n", want: objectLarge + left},
			row{name: mode + " too large without reply", given: given, send: mode + " a 0 0 1048576 noreply\r\n<x*1048576>\r\nget a\r\n", want: left})
	}
	rows = append(rows, row{name: "cas too large", given: given, send: "cas a 0 0 1048576 {cas a}\r\n<x*1048576>\r\nget a\r\n", want: objectLarge + old})
	for _, mode := range []string{"", " MS", " ME", " MR", " MA", " MP", " C{cas a}", " q"} {
		rows = append(rows, row{name: strings.ReplaceAll("ms too large"+mode, "{cas a}", ""), given: given, send: "ms a 1048576" + mode + "\r\n<x*1048576>\r\nget a\r\n", want: objectLarge + "END\r\n"})
	}
	rows = append(rows,
		row{name: "ms too large of a bad flag", given: given, send: "ms a 1048576 b\r\n<x*1048576>\r\nget a\r\n", want: "CLIENT_ERROR error decoding key\r\n" + old},
		row{name: "ms too large of a base64 key", given: "ms YQ== 3 b\r\nold\r\n", send: "ms YQ== 1048576 b\r\n<x*1048576>\r\nget a\r\n", want: objectLarge + "END\r\n"},
	)
	for _, mode := range []string{"append a 0 0", "prepend a 0 0"} {
		rows = append(rows, row{name: mode[:strings.Index(mode, " ")] + " of a sum too large", given: "set a 0 0 600000\r\n<y*600000>\r\n",
			send: mode + " 600000\r\n<x*600000>\r\nmg a s\r\n", want: "NOT_STORED\r\nHD s600000\r\n"})
	}
	for _, mode := range []string{"MA", "MP"} {
		rows = append(rows, row{name: "ms " + mode + " of a sum too large", given: "set a 0 0 600000\r\n<y*600000>\r\n",
			send: "ms a 600000 " + mode + "\r\n<x*600000>\r\nmg a s\r\n", want: "NS\r\nHD s600000\r\n"})
	}
	runRows(t, rows, nil)
}

// TestOldValueAfterNoMemory is the same for memory that is full and must not be evicted. Each row has servers of its own: what is left of a row before it
// would be memory.
func TestOldValueAfterNoMemory(t *testing.T) {
	for _, r := range []struct {
		name, send, reply string
		kept              bool
	}{
		// 200 bytes have no chunk left: no memory for the header. 700000 are chained: the header's chunk is there, the others are not.
		{name: "set", send: "set %s 0 0 200", reply: noMemory},
		{name: "set without reply", send: "set %s 0 0 200 noreply"},
		{name: "add", send: "add %s 0 0 200", reply: noMemory, kept: true},
		{name: "replace", send: "replace %s 0 0 200", reply: noMemory, kept: true},
		{name: "append", send: "append %s 0 0 200", reply: noMemory, kept: true},
		{name: "prepend", send: "prepend %s 0 0 200", reply: noMemory, kept: true},
		{name: "cas", send: "cas %s 0 0 200 1", reply: noMemory, kept: true},
		{name: "ms", send: "ms %s 200", reply: noMemory},
		{name: "ms ME", send: "ms %s 200 ME", reply: noMemory},
		{name: "ms MA", send: "ms %s 200 MA", reply: noMemory},
		{name: "ms q", send: "ms %s 200 q", reply: noMemory},
		{name: "set during the upload", send: "set %s 0 0 700000", reply: noMemoryGet, kept: true},
		{name: "set during the upload without reply", send: "set %s 0 0 700000 noreply", kept: true},
		{name: "add during the upload", send: "add %s 0 0 700000", reply: noMemoryGet, kept: true},
		{name: "replace during the upload", send: "replace %s 0 0 700000", reply: noMemoryGet, kept: true},
		{name: "append during the upload", send: "append %s 0 0 700000", reply: noMemoryGet, kept: true},
		{name: "cas during the upload", send: "cas %s 0 0 700000 1", reply: noMemoryGet, kept: true},
		{name: "ms during the upload", send: "ms %s 700000", reply: noMemoryGet, kept: true},
		{name: "ms ME during the upload", send: "ms %s 700000 ME", reply: noMemoryGet, kept: true},
	} {
		t.Run(r.name, func(t *testing.T) {
			for _, addr := range both(t, func(o *setup) { o.cache.NoEvict, o.cache.MemoryLimit = true, 8<<20 }, "-M", "-m", "8") {
				c := dial(t, addr)
				fill(c)
				size := 200
				if strings.Contains(r.name, "during") {
					size = 700000
				}
				left := "END\r\n"
				if r.kept {
					left = "VALUE victim 0 3\r\nold\r\nEND\r\n"
				}
				c.send(r.send+"\r\n%s\r\nget victim\r\n", "victim", strings.Repeat("x", size))
				c.want(r.reply + left)
			}
		})
	}
}

// fill makes an item named victim and takes all memory for others of its size and above. Small chunks stay free, so that the header of a chained item has one.
func fill(c *client) {
	c.t.Helper()
	c.ask("set victim 0 0 3\r\nold\r\n", stored)
	for _, f := range []struct{ items, size int }{{20, 500000}, {5000, 200}} { // more than 8 MiB, and more than a page
		var sets strings.Builder
		for i := range f.items {
			fmt.Fprintf(&sets, "set fill%d-%d 0 0 %d noreply\r\n%s\r\n", f.size, i, f.size, strings.Repeat("x", f.size))
		}
		c.send("%s", sets.String())
		c.send("set fill 0 0 %d\r\n%s\r\n", f.size, strings.Repeat("x", f.size))
		if got := c.line(); got == "STORED" {
			c.t.Fatal("memory is not full")
		}
	}
}

// TestTextOptions has the rules that an option changes.
func TestTextOptions(t *testing.T) {
	t.Run("-F refuses flush_all and counts it", func(t *testing.T) {
		runCounts(t, []count{{name: "flush_all", send: "flush_all\r\n", reply: "CLIENT_ERROR flush_all not allowed\r\n", deltas: "cmd_flush 1"}},
			func(o *setup) { o.server.DisableFlushAll = true }, "-F")
	})
	t.Run("-C shows every cas as 0", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.cache.NoCAS = true }, "-C") {
			dial(t, addr).ask("set a 0 0 1\r\n1\r\ngets a\r\ncas a 0 0 1 0\r\n2\r\ncas b 0 0 1 0\r\n2\r\n", "STORED\r\nVALUE a 0 1 0\r\n1\r\nEND\r\nEXISTS\r\nNOT_FOUND\r\n")
		}
	})
	t.Run("-I bounds values", func(t *testing.T) {
		for _, addr := range both(t, func(o *setup) { o.cache.MaxItemSize = 512 << 10 }, "-I", "512k") {
			dial(t, addr).ask(fmt.Sprintf("set a 0 0 524288\r\n%s\r\n", strings.Repeat("x", 524288)), objectLarge)
		}
	})
	t.Run("the version is N.N.N", func(t *testing.T) {
		var a, b, c uint8
		if n, err := fmt.Sscanf(server.DefaultVersion+" ", "%d.%d.%d ", &a, &b, &c); n != 3 || err != nil {
			t.Errorf("%q: libmemcached refuses that: %v", server.DefaultVersion, err)
		}
		dial(t, startServer(t)).ask("version\r\n", version)
	})
}

// both are a server of ours and the machine's memcached, if there is one.
func both(t *testing.T, opt func(*setup), memcachedArgs ...string) []string {
	t.Helper()
	addrs := []string{startServer(t, opt)}
	if oracle := startMemcached(t, memcachedArgs...); oracle != "" {
		addrs = append(addrs, oracle)
	}
	return addrs
}

// memcached 1.6.18 looks for a minus sign in whatever lies behind a value of 2^63 or more, and may find the rest of an older value; so it is not asked.
func TestCountsFrom2To63On(t *testing.T) {
	c := dial(t, startServer(t, func(o *setup) { o.server.Threads = 1 }))
	for range 100 { // chunks that a number is going to lie in have minus signs behind it
		c.ask("set a 0 0 24\r\n------------------------\r\ndelete a\r\n", stored+"DELETED\r\n")
	}
	for _, r := range []struct{ value, line, want string }{
		{"9223372036854775807", "incr a 1", "9223372036854775808"},
		{"9223372036854775808", "incr a 1", "9223372036854775809"},
		{"18446744073709551614", "incr a 1", "18446744073709551615"},
		{"18446744073709551615", "incr a 1", "0"},
		{"18446744073709551615", "incr a 18446744073709551615", "18446744073709551614"},
		{"18446744073709551615", "decr a 18446744073709551615", "0"},
		{"18446744073709551615", "decr a 1", "18446744073709551614"},
		{"18446744073709551616", "incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
		{"-9223372036854775808", "incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
		{"18446744073709551615 -", "incr a 1", "0"}, // what is behind a blank does not count
		{"18446744073709551615-", "incr a 1", "CLIENT_ERROR cannot increment or decrement non-numeric value"},
	} {
		for range 20 {
			c.ask(fmt.Sprintf("set a 0 0 %d\r\n%s\r\n%s\r\n", len(r.value), r.value, r.line), stored+r.want+"\r\n")
		}
	}
	c.ask("delete a\r\nma a N0 J18446744073709551615 v\r\nma a D1 v\r\nma a MD D1 v\r\n", "DELETED\r\nVA 20\r\n18446744073709551615\r\nVA 1\r\n0\r\nVA 1\r\n0\r\n")
}
