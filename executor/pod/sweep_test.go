package pod

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var sweepNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(sweepNow.Add(-d)) }

func ended(name string, since time.Duration) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: ago(since)}}}
}

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func TestPodIsOver(t *testing.T) {
	deleted := ago(0)
	hour := map[string]string{AnnotationTimeout: "1h0m0s"}
	tests := []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"alive", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), Annotations: hour},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{running(BuildContainer), running(HelperContainer)}},
		}, ""},
		{"the helper was killed, the script runs on", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), Annotations: hour},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{running(BuildContainer), ended(HelperContainer, time.Hour)}},
		}, ""},
		{"only a service is left", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), Annotations: hour},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{running("svc-0"), ended(BuildContainer, 20*time.Minute), ended(HelperContainer, 10*time.Minute)}},
		}, "podlane's containers ended 10m0s ago"},
		{"ended a moment ago", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), Annotations: hour},
			Status:     corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{ended(BuildContainer, 20*time.Minute), ended(HelperContainer, time.Minute)}},
		}, ""},
		{"evicted before it began", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour), Annotations: hour},
			Status:     corev1.PodStatus{Phase: corev1.PodFailed, Conditions: []corev1.PodCondition{{LastTransitionTime: ago(30 * time.Minute)}}},
		}, "podlane's containers ended 30m0s ago"},
		{"never scheduled, prepare still waits", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour + 9*time.Minute), Annotations: hour}, Status: corev1.PodStatus{Phase: corev1.PodPending},
		}, ""},
		{"never scheduled, nobody waits", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(time.Hour + 11*time.Minute), Annotations: hour}, Status: corev1.PodStatus{Phase: corev1.PodPending},
		}, "older than its job may become: 1h11m0s"},
		{"being deleted", corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(9 * time.Hour), DeletionTimestamp: &deleted, Annotations: hour},
		}, ""},
		{"without our annotation", corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(48 * time.Hour)}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Sweep{Grace: 5 * time.Minute, Now: sweepNow}
			if got := s.podIsOver(&tt.pod); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLonelySecrets(t *testing.T) {
	secret := func(name string, age time.Duration, owned bool) metav1.PartialObjectMetadata {
		m := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: ago(age), Annotations: map[string]string{AnnotationTimeout: "10m"}}}
		if owned {
			m.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod"}}
		}
		return m
	}
	s := Sweep{Grace: 5 * time.Minute, Now: sweepNow}
	found := s.lonely([]metav1.PartialObjectMetadata{
		secret("podlane-p1-j1-aa-pull", time.Hour, false),
		secret("podlane-p1-j2-aa-pull", time.Hour, false),
		secret("podlane-p1-j3-aa-pull", time.Hour, true),
		secret("podlane-p1-j4-aa-pull", 19*time.Minute, false),
	}, []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "podlane-p1-j2-aa"}}})
	var names []string
	for _, l := range found {
		names = append(names, l.Name)
	}
	if got := strings.Join(names, " "); got != "podlane-p1-j1-aa-pull" {
		t.Errorf("found %s", got)
	}
}
