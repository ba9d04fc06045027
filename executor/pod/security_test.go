package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// Whatever a pod is made of, containers of every kind get the defaults that
// docs/security.md promises; only a template takes them away, from one container.
func TestSecurityDefaults(t *testing.T) {
	s := settings.Default()
	s.Job.AgentImage = "podlane/helper"
	s.Kubernetes.PodTemplate = "spec:\n  containers:\n  - {name: proxy, image: proxy}\n  - {name: service, securityContext: {privileged: true}}\n"
	job := testJob()
	job.Services = []gitlab.Image{{Name: "docker:dind"}}
	m, err := Build(job, &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	for level, p := range map[string]*corev1.Pod{"default": m.Pod, "restricted": m.restricted} {
		spec := p.Spec
		if *spec.AutomountServiceAccountToken || *spec.EnableServiceLinks || spec.HostNetwork || spec.HostPID || spec.HostIPC {
			t.Errorf("%s: the pod has a token, links or a namespace of the node's", level)
		}
		if spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: the seccomp profile is %v", level, spec.SecurityContext.SeccompProfile)
		}
		if nonRoot := spec.SecurityContext.RunAsNonRoot; (nonRoot != nil && *nonRoot) != (level == "restricted") {
			t.Errorf("%s: runAsNonRoot is %v", level, nonRoot)
		}
		seen := map[string]bool{}
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			seen[c.Name] = true
			sc := c.SecurityContext
			if c.Name == "svc-0" {
				if !*sc.Privileged {
					t.Errorf("%s: the template's word about services does not count", level)
				}
				continue
			}
			if *sc.AllowPrivilegeEscalation || sc.Privileged != nil && *sc.Privileged {
				t.Errorf("%s: container %s may gain privileges", level, c.Name)
			}
			if diff := cmp.Diff([]corev1.Capability{"ALL"}, sc.Capabilities.Drop); diff != "" {
				t.Errorf("%s: container %s drops:\n%s", level, c.Name, diff)
			}
			if level == "restricted" && len(sc.Capabilities.Add) > 0 {
				t.Errorf("%s: container %s keeps %v", level, c.Name, sc.Capabilities.Add)
			}
		}
		for _, name := range []string{agentContainerName, HelperContainer, BuildContainer, "proxy", "svc-0"} {
			if !seen[name] {
				t.Errorf("%s: there is no container %s", level, name)
			}
		}
	}
}
