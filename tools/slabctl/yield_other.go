//go:build portable || !linux

package main

import (
	"sync"
	"syscall"
)

// yieldToServer gives the process the lowest priority: beside a live server the tool takes what processor time is left.
var yieldToServer = sync.OnceFunc(func() {
	syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19) // failing, it is no less right
})
