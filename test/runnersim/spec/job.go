// Package spec is the job payload as gitlab-runner 19.3 decodes it from
// GitLab's answer to POST /api/v4/jobs/request and writes it again into
// JOB_RESPONSE_FILE: the same fields in the same order, with the same ones left
// out when empty (gitlab-runner common/spec/spec.go:16-568).
package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// DefaultTimeout is what a job without runner_info.timeout gets
// (gitlab-runner common/consts.go:9).
const DefaultTimeout = 7200 * time.Second

// Job is one job as GitLab hands it out.
type Job struct {
	ID            int64         `json:"id"`
	Token         string        `json:"token"`
	AllowGitFetch bool          `json:"allow_git_fetch"`
	JobInfo       JobInfo       `json:"job_info"`
	GitInfo       GitInfo       `json:"git_info"`
	RunnerInfo    RunnerInfo    `json:"runner_info"`
	Inputs        Inputs        `json:"inputs"`
	Variables     Variables     `json:"variables"`
	Steps         []Step        `json:"steps"`
	Image         Image         `json:"image"`
	Services      []Image       `json:"services"`
	Artifacts     []Artifact    `json:"artifacts"`
	Cache         []Cache       `json:"cache"`
	Credentials   []Credentials `json:"credentials"`
	Dependencies  []Dependency  `json:"dependencies"`
	Features      Features      `json:"features"`
	// Secrets and Run are kept as they came: the simulator can't serve them
	// and refuses a job that has any.
	Secrets        map[string]json.RawMessage `json:"secrets,omitempty"`
	Hooks          []Hook                     `json:"hooks,omitempty"`
	Run            json.RawMessage            `json:"run,omitempty"`
	PolicyOptions  PolicyOptions              `json:"policy_options"`
	SuspendOptions SuspendOptions             `json:"suspend_options"`
}

// JobInfo names the job and its project.
type JobInfo struct {
	Name                                     string  `json:"name"`
	Stage                                    string  `json:"stage"`
	PipelineID                               int64   `json:"pipeline_id"`
	ProjectID                                int64   `json:"project_id"`
	ProjectName                              string  `json:"project_name"`
	ProjectFullPath                          string  `json:"project_full_path"`
	NamespaceID                              int64   `json:"namespace_id"`
	RootNamespaceID                          int64   `json:"root_namespace_id"`
	OrganizationID                           int64   `json:"organization_id"`
	InstanceID                               string  `json:"instance_id"`
	InstanceUUID                             string  `json:"instance_uuid"`
	UserID                                   int64   `json:"user_id"`
	ScopedUserID                             *int64  `json:"scoped_user_id,omitempty"`
	TimeInQueueSeconds                       float64 `json:"time_in_queue_seconds"`
	ProjectJobsRunningOnInstanceRunnersCount string  `json:"project_jobs_running_on_instance_runners_count"`
	QueueSize                                int64   `json:"queue_size"`
	QueueDepth                               int64   `json:"queue_depth"`
}

// GitInfo says what to check out. RepoURL carries the job token.
type GitInfo struct {
	RepoURL          string   `json:"repo_url"`
	RepoObjectFormat string   `json:"repo_object_format"`
	Ref              string   `json:"ref"`
	Sha              string   `json:"sha"`
	BeforeSha        string   `json:"before_sha"`
	RefType          string   `json:"ref_type"`
	Refspecs         []string `json:"refspecs"`
	Depth            int      `json:"depth"`
	Protected        *bool    `json:"protected"`
}

// RunnerInfo holds the job's timeout in seconds.
type RunnerInfo struct {
	UUID    string `json:"uuid"`
	Timeout int    `json:"timeout"`
}

// Inputs reads anything and writes {}: the runner interpolates inputs before a
// driver sees the job, and its own type has no exported field to write.
type Inputs struct{}

// UnmarshalJSON ignores the inputs.
func (*Inputs) UnmarshalJSON([]byte) error { return nil }

// Step is one script of the job: "script", "after_script", "release"...
type Step struct {
	Name         string   `json:"name"`
	Script       []string `json:"script"`
	Timeout      int      `json:"timeout"`
	When         string   `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
}

// Image is the job's image, or a service.
type Image struct {
	Name            string          `json:"name"`
	Alias           string          `json:"alias,omitempty"`
	Command         []string        `json:"command,omitempty"`
	Entrypoint      []string        `json:"entrypoint,omitempty"`
	Ports           []Port          `json:"ports,omitempty"`
	Variables       Variables       `json:"variables,omitempty"`
	PullPolicies    []string        `json:"pull_policy,omitempty"`
	ExecutorOptions ExecutorOptions `json:"executor_opts"`
}

// Port is a service's port.
type Port struct {
	Number   int    `json:"number,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Name     string `json:"name,omitempty"`
}

// ExecutorOptions are always written, also when GitLab sent none.
type ExecutorOptions struct {
	Docker struct {
		Platform string      `json:"platform"`
		User     StringOrInt `json:"user"`
	} `json:"docker"`
	Kubernetes struct {
		User StringOrInt `json:"user"`
	} `json:"kubernetes"`
}

// StringOrInt reads a string or a number and writes a string.
type StringOrInt string

// UnmarshalJSON accepts both forms.
func (s *StringOrInt) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*s = StringOrInt(text)
		return nil
	}
	var number int64
	if err := json.Unmarshal(data, &number); err != nil {
		return fmt.Errorf("neither a string nor a number: %s", data)
	}
	*s = StringOrInt(strconv.FormatInt(number, 10))
	return nil
}

// Artifact is one entry of the job's artifacts.
type Artifact struct {
	Name      string   `json:"name"`
	Untracked bool     `json:"untracked"`
	Paths     []string `json:"paths"`
	Exclude   []string `json:"exclude"`
	When      string   `json:"when"`
	Type      string   `json:"artifact_type"`
	Format    string   `json:"artifact_format"`
	ExpireIn  string   `json:"expire_in"`
}

// Cache is one entry of the job's caches.
type Cache struct {
	Key          string   `json:"key"`
	Untracked    bool     `json:"untracked"`
	Policy       string   `json:"policy"`
	Paths        []string `json:"paths"`
	When         string   `json:"when"`
	FallbackKeys []string `json:"fallback_keys"`
}

// Credentials are a registry's login.
type Credentials struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// Dependency is a job whose artifacts are downloaded first.
type Dependency struct {
	ID            int64  `json:"id"`
	Token         string `json:"token"`
	Name          string `json:"name"`
	ArtifactsFile struct {
		Filename string `json:"filename"`
		Size     int64  `json:"size"`
	} `json:"artifacts_file"`
}

// Features are what this GitLab instance understands.
type Features struct {
	TraceSections     bool             `json:"trace_sections"`
	TokenMaskPrefixes []string         `json:"token_mask_prefixes"`
	FailureReasons    []string         `json:"failure_reasons"`
	Tracing           *json.RawMessage `json:"tracing"`
}

// Hook is a script of hooks:pre_get_sources_script and its sibling.
type Hook struct {
	Name   string   `json:"name"`
	Script []string `json:"script"`
}

// PolicyOptions tell of a job that a security policy added.
type PolicyOptions struct {
	PolicyJob                  bool     `json:"execution_policy_job"`
	Name                       string   `json:"policy_name"`
	VariableOverrideAllowed    *bool    `json:"policy_variables_override_allowed,omitempty"`
	VariableOverrideExceptions []string `json:"policy_variables_override_exceptions,omitempty"`
}

// SuspendOptions are for environments that outlive a job.
type SuspendOptions struct {
	SuspendOnSuccess      bool   `json:"suspend_on_success,omitempty"`
	SuspendOnFailure      bool   `json:"suspend_on_failure,omitempty"`
	RuntimeEnvironmentKey string `json:"runtime_environment_key,omitempty"`
}

// Timeout is the whole job's time limit.
func (j *Job) Timeout() time.Duration {
	if j.RunnerInfo.Timeout <= 0 {
		return DefaultTimeout
	}
	return time.Duration(j.RunnerInfo.Timeout) * time.Second
}

// Aliases are an image's further host names.
func (i *Image) Aliases() []string {
	return strings.Fields(strings.ReplaceAll(i.Alias, ",", " "))
}

// Applies tells whether a "when" of an artifact or a cache fits the job's
// result (gitlab-runner common/spec/spec.go:317, 434).
func Applies(when string, success bool) bool {
	if success {
		return when == "" || when == "on_success" || when == "always"
	}
	return when == "on_failure" || when == "always"
}

// Hook returns the lines of the named hook, or nothing.
func (j *Job) Hook(name string) []string {
	for _, h := range j.Hooks {
		if h.Name == name {
			return h.Script
		}
	}
	return nil
}

// ProjectDir is the project's folder below a builds or cache folder: the
// repository URL's path (gitlab-runner common/build.go:411-457).
func (j *Job) ProjectDir() string {
	slug, err := projectSlug(j.GitInfo.RepoURL)
	if err != nil {
		return fmt.Sprintf("project-%d", j.JobInfo.ProjectID)
	}
	return slug
}

func projectSlug(repoURL string) (string, error) {
	u, err := url.Parse(repoURL)
	if err != nil {
		return "", err
	}
	if u.Host == "" {
		return "", errors.New("no host")
	}
	slug := path.Clean(strings.TrimSuffix(u.Path, ".git"))
	if slug == "." || strings.Contains(slug, "..") {
		return "", errors.New("no path")
	}
	return slug, nil
}
