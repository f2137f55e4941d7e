package restore

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot returns the time since the machine's boot, suspended time included.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(bootClock, &ts) != nil {
		return 0 // it has been there for long
	}
	return time.Duration(ts.Nano())
}

// BootID names the machine's boot. It is random where the kernel does not tell: such a machine starts cold each time.
var BootID = sync.OnceValue(func() (id [16]byte) {
	text, err := bootUUID()
	if err == nil {
		if b, err := hex.DecodeString(string(bytes.ReplaceAll(bytes.TrimSpace(text), []byte("-"), nil))); err == nil && len(b) == len(id) {
			return [16]byte(b)
		}
	}
	rand.Read(id[:]) // never fails
	return id
})
