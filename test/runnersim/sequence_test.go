package runnersim_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sectionTime = regexp.MustCompile(`(section_(?:start|end)):\d+:`)

// readable shows a log with its control sequences as words.
func readable(log string) string {
	log = sectionTime.ReplaceAllString(log, "$1:")
	return strings.NewReplacer(
		"\r\033[0K", "|\n", "\033[0K", "<clear>", "\033[0;m", "<off>", "\033[32;1m", "<green>",
		"\033[36;1m", "<cyan>", "\033[31;1m", "<red>", "\033[0;33m", "<yellow>",
	).Replace(log)
}

// everyStage gives a job something to do in every stage.
func everyStage(script ...string) map[string]any {
	job := newJob(script...)
	addStep(job, "after_script", "echo after $CI_JOB_STATUS")
	job["cache"] = []map[string]any{{"key": "k", "paths": []string{"c"}, "when": "always"}}
	job["artifacts"] = []map[string]any{{"paths": []string{"out"}, "when": "always"}}
	job["dependencies"] = []map[string]any{{
		"id": 9, "token": "dep", "name": "first", "artifacts_file": map[string]any{"filename": "a.zip", "size": 1},
	}}
	return job
}

func TestWholeJob(t *testing.T) {
	b := newBed(t)
	log, last := b.runOne(t, everyStage("echo hello"))
	if last["state"] != "success" || last["failure_reason"] != nil || last["exit_code"] != nil {
		t.Errorf("last update = %v", last)
	}
	want := "config prepare prepare_script get_sources restore_cache download_artifacts build_script " +
		"after_script archive_cache upload_artifacts_on_success cleanup_file_variables cleanup"
	if got := b.calls(t); got != want {
		t.Errorf("calls = %s\nwant    %s", got, want)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(readable(log), host, "HOST")
	golden := filepath.Join("testdata", "whole-job.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wantLog, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(wantLog), got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if runner := b.log.String(); !strings.Contains(runner, `level=DEBUG msg="cleaned up" job=1 cleanup_std=out`) ||
		!strings.Contains(runner, `level=WARN msg="with a warning" job=1 cleanup_std=err`) {
		t.Errorf("the runner's log lacks cleanup's output:\n%s", runner)
	}
}

func TestNoSections(t *testing.T) {
	b := newBed(t)
	job := newJob("echo hello")
	job["features"] = map[string]any{}
	if log, _ := b.runOne(t, job); strings.Contains(log, "section_") {
		t.Errorf("sections in the log of a GitLab that wants none:\n%s", log)
	}
}

// failing is a stage that a fault makes fail, and what must come of it.
type failing struct {
	stage string // which stage
	fault string // what the driver does in it; "once: " before it for the first call only
	calls string
	state string
	// reason and code as told to GitLab; code 0 isn't sent.
	reason string
	code   float64
	line   string // in the log
	vars   []map[string]any
}

const (
	untilScript = "config prepare prepare_script get_sources restore_cache download_artifacts build_script after_script "
	onFailure   = "archive_cache_on_failure upload_artifacts_on_failure cleanup_file_variables cleanup"
	onSuccess   = "archive_cache upload_artifacts_on_success cleanup_file_variables cleanup"
	threeTries  = "config prepare cleanup config prepare cleanup config prepare cleanup"
)

func TestFailures(t *testing.T) {
	cases := map[string]failing{
		"build: exit 1 without a file": {
			stage: "build_script", fault: "exit 1", calls: untilScript + onFailure,
			state: "failed", reason: "script_failure", code: 1, line: "ERROR: Job failed: exit status 1",
		},
		"build: exit 1 with 42": {
			stage: "build_script", fault: `echo 42 > "$BUILD_EXIT_CODE_FILE"; exit 1`, calls: untilScript + onFailure,
			state: "failed", reason: "script_failure", code: 42, line: "ERROR: Job failed: exit status 42",
		},
		"build: exit 1 with a bad file": {
			stage: "build_script", fault: `echo many > "$BUILD_EXIT_CODE_FILE"; exit 1`, calls: untilScript + onFailure,
			state: "failed", reason: "runner_system_failure",
			line: "ERROR: Job failed (system failure): unknown Custom executor executable exit code 2; executable execution terminated with: exit status 1",
		},
		"build: exit 2": {
			stage: "build_script", fault: "exit 2", calls: untilScript + onFailure,
			state: "failed", reason: "runner_system_failure", line: "ERROR: Job failed (system failure): exit status 2",
		},
		"build: exit 77": {
			stage: "build_script", fault: "exit 77", calls: untilScript + onFailure,
			state: "failed", reason: "runner_system_failure",
			line: "ERROR: Job failed (system failure): unknown Custom executor executable exit code 77; executable execution terminated with: exit status 77",
		},
		"build: killed": {
			stage: "build_script", fault: "kill -9 $$", calls: untilScript + onFailure,
			state: "failed", reason: "runner_system_failure",
			line: "unknown Custom executor executable exit code -1; executable execution terminated with: signal: killed",
		},
		"config: exit 2": {
			stage: "config", fault: "exit 2", calls: "config cleanup config cleanup config cleanup",
			state: "failed", reason: "runner_system_failure", line: "ERROR: Preparation failed: exit status 2",
		},
		"config: not JSON": {
			stage: "config", fault: "echo hello; exit 0", calls: "config cleanup config cleanup config cleanup",
			state: "failed", reason: "runner_system_failure", line: "error while parsing JSON output",
		},
		"config: prints nothing": {
			stage: "config", fault: "exit 0", calls: "config cleanup",
			state: "failed", reason: "script_failure", line: "ERROR: Job failed: the builds_dir is not configured",
		},
		"prepare: exit 2": {
			stage: "prepare", fault: "exit 2", calls: threeTries,
			state: "failed", reason: "runner_system_failure", line: "ERROR: Job failed (system failure): exit status 2",
		},
		"prepare: exit 2 once": {
			stage: "prepare", fault: "once: exit 2", calls: "config prepare cleanup " + untilScript + onSuccess,
			state: "success", line: "Will be retried in 5ms ...",
		},
		"prepare: exit 1": {
			stage: "prepare", fault: "exit 1", calls: "config prepare cleanup",
			state: "failed", reason: "script_failure", code: 1, line: "ERROR: Job failed: exit status 1",
		},
		"prepare_script": {
			stage: "prepare_script", fault: "exit 2", calls: "config prepare prepare_script cleanup",
			state: "failed", reason: "runner_system_failure",
			line: "ERROR: Job failed (system failure): prepare environment: exit status 2. Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information",
		},
		"get_sources": {
			stage: "get_sources", fault: "exit 1", calls: "config prepare prepare_script get_sources " + onFailure,
			state: "failed", reason: "script_failure", code: 1, line: "ERROR: Job failed: exit status 1",
		},
		"get_sources: three attempts": {
			stage: "get_sources", fault: "exit 1",
			vars:  []map[string]any{variable("GET_SOURCES_ATTEMPTS", "3")},
			calls: "config prepare prepare_script get_sources clear_worktree get_sources get_sources " + onFailure,
			state: "failed", reason: "script_failure", code: 1, line: "WARNING: Retrying...",
		},
		"restore_cache: two attempts": {
			stage: "restore_cache", fault: "once: exit 2",
			vars:  []map[string]any{variable("RESTORE_CACHE_ATTEMPTS", "2")},
			calls: strings.Replace(untilScript, "restore_cache", "restore_cache restore_cache", 1) + onSuccess,
			state: "success", line: "Job succeeded",
		},
		"download_artifacts: too many attempts": {
			stage: "download_artifacts", fault: "exit 2",
			vars:  []map[string]any{variable("ARTIFACT_DOWNLOAD_ATTEMPTS", "11")},
			calls: "config prepare prepare_script get_sources restore_cache " + strings.Repeat("download_artifacts ", 10) + onFailure,
			state: "failed", reason: "runner_system_failure",
			line: "WARNING: ARTIFACT_DOWNLOAD_ATTEMPTS: number of attempts out of the range [1, 10], clamping to: 10",
		},
		"after_script": {
			stage: "after_script", fault: "exit 1", calls: untilScript + onSuccess,
			state: "success", line: "WARNING: after_script failed, but job will continue unaffected: exit status 1",
		},
		"after_script counts": {
			stage: "after_script", fault: `echo 5 > "$BUILD_EXIT_CODE_FILE"; exit 1`,
			vars:  []map[string]any{variable("AFTER_SCRIPT_IGNORE_ERRORS", "false")},
			calls: untilScript + onFailure,
			state: "failed", reason: "script_failure", code: 5, line: "ERROR: Job failed: exit status 5",
		},
		"archive_cache": {
			stage: "archive_cache", fault: "exit 2", calls: untilScript + onSuccess,
			state: "failed", reason: "runner_system_failure", line: "ERROR: Job failed (system failure): exit status 2",
		},
		"upload_artifacts": {
			stage: "upload_artifacts_on_success", fault: "exit 1", calls: untilScript + onSuccess,
			state: "failed", reason: "script_failure", code: 1, line: "ERROR: Job failed: exit status 1",
		},
		"cleanup_file_variables": {
			stage: "cleanup_file_variables", fault: "exit 2", calls: untilScript + onSuccess,
			state: "success", line: "Job succeeded",
		},
		"cleanup": {
			stage: "cleanup", fault: "exit 2", calls: untilScript + onSuccess,
			state: "success", line: "WARNING: Cleanup script failed: exit status 2",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { checkFailure(t, c) })
	}
}

func checkFailure(t *testing.T, c failing) {
	t.Parallel()
	b := newBed(t)
	if fault, once := strings.CutPrefix(c.fault, "once: "); once {
		b.write(t, "fail-"+c.stage, `rm "$DRIVER_DIR/fail-$stage"; `+fault)
	} else {
		b.write(t, "fail-"+c.stage, fault)
	}
	job := everyStage("true")
	addVariables(job, c.vars...)
	log, last := b.runOne(t, job)
	if got := b.calls(t); got != c.calls {
		t.Errorf("calls = %s\nwant    %s", got, c.calls)
	}
	if last["state"] != c.state {
		t.Errorf("state = %v, want %s", last["state"], c.state)
	}
	if reason, _ := last["failure_reason"].(string); reason != c.reason {
		t.Errorf("failure_reason = %q, want %q", reason, c.reason)
	}
	if code, _ := last["exit_code"].(float64); code != c.code {
		t.Errorf("exit_code = %v, want %v", code, c.code)
	}
	if !strings.Contains(log, c.line) {
		t.Errorf("the log lacks %q:\n%s", c.line, readable(log))
	}
}

func TestScriptFails(t *testing.T) {
	b := newBed(t)
	log, last := b.runOne(t, everyStage("echo one", "(exit 37)", "echo two"))
	if last["failure_reason"] != "script_failure" || last["exit_code"] != 37.0 {
		t.Errorf("last update = %v", last)
	}
	for _, want := range []string{"\none\n", "\nafter failed\n", "ERROR: Job failed: exit status 37"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, readable(log))
		}
	}
	if strings.Contains(log, "\ntwo\n") {
		t.Error("the script went on after its first error")
	}
}

func TestRefused(t *testing.T) {
	b := newBed(t)
	job := newJob("true")
	job["secrets"] = map[string]any{"PASSWORD": map[string]any{}}
	log, last := b.runOne(t, job)
	if last["state"] != "failed" || !strings.Contains(log, "Job failed: the simulator resolves no secrets") {
		t.Errorf("last update %v, log:\n%s", last, log)
	}
}
