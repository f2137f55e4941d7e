package restore

import "golang.org/x/sys/unix"

const bootClock = unix.CLOCK_MONOTONIC_RAW // goes on while the machine sleeps, other than Linux's of that name

func bootUUID() ([]byte, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	return []byte(id), err
}
