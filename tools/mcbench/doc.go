// Mcbench puts load on servers that speak memcached's protocols and compares them in one session, so that a sceptic can rerun every figure.
//
//	mcbench compare --preset single
//	mcbench compare --protocol meta --pipeline 16 --server 'memcached -p {port}' --server 'hearthd -p {port} -e {dir}/slab'
//	mcbench run --addr 127.0.0.1:11211 --pid 4711 --rate 20000
//	mcbench replay --trace FILE --server 'hearthd -p {port} -m 128' --server 'memcached -p {port} -m 128'
//
// Servers are given as command lines; mcbench starts each with a free port of the loopback interface in place of {port}, and ends it by its pid, also
// when it is interrupted itself. What it compares is in its own hands from start to end: the same kind of load from the same seed, fresh servers,
// every value verified. It does not import netproto: who shares the server's words shares its mistakes.
//
// # What the figures mean
//
// Processor time of a request is all that the server's threads used, by the kernel's clock of that process, over the number of requests that were
// answered: all that was sent before is answered when the clock is first read, and all that was counted when it is read again. A request is one command, also when
// it asks for a hundred keys. The kernel's part of a reply's way through the loopback interface is the sender's, so some of it is the server's.
//
// "Load busy" near 100 % a thread says that mcbench was the bottleneck: then throughput and latencies are its own, and processor time is what is
// left to compare. Latencies of a closed loop say how many connections wait for one server; those of --rate say what a client sees: they count from
// the time at which a request was to be sent, whether or not the server let it, so that a stall delays all requests that fall into it. They include how
// late mcbench itself woke up.
//
// # Invariants
//
// Everything is bounded: a duration always, a time for each answer, and for a backlog. What a backlog keeps from being sent is counted, with the
// latency it had by then.
//
// What was sent and is not answered, or is answered by other than what the protocol allows, or with a value that is not its key's, ends the run with an
// error. Only a miss and a store that the server refuses are results.
package main
