package pod

import (
	"bytes"
	"net/netip"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	selectors "k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"podlane/executor/settings"
)

// The policies in deploy/ keep job pods from the metadata service and the API
// server and leave them everything else; only pods of the fleet's template for
// deployments reach the API server.
func TestNetworkPolicies(t *testing.T) {
	policies := networkPolicies(t)
	fleet, err := settings.Load("../../examples/fleet/podlane.toml")
	if err != nil {
		t.Fatal(err)
	}
	podOf := func(template string) *corev1.Pod {
		job := testJob()
		job.Image.Name = "registry.example.com/team/go:1"
		withVariables(settings.TemplateVariable, template)(job)
		m, err := Build(job, &fleet, "a")
		if err != nil {
			t.Fatal(err)
		}
		return m.Pod
	}
	jobs, deployments := podOf(""), podOf("review-deploy")
	for address, want := range map[string]struct{ job, deployment bool }{
		"169.254.169.254": {false, false}, "169.254.170.2": {false, false}, "100.100.100.200": {false, false},
		"fd00:ec2::254": {false, false}, "fd20:ce::254": {false, false}, "fe80::1": {false, false},
		// The API server's, as the file has them to be set.
		"10.96.0.1": {false, true}, "192.0.2.10": {false, true},
		"10.96.0.2": {true, true}, "8.8.8.8": {true, true}, "2001:db8::1": {true, true},
	} {
		ip := netip.MustParseAddr(address)
		if reaches(t, policies, jobs, ip) != want.job {
			t.Errorf("a job reaches %s: not %v", address, want.job)
		}
		if reaches(t, policies, deployments, ip) != want.deployment {
			t.Errorf("a deployment reaches %s: not %v", address, want.deployment)
		}
	}
	for _, p := range policies {
		if len(p.Spec.Ingress) > 0 {
			t.Errorf("%s lets others connect to jobs", p.Name)
		}
	}
}

func networkPolicies(t *testing.T) []networkingv1.NetworkPolicy {
	t.Helper()
	text, err := os.ReadFile("../../deploy/networkpolicy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var policies []networkingv1.NetworkPolicy
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var p networkingv1.NetworkPolicy
		if err := yaml.UnmarshalStrict(document, &p); err != nil {
			t.Fatal(err)
		}
		policies = append(policies, p)
	}
	return policies
}

// reaches tells what policies say of a pod's way to an address, on a port other
// than DNS's. Without a policy for it a pod reaches everything.
func reaches(t *testing.T, policies []networkingv1.NetworkPolicy, pod *corev1.Pod, ip netip.Addr) bool {
	t.Helper()
	selected := false
	for _, p := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if !selector.Matches(selectors.Set(pod.Labels)) {
			continue
		}
		selected = true
		for _, rule := range p.Spec.Egress {
			for _, to := range rule.To {
				if to.IPBlock != nil && len(rule.Ports) == 0 && contains(to.IPBlock, ip) {
					return true
				}
			}
		}
	}
	return !selected
}

func contains(block *networkingv1.IPBlock, ip netip.Addr) bool {
	for _, except := range block.Except {
		if netip.MustParsePrefix(except).Contains(ip) {
			return false
		}
	}
	return netip.MustParsePrefix(block.CIDR).Contains(ip)
}
