package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

const bootClock = unix.CLOCK_BOOTTIME // since Linux 2.6.39

func bootUUID() ([]byte, error) { return os.ReadFile("/proc/sys/kernel/random/boot_id") }
