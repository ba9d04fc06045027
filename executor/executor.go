// Package executor has the four stages that GitLab Runner calls, one file a
// stage. Each is a short process of its own: what it needs to know it takes
// from the job response, the settings and the cluster.
package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/redact"
)

// Stage is what every stage works on.
type Stage struct {
	Job      *gitlab.Job
	Settings *settings.Settings
	// Attempt tells the runner's attempts at this job apart: see AttemptOf.
	Attempt string
	// RunnerVariables are the variables as the runner hands them to its driver:
	// the job's own, expanded, and those that it adds itself. Whoever writes a
	// job controls them.
	RunnerVariables gitlab.Variables
	// Proxy is for requests to S3, as in http.Transport; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// Log gets lines for the people who read the job log; Output gets what the
	// job's own scripts print, byte for byte. Both end up in the same place.
	Log    *joblog.Log
	Output io.Writer
	// Secrets is what Log and Output leave out: whatever is fetched is added
	// before it is used.
	Secrets *redact.Set
	// StateDir is the attempt's own folder on the runner's host, and SealKey
	// what stages seal with what they leave there for each other. Without a key
	// each stage logs in to Vault on its own.
	StateDir string
	SealKey  redact.Secret
	// Observer is told how the stage went: see Observed.
	Observer Observer

	seen *Observation
	// attempts is how often a request to S3 is sent at most; 0 means as the store
	// has it.
	attempts int

	credsOnce sync.Once
	creds     *credentials
	credsErr  error
	tokens    *kubeTokens // set by connect; nil if access does not come from Vault
}

// SealKeyVariable is how the key travels: config makes it, the runner hands it
// to the attempt's other stages as an environment variable, without the prefix
// that a job's own variables have (job_env in gitlab-runner
// executors/custom/api/config.go).
const SealKeyVariable = "PODLANE_SEAL_KEY"

// HideSecrets makes Log and Output leave out what the job response itself holds.
func (s *Stage) HideSecrets() { s.Secrets.Add(secretsOf(s.Job)...) }

// AttemptOf names an attempt after the folder of its job response: the runner
// makes a new one each time it tries to prepare a job (gitlab-runner
// executors/custom/custom.go:101), and calls every stage of that attempt with
// the same one.
func AttemptOf(jobResponseFile string) string {
	sum := sha256.Sum256([]byte(filepath.Dir(jobResponseFile)))
	return hex.EncodeToString(sum[:6])
}

// connect returns access to the cluster: with a token from Vault if there is
// one, else as the settings say. It asks nobody for anything yet.
func (s *Stage) connect() (*pod.Client, error) {
	namespace, err := pod.Namespace(s.Job, s.Settings)
	if err != nil {
		return nil, jobError(err)
	}
	var tokens pod.TokenSource
	if s.Settings.Vault.ForKubernetes() {
		creds, err := s.credentials()
		if err != nil {
			return nil, err
		}
		s.tokens = creds.kubeTokens(namespace, s.Log.Warnf, s.seen)
		tokens = s.tokens
	}
	client, err := pod.Connect(s.Settings, tokens, s.Log)
	if err != nil {
		return nil, err
	}
	return client.In(namespace), nil
}
