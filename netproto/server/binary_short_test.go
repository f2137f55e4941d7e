//go:build !long

package server_test

// binaryPackets is how many packets the differential test compares; -tags long compares more.
const binaryPackets = 10_000
