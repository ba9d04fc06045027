package pod

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"podlane/executor/settings"
)

// The example fleet makes the pods that it says it makes.
func TestFleetGolden(t *testing.T) {
	s, err := settings.Load("../../examples/fleet/podlane.toml")
	if err != nil {
		t.Fatal(err)
	}
	if problems := CheckTemplates(&s); len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, template := range []string{"small", "large", "privileged-build", "review-deploy"} {
		job := testJob()
		job.Image.Name = "registry.example.com/team/go:1"
		job.GitInfo.Protected = new(true)
		if template != "small" {
			withVariables(settings.TemplateVariable, template)(job)
		}
		m, err := Build(job, &s, "a1b2c3")
		if err != nil {
			t.Fatal(err)
		}
		got, err := yaml.Marshal(m.Pod)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "fleet-"+template+".yaml")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("pod differs from %s (-want +got):\n%s", golden, diff)
		}
	}
}
