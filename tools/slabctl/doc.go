// Slabctl looks into slab files: of a live, stopped or dead server, damaged, or of another version of the format.
//
//	slabctl info /dev/shm/hearth.slab
//	slabctl check FILE --repair OUT
//	slabctl prefixes FILE --by waste
//	slabctl dump FILE | slabctl load --addr 127.0.0.1:11211
//	slabctl report FILE -o report.html
//
// Flags may stand before or behind the arguments. Output goes to stdout, what is to be said beside it and the progress bar to stderr, the bar on a terminal alone.
// The exit code is 0 when all is well, and 1 when it is not: check and diff found something, get did not, a load was refused.
//
// # What it does to the file
//
// Nothing. It opens read-only, takes no lock, maps with PROT_READ; what makes something new makes a new file, under another name until it is whole. A server may serve
// from the file meanwhile, start or stop. Its page cache is what the tool reads, so reading costs it memory bandwidth and nothing else.
//
// # Beside a live server
//
// An item is read as it was at one moment: it is copied, the copy's checksum verified, and then the index asked whether it still names the item; what fails that, changed
// meanwhile, and is counted as skipped. So each item shown was live with these bytes at some time during the run, but not all at the same time. See restore.Check for why
// check does not take changes for damage.
//
// The tool takes what processor time is left then: on Linux most of a run is a child's, in a session of its own with the lowest weight, which ends with it. Where control groups
// share the processors out, as they do between containers and between units of systemd that have a CPUWeight, the weights of the groups come first.
//
// That leaves some hundredths of the server's requests waiting while the tool works. So it works for a tenth of a second of each two: the 99th percentile of the latencies stays about
// what it was, and a run takes twenty times as long, and skips more of what changes meanwhile. --full-speed has it work all the time. A resize sorts
// what it keeps without a rest.
//
// # Memory
//
// What the tool keeps does not grow with the values: a few bits a chunk. The pages of the file are read in order and given up when they were read, so that they do not add up
// in the resident set; the index, which is looked at all over, does.
package main
