package podagent

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	// KeepEnv is the environment that scripts shall get: what an entrypoint has
	// made of the container's. Empty means the container's own.
	KeepEnv []string
	// Idle ends the container when no session has been there for that long.
	Idle time.Duration
}

// ErrAbandoned is Run's error when nobody has talked to the pod for too long.
var ErrAbandoned = errors.New("no stage has talked to this pod for too long, the runner's host must have gone")

// Run reaps children and keeps the container alive until SIGTERM or until the
// pod is abandoned. On SIGTERM a stage that runs may go on to its end, and its
// end may be told: the kubelet bounds that by the grace period.
//
// When process 1 ends, the kernel kills what else is in the container.
func (i *Init) Run(ctx context.Context) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Where the pod's containers share their processes we are not process 1.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if err := i.announce(); err != nil {
		return err
	}
	reap()
	clock := idleClock{limit: i.Idle}
	check := time.NewTicker(max(i.Idle/20, 100*time.Millisecond))
	defer check.Stop()
	for {
		select {
		case <-children:
			reap()
		case <-check.C:
			if clock.abandoned(time.Now(), i.touched()) {
				return fmt.Errorf("%w: no stage for %s", ErrAbandoned, i.Idle)
			}
		case <-ctx.Done():
			return i.finish(children)
		}
	}
}

// finish refuses new stages and returns when the present one is over.
func (i *Init) finish(children <-chan os.Signal) error {
	if err := writeWhole(i.Layout.terminating(), strings.NewReader(""), 0o644); err != nil {
		return fmt.Errorf("refuse new stages: %w", err)
	}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for i.busy() {
		select {
		case <-children:
			reap()
		case <-look.C:
		}
	}
	return nil
}

// announce does what others wait for: the helper brings the program, the build
// container says who it is.
func (i *Init) announce() error {
	touch(i.Layout.alive())
	if err := os.MkdirAll(filepath.Join(i.Layout.State, "stages"), 0o711); err != nil {
		return fmt.Errorf("make a folder for stages: %w", err)
	}
	if len(i.KeepEnv) > 0 {
		if err := i.Layout.keepEnv(i.KeepEnv); err != nil {
			return fmt.Errorf("keep the environment: %w", err)
		}
	}
	if i.Install != "" {
		if err := Install(i.Program, i.Install); err != nil {
			return err
		}
	}
	if i.Role == RoleHelper {
		if _, err := ProvideRunner(i.Layout, i.Program, i.Path); err != nil {
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

// touched is when a session was last there. While the build container's image
// is still being pulled nobody can be: that counts as now.
func (i *Init) touched() time.Time {
	if _, err := os.Stat(i.Layout.buildUser()); i.Role == RoleHelper && err != nil {
		return time.Now()
	}
	info, err := os.Stat(i.Layout.alive())
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// busy tells whether a stage is starting, runs, or is being followed to its
// end in this container.
func (i *Init) busy() bool {
	stages, err := filepath.Glob(filepath.Join(i.Layout.State, "stages", "*"))
	if err != nil {
		return false
	}
	for _, path := range stages {
		dir := stageDir(path)
		for _, file := range []string{dir.starting(), dir.supervised(), dir.followed()} {
			if held, err := isLocked(file, unix.LOCK_EX); err == nil && held {
				return true
			}
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
