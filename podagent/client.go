package podagent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Session runs `podlane-helper run` once: it connects the three streams and
// returns when they have ended. Its error says how the streams ended, not how
// the stage did.
type Session func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error

// Follower runs a stage in a pod and follows it through any number of
// sessions. Only the host side uses it.
type Follower struct {
	// Connect opens a session.
	Connect Session
	// Lost is asked after a session broke: a non-nil error says why it is of
	// no use to connect again. It may be nil.
	Lost func(ctx context.Context) error
	// Output gets the stage's output, each byte once. An error of it ends the
	// wait: nobody is there to read any more.
	Output io.Writer
	// Notify gets a line for people when something is worth saying.
	Notify func(format string, args ...any)
	// Budget is how long to go on connecting without getting an event.
	Budget time.Duration
}

// ErrCancelled is returned by Run if its context ended and the stage was
// brought to an end because of that.
var ErrCancelled = errors.New("cancelled")

// StageError is a failure of the stage that is not the script's own.
type StageError struct {
	Code   ErrorCode
	Reason string
}

// Error is the reason that the pod gave.
func (e *StageError) Error() string { return e.Reason }

// cancelMargin is added to the grace period when a stage is cancelled: the
// time for SIGKILL to take effect and for the record to reach us.
const cancelMargin = 15 * time.Second

// Run starts a stage, or attaches to it if it has been started, and returns
// its exit record once all of its output has been written. A record is the
// only proof of an end: everything else is an error.
//
// When ctx ends, the stage is cancelled: SIGTERM, the header's grace period,
// SIGKILL. Run then returns ErrCancelled, with the record if there is one.
func (f *Follower) Run(ctx context.Context, header Header, script []byte) (*ExitRecord, error) {
	header.ScriptBytes = int64(len(script))
	run := &following{Follower: f, header: header, script: script, lastEvent: time.Now()}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	// What remains after a cancellation has its own deadline.
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(time.Duration(header.GraceSeconds)*time.Second+cancelMargin, stop)
	})()

	pause := newPause()
	for {
		run.session(ctx, work)
		record, err := run.result()
		switch {
		case ctx.Err() != nil && (record != nil || err != nil || work.Err() != nil):
			return record, ErrCancelled
		case record != nil || err != nil:
			return record, err
		}
		if run.progress() {
			pause.Reset()
		}
		if err := run.mayRetry(work); err != nil {
			if ctx.Err() != nil {
				return nil, ErrCancelled
			}
			return nil, err
		}
		wait(work, pause.NextBackOff())
	}
}

func newPause() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 50 * time.Millisecond
	b.MaxInterval = 5 * time.Second
	return b
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// following is the state of one Run over its sessions.
type following struct {
	*Follower
	header Header
	script []byte

	mu        sync.Mutex
	received  int64 // bytes written to Output
	seen      int64 // received at the last call of progress
	lastEvent time.Time
	record    *ExitRecord
	failed    error
	sinkErr   error
	broken    error  // how the last session ended
	complete  func() // ends the session: everything has come
	notified  bool
}

// result tells how the stage ended, if we know.
func (r *following) result() (*ExitRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.sinkErr != nil:
		return nil, fmt.Errorf("write the job's output: %w", r.sinkErr)
	case r.failed != nil:
		return nil, r.failed
	case r.record != nil && r.received == r.record.OutputBytes:
		return r.record, nil
	case r.record != nil && r.received > r.record.OutputBytes:
		return nil, &StageError{Code: CodeProtocol, Reason: fmt.Sprintf("got %d bytes of output of a stage that wrote %d", r.received, r.record.OutputBytes)}
	}
	return nil, nil
}

// progress tells whether anything has come since the last call.
func (r *following) progress() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	moved := r.received > r.seen
	r.seen = r.received
	return moved
}

// mayRetry says why a broken stream can't be connected again, or nil.
func (r *following) mayRetry(ctx context.Context) error {
	if r.Lost != nil {
		if err := r.Lost(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	silent := time.Since(r.lastEvent)
	if silent > r.Budget {
		return fmt.Errorf("no connection to the pod for %s: %w", silent.Round(time.Second), r.broken)
	}
	if !r.notified && silent > SilenceLimit {
		r.notified = true
		r.Notify("lost the connection to the pod, trying again for up to %s; the script goes on: %v", r.Budget, r.broken)
	}
	return nil
}

// session opens one stream and follows it to its end. ctx is the caller's: its
// end becomes a cancel line. work bounds the session itself.
func (r *following) session(ctx, work context.Context) {
	work, hangUp := context.WithCancel(work)
	defer hangUp()
	stdin, control := io.Pipe()
	alive := newWatchdog(SilenceLimit, hangUp)
	defer alive.stop()
	// Once the record and all of the output are here, the rest of the exec, a
	// matter of 10 to 20 ms, is not worth waiting for.
	r.mu.Lock()
	r.complete = hangUp
	r.mu.Unlock()

	var writer sync.WaitGroup
	writer.Go(func() { r.send(ctx, work, control) })

	// A pipe for stderr, so that a line may come in pieces.
	events, eventsIn := io.Pipe()
	var reader sync.WaitGroup
	reader.Go(func() { r.readEvents(events, alive) })
	err := r.Connect(work, stdin, &output{r: r, alive: alive}, eventsIn)
	eventsIn.Close()
	reader.Wait()
	hangUp()
	stdin.Close()
	writer.Wait()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = errors.New("the stream ended")
	if err != nil {
		r.broken = err
	}
}

// endIfComplete hangs up when there is nothing to wait for. r.mu is held.
func (r *following) endIfComplete() {
	if r.record != nil && r.received == r.record.OutputBytes {
		r.complete()
	}
}

// send writes header, script and control lines until the session ends.
func (r *following) send(ctx, work context.Context, w *io.PipeWriter) {
	defer w.Close()
	header := r.header
	r.mu.Lock()
	header.Offset = r.received
	r.mu.Unlock()
	line, err := EncodeHeader(header)
	if err != nil {
		r.fail(&StageError{Code: CodeProtocol, Reason: err.Error()})
		return
	}
	if _, err := w.Write(append(line, r.script...)); err != nil {
		return
	}
	ping := time.NewTicker(AliveInterval)
	defer ping.Stop()
	cancelled := ctx.Done()
	for {
		var control string
		select {
		case <-work.Done():
			return
		case <-cancelled:
			control, cancelled = ControlCancel, nil
		case <-ping.C:
			control = ControlPing
		}
		if _, err := io.WriteString(w, control+"\n"); err != nil {
			return
		}
	}
}

func (r *following) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// readEvents handles the lines of stderr. A line that is no event comes from
// the container runtime and is left to the session's error.
func (r *following) readEvents(events io.Reader, alive *watchdog) {
	scanner := bufio.NewScanner(events)
	scanner.Buffer(nil, MaxHeaderBytes)
	for scanner.Scan() {
		var e Event
		if json.Unmarshal(scanner.Bytes(), &e) != nil || e.Event == "" {
			continue
		}
		alive.reset()
		r.mu.Lock()
		r.lastEvent = time.Now()
		switch e.Event {
		case EventExit:
			r.record = e.Exit
		case EventError:
			if r.failed == nil {
				r.failed = &StageError{Code: e.Code, Reason: e.Reason}
			}
		}
		r.endIfComplete()
		r.mu.Unlock()
	}
	// Whatever else comes must not block the stream.
	_, _ = io.Copy(io.Discard, events)
}

// output counts what has been written safely, so that a reconnect asks for
// the rest and for nothing else.
type output struct {
	r     *following
	alive *watchdog
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.alive.reset()
	n, err := o.r.Output.Write(p)
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	o.r.received += int64(n)
	if err != nil && o.r.sinkErr == nil {
		o.r.sinkErr = err
	}
	o.r.endIfComplete()
	return n, err
}

// watchdog calls bite when nobody has reset it for a while.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
}

func newWatchdog(limit time.Duration, bite func()) *watchdog {
	return &watchdog{timer: time.AfterFunc(limit, bite), limit: limit}
}

func (w *watchdog) reset() { w.timer.Reset(w.limit) }
func (w *watchdog) stop()  { w.timer.Stop() }
