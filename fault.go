package hearth

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Fault is a bad access to the cache's memory by its background work: a bad disk, or a file that somebody cut short. That work has ended, time stands
// still, and the memory cannot be trusted: the process must exit at once, without saving the cache.
type Fault struct {
	Addr uintptr
	What string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("hearth: fault in the cache's memory at address %#x: %s", f.Addr, f.What)
}

// Faults returns where the first Fault is sent. Until it is called a fault panics, which ends the process too, as one in a caller's goroutine does unless
// that uses debug.SetPanicOnFault. Close returns a Fault that came before it.
func (c *Cache) Faults() <-chan *Fault {
	c.fault.told.Store(true)
	return c.fault.first
}

// catchFault is deferred by background goroutines, which have called debug.SetPanicOnFault; after what tells others that they have ended, so that whoever
// hears of the end finds the fault. A bad access comes as a runtime.Error that has an address; other panics are bugs and go their way.
func (c *Cache) catchFault() {
	r := recover()
	if r == nil {
		return
	}
	bad, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok || !c.fault.told.Load() {
		panic(r)
	}
	f := &Fault{bad.Addr(), bad.Error()}
	c.opts.Logger.Error("hearth: fault in the cache's memory", "address", fmt.Sprintf("%#x", f.Addr), "what", f.What, "stack", string(debug.Stack()))
	if c.fault.seen.CompareAndSwap(nil, f) {
		c.fault.first <- f
	}
}

// faulted returns the first fault as an error, nil when there was none.
func (c *Cache) faulted() error {
	if f := c.fault.seen.Load(); f != nil {
		return f
	}
	return nil
}
