//go:build invariants

// Package invariants says at compile time whether the dear checks are on.
package invariants

// Enabled is true in builds with -tags invariants: helpers then check bounds, alignment and states, and freed chunks are poisoned.
const Enabled = true
