package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/test/bed"
	"podlane/test/gitlabsim"
)

// The pod of a job is made from a template and from what the job asks for; the
// kernel holds a script to its limit, and the log says so.
func TestOverwritesAndTemplate(t *testing.T) {
	t.Parallel()
	b := newBed(t, bed.Settings{
		"kubernetes": {"pod_template": `"""
spec:
  volumes: [{name: scratch, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
  containers:
  - name: build
    env: [{name: FROM_TEMPLATE, value: all jobs}]
"""`},
		"[pod_templates]": {
			"name": quoted("scratch"), "on_request": "true",
			"template": `"""
spec:
  containers:
  - name: build
    volumeMounts: [{name: scratch, mountPath: /scratch}]
"""`,
		},
		"overwrites":       {"pod_labels": quoted("team=.*")},
		"overwrites.build": {"memory_limit": quoted("128Mi"), "cpu_request": quoted("1")},
	})
	t.Run("within its limits", func(t *testing.T) {
		t.Parallel()
		o := runOn(t, b, gitlabsim.JobSpec{
			Variables: []gitlabsim.Variable{
				variable("PODLANE_POD_TEMPLATE", "scratch"), variable("KUBERNETES_MEMORY_LIMIT", "64Mi"), variable("KUBERNETES_POD_LABELS_1", "team=backend"),
				variable("KUBERNETES_CPU_LIMIT", "2"),
			},
			Script: []string{`echo "env: $FROM_TEMPLATE"`, "grep ' /scratch ' /proc/mounts", "x=$(head -c 300000000 /dev/zero | tr '\\0' x)"},
		})
		o.logs(t, "\nenv: all jobs\n", "tmpfs /scratch ", "warning: KUBERNETES_CPU_LIMIT has no effect: overwrites.build.cpu_limit is not set in the settings of podlane")
		// Where the kernel kills the container whole, the pod is lost; where it
		// kills one process, a script has failed.
		if o.FailureReason == "runner_system_failure" {
			o.logs(t, "podlane: error: out of memory: container build was killed when it had used all of its limit of 64Mi")
		} else {
			o.logs(t, "of the build container: its memory ran out, limit 64 MiB, used at most 6")
		}
		if o.State != gitlabsim.Failed {
			t.Errorf("the job is %s", o.State)
		}
	})
	t.Run("beyond the maximum", func(t *testing.T) {
		t.Parallel()
		runOn(t, b, gitlabsim.JobSpec{Variables: []gitlabsim.Variable{variable("KUBERNETES_MEMORY_LIMIT", "1Gi")}, Script: []string{"echo never"}}).
			failed(t, 1, "podlane: error: KUBERNETES_MEMORY_LIMIT is 1Gi: more than 128Mi, which overwrites.build.memory_limit in the settings of podlane allows")
	})
}

// What only the API server can know of a template, its dry run tells: nothing is
// made.
func TestDryRunOfTemplates(t *testing.T) {
	t.Parallel()
	problems := dryRun(t, func(s *settings.Settings) {
		s.PodTemplates = []settings.PodTemplate{
			{Name: "good", OnRequest: true, Template: "spec:\n  hostUsers: false\n"},
			{Name: "bad", OnRequest: true, Template: "spec:\n  priorityClassName: nobodys\n"},
		}
	})
	if len(problems) != 1 || problems[0].Name != "bad" || !strings.Contains(problems[0].Err.Error(), "forbidden: ") || !strings.Contains(problems[0].Err.Error(), "no PriorityClass with name nobodys was found") {
		t.Errorf("found %v, want one problem of the template bad", problems)
	}
}

// The API server takes the pods of the example fleet, of all four kinds.
func TestDryRunOfTheFleet(t *testing.T) {
	t.Parallel()
	fleet, err := settings.Load(filepath.Join(shared.Root(), "examples", "fleet", "podlane.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(fleet.PodTemplates) != 4 {
		t.Errorf("the fleet has %d templates", len(fleet.PodTemplates))
	}
	problems := dryRun(t, func(s *settings.Settings) {
		access := s.Kubernetes
		*s = fleet
		s.Kubernetes.Kubeconfig, s.Kubernetes.Context, s.Kubernetes.Namespace = access.Kubeconfig, access.Context, access.Namespace
	})
	for _, p := range problems {
		t.Errorf("template %q: %v", p.Name, p.Err)
	}
}

// dryRun judges the templates of the bed's settings after a change.
func dryRun(t *testing.T, change func(*settings.Settings)) []pod.TemplateProblem {
	t.Helper()
	s, err := settings.Load(shared.Config)
	if err != nil {
		t.Fatal(err)
	}
	if s.Vault.ForKubernetes() {
		s.Kubernetes.Kubeconfig = shared.AdminKubeconfig()
	}
	change(&s)
	client, err := pod.Connect(&s, nil, joblog.New(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	return client.DryRunTemplates(t.Context(), &s)
}

// The API server takes what deploy/ has, every field of it.
func TestDryRunOfDeployments(t *testing.T) {
	t.Parallel()
	needsStack(t)
	files, err := filepath.Glob(filepath.Join(shared.Root(), "deploy", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := shared.Kube.DryRun(t.Context(), text); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
	}
	if err := shared.Kube.DryRun(t.Context(), []byte("{apiVersion: v1, kind: ServiceAccount, metadata: {name: x}, secretz: []}")); err == nil {
		t.Error("an unknown field passes the dry run")
	}
}
