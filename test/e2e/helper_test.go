package e2e

import (
	"testing"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// Artifacts work whichever program the helper image has for them.
func TestHelperImages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		settings bed.Settings
	}{
		{"GitLab's layout", bed.Settings{"job": {"helper_image": quoted(stackenv.ImageHelperGitLab)}}},
		{"podlane-helper from an agent image", bed.Settings{"job": {"helper_image": quoted(stackenv.ImageHelperBare), "agent_image": quoted(stackenv.ImageHelper)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, tt.settings)
			o := runOn(t, b, gitlabsim.JobSpec{
				Script:    []string{"cat README", "echo content > artifact"},
				Artifacts: []gitlabsim.Artifact{{Paths: []string{"artifact"}}},
			})
			o.succeeded(t, "hello from the checkout", "Uploading artifacts")
			if _, ok, err := o.job.Artifact("archive"); !ok || err != nil {
				t.Errorf("the artifact did not arrive: %v", err)
			}
		})
	}
}
