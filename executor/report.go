package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/stagelog"
	"podlane/internal/timing"
	"podlane/internal/trace"
)

// Observer is where a stage's observation goes. The zero value keeps it to
// itself.
type Observer struct {
	// Dir is the job's folder on the runner's host. What its stages tell is kept
	// there for the table at the job's end; without a folder there is none.
	Dir string
	// Trace sends spans; nil sends none. NoTrace says why there is none although
	// somebody has asked for it.
	Trace   *trace.Exporter
	NoTrace error
	// Stderr is the process's own; for cleanup that is the runner's log.
	Stderr io.Writer
}

const (
	stagesFile   = "podlane-stages.jsonl"
	traceOffFile = "podlane-trace-off"
	// lastStage is the last of a job's stages whose output the job log shows.
	lastStage = "cleanup_file_variables"
	// cleanupStage is what cleanup is called where stages are listed.
	cleanupStage = "cleanup"
)

// report is the end of a stage: it writes the job's table if this was the last
// stage that the job log shows, and tells the runner's people.
func (s *Stage) report(ctx context.Context, line stagelog.Line, err error) {
	cancelled := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	now := time.Now()
	line.Time, line.Seconds = now, now.Sub(line.Began).Seconds()
	s.identify(&line)
	line.Class, line.ExitCode, line.Reason = classify(err, cancelled)
	if err != nil {
		line.Error = s.Secrets.String(err.Error())
	}
	before := s.earlier()
	if line.Stage == lastStage {
		_, _ = io.WriteString(s.Output, summary(append(before, line), now).Text(s.Job.Features.TraceSections, now))
	}
	if s.Observer.Trace != nil || s.Observer.NoTrace != nil {
		line.TraceID = trace.IDOf(s.traceName()).String()
		if err := s.sendSpans(ctx, before, line); err != nil {
			line.TraceError = err.Error()
		}
	}
	s.keep(line)
	s.tell(before, line)
}

// identify fills in whose stage it is, from trusted facts.
func (s *Stage) identify(line *stagelog.Line) {
	job := s.Job
	line.Job, line.JobName = job.ID, job.JobInfo.Name
	line.Project, line.ProjectID, line.Pipeline = job.JobInfo.ProjectFullPath, job.JobInfo.ProjectID, job.JobInfo.PipelineID
	line.Attempt = s.Attempt
	if line.Pod == "" {
		line.Pod, line.Namespace = pod.Name(job), s.Settings.Kubernetes.Namespace
	}
}

func classify(err error, cancelled bool) (class stagelog.Class, code int, reason string) {
	var failure *pod.Failure
	if errors.As(err, &failure) {
		reason = failure.Reason
	}
	if err == nil {
		return stagelog.Success, 0, ""
	}
	if build, ok := AsBuildFailure(err); ok {
		return stagelog.BuildFailure, build.Code, reason
	}
	if cancelled || errors.Is(err, ErrCancelled) {
		return stagelog.Cancelled, 0, reason
	}
	return stagelog.SystemFailure, 0, reason
}

// earlier are the lines that this attempt's stages have left so far.
func (s *Stage) earlier() []stagelog.Line {
	if s.Observer.Dir == "" {
		return nil
	}
	lines, err := stagelog.Read(filepath.Join(s.Observer.Dir, stagesFile))
	if err != nil {
		return nil
	}
	return lines
}

// keep leaves a line for the attempt's later stages.
func (s *Stage) keep(line stagelog.Line) {
	if s.Observer.Dir == "" {
		return
	}
	_ = stagelog.Append(filepath.Join(s.Observer.Dir, stagesFile), 0o600, line)
}

// tell writes the line where settings say.
func (s *Stage) tell(before []stagelog.Line, line stagelog.Line) {
	switch to := s.Settings.Observe.Log; {
	case to == "":
	case to == settings.ObserveStderr:
		if line.Stage != cleanupStage || s.Observer.Stderr == nil {
			return
		}
		for _, l := range append(before, line) {
			_ = stagelog.Write(s.Observer.Stderr, l)
		}
	default:
		if err := stagelog.Append(to, 0o640, line); err != nil && line.Stage == cleanupStage && s.Observer.Stderr != nil {
			fmt.Fprintf(s.Observer.Stderr, "podlane: warning: observe.log: %v\n", err)
		}
	}
}

// summary says where a job's time went.
func summary(lines []stagelog.Line, now time.Time) timing.Table {
	var spans []timing.Span
	for _, line := range lines {
		took := duration(line.Seconds)
		if line.Stage != prepareStage {
			spans = append(spans, timing.Span{Label: stageLabel(line.Stage), Began: line.Began, Took: took})
			continue
		}
		spans = append(spans, timing.Span{Began: line.Began, Took: took})
		for _, p := range line.Phases {
			spans = append(spans, timing.Span{Label: phaseLabels[p.Name], Began: p.Began, Took: duration(p.Seconds)})
		}
	}
	return timing.Summarise(spans, now)
}

const prepareStage = "prepare"

// Names of the phases of prepare, which follow each other.
const (
	phaseSchedule = "schedule"
	phasePull     = "pull"
	phaseStart    = "start"
)

// Names of the phases of any stage.
const (
	phaseLogin    = "login"
	phaseLookup   = "lookup"
	phaseTransfer = "transfer"
	phaseExtract  = "extract"
)

var phaseLabels = map[string]string{
	phaseSchedule: "waited for a node",
	phasePull:     "pulled images",
	phaseStart:    "started the pod",
}

// stageLabel says what a stage does, in the words of the job log's readers.
func stageLabel(stage string) string {
	switch gitlab.StageKind(stage) {
	case gitlab.KindRestoreCache:
		return "restored caches"
	case gitlab.KindArchiveCache:
		return "saved caches"
	case gitlab.KindBuild:
		if stage == "after_script" {
			return "ran after_script"
		}
		return "ran the script"
	}
	switch {
	case stage == "get_sources" || stage == "clear_worktree":
		return "fetched sources"
	case stage == "download_artifacts":
		return "downloaded artifacts"
	case strings.HasPrefix(stage, "upload_artifacts"):
		return "uploaded artifacts"
	}
	return ""
}

// seePhases notes the parts of the wait for a pod.
func (o *Observation) seePhases(began time.Time, created time.Duration, p pod.Phases) {
	at := began.Add(created)
	scheduled := p.Scheduled
	o.PhaseTook(phaseSchedule, at, scheduled)
	pulled := scheduled
	if p.Fetched {
		pulled = max(p.Pulled, scheduled)
	}
	o.PhaseTook(phasePull, at.Add(scheduled), pulled-scheduled)
	o.PhaseTook(phaseStart, at.Add(pulled), p.Ready-pulled)
}

// traceName names the trace of a job, whichever attempt.
func (s *Stage) traceName() string { return s.Job.Instance() + "\x00" + pod.Name(s.Job) }

// errTraceOff stands in the log of stages that did not ask a collector which
// has failed a stage before.
var errTraceOff = errors.New("not sent: the collector failed an earlier stage of this job")

// sendSpans sends the stage's spans, and after cleanup the attempt's own.
func (s *Stage) sendSpans(ctx context.Context, before []stagelog.Line, line stagelog.Line) error {
	if s.Observer.Trace == nil {
		return s.Observer.NoTrace
	}
	off := ""
	if s.Observer.Dir != "" {
		off = filepath.Join(s.Observer.Dir, traceOffFile)
		if _, err := os.Stat(off); err == nil {
			return errTraceOff
		}
	}
	err := s.Observer.Trace.Send(ctx, s.spans(before, line))
	if err != nil && off != "" {
		_ = os.WriteFile(off, nil, 0o600)
	}
	return err
}

// spans are those of a stage: itself and its phases, and after cleanup the
// attempt, which is the root. The names of attributes are OpenTelemetry's
// (https://opentelemetry.io/docs/specs/semconv/registry/attributes/cicd/) where
// it has any.
func (s *Stage) spans(before []stagelog.Line, line stagelog.Line) []trace.Span {
	id := trace.IDOf(s.traceName())
	root := trace.SpanIDOf(s.traceName() + "\x00" + s.Attempt)
	stage := trace.Span{
		Trace: id, ID: trace.NewSpanID(), Parent: root, Name: line.Stage, Began: line.Began, Ended: line.Time,
		Attributes: append(s.jobAttributes(),
			trace.Attribute{Key: "podlane.stage", Value: line.Stage},
			trace.Attribute{Key: "podlane.exit_class", Value: string(line.Class)},
			trace.Attribute{Key: "podlane.output_bytes", Value: line.OutputBytes},
			trace.Attribute{Key: "podlane.cache.result", Value: line.Cache},
			trace.Attribute{Key: "podlane.cache.bytes", Value: line.CacheBytes},
			trace.Attribute{Key: "k8s.pod.name", Value: line.Pod},
			trace.Attribute{Key: "k8s.namespace.name", Value: line.Namespace},
			trace.Attribute{Key: "k8s.node.name", Value: line.Node},
		),
	}
	if line.Class != stagelog.Success {
		stage.Error = line.Error
		stage.Attributes = append(stage.Attributes, trace.Attribute{Key: "error.type", Value: string(line.Class)})
	}
	spans := []trace.Span{stage}
	for _, p := range line.Phases {
		spans = append(spans, trace.Span{Trace: id, ID: trace.NewSpanID(), Parent: stage.ID, Name: p.Name, Began: p.Began, Ended: p.Began.Add(duration(p.Seconds))})
	}
	if line.Stage != cleanupStage {
		return spans
	}
	job := trace.Span{Trace: id, ID: root, Name: "job", Began: line.Began, Ended: line.Time, Attributes: s.jobAttributes()}
	result := "success"
	for _, l := range before {
		if l.Began.Before(job.Began) {
			job.Began = l.Began
		}
		if l.Class != stagelog.Success && job.Error == "" {
			job.Error = l.Stage + ": " + l.Error
			result = taskResults[l.Class]
		}
	}
	job.Attributes = append(job.Attributes, trace.Attribute{Key: "cicd.pipeline.task.run.result", Value: result})
	return append(spans, job)
}

// taskResults are the standard's words for how a job ends.
var taskResults = map[stagelog.Class]string{
	stagelog.BuildFailure: "failure", stagelog.SystemFailure: "error", stagelog.Cancelled: "cancellation",
}

func (s *Stage) jobAttributes() []trace.Attribute {
	job := s.Job
	return []trace.Attribute{
		{Key: "cicd.system.component", Value: "podlane"},
		{Key: "cicd.pipeline.name", Value: job.JobInfo.ProjectFullPath},
		{Key: "cicd.pipeline.run.id", Value: fmt.Sprint(job.JobInfo.PipelineID)},
		{Key: "cicd.pipeline.task.name", Value: job.JobInfo.Name},
		{Key: "cicd.pipeline.task.run.id", Value: fmt.Sprint(job.ID)},
		{Key: "cicd.pipeline.task.run.url.full", Value: job.URL()},
		{Key: "cicd.worker.id", Value: job.RunnerInfo.UUID},
		{Key: "vcs.ref.head.name", Value: job.GitInfo.Ref},
		{Key: "vcs.ref.head.revision", Value: job.GitInfo.Sha},
	}
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
