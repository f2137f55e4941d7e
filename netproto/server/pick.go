package server

import "slices"

// picker chooses the worker of each new connection. It belongs to the acceptor.
//
// With -N it goes by the NAPI id, which names the queue of the network card that the connection came in by: each new id takes the next worker that
// has none, and keeps it. An id more than there are workers means that the card's queues are others than before; then all is forgotten, and
// this id has the first worker. Connections without an id, those over the loopback and unix sockets, go round robin, as all do without -N.
type picker struct {
	srv  *Server
	next int   // round robin's
	ids  []int // by worker, of the first ones; nil without -N
}

func (s *Server) newPicker() *picker {
	p := &picker{srv: s}
	if s.o.NAPIIDs > 0 {
		p.ids = make([]int, 0, len(s.workers))
	}
	return p
}

// worker returns the number of the worker for a connection.
func (p *picker) worker(fd int) int {
	if p.ids == nil {
		return p.inTurn()
	}
	id := incomingNAPIID(fd)
	if id == 0 {
		p.srv.napi.fallback.Add(1)
		return p.inTurn()
	}
	if i := slices.Index(p.ids, id); i >= 0 {
		return i
	}
	if len(p.ids) == cap(p.ids) {
		p.srv.napi.unexpected.Add(1)
		p.ids = p.ids[:0]
	}
	p.ids = append(p.ids, id)
	return len(p.ids) - 1
}

func (p *picker) inTurn() int {
	w := p.next % len(p.srv.workers)
	p.next++
	return w
}
