package server

import (
	"fmt"
	"math/bits"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hearth/netproto"
)

// stats answers the stats command of the text protocol. Sub-commands match as whole words; memcached takes any prefix, so that `stats r`
// resets. As there, words behind the sub-command are ignored.
func (w *worker) stats(dst []byte, c *conn, args [][]byte) []byte {
	l := lister{dst: dst, row: netproto.AppendStat}
	w.s.Publish()
	if w.srv.listStats(&l, c, subCommand(args)) {
		return append(l.dst, netproto.End...)
	}
	switch string(args[0]) {
	case "reset":
		w.srv.resetStats()
		return append(dst, netproto.Reset...)
	case "detail":
		return w.srv.detail(dst, args[1:])
	case "cachedump":
		return w.cachedump(dst, args[1:])
	}
	return append(dst, netproto.Error...)
}

// subCommand is the word behind "stats"; nothing reads like an empty one.
func subCommand(args [][]byte) string {
	if len(args) == 0 {
		return ""
	}
	return string(args[0])
}

// listStats lists those stats that are rows of names and values; false: name asks for something else. Whoever asks over a connection is asking, others nil.
func (s *Server) listStats(l *lister, asking *conn, name string) bool {
	switch name {
	case "":
		s.generalStats(l)
	case "settings":
		s.settings(l)
	case "items":
		s.itemStats(l)
	case "slabs":
		s.slabStats(l)
	case "conns":
		s.connStats(l, asking)
	case "sizes":
		s.sizes(l)
	case "workers":
		s.workerStats(l)
	case "latency":
		s.latencyStats(l)
	default:
		return false
	}
	return true
}

// Rows calls row with each row of `stats NAME`, in its order; an empty name is plain `stats`. False: there is no list of that name. Any goroutine may call it until
// the cache is closed. A fault in the cache's memory ends Serve, as a worker's does, and Rows returns false.
func (s *Server) Rows(name string, row func(name, value string)) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if f := s.faultOf(recover()); f != nil {
			select {
			case s.ended <- f:
			default: // others have told already
			}
			ok = false
		}
	}()
	l := lister{row: func(_ []byte, name string, value []byte) []byte {
		row(name, string(value))
		return nil
	}}
	return s.listStats(&l, nil, name)
}

func (s *Server) detail(dst []byte, args [][]byte) []byte {
	if s.o.DisableDumping {
		return append(dst, netproto.StatsDetailOff...)
	}
	if len(args) > 0 {
		switch string(args[0]) {
		case "on", "off":
			s.prefixes.on.Store(string(args[0]) == "on")
			return append(dst, netproto.OK...)
		case "dump":
			return s.prefixes.dump(dst)
		}
	}
	return append(dst, netproto.StatsDetailUsage...)
}

func (s *Server) resetStats() {
	s.cache.ResetStats()
	s.prefixes.reset()
	for _, p := range []*atomic.Uint64{&s.totalConns, &s.rejected, &s.disabledNum, &s.disabledUs, &s.napi.unexpected, &s.napi.fallback,
		&s.log.written, &s.log.skipped, &s.log.sent, &s.handshakes.failed, &s.handshakes.sessions} {
		p.Store(0)
	}
	for _, w := range s.workers {
		w.counters.bytesRead.Store(0)
		w.counters.bytesWritten.Store(0)
		w.counters.yields.Store(0)
		w.counters.authCmds.Store(0)
		w.counters.authErrors.Store(0)
		w.counters.idleKicks.Store(0)
		w.counters.metaCmds.Store(0)
		w.counters.flushesRefused.Store(0)
		w.counters.tlsErrors.Store(0)
		w.counters.readBufOOM.Store(0)
		w.latency.reset()
	}
}

// sum adds one counter up over the workers.
func (s *Server) sum(counter func(w *worker) uint64) (n uint64) {
	for _, w := range s.workers {
		n += counter(w)
	}
	return n
}

// bytesRead is how much clients have sent.
func (s *Server) bytesRead() uint64 {
	return s.sum(func(w *worker) uint64 { return w.counters.bytesRead.Load() })
}

// lister appends rows of stats in the form that a protocol has for them; it keeps the long lists below readable.
type lister struct {
	dst  []byte
	row  func(dst []byte, name string, value []byte) []byte
	text [32]byte
}

func (l *lister) bytes(name string, value []byte) { l.dst = l.row(l.dst, name, value) }
func (l *lister) uint(name string, n uint64)      { l.bytes(name, strconv.AppendUint(l.text[:0], n, 10)) }
func (l *lister) int(name string, n int64)        { l.bytes(name, strconv.AppendInt(l.text[:0], n, 10)) }
func (l *lister) str(name, value string)          { l.bytes(name, append(l.text[:0], value...)) }
func (l *lister) float(name string, x float64, decimals int) {
	l.bytes(name, strconv.AppendFloat(l.text[:0], x, 'f', decimals, 64))
}
func (l *lister) zeros(names ...string) {
	for _, name := range names {
		l.uint(name, 0)
	}
}
func (l *lister) bool(name string, b bool) {
	l.uint(name, map[bool]uint64{true: 1}[b])
}
func (l *lister) yes(name string, b bool) {
	l.str(name, map[bool]string{true: "yes", false: "no"}[b])
}

// generalStats lists plain `stats` in memcached's order, for people and parsers that know it by heart; our own keys come last. Keys of
// machinery that does not exist here, or never fails, are 0 rather than missing: dashboards chart them. What memcached leaves out when the operator has
// turned something off, we leave out too.
func (s *Server) generalStats(l *lister) {
	maintainer := !s.o.NoLRUMaintainer
	st := s.cache.Stats()
	var crawled, reflocked uint64
	for _, c := range s.cache.ClassStats() {
		crawled += c.CrawlerItemsChecked
		reflocked += c.LRUTailReflocked
	}
	var usage unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &usage)
	seconds := func(t unix.Timeval) string { return fmt.Sprintf("%d.%06d", t.Sec, t.Usec) }
	buffers := s.sum(func(w *worker) uint64 { return uint64(w.pool.all.Load()) })
	free := s.sum(func(w *worker) uint64 { return uint64(w.pool.free.Load()) })

	l.int("pid", int64(os.Getpid()))
	l.int("uptime", int64(s.cache.Uptime().Seconds()))
	l.uint("time", uint64(s.cache.Now()))
	l.str("version", s.o.Version)
	l.str("libevent", "none")
	l.uint("pointer_size", strconv.IntSize)
	l.str("rusage_user", seconds(usage.Utime))
	l.str("rusage_system", seconds(usage.Stime))
	l.int("max_connections", int64(s.o.MaxConns))
	l.int("curr_connections", s.conns.Load())
	l.uint("total_connections", s.totalConns.Load())
	if !s.o.NoMaxConnsFast {
		l.uint("rejected_connections", s.rejected.Load())
	}
	l.int("connection_structures", s.peakConns.Load())
	l.zeros("response_obj_oom", "response_obj_count", "response_obj_bytes") // replies share the workers' output buffers
	l.uint("read_buf_count", buffers)
	l.uint("read_buf_bytes", buffers*inputSize)
	l.uint("read_buf_bytes_free", free*inputSize)
	l.uint("read_buf_oom", s.sum(func(w *worker) uint64 { return w.counters.readBufOOM.Load() }))
	l.int("reserved_fds", int64(2*(len(s.workers)+1)+len(s.listeners)+len(s.udp)))
	l.uint("cmd_get", st.CmdGet)
	l.uint("cmd_set", st.CmdSet)
	l.uint("cmd_flush", st.CmdFlush+s.sum(func(w *worker) uint64 { return w.counters.flushesRefused.Load() })) // as memcached counts
	l.uint("cmd_touch", st.CmdTouch)
	l.uint("cmd_meta", s.sum(func(w *worker) uint64 { return w.counters.metaCmds.Load() }))
	l.uint("get_hits", st.GetHits)
	l.uint("get_misses", st.GetMisses)
	l.uint("get_expired", st.GetExpired)
	l.uint("get_flushed", st.GetFlushed)
	l.uint("delete_misses", st.DeleteMisses)
	l.uint("delete_hits", st.DeleteHits)
	l.uint("incr_misses", st.IncrMisses)
	l.uint("incr_hits", st.IncrHits)
	l.uint("decr_misses", st.DecrMisses)
	l.uint("decr_hits", st.DecrHits)
	l.uint("cas_misses", st.CasMisses)
	l.uint("cas_hits", st.CasHits)
	l.uint("cas_badval", st.CasBadval)
	l.uint("touch_hits", st.TouchHits)
	l.uint("touch_misses", st.TouchMisses)
	l.uint("store_too_large", st.StoreTooLarge)
	l.uint("store_no_memory", st.StoreNoMemory)
	l.uint("auth_cmds", s.sum(func(w *worker) uint64 { return w.counters.authCmds.Load() }))
	l.uint("auth_errors", s.sum(func(w *worker) uint64 { return w.counters.authErrors.Load() }))
	if s.o.IdleTimeout > 0 {
		l.uint("idle_kicks", s.sum(func(w *worker) uint64 { return w.counters.idleKicks.Load() }))
	}
	l.uint("bytes_read", s.bytesRead())
	l.uint("bytes_written", s.sum(func(w *worker) uint64 { return w.counters.bytesWritten.Load() }))
	l.uint("limit_maxbytes", st.LimitMaxbytes)
	l.bool("accepting_conns", !s.disabled.Load())
	l.uint("listen_disabled_num", s.disabledNum.Load())
	l.uint("time_in_listen_disabled_us", s.disabledUs.Load())
	l.int("threads", int64(len(s.workers)))
	l.uint("conn_yields", s.sum(func(w *worker) uint64 { return w.counters.yields.Load() }))
	l.int("hash_power_level", int64(max(bits.Len64(st.HashBuckets)-1, 0)))
	l.uint("hash_bytes", st.HashBytes)
	l.bool("hash_is_expanding", st.HashIsExpanding)
	if !s.cache.Options().NoPageMoves {
		l.uint("slab_reassign_rescues", st.SlabReassignRescues)
		l.uint("slab_reassign_chunk_rescues", st.SlabReassignChunkRescues)
		l.uint("slab_reassign_inline_reclaim", st.SlabReassignInlineReclaim)
		l.uint("slab_reassign_busy_items", st.SlabReassignBusyItems)
		l.zeros("slab_reassign_busy_deletes") // memcached deletes large items that stay busy; here their parts can always be moved
		l.uint("slab_reassign_busy_nomem", st.SlabReassignBusyNoMem)
		l.str("slab_reassign_last_busy_status", st.SlabReassignLastBusy)
		l.bool("slab_reassign_running", st.SlabReassignRunning)
		l.uint("slabs_moved", st.SlabsMoved)
	}
	if !s.tuning().NoCrawler {
		l.bool("lru_crawler_running", st.CrawlerRunning)
		l.uint("lru_crawler_starts", st.CrawlerStarts)
	}
	if maintainer {
		l.uint("lru_maintainer_juggles", st.Juggles)
	}
	l.zeros("malloc_fails", "log_worker_dropped")
	l.uint("log_worker_written", s.log.written.Load())
	l.uint("log_watcher_skipped", s.log.skipped.Load())
	l.uint("log_watcher_sent", s.log.sent.Load())
	l.int("log_watchers", int64(s.log.count()))
	if s.o.TLS != nil {
		if s.o.TLS.o.SessionCache {
			l.uint("ssl_new_sessions", s.handshakes.sessions.Load())
		}
		l.uint("ssl_handshake_errors", s.handshakes.failed.Load())
		l.uint("ssl_proto_errors", s.sum(func(w *worker) uint64 { return w.counters.tlsErrors.Load() }))
		l.uint("time_since_server_cert_refresh", uint64(time.Since(s.o.TLS.current.Load().loaded).Seconds()))
	}
	l.uint("unexpected_napi_ids", s.napi.unexpected.Load())
	l.uint("round_robin_fallback", s.napi.fallback.Load())
	l.uint("bytes", st.Bytes)
	l.uint("curr_items", st.CurrItems)
	l.uint("total_items", st.TotalItems)
	l.uint("slab_global_page_pool", st.GlobalPagePool)
	l.uint("expired_unfetched", st.ExpiredUnfetched)
	l.uint("evicted_unfetched", st.EvictedUnfetched)
	if maintainer {
		l.uint("evicted_active", st.EvictedActive)
	}
	l.uint("evictions", st.Evictions)
	l.uint("reclaimed", st.Reclaimed)
	l.uint("crawler_reclaimed", st.CrawlerReclaimed)
	l.uint("crawler_items_checked", crawled)
	l.uint("lrutail_reflocked", reflocked)
	if maintainer {
		l.uint("moves_to_cold", st.MovesToCold)
		l.uint("moves_to_warm", st.MovesToWarm)
		l.uint("moves_within_lru", st.MovesWithinLRU)
		l.uint("direct_reclaims", st.DirectReclaims)
		l.uint("lru_bumps_dropped", st.LRUBumpsDropped)
	}

	l.str("hearth_version", s.o.HearthVersion)
	l.uint("total_malloced", st.TotalMalloced)
	l.str("restart_kind", st.RestartKind)
	l.str("restart_reason", st.RestartReason)
	l.int("restart_attach_us", st.RestartAttachMicros)
	l.int("restart_sweep_ms", st.RestartSweepMillis)
	l.bool("restart_sweeping", st.RestartSweeping)
	l.uint("restart_sweep_pct", uint64(st.RestartSweepProgress*100))
	l.uint("restart_items", st.RestartItems)
	l.uint("restart_unclean", uint64(st.RestartUnclean))
	l.uint("restart_own_faults", uint64(st.RestartOwnFaults))
	l.uint("corrupt_items", st.CorruptItems)
	l.uint("scrub_passes", st.ScrubPasses)
	l.uint("scrub_bytes", st.ScrubBytes)
	l.uint("scrub_pct", uint64(st.ScrubPlace*100))
	l.uint("index_bytes", st.HashBytes)
	l.float("index_load", st.IndexLoad, 3)
}

// or is value, or what stands for none.
func or(value, unset string) string {
	if value == "" {
		return unset
	}
	return value
}

// settings lists `stats settings`. Rows without an option are what this server does and cannot be told otherwise.
func (s *Server) settings(l *lister) {
	o, c, t, lru := &s.o, s.cache.Options(), s.tuning(), s.cache.LRU()
	port := int64(o.Port)
	if o.NoTCP {
		port = 0
	} else if port < 0 {
		for _, ls := range s.listeners {
			port = int64(ls.addr.(*net.TCPAddr).Port)
		}
	}
	udpPort := int64(0)
	for _, u := range s.udp {
		udpPort = int64(u.addr.(*net.UDPAddr).Port)
		if o.UDPPort > 0 {
			udpPort = int64(o.UDPPort)
		}
	}
	l.int("maxbytes", s.cache.MemoryLimit())
	l.int("maxconns", int64(o.MaxConns))
	l.int("tcpport", port)
	l.int("udpport", udpPort)
	l.str("inter", or(strings.Join(o.Listen, ","), "NULL"))
	l.int("verbosity", int64(s.verbosity.Load()))
	l.zeros("oldest")
	l.str("evictions", map[bool]string{true: "off", false: "on"}[c.NoEvict])
	l.str("domain_socket", or(o.UnixSocket, "NULL"))
	l.str("umask", strconv.FormatInt(int64(o.UnixMask), 8))
	l.yes("shutdown_command", o.EnableShutdown)
	l.float("growth_factor", c.GrowthFactor, 2)
	l.int("chunk_size", int64(c.MinSpace))
	l.int("num_threads", int64(o.Threads))
	l.int("num_threads_per_udp", int64(o.threadsPerUDP()))
	l.str("stat_key_prefix", string(rune(o.PrefixDelimiter)))
	l.yes("detail_enabled", s.prefixes.on.Load())
	l.int("reqs_per_event", int64(o.ReqsPerEvent))
	l.yes("cas_enabled", !c.NoCAS)
	l.int("tcp_backlog", int64(o.Backlog))
	l.str("binding_protocol", o.Protocol.String())
	l.yes("auth_enabled_sasl", o.SASL != nil)
	l.str("auth_enabled_ascii", or(o.Auth.Path(), "no"))
	l.int("item_size_max", int64(c.MaxItemSize))
	l.yes("maxconns_fast", !o.NoMaxConnsFast)
	l.int("hashpower_init", int64(o.Shown.HashPower))
	l.yes("slab_reassign", !c.NoPageMoves)
	l.int("slab_automove", int64(t.Automove))
	l.float("slab_automove_ratio", t.AutomoveRatio, 2)
	l.int("slab_automove_window", int64(t.AutomoveWindow))
	l.int("slab_chunk_max", int64(c.ChunkMax))
	l.yes("lru_crawler", !t.NoCrawler)
	l.int("lru_crawler_sleep", int64(t.CrawlerSleep))
	l.uint("lru_crawler_tocrawl", t.CrawlerToCrawl)
	l.int("tail_repair_time", int64(o.Shown.TailRepairTime))
	l.yes("flush_enabled", !o.DisableFlushAll)
	l.yes("dump_enabled", !o.DisableDumping)
	l.str("hash_algorithm", o.Shown.HashAlgorithm)
	l.yes("lru_maintainer_thread", !o.NoLRUMaintainer)
	l.yes("lru_segmented", !lru.Flat)
	l.int("hot_lru_pct", int64(lru.HotPct))
	l.int("warm_lru_pct", int64(lru.WarmPct))
	l.float("hot_max_factor", lru.HotMaxFactor, 2)
	l.float("warm_max_factor", lru.WarmMaxFactor, 2)
	l.yes("temp_lru", lru.Temp)
	l.uint("temporary_ttl", uint64(lru.TempTTL))
	l.int("idle_timeout", int64(o.IdleTimeout))
	l.int("watcher_logbuf_size", int64(o.WatcherLogSize))
	l.int("worker_logbuf_size", int64(o.WorkerLogSize))
	l.uint("read_buf_mem_limit", uint64(o.ReadBufferLimit))
	l.yes("track_sizes", c.TrackSizes)
	l.yes("inline_ascii_response", false)
	o.TLS.list(l)
	l.int("num_napi_ids", int64(o.NAPIIDs))
	l.str("memory_file", or(c.Path, "(null)"))
	l.uint("client_flags_size", 4)
}

// itemStats lists `stats items`: classes with items.
func (s *Server) itemStats(l *lister) {
	temp, maintainer := s.cache.LRU().Temp, !s.o.NoLRUMaintainer
	for _, c := range s.cache.ClassStats() {
		if c.Number == 0 {
			continue
		}
		p := "items:" + strconv.Itoa(c.ID) + ":"
		l.uint(p+"number", c.Number)
		if maintainer {
			l.uint(p+"number_hot", c.NumberHot)
			l.uint(p+"number_warm", c.NumberWarm)
			l.uint(p+"number_cold", c.NumberCold)
			if temp || c.NumberTemp > 0 {
				l.uint(p+"number_temp", c.NumberTemp)
			}
			l.uint(p+"age_hot", c.AgeHot)
			l.uint(p+"age_warm", c.AgeWarm)
		}
		l.uint(p+"age", c.Age)
		l.uint(p+"mem_requested", c.MemRequested)
		l.uint(p+"evicted", c.Evicted)
		l.uint(p+"evicted_nonzero", c.EvictedNonzero)
		l.uint(p+"evicted_time", c.EvictedTime)
		l.uint(p+"outofmemory", c.OutOfMemory)
		l.uint(p+"tailrepairs", c.TailRepairs)
		l.uint(p+"reclaimed", c.Reclaimed)
		l.uint(p+"expired_unfetched", c.ExpiredUnfetched)
		l.uint(p+"evicted_unfetched", c.EvictedUnfetched)
		if maintainer {
			l.uint(p+"evicted_active", c.EvictedActive)
		}
		l.uint(p+"crawler_reclaimed", c.CrawlerReclaimed)
		l.uint(p+"crawler_items_checked", c.CrawlerItemsChecked)
		l.uint(p+"lrutail_reflocked", c.LRUTailReflocked)
		if maintainer {
			l.uint(p+"moves_to_cold", c.MovesToCold)
			l.uint(p+"moves_to_warm", c.MovesToWarm)
			l.uint(p+"moves_within_lru", c.MovesWithinLRU)
			l.uint(p+"direct_reclaims", c.DirectReclaims)
			l.uint(p+"hits_to_hot", c.HitsToHot)
			l.uint(p+"hits_to_warm", c.HitsToWarm)
			l.uint(p+"hits_to_cold", c.HitsToCold)
			l.uint(p+"hits_to_temp", c.HitsToTemp)
		}
	}
}

// slabStats lists `stats slabs`: classes with pages.
func (s *Server) slabStats(l *lister) {
	active := uint64(0)
	for _, c := range s.cache.ClassStats() {
		if c.Pages == 0 {
			continue
		}
		active++
		p := strconv.Itoa(c.ID) + ":"
		l.int(p+"chunk_size", int64(c.ChunkSize))
		l.int(p+"chunks_per_page", int64(c.ChunksPerPage))
		l.uint(p+"total_pages", c.Pages)
		l.uint(p+"total_chunks", c.TotalChunks)
		l.uint(p+"used_chunks", c.UsedChunks)
		l.uint(p+"free_chunks", c.FreeChunks)
		l.zeros(p + "free_chunks_end")
		l.uint(p+"get_hits", c.GetHits)
		l.uint(p+"cmd_set", c.CmdSet)
		l.uint(p+"delete_hits", c.DeleteHits)
		l.uint(p+"incr_hits", c.IncrHits)
		l.uint(p+"decr_hits", c.DecrHits)
		l.uint(p+"cas_hits", c.CasHits)
		l.uint(p+"cas_badval", c.CasBadval)
		l.uint(p+"touch_hits", c.TouchHits)
	}
	l.uint("active_slabs", active)
	l.uint("total_malloced", s.cache.Stats().TotalMalloced)
}

// workerStats lists `stats workers`, which memcached has not: how evenly the load lies on the workers.
func (s *Server) workerStats(l *lister) {
	for i, w := range s.workers {
		p := strconv.Itoa(i) + ":"
		l.int(p+"curr_connections", w.counters.conns.Load())
		l.uint(p+"bytes_read", w.counters.bytesRead.Load())
		l.uint(p+"bytes_written", w.counters.bytesWritten.Load())
		l.uint(p+"conn_yields", w.counters.yields.Load())
		l.int(p+"cpu_us", threadTime(int(w.counters.thread.Load())).Microseconds())
	}
}

// connStats lists `stats conns`, listeners and connections by descriptor.
func (s *Server) connStats(l *lister, asking *conn) {
	for _, ls := range s.listeners {
		p := strconv.Itoa(ls.fd) + ":"
		l.str(p+"addr", addrText(ls.addr))
		l.str(p+"state", "conn_listening")
		l.zeros(p + "secs_since_last_cmd")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fds := make([]int, 0, len(s.registry))
	for fd := range s.registry {
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	for _, fd := range fds {
		c, p := s.registry[fd], strconv.Itoa(fd)+":"
		if c.udp != nil {
			local, _ := unix.Getsockname(fd)
			l.str(p+"UDP", "UDP")
			l.str(p+"addr", strings.Replace(addrText(netAddr(local)), "tcp", "udp", 1))
			l.str(p+"state", connRead.String())
			l.int(p+"secs_since_last_cmd", max(s.clock.Load()-c.lastCmd.Load(), 0))
			continue
		}
		peer, _ := unix.Getpeername(fd)
		local, _ := unix.Getsockname(fd)
		l.str(p+"addr", addrText(netAddr(peer)))
		l.str(p+"listen_addr", addrText(netAddr(local)))
		state := connState(c.state.Load()).String()
		if c == asking {
			state = "conn_parse_cmd"
		}
		l.str(p+"state", state)
		l.int(p+"secs_since_last_cmd", max(s.clock.Load()-c.lastCmd.Load(), 0))
	}
}

// addrText is an address in the shape of `stats conns`; the clients of a unix socket have none.
func addrText(a net.Addr) string {
	switch a := a.(type) {
	case *net.TCPAddr:
		if a.IP.To4() == nil {
			return "tcp6:" + a.String()
		}
		return "tcp:" + a.String()
	case *net.UnixAddr:
		if a.Name != "" && a.Name != "@" { // an unbound socket's name comes as either
			return "unix:" + a.Name
		}
	}
	return "?:<AF 0>"
}
