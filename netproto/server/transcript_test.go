package server_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A transcript is a text file of exchanges with a server, testdata/transcripts/*.txt:
//
//	== name         starts a section. It has a connection of its own and starts with an empty cache
//	> text          is sent, with \r\n behind it
//	>~ text         is sent without \r\n
//	--              a short pause: what follows is sent by another write
//	! closes        the server closes the connection after this exchange
//	# newer: why    memcached 1.6.18 answers otherwise than the memcached we follow: the reply below it is the right one
//	< text          the reply, with \r\n behind it
//	<~ text         the rest of the reply, which does not end in \r\n
//	# text          a comment
//
// An empty line or a reply ends an exchange. In sent text and replies \xNN, \r, \n, \\ are bytes, <x*1000> is a thousand times x, and
// {cas KEY} the CAS id in the last gets of KEY in this section. CAS ids in replies are numbered as they appear ({1}, {2}, ...) and the version
// number is cut, so that all servers can give the same reply. So are the class and size in the reply to me, and times are rounded up to tens: a second may pass
// anywhere.
//
// What a server must answer is asked from the memcached of this machine as the test runs. The replies in the files are for machines without
// one, and for the exchanges that are marked newer. `go test -run Transcripts -update` writes them anew.

var updateTranscripts = flag.Bool("update", false, "write memcached's replies into testdata/transcripts")

type section struct {
	file, name string
	exchanges  []*exchange
}

type exchange struct {
	line   int      // of its first request, from 1
	last   int      // of its last request
	writes []string // in the notation of the file
	closes bool
	newer  bool
	want   string // the stored reply, in the notation of the file, a line each
}

// RunTranscripts checks that the server at addr (host:port, or the path of a unix socket) answers all transcripts as memcached does.
func RunTranscripts(t *testing.T, addr string) {
	t.Helper()
	oracle := startMemcached(t)
	for _, s := range readTranscripts(t) {
		if strings.HasPrefix(addr, "tls:") { // the oracle's unix socket is plain
			s.exchanges = slices.DeleteFunc(s.exchanges, func(e *exchange) bool { return strings.HasPrefix(e.writes[0], "refresh_certs") })
		}
		t.Run(s.name, func(t *testing.T) {
			for _, difference := range compare(s, addr, oracle) {
				t.Error(difference)
			}
		})
	}
}

// compare runs a section against addr and oracle ("": the stored replies) and returns the differences.
func compare(s section, addr, oracle string) (differences []string) {
	got, err := play(s, addr)
	if err != nil {
		differences = append(differences, err.Error())
	}
	var expected []string
	if oracle != "" {
		if expected, err = play(s, oracle); err != nil {
			return append(differences, "memcached itself: "+err.Error())
		}
	}
	for i, e := range s.exchanges[:len(got)] {
		want, by := e.want, "stored"
		if oracle != "" && !e.newer {
			want, by = expected[i], "memcached"
		}
		if got[i] != want {
			differences = append(differences, fmt.Sprintf("%s:%d: %s\n got %s\nwant %s (%s)",
				s.file, e.line, indent(strings.Join(e.writes, "")), indent(got[i]), indent(want), by))
		}
	}
	return differences
}

func indent(s string) string {
	s = strings.TrimSuffix(s, "\n")
	if len(s) > 1000 {
		s = s[:500] + " ... " + s[len(s)-500:]
	}
	return strings.ReplaceAll(s, "\n", "\n     ")
}

// play runs a section against a server and returns the replies, up to the exchange that went wrong.
func play(s section, addr string) (replies []string, err error) {
	conn, err := connect(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m := masker{numbers: map[string]int{}, last: map[string]string{}}
	if reply, err := ask(conn, []string{"flush_all\r\n"}, false, 0); err != nil || string(reply) != "OK\r\n" {
		return nil, fmt.Errorf("%s: flush_all before %q: %q, %v", s.file, s.name, reply, err)
	}
	for i, e := range s.exchanges {
		writes := make([]string, len(e.writes))
		for i, w := range e.writes {
			writes[i] = m.unmask(w)
		}
		reply, err := ask(conn, writes, e.closes, i+1)
		if err != nil {
			return replies, fmt.Errorf("%s:%d: %s: %w after %d bytes %.200q", s.file, e.line, indent(strings.Join(e.writes, "")), err, len(reply), reply)
		}
		replies = append(replies, m.mask(reply))
	}
	return replies, nil
}

// patience is far above what any exchange takes.
const patience = 10 * time.Second

// ask sends writes and returns what comes back. To find the end of it, it stores and fetches a value that no reply has held yet; when the
// server is to close the connection, nothing is sent behind the writes, since that could make the kernel drop the reply.
func ask(conn net.Conn, writes []string, closes bool, id int) (reply []byte, err error) {
	value := fmt.Sprintf("end of exchange %d", id)
	tail := fmt.Sprintf("STORED\r\nVALUE __end__ 0 %d\r\n%s\r\nEND\r\n", len(value), value)
	conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan error, 1)
	go func() { // beside the reading: neither side may have to wait for the other's buffers
		for i, w := range writes {
			if i > 0 {
				time.Sleep(2 * time.Millisecond) // nothing tells from outside that the server has read the first part
			}
			if i == len(writes)-1 && !closes {
				w += fmt.Sprintf("set __end__ 0 0 %d\r\n%s\r\nget __end__\r\n", len(value), value)
			}
			if _, err := io.WriteString(conn, w); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 64<<10)
	for closes || !bytes.HasSuffix(reply, []byte(tail)) {
		n, err := conn.Read(buf)
		reply = append(reply, buf[:n]...)
		if closes && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
			return reply, nil
		}
		if err != nil {
			return reply, err
		}
	}
	return reply[:len(reply)-len(tail)], <-sent
}

// masker replaces what differs between any two servers, and writes the rest in the notation of the files.
type masker struct {
	numbers map[string]int    // of the CAS ids seen, from 1
	last    map[string]string // the last CAS id of each key
}

var valueLine = regexp.MustCompile(`^VALUE (\S+) \d+ (\d+)( \d+)?\r\n`)

// mask returns a reply in the notation of the files, a line each.
func (m *masker) mask(reply []byte) string {
	var out strings.Builder
	for len(reply) > 0 {
		n := bytes.IndexByte(reply, '\n') + 1
		if n == 0 {
			n = len(reply)
		}
		line := reply[:n]
		if v := metaLine.FindSubmatch(line); v != nil {
			writeLine(&out, m.maskMeta(line))
			if len(v[1]) > 0 {
				size, _ := strconv.Atoi(string(v[1]))
				reply = reply[n:]
				n = min(size+2, len(reply))
				writeLine(&out, reply[:n])
			}
		} else if v := valueLine.FindSubmatch(line); v != nil {
			if cas := strings.TrimPrefix(string(v[3]), " "); cas != "" {
				m.last[string(v[1])] = cas
				line = fmt.Appendf(nil, "%s%s\r\n", line[:n-len(cas)-2], m.number(cas))
			}
			writeLine(&out, line)
			size, _ := strconv.Atoi(string(v[2]))
			reply = reply[n:]
			if n = size + 2; n > len(reply) {
				n = len(reply)
			}
			writeLine(&out, reply[:n]) // the value may hold anything, newlines too
		} else if bytes.HasPrefix(line, []byte("VERSION ")) {
			out.WriteString("< VERSION\n")
		} else {
			writeLine(&out, line)
		}
		reply = reply[n:]
	}
	return out.String()
}

// chosenCAS is how CAS ids start that transcripts choose themselves, with E.
const chosenCAS = "777777777"

// number returns the number of a CAS id, as it is written in a transcript.
func (m *masker) number(cas string) string {
	if cas == "0" || strings.HasPrefix(cas, chosenCAS) {
		return cas
	}
	if m.numbers[cas] == 0 {
		m.numbers[cas] = len(m.numbers) + 1
	}
	return fmt.Sprintf("{%d}", m.numbers[cas])
}

var (
	metaLine  = regexp.MustCompile(`^(?:VA (\d+)|HD|EN|NF|NS|EX|ME \S+)(?: .*)?\r\n`)
	metaFlag  = regexp.MustCompile(`( c| t| l| cas=| exp=| la=)(\d+)\b`)
	metaClass = regexp.MustCompile(`(^ME .*) cls=\d+ size=\d+`)
)

// maskMeta replaces in the line of a meta reply what differs between servers and from second to second.
func (m *masker) maskMeta(line []byte) []byte {
	line = metaFlag.ReplaceAllFunc(line, func(f []byte) []byte {
		sub := metaFlag.FindSubmatch(f)
		name, number := string(sub[1]), string(sub[2])
		switch name {
		case " c", " cas=":
			return []byte(name + m.number(number))
		}
		n, err := strconv.ParseUint(number, 10, 64)
		switch {
		case err != nil || n > 1<<31: // the TTL of what has just expired, which wraps in memcached
			n = 0
		case name == " l" || name == " la=":
			n = n / 10 * 10
		default:
			n = (n + 9) / 10 * 10
		}
		return fmt.Appendf(nil, "%s%d", name, n)
	})
	return metaClass.ReplaceAll(line, []byte("$1 cls= size="))
}

func writeLine(out *strings.Builder, line []byte) {
	mark := "< "
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		mark = "<~ "
	}
	out.WriteString(strings.TrimRight(mark+encode(text), " ") + "\n")
}

// encode writes bytes in the notation of the files.
func encode(text []byte) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		c, run := text[i], 1
		for i+run < len(text) && text[i+run] == c {
			run++
		}
		one := string(rune(c))
		switch {
		case c == '\\':
			one = `\\`
		case c == '\r':
			one = `\r`
		case c == '\n':
			one = `\n`
		case c < ' ' || c >= 0x7f || c == '<' || c == ' ' && (i == 0 || i+run == len(text)): // a blank at an edge is too easily lost
			one = fmt.Sprintf(`\x%02x`, c)
		}
		if run >= 32 {
			fmt.Fprintf(&out, "<%s*%d>", one, run)
		} else {
			out.WriteString(strings.Repeat(one, run))
		}
		i += run
	}
	return out.String()
}

var notation = regexp.MustCompile(`\\x[0-9a-f]{2}|\\[rn\\]|<(\\x[0-9a-f]{2}|[^\\>])\*(\d+)>|\{cas ([^}]+)\}`)

// unmask turns the notation of the files into bytes.
func (m *masker) unmask(text string) string {
	return notation.ReplaceAllStringFunc(text, func(s string) string {
		switch sub := notation.FindStringSubmatch(s); {
		case s == `\r`:
			return "\r"
		case s == `\n`:
			return "\n"
		case s == `\\`:
			return `\`
		case sub[2] != "":
			n, _ := strconv.Atoi(sub[2])
			return strings.Repeat(m.unmask(sub[1]), n)
		case sub[3] != "":
			return m.last[sub[3]]
		default:
			c, _ := strconv.ParseUint(s[2:], 16, 8)
			return string([]byte{byte(c)})
		}
	})
}

// transcriptFiles returns the paths of the transcripts.
func transcriptFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	return files
}

func readTranscripts(t *testing.T) (all []section) {
	t.Helper()
	for _, file := range transcriptFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sections, err := parseTranscript(filepath.Base(file), string(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sections...)
	}
	return all
}

func parseTranscript(file, text string) (sections []section, err error) {
	var at *exchange // nil: the next request starts a new one
	newer := false
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fail := func(why string) ([]section, error) { return nil, fmt.Errorf("%s:%d: %s: %q", file, i+1, why, line) }
		if name, ok := strings.CutPrefix(line, "== "); ok {
			sections = append(sections, section{file: file, name: name})
			at = nil
			continue
		}
		mark, rest, _ := strings.Cut(line, " ")
		switch mark {
		case "":
			at = nil
		case "#":
			if strings.HasPrefix(rest, "newer: ") {
				at, newer = nil, true
			}
		case ">", ">~":
			if len(sections) == 0 {
				return fail("a request outside of a section")
			}
			s := &sections[len(sections)-1]
			if at == nil || at.want != "" {
				at = &exchange{line: i + 1, writes: []string{""}, newer: newer}
				newer = false
				s.exchanges = append(s.exchanges, at)
			}
			if mark == ">" {
				rest += "\\r\\n"
			}
			at.writes[len(at.writes)-1] += rest
			at.last = i + 1
		case "--", "!", "<", "<~":
			if at == nil {
				return fail("no request before it")
			}
			switch {
			case mark == "--":
				at.writes = append(at.writes, "")
				at.last = i + 1
			case line == "! closes":
				at.closes = true
				at.last = i + 1
			case mark == "!":
				return fail("unknown mark")
			default:
				at.want += line + "\n"
			}
		default:
			return fail("unknown mark")
		}
	}
	return sections, nil
}

// updateTranscript writes memcached's replies into a file, but for the exchanges marked newer.
func updateTranscript(t *testing.T, path, oracle string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sections, err := parseTranscript(filepath.Base(path), string(text))
	if err != nil {
		t.Fatal(err)
	}
	replies := map[int]string{} // by the line they stand behind
	for _, s := range sections {
		got, err := play(s, oracle)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range s.exchanges {
			replies[e.last] = got[i]
			if e.newer {
				replies[e.last] = e.want
			}
		}
	}
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if !strings.HasPrefix(line, "<") {
			out.WriteString(line + "\n")
			out.WriteString(replies[i+1])
		}
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startMemcached starts the machine's memcached and returns its unix socket, or "" when there is none.
func startMemcached(t testing.TB, args ...string) (socket string) {
	t.Helper()
	program, err := exec.LookPath("memcached")
	if err != nil {
		return ""
	}
	dir, err := os.MkdirTemp("", "oracle") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "socket")
	cmd := exec.Command(program, append([]string{"-u", "root", "-s", socket, "-t", "2"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatalf("memcached does not listen on %s: %s", socket, stderr.String())
		}
	}
}

func needMemcached(t *testing.T) string {
	t.Helper()
	socket := startMemcached(t)
	if socket == "" {
		t.Skip("no memcached on this machine")
	}
	return socket
}

// TestTranscriptsHoldForMemcached shows that the stored replies are memcached's and that two servers give the same: no reply depends on
// when or where it is asked.
func TestTranscriptsHoldForMemcached(t *testing.T) {
	oracle, other := needMemcached(t), needMemcached(t)
	if *updateTranscripts {
		for _, path := range transcriptFiles(t) {
			updateTranscript(t, path, oracle)
		}
	}
	exchanges := 0
	for _, s := range readTranscripts(t) {
		exchanges += len(s.exchanges)
		first, err := play(s, oracle)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		second, err := play(s, other)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for i, e := range s.exchanges {
			if first[i] != second[i] {
				t.Errorf("%s:%d: two servers answer\n     %s\nand  %s", s.file, e.line, indent(first[i]), indent(second[i]))
			}
			if e.newer == (first[i] == e.want) {
				t.Errorf("%s:%d: marked newer %t, but memcached answers\n     %s\nand the file has\n     %s",
					s.file, e.line, e.newer, indent(first[i]), indent(e.want))
			}
		}
	}
	t.Logf("%d exchanges", exchanges)
}

// TestTranscriptsNoticeEveryKindOfDifference plants differences between a client and memcached.
func TestTranscriptsNoticeEveryKindOfDifference(t *testing.T) {
	oracle := needMemcached(t)
	sections, err := parseTranscript("planted", `== planted
> set k 0 0 40
> <x*40>
< STORED
> add k 0 0 1
> y
< NOT_STORED
> gets k
< VALUE k 0 40 {1}
< <x*40>
< END
> gets k
< VALUE k 0 40 {1}
< <x*40>
< END
> cas k 0 0 1 {cas k}
> y
< STORED
> delete k noreply

> delete k
< NOT_FOUND
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, plant := range []struct{ name, old, new string }{
		{"nothing", "", ""},
		{"another word", "NOT_STORED", "STORED"},
		{"another value", strings.Repeat("x", 40), strings.Repeat("x", 39) + "y"},
		{"another line end", "NOT_FOUND\r\n", "NOT_FOUND\n"},
		{"an extra line", "NOT_STORED\r\n", "NOT_STORED\r\n\r\n"},
		{"a missing reply", "NOT_FOUND\r\n", ""},
		{"another length", "VALUE k 0 40", "VALUE k 0 41"},
	} {
		addr := startTamperer(t, oracle, plant.old, plant.new)
		for _, expected := range []string{oracle, ""} { // "": the stored replies
			differences := compare(sections[0], addr, expected)
			if found := len(differences) > 0; found != (plant.old != "") {
				t.Errorf("planted %s: noticed %q", plant.name, differences)
			}
		}
	}
}

// startTamperer starts a proxy to a server that replaces words in its replies, and returns its address.
func startTamperer(t *testing.T, server, old, new string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("unix", server)
			if err != nil {
				client.Close()
				continue
			}
			requests := make(chan struct{})
			go func() {
				io.Copy(upstream, client)
				upstream.Close()
				close(requests)
			}()
			buf := make([]byte, 64<<10) // a reply comes in one piece: they are small and memcached writes each batch at once
			for {
				n, err := upstream.Read(buf)
				if err != nil {
					break
				}
				reply := buf[:n]
				if old != "" {
					reply = bytes.ReplaceAll(reply, []byte(old), []byte(new))
				}
				client.Write(reply)
			}
			client.Close()
			<-requests
		}
	}()
	return l.Addr().String()
}
