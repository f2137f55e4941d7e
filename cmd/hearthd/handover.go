package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/cmd/hearthd/web"
	"hearth/mmapslab/fault"
	"hearth/netproto/server"
)

// A hand-over (SIGUSR2) replaces the process by a new one, of the program that is at the same path now, while clients wait for some milliseconds. The old one:
//
//  1. starts the new one with its own arguments, and passes on the listening sockets and the open slab file, and with that its lock.
//  2. hears "ready": the new one took the flags, read users and certificates, and finds that it would start warm from this file.
//  3. stops: it answers what it read, closes the cache clean, sends the connections that are at rest ("conns"), and says "yours".
//  4. hears "taken": the new one has opened the cache, and begins to serve. The old one ends.
//
// Whoever fails, there is one server at a time, and it serves:
//
//   - Until "yours" the new one does not touch the file; from then on the old one does not, until the new one has ended: it is the old one's child, which
//     waits for its end, and kills it when it takes too long. So the two never use the file together, though both have its lock. It has the lock as long as one
//     of them lives, since they share the open file (mmapslab.Inherit): no third process gets in.
//   - Until "taken" the old one can go back: it still has file, sockets and connections, opens the cache as the new one left it, clean or as after a kill, and
//     serves. No connection was read from before "taken". After "taken" it does not go back.
//   - When the old one dies before "yours", the new one sees the end of the channel, which the kernel closes after all threads of the old one have
//     left its memory; then it takes over as after a kill. A stop is not a death: the old one says "stay", and the new one ends.
//
// tableflip and its like were not taken: in theirs both processes serve at the same time, and there is no way back once the new one is ready.

// handOverMark in the environment tells a process that it is the new one. It holds the names of the listening sockets (server.Sockets), with commas between. Descriptor
// 3 is then the channel, 4 the slab file, and the sockets follow.
const handOverMark = "HEARTHD_HANDOVER"

// webName is the name of the HTTP side's socket there.
const webName = "http"

// The words on the channel, a packet each; the descriptors of connections go with their packet.
const (
	wordReady = "ready"
	wordConns = "conns " // []server.Conn in JSON
	wordYours = "yours"
	wordStay  = "stay"
	wordTaken = "taken " // what the service manager is to know
)

const (
	// connsPerPacket and inputPerPacket keep a packet of connections within what the kernel takes.
	connsPerPacket = 200
	inputPerPacket = 32 << 10
	packetSize     = 256 << 10
)

// How long the old one waits for the new one: to be ready, while clients are served, and to have taken over, while they wait.
var readyPatience, takenPatience = time.Minute, 10 * time.Second

// errStay is how the new one learns that it is not needed.
var errStay = errors.New("the server that started this one goes on")

// programPath is where the program was started from: an upgrade puts another one there, or moves a link on its way.
func programPath() string {
	if p, err := exec.LookPath(os.Args[0]); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			there, err := os.Stat(p)
			self, err2 := os.Stat("/proc/self/exe")
			if err == nil && err2 == nil && os.SameFile(there, self) {
				return p
			}
		}
	}
	p, _ := os.Executable()
	return p
}

// successor is the new process, in the old one's eyes.
type successor struct {
	cmd     *exec.Cmd
	channel *net.UnixConn
	ended   chan struct{} // closed when it has ended
	file    *os.File      // the slab file, to be locked while neither has it open
	sockets []*os.File
	web     *os.File // the HTTP side's, or nil
}

// startSuccessor starts the new process and returns it when it is ready.
func startSuccessor(ctx context.Context, c *config, cache *hearth.Cache, srv *server.Server, site *web.Site) (*successor, error) {
	s := &successor{ended: make(chan struct{})}
	var err error
	if s.file, err = cache.File(); err != nil {
		return nil, fmt.Errorf("without -e the new process would be cold: %w", err)
	}
	cache.WaitSwept() // which the end of the cache would wait for, too
	if s.sockets, err = srv.Sockets(); err == nil {
		s.web, err = site.Socket()
	}
	if err == nil {
		err = s.launch(c)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	fault.Point("hearthd.handover.old.started")
	if _, err = s.hear(ctx, wordReady, readyPatience); err != nil {
		s.dismiss()
		s.close()
		return nil, err
	}
	fault.Point("hearthd.handover.old.ready")
	return s, nil
}

// launch starts the process, with descriptors 3 and up as handOverMark tells.
func (s *successor) launch(c *config) error {
	pair, err := packetPair()
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "successor")
	defer theirs.Close()
	if s.channel, err = packetConn(os.NewFile(uintptr(pair[0]), "successor")); err != nil {
		return err
	}
	var names []string
	for _, f := range s.sockets {
		names = append(names, f.Name())
	}
	s.cmd = exec.Command(c.program, os.Args[1:]...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	s.cmd.ExtraFiles = append([]*os.File{theirs, s.file}, s.sockets...)
	if s.web != nil {
		names = append(names, webName)
		s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, s.web)
	}
	s.cmd.Env = append(os.Environ(), handOverMark+"="+strings.Join(names, ","))
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	return nil
}

// packetConn makes a connection of f, which it closes.
func packetConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is %T, want the channel to another server", f.Fd(), conn)
	}
	return u, nil
}

// hear waits for a word and returns what follows it; when ctx is done it returns ctx's error.
func (s *successor) hear(ctx context.Context, word string, patience time.Duration) (string, error) {
	fault.Point("hearthd.handover.old.hears")
	s.channel.SetReadDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { s.channel.SetReadDeadline(time.Now()) }) // behind the above, which would undo it
	defer stop()
	buf := make([]byte, packetSize)
	n, err := s.channel.Read(buf)
	rest, ok := strings.CutPrefix(string(buf[:n]), word)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", fmt.Errorf("the new process, pid %d, was not %q within %v", s.cmd.Process.Pid, word, patience)
	case n == 0:
		select { // how it ended tells more, when that is why
		case <-s.ended:
		case <-time.After(time.Second):
		}
		return "", fmt.Errorf("the new process, pid %d, ended before it was %q: %v", s.cmd.Process.Pid, word, s.cmd.ProcessState)
	case !ok:
		return "", fmt.Errorf("the new process, pid %d, says %.100q, want %q", s.cmd.Process.Pid, buf[:n], word)
	}
	return rest, nil
}

// dismiss ends it: by a word when it waits for one, else by force.
func (s *successor) dismiss() {
	s.channel.SetWriteDeadline(time.Now())
	s.channel.Write([]byte(wordStay))
	s.channel.Close()
	s.cmd.Process.Kill()
	<-s.ended
}

// close gives up what was kept for going back.
func (s *successor) close() {
	s.file.Close()
	for _, f := range s.sockets {
		f.Close()
	}
	s.web.Close() // of nil it is an error and nothing else
}

// give passes the connections and the file on, and returns when it has taken them over. After an error it has ended.
func (s *successor) give(ctx context.Context, conns []server.Conn) (state string, err error) {
	s.channel.SetWriteDeadline(time.Now().Add(takenPatience))
	// A stop that comes now is meant for whoever serves.
	stop := context.AfterFunc(ctx, func() { s.cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	for len(conns) > 0 && err == nil {
		n, input, rights := 0, 0, []int(nil)
		for n < len(conns) && n < connsPerPacket && input < inputPerPacket {
			rights = append(rights, conns[n].FD)
			input += len(conns[n].Input)
			n++
		}
		text, _ := json.Marshal(conns[:n]) // of such a type it cannot fail
		_, _, err = s.channel.WriteMsgUnix(append([]byte(wordConns), text...), unix.UnixRights(rights...), nil)
		conns = conns[n:]
	}
	if err == nil {
		_, err = s.channel.Write([]byte(wordYours))
	}
	fault.Point("hearthd.handover.old.yours")
	if err == nil {
		state, err = s.hear(context.Background(), wordTaken, takenPatience) // a stop does not end it, see above
	}
	if err != nil {
		s.channel.Close()
		s.cmd.Process.Kill()
		<-s.ended
		return "", err
	}
	fault.Point("hearthd.handover.old.taken")
	return state, nil
}

// predecessor is the old process, in the new one's eyes.
type predecessor struct {
	channel *net.UnixConn
	alive   bool
}

// point is a fault point of the new process only, and until it has taken over.
func (p *predecessor) point(place string) {
	if p != nil && p.channel != nil {
		fault.Point("hearthd.handover.new." + place)
	}
}

// takeOver finds out whether this process was started by a server to succeed it, and takes what that passed.
func takeOver(c *config) error {
	mark, found := os.LookupEnv(handOverMark)
	if !found {
		return nil
	}
	os.Unsetenv(handOverMark)
	names := strings.Split(mark, ",")
	for fd := 3; fd < 5+len(names); fd++ {
		unix.CloseOnExec(fd)
	}
	channel, err := packetConn(os.NewFile(3, "predecessor"))
	if err != nil {
		return fail(exOSErr, "hearthd: %s: %v", handOverMark, err)
	}
	c.from = &predecessor{channel: channel, alive: true}
	c.cache.File = os.NewFile(4, c.cache.Path)
	for i, name := range names {
		if f := os.NewFile(uintptr(5+i), name); name == webName {
			c.site.Socket = f
		} else {
			c.server.Sockets = append(c.server.Sockets, f)
		}
	}
	c.server.Resumed = true
	c.from.point("started")
	return nil
}

// wait says that this process is ready to take over and returns when it may, with the connections that were passed on in c.
func (p *predecessor) wait(ctx context.Context, c *config, log *slog.Logger) error {
	if err := hearth.CanTakeOver(c.cache); err != nil {
		return fail(exOSErr, "%v", err)
	}
	p.point("checked")
	p.channel.Write([]byte(wordReady)) // an error shows at the next read
	p.point("ready")
	stop := context.AfterFunc(ctx, func() { p.channel.SetReadDeadline(time.Now()) })
	defer stop()
	buf, oob := make([]byte, packetSize), make([]byte, unix.CmsgSpace(4*connsPerPacket))
	for {
		n, oobn, _, _, err := p.channel.ReadMsgUnix(buf, oob)
		n = max(n, 0) // with an error it may be -1
		word := string(buf[:n])
		switch {
		case ctx.Err() != nil, word == wordStay:
			return errStay
		case n == 0 && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)):
			p.alive = false
			log.Warn("the server before this one ended in the middle of the hand-over: takes over as after a kill")
			return nil
		case err != nil:
			return fail(exOSErr, "hearthd: hand-over: %v", err)
		case word == wordYours:
			p.point("yours")
			return nil
		}
		conns, err := parseConns(word, oob[:oobn])
		if err != nil {
			return fail(exOSErr, "hearthd: hand-over: %v", err)
		}
		c.server.Conns = append(c.server.Conns, conns...)
	}
}

// parseConns reads a packet of connections.
func parseConns(packet string, oob []byte) (conns []server.Conn, err error) {
	text, ok := strings.CutPrefix(packet, wordConns)
	if !ok {
		return nil, fmt.Errorf("the old process says %.100q, want connections", packet)
	}
	if err := json.Unmarshal([]byte(text), &conns); err != nil {
		return nil, err
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, some...)
	}
	if err != nil || len(fds) != len(conns) {
		return nil, fmt.Errorf("%d descriptors of connections came, want %d: %v", len(fds), len(conns), err)
	}
	for i := range conns {
		conns[i].FD = fds[i]
	}
	return conns, nil
}

// taken tells the old process that this one serves from now on, and what the service manager should know, which listens to that one still.
func (p *predecessor) taken(state string) {
	p.channel.SetWriteDeadline(time.Now().Add(takenPatience))
	p.channel.Write([]byte(wordTaken + state))
	p.point("taken")
	p.channel.Close()
	p.channel = nil
}

// awaitSuccessor starts a new process whenever SIGUSR2 asks for it, and returns one that is ready, nil when ctx is done.
func awaitSuccessor(ctx context.Context, c *config, log *slog.Logger, cache *hearth.Cache, srv *server.Server, site *web.Site, asked <-chan os.Signal) *successor {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
		}
		log.Info("SIGUSR2: starts a new process to hand over to", "program", c.program)
		next, err := startSuccessor(ctx, c, cache, srv, site)
		if err == nil {
			return next
		}
		log.Error("SIGUSR2: no hand-over, goes on serving", "err", err)
	}
}

// handTo is what the old process does when it has stopped serving: it gives all to the next one, or goes back (again).
func handTo(ctx context.Context, c *config, log *slog.Logger, systemd *manager, next *successor, cache *hearth.Cache, conns []server.Conn) (again bool, err error) {
	fault.Point("hearthd.handover.old.stopped")
	if err = cache.HandOver(); err != nil { // as after a kill, then
		log.Error("SIGUSR2: close the cache", "err", err)
	}
	if errors.As(err, new(*hearth.Fault)) {
		return false, fail(exSoftware, "%v", err) // the new one sees it, and judges the file
	}
	fault.Point("hearthd.handover.old.closed")
	state, err := next.give(ctx, conns)
	if err == nil {
		systemd.serving(state)
		log.Info("handed over", "pid", next.cmd.Process.Pid, "connections", len(conns))
		return false, nil
	}
	log.Error("SIGUSR2: no hand-over, goes back to serving", "err", err)
	c.cache.File, c.server.Sockets, c.server.Conns, c.server.Resumed, c.site.Socket = next.file, next.sockets, conns, true, next.web
	return true, nil
}
