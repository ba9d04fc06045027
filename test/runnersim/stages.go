package runnersim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"podlane/test/runnersim/shell"
)

// stages runs a prepared job, stage by stage (gitlab-runner common/build.go,
// executeScript).
func (j *job) stages(ctx context.Context, a *attempt) error {
	if err := j.stage(ctx, a, "prepare_script"); err != nil {
		return fmt.Errorf("prepare environment: %w. "+
			"Check https://docs.gitlab.com/runner/shells/#shell-profile-loading for more information", err)
	}
	err := j.predefined(ctx, a)
	if err == nil {
		err = j.userScripts(ctx, a)
	}
	archive := j.stage(ctx, a, either(err, "archive_cache", "archive_cache_on_failure"))
	upload := j.stage(ctx, a, either(err, "upload_artifacts_on_success", "upload_artifacts_on_failure"))
	if cleanup := j.stage(ctx, a, "cleanup_file_variables"); cleanup != nil {
		j.runnerLog.Warn("Error while executing file based variables removal script", "error", cleanup)
	}
	return firstError(err, archive, upload)
}

func either(err error, success, failure string) string {
	if err == nil {
		return success
	}
	return failure
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// predefined runs the stages before the job's own scripts.
func (j *job) predefined(ctx context.Context, a *attempt) error {
	s := j.settings()
	tries := 0
	err := j.retry(ctx, s.GetSourcesAttempts, func() error {
		if tries++; tries == 2 {
			if err := j.stage(ctx, a, "clear_worktree"); err != nil {
				return err
			}
		}
		return j.stage(ctx, a, "get_sources")
	})
	if err != nil {
		return err
	}
	if err := j.retry(ctx, s.RestoreCacheAttempts, func() error {
		return j.stage(ctx, a, "restore_cache")
	}); err != nil {
		return err
	}
	return j.retry(ctx, s.ArtifactDownloadAttempts, func() error {
		return j.stage(ctx, a, "download_artifacts")
	})
}

// retry repeats after any error, waiting longer each time, 5 min at most. It
// ends with ctx, where the runner would first wait to the end.
func (j *job) retry(ctx context.Context, tries int, f func() error) error {
	wait := j.cfg.StageRetryWait
	for n := 1; ; n++ {
		err := f()
		if err == nil || n >= tries {
			return err
		}
		j.log.warning("Retrying...")
		if !pause(ctx, wait) {
			return err
		}
		wait = min(2*wait, 5*time.Minute)
	}
}

const defaultAfterScriptTimeout = 5 * time.Minute

// userScripts runs the job's steps and its after_script. A graceful cancel ends
// the steps alone.
func (j *job) userScripts(ctx context.Context, a *attempt) error {
	script, cancel := j.limited(ctx, "RUNNER_SCRIPT_TIMEOUT", 0)
	defer cancel()
	j.trace.OnCancel(cancel)

	err := j.steps(script, a)
	switch {
	case ctx.Err() == nil && errors.Is(script.Err(), context.Canceled):
		err = &buildError{inner: errCanceled, reason: jobCanceled}
		j.log.warning("script canceled externally (UI, API)")
	case !errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(script.Err(), context.DeadlineExceeded):
		err = &buildError{inner: fmt.Errorf("%w: %w", errScriptTimeout, script.Err()), reason: executionTimeout}
	}

	after, cancelAfter := j.limited(ctx, "RUNNER_AFTER_SCRIPT_TIMEOUT", defaultAfterScriptTimeout)
	defer cancelAfter()
	return j.afterScript(ctx, after, a, err)
}

func (j *job) steps(ctx context.Context, a *attempt) error {
	for _, s := range j.payload.Steps {
		if s.Name == "after_script" {
			continue
		}
		if err := j.stage(ctx, a, shell.StepStage(s.Name)); err != nil {
			return err
		}
	}
	return nil
}

// afterScript runs after_script, whose failure counts only where the job says
// so, and returns the error of both.
func (j *job) afterScript(ctx, after context.Context, a *attempt, err error) error {
	state, _ := settle(j.payload, err)
	j.setStatus(state)
	failed := j.stage(after, a, "after_script")
	switch {
	case failed == nil, errors.Is(ctx.Err(), context.DeadlineExceeded):
	case j.settings().AfterScriptIgnoreErrors:
		j.log.warning("after_script failed, but job will continue unaffected:", failed)
	case err == nil:
		return failed
	}
	return err
}

// limited bounds ctx by the duration in a variable, or by def if that is more
// than nothing (gitlab-runner common/build.go, getStageTimeoutContexts).
func (j *job) limited(ctx context.Context, key string, def time.Duration) (context.Context, func()) {
	limit := def
	raw := strings.TrimSpace(j.variables().Value(key))
	d, err := time.ParseDuration(raw)
	deadline, _ := ctx.Deadline()
	switch {
	case raw == "":
	case err != nil:
		j.log.warning(fmt.Sprintf("Ignoring malformed %s timeout: %v", key, raw))
	case d < 0:
		j.log.warning(fmt.Sprintf("Ignoring relative %s timeout: %v", key, raw))
	case d > time.Until(deadline):
		j.log.warning(fmt.Sprintf("%s timeout: %v is longer than job timeout. Setting to job timeout", key, raw))
	case d > 0:
		limit = d
	}
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// stage makes a stage's script and has the driver run it, unless there is
// nothing to do.
func (j *job) stage(ctx context.Context, a *attempt, name string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	defer j.warnTimeout(ctx, name)
	script, err := shell.Script(name, j.shellBuild(a))
	if errors.Is(err, shell.ErrSkip) {
		return nil
	}
	if err != nil {
		return err
	}
	return j.log.section(name, func() error {
		j.log.println(ansiBoldCyan + description(name) + ansiReset)
		return a.run(ctx, name, script)
	})
}

func (j *job) warnTimeout(ctx context.Context, stage string) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		j.log.warning(stage + " could not run to completion because the timeout was exceeded. " +
			"For more control over job and script timeouts see: " +
			"https://docs.gitlab.com/ci/runners/configure_runners/#set-script-and-after_script-timeouts")
	}
}

func (j *job) shellBuild(a *attempt) *shell.Build {
	return &shell.Build{
		Job: j.payload, Vars: j.variables(), Settings: j.settings(),
		Shell: a.shell, Hostname: j.hostname,
		RootDir: j.rootDir, ProjectDir: j.projectDir, CacheDir: j.cacheDir,
		ServerURL:     j.cfg.URL,
		UserAgent:     fmt.Sprintf("gitlab-runner %s %s/%s", runnerVersion, runtime.GOOS, runtime.GOARCH),
		CorrelationID: j.correlationID,
	}
}

// descriptions are the lines that open a stage in the log (gitlab-runner
// common/build.go, GetStageDescription).
var descriptions = map[string]string{
	"prepare_script":              "Preparing environment",
	"get_sources":                 "Getting source from Git repository",
	"clear_worktree":              "Deleting all tracked and untracked files due to source fetch failure",
	"restore_cache":               "Restoring cache",
	"download_artifacts":          "Downloading artifacts",
	"after_script":                "Running after_script",
	"archive_cache":               "Saving cache for successful job",
	"archive_cache_on_failure":    "Saving cache for failed job",
	"upload_artifacts_on_success": "Uploading artifacts for successful job",
	"upload_artifacts_on_failure": "Uploading artifacts for failed job",
	"cleanup_file_variables":      "Cleaning up project directory and file based variables",
}

func description(stage string) string {
	if d, ok := descriptions[stage]; ok {
		return d
	}
	return fmt.Sprintf("Executing %q stage of the job script", stage)
}
