package gitlabsim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/test/gitlabsim"
)

func start(t *testing.T, opts gitlabsim.Options) *gitlabsim.Server {
	t.Helper()
	srv, err := gitlabsim.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

func addProject(t *testing.T, srv *gitlabsim.Server, path string) *gitlabsim.Project {
	t.Helper()
	p, err := srv.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Commit(t.Context(), map[string]string{"README": "hello\n"}); err != nil {
		t.Fatal(err)
	}
	return p
}

func enqueue(t *testing.T, srv *gitlabsim.Server, spec gitlabsim.JobSpec) *gitlabsim.Job {
	t.Helper()
	job, err := srv.Enqueue(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// call makes a request of the runner API.
func call(t *testing.T, srv *gitlabsim.Server, method, path, token string, header http.Header, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL()+"/api/v4/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Job-Token", token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// request takes the next job, or nil.
func request(t *testing.T, srv *gitlabsim.Server, runnerToken string) *gitlabsim.Payload {
	t.Helper()
	resp := call(t, srv, http.MethodPost, "jobs/request", "", nil, fmt.Sprintf(`{"token":%q}`, runnerToken))
	if resp.StatusCode == http.StatusNoContent {
		if resp.Header.Get("X-GitLab-Last-Update") == "" {
			t.Error("204 without X-GitLab-Last-Update")
		}
		return nil
	}
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("job request: %s", resp.Status)
	}
	var p gitlabsim.Payload
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return &p
}

func patch(t *testing.T, srv *gitlabsim.Server, job *gitlabsim.Job, offset int, content string) *http.Response {
	t.Helper()
	return call(t, srv, http.MethodPatch, fmt.Sprintf("jobs/%d/trace?debug_trace=false", job.ID), job.Token,
		http.Header{"Content-Range": {fmt.Sprintf("%d-%d", offset, offset+len(content)-1)}}, content)
}

func put(t *testing.T, srv *gitlabsim.Server, job *gitlabsim.Job, body string) *http.Response {
	t.Helper()
	return call(t, srv, http.MethodPut, fmt.Sprintf("jobs/%d", job.ID), job.Token, nil, body)
}

func variable(p *gitlabsim.Payload, key string) string {
	value := ""
	for _, v := range p.Variables {
		if v.Key == key {
			value = v.Value
		}
	}
	return value
}

func TestVerifyRunner(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	for token, want := range map[string]int{srv.RunnerToken(): 200, "glrt-unknown": 403} {
		resp := call(t, srv, http.MethodPost, "runners/verify", "", nil, fmt.Sprintf(`{"token":%q}`, token))
		if resp.StatusCode != want {
			t.Errorf("verify %s: status %d, want %d", token, resp.StatusCode, want)
		}
	}
}

func TestTraceGrowsByOffset(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: addProject(t, srv, "group/app")})
	request(t, srv, srv.RunnerToken())

	steps := []struct {
		offset  int
		content string
		status  int
		ranges  string
	}{
		{0, "first\x00\xff", 202, "0-7"},
		{9, "a gap", 416, "0-7"},
		{0, "again", 416, "0-7"},
		{7, " second", 202, "0-14"},
	}
	for _, s := range steps {
		resp := patch(t, srv, job, s.offset, s.content)
		got := []any{resp.StatusCode, resp.Header.Get("Range")}
		if diff := cmp.Diff([]any{s.status, s.ranges}, got); diff != "" {
			t.Errorf("patch %q at %d (-want +got):\n%s", s.content, s.offset, diff)
		}
	}
	if resp := call(t, srv, http.MethodPatch, fmt.Sprintf("jobs/%d/trace", job.ID), job.Token, nil, "x"); resp.StatusCode != 400 {
		t.Errorf("patch without Content-Range: %s", resp.Status)
	}

	want := "first\x00\xff second"
	if resp := put(t, srv, job, `{"state":"success","output":{"checksum":"crc32:00000000","bytesize":99}}`); resp.StatusCode != 202 {
		t.Errorf("update before the log is complete: %s, want 202", resp.Status)
	}
	body := fmt.Sprintf(`{"state":"success","output":{"checksum":"crc32:%08x","bytesize":%d}}`,
		crc32.ChecksumIEEE([]byte(want)), len(want))
	if resp := put(t, srv, job, body); resp.StatusCode != 200 || resp.Header.Get("Job-Status") != "success" {
		t.Errorf("last update: %s, Job-Status %s", resp.Status, resp.Header.Get("Job-Status"))
	}
	result, err := job.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trace, err := job.Trace()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(want))
	if string(trace) != want || result.TraceSHA256 != hex.EncodeToString(sum[:]) || !result.TraceIntact {
		t.Errorf("trace %q, result %+v", trace, result)
	}
	if result.Enqueued.After(result.HandedOut) || result.HandedOut.After(result.FirstTrace) || result.FirstTrace.After(result.Finished) {
		t.Errorf("events out of order: %+v", result)
	}
	if resp := patch(t, srv, job, 14, "late"); resp.StatusCode != 403 || resp.Header.Get("Job-Status") != "success" {
		t.Errorf("patch after the end: %s, Job-Status %q", resp.Status, resp.Header.Get("Job-Status"))
	}
}

func TestLastWord(t *testing.T) {
	tests := []struct {
		name   string
		before func(*gitlabsim.Job)
		body   string
		status int
		want   gitlabsim.Result
	}{
		{"success", nil, `{"state":"success"}`, 200, gitlabsim.Result{State: "success"}},
		{
			"failure", nil, `{"state":"failed","failure_reason":"script_failure","exit_code":37}`, 200,
			gitlabsim.Result{State: "failed", FailureReason: "script_failure", ExitCode: 37},
		},
		{
			"graceful cancel", (*gitlabsim.Job).Cancel, `{"state":"failed","failure_reason":"script_failure","exit_code":1}`, 200,
			gitlabsim.Result{State: "canceled", FailureReason: "script_failure", ExitCode: 1},
		},
		{"forced cancel", (*gitlabsim.Job).ForceCancel, `{"state":"failed"}`, 403, gitlabsim.Result{State: "canceled"}},
	}
	srv := start(t, gitlabsim.Options{})
	project := addProject(t, srv, "group/app")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			job := enqueue(t, srv, gitlabsim.JobSpec{Project: project})
			request(t, srv, srv.RunnerToken())
			if tt.before != nil {
				tt.before(job)
			}
			if resp := put(t, srv, job, tt.body); resp.StatusCode != tt.status {
				t.Errorf("update: %s, want %d", resp.Status, tt.status)
			}
			result, err := job.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := gitlabsim.Result{State: result.State, FailureReason: result.FailureReason, ExitCode: result.ExitCode}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCancelIsToldToTheRunner(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: addProject(t, srv, "group/app")})
	request(t, srv, srv.RunnerToken())
	job.Cancel()
	resp := patch(t, srv, job, 0, "still here")
	if resp.StatusCode != 202 || resp.Header.Get("Job-Status") != "canceling" {
		t.Errorf("patch: %s, Job-Status %q", resp.Status, resp.Header.Get("Job-Status"))
	}
	resp = put(t, srv, job, `{"state":"running"}`)
	if resp.StatusCode != 200 || resp.Header.Get("Job-Status") != "canceling" {
		t.Errorf("touch: %s, Job-Status %q", resp.Status, resp.Header.Get("Job-Status"))
	}
	job.ForceCancel()
	resp = patch(t, srv, job, 10, "x")
	if resp.StatusCode != 403 || resp.Header.Get("Job-Status") != "canceled" {
		t.Errorf("patch: %s, Job-Status %q", resp.Status, resp.Header.Get("Job-Status"))
	}
}

func TestCancelBeforeHandOut(t *testing.T) {
	srv := start(t, gitlabsim.Options{LongPoll: -1})
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: addProject(t, srv, "group/app")})
	job.Cancel()
	if state := job.Result().State; state != gitlabsim.Canceled {
		t.Errorf("state %s, want canceled", state)
	}
	if p := request(t, srv, srv.RunnerToken()); p != nil {
		t.Errorf("job %d was handed out", p.ID)
	}
}

func TestJobsNeedTheirToken(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	project := addProject(t, srv, "group/app")
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: project})
	other := enqueue(t, srv, gitlabsim.JobSpec{Project: project})
	if resp := patch(t, srv, job, 0, "x"); resp.StatusCode != 403 {
		t.Errorf("patch of a job that nobody took: %s", resp.Status)
	}
	request(t, srv, srv.RunnerToken())
	request(t, srv, srv.RunnerToken())
	path := fmt.Sprintf("jobs/%d", job.ID)
	for name, resp := range map[string]*http.Response{
		"trace":     call(t, srv, http.MethodPatch, path+"/trace", other.Token, http.Header{"Content-Range": {"0-0"}}, "x"),
		"state":     call(t, srv, http.MethodPut, path, other.Token, nil, `{"state":"success"}`),
		"artifacts": call(t, srv, http.MethodPost, path+"/artifacts", other.Token, nil, ""),
		"authorize": call(t, srv, http.MethodPost, path+"/artifacts/authorize", other.Token, nil, ""),
	} {
		if resp.StatusCode != 403 {
			t.Errorf("%s with another job's token: %s", name, resp.Status)
		}
	}
}

func TestTags(t *testing.T) {
	srv := start(t, gitlabsim.Options{LongPoll: -1})
	project := addProject(t, srv, "group/app")
	enqueue(t, srv, gitlabsim.JobSpec{Project: project, Name: "gpu", Tags: []string{"gpu", "linux"}})
	enqueue(t, srv, gitlabsim.JobSpec{Project: project, Name: "plain"})
	linux := srv.AddRunner(gitlabsim.RunnerSpec{Tags: []string{"linux"}, RunUntagged: true})
	gpu := srv.AddRunner(gitlabsim.RunnerSpec{Tags: []string{"gpu", "linux", "fast"}})

	var got []string
	for _, runner := range []*gitlabsim.Runner{linux, linux, gpu, gpu} {
		name := "-"
		if p := request(t, srv, runner.Token); p != nil {
			name = p.JobInfo.Name
		}
		got = append(got, name)
	}
	if diff := cmp.Diff([]string{"plain", "-", "gpu", "-"}, got); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
}

func TestLongPoll(t *testing.T) {
	srv := start(t, gitlabsim.Options{LongPoll: time.Minute})
	project := addProject(t, srv, "group/app")
	got := make(chan *gitlabsim.Payload)
	go func() { got <- request(t, srv, srv.RunnerToken()) }()
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: project})
	select {
	case p := <-got:
		if p == nil || p.ID != job.ID {
			t.Errorf("handed out %+v, want job %d", p, job.ID)
		}
	case <-t.Context().Done():
	}
}

// run is a small runner: it takes one job and reports it done.
func run(ctx context.Context, srv *gitlabsim.Server, token string) error {
	do := func(method, path, jobToken, contentRange string, body io.Reader, into any) error {
		req, err := http.NewRequestWithContext(ctx, method, srv.URL()+"/api/v4/"+path, body)
		if err != nil {
			return err
		}
		req.Header.Set("Job-Token", jobToken)
		req.Header.Set("Content-Range", contentRange)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("%s %s: %s", method, path, resp.Status)
		}
		if into != nil {
			return json.NewDecoder(resp.Body).Decode(into)
		}
		return nil
	}
	var p gitlabsim.Payload
	if err := do(http.MethodPost, "jobs/request", "", "", strings.NewReader(fmt.Sprintf(`{"token":%q}`, token)), &p); err != nil {
		return err
	}
	chunk := bytes.Repeat([]byte(p.JobInfo.Name+"\n"), 1000)
	for i := range 20 {
		offset := i * len(chunk)
		err := do(http.MethodPatch, fmt.Sprintf("jobs/%d/trace", p.ID), p.Token,
			fmt.Sprintf("%d-%d", offset, offset+len(chunk)-1), bytes.NewReader(chunk), nil)
		if err != nil {
			return err
		}
	}
	return do(http.MethodPut, fmt.Sprintf("jobs/%d", p.ID), p.Token, "", strings.NewReader(`{"state":"success"}`), nil)
}

func TestManyJobsAtOnce(t *testing.T) {
	const n = 20
	srv := start(t, gitlabsim.Options{})
	project := addProject(t, srv, "group/app")
	var jobs []*gitlabsim.Job
	for i := range n {
		jobs = append(jobs, enqueue(t, srv, gitlabsim.JobSpec{Project: project, Name: fmt.Sprintf("job %02d", i)}))
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := run(t.Context(), srv, srv.RunnerToken()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			var log bytes.Buffer
			if err := jobs[i].Follow(t.Context(), &log); err != nil {
				t.Error(err)
			}
			want := strings.Repeat(jobs[i].Name()+"\n", 20000)
			if log.String() != want {
				t.Errorf("followed %d bytes of %s, want %d", log.Len(), jobs[i].Name(), len(want))
			}
		})
	}
	wg.Wait()
}

func TestWaitOutput(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: addProject(t, srv, "group/app"), Name: "x"})
	done := make(chan error)
	go func() { done <- job.WaitOutput(t.Context(), "x\nx\n") }()
	if err := run(t.Context(), srv, srv.RunnerToken()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := job.WaitOutput(t.Context(), "never"); err == nil {
		t.Error("no error for output that never came")
	}
}

func upload(t *testing.T, srv *gitlabsim.Server, job *gitlabsim.Job, content string) *http.Response {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "artifacts.zip")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, content); err != nil {
		t.Fatal(err)
	}
	form.Close()
	path := fmt.Sprintf("jobs/%d/artifacts?artifact_format=zip&artifact_type=archive&expire_in=1+day", job.ID)
	return call(t, srv, http.MethodPost, path, job.Token, http.Header{"Content-Type": {form.FormDataContentType()}}, body.String())
}

func TestArtifacts(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%t", direct), func(t *testing.T) {
			srv := start(t, gitlabsim.Options{ArtifactLimit: 100, DirectDownload: direct})
			project := addProject(t, srv, "group/app")
			first := enqueue(t, srv, gitlabsim.JobSpec{Project: project, Name: "build"})
			request(t, srv, srv.RunnerToken())
			if resp := upload(t, srv, first, strings.Repeat("x", 101)); resp.StatusCode != 413 {
				t.Errorf("upload above the limit: %s", resp.Status)
			}
			if resp := upload(t, srv, first, "PK content"); resp.StatusCode != 201 {
				t.Errorf("upload: %s", resp.Status)
			}
			if resp := upload(t, srv, first, "again"); resp.StatusCode != 400 {
				t.Errorf("second upload: %s", resp.Status)
			}
			put(t, srv, first, `{"state":"success"}`)

			second := enqueue(t, srv, gitlabsim.JobSpec{Project: project, Dependencies: []*gitlabsim.Job{first}})
			stranger := enqueue(t, srv, gitlabsim.JobSpec{Project: project})
			p := request(t, srv, srv.RunnerToken())
			request(t, srv, srv.RunnerToken())
			want := []gitlabsim.Dependency{{
				ID: first.ID, Name: "build", Token: second.Token,
				ArtifactsFile: &gitlabsim.ArtifactsFile{Filename: "artifacts.zip", Size: 10},
			}}
			if diff := cmp.Diff(want, p.Dependencies); diff != "" {
				t.Errorf("dependencies (-want +got):\n%s", diff)
			}
			if got := download(t, srv, first, p.Dependencies[0].Token); got != "PK content" {
				t.Errorf("downloaded %q", got)
			}
			if resp := call(t, srv, http.MethodGet, fmt.Sprintf("jobs/%d/artifacts", first.ID), stranger.Token, nil, ""); resp.StatusCode != 403 {
				t.Errorf("download by a job that doesn't depend on it: %s", resp.Status)
			}
			if resp := call(t, srv, http.MethodGet, fmt.Sprintf("jobs/%d/artifacts", second.ID), second.Token, nil, ""); resp.StatusCode != 404 {
				t.Errorf("download of what isn't there: %s", resp.Status)
			}
		})
	}
}

func download(t *testing.T, srv *gitlabsim.Server, job *gitlabsim.Job, token string) string {
	t.Helper()
	resp := call(t, srv, http.MethodGet, fmt.Sprintf("jobs/%d/artifacts?direct_download=true", job.ID), token, nil, "")
	if resp.StatusCode == http.StatusFound {
		var err error
		resp, err = http.Get(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// git runs the real git as a job would.
func git(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestGit(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	lib := addProject(t, srv, "group/lib")
	app := addProject(t, srv, "group/sub_group/odd-.name_1")
	libSHA, err := lib.Commit(t.Context(), map[string]string{"lib.sh": "#!/bin/sh\necho lib\n"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := app.Commit(t.Context(), map[string]string{"n": fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = app.CommitTo(t.Context(), gitlabsim.CommitSpec{
		Files:      map[string]string{".gitmodules": "[submodule \"lib\"]\n\tpath = lib\n\turl = ../../lib.git\n"},
		Submodules: map[string]string{"lib": libSHA},
	})
	if err != nil {
		t.Fatal(err)
	}
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: app})
	p := request(t, srv, srv.RunnerToken())

	dir := t.TempDir()
	steps := [][]string{
		{"init", "-q"},
		{"remote", "add", "origin", p.GitInfo.RepoURL},
		append([]string{"fetch", "--depth", "1", "origin"}, p.GitInfo.Refspecs...),
		{"checkout", "-q", p.GitInfo.SHA},
		{"submodule", "update", "--init", "--depth", "1"},
	}
	for _, args := range steps {
		if out, err := git(t, dir, args...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	if count, err := git(t, dir, "rev-list", "--count", "HEAD"); err != nil || count != "1\n" {
		t.Errorf("commits after a shallow fetch: %q, %v", count, err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "lib/lib.sh")).Output(); err != nil || string(out) != "lib\n" {
		t.Errorf("script of the submodule: %q, %v", out, err)
	}

	put(t, srv, job, `{"state":"success"}`)
	if out, err := git(t, dir, "fetch", "origin"); err == nil {
		t.Errorf("fetched with the token of a finished job:\n%s", out)
	}
	if out, err := git(t, dir, "push", "origin", "HEAD:x"); err == nil {
		t.Errorf("pushed:\n%s", out)
	}
}

func TestMergeRequestPipeline(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	project := addProject(t, srv, "group/app")
	sha, err := project.CommitTo(t.Context(), gitlabsim.CommitSpec{
		Branch: "feature/x", Message: "Add x\n\nBecause.", Files: map[string]string{"x": "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	mr, err := project.AddMergeRequest(t.Context(), "Add x", "feature/x")
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := srv.NewPipeline(t.Context(), gitlabsim.PipelineSpec{Project: project, MergeRequest: mr})
	if err != nil {
		t.Fatal(err)
	}
	enqueue(t, srv, gitlabsim.JobSpec{Pipeline: pipeline})
	p := request(t, srv, srv.RunnerToken())
	want := gitlabsim.GitInfo{
		RepoURL:          "http://gitlab-ci-token:" + p.Token + "@" + strings.TrimPrefix(srv.URL(), "http://") + "/group/app.git",
		RepoObjectFormat: "sha1", Ref: "refs/merge-requests/1/head", SHA: sha,
		BeforeSHA: strings.Repeat("0", 40), RefType: "branch", Depth: 20,
		Refspecs: []string{"+refs/pipelines/1:refs/pipelines/1"},
	}
	if diff := cmp.Diff(want, p.GitInfo); diff != "" {
		t.Errorf("git_info (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "1",
		"CI_COMMIT_REF_NAME": "feature/x", "CI_COMMIT_REF_SLUG": "feature-x", "CI_COMMIT_BRANCH": "",
		"CI_COMMIT_TITLE": "Add x", "CI_COMMIT_DESCRIPTION": "Because.\n", "CI_COMMIT_REF_PROTECTED": "false",
	} {
		if got := variable(p, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestPayload(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	project, err := srv.AddProject(t.Context(), gitlabsim.ProjectSpec{
		Path:               "group/app",
		Variables:          []gitlabsim.Variable{{Key: "CERT", Value: "pem", File: true}, {Key: "X", Value: "project"}},
		ProtectedVariables: []gitlabsim.Variable{{Key: "SECRET", Value: "s3cret-value", Masked: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), map[string]string{"a": "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := project.CommitTo(t.Context(), gitlabsim.CommitSpec{Branch: "side", Files: map[string]string{"b": "b"}}); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"main", "side"} {
		enqueue(t, srv, gitlabsim.JobSpec{
			Project: project, Ref: ref, Script: []string{"echo"}, AfterScript: []string{"echo after"},
			Variables: []gitlabsim.Variable{{Key: "X", Value: "yaml", Public: true}},
			Cache:     []gitlabsim.Cache{{Key: "k", Paths: []string{"p"}, FallbackKeys: []string{"f"}}},
			Artifacts: []gitlabsim.Artifact{{Paths: []string{"out"}}}, Timeout: 90 * time.Second,
		})
	}
	main, side := request(t, srv, srv.RunnerToken()), request(t, srv, srv.RunnerToken())

	if main.RunnerInfo.Timeout != 90 || !main.GitInfo.Protected || side.GitInfo.Protected {
		t.Errorf("timeout %d, protected %t and %t", main.RunnerInfo.Timeout, main.GitInfo.Protected, side.GitInfo.Protected)
	}
	if main.Cache[0].Key != "k-protected" || side.Cache[0].Key != "k-non_protected" || side.Cache[0].FallbackKeys[0] != "f-non_protected" {
		t.Errorf("caches %+v and %+v", main.Cache, side.Cache)
	}
	if got := []string{variable(main, "SECRET"), variable(side, "SECRET"), variable(main, "X")}; !cmp.Equal(got, []string{"s3cret-value", "", "project"}) {
		t.Errorf("variables %q", got)
	}
	if main.Variables[0].Key != "CI_PIPELINE_ID" {
		t.Errorf("first variable is %s", main.Variables[0].Key)
	}
	wantSteps := []gitlabsim.Step{
		{Name: "script", Script: []string{"echo"}, Timeout: 90, When: "on_success"},
		{Name: "after_script", Script: []string{"echo after"}, Timeout: 90, When: "always", AllowFailure: true},
	}
	if diff := cmp.Diff(wantSteps, main.Steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if a := main.Artifacts[0]; a.Type != "archive" || a.Format != "zip" {
		t.Errorf("artifacts %+v", a)
	}
}

type jwks struct {
	Keys []struct{ Kid, N, E, Alg, Use, Kty string }
}

// verify checks a token against the published keys and returns its claims.
func verify(t *testing.T, srv *gitlabsim.Server, token string) (map[string]any, error) {
	t.Helper()
	var discovery struct {
		Issuer  string
		JWKSURI string `json:"jwks_uri"`
	}
	getJSON(t, srv.URL()+"/.well-known/openid-configuration", &discovery)
	if discovery.Issuer != srv.URL() {
		t.Errorf("issuer %q, want %q", discovery.Issuer, srv.URL())
	}
	var set jwks
	getJSON(t, discovery.JWKSURI, &set)
	parts := strings.Split(token, ".")
	var header struct{ Alg, Kid, Typ string }
	decodePart(t, parts[0], &header)
	for _, k := range set.Keys {
		if k.Kid != header.Kid {
			continue
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(raw(t, k.N)), E: int(new(big.Int).SetBytes(raw(t, k.E)).Int64())}
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw(t, parts[2])); err != nil {
			return nil, err
		}
		var claims map[string]any
		decodePart(t, parts[1], &claims)
		return claims, nil
	}
	return nil, fmt.Errorf("key %s isn't published", header.Kid)
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func raw(t *testing.T, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodePart(t *testing.T, part string, into any) {
	t.Helper()
	if err := json.Unmarshal(raw(t, part), into); err != nil {
		t.Fatal(err)
	}
}

func TestIDTokens(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	enqueue(t, srv, gitlabsim.JobSpec{
		Project: addProject(t, srv, "group/sub/app"), Timeout: 10 * time.Minute,
		IDTokens:    map[string]gitlabsim.IDToken{"VAULT_ID_TOKEN": {Aud: []string{"https://vault.example.com"}}, "TWO": {Aud: []string{"a", "b"}}},
		Environment: &gitlabsim.Environment{Name: "review/1", URL: "https://1.example.com"},
	})
	p := request(t, srv, srv.RunnerToken())
	claims, err := verify(t, srv, variable(p, "VAULT_ID_TOKEN"))
	if err != nil {
		t.Fatal(err)
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 600 {
		t.Errorf("token lives %v s, want the job's timeout", life)
	}
	if back := claims["iat"].(float64) - claims["nbf"].(float64); back != 5 {
		t.Errorf("nbf is %v s before iat", back)
	}
	for _, key := range []string{"jti", "iat", "nbf", "exp", "sha", "ci_config_sha", "ci_config_ref_uri"} {
		if claims[key] == nil {
			t.Errorf("no %s", key)
		}
		delete(claims, key)
	}
	want := map[string]any{
		"iss": srv.URL(), "aud": "https://vault.example.com",
		"sub":        "project_path:group/sub/app:ref_type:branch:ref:main",
		"project_id": "1", "project_path": "group/sub/app", "namespace_id": "1", "namespace_path": "group/sub",
		"job_project_id": "1", "job_project_path": "group/sub/app", "job_namespace_id": "1", "job_namespace_path": "group/sub",
		"user_id": "1", "user_login": "sidney", "user_email": "sidney@example.com", "user_access_level": "maintainer",
		"pipeline_id": "1", "pipeline_source": "push", "job_id": "1", "project_visibility": "private",
		"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
		"environment": "review/1", "environment_protected": "false", "environment_action": "start", "deployment_tier": "development",
		"runner_id": 1.0, "runner_environment": "self-hosted",
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	two, err := verify(t, srv, variable(p, "TWO"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"a", "b"}, two["aud"]); diff != "" {
		t.Errorf("aud (-want +got):\n%s", diff)
	}
}

func TestKeyRotation(t *testing.T) {
	srv := start(t, gitlabsim.Options{})
	token, err := srv.SignToken(map[string]any{"sub": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, keepOld := range []bool{true, false} {
		if err := srv.RotateKeys(keepOld); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, srv, token); (err == nil) != keepOld {
			t.Errorf("old token after a rotation with keepOld=%t: %v", keepOld, err)
		}
	}
}

func TestMiddleware(t *testing.T) {
	broken := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	srv := start(t, gitlabsim.Options{Middleware: broken})
	job := enqueue(t, srv, gitlabsim.JobSpec{Project: addProject(t, srv, "group/app")})
	request(t, srv, srv.RunnerToken())
	if resp := patch(t, srv, job, 0, "x"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("status %s", resp.Status)
	}
}
