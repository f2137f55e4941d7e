//go:build !invariants

// Package invariants says at compile time whether the dear checks are on.
package invariants

// Enabled is false in ordinary builds; the compiler drops what stands behind it.
const Enabled = false
