package podagent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor runs one script and leaves an exit record. It is a process of its
// own, detached from the session that started it.
type Supervisor struct {
	Layout Layout
	// Dir is the stage's folder, with the script in it.
	Dir string
	// Grace lies between SIGTERM and SIGKILL after a cancellation.
	Grace time.Duration
	// AsBuildUser runs the script with the build container's user if we are
	// root.
	AsBuildUser bool
	// Environ is what the script gets.
	Environ []string
	// Ready is told once the lock is held: the session waits for it.
	Ready io.WriteCloser
	// Starting is the lock of the stage's start, closed when it has begun.
	Starting io.Closer
}

// superviseReady is what a session reads when its supervisor has begun;
// anything else is the reason why not.
const superviseReady = "ready"

// Run is the whole life of a supervisor. Its error is for nobody once it has
// begun: sessions read the record or the failure file.
func (s *Supervisor) Run() error {
	dir := stageDir(s.Dir)
	// Before anybody can know us by our lock.
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	held, log, err := s.begin(dir)
	if err != nil {
		_, _ = io.WriteString(s.Ready, err.Error())
		return err
	}
	defer held.Close()
	defer log.Close()
	_, _ = io.WriteString(s.Ready, superviseReady)
	s.Ready.Close()
	s.Starting.Close()

	record, rest, err := s.script(dir, log, terminate)
	removeScripts(dir)
	os.Remove(dir.reserve())
	if err != nil {
		return errors.Join(err, s.leave(dir.failed(), asFailure(err)))
	}
	if err := s.leave(dir.exit(), record); err != nil {
		return errors.Join(err, s.leave(dir.failed(), failure{Code: CodeInternal, Reason: "write the exit record: " + err.Error()}))
	}
	// A daemon that the script has left behind must not die of a closed pipe.
	held.Close()
	log.Close()
	_, err = io.Copy(io.Discard, rest)
	return err
}

// begin makes the stage a started one. The locked file comes last: whoever sees
// it finds the rest.
func (s *Supervisor) begin(dir stageDir) (held, log *os.File, err error) {
	// Room for the record on a disk that the job fills.
	if err := os.WriteFile(dir.reserve(), make([]byte, 4096), 0o600); err != nil {
		return nil, nil, err
	}
	log, err = os.OpenFile(dir.log(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	held, err = lockBeforeSeen(dir.supervised(), fmt.Sprintln(os.Getpid()))
	if err != nil {
		log.Close()
		return nil, nil, err
	}
	return held, log, nil
}

// removeScripts removes the script and those of sessions that came second and
// were killed.
func removeScripts(dir stageDir) {
	scripts, err := filepath.Glob(dir.script() + "*")
	if err != nil {
		return
	}
	for _, file := range scripts {
		os.Remove(file)
	}
}

func (s *Supervisor) leave(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeWhole(path, bytes.NewReader(data), 0o644)
}

func asFailure(err error) failure {
	var stage *StageError
	if errors.As(err, &stage) {
		return failure{Code: stage.Code, Reason: stage.Reason}
	}
	return failure{Code: CodeInternal, Reason: err.Error()}
}

// script runs the script to its end and copies its output to log. rest is the
// pipe on which daemons of the script may still write.
func (s *Supervisor) script(dir stageDir, log *os.File, terminate <-chan os.Signal) (record *ExitRecord, rest *os.File, err error) {
	// A pipe, not the log itself: "echo > /dev/stderr" opens what it finds
	// there anew and would cut a file off.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	record = &ExitRecord{Started: time.Now()}
	killedBefore := killedForMemory()
	cmd, err := s.startShell(dir, in)
	if err != nil {
		return nil, nil, err
	}
	in.Close()

	group := -cmd.Process.Pid
	copied := make(chan error, 1)
	var written int64
	go func() {
		n, err := io.Copy(log, out)
		written = n
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			// Output that can't be kept is output lost: the script must not
			// seem to succeed.
			_ = unix.Kill(group, unix.SIGKILL)
		}
		copied <- err
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the state tells
	}()
	var kill <-chan time.Time
	for done := false; !done; {
		select {
		case <-terminate:
			record.Cancelled = true
			_ = unix.Kill(group, unix.SIGTERM)
			if kill == nil {
				kill = time.After(s.Grace)
			}
		case <-kill:
			_ = unix.Kill(group, unix.SIGKILL)
		case <-ended:
			done = true
		}
	}
	// The node's clock may have been set meanwhile: not by its face.
	record.Ended = record.Started.Add(time.Since(record.Started))
	if record.Cancelled {
		_ = unix.Kill(group, unix.SIGKILL)
	}
	// All that the script has written is in the pipe by now.
	_ = out.SetReadDeadline(time.Unix(1, 0))
	err = <-copied
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil, logError(err)
	}
	_ = out.SetReadDeadline(time.Time{})
	n, err := drainPipe(out, log)
	if err != nil {
		return nil, nil, logError(err)
	}
	record.OutputBytes = written + n
	record.Code, record.Signal = exitOf(cmd.ProcessState)
	record.OutOfProcesses = record.Code != 0 && makeRoom(cmd.Path, group)
	if record.OutOfMemory = max(killedForMemory()-killedBefore, 0); record.OutOfMemory > 0 {
		record.MemoryLimit, record.MemoryPeak = memoryUse(cgroups)
	}
	return record, out, nil
}

const (
	// roomLimit bounds the wait for processes that were killed.
	roomLimit = 2 * time.Second
	// fewProcesses are fewer than a stage needs, and more than become free when
	// a script ends that has used them all up.
	fewProcesses = 8
)

// makeRoom finds out whether no process can be started any more, and ends what
// the script has left running if so: the job's further stages need a few.
func makeRoom(shell string, group int) (full bool) {
	if hasRoom(shell) {
		return false
	}
	_ = unix.Kill(group, unix.SIGKILL)
	for deadline := time.Now().Add(roomLimit); !hasRoom(shell) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// hasRoom starts a few processes. The limit itself is the pod's, and not to be
// seen from here.
func hasRoom(shell string) bool {
	wait, end, err := os.Pipe()
	if err != nil {
		return true
	}
	defer wait.Close()
	var started []*exec.Cmd
	defer func() {
		end.Close()
		for _, cmd := range started {
			_ = cmd.Wait()
		}
	}()
	for range fewProcesses {
		cmd := exec.Command(shell, "-c", "read x") //nolint:noctx // ends with the pipe
		cmd.Stdin = wait
		if err := cmd.Start(); err != nil {
			return !errors.Is(err, unix.EAGAIN)
		}
		started = append(started, cmd)
	}
	return true
}

// startShell starts the script with its output going to out.
func (s *Supervisor) startShell(dir stageDir, out *os.File) (*exec.Cmd, error) {
	shell, err := findShell(lookup(s.Layout.keptEnv(s.Environ), "PATH"), s.Layout.Shells)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(shell, dir.script()) //nolint:noctx // ended by its group's signals, with a grace period
	cmd.Env = s.environ()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.AsBuildUser && os.Geteuid() == 0 {
		if err := s.becomeBuildUser(cmd, dir, out); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", shell, err)
	}
	return cmd, nil
}

func logError(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return &StageError{Code: CodeInternal, Reason: "no space left on the node for the job's output; the script was ended"}
	}
	return fmt.Errorf("keep the script's output: %w", err)
}

// drainPipe copies what is in the pipe at this moment, and no more: a daemon
// may go on writing for ever.
func drainPipe(out, log *os.File) (int64, error) {
	var waiting int
	conn, err := out.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctl := conn.Control(func(fd uintptr) { waiting, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err := errors.Join(ctl, err); err != nil || waiting == 0 {
		return 0, err
	}
	return io.CopyN(log, out, int64(waiting))
}

func exitOf(state *os.ProcessState) (code int, sig string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), unix.SignalName(status.Signal())
	}
	return state.ExitCode(), ""
}

// environ adds what was granted, and the folder that may hold a gitlab-runner
// to the end of PATH.
func (s *Supervisor) environ() []string {
	environ := append(slices.Clip(s.Layout.keptEnv(s.Environ)), s.Layout.grantedEnv()...)
	bin := s.Layout.bin()
	if _, err := os.Stat(bin); err != nil {
		return environ
	}
	path := cmp.Or(lookup(environ, "PATH"), strings.Join(s.Layout.Shells, ":"))
	return append(environ, "PATH="+path+":"+bin)
}

func lookup(environ []string, key string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(environ[i], key+"="); ok {
			return value
		}
	}
	return ""
}
