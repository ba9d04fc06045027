package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/faults/proxy"
	"podlane/test/gitlabsim"
	"podlane/test/joblines"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
)

// SIGTERM to each stage of a job in turn, as when somebody stops processes on
// the runner's host: while it waits for the cluster's first answer, and for
// the script also while that runs.
func TestTermAtEveryStage(t *testing.T) {
	quick(t)
	const failed, success = "system failure", "success"
	for _, tt := range []struct{ stage, class, line string }{
		{"prepare", success, ""}, // of the second try
		{"prepare_script", failed, "stage prepare_script was cancelled"},
		{"get_sources", failed, "stage get_sources was cancelled"},
		{"build_script", failed, "stage build_script was cancelled"},
		{"after_script", success, "stage after_script was cancelled"}, // as in GitLab
		{"cleanup", success, ""},
	} {
		t.Run(tt.stage, func(t *testing.T) {
			quick(t)
			p, settings := throughProxy(t, proxy.Faults{})
			var before, started sync.Once
			var waiting <-chan struct{}
			b := start(t, settings, runnersim.Hooks{
				Before: func(call *runnersim.Call) error {
					if call.Stage == tt.stage {
						before.Do(func() { waiting = p.Hold() })
					}
					return nil
				},
				Started: func(call *runnersim.Call, pid int) {
					if call.Stage != tt.stage {
						return
					}
					started.Do(func() {
						go func() {
							defer p.Release()
							select {
							case <-waiting:
								_ = syscall.Kill(pid, syscall.SIGTERM)
							case <-time.After(limit):
								t.Error("the stage has asked nothing of the API server")
							}
						}()
					})
				},
			})
			job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs"}, AfterScript: []string{"echo after"}})
			o := finish(t, b, job)
			o.verdict(t, "SIGTERM to "+tt.stage, tt.class, tt.line)
		})
	}
}

// byHand makes a folder as the runner makes one for an attempt at a job.
func byHand(t *testing.T, b *bed.Bed) (dir, jobURL string) {
	t.Helper()
	id := time.Now().UnixNano()
	repo := fmt.Sprintf("http://gitlab.example.com/faults/p%d", id)
	response, err := json.Marshal(map[string]any{
		"id": id, "job_info": map[string]any{"project_id": 9, "name": "by hand"}, "git_info": map[string]any{"repo_url": repo + ".git"},
		"runner_info": map[string]any{"timeout": 600}, "image": map[string]any{"name": stackenv.ImageJob},
		"services": []any{map[string]any{"name": stackenv.ImageService}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = b.Call(context.WithoutCancel(t.Context()), dir, "cleanup") })
	return dir, fmt.Sprintf("%s/-/jobs/%d", repo, id)
}

func command(t *testing.T, b *bed.Bed, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), b.Podlane, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PODLANE_CONFIG="+b.Config, "TMPDIR="+dir, "JOB_RESPONSE_FILE="+filepath.Join(dir, "response.json"), "BUILD_EXIT_CODE_FILE="+filepath.Join(dir, "build_exit_code"))
	return cmd
}

func scriptFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustCall(t *testing.T, b *bed.Bed, dir string, args ...string) string {
	t.Helper()
	out, err := b.Call(t.Context(), dir, args...)
	if err != nil {
		t.Fatalf("podlane %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// SIGTERM to run at every 100 ms of a stage: the script is dead afterwards, the
// pod is there, and nothing counts as success.
func TestTermAtEveryMoment(t *testing.T) {
	quick(t)
	b := start(t, nil, runnersim.Hooks{})
	dir, _ := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	moments := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if testing.Short() {
		moments = []int{0, 1, 3, 6}
	}
	for _, at := range moments {
		mark := fmt.Sprintf("mark-%d", at)
		run := command(t, b, dir, "run", scriptFile(t, dir, mark, "sh -c 'sleep 300; echo "+mark+" >> /tmp/survived'"), "build_script")
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(at) * 100 * time.Millisecond)
		if err := run.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		// -1 is a process that had not begun to listen to signals.
		var exit *exec.ExitError
		if err := run.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 && exit.ExitCode() != -1 {
			t.Errorf("after %d ms: %v, expected exit code 2", at*100, err)
		}
	}
	out := mustCall(t, b, dir, "run", scriptFile(t, dir, "look", "cat /proc/[0-9]*/comm 2>/dev/null | grep -x sleep || echo none; ls /tmp/survived 2>/dev/null || echo none"), "after_script")
	if joblines.Without(out) != "none\nnone\n" {
		t.Errorf("left of the scripts: %s", out)
	}
	note(t, "SIGTERM to run at every 100 ms of a stage", "podlane: error: stage build_script was cancelled", "system failure; GitLab shows it as cancelled if it asked for it", "the pod, for after_script")
}

// SIGKILL of run: nobody is left to clean up. The pod ends by itself after
// job.idle_timeout, and gc takes it away.
func TestRunKilled(t *testing.T) {
	alone(t)
	b := start(t, bed.Settings{"job": {"idle_timeout": `"1m"`}}, runnersim.Hooks{})
	dir, jobURL := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	halt := b.Barrier()
	run := command(t, b, dir, "run", scriptFile(t, dir, "script", halt.Command), "build_script")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	if err := halt.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	began := time.Now()
	for {
		out := mustCall(t, b, dir, "gc", "--yes", "--grace", "0s", jobURL)
		if strings.Contains(out, "deleted") {
			t.Logf("gc took the pod %s after the end of run: %s", time.Since(began).Round(time.Second), find(out, "deleted"))
			break
		}
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("the pod has not ended: %s", out)
		}
		time.Sleep(2 * time.Second)
	}
	left := leftovers(t, b, jobURL)
	if left != "nothing" {
		t.Errorf("left: %s", left)
	}
	note(t, "SIGKILL of run, and the runner's host gone", "nothing: nobody is there to write it", "for GitLab to say, after the job's timeout", "a pod that ends after job.idle_timeout; gc deletes it")
}

// prepare killed halfway and called again, as the runner does.
func TestPrepareKilled(t *testing.T) {
	quick(t)
	p, settings := throughProxy(t, proxy.Faults{})
	b := start(t, settings, runnersim.Hooks{})
	moments := map[string]func(jobURL string){
		"before its first request": func(string) {},
		"when the pod is there": func(jobURL string) {
			p.Release()
			waitFor(t, "the pod", func() bool {
				pods, err := b.Kube.Pods(t.Context(), jobURL)
				return err == nil && len(pods) == 1
			})
		},
	}
	if !testing.Short() {
		for i := range 8 {
			moments[fmt.Sprintf("at a random moment, %d", i)] = func(string) { p.Release(); time.Sleep(rand.N(900 * time.Millisecond)) }
		}
	}
	for moment, pass := range moments {
		dir, jobURL := byHand(t, b)
		waiting := p.Hold()
		first := command(t, b, dir, "prepare")
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		<-waiting
		pass(jobURL)
		_ = first.Process.Kill()
		_ = first.Wait()
		p.Release()
		mustCall(t, b, dir, "prepare")
		if pods, err := b.Kube.Pods(t.Context(), jobURL); err != nil || len(pods) != 1 {
			t.Errorf("killed %s: %d pods, %v", moment, len(pods), err)
		}
		if out := mustCall(t, b, dir, "run", scriptFile(t, dir, "script", "echo well"), "build_script"); joblines.Without(out) != "well\n" {
			t.Errorf("killed %s: %s", moment, out)
		}
		mustCall(t, b, dir, "cleanup")
		if left := leftovers(t, b, jobURL); left != "nothing" {
			t.Errorf("killed %s: left %s", moment, left)
		}
	}
	note(t, "prepare killed halfway, then called again", "the pod is there already", "success", "nothing")
}

// waitFor waits for what only a failure keeps from coming.
func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !there(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not come", what)
		}
	}
}

// Two processes run the same stage at once: both see the whole log and the exit
// code, and the script runs once.
func TestTwoRunsAtOnce(t *testing.T) {
	quick(t)
	b := start(t, nil, runnersim.Hooks{})
	dir, _ := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	halt := b.Barrier()
	file := scriptFile(t, dir, "script", "echo run >> /tmp/count; echo 1; "+halt.Command+"; echo 2; cat /tmp/count; exit 5")
	outs := make([]follower, 2)
	for i := range outs {
		outs[i].begun = make(chan struct{})
	}
	var both sync.WaitGroup
	for i := range outs {
		both.Go(func() {
			run := command(t, b, dir, "run", file, "build_script")
			run.Stdout = &outs[i]
			var exit *exec.ExitError
			if err := run.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v", err)
			}
			outs[i].once.Do(func() { close(outs[i].begun) })
		})
	}
	for i := range outs {
		<-outs[i].begun
	}
	halt.Open()
	both.Wait()
	for i := range outs {
		if got := joblines.Without(outs[i].text.String()); got != "1\n2\nrun\n" {
			t.Errorf("got %q", got)
		}
	}
	note(t, "two run at once for one stage", "the whole log, in both", "build failure, exit code 5, in both", "nothing")
}

// follower is an output that tells when it has begun.
type follower struct {
	text  bytes.Buffer
	begun chan struct{}
	once  sync.Once
}

// Write implements io.Writer.
func (f *follower) Write(p []byte) (int, error) {
	defer f.once.Do(func() { close(f.begun) })
	return f.text.Write(p)
}

// While a job's script runs somebody runs another one in its pod by hand, and
// then prepare, as a runner that knows nothing of the first.
func TestByHandBesideTheRunner(t *testing.T) {
	quick(t)
	var dir string
	b := start(t, bed.Settings{"pod": {"termination_grace_period": `"120s"`}}, runnersim.Hooks{Before: func(call *runnersim.Call) error {
		if call.Stage == "build_script" {
			dir = call.Dir
		}
		return nil
	}})
	halt := b.Barrier()
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs", halt.Command, "exit 23"}})
	reached(t, job, halt)
	response, err := os.ReadFile(filepath.Join(dir, "response.json"))
	if err != nil {
		t.Fatal(err)
	}
	hand := t.TempDir()
	if err := os.WriteFile(filepath.Join(hand, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := mustCall(t, b, hand, "run", scriptFile(t, hand, "script", "echo by hand; pwd"), "build_script"); !strings.Contains(out, "by hand") {
		t.Errorf("by hand: %s", out)
	}
	refused := func(when string) string {
		out, err := b.Call(t.Context(), hand, "prepare")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "job is alive") {
			t.Errorf("prepare %s: %v: %s", when, err, out)
		}
		return find(out, "job is alive")
	}
	line := refused("while the script runs")
	pod := podOf(t, b, job)
	if err := b.Kube.Evict(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	refused("in the pod's grace period")
	if now := podOf(t, b, job); now != pod {
		t.Errorf("the pod is %s, it was %s", now, pod)
	}
	halt.Open()
	o := finish(t, b, job)
	o.verdict(t, "another script run by hand in the pod of a running job", "build failure, exit code 23", "")
	if strings.Contains(o.trace, "by hand") {
		t.Error("the log has what was run by hand")
	}
	note(t, "prepare called for a job whose script runs, also in its pod's grace period", line, "system failure of that prepare; the job goes on", "nothing")
}

// The job's folder is deleted under its stages.
func TestFolderGone(t *testing.T) {
	quick(t)
	for _, tt := range []struct {
		fault, line string
		remove      func(dir string) error
	}{
		{"the job response on the runner's host deleted between two stages", "podlane: error: open job response", func(dir string) error { return os.Remove(filepath.Join(dir, "response.json")) }},
		// The runner itself cannot start anything there.
		{"the job's folder on the runner's host deleted between two stages", "Job failed (system failure)", os.RemoveAll},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			quick(t)
			var once sync.Once
			b := start(t, nil, runnersim.Hooks{Before: func(call *runnersim.Call) (err error) {
				if call.Stage == "build_script" {
					once.Do(func() { err = tt.remove(call.Dir) })
				}
				return err
			}})
			job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs"}})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			result, err := job.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			trace, err := job.Trace()
			if err != nil {
				t.Fatal(err)
			}
			o := outcome{Result: result, trace: string(trace)}
			if o.class() != "system failure" {
				t.Errorf("the job ended as %s\n%s", o.class(), tail(o.trace))
			}
			line := find(o.trace, tt.line)
			if line == "" {
				t.Errorf("the log does not have %q:\n%s", tt.line, tail(o.trace))
			}
			pod := podOf(t, b, job)
			note(t, tt.fault, line, o.class(), "a pod that ends after job.idle_timeout; gc deletes it")
			if err := b.Kube.DeletePod(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Job responses that no GitLab sends.
func TestBadJobResponse(t *testing.T) {
	quick(t)
	b := start(t, nil, runnersim.Hooks{})
	tests := []struct{ fault, response, line string }{
		{"a job response that is cut off", `{"id": 1, "job_info": {"proj`, "not a job in JSON"},
		{"a job response of 100 MB", `{"id": 1, "x": "` + strings.Repeat("y", 100<<20) + `"}`, "larger than 64 MiB"},
		{"a job response without what counts", `{}`, "id is missing"},
		{"a job response of a million arrays, one in the other", strings.Repeat("[", 1<<20), "exceeded max depth"},
	}
	for _, tt := range tests {
		t.Run(tt.fault, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "response.json"), []byte(tt.response), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, stage := range [][]string{{"config"}, {"prepare"}, {"cleanup"}} {
				out, err := b.Call(t.Context(), dir, stage...)
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, tt.line) {
					t.Errorf("%s: %v: %.300s", stage[0], err, out)
				}
				if stage[0] == "prepare" {
					note(t, tt.fault, find(out, tt.line), "system failure", "nothing")
				}
			}
		})
	}
}
