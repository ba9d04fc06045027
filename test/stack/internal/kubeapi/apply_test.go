package kubeapi

import "testing"

func TestApplyPath(t *testing.T) {
	const parameters = "?fieldManager=podlane-stack&force=true"
	tests := []struct {
		name, document, want string
		ok                   bool
	}{
		{"cluster-wide", "apiVersion: v1\nkind: Namespace\nmetadata: {name: jobs}", "/api/v1/namespaces/jobs" + parameters, true},
		{"core", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}", "/api/v1/namespaces/jobs/serviceaccounts/a" + parameters, true},
		{"group", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}", "/apis/rbac.authorization.k8s.io/v1/namespaces/jobs/roles/r" + parameters, true},
		{"its own namespace", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: own}", "/api/v1/namespaces/own/serviceaccounts/a" + parameters, true},
		{"comment", "# nothing\n", "", true},
		{"unknown kind", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}", "", false},
		{"not YAML", "a: b: c", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := applyPath([]byte(test.document), "jobs")
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
