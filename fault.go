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
	f := faultOf(recover())
	if f == nil {
		return
	}
	if !c.fault.told.Load() {
		panic(f)
	}
	c.opts.Logger.Error("hearth: fault in the cache's memory", "address", fmt.Sprintf("%#x", f.Addr), "what", f.What, "stack", string(debug.Stack()))
	c.NoteFault(f)
	if c.fault.seen.CompareAndSwap(nil, f) {
		c.fault.first <- f
	}
}

// faultOf returns the fault that was recovered, nil for nothing. It panics again with anything else.
func faultOf(recovered any) *Fault {
	if recovered == nil {
		return nil
	}
	bad, ok := recovered.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(recovered)
	}
	return &Fault{bad.Addr(), bad.Error()}
}

// NoteFault is for who meets a fault in the cache's memory and ends the process by itself: the next Open counts it as a panic (Options.NoteCrashes).
func (c *Cache) NoteFault(err error) {
	if c.fault.notes != nil {
		fmt.Fprintln(c.fault.notes, err) // failing, it is not counted
	}
}

// faulted returns the first fault as an error, nil when there was none.
func (c *Cache) faulted() error {
	if f := c.fault.seen.Load(); f != nil {
		return f
	}
	return nil
}
