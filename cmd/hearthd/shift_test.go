package main

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// shifter is a client of one server: it gets keys, most of them the low ones, and stores what it misses.
type shifter struct {
	w       *wire
	draw    uint32
	refused int
}

func newShifter(addr string) (*shifter, error) {
	w, err := dialWire(addr)
	return &shifter{w: w, draw: 1}, err
}

// some makes n requests for values of a size under the keys below most, and returns how many hit.
func (s *shifter) some(n, most, size int) (hits int, err error) {
	keys := make([]string, n)
	missing := map[string]bool{}
	for i := range keys {
		s.draw = s.draw*1664525 + 1013904223
		x := float64(s.draw>>8) / (1 << 24)
		keys[i] = fmt.Sprintf("%d-%d", size, int(float64(most)*x*x))
		missing[keys[i]] = true
	}
	s.w.w.WriteString("get " + strings.Join(keys, " ") + "\r\n")
	s.w.SetDeadline(time.Now().Add(patience))
	if err := s.w.w.Flush(); err != nil {
		return 0, err
	}
	for {
		line, err := s.w.r.ReadString('\n')
		if err != nil {
			return hits, err
		}
		if line == "END\r\n" {
			break
		}
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] != "VALUE" || fields[3] != fmt.Sprint(size) {
			return hits, fmt.Errorf("get: %q", line)
		}
		if _, err := s.w.r.Discard(size + 2); err != nil {
			return hits, err
		}
		hits++
		delete(missing, fields[1])
	}
	value := make([]byte, size)
	for key := range missing {
		s.w.set(key, value)
	}
	if err := s.w.w.Flush(); err != nil {
		return hits, err
	}
	for range missing {
		line, err := s.w.r.ReadString('\n')
		if err != nil {
			return hits, err
		}
		if line != "STORED\r\n" {
			if !strings.HasPrefix(line, "SERVER_ERROR out of memory") {
				return hits, fmt.Errorf("set: %q", line)
			}
			s.refused++
		}
	}
	return hits, nil
}

// shiftWindow is what hit ratios are taken over.
const shiftWindow = 5 * time.Second

// window makes rate requests a second and returns how many of them hit.
func (s *shifter) window(rate, most, size int) (ratio float64, err error) {
	const batch = 50
	tick := time.NewTicker(time.Second * batch / time.Duration(rate))
	defer tick.Stop()
	hits, gets := 0, 0
	for end := time.Now().Add(shiftWindow); time.Now().Before(end); <-tick.C {
		n, err := s.some(batch, most, size)
		if err != nil {
			return 0, err
		}
		hits, gets = hits+n, gets+batch
	}
	return float64(hits) / float64(gets), nil
}

// recovered is the number of windows after which a server's ratios stay within two points of a fresh server's, over three windows at a time, which scatter less.
func recovered(ratios, fresh []float64) (windows int) {
	for i := 2; i < len(ratios); i++ {
		below := 0.0
		for j := i - 2; j <= i; j++ {
			below += (fresh[j] - ratios[j]) / 3
		}
		if below > 0.02 {
			windows = i + 1
		}
	}
	return windows
}

// TestAutomoverRecoversAsSoonAsMemcached turns clients from values of 100 bytes to values of 4 KB and back, in real time, with hearthd, memcached, and for each turn a fresh
// one of both under the same requests. How soon a server's hit ratio is that of its fresh fellow is compared. A turn is over when both have kept to it for a while.
func TestAutomoverRecoversAsSoonAsMemcached(t *testing.T) {
	if !long {
		t.Skip("takes up to eight minutes, and a machine for itself; TestAutomoveFollowsTheLoad does the same in one process and in no time")
	}
	memcached, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("memcached is not installed (apt-get install memcached)")
	}
	const mib, rate, fill, least, most, kept = 24, 8000, 6, 17, 42, 6 // the last four are windows
	const small, large = mib * 12000, mib * 500
	args := []string{"-l", "127.0.0.1", "-m", fmt.Sprint(mib), "-o", "slab_reassign,slab_automove=1,slab_automove_window=10"}
	client := func(addr string) *shifter {
		s, err := newShifter(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.w.Close() })
		return s
	}
	type server struct {
		name           string
		start          func() string
		addr           string
		aged, fresh    *shifter
		ratios, beside []float64 // the windows of the turn
	}
	servers := []*server{
		{name: "hearthd", start: func() string { return startHearthd(t, args...).addr }},
		{name: "memcached", start: func() string { addr, _ := startMemcached(t, memcached, args...); return addr }},
	}
	for _, s := range servers {
		s.addr = s.start()
		s.aged = client(s.addr)
	}
	// window has all clients that there are make requests for a window.
	window := func(most, size int) {
		var all sync.WaitGroup
		for _, s := range servers {
			run := func(c *shifter, ratios *[]float64) {
				all.Go(func() {
					ratio, err := c.window(rate, most, size)
					if err != nil {
						t.Error(s.name, err)
					}
					*ratios = append(*ratios, ratio)
				})
			}
			if run(s.aged, &s.ratios); s.fresh != nil {
				run(s.fresh, &s.beside)
			}
		}
		if all.Wait(); t.Failed() {
			t.FailNow()
		}
	}
	for range fill {
		window(small, 100)
	}
	for _, turn := range []struct{ most, size int }{{large, 4096}, {small, 100}} {
		for _, s := range servers {
			s.fresh, s.ratios, s.beside = client(s.start()), nil, nil
			s.fresh.draw = s.aged.draw
		}
		took := func(s *server) int { return recovered(s.ratios, s.beside) }
		n := 0
		for ; n < least || n < most && n < max(took(servers[0]), took(servers[1]))+kept; n++ {
			window(turn.most, turn.size)
		}
		for _, s := range servers {
			t.Logf("%s, values of %d bytes: within two points of a fresh one after %v; at the end %.3f, fresh %.3f; %s pages moved so far, %d sets refused\n%.3f\n%.3f", s.name, turn.size,
				time.Duration(took(s))*shiftWindow, s.ratios[n-1], s.beside[n-1], stat(t, s.addr, "slabs_moved"), s.aged.refused, s.ratios, s.beside)
		}
		// A window on either side is where the two happened to begin; one more, what the samples scatter.
		if ours, theirs := took(servers[0]), took(servers[1]); ours > theirs+2 || ours == most && theirs < most {
			t.Errorf("values of %d bytes: hearthd is within two points of a fresh server after %v, memcached after %v", turn.size, time.Duration(ours)*shiftWindow, time.Duration(theirs)*shiftWindow)
		}
	}
}
