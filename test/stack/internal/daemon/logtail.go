package daemon

import (
	"io"
	"os"
	"strings"
)

// LastLines returns up to n last lines of the daemon's log, without line ends.
func (d Daemon) LastLines(n int) []string {
	f, err := os.Open(d.LogFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	const window = 64 << 10 // enough for n lines of a Kubernetes log
	if info, err := f.Stat(); err == nil && info.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return nil
		}
	}
	text, err := io.ReadAll(f)
	if err != nil || len(text) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}
