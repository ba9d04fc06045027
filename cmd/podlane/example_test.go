package main

import (
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"podlane/executor/settings"
)

// runnerConfig is the part of GitLab Runner's config.toml that the example
// uses (docs/configuration/advanced-configuration.md, section [runners.custom]).
type runnerConfig struct {
	Concurrent      int             `toml:"concurrent"`
	CheckInterval   int             `toml:"check_interval"`
	ShutdownTimeout int             `toml:"shutdown_timeout"`
	Runners         []runnerExample `toml:"runners"`
}

type runnerExample struct {
	Name      string `toml:"name"`
	URL       string `toml:"url"`
	Token     string `toml:"token"`
	Executor  string `toml:"executor"`
	Limit     int    `toml:"limit"`
	BuildsDir string `toml:"builds_dir"`
	CacheDir  string `toml:"cache_dir"`
	Custom    struct {
		ConfigExec          string   `toml:"config_exec"`
		ConfigArgs          []string `toml:"config_args"`
		ConfigExecTimeout   int      `toml:"config_exec_timeout"`
		PrepareExec         string   `toml:"prepare_exec"`
		PrepareArgs         []string `toml:"prepare_args"`
		PrepareExecTimeout  int      `toml:"prepare_exec_timeout"`
		RunExec             string   `toml:"run_exec"`
		RunArgs             []string `toml:"run_args"`
		CleanupExec         string   `toml:"cleanup_exec"`
		CleanupArgs         []string `toml:"cleanup_args"`
		CleanupExecTimeout  int      `toml:"cleanup_exec_timeout"`
		GracefulKillTimeout int      `toml:"graceful_kill_timeout"`
		ForceKillTimeout    int      `toml:"force_kill_timeout"`
	} `toml:"custom"`
}

func TestRunnerExampleCallsOurStages(t *testing.T) {
	var config runnerConfig
	meta, err := toml.DecodeFile("../../config.example.toml", &config)
	if err != nil {
		t.Fatal(err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		t.Errorf("the runner knows no such keys: %v", unknown)
	}
	if len(config.Runners) != 2 {
		t.Errorf("the example has %d runners", len(config.Runners))
	}
	for _, runner := range config.Runners {
		t.Run(runner.Name, func(t *testing.T) { checkRunner(t, runner) })
	}
}

func checkRunner(t *testing.T, runner runnerExample) {
	t.Helper()
	custom := runner.Custom
	root := (&app{}).command(nil)
	for exec, args := range map[string][]string{"config": custom.ConfigArgs, "prepare": custom.PrepareArgs, "run": custom.RunArgs, "cleanup": custom.CleanupArgs} {
		found, rest, err := root.Find(args)
		if err != nil || found.Name() != exec {
			t.Errorf("%s_args %v is not the stage %s", exec, args, exec)
			continue
		}
		if err := found.ParseFlags(rest); err != nil {
			t.Errorf("%s_args %v: %v", exec, args, err)
		}
	}
	for _, path := range []string{custom.ConfigExec, custom.PrepareExec, custom.RunExec, custom.CleanupExec} {
		if path != "/usr/local/bin/podlane" {
			t.Errorf("a stage calls %s", path)
		}
	}
	if runner.Executor != "custom" || !strings.HasPrefix(runner.URL, "https://") {
		t.Errorf("executor %s at %s", runner.Executor, runner.URL)
	}

	ours := settings.Default()
	if runner.BuildsDir != ours.Job.BuildsDir || runner.CacheDir != ours.Job.CacheDir {
		t.Errorf("folders %s and %s differ from podlane's defaults", runner.BuildsDir, runner.CacheDir)
	}
	kill := time.Duration(custom.GracefulKillTimeout) * time.Second
	if kill < ours.Job.CancelGrace.D()+15*time.Second || kill >= 300*time.Second {
		t.Errorf("graceful_kill_timeout is %s: podlane needs job.cancel_grace and 15 s, the runner starts cleanup after 300 s", kill)
	}
}
