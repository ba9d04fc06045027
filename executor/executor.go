// Package executor has the four stages that GitLab Runner calls, one file a
// stage. Each is a short process of its own: what it needs to know it takes
// from the job response, the settings and the cluster.
package executor

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/joblog"
)

// Stage is what every stage works on.
type Stage struct {
	Job      *gitlab.Job
	Settings *settings.Settings
	// Attempt tells the runner's attempts at this job apart: see AttemptOf.
	Attempt string
	// Log gets lines for the people who read the job log; Output gets what the
	// job's own scripts print, byte for byte. Both end up in the same place.
	Log    *joblog.Log
	Output io.Writer
	// Observer is told how the stage went: see Observed.
	Observer Observer

	seen *Observation
}

// AttemptOf names an attempt after the folder of its job response: the runner
// makes a new one each time it tries to prepare a job (gitlab-runner
// executors/custom/custom.go:101), and calls every stage of that attempt with
// the same one.
func AttemptOf(jobResponseFile string) string {
	sum := sha256.Sum256([]byte(filepath.Dir(jobResponseFile)))
	return hex.EncodeToString(sum[:6])
}

func (s *Stage) connect() (*pod.Client, error) {
	namespace, err := pod.Namespace(s.Job, s.Settings)
	if err != nil {
		return nil, jobError(err)
	}
	client, err := pod.Connect(s.Settings, nil, s.Log)
	if err != nil {
		return nil, err
	}
	return client.In(namespace), nil
}
