package server

import (
	"bytes"

	"hearth"
	"hearth/netproto"
)

// metaUpload is what the reply to an ms needs when its data block is there and its line is not any more. The worker keeps those that are done for the
// next: only connections in the middle of an ms have one.
type metaUpload struct {
	store   hearth.StoreOptions
	quiet   bool
	binary  bool
	size    int     // of the data block
	order   [4]byte // the flags to answer, in their order
	norder  int8
	nkey    uint8
	nopaque uint8
	key     [netproto.MaxKey]byte // as it was sent
	opaque  [32]byte
	next    *metaUpload // in the worker's list
}

// stash keeps what ms needs of w.req, whose parsed slices lie in the input.
func (w *worker) stash() *metaUpload {
	req, m := &w.req, w.metas
	if m == nil {
		m = new(metaUpload)
	}
	w.metas = m.next
	*m = metaUpload{quiet: req.Noreply, binary: req.KeyBinary, size: req.Size}
	m.nkey = uint8(copy(m.key[:], req.KeyToken))
	for _, f := range req.MetaFlags {
		switch f.Letter {
		case 'O':
			m.nopaque = uint8(copy(m.opaque[:], f.Token))
		case 'c', 'k', 's':
		default:
			continue
		}
		m.order[m.norder] = f.Letter
		m.norder++
	}
	m.store = hearth.StoreOptions{CAS: req.CAS, NewCAS: req.NewCAS, Vivify: req.Has('N'), VivifyExptime: req.Vivify}
	m.store.Mode = metaMode(req)
	m.store.Invalidate = m.store.Mode == hearth.CAS && req.Has('I')
	return m
}

// metaMode is the mode that an ms is committed in.
func metaMode(req *netproto.Request) hearth.Mode {
	switch {
	case req.Has('C') && (req.Mode == 'S' || req.Mode == 'R'):
		return hearth.CAS
	case req.Mode == 'E':
		return hearth.Add
	case req.Mode == 'A':
		return hearth.Append
	case req.Mode == 'P':
		return hearth.Prepend
	case req.Mode == 'R':
		return hearth.Replace
	}
	return hearth.Set
}

// metaSet starts the upload of an ms. It is prepared as a set whatever its mode: like memcached, an ms that is too large takes the old value away.
func (w *worker) metaSet(c *conn) {
	if !w.prepare(c, hearth.Set, logCommands[metaMode(&w.req)], false) { // errors are told in spite of q
		return
	}
	if w.req.KeyBinary {
		w.s.MarkKeyBinary(&c.up.draft)
	}
	c.up.meta = w.stash()
}

// finishMeta stores the complete data block of an ms and answers.
func (w *worker) finishMeta(c *conn) {
	up := &c.up
	m := up.meta
	defer w.dropMeta(up)
	if string(up.tail[:]) != netproto.CRLF {
		w.s.Discard(&up.draft)
		w.o.small = append(w.o.small, netproto.BadDataChunk...)
		return
	}
	cas, st := w.commit(up, &m.store)
	code, size := metaCode(st), m.store.Size
	switch {
	case code == "":
		w.o.small = append(w.o.small, netproto.NoMemoryStoring...)
		return
	case st != hearth.OK:
		cas, size = 0, m.size
	case m.quiet:
		return
	}
	dst := append(w.o.small, code...)
	for _, letter := range m.order[:m.norder] {
		switch letter {
		case 'O':
			dst = netproto.AppendFlag(dst, 'O', m.opaque[:m.nopaque])
		case 'k':
			dst = netproto.AppendFlagKeyToken(dst, m.key[:m.nkey], m.binary)
		case 'c':
			dst = netproto.AppendFlagUint(dst, 'c', cas)
		case 's':
			dst = netproto.AppendFlagUint(dst, 's', uint64(size))
		}
	}
	w.o.small = append(dst, netproto.CRLF...)
}

// dropMeta ends what an ms has beside the upload.
func (w *worker) dropMeta(up *upload) {
	if up.meta != nil {
		up.meta.next, w.metas, up.meta = w.metas, up.meta, nil
	}
}

// vivifyExptime is the exptime of an item that is made on a miss: of N and T the later one on the line is the one that stays.
func vivifyExptime(req *netproto.Request) int64 {
	exptime := req.Vivify
	for _, f := range req.MetaFlags {
		switch f.Letter {
		case 'N':
			exptime = req.Vivify
		case 'T':
			exptime = req.Exptime
		}
	}
	return exptime
}

// before tells that flag a stands before flag b on the line.
func before(req *netproto.Request, a, b byte) bool {
	for _, f := range req.MetaFlags {
		if f.Letter == a || f.Letter == b {
			return f.Letter == a && req.Has(b)
		}
	}
	return false
}

// keyNeedsBase64 tells that a key cannot be written on a line. memcached marks only items of ms as having a binary key and would answer with a broken line
// where mg or ma made the item.
func keyNeedsBase64(req *netproto.Request) bool {
	return req.KeyBinary && bytes.ContainsAny(req.Key, " \r\n")
}

func (w *worker) metaGet() {
	req, got := &w.req, &w.fetch
	w.logLookup(req.Key)
	st := w.s.MetaGet(req.Key, &hearth.GetOptions{
		NoBump: req.Has('u'), Touch: req.Has('T'), Exptime: req.Exptime,
		Recache: req.Has('R'), RecacheTTL: req.Recache, RecacheLast: before(req, 'T', 'R'),
		Vivify: req.Has('N'), VivifyExptime: vivifyExptime(req), CAS: req.NewCAS, KeyBinary: keyNeedsBase64(req),
	}, got)
	if st != hearth.OK { // without memory to touch or make the item it is a miss too
		if !req.Noreply {
			w.replyCode(netproto.MetaMiss)
		}
		return
	}
	it := &got.Item
	value := req.Has('v') && !(req.Has('C') && req.CAS == it.CAS && it.CAS != 0)
	dst := w.o.small
	if value {
		dst = netproto.AppendMetaValue(dst, it.Len())
	} else {
		dst = append(dst, netproto.MetaOK...)
	}
	exptime := got.Before
	for _, f := range req.MetaFlags {
		switch f.Letter {
		case 'T':
			exptime = w.s.Until(req.Exptime)
		case 'N':
			if got.Created {
				exptime = w.s.Until(req.Vivify)
			}
		case 't':
			dst = netproto.AppendFlagTTL(dst, exptime, w.s.Now())
		case 'c':
			dst = netproto.AppendFlagUint(dst, 'c', it.CAS)
		case 'f':
			dst = netproto.AppendFlagUint(dst, 'f', uint64(it.Flags))
		case 'h':
			hit := uint64(0)
			if it.Fetched {
				hit = 1
			}
			dst = netproto.AppendFlagUint(dst, 'h', hit)
		case 'l':
			dst = netproto.AppendFlagUint(dst, 'l', uint64(it.Age))
		case 's':
			dst = netproto.AppendFlagUint(dst, 's', uint64(it.Len()))
		case 'O':
			dst = netproto.AppendFlag(dst, 'O', f.Token)
		case 'k':
			dst = netproto.AppendFlagKey(dst, it.Key, it.KeyBinary)
		}
	}
	for _, f := range [...]struct {
		letter byte
		on     bool
	}{{'Z', it.TokenSent}, {'X', it.Stale}, {'W', got.Won}} {
		if f.on {
			dst = netproto.AppendFlag(dst, f.letter, nil)
		}
	}
	w.o.small = append(dst, netproto.CRLF...)
	if value {
		w.appendValue(it)
	}
}

func (w *worker) metaDelete() {
	req := &w.req
	was := w.logLookup(req.Key)
	st := w.s.MetaDelete(req.Key, &hearth.DeleteOptions{
		HasCAS: req.Has('C'), CAS: req.CAS, CountCAS: true, Invalidate: req.Has('I'), Clear: req.Has('x'),
		Touch: req.Has('T'), Exptime: req.Exptime, Flags: req.Flags, NewCAS: req.NewCAS,
	})
	if !req.Has('I') && !req.Has('x') { // else there is an item as before
		w.logDelete(req.Key, st, netproto.LogMetaDelete, was)
	}
	if !w.metaFailed(st) && !req.Noreply {
		w.replyCode(netproto.MetaOK)
	}
}

func (w *worker) metaArith() {
	req, it := &w.req, &w.item
	o := hearth.ArithOptions{
		Delta: req.Delta, Decr: req.Mode == 'D', HasCAS: req.CAS != 0, CAS: req.CAS,
		Vivify: req.Has('N'), VivifyExptime: vivifyExptime(req), Initial: req.Initial, KeyBinary: keyNeedsBase64(req),
		Touch: req.Has('T'), Exptime: req.Exptime, NewCAS: req.NewCAS,
	}
	n, st := w.count(req.Key, &o, it)
	if w.metaFailed(st) || req.Noreply {
		return
	}
	dst := w.o.small
	if req.Has('v') {
		dst = netproto.AppendMetaNumber(dst, n)
	} else {
		dst = append(dst, netproto.MetaOK...)
	}
	exptime := o.Before
	for _, f := range req.MetaFlags {
		switch f.Letter {
		case 'T':
			exptime = w.s.Until(req.Exptime)
		case 'N':
			if o.Created {
				exptime = w.s.Until(req.Vivify)
			}
		case 't':
			dst = netproto.AppendFlagTTL(dst, exptime, w.s.Now())
		case 'c':
			dst = netproto.AppendFlagUint(dst, 'c', it.CAS)
		}
		dst = appendEcho(dst, req, &f)
	}
	dst = append(dst, netproto.CRLF...)
	if req.Has('v') {
		dst = netproto.AppendNumber(dst, n)
	}
	w.o.small = dst
}

// metaCode is the code of a status, "" where an error line says it.
func metaCode(st hearth.Status) string {
	switch st {
	case hearth.OK:
		return netproto.MetaOK
	case hearth.Exists:
		return netproto.MetaExists
	case hearth.Miss:
		return netproto.MetaNotFound
	case hearth.NotStored:
		return netproto.MetaNotStored
	}
	return ""
}

// metaFailed answers an md or ma that failed, in spite of q; false: it did not.
func (w *worker) metaFailed(st hearth.Status) bool {
	switch code := metaCode(st); {
	case st == hearth.OK:
		return false
	case code != "":
		w.replyCode(code)
	case st == hearth.NonNumeric:
		w.o.small = append(w.o.small, netproto.NonNumeric...)
	default:
		w.o.small = append(w.o.small, netproto.NoMemory...)
	}
	return true
}

// replyCode answers with a code and what the request wants back in any case.
func (w *worker) replyCode(code string) {
	dst := append(w.o.small, code...)
	for i := range w.req.MetaFlags {
		dst = appendEcho(dst, &w.req, &w.req.MetaFlags[i])
	}
	w.o.small = append(dst, netproto.CRLF...)
}

// appendEcho appends a flag that says only what the request said.
func appendEcho(dst []byte, req *netproto.Request, f *netproto.Flag) []byte {
	switch f.Letter {
	case 'O':
		return netproto.AppendFlag(dst, 'O', f.Token)
	case 'k':
		return netproto.AppendFlagKeyToken(dst, req.KeyToken, req.KeyBinary)
	}
	return dst
}

func (w *worker) metaDebug() {
	req, got := &w.req, &w.fetch
	w.counters.metaCmds.Add(1)
	w.logLookup(req.Key)
	if w.s.MetaGet(req.Key, &hearth.GetOptions{Peek: true}, got) != hearth.OK {
		w.replyCode(netproto.MetaMiss)
		return
	}
	w.o.small = netproto.AppendDebug(w.o.small, &netproto.Debug{
		Key: req.KeyToken, Exptime: got.Exptime, Now: w.s.Now(), Age: got.Age, CAS: got.CAS, Fetched: got.Fetched, Class: got.ClassID, Size: got.Size,
	})
}
