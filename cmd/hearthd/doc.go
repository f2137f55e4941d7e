// Command hearthd is the server: it turns memcached's command line into options, opens the cache and the listeners, serves until it is
// told to stop, and closes clean.
//
// It refuses to know how items are kept, what the protocol says, or how connections are served. What it knows is the operator's side:
// the flags (flags.go, suboptions.go), getopt's rules for writing them (getopt.go), the process (process.go): limits, user, daemon, pid
// file; systemd (systemd.go): sockets that it passes, and what it wants to be told; and how a process hands over to the next (handover.go).
//
// What holds:
//   - No flag is silently ignored. A flag does what memcached's does, or is a tuning knob whose absence no client can see and says so
//     in its table row, or the start is refused with a line that names it.
//   - Exit codes and the first line on stderr are memcached's. A test asks memcached itself.
//   - Every way to stop but a kill, a panic or a fault closes the cache clean.
package main
