package podagent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The names under which GitLab's images have the program that the runner's
// scripts call for artifacts. Scripts for a custom executor say gitlab-runner
// (gitlab-runner executors/custom/custom.go:411), GitLab's own helper image
// has only the other (dockerfiles/runner-helper/Dockerfile).
const (
	runnerName       = "gitlab-runner"
	runnerHelperName = "gitlab-runner-helper"
)

// ProvideRunner makes the name gitlab-runner resolvable for scripts in this
// container: where path, a PATH, has none, a link in a folder of ours, which
// ends every script's PATH, leads to gitlab-runner-helper or else to program,
// podlane-helper itself. It returns what the name stands for.
func ProvideRunner(l Layout, program, path string) (string, error) {
	if found := find(runnerName, path); found != "" {
		return found, nil
	}
	target := find(runnerHelperName, path)
	if target == "" {
		target = program
	}
	if err := os.MkdirAll(l.bin(), 0o755); err != nil {
		return "", fmt.Errorf("provide gitlab-runner: %w", err)
	}
	link := filepath.Join(l.bin(), runnerName)
	if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("provide gitlab-runner: %w", err)
	}
	return os.Readlink(link)
}

func find(name, path string) string {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if _, err := exec.LookPath(file); err == nil && filepath.IsAbs(file) {
			return file
		}
	}
	return ""
}
