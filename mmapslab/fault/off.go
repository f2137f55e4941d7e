//go:build !faults

// Package fault names the places at which tests stop, stall or kill the program. In ordinary builds a point costs nothing.
package fault

// Enabled is false in ordinary builds.
const Enabled = false

// Set does nothing in ordinary builds.
func Set(func(point string)) {}

// Point does nothing in ordinary builds.
func Point(string) {}
