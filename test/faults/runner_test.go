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
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
)

// SIGTERM to each stage of a job in turn, as when somebody stops processes on
// the runner's host.
func TestTermAtEveryStage(t *testing.T) {
	for _, stage := range []string{"config", "prepare", "prepare_script", "get_sources", "build_script", "after_script", "cleanup_file_variables", "cleanup"} {
		t.Run(stage, func(t *testing.T) {
			var once sync.Once
			b := start(t, nil, runnersim.Hooks{Started: func(call *runnersim.Call, pid int) {
				if call.Stage == stage {
					once.Do(func() { time.AfterFunc(30*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGTERM) }) })
				}
			}})
			job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs", "sleep 1"}, AfterScript: []string{"echo after"}})
			o := finish(t, b, job)
			if o.left != "nothing" {
				t.Errorf("left: %s", o.left)
			}
			t.Logf("SIGTERM to %s: %s; %s", stage, o.class(), find(o.trace, "podlane: error: "))
			if c := o.class(); c != "success" && c != "system failure" {
				t.Errorf("the job ended as %s", c)
			}
			note(t, "SIGTERM to "+stage, orNothing(find(o.trace, "podlane: error: ")), o.class(), o.left)
		})
	}
}

func orNothing(line string) string {
	if line == "" {
		return "nothing of it"
	}
	return line
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
	b := start(t, nil, runnersim.Hooks{})
	dir, _ := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	for at := time.Duration(0); at <= 1500*time.Millisecond; at += 100 * time.Millisecond {
		mark := fmt.Sprintf("mark-%d", at.Milliseconds())
		run := command(t, b, dir, "run", scriptFile(t, dir, mark, "exec sh -c 'sleep 60; echo "+mark+" >> /tmp/survived'"), "build_script")
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(at)
		if err := run.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := run.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 && exit.ExitCode() != -1 {
			t.Errorf("after %s: %v, expected exit code 2", at, err)
		}
	}
	// A process that died before it could say a word leaves no script either.
	out := mustCall(t, b, dir, "run", scriptFile(t, dir, "look", "grep -l 'sleep 60' /proc/[0-9]*/cmdline 2>/dev/null | grep -v self | wc -l; ls /tmp/survived 2>/dev/null || true"), "after_script")
	t.Logf("left in the pod: %s", strings.TrimSpace(out))
	note(t, "SIGTERM to run at every 100 ms of a stage", "podlane: error: stage build_script was cancelled", "system failure; GitLab shows it as cancelled if it asked for it", "the pod, for after_script")
}

// SIGKILL of run: nobody is left to clean up. The pod ends by itself after
// job.idle_timeout, and gc takes it away.
func TestRunKilled(t *testing.T) {
	b := start(t, bed.Settings{"job": {"idle_timeout": `"1m"`}}, runnersim.Hooks{})
	dir, jobURL := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	run := command(t, b, dir, "run", scriptFile(t, dir, "script", "sleep 1000"), "build_script")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
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

// prepare killed at a random moment and called again, as the runner does.
func TestPrepareKilled(t *testing.T) {
	b := start(t, nil, runnersim.Hooks{})
	for range 8 {
		dir, jobURL := byHand(t, b)
		first := command(t, b, dir, "prepare")
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		at := rand.N(900 * time.Millisecond)
		time.Sleep(at)
		_ = first.Process.Kill()
		_ = first.Wait()
		mustCall(t, b, dir, "prepare")
		if pods, err := b.Kube.Pods(t.Context(), jobURL); err != nil || len(pods) != 1 {
			t.Errorf("killed after %s: %d pods, %v", at, len(pods), err)
		}
		if out := mustCall(t, b, dir, "run", scriptFile(t, dir, "script", "echo well"), "build_script"); out != "well\n" {
			t.Errorf("killed after %s: %s", at, out)
		}
		mustCall(t, b, dir, "cleanup")
		if left := leftovers(t, b, jobURL); left != "nothing" {
			t.Errorf("killed after %s: left %s", at, left)
		}
	}
	note(t, "prepare killed at a random moment, then called again", "the pod is there already", "success", "nothing")
}

// Two processes run the same stage at once: both see the whole log and the exit
// code, and the script runs once.
func TestTwoRunsAtOnce(t *testing.T) {
	b := start(t, nil, runnersim.Hooks{})
	dir, _ := byHand(t, b)
	mustCall(t, b, dir, "prepare")
	file := scriptFile(t, dir, "script", "echo run >> /tmp/count; for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done; cat /tmp/count; exit 5")
	outs := make([]bytes.Buffer, 2)
	var both sync.WaitGroup
	for i := range outs {
		both.Go(func() {
			run := command(t, b, dir, "run", file, "build_script")
			run.Stdout = &outs[i]
			var exit *exec.ExitError
			if err := run.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v", err)
			}
		})
	}
	both.Wait()
	for i := range outs {
		if got := outs[i].String(); got != "1\n2\n3\n4\n5\n6\nrun\n" {
			t.Errorf("got %q", got)
		}
	}
	note(t, "two run at once for one stage", "the whole log, in both", "build failure, exit code 5, in both", "nothing")
}

// The job's folder is deleted under its stages.
func TestFolderGone(t *testing.T) {
	var once sync.Once
	b := start(t, nil, runnersim.Hooks{Before: func(call *runnersim.Call) error {
		if call.Stage == "build_script" {
			once.Do(func() { _ = os.Remove(filepath.Join(call.Dir, "response.json")) })
		}
		return nil
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
	pods, err := b.Kube.Pods(t.Context(), job.URL())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	if o.class() != "system failure" {
		t.Errorf("the job ended as %s", o.class())
	}
	note(t, "the job's folder on the runner's host deleted between two stages", find(o.trace, "podlane: error: open job response"), o.class(), "a pod that ends after job.idle_timeout; gc deletes it")
	if err := b.Kube.DeletePod(t.Context(), pods[0].Name); err != nil {
		t.Fatal(err)
	}
}

// Job responses that no GitLab sends.
func TestBadJobResponse(t *testing.T) {
	b := start(t, nil, runnersim.Hooks{})
	tests := []struct{ fault, response, line string }{
		{"a job response that is cut off", `{"id": 1, "job_info": {"proj`, "not a job in JSON"},
		{"a job response of 100 MB", `{"id": 1, "x": "` + strings.Repeat("y", 100<<20) + `"}`, "larger than 64 MiB"},
		{"a job response without what counts", `{}`, "id is missing"},
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
