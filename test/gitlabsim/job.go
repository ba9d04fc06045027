package gitlabsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// defaultTimeout is a project's job timeout unless somebody changes it.
const defaultTimeout = time.Hour

// defaultDepth is GitLab's ci_default_git_depth.
const defaultDepth = 20

// JobSpec describes a job to be run. Only Project (or Pipeline) is needed.
type JobSpec struct {
	// Pipeline that the job belongs to. Nil: one of its own, for Project and Ref.
	Pipeline *Pipeline
	Project  *Project
	Ref      string

	Name  string // default: job
	Stage string // default: test

	Script      []string
	AfterScript []string
	// Steps, if there are any, take the place of Script and AfterScript.
	Steps []Step

	Image    Image
	Services []Image
	// Variables of the job as its YAML has them.
	Variables []Variable
	Artifacts []Artifact
	// Caches; -protected or -non_protected is added to their keys.
	Cache []Cache
	// Dependencies are jobs whose archives are downloaded; those without one are
	// left out.
	Dependencies []*Job
	// Timeout of the job, in whole seconds. 0: 1 h.
	Timeout time.Duration
	// Tags that a runner must have.
	Tags []string
	// IDTokens by variable name.
	IDTokens    map[string]IDToken
	Credentials []Credential
	Hooks       []Hook
	Environment *Environment
	// FullClone fetches all history, as GIT_DEPTH=0 does.
	FullClone bool
	// Manual marks a job that somebody started by hand.
	Manual bool
}

// IDToken is an entry of id_tokens.
type IDToken struct {
	// Aud is one audience, or several.
	Aud []string
	// Lifetime, if above 0, takes the place of the job's timeout: GitLab has no
	// such thing.
	Lifetime time.Duration
}

// Environment that a job deploys to, its names expanded.
type Environment struct{ Name, URL, Action, Tier string }

// State of a job.
type State string

// The states a job goes through: pending, running, maybe canceling, and one of
// the last three.
const (
	Pending   State = "pending"
	Running   State = "running"
	Canceling State = "canceling"
	Success   State = "success"
	Failed    State = "failed"
	Canceled  State = "canceled"
)

// Result is what became of a job.
type Result struct {
	State         State
	FailureReason string
	ExitCode      int
	// TraceSize is in bytes.
	TraceSize   int64
	TraceSHA256 string
	// TraceIntact tells that the runner's checksum and size of the log are those
	// of what arrived.
	TraceIntact bool
	// The times of the job's events; zero if they didn't happen. Finished is when
	// the runner reported the last state, or when the job was cancelled.
	Enqueued, HandedOut, FirstTrace, Finished time.Time
	// RunnerID of the runner that took it.
	RunnerID int64
}

// Waited is the time from enqueued to handed out.
func (r Result) Waited() time.Duration { return r.HandedOut.Sub(r.Enqueued) }

// Ran is the time from handed out to finished.
func (r Result) Ran() time.Duration { return r.Finished.Sub(r.HandedOut) }

// Job is a job in the queue, at a runner, or finished.
type Job struct {
	ID       int64
	Token    string
	Pipeline *Pipeline
	server   *Server
	spec     JobSpec
	trace    *traceLog

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced on every change
	done      chan struct{} // closed when the job has its last state
	result    Result
	artifacts map[string]artifactFile // by type
}

// Enqueue puts a job where runners find it.
func (s *Server) Enqueue(ctx context.Context, spec JobSpec) (*Job, error) {
	job, err := s.newJob(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("enqueue job %s: %w", spec.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	job.result.Enqueued = time.Now()
	s.queue = append(s.queue, job)
	s.wakeRunners()
	return job, nil
}

func (s *Server) newJob(ctx context.Context, spec JobSpec) (*Job, error) {
	if spec.Name == "" {
		spec.Name = "job"
	}
	if spec.Stage == "" {
		spec.Stage = "test"
	}
	if spec.Timeout <= 0 {
		spec.Timeout = defaultTimeout
	}
	if spec.Pipeline == nil {
		p, err := s.NewPipeline(ctx, PipelineSpec{Project: spec.Project, Ref: spec.Ref})
		if err != nil {
			return nil, err
		}
		spec.Pipeline = p
	}
	spec.Project = spec.Pipeline.Project
	job := &Job{
		Token: "glcbt-" + randomHex(12), Pipeline: spec.Pipeline, server: s, spec: spec,
		changed: make(chan struct{}), done: make(chan struct{}),
		result: Result{State: Pending}, artifacts: map[string]artifactFile{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	job.ID = int64(len(s.jobs) + 1)
	log, err := newTraceLog(s.dir, job.ID)
	if err != nil {
		return nil, err
	}
	job.trace = log
	s.jobs[job.ID], s.tokens[job.Token] = job, job
	return job, nil
}

// wakeRunners ends the waiting of held job requests. The server is locked.
func (s *Server) wakeRunners() {
	s.updates++
	close(s.queued)
	s.queued = make(chan struct{})
}

func (s *Server) job(id int64) *Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[id]
}

func (s *Server) jobByToken(token string) *Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[token]
}

// take gives a runner the first job in the queue that it may have.
func (s *Server) take(runner *Runner) *Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, job := range s.queue {
		if !runner.takes(job) {
			continue
		}
		s.queue = slices.Delete(s.queue, i, i+1)
		job.update(func(r *Result) {
			r.State, r.HandedOut, r.RunnerID = Running, time.Now(), runner.ID
		})
		return job
	}
	return nil
}

// dequeue tells whether the job was still waiting for a runner.
func (s *Server) dequeue(job *Job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, job)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// update changes the result, unless the job has its last state already, and
// tells who waits.
func (j *Job) update(change func(*Result)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.result.over() {
		return
	}
	change(&j.result)
	if j.result.over() {
		j.result.Finished = time.Now()
		j.result.TraceSize, j.result.TraceSHA256 = j.trace.sum()
		close(j.done)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

func (r *Result) over() bool {
	return r.State == Success || r.State == Failed || r.State == Canceled
}

// Result is what is known of the job now.
func (j *Job) Result() Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.result
}

// Name of the job.
func (j *Job) Name() string { return j.spec.Name }

// URL is the job's page.
func (j *Job) URL() string { return fmt.Sprintf("%s/-/jobs/%d", j.Pipeline.Project.URL(), j.ID) }

// alive tells whether the job's token is good for anything.
func (j *Job) alive() bool {
	state := j.Result().State
	return state == Running || state == Canceling
}

// Wait returns when the job has its last state, or with ctx's error.
func (j *Job) Wait(ctx context.Context) (Result, error) {
	select {
	case <-j.done:
		return j.Result(), nil
	case <-ctx.Done():
		r := j.Result()
		return r, fmt.Errorf("wait for job %d, %s, which is %s: %w", j.ID, j.spec.Name, r.State, ctx.Err())
	}
}

// WaitStarted returns when a runner has taken the job.
func (j *Job) WaitStarted(ctx context.Context) error {
	return j.waitFor(ctx, "a runner", func() (bool, error) { return !j.Result().HandedOut.IsZero(), nil })
}

// WaitOutput returns when the log contains text, or with an error if the job
// ends without.
func (j *Job) WaitOutput(ctx context.Context, text string) error {
	var seen int64
	return j.waitFor(ctx, fmt.Sprintf("output %q", text), func() (bool, error) {
		log, err := j.trace.read(seen)
		seen += max(0, int64(len(log)-len(text))) // text may be cut by the end
		return bytes.Contains(log, []byte(text)), err
	})
}

var errOver = errors.New("it has ended")

// waitFor looks again whenever the job has changed.
func (j *Job) waitFor(ctx context.Context, what string, done func() (bool, error)) error {
	wrap := func(err error) error {
		return fmt.Errorf("wait for %s of job %d, %s: %w", what, j.ID, j.spec.Name, err)
	}
	for {
		j.mu.Lock()
		changed, over := j.changed, j.result.over()
		j.mu.Unlock()
		ok, err := done()
		switch {
		case err != nil:
			return wrap(err)
		case ok:
			return nil
		case over:
			return wrap(errOver)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return wrap(ctx.Err())
		}
	}
}

// Trace is the log as it arrived, byte for byte.
func (j *Job) Trace() ([]byte, error) { return j.trace.read(0) }

// Follow copies the log to w as it grows, until the job ends or ctx does.
func (j *Job) Follow(ctx context.Context, w io.Writer) error {
	var offset int64
	err := j.waitFor(ctx, "the log", func() (bool, error) {
		news, err := j.trace.read(offset)
		if err != nil {
			return false, err
		}
		n, err := w.Write(news)
		offset += int64(n)
		return false, err
	})
	if errors.Is(err, errOver) {
		return nil
	}
	return err
}

// Cancel does what GitLab's Cancel button does: a job that waits is cancelled at
// once, one that runs gets the state canceling, for the runner to end it
// gracefully.
func (j *Job) Cancel() {
	state := Canceling
	if j.server.dequeue(j) {
		state = Canceled
	}
	j.update(func(r *Result) { r.State = state })
}

// ForceCancel takes the job away from its runner: from now on the runner's
// requests are answered with 403.
func (j *Job) ForceCancel() {
	j.server.dequeue(j)
	j.update(func(r *Result) { r.State = Canceled })
}

// finish records the runner's last word. A job that was to be cancelled ends as
// cancelled whatever the runner says (GitLab app/models/concerns/ci/has_status.rb).
func (j *Job) finish(state State, reason string, exitCode int, intact bool) {
	j.update(func(r *Result) {
		if r.State == Canceling {
			state = Canceled
		}
		r.State, r.FailureReason, r.ExitCode, r.TraceIntact = state, reason, exitCode, intact
	})
}

// dependencies are the jobs with an archive.
func (j *Job) dependencies() []Dependency {
	list := []Dependency{}
	for _, dep := range j.spec.Dependencies {
		file, ok := dep.archive()
		if !ok {
			continue
		}
		// Since 16.x GitLab hands out the token of the job that downloads.
		list = append(list, Dependency{
			ID: dep.ID, Name: dep.spec.Name, Token: j.Token,
			ArtifactsFile: &ArtifactsFile{Filename: file.name, Size: file.size},
		})
	}
	return list
}

// sortedNames keeps generated variables in one order.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
