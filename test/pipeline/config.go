package pipeline

import (
	"time"

	"podlane/test/gitlabsim"
)

// Config is a parsed .gitlab-ci.yml.
type Config struct {
	Stages    []string
	Variables []gitlabsim.Variable
	// Workflow rules decide whether there is a pipeline. Nil: there always is.
	Workflow []Rule
	// Jobs in the order of the file, without hidden ones.
	Jobs []Job
}

// Job is one job with what it inherits from default and extends.
type Job struct {
	Name         string
	Stage        string
	Image        gitlabsim.Image
	Services     []gitlabsim.Image
	Variables    []gitlabsim.Variable
	BeforeScript []string
	Script       []string
	AfterScript  []string
	// Needs is nil without the keyword, and empty for a job that waits for none.
	Needs []Need
	// Dependencies is nil without the keyword.
	Dependencies  []string
	Rules         []Rule
	When          string
	AllowFailure  *bool
	Artifacts     *gitlabsim.Artifact
	Cache         []Cache
	Environment   *Environment
	IDTokens      map[string]gitlabsim.IDToken
	Timeout       time.Duration
	Tags          []string
	Interruptible bool
	Retry         Retry

	line int
}

// Need is a job that must end first.
type Need struct {
	Job string
	// Artifacts tells whether its archive is downloaded.
	Artifacts bool
	// Optional needs don't have to be in the pipeline.
	Optional bool
}

// Rule includes a job in a pipeline, or leaves it out with when: never.
type Rule struct {
	// If is nil without a condition.
	If *Expression
	// Changes are globs, one of which a changed file must match. Nil: any.
	Changes      []string
	When         string
	AllowFailure *bool
	Variables    []gitlabsim.Variable
}

// Cache is an entry of cache, its key not yet computed.
type Cache struct {
	// Files make the key if there are any; else Key is it.
	Files  []string
	Prefix string
	gitlabsim.Cache
}

// Environment that a job deploys to.
type Environment struct {
	Name, URL, OnStop, AutoStopIn, Action, Tier string
}

// Retry says how often a failed job is tried again: Max times, for one of the
// failure reasons in When, or for any if it is empty.
type Retry struct {
	Max  int
	When []string
}
