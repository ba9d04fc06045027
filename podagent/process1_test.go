package podagent

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// enter makes a box whose init is process 1 of a PID namespace, as it is in a
// container, and into which sessions come from outside, as an exec does.
func enter(t *testing.T, args ...string) (b *box, init *exec.Cmd) {
	t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and nsenter")
	}
	b = newBox(t)
	// The namespace's own /proc: podlane-helper finds itself there.
	init = exec.CommandContext(t.Context(), "sh", append([]string{"-c", `mount -t proc proc /proc && exec "$0" init "$@"`, helper}, args...)...)
	init.Env = b.env
	init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	if err := init.Start(); err != nil {
		t.Skipf("needs a PID namespace: %v", err)
	}
	waitFor(t, func() bool { _, err := os.Stat(b.layout().buildUser()); return err == nil })
	b.prefix = []string{nsenter, "-t", strconv.Itoa(init.Process.Pid), "-p", "-m"}
	return b, init
}

// What a stage leaves behind falls to process 1: it reaps the dead and keeps
// the living until the container ends, and its end is theirs.
func TestProcess1(t *testing.T) {
	b, init := enter(t, "--role", "build")
	record, output, err := b.run("first", `echo $PPID; (sleep 0.2 &); sleep 300 & echo left`)
	if err != nil || record.Code != 0 || !strings.HasSuffix(output, "left\n") {
		t.Fatalf("got %+v, %q, %v", record, output, err)
	}
	pid := init.Process.Pid
	// The supervisor, which empties the daemon's pipe, and the daemon stay.
	waitFor(t, func() bool { return len(children(pid)) == 2 })
	for _, child := range children(pid) {
		if !running(child) {
			t.Errorf("process %d was not reaped", child)
		}
	}
	left := children(pid)
	// They do not count as a stage: the container ends at once.
	_ = init.Process.Signal(syscall.SIGTERM)
	if err := init.Wait(); err != nil {
		t.Error(err)
	}
	for _, child := range left {
		waitFor(t, func() bool { return !running(child) })
	}
}

// Sessions that are killed leave the stage to process 1.
func TestProcess1KeepsAStage(t *testing.T) {
	b, init := enter(t, "--role", "build")
	f := b.follower(io.Discard)
	sessions := 0
	f.Connect = func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
		sessions++
		if sessions > 3 {
			return b.connect(ctx, stdin, stdout, stderr)
		}
		broken, kill := context.WithCancel(ctx)
		defer kill()
		go func() {
			for !b.layout().stage("stage").begun() && pause(broken, time.Millisecond) == nil {
			}
			kill()
		}()
		return b.connect(broken, stdin, stdout, stderr)
	}
	record, err := f.Run(t.Context(), Header{Stage: "stage"}, []byte("sleep 1; exit 9"))
	if err != nil || record.Code != 9 {
		t.Errorf("got %+v, %v", record, err)
	}
	_ = init.Process.Signal(syscall.SIGTERM)
	if err := init.Wait(); err != nil {
		t.Error(err)
	}
}

// An abandoned pod ends with everything in it, also a stage that runs.
func TestProcess1EndsAnAbandonedStage(t *testing.T) {
	b, init := enter(t, "--role", "build", "--idle", "1s")
	c := b.open()
	c.start(Header{Stage: "stage"}, "trap '' TERM; sleep 300")
	c.event()
	c.kill()
	var exit *exec.ExitError
	if err := init.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	if held, err := isLocked(b.layout().stage("stage").supervised(), syscall.LOCK_SH); err != nil || held {
		t.Errorf("the stage lives on: %v", err)
	}
}
