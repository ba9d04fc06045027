package podagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server is podlane-helper's end of stage sessions. Only the helper uses it.
type Server struct {
	Layout Layout
	// Program is podlane-helper itself: the supervisor is a process of its own.
	Program string
}

// Serve runs one session: it reads header, script and control lines, starts
// the stage unless that has been done, writes output from the header's offset
// to stdout and events to stderr, and returns when the stage has ended or the
// client has gone. The stage goes on without a client.
func (s *Server) Serve(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := &eventWriter{w: stderr}
	in := bufio.NewReaderSize(stdin, 64<<10)
	header, err := readHeader(in)
	if err != nil {
		events.fail(CodeProtocol, err)
		return
	}
	s.touchAlive()
	dir := s.Layout.stage(header.Stage)
	attached, err := s.start(dir, header, in)
	if err != nil {
		events.fail(CodeInternal, err)
		return
	}
	events.send(Event{Event: EventStarted, Attached: attached})

	silence := newWatchdog(SilenceLimit, cancel)
	defer silence.stop()
	// These two end with the process: one may be blocked in a read, the other
	// in a write.
	go func() {
		defer cancel()
		s.obey(in, dir, silence)
	}()
	go events.keepAlive(ctx)

	record, failed, err := follow(ctx, dir, header.Offset, stdout)
	s.touchAlive()
	switch {
	case record != nil:
		events.send(Event{Event: EventExit, Exit: record})
	case failed != nil:
		events.send(Event{Event: EventError, Code: failed.Code, Reason: failed.Reason})
	case err != nil && ctx.Err() == nil:
		events.fail(CodeInternal, err)
	}
}

// readHeader reads the first line, of which the client decides the length.
func readHeader(in *bufio.Reader) (Header, error) {
	var line strings.Builder
	for {
		part, err := in.ReadSlice('\n')
		line.Write(part)
		switch {
		case err == nil:
			return DecodeHeader(line.String())
		case !errors.Is(err, bufio.ErrBufferFull):
			return Header{}, fmt.Errorf("read stage header: %w", err)
		case line.Len() > MaxHeaderBytes:
			return Header{}, fmt.Errorf("stage header is longer than %d bytes", MaxHeaderBytes)
		}
	}
}

// start spools the script and starts the supervisor, unless an earlier session
// has. attached tells which. The script is consumed in either case.
func (s *Server) start(dir stageDir, h Header, in io.Reader) (attached bool, err error) {
	script := io.LimitReader(in, h.ScriptBytes)
	if err := os.MkdirAll(string(dir), 0o711); err != nil {
		return false, fmt.Errorf("make a folder for the stage: %w", err)
	}
	// Of two sessions for one stage the second waits here until the first has
	// started it, or has died without having done so.
	starting, _, err := lock(dir.starting(), true)
	if err != nil {
		return false, err
	}
	defer starting.Close()
	if _, err := os.Stat(dir.supervised()); err == nil {
		_, err := io.Copy(io.Discard, script)
		return true, err
	}
	if err := spool(dir.script(), script, h.ScriptBytes); err != nil {
		return false, fmt.Errorf("write the script to disk: %w", err)
	}
	return false, s.supervise(dir, h)
}

func spool(path string, script io.Reader, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, script)
	if err == nil && n != size {
		err = fmt.Errorf("got %d of %d bytes: the connection broke", n, size)
	}
	return errors.Join(err, f.Close())
}

// supervise starts the supervisor detached from this session and waits until
// it has its lock.
func (s *Server) supervise(dir stageDir, h Header) error {
	ready, readyIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(s.Program, "supervise", "--grace", strconv.Itoa(h.GraceSeconds), "--as-build-user="+strconv.FormatBool(h.AsBuildUser), string(dir))
	cmd.ExtraFiles = []*os.File{readyIn}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	readyIn.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(ready, 1024))
	if err != nil || len(said) == 0 {
		return errors.New("the supervisor ended before it began")
	}
	return nil
}

// obey reads control lines until the client has gone.
func (s *Server) obey(in io.Reader, dir stageDir, silence *watchdog) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		silence.reset()
		s.touchAlive()
		if lines.Text() == ControlCancel {
			cancelStage(dir)
		}
	}
}

// cancelStage sends SIGTERM to a stage's supervisor if it lives.
func cancelStage(dir stageDir) {
	f, dead, err := lock(dir.supervised(), false)
	if err != nil {
		return
	}
	if dead {
		f.Close()
		return
	}
	text, err := os.ReadFile(dir.supervised())
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
}

// touchAlive tells process 1 of both containers that somebody cares.
func (s *Server) touchAlive() { touch(s.Layout.alive()) }

// touch gives a file the present time. It writes to it: setting times would
// need to own it, and the containers may have different users.
func touch(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err == nil {
			_ = f.Chmod(0o666)
		}
	}
	if err != nil {
		return
	}
	_, _ = f.WriteString(".")
	f.Close()
}

// eventWriter writes events, one at a time.
type eventWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (e *eventWriter) send(event Event) {
	line, err := json.Marshal(event)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = e.w.Write(append(line, '\n'))
}

func (e *eventWriter) fail(code ErrorCode, err error) {
	e.send(Event{Event: EventError, Code: code, Reason: err.Error()})
}

func (e *eventWriter) keepAlive(ctx context.Context) {
	tick := time.NewTicker(AliveInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.send(Event{Event: EventAlive})
		}
	}
}
