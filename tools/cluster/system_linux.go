package main

import "syscall"

// endWithUs has a server that is started stop when this process ends, however that ends.
func endWithUs(child *syscall.SysProcAttr) { child.Pdeathsig = syscall.SIGTERM }
