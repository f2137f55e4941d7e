package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"hearth"
	"hearth/cmd/hearthd/web"
	"hearth/netproto/server"
)

func main() {
	c, err := parse(os.Args, os.Getenv)
	if err == nil {
		err = takeSockets(c)
	}
	if err == nil {
		if !isDaemon() {
			os.Stderr.WriteString(c.warnings)
			if c.daemon {
				os.Exit(daemonize(c))
			}
		}
		err = serve(c)
	}
	if c != nil && c.jsonLog {
		err = inLog(err)
	}
	os.Exit(exitCode(err))
}

// serve runs the server to its end. The order is memcached's: limits, then the user, then everything that makes files, so that the slab
// file, the unix socket and the pid file belong to that user and the next start can have them again. The file is opened before the
// listeners: a second server on it must not take the first one's socket.
//
// The garbage collector stays as it is: a request allocates nothing and the items are not on the heap, so there is next to nothing to tune.
func serve(c *config) error {
	spareProcessors(c.server.Threads)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)
	defer stop()
	log, calm := newLog(os.Stderr, c.jsonLog)
	defer calm.flush()
	signal.Ignore(unix.SIGPIPE)
	systemd := &manager{log: log}
	onHangup(func() { systemd.reloading(func() { reload(c, log) }) })

	// As root, if it is root who starts us: keys may be for its eyes only.
	if c.server.TLS != nil {
		if err := c.server.TLS.Load(); err != nil {
			return fail(exUsage, "%v", err)
		}
	}
	if err := prepare(c); err != nil {
		return err
	}
	// As the user who is going to read them again.
	if c.server.SASL != nil {
		if err := c.server.SASL.Load(); err != nil {
			return fail(1, "Error initializing sasl.\nhearthd: MEMCACHED_SASL_PWDB: %v", err)
		}
	}
	if c.server.Auth != nil {
		if err := c.server.Auth.Load(); err != nil {
			return fail(1, "%v", err)
		}
	}
	c.cache.Logger, c.server.Logger, c.site.Logger = log, log, log
	c.cache.NoteCrashes = true
	cache, err := hearth.Open(c.cache)
	if errors.Is(err, hearth.ErrOption) {
		return fail(exUsage, "%v", err)
	}
	if err != nil {
		return fail(exOSErr, "%v", err)
	}
	srv, err := server.New(cache, c.server)
	if err != nil {
		return fail(exOSErr, "%v", errors.Join(err, cache.Close()))
	}
	site, err := web.Listen(c.site, srv)
	if err != nil {
		return fail(exOSErr, "%v", errors.Join(err, cache.Close()))
	}
	go site.Serve()
	if c.verbosity > 1 {
		os.Stderr.WriteString(slabClasses(cache.Options().ChunkSizes()))
	}
	writePortFile(os.Getenv("MEMCACHED_PORT_FILENAME"), srv.Addrs())
	writePidFile(c.pidFile)
	systemd.serving(joinAddrs(srv.Addrs()), cache.Stats())
	started := []any{"addr", joinAddrs(srv.Addrs()), "pid", os.Getpid(), "memory", fmt.Sprintf("%dm", c.cache.MemoryLimit/mib), "file", c.cache.Path, "version", version}
	if site != nil {
		started = append(started, "http", site.Addr())
	}
	log.Info("started", started...)
	startedDaemon(c)

	stopping := sync.OnceFunc(func() { site.Stopping(); systemd.stopping() })
	context.AfterFunc(ctx, stopping)
	err = srv.Serve(ctx)
	if fault := (*server.FaultError)(nil); errors.As(err, &fault) {
		cache.NoteFault(fault)
		return fail(exSoftware, "%v", err) // the file is not closed: what it says about itself is still true, and a clean mark would not be
	}
	stopping()
	site.Close() // before the cache whose counters it reads
	reason := "signal"
	if errors.Is(err, server.ErrShutdown) {
		reason, err = "shutdown command", nil
	}
	if err = errors.Join(err, cache.Close()); errors.As(err, new(*hearth.Fault)) {
		return fail(exSoftware, "%v", err)
	} else if err != nil {
		return fail(exOSErr, "%v", err)
	}
	log.Info("stopped", "reason", reason)
	if c.daemon {
		removePidFile(c.pidFile)
	}
	return nil
}

// reload is what SIGHUP does. With a bad file the users, or the certificates, stay as they were.
func reload(c *config, log *slog.Logger) {
	for _, users := range []*server.AuthFile{c.server.Auth, c.server.SASL} {
		if users == nil {
			continue
		}
		if err := users.Load(); err != nil {
			log.Error("SIGHUP: the users stay as they were", "err", err)
		} else {
			log.Info("SIGHUP: users reloaded", "file", users.Path())
		}
	}
	if c.server.TLS != nil {
		if err := c.server.TLS.Load(); err != nil {
			log.Error("SIGHUP: the certificates stay as they were", "err", err)
		} else {
			log.Info("SIGHUP: certificates reloaded")
		}
	}
	if c.server.Auth == nil && c.server.SASL == nil && c.server.TLS == nil {
		log.Info("SIGHUP: nothing to reload")
	}
}
