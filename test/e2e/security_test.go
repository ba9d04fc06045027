package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// asAdmin are settings for beds that work in namespaces of their own, where the
// product's account has no rights.
func asAdmin(namespace string, more map[string]string) bed.Settings {
	kubernetes := map[string]string{"kubeconfig": quoted(shared.AdminKubeconfig()), "namespace": quoted(namespace)}
	for key, value := range more {
		kubernetes[key] = value
	}
	return bed.Settings{"kubernetes": kubernetes, "vault.kubernetes": {"role": quoted("")}}
}

// A namespace that enforces the restricted Pod Security level takes job pods
// without any setting, and nothing in them runs as root.
func TestRestrictedNamespace(t *testing.T) {
	t.Parallel()
	needsStack(t)
	prefix := "restricted-" + randomHex()
	remove, err := shared.Kube.CreateNamespace(t.Context(), prefix+"-protected", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	// The namespace is found by the job's own facts.
	b := newBed(t, asAdmin(prefix+"-{scope}", nil))
	runOn(t, b, gitlabsim.JobSpec{
		Image:     gitlabsim.Image{Name: stackenv.ImageJobNonroot},
		Services:  []gitlabsim.Image{service("db", variable("PORT", "5432"), variable("HEALTHCHECK_TCP_PORT", "5432"))},
		Script:    []string{`echo "I am $(id -u)"`, "cat README", "echo mine > file", "grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status"},
		Artifacts: []gitlabsim.Artifact{{Paths: []string{"file"}}},
	}).succeeded(t, "wants the restricted security level", "\nI am 1000\n", "\nhello from the checkout\n", "\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n",
		"service db answers on port 5432")
}

// A namespace is made for a job and goes with it.
func TestNamespacePerJob(t *testing.T) {
	t.Parallel()
	needsStack(t)
	prefix := "job-" + randomHex()
	b := newBed(t, asAdmin(prefix+"-{job_id}", map[string]string{"namespace_per_job": "true"}))
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs"}}).succeeded(t, " in namespace "+prefix+"-", "\nit runs\n")
	deadline := time.Now().Add(time.Minute)
	for {
		names, err := shared.Kube.Namespaces(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %v one is the job's", names)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
