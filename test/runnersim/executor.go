package runnersim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"gitlab.com/gitlab-org/gitlab-runner/executors/custom/api"

	"podlane/test/runnersim/spec"
)

// attempt is the custom executor for one try of prepare and, if that succeeds,
// for the rest of the job (gitlab-runner executors/custom/custom.go).
type attempt struct {
	*job
	number int
	dir    string // TMPDIR
	jobEnv map[string]string
	driver *api.DriverInfo

	// What config_exec may change.
	buildsDir, cacheRoot, shell string
	sharedBuilds                bool
}

func (a *attempt) responseFile() string { return filepath.Join(a.dir, "response.json") }
func (a *attempt) exitCodeFile() string { return filepath.Join(a.dir, "build_exit_code") }

// prepare calls config_exec and prepare_exec.
func (a *attempt) prepare(ctx context.Context) error {
	var err error
	if a.dir, err = os.MkdirTemp(a.cfg.TempDir, "custom-executor"); err != nil {
		return err
	}
	if err := a.writeResponse(); err != nil {
		return err
	}
	if err := a.configure(ctx); err != nil {
		return err
	}
	a.log.println(a.startupMessage())
	if err := a.placeBuild(a.buildsDir, a.cacheRoot, a.sharedBuilds); err != nil {
		return err
	}
	if a.shell != "bash" && a.shell != "sh" {
		return fmt.Errorf("shell %s not found", a.shell)
	}
	if a.cfg.Custom.PrepareExec == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Custom.PrepareTimeout)
	defer cancel()
	return a.toJobLog(ctx, "prepare", a.cfg.Custom.PrepareExec, a.cfg.Custom.PrepareArgs)
}

// writeResponse leaves the job for the driver, as decoded and encoded again.
func (a *attempt) writeResponse() error {
	var data bytes.Buffer
	if err := json.NewEncoder(&data).Encode(a.payload); err != nil {
		return fmt.Errorf("encoding job response file: %w", err)
	}
	if err := os.WriteFile(a.responseFile(), data.Bytes(), 0o600); err != nil {
		return fmt.Errorf("creating job response file %q: %w", a.responseFile(), err)
	}
	return nil
}

// configure calls config_exec and takes over what it prints.
func (a *attempt) configure(ctx context.Context) error {
	if a.cfg.Custom.ConfigExec == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Custom.ConfigTimeout)
	defer cancel()
	a.refreshVariables()
	var stdout bytes.Buffer
	stderr := a.log.stream()
	defer stderr.Close()
	if err := a.call(ctx, "config", a.cfg.Custom.ConfigExec, a.cfg.Custom.ConfigArgs, &stdout, stderr); err != nil {
		return err
	}
	if stdout.Len() == 0 {
		return nil
	}
	var config api.ConfigExecOutput
	if err := json.Unmarshal(stdout.Bytes(), &config); err != nil {
		return fmt.Errorf("error while parsing JSON output: %w", err)
	}
	a.apply(config)
	return nil
}

func (a *attempt) apply(c api.ConfigExecOutput) {
	take(&a.hostname, c.Hostname)
	take(&a.buildsDir, c.BuildsDir)
	take(&a.cacheRoot, c.CacheDir)
	take(&a.sharedBuilds, c.BuildsDirIsShared)
	take(&a.jobEnv, c.JobEnv)
	take(&a.shell, c.Shell)
	a.driver = c.Driver
}

func take[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (a *attempt) startupMessage() string {
	const using = "Using Custom executor"
	switch d := a.driver; {
	case d == nil || d.Name == nil:
		return using + "..."
	case d.Version == nil:
		return using + " with driver " + *d.Name + "..."
	default:
		return using + " with driver " + *d.Name + " " + *d.Version + "..."
	}
}

// run hands a stage's script to run_exec.
func (a *attempt) run(ctx context.Context, stage, script string) error {
	dir, err := os.MkdirTemp(a.dir, "script")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		return err
	}
	if stage == "step_script" {
		a.log.warning("Starting with version 17.0 the 'build_script' stage " +
			"will be replaced with 'step_script': https://gitlab.com/groups/gitlab-org/-/epics/6112")
		stage = "build_script"
	}
	return a.toJobLog(ctx, stage, a.cfg.Custom.RunExec, append(slices.Clone(a.cfg.Custom.RunArgs), file, stage))
}

// cleanup calls cleanup_exec, whatever has happened before, and removes TMPDIR.
// Its output goes to the runner's log.
func (a *attempt) cleanup() {
	defer os.RemoveAll(a.dir)
	if a.cfg.Custom.CleanupExec == "" {
		return
	}
	ctx, cancel := context.WithTimeout(a.hard, a.cfg.Custom.CleanupTimeout)
	defer cancel()
	stdout := a.runnerLog.lines(ctx, slog.LevelDebug, "out")
	stderr := a.runnerLog.lines(ctx, slog.LevelWarn, "err")
	err := a.call(ctx, "cleanup", a.cfg.Custom.CleanupExec, a.cfg.Custom.CleanupArgs, stdout, stderr)
	stdout.Close()
	stderr.Close()
	if err != nil {
		a.log.warning("Cleanup script failed:", err)
	}
}

// toJobLog makes a call whose stdout and stderr go to the job's log.
func (a *attempt) toJobLog(ctx context.Context, stage, exe string, args []string) error {
	stdout, stderr := a.log.stream(), a.log.stream()
	err := a.call(ctx, stage, exe, args, stdout, stderr)
	return errors.Join(err, stdout.Close(), stderr.Close())
}

// call runs the driver once and applies the rules for its exit code.
func (a *attempt) call(ctx context.Context, stage, exe string, args []string, stdout, stderr io.Writer) error {
	call := &Call{
		JobID: a.payload.ID, Attempt: a.number, Stage: stage,
		Path: exe, Args: args, Env: a.environ(), Dir: a.dir, ExitCode: -1,
	}
	call.Err = a.execute(ctx, call, stdout, stderr)
	call.End = time.Now()
	if a.cfg.Hooks.After != nil {
		a.cfg.Hooks.After(call)
	}
	return call.Err
}

func (a *attempt) execute(ctx context.Context, call *Call, stdout, stderr io.Writer) error {
	if a.cfg.Hooks.Before != nil {
		if err := a.cfg.Hooks.Before(call); err != nil {
			return fmt.Errorf("failed to start command: %w", err)
		}
	}
	call.Start = time.Now()
	p, err := start(call, stdout, stderr)
	if err != nil {
		return fmt.Errorf("failed to start command: %w", err)
	}
	if a.cfg.Hooks.Started != nil {
		a.cfg.Hooks.Started(call, p.cmd.Process.Pid)
	}
	err = p.finish(ctx, a.hard, a.cfg.Custom.GracefulKillTimeout, a.cfg.Custom.ForceKillTimeout)
	call.ExitCode = exitCode(err)
	return exitError(err, a.exitCodeFile())
}

// environ is a driver call's environment: of two values of a name the later one
// counts, so job_env can replace the contract's own variables.
func (a *attempt) environ() []string {
	env := slices.Clone(a.cfg.Environ)
	env = append(env,
		"TMPDIR="+a.dir,
		api.BuildFailureExitCodeVariable+"="+strconv.Itoa(buildFailureExit),
		api.SystemFailureExitCodeVariable+"="+strconv.Itoa(systemFailureExit),
		api.BuildCodeFileVariable+"="+a.exitCodeFile(),
		api.JobResponseFileVariable+"="+a.responseFile(),
	)
	for _, k := range slices.Sorted(maps.Keys(a.jobEnv)) {
		env = append(env, k+"="+a.jobEnv[k])
	}
	vars := a.variables()
	for _, v := range vars {
		env = append(env, "CUSTOM_ENV_"+v.Key+"="+v.Value)
	}
	return append(env, "CUSTOM_ENV_CI_JOB_SERVICES="+services(a.payload.Services, vars))
}

// service is an entry of CI_JOB_SERVICES.
type service struct {
	Name       string            `json:"name"`
	Alias      string            `json:"alias"`
	Entrypoint []string          `json:"entrypoint"`
	Command    []string          `json:"command"`
	Variables  map[string]string `json:"variables,omitempty"`
}

func services(images []spec.Image, vars spec.Variables) string {
	if len(images) == 0 {
		return ""
	}
	var list []service
	for _, i := range images {
		s := service{Name: i.Name, Entrypoint: i.Entrypoint, Command: i.Command}
		if names := i.Aliases(); len(names) > 0 {
			s.Alias = names[0]
		}
		expanded := slices.Concat(vars, i.Variables).Expand()
		for _, v := range i.Variables {
			if s.Variables == nil {
				s.Variables = map[string]string{}
			}
			s.Variables[v.Key] = expanded.Value(v.Key)
		}
		list = append(list, s)
	}
	// Strings, lists and maps of strings always have a JSON form.
	data, _ := json.Marshal(list)
	return string(data)
}

// placeBuild decides where the job works, now that the driver has said where
// its folders are (gitlab-runner common/build.go:498-545).
func (j *job) placeBuild(buildsDir, cacheRoot string, shared bool) error {
	switch {
	case buildsDir == "":
		return &buildError{inner: errors.New("the builds_dir is not configured"), reason: configurationError}
	case cacheRoot == "":
		return &buildError{inner: errors.New("the cache_dir is not configured"), reason: configurationError}
	case j.settings().GitClonePath != "":
		return &buildError{
			inner:  errors.New("setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature"),
			reason: configurationError,
		}
	}
	project := j.payload.ProjectDir()
	if j.settings().GitStrategy == "empty" {
		project += "-empty"
	}
	j.rootDir = buildsDir
	j.cacheDir = path.Join(cacheRoot, project)
	if shared {
		project = path.Join(shortToken(j.cfg.Token), strconv.Itoa(j.projectSlot), project)
	}
	j.projectDir = path.Join(buildsDir, project)
	j.refreshVariables()
	return nil
}
