package executor

import (
	"context"
	"sync"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
)

// attendant looks after the pod while a script runs in it.
type attendant struct {
	*pod.Attendant
	stopDebug func()
	once      sync.Once
}

// attend starts to. With CI_DEBUG_SERVICES, what services print is shown while
// the job's own script runs.
func (s *Stage) attend(ctx context.Context, client *pod.Client, name, stage string) *attendant {
	services, err := pod.Services(s.Job)
	a := &attendant{Attendant: client.Attend(ctx, name, services), stopDebug: func() {}}
	debug := s.Job.Variables.Expand(s.Job.Variables.Get("CI_DEBUG_SERVICES"))
	if err == nil && gitlab.IsJobScript(stage) && (debug == "true" || debug == "1") {
		// The rest of the log is read after a cancelled script, too.
		a.stopDebug = client.DebugServices(context.WithoutCancel(ctx), name, services)
	}
	return a
}

// Stop ends both. It can be called again.
func (a *attendant) Stop() {
	a.once.Do(func() {
		a.stopDebug()
		a.Attendant.Stop()
	})
}
