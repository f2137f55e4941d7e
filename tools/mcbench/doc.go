// Mcbench puts load on servers that speak memcached's protocol and compares them in one session, so that a sceptic can rerun every figure.
//
//	mcbench replay --trace FILE --server 'hearthd -p {port} -m 128' --server 'memcached -p {port} -m 128'
//
// Servers are given as command lines; mcbench starts each with a free port of the loopback interface in place of {port}, and ends it by its pid.
// What it compares is in its own hands from start to end: the same requests in the same order, fresh servers, values that tell their key so
// that a wrong one is noticed.
package main
