package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestDebugtimeMovesTheClockThatItemsExpireBy(t *testing.T) {
	p := startHearthd(t, "-o", "debugtime", "-m", "8")
	// Sent as one piece: a shift counts from the next request on, also on the same connection.
	c := converse(t, p.addr)
	now := func() int {
		n, err := strconv.Atoi(stat(t, p.addr, "time"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c.ask("debugtime p", "OK")
	began := now()
	c.set("short", 100, "a")
	c.set("long", 100000, "b")
	c.ask("debugtime 99\nget short", "OK\nVALUE short 0 1\na\nEND")
	c.ask("debugtime 1\nget short\nget long", "OK\nEND\nVALUE long 0 1\nb\nEND")
	if at := now(); at != began+100 {
		t.Errorf("the clock is %d s ahead, want 100", at-began)
	}
	c.ask("debugtime -50", "OK")
	if at := now(); at != began+50 {
		t.Errorf("the clock is %d s ahead, want 50", at-began)
	}
	if up := stat(t, p.addr, "uptime"); len(up) < 2 { // 50 and what the start took
		t.Errorf("uptime %s, want it shifted too", up)
	}
	c.ask("flush_all 10", "OK")
	c.wantValue("long", "b")
	c.ask("debugtime 10", "OK")
	c.wantMiss("long")
	c.ask("debugtime r", "OK")
	if at := now(); at < began+60 {
		t.Errorf("the clock is %d s ahead, want at least 60", at-began)
	}
	for _, bad := range []string{"debugtime", "debugtime x", "debugtime 1x", "debugtime 99999999999"} {
		c.ask(bad, "ERROR")
	}
}

func TestDebugtimeClosesIdleConnections(t *testing.T) {
	p := startHearthd(t, "-o", "debugtime,idle_timeout=1000", "-m", "8", "-t", "1")
	idle, err := dialWire(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	idle.set("k", nil)
	idle.w.Flush()
	if err := idle.stored(); err != nil {
		t.Fatal(err)
	}
	if r := talk(t, p.addr, "debugtime 1001"); r[0] != "OK" {
		t.Fatal(r)
	}
	if _, err := idle.r.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
}

func TestDebugtimeIsOffUnlessAskedForAndHasNoFile(t *testing.T) {
	p := startHearthd(t)
	if r := talk(t, p.addr, "debugtime p", "debugtime 5", "debugtime r"); strings.Join(r, " ") != "ERROR ERROR ERROR" {
		t.Errorf("without -o debugtime: %q", r)
	}
	file := newFile(t)
	refused := launch(t, "-o", "debugtime", "-e", file)
	if code := refused.wait(t); code != exUsage || refused.stderr.String() != "hearthd: -o debugtime: cannot be used with -e, whose file would remember a time that never was\n" {
		t.Errorf("with -e: exit %d, %s", code, refused.stderr)
	}
	p.stop(t, syscall.SIGTERM)
}
