package podagent

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server is podlane-helper's end of stage sessions. Only the helper uses it.
type Server struct {
	Layout Layout
	// Program is podlane-helper itself: the supervisor is a process of its own.
	Program string

	silence time.Duration // SilenceLimit, but for tests
}

// Serve runs one session: it reads header, script and control lines, starts
// the stage unless that has been done, writes output from the header's offset
// to stdout and events to stderr, and returns when the stage has ended or the
// client has gone. The stage goes on without a client.
//
// A read or a write on which the client blocks cannot be interrupted: it ends
// with the process, which is why Serve does not wait for it.
func (s *Server) Serve(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive := newWatchdog(cmp.Or(s.silence, SilenceLimit), cancel)
	defer alive.stop()
	s.touchAlive()
	defer s.touchAlive()
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.session(ctx, cancel, heard{stdin, alive}, stdout, &eventWriter{w: stderr})
	}()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// heard takes every byte for a sign of life.
type heard struct {
	io.Reader
	alive *watchdog
}

// Read implements io.Reader.
func (h heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.alive.reset()
	}
	return n, err
}

// session calls gone when it notices that the client has left.
func (s *Server) session(ctx context.Context, gone func(), stdin io.Reader, stdout io.Writer, events *eventWriter) {
	in := bufio.NewReaderSize(stdin, 64<<10)
	header, err := readHeader(in)
	if err != nil {
		events.fail(&StageError{Code: CodeProtocol, Reason: err.Error()})
		return
	}
	dir := s.Layout.stage(header.Stage)
	attached, err := s.start(dir, header, in)
	if err != nil {
		events.fail(err)
		return
	}
	// Process 1 ends no container whose last output is still on its way.
	if followed, err := lock(dir.followed(), unix.LOCK_SH); err == nil {
		defer followed.Close()
	}
	events.send(Event{Event: EventStarted, Attached: attached})

	go func() {
		defer gone()
		s.obey(in, dir)
	}()
	go events.keepAlive(ctx)

	record, err := follow(ctx, dir, header.Offset, stdout)
	switch {
	case record != nil:
		events.send(Event{Event: EventExit, Exit: record})
	case err != nil && ctx.Err() == nil:
		events.fail(err)
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

// obey reads control lines until the client has gone.
func (s *Server) obey(in io.Reader, dir stageDir) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		s.touchAlive()
		if lines.Text() == ControlCancel {
			cancelStage(dir)
		}
	}
}

// cancelStage sends SIGTERM to a stage's supervisor if it lives.
func cancelStage(dir stageDir) {
	if held, err := isLocked(dir.supervised(), unix.LOCK_SH); err != nil || !held {
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

func (e *eventWriter) fail(err error) {
	f := asFailure(err)
	e.send(Event{Event: EventError, Code: f.Code, Reason: f.Reason})
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
