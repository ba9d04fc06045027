package pod

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// granted are the rights of a file's roles: group, resource and verb of each.
func granted(t *testing.T, file string, edit func(string) string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, document := range bytes.Split([]byte(edit(string(text))), []byte("\n---\n")) {
		var role struct {
			Kind  string
			Rules []struct{ APIGroups, Resources, Verbs []string }
		}
		if err := yaml.Unmarshal(document, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						all = append(all, role.Kind+" "+group+" "+resource+" "+verb)
					}
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func wanted(kind func(Right) string) []string {
	all := map[string]bool{}
	for _, r := range rights {
		for _, verb := range r.Verbs {
			if k := kind(r); k != "" {
				all[k+" "+r.Group+" "+r.Resource+" "+verb] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// What deploy/ gives is what podlane asks for, no more and no less.
func TestRightsAreThoseOfDeploy(t *testing.T) {
	asIs := func(text string) string { return text }
	uncommented := func(text string) string {
		return regexp.MustCompile(`(?m)^  # (- apiGroups:|  resources:|  verbs:)`).ReplaceAllString(text, "  $1")
	}
	plain := func(r Right) bool { return r.Where == deployNamespaced }
	for _, tt := range []struct {
		file string
		edit func(string) string
		kind func(Right) string
	}{
		{"deploy/rbac.yaml", asIs, func(r Right) string { return map[bool]string{true: "Role"}[plain(r)] }},
		{"deploy/rbac.yaml", uncommented, func(r Right) string {
			return map[bool]string{true: "Role"}[strings.HasPrefix(r.Where, deployNamespaced)]
		}},
		{"deploy/disruption-budget.yaml", asIs, func(r Right) string { return map[bool]string{true: "Role"}[r.Where == deployBudgets] }},
		{"deploy/node-watch.yaml", asIs, func(r Right) string { return map[bool]string{true: "ClusterRole"}[r.Where == deployNodes] }},
		{"deploy/namespace-per-job.yaml", asIs, func(r Right) string {
			return map[bool]string{true: "ClusterRole"}[plain(r) || r.Where == deployNamespaces]
		}},
	} {
		if diff := cmp.Diff(wanted(tt.kind), granted(t, tt.file, tt.edit)); diff != "" {
			t.Errorf("%s (-podlane needs +the file gives):\n%s", tt.file, diff)
		}
	}
}
