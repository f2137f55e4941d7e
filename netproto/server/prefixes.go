package server

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"hearth/netproto"
)

// maxPrefixes bounds what clients can make us remember.
const maxPrefixes = 65536

// prefixStats counts requests by the part of the key in front of the delimiter, for `stats detail`. Keys without a delimiter are not
// counted. It is off unless asked for, and then takes a lock for each key, as in memcached.
type prefixStats struct {
	on        atomic.Bool
	delimiter byte

	mu     sync.Mutex
	counts map[string]*prefixCounts // under mu
}

type prefixCounts struct{ gets, hits, sets, deletes uint64 }

func (p *prefixStats) init(delimiter byte, on bool) {
	p.delimiter, p.counts = delimiter, map[string]*prefixCounts{}
	p.on.Store(on)
}

func (p *prefixStats) count(key []byte, f func(*prefixCounts)) {
	end := bytes.IndexByte(key, p.delimiter)
	if end < 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.counts[string(key[:end])]
	if n == nil {
		if len(p.counts) == maxPrefixes {
			return
		}
		n = new(prefixCounts)
		p.counts[string(key[:end])] = n
	}
	f(n)
}

// get, set and delete count a request if it is on: the look at that is inlined.
func (p *prefixStats) get(key []byte, hit bool) {
	if p.on.Load() {
		p.countGet(key, hit)
	}
}

func (p *prefixStats) set(key []byte) {
	if p.on.Load() {
		p.count(key, func(n *prefixCounts) { n.sets++ })
	}
}

func (p *prefixStats) delete(key []byte) {
	if p.on.Load() {
		p.count(key, func(n *prefixCounts) { n.deletes++ })
	}
}

func (p *prefixStats) countGet(key []byte, hit bool) {
	p.count(key, func(n *prefixCounts) {
		n.gets++
		if hit {
			n.hits++
		}
	})
}

func (p *prefixStats) reset() {
	p.mu.Lock()
	clear(p.counts)
	p.mu.Unlock()
}

func (p *prefixStats) dump(dst []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, prefix := range slices.Sorted(maps.Keys(p.counts)) {
		n := p.counts[prefix]
		dst = netproto.AppendPrefix(dst, prefix, n.gets, n.hits, n.sets, n.deletes)
	}
	return append(dst, netproto.End...)
}
