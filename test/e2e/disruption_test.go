package e2e

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// A budget keeps evictions away. Without it, an evicted job goes on in its grace
// period and says so; when the pod has gone, the log still knows why.
func TestEviction(t *testing.T) {
	t.Parallel()
	needsStack(t)
	settings := asAdmin("podlane-ci", nil)
	settings["pod"] = map[string]string{"disruption_budget": "true", "termination_grace_period": quoted("2m")}
	b := newBed(t, settings)
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{
		// podlane-helper leaves a sign when the kubelet asks the container to end.
		"echo it runs", "until [ -e /podlane/state/terminating ]; do sleep 0.2; done", "while :; do echo it goes on; sleep 1; done",
	}})
	wait := func(text string) {
		t.Helper()
		if err := job.WaitOutput(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	wait("\nit runs")
	name := runningPod(t, job)
	if err := shared.Kube.Evict(t.Context(), name); !apierrors.IsTooManyRequests(err) {
		t.Errorf("evicting a pod with a budget: %v, want too many requests", err)
	}
	if err := shared.Kube.DeleteDisruptionBudget(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if err := shared.Kube.Evict(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	wait("\nthe pod is being ended: evicted: its node is being drained")
	wait("\nit goes on")
	if err := shared.Kube.DeletePod(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	finish(t, job).systemFailed(t, "the script may go on for up to 2m0s", "  container build ", "podlane: error: pod lost: evicted: its node is being drained")
}

// runningPod returns the name of a job's pod when the cluster knows that it
// runs: its status is later than its script.
func runningPod(t *testing.T, job *gitlabsim.Job) (name string) {
	t.Helper()
	eventually(t, func() bool {
		pods, err := shared.Kube.Pods(t.Context(), job.URL())
		if err != nil || len(pods) != 1 {
			return false
		}
		name = pods[0].Name
		return pods[0].Status.Phase == corev1.PodRunning
	})
	return name
}

// The scheduler takes a job's pod away for one of higher priority: a system
// failure that says so.
func TestPreemption(t *testing.T) {
	t.Parallel()
	needsStack(t)
	id := randomHex()
	// What keeps the rival from the node is this job's pod alone, however much room
	// there is: the scheduler spares all others.
	objects := strings.NewReplacer("ID", id, "NAMESPACE", stackenv.Namespace, "IMAGE", stackenv.ImagePause)
	class := []byte(objects.Replace(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high-ID}
value: 500
`))
	rival := []byte(objects.Replace(`
apiVersion: v1
kind: Pod
metadata: {name: rival-ID, namespace: NAMESPACE}
spec:
  priorityClassName: high-ID
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {victim: ID}}}]}}
  containers: [{name: pause, image: IMAGE, imagePullPolicy: Never}]
`))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(shared.Kube.Remove(ctx, rival), shared.Kube.Remove(ctx, class)); err != nil {
			t.Error(err)
		}
	})
	if err := shared.Kube.Apply(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	// Admission knows the class a moment after it is there.
	eventually(t, func() bool { return shared.Kube.DryRun(t.Context(), rival) == nil })
	settings := asAdmin(stackenv.Namespace, nil)
	settings["pod"] = map[string]string{"labels": fmt.Sprintf("{victim = %q}", id), "termination_grace_period": quoted("5s")}
	b := newBed(t, settings)
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs", "while :; do sleep 1; done"}})
	if err := job.WaitOutput(t.Context(), "\nit runs"); err != nil {
		t.Fatal(err)
	}
	runningPod(t, job)
	if err := shared.Kube.Apply(t.Context(), rival); err != nil {
		t.Fatal(err)
	}
	o := finish(t, job)
	o.systemFailed(t)
	// Whether the pod's own word or the scheduler's event is the last to be had
	// depends on how long the script has run.
	if !regexp.MustCompile(`podlane: error: pod lost: (preempted by a pod of higher priority|Preempted: Preempted by )`).MatchString(o.trace) {
		t.Error("the log does not say that the pod was preempted")
	}
}
