package executor

import (
	"cmp"
	"context"
	"time"

	"podlane/executor/pod"
)

// Prepare starts the job's pod, or adopts it if this attempt has one, and
// returns when scripts can be run in it. The job log says what it waits for.
func (s *Stage) Prepare(ctx context.Context) error {
	manifest, err := pod.Build(s.Job, s.Settings, s.Attempt)
	if err != nil {
		return planError(err)
	}
	grants, err := s.checkAccess()
	if err != nil {
		return err
	}
	client, err := s.connect()
	if err != nil {
		return err
	}
	limit := s.Settings.Job.StartTimeout.D()
	if limit == 0 || limit > s.Job.Timeout() {
		limit = s.Job.Timeout()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	if err := s.logIn(ctx, grants); err != nil {
		return err
	}
	began := time.Now()
	for _, warning := range manifest.Warnings {
		s.Log.Warnf("%s", warning)
	}
	s.Log.Linef("starting pod %s in namespace %s", manifest.Pod.Name, manifest.Pod.Namespace)
	started, adopted, err := client.Launch(ctx, manifest)
	if err != nil {
		return err
	}
	if adopted {
		s.Log.Linef("the pod is there already")
	}
	created := time.Since(began)
	phases, err := client.WaitReady(ctx, started, manifest, s.Settings)
	for err != nil {
		again, pullErr := client.PullOtherwise(ctx, manifest, started, err)
		if again == nil {
			err = cmp.Or(pullErr, err)
			break
		}
		started = again
		phases, err = client.WaitReady(ctx, started, manifest, s.Settings)
	}
	s.seen.seePhases(began, created, phases)
	if err != nil {
		return err
	}
	s.Log.Linef("pod is ready after %s", round(time.Since(began)))
	s.debugPhases(created, phases)
	return nil
}

// debugPhases splits the wait for whoever wants to know where the time went.
func (s *Stage) debugPhases(created time.Duration, p pod.Phases) {
	if s.Job.Variables.Get("CI_DEBUG_TRACE") != "true" && s.Job.Variables.Get("PODLANE_TIMES") != "true" {
		return
	}
	s.Log.Linef("times: created %s, scheduled %s, images %s, started %s, answered %s",
		round(created), round(p.Scheduled), round(p.Pulled), round(p.Started), round(p.Ready))
}

func round(d time.Duration) time.Duration {
	if d < time.Minute {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}
