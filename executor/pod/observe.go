package pod

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// observe judges a state of the pod.
func (w *starter) observe(ctx context.Context, p *corev1.Pod) *Failure {
	if p == nil {
		return &Failure{Reason: "pod lost", Detail: "the pod was deleted while the job waited for it"}
	}
	if f := Doomed(p); f != nil {
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
		if f := waitingFailure(s.Name, image, s.State.Waiting); f != nil && !w.mayLackSecret(p, s.State.Waiting, f) {
			f.Container = s.Name
			return f
		}
		if r := s.State.Waiting.Reason; r == "ErrImagePull" || r == "ImagePullBackOff" {
			if len(w.pulls[s.Name]) > 0 {
				return &Failure{Reason: "image pull failed", Detail: image + ": " + shortPullMessage(s.State.Waiting.Message), Container: s.Name}
			}
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
		return w.serviceEnded(ctx, p, s, image)
	}
	return nil
}

// secondPull is when a failed pull is the kubelet's second: its back-off is 10 s.
const secondPull = 8 * time.Second

// mayLackSecret tells whether a registry's refusal may be the kubelet's fault: on
// a busy node it pulls without a secret that it has not seen yet. Its second try
// has the secret; the back-off before that still tells of the first.
func (w *starter) mayLackSecret(p *corev1.Pod, waiting *corev1.ContainerStateWaiting, f *Failure) bool {
	if f.Reason != "image pull denied" || len(p.Spec.ImagePullSecrets) == 0 {
		return false
	}
	second := !w.pullFails.IsZero() && time.Since(w.pullFails) > secondPull
	return !second || waiting.Reason != "ErrImagePull"
}

// serviceEnded reports a service that ended before the job began. It is a
// failure only if the job asked to wait for that service.
func (w *starter) serviceEnded(ctx context.Context, p *corev1.Pod, s corev1.ContainerStatus, image string) *Failure {
	for _, svc := range w.services {
		if svc.Container != s.Name || w.said["ended "+s.Name] {
			continue
		}
		w.said["ended "+s.Name] = true
		w.client.ReportService(ctx, p, svc, s.State.Terminated)
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
		w.phases.Fetched = true
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
	case "FailedToRetrieveImagePullSecret":
		w.sayOnce("a pull secret of the pod is not in its namespace, or cannot be read: %s", e.Message)
	default:
		if e.Type == corev1.EventTypeWarning && !slices.Contains(tellsItself, e.Reason) {
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
