package server

import (
	"bytes"

	"hearth"
	"hearth/netproto"
)

// Protocol is what a connection speaks, for all its life.
type Protocol uint8

const (
	ProtocolAuto   Protocol = iota // to be told by the connection's first byte
	ProtocolASCII                  // classic and meta commands
	ProtocolBinary                 // packets
)

// String is the name of `stats settings`.
func (p Protocol) String() string { return [...]string{"auto-negotiate", "ascii", "binary"}[p] }

// detect sets the protocol of a connection by its first byte.
func (c *conn) detect(first byte) {
	if c.protocol = ProtocolASCII; first == netproto.BinaryMagic {
		c.protocol = ProtocolBinary
	}
}

// binaryUpload is what an upload of the binary protocol has beside those of all protocols.
type binaryUpload struct {
	id     netproto.BinaryID
	mode   hearth.Mode           // of the store
	status netproto.BinaryStatus // of a block that is dropped; upload.reply is then its text, or empty for the status's own
}

// executeBinary serves w.bin, the one packet that was just parsed. A data block may go on after it: c.up says so.
func (w *worker) executeBinary(c *conn) {
	req := &w.bin
	c.used(w.srv.clock.Load())
	if w.verbose {
		w.srv.o.Logger.Debug("server: request", "fd", c.fd, "opcode", req.Opcode, "key", string(req.Key), "value", req.Size)
	}
	if req.Bad {
		w.refuseBinary(c)
		return
	}
	w.latency.seen[opKinds[req.Op]]++
	switch req.Op {
	case netproto.OpGet, netproto.OpGetK:
		w.logLookup(req.Key)
		w.getBinary(w.s.Get(req.Key, &w.item))
	case netproto.OpTouch, netproto.OpGat, netproto.OpGatK:
		w.logLookup(req.Key)
		w.getBinary(w.s.GetAndTouch(req.Key, int64(req.Exptime), &w.item))
	case netproto.OpSet:
		w.storeBinary(c, hearth.Set)
	case netproto.OpAdd:
		w.storeBinary(c, hearth.Add)
	case netproto.OpReplace:
		w.storeBinary(c, hearth.Replace)
	case netproto.OpAppend:
		w.storeBinary(c, hearth.Append)
	case netproto.OpPrepend:
		w.storeBinary(c, hearth.Prepend)
	case netproto.OpDelete:
		w.srv.prefixes.delete(req.Key)
		w.logLookup(req.Key)
		w.replyBinary(w.s.MetaDelete(req.Key, &hearth.DeleteOptions{HasCAS: req.CAS != 0, CAS: req.CAS}), 0)
	case netproto.OpIncr, netproto.OpDecr:
		w.countBinary()
	case netproto.OpFlush:
		if w.srv.o.DisableFlushAll {
			w.binaryError(netproto.BinaryAuth, "")
			return
		}
		w.s.FlushAll(int64(req.Exptime))
		w.replyBinary(hearth.OK, 0)
	case netproto.OpNoop:
		w.replyBinary(hearth.OK, 0)
		w.o.now = true
	case netproto.OpVersion:
		w.o.small = req.AppendVersion(w.o.small, w.srv.o.Version)
	case netproto.OpStat:
		w.statsBinary(c)
	case netproto.OpQuit:
		w.replyBinary(hearth.OK, 0)
		c.closing, c.reason = true, netproto.LogCloseNormal
	default:
		if w.srv.o.SASL != nil {
			w.executeSASL(c)
			return
		}
		w.dropBinary(c, netproto.BinaryUnknown, "")
	}
}

// refuseBinary does what there is to do about a bad packet.
func (w *worker) refuseBinary(c *conn) {
	req := &w.bin
	if !req.Close {
		w.dropBinary(c, req.Status, "")
		return
	}
	if c.closing = true; req.Status != netproto.BinaryOK {
		w.binaryError(req.Status, "")
	}
}

// dropBinary drops the value of w.bin and answers with an error then.
func (w *worker) dropBinary(c *conn, st netproto.BinaryStatus, text string) {
	c.up.bin = binaryUpload{id: w.bin.BinaryID, status: st}
	w.dropBlock(c, int64(w.bin.Size), text)
}

// binaryError answers w.bin with an error, which no quiet form keeps back.
func (w *worker) binaryError(st netproto.BinaryStatus, text string) {
	w.o.small = w.bin.AppendError(w.o.small, st, text)
}

// replyBinary answers w.bin where success has no body.
func (w *worker) replyBinary(st hearth.Status, cas uint64) {
	switch {
	case st != hearth.OK:
		w.binaryError(binaryStatus(st), "")
	case !w.bin.Quiet:
		w.o.small = w.bin.AppendOK(w.o.small, cas)
	}
}

func binaryStatus(st hearth.Status) netproto.BinaryStatus {
	switch st {
	case hearth.OK:
		return netproto.BinaryOK
	case hearth.Exists:
		return netproto.BinaryExists
	case hearth.NotStored:
		return netproto.BinaryNotStored
	case hearth.TooLarge:
		return netproto.BinaryTooLarge
	case hearth.NoMemory:
		return netproto.BinaryNoMemory
	case hearth.NonNumeric:
		return netproto.BinaryNonNumeric
	default:
		return netproto.BinaryNotFound
	}
}

// getBinary answers get and touch packets. Hits are told by the quiet forms too, misses are not.
func (w *worker) getBinary(st hearth.Status) {
	req, it := &w.bin, &w.item
	w.srv.prefixes.get(req.Key, st == hearth.OK)
	var key []byte
	if req.Op == netproto.OpGetK || req.Op == netproto.OpGatK {
		key = req.Key
	}
	switch {
	case st == hearth.Miss && req.Quiet:
	case st == hearth.Miss && key != nil:
		w.o.small = req.AppendMiss(w.o.small, key)
	case st != hearth.OK:
		w.binaryError(binaryStatus(st), "")
	case req.Op == netproto.OpTouch:
		w.o.small = req.AppendValue(w.o.small, nil, it.Flags, it.CAS, 0)
	default:
		w.o.small = req.AppendValue(w.o.small, key, it.Flags, it.CAS, it.Len())
		w.o.value(it)
	}
}

func (w *worker) countBinary() {
	req := &w.bin
	o := hearth.ArithOptions{
		Delta: req.Delta, Decr: req.Op == netproto.OpDecr, HasCAS: req.CAS != 0, CAS: req.CAS,
		Vivify: req.Exptime != netproto.NoCreate, VivifyExptime: int64(req.Exptime), Initial: req.Initial,
	}
	n, st := w.count(req.Key, &o, &w.item)
	switch {
	case st == hearth.NoMemory:
		w.binaryError(netproto.BinaryNoMemory, netproto.NoMemoryNumberText)
	case st != hearth.OK:
		w.binaryError(binaryStatus(st), "")
	case !req.Quiet:
		w.o.small = req.AppendNumber(w.o.small, n, w.item.CAS)
	}
}

// storeBinary starts the upload of w.bin's value.
func (w *worker) storeBinary(c *conn, mode hearth.Mode) {
	req, up := &w.bin, &c.up
	w.srv.prefixes.set(req.Key)
	switch w.prepareLogged(&up.draft, mode, netproto.LogNoCommand, req.Key, req.Flags, int64(req.Exptime), req.Size) {
	case hearth.OK:
	case hearth.TooLarge:
		w.dropBinary(c, netproto.BinaryTooLarge, "")
		return
	default:
		w.dropBinary(c, netproto.BinaryNoMemory, netproto.NoMemoryItemText)
		return
	}
	w.beginUpload(c, req.Size, req.CAS, req.Quiet)
	if up.cas != 0 && w.srv.cache.Options().NoCAS { // then memcached does not see that there is one
		up.cas = 0
	}
	if up.cas != 0 && mode <= hearth.Replace {
		mode = hearth.CAS // add with a CAS too fails where there is no item
	}
	up.bin = binaryUpload{id: req.BinaryID, mode: mode}
	up.ntail, up.tail = int8(len(up.tail)), [2]byte{} // nothing comes behind the value
}

// finishBinaryUpload stores the complete value.
func (w *worker) finishBinaryUpload(c *conn) {
	up := &c.up
	up.kind = uploadNone
	cas, st := w.commit(up, &hearth.StoreOptions{Mode: up.bin.mode, CAS: up.cas})
	switch reply := binaryStatus(st); {
	case st == hearth.OK && up.noreply:
	case st == hearth.OK:
		w.o.small = up.bin.id.AppendOK(w.o.small, cas)
	default:
		if st == hearth.NotStored && up.bin.mode == hearth.Add {
			reply = netproto.BinaryExists
		} else if st == hearth.NotStored && up.bin.mode == hearth.Replace {
			reply = netproto.BinaryNotFound
		}
		w.o.small = up.bin.id.AppendError(w.o.small, reply, "")
	}
}

// statsBinary answers stat, a packet for each row and an empty one behind them. The key holds the words of the text protocol's command.
func (w *worker) statsBinary(c *conn) {
	req, s := &w.bin, w.srv
	l := lister{dst: w.o.small, row: req.AppendStat}
	w.s.Publish()
	switch args := bytes.Fields(req.Key); {
	case s.listStats(&l, c, subCommand(args)):
	case string(args[0]) == "reset":
		s.resetStats()
	case string(args[0]) == "detail" && s.o.DisableDumping:
		w.binaryError(netproto.BinaryAuth, "")
		return
	case len(args) > 1 && string(args[0]) == "detail" && (string(args[1]) == "on" || string(args[1]) == "off"):
		s.prefixes.on.Store(string(args[1]) == "on")
	case len(args) > 1 && string(args[0]) == "detail" && string(args[1]) == "dump":
		l.bytes(netproto.BinaryDetailName, s.prefixes.dump(nil))
	default:
		w.binaryError(netproto.BinaryNotFound, "")
		return
	}
	l.bytes("", nil)
	w.o.small = l.dst
}
