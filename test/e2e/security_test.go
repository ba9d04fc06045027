package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// A namespace is made for a job and goes with it. The account that does so lives
// elsewhere, and its tokens come from Vault.
func TestNamespacePerJob(t *testing.T) {
	t.Parallel()
	needsStack(t)
	rights, err := os.ReadFile(filepath.Join(shared.Root(), "deploy", "namespace-per-job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(rights), "kind: ServiceAccount\nmetadata:\n", "kind: ServiceAccount\nmetadata:\n  namespace: "+stackenv.Namespace+"\n", 1)
	if err := shared.Kube.Apply(t.Context(), []byte(text+vaultMayBecome("podlane-namespaces"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		ok, err := shared.Kube.May(t.Context(), "system:serviceaccount:"+stackenv.Namespace+":podlane-namespaces", "create", "namespaces")
		return ok && err == nil
	})
	prefix := "job-" + randomHex()
	b := newVaultBed(t, nil, bed.Settings{
		"kubernetes":       {"namespace": quoted(prefix + "-{job_id}"), "namespace_per_job": "true"},
		"vault.kubernetes": {"namespace": quoted(stackenv.Namespace)},
	}, "--kube-account", "podlane-namespaces")
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs"}}).succeeded(t, " in namespace "+prefix+"-", "\nit runs\n")
	eventually(t, func() bool {
		names, err := shared.Kube.Namespaces(t.Context())
		return err == nil && !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) })
	})
}

// vaultMayBecome lets Vault make tokens for an account beside podlane's own, as
// in deploy/vault-rbac.yaml.
func vaultMayBecome(account string) string {
	return strings.NewReplacer("ACCOUNT", account, "NAMESPACE", stackenv.Namespace).Replace(`
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: vault-ACCOUNT
  namespace: NAMESPACE
rules:
  - apiGroups: [""]
    resources: [serviceaccounts/token]
    resourceNames: [ACCOUNT]
    verbs: [create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: vault-ACCOUNT
  namespace: NAMESPACE
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: vault-ACCOUNT
subjects:
  - kind: ServiceAccount
    name: vault
    namespace: podlane-vault
`)
}
