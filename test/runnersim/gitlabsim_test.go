package runnersim_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"podlane/internal/artifacts"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
)

// TestMain lets the test binary stand in for gitlab-runner where scripts call
// it for artifacts.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "gitlab-runner" {
		os.Exit(m.Run())
	}
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		os.Exit(0)
	}
	config := artifacts.Config{Env: os.Environ()}
	os.Exit(config.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// pair is a runner and the GitLab simulator.
type pair struct {
	*bed
	gitlab  *gitlabsim.Server
	project *gitlabsim.Project
}

func newPair(t *testing.T, opts gitlabsim.Options) *pair {
	t.Helper()
	opts.Dir = t.TempDir()
	gitlab, err := gitlabsim.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gitlab.Close() })
	project, err := gitlab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/sub group/app-1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), map[string]string{"README": "hello from git\n"}); err != nil {
		t.Fatal(err)
	}
	p := &pair{bed: newBed(t), gitlab: gitlab, project: project}
	p.cfg.URL, p.cfg.Token = gitlab.URL(), gitlab.RunnerToken()
	p.cfg.Environ[0] = "PATH=" + withGitLabRunner(t) + ":" + os.Getenv("PATH")
	return p
}

// withGitLabRunner is a folder with a program gitlab-runner.
func withGitLabRunner(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(dir, "gitlab-runner")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (p *pair) enqueue(t *testing.T, spec gitlabsim.JobSpec) *gitlabsim.Job {
	t.Helper()
	spec.Project = p.project
	job, err := p.gitlab.Enqueue(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func finished(t *testing.T, job *gitlabsim.Job) (gitlabsim.Result, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	result, err := job.Wait(ctx)
	log, logErr := job.Trace()
	if err != nil || logErr != nil {
		t.Fatalf("%v, %v; its log:\n%s", err, logErr, readable(string(log)))
	}
	if !result.TraceIntact && result.State != gitlabsim.Canceled {
		t.Errorf("the log is not what the runner sent: %+v", result)
	}
	return result, string(log)
}

func TestPairJob(t *testing.T) {
	p := newPair(t, gitlabsim.Options{})
	job := p.enqueue(t, gitlabsim.JobSpec{
		Script:      []string{"cat README", "echo $CI_JOB_NAME $CI_COMMIT_REF_NAME", `cat "$CONFIG"`, "(exit 37)"},
		AfterScript: []string{"echo after: $CI_JOB_STATUS"},
		Variables: []gitlabsim.Variable{
			{Key: "CONFIG", Value: "two\nlines '$x'\n", File: true, Raw: true},
			{Key: "SECRET", Value: "do-not-show-me", Masked: true},
		},
		Services: []gitlabsim.Image{{Name: "postgres:16", Alias: "db"}},
	})
	p.start(t)
	result, log := finished(t, job)
	if result.State != gitlabsim.Failed || result.FailureReason != "script_failure" || result.ExitCode != 37 {
		t.Errorf("result = %+v", result)
	}
	for _, want := range []string{"\nhello from git\n", "\njob main\n", "\ntwo\nlines '$x'\n", "after: failed\n", "ERROR: Job failed: exit status 37"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, readable(log))
		}
	}
	if env := p.environment(t, "build_script"); env["CUSTOM_ENV_CI_JOB_SERVICES"] != `[{"name":"postgres:16","alias":"db","entrypoint":null,"command":null}]` {
		t.Errorf("CI_JOB_SERVICES = %s", env["CUSTOM_ENV_CI_JOB_SERVICES"])
	}
}

func TestPairArtifacts(t *testing.T) {
	p := newPair(t, gitlabsim.Options{})
	p.start(t)
	first := p.enqueue(t, gitlabsim.JobSpec{
		Name: "first", Script: []string{"mkdir out", "echo made > out/file", "echo no > out/skip.tmp"},
		Artifacts: []gitlabsim.Artifact{{Paths: []string{"out/"}, Exclude: []string{"out/*.tmp"}}},
	})
	if result, log := finished(t, first); result.State != gitlabsim.Success || !strings.Contains(log, "Uploading artifacts...") {
		t.Fatalf("%+v\n%s", result, readable(log))
	}
	content, ok, err := first.Artifact("archive")
	if err != nil || !ok {
		t.Fatalf("no archive: %v", err)
	}
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "out/ out/file" && got != "out/file" {
		t.Errorf("the archive holds %s", got)
	}
	second := p.enqueue(t, gitlabsim.JobSpec{
		Name: "second", Script: []string{"cat out/file"}, Dependencies: []*gitlabsim.Job{first},
	})
	result, log := finished(t, second)
	if result.State != gitlabsim.Success || !strings.Contains(log, fmt.Sprintf("Downloading artifacts for first (%d)...", first.ID)) || !strings.Contains(log, "\nmade\n") {
		t.Errorf("%+v\n%s", result, readable(log))
	}
}

func TestPairCancel(t *testing.T) {
	cases := map[string]struct {
		cancel func(*gitlabsim.Job)
		calls  string
	}{
		"graceful": {(*gitlabsim.Job).Cancel, "build_script after_script cleanup_file_variables cleanup"},
		"forced":   {(*gitlabsim.Job).ForceCancel, "build_script cleanup"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, gitlabsim.Options{})
			p.write(t, "fail-build_script", waiting)
			done := make(chan runnersim.Result, 1)
			p.cfg.Hooks.JobFinished = func(r runnersim.Result) { done <- r }
			job := p.enqueue(t, gitlabsim.JobSpec{Script: []string{"true"}, AfterScript: []string{"true"}})
			p.start(t)
			if err := job.WaitOutput(t.Context(), "waiting"); err != nil {
				t.Fatal(err)
			}
			c.cancel(job)
			if result, _ := finished(t, job); result.State != gitlabsim.Canceled {
				t.Errorf("result = %+v", result)
			}
			<-done
			if got := p.calls(t); !strings.HasSuffix(got, c.calls) {
				t.Errorf("calls = %s, want ... %s", got, c.calls)
			}
		})
	}
}

func TestPairTimeout(t *testing.T) {
	p := newPair(t, gitlabsim.Options{})
	p.write(t, "fail-build_script", waiting)
	job := p.enqueue(t, gitlabsim.JobSpec{Script: []string{"true"}, AfterScript: []string{"true"}, Timeout: time.Second})
	p.start(t)
	if result, log := finished(t, job); result.FailureReason != "job_execution_timeout" {
		t.Errorf("%+v\n%s", result, readable(log))
	}
}

// TestPairFaults breaks every third answer of GitLab's after the job is out.
func TestPairFaults(t *testing.T) {
	var n atomic.Int64
	p := newPair(t, gitlabsim.Options{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch && n.Add(1)%3 == 0 {
				// Done, but nobody learns of it.
				next.ServeHTTP(discardResponse{http.Header{}}, r)
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	p.cfg.FlushAtOnce = true
	job := p.enqueue(t, gitlabsim.JobSpec{Script: []string{"for i in $(seq 200); do echo line $i; done", "sleep 0.2", "seq 300000"}})
	p.start(t)
	result, log := finished(t, job)
	if result.State != gitlabsim.Success {
		t.Errorf("result = %+v", result)
	}
	for i := 1; i <= 200; i++ {
		if strings.Count(log, fmt.Sprintf("\nline %d\n", i)) != 1 {
			t.Fatalf("line %d is not in the log exactly once", i)
		}
	}
	if !strings.Contains(log, "\n299999\n300000\n") {
		t.Error("the log lacks its end")
	}
}

// discardResponse takes an answer that never arrives.
type discardResponse struct{ header http.Header }

func (d discardResponse) Header() http.Header         { return d.header }
func (d discardResponse) Write(p []byte) (int, error) { return len(p), nil }
func (d discardResponse) WriteHeader(int)             {}
