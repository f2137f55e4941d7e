// Package web shows a running server over HTTP: /metrics to Prometheus, /healthz and /readyz to whoever restarts and routes, a live page to people, and
// /debug/pprof if it was asked for.
//
// It refuses to know the server. All it has of it are the rows of `stats` and its sub-commands (Source), so that what is charted and what a client of the cache is
// told cannot differ, and a request here does to the cache what a `stats` does: it reads counters that are there anyway. Nothing is sampled between requests;
// rates and their history are computed by whoever asks, the page included.
//
// # Strangers
//
// Who reaches the address sees counters and settings, never keys or values, and can change nothing. There is no password: the address is a loopback's unless one
// is told, and who wants more puts a proxy in front. What a stranger can make the server hold or do is bounded:
//
//   - Connections: maxConns, each with deadlines for its headers, its reply and its idleness. Further ones wait in the kernel.
//   - Requests: GET and HEAD, headers up to maxHeader; perSecond of them, with a burst, above which the answer is 429. Collecting takes a fraction of a millisecond.
//   - Names: a page of somewhere else whose name is made to point here (DNS rebinding) carries that name in its Host header. Only literal addresses, localhost, this
//     machine's name, the name that is listened on, and those that the operator adds are answered. Nor is a script of another site that asks from a browser.
//   - The page runs no script and loads nothing but its own, by its Content-Security-Policy.
//
// # Invariant
//
// Close returns when no request reads the source any more, so that the cache can be closed behind it.
package web
