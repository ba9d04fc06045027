package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"podlane/executor"
	"podlane/executor/gitlab"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/redact"
	"podlane/internal/version"
)

// run is the whole program: it returns the exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	// SIGTERM is how the runner cancels a job: run still ends the script in
	// the pod before it goes.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	forgetVault(environ)
	secrets := &redact.Set{}
	// Lines of ours pass by the writer of the output below it: one between two
	// halves of a secret would hide the secret from it.
	var streams joblog.Streams
	out := secrets.Writer(streams.Bytes(stdout))
	app := &app{
		env: readEnvironment(environ), secrets: secrets, stdout: out,
		log: secrets.Each(streams.Lines(stdout)), stderr: secrets.Each(streams.Lines(stderr)),
	}
	root := app.command(environ)
	root.SetArgs(arguments(args))
	root.SetOut(out)
	root.SetErr(app.stderr)
	err := root.ExecuteContext(ctx)
	_ = out.Flush()
	return app.exitCode(err)
}

// arguments makes "podlane-run x" the same as "podlane run x".
func arguments(args []string) []string {
	if _, stage, ok := strings.Cut(filepath.Base(args[0]), "podlane-"); ok && stage != "" {
		return append([]string{stage}, args[1:]...)
	}
	return args[1:]
}

// app holds what the commands share.
type app struct {
	env    environment
	config string
	// secrets are left out of all that is written.
	secrets *redact.Set
	// stdout gets bytes as they come, log whole lines for stdout, stderr whole
	// lines.
	stdout, log, stderr io.Writer
}

// exitCode reports an error once and classifies it.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	var own *ownExit
	if errors.As(err, &own) {
		return own.code
	}
	build, isBuild := executor.AsBuildFailure(err)
	if !isBuild {
		a.complain(err)
		return a.env.systemFailure
	}
	if !build.Silent {
		a.complain(err)
	}
	if a.env.buildExitCodeFile != "" {
		if err := os.WriteFile(a.env.buildExitCodeFile, fmt.Appendf(nil, "%d\n", build.Code), 0o600); err != nil {
			a.complain(fmt.Errorf("write the script's exit code %d: %w", build.Code, err))
			return a.env.systemFailure
		}
	}
	return a.env.buildFailure
}

// complain writes an error of one or several lines. Each is one for people.
func (a *app) complain(err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(a.stderr, "podlane: error: %s\n", joblog.OneLine(strings.TrimRight(line, "\n")))
	}
}

func (a *app) command(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "podlane",
		Short:         "Run GitLab CI jobs as Kubernetes pods",
		Long:          "podlane is a custom executor for GitLab Runner: it runs each CI job as a Kubernetes pod.\nThe runner calls config, prepare, run and cleanup; see config.example.toml.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&a.config, "config", a.env.config, "settings `file`; also $PODLANE_CONFIG")
	root.AddCommand(a.configCommand(), a.prepareCommand(), a.runCommand(), a.cleanupCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Fprintln(a.stdout, version.String()) },
	})
	root.AddCommand(a.operatorCommands()...)
	root.AddCommand(a.doctorCommand(environ), a.captureCommand(), a.replayCommand(), a.cacheCommand())
	return root
}

// stage loads what every stage needs. log is where people will look.
func (a *app) stage(log io.Writer) (*executor.Stage, error) {
	s, err := settings.Load(a.config)
	if err != nil {
		return nil, err
	}
	job, err := gitlab.LoadJob(a.env.jobResponseFile)
	if err != nil {
		return nil, err
	}
	stage := &executor.Stage{
		Job:      job,
		Settings: &s,
		Attempt:  executor.AttemptOf(a.env.jobResponseFile),
		Log:      joblog.New(log),
		Output:   a.stdout,
		Secrets:  a.secrets,
		StateDir: filepath.Dir(a.env.jobResponseFile),
		SealKey:  a.env.sealKey,
		Observer: a.observer(&s),

		RunnerVariables: a.env.runnerVariables,
		Proxy:           http.ProxyFromEnvironment,
	}
	stage.HideSecrets()
	return stage, nil
}

const exitHelp = `
Exits with:
  0                            the stage has succeeded
  $BUILD_FAILURE_EXIT_CODE, 1  the job's author can mend it; $BUILD_EXIT_CODE_FILE holds the script's own code
  $SYSTEM_FAILURE_EXIT_CODE, 2 everything else, also whatever nobody has thought of`

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Tell the runner about this driver and where builds live",
		Long: `Called by the runner before anything else: config_exec.

Reads:
  $JOB_RESPONSE_FILE  the job, as GitLab sent it
  --config            the settings
Writes:
  stdout              one JSON object, and nothing else
  stderr              what is wrong, for the job log
` + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			stage, err := a.stage(a.stderr)
			if err != nil {
				return err
			}
			return stage.Observed(context.Background(), "config", func(context.Context) error { return stage.Config(a.stdout) })
		},
	}
}

func (a *app) prepareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare",
		Short: "Start the job's pod and wait until it works",
		Long: `Called by the runner once a job, up to three times if it fails: prepare_exec.
A pod that the same attempt has started already is adopted; there are never two.

Reads:
  $JOB_RESPONSE_FILE  the job, as GitLab sent it
  --config            the settings
Writes:
  the cluster         a pod, and secrets for its services and registry logins
  stdout, stderr      the job log: what the pod waits for, each thing once
` + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stage, err := a.stage(a.log)
			if err != nil {
				return err
			}
			return stage.Observed(cmd.Context(), "prepare", stage.Prepare)
		},
	}
}

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run SCRIPT STAGE",
		Short: "Run one stage's script in the job's pod",
		Long: `Called by the runner for each stage of a job: run_exec.
SCRIPT is a file with the runner's script, STAGE its name, get_sources or build_script, say.
Called again with the same two while the script runs, it attaches and starts nothing.

Reads:
  $JOB_RESPONSE_FILE    the job, as GitLab sent it
  --config              the settings
Writes:
  stdout                the script's output, byte for byte
  $BUILD_EXIT_CODE_FILE the script's exit code, if it is not 0
SIGTERM ends the script: SIGTERM to its process group, job.cancel_grace later SIGKILL. The pod stays.
` + exitHelp,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			// The file is the same for all stages: an old code must not
			// become this stage's.
			if f := a.env.buildExitCodeFile; f != "" {
				_ = os.Remove(f)
			}
			stage, err := a.stage(a.log)
			if err != nil {
				return err
			}
			script, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read the stage's script: %w", err)
			}
			return stage.Observed(cmd.Context(), args[1], func(ctx context.Context) error { return stage.Run(ctx, args[1], args[0], script) })
		},
	}
}

func (a *app) cleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Delete everything the job has on the cluster",
		Long: `Called by the runner when a job is over, also after a failed prepare: cleanup_exec.
Can be called at any time, any number of times.

Reads:
  $JOB_RESPONSE_FILE  the job, as GitLab sent it
  --config            the settings
Writes:
  the cluster         the job's pod and secrets are deleted
  stdout              what was done; the runner shows it at debug level
  stderr              what failed; the runner shows it as a warning
` + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stage, err := a.stage(a.log)
			if err != nil {
				return err
			}
			// The runner ends us with SIGTERM when it is in a hurry itself:
			// the deletion is one request, and worth it.
			return stage.Observed(context.WithoutCancel(cmd.Context()), "cleanup", stage.Cleanup)
		},
	}
}
