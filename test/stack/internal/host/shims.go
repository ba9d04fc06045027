package host

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// KillShims kills the container shims that serve the containerd at socket and
// returns how many there were. They outlive containerd on purpose, and nothing
// but their arguments tells whose they are.
func KillShims(socket string) (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	count := 0
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !isShim(cmdline, socket) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			count++
		}
	}
	return count, nil
}

func isShim(cmdline []byte, socket string) bool {
	args := bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0})
	if len(args) == 0 || !bytes.HasPrefix([]byte(filepath.Base(string(args[0]))), []byte("containerd-shim")) {
		return false
	}
	at := slices.IndexFunc(args, func(arg []byte) bool { return string(arg) == "-address" })
	return at >= 0 && at+1 < len(args) && string(args[at+1]) == socket
}
