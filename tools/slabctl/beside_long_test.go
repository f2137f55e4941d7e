//go:build long

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// While the tool runs all the time, a server at a rate that leaves the processors time answers about as fast as alone: medians of the 99th percentiles of rounds that alternate.
// Server, load and tool share the processors, each in a session of its own. It wants a machine that nobody else uses: where others disturb it, both figures tell of them.
func TestToolLeavesTheServerTheProcessors(t *testing.T) {
	const rounds, items, rate, most = 25, 5_000_000, 15_000, 1.5
	dir := memoryDir(t)
	file, program, mcbench := filepath.Join(dir, "live.slab"), build(t, dir, "hearth/tools/slabctl"), build(t, dir, "hearth/tools/mcbench")
	p := serve(t, true, hearthdProgram(t), "-m", "1500", "-e", file)
	load := func(args ...string) (p50, p99 float64) {
		cmd := exec.Command(mcbench, append([]string{"run", "--json", "--addr", p.addr, "--keys", strconv.Itoa(items)}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		var r struct {
			Latency struct{ P50, P99 float64 } `json:"latency_us"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		return r.Latency.P50, r.Latency.P99
	}
	load("--requests", "1")
	// The tool runs one verb after the other, and is stopped while the server is measured alone: so whole runs are beside the server, from their start to their end.
	tool := exec.Command("sh", "-c", `set -e; while :; do "$0" check "$1"; "$0" prefixes "$1"; "$0" report "$1" -o "$1.html"; "$0" stats "$1"; done`, program, file)
	tool.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var says bytes.Buffer
	tool.Stdout, tool.Stderr = &says, &says
	tell := func(s syscall.Signal) { syscall.Kill(-tool.Process.Pid, s) }
	end := sync.OnceFunc(func() {
		tell(syscall.SIGCONT)
		tell(syscall.SIGTERM)
		tool.Wait()
	})
	var alone, shared []float64
	for round := range rounds {
		measured := []string{"--fill=false", "--rate", strconv.Itoa(rate), "--duration", "2s", "--warm-up", "500ms"}
		if round > 0 {
			tell(syscall.SIGTSTP)
		}
		mid, high := load(measured...)
		if round > 0 {
			tell(syscall.SIGCONT)
		} else if err := tool.Start(); err != nil {
			t.Fatal(err)
		} else {
			t.Cleanup(end)
		}
		midBeside, highBeside := load(measured...)
		alone, shared = append(alone, high), append(shared, highBeside)
		t.Logf("round %d: p50 %.0f and beside the tool %.0f us, p99 %.0f and %.0f us", round, mid, midBeside, high, highBeside)
	}
	if end(); !tool.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("the tool: %v\n%s", tool.ProcessState, says.Bytes())
	}
	slices.Sort(alone)
	slices.Sort(shared)
	was, is := alone[rounds/2], shared[rounds/2]
	t.Logf("p99: %.0f us alone, %.0f us beside the tool: %.2f times", was, is, is/was)
	if is > most*was {
		t.Errorf("the server's p99 is %.2f times what it is alone, want at most %v times", is/was, most)
	}
}
