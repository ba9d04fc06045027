package gitlabsim

// This file is the answer to POST /api/v4/jobs/request, under the names that
// GitLab's lib/api/entities/ci/job_request/ gives them and gitlab-runner
// common/spec/spec.go reads.

// Payload is a job as it is handed to a runner.
type Payload struct {
	ID            int64          `json:"id"`
	Token         string         `json:"token"`
	AllowGitFetch bool           `json:"allow_git_fetch"`
	JobInfo       JobInfo        `json:"job_info"`
	GitInfo       GitInfo        `json:"git_info"`
	RunnerInfo    RunnerInfo     `json:"runner_info"`
	Inputs        []struct{}     `json:"inputs"`
	Variables     []Variable     `json:"variables"`
	Steps         []Step         `json:"steps"`
	Image         *Image         `json:"image"`
	Services      []Image        `json:"services"`
	Artifacts     []Artifact     `json:"artifacts"`
	Cache         []Cache        `json:"cache"`
	Credentials   []Credential   `json:"credentials"`
	Dependencies  []Dependency   `json:"dependencies"`
	Features      Features       `json:"features"`
	Secrets       map[string]any `json:"secrets"`
	Hooks         []Hook         `json:"hooks"`
	PolicyOptions PolicyOptions  `json:"policy_options"`
}

// JobInfo names the job, its pipeline and its project.
type JobInfo struct {
	ID                                       int64   `json:"id"`
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
	TimeInQueueSeconds                       float64 `json:"time_in_queue_seconds"`
	ProjectJobsRunningOnInstanceRunnersCount string  `json:"project_jobs_running_on_instance_runners_count"`
	QueueSize                                int     `json:"queue_size"`
	QueueDepth                               int     `json:"queue_depth"`
}

// GitInfo says what to check out. RepoURL holds the job token.
type GitInfo struct {
	RepoURL          string   `json:"repo_url"`
	RepoObjectFormat string   `json:"repo_object_format"`
	Ref              string   `json:"ref"`
	SHA              string   `json:"sha"`
	BeforeSHA        string   `json:"before_sha"`
	RefType          string   `json:"ref_type"`
	Refspecs         []string `json:"refspecs"`
	Depth            int      `json:"depth"`
	Protected        bool     `json:"protected"`
}

// RunnerInfo is what the job gets of its runner. Timeout is in seconds.
type RunnerInfo struct {
	Timeout          int64  `json:"timeout"`
	RunnerSessionURL string `json:"runner_session_url,omitempty"`
}

// Variable of a job. A masked one is hidden in the log by the runner; a file
// one arrives in the job as the path of a file with the value; a raw one is not
// expanded.
type Variable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	Masked bool   `json:"masked"`
	File   bool   `json:"file,omitempty"`
	Raw    bool   `json:"raw,omitempty"`
}

// Step is a script of the job. Timeout is in seconds.
type Step struct {
	Name         string   `json:"name"`
	Script       []string `json:"script"`
	Timeout      int64    `json:"timeout"`
	When         string   `json:"when"`
	AllowFailure bool     `json:"allow_failure"`
}

// Image is the job's image, or a service.
type Image struct {
	Name         string         `json:"name"`
	Alias        string         `json:"alias,omitempty"`
	Entrypoint   []string       `json:"entrypoint"`
	Command      []string       `json:"command,omitempty"`
	Variables    []Variable     `json:"variables,omitempty"`
	PullPolicy   []string       `json:"pull_policy,omitempty"`
	ExecutorOpts map[string]any `json:"executor_opts,omitempty"`
}

// Artifact says what the job uploads. Type and Format default to archive and
// zip.
type Artifact struct {
	Name      string   `json:"name"`
	Untracked bool     `json:"untracked"`
	Paths     []string `json:"paths"`
	Exclude   []string `json:"exclude,omitempty"`
	When      string   `json:"when"`
	ExpireIn  string   `json:"expire_in"`
	Type      string   `json:"artifact_type"`
	Format    string   `json:"artifact_format"`
}

// Cache is one cache of the job, its key with GitLab's suffix.
type Cache struct {
	Key          string   `json:"key"`
	Untracked    bool     `json:"untracked"`
	Policy       string   `json:"policy"`
	Paths        []string `json:"paths"`
	When         string   `json:"when"`
	FallbackKeys []string `json:"fallback_keys"`
	// Unprotect makes a protected ref use the caches of unprotected ones.
	Unprotect bool `json:"-"`
}

// Credential is a registry login that goes with the job.
type Credential struct {
	Type     string `json:"type"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// Dependency is an earlier job whose artifacts this one downloads.
type Dependency struct {
	ID            int64          `json:"id"`
	Name          string         `json:"name"`
	Token         string         `json:"token"`
	ArtifactsFile *ArtifactsFile `json:"artifacts_file,omitempty"`
}

// ArtifactsFile is the archive of a dependency. Size is in bytes.
type ArtifactsFile struct {
	Filename string `json:"filename"`
	Size     int64  `json:"size"`
}

// Features are what this GitLab can do.
type Features struct {
	TraceSections     bool     `json:"trace_sections"`
	TokenMaskPrefixes []string `json:"token_mask_prefixes"`
	FailureReasons    []string `json:"failure_reasons"`
}

// Hook is a script that runs before or after the sources are fetched:
// pre_get_sources_script, post_get_sources_script.
type Hook struct {
	Name   string   `json:"name"`
	Script []string `json:"script"`
}

// PolicyOptions tell a policy's job from a project's.
type PolicyOptions struct {
	PolicyJob bool `json:"execution_policy_job"`
}

// failureReasons that GitLab knows and a runner may report
// (GitLab app/models/concerns/enums/ci/commit_status.rb).
var failureReasons = []string{
	"unknown_failure", "script_failure", "api_failure", "stuck_or_timeout_failure",
	"runner_system_failure", "missing_dependency_failure", "runner_unsupported",
	"job_execution_timeout", "data_integrity_failure", "image_pull_failure",
	"runner_configuration_error", "runner_external_dependency_failure",
	"trace_size_exceeded",
}
