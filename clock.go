package hearth

import (
	"bytes"
	"encoding/hex"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is the machine's.
type systemClock struct{}

func (systemClock) Wall() int64 { return time.Now().Unix() }

func (systemClock) Boot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // it has been there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// bootID is random where the kernel does not tell: such a machine starts cold each time.
var bootID = sync.OnceValue(func() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		if b, err := hex.DecodeString(string(bytes.ReplaceAll(bytes.TrimSpace(text), []byte("-"), nil))); err == nil && len(b) == len(id) {
			return [16]byte(b)
		}
	}
	return [16]byte(randomBytes(len(id)))
})

func (systemClock) BootID() [16]byte { return bootID() }

// timebase turns the clocks into the cache's time, which never goes back. Within a boot it runs with the time since boot, so that steps of the
// wall clock neither expire items nor keep them; over a boot, the wall clock tells how long the machine was down.
type timebase struct {
	wall int64         // the cache's time in seconds at
	boot time.Duration // this time since boot
}

func (b timebase) at(boot time.Duration) uint32 {
	return uint32(b.wall + int64((boot-b.boot)/time.Second))
}
