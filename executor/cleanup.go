package executor

import (
	"context"
	"fmt"
	"io"
	"time"

	"podlane/executor/pod"
	"podlane/internal/joblog"
)

// cleanupTimeout bounds the stage: the runner counts its time as the job's.
const cleanupTimeout = time.Minute

// Cleanup deletes everything that the job has on the cluster, and then revokes
// what Vault has issued. It works from the job response alone and finds nothing
// to do without complaint, so it can be called at any time, any number of times.
func (s *Stage) Cleanup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	creds, err := s.credentials()
	if creds == nil && err != nil {
		return err
	}
	if creds != nil {
		// What stages have left may do without an id_token.
		s.credsErr = nil
		defer s.giveBack(ctx, creds)
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	if err := s.haveToken(ctx); err != nil {
		if _, jobs := AsBuildFailure(deniedClaim(err)); jobs || creds.token.value.IsZero() {
			s.Log.Linef("nothing is deleted: without access this job has not got far enough to have anything: %v", err)
			return nil
		}
		return fmt.Errorf("clean up after job %d: %w", s.Job.ID, err)
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

// giveBack revokes the job's Vault tokens. What can't be revoked ends by itself
// in a few minutes, so that is no failure.
func (s *Stage) giveBack(ctx context.Context, creds *credentials) {
	if err := creds.revoke(ctx); err != nil {
		joblog.New(s.stderr()).Warnf("%v; it ends by itself", err)
	}
}

func (s *Stage) stderr() io.Writer {
	if s.Observer.Stderr == nil {
		return io.Discard
	}
	return s.Observer.Stderr
}
