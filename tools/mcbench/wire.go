package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

type kind int

const (
	get kind = iota
	set
	del
)

// op is a request on its way.
type op struct {
	kind kind
	keys []uint64 // by number; one, unless it is a get of several
	next int      // the first of keys that no value was read for, nor for a later one
	ttl  int
	due  int64 // when it was to be sent, nanoseconds since the load began
}

// tally counts what came back.
type tally struct {
	Requests int64 `json:"requests"` // commands, however many keys they ask for
	Hits     int64 `json:"hits"`
	Misses   int64 `json:"misses"`
	Stored   int64 `json:"stored"`
	Refused  int64 `json:"refused"` // stores that the server did not take
	Deleted  int64 `json:"deleted"`
	NotFound int64 `json:"not_found"` // deletes of nothing
}

func (t *tally) add(u tally) {
	t.Requests += u.Requests
	t.Hits += u.Hits
	t.Misses += u.Misses
	t.Stored += u.Stored
	t.Refused += u.Refused
	t.Deleted += u.Deleted
	t.NotFound += u.NotFound
}

// wire is one of the protocols. Its words are written down here a second time, beside netproto's: who shares them with the server shares its mistakes.
type wire interface {
	// request appends o.
	request(dst []byte, o *op) []byte
	// reply reads what is whole of the reply to o at the front of in, and says how long that is and whether it was the end. It is called again with the rest.
	reply(in []byte, o *op, t *tally) (n int, done bool, err error)
}

func newWire(name string, data *data) (wire, error) {
	switch name {
	case "text":
		return &lines{data: data}, nil
	case "meta":
		return &lines{data: data, meta: true}, nil
	case "binary":
		return &packets{data: data}, nil
	}
	return nil, fmt.Errorf("mcbench: --protocol %q: want text, meta or binary", name)
}

// lines are the text protocol, or its meta commands.
type lines struct {
	*data
	meta bool
}

// maxReplyLine is more than any line of a reply takes.
const maxReplyLine = 2048

func (p *lines) request(dst []byte, o *op) []byte {
	key := p.key(o.keys[0])
	switch {
	case o.kind == get && !p.meta:
		dst = append(dst, "get"...)
		for _, k := range o.keys {
			dst = append(append(dst, ' '), p.key(k)...)
		}
		return append(dst, "\r\n"...)
	case o.kind == get && len(o.keys) == 1:
		return append(append(append(dst, "mg "...), key...), " v\r\n"...)
	case o.kind == get: // quiet ones tell hits only, mn ends them
		for _, k := range o.keys {
			dst = append(append(append(dst, "mg "...), p.key(k)...), " v k q\r\n"...)
		}
		return append(dst, "mn\r\n"...)
	case o.kind == del && p.meta:
		return append(append(append(dst, "md "...), key...), "\r\n"...)
	case o.kind == del:
		return append(append(append(dst, "delete "...), key...), "\r\n"...)
	}
	size := p.sizes(o.keys[0])
	if p.meta {
		dst = append(append(append(dst, "ms "...), key...), ' ')
		dst = strconv.AppendInt(dst, int64(size), 10)
		dst = strconv.AppendInt(append(dst, " T"...), int64(o.ttl), 10)
	} else {
		dst = append(append(append(dst, "set "...), key...), " 0 "...)
		dst = strconv.AppendInt(dst, int64(o.ttl), 10)
		dst = strconv.AppendInt(append(dst, ' '), int64(size), 10)
	}
	return append(appendValue(append(dst, "\r\n"...), key, size), "\r\n"...)
}

func (p *lines) reply(in []byte, o *op, t *tally) (n int, done bool, err error) {
	for {
		end := bytes.IndexByte(in[n:], '\n')
		if end < 0 {
			if len(in)-n > maxReplyLine {
				return n, false, fmt.Errorf("got %.40q..., want a line of at most %d bytes", in[n:], maxReplyLine)
			}
			return n, false, nil
		}
		line, body := bytes.TrimSuffix(in[n:n+end], []byte("\r")), n+end+1
		size, key, isValue := p.head(line, o)
		if !isValue {
			return body, true, p.end(line, o, t)
		}
		k, err := p.expect(o, key, size)
		if err != nil {
			return n, false, err
		}
		if len(in) < body+size+2 {
			return n, false, nil
		}
		if err := p.check(o, k, in[body:body+size], t); err != nil {
			return n, false, err
		}
		if got := in[body+size : body+size+2]; string(got) != "\r\n" {
			return n, false, fmt.Errorf("got %q behind the value of key %q, want a line end", got, p.key(k))
		}
		if n = body + size + 2; p.meta && len(o.keys) == 1 {
			return n, true, nil
		}
	}
}

// head takes the first line of a value apart: VALUE key flags size, or VA size kKEY.
func (p *lines) head(line []byte, o *op) (size int, key []byte, ok bool) {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	number := rest
	switch {
	case o.kind == get && !p.meta && string(word) == "VALUE":
		key, rest, _ = bytes.Cut(rest, []byte(" "))
		_, number, _ = bytes.Cut(rest, []byte(" "))
	case o.kind == get && p.meta && string(word) == "VA":
		number, rest, _ = bytes.Cut(rest, []byte(" "))
		key = bytes.TrimPrefix(rest, []byte("k"))
		if len(o.keys) == 1 {
			key = p.key(o.keys[0])
		}
	default:
		return 0, nil, false
	}
	size, err := strconv.Atoi(string(number))
	return size, key, err == nil && size >= 0
}

// end counts the line that ends a reply.
func (p *lines) end(line []byte, o *op, t *tally) error {
	word := string(line)
	if p.meta {
		word = map[string]string{"EN": "END", "MN": "END", "HD": "STORED", "NS": "NOT_STORED", "NF": "NOT_FOUND"}[word]
		if o.kind == del && word == "STORED" {
			word = "DELETED"
		}
	}
	switch {
	case o.kind == get && word == "END":
		t.Misses += int64(len(o.keys) - o.next)
	case o.kind == set && word == "STORED":
		t.Stored++
	case o.kind == set && (word == "NOT_STORED" || bytes.HasPrefix(line, []byte("SERVER_ERROR "))):
		t.Refused++
	case o.kind == del && word == "DELETED":
		t.Deleted++
	case o.kind == del && word == "NOT_FOUND":
		t.NotFound++
	default:
		return fmt.Errorf("got %q as the answer to a %v", line, o.kind)
	}
	return nil
}

func (k kind) String() string { return [...]string{"get", "set", "delete"}[k] }

// packets are the binary protocol.
type packets struct{ *data }

const (
	binGet, binSet, binDelete, binGetQ, binNoop = 0x00, 0x01, 0x04, 0x09, 0x0a

	binHeader              = 24 // bytes
	binOK, binNoKey        = 0, 1
	binTooLarge, binNotNow = 3, 5
	binNoMemory            = 0x82
)

// header appends one for a body that follows.
func header(dst []byte, opcode byte, key, extras, value int, opaque uint32) []byte {
	dst = append(dst, 0x80, opcode)
	dst = binary.BigEndian.AppendUint16(dst, uint16(key))
	dst = append(dst, byte(extras), 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(extras+key+value))
	dst = binary.BigEndian.AppendUint32(dst, opaque)
	return binary.BigEndian.AppendUint64(dst, 0)
}

func (p *packets) request(dst []byte, o *op) []byte {
	key := p.key(o.keys[0])
	switch {
	case o.kind == get && len(o.keys) == 1:
		return append(header(dst, binGet, len(key), 0, 0, 0), key...)
	case o.kind == get: // quiet ones tell hits only, a noop ends them
		for i, k := range o.keys {
			key = p.key(k)
			dst = append(header(dst, binGetQ, len(key), 0, 0, uint32(i)), key...)
		}
		return header(dst, binNoop, 0, 0, 0, uint32(len(o.keys)))
	case o.kind == del:
		return append(header(dst, binDelete, len(key), 0, 0, 0), key...)
	}
	size := p.sizes(o.keys[0])
	dst = header(dst, binSet, len(key), 8, size, 0)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(o.ttl))
	return appendValue(append(dst, key...), key, size)
}

func (p *packets) reply(in []byte, o *op, t *tally) (n int, done bool, err error) {
	for {
		if len(in)-n < binHeader {
			return n, false, nil
		}
		h := in[n : n+binHeader]
		opcode, keyLen, extras := h[1], int(binary.BigEndian.Uint16(h[2:])), int(h[4])
		status, length, opaque := binary.BigEndian.Uint16(h[6:]), int(binary.BigEndian.Uint32(h[8:])), binary.BigEndian.Uint32(h[12:])
		size := length - keyLen - extras
		if h[0] != 0x81 || size < 0 || int(opaque) > len(o.keys) {
			return n, false, fmt.Errorf("got the header % x as the answer to a %v", h, o.kind)
		}
		isValue := o.kind == get && status == binOK && opcode != binNoop
		if isValue {
			if int(opaque) < o.next || int(opaque) == len(o.keys) {
				return n, false, fmt.Errorf("got the opaque %d, want one of %d to %d", opaque, o.next, len(o.keys)-1)
			}
			if want := p.sizes(o.keys[opaque]); size != want {
				return n, false, fmt.Errorf("wrong size under key %q: got %d bytes, want %d", p.key(o.keys[opaque]), size, want)
			}
		}
		if len(in)-n < binHeader+length {
			return n, false, nil
		}
		value := in[n+binHeader+keyLen+extras : n+binHeader+length]
		n += binHeader + length
		switch {
		case isValue:
			t.Misses += int64(int(opaque) - o.next)
			o.next = int(opaque)
			if err := p.check(o, o.keys[opaque], value, t); err != nil || len(o.keys) == 1 {
				return n, true, err
			}
			continue
		case o.kind == get && (opcode == binNoop && status == binOK || len(o.keys) == 1 && status == binNoKey):
			t.Misses += int64(len(o.keys) - o.next)
		case o.kind == set && status == binOK:
			t.Stored++
		case o.kind == set && (status == binTooLarge || status == binNotNow || status == binNoMemory):
			t.Refused++
		case o.kind == del && status == binOK:
			t.Deleted++
		case o.kind == del && status == binNoKey:
			t.NotFound++
		default:
			return n, true, fmt.Errorf("got opcode %#x, status %#x %q as the answer to a %v", opcode, status, value, o.kind)
		}
		return n, true, nil
	}
}
