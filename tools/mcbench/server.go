package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 20 * time.Second

// server is one that mcbench started.
type server struct {
	process
	name string // of the program
	addr string
	dir  string // its own, "" if the command line has no {dir}
	cmd  *exec.Cmd
	log  bytes.Buffer // to be read when done is closed
	done chan struct{}
}

// process is a running server, whoever started it; 0 is none that is known.
type process int

// running are the servers to be stopped when a signal ends mcbench.
var running struct {
	sync.Mutex
	servers []*server
}

func stopAll() {
	running.Lock() // for good: no server is started from here on
	for _, s := range running.servers {
		s.stop()
	}
}

// freePort asks the system for a port of the loopback interface. Somebody else may take it before the server does; then that fails to start.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startServer runs a command line with a port for {port} and a new directory in memory for {dir}, on the given processors, and waits until the server
// answers. The words are separated by blanks, without quoting.
func startServer(line string, on cpus) (s *server, err error) {
	if !strings.Contains(line, "{port}") {
		return nil, fmt.Errorf("mcbench: server %q: want a {port} in the command line", line)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s = &server{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), done: make(chan struct{})}
	if err := s.launch(line, port, on); err != nil {
		os.RemoveAll(s.dir)
		return nil, fmt.Errorf("mcbench: server %q: %w", line, err)
	}
	for deadline := time.Now().Add(startTimeout); ; {
		select {
		case <-s.done:
			s.stop()
			return nil, fmt.Errorf("mcbench: server %q ended at its start: %v\n%s", line, s.cmd.ProcessState, s.log.String())
		case <-time.After(5 * time.Millisecond):
		}
		if pid, err := pidAt(s.addr); err == nil {
			if pid == s.process {
				return s, nil
			}
			s.stop()
			return nil, fmt.Errorf("mcbench: server %q: pid %d answers at %s, want %d", line, pid, s.addr, s.process)
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("mcbench: server %q does not answer at %s", line, s.addr)
		}
	}
}

// launch starts the program and notes it for stopAll.
func (s *server) launch(line string, port int, on cpus) (err error) {
	running.Lock()
	defer running.Unlock()
	if strings.Contains(line, "{dir}") {
		if s.dir, err = os.MkdirTemp(memoryDir(), "mcbench"); err != nil {
			return err
		}
	}
	words := strings.Fields(strings.NewReplacer("{port}", strconv.Itoa(port), "{dir}", s.dir).Replace(line))
	s.name, s.cmd = filepath.Base(words[0]), exec.Command(words[0], words[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{}
	endWithUs(s.cmd.SysProcAttr)
	if err := on.start(s.cmd); err != nil {
		return err
	}
	s.process = process(s.cmd.Process.Pid)
	running.servers = append(running.servers, s)
	go func() { s.cmd.Wait(); close(s.done) }()
	return nil
}

// memoryDir is where files cost no disk.
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// pidAt asks a server for its pid.
func pidAt(addr string) (process, error) {
	c, err := dial(addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stats, err := c.stats("")
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(stats["pid"])
	return process(pid), err
}

// stop ends the server, waits for its end and removes its directory.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(startTimeout):
		s.cmd.Process.Kill()
		<-s.done
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// client is a connection in the text protocol.
type client struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

// replyTimeout ends a run against a server that hangs.
const replyTimeout = 30 * time.Second

// networkOf tells host:port from the path of a unix socket.
func networkOf(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

func dial(addr string) (*client, error) {
	c, err := net.Dial(networkOf(addr), addr)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 64<<10)}, nil
}

// line reads a line, without its end. It is valid until the next read.
func (c *client) line() ([]byte, error) {
	b, err := c.r.ReadSlice('\n')
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), err
}

// flush sends what was written.
func (c *client) flush() error {
	c.SetDeadline(time.Now().Add(replyTimeout))
	return c.w.Flush()
}

// stats asks for stats, "" for the general ones.
func (c *client) stats(which string) (map[string]string, error) {
	fmt.Fprintf(c.w, "stats %s\r\n", which)
	if err := c.flush(); err != nil {
		return nil, err
	}
	rows := map[string]string{}
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		words := strings.SplitN(string(line), " ", 3)
		switch {
		case words[0] == "END":
			return rows, nil
		case len(words) < 2 || words[0] != "STAT":
			return nil, fmt.Errorf("mcbench: stats %s: got %q", which, line)
		case len(words) == 3:
			rows[words[1]] = words[2]
		}
	}
}
