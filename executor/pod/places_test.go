package pod

import (
	"slices"
	"testing"

	"podlane/executor/settings"
)

func TestPlacesOf(t *testing.T) {
	all := []string{"ci", "ci-7", "ci-7-protected", "xci-7", "ci-7x", "team-a", "other"}
	tests := []struct {
		name, namespace, overwrites string
		only                        []string
		names, fits                 []string
	}{
		{"one", "ci", "", nil, []string{"ci"}, nil},
		{"of a project", "ci-{project_id}", "", nil, nil, []string{"ci-7", "ci-7-protected", "ci-7x"}},
		{"of a scope", "ci-{project_id}-{scope}", "", nil, nil, []string{"ci-7-protected"}},
		{"jobs choose", "ci", "team-[a-z]", nil, []string{"ci"}, []string{"ci", "team-a"}},
		{"jobs may choose, or get one", "ci-{job_id}x", "team-.*|other", nil, nil, []string{"ci-7x", "team-a", "other"}},
		{"somebody names them", "ci-{project_id}", "team-.*", []string{"a", "b"}, []string{"a", "b"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := settings.Default()
			s.Kubernetes.Namespace, s.Overwrites.Namespace = tt.namespace, tt.overwrites
			p := PlacesOf(&s, tt.only)
			if !slices.Equal(p.names, tt.names) {
				t.Errorf("names %v, want %v", p.names, tt.names)
			}
			var fits []string
			for _, name := range all {
				if p.fits != nil && p.has(name) {
					fits = append(fits, name)
				}
			}
			if !slices.Equal(fits, tt.fits) {
				t.Errorf("%v fit, want %v", fits, tt.fits)
			}
		})
	}
}
