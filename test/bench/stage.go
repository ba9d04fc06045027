package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/test/bed"
	"podlane/test/stack/stackenv"
)

// execs is how often an exec and an empty stage are run.
const execs = 20

// measureStage compares an empty stage with what it can't be faster than: one
// exec of a program that ends at once, by a process that is there already. It
// also looks at the memory of a stage that waits.
func measureStage(ctx context.Context, b *bed.Bed, environ []string, out io.Writer, s *samples) (err error) {
	dir, err := os.MkdirTemp("", "podlane-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	job := gitlab.Job{
		ID:         time.Now().UnixNano(),
		JobInfo:    gitlab.JobInfo{ProjectID: 1, Name: "bench"},
		GitInfo:    gitlab.GitInfo{RepoURL: b.GitLab.URL() + "/bench.git"},
		RunnerInfo: gitlab.RunnerInfo{Timeout: 600},
		Image:      gitlab.Image{Name: stackenv.ImageJob},
	}
	response, err := json.Marshal(job)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "response.json"), response, 0o600); err != nil {
		return err
	}
	if out, err := b.Call(ctx, dir, "prepare"); err != nil {
		return fmt.Errorf("prepare: %w: %s", err, out)
	}
	defer func() {
		if out, cleanupErr := b.Call(ctx, dir, "cleanup"); cleanupErr != nil {
			err = fmt.Errorf("cleanup: %w: %s", cleanupErr, out)
		}
	}()
	config, err := settings.Load(b.Config)
	if err != nil {
		return err
	}
	client, err := pod.Connect(&config, nil, joblog.New(io.Discard))
	if err != nil {
		return err
	}
	argv := pod.AgentCommand(pod.BuildContainer, &config, "version")
	for i := range execs {
		began := time.Now()
		if err := client.Exec(ctx, pod.Name(&job), pod.BuildContainer, argv, pod.Streams{Stdout: io.Discard}); err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		s.add("one exec", time.Since(began))

		script := filepath.Join(dir, fmt.Sprintf("script%d", i))
		if err := os.WriteFile(script, []byte(":"), 0o600); err != nil {
			return err
		}
		began = time.Now()
		if out, err := b.Call(ctx, dir, "run", script, "build_script"); err != nil {
			return fmt.Errorf("run: %w: %s", err, out)
		}
		s.add("one empty stage", time.Since(began))
	}
	return waitingMemory(ctx, b, environ, out, dir)
}

// waitingMemory prints what a stage holds while its script runs.
func waitingMemory(ctx context.Context, b *bed.Bed, environ []string, out io.Writer, dir string) error {
	script := filepath.Join(dir, "waits")
	if err := os.WriteFile(script, []byte("sleep 5"), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.Podlane, "run", script, "build_script")
	cmd.Env = append(environ[:len(environ):len(environ)], "PODLANE_CONFIG="+b.Config, "JOB_RESPONSE_FILE="+filepath.Join(dir, "response.json"))
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); name == "RssAnon" || name == "VmRSS" {
			fmt.Fprintf(out, "a waiting stage: %s %s\n", name, strings.TrimSpace(value))
		}
	}
	return cmd.Wait()
}
