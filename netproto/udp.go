package netproto

import "encoding/binary"

// Datagrams begin with a frame of four 16-bit numbers: request id, sequence number, datagrams of the message, and zero. A reply has the
// id of its request.

const (
	// UDPDatagram is the longest datagram of a reply, which fits an Ethernet frame.
	UDPDatagram = 1400
	// udpHeader is the length of the frame.
	udpHeader = 8
)

// ParseUDP takes the frame off a datagram. Not ok are those that hold no request, or only a part of one: nobody puts parts together.
//
// Nor is what could be a reply. A sender's address is easily forged, and an answer to an ERROR is an ERROR: one datagram would keep two servers
// busy with each other for good. memcached does answer.
func ParseUDP(datagram []byte) (id uint16, request []byte, ok bool) {
	if len(datagram) <= udpHeader || binary.BigEndian.Uint16(datagram[4:]) != 1 || startsReply(datagram[udpHeader]) {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(datagram), datagram[udpHeader:], true
}

// startsReply tells whether replies begin with b, and so no request does: commands are in lower case, replies to them words in upper case or numbers. Lines of a
// dump are neither, but the answer to one is.
func startsReply(b byte) bool {
	return b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == binaryReplyMagic
}

// UDPDatagrams is how many datagrams a reply of size bytes takes.
func UDPDatagrams(size int) int {
	const payload = UDPDatagram - udpHeader
	return (size + payload - 1) / payload
}

// AppendUDPHeader appends the frame of a reply's datagram number seq, from 0.
func AppendUDPHeader(dst []byte, id, seq, total uint16) []byte {
	for _, v := range [...]uint16{id, seq, total, 0} {
		dst = binary.BigEndian.AppendUint16(dst, v)
	}
	return dst
}
