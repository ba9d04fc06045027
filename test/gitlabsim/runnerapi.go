package gitlabsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxPatch bounds one piece of a log; a runner sends 1 MiB at most.
const maxPatch = 64 << 20

// maxBody bounds any other request of the API.
const maxBody = 16 << 20

// verifyRunner is POST /api/v4/runners/verify.
func (s *Server) verifyRunner(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Token string `json:"token"`
	}
	if !decode(w, r, &body) {
		return
	}
	runner := s.runnerByToken(body.Token)
	if runner == nil {
		forbidden(w, "")
		return
	}
	reply(w, http.StatusOK, map[string]any{"id": runner.ID, "token": runner.Token, "token_expires_at": nil})
}

// requestJob is POST /api/v4/jobs/request. While there is no job it holds the
// request, as GitLab Workhorse does with apiCiLongPollingDuration.
func (s *Server) requestJob(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Token string `json:"token"`
	}
	if !decode(w, r, &body) {
		return
	}
	runner := s.runnerByToken(body.Token)
	if runner == nil {
		forbidden(w, "")
		return
	}
	job, updates := s.waitForJob(r, runner)
	if job == nil {
		w.Header().Set("X-GitLab-Last-Update", strconv.FormatInt(updates, 10))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	payload, err := s.payload(job, runner)
	if err != nil {
		job.finish(Failed, "data_integrity_failure", 0, true)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, http.StatusCreated, payload)
}

// waitForJob returns nil when nothing came in time, and how often the queue had
// changed by then.
func (s *Server) waitForJob(r *http.Request, runner *Runner) (*Job, int64) {
	timer := time.NewTimer(max(s.opts.LongPoll, 0))
	defer timer.Stop()
	for {
		s.mu.Lock()
		queued, updates := s.queued, s.updates
		s.mu.Unlock()
		if r.Context().Err() == nil {
			if job := s.take(runner); job != nil {
				return job, updates
			}
		}
		if s.opts.LongPoll < 0 {
			return nil, updates
		}
		select {
		case <-queued:
		case <-timer.C:
			return nil, updates
		case <-r.Context().Done():
			return nil, updates
		case <-s.stopped:
			return nil, updates
		}
	}
}

// runningJob is the job of a request that only the job's own runner may make.
// It answers 403, with the job's state, for any other.
// (GitLab lib/api/ci/helpers/runner.rb, authenticate_job!)
func (s *Server) runningJob(w http.ResponseWriter, r *http.Request, token string) *Job {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	job := s.job(id)
	if job == nil || job.Token != token {
		forbidden(w, "")
		return nil
	}
	if !job.alive() {
		w.Header().Set("Job-Status", string(job.Result().State))
		forbidden(w, "Job is not running")
		return nil
	}
	return job
}

// jobToken of a request: the header that runners send, or the parameter.
func jobToken(r *http.Request) string {
	if token := r.URL.Query().Get("token"); token != "" {
		return token
	}
	return r.Header.Get("Job-Token")
}

// patchTrace is PATCH /api/v4/jobs/:id/trace. Only the start of Content-Range
// counts: runners were wrong about its end for years
// (GitLab app/services/ci/append_build_trace_service.rb).
func (s *Server) patchTrace(w http.ResponseWriter, r *http.Request) {
	job := s.runningJob(w, r, jobToken(r))
	if job == nil {
		return
	}
	start, _, ok := strings.Cut(r.Header.Get("Content-Range"), "-")
	offset, err := strconv.ParseInt(start, 10, 64)
	if !ok || err != nil {
		message(w, http.StatusBadRequest, "400 Missing header Content-Range")
		return
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPatch))
	if err != nil {
		message(w, http.StatusBadRequest, err.Error())
		return
	}
	size, err := job.trace.append(content, offset)
	if err != nil {
		message(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Range", fmt.Sprintf("0-%d", size))
	if size != offset+int64(len(content)) {
		message(w, http.StatusRequestedRangeNotSatisfiable, "416 Range Not Satisfiable")
		return
	}
	job.update(func(r *Result) {
		if r.FirstTrace.IsZero() {
			r.FirstTrace = time.Now()
		}
	})
	s.setJobHeaders(w, job)
	w.WriteHeader(http.StatusAccepted)
}

// setJobHeaders tells the runner of a cancelled job, and when to come again.
func (s *Server) setJobHeaders(w http.ResponseWriter, job *Job) {
	w.Header().Set("Job-Status", string(job.Result().State))
	w.Header().Set("X-GitLab-Trace-Update-Interval", strconv.Itoa(int(s.opts.UpdateInterval.Seconds())))
}

// jobUpdate is what PUT /api/v4/jobs/:id brings.
type jobUpdate struct {
	Token         string `json:"token"`
	State         string `json:"state"`
	FailureReason string `json:"failure_reason"`
	ExitCode      int    `json:"exit_code"`
	Checksum      string `json:"checksum"`
	Output        struct {
		Checksum string `json:"checksum"`
		Bytesize int64  `json:"bytesize"`
	} `json:"output"`
}

// updateJob is PUT /api/v4/jobs/:id. It answers 202 as long as the log isn't
// complete (GitLab app/services/ci/update_build_state_service.rb).
func (s *Server) updateJob(w http.ResponseWriter, r *http.Request) {
	var u jobUpdate
	if !decode(w, r, &u) {
		return
	}
	if u.Token == "" {
		u.Token = jobToken(r)
	}
	job := s.runningJob(w, r, u.Token)
	if job == nil {
		return
	}
	status := http.StatusOK
	switch State(u.State) {
	case Pending, Running: // a sign of life
	case Success, Failed:
		status = job.accept(u)
	default:
		status = http.StatusBadRequest
	}
	s.setJobHeaders(w, job)
	message(w, status, strconv.Itoa(status))
}

func (j *Job) accept(u jobUpdate) int {
	size, _ := j.trace.sum()
	if size < u.Output.Bytesize {
		return http.StatusAccepted
	}
	if u.Output.Checksum == "" {
		u.Output.Checksum = u.Checksum
	}
	intact := j.trace.matches(u.Output.Checksum, u.Output.Bytesize)
	j.finish(State(u.State), u.FailureReason, u.ExitCode, intact)
	return http.StatusOK
}

// decode reads a request in JSON and answers 400 if it isn't.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into)
	if err != nil && !errors.Is(err, io.EOF) {
		message(w, http.StatusBadRequest, "400 Bad request: "+err.Error())
		return false
	}
	return true
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func message(w http.ResponseWriter, status int, text string) {
	reply(w, status, map[string]string{"message": text})
}

func forbidden(w http.ResponseWriter, reason string) {
	text := "403 Forbidden"
	if reason != "" {
		text += " - " + reason
	}
	message(w, http.StatusForbidden, text)
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	message(w, http.StatusNotFound, "404 Not Found")
}
