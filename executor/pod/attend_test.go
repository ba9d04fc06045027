package pod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/internal/joblog"
)

func TestOutOfMemoryNamesTheLimit(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: BuildContainer, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}},
	}}}}
	want := "out of memory: container build was killed when it had used all of its limit of 512Mi; hint: docs/job-settings.md says how to get more"
	if f := outOfMemory(p, BuildContainer); f.Error() != want || f.Fault() != FaultSystem {
		t.Errorf("got %v", f)
	}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}
	if f := outOfMemory(p, BuildContainer); !strings.Contains(f.Error(), "its limit of 1Gi for the whole pod") {
		t.Errorf("got %v", f)
	}
}

// Each thing that the cluster does to a pod is told once, and remembered.
func TestAttendantTellsOnce(t *testing.T) {
	var out strings.Builder
	a := newAttendant(&Client{log: joblog.New(&out)}, "p", nil)
	running := &corev1.Pod{}
	condemned := running.DeepCopy()
	condemned.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting"}}
	deleted := condemned.DeepCopy()
	now := metav1.Now()
	deleted.DeletionTimestamp, deleted.DeletionGracePeriodSeconds = &now, new(int64(30))
	event := &corev1.Event{Type: corev1.EventTypeWarning, Reason: "NodeNotReady", Message: "Node is not ready"}
	for range 2 {
		for _, p := range []*corev1.Pod{running, condemned, deleted, nil} {
			a.see(p)
		}
		a.hear(event)
		a.hear(&corev1.Event{Type: corev1.EventTypeNormal, Reason: "Killing", Message: "Stopping container build"})
		a.hear(&corev1.Event{Type: corev1.EventTypeWarning, Reason: "BackOff", Message: "x"})
	}
	want := "the pod is being ended: evicted: its node is being drained (Eviction API: evicting); the script may go on for up to 30s\n" +
		"warning from the cluster: NodeNotReady: Node is not ready\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if a.last != deleted || !strings.HasPrefix(a.disruption, "evicted") {
		t.Errorf("remembers %v, %q", a.last, a.disruption)
	}
}

func TestLastStates(t *testing.T) {
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}
	p := &corev1.Pod{Status: corev1.PodStatus{
		InitContainerStatuses: []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}}},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "helper", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			{Name: "build", State: ended},
			{Name: "svc-0", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, LastTerminationState: ended},
			{Name: "svc-1"},
		},
	}}
	want := []string{
		"container agent ended with exit code 0",
		"container helper was running",
		"container build ended with exit code 137 (OOMKilled)",
		"container svc-0 was waiting: CrashLoopBackOff, and before that ended with exit code 137 (OOMKilled)",
		"container svc-1 never started",
	}
	if diff := cmp.Diff(want, lastStates(p)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The container that has nothing to do leaves at once, and takes nothing from
// the script in the other one.
func TestLeavingPodIsNotLostYet(t *testing.T) {
	end := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	tests := []struct {
		name          string
		leaving       bool
		helper, build corev1.ContainerState
		want          string
	}{
		{"the helper has left", true, end(0), runs, ""},
		{"both have left", true, end(0), end(0), "pod lost: it was deleted"},
		{"the script was cut off", true, end(0), end(137), "pod lost: it was deleted"},
		{"cut off before the helper", true, runs, end(137), "pod lost: it was deleted"},
		{"the helper crashed", false, end(139), runs, "container ended: helper ended with exit code 139"},
		{"the helper left by itself", false, end(0), runs, "container ended: helper ended with exit code 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
				{Name: HelperContainer, State: tt.helper}, {Name: BuildContainer, State: tt.build},
			}}}
			if tt.leaving {
				now := metav1.Now()
				p.DeletionTimestamp = &now
			}
			got := ""
			if f := Lost(p); f != nil {
				got = f.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A stream to a pod that is gone ends, although nobody closes it.
func TestAttendantEndsTheStream(t *testing.T) {
	tests := []struct {
		name string
		lose func(a *Attendant)
		want string
	}{
		{"force-deleted", func(a *Attendant) { a.see(nil) }, "pod lost: it was deleted"},
		{"its node is gone", func(a *Attendant) { a.loseNode("n1") }, "pod lost: its node n1 was taken out of the cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAttendant(&Client{}, "p", nil)
			ctx, cancel := a.While(t.Context())
			defer cancel()
			a.see(&corev1.Pod{})
			if ctx.Err() != nil || a.lost != nil {
				t.Error("a pod that is well is lost")
			}
			tt.lose(a)
			tt.lose(a)
			<-ctx.Done()
			if a.lost.Error() != tt.want {
				t.Errorf("got %v", a.lost)
			}
		})
	}
}

func TestDoomed(t *testing.T) {
	now := metav1.Now()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}
	if Lost(p) != nil {
		t.Error("a pod whose containers still run is lost")
	}
	if f := Doomed(p); f == nil || f.Error() != "pod lost: the pod is being deleted" {
		t.Errorf("got %v", f)
	}
	if f := Doomed(&corev1.Pod{}); f != nil {
		t.Errorf("got %v", f)
	}
}
