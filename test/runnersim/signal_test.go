package runnersim_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"podlane/test/runnersim"
)

// onceSeen changes the job's status in GitLab when text is in its log.
func onceSeen(j *fakeJob, text, status string) {
	j.onLog = func(j *fakeJob) {
		if bytes.Contains(j.log, []byte(text)) {
			j.status = status
		}
	}
}

// waiting is a driver that runs until it gets SIGTERM.
const waiting = `trap 'echo terminated; exit 1' TERM; echo waiting; while :; do sleep 0.01; done`

func TestCancel(t *testing.T) {
	cases := map[string]struct {
		stage, fault string
		status       string // what GitLab says when the fault is under way
		calls        string
		reason       string
		lines        []string
	}{
		"canceling in the script": {
			stage: "build_script", fault: waiting, status: "canceling", calls: untilScript + onFailure,
			reason: "unknown_failure",
			lines: []string{
				"\nterminated\n", "WARNING: script canceled externally (UI, API)",
				"\nafter canceled\n", "ERROR: Job failed: canceled",
			},
		},
		"canceled in the script": {
			stage: "build_script", fault: waiting, status: "canceled",
			calls: "config prepare prepare_script get_sources restore_cache download_artifacts build_script cleanup",
		},
		"canceling in prepare": {
			stage: "prepare", fault: waiting, status: "canceling", calls: "config prepare cleanup",
			reason: "script_failure", lines: []string{"ERROR: Job failed: exit status 1"},
		},
		"canceling in prepare, system failure": {
			stage: "prepare", fault: strings.Replace(waiting, "exit 1", "exit 2", 1), status: "canceling", calls: "config prepare cleanup",
			reason: "unknown_failure", lines: []string{"ERROR: Job failed: canceled"},
		},
		"canceling in get_sources": {
			stage: "get_sources", fault: waiting, status: "canceling",
			calls:  "config prepare prepare_script get_sources cleanup",
			reason: "unknown_failure", lines: []string{"ERROR: Job failed: canceled"},
		},
		"canceling in after_script has no effect": {
			stage: "after_script", fault: "echo waiting; sleep 0.3; exit 0", status: "canceling",
			calls: untilScript + onSuccess, lines: []string{"Job succeeded"},
		},
		"SIGTERM ignored": {
			stage: "build_script", fault: `trap '' TERM; echo waiting; while :; do sleep 0.01; done`, status: "canceling",
			calls: untilScript + onFailure, reason: "unknown_failure", lines: []string{"ERROR: Job failed: canceled"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.cfg.Custom.GracefulKillTimeout = 300 * time.Millisecond
			b.write(t, "fail-"+c.stage, c.fault)
			onceSeen(b.add(1, everyStage("true")), "waiting", c.status)
			b.start(t)
			log, last := "", map[string]any(nil)
			if c.status == "canceled" {
				b.waitCalls(t, c.calls)
				b.stop(t)
			} else {
				log, last = b.wait(t, 1)
				b.stop(t)
			}
			if got := b.calls(t); got != c.calls {
				t.Errorf("calls = %s\nwant    %s", got, c.calls)
			}
			if reason, _ := last["failure_reason"].(string); reason != c.reason {
				t.Errorf("failure_reason = %q, want %q", reason, c.reason)
			}
			for _, want := range c.lines {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, readable(log))
				}
			}
		})
	}
}

// waitCalls waits until the driver has been called as given.
func (b *bed) waitCalls(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if data, err := os.ReadFile(b.dir + "/calls"); err == nil && strings.Join(strings.Fields(string(data)), " ") == want {
			return
		}
	}
	t.Fatalf("the driver was called as %s, want %s", b.calls(t), want)
}

func TestForbiddenAborts(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-build_script", waiting)
	b.add(1, everyStage("true")).onLog = func(j *fakeJob) {
		j.forbidden = bytes.Contains(j.log, []byte("waiting"))
	}
	b.start(t)
	b.waitCalls(t, strings.TrimSuffix(untilScript, "after_script ")+"cleanup")
}

func TestJobTimeout(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-build_script", waiting)
	job := everyStage("true")
	job["runner_info"] = map[string]any{"timeout": 1}
	log, last := b.runOne(t, job)
	if want := strings.TrimSuffix(untilScript, "after_script ") + "cleanup"; b.calls(t) != want {
		t.Errorf("calls = %s\nwant    %s", b.calls(t), want)
	}
	if last["failure_reason"] != "job_execution_timeout" {
		t.Errorf("failure_reason = %v", last["failure_reason"])
	}
	for _, want := range []string{
		"WARNING: step_script could not run to completion because the timeout was exceeded.",
		"ERROR: Job failed: execution took longer than 1s seconds",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, readable(log))
		}
	}
}

func TestScriptTimeout(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-build_script", waiting)
	job := everyStage("true")
	addVariables(job, variable("RUNNER_SCRIPT_TIMEOUT", "200ms"), variable("RUNNER_AFTER_SCRIPT_TIMEOUT", "soon"))
	log, last := b.runOne(t, job)
	if want := untilScript + onFailure; b.calls(t) != want {
		t.Errorf("calls = %s\nwant    %s", b.calls(t), want)
	}
	if last["failure_reason"] != "job_execution_timeout" {
		t.Errorf("failure_reason = %v", last["failure_reason"])
	}
	for _, want := range []string{
		"\nafter timedout\n", "Ignoring malformed RUNNER_AFTER_SCRIPT_TIMEOUT timeout: soon",
		"ERROR: Job failed: script timeout: context deadline exceeded",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, readable(log))
		}
	}
}

// TestShutdown ends the runner while a job runs.
func TestShutdown(t *testing.T) {
	cases := map[string]struct {
		fault string
		calls string
	}{
		"a driver that ends":           {waiting, "build_script cleanup"},
		"a driver that takes too long": {`trap '' TERM; echo waiting; sleep 100`, "build_script cleanup"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.cfg.ShutdownTimeout = time.Second
			b.cfg.Custom.GracefulKillTimeout = time.Minute
			b.write(t, "fail-build_script", c.fault)
			started := make(chan struct{}, 1)
			results := make(chan runnersim.Result, 1)
			b.cfg.Hooks.JobFinished = func(r runnersim.Result) { results <- r }
			b.add(1, newJob("true")).onLog = func(j *fakeJob) {
				if bytes.Contains(j.log, []byte("waiting")) && len(started) == 0 {
					started <- struct{}{}
				}
			}
			b.start(t)
			<-started
			began := time.Now()
			b.stop(t)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("stopping took %v", took)
			}
			if r := <-results; r.State != "failed" || r.FailureReason != "unknown_failure" {
				t.Errorf("result = %+v", r)
			}
			if calls := b.calls(t); !strings.HasSuffix(calls, c.calls) && !strings.HasSuffix(calls, "build_script") {
				t.Errorf("calls = %s, want ... %s", calls, c.calls)
			}
		})
	}
}

// TestOutputHeldOpen leaves a process behind that keeps the stage's output: the
// stage doesn't end before it does, and a cancel ends both.
func TestOutputHeldOpen(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-build_script", `sleep 0.3 & echo parent gone; exit 0`)
	b.cfg.Hooks.After = func(c *runnersim.Call) {
		if took := c.End.Sub(c.Start); c.Stage == "build_script" && took < 250*time.Millisecond {
			t.Errorf("the stage ended after %v, before its output was closed", took)
		}
	}
	if _, last := b.runOne(t, newJob("true")); last["state"] != "success" {
		t.Errorf("state = %v", last["state"])
	}
}

// TestDormant has a process in a session of its own keep the output: no signal
// to the group reaches it, and the runner gives up.
func TestDormant(t *testing.T) {
	b := newBed(t)
	b.cfg.Custom.GracefulKillTimeout = 50 * time.Millisecond
	b.cfg.Custom.ForceKillTimeout = 50 * time.Millisecond
	b.write(t, "fail-build_script", `setsid sh -c 'echo waiting; sleep 3' & exit 0`)
	onceSeen(b.add(1, newJob("true")), "waiting", "canceling")
	var dormant error
	b.cfg.Hooks.After = func(c *runnersim.Call) {
		if c.Stage == "build_script" {
			dormant = c.Err
		}
	}
	b.start(t)
	log, _ := b.wait(t, 1)
	b.stop(t)
	if dormant == nil || !strings.HasPrefix(dormant.Error(), "failed to kill process PID=") {
		t.Errorf("the call's error is %v", dormant)
	}
	if !strings.Contains(log, "ERROR: Job failed: canceled") {
		t.Errorf("log:\n%s", readable(log))
	}
}

func TestHooks(t *testing.T) {
	b := newBed(t)
	var seen []string
	b.cfg.Hooks = runnersim.Hooks{
		JobReceived: func(id int64) { seen = append(seen, fmt.Sprint("received ", id)) },
		JobFinished: func(r runnersim.Result) { seen = append(seen, fmt.Sprint("finished ", r.ID, " ", r.State)) },
		Before: func(c *runnersim.Call) error {
			if c.Stage == "prepare" && c.Attempt == 1 {
				return fmt.Errorf("injected")
			}
			c.Env = append(c.Env, "INJECTED=1")
			return nil
		},
		After: func(c *runnersim.Call) {
			seen = append(seen, fmt.Sprint(c.Stage, c.Attempt, " ", c.ExitCode))
			if c.Stage != "prepare" && !c.End.After(c.Start) {
				t.Errorf("%s ended at %v, started at %v", c.Stage, c.End, c.Start)
			}
		},
	}
	log, _ := b.runOne(t, newJob("true"))
	want := "received 1, config1 0, prepare1 -1, cleanup1 0, config2 0, prepare2 0, prepare_script2 0, " +
		"get_sources2 0, build_script2 0, cleanup_file_variables2 0, cleanup2 0, finished 1 success"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("hooks saw %s\nwant       %s", got, want)
	}
	if !strings.Contains(log, "Preparation failed: failed to start command: injected") {
		t.Errorf("log:\n%s", readable(log))
	}
	if !strings.Contains(b.read(t, "env-build_script"), "INJECTED=1\x00") {
		t.Error("the hook's variable did not reach the driver")
	}
}
