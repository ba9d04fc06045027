package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

// worker is a runner without an executor: a job fails if its script is "fail",
// or, with "flaky", the first time.
type worker struct {
	server *gitlabsim.Server

	mu    sync.Mutex
	tries map[string]int
	order []string
	deps  map[string][]string
}

func startWorker(t *testing.T, server *gitlabsim.Server) *worker {
	t.Helper()
	w := &worker{server: server, tries: map[string]int{}, deps: map[string][]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := w.one(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return w
}

// one takes a job, if there is one, and ends it.
func (w *worker) one(ctx context.Context) error {
	p, err := w.take(ctx)
	if p == nil || err != nil {
		return err
	}
	state := w.play(p)
	end, err := w.send(ctx, http.MethodPut, fmt.Sprintf("jobs/%d", p.ID), state, p.Token)
	if err != nil {
		return err
	}
	return end.Body.Close()
}

// take returns nil when there is no job.
func (w *worker) take(ctx context.Context) (*gitlabsim.Payload, error) {
	resp, err := w.send(ctx, http.MethodPost, "jobs/request", fmt.Sprintf(`{"token":%q}`, w.server.RunnerToken()), "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return nil, nil
	}
	var p gitlabsim.Payload
	return &p, json.NewDecoder(resp.Body).Decode(&p)
}

func (w *worker) send(ctx context.Context, method, path, body, token string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.server.URL()+"/api/v4/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Job-Token", token)
	return http.DefaultClient.Do(req)
}

func (w *worker) play(p *gitlabsim.Payload) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := p.JobInfo.Name
	w.tries[name]++
	w.order = append(w.order, name)
	for _, d := range p.Dependencies {
		w.deps[name] = append(w.deps[name], d.Name)
	}
	switch p.Steps[0].Script[0] {
	case "fail":
		return `{"state":"failed","failure_reason":"script_failure","exit_code":1}`
	case "flaky":
		if w.tries[name] == 1 {
			return `{"state":"failed","failure_reason":"runner_system_failure"}`
		}
	}
	return `{"state":"success"}`
}

// execute runs a file on a server of its own and returns "job:state" of each.
func execute(t *testing.T, text string, opts pipeline.Options) (*worker, pipeline.Report, string) {
	t.Helper()
	server, err := gitlabsim.Start(t.Context(), gitlabsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	project, err := server.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/app"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), map[string]string{"a": "a"}); err != nil {
		t.Fatal(err)
	}
	p, err := server.NewPipeline(t.Context(), gitlabsim.PipelineSpec{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	f, err := pipeline.FactsOf(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	planned, err := pipeline.New(parse(t, text), f)
	if err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, server)
	report, err := pipeline.Run(t.Context(), server, p, planned, opts)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, row := range report.Rows {
		states = append(states, row.Name+":"+row.State)
	}
	slices.Sort(states)
	return w, report, strings.Join(states, " ")
}

func TestRun(t *testing.T) {
	tests := []struct {
		name, yaml string
		play       []string
		want       string
		succeeded  bool
	}{
		{
			"all succeed", `
a: {stage: build, script: x}
b: {script: x, needs: [a]}
c: {stage: deploy, script: x}
`, nil, "a:success b:success c:success", true,
		},
		{
			"a failure stops what comes after", `
a: {stage: build, script: fail}
b: {stage: test, script: x}
c: {stage: deploy, script: x, needs: [b]}
d: {stage: deploy, script: x, needs: []}
cleanup: {stage: deploy, script: x, when: always}
rollback: {stage: deploy, script: x, when: on_failure}
`, nil, "a:failed b:skipped c:skipped cleanup:success d:success rollback:success", false,
		},
		{
			"allowed to fail", `
a: {stage: build, script: fail, allow_failure: true}
b: {stage: test, script: x}
rollback: {stage: deploy, script: x, when: on_failure}
`, nil, "a:failed b:success rollback:skipped", true,
		},
		{
			"manual", `
optional: {stage: build, script: x, when: manual}
blocking: {stage: build, script: x, rules: [{when: manual}]}
other: {stage: test, script: x}
needing: {stage: test, script: x, needs: [optional]}
`, nil, "blocking:manual needing:skipped optional:manual other:skipped", true,
		},
		{
			"played", `
optional: {stage: build, script: x, when: manual}
blocking: {stage: build, script: x, rules: [{when: manual}]}
other: {stage: test, script: x}
needing: {stage: test, script: x, needs: [optional]}
`,
			[]string{"optional", "blocking"},
			"blocking:success needing:success optional:success other:success", true,
		},
		{
			"retried", `
flaky: {script: flaky, retry: {max: 2, when: [runner_system_failure]}}
broken: {script: fail, retry: {max: 2, when: [runner_system_failure]}}
`, nil, "broken:failed flaky:success", false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, report, got := execute(t, tt.yaml, pipeline.Options{Play: tt.play})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			if report.Succeeded() != tt.succeeded {
				t.Errorf("succeeded %t, want %t", report.Succeeded(), tt.succeeded)
			}
			if tt.name == "retried" && (w.tries["flaky"] != 2 || w.tries["broken"] != 1) {
				t.Errorf("tries %v", w.tries)
			}
		})
	}
}

func TestRunTellsWhatHappens(t *testing.T) {
	var events []string
	w, report, _ := execute(t, `
a: {stage: build, script: x}
b: {script: x, needs: [a]}
c: {stage: deploy, script: x, when: manual}
`, pipeline.Options{
		Enqueued: func(job *gitlabsim.Job, planned pipeline.PlannedJob) {
			events = append(events, fmt.Sprintf("enqueued %s in wave %d", job.Name(), planned.Wave))
		},
		Ended: func(row pipeline.Row) { events = append(events, row.State+" "+row.Name) },
	})
	want := []string{"enqueued a in wave 1", "success a", "enqueued b in wave 2", "success b", "manual c"}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a", "b"}, w.order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if row := report.Row("b"); row.Job == nil || row.Tries != 1 || row.Ran() <= 0 || row.Wave != 2 {
		t.Errorf("row %+v", row)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	server, err := gitlabsim.Start(t.Context(), gitlabsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	project, err := server.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/app"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), map[string]string{"a": "a"}); err != nil {
		t.Fatal(err)
	}
	p, err := server.NewPipeline(t.Context(), gitlabsim.PipelineSpec{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	planned := plan(t, "a: {script: x}\nb: {script: x}", pipeline.Facts{})
	report, err := pipeline.Run(ctx, server, p, planned, pipeline.Options{
		Enqueued: func(_ *gitlabsim.Job, job pipeline.PlannedJob) {
			if job.Name == "b" {
				cancel()
			}
		},
	})
	if err == nil || report.Row("a").State != "pending" {
		t.Errorf("error %v, report %+v", err, report)
	}
}
