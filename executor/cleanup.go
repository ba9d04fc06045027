package executor

import (
	"context"
	"fmt"
	"time"

	"podlane/executor/pod"
)

// cleanupTimeout bounds the stage: the runner counts its time as the job's.
const cleanupTimeout = time.Minute

// Cleanup deletes everything that the job has on the cluster. It works from
// the job response alone and finds nothing to do without complaint, so it can
// be called at any time, any number of times.
func (s *Stage) Cleanup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	client, err := s.connect()
	if err != nil {
		return err
	}
	name := pod.Name(s.Job)
	if err := client.Remove(ctx, name, pod.SecretNames(s.Job)); err != nil {
		return fmt.Errorf("clean up after job %d: %w", s.Job.ID, err)
	}
	if pod.OwnsNamespace(s.Job, s.Settings) {
		if err := client.RemoveNamespace(ctx); err != nil {
			return fmt.Errorf("clean up after job %d: %w", s.Job.ID, err)
		}
	}
	s.Log.Linef("deleted pod %s", name)
	return nil
}
