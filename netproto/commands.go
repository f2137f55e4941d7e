package netproto

import "bytes"

// One parser for each family of commands. Each is given what follows the command on its line and leaves VerbBad where it fails.
//
// A noreply that is the last word silences errors too, as soon as the line has all the words it needs; the word that must be the key is never
// one. Where several things are wrong the order of the checks decides what is dropped, so it is memcached's.

// get handles get and gets: all words are keys.
func (r *Request) get(v Verb, args []byte) {
	if isBlank(args) || !keysFit(args) {
		r.Reply = BadFormat
		return
	}
	r.Verb, r.Keys.rest = v, args
}

// gat handles gat and gats: an exptime, then keys. A noreply is a key like any other.
func (r *Request) gat(v Verb, args []byte) {
	exptime, keys := word(args)
	if isBlank(keys) {
		r.Reply = BadFormat
		return
	}
	e, ok := parseInt32(exptime)
	if !ok {
		r.Reply = InvalidExptime
		return
	}
	if !keysFit(keys) {
		r.Reply = BadFormat
		return
	}
	r.Verb, r.Exptime, r.Keys.rest = v, e, keys
}

// store handles the commands with a data block. Without a usable length nobody knows where the block ends, so it is read as commands; with
// one, any other error drops the block.
func (r *Request) store(v Verb, args []byte) {
	key, args := word(args)
	flags, args := word(args)
	exptime, args := word(args)
	size, args := word(args)
	last, seen := size, 5
	var cas []byte
	if v == VerbCas {
		cas, args = word(args)
		last, seen = cas, 6
	}
	if len(last) == 0 {
		r.Reply = BadFormat
		return
	}
	r.noreply(last, args, seen)
	n, ok := parseSize(size)
	if !ok {
		r.fail(BadFormat)
		return
	}
	f, okFlags := parseUint(flags)
	e, okExptime := parseInt(exptime)
	c, okCAS := uint64(0), true
	if v == VerbCas {
		c, okCAS = parseUint(cas)
	}
	if len(key) > MaxKey || !okFlags || !okExptime || !okCAS {
		r.fail(BadFormat)
		r.Swallow = int64(n) + 2
		return
	}
	// memcached keeps 32 bits of either number and drops the rest without a word; a far exptime may so become a past one.
	r.Verb, r.Key, r.Flags, r.Exptime, r.Size, r.CAS = v, key, uint32(f), int64(int32(e)), n, c
}

// delete takes a key; all other words but a noreply at the end are ignored (they once were a time).
func (r *Request) delete(args []byte) {
	key, args := word(args)
	if len(key) == 0 {
		r.Reply = BadFormat
		return
	}
	if r.noreply(nil, args, 2); len(key) > MaxKey {
		r.fail(BadFormat)
		return
	}
	r.Verb, r.Key = VerbDelete, key
}

// arith handles incr and decr.
func (r *Request) arith(v Verb, args []byte) {
	key, args := word(args)
	delta, args := word(args)
	if len(delta) == 0 {
		r.Reply = BadFormat
		return
	}
	if r.noreply(delta, args, 3); len(key) > MaxKey {
		r.fail(BadFormat)
		return
	}
	d, ok := parseUint(delta)
	if !ok {
		r.fail(InvalidDelta)
		return
	}
	r.Verb, r.Key, r.Delta = v, key, d
}

func (r *Request) touch(args []byte) {
	key, args := word(args)
	exptime, args := word(args)
	if len(exptime) == 0 {
		r.Reply = BadFormat
		return
	}
	if r.noreply(exptime, args, 3); len(key) > MaxKey {
		r.fail(BadFormat)
		return
	}
	e, ok := parseInt32(exptime)
	if !ok {
		r.fail(InvalidExptime)
		return
	}
	r.Verb, r.Key, r.Exptime = VerbTouch, key, e
}

// flushAll takes an optional exptime. Its words are counted before a noreply is looked for, unlike above.
func (r *Request) flushAll(args []byte) {
	words := r.split(args)
	if len(words) > 2 {
		r.Reply = Error
		return
	}
	exptime := int64(0)
	if r.cutNoreply(&words); len(words) > 0 {
		var ok bool
		if exptime, ok = parseInt32(words[0]); !ok {
			r.fail(InvalidExptime)
			return
		}
	}
	r.Verb, r.Exptime = VerbFlushAll, exptime
}

// verbosity takes a level, which is clamped. `verbosity noreply` is an error that nobody hears of.
func (r *Request) verbosity(args []byte) {
	words := r.split(args)
	switch {
	case len(words) == 0:
		r.Reply = BadFormat
		return
	case len(words) > 2:
		r.Reply = Error
		return
	}
	if r.cutNoreply(&words); len(words) == 0 {
		r.fail(BadFormat)
		return
	}
	level, ok := parseUint(words[0])
	if !ok {
		r.fail(BadFormat)
		return
	}
	r.Verb, r.Level = VerbVerbosity, int(min(uint32(level), MaxVerbosity))
}

func (r *Request) stats(args []byte) {
	words := r.split(args)
	r.cutNoreply(&words)
	r.Verb, r.Args = VerbStats, words
}

// shutdown keeps a lone noreply in Args as well: it stands where the mode does and must not stop the server.
func (r *Request) shutdown(args []byte) {
	words := r.split(args)
	if all := words; r.cutNoreply(&words) && len(words) == 0 {
		words = all
	}
	r.Verb, r.Args = VerbShutdown, words
}

// unknown answers ERROR, but hangs up on what looks like HTTP: a web page could make a browser POST commands in its body.
func (r *Request) unknown(line []byte) {
	if bytes.HasPrefix(lastWord(line, 0), []byte("HTTP/")) {
		r.Close = true
		return
	}
	r.Reply = Error
}

// fail gives a bad request its reply, unless there was a noreply.
func (r *Request) fail(reply string) {
	if !r.Noreply {
		r.Reply = reply
	}
	r.Noreply = false
}

// noreply sets Noreply when the last word of a line is one: last, if only spaces are in rest, which stands behind seen words.
func (r *Request) noreply(last, rest []byte, seen int) {
	if len(rest) > 0 {
		if w := lastWord(rest, seen); len(w) > 0 {
			last = w
		}
	}
	r.Noreply = string(last) == "noreply"
}

// cutNoreply sets Noreply when the last of words is one, and takes it off.
func (r *Request) cutNoreply(words *[][]byte) bool {
	if n := len(*words); n > 0 && string((*words)[n-1]) == "noreply" {
		r.Noreply, *words = true, (*words)[:n-1]
	}
	return r.Noreply
}

// split cuts args into words that lie in r.args.
func (r *Request) split(args []byte) [][]byte {
	words := r.args[:0]
	for len(words) < cap(words) {
		w, rest := word(args)
		if len(w) == 0 {
			break
		}
		words, args = append(words, w), rest
	}
	return words
}

// word returns the first word of s, empty when there is none, and what follows it.
func word(s []byte) (w, rest []byte) {
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	s = s[i:]
	if j := bytes.IndexByte(s, ' '); j >= 0 {
		return s[:j:j], s[j:]
	}
	return s, nil
}

// isBlank tells that s has no word.
func isBlank(s []byte) bool {
	for _, c := range s {
		if c != ' ' {
			return false
		}
	}
	return true
}

// lastWord returns the last word of s that is seen, when seen words of the line stand before s.
func lastWord(s []byte, seen int) (last []byte) {
	for ; seen < maxWords; seen++ {
		w, rest := word(s)
		if len(w) == 0 {
			break
		}
		last, s = w, rest
	}
	return last
}

// keysFit tells that no word of s is longer than MaxKey. It looks for the last space in each MaxKey+1 bytes, so it need not read them all: a
// key that is too long has no space in a window that starts at or before its first byte.
func keysFit(s []byte) bool {
	for len(s) > MaxKey {
		i := bytes.LastIndexByte(s[:MaxKey+1], ' ')
		if i < 0 {
			return false
		}
		s = s[i+1:]
	}
	return true
}

// mayGrow tells that an unfinished line is a get or gets, which may be longer than MaxLine. Blanks before it are passed over here, though
// they will make it an unknown command, as in memcached.
func mayGrow(line []byte) bool {
	const maxBlanks = 100
	line = line[:maxBlanks+1+len("gets ")]
	s := bytes.TrimLeft(line, " ")
	return len(line)-len(s) <= maxBlanks && (bytes.HasPrefix(s, []byte("get ")) || bytes.HasPrefix(s, []byte("gets ")))
}
