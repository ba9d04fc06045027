// Package daemon starts programs that outlive us, finds them again, and ends
// them, without ever taking another process for one of ours.
package daemon

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// identity names one process for good: a pid alone is used again by the
// kernel, and the start time alone by the next boot.
type identity struct {
	pid   int
	start uint64 // clock ticks between boot and the process's start
	boot  string
}

// identify reads the identity of a living process; ok is false for one that is
// gone or a zombie.
func identify(pid int) (id identity, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, false
	}
	state, start, err := parseStat(stat)
	if err != nil || state == 'Z' || state == 'X' {
		return identity{}, false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, false
	}
	return identity{pid: pid, start: start, boot: string(bytes.TrimSpace(boot))}, true
}

// parseStat takes the state and the start time out of /proc/<pid>/stat
// (proc(5), fields 3 and 22). The program's name, field 2, may itself contain
// spaces and parentheses.
func parseStat(stat []byte) (state byte, start uint64, err error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	const stateAt, startAt = 0, 19
	if end < 0 || len(fields) <= startAt {
		return 0, 0, fmt.Errorf("process status %q is too short", stat)
	}
	start, err = strconv.ParseUint(fields[startAt], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("process start time: %w", err)
	}
	return fields[stateAt][0], start, nil
}

func (id identity) alive() bool {
	now, ok := identify(id.pid)
	return ok && now == id
}
