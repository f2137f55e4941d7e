package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "starts the servers, and starts again what ends",
		Description: "It reads commands, a line each: `kill N` (SIGKILL) and `stop N` (SIGTERM) end a server until `start N`. One that ends by itself, or is killed\n" +
			"from outside, is started again. The listening sockets are cluster's, as they are systemd's with hearthd.socket: who connects during a restart waits.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "servers", Value: 4, Usage: "how many"},
			&cli.IntFlag{Name: "port", Value: 11211, Usage: "of the first server, the others have the next ones; 0: any"},
			&cli.IntFlag{Name: "memory", Value: 64, Usage: "MiB a server"},
			&cli.StringFlag{Name: "dir", Value: "/dev/shm/hearth-cluster", Usage: "of the memory files, which stay there"},
			&cli.StringFlag{Name: "hearthd", Value: besideUs("hearthd"), Usage: "the server's program"},
		},
		Action: func(c *cli.Context) error {
			s := &servers{program: c.String("hearthd"), dir: c.String("dir"), memory: c.Int("memory"), events: make(chan event)}
			return s.serve(c.Context, c.Int("servers"), c.Int("port"))
		},
	}
}

// besideUs is the path of a program in our own directory, or its name, for PATH to find it.
func besideUs(name string) string {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); exec.Command(path, "-V").Run() == nil {
			return path
		}
	}
	return name
}

// server is one of them; only the loop in serve touches it.
type server struct {
	number  int
	addr    string
	socket  *os.File // listens, whoever serves it
	cmd     *exec.Cmd
	running bool
	ready   bool // it has served since it was started
	down    bool // it was told to end
}

type servers struct {
	program, dir string
	memory       int
	all          []*server
	events       chan event
}

// event is what serve's loop waits for: a line of input, a server that says that it serves, or one that has ended.
type event struct {
	line   string
	server *server
	status string // what it says, in systemd's words
	ended  bool
}

func (s *servers) serve(ctx context.Context, n, port int) error {
	if n < 1 || port < 0 || port > 0 && port+n-1 > 65535 {
		return fmt.Errorf("%d servers from port %d on: want one at least, and ports up to 65535", n, port)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		at := 0
		if port != 0 {
			at = port + i
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", at))
		if err != nil {
			return err
		}
		socket, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		s.all = append(s.all, &server{number: i + 1, addr: l.Addr().String(), socket: socket})
		l.Close() // the file is a descriptor of its own
	}
	for _, v := range s.all {
		if err := s.start(v); err != nil {
			return err
		}
	}
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			s.events <- event{line: lines.Text()}
		}
	}()
	stopping := ctx.Done()
	var failure error
	for {
		select {
		case <-stopping:
			stopping = nil
			s.stopAll()
		case e := <-s.events:
			if err := s.handle(e); err != nil && failure == nil {
				failure = err
				stopping = nil
				s.stopAll()
			}
		}
		if stopping == nil && !s.anyRuns() {
			return failure
		}
	}
}

func (s *servers) stopAll() {
	for _, v := range s.all {
		v.end(syscall.SIGTERM)
	}
}

func (s *servers) anyRuns() bool {
	for _, v := range s.all {
		if v.running {
			return true
		}
	}
	return false
}

func (s *servers) handle(e event) error {
	switch v := e.server; {
	case v == nil:
		return s.command(e.line)
	case e.ended:
		v.running = false
		fmt.Printf("server %d ended: %v\n", v.number, v.cmd.ProcessState)
		if v.down {
			return nil
		}
		if !v.ready {
			return fmt.Errorf("server %d has not come to serving", v.number) // and would not the next time
		}
		return s.start(v)
	default:
		v.ready = true
		fmt.Printf("server %d pid %d %s\n", v.number, v.cmd.Process.Pid, e.status)
	}
	return nil
}

// command carries a line out. A bad one is no reason to end.
func (s *servers) command(line string) error {
	var verb string
	var n int
	if _, err := fmt.Sscanf(line, "%s %d", &verb, &n); err != nil || n < 1 || n > len(s.all) {
		fmt.Printf("%q: want kill, stop or start, and a server from 1 to %d\n", line, len(s.all))
		return nil
	}
	v := s.all[n-1]
	switch {
	case verb == "kill":
		v.end(syscall.SIGKILL)
	case verb == "stop":
		v.end(syscall.SIGTERM)
	case verb == "start" && !v.running:
		return s.start(v)
	default:
		fmt.Printf("%q: want kill, stop, or start of a server that has ended\n", line)
	}
	return nil
}

func (v *server) end(sig syscall.Signal) {
	v.down = true
	if v.running {
		v.cmd.Process.Signal(sig)
	}
}

// start starts a server as systemd would: with its listening socket as descriptor 3, and a socket to tell when it serves. LISTEN_PID must be its own
// pid, so a shell writes it down and becomes the server.
func (s *servers) start(v *server) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, fmt.Sprintf("server-%d", v.number))
	os.Remove(file + ".notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: file + ".notify", Net: "unixgram"})
	if err != nil {
		return err
	}
	v.cmd = exec.Command("/bin/sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`, s.program, "-u", me.Username, "-m", fmt.Sprint(s.memory), "-e", file+".slab")
	v.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=", "NOTIFY_SOCKET="+file+".notify")
	v.cmd.ExtraFiles = []*os.File{v.socket}
	v.cmd.Stdout, v.cmd.Stderr = os.Stderr, os.Stderr
	// What ends us by a key on the terminal goes to us alone: a stop is ours to tell.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithUs(v.cmd.SysProcAttr)
	v.ready, v.down = false, false
	if err := v.cmd.Start(); err != nil {
		notify.Close()
		return err
	}
	v.running = true
	told := make(chan struct{})
	go func() {
		defer close(told)
		for message := make([]byte, 4096); ; {
			n, err := notify.Read(message)
			if err != nil {
				return
			}
			if text := string(message[:n]); strings.Contains(text, "READY=1") {
				_, status, _ := strings.Cut(text, "STATUS=")
				status, _, _ = strings.Cut(status, "\n")
				s.events <- event{server: v, status: status}
			}
		}
	}()
	go func() {
		v.cmd.Wait()
		notify.Close()
		os.Remove(file + ".notify")
		<-told // the next start's messages come after this one's
		s.events <- event{server: v, ended: true}
	}()
	return nil
}
