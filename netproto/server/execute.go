package server

import (
	"hearth"
	"hearth/netproto"
)

// execute serves w.req, the one request that was just parsed. A get and a data block may go on after it: c.get and c.up say so.
func (w *worker) execute(c *conn) {
	req := &w.req
	c.used(w.srv.clock.Load())
	switch req.Verb {
	case netproto.VerbGet, netproto.VerbGets, netproto.VerbGat, netproto.VerbGats:
		c.get = getState{active: true, verb: req.Verb, exptime: req.Exptime, keys: req.Keys}
	case netproto.VerbSet:
		w.store(c, hearth.Set)
	case netproto.VerbAdd:
		w.store(c, hearth.Add)
	case netproto.VerbReplace:
		w.store(c, hearth.Replace)
	case netproto.VerbAppend:
		w.store(c, hearth.Append)
	case netproto.VerbPrepend:
		w.store(c, hearth.Prepend)
	case netproto.VerbCas:
		w.store(c, hearth.CAS)
	case netproto.VerbDelete:
		w.srv.prefixes.delete(req.Key)
		was := w.logLookup(req.Key)
		st := w.s.Delete(req.Key)
		w.logDelete(req.Key, st, netproto.LogDelete, was)
		w.replyStatus(st, netproto.Deleted)
	case netproto.VerbTouch:
		w.logLookup(req.Key)
		w.replyStatus(w.s.Touch(req.Key, req.Exptime), netproto.Touched)
	case netproto.VerbIncr:
		w.logLookup(req.Key)
		w.replyNumber(w.s.Incr(req.Key, req.Delta))
	case netproto.VerbDecr:
		w.logLookup(req.Key)
		w.replyNumber(w.s.Decr(req.Key, req.Delta))
	case netproto.VerbFlushAll:
		if w.srv.o.DisableFlushAll {
			w.counters.flushesRefused.Add(1)
			w.reply(netproto.FlushNotAllowed)
			return
		}
		w.s.FlushAll(req.Exptime)
		w.reply(netproto.OK)
	case netproto.VerbVersion:
		if !req.Noreply {
			w.o.small = netproto.AppendVersion(w.o.small, w.srv.o.Version)
		}
	case netproto.VerbVerbosity:
		w.srv.verbosity.Store(int32(req.Level))
		w.reply(netproto.OK)
	case netproto.VerbStats:
		if reply := w.stats(w.o.small, c, req.Args); !req.Noreply {
			w.o.small = reply
		}
	case netproto.VerbAdmin:
		w.admin(c)
	case netproto.VerbShutdown:
		w.shutdown(c)
	case netproto.VerbMetaGet:
		w.metaGet()
	case netproto.VerbMetaSet:
		w.metaSet(c)
	case netproto.VerbMetaDelete:
		w.metaDelete()
	case netproto.VerbMetaArith:
		w.metaArith()
	case netproto.VerbMetaNoop:
		w.o.small = append(w.o.small, netproto.MetaNoop...)
		w.o.now = true
	case netproto.VerbMetaDebug:
		w.metaDebug()
	case netproto.VerbQuit:
		c.closing, c.reason = true, netproto.LogCloseNormal
	case netproto.VerbBad:
		if req.Swallow > 0 {
			w.dropBlock(c, req.Swallow, req.Reply)
			return
		}
		w.o.small = append(w.o.small, req.Reply...)
		c.closing = req.Close
	}
}

// reply answers w.req with a fixed line.
func (w *worker) reply(line string) {
	if !w.req.Noreply {
		w.o.small = append(w.o.small, line...)
	}
}

func (w *worker) replyStatus(st hearth.Status, ok string) {
	if st == hearth.OK {
		w.reply(ok)
	} else {
		w.reply(netproto.NotFound)
	}
}

func (w *worker) replyNumber(n uint64, st hearth.Status) {
	switch st {
	case hearth.OK:
		if !w.req.Noreply {
			w.o.small = netproto.AppendNumber(w.o.small, n)
		}
	case hearth.NonNumeric:
		w.reply(netproto.NonNumeric)
	case hearth.NoMemory:
		w.reply(netproto.NoMemory)
	default:
		w.reply(netproto.NotFound)
	}
}

// answerGet answers the keys of c.get. False: it has to go on in another turn, because the output does not go out or the line is long.
func (w *worker) answerGet(c *conn) bool {
	g := &c.get
	for range keysPerTurn {
		before := g.keys
		key, ok := w.nextKey(&g.keys)
		if !ok {
			g.active = false
			w.latency.seen[kindGet]++
			w.o.small = append(w.o.small, netproto.End...)
			return true
		}
		if (w.o.large || len(w.o.small) >= flushAt) && !w.flush(c) {
			g.keys = before
			return false
		}
		w.logLookup(key)
		var st hearth.Status
		if g.verb == netproto.VerbGat || g.verb == netproto.VerbGats {
			st = w.s.GetAndTouch(key, g.exptime, &w.item)
		} else {
			st = w.s.Get(key, &w.item)
		}
		w.srv.prefixes.get(key, st == hearth.OK)
		if st != hearth.OK {
			continue
		}
		it, size := &w.item, w.item.Len()
		if g.verb == netproto.VerbGets || g.verb == netproto.VerbGats {
			w.o.small = netproto.AppendValueHeaderCAS(w.o.small, key, it.Flags, size, it.CAS)
		} else {
			w.o.small = netproto.AppendValueHeader(w.o.small, key, it.Flags, size)
		}
		w.appendValue(it)
	}
	return false
}

// nextKey is keys.Next, and tells the session which keys come behind it.
func (w *worker) nextKey(keys *netproto.Keys) (key []byte, ok bool) {
	if key = w.s.Expected(); key == nil {
		key = w.expectKeys(*keys)
	}
	if keys.Take(key) {
		return key, true
	}
	return keys.Next()
}

// expectKeys tells the session the next keys of a get, and returns the first one, nil when there is none.
func (w *worker) expectKeys(from netproto.Keys) (first []byte) {
	keys := w.keys[:0]
	for len(keys) < cap(keys) {
		key, ok := from.Next()
		if !ok {
			break
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil
	case len(keys) > 1: // one alone gains nothing by it
		w.s.Expect(keys)
	}
	return keys[0]
}

// appendValue answers with a value and the line end behind it.
func (w *worker) appendValue(it *hearth.Item) {
	w.o.value(it)
	w.o.small = append(w.o.small, netproto.CRLF...)
}

// store starts the upload of a classic command's data block.
func (w *worker) store(c *conn, mode hearth.Mode) {
	w.srv.prefixes.set(w.req.Key)
	w.prepare(c, mode, logCommands[mode], w.req.Noreply)
}

// prepare starts the upload of w.req's data block; false: there is no room for it, and it is dropped.
func (w *worker) prepare(c *conn, mode hearth.Mode, command string, noreply bool) bool {
	req, up := &w.req, &c.up
	switch w.prepareLogged(&up.draft, mode, command, req.Key, req.Flags, req.Exptime, req.Size) {
	case hearth.OK:
		w.beginUpload(c, req.Size, req.CAS, noreply)
		return true
	case hearth.TooLarge:
		up.reply = netproto.TooLarge
	default:
		up.reply = netproto.NoMemoryStoring
	}
	if noreply {
		up.reply = ""
	}
	w.dropBlock(c, int64(req.Size)+2, up.reply)
	return false
}

// beginUpload has c read the data block of a draft that is prepared.
func (w *worker) beginUpload(c *conn, size int, cas uint64, noreply bool) {
	up := &c.up
	up.kind, up.noreply, up.ntail, up.cas = uploadStore, noreply, 0, cas
	up.since, up.size = w.srv.clock.Load(), size
}

// finishUpload stores the complete data block, if it ends as it must.
func (w *worker) finishUpload(c *conn) {
	w.latency.seen[kindSet]++
	if c.protocol == ProtocolBinary {
		w.finishBinaryUpload(c)
		return
	}
	up := &c.up
	up.kind = uploadNone
	if up.meta != nil {
		w.finishMeta(c)
		return
	}
	reply := netproto.BadDataChunk
	if string(up.tail[:]) == netproto.CRLF {
		switch _, st := w.commit(up, &hearth.StoreOptions{Mode: up.draft.Mode(), CAS: up.cas}); st {
		case hearth.OK:
			reply = netproto.Stored
		case hearth.Exists:
			reply = netproto.Exists
		case hearth.Miss:
			reply = netproto.NotFound
		case hearth.NotStored:
			reply = netproto.NotStored
		default:
			reply = netproto.NoMemoryStoring
		}
	} else {
		w.s.Discard(&up.draft)
	}
	if !up.noreply {
		w.o.small = append(w.o.small, reply...)
	}
}

// shutdown ends the server. memcached tells plain (nothing is kept) from graceful (the cache survives -e); here every stop is graceful.
func (w *worker) shutdown(c *conn) {
	args := w.req.Args
	switch {
	case !w.srv.o.EnableShutdown:
		w.reply(netproto.ShutdownNotEnabled)
	case len(args) > 1 || len(args) == 1 && string(args[0]) != "graceful":
		w.reply(netproto.InvalidShutdownMode)
	default:
		c.closing, c.reason = true, netproto.LogCloseShutdown
		select {
		case w.srv.ended <- ErrShutdown:
		default:
		}
	}
}
