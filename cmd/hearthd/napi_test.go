package main

import "testing"

func TestNAPIIDsReachTheServer(t *testing.T) {
	p := startHearthd(t, "-t", "3", "-N", "2")
	if n := statsOf(t, p.addr, "settings")["num_napi_ids"]; n != "2" {
		t.Errorf("num_napi_ids %s, want 2", n)
	}
	if n := stat(t, p.addr, "round_robin_fallback"); n != "2" { // both connections came over the loopback
		t.Errorf("round_robin_fallback %s, want 2", n)
	}
}
