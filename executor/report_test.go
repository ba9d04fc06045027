package executor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/stagelog"
	"podlane/internal/trace"
)

// A job's stages are processes that never meet, and its spans one tree all the
// same: each phase is a span below its stage, each stage one below the job.
func TestSpansMakeATree(t *testing.T) {
	job, err := gitlab.ParseJob(strings.NewReader(`{"id": 7, "job_info": {"name": "test", "project_id": 3, "project_full_path": "group/app", "pipeline_id": 5}, "git_info": {"repo_url": "https://gitlab.example.com/group/app.git"}}`))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Minute)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	var spans []trace.Span
	var before []stagelog.Line
	process := func(name string, from, to int, end error, see func(*Observation)) {
		s := &Stage{Job: job, Settings: &settings.Settings{}, Attempt: "a1"}
		seen := &Observation{}
		see(seen)
		line := seen.take()
		line.Stage, line.Began, line.Time, line.Seconds = name, at(from), at(to), float64(to-from)
		line.Class, line.ExitCode, line.Reason = classify(end, false)
		spans = append(spans, s.spans(before, line)...)
		before = append(before, line)
	}
	second := time.Second
	process("prepare", 0, 10, nil, func(o *Observation) {
		o.PhaseTook(phaseLogin, at(0), second)
		o.seePhases(at(1), second, pod.Phases{Scheduled: second, Pulled: 3 * second, Fetched: true, Started: 4 * second, Ready: 5 * second})
	})
	process("restore_cache", 10, 20, nil, func(o *Observation) {
		o.PhaseTook(phaseLookup, at(11), second)
		o.PhaseTook(phaseTransfer, at(12), 2*second)
		o.PhaseTook(phaseExtract, at(13), 2*second)
	})
	process("build_script", 20, 30, scriptFailure(3), func(*Observation) {})
	process("after_script", 30, 31, errors.New("pod lost"), func(*Observation) {})
	process(cleanupStage, 31, 32, nil, func(*Observation) {})

	byName := map[string]trace.Span{}
	for _, span := range spans {
		byName[span.Name] = span
	}
	root := byName["job"]
	for name, parent := range map[string]string{
		"prepare": "job", "login": "prepare", "schedule": "prepare", "pull": "prepare", "start": "prepare",
		"restore_cache": "job", "lookup": "restore_cache", "transfer": "restore_cache", "extract": "restore_cache",
		"build_script": "job", "after_script": "job", "cleanup": "job",
	} {
		span, there := byName[name]
		switch above := byName[parent]; {
		case !there:
			t.Errorf("there is no span %s", name)
		case span.Trace != root.Trace || span.Parent != above.ID:
			t.Errorf("the span %s is not below %s", name, parent)
		case span.Began.Before(above.Began) || span.Ended.After(above.Ended) || !span.Ended.After(span.Began):
			t.Errorf("the span %s is not within %s", name, parent)
		}
	}
	if len(spans) != 13 {
		t.Errorf("%d spans", len(spans))
	}
	if root.Parent != (trace.SpanID{}) || !root.Began.Equal(at(0)) || !root.Ended.Equal(at(32)) || !strings.HasPrefix(root.Error, "build_script: ") {
		t.Errorf("the root is %+v", root)
	}
	want := map[string]any{
		"cicd.pipeline.name": "group/app", "cicd.pipeline.run.id": "5", "cicd.pipeline.task.name": "test", "cicd.pipeline.task.run.id": "7",
		"cicd.pipeline.task.run.result": "failure", "cicd.pipeline.task.run.url.full": "https://gitlab.example.com/group/app/-/jobs/7",
	}
	for _, a := range root.Attributes {
		if value, asked := want[a.Key]; asked && value == a.Value {
			delete(want, a.Key)
		}
	}
	if len(want) > 0 {
		t.Errorf("the root lacks %v: it has %v", want, root.Attributes)
	}
}
