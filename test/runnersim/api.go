package runnersim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"podlane/test/runnersim/spec"
	"podlane/test/runnersim/trace"
)

// requestTimeout bounds a short request. A job request may be held open by
// GitLab for up to 50 s (long polling) and gets more.
const (
	requestTimeout    = time.Minute
	jobRequestTimeout = 2 * time.Minute
)

// client speaks GitLab's runner API (https://docs.gitlab.com/api/runners/ and
// gitlab-runner network/gitlab.go).
type client struct {
	http     *http.Client
	url      string // without a slash at the end
	token    string
	systemID string
	shell    string

	mu         sync.Mutex
	lastUpdate string // X-GitLab-Last-Update: where in its queue GitLab last looked
}

// features are what the custom executor and a bash shell announce
// (gitlab-runner executors/custom/custom.go:418, shells/abstract.go:81,
// network/gitlab.go:121).
var features = map[string]bool{
	"variables": true, "shared": true, "service_variables": true,
	"artifacts": true, "upload_multiple_artifacts": true, "upload_raw_artifacts": true,
	"cache": true, "fallback_cache_keys": true, "refspecs": true, "masking": true,
	"raw_variables": true, "artifacts_exclude": true, "multi_build_steps": true,
	"vault_secrets": true, "return_exit_code": true,
	"trace_reset": true, "trace_checksum": true, "trace_size": true,
	"cancelable": true, "cancel_gracefully": true, "two_phase_job_commit": true, "job_inputs": true,
}

func (c *client) info() map[string]any {
	return map[string]any{
		"name": "gitlab-runner", "version": runnerVersion, "revision": runnerRevision,
		"platform": runtime.GOOS, "architecture": runtime.GOARCH,
		"executor": "custom", "shell": c.shell, "features": features,
	}
}

// received is a job with what the answer's headers said about it.
type received struct {
	spec.Job
	correlationID string
}

// requestJob asks for a job. nil without an error says that there is none.
func (c *client) requestJob(ctx context.Context) (*received, error) {
	c.mu.Lock()
	last := c.lastUpdate
	c.mu.Unlock()
	body, err := json.Marshal(map[string]any{
		"info": c.info(), "token": c.token, "system_id": c.systemID, "last_update": last,
	})
	if err != nil {
		return nil, fmt.Errorf("encode job request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, jobRequestTimeout)
	defer cancel()
	id := correlationID()
	resp, err := c.do(ctx, http.MethodPost, "jobs/request", body, http.Header{
		"Runner-Token": {c.token}, "X-Request-Id": {id}, "Content-Type": {"application/json"},
	})
	if err != nil {
		return nil, fmt.Errorf("request a job: %w", err)
	}
	defer drain(resp)
	if u := resp.Header.Get("X-Gitlab-Last-Update"); u != "" {
		c.mu.Lock()
		c.lastUpdate = u
		c.mu.Unlock()
	}
	switch resp.StatusCode {
	case http.StatusNoContent:
		return nil, nil
	case http.StatusCreated:
	default:
		return nil, fmt.Errorf("request a job: HTTP status %s", resp.Status)
	}
	job := &received{correlationID: id}
	if err := json.NewDecoder(resp.Body).Decode(&job.Job); err != nil {
		return nil, fmt.Errorf("decode the job: %w", err)
	}
	if answered := resp.Header.Get("X-Request-Id"); answered != "" {
		job.correlationID = answered
	}
	return job, nil
}

// jobServer is the part of the API that one job's trace uses.
type jobServer struct {
	*client
	id         int64
	jobToken   string
	debugTrace bool
}

func (s *jobServer) Patch(ctx context.Context, content []byte, offset int64) (trace.Reply, error) {
	path := fmt.Sprintf("jobs/%d/trace?debug_trace=%t", s.id, s.debugTrace)
	return s.send(ctx, http.MethodPatch, path, content, http.Header{
		"Content-Type":  {"text/plain"},
		"Content-Range": {fmt.Sprintf("%d-%d", offset, offset+int64(len(content))-1)},
	})
}

// update is UpdateJobRequest of gitlab-runner common/network.go.
type update struct {
	Info          map[string]any `json:"info"`
	Token         string         `json:"token,omitempty"`
	State         string         `json:"state,omitempty"`
	FailureReason string         `json:"failure_reason,omitempty"`
	Checksum      string         `json:"checksum,omitempty"`
	Output        output         `json:"output"`
	ExitCode      int            `json:"exit_code,omitempty"`
}

type output struct {
	Checksum string `json:"checksum,omitempty"`
	Bytesize int64  `json:"bytesize,omitempty"`
}

func (s *jobServer) Update(ctx context.Context, state trace.State) (trace.Reply, error) {
	body, err := json.Marshal(update{
		Info: s.info(), Token: s.jobToken, State: state.State, FailureReason: state.FailureReason,
		Checksum: state.Checksum, Output: output{state.Checksum, state.Size}, ExitCode: state.ExitCode,
	})
	if err != nil {
		return trace.Reply{}, fmt.Errorf("encode job update: %w", err)
	}
	return s.send(ctx, http.MethodPut, fmt.Sprintf("jobs/%d", s.id), body, http.Header{
		"Content-Type": {"application/json"},
	})
}

func (s *jobServer) send(ctx context.Context, method, path string, body []byte, header http.Header) (trace.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	header.Set("Job-Token", s.jobToken)
	header.Set("X-Request-Id", correlationID())
	resp, err := s.do(ctx, method, path, body, header)
	if err != nil {
		return trace.Reply{}, fmt.Errorf("job %d: %w", s.id, err)
	}
	defer drain(resp)
	seconds, _ := strconv.Atoi(resp.Header.Get("X-Gitlab-Trace-Update-Interval"))
	return trace.Reply{
		Code:      resp.StatusCode,
		JobStatus: resp.Header.Get("Job-Status"),
		Interval:  time.Duration(seconds) * time.Second,
		Offset:    rangeEnd(resp.Header.Get("Range")),
	}, nil
}

// rangeEnd reads the 17 of "0-17" (gitlab-runner network/patch_response.go).
func rangeEnd(header string) int64 {
	_, end, _ := strings.Cut(header, "-")
	n, _ := strconv.ParseInt(end, 10, 64)
	return n
}

func (c *client) do(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+"/api/v4/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header = header
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent())
	return c.http.Do(req)
}

// drain lets the connection be used again.
func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
}

func correlationID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}
