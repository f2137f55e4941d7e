//go:build long

package server_test

// binaryPackets is how many packets the differential test compares.
const binaryPackets = 50_000
