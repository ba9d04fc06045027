package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"podlane/test/gitlabsim"
)

// Options of a run. The functions may be nil and are called one at a time.
type Options struct {
	// Play names the manual jobs that are started as soon as they may.
	Play []string
	// Enqueued is called for each job, and each further try of one, when runners
	// can see it. Follow its log from here.
	Enqueued func(*gitlabsim.Job, PlannedJob)
	// Ended is called when a job has its last state.
	Ended func(Row)
}

// Row tells what became of a job.
type Row struct {
	PlannedJob
	// Job is the last try, or nil for one that never ran.
	Job *gitlabsim.Job
	// State is success, failed or canceled, or manual for a job nobody played
	// and skipped for one that had no reason to run.
	State  string
	Result gitlabsim.Result
	Tries  int
}

// Waited is the time in the queue, of the last try.
func (r Row) Waited() time.Duration { return r.Result.Waited() }

// Ran is the time from hand-out to the last state, of the last try.
func (r Row) Ran() time.Duration { return r.Result.Ran() }

// Report of a run: one row for each job of the plan, in its order.
type Report struct {
	Rows []Row
	// Wall is the time from the start to the end of the last job.
	Wall time.Duration
}

// Succeeded tells whether no job failed that may not.
func (r Report) Succeeded() bool {
	return !slices.ContainsFunc(r.Rows, func(row Row) bool { return row.bad() })
}

// Row of a job; its State is empty if the plan has no such job.
func (r Report) Row(name string) Row {
	for _, row := range r.Rows {
		if row.Name == name {
			return row
		}
	}
	return Row{}
}

// bad tells that a job failed and wasn't allowed to.
func (r Row) bad() bool {
	return (r.State == "failed" || r.State == "canceled") && !r.AllowFailure
}

// Run gives each job of a plan to the server's runners once those it waits for
// have ended, and returns when all have. With an error, jobs may still run.
func Run(ctx context.Context, server *gitlabsim.Server, pipeline *gitlabsim.Pipeline, plan *Plan, opts Options) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{
		server: server, pipeline: pipeline, plan: plan, opts: opts,
		rows: map[string]*Row{}, ended: make(chan waited),
	}
	start := time.Now()
	err := r.loop(ctx)
	cancel()
	for range r.running { // the watchers end with ctx
		<-r.ended
	}
	report := Report{Wall: time.Since(start)}
	for _, job := range plan.Jobs {
		if row := r.rows[job.Name]; row != nil {
			row.interrupt()
			report.Rows = append(report.Rows, *row)
		}
	}
	return report, err
}

// interrupt tells the state of a job that still runs when the run is given up.
func (r *Row) interrupt() {
	if r.State == "run" && r.Job != nil {
		r.Result = r.Job.Result()
		r.State = string(r.Result.State)
	}
}

// waited is the end of one try.
type waited struct {
	job    string
	result gitlabsim.Result
	err    error
}

type run struct {
	server   *gitlabsim.Server
	pipeline *gitlabsim.Pipeline
	plan     *Plan
	opts     Options
	rows     map[string]*Row
	ended    chan waited
	running  int
}

func (r *run) loop(ctx context.Context) error {
	for {
		if err := r.startReady(ctx); err != nil {
			return err
		}
		if r.running == 0 {
			return nil
		}
		end := <-r.ended
		r.running--
		if end.err != nil {
			return end.err
		}
		if err := r.settle(ctx, end); err != nil {
			return err
		}
	}
}

// startReady starts what may run, and settles what never will, until nothing
// changes any more.
func (r *run) startReady(ctx context.Context) error {
	for changed := true; changed; {
		changed = false
		for _, job := range r.plan.Jobs {
			if r.rows[job.Name] != nil {
				continue
			}
			decision := r.decide(job)
			if decision == "wait" {
				continue
			}
			changed = true
			r.rows[job.Name] = &Row{PlannedJob: job, State: decision}
			if decision != "run" {
				r.tell(job.Name)
				continue
			}
			if err := r.try(ctx, job); err != nil {
				return err
			}
		}
	}
	return nil
}

// decide says run, wait, manual or skipped.
func (r *run) decide(job PlannedJob) string {
	var failed, held bool
	for _, name := range job.After {
		row := r.rows[name]
		switch {
		case row == nil || row.State == "run":
			return "wait"
		case row.bad():
			failed = true
		case row.State == "skipped" || row.State == "manual" && !(job.ByStage && row.AllowFailure):
			held = true
		}
	}
	switch {
	case job.When == "always":
		return "run"
	case job.When == "on_failure" && failed:
		return "run"
	case job.When == "on_failure" || failed || held:
		return "skipped"
	case job.When == "manual" && !slices.Contains(r.opts.Play, job.Name):
		return "manual"
	default:
		return "run"
	}
}

// try enqueues a job and watches it.
func (r *run) try(ctx context.Context, planned PlannedJob) error {
	spec := planned.Spec
	spec.Pipeline = r.pipeline
	for _, name := range planned.Downloads {
		if row := r.rows[name]; row != nil && row.Job != nil {
			spec.Dependencies = append(spec.Dependencies, row.Job)
		}
	}
	job, err := r.server.Enqueue(ctx, spec)
	if err != nil {
		return fmt.Errorf("run pipeline: %w", err)
	}
	row := r.rows[planned.Name]
	row.Job = job
	row.Tries++
	r.running++
	go func() {
		result, err := job.Wait(ctx)
		r.ended <- waited{planned.Name, result, err}
	}()
	if r.opts.Enqueued != nil {
		r.opts.Enqueued(job, planned)
	}
	return nil
}

// settle records the end of a try, or starts the next.
func (r *run) settle(ctx context.Context, end waited) error {
	row := r.rows[end.job]
	row.Result = end.result
	if row.Retry.again(row.Tries, end.result) {
		return r.try(ctx, row.PlannedJob)
	}
	row.State = string(end.result.State)
	r.tell(end.job)
	return nil
}

func (r *run) tell(name string) {
	if r.opts.Ended != nil {
		r.opts.Ended(*r.rows[name])
	}
}

func (r Retry) again(tries int, result gitlabsim.Result) bool {
	if result.State != gitlabsim.Failed || tries > r.Max {
		return false
	}
	return len(r.When) == 0 || slices.Contains(r.When, "always") || slices.Contains(r.When, result.FailureReason)
}
