package netproto

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
)

// The meta commands: mg, ms, md, ma, mn and me. All but mn have a key, ms has a length behind it, and the rest are flags, one letter each with its token
// right behind it. Every command takes every flag and ignores those that it has no use for.

const (
	// maxMetaWords is how many words a meta command may have, itself included.
	maxMetaWords = 20
	// maxOpaque is the longest opaque token.
	maxOpaque = 31
)

// Errors of meta commands, as whole lines. They are sent whether or not there is a q.
const (
	TooManyFlags      = "CLIENT_ERROR options flags are too long\r\n"
	DuplicateFlag     = "CLIENT_ERROR duplicate flag\r\n"
	InvalidFlag       = "CLIENT_ERROR invalid flag\r\n"
	InvalidOrDupFlag  = "CLIENT_ERROR invalid or duplicate flag\r\n" // ma says this for whatever is wrong with its flags
	BadToken          = "CLIENT_ERROR bad token in command line format\r\n"
	InvalidInitial    = "CLIENT_ERROR invalid numeric initial value\r\n"
	InvalidMetaDelta  = "CLIENT_ERROR invalid numeric delta value\r\n"
	BadBase64         = "CLIENT_ERROR error decoding key\r\n"
	OpaqueTooLong     = "CLIENT_ERROR opaque token too long\r\n"
	InvalidStoreMode  = "CLIENT_ERROR invalid mode for ms M token\r\n"
	InvalidNumberMode = "CLIENT_ERROR invalid mode for ma M token\r\n"
)

// Return codes of meta commands. Flags and CRLF follow.
const (
	MetaOK        = "HD"
	MetaMiss      = "EN" // of mg and me; flags follow a miss of mg only
	MetaNotFound  = "NF"
	MetaNotStored = "NS"
	MetaExists    = "EX"

	MetaNoop = "MN\r\n"
)

// Flag is one flag of a meta command.
type Flag struct {
	Letter byte
	Token  []byte // what stands behind the letter, often nothing
}

// MetaRequest is what only meta commands have. Where a flag is missing its field has the default.
type MetaRequest struct {
	KeyToken  []byte // the key as it was sent
	KeyBinary bool   // b: KeyToken is base64; Key lies in the Request, not in the input
	MetaFlags []Flag // all flags, in the order of the line, none twice
	Vivify    int64  // N: an exptime as the protocol has it
	Recache   int64  // R: likewise
	NewCAS    uint64 // E
	Initial   uint64 // J
	Mode      byte   // M: of ms one of S E A P R, default S; of ma I or D, default I; of others 0

	has     uint64 // a bit for each letter in MetaFlags
	flags   [maxMetaWords - 2]Flag
	decoded [(MaxKey + 3) / 4 * 3]byte
}

// Has tells whether a meta command has the flag.
func (m *MetaRequest) Has(letter byte) bool { return m.has&(1<<(letter-'A')) != 0 }

func (m *MetaRequest) reset() {
	m.KeyBinary, m.Vivify, m.Recache, m.NewCAS, m.Initial, m.Mode, m.has = false, 0, 0, 0, 0, 0, 0
}

// meta handles mg, ms, md and ma. With a usable length any other error of an ms drops the block, as with the classic commands.
func (r *Request) meta(v Verb, args []byte) {
	words := r.split(args)
	flags := 1
	if v == VerbMetaSet {
		flags = 2
	}
	if len(words) < flags {
		r.Reply = BadFormat
		return
	}
	size, drop := 0, int64(0)
	if v == VerbMetaSet {
		n, ok := parseSize(words[1])
		if !ok {
			r.Reply = BadFormat
			return
		}
		size, drop = n, int64(n)+2
	}
	key, exptime, delta := words[0], int64(0), uint64(1)
	reply := r.shape(key, words[flags:], len(words)+1)
	if reply == "" {
		r.Key, r.KeyToken, r.MetaFlags = key, key, r.MetaRequest.flags[:0]
		if reply = r.metaFlags(words[flags:], &exptime, &delta); reply != "" && v == VerbMetaArith {
			reply = InvalidOrDupFlag
		}
	} else if reply == TooManyFlags && v == VerbMetaArith {
		reply = InvalidOrDupFlag
	}
	if reply == "" {
		if reply = r.mode(v); reply == "" && r.Has('O') {
			for _, f := range r.MetaFlags {
				if f.Letter == 'O' && len(f.Token) > maxOpaque {
					reply = OpaqueTooLong
				}
			}
		}
	}
	if reply != "" {
		r.reset()
		r.Reply, r.Swallow = reply, drop
		return
	}
	r.Verb, r.Noreply, r.Size, r.Exptime, r.Delta = v, r.Has('q'), size, exptime, delta
}

// shape is the errors of a line that are found before its flags are read.
func (r *Request) shape(key []byte, flags [][]byte, words int) (reply string) {
	for _, f := range flags {
		if c := f[0]; !(c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z') {
			return BadFormat
		}
	}
	switch {
	case len(key) > MaxKey:
		return BadFormat
	case words > maxMetaWords:
		return TooManyFlags
	}
	return ""
}

// metaFlags reads the flags. An unknown or repeated one ends it; of other errors the last is told, but that of F only if there is no other.
func (r *Request) metaFlags(words [][]byte, exptime *int64, delta *uint64) (reply string) {
	ok := true
	failed := func(text string) {
		if !ok {
			reply = text
		}
	}
	for _, w := range words {
		f := Flag{w[0], w[1:]}
		bit := uint64(1) << (f.Letter - 'A') // 0 for a digit, which is no flag
		if r.has&bit != 0 {
			return DuplicateFlag
		}
		r.has |= bit
		r.MetaFlags = append(r.MetaFlags, f)
		switch f.Letter {
		case 'c', 'f', 'h', 'k', 'l', 'q', 's', 't', 'u', 'v', 'x', 'I', 'L', 'M', 'O', 'P':
		case 'b':
			ok = r.decodeKey()
			failed(BadBase64)
		case 'N':
			r.Vivify, ok = parseInt32(f.Token)
			failed(BadToken)
		case 'T':
			*exptime, ok = parseInt32(f.Token)
			failed(BadToken)
		case 'R':
			r.Recache, ok = parseInt32(f.Token)
			failed(BadToken)
		case 'C':
			r.CAS, ok = parseUint(f.Token)
			failed(BadToken)
		case 'E':
			r.NewCAS, ok = parseUint(f.Token)
			failed(BadToken)
		case 'J':
			r.Initial, ok = parseUint(f.Token)
			failed(InvalidInitial)
		case 'D':
			*delta, ok = parseUint(f.Token)
			failed(InvalidMetaDelta)
		case 'F':
			n, ok := parseUint(f.Token)
			if r.Flags = uint32(n); (!ok || n > math.MaxUint32) && reply == "" {
				reply = BadFormat
			}
		default:
			return InvalidFlag
		}
	}
	return reply
}

// decodeKey reads the key as base64 with padding, which may have any bits where the last ones are unused, as in memcached. Unlike Go's decoder it takes
// no line ends.
func (r *Request) decodeKey() bool {
	r.KeyBinary = true
	if bytes.IndexByte(r.KeyToken, '\r') >= 0 {
		return false
	}
	n, err := base64.StdEncoding.Decode(r.decoded[:], r.KeyToken)
	r.Key = r.decoded[:n:n]
	return err == nil && n > 0
}

// mode reads the token of M, of which only the first character counts.
func (r *Request) mode(v Verb) (reply string) {
	token := byte(0)
	for _, f := range r.MetaFlags {
		if f.Letter == 'M' && len(f.Token) > 0 {
			token = f.Token[0]
		}
	}
	switch v {
	case VerbMetaSet:
		switch {
		case !r.Has('M'):
			token = 'S'
		case bytes.IndexByte([]byte("SEAPR"), token) < 0:
			return InvalidStoreMode
		}
		r.Mode = token
	case VerbMetaArith:
		switch {
		case !r.Has('M') || token == 'I' || token == '+':
			r.Mode = 'I'
		case token == 'D' || token == '-':
			r.Mode = 'D'
		default:
			return InvalidNumberMode
		}
	}
	return ""
}

// metaDebug handles me. Its b is a word, not a flag, and must be the first behind the key; all else is ignored. memcached decodes only if yet another word
// follows, which its documentation does not ask for; here b is enough.
func (r *Request) metaDebug(args []byte) {
	key, args := word(args)
	second, _ := word(args)
	if len(key) == 0 || len(key) > MaxKey {
		r.Reply = BadFormat
		return
	}
	r.Key, r.KeyToken, r.MetaFlags = key, key, r.MetaRequest.flags[:0]
	if string(second) == "b" && !r.decodeKey() {
		r.KeyBinary, r.Reply = false, BadFormat
		return
	}
	r.Verb = VerbMetaDebug
}

// AppendMetaValue appends the code of a reply with a value of so many bytes. Flags, CRLF, the value and CRLF follow.
func AppendMetaValue(dst []byte, size int) []byte {
	return appendNumber(append(dst, "VA "...), uint64(size))
}

// AppendMetaNumber is AppendMetaValue for a number, which AppendNumber appends behind the flags and CRLF.
func AppendMetaNumber(dst []byte, n uint64) []byte {
	digits := 1
	for ; n >= 10; n /= 10 {
		digits++
	}
	return AppendMetaValue(dst, digits)
}

// AppendFlag appends a flag without token to a reply, or with the token that was sent.
func AppendFlag(dst []byte, letter byte, token []byte) []byte {
	return append(append(dst, ' ', letter), token...)
}

// AppendFlagUint appends a flag with a number.
func AppendFlagUint(dst []byte, letter byte, n uint64) []byte {
	return appendNumber(append(dst, ' ', letter), n)
}

// AppendFlagTTL appends the TTL flag, for an item that expires at that time; 0: never, which is -1 there.
func AppendFlagTTL(dst []byte, exptime, now uint32) []byte {
	return strconv.AppendInt(append(dst, " t"...), ttl(exptime, now), 10)
}

// AppendFlagKey appends a key as flag. A binary one is encoded and followed by a b.
func AppendFlagKey(dst, key []byte, binary bool) []byte {
	dst = append(dst, " k"...)
	if !binary {
		return append(dst, key...)
	}
	return append(base64.StdEncoding.AppendEncode(dst, key), " b"...)
}

// AppendFlagKeyToken appends the key as flag as the request has it.
func AppendFlagKeyToken(dst, token []byte, binary bool) []byte {
	dst = append(append(dst, " k"...), token...)
	if binary {
		dst = append(dst, " b"...)
	}
	return dst
}

// Debug is what me tells of an item. Key is as the request has it.
type Debug struct {
	Key          []byte
	Exptime, Now uint32
	Age          uint32
	CAS          uint64
	Fetched      bool
	Class, Size  int
}

// AppendDebug appends the answer to me.
func AppendDebug(dst []byte, d *Debug) []byte {
	dst = append(append(dst, "ME "...), d.Key...)
	dst = strconv.AppendInt(append(dst, " exp="...), ttl(d.Exptime, d.Now), 10)
	dst = strconv.AppendUint(append(dst, " la="...), uint64(d.Age), 10)
	dst = strconv.AppendUint(append(dst, " cas="...), d.CAS, 10)
	fetched := " fetch=no cls="
	if d.Fetched {
		fetched = " fetch=yes cls="
	}
	dst = strconv.AppendInt(append(dst, fetched...), int64(d.Class), 10)
	dst = strconv.AppendInt(append(dst, " size="...), int64(d.Size), 10)
	return append(dst, CRLF...)
}

// ttl is the seconds left, -1 for good. An item that was given an exptime in the past has none left; memcached shows a wrapped number there.
func ttl(exptime, now uint32) int64 {
	if exptime == 0 {
		return -1
	}
	return max(int64(exptime)-int64(now), 0)
}
