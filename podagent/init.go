package podagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Roles of the containers that podlane-helper is process 1 of.
const (
	RoleBuild  = "build"
	RoleHelper = "helper"
)

// Init is process 1 of a container.
type Init struct {
	Layout Layout
	Role   string
	// Program is podlane-helper itself.
	Program string
	// Path is the container's PATH.
	Path string
	// Install is the folder that gets a copy of Program; empty means none.
	Install string
	// Idle ends the container when no session has been there for that long.
	Idle time.Duration
}

// ErrAbandoned is Run's error when nobody has talked to the pod for too long.
var ErrAbandoned = errors.New("no stage has talked to this pod for too long: the runner's host must have gone")

// Run reaps children and keeps the container alive until SIGTERM or until the
// pod is abandoned. On SIGTERM a stage that runs may go on to its end: the
// kubelet bounds that by the grace period.
func (i *Init) Run(ctx context.Context) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := i.announce(); err != nil {
		return err
	}
	check := time.NewTicker(max(i.Idle/20, 100*time.Millisecond))
	defer check.Stop()
	terminated := ctx.Done()
	for {
		select {
		case <-children:
			reap()
		case <-check.C:
			if i.abandoned() {
				return ErrAbandoned
			}
		case <-terminated:
			if !i.busy() {
				return nil
			}
			terminated = nil
			check.Reset(200 * time.Millisecond)
		}
		if ctx.Err() != nil && !i.busy() {
			return nil
		}
	}
}

// announce does what others wait for: the helper brings the program, the build
// container says who it is.
func (i *Init) announce() error {
	touch(i.Layout.alive())
	if err := os.MkdirAll(filepath.Join(i.Layout.State, "stages"), 0o711); err != nil {
		return fmt.Errorf("make a folder for stages: %w", err)
	}
	if i.Install != "" {
		if err := Install(i.Program, i.Install); err != nil {
			return err
		}
	}
	if i.Role == RoleHelper {
		if err := i.provideRunner(); err != nil {
			return err
		}
		return writeWhole(i.Layout.helperReady(), strings.NewReader(""), 0o644)
	}
	return writeWhole(i.Layout.buildUser(), strings.NewReader(fmt.Sprintf("%d:%d\n", os.Geteuid(), os.Getegid())), 0o644)
}

// Install copies the program into a folder, so that it appears there whole.
func Install(program, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install podlane-helper: %w", err)
	}
	from, err := os.Open(program)
	if err != nil {
		return fmt.Errorf("install podlane-helper: %w", err)
	}
	defer from.Close()
	if err := writeWhole(filepath.Join(dir, "podlane-helper"), from, 0o755); err != nil {
		return fmt.Errorf("install podlane-helper: %w", err)
	}
	return nil
}

// provideRunner makes the name gitlab-runner resolvable for the runner's
// scripts. GitLab's helper image has the program as gitlab-runner-helper only;
// an image that has neither gets ours.
func (i *Init) provideRunner() error {
	if find("gitlab-runner", i.Path) != "" {
		return nil
	}
	target := find("gitlab-runner-helper", i.Path)
	if target == "" {
		target = i.Program
	}
	bin := filepath.Join(i.Layout.State, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("provide gitlab-runner: %w", err)
	}
	if err := os.Symlink(target, filepath.Join(bin, "gitlab-runner")); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("provide gitlab-runner: %w", err)
	}
	return nil
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

// abandoned tells whether the file that every session touches has grown old.
func (i *Init) abandoned() bool {
	info, err := os.Stat(i.Layout.alive())
	return err == nil && time.Since(info.ModTime()) > i.Idle
}

// busy tells whether a stage runs in this container.
func (i *Init) busy() bool {
	stages, err := filepath.Glob(filepath.Join(i.Layout.State, "stages", "*"))
	if err != nil {
		return false
	}
	for _, dir := range stages {
		if _, err := os.Stat(stageDir(dir).supervised()); err != nil {
			continue
		}
		if alive, err := supervisorAlive(stageDir(dir)); err == nil && alive {
			return true
		}
	}
	return false
}

// reap collects the children that have ended. Process 1 starts none itself, so
// it takes nobody's exit status away.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}
