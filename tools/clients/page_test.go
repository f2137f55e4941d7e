package clients_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// The live page is tested in Chromium where that is installed; it is no client of the protocol, so HEARTH_CLIENTS does not ask for it.
func TestPageInChromium(t *testing.T) {
	t.Parallel()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (apt-get install chromium): the live page is not looked at")
	}
	modules, err := npmModules()
	if err != nil {
		missing(t, "%v", err)
	}
	path, err := buildHearthd()
	if err != nil {
		t.Fatal(err)
	}
	p := program{name: "hearthd", path: path, hardest: syscall.SIGKILL}
	dir := t.TempDir()
	var failures error
	for range 20 {
		port, site := 10000+rand.IntN(20000), fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)) // not given to outgoing connections: free at a restart
		args := []string{"-e", filepath.Join(dir, "memory"), "-o", "http_listen=" + site}
		s, err := p.launch(t, dir, nil, append([]string{"-p", fmt.Sprint(port)}, args...)...)
		if err != nil {
			failures = errors.Join(failures, err)
			continue
		}
		runScript(t, []string{"node", "page.js"}, []string{"NODE_PATH=" + modules, "CHROMIUM=" + browser, "PROFILE=" + filepath.Join(dir, "profile"), "MAIN=" + s.addr, "HTTP=" + site}, s, args)
		return
	}
	t.Fatal(failures)
}
