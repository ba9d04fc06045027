package executor

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"podlane/cacheclient/key"
	"podlane/executor/settings"
	"podlane/internal/redact"
)

func unsigned(claims string) redact.Secret {
	encode := base64.RawURLEncoding.EncodeToString
	return redact.New(encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature")))
}

// The doctor's job is the one that the id_token was made for.
func TestTryoutIsTheTokensJob(t *testing.T) {
	s := settings.Default()
	s.Vault.Address, s.Cache.Bucket = "https://vault.example.com", "b"
	s.Kubernetes.Namespace = "ci-{project_id}-{pipeline_id}-{scope}"
	s.Vault.Kubernetes.Namespace = "podlane"
	token := unsigned(`{"iss":"https://gitlab.example.com","job_id":"7","pipeline_id":"8","project_id":"42","namespace_id":"3","ref_protected":"true"}`)
	for _, tt := range []struct {
		instance, id string
	}{{"", "gitlab.example.com"}, {"a-uuid", "a-uuid"}} {
		try := NewTryout(TryoutOptions{Settings: &s, IDToken: token, Instance: tt.instance, Secrets: &redact.Set{}})
		if err := try.IDToken(); err != nil {
			t.Fatal(err)
		}
		if f := try.Facts(); f.JobID != "7" || f.ProjectID != "42" || f.Scope != ScopeProtected || !f.Signed {
			t.Errorf("facts are %+v", f)
		}
		want := fmt.Sprintf("podlane/%s/42/protected/", key.Instance(tt.id))
		if dir, err := try.CacheDir(s.Vault.CacheRead, "42", key.Protected); dir != want || err != nil {
			t.Errorf("caches lie in %s, %v, want %s", dir, err, want)
		}
		if got, err := try.Namespaces(); err != nil || !slices.Equal(got, []string{"ci-42-8-protected", "ci-42-8-unprotected"}) {
			t.Errorf("namespaces are %v, %v", got, err)
		}
	}
	// An account in each namespace has rights in that alone.
	s.Vault.Kubernetes.Namespace = ""
	try := NewTryout(TryoutOptions{Settings: &s, IDToken: token, Secrets: &redact.Set{}})
	if got, err := try.Namespaces(); err != nil || !slices.Equal(got, []string{"ci-42-8-protected"}) {
		t.Errorf("namespaces are %v, %v", got, err)
	}
}

func TestTryoutOfNoIDToken(t *testing.T) {
	s := settings.Default()
	s.Vault.Address = "https://vault.example.com"
	for want, token := range map[string]redact.Secret{
		"what was given is no id_token: ":                   redact.New("a-secret"),
		`the claim job_id is "", expected a number; hint: `: unsigned(`{"project_id":"42"}`),
		`the claim project_id is "x", expected a number`:    unsigned(`{"job_id":"1","project_id":"x"}`),
	} {
		try := NewTryout(TryoutOptions{Settings: &s, IDToken: token, Secrets: &redact.Set{}})
		if err := try.IDToken(); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "a-secret") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
