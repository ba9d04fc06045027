package podagent

import (
	"os"
	"strconv"
	"strings"
)

// memoryEvents count what happened to the container's memory, in cgroup v2
// (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files)
// and v1. A container sees its own cgroup as the root.
var memoryEvents = []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}

// killedForMemory is how many processes of the container the kernel has killed
// so far because memory ran out; 0 where that cannot be known.
func killedForMemory() int {
	for _, file := range memoryEvents {
		if text, err := os.ReadFile(file); err == nil {
			return oomKills(string(text))
		}
	}
	return 0
}

func oomKills(text string) int {
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
