package runnersim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

// Real is a gitlab-runner binary with the same configuration.
type Real struct {
	binary string
	cfg    Config
}

// NewReal makes a runner from a gitlab-runner binary, 19.3 or newer. Hooks and
// the other settings that gitlab-runner doesn't have are ignored.
func NewReal(binary string, cfg Config) (*Real, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("runner configuration: %w", err)
	}
	return &Real{binary: binary, cfg: cfg}, nil
}

// Run starts gitlab-runner and sends it SIGTERM when ctx ends: running jobs are
// interrupted. It returns when the process has ended.
func (r *Real) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp(r.cfg.TempDir, "gitlab-runner")
	if err != nil {
		return fmt.Errorf("make a folder for gitlab-runner: %w", err)
	}
	defer os.RemoveAll(dir)
	// gitlab-runner keeps .runner_system_id beside its configuration.
	file := filepath.Join(dir, "config.toml")
	data, err := r.configToml()
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("write gitlab-runner's configuration: %w", err)
	}
	cmd := exec.CommandContext(ctx, r.binary, "run", "--config", file, "--working-directory", dir)
	cmd.Env = slices.Concat([]string{"HOME=" + dir}, r.cfg.Environ, []string{"TMPDIR=" + dir})
	cmd.Stdout, cmd.Stderr = r.cfg.Log, r.cfg.Log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = r.cfg.ShutdownTimeout + 10*time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("gitlab-runner ended by itself: %w", err)
}

// tomlConfig is what we need of gitlab-runner's config.toml
// (https://docs.gitlab.com/runner/configuration/advanced-configuration/).
type tomlConfig struct {
	Concurrent      int          `toml:"concurrent"`
	CheckInterval   int          `toml:"check_interval"`
	ShutdownTimeout int          `toml:"shutdown_timeout"`
	LogLevel        string       `toml:"log_level"`
	Runners         []tomlRunner `toml:"runners"`
}

type tomlRunner struct {
	Name         string          `toml:"name"`
	URL          string          `toml:"url"`
	Token        string          `toml:"token"`
	Executor     string          `toml:"executor"`
	Shell        string          `toml:"shell"`
	BuildsDir    string          `toml:"builds_dir,omitempty"`
	CacheDir     string          `toml:"cache_dir,omitempty"`
	Environment  []string        `toml:"environment,omitempty"`
	OutputLimit  int             `toml:"output_limit"` // KiB
	FeatureFlags map[string]bool `toml:"feature_flags"`
	Custom       tomlCustom      `toml:"custom"`
}

// tomlCustom has its times in seconds.
type tomlCustom struct {
	ConfigExec          string   `toml:"config_exec,omitempty"`
	ConfigArgs          []string `toml:"config_args,omitempty"`
	ConfigExecTimeout   int      `toml:"config_exec_timeout"`
	PrepareExec         string   `toml:"prepare_exec,omitempty"`
	PrepareArgs         []string `toml:"prepare_args,omitempty"`
	PrepareExecTimeout  int      `toml:"prepare_exec_timeout"`
	RunExec             string   `toml:"run_exec"`
	RunArgs             []string `toml:"run_args,omitempty"`
	CleanupExec         string   `toml:"cleanup_exec,omitempty"`
	CleanupArgs         []string `toml:"cleanup_args,omitempty"`
	CleanupExecTimeout  int      `toml:"cleanup_exec_timeout"`
	GracefulKillTimeout int      `toml:"graceful_kill_timeout"`
	ForceKillTimeout    int      `toml:"force_kill_timeout"`
}

// realOutputLimit is 1 GiB in KiB: more than any test writes.
const realOutputLimit = 1 << 20

func (r *Real) configToml() ([]byte, error) {
	c := r.cfg.Custom
	config := tomlConfig{
		Concurrent:      r.cfg.Concurrent,
		CheckInterval:   seconds(r.cfg.CheckInterval),
		ShutdownTimeout: seconds(r.cfg.ShutdownTimeout),
		LogLevel:        "debug", // for cleanup_exec's stdout
		Runners: []tomlRunner{{
			Name: r.cfg.Name, URL: r.cfg.URL, Token: r.cfg.Token,
			Executor: "custom", Shell: r.cfg.Shell,
			BuildsDir: r.cfg.BuildsDir, CacheDir: r.cfg.CacheDir, Environment: r.cfg.Environment,
			OutputLimit:  realOutputLimit,
			FeatureFlags: map[string]bool{"FF_TIMESTAMPS": false},
			Custom: tomlCustom{
				ConfigExec: c.ConfigExec, ConfigArgs: c.ConfigArgs, ConfigExecTimeout: seconds(c.ConfigTimeout),
				PrepareExec: c.PrepareExec, PrepareArgs: c.PrepareArgs, PrepareExecTimeout: seconds(c.PrepareTimeout),
				RunExec: c.RunExec, RunArgs: c.RunArgs,
				CleanupExec: c.CleanupExec, CleanupArgs: c.CleanupArgs, CleanupExecTimeout: seconds(c.CleanupTimeout),
				GracefulKillTimeout: seconds(c.GracefulKillTimeout), ForceKillTimeout: seconds(c.ForceKillTimeout),
			},
		}},
	}
	var data bytes.Buffer
	if err := toml.NewEncoder(&data).Encode(config); err != nil {
		return nil, fmt.Errorf("encode gitlab-runner's configuration: %w", err)
	}
	return data.Bytes(), nil
}

// seconds rounds up: gitlab-runner takes 0 for "use the default".
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
