package secretscan

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// look is how often processes are looked at. What is in an argument for less
// may be missed: with many jobs, none of a kind is missed every time.
const look = 200 * time.Millisecond

// Processes begins to scan the arguments of all processes, pods' included, as
// they come, until Stop. Values that were to be kept secret are looked for in
// all, the looks of secrets in this process's descendants and podlane's own:
// other work on the machine is none of our business.
func (s *Scan) Processes() {
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		seen := map[string]bool{}
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			seen = s.processes(seen)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	s.stop = sync.OnceFunc(func() {
		close(done)
		watcher.Wait()
	})
}

// Stop ends what Processes began.
func (s *Scan) Stop() { s.stop() }

// processes scans those that are not in seen, and returns what there is now.
func (s *Scan) processes(seen map[string]bool) map[string]bool {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	now := make(map[string]bool, len(dirs))
	for _, dir := range dirs {
		raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(raw) == 0 {
			continue // it has ended, or is the kernel's
		}
		key := dir + "\x00" + string(raw)
		now[key] = true
		if seen[key] {
			continue
		}
		args := strings.ReplaceAll(strings.TrimRight(string(raw), "\x00"), "\x00", " ")
		s.keep("process", args)
		program := filepath.Base(string(bytes.SplitN(raw, []byte{0}, 2)[0]))
		if strings.HasPrefix(program, "podlane") {
			s.count("podlane process")
		} else if !ours(dir) {
			continue
		}
		s.scanLooks("process", args)
	}
	return now
}

// ours tells whether a process descends from this one.
func ours(dir string) bool {
	self := os.Getpid()
	for range 64 {
		pid := parent(dir)
		if pid == self {
			return true
		}
		if pid <= 1 {
			return false
		}
		dir = "/proc/" + strconv.Itoa(pid)
	}
	return false
}

// parent reads proc(5)'s stat: the name in brackets may hold anything.
func parent(dir string) int {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1])
	return pid
}
