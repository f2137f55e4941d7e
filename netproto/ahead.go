package netproto

import (
	"bytes"
	"encoding/binary"
)

// Ahead appends to keys, up to its capacity, the keys that the whole lines at the start of buf are about, in their order. It is a guess by the look of them,
// to know early which memory is going to be needed: what they are says Parse. It steps over data blocks.
func Ahead(keys [][]byte, buf []byte) [][]byte {
	for len(keys) < cap(keys) {
		end := bytes.IndexByte(buf, '\n')
		if end < 0 {
			break
		}
		line := bytes.TrimSuffix(buf[:end], []byte("\r"))
		buf = buf[end+1:]
		command := bytes.IndexByte(line, ' ')
		if command < 0 {
			continue
		}
		var key []byte
		args, several, sizeAt := line[command:], false, -1
		switch string(line[:command]) {
		case "get", "gets":
			several = true
		case "gat", "gats":
			_, args = word(args)
			several = true
		case "set", "add", "replace", "append", "prepend", "cas":
			sizeAt = 2 // words behind the key
		case "ms":
			sizeAt = 0
		}
		for more := true; more && len(keys) < cap(keys); more = several {
			if key, args = word(args); len(key) == 0 {
				break
			}
			keys = append(keys, key)
		}
		if sizeAt >= 0 {
			for range sizeAt {
				_, args = word(args)
			}
			size, _ := word(args)
			block := len(CRLF)
			for _, c := range size {
				if c -= '0'; c > 9 || block > len(buf) {
					return keys
				}
				block = (block-len(CRLF))*10 + int(c) + len(CRLF)
			}
			buf = buf[min(block, len(buf)):]
		}
	}
	return keys
}

// AheadBinary is Ahead for packets.
func AheadBinary(keys [][]byte, buf []byte) [][]byte {
	for len(keys) < cap(keys) && len(buf) >= binaryHeader && buf[0] == BinaryMagic {
		key, extras := int(binary.BigEndian.Uint16(buf[2:])), int(buf[4])
		length := binaryHeader + int(binary.BigEndian.Uint32(buf[8:]))
		from := binaryHeader + extras
		if from+key > min(length, len(buf)) {
			break
		}
		if key > 0 {
			keys = append(keys, buf[from:from+key])
		}
		buf = buf[min(length, len(buf)):]
	}
	return keys
}
