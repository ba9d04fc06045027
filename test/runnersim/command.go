package runnersim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// The exit codes that a driver is told to use (gitlab-runner
// executors/custom/command/command.go).
const (
	buildFailureExit  = 1
	systemFailureExit = 2
)

// process is one driver call as the operating system sees it: a group of its
// own, nothing to read, and pipes that it may keep open longer than it lives.
type process struct {
	cmd    *exec.Cmd
	output []*pump
	ended  chan error
}

func start(call *Call, stdout, stderr io.Writer) (*process, error) {
	cmd := exec.Command(call.Path, call.Args...) //nolint:noctx // it is ended by signals, as the runner does
	cmd.Dir = call.Dir
	cmd.Env = call.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := newPump(stdout)
	if err != nil {
		return nil, err
	}
	errs, err := newPump(stderr)
	if err != nil {
		out.abandon()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out.w, errs.w
	p := &process{cmd: cmd, output: []*pump{out, errs}, ended: make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		p.abandon()
		return nil, err
	}
	go p.wait()
	return p, nil
}

// wait reports the process's end once everybody who has its output open has
// closed it, as os/exec without WaitDelay does.
func (p *process) wait() {
	for _, o := range p.output {
		go o.run()
	}
	err := p.cmd.Wait()
	for _, o := range p.output {
		<-o.done
	}
	p.ended <- err
}

// finish waits for the end. When ctx ends first the group gets SIGTERM, then
// SIGKILL (gitlab-runner helpers/process/killer.go, KillAndWait); when hard
// ends it gets SIGKILL at once.
func (p *process) finish(ctx, hard context.Context, graceful, force time.Duration) error {
	select {
	case err := <-p.ended:
		return err
	case <-ctx.Done():
	}
	p.signal(syscall.SIGTERM)
	select {
	case err := <-p.ended:
		return err
	case <-hard.Done():
	case <-time.After(graceful):
	}
	p.signal(syscall.SIGKILL)
	select {
	case err := <-p.ended:
		return err
	case <-time.After(force):
	}
	p.abandon()
	for _, o := range p.output {
		<-o.done
	}
	return fmt.Errorf("failed to kill process PID=%d, likely process is dormant", p.cmd.Process.Pid)
}

// signal reaches the whole group. There may be none left of it.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// abandon stops reading output that somebody keeps open.
func (p *process) abandon() {
	for _, o := range p.output {
		o.abandon()
	}
}

// pump copies a process's output.
type pump struct {
	r, w *os.File
	dst  io.Writer
	done chan struct{}
}

func newPump(dst io.Writer) (*pump, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &pump{r: r, w: w, dst: dst, done: make(chan struct{})}, nil
}

func (p *pump) run() {
	defer close(p.done)
	p.w.Close()
	// An error leaves the process writing into a closed pipe, as os/exec does.
	_, _ = io.Copy(p.dst, p.r)
	p.r.Close()
}

func (p *pump) abandon() {
	p.w.Close()
	p.r.Close()
}

// exitError turns a process's end into the runner's view of it (gitlab-runner
// executors/custom/command/command.go, waitForCommand).
func exitError(err error, codeFile string) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch code := exit.ExitCode(); code {
	case buildFailureExit:
		return buildFailure(exit, codeFile)
	case systemFailureExit:
		return err
	default:
		return &unknownExit{inner: exit, code: code}
	}
}

// buildFailure reads the script's exit code from the first line of the file
// that the driver may have written.
func buildFailure(exit *exec.ExitError, codeFile string) error {
	f, err := os.Open(codeFile)
	if err != nil {
		return &buildError{inner: exit, reason: scriptFailure, exitCode: buildFailureExit}
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	code, err := strconv.Atoi(lines.Text())
	if err != nil {
		return &unknownExit{inner: exit, code: systemFailureExit}
	}
	return &buildError{inner: fmt.Errorf("exit status %s", lines.Text()), reason: scriptFailure, exitCode: code}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
