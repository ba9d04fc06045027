package e2e

import (
	"strings"
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

// The helper image checks out large files and moves artifacts up and down, as
// root and as any other user.
func TestHelperImageWorksAsAnyUser(t *testing.T) {
	t.Parallel()
	nonroot := bed.Settings{
		"security": {"level": quoted("restricted"), "user": quoted("4711:4712")},
	}
	tests := []struct {
		name     string
		settings bed.Settings
		user     string
	}{
		{"root", nil, "0"},
		{"not root", nonroot, "4711"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := shared
			if tt.settings != nil {
				b = newBed(t, tt.settings)
			}
			large := strings.Repeat("large file ", 100_000)
			pointer, err := b.GitLab.AddLarge([]byte(large))
			if err != nil {
				t.Fatal(err)
			}
			p := project(t, b, map[string]string{".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "model.bin": pointer})
			first := runOn(t, b, gitlabsim.JobSpec{
				Project:   p,
				Script:    []string{`echo "I am $(id -u)"`, "wc -c model.bin", "git lfs ls-files || true", "cut -c1-22 model.bin > artifact"},
				Artifacts: []gitlabsim.Artifact{{Paths: []string{"artifact"}}},
			})
			first.succeeded(t, "\nI am "+tt.user+"\n", "\n1100000 model.bin\n", "Uploading artifacts")
			runOn(t, b, gitlabsim.JobSpec{Project: p, Dependencies: []*gitlabsim.Job{first.job}, Script: []string{"cat artifact"}}).
				succeeded(t, "Downloading artifacts", "\nlarge file large file \n")
		})
	}
}
