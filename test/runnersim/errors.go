package runnersim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"podlane/test/runnersim/spec"
)

// Failure reasons (gitlab-runner common/network.go:74-107).
const (
	scriptFailure      = "script_failure"
	systemFailure      = "runner_system_failure"
	executionTimeout   = "job_execution_timeout"
	unknownFailure     = "unknown_failure"
	configurationError = "runner_configuration_error"
	runnerInterrupted  = "runner_interrupted"
	jobCanceled        = "job_canceled"
)

// buildError is a failure whose reason is known. Without one it's the runner's
// own: a system failure. A buildError in prepare isn't tried again.
type buildError struct {
	inner    error
	reason   string
	exitCode int
}

func (e *buildError) Error() string { return e.inner.Error() }
func (e *buildError) Unwrap() error { return e.inner }

// unknownExit is an exit code outside of the contract (gitlab-runner
// executors/custom/command/errors.go).
type unknownExit struct {
	inner error
	code  int
}

func (e *unknownExit) Error() string {
	return fmt.Sprintf("unknown Custom executor executable exit code %d; executable execution terminated with: %v", e.code, e.inner)
}

var (
	errCanceled      = errors.New("canceled")
	errScriptTimeout = errors.New("script timeout")
)

// settle turns a context's end into the job's error (gitlab-runner
// common/build.go, runtimeStateAndError). state is CI_JOB_STATUS.
func settle(job *spec.Job, err error) (state string, _ error) {
	switch {
	case err == nil:
		return "success", nil
	case errors.Is(err, context.Canceled), errors.Is(err, errCanceled):
		return "canceled", &buildError{inner: errCanceled, reason: jobCanceled}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errScriptTimeout):
		return "timedout", &buildError{
			inner:  fmt.Errorf("execution took longer than %v seconds", job.Timeout()),
			reason: executionTimeout,
		}
	default:
		return "failed", err
	}
}

// reported maps a reason to one that this GitLab knows (gitlab-runner
// common/failure_reason_mapper.go).
func reported(reason string, supported []string) string {
	if reason == "" {
		return scriptFailure
	}
	always := []string{scriptFailure, systemFailure, executionTimeout}
	if slices.Contains(always, reason) || slices.Contains(supported, reason) {
		return reason
	}
	if reason == configurationError {
		return scriptFailure
	}
	return unknownFailure
}
