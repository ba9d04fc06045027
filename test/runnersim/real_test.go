package runnersim_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/test/runnersim"
)

// TestReal has a script in gitlab-runner's place: it keeps what it was given
// and waits for SIGTERM.
func TestReal(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "gitlab-runner")
	script := "#!/bin/sh\n" +
		`cp "$3" "$KEEP/config.toml"; echo "$1 $2 $4"` + "\n" +
		`trap 'echo terminated; exit 0' TERM; echo > "$KEEP/ready"; while :; do sleep 0.01; done` + "\n"
	if err := os.WriteFile(binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	runner, err := runnersim.Open(binary, runnersim.Config{
		URL: "http://gitlab.test/", Token: "glrt-abc", Name: `a "name"`, Concurrent: 4,
		TempDir: t.TempDir(), Environ: []string{"PATH=" + os.Getenv("PATH"), "KEEP=" + dir},
		Environment: []string{"FLEET=blue"}, CheckInterval: 100 * time.Millisecond, Log: log,
		Custom: runnersim.Custom{
			ConfigExec: "/bin/podlane", ConfigArgs: []string{"--config", "/etc/p.toml", "config"},
			RunExec: "/bin/podlane", RunArgs: []string{"run"},
			GracefulKillTimeout: 90 * time.Second,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := log.String(); got != "run --config --working-directory\nterminated\n" {
		t.Errorf("the binary said %q", got)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "config.toml.golden")
	if *update {
		if err := os.WriteFile(golden, config, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(config)); diff != "" {
		t.Errorf("config.toml (-want +got):\n%s", diff)
	}
}

func TestRealEndsByItself(t *testing.T) {
	runner, err := runnersim.NewReal("/bin/false", runnersim.Config{URL: "http://gitlab.test", Custom: runnersim.Custom{RunExec: "x"}, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.Run(t.Context()); err == nil {
		t.Error("Run succeeded, want an error")
	}
}

func TestConfigProblems(t *testing.T) {
	_, err := runnersim.New(runnersim.Config{})
	if err == nil || !strings.Contains(err.Error(), "no URL") || !strings.Contains(err.Error(), "run_exec") {
		t.Errorf("error %v, want all that is missing", err)
	}
}
