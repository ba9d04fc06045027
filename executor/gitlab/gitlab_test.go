package gitlab

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The response as a runner writes it: inputs as an object, run as a list, both
// of which its own types can't read back.
const response = `{
  "id": 7, "token": "t", "allow_git_fetch": true, "inputs": {}, "run": [{"name": "x"}],
  "job_info": {"name": "test", "stage": "test", "project_id": 3, "project_full_path": "g/p", "pipeline_id": 9},
  "git_info": {"repo_url": "https://gitlab-ci-token:secret@gitlab.example.com/g/p.git", "ref": "main", "protected": null},
  "runner_info": {"timeout": 60},
  "variables": [{"key": "A", "value": "1"}, {"key": "A", "value": "2"}],
  "image": {"name": "alpine", "executor_opts": {"docker": {}}},
  "services": null
}`

func TestParseJob(t *testing.T) {
	job, err := ParseJob(strings.NewReader(response))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := job.URL(), "https://gitlab.example.com/g/p/-/jobs/7"; got != want {
		t.Errorf("URL is %s, want %s", got, want)
	}
	if got := job.Instance(); got != "gitlab.example.com" {
		t.Errorf("instance is %s", got)
	}
	if got := job.Variables.Get("A"); got != "2" {
		t.Errorf("A is %s, want the later value", got)
	}
}

func TestParseJobNamesWhatIsMissing(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "not a job in JSON"},
		{"truncated", response[:200], "not a job in JSON"},
		{"nothing in it", "{}", "id is missing\njob_info.project_id is missing\ngit_info.repo_url is missing"},
		{"wrong type", `{"id": "seven"}`, "not a job in JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseJob(strings.NewReader(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func FuzzParseJob(f *testing.F) {
	f.Add(response)
	f.Add(`{"variables":[{"key":"A","value":"$A$$${A}"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		job, err := ParseJob(strings.NewReader(text))
		if err != nil {
			return
		}
		job.Variables.Resolve()
		if strings.Contains(job.URL(), "@") && !strings.Contains(job.GitInfo.RepoURL, "@") {
			t.Errorf("URL %q has a user that came from nowhere", job.URL())
		}
	})
}

func TestExpand(t *testing.T) {
	vars := Variables{{Key: "A", Value: "1"}, {Key: "B", Value: "$A"}, {Key: "C", Value: "$A", Raw: true}}
	tests := map[string]string{
		"plain":   "plain",
		"$A-${A}": "1-1",
		"$B":      "$A",
		"$$A":     "$A",
		"$NONE.":  ".",
		"100%":    "100%",
	}
	for in, want := range tests {
		if got := vars.Expand(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	want := Variables{{Key: "A", Value: "1"}, {Key: "B", Value: "1"}, {Key: "C", Value: "$A", Raw: true}}
	if diff := cmp.Diff(want, vars.Resolve()); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
}

// Values that name themselves, many variables that name each other, arrays as
// deep as the file is long: reading them takes neither long nor much memory.
func TestHostileJobResponse(t *testing.T) {
	const head = `{"id":1,"job_info":{"project_id":1},"git_info":{"repo_url":"http://h/p.git"},"variables":`
	var many []Variable
	for i := range 50_000 {
		many = append(many, Variable{Key: fmt.Sprint("V", i), Value: fmt.Sprintf("$V%d$V%d", i, 50_000-i)})
	}
	list, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, response := range map[string]string{
		"a value that names itself":   head + `[{"key":"A","value":"` + strings.Repeat("$A", 1<<20) + `"}]}`,
		"values that name each other": head + string(list) + `}`,
		"deep":                        head + strings.Repeat("[", 1<<20) + `}`,
		"deep elsewhere":              head + `[],"x":` + strings.Repeat(`{"x":`, 1<<20) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			job, err := ParseJob(strings.NewReader(response))
			if err != nil {
				return
			}
			for _, v := range job.Variables.Resolve() {
				if len(v.Value) > maxExpanded {
					t.Errorf("%s has %d bytes", v.Key, len(v.Value))
				}
			}
		})
	}
}

func TestFirst(t *testing.T) {
	vars := Variables{{Key: "T", Value: "GitLab's"}, {Key: "T", Value: "the author's"}}
	if got, ok := vars.First("T"); got != "GitLab's" || !ok {
		t.Errorf("got %q, %v", got, ok)
	}
	if _, ok := vars.First("U"); ok {
		t.Error("there is a variable that is not there")
	}
}

func TestGrants(t *testing.T) {
	tests := map[string][]string{
		"":                 nil,
		" ":                nil,
		"a":                {"a"},
		"a, b":             {"a", "b"},
		"b a\tb\n":         {"b", "a"},
		"review-$TIER ,$X": {"review-dev"},
	}
	for value, want := range tests {
		job := Job{Variables: Variables{{Key: "TIER", Value: "dev"}, {Key: "PODLANE_GRANTS", Value: value}}}
		if diff := cmp.Diff(want, job.Grants()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", value, diff)
		}
	}
}

func TestStageKind(t *testing.T) {
	tests := map[string]Kind{
		"get_sources": KindHelper, "clear_worktree": KindHelper, "upload_artifacts_on_failure": KindHelper,
		"build_script": KindBuild, "step_script": KindBuild, "step_release": KindBuild, "after_script": KindBuild,
		"restore_cache": KindRestoreCache, "archive_cache_on_failure": KindArchiveCache,
		"make_coffee": KindUnknown, "": KindUnknown,
	}
	for stage, want := range tests {
		if got := StageKind(stage); got != want {
			t.Errorf("%s is of kind %d, want %d", stage, got, want)
		}
	}
}
