package server_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hearth/netproto/server"
)

func TestListenersAndTheirConnectionsBearTheMark(t *testing.T) {
	if os.Geteuid() != 0 || server.Portable {
		t.Skip("SO_MARK takes Linux and CAP_NET_ADMIN")
	}
	const mark = 4000000001 // more than fits an int32
	inherited, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	file, err := inherited.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]func(*setup){
		"opened":    func(o *setup) { withUDP(o); o.server.Listen = []string{"127.0.0.1", "[::1]:0"} },
		"inherited": func(o *setup) { o.server.Sockets = []*os.File{file} },
		"unix":      func(o *setup) { o.server.UnixSocket = filepath.Join(t.TempDir(), "s") },
	} {
		want := uint32(mark)
		if name == "unix" {
			want = 0
		}
		r := start(t, opt, func(o *setup) { o.server.Mark = mark })
		c := dial(t, r.addr)
		rows := c.stats(" conns")
		marked := 0
		for row := range rows {
			number, isAddr := strings.CutSuffix(row, ":addr")
			if !isAddr {
				continue
			}
			fd, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(row)
			}
			got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
			if err != nil || uint32(got) != want {
				t.Errorf("%s: socket %s has the mark %d (%v), want %d", name, rows[row], uint32(got), err, want)
			}
			marked++
		}
		if marked < 2 { // a listener and the connection that asked
			t.Errorf("%s: %d sockets in %v", name, marked, rows)
		}
	}
}
