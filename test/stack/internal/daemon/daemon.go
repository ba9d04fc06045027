package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Daemon is a program that keeps running after we have ended.
type Daemon struct {
	Name string
	// Path and Args are the program and its arguments. Env is its whole
	// environment.
	Path string
	Args []string
	Env  []string
	// Files are what the daemon reads when it starts: when the content of one
	// changes, the daemon as it runs is out of date.
	Files []string
	// PidFile and LogFile are ours to write.
	PidFile string
	LogFile string
}

// Pid returns the running daemon's process id, and 0 if it doesn't run.
func (d Daemon) Pid() int {
	r, ok, err := readRecord(d.PidFile)
	if err != nil || !ok || !r.id.alive() {
		return 0
	}
	return r.id.pid
}

// Current reports whether the daemon runs, with the program, arguments and
// files that it would be started with now.
func (d Daemon) Current() (bool, error) {
	r, ok, err := readRecord(d.PidFile)
	if err != nil || !ok || !r.id.alive() {
		return false, err
	}
	want, err := d.fingerprint()
	return r.fingerprint == want, err
}

// Start starts the daemon in a session of its own and writes its pid file. It
// doesn't wait until the daemon works. The log of the run before is kept
// beside the new one as <log>.old.
func (d Daemon) Start() error {
	if err := d.start(); err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}
	return nil
}

func (d Daemon) start() error {
	fingerprint, err := d.fingerprint()
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(d.PidFile), filepath.Dir(d.LogFile)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Rename(d.LogFile, d.LogFile+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(d.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.Path, d.Args...) //nolint:noctx // a daemon outlives its starter
	cmd.Env = d.Env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	id, ok := identify(cmd.Process.Pid)
	if !ok {
		// It ended at once. An identity that nothing has keeps the record
		// readable and says "not running".
		id = identity{pid: cmd.Process.Pid, boot: "ended"}
	}
	if err := (record{id: id, fingerprint: fingerprint}).write(d.PidFile); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return cmd.Process.Release()
}

// Stop asks the daemon to end, waits up to grace, then kills it. One that
// doesn't run is fine.
func (d Daemon) Stop(ctx context.Context, grace time.Duration) error {
	if err := stopRecorded(ctx, d.PidFile, grace); err != nil {
		return fmt.Errorf("stop %s: %w", d.Name, err)
	}
	return nil
}

func stopRecorded(ctx context.Context, pidFile string, grace time.Duration) error {
	r, ok, err := readRecord(pidFile)
	if err != nil {
		return err
	}
	if ok {
		if err := r.id.end(ctx, grace); err != nil {
			return err
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// killLimit is how long a killed process may take to vanish: one that writes
// out its memory or sits in a slow system call takes a while.
const killLimit = 10 * time.Second

func (id identity) end(ctx context.Context, grace time.Duration) error {
	if grace > 0 && id.alive() {
		if err := syscall.Kill(id.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		if id.gone(ctx, grace) {
			return nil
		}
	}
	if !id.alive() {
		return nil
	}
	if err := syscall.Kill(id.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if !id.gone(ctx, killLimit) {
		return fmt.Errorf("process %d is still there %s after it was killed", id.pid, killLimit)
	}
	return nil
}

// gone waits for a process that isn't our child, so there is nothing but
// looking again and again.
func (id identity) gone(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for id.alive() {
		select {
		case <-ctx.Done():
			return !id.alive()
		case <-tick.C:
		}
	}
	return true
}

// fingerprint changes when the daemon's arguments, environment or files do. A
// program that is built again in the same place has to be among the files.
func (d Daemon) fingerprint() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", d.Path, d.Args, d.Env)
	for _, name := range d.Files {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %d\n%s", name, len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
