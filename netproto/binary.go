package netproto

import "encoding/binary"

// The binary protocol. A packet is a header of 24 bytes, then extras, key and value; all numbers are big-endian:
//
//	        0        1          2..3      4       5          6..7      8..11   12..15   16..23
//	request 0x80     opcode     key len   extras  data type  vbucket   body    opaque   CAS
//	reply   0x81     opcode     key len   extras  data type  status    body    opaque   CAS
//
// The body's length counts extras, key and value. Opcode and opaque of a reply are those of its request. Data type and vbucket are not looked at.

const (
	// BinaryMagic is the first byte of a request: a connection that starts with it speaks the binary protocol.
	BinaryMagic = 0x80

	binaryReplyMagic = 0x81
	binaryHeader     = 24
	// maxBody is the longest body that can be announced.
	maxBody = 1 << 30
	// MaxBinaryRequest is the most that ParseBinary needs in one piece: what is longer, it judges by the header.
	MaxBinaryRequest = binaryHeader + 20 + MaxKey
	// NoCreate is the Exptime with which incr and decr do not make an item that is missing.
	NoCreate = 1<<32 - 1
)

// Opcode is what a binary request asks for.
type Opcode uint8

const (
	OpGet           Opcode = 0x00
	OpSet           Opcode = 0x01
	OpAdd           Opcode = 0x02
	OpReplace       Opcode = 0x03
	OpDelete        Opcode = 0x04
	OpIncr          Opcode = 0x05
	OpDecr          Opcode = 0x06
	OpQuit          Opcode = 0x07
	OpFlush         Opcode = 0x08
	OpGetQ          Opcode = 0x09
	OpNoop          Opcode = 0x0a
	OpVersion       Opcode = 0x0b
	OpGetK          Opcode = 0x0c
	OpGetKQ         Opcode = 0x0d
	OpAppend        Opcode = 0x0e
	OpPrepend       Opcode = 0x0f
	OpStat          Opcode = 0x10
	OpSetQ          Opcode = 0x11
	OpAddQ          Opcode = 0x12
	OpReplaceQ      Opcode = 0x13
	OpDeleteQ       Opcode = 0x14
	OpIncrQ         Opcode = 0x15
	OpDecrQ         Opcode = 0x16
	OpQuitQ         Opcode = 0x17
	OpFlushQ        Opcode = 0x18
	OpAppendQ       Opcode = 0x19
	OpPrependQ      Opcode = 0x1a
	OpTouch         Opcode = 0x1c
	OpGat           Opcode = 0x1d
	OpGatQ          Opcode = 0x1e
	OpSASLListMechs Opcode = 0x20
	OpSASLAuth      Opcode = 0x21
	OpSASLStep      Opcode = 0x22
	OpGatK          Opcode = 0x23
	OpGatKQ         Opcode = 0x24
)

// BinaryStatus is the outcome in a reply.
type BinaryStatus uint16

const (
	BinaryOK         BinaryStatus = 0x00
	BinaryNotFound   BinaryStatus = 0x01
	BinaryExists     BinaryStatus = 0x02
	BinaryTooLarge   BinaryStatus = 0x03
	BinaryInvalid    BinaryStatus = 0x04
	BinaryNotStored  BinaryStatus = 0x05
	BinaryNonNumeric BinaryStatus = 0x06
	BinaryAuth       BinaryStatus = 0x20
	BinaryUnknown    BinaryStatus = 0x81
	BinaryNoMemory   BinaryStatus = 0x82
)

// Texts that go with BinaryNoMemory in place of its own.
const (
	NoMemoryItemText   = "Out of memory allocating item"    // no room for the item's first chunk
	NoMemoryReadText   = "Out of memory during read"        // no room for a later chunk
	NoMemoryNumberText = "Out of memory incrementing value" // incr, decr
	BinaryDetailName   = "detailed"                         // the name under which stats detail dump comes
)

// Text is the body of a reply with this status.
func (s BinaryStatus) Text() string {
	switch s {
	case BinaryNotFound:
		return "Not found"
	case BinaryExists:
		return "Data exists for key."
	case BinaryTooLarge:
		return "Too large."
	case BinaryInvalid:
		return "Invalid arguments"
	case BinaryNotStored:
		return "Not stored."
	case BinaryNonNumeric:
		return "Non-numeric server-side value for incr or decr"
	case BinaryAuth:
		return "Auth failure."
	case BinaryUnknown:
		return "Unknown command"
	case BinaryNoMemory:
		return "Out of memory"
	}
	return ""
}

// BinaryRequest is one parsed packet, its value apart. Fields that the opcode has no use for are zero.
type BinaryRequest struct {
	BinaryID
	Op      Opcode // as in BinaryID, but a quiet one is given as the one it is the quiet form of
	Quiet   bool   // success is not answered, nor is the miss of a get
	Bad     bool   // cannot be served: drop Size bytes, answer Status, or nothing if that is BinaryOK, and Close
	Close   bool   // bad requests: close the connection when Status is sent
	Status  BinaryStatus
	CAS     uint64
	Key     []byte // at most MaxKey bytes; none only where Op takes none, and for stat
	Flags   uint32 // set, add, replace: the client's flags
	Exptime uint32 // set, add, replace, incr, decr, touch, gat, flush: unsigned, unlike in the text protocol
	Delta   uint64 // incr, decr
	Initial uint64 // incr, decr: of an item that is made
	Size    int    // bytes of the value that follows
}

// binaryShape is what a packet of an opcode must look like.
type binaryShape struct {
	op    Opcode // its loud form
	known bool
	quiet bool
	ext   uint8 // bytes of extras; flush may leave them out
	key   binaryPart
	value bool // may have one
}

type binaryPart uint8

const (
	noKey binaryPart = iota
	needsKey
	mayHaveKey
)

var binaryShapes = func() (all [256]binaryShape) {
	loud := func(s binaryShape, ops ...Opcode) {
		for _, op := range ops {
			s.op, s.known = op, true
			all[op] = s
		}
	}
	loud(binaryShape{}, OpNoop, OpVersion, OpQuit, OpSASLListMechs)
	loud(binaryShape{ext: 4}, OpFlush)
	loud(binaryShape{key: mayHaveKey}, OpStat)
	loud(binaryShape{key: needsKey}, OpGet, OpGetK, OpDelete)
	loud(binaryShape{key: needsKey, value: true}, OpAppend, OpPrepend, OpSASLAuth, OpSASLStep)
	loud(binaryShape{key: needsKey, value: true, ext: 8}, OpSet, OpAdd, OpReplace)
	loud(binaryShape{key: needsKey, ext: 20}, OpIncr, OpDecr)
	loud(binaryShape{key: needsKey, ext: 4}, OpTouch, OpGat, OpGatK)
	for _, p := range [][2]Opcode{{OpGetQ, OpGet}, {OpGetKQ, OpGetK}, {OpSetQ, OpSet}, {OpAddQ, OpAdd}, {OpReplaceQ, OpReplace}, {OpDeleteQ, OpDelete},
		{OpIncrQ, OpIncr}, {OpDecrQ, OpDecr}, {OpQuitQ, OpQuit}, {OpFlushQ, OpFlush}, {OpAppendQ, OpAppend}, {OpPrependQ, OpPrepend},
		{OpGatQ, OpGat}, {OpGatKQ, OpGatK}} {
		all[p[0]] = all[p[1]]
		all[p[0]].quiet = true
	}
	return all
}()

// ParseBinary reads the packet at the start of buf into req, all but its value, and returns how many bytes it took. 0 means that more are
// needed. Where the value starts, its Size bytes follow in the input, and nothing behind it.
//
// A packet that is judged by its header alone, because it is bad, is not waited for: only the header is taken. Two shapes are refused here
// that memcached lets through, namely a value behind touch, gat and stat: it would take the value for the next packet.
func ParseBinary(buf []byte, req *BinaryRequest) (n int) {
	if len(buf) < binaryHeader {
		return 0
	}
	h := buf[:binaryHeader]
	keyLen, extLen, body := int(binary.BigEndian.Uint16(h[2:])), int(h[4]), int64(binary.BigEndian.Uint32(h[8:]))
	shape := &binaryShapes[h[1]]
	*req = BinaryRequest{
		BinaryID: BinaryID{Opcode: Opcode(h[1]), Opaque: [4]byte(h[12:16])},
		Op:       shape.op, Quiet: shape.quiet, CAS: binary.BigEndian.Uint64(h[16:]),
	}
	value := body - int64(keyLen+extLen)
	switch {
	case h[0] != BinaryMagic:
		req.refuse(BinaryOK)
		return binaryHeader
	case value < 0:
		req.refuse(BinaryUnknown)
		return binaryHeader
	case body > maxBody || keyLen > MaxKey:
		req.refuse(BinaryInvalid)
		return binaryHeader
	case !shape.known:
		req.Bad, req.Status, req.Size = true, BinaryUnknown, int(body)
		return binaryHeader
	case !shape.fits(extLen, keyLen, value):
		req.refuse(BinaryInvalid)
		return binaryHeader
	}
	n = binaryHeader + extLen + keyLen
	if len(buf) < n {
		return 0
	}
	ext := buf[binaryHeader : binaryHeader+extLen]
	req.Key, req.Size = buf[n-keyLen:n:n], int(value)
	switch extLen {
	case 4:
		req.Exptime = binary.BigEndian.Uint32(ext)
	case 8:
		req.Flags, req.Exptime = binary.BigEndian.Uint32(ext), binary.BigEndian.Uint32(ext[4:])
	case 20:
		req.Delta, req.Initial, req.Exptime = binary.BigEndian.Uint64(ext), binary.BigEndian.Uint64(ext[8:]), binary.BigEndian.Uint32(ext[16:])
	}
	return n
}

func (s *binaryShape) fits(ext, key int, value int64) bool {
	return (ext == int(s.ext) || ext == 0 && s.op == OpFlush) &&
		(s.key == mayHaveKey || (key > 0) == (s.key == needsKey)) && (value == 0 || s.value)
}

// refuse makes r a bad request that ends the connection: what follows it cannot be trusted to be a packet.
func (r *BinaryRequest) refuse(st BinaryStatus) { r.Bad, r.Close, r.Status = true, true, st }

// BinaryID is what a reply repeats of its request.
type BinaryID struct {
	Opcode Opcode // as it was sent
	Opaque [4]byte
}

// appendHeader appends the header of a reply whose extras, key and value have these lengths.
func (id BinaryID) appendHeader(dst []byte, st BinaryStatus, cas uint64, ext, key, value int) []byte {
	dst = append(dst, binaryReplyMagic, byte(id.Opcode), byte(key>>8), byte(key), byte(ext), 0, byte(st>>8), byte(st))
	dst = binary.BigEndian.AppendUint32(dst, uint32(ext+key+value))
	dst = append(dst, id.Opaque[:]...)
	return binary.BigEndian.AppendUint64(dst, cas)
}

// AppendOK appends a reply without a body.
func (id BinaryID) AppendOK(dst []byte, cas uint64) []byte {
	return id.appendHeader(dst, BinaryOK, cas, 0, 0, 0)
}

// AppendError appends a reply with its status's text, or with another one.
func (id BinaryID) AppendError(dst []byte, st BinaryStatus, text string) []byte {
	if text == "" {
		text = st.Text()
	}
	return append(id.appendHeader(dst, st, 0, 0, 0, len(text)), text...)
}

// AppendMiss appends the reply to a get that is to return the key, which stands in the place of the status's text.
func (id BinaryID) AppendMiss(dst, key []byte) []byte {
	return append(id.appendHeader(dst, BinaryNotFound, 0, 0, len(key), 0), key...)
}

// AppendValue appends what is before a value, the flags and if it is not empty the key. size bytes of value follow.
func (id BinaryID) AppendValue(dst, key []byte, flags uint32, cas uint64, size int) []byte {
	dst = id.appendHeader(dst, BinaryOK, cas, 4, len(key), size)
	return append(binary.BigEndian.AppendUint32(dst, flags), key...)
}

// AppendNumber appends the new number after incr and decr.
func (id BinaryID) AppendNumber(dst []byte, n, cas uint64) []byte {
	return binary.BigEndian.AppendUint64(id.appendHeader(dst, BinaryOK, cas, 0, 0, 8), n)
}

// AppendVersion appends the answer to version.
func (id BinaryID) AppendVersion(dst []byte, version string) []byte {
	return append(id.appendHeader(dst, BinaryOK, 0, 0, 0, len(version)), version...)
}

// AppendStat appends one packet of stats. One without a name ends them.
func (id BinaryID) AppendStat(dst []byte, name string, value []byte) []byte {
	dst = append(id.appendHeader(dst, BinaryOK, 0, 0, len(name), len(value)), name...)
	return append(dst, value...)
}
