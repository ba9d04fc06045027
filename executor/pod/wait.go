package pod

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"podlane/executor/settings"
)

// Phases are the times of a pod's start, each since the wait began; 0 means
// that it was not seen.
type Phases struct {
	Scheduled, Pulled, Started, Ready time.Duration
	// Fetched is set if an image had to be pulled: Pulled is the time at which
	// the last one was there, in either case.
	Fetched bool
}

// starter is one wait for one pod.
type starter struct {
	client   *Client
	pod      *corev1.Pod
	settings *settings.Settings
	services []Service
	pulls    map[string][]corev1.PullPolicy // what else could be tried

	began      time.Time
	phases     Phases
	said       map[string]bool
	latest     string    // why we are still waiting
	pullFails  time.Time // since when pulls have been failing
	quickUntil time.Time // until when to probe without being told
	pulling    int       // images that are being pulled
	denied     int       // how often the API server has refused to run the probe
}

// WaitReady returns when both containers of ours answer and the services with
// a health check do too. It says in the job log what it waits for, each thing
// once. The deadline is ctx's. A *Failure says why the pod will never come.
func (c *Client) WaitReady(ctx context.Context, pod *corev1.Pod, m *Manifest, s *settings.Settings) (Phases, error) {
	w := &starter{client: c, pod: pod, settings: s, services: m.Services, pulls: m.pulls, began: time.Now(), said: map[string]bool{}, latest: "not scheduled yet"}
	ctx, cancel := context.WithCancel(ctx)
	pods, events := make(chan *corev1.Pod), make(chan *corev1.Event)
	probe := make(chan struct{}, 1)
	ready := make(chan error, 1)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	workers.Go(func() { c.watchPod(ctx, pod, pods) })
	workers.Go(func() { c.watchEvents(ctx, pod, events) })
	workers.Go(func() { ready <- w.probeUntilReady(ctx, probe) })

	tick := time.NewTicker(probePause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.phases, w.giveUp(ctx)
		case p := <-pods:
			if f := w.observe(ctx, p); f != nil {
				return w.phases, f
			}
		case e := <-events:
			if w.hear(e) {
				poke(probe)
			}
		case <-tick.C:
			if f := w.pullsTooLong(); f != nil {
				return w.phases, f
			}
			// A container that has started can be asked at any time: it waits
			// for its sibling itself, and being asked keeps the pod awake.
			if w.phases.Started > 0 || time.Now().Before(w.quickUntil) {
				poke(probe)
			}
		case err := <-ready:
			if ctx.Err() != nil {
				return w.phases, w.giveUp(ctx)
			}
			w.phases.Ready = time.Since(w.began)
			w.hearPulled(events)
			return w.phases, err
		}
	}
}

func poke(probe chan<- struct{}) {
	select {
	case probe <- struct{}{}:
	default:
	}
}

// sayOnce writes a line unless the same has been written before.
func (w *starter) sayOnce(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if w.said[line] {
		return
	}
	w.said[line] = true
	w.client.log.Linef("%s", line)
}

func (w *starter) pullsTooLong() *Failure {
	if w.pullFails.IsZero() || time.Since(w.pullFails) < w.settings.Job.PullTimeout.D() {
		return nil
	}
	return &Failure{Reason: "image pull failed", Detail: w.latest}
}

func (w *starter) giveUp(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return &Failure{Reason: "not started in time", Detail: fmt.Sprintf("gave up after %s: %s", time.Since(w.began).Round(time.Second), w.latest), Err: context.DeadlineExceeded}
	}
	return fmt.Errorf("cancelled while waiting for the pod: %s", w.latest)
}
