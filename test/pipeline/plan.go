package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"podlane/test/gitlabsim"
)

// Plan is one pipeline: its jobs in the order of waves, and within a wave of the
// file.
type Plan struct {
	Jobs []PlannedJob
}

// PlannedJob is a job that takes part.
type PlannedJob struct {
	Name string
	// Wave counts from 1: a job is one wave after the last of those it waits for.
	Wave int
	// After are the jobs that must end first.
	After []string
	// ByStage tells that After comes from the order of stages, not from needs.
	ByStage bool
	// Downloads are the jobs whose artifacts it gets, if they have any.
	Downloads    []string
	When         string
	AllowFailure bool
	Retry        Retry
	// Spec is the job for the simulator, but for its pipeline and dependencies.
	Spec gitlabsim.JobSpec
}

// ErrNoPipeline tells that the workflow rules or those of all jobs rule a
// pipeline out.
var ErrNoPipeline = errors.New("there is no pipeline for these facts")

// New plans a pipeline. It does nothing but compute.
func New(config *Config, facts Facts) (*Plan, error) {
	if config.Workflow != nil && facts.ruled(config.Workflow, config.Variables, "always").when == "never" {
		return nil, ErrNoPipeline
	}
	var jobs []chosen
	for _, job := range config.Jobs {
		if c, ok := facts.choose(config, job); ok {
			jobs = append(jobs, c)
		}
	}
	if len(jobs) == 0 {
		return nil, ErrNoPipeline
	}
	plan := &Plan{}
	var problems []error
	for _, c := range jobs {
		p, err := planJob(config, jobs, c, facts)
		problems = append(problems, err)
		plan.Jobs = append(plan.Jobs, p)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return plan, plan.setWaves()
}

// chosen is a job with what its rules decided.
type chosen struct {
	Job
	variables    []gitlabsim.Variable
	when         string
	allowFailure bool
}

// choose tells whether a job takes part. One without rules takes part in
// pipelines of branches and tags, and in all if there are workflow rules
// (GitLab lib/gitlab/ci/config/entry/processable.rb).
func (f Facts) choose(config *Config, job Job) (chosen, bool) {
	c := chosen{Job: job, variables: slices.Concat(config.Variables, job.Variables), when: job.When}
	if job.Rules == nil {
		// A manual job without rules doesn't hold up what comes after it.
		c.allowFailure = job.When == "manual"
		if job.AllowFailure != nil {
			c.allowFailure = *job.AllowFailure
		}
		return c, config.Workflow != nil || !f.MergeRequest
	}
	r := f.ruled(job.Rules, c.variables, job.When)
	c.when = r.when
	c.variables = append(c.variables, r.Variables...)
	for _, allow := range []*bool{job.AllowFailure, r.AllowFailure} {
		if allow != nil {
			c.allowFailure = *allow
		}
	}
	return c, r.when != "never"
}

// verdictOf is the first rule that holds.
type verdictOf struct {
	Rule
	when string
}

func (f Facts) ruled(rules []Rule, variables []gitlabsim.Variable, otherwise string) verdictOf {
	scope := f.scope(variables)
	for _, r := range rules {
		if r.If != nil && !r.If.True(scope) || !f.changed(r.Changes) {
			continue
		}
		if r.When != "" {
			otherwise = r.When
		}
		return verdictOf{Rule: r, when: otherwise}
	}
	return verdictOf{when: "never"}
}

func (f Facts) changed(patterns []string) bool {
	if patterns == nil || f.Changes == nil {
		return true
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return slices.ContainsFunc(f.Changes, func(path string) bool {
			ok, err := doublestar.Match(pattern, path)
			return err == nil && ok
		})
	})
}

func planJob(config *Config, jobs []chosen, c chosen, facts Facts) (PlannedJob, error) {
	p := PlannedJob{Name: c.Name, When: c.when, AllowFailure: c.allowFailure, Retry: c.Retry}
	p.Spec = c.spec(facts)
	var err error
	if c.Needs == nil {
		p.ByStage = true
		p.After = earlier(config, jobs, c)
		p.Downloads = slices.Clone(p.After)
	} else {
		err = p.addNeeds(config, jobs, c)
	}
	if c.Dependencies == nil {
		return p, err
	}
	for _, name := range c.Dependencies {
		if !slices.Contains(p.After, name) {
			err = errors.Join(err, fmt.Errorf("job %s: depends on %s, which doesn't come before it", c.Name, name))
		}
	}
	p.Downloads = slices.Clone(c.Dependencies)
	return p, err
}

// earlier are the jobs of earlier stages.
func earlier(config *Config, jobs []chosen, c chosen) []string {
	var names []string
	for _, other := range jobs {
		if slices.Index(config.Stages, other.Stage) < slices.Index(config.Stages, c.Stage) {
			names = append(names, other.Name)
		}
	}
	return names
}

func (p *PlannedJob) addNeeds(config *Config, jobs []chosen, c chosen) error {
	var problems []error
	for _, need := range c.Needs {
		i := slices.IndexFunc(jobs, func(other chosen) bool { return other.Name == need.Job })
		switch {
		case i < 0 && need.Optional:
			continue
		case i < 0:
			problems = append(problems, fmt.Errorf("job %s: needs %s, which isn't in the pipeline", c.Name, need.Job))
			continue
		case slices.Index(config.Stages, jobs[i].Stage) > slices.Index(config.Stages, c.Stage):
			problems = append(problems, fmt.Errorf("job %s: needs %s, which is in the later stage %s", c.Name, need.Job, jobs[i].Stage))
		}
		p.After = append(p.After, need.Job)
		if need.Artifacts {
			p.Downloads = append(p.Downloads, need.Job)
		}
	}
	return errors.Join(problems...)
}

// spec is the job's payload. Names of environments, their addresses and tags
// are expanded here, as GitLab does; the rest is left to the runner.
func (c chosen) spec(facts Facts) gitlabsim.JobSpec {
	scope := facts.scope(c.variables)
	spec := gitlabsim.JobSpec{
		Name: c.Name, Stage: c.Stage, Script: slices.Concat(c.BeforeScript, c.Script), AfterScript: c.AfterScript,
		Image: c.Image, Services: c.Services, Variables: overridden(c.variables), Cache: c.caches(facts.Blobs),
		Timeout: c.Timeout, IDTokens: c.IDTokens, Manual: c.when == "manual",
	}
	if c.Artifacts != nil {
		spec.Artifacts = []gitlabsim.Artifact{*c.Artifacts}
	}
	for _, tag := range c.Tags {
		spec.Tags = append(spec.Tags, expand(tag, scope))
	}
	if e := c.Environment; e != nil {
		spec.Environment = &gitlabsim.Environment{
			Name: expand(e.Name, scope), URL: expand(e.URL, scope), Action: e.Action, Tier: e.Tier,
		}
	}
	return spec
}

// overridden keeps the last of the variables of one name, in the place of the
// first.
func overridden(variables []gitlabsim.Variable) []gitlabsim.Variable {
	var list []gitlabsim.Variable
	for _, v := range variables {
		i := slices.IndexFunc(list, func(old gitlabsim.Variable) bool { return old.Key == v.Key })
		if i < 0 {
			list = append(list, v)
			continue
		}
		list[i] = v
	}
	return list
}

// setWaves numbers the jobs and sorts them by wave. Jobs that need each other
// are an error.
func (p *Plan) setWaves() error {
	waves := map[string]int{}
	for len(waves) < len(p.Jobs) {
		known := len(waves)
		for _, job := range p.Jobs {
			if wave, ok := waveOf(job, waves); ok {
				waves[job.Name] = wave
			}
		}
		if len(waves) == known {
			return fmt.Errorf("jobs need each other: %s", strings.Join(p.without(waves), ", "))
		}
	}
	for i := range p.Jobs {
		p.Jobs[i].Wave = waves[p.Jobs[i].Name]
	}
	slices.SortStableFunc(p.Jobs, func(a, b PlannedJob) int { return a.Wave - b.Wave })
	return nil
}

func waveOf(job PlannedJob, waves map[string]int) (int, bool) {
	wave := 1
	for _, name := range job.After {
		before, ok := waves[name]
		if !ok {
			return 0, false
		}
		wave = max(wave, before+1)
	}
	return wave, true
}

func (p *Plan) without(waves map[string]int) []string {
	var names []string
	for _, job := range p.Jobs {
		if waves[job.Name] == 0 {
			names = append(names, job.Name)
		}
	}
	return names
}

// String lists the plan, a line a job.
func (p *Plan) String() string {
	var b strings.Builder
	for _, job := range p.Jobs {
		fmt.Fprintf(&b, "wave %d  %s", job.Wave, job.Name)
		if job.When != "on_success" {
			fmt.Fprintf(&b, " (%s)", job.When)
		}
		if len(job.After) > 0 {
			fmt.Fprintf(&b, " after %s", strings.Join(job.After, ", "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
