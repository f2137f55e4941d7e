//go:build faults

// Package fault names the places at which tests stop, stall or kill the program. In ordinary builds a point costs nothing.
package fault

import "sync/atomic"

var hook atomic.Pointer[func(point string)]

// Set makes f run at every point that is passed from now on; nil takes it away. f may block its caller, panic, or kill the process.
func Set(f func(point string)) {
	if f == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&f)
}

// Enabled is true in builds with -tags faults.
const Enabled = true

// Point runs the hook, if one is set. Names read package.operation.place, as in "index.insert.placed".
func Point(point string) {
	if f := hook.Load(); f != nil {
		(*f)(point)
	}
}
