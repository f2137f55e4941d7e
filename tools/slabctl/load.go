package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/time/rate"
)

func loadCommand() *cli.Command {
	return &cli.Command{
		Name: "load", Usage: "store a dump in a running server", ArgsUsage: "[DUMP]",
		Description: "Reads what dump writes, set or ms commands or JSON lines, from DUMP or stdin, and waits for the answer to each. Exits with 1 when an item was not stored.\n" +
			"What has expired since the dump is left out.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "addr", Aliases: []string{"a"}, Value: "127.0.0.1:11211", Usage: "`HOST:PORT`, or the path of a unix socket"},
			&cli.Float64Flag{Name: "rate", Usage: "store at most `N` items a second", DefaultText: "as fast as the server answers"},
			&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long an answer may take"},
		},
		Action: func(c *cli.Context) error {
			in := io.Reader(os.Stdin)
			if c.App.Reader != nil {
				in = c.App.Reader
			}
			if c.NArg() == 1 && c.Args().First() != "-" {
				f, err := os.Open(c.Args().First())
				if err != nil {
					return fmt.Errorf("slabctl: load: %w", err)
				}
				defer f.Close()
				in = f
			} else if c.NArg() > 1 {
				return arguments(c, "DUMP")
			}
			return load(c, in)
		},
	}
}

// stored is an item of a dump.
type stored struct {
	key            []byte
	binary         bool
	flags, exptime uint32
	value          []byte
}

// loader sends items and reads the answers, up to loadAhead behind.
type loader struct {
	conn    net.Conn
	timeout time.Duration
	w       *bufio.Writer
	sent    chan string // the keys whose answers are to come

	loaded int64
	failed int64
	first  string // what the first failure was
}

const loadAhead = 1000

func load(c *cli.Context, in io.Reader) error {
	network, addr := "tcp", c.String("addr")
	if strings.Contains(addr, "/") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, addr, c.Duration("timeout"))
	if err != nil {
		return fmt.Errorf("slabctl: load: %w", err)
	}
	defer conn.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // an interrupt ends reads and writes that wait
		select {
		case <-c.Context.Done():
			conn.Close()
		case <-stop:
		}
	}()
	limit := rate.NewLimiter(rate.Inf, 1)
	if r := c.Float64("rate"); r > 0 {
		limit = rate.NewLimiter(rate.Limit(r), max(1, int(r/100)))
	}
	l := &loader{conn: conn, timeout: c.Duration("timeout"), w: bufio.NewWriterSize(conn, 1<<16), sent: make(chan string, loadAhead)}
	answers := make(chan error, 1)
	go func() { answers <- l.read() }()

	var expired, unsaid int64
	err = readDump(bufio.NewReaderSize(drained{in, l.w.Flush}, 1<<18), func(s *stored) error {
		if s.exptime != 0 && int64(s.exptime) <= time.Now().Unix() && s.exptime > 30*86400 {
			expired++
			return nil
		}
		if limit.Limit() != rate.Inf {
			if !limit.Allow() {
				if err := l.w.Flush(); err != nil {
					return err
				}
				if err := limit.Wait(c.Context); err != nil {
					return err
				}
			}
		}
		err := l.send(s)
		if err == errKey {
			unsaid++
			return nil
		}
		return err
	})
	if flushing := l.w.Flush(); err == nil {
		err = flushing
	}
	close(l.sent)
	if err != nil && !errors.Is(err, errDump) {
		conn.Close()
	}
	if reading := <-answers; err == nil || !errors.Is(err, errDump) && reading != nil && !errors.Is(reading, net.ErrClosed) {
		err = reading
	}
	fmt.Fprintf(c.App.Writer, "stored %d items\n", l.loaded)
	if expired > 0 {
		fmt.Fprintf(c.App.Writer, "%d items have expired since the dump\n", expired)
	}
	if unsaid > 0 {
		fmt.Fprintf(c.App.Writer, "%d items not stored: their binary keys are too long for the protocol\n", unsaid)
	}
	if l.failed > 0 {
		fmt.Fprintf(c.App.Writer, "%d items not stored; the first: %s\n", l.failed, l.first)
	}
	if err != nil {
		return fmt.Errorf("slabctl: load: %w", err)
	}
	if l.failed+unsaid > 0 {
		return fail()
	}
	return nil
}

func (l *loader) send(s *stored) error {
	line, err := appendCommand(nil, false, false, s.key, s.flags, s.exptime, s.binary, len(s.value))
	if err != nil {
		return err
	}
	l.conn.SetWriteDeadline(time.Now().Add(l.timeout))
	select {
	case l.sent <- string(s.key):
	default: // answers are behind: what is buffered here may be what they wait for
		if err := l.w.Flush(); err != nil {
			return err
		}
		l.sent <- string(s.key)
	}
	for _, b := range [][]byte{line, s.value, []byte("\r\n")} {
		if _, err := l.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// read reads an answer for each key that was sent. After an error it goes on taking keys, so that nobody waits to send one.
func (l *loader) read() (err error) {
	r := bufio.NewReader(l.conn)
	for key := range l.sent {
		if err != nil {
			continue
		}
		var line string
		if line, err = l.line(r); err != nil {
			err = fmt.Errorf("answer for key %s: %w", quoteKey([]byte(key)), err)
			l.conn.Close()
			continue
		}
		// After a line that the server does not understand it takes the value for commands: what follows cannot be told apart.
		if strings.HasPrefix(line, "ERROR") || strings.HasPrefix(line, "CLIENT_ERROR") {
			err = fmt.Errorf("key %s: the server answers %q", quoteKey([]byte(key)), line)
			l.conn.Close()
			continue
		}
		if line == "STORED" || line == "HD" {
			l.loaded++
		} else if l.failed++; l.failed == 1 {
			l.first = quoteKey([]byte(key)) + ": " + line
		}
	}
	return err
}

func (l *loader) line(r *bufio.Reader) (string, error) {
	l.conn.SetReadDeadline(time.Now().Add(l.timeout))
	line, err := r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// drained is a reader that calls flush before it waits for more: whoever writes the dump may take its time, and answers are waited for meanwhile.
type drained struct {
	io.Reader
	flush func() error
}

func (d drained) Read(b []byte) (int, error) {
	if err := d.flush(); err != nil {
		return 0, err
	}
	return d.Reader.Read(b)
}

// errDump is matched by errors about the dump itself.
var errDump = errors.New("bad dump")

// readDump reads set and ms commands, and JSON lines, in any mixture.
func readDump(r *bufio.Reader, visit func(s *stored) error) error {
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) == 0 {
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errDump, err)
			}
			continue
		}
		s, size, bad := parseLine(bytes.TrimRight(line, "\r\n"))
		if bad == nil && size >= 0 {
			s.value = make([]byte, size+2)
			if _, err := io.ReadFull(r, s.value); err != nil {
				bad = fmt.Errorf("the value ends early: %w", err)
			} else if string(s.value[size:]) != "\r\n" {
				bad = fmt.Errorf("%q behind the value, want a line end", s.value[size:])
			}
			s.value = s.value[:max(0, min(size, len(s.value)))]
		}
		if bad != nil {
			return fmt.Errorf("%w: item %d: %w", errDump, n, bad)
		}
		if err := visit(&s); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
	}
}

// maxValue bounds what a line may say of its value: memcached's largest item size.
const maxValue = 1 << 30

// parseLine reads what comes before a value of size bytes; size is -1 when the line has all.
func parseLine(line []byte) (s stored, size int, err error) {
	if line[0] == '{' {
		var j itemJSON
		if err := json.Unmarshal(line, &j); err != nil {
			return s, -1, err
		}
		s = stored{key: j.key(), binary: j.Binary, flags: j.Flags, exptime: j.Exptime, value: j.Base64}
		if j.Value != nil {
			s.value = []byte(*j.Value)
		}
		if j.Value == nil && len(j.Base64) != j.ValueSize || len(s.key) == 0 {
			return s, -1, fmt.Errorf("%.60q has no key or no value", line)
		}
		return s, -1, nil
	}
	words := strings.Fields(string(line))
	number := func(text string, bits int) uint64 {
		n, bad := strconv.ParseUint(text, 10, bits)
		if bad != nil && err == nil {
			err = bad
		}
		return n
	}
	switch {
	case len(words) >= 5 && words[0] == "set":
		s = stored{key: []byte(words[1]), flags: uint32(number(words[2], 32)), exptime: uint32(number(words[3], 32))}
		size = int(number(words[4], 31))
	case len(words) >= 3 && words[0] == "ms":
		s.key = []byte(words[1])
		size = int(number(words[2], 31))
		for _, w := range words[3:] {
			switch w[0] {
			case 'F':
				s.flags = uint32(number(w[1:], 32))
			case 'T':
				s.exptime = uint32(number(w[1:], 32))
			case 'b':
				s.binary = true
			}
		}
		if s.binary && err == nil {
			s.key, err = base64.StdEncoding.DecodeString(words[1])
		}
	default:
		return s, -1, fmt.Errorf("%.60q, want a set or ms command, or a JSON line", line)
	}
	if err == nil && size > maxValue {
		err = fmt.Errorf("value of %d bytes, want at most %d", size, maxValue)
	}
	return s, size, err
}
