package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodOfOneMessageIsCountedAndSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(output)
		log, calm := newLog(out, false)
		lines := func(part string) int { return strings.Count(out.String(), part) }
		for i := range 1000 {
			log.Warn("full", "n", i)
			log.Debug("request", "n", i)
		}
		log.Error("other")
		if lines("msg=full ") != calmLines || lines("msg=request") != 1000 || lines("msg=other") != 1 {
			t.Fatalf("%d lines of the flood, want %d; %d of debug, %d of another message\n%s", lines("msg=full "), calmLines, lines("msg=request"), lines("msg=other"), out)
		}
		time.Sleep(calmTime)
		synctest.Wait()
		if want := fmt.Sprintf("level=WARN msg=full n=999 like_this=%d within=10s\n", 1000-calmLines); lines(want) != 1 || lines("msg=full") != calmLines+1 {
			t.Fatalf("misses %q\n%s", want, out)
		}
		log.Warn("full", "n", "again") // the flood is over: it passes at once
		if lines("n=again") != 1 {
			t.Fatalf("%s", out)
		}
		time.Sleep(3 * calmTime)
		synctest.Wait()
		if lines("like_this") != 1 {
			t.Fatalf("a sum of nothing\n%s", out)
		}
		for range calmLines + 5 {
			log.With("k", "v").Error("last words")
		}
		calm.flush()
		if lines("like_this=5 ") != 1 {
			t.Fatalf("what was held at the end is not told\n%s", out)
		}
	})
}

// A steady trickle below the limit is written line by line for ever.
func TestATrickleIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(output)
		log, _ := newLog(out, false)
		for range 100 {
			log.Info("now and then")
			time.Sleep(calmTime / calmLines * 2)
		}
		if n := strings.Count(out.String(), "now and then"); n != 100 || strings.Contains(out.String(), "like_this") {
			t.Errorf("%d of 100 lines", n)
		}
	})
}

// logged are the lines of a JSON log, by message; every line of stderr must be one.
func logged(t *testing.T, stderr string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for line := range strings.Lines(stderr) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil || l["time"] == nil || l["level"] == nil {
			t.Errorf("no JSON line: %q, %v", line, err)
			continue
		}
		all[fmt.Sprint(l[slog.MessageKey])] = l
	}
	return all
}

func TestJSONLogHasALineForStartVerdictAndStop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "slab")
	for _, kind := range []string{"cold", "clean", "unclean"} {
		p := startHearthd(t, "-e", file, "-o", "log_format=json")
		end := syscall.SIGTERM
		if kind == "clean" {
			end = syscall.SIGKILL
		}
		p.stop(t, end)
		l := logged(t, p.stderr.String())
		if v := l["cache opened"]; v["start"] != kind || v["reason"] == "" || v["file"] != file {
			t.Errorf("the verdict: %v, want start %s", v, kind)
		}
		if v := l["started"]; v["addr"] != p.addr || v["pid"] != float64(p.cmd.Process.Pid) {
			t.Errorf("the start: %v", v)
		}
		if v := l["stopped"]; end == syscall.SIGTERM && v["reason"] != "signal" {
			t.Errorf("the stop: %v", v)
		}
	}
}

// What ends a start is a line of the log too where that is JSON; as text it is memcached's.
func TestJSONLogHasALineForTheError(t *testing.T) {
	other := startHearthd(t)
	port := other.addr[strings.LastIndexByte(other.addr, ':')+1:]
	p := launch(t, "-p", port, "-o", "log_format=json")
	if code := p.wait(t); code != exOSErr {
		t.Errorf("exit code %d", code)
	}
	said := "failed to listen on one of interface(s) 127.0.0.1: Address already in use"
	if v := logged(t, p.stderr.String())["ended"]; v["level"] != "ERROR" || v["code"] != float64(exOSErr) || v["err"] != said {
		t.Errorf("%v, want %q\n%s", v, said, p.stderr)
	}
}

func TestVerbosityIsWhatTheCommandLineOrTheCommandSays(t *testing.T) {
	request := regexp.MustCompile(`level=DEBUG msg="server: request" fd=\d+ line="get nothing"`)
	for flags, want := range map[string]bool{"": false, "-v": false, "-vv": true} {
		p := startHearthd(t, words(flags)...)
		replies(t, p.addr, "get nothing\r\n", "END\r\n")
		replies(t, p.addr, "verbosity 1\r\n", "OK\r\n")
		replies(t, p.addr, "get quiet\r\n", "END\r\n")
		replies(t, p.addr, "verbosity 2\r\n", "OK\r\n")
		replies(t, p.addr, "get loud\r\n", "END\r\n")
		p.stop(t, syscall.SIGTERM)
		if got := request.MatchString(p.stderr.String()); got != want {
			t.Errorf("%q: request lines %v, want %v\n%s", flags, got, want, p.stderr)
		}
		if strings.Contains(p.stderr.String(), "get quiet") || !strings.Contains(p.stderr.String(), `line="get loud"`) {
			t.Errorf("%q: the verbosity command has no effect\n%s", flags, p.stderr)
		}
	}
}

func TestVerboseTellsOfClientsTurnedAway(t *testing.T) {
	for flags, want := range map[string]bool{"-c 1": false, "-c 1 -v": true} {
		p := startHearthd(t, words(flags)...)
		c := connect(t, p.addr)
		fmt.Fprintf(c, "mn\r\n")
		c.Read(make([]byte, 4))
		if got := exchange(t, p.addr, "", ""); got != "ERROR Too many open connections\r\n" {
			t.Errorf("%q", got)
		}
		p.stop(t, syscall.SIGTERM)
		if got := strings.Contains(p.stderr.String(), `level=WARN msg="server: too many connections" limit=1`); got != want {
			t.Errorf("%q: %v, want %v\n%s", flags, got, want, p.stderr)
		}
	}
}
