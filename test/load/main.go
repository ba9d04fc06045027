// Command load measures what many jobs at once cost, on the running test bed
// with a simulated node: the memory of processes that wait, the API requests of a
// job and the API server's CPU time for it, and what happens when the API server
// comes back after an outage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
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
	"podlane/test/load/node"
	"podlane/test/stack/stackenv"
)

func main() {
	jobs := flag.Int("jobs", 200, "how many jobs run at once")
	measured := flag.Int("measured", 50, "how many of their processes' memory is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	l := &load{environ: os.Environ(), out: os.Stdout, measured: *measured}
	err := l.run(ctx, *jobs)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

type load struct {
	environ  []string
	out      io.Writer
	bed      *bed.Bed
	measured int
}

func (l *load) run(ctx context.Context, n int) (err error) {
	l.bed, err = bed.Start(ctx, bed.Options{NoVault: true, Root: ".", Environ: l.environ, Concurrent: 1})
	if err != nil {
		return err
	}
	err = l.trivialJob(ctx)
	if err = errors.Join(err, l.bed.Close()); err != nil {
		return err
	}
	template := `{"metadata": {},
"spec": {nodeSelector: {` + node.Label + `: load}, tolerations: [{key: ` + node.Label + `, operator: Exists}]}}`
	l.bed, err = bed.Start(ctx, bed.Options{NoVault: true, Root: ".", Environ: l.environ, Settings: bed.Settings{
		"kubernetes": {"pod_template": fmt.Sprintf("%q", template)},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.bed.Close()) }()
	pki := filepath.Join(l.bed.Stack.Dir, "pki")
	simulated, err := node.Start(ctx, node.Options{
		Name: "load", API: l.bed.Kube.API(), Address: l.bed.Stack.BridgeIP, CertFile: filepath.Join(pki, "kubelet.crt"), KeyFile: filepath.Join(pki, "kubelet.key"),
		Helper: filepath.Join(l.bed.Root(), "bin", "podlane-helper"), Dir: filepath.Join(l.bed.Dir, "pods"), Log: func(string, ...any) {},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, simulated.Close(ctx)) }()
	idle, err := l.idle(ctx)
	if err != nil {
		return err
	}
	if err := l.quietRound(ctx, n, idle); err != nil {
		return err
	}
	return l.outageRound(ctx, n)
}

// trivialJob counts what a trivial job on the real node asks of the API server.
func (l *load) trivialJob(ctx context.Context) error {
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
	pause(ctx, 2*time.Second) // its cleanup
	requests, err := l.requests(from)
	fmt.Fprintf(l.out, "a trivial job on the real node: %d requests\n", len(requests))
	return err
}

// idle is how much of a processor the API server takes with nothing to do.
func (l *load) idle(ctx context.Context) (float64, error) {
	before, err := l.serverTime()
	if err != nil {
		return 0, err
	}
	const span = 15 * time.Second
	pause(ctx, span)
	after, err := l.serverTime()
	return (after - before).Seconds() / span.Seconds(), err
}

// quietRound runs jobs at once and disturbs nobody.
func (l *load) quietRound(ctx context.Context, n int, idle float64) error {
	from := time.Now()
	before, err := l.serverTime()
	if err != nil {
		return err
	}
	r, err := l.startJobs(ctx, n)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.allWait(ctx); err != nil {
		return err
	}
	fmt.Fprintf(l.out, "%d jobs started at once: all scripts run after %s\n", n, time.Since(from).Round(100*time.Millisecond))
	pause(ctx, 5*time.Second) // a stage that goes on begins to watch its pod
	quiet := time.Now()
	pause(ctx, 15*time.Second)
	waiting, err := l.requests(quiet)
	if err != nil {
		return err
	}
	fmt.Fprintf(l.out, "while they wait: %.1f requests a second, of all together\n", float64(len(waiting))/15)
	memory, err := memory(r.processes(), l.measured)
	if err != nil {
		return err
	}
	fmt.Fprintln(l.out, memory)
	whole, cleaned, err := r.finish(ctx)
	if err != nil {
		return err
	}
	after, err := l.serverTime()
	if err != nil {
		return err
	}
	took := time.Since(from)
	requests, err := l.requests(from)
	if err != nil {
		return err
	}
	used := (after - before).Seconds()
	fmt.Fprintf(l.out, "%d of %d jobs ended well, with their whole output; all cleaned up %s after the last\n", whole, n, cleaned.Round(100*time.Millisecond))
	fmt.Fprintf(l.out, "%.1f requests a job; API server: %.0f ms of processor time a job, %.0f ms without what it takes when idle\n",
		float64(len(requests))/float64(n), used/float64(n)*1000, (used-idle*took.Seconds())/float64(n)*1000)
	return nil
}

// outageRound takes the API server away while jobs run.
func (l *load) outageRound(ctx context.Context, n int) error {
	r, err := l.startJobs(ctx, n)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.allWait(ctx); err != nil {
		return err
	}
	const gone = 10 * time.Second
	back, err := l.outage(ctx, gone)
	if err != nil {
		return err
	}
	pause(ctx, 30*time.Second)
	whole, cleaned, err := r.finish(ctx)
	if err != nil {
		return err
	}
	pause(ctx, 2*time.Second)
	// Streams are in the log when they have ended.
	requests, err := l.requests(back.Add(-2 * time.Second))
	if err != nil || len(requests) == 0 {
		return fmt.Errorf("no request after the outage: %w", err)
	}
	perSecond, kinds := make([]string, 10), map[string]int{}
	for second := range perSecond {
		count := 0
		for _, r := range requests {
			if int(r.at.Sub(requests[0].at).Seconds()) == second {
				count++
				kinds[r.what]++
			}
		}
		perSecond[second] = strconv.Itoa(count)
	}
	fmt.Fprintf(l.out, "API server away for %s; requests in each of the 10 s after its first answer: %s\n", gone, strings.Join(perSecond, " "))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(l.out, "  %s: %d\n", kind, kinds[kind])
	}
	fmt.Fprintf(l.out, "%d of %d jobs ended well, with their whole output; all cleaned up %s after the last\n", whole, n, cleaned.Round(100*time.Millisecond))
	return nil
}

// outage kills the API server and starts it again after a while.
func (l *load) outage(ctx context.Context, gone time.Duration) (back time.Time, err error) {
	pid, err := l.serverPid()
	if err != nil {
		return time.Time{}, err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return time.Time{}, err
	}
	pause(ctx, gone)
	back = time.Now()
	if out, err := exec.CommandContext(ctx, "go", "run", "./test/stack", "restart", "kube-apiserver").CombinedOutput(); err != nil {
		return back, fmt.Errorf("bring the API server back: %w: %s", err, out)
	}
	return back, nil
}

// round is many jobs at once.
type round struct {
	load *load
	gate string
	jobs []*job
	open sync.Once
	held *os.File
}

// job is one of them: as the runner calls podlane for it.
type job struct {
	number int
	dir    string
	call   func(ctx context.Context, args ...string) *exec.Cmd
	begun  chan struct{}
	over   chan struct{}
	script *exec.Cmd
	output watched
	err    error
}

// lines are what each script prints at its end.
const lines = 200

// startJobs starts jobs whose scripts wait at a gate.
func (l *load) startJobs(ctx context.Context, n int) (*round, error) {
	dir, err := os.MkdirTemp(l.bed.Dir, "round")
	if err != nil {
		return nil, err
	}
	r := &round{load: l, gate: filepath.Join(dir, "gate")}
	if err := syscall.Mkfifo(r.gate, 0o600); err != nil {
		return nil, err
	}
	for i := range n {
		j, err := l.newJob(filepath.Join(dir, strconv.Itoa(i)), i)
		if err != nil {
			return nil, err
		}
		r.jobs = append(r.jobs, j)
	}
	for _, j := range r.jobs {
		go func() {
			defer close(j.over)
			j.err = j.run(ctx, r.gate)
		}()
	}
	return r, nil
}

func (l *load) newJob(dir string, number int) (*job, error) {
	j := &job{number: number, dir: dir, begun: make(chan struct{}), over: make(chan struct{})}
	j.output.want, j.output.seen = "began\n", sync.OnceFunc(func() { close(j.begun) })
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	response, err := json.Marshal(map[string]any{
		"id": time.Now().UnixNano(), "job_info": map[string]any{"project_id": 9, "name": "load"},
		"git_info": map[string]any{"repo_url": "http://gitlab.example.com/load.git"}, "runner_info": map[string]any{"timeout": 900},
		"image": map[string]any{"name": stackenv.ImageJob},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "response.json")
	if err := os.WriteFile(file, response, 0o600); err != nil {
		return nil, err
	}
	j.call = func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, l.bed.Podlane, args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Env = append(l.environ[:len(l.environ):len(l.environ)], "PODLANE_CONFIG="+l.bed.Config, "JOB_RESPONSE_FILE="+file)
		return cmd
	}
	return j, nil
}

// run calls the stages of a job but for cleanup: as many as a trivial job has.
func (j *job) run(ctx context.Context, gate string) error {
	for _, stage := range []string{"config", "prepare"} {
		if out, err := j.call(ctx, stage).CombinedOutput(); err != nil {
			return fmt.Errorf("job %d: %s: %w: %s", j.number, stage, err, out)
		}
	}
	waiting := fmt.Sprintf(`echo began; : < %s; i=0; while [ $i -lt %d ]; do echo "line $i"; i=$((i+1)); done; echo ended`, gate, lines)
	for i, script := range []string{"echo one", "echo two", waiting, "echo four"} {
		file := filepath.Join(j.dir, "script"+strconv.Itoa(i))
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			return err
		}
		cmd := j.call(ctx, "run", file, "step_"+strconv.Itoa(i))
		var problems strings.Builder
		cmd.Stderr = &problems
		if script == waiting {
			cmd.Stdout, j.script = &j.output, cmd
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("job %d: step %d: %w: %s", j.number, i, err, problems.String())
		}
	}
	return nil
}

// whole tells whether the script's output came as it was printed, but for lines
// of podlane's own about connections that broke.
func (j *job) whole() bool {
	var want strings.Builder
	want.WriteString("began\n")
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	want.WriteString("ended\n")
	var got strings.Builder
	for line := range strings.Lines(j.output.text()) {
		if !strings.HasPrefix(line, "warning: ") {
			got.WriteString(line)
		}
	}
	return j.err == nil && got.String() == want.String()
}

// waitLimit is for all scripts of a round to begin, or to end.
const waitLimit = 4 * time.Minute

// allWait waits until all scripts are at the gate.
func (r *round) allWait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for i, j := range r.jobs {
		select {
		case <-j.begun:
		case <-j.over:
			return fmt.Errorf("job %d ended before its script waited: %w", i, j.err)
		case <-ctx.Done():
			return fmt.Errorf("job %d did not begin: %w", i, ctx.Err())
		}
	}
	return nil
}

// release opens the gate: a pipe is open for readers as soon as somebody has it
// open to write.
func (r *round) release() {
	r.open.Do(func() { r.held, _ = os.OpenFile(r.gate, os.O_RDWR, 0) })
}

// close lets nobody wait for ever.
func (r *round) close() {
	r.release()
	for _, j := range r.jobs {
		<-j.over
	}
	if r.held != nil {
		r.held.Close()
	}
}

func (r *round) processes() []int {
	var pids []int
	for _, j := range r.jobs {
		if j.script != nil && j.script.Process != nil {
			pids = append(pids, j.script.Process.Pid)
		}
	}
	return pids
}

// finish lets all jobs end, cleans all up at once, and counts those whose output
// is whole.
func (r *round) finish(ctx context.Context) (whole int, cleaned time.Duration, err error) {
	r.release()
	for _, j := range r.jobs {
		<-j.over
		if j.whole() {
			whole++
		} else if err == nil {
			err = j.err
		}
	}
	if err != nil {
		fmt.Fprintln(r.load.out, "the first that did not end well:", err)
	}
	began := time.Now()
	failed := make([]error, len(r.jobs))
	var all sync.WaitGroup
	for i, j := range r.jobs {
		all.Go(func() { failed[i] = j.call(ctx, "cleanup").Run() })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return whole, 0, fmt.Errorf("cleanup: %w", err)
	}
	for {
		pods, err := r.load.bed.Kube.Pods(ctx, "")
		if err == nil && len(pods) == 0 {
			return whole, time.Since(began), nil
		}
		if !pause(ctx, 50*time.Millisecond) || time.Since(began) > waitLimit {
			return whole, 0, fmt.Errorf("%d pods are left: %w", len(pods), err)
		}
	}
}

// pause returns false if ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
