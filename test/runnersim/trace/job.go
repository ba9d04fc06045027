package trace

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Times and sizes are gitlab-runner's (common/consts.go).
const (
	defaultInterval = 3 * time.Second
	maxInterval     = 15 * time.Minute
	defaultTouch    = 30 * time.Second
	patchSize       = 1 << 20
	finalTries      = 10
)

// State is what the job is reported as.
type State struct {
	State         string // running, success or failed
	FailureReason string
	ExitCode      int
	Checksum      string
	Size          int64
}

// Reply is GitLab's answer to a piece of the log or to a state.
type Reply struct {
	// Code is the HTTP status.
	Code int
	// JobStatus is the Job-Status header: canceling, canceled, failed...
	JobStatus string
	// Interval is X-GitLab-Trace-Update-Interval, or 0.
	Interval time.Duration
	// Offset is where GitLab's copy of the log ends, on a 416.
	Offset int64
}

// gone tells that the job isn't ours any more
// (gitlab-runner network/remote_job_state_response.go).
func (r Reply) gone() bool {
	return r.JobStatus == "canceled" || r.JobStatus == "failed" || r.Code == http.StatusForbidden
}

// Server takes one job's log and state.
type Server interface {
	// Patch appends content at offset.
	Patch(ctx context.Context, content []byte, offset int64) (Reply, error)
	// Update reports the job's state.
	Update(ctx context.Context, state State) (Reply, error)
}

// Options of a job's trace.
type Options struct {
	// Dir holds the buffer.
	Dir string
	// Interval between two looks at GitLab. 0: 3 s, then what GitLab asks for.
	Interval time.Duration
	// Touch is how long nothing need be sent before the state is reported just
	// to learn whether the job was cancelled. 0: 30 s.
	Touch time.Duration
	// FlushAtOnce sends every piece of output as soon as it is there.
	FlushAtOnce bool
}

// Job sends one job's log. It is a writer for output that is masked already.
type Job struct {
	server Server
	opts   Options
	buffer *Buffer
	wake   chan struct{}
	stop   chan struct{}
	done   chan struct{}

	mu       sync.Mutex
	sent     int64
	sentAt   time.Time
	interval time.Duration
	cancel   func()
	abort    func()
}

// Start begins to send. ctx bounds every request; Finish ends it.
func Start(ctx context.Context, server Server, opts Options) (*Job, error) {
	buffer, err := NewBuffer(opts.Dir)
	if err != nil {
		return nil, err
	}
	if opts.Touch == 0 {
		opts.Touch = defaultTouch
	}
	j := &Job{
		server: server, opts: opts, buffer: buffer, interval: defaultInterval,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if opts.Interval > 0 {
		j.interval = opts.Interval
	}
	go j.watch(ctx)
	return j, nil
}

// Write appends to the log.
func (j *Job) Write(p []byte) (int, error) {
	n, err := j.buffer.Write(p)
	if j.opts.FlushAtOnce {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	return n, err
}

// OnCancel sets what a graceful cancel calls, once.
func (j *Job) OnCancel(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cancel = f
}

// OnAbort sets what is called, once, when the job isn't ours any more.
func (j *Job) OnAbort(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.abort = f
}

func (j *Job) callCancel() {
	j.mu.Lock()
	f := j.cancel
	j.cancel = nil
	j.mu.Unlock()
	if f != nil {
		f()
	}
}

func (j *Job) callAbort() {
	j.mu.Lock()
	f := j.abort
	j.cancel, j.abort = nil, nil
	j.mu.Unlock()
	if f != nil {
		f()
	}
}

func (j *Job) currentInterval() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.interval
}

func (j *Job) setInterval(d time.Duration) {
	if d <= 0 || j.opts.Interval > 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.interval = min(d, maxInterval)
}

// watch sends what is new and looks after the job's fate until stopped.
func (j *Job) watch(ctx context.Context) {
	defer close(j.done)
	for {
		select {
		case <-j.stop:
			return
		case <-time.After(j.currentInterval()):
		case <-j.wake:
		}
		if !j.incremental(ctx) {
			<-j.stop
			return
		}
	}
}

// incremental tells whether the job is still ours.
func (j *Job) incremental(ctx context.Context) bool {
	for {
		reply, err := j.patch(ctx)
		if reply.JobStatus == "canceling" {
			j.callCancel()
		}
		switch {
		case err != nil:
			return true
		case reply.gone():
			j.callAbort()
			return false
		case reply.Code != http.StatusAccepted:
			return true
		case !j.opts.FlushAtOnce || j.allSent():
			return j.touch(ctx)
		}
	}
}

// touch reports that the job runs, if nothing was sent for long.
func (j *Job) touch(ctx context.Context) bool {
	j.mu.Lock()
	due := time.Since(j.sentAt) > j.opts.Touch
	j.mu.Unlock()
	if !due {
		return true
	}
	reply, err := j.update(ctx, State{State: "running"})
	if err != nil {
		return true
	}
	if reply.JobStatus == "canceling" {
		j.callCancel()
	}
	if reply.gone() || reply.Code == http.StatusNotFound {
		j.callAbort()
		return false
	}
	return true
}

// patch sends the next piece of the log, if there is one.
func (j *Job) patch(ctx context.Context) (Reply, error) {
	j.mu.Lock()
	offset := j.sent
	j.mu.Unlock()
	content, err := j.buffer.Read(offset, patchSize)
	if err != nil {
		return Reply{}, err
	}
	if len(content) == 0 {
		return Reply{Code: http.StatusAccepted}, nil
	}
	reply, err := j.server.Patch(ctx, content, offset)
	if err != nil {
		return Reply{}, err
	}
	j.setInterval(reply.Interval)
	switch {
	case reply.gone():
	case reply.Code == http.StatusAccepted:
		j.setSent(offset + int64(len(content)))
	case reply.Code == http.StatusRequestedRangeNotSatisfiable:
		j.setSent(reply.Offset)
	}
	return reply, nil
}

func (j *Job) update(ctx context.Context, s State) (Reply, error) {
	s.Checksum, s.Size = j.buffer.Checksum(), j.buffer.Size()
	reply, err := j.server.Update(ctx, s)
	if err != nil {
		return Reply{}, err
	}
	j.setInterval(reply.Interval)
	if reply.Code == http.StatusOK {
		j.mu.Lock()
		j.sentAt = time.Now()
		j.mu.Unlock()
	}
	return reply, nil
}

func (j *Job) setSent(offset int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sent, j.sentAt = offset, time.Now()
}

func (j *Job) allSent() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sent == j.buffer.Size()
}

// Finish sends the rest of the log and the job's last state. Call it once, when
// nobody writes any more. It tries again for as long as the runner would, or
// until ctx ends.
func (j *Job) Finish(ctx context.Context, s State) error {
	close(j.stop)
	<-j.done
	defer j.buffer.Close()
	j.setInterval(defaultInterval)

	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.Multiplier, wait.RandomizationFactor = time.Second, 2, 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		return struct{}{}, j.finalUpdate(ctx, s)
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(finalTries), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return fmt.Errorf("send the job's last state: %w", err)
	}
	return nil
}

// finalUpdate follows gitlab-runner network/trace.go, finalUpdate: 202 asks to
// come again, 412 to send the whole log again.
func (j *Job) finalUpdate(ctx context.Context, s State) error {
	for {
		if err := j.sendRest(ctx); err != nil {
			return err
		}
		reply, err := j.update(ctx, s)
		if err != nil {
			return err
		}
		switch {
		case reply.gone(), reply.Code == http.StatusOK, reply.Code == http.StatusNotFound:
			return nil
		case reply.Code == http.StatusPreconditionFailed:
			j.setSent(0)
		case reply.Code == http.StatusAccepted:
		default:
			return fmt.Errorf("job update: HTTP status %d", reply.Code)
		}
		if err := sleep(ctx, j.currentInterval()); err != nil {
			return err
		}
	}
}

func (j *Job) sendRest(ctx context.Context) error {
	for !j.allSent() {
		reply, err := j.patch(ctx)
		switch {
		case err != nil:
			return err
		case reply.gone(), reply.Code == http.StatusNotFound:
			return nil
		case reply.Code == http.StatusAccepted:
		case reply.Code == http.StatusRequestedRangeNotSatisfiable:
			if err := sleep(ctx, j.currentInterval()); err != nil {
				return err
			}
		default:
			return fmt.Errorf("job trace: HTTP status %d", reply.Code)
		}
	}
	return nil
}

var errStopped = errors.New("stopped waiting")

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errStopped, ctx.Err())
	}
}
