package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"hearth"
)

// takeSockets makes the sockets that systemd passed the server's, and forgets what the environment says of them: descriptors of the same numbers
// are something else in a daemon that is started from here.
func takeSockets(c *config) error {
	c.server.Sockets = activation.Files(true)
	if c.daemon && len(c.server.Sockets) > 0 {
		return fail(exUsage, "hearthd: -d: cannot be used with sockets from systemd, which gives them to the process that it starts and no other")
	}
	return nil
}

// manager is the service manager, which is told how the service does if it asked for that (Type=notify). It is never a reason not to serve.
type manager struct {
	log   *slog.Logger
	ready atomic.Bool
}

func (m *manager) tell(state ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(state, "\n")); err != nil {
		m.log.Warn("hearthd: notify the service manager", "err", err)
	}
}

// servingState tells of a start what the operator wants to know first. The pid matters with -d and after a hand-over.
func servingState(addrs string, st hearth.Stats) string {
	start := "cold: " + st.RestartReason
	if st.RestartKind != "cold" {
		start = fmt.Sprintf("warm, %d items: %s", st.CurrItems, st.RestartReason)
	}
	return fmt.Sprintf("MAINPID=%d\nSTATUS=serving %s, %s", os.Getpid(), addrs, strings.ReplaceAll(start, "\n", " "))
}

// serving tells that clients are served. By default the manager listens to the main process only; so after a hand-over it is the old one that tells, and what
// comes after that, its end too, is about the new one.
func (m *manager) serving(state string) {
	m.ready.Store(true)
	m.tell(daemon.SdNotifyReady, state)
}

// reloading runs f and tells when it began and ended. Before the server serves, nothing is told: the end would pass for that of the start.
func (m *manager) reloading(f func()) {
	if !m.ready.Load() {
		f()
		return
	}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	m.tell(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	f()
	m.tell(daemon.SdNotifyReady)
}

func (m *manager) stopping() { m.tell(daemon.SdNotifyStopping, "STATUS=saving the cache") }
