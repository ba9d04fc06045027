// Command bench measures what a job costs beside its own script: ten trivial
// jobs with a kubeconfig and ten with credentials of Vault's, one after the
// other and by turns, on the running test bed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
)

// jobs is how many are measured. One more, the first, warms caches up and does
// not count.
const jobs = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, environ []string, out io.Writer) (err error) {
	plain := &variant{}
	vault := &variant{suffix: ", with Vault"}
	for _, v := range []*variant{plain, vault} {
		if err := v.start(ctx, environ, v == plain); err != nil {
			return errors.Join(err, plain.close(), vault.close())
		}
	}
	samples, err := measure(ctx, plain, vault)
	if err == nil {
		err = measureStage(ctx, plain.bed, environ, out, samples)
	}
	if err := errors.Join(err, plain.close(), vault.close()); err != nil {
		return err
	}
	figures := samples.figures()
	if err := show(out, figures); err != nil {
		return err
	}
	return save(filepath.Join(plain.bed.Root(), ".local", "bench", "overhead.json"), figures)
}

// variant is one way to run the jobs.
type variant struct {
	suffix  string // of its figures' names
	bed     *bed.Bed
	project *gitlabsim.Project
	calls   callTimes
}

func (v *variant) start(ctx context.Context, environ []string, noVault bool) (err error) {
	v.bed, err = bed.Start(ctx, bed.Options{
		Root: ".", Environ: environ, Concurrent: 1, NoVault: noVault,
		Hooks: runnersim.Hooks{After: v.calls.add},
		Tune:  func(c *runnersim.Config) { c.FlushAtOnce = true; c.CheckInterval = 10 * time.Millisecond },
	})
	if err != nil {
		return err
	}
	if v.project, err = v.bed.AddProject(ctx, gitlabsim.ProjectSpec{Path: "bench/trivial"}); err != nil {
		return err
	}
	_, err = v.project.Commit(ctx, map[string]string{"README": "trivial\n"})
	return err
}

func (v *variant) close() error {
	if v.bed == nil {
		return nil
	}
	return v.bed.Close()
}

// measure runs the jobs and collects a value of each figure for each of them.
func measure(ctx context.Context, variants ...*variant) (*samples, error) {
	s := &samples{values: map[string][]float64{}}
	for i := range jobs + 1 {
		for _, v := range variants {
			if err := v.measure(ctx, s, i > 0); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// measure runs one job.
func (v *variant) measure(ctx context.Context, s *samples, counts bool) error {
	v.calls.reset()
	job, err := v.bed.GitLab.Enqueue(ctx, gitlabsim.JobSpec{
		Project: v.project, IDTokens: v.bed.IDTokens(), Script: []string{"echo first=$(date +%s.%N)", "echo last=$(date +%s.%N)"},
	})
	if err != nil {
		return err
	}
	result, err := job.Wait(ctx)
	if err != nil {
		return err
	}
	trace, err := job.Trace()
	if err != nil {
		return err
	}
	if result.State != gitlabsim.Success {
		return fmt.Errorf("a trivial job ended as %s:\n%s", result.State, trace)
	}
	first, last := printed(trace, "first"), printed(trace, "last")
	if counts {
		s.add("total"+v.suffix, result.Ran())
		s.add("handed out to first line"+v.suffix, first.Sub(result.HandedOut))
		s.add("last line to finished"+v.suffix, result.Finished.Sub(last))
		v.calls.each(func(name string, d time.Duration) { s.add(name+v.suffix, d) })
	}
	// The next pod must not share the node with the end of this one.
	return gone(ctx, v.bed, job.URL())
}

// printed returns the time that the script printed under a name.
func printed(trace []byte, name string) time.Time {
	m := regexp.MustCompile(`\n` + name + `=(\d+)\.(\d{9})`).FindSubmatch(trace)
	if m == nil {
		return time.Time{}
	}
	sec, _ := strconv.ParseInt(string(m[1]), 10, 64)
	nsec, _ := strconv.ParseInt(string(m[2]), 10, 64)
	return time.Unix(sec, nsec)
}

func gone(ctx context.Context, b *bed.Bed, jobURL string) error {
	for {
		pods, err := b.Kube.Pods(ctx, jobURL)
		if err != nil || len(pods) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// callTimes collects the driver calls of one job.
type callTimes struct {
	mu    sync.Mutex
	calls []runnersim.Call
}

func (c *callTimes) add(call *runnersim.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, *call)
}

func (c *callTimes) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

func (c *callTimes) each(add func(string, time.Duration)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		add("podlane "+call.Stage, call.End.Sub(call.Start))
	}
}

// samples keeps figures in the order in which they were first seen.
type samples struct {
	names  []string
	values map[string][]float64
}

func (s *samples) add(name string, d time.Duration) {
	if s.values[name] == nil {
		s.names = append(s.names, name)
	}
	s.values[name] = append(s.values[name], d.Seconds())
}

// figure is one line of the result.
type figure struct {
	Name   string  `json:"name"`
	Median float64 `json:"median_s"`
	Min    float64 `json:"min_s"`
	Max    float64 `json:"max_s"`
	N      int     `json:"n"`
}

func (s *samples) figures() []figure {
	var out []figure
	for _, name := range s.names {
		v := slices.Sorted(slices.Values(s.values[name]))
		out = append(out, figure{Name: name, Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Min: v[0], Max: v[len(v)-1], N: len(v)})
	}
	return out
}

func show(out io.Writer, figures []figure) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "seconds\tmedian\tmin\tmax\tn")
	for _, f := range figures {
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.3f\t%d\n", f.Name, f.Median, f.Min, f.Max, f.N)
	}
	return w.Flush()
}

func save(path string, figures []figure) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
