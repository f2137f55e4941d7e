package main

import (
	"errors"
	"fmt"
	"net"
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

// phase makes rate requests a second for a number of windows, and returns the hit ratio of each.
func (s *shifter) phase(windows, rate, most, size int) (ratios []float64, err error) {
	const batch = 50
	tick := time.NewTicker(time.Second * batch / time.Duration(rate))
	defer tick.Stop()
	for range windows {
		hits, gets := 0, 0
		for end := time.Now().Add(shiftWindow); time.Now().Before(end); <-tick.C {
			n, err := s.some(batch, most, size)
			if err != nil {
				return ratios, err
			}
			hits, gets = hits+n, gets+batch
		}
		ratios = append(ratios, float64(hits)/float64(gets))
	}
	return ratios, nil
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
// one of both under the same requests. How soon a server's hit ratio is that of its fresh fellow is compared.
func TestAutomoverRecoversAsSoonAsMemcached(t *testing.T) {
	if !long {
		t.Skip("takes three minutes and a half, and a machine for itself; TestAutomoveFollowsTheLoad does the same in one process and in no time")
	}
	memcached, err := exec.LookPath("memcached")
	if err != nil {
		t.Skip("memcached is not installed (apt-get install memcached)")
	}
	const mib, rate, fill, windows = 24, 8000, 6, 17
	const small, large = mib * 12000, mib * 500
	args := []string{"-l", "127.0.0.1", "-m", fmt.Sprint(mib), "-o", "slab_reassign,slab_automove=1,slab_automove_window=10"}
	start := map[string]func() string{
		"hearthd":   func() string { return startHearthd(t, args...).addr },
		"memcached": func() string { addr, _ := startMemcached(t, memcached, args...); return addr },
	}
	took := map[string][2]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, start := range start {
		addr, fresh := start(), [2]string{start(), start()}
		all.Go(func() {
			err := func() error {
				s, err := newShifter(addr)
				if err != nil {
					return err
				}
				defer s.w.Close()
				if _, err := s.phase(fill, rate, small, 100); err != nil {
					return err
				}
				var turns [2]int
				for turn, phase := range []struct{ most, size int }{{large, 4096}, {small, 100}} {
					other, err := newShifter(fresh[turn])
					if err != nil {
						return err
					}
					defer other.w.Close()
					other.draw = s.draw
					var side sync.WaitGroup
					var beside []float64
					var wrong error
					side.Go(func() { beside, wrong = other.phase(windows, rate, phase.most, phase.size) })
					ratios, err := s.phase(windows, rate, phase.most, phase.size)
					side.Wait()
					if err = errors.Join(err, wrong); err != nil {
						return err
					}
					turns[turn] = recovered(ratios, beside)
					t.Logf("%s, values of %d bytes: within two points of a fresh one after %v; at the end %.3f, fresh %.3f; %s pages moved so far, %d sets refused\n%.3f\n%.3f", name, phase.size,
						time.Duration(turns[turn])*shiftWindow, ratios[windows-1], beside[windows-1], stat(t, addr, "slabs_moved"), s.refused, ratios, beside)
				}
				mu.Lock()
				defer mu.Unlock()
				took[name] = turns
				return nil
			}()
			if err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(name, err)
			}
		})
	}
	all.Wait()
	for turn, size := range []int{4096, 100} {
		// A window on either side is where the two happened to begin; one more, what the samples scatter.
		if ours, theirs := took["hearthd"][turn], took["memcached"][turn]; ours > theirs+2 || ours == windows && theirs < windows {
			t.Errorf("values of %d bytes: hearthd is within two points of a fresh server after %v, memcached after %v", size, time.Duration(ours)*shiftWindow, time.Duration(theirs)*shiftWindow)
		}
	}
}
