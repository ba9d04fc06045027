package pod

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"podlane/executor/settings"
)

// Phases are the times of a pod's start, each since the wait began; 0 means
// that it was not seen.
type Phases struct {
	Scheduled, Pulled, Started, Ready time.Duration
}

// probePause lies between two tries to reach a pod that has a node. The
// kubelet's "Started" event triggers a try as well and mostly comes first;
// this is for events that are late or lost. A try costs 5 ms of CPU time on
// either side; with a pause of 30 ms pods were ready no earlier.
const probePause = 250 * time.Millisecond

// probeQuick bounds how long we try like that. After it, an image is being
// pulled, and the event is enough.
const probeQuick = 5 * time.Second

// starter is one wait for one pod.
type starter struct {
	client   *Client
	pod      *corev1.Pod
	settings *settings.Settings
	services []Service

	began      time.Time
	phases     Phases
	said       map[string]bool
	latest     string    // why we are still waiting
	pullFails  time.Time // since when pulls have been failing
	quickUntil time.Time // until when to probe without being told
	pulling    int       // images that are being pulled
}

// WaitReady returns when both containers of ours answer and the services with
// a health check do too. It says in the job log what it waits for, each thing
// once. The deadline is ctx's. A *Failure says why the pod will never come.
func (c *Client) WaitReady(ctx context.Context, pod *corev1.Pod, services []Service, s *settings.Settings) (Phases, error) {
	w := &starter{client: c, pod: pod, settings: s, services: services, began: time.Now(), said: map[string]bool{}, latest: "not scheduled yet"}
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

// eventLag is how far behind the cluster's events may be: the kubelet sends
// them one after the other, on a busy node 50 ms apart.
const eventLag = 300 * time.Millisecond

// hearPulled waits a moment for the end of pulls whose beginning the log shows,
// so that it shows how long they took.
func (w *starter) hearPulled(events <-chan *corev1.Event) {
	deadline := time.After(eventLag)
	for w.pulling > 0 {
		select {
		case e := <-events:
			w.hear(e)
		case <-deadline:
			return
		}
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

// observe judges a state of the pod.
func (w *starter) observe(ctx context.Context, p *corev1.Pod) *Failure {
	if p == nil {
		return &Failure{Reason: "pod lost", Detail: "the pod was deleted while the job waited for it"}
	}
	if f := Lost(p); f != nil {
		return f
	}
	if p.Spec.NodeName != "" && w.phases.Scheduled == 0 {
		w.phases.Scheduled = time.Since(w.began)
		w.quickUntil = time.Now().Add(probeQuick)
		w.latest = "containers are not started yet"
		w.sayOnce("scheduled on node %s", p.Spec.NodeName)
	}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodScheduled && cond.Status == corev1.ConditionFalse && p.Spec.NodeName == "" {
			w.latest = "no node for the pod: " + cond.Message
			w.sayOnce("waiting for a node: %s", cond.Message)
		}
	}
	statuses := append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...)
	for _, s := range statuses {
		if f := w.observeContainer(ctx, p, s); f != nil {
			return f
		}
	}
	return nil
}

func (w *starter) observeContainer(ctx context.Context, p *corev1.Pod, s corev1.ContainerStatus) *Failure {
	image := imageOf(p, s.Name)
	switch {
	case s.State.Waiting != nil:
		if f := waitingFailure(s.Name, image, s.State.Waiting); f != nil {
			return f
		}
		if r := s.State.Waiting.Reason; r == "ErrImagePull" || r == "ImagePullBackOff" {
			w.latest = fmt.Sprintf("image %s cannot be pulled: %s", image, shortPullMessage(s.State.Waiting.Message))
			if w.pullFails.IsZero() {
				w.pullFails = time.Now()
				w.sayOnce("pulling image %s failed, trying again for up to %s: %s", image, w.settings.Job.PullTimeout, shortPullMessage(s.State.Waiting.Message))
			}
		}
	case s.State.Running != nil && s.Name == HelperContainer && w.phases.Started == 0:
		w.phases.Started = time.Since(w.began)
		w.latest = "the build container does not answer yet"
	case s.State.Terminated != nil:
		return w.serviceEnded(ctx, s, image)
	}
	return nil
}

// serviceEnded reports a service that ended before the job began. It is a
// failure only if the job asked to wait for that service.
func (w *starter) serviceEnded(ctx context.Context, s corev1.ContainerStatus, image string) *Failure {
	for _, svc := range w.services {
		if svc.Container != s.Name || w.said["ended "+s.Name] {
			continue
		}
		w.said["ended "+s.Name] = true
		w.client.ReportService(ctx, w.pod.Name, svc, s.State.Terminated)
		if len(svc.Ports) == 0 {
			continue
		}
		if f := endedFailure(s.Name, image, s.State.Terminated); f.Reason == "invalid service" {
			return f
		}
		return &Failure{Reason: "service failed", Detail: fmt.Sprintf("%s %s before it answered on port %d", svc.Name, endedHow(s.State.Terminated), svc.Ports[0])}
	}
	return nil
}

// hear passes on what the cluster says about the pod, and tells whether it
// is worth trying to reach the helper container now.
func (w *starter) hear(e *corev1.Event) (started bool) {
	container := containerOf(e)
	switch e.Reason {
	case "Pulling":
		w.latest = "images are being pulled"
		w.pulling++
		w.sayOnce("pulling image %s", quoted(e.Message))
	case "Pulled":
		w.phases.Pulled = time.Since(w.began)
		if took := pullTime.FindStringSubmatch(e.Message); took != nil {
			w.pulling--
			w.sayOnce("pulled image %s in %s", quoted(e.Message), took[1])
		}
	case "Started":
		if container == HelperContainer && w.phases.Started == 0 {
			w.phases.Started = time.Since(w.began)
		}
		return container == HelperContainer
	case "FailedScheduling", "Failed", "BackOff":
		// The pod's own status says this better.
	default:
		if e.Type == corev1.EventTypeWarning {
			w.latest = e.Reason + ": " + e.Message
			w.sayOnce("warning from the cluster: %s: %s", e.Reason, e.Message)
		}
	}
	return false
}

var (
	pullTime   = regexp.MustCompile(` in ([0-9.]+m?s)`)
	quotedName = regexp.MustCompile(`"([^"]+)"`)
	fieldPath  = regexp.MustCompile(`\{([^}]+)\}`)
)

func quoted(message string) string {
	if m := quotedName.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return message
}

func containerOf(e *corev1.Event) string {
	if m := fieldPath.FindStringSubmatch(e.InvolvedObject.FieldPath); m != nil {
		return m[1]
	}
	return ""
}

func imageOf(p *corev1.Pod, container string) string {
	for _, c := range append(append([]corev1.Container{}, p.Spec.InitContainers...), p.Spec.Containers...) {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
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

// probeUntilReady runs podlane-helper in the helper container each time it is
// poked, until it has answered. What the status says is up to a second old;
// a container that answers is a container that runs. The helper is asked, and
// waits in the pod for its sibling's sign of life, because it is started first:
// the 50 ms that an exec takes pass while the build container starts.
func (w *starter) probeUntilReady(ctx context.Context, probe <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-probe:
		}
		done, err := w.tryReady(ctx)
		if done {
			return err
		}
	}
}

// readyEvent is a line of podlane-helper's "ready" command.
type readyEvent struct {
	Event   string  `json:"event"`
	Name    string  `json:"name"`
	Port    int     `json:"port"`
	Seconds float64 `json:"seconds"`
}

// tryReady asks podlane-helper to wait for its own readiness and for the
// services. It is done when podlane-helper has said how that ended.
func (w *starter) tryReady(ctx context.Context) (done bool, err error) {
	timeout := w.settings.Job.ServiceTimeout.D()
	argv := AgentCommand(HelperContainer, w.settings, ReadyArgs(w.services, timeout)...)
	stdout := lines(func(line []byte) {
		var e readyEvent
		if json.Unmarshal(line, &e) != nil {
			return
		}
		switch e.Event {
		case "service":
			w.client.log.Linef("service %s answers on port %d", e.Name, e.Port)
		case "ready":
			done = true
		case "timeout":
			done = true
			err = &Failure{Reason: "service failed", Detail: fmt.Sprintf("%s did not answer on port %d within %s", e.Name, e.Port, timeout)}
		}
	})
	execErr := w.client.Exec(ctx, w.pod.Name, HelperContainer, argv, Streams{Stdout: stdout, Stderr: io.Discard})
	if !done && execErr != nil && strings.Contains(execErr.Error(), "forbidden") {
		return true, &Failure{Reason: "forbidden", Detail: execErr.Error(), Err: execErr}
	}
	// A try that ended without an answer is no error: the container isn't
	// there yet.
	return done, err
}

// lines returns a writer that calls each for every complete line.
func lines(each func([]byte)) *lineWriter { return &lineWriter{each: each} }

type lineWriter struct {
	each func([]byte)
	rest []byte
}

// Write implements io.Writer.
func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.each(line)
		l.rest = rest
	}
}

// ReportService writes a line about a service that has ended, and its last
// lines of output.
func (c *Client) ReportService(ctx context.Context, pod string, svc Service, t *corev1.ContainerStateTerminated) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	text, err := c.Logs(ctx, pod, svc.Container, 10, 16<<10)
	if err != nil || text == "" {
		c.log.Warnf("service %s %s, without output", svc.Name, endedHow(t))
		return
	}
	c.log.Warnf("service %s %s; its last lines:", svc.Name, endedHow(t))
	for scanner := bufio.NewScanner(strings.NewReader(text)); scanner.Scan(); {
		c.log.Linef("  %s", scanner.Text())
	}
}
