package host

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

type mount struct{ target, fstype string }

func readMounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok {
			out = append(out, m)
		}
	}
	return out, lines.Err()
}

// parseMount reads a line as fstab(5) has it: spaces in a path are octal.
func parseMount(line string) (mount, bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return mount{}, false
	}
	return mount{target: unescape.Replace(fields[1]), fstype: fields[2]}, true
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// UnmountBelow detaches everything that is mounted at or below one of dirs.
func UnmountBelow(dirs ...string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	// What was mounted last goes first.
	for _, m := range slices.Backward(mounts) {
		if !below(m.target, dirs) {
			continue
		}
		if err := syscall.Unmount(m.target, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
			return fmt.Errorf("unmount %s: %w", m.target, err)
		}
	}
	return nil
}

func below(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}
