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
		c.program = programPath()
		err = takeSockets(c)
	}
	if err == nil {
		err = takeOver(c)
	}
	if err == nil {
		if !isDaemon() && c.from == nil {
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
	handOver := make(chan os.Signal, 1)
	signal.Notify(handOver, unix.SIGUSR2)
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
	if c.from != nil {
		if err := c.from.wait(ctx, c, log); errors.Is(err, errStay) {
			return nil
		} else if err != nil {
			return err
		}
	}
	for {
		if again, err := serveCache(ctx, c, log, systemd, handOver); !again {
			return err
		}
	}
}

// serveCache opens the cache and the listeners and serves until it is told to stop, or until another process has taken over: see handover.go. It returns true when
// that process failed: all is to go on from where it was.
func serveCache(ctx context.Context, c *config, log *slog.Logger, systemd *manager, handOver <-chan os.Signal) (again bool, err error) {
	cache, err := hearth.Open(c.cache)
	if errors.Is(err, hearth.ErrOption) {
		return false, fail(exUsage, "%v", err)
	}
	if err != nil {
		return false, fail(exOSErr, "%v", err)
	}
	c.from.point("opened")
	srv, err := server.New(cache, c.server)
	if err != nil {
		return false, fail(exOSErr, "%v", errors.Join(err, cache.Close()))
	}
	site, err := web.Listen(c.site, srv)
	if err != nil {
		return false, fail(exOSErr, "%v", errors.Join(err, cache.Close()))
	}
	c.from.point("listening")
	if c.cache.File != nil { // the cache has its own descriptor
		c.cache.File.Close()
	}
	c.cache.File, c.server.Sockets, c.server.Conns, c.site.Socket = nil, nil, nil, nil
	announce(c, log, systemd, cache, srv, site)
	go site.Serve()

	serving, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	waiting, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	var next *successor
	var watch sync.WaitGroup
	watch.Go(func() {
		if next = awaitSuccessor(waiting, c, log, cache, srv, site, handOver); next != nil {
			leave(server.ErrHandOver)
		}
	})
	stopping := sync.OnceFunc(func() { site.Stopping(); systemd.stopping() })
	defer context.AfterFunc(ctx, stopping)()
	err = srv.Serve(serving)
	if fault := (*server.FaultError)(nil); errors.As(err, &fault) {
		cache.NoteFault(fault)
		return false, fail(exSoftware, "%v", err) // the file is not closed: what it says about itself is still true, and a clean mark would not be
	}
	stopWaiting()
	watch.Wait()
	site.Close() // before the cache whose counters it reads
	if next != nil && err == nil && ctx.Err() == nil {
		return handTo(ctx, c, log, systemd, next, cache, srv.Released())
	}
	stopping()
	for _, conn := range srv.Released() {
		unix.Close(conn.FD)
	}
	reason := "signal"
	if errors.Is(err, server.ErrShutdown) {
		reason, err = "shutdown command", nil
	}
	if next != nil {
		next.dismiss()
		next.close()
	}
	err = errors.Join(err, cache.Close())
	if errors.As(err, new(*hearth.Fault)) {
		return false, fail(exSoftware, "%v", err)
	} else if err != nil {
		return false, fail(exOSErr, "%v", err)
	}
	log.Info("stopped", "reason", reason)
	if c.daemon {
		removePidFile(c.pidFile)
	}
	return false, nil
}

// announce tells everybody who wants to know that clients are served, or are about to be.
func announce(c *config, log *slog.Logger, systemd *manager, cache *hearth.Cache, srv *server.Server, site *web.Site) {
	addrs := joinAddrs(srv.Addrs())
	if c.announced { // after a hand-over that failed
		log.Info("serves again", "addr", addrs)
		return
	}
	c.announced = true
	if c.verbosity > 1 {
		os.Stderr.WriteString(slabClasses(cache.Options().ChunkSizes()))
	}
	if c.from != nil && c.from.alive {
		systemd.ready.Store(true)
		c.from.taken(servingState(addrs, cache.Stats()))
	} else {
		systemd.serving(servingState(addrs, cache.Stats()))
	}
	writePortFile(os.Getenv("MEMCACHED_PORT_FILENAME"), srv.Addrs())
	writePidFile(c.pidFile, c.from == nil)
	started := []any{"addr", addrs, "pid", os.Getpid(), "memory", fmt.Sprintf("%dm", c.cache.MemoryLimit/mib), "file", c.cache.Path, "version", version}
	if site != nil {
		started = append(started, "http", site.Addr())
	}
	log.Info("started", started...)
	if c.from == nil {
		startedDaemon(c)
	}
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
