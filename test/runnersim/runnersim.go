// Package runnersim is a small GitLab runner for tests. It polls a GitLab
// instance over the real protocol and drives a custom executor as gitlab-runner
// 19.3 does: the same calls in the same order, the same environment, scripts,
// signals, retries and exit-code rules, the same lines in the job log. Every
// rule names where gitlab-runner has it.
//
// # Components
//
//   - [Sim] polls and gives each job to a job, which runs its stages through an
//     attempt, the custom executor.
//   - Package spec is the job payload, package shell writes stage scripts,
//     package trace masks and sends the log.
//   - [Real] drives a gitlab-runner binary with the same [Config]; [Open]
//     chooses.
//
// # What differs from gitlab-runner
//
//   - Log lines have no timestamps (FF_TIMESTAMPS is off, as in the
//     configuration that Real writes), there is no limit to a log's size, and
//     bytes that aren't UTF-8 stay as they are.
//   - Feature flags are passed on and change nothing. There is no distributed
//     cache, no TLS client certificate, no secrets: keyword and no run: keyword.
//   - When a runner is told to stop, whatever runs after ShutdownTimeout is
//     killed; gitlab-runner ends and leaves it behind.
package runnersim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"podlane/test/runnersim/trace"
)

// systemID stands for the machine in the job log and in job requests.
const systemID = "s_runnersim"

// Open returns a runner that drives binary, or the simulator if binary is empty.
func Open(binary string, cfg Config) (Runner, error) {
	if binary != "" {
		return NewReal(binary, cfg)
	}
	return New(cfg)
}

// Sim is the simulator.
type Sim struct {
	cfg    Config
	client *client
	log    runnerLog

	mu    sync.Mutex
	slots map[slot]bool
}

// slot is a number that is taken while a job runs, within a project or, if
// project is 0, within the runner.
type slot struct {
	project int64
	number  int
}

var (
	_ Runner = (*Sim)(nil)
	_ Runner = (*Real)(nil)
)

// New makes a simulator. It reports everything that is wrong with cfg.
func New(cfg Config) (*Sim, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("runner configuration: %w", err)
	}
	return &Sim{
		cfg: cfg,
		client: &client{
			http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()},
			url:  cfg.URL, token: cfg.Token, systemID: systemID, shell: cfg.Shell,
		},
		log:   newRunnerLog(cfg.Log),
		slots: map[slot]bool{},
	}, nil
}

// Run polls for jobs until ctx ends. Then, as on SIGTERM, running jobs are
// interrupted and cleaned up, within ShutdownTimeout.
func (s *Sim) Run(ctx context.Context) error {
	hard, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer s.client.http.CloseIdleConnections()
	var running sync.WaitGroup
	free := make(chan struct{}, s.cfg.Concurrent)

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case free <- struct{}{}:
		}
		received, err := s.client.requestJob(ctx)
		if received == nil {
			<-free
			if err != nil && ctx.Err() == nil {
				s.log.Warn("Checking for jobs... failed", "error", err)
			}
			pause(ctx, s.cfg.CheckInterval)
			continue
		}
		at := time.Now()
		running.Go(func() {
			defer func() { <-free }()
			s.runJob(ctx, hard, received, at)
		})
	}
	timer := time.AfterFunc(s.cfg.ShutdownTimeout, giveUp)
	defer timer.Stop()
	running.Wait()
	return nil
}

// runJob takes one job from its reception to its last state.
func (s *Sim) runJob(interrupt, hard context.Context, received *received, at time.Time) {
	if s.cfg.Hooks.JobReceived != nil {
		s.cfg.Hooks.JobReceived(received.ID)
	}
	result := Result{ID: received.ID, Received: at}
	j, release, err := s.newJob(hard, received)
	if err != nil {
		s.log.Error("Failed to start a job", "job", received.ID, "error", err)
		result.Err = err
	} else {
		defer release()
		result = j.finish(j.execute(interrupt))
		result.Received = at
	}
	result.Finished = time.Now()
	if s.cfg.Hooks.JobFinished != nil {
		s.cfg.Hooks.JobFinished(result)
	}
}

func (s *Sim) newJob(hard context.Context, received *received) (*job, func(), error) {
	j := &job{
		cfg: s.cfg, payload: &received.Job, correlationID: received.correlationID,
		runnerLog: runnerLog{s.log.With("job", received.ID)}, hard: hard,
	}
	var freeSlot, freeProjectSlot func()
	j.slot, freeSlot = s.takeSlot(0)
	j.projectSlot, freeProjectSlot = s.takeSlot(received.JobInfo.ProjectID)
	release := func() { freeSlot(); freeProjectSlot() }

	server := &jobServer{
		client: s.client, id: received.ID, jobToken: received.Token,
		debugTrace: j.settings().DebugTrace,
	}
	t, err := trace.Start(hard, server, trace.Options{
		Dir:         s.cfg.TempDir,
		Interval:    s.cfg.UpdateInterval,
		Touch:       s.cfg.UpdateInterval,
		FlushAtOnce: s.cfg.FlushAtOnce,
	})
	if err != nil {
		release()
		return nil, nil, err
	}
	j.trace = t
	j.log = &jobLog{
		out: t, phrases: j.variables().Masked(), prefixes: received.Features.TokenMaskPrefixes,
		sections: received.Features.TraceSections,
	}
	return j, release, nil
}

// takeSlot returns the lowest free number of a project, or of the runner.
func (s *Sim) takeSlot(project int64) (int, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := slot{project: project}
	for s.slots[k] {
		k.number++
	}
	s.slots[k] = true
	return k.number, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.slots, k)
	}
}

// finish writes the job's last line and reports its state (gitlab-runner
// common/build.go, setTraceStatus).
func (j *job) finish(err error) Result {
	result := Result{ID: j.payload.ID, State: "success", Err: err}
	if err == nil {
		j.log.info("Job succeeded")
	} else {
		result.State = "failed"
		reason := systemFailure
		var build *buildError
		if errors.As(err, &build) {
			reason, result.ExitCode = build.reason, build.exitCode
		}
		result.FailureReason = reported(reason, j.payload.Features.FailureReasons)
		if reason == systemFailure {
			j.log.error("Job failed (system failure):", err)
		} else {
			j.log.error("Job failed:", err)
		}
	}
	state := trace.State{State: result.State, FailureReason: result.FailureReason, ExitCode: result.ExitCode}
	if err := j.trace.Finish(j.hard, state); err != nil {
		j.runnerLog.Error("Job trace termination failed", "error", err)
	}
	return result
}
