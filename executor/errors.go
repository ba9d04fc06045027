package executor

import (
	"errors"
	"fmt"

	"podlane/executor/pod"
	"podlane/podagent"
)

// BuildFailure is a failure that the job's author can mend. The runner does
// not retry it and blames the script.
type BuildFailure struct {
	// Code is the script's exit code, or 1 where no script has ended.
	Code int
	// Silent is set if the job log shows the reason already: a script's own
	// output.
	Silent bool
	Err    error
}

// Error is the line for the job log.
func (e *BuildFailure) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *BuildFailure) Unwrap() error { return e.Err }

// AsBuildFailure finds out whose fault an error is. The second result is false
// for a system failure; an error that nothing is known about is one.
func AsBuildFailure(err error) (*BuildFailure, bool) {
	var build *BuildFailure
	if errors.As(err, &build) {
		return build, true
	}
	var failure *pod.Failure
	if errors.As(err, &failure) && failure.Fault() == pod.FaultJob {
		return &BuildFailure{Code: 1, Err: err}, true
	}
	return nil, false
}

// ErrCancelled is the end of a stage that the runner has cancelled.
var ErrCancelled = podagent.ErrCancelled

// scriptFailure is the failure of a script that ended with a code.
func scriptFailure(code int) error {
	return &BuildFailure{Code: code, Silent: true, Err: fmt.Errorf("script ended with exit code %d", code)}
}

// jobError marks an error as the job author's.
func jobError(err error) error { return &BuildFailure{Code: 1, Err: err} }

// planError judges why a pod could not be planned: the job's author has asked
// for something that can't be, unless the plan itself knows better.
func planError(err error) error {
	var failure *pod.Failure
	if errors.As(err, &failure) {
		return err
	}
	return jobError(err)
}
