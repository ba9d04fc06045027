package gitlabsim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// payload is what a runner gets when it takes a job.
func (s *Server) payload(job *Job, runner *Runner) (*Payload, error) {
	now := time.Now()
	variables, err := job.variables(runner, now)
	if err != nil {
		return nil, err
	}
	p := &Payload{
		ID: job.ID, Token: job.Token, AllowGitFetch: true,
		JobInfo: s.jobInfo(job), GitInfo: job.gitInfo(),
		RunnerInfo: RunnerInfo{Timeout: int64(job.spec.Timeout.Seconds())},
		Inputs:     []struct{}{}, Variables: variables, Steps: job.steps(),
		Services: orEmpty(job.spec.Services), Artifacts: job.wantedArtifacts(), Cache: job.caches(),
		Credentials: orEmpty(job.spec.Credentials), Dependencies: job.dependencies(),
		Features: Features{
			TraceSections: true, TokenMaskPrefixes: []string{"glpat-"}, FailureReasons: failureReasons,
		},
		Secrets: map[string]any{}, Hooks: orEmpty(job.spec.Hooks),
	}
	if job.spec.Image.Name != "" {
		p.Image = &job.spec.Image
	}
	return p, nil
}

func (s *Server) jobInfo(job *Job) JobInfo {
	project := job.Pipeline.Project
	return JobInfo{
		ID: job.ID, Name: job.spec.Name, Stage: job.spec.Stage, PipelineID: job.Pipeline.ID,
		ProjectID: project.ID, ProjectName: project.name(), ProjectFullPath: project.Path,
		NamespaceID: project.NamespaceID, RootNamespaceID: s.rootNamespaceID(project), OrganizationID: 1,
		InstanceID: s.instance, InstanceUUID: s.instance, UserID: userID,
		TimeInQueueSeconds:                       job.Result().Waited().Seconds(),
		ProjectJobsRunningOnInstanceRunnersCount: "0",
	}
}

func (j *Job) gitInfo() GitInfo {
	depth := j.depth()
	return GitInfo{
		RepoURL: j.repoURL(), RepoObjectFormat: "sha1", Ref: j.Pipeline.Ref, SHA: j.Pipeline.SHA,
		BeforeSHA: j.Pipeline.commit.before, RefType: j.Pipeline.refType(),
		Refspecs: j.Pipeline.refspecs(depth), Depth: depth, Protected: j.Pipeline.Protected,
	}
}

// depth is the variable GIT_DEPTH if the job or its project sets that (GitLab
// app/presenters/ci/build_runner_presenter.rb, git_depth).
func (j *Job) depth() int {
	if j.spec.FullClone {
		return 0
	}
	depth := defaultDepth
	for _, v := range slices.Concat(j.Pipeline.Project.Variables, j.spec.Variables) {
		if n, err := strconv.Atoi(v.Value); v.Key == "GIT_DEPTH" && err == nil {
			depth = n
		}
	}
	return depth
}

// repoURL is the repository's address with the job token in it.
func (j *Job) repoURL() string {
	return "http://gitlab-ci-token:" + j.Token + "@" + j.server.host() + j.Pipeline.Project.urlPath() + ".git"
}

func (j *Job) steps() []Step {
	if len(j.spec.Steps) > 0 {
		return j.spec.Steps
	}
	timeout := int64(j.spec.Timeout.Seconds())
	steps := []Step{{Name: "script", Script: orEmpty(j.spec.Script), Timeout: timeout, When: "on_success"}}
	if len(j.spec.AfterScript) > 0 {
		steps = append(steps, Step{
			Name: "after_script", Script: j.spec.AfterScript, Timeout: timeout, When: "always", AllowFailure: true,
		})
	}
	return steps
}

func (j *Job) wantedArtifacts() []Artifact {
	list := slices.Clone(j.spec.Artifacts)
	for i := range list {
		if list[i].Type == "" {
			list[i].Type = archive
		}
		if list[i].Format == "" {
			list[i].Format = "zip"
		}
	}
	return list
}

// caches get a suffix that keeps protected refs and others apart
// (GitLab app/models/ci/build.rb, cache).
func (j *Job) caches() []Cache {
	list := make([]Cache, 0, len(j.spec.Cache))
	for _, c := range j.spec.Cache {
		suffix := "-non_protected"
		if j.Pipeline.Protected && !c.Unprotect {
			suffix = "-protected"
		}
		if c.Key == "" {
			c.Key = "default"
		}
		c.Key += suffix
		if c.Policy == "" {
			c.Policy = "pull-push"
		}
		if c.When == "" {
			c.When = "on_success"
		}
		fallback := []string{}
		for _, key := range c.FallbackKeys {
			fallback = append(fallback, strings.TrimSpace(key)+suffix)
		}
		c.FallbackKeys = fallback
		list = append(list, c)
	}
	return list
}

// orEmpty makes null an empty list.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
