package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dialogue is one connection for commands whose replies a client library would hide.
type dialogue struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func converse(t testing.TB, addr string) *dialogue {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return &dialogue{t, c, bufio.NewReader(c)}
}

// ask sends a command, with \n for line ends, and wants this reply.
func (d *dialogue) ask(command, want string) {
	d.t.Helper()
	io.WriteString(d, strings.ReplaceAll(command, "\n", "\r\n")+"\r\n")
	got := make([]byte, len(want)+strings.Count(want, "\n")+2)
	if _, err := io.ReadFull(d.r, got); err != nil || string(got) != strings.ReplaceAll(want, "\n", "\r\n")+"\r\n" {
		d.t.Fatalf("%.60q: %q (%v), want %q", command, got, err, want)
	}
}

func (d *dialogue) set(key string, exptime int, value string) {
	d.t.Helper()
	d.ask(fmt.Sprintf("set %s 0 %d %d\n%s", key, exptime, len(value), value), "STORED")
}

func (d *dialogue) wantValue(key, value string) {
	d.t.Helper()
	d.ask("get "+key, fmt.Sprintf("VALUE %s 0 %d\n%s\nEND", key, len(value), value))
}

func (d *dialogue) wantMiss(key string) {
	d.t.Helper()
	d.ask("get "+key, "END")
}

// untilSecond waits for the moment from which the cache counts n more seconds than at since: its second is the system's, read four times in one.
func untilSecond(since time.Time, n int) {
	time.Sleep(time.Until(since.Add(time.Duration(n+1)*time.Second + 300*time.Millisecond)))
}

// TestNothingDeadComesBack ends the server in every way after values died in every way; some die while it is down. Then it is killed once more, so that
// what a first start cleaned up, or failed to, shows in a second one.
func TestNothingDeadComesBack(t *testing.T) {
	const seconds = 2 // how long what dies while the server is down has to live
	big := strings.Repeat("v", 700_000)
	var back []func()
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGINT} {
		for _, flush := range []string{"", "flush_all 2"} { // a flush to come would hide the other deaths
			name, args := strings.TrimSpace(fmt.Sprintf("%v %s", end, flush)), []string{"-e", newFile(t), "-m", "64"}
			t.Run(name, func(t *testing.T) {
				p := startHearthd(t, args...)
				d := converse(t, p.addr)
				dead, alive := []string{}, map[string]string{}
				dies := func(key string, exptime int, value string) {
					t.Helper()
					d.set(key, exptime, value)
					dead = append(dead, key)
				}
				lives := func(key, before, after string) {
					t.Helper()
					if before != "" {
						d.set(key, 0, before)
					}
					alive[key] = after
				}
				dies("flushed", 0, "small")
				dies("flushed-big", 0, big)
				d.ask("flush_all", "OK")
				for n, v := range []string{"small", big} {
					k := func(name string) string { return fmt.Sprintf("%s-%d", name, n) }
					dies(k("deleted"), 0, v)
					d.ask("delete "+k("deleted"), "DELETED")
					dies(k("deleted-twice"), 0, v)
					d.ask("delete "+k("deleted-twice"), "DELETED")
					d.set(k("deleted-twice"), 0, v+"2")
					d.ask("delete "+k("deleted-twice"), "DELETED")
					dies(k("dead-on-arrival"), 0, v)
					d.set(k("dead-on-arrival"), -1, v)
					dies(k("touched-dead"), 0, v)
					d.ask("touch "+k("touched-dead")+" -1", "TOUCHED")
					dies(k("too-large"), 0, v)
					d.ask(fmt.Sprintf("set %s 0 0 %d\n%s", k("too-large"), 2<<20, strings.Repeat("x", 2<<20)), "SERVER_ERROR object too large for cache")
					dies(k("short"), seconds, v)
					dies(k("touched-short"), 0, v)
					d.ask(fmt.Sprintf("touch %s %d", k("touched-short"), seconds), "TOUCHED")
					dies(k("gat-short"), 1000, v)
					d.ask(fmt.Sprintf("gat %d %s", seconds, k("gat-short")), fmt.Sprintf("VALUE %s 0 %d\n%s\nEND", k("gat-short"), len(v), v))
					// A copy has the exptime of its original, whichever of copy and touch was first.
					dies(k("appended-short"), seconds, v)
					d.ask("append "+k("appended-short")+" 0 0 1\nx", "STORED")
					dies(k("appended-touched"), 0, v)
					d.ask("append "+k("appended-touched")+" 0 0 1\nx", "STORED")
					d.ask(fmt.Sprintf("touch %s %d", k("appended-touched"), seconds), "TOUCHED")

					lives(k("overwritten"), v, v+"new")
					d.set(k("overwritten"), 0, v+"new")
					lives(k("stored-again"), v, v+"new")
					d.ask("delete "+k("stored-again"), "DELETED")
					d.ask(fmt.Sprintf("add %s 0 0 %d\n%s", k("stored-again"), len(v)+3, v+"new"), "STORED")
					lives(k("appended"), v, v+"+")
					d.ask("append "+k("appended")+" 0 0 1\n+", "STORED")
					lives(k("prepended"), v, "+"+v)
					d.ask("prepend "+k("prepended")+" 0 0 1\n+", "STORED")
					lives(k("replaced"), v, "new")
					d.ask("replace "+k("replaced")+" 0 0 3\nnew", "STORED")
					lives(k("prolonged"), "", v)
					d.set(k("prolonged"), seconds, v)
					d.ask("touch "+k("prolonged")+" 1000", "TOUCHED")
					lives(k("long"), "", v)
					d.set(k("long"), 1000, v)
					lives(k("counter"), "41", "42")
					d.ask("incr "+k("counter")+" 1", "42")
				}
				if flush != "" {
					d.ask(flush, "OK")
					for key, v := range alive {
						d.wantValue(key, v) // not yet
						dead = append(dead, key)
					}
					clear(alive)
				}
				p.stop(t, end)
				d.Close()
				back = append(back, func() { t.Run(name+" and back", func(t *testing.T) { comesBack(t, args, end, dead, alive) }) })
			})
		}
	}
	untilSecond(time.Now(), seconds)
	for _, f := range back {
		f()
	}
}

// comesBack starts twice on what a server left, with a kill between, and looks who is dead and who is alive.
func comesBack(t *testing.T, args []string, end syscall.Signal, dead []string, alive map[string]string) {
	for _, again := range []syscall.Signal{syscall.SIGKILL, end} {
		p := startHearthd(t, args...)
		if kind := stat(t, p.addr, "restart_kind"); kind == "cold" {
			t.Fatalf("restart_kind %s\n%s", kind, p.stderr)
		}
		d := converse(t, p.addr)
		for _, key := range dead {
			d.wantMiss(key)
		}
		for key, v := range alive {
			d.wantValue(key, v)
		}
		d.set("after-all", 0, "value") // no flush of the past concerns it
		d.wantValue("after-all", "value")
		alive["after-all"] = "value"
		for _, key := range dead { // there is nothing to work on
			d.ask("touch "+key+" 0", "NOT_FOUND")
			d.ask("append "+key+" 0 0 1\nx", "NOT_STORED")
		}
		p.stop(t, again)
		d.Close()
	}
	t.Logf("%d dead keys stayed dead, %d living ones stayed, over two restarts", len(dead), len(alive))
}
