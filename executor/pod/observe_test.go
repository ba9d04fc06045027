package pod

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"podlane/executor/settings"
	"podlane/internal/joblog"
)

func newStarter() (*starter, *strings.Builder) {
	var out strings.Builder
	s := settings.Default()
	return &starter{client: &Client{log: joblog.New(&out)}, settings: &s, began: time.Now(), said: map[string]bool{}}, &out
}

func waitingPod(node string, unschedulable string, waiting *corev1.ContainerStateWaiting) *corev1.Pod {
	p := &corev1.Pod{}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: BuildContainer, Image: "golang:1"}}
	if unschedulable != "" {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: unschedulable}}
	}
	if waiting != nil {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: BuildContainer, State: corev1.ContainerState{Waiting: waiting}}}
	}
	return p
}

func TestEveryReasonForWaitingIsToldOnce(t *testing.T) {
	w, out := newStarter()
	full := "0/3 nodes are available: 3 Insufficient cpu."
	network := &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "dial tcp: lookup registry: no such host"}
	event := func(reason, kind, message string) *corev1.Event {
		return &corev1.Event{Reason: reason, Type: kind, Message: message}
	}
	for range 3 {
		for _, p := range []*corev1.Pod{
			waitingPod("", full, nil), waitingPod("", full+" And a taint.", nil), waitingPod("node7", "", nil), waitingPod("node7", "", network),
			waitingPod("node7", "", &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: `Back-off pulling image "golang:1"`}),
		} {
			if f := w.observe(t.Context(), p); f != nil {
				t.Fatalf("gave up: %v", f)
			}
		}
		w.hear(event("Pulling", "Normal", `Pulling image "golang:1"`))
		w.hear(event("Pulled", "Normal", `Successfully pulled image "golang:1" in 12.3s (12.3s including waiting). Image size: 1 bytes.`))
		w.hear(event("Pulled", "Normal", `Container image "redis" already present on machine`))
		w.hear(event("FailedMount", "Warning", "secret \"x\" not found"))
		w.hear(event("FailedToRetrieveImagePullSecret", "Warning", "Unable to retrieve some image pull secrets (registry); attempting to pull the image may not succeed."))
		w.hear(event("Created", "Normal", "Created container: build"))
	}
	want := strings.Join([]string{
		"waiting for a node: 0/3 nodes are available: 3 Insufficient cpu.",
		"waiting for a node: 0/3 nodes are available: 3 Insufficient cpu. And a taint.",
		"scheduled on node node7",
		"pulling image golang:1 failed, trying again for up to 5m0s: dial tcp: lookup registry: no such host",
		"pulling image golang:1",
		"pulled image golang:1 in 12.3s",
		`warning from the cluster: FailedMount: secret "x" not found`,
		"a pull secret of the pod is not in its namespace, or cannot be read: Unable to retrieve some image pull secrets (registry); attempting to pull the image may not succeed.",
		"",
	}, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if f := w.pullsTooLong(); f != nil {
		t.Errorf("gave up on a pull too early: %v", f)
	}
	w.pullFails = time.Now().Add(-6 * time.Minute)
	if f := w.pullsTooLong(); f == nil || f.Reason != "image pull failed" || f.Fault() != FaultSystem {
		t.Errorf("got %v, want image pull failed, the system's fault", f)
	}
}

func TestHopelessWaitsEndAtOnce(t *testing.T) {
	waiting := func(reason, message string) *corev1.Pod {
		return waitingPod("node7", "", &corev1.ContainerStateWaiting{Reason: reason, Message: message})
	}
	tests := []struct {
		name  string
		pod   *corev1.Pod
		want  string
		fault Fault
	}{
		{"deleted", nil, "pod lost: the pod was deleted while the job waited for it", FaultSystem},
		{"no such image", waiting("ErrImagePull", "golang:1: not found"), "image not found: golang:1: golang:1: not found", FaultJob},
		{"bad name", waiting("InvalidImageName", "x"), `invalid image name: "golang:1"`, FaultJob},
		{"no secret", waiting("CreateContainerConfigError", `secret "x" not found`), `container not created: build: secret "x" not found`, FaultSystem},
		{"never pulled", waiting("ErrImageNeverPull", "x"), "image not found: golang:1 is not on the node, and pod.pull_policy is Never", FaultJob},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, _ := newStarter()
			f := w.observe(t.Context(), tt.pod)
			if f == nil || f.Error() != tt.want || f.Fault() != tt.fault {
				t.Errorf("got %v, want %s, the %s's fault", f, tt.want, tt.fault)
			}
		})
	}
}
