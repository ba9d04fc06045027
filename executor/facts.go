package executor

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"podlane/executor/gitlab"
	"podlane/internal/redact"
)

// Scopes of a job: what it may write, and what it may read of the other's.
const (
	ScopeProtected   = "protected"
	ScopeUnprotected = "unprotected"
)

// Facts are what is known of a job without believing whoever wrote it: fields
// of the job response, and claims that GitLab has signed. No variable is among
// them.
type Facts struct {
	// Instance tells GitLab instances apart.
	Instance string
	// ProjectID is where the code comes from: a merge request from a fork that
	// runs in the parent project has the fork's.
	ProjectID   string
	NamespaceID string
	PipelineID  string
	JobID       string
	// Scope is ScopeProtected or ScopeUnprotected.
	Scope string
	// Environment and PipelineSource are known of a job with an id_token only.
	Environment    string
	PipelineSource string
	// Signed is set if there was an id_token. It is for Vault to judge the
	// signature: facts are used to ask Vault for something, or after it has
	// given something.
	Signed bool
}

// responseFacts are the facts of a job without an id_token.
func responseFacts(job *gitlab.Job) Facts {
	f := Facts{
		Instance:   job.Instance(),
		ProjectID:  strconv.FormatInt(job.JobInfo.ProjectID, 10),
		PipelineID: strconv.FormatInt(job.JobInfo.PipelineID, 10),
		JobID:      strconv.FormatInt(job.ID, 10),
		Scope:      ScopeUnprotected,
	}
	if p := job.GitInfo.Protected; p != nil && *p {
		f.Scope = ScopeProtected
	}
	return f
}

// signedFacts adds what an id_token says.
func signedFacts(job *gitlab.Job, c claims) Facts {
	f := responseFacts(job)
	f.Signed = true
	f.ProjectID, f.NamespaceID = string(c.ProjectID), string(c.NamespaceID)
	f.Scope = ScopeUnprotected
	if c.RefProtected == "true" {
		f.Scope = ScopeProtected
	}
	f.Environment, f.PipelineSource = c.Environment, c.PipelineSource
	return f
}

// Placeholders are the facts by the names that settings have for them:
// settings.Placeholders. Those that are not known are left out.
func (f Facts) Placeholders() map[string]string {
	all := map[string]string{
		"project_id": f.ProjectID, "namespace_id": f.NamespaceID, "pipeline_id": f.PipelineID, "job_id": f.JobID,
		"scope": f.Scope, "environment": f.environmentLabel(),
	}
	for name, value := range all {
		if value == "" {
			delete(all, name)
		}
	}
	return all
}

// environmentLabel is the environment's name as a DNS label. Two environments,
// also those of two projects, never share one.
func (f Facts) environmentLabel() string {
	if f.Environment == "" {
		return ""
	}
	slug := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(f.Environment))
	sum := sha256.Sum256([]byte(f.Instance + "\x00" + f.ProjectID + "\x00" + f.Environment))
	return strings.TrimLeft(strings.Trim(slug[:min(len(slug), 40)], "-")+"-"+hex.EncodeToString(sum[:4]), "-")
}

// claims are what we read of an id_token
// (https://docs.gitlab.com/ci/secrets/id_token_authentication/#token-payload).
type claims struct {
	ProjectID      text   `json:"project_id"`
	NamespaceID    text   `json:"namespace_id"`
	JobID          text   `json:"job_id"`
	PipelineID     text   `json:"pipeline_id"`
	RefProtected   text   `json:"ref_protected"`
	Environment    string `json:"environment"`
	PipelineSource string `json:"pipeline_source"`
	Expires        int64  `json:"exp"`
}

// text is a claim that GitLab writes as a string, and may write as a number.
type text string

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) != nil {
		s = string(data)
	}
	*t = text(s)
	return nil
}

// idToken is the job's id_token, and what it says.
type idToken struct {
	value  redact.Secret
	claims claims
}

func (t idToken) expires() time.Time { return time.Unix(t.claims.Expires, 0) }

var errNoIDToken = errors.New("no id_token")

// findIDToken takes the id_token from the first variable of that name: see
// gitlab.Variables.First. A token of another job is refused although Vault might
// take it: whoever wrote this job may have found it in the other's log.
//
// Errors are the job author's.
func findIDToken(job *gitlab.Job, variable string) (idToken, error) {
	value, ok := job.Variables.First(variable)
	if !ok || value == "" {
		return idToken{}, fmt.Errorf("%w: the job has no %s; hint: id_tokens: {%[2]s: {aud: …}} in .gitlab-ci.yml, with the audience that Vault expects", errNoIDToken, variable)
	}
	token, err := readIDToken(variable, redact.New(value))
	if err != nil {
		return idToken{}, err
	}
	if want := strconv.FormatInt(job.ID, 10); string(token.claims.JobID) != want {
		return idToken{}, fmt.Errorf("%s is another job's: found the claim job_id %q, expected %q", variable, token.claims.JobID, want)
	}
	return token, nil
}

// readIDToken reads the claims of an id_token; name tells where it was found.
func readIDToken(name string, value redact.Secret) (idToken, error) {
	token := idToken{value: value}
	parts := strings.Split(value.Reveal(), ".")
	if len(parts) != 3 {
		return idToken{}, fmt.Errorf("%s is no id_token: found a value with %d dots, expected a JWT with 2; hint: is there a variable of that name in place of id_tokens?", name, len(parts)-1)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &token.claims)
	}
	if err != nil {
		return idToken{}, fmt.Errorf("%s is no id_token: its second part is not JSON in base64", name)
	}
	return token, nil
}
