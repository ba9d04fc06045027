package executor

import (
	"encoding/json"
	"fmt"
	"io"

	"gitlab.com/gitlab-org/gitlab-runner/executors/custom/api"

	"podlane/executor/pod"
	"podlane/internal/version"
	"podlane/vaultauth"
)

// Config answers the runner's first question: what this driver is called and
// where builds live. It writes JSON to out and nothing else
// (gitlab-runner executors/custom/api/config.go).
//
// It also plans the pod and looks at what the job asks for, so that a mistake in
// the job or in the settings is told before anything has started. It asks
// neither Vault nor the cluster.
func (s *Stage) Config(out io.Writer) error {
	if _, err := pod.Build(s.Job, s.Settings, s.Attempt); err != nil {
		return planError(err)
	}
	if _, err := s.checkAccess(); err != nil {
		return err
	}
	answer := api.ConfigExecOutput{
		Driver:    &api.DriverInfo{Name: new("podlane"), Version: new(version.String())},
		BuildsDir: &s.Settings.Job.BuildsDir,
		CacheDir:  &s.Settings.Job.CacheDir,
		// Each job has a pod of its own, so the project's folder need not hold
		// the runner's and the job slot's numbers.
		BuildsDirIsShared: new(false),
		Shell:             &s.Settings.Job.Shell,
	}
	if s.Settings.Vault.Enabled() {
		answer.JobEnv = &map[string]string{SealKeyVariable: vaultauth.NewKey().Reveal()}
	}
	if err := json.NewEncoder(out).Encode(answer); err != nil {
		return fmt.Errorf("write the answer to config: %w", err)
	}
	return nil
}
