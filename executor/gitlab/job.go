// Package gitlab is the contract with GitLab and its runner, as far as a
// custom executor sees it: the job response, variables and their expansion,
// stages, exit codes.
package gitlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxJobResponse bounds the job response file: GitLab's own limits on
// variables and scripts keep a real one far below it.
const maxJobResponse = 64 << 20

// defaultTimeout is GitLab's default job timeout, for a response without one.
const defaultTimeout = time.Hour

// Job is what we use of the job response that the runner leaves in
// JOB_RESPONSE_FILE.
//
// The runner's own type can't decode that file: its "inputs" are written as {}
// and read as a list, its "run" is written as a list and read as a string
// (gitlab-runner common/spec/spec.go:542). Both are left out here.
//
// Only the fields of Job itself, JobInfo, GitInfo and RunnerInfo can be
// trusted: everything in Variables, also under a predefined name, can be set by
// whoever writes the job.
type Job struct {
	ID           int64        `json:"id"`
	Token        string       `json:"token"`
	JobInfo      JobInfo      `json:"job_info"`
	GitInfo      GitInfo      `json:"git_info"`
	RunnerInfo   RunnerInfo   `json:"runner_info"`
	Variables    Variables    `json:"variables"`
	Image        Image        `json:"image"`
	Services     []Image      `json:"services"`
	Cache        []Cache      `json:"cache"`
	Credentials  []Credential `json:"credentials"`
	Features     Features     `json:"features"`
	Dependencies []Dependency `json:"dependencies"`
}

// JobInfo names the job and where it belongs.
type JobInfo struct {
	Name            string `json:"name"`
	Stage           string `json:"stage"`
	PipelineID      int64  `json:"pipeline_id"`
	ProjectID       int64  `json:"project_id"`
	ProjectName     string `json:"project_name"`
	ProjectFullPath string `json:"project_full_path"`
	InstanceID      string `json:"instance_id"`
	InstanceUUID    string `json:"instance_uuid"`
}

// GitInfo says what is built. RepoURL holds the job token: see Job.URL.
type GitInfo struct {
	RepoURL string `json:"repo_url"`
	Ref     string `json:"ref"`
	RefType string `json:"ref_type"`
	Sha     string `json:"sha"`
	// Protected is nil where GitLab is older than 18.3.
	Protected *bool `json:"protected"`
}

// RunnerInfo is the runner's share in the response. Timeout is in seconds.
type RunnerInfo struct {
	UUID    string `json:"uuid"`
	Timeout int64  `json:"timeout"`
}

// Image is a container image: the job's, or a service's.
type Image struct {
	Name string `json:"name"`
	// Alias holds one or more host names, separated by commas or spaces.
	Alias      string    `json:"alias"`
	Entrypoint []string  `json:"entrypoint"`
	Command    []string  `json:"command"`
	Variables  Variables `json:"variables"`
	// PullPolicy is a list of GitLab's names: always, if-not-present, never.
	PullPolicy   []string     `json:"pull_policy"`
	ExecutorOpts ExecutorOpts `json:"executor_opts"`
}

// ExecutorOpts are image:docker and image:kubernetes.
type ExecutorOpts struct {
	Docker struct {
		Platform string       `json:"platform"`
		User     TextOrNumber `json:"user"`
	} `json:"docker"`
	Kubernetes struct {
		User TextOrNumber `json:"user"`
	} `json:"kubernetes"`
}

// TextOrNumber is a value that people write with or without quotes.
type TextOrNumber string

// UnmarshalJSON implements json.Unmarshaler.
func (t *TextOrNumber) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*t = TextOrNumber(text)
		return nil
	}
	var number json.Number
	if err := json.Unmarshal(data, &number); err != nil {
		return errors.New("expected a string or a number")
	}
	*t = TextOrNumber(number)
	return nil
}

// Cache is one entry of the job's cache keyword (gitlab-runner
// common/spec/spec.go, Cache). Key, Policy, Paths and FallbackKeys may hold
// variables.
type Cache struct {
	// Key ends in "-protected" or "-non_protected" where the project separates
	// caches by protection.
	Key       string `json:"key"`
	Untracked bool   `json:"untracked"`
	// Policy is pull-push, pull or push; empty means the first.
	Policy string   `json:"policy"`
	Paths  []string `json:"paths"`
	// When is on_success, on_failure or always; empty means the first.
	When         string   `json:"when"`
	FallbackKeys []string `json:"fallback_keys"`
}

// Credential is a login that GitLab sends with the job: its own registry's, or
// a dependency proxy's.
type Credential struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// Features are what the GitLab instance can do.
type Features struct {
	TraceSections bool `json:"trace_sections"`
}

// Dependency is a job whose artifacts this one downloads.
type Dependency struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// LoadJob reads a job response file. Errors name the file and what is missing.
func LoadJob(path string) (*Job, error) {
	if path == "" {
		return nil, errors.New("no job response: JOB_RESPONSE_FILE is not set; GitLab Runner sets it since 14.1")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open job response: %w", err)
	}
	defer f.Close()
	job, err := ParseJob(io.LimitReader(f, maxJobResponse+1))
	if err != nil {
		return nil, fmt.Errorf("job response %s: %w", path, err)
	}
	return job, nil
}

// ParseJob decodes a job response and checks that it has what every stage
// needs.
func ParseJob(r io.Reader) (*Job, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(data) > maxJobResponse {
		return nil, fmt.Errorf("larger than %d MiB", maxJobResponse>>20)
	}
	var job Job
	if err := json.Unmarshal(data, &job); err != nil {
		return nil, fmt.Errorf("not a job in JSON: %w", err)
	}
	var problems []error
	missing := func(field string, have bool) {
		if !have {
			problems = append(problems, fmt.Errorf("%s is missing", field))
		}
	}
	missing("id", job.ID > 0)
	missing("job_info.project_id", job.JobInfo.ProjectID > 0)
	missing("git_info.repo_url", job.GitInfo.RepoURL != "")
	return &job, errors.Join(problems...)
}

// Timeout is the time GitLab gives the job, counted from the moment it was
// handed out.
func (j *Job) Timeout() time.Duration {
	if j.RunnerInfo.Timeout <= 0 {
		return defaultTimeout
	}
	return time.Duration(j.RunnerInfo.Timeout) * time.Second
}

// Instance tells GitLab instances apart: two of them number their jobs alike.
func (j *Job) Instance() string {
	for _, id := range []string{j.JobInfo.InstanceUUID, j.JobInfo.InstanceID} {
		if id != "" {
			return id
		}
	}
	if u, err := url.Parse(j.GitInfo.RepoURL); err == nil {
		return u.Host
	}
	return "unknown"
}

// Grants are the names of the credentials that the job asks for with
// PODLANE_GRANTS, each once, in the order of the variable. Asking proves
// nothing: whoever writes a job may ask for anything.
func (j *Job) Grants() []string {
	asked := j.Variables.Expand(j.Variables.Get("PODLANE_GRANTS"))
	var names []string
	for _, name := range strings.FieldsFunc(asked, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// URL is the job's page, made from trusted fields, without credentials. It is
// empty if the repository's address can't be read.
func (j *Job) URL() string {
	u, err := url.Parse(j.GitInfo.RepoURL)
	if err != nil || u.Host == "" {
		return ""
	}
	u.User = nil
	u.Path = strings.TrimSuffix(u.Path, ".git") + "/-/jobs/" + strconv.FormatInt(j.ID, 10)
	return u.String()
}
