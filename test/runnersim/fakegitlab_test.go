package runnersim_test

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeGitLab is the least of GitLab's runner API: a queue of jobs, their logs
// and states, and room for faults.
type fakeGitLab struct {
	*httptest.Server
	mux      *http.ServeMux
	mu       sync.Mutex
	queue    []map[string]any
	jobs     map[int64]*fakeJob
	finished chan int64
	requests []map[string]any
	asked    chan struct{} // a request that found nothing
}

type fakeJob struct {
	log    []byte
	status string // Job-Status
	last   map[string]any
	// forbidden answers everything with 403.
	forbidden bool
	// onLog sees the log after every patch.
	onLog func(j *fakeJob)
}

func newFakeGitLab(t *testing.T) *fakeGitLab {
	g := &fakeGitLab{jobs: map[int64]*fakeJob{}, finished: make(chan int64, 100), asked: make(chan struct{}, 2)}
	mux := http.NewServeMux()
	g.mux = mux
	mux.HandleFunc("POST /api/v4/jobs/request", g.request)
	mux.HandleFunc("PATCH /api/v4/jobs/{id}/trace", g.patch)
	mux.HandleFunc("PUT /api/v4/jobs/{id}", g.update)
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	return g
}

// add queues a job; its fakeJob may still be changed before a runner starts.
func (g *fakeGitLab) add(id int64, job map[string]any) *fakeJob {
	g.mu.Lock()
	defer g.mu.Unlock()
	job["id"] = id
	g.queue = append(g.queue, job)
	g.jobs[id] = &fakeJob{status: "running"}
	return g.jobs[id]
}

func (g *fakeGitLab) request(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.requests = append(g.requests, body)
	if len(g.queue) == 0 {
		w.Header().Set("X-GitLab-Last-Update", "abc")
		w.WriteHeader(http.StatusNoContent)
		select {
		case g.asked <- struct{}{}:
		default:
		}
		return
	}
	job := g.queue[0]
	g.queue = g.queue[1:]
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(job)
}

func (g *fakeGitLab) job(r *http.Request) *fakeJob {
	var id int64
	_, _ = fmt.Sscan(r.PathValue("id"), &id)
	return g.jobs[id]
}

func (g *fakeGitLab) patch(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.job(r)
	w.Header().Set("Job-Status", j.status)
	if j.forbidden {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var from, to int
	if n, _ := fmt.Sscanf(r.Header.Get("Content-Range"), "%d-%d", &from, &to); n != 2 || to-from+1 != len(body) {
		http.Error(w, "bad range "+r.Header.Get("Content-Range"), http.StatusBadRequest)
		return
	}
	if from != len(j.log) {
		w.Header().Set("Range", fmt.Sprintf("0-%d", len(j.log)))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	j.log = append(j.log, body...)
	if j.onLog != nil {
		j.onLog(j)
	}
	w.Header().Set("Job-Status", j.status)
	w.WriteHeader(http.StatusAccepted)
}

func (g *fakeGitLab) update(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.job(r)
	w.Header().Set("Job-Status", j.status)
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch {
	case j.forbidden:
		w.WriteHeader(http.StatusForbidden)
		return
	case body["state"] == "running":
		return
	}
	sum := fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(j.log))
	if out := body["output"].(map[string]any); out["checksum"] != sum {
		j.log = nil
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	j.last = body
	var id int64
	_, _ = fmt.Sscan(r.PathValue("id"), &id)
	g.finished <- id
}

// wait returns a finished job: its log, its last update.
func (g *fakeGitLab) wait(t *testing.T, id int64) (log string, last map[string]any) {
	t.Helper()
	select {
	case got := <-g.finished:
		if got != id {
			t.Fatalf("job %d finished, want %d", got, id)
		}
	case <-time.After(60 * time.Second):
		g.mu.Lock()
		defer g.mu.Unlock()
		t.Fatalf("job %d did not finish; its log:\n%s", id, g.jobs[id].log)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.jobs[id].log), g.jobs[id].last
}

// newJob is a job as GitLab sends it, without sources.
func newJob(script ...string) map[string]any {
	return map[string]any{
		"token": "glcbt-64_job",
		"job_info": map[string]any{
			"name": "test", "stage": "test", "project_id": 7, "project_name": "shop",
			"project_full_path": "group/shop", "project_jobs_running_on_instance_runners_count": "0",
		},
		"git_info": map[string]any{
			"repo_url": "http://gitlab-ci-token:glcbt-64_job@gitlab.test/group/shop.git",
			"ref":      "main", "sha": strings.Repeat("a1", 20), "ref_type": "branch",
			"refspecs": []string{"+refs/heads/main:refs/remotes/origin/main"}, "depth": 20,
		},
		"runner_info": map[string]any{"timeout": 3600},
		"variables": []map[string]any{
			variable("CI_PROJECT_PATH", "group/shop"),
			variable("GIT_STRATEGY", "none"),
		},
		"steps": []map[string]any{
			{"name": "script", "script": script, "timeout": 3600, "when": "on_success"},
		},
		"features": map[string]any{"trace_sections": true, "failure_reasons": []string{"script_failure", "runner_system_failure", "job_execution_timeout", "unknown_failure"}},
		"inputs":   []any{},
	}
}

func variable(key, value string) map[string]any {
	return map[string]any{"key": key, "value": value, "public": true}
}

func addVariables(job map[string]any, vars ...map[string]any) {
	job["variables"] = append(job["variables"].([]map[string]any), vars...)
}

func addStep(job map[string]any, name string, script ...string) {
	job["steps"] = append(job["steps"].([]map[string]any), map[string]any{"name": name, "script": script, "when": "always"})
}
