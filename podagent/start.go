package podagent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit bounds the start of the supervisor, a matter of milliseconds.
const startLimit = time.Minute

// start spools the script and starts the supervisor, unless an earlier session
// has. attached tells which. The script is consumed in either case.
func (s *Server) start(dir stageDir, h Header, in io.Reader) (attached bool, err error) {
	if err := os.MkdirAll(string(dir), 0o711); err != nil {
		return false, fmt.Errorf("make a folder for the stage: %w", err)
	}
	if dir.begun() {
		_, err := io.CopyN(io.Discard, in, h.ScriptBytes)
		return true, err
	}
	// The whole script is here before anything is locked: a session whose
	// client has stalled halfway holds up nobody.
	script, err := spool(dir, in, h.ScriptBytes)
	if err != nil {
		return false, fmt.Errorf("write the script to disk: %w", err)
	}
	defer os.Remove(script)

	// Held by this session and then by the supervisor, until the stage has
	// begun or whoever was starting it has died. Of two sessions the second
	// waits here.
	starting, err := lock(dir.starting(), unix.LOCK_EX)
	if err != nil {
		return false, err
	}
	defer starting.Close()
	if dir.begun() {
		return true, nil
	}
	if _, err := os.Stat(s.Layout.terminating()); err == nil {
		return false, errors.New("the pod is being terminated: nothing new is started in it")
	}
	if err := os.Rename(script, dir.script()); err != nil {
		return false, err
	}
	if h.Cache != "" {
		_ = os.WriteFile(dir.cache(), []byte(h.Cache), 0o600)
	}
	return false, s.supervise(dir, h, starting)
}

// begun tells whether the stage has been started: never again, then.
func (d stageDir) begun() bool {
	_, err := os.Stat(d.supervised())
	return err == nil
}

// spool writes a script to a file of this session's own.
func spool(dir stageDir, script io.Reader, size int64) (path string, err error) {
	f, err := os.CreateTemp(string(dir), scriptName+"-*")
	if err != nil {
		return "", err
	}
	n, err := io.Copy(f, io.LimitReader(script, size))
	if err == nil && n != size {
		err = fmt.Errorf("got %d of %d bytes: the connection broke", n, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// supervise starts the supervisor detached from this session and waits until
// the stage has begun.
func (s *Server) supervise(dir stageDir, h Header, starting *os.File) error {
	ready, readyIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := []string{"supervise", "--grace", strconv.Itoa(h.GraceSeconds), "--as-build-user=" + strconv.FormatBool(h.AsBuildUser), string(dir)}
	cmd := exec.Command(s.Program, args...) //nolint:noctx // it outlives the session
	cmd.ExtraFiles = []*os.File{readyIn, starting}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	readyIn.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	_ = ready.SetReadDeadline(time.Now().Add(startLimit))
	said, err := io.ReadAll(io.LimitReader(ready, 1024))
	switch {
	case err != nil:
		return fmt.Errorf("wait for the supervisor to start: %w", err)
	case string(said) != superviseReady:
		return fmt.Errorf("the supervisor ended before it began: %s", cmp.Or(string(said), "the container has no room for its processes, perhaps"))
	}
	return nil
}
