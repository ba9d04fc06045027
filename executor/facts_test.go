package executor

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/executor/gitlab"
)

// jwt is a token as far as we read one: nothing here checks its signature.
func jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

func TestFindIDToken(t *testing.T) {
	good := jwt(t, map[string]any{"job_id": "7", "project_id": "42", "exp": 1893456000})
	tests := []struct {
		name, want string
		vars       gitlab.Variables
	}{
		{name: "none", want: "no id_token: the job has no VAULT_ID_TOKEN; hint: id_tokens: {VAULT_ID_TOKEN: {aud: …}} in .gitlab-ci.yml"},
		{name: "no token", vars: gitlab.Variables{{Key: "VAULT_ID_TOKEN", Value: "hello"}}, want: "VAULT_ID_TOKEN is no id_token: found a value with 0 dots"},
		{name: "nonsense", vars: gitlab.Variables{{Key: "VAULT_ID_TOKEN", Value: "a.%%%.c"}}, want: "VAULT_ID_TOKEN is no id_token: its second part"},
		{name: "another job's", vars: gitlab.Variables{{Key: "VAULT_ID_TOKEN", Value: jwt(t, map[string]any{"job_id": "8"})}}, want: `VAULT_ID_TOKEN is another job's: found the claim job_id "8", expected "7"`},
		{name: "without a job", vars: gitlab.Variables{{Key: "VAULT_ID_TOKEN", Value: jwt(t, map[string]any{})}}, want: `VAULT_ID_TOKEN is another job's: found the claim job_id "", expected "7"`},
		{name: "the first counts", vars: gitlab.Variables{{Key: "VAULT_ID_TOKEN", Value: good}, {Key: "VAULT_ID_TOKEN", Value: jwt(t, map[string]any{"job_id": "8"})}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token, err := findIDToken(&gitlab.Job{ID: 7, Variables: tt.vars}, "VAULT_ID_TOKEN")
			if tt.want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				return
			}
			if err != nil || token.value.Reveal() != good || token.expires().Year() != 2030 {
				t.Errorf("got %v, %v", token, err)
			}
		})
	}
}

func TestSignedFacts(t *testing.T) {
	job := &gitlab.Job{ID: 7, JobInfo: gitlab.JobInfo{ProjectID: 1, PipelineID: 9, InstanceUUID: "u"}, GitInfo: gitlab.GitInfo{Protected: new(true)}}
	plain := responseFacts(job)
	if diff := cmp.Diff(Facts{Instance: "u", ProjectID: "1", PipelineID: "9", JobID: "7", Scope: ScopeProtected}, plain); diff != "" {
		t.Errorf("facts of the response (-want +got):\n%s", diff)
	}
	// A merge request from a fork, which runs in its parent, has the fork's
	// project and no protected ref.
	token, err := findIDToken(&gitlab.Job{ID: 7, Variables: gitlab.Variables{{Key: "T", Value: jwt(t, map[string]any{
		"job_id": "7", "project_id": 2, "namespace_id": "3", "ref_protected": "false", "environment": "review/7", "pipeline_source": "push",
	})}}}, "T")
	if err != nil {
		t.Fatal(err)
	}
	signed := signedFacts(job, token.claims)
	want := Facts{Instance: "u", ProjectID: "2", NamespaceID: "3", PipelineID: "9", JobID: "7", Scope: ScopeUnprotected, Environment: "review/7", PipelineSource: "push", Signed: true}
	if diff := cmp.Diff(want, signed); diff != "" {
		t.Errorf("signed facts (-want +got):\n%s", diff)
	}
	if _, known := plain.Placeholders()["environment"]; known {
		t.Error("a job without an id_token has an environment")
	}
}

func TestEnvironmentLabel(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])$`)
	seen := map[string]string{}
	for _, name := range []string{"review/7", "review-7", "Review/7", "production", "ÄÖ/ü", "---", strings.Repeat("long/", 30)} {
		got := Facts{ProjectID: "1", Environment: name}.environmentLabel()
		if !label.MatchString(strings.TrimSpace(got)) {
			t.Errorf("%q becomes %q", name, got)
		}
		if other, twice := seen[got]; twice {
			t.Errorf("%q and %q both become %q", name, other, got)
		}
		seen[got] = name
	}
	if got := (Facts{ProjectID: "1", Environment: "review/7"}).environmentLabel(); !strings.HasPrefix(got, "review-7-") {
		t.Errorf("review/7 becomes %s", got)
	}
	if a, b := (Facts{ProjectID: "1", Environment: "x"}).environmentLabel(), (Facts{ProjectID: "2", Environment: "x"}).environmentLabel(); a == b {
		t.Error("two projects share an environment")
	}
}
