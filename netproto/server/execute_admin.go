package server

import (
	"strconv"
	"sync/atomic"
	"time"

	"hearth"
	"hearth/netproto"
)

// Tuning is what admin commands change of background work; `stats settings` shows it.
type Tuning struct {
	NoCrawler      bool    // lru_crawler enable, disable (-o no_lru_crawler): refuses crawls and dumps, and starts no crawls by itself
	CrawlerSleep   int     // lru_crawler sleep: microseconds that a crawl rests after a thousand items
	CrawlerToCrawl uint64  // lru_crawler tocrawl: items of an LRU segment that a crawl looks at; 0: all
	Automove       int     // slabs automove: 0 to 2
	AutomoveRatio  float64 // slabs automove ratio
	AutomoveFree   float64 // slabs automove freeratio; kept and shown only, it is for external storage
	AutomoveWindow int     // slabs automove window: seconds
}

// DefaultTuning is memcached's.
var DefaultTuning = Tuning{CrawlerSleep: 100, Automove: 1, AutomoveRatio: 0.8, AutomoveFree: 0.01, AutomoveWindow: 10}

// tuning returns the settings of now.
func (s *Server) tuning() Tuning {
	s.tuneMu.Lock()
	defer s.tuneMu.Unlock()
	return s.tune
}

// admin serves w.req, an admin command.
func (w *worker) admin(c *conn) {
	a, s := &w.req.Admin, w.srv
	s.tuneMu.Lock() // operators in a hurry are the only ones who could meet here
	defer s.tuneMu.Unlock()
	t, reply := &s.tune, netproto.OK
	switch a.Op {
	case netproto.AdminReassign:
		reply = s.reassign(a.A, a.B)
	case netproto.AdminAutomove:
		t.Automove = int(a.A)
	case netproto.AdminAutomoveRatio:
		t.AutomoveRatio = a.X
	case netproto.AdminAutomoveFreeRatio:
		t.AutomoveFree = a.X
	case netproto.AdminAutomoveWindow:
		t.AutomoveWindow = int(a.A)
	case netproto.AdminTune, netproto.AdminModeFlat, netproto.AdminModeSegmented, netproto.AdminTempTTL:
		reply = s.tuneLRU(a)
	case netproto.AdminCrawlerEnable:
		if !t.NoCrawler {
			reply = netproto.CrawlerNoStart
		}
		t.NoCrawler = false
	case netproto.AdminCrawlerDisable:
		t.NoCrawler = true
		s.autocrawl(t) // before the one that is running ends, or another could begin
		s.cache.StopCrawl()
	case netproto.AdminCrawlerSleep:
		t.CrawlerSleep = int(a.A)
	case netproto.AdminCrawlerToCrawl:
		t.CrawlerToCrawl = uint64(a.A)
	case netproto.AdminCrawl:
		reply = s.crawl(a)
	case netproto.AdminMetadump, netproto.AdminMgdump:
		reply = w.startDump(c, a)
	case netproto.AdminMemlimit:
		if s.cache.SetMemoryLimit(a.A<<20) != nil {
			reply = netproto.MemlimitFailed
		}
	case netproto.AdminWatch:
		reply = w.startWatch(c, a)
	case netproto.AdminRefreshCerts:
		if reply = netproto.TLSNotThere; s.o.TLS != nil {
			reply = netproto.RefreshReply(s.o.TLS.Load())
		}
	case netproto.AdminDebugPause, netproto.AdminDebugResume, netproto.AdminDebugShift:
		reply = w.debugTime(a)
	}
	s.autocrawl(t)
	if a.Op >= netproto.AdminAutomove && a.Op <= netproto.AdminAutomoveWindow && s.automove(t) != nil {
		reply = netproto.Error
	}
	w.reply(reply)
}

// debugTime changes the clock, and with it what counts as idle.
func (w *worker) debugTime(a *netproto.Admin) string {
	s, clock := w.srv, w.srv.o.DebugClock
	if clock == nil {
		return netproto.Error
	}
	passed := time.Duration(0)
	switch a.Op {
	case netproto.AdminDebugPause:
		clock.Pause()
	case netproto.AdminDebugResume:
		passed = clock.Resume()
	default:
		passed = time.Duration(a.A) * time.Second
		clock.Shift(passed)
	}
	w.s.Tick()
	s.pass(int64(passed / time.Second))
	return netproto.OK
}

// reassign asks for a page move, in memcached's words.
func (s *Server) reassign(src, dst int64) string {
	return [...]string{
		hearth.MoveStarted: netproto.OK, hearth.MoveOff: netproto.ReassignOff, hearth.MoveBusy: netproto.ReassignBusy, hearth.MoveSame: netproto.ReassignSame,
		hearth.MoveBadClass: netproto.ReassignBadClass, hearth.MoveNoSpare: netproto.ReassignNoSpare,
	}[s.cache.MovePage(int(src), int(dst))]
}

// automove hands the settings of the automover to the cache.
func (s *Server) automove(t *Tuning) error {
	return s.cache.SetAutomove(hearth.AutomoveSettings{Mode: t.Automove, Ratio: t.AutomoveRatio, Window: t.AutomoveWindow})
}

// autocrawl hands the settings of the crawler's own starts to the cache. In memcached they are the maintainer's business.
func (s *Server) autocrawl(t *Tuning) {
	s.cache.SetAutocrawl(hearth.AutocrawlSettings{Off: t.NoCrawler || s.o.NoLRUMaintainer, Sleep: t.crawlerSleep(), Most: t.CrawlerToCrawl})
}

func (t *Tuning) crawlerSleep() time.Duration {
	return time.Duration(t.CrawlerSleep) * time.Microsecond
}

func (s *Server) tuneLRU(a *netproto.Admin) string {
	l := s.cache.LRU()
	switch a.Op {
	case netproto.AdminTune:
		l.HotPct, l.WarmPct, l.HotMaxFactor, l.WarmMaxFactor = int(a.A), int(a.B), a.X, a.Y
	case netproto.AdminTempTTL:
		if l.Temp = a.A >= 0; l.Temp {
			l.TempTTL = uint32(a.A)
		}
	default:
		l.Flat = a.Op == netproto.AdminModeFlat
	}
	if s.o.NoLRUMaintainer && a.Op != netproto.AdminTune || s.cache.SetLRU(l) != nil {
		return netproto.Error
	}
	return netproto.OK
}

// crawl starts a crawl. memcached walks its hash table for dumps only.
func (s *Server) crawl(a *netproto.Admin) string {
	switch {
	case s.tune.NoCrawler:
		return netproto.CrawlerOff
	case a.Problem != "":
		return a.Problem
	case a.Classes.Hash:
		return netproto.CrawlError
	}
	o := hearth.CrawlOptions{Class: a.Classes.Has, Sleep: s.tune.crawlerSleep(), Most: s.tune.CrawlerToCrawl}
	if !s.cache.Crawl(o) {
		return netproto.CrawlBusy
	}
	return netproto.OK
}

// dump is a metadump or mgdump on its way to a client. One is under way at a time, since a walk remembers what it has seen.
type dump struct {
	walk     hearth.Walk
	classes  netproto.Classes
	keysOnly bool
	progress atomic.Int64 // Server.clock when the client last took something

	others uint64    // Server.bytesRead when it last looked
	until  time.Time // it rests
}

const (
	// dumpRest is for how long a dump rests after a turn when anybody else sends something, some ten times as long as that took. A worker that never waits has its
	// fair share of a processor, however many other threads want one, and others' requests wait for it.
	dumpRest = time.Millisecond
	// dumpPatience is after how many seconds without progress a dump gives way to another one.
	dumpPatience = 60
)

// startDump begins a dump on c; the lines follow as the client takes them.
func (w *worker) startDump(c *conn, a *netproto.Admin) (reply string) {
	off, pipelined := netproto.MetadumpOff, netproto.MetadumpPipelined
	if a.Op == netproto.AdminMgdump {
		off, pipelined = netproto.MgdumpOff, netproto.MgdumpPipelined
	}
	s := w.srv
	switch {
	case s.tune.NoCrawler:
		return netproto.CrawlerOff
	case s.o.DisableDumping:
		return off
	case w.o.pending():
		return pipelined
	case a.Problem != "":
		return a.Problem
	case c.udp != nil:
		return netproto.Error
	case w.req.Noreply:
		return "" // nobody would read it
	}
	d := &dump{classes: a.Classes, keysOnly: a.Op == netproto.AdminMgdump, others: s.bytesRead()}
	d.progress.Store(s.clock.Load())
	for {
		other := s.dump.Load()
		if other != nil && s.clock.Load()-other.progress.Load() <= dumpPatience {
			return netproto.CrawlBusy
		}
		if s.dump.CompareAndSwap(other, d) {
			c.dump = d
			s.cache.PutOffAutocrawl()
			return netproto.OK
		}
	}
}

// answerDump goes on with c.dump by one step of its walk, which fills about one write. False: it has to go on in another turn.
func (w *worker) answerDump(c *conn) bool {
	d, now := c.dump, int64(w.srv.cache.Now())
	if w.stopping || w.srv.dump.Load() != d { // another dump took over, or we stop: without the end line, the client knows that it is not whole
		w.endDump(c)
		c.closing = true
		return true
	}
	d.progress.Store(w.srv.clock.Load())
	more := d.walk.Next(w.s, func(it *hearth.Item) {
		if !d.classes.Has(it.ClassID) {
			return
		}
		line := netproto.DumpedItem{Key: it.Key, KeyBinary: it.KeyBinary, Exptime: -1, LastUse: now - int64(it.Age), CAS: it.CAS,
			Fetched: it.Fetched, ClassID: it.ClassID, Size: it.Size, Flags: it.Flags}
		if it.Exptime != 0 {
			line.Exptime = int64(it.Exptime)
		}
		if d.keysOnly {
			w.o.small = netproto.AppendMgdump(w.o.small, &line)
		} else {
			w.o.small = netproto.AppendMetadump(w.o.small, &line)
		}
	})
	if !more {
		end := netproto.End
		if d.keysOnly {
			end = netproto.MgdumpEnd
		}
		w.o.small = append(w.o.small, end...)
		w.endDump(c)
		return true
	}
	if others := w.srv.bytesRead(); others != d.others {
		d.others, d.until = others, time.Now().Add(dumpRest)
	}
	return false
}

// endDump forgets c.dump, if there is one.
func (w *worker) endDump(c *conn) {
	if c.dump != nil {
		w.srv.dump.CompareAndSwap(c.dump, nil)
		c.dump = nil
	}
}

// cachedumpMost is the most bytes of a stats cachedump; memcached's.
const cachedumpMost = 2 << 20

// cachedump lists items of a class's COLD list, the newest first. Keys that were given in base64 are left out: they could hold line ends.
func (w *worker) cachedump(dst []byte, args [][]byte) []byte {
	if w.srv.o.DisableDumping {
		return append(dst, netproto.CachedumpOff...)
	}
	if len(args) < 2 {
		return append(dst, netproto.BadCommandLine...)
	}
	class, err := strconv.ParseUint(string(args[0]), 10, 64)
	most, err2 := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil || err2 != nil {
		return append(dst, netproto.BadFormat...)
	}
	class, most = class&(1<<32-1), most&(1<<32-1) // memcached keeps 32 bits
	if class >= 64 {
		return append(dst, netproto.IllegalSlabID...)
	}
	const shortest = len("ITEM k [0 b; 0 s]\r\n")
	if most == 0 || most > cachedumpMost/uint64(shortest) {
		most = cachedumpMost / uint64(shortest)
	}
	begin := len(dst)
	w.s.Cold(int(class), int(most), func(it *hearth.Item) bool {
		if it.KeyBinary {
			return true
		}
		longer := netproto.AppendCachedump(dst, it.Key, it.Len(), it.Exptime)
		if len(longer)-begin+len(netproto.End) > cachedumpMost {
			return false
		}
		dst = longer
		return true
	})
	return append(dst, netproto.End...)
}

// sizes lists `stats sizes`.
func (s *Server) sizes(l *lister) {
	if !s.cache.ItemSizes(func(size, items int) { l.int(strconv.Itoa(size), int64(items)) }) {
		l.str("sizes_status", "disabled")
	}
}
