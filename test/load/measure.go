package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// watched keeps what is written to it and tells when some text has come.
type watched struct {
	want string
	seen func()

	mu   sync.Mutex
	kept strings.Builder
}

// Write implements io.Writer.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept.Write(p)
	if strings.Contains(w.kept.String(), w.want) {
		w.seen()
	}
	return len(p), nil
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept.String()
}

// request is one of podlane's to the API server: when it was there, and what it
// was, "watch pods 200", say.
type request struct {
	at   time.Time
	what string
}

// requests returns podlane's requests since a time, in their order.
func (l *load) requests(since time.Time) ([]request, error) {
	text, err := os.ReadFile(l.bed.Stack.AuditLog)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	seen := map[string]bool{}
	var found []request
	for line := range strings.Lines(string(text)) {
		var event struct {
			AuditID                  string    `json:"auditID"`
			UserAgent                string    `json:"userAgent"`
			RequestReceivedTimestamp time.Time `json:"requestReceivedTimestamp"`
			Verb                     string    `json:"verb"`
			ObjectRef                struct{ Resource, Subresource string }
			ResponseStatus           struct{ Code int }
		}
		if json.Unmarshal([]byte(line), &event) != nil || !strings.HasPrefix(event.UserAgent, "podlane/") || seen[event.AuditID] || event.RequestReceivedTimestamp.Before(since) {
			continue
		}
		seen[event.AuditID] = true
		found = append(found, request{event.RequestReceivedTimestamp, strings.TrimSpace(fmt.Sprint(
			event.Verb, " ", event.ObjectRef.Resource, " ", event.ObjectRef.Subresource, " ", event.ResponseStatus.Code))})
	}
	slices.SortFunc(found, func(a, b request) int { return a.at.Compare(b.at) })
	return found, nil
}

func (l *load) serverPid() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.bed.Stack.RunDir, "kube-apiserver.pid"))
	if err != nil {
		return 0, fmt.Errorf("find the API server: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return 0, errors.New("find the API server: its record is empty")
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("find the API server: its record is %q", text)
	}
	return pid, nil
}

// serverTime is the processor time that the API server has used so far.
func (l *load) serverTime() (time.Duration, error) {
	pid, err := l.serverPid()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("measure the API server: %w", err)
	}
	// Fields 14 and 15 of proc(5), in ticks of 10 ms; field 2 may hold spaces.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("measure the API server: its status is %q", text)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// memory tells what processes hold, and what a thousand of them would.
func memory(pids []int, most int) (string, error) {
	var anonymous, shared []float64
	for _, pid := range pids[:min(most, len(pids))] {
		own, err := mib(pid, "status", "RssAnon:")
		if err != nil {
			return "", err
		}
		share, err := mib(pid, "smaps_rollup", "Pss:")
		if err != nil {
			return "", err
		}
		anonymous, shared = append(anonymous, own), append(shared, share)
	}
	if len(anonymous) == 0 {
		return "", errors.New("no process is left to measure")
	}
	slices.Sort(anonymous)
	slices.Sort(shared)
	half, last := len(anonymous)/2, len(anonymous)-1
	return fmt.Sprintf("memory of %d run processes that wait: RssAnon %.1f MiB each (median; most %.1f), PSS %.1f MiB (%.1f); 1000 of them: %.1f GiB, PSS %.1f GiB",
		len(anonymous), anonymous[half], anonymous[last], shared[half], shared[last], anonymous[half]*1000/1024, shared[half]*1000/1024), nil
}

// mib reads a value in MiB of a process.
func mib(pid int, file, key string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			return float64(n) / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, key)
}
