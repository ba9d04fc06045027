// Command load measures what many jobs at once cost, on the running test bed:
// the memory of processes that wait, the API requests of a job, and what happens
// when the API server comes back after an outage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

func main() {
	waiting := flag.Int("jobs", 200, "how many jobs wait for a node at once")
	runs := flag.Int("runs", 50, "how many stages run at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	l := &load{environ: os.Environ(), out: os.Stdout}
	err := l.run(ctx, *waiting, *runs)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

type load struct {
	environ []string
	out     io.Writer
	bed     *bed.Bed
}

func (l *load) run(ctx context.Context, waiting, runs int) error {
	b, err := bed.Start(ctx, bed.Options{NoVault: true, Root: ".", Environ: l.environ, Concurrent: 1})
	if err != nil {
		return err
	}
	l.bed = b
	err = l.requestsPerJob(ctx)
	if err == nil {
		err = l.waitingRuns(ctx, runs)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	// No node has that much: the jobs wait.
	b, err = bed.Start(ctx, bed.Options{NoVault: true, Root: ".", Environ: l.environ, Settings: bed.Settings{"resources.build": {"cpu_request": `"500"`}}})
	if err != nil {
		return err
	}
	l.bed = b
	return errors.Join(l.waitingPrepares(ctx, waiting), b.Close())
}

// requestsPerJob counts what a trivial job asks of the API server.
func (l *load) requestsPerJob(ctx context.Context) error {
	project, err := l.bed.GitLab.AddProject(ctx, gitlabsim.ProjectSpec{Path: "load/trivial"})
	if err != nil {
		return err
	}
	if _, err := project.Commit(ctx, map[string]string{"README": "trivial\n"}); err != nil {
		return err
	}
	from := time.Now()
	job, err := l.bed.GitLab.Enqueue(ctx, gitlabsim.JobSpec{Project: project, Script: []string{"echo hello"}})
	if err != nil {
		return err
	}
	result, err := job.Wait(ctx)
	if err != nil || result.State != gitlabsim.Success {
		return fmt.Errorf("a trivial job ended as %s: %w", result.State, err)
	}
	requests, err := l.requests(from)
	fmt.Fprintf(l.out, "a trivial job: %d requests to the API server\n", len(requests))
	return err
}

// caller makes a job's folder; the function that is returned calls podlane for
// it.
func (l *load) caller(i int) (dir string, call func(ctx context.Context, args ...string) *exec.Cmd, err error) {
	dir = filepath.Join(l.bed.Dir, "load"+strconv.Itoa(i))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	response, err := json.Marshal(map[string]any{
		"id": time.Now().UnixNano(), "job_info": map[string]any{"project_id": 9, "name": "load"},
		"git_info": map[string]any{"repo_url": "http://gitlab.example.com/load.git"}, "runner_info": map[string]any{"timeout": 900},
		"image": map[string]any{"name": stackenv.ImageJob},
	})
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "response.json"), response, 0o600); err != nil {
		return "", nil, err
	}
	return dir, func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, l.bed.Podlane, args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Env = append(l.environ[:len(l.environ):len(l.environ)], "PODLANE_CONFIG="+l.bed.Config, "JOB_RESPONSE_FILE="+filepath.Join(dir, "response.json"))
		return cmd
	}, nil
}

// waitingRuns runs many stages at once in one pod, which is enough for their
// other end, and takes the API server away.
func (l *load) waitingRuns(ctx context.Context, n int) (err error) {
	dir, call, err := l.caller(0)
	if err != nil {
		return err
	}
	if out, err := call(ctx, "prepare").CombinedOutput(); err != nil {
		return fmt.Errorf("prepare: %w: %s", err, out)
	}
	defer func() {
		if out, cleanupErr := call(ctx, "cleanup").CombinedOutput(); cleanupErr != nil {
			err = errors.Join(err, fmt.Errorf("cleanup: %w: %s", cleanupErr, out))
		}
	}()
	const seconds = 90
	cmds := make([]*exec.Cmd, n)
	outputs := make([]strings.Builder, n)
	for i := range cmds {
		script := filepath.Join(dir, "script"+strconv.Itoa(i))
		if err := os.WriteFile(script, fmt.Appendf(nil, "echo began; sleep %d; echo ended", seconds), 0o600); err != nil {
			return err
		}
		cmds[i] = call(ctx, "run", script, "build_script")
		cmds[i].Stdout = &outputs[i]
		if err := cmds[i].Start(); err != nil {
			return err
		}
	}
	pause(ctx, 20*time.Second)
	fmt.Fprintf(l.out, "%d stages that wait: %s\n", n, memory(cmds))
	if err := l.outage(ctx, 10*time.Second); err != nil {
		return err
	}
	whole := 0
	for i, cmd := range cmds {
		if err := cmd.Wait(); err == nil && outputs[i].String() == "began\nended\n" {
			whole++
		}
	}
	fmt.Fprintf(l.out, "after it %d of %d stages ended well, with their whole output\n", whole, n)
	return nil
}

// outage kills the API server, starts it again after a while, and counts the
// requests of the seconds that follow.
func (l *load) outage(ctx context.Context, gone time.Duration) error {
	text, err := os.ReadFile(filepath.Join(l.bed.Stack.RunDir, "kube-apiserver.pid"))
	if err != nil {
		return fmt.Errorf("take the API server away: %w", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil || pid <= 1 {
		return fmt.Errorf("take the API server away: its record is %q", text)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	pause(ctx, gone)
	if out, err := exec.CommandContext(ctx, "go", "run", "./test/stack", "restart", "kube-apiserver").CombinedOutput(); err != nil {
		return fmt.Errorf("bring the API server back: %w: %s", err, out)
	}
	back := time.Now()
	pause(ctx, 25*time.Second)
	requests, err := l.requests(back.Add(-time.Second))
	if err != nil || len(requests) == 0 {
		return fmt.Errorf("no request after the outage: %w", err)
	}
	perSecond := map[int]int{}
	busiest, firstTen := 0, 0
	for _, at := range requests {
		second := int(at.Sub(requests[0]).Seconds())
		perSecond[second]++
		busiest = max(busiest, perSecond[second])
		if second < 10 {
			firstTen++
		}
	}
	fmt.Fprintf(l.out, "API server away for %s: %d requests in the first 10 s after it, %d in the busiest second\n", gone, firstTen, busiest)
	return nil
}

// waitingPrepares lets many jobs wait for a node, then cleans all up at once.
func (l *load) waitingPrepares(ctx context.Context, n int) error {
	from := time.Now()
	cmds, calls := make([]*exec.Cmd, n), make([]func(context.Context, ...string) *exec.Cmd, n)
	for i := range cmds {
		_, call, err := l.caller(i)
		if err != nil {
			return err
		}
		calls[i], cmds[i] = call, call(ctx, "prepare")
		if err := cmds[i].Start(); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(5 * time.Minute); ; pause(ctx, time.Second) {
		pods, err := l.bed.Kube.Pods(ctx, "")
		if err == nil && len(pods) >= n {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d of %d pods after 5 minutes: %w", len(pods), n, err)
		}
	}
	fmt.Fprintf(l.out, "%d pods made after %s\n", n, time.Since(from).Round(100*time.Millisecond))
	pause(ctx, 10*time.Second)
	requests, err := l.requests(from)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.out, "%d jobs that wait for a node: %s; %.1f requests each so far\n", n, memory(cmds), float64(len(requests))/float64(n))
	quiet := time.Now()
	pause(ctx, 10*time.Second)
	if requests, err = l.requests(quiet); err != nil {
		return err
	}
	fmt.Fprintf(l.out, "while they wait: %.1f requests a second, of all together\n", float64(len(requests))/10)

	began := time.Now()
	for _, cmd := range cmds {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	failed := make([]error, n)
	for i := range cmds {
		all.Go(func() {
			_ = cmds[i].Wait()
			failed[i] = calls[i](ctx, "cleanup").Run()
		})
	}
	all.Wait()
	fmt.Fprintf(l.out, "all cancelled and cleaned up after %s\n", time.Since(began).Round(100*time.Millisecond))
	return errors.Join(failed...)
}

// requests returns when podlane's requests since a time reached the API server.
func (l *load) requests(since time.Time) ([]time.Time, error) {
	text, err := os.ReadFile(l.bed.Stack.AuditLog)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	seen := map[string]bool{}
	var times []time.Time
	for line := range strings.Lines(string(text)) {
		var event struct {
			AuditID                  string    `json:"auditID"`
			UserAgent                string    `json:"userAgent"`
			RequestReceivedTimestamp time.Time `json:"requestReceivedTimestamp"`
		}
		if json.Unmarshal([]byte(line), &event) != nil || !strings.HasPrefix(event.UserAgent, "podlane/") || seen[event.AuditID] || event.RequestReceivedTimestamp.Before(since) {
			continue
		}
		seen[event.AuditID] = true
		times = append(times, event.RequestReceivedTimestamp)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times, nil
}

// memory sums up what processes hold of their own.
func memory(cmds []*exec.Cmd) string {
	var kib []int
	for _, cmd := range cmds {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				if n, err := strconv.Atoi(strings.Fields(value)[0]); err == nil {
					kib = append(kib, n)
				}
			}
		}
	}
	if len(kib) == 0 {
		return "none is left"
	}
	slices.Sort(kib)
	median := float64(kib[len(kib)/2]) / 1024
	return fmt.Sprintf("%.1f MiB of memory of its own each (median; most: %.1f), %.1f GiB for 1000", median, float64(kib[len(kib)-1])/1024, median*1000/1024)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
