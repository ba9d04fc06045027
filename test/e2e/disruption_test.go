package e2e

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"podlane/test/gitlabsim"
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
	pods, err := shared.Kube.Pods(t.Context(), job.URL())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	name := pods[0].Name
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
