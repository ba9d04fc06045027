package podagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Bytes is an amount of memory; 0 means that there is no limit, or that the
// kernel doesn't tell.
type Bytes int64

// String writes whole MiB where it can.
func (b Bytes) String() string {
	switch {
	case b <= 0:
		return "unknown"
	case b >= 1<<20:
		return fmt.Sprintf("%d MiB", b>>20)
	}
	return fmt.Sprintf("%d bytes", int64(b))
}

// unlimited is beyond any machine's memory: version 1 of control groups has a
// number of that size in the place of no limit.
const unlimited = 1 << 60

// cgroups is where a container sees its control groups.
const cgroups = "/sys/fs/cgroup"

// memoryUse reads a container's limit and the most that it has used; root is
// cgroups.
func memoryUse(root string) (limit, peak Bytes) {
	if v1 := filepath.Join(root, "memory", "memory.limit_in_bytes"); fileExists(v1) {
		return readBytes(v1), readBytes(filepath.Join(root, "memory", "memory.max_usage_in_bytes"))
	}
	return readBytes(filepath.Join(root, "memory.max")), readBytes(filepath.Join(root, "memory.peak"))
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readBytes returns 0 for "max" and for a file that this kernel does not have.
func readBytes(path string) Bytes {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= unlimited {
		return 0
	}
	return Bytes(n)
}
