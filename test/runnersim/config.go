package runnersim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// What the simulator says it is.
const (
	runnerVersion  = "19.3.0"
	runnerRevision = "runnersim"
)

func userAgent() string {
	return fmt.Sprintf("gitlab-runner %s (19-3-stable; %s; %s/%s)", runnerVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Runner polls GitLab for jobs and runs them.
type Runner interface {
	// Run returns when ctx has ended and no job runs any more.
	Run(ctx context.Context) error
}

// Config is a runner's configuration. Zero values mean gitlab-runner's
// defaults.
type Config struct {
	// URL of the GitLab instance, and the runner's authentication token.
	URL, Token string
	// Name is shown in job logs.
	Name string
	// Concurrent is how many jobs run at once; 1 if 0.
	Concurrent int
	// TempDir holds the driver's TMPDIRs and what else the runner writes.
	TempDir string
	// Environ is the runner's own environment, which every driver call gets.
	Environ []string
	// Environment is [[runners]] environment: KEY=VALUE for every job.
	Environment []string
	// BuildsDir and CacheDir are for a driver whose config_exec names none.
	BuildsDir, CacheDir string
	// Shell is bash or sh; bash if empty.
	Shell string
	// Custom is [runners.custom].
	Custom Custom

	// CheckInterval between two questions for a job while there is none. 3 s.
	CheckInterval time.Duration
	// ShutdownTimeout is what running jobs get when Run's context ends. 30 s.
	ShutdownTimeout time.Duration
	// Log gets the runner's own log: cleanup_exec's output, among others.
	Log io.Writer

	// The rest has no counterpart in config.toml; a real gitlab-runner ignores
	// it.

	// UpdateInterval fixes the time between two looks at GitLab, for the trace
	// and for the job's state. 0: 3 s and what GitLab asks for, the state once
	// in 30 s while nothing is written.
	UpdateInterval time.Duration
	// FlushAtOnce sends output as soon as it is there.
	FlushAtOnce bool
	// PrepareRetryWait is the pause after a failed prepare. 3 s.
	PrepareRetryWait time.Duration
	// StageRetryWait is the first pause before get_sources, restore_cache or
	// download_artifacts is tried again; it doubles. 5 s.
	StageRetryWait time.Duration
	// Hooks look at driver calls and change them.
	Hooks Hooks
}

// Custom is [runners.custom]: what to call, and for how long.
type Custom struct {
	ConfigExec    string
	ConfigArgs    []string
	ConfigTimeout time.Duration // 1 h

	PrepareExec    string
	PrepareArgs    []string
	PrepareTimeout time.Duration // 1 h

	RunExec string
	RunArgs []string

	CleanupExec    string
	CleanupArgs    []string
	CleanupTimeout time.Duration // 1 h

	// GracefulKillTimeout lies between SIGTERM and SIGKILL. 10 min.
	GracefulKillTimeout time.Duration
	// ForceKillTimeout lies between SIGKILL and giving up. 10 s.
	ForceKillTimeout time.Duration
}

// Hooks are called by the simulator; any may be nil. Jobs call them at the same
// time.
type Hooks struct {
	// JobReceived is called when GitLab has handed out a job.
	JobReceived func(id int64)
	// JobFinished is called when GitLab knows the job's last state.
	JobFinished func(Result)
	// Before is called before a driver call is made. It may change the call's
	// Path, Args and Env; an error counts as a call that can't be started.
	Before func(*Call) error
	// Started is called when the driver's process runs.
	Started func(call *Call, pid int)
	// After is called when the call has ended.
	After func(*Call)
}

// Call is one call of the driver.
type Call struct {
	JobID int64
	// Attempt counts the tries of prepare, from 1; every call belongs to one.
	Attempt int
	// Stage is config, prepare, cleanup, or the stage a run was called with.
	Stage string
	// Path, Args and Env are what is executed; Dir is the attempt's TMPDIR.
	Path string
	Args []string
	Env  []string
	Dir  string
	// Start and End are the process's times.
	Start, End time.Time
	// ExitCode is -1 for a process that a signal ended or that didn't start.
	ExitCode int
	// Err is what the runner made of it.
	Err error
}

// Result is how a job ended.
type Result struct {
	ID            int64
	State         string // success or failed
	FailureReason string // as told to GitLab
	ExitCode      int
	Err           error // nil on success
	Received      time.Time
	Finished      time.Time
}

// withDefaults checks the configuration and fills in gitlab-runner's defaults.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	if c.URL == "" {
		problems = append(problems, errors.New("no URL of a GitLab instance"))
	}
	if c.Custom.RunExec == "" {
		problems = append(problems, errors.New("custom executor is missing run_exec"))
	}
	c.URL = strings.TrimRight(c.URL, "/")
	orDefault(&c.Name, "runnersim")
	orDefault(&c.Concurrent, 1)
	orDefault(&c.Shell, "bash")
	orDefault(&c.CheckInterval, 3*time.Second)
	orDefault(&c.ShutdownTimeout, 30*time.Second)
	orDefault(&c.PrepareRetryWait, 3*time.Second)
	orDefault(&c.StageRetryWait, 5*time.Second)
	orDefault(&c.Custom.ConfigTimeout, time.Hour)
	orDefault(&c.Custom.PrepareTimeout, time.Hour)
	orDefault(&c.Custom.CleanupTimeout, time.Hour)
	orDefault(&c.Custom.GracefulKillTimeout, 10*time.Minute)
	orDefault(&c.Custom.ForceKillTimeout, 10*time.Second)
	if c.Log == nil {
		c.Log = io.Discard
	}
	return c, errors.Join(problems...)
}

func orDefault[T comparable](value *T, def T) {
	var zero T
	if *value == zero {
		*value = def
	}
}
