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
// gone or whose exit only waits to be noticed.
func identify(pid int) (id identity, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, false
	}
	stat, err := parseStat(text)
	if err != nil || stat.ended() {
		return identity{}, false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, false
	}
	return identity{pid: pid, start: stat.start, boot: string(bytes.TrimSpace(boot))}, true
}

// procStat is what counts of /proc/<pid>/stat.
type procStat struct {
	state   byte
	threads int
	start   uint64
}

// ended reports whether nothing is left of the process but its exit status. A
// first thread that is a zombie doesn't do: as long as there are others, so are
// the process's sockets.
func (s procStat) ended() bool {
	return s.state == 'X' || s.state == 'Z' && s.threads <= 1
}

// parseStat takes fields 3, 20 and 22 of proc(5). The program's name, field 2,
// may itself contain spaces and parentheses.
func parseStat(text []byte) (procStat, error) {
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	const stateAt, threadsAt, startAt = 0, 17, 19
	if end < 0 || len(fields) <= startAt {
		return procStat{}, fmt.Errorf("process status %q is too short", text)
	}
	threads, err := strconv.Atoi(fields[threadsAt])
	if err != nil {
		return procStat{}, fmt.Errorf("number of threads: %w", err)
	}
	start, err := strconv.ParseUint(fields[startAt], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("process start time: %w", err)
	}
	return procStat{state: fields[stateAt][0], threads: threads, start: start}, nil
}

func (id identity) alive() bool {
	now, ok := identify(id.pid)
	return ok && now == id
}
