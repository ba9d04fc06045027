package executor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/vaultauth"
)

// Tryout does what the stages of a job do to get access, by the same code and
// without a job: for `podlane doctor`. It has little patience.
type Tryout struct {
	stage    *Stage
	tokenErr error
}

// TryoutOptions say who to be.
type TryoutOptions struct {
	Settings *settings.Settings
	// IDToken is a job's; without one there is nothing from Vault.
	IDToken redact.Secret
	// Instance is the UUID of GitLab's instance, a part of caches' names; empty
	// means the host of whoever issued the id_token.
	Instance string
	// Secrets and Proxy are as in Stage.
	Secrets *redact.Set
	Proxy   func(*http.Request) (*url.URL, error)
}

// Whoever waits for the doctor's answer waits for a hiccup, and not for an outage
// to end.
const (
	tryoutPatience = settings.Duration(2 * time.Second)
	tryoutAttempts = 3
)

// NewTryout asks nobody anything yet.
func NewTryout(o TryoutOptions) *Tryout {
	s := *o.Settings
	s.Vault.RetryBudget, s.Kubernetes.RetryBudget = tryoutPatience, tryoutPatience
	t := &Tryout{stage: &Stage{Job: sampleJob(), Settings: &s, Secrets: o.Secrets, Proxy: o.Proxy, Attempt: "doctor", attempts: tryoutAttempts}}
	job := t.stage.Job
	if !o.IDToken.IsZero() {
		o.Secrets.Add(o.IDToken)
		t.tokenErr = jobOf(job, s.Vault.IDToken, o.IDToken)
	}
	if o.Instance != "" {
		job.JobInfo.InstanceUUID = o.Instance
	}
	return t
}

// sampleJob is one of nobody's.
func sampleJob() *gitlab.Job {
	return &gitlab.Job{
		ID:      1,
		JobInfo: gitlab.JobInfo{Name: "doctor", ProjectID: 1, PipelineID: 1},
		GitInfo: gitlab.GitInfo{RepoURL: "https://gitlab.invalid/doctor.git", Protected: new(false)},
	}
}

// jobOf makes a job the one that an id_token was made for, as far as the token
// says.
func jobOf(job *gitlab.Job, variable string, value redact.Secret) error {
	token, err := readIDToken("what was given", value)
	if err != nil {
		return err
	}
	c := token.claims
	for _, claim := range []struct {
		name, value string
		into        *int64
	}{{"job_id", string(c.JobID), &job.ID}, {"project_id", string(c.ProjectID), &job.JobInfo.ProjectID}, {"pipeline_id", string(c.PipelineID), &job.JobInfo.PipelineID}} {
		n, err := strconv.ParseInt(claim.value, 10, 64)
		if err != nil && claim.name != "pipeline_id" {
			return fmt.Errorf("the claim %s is %q, expected a number; hint: is this an id_token of GitLab?", claim.name, claim.value)
		}
		if err == nil {
			*claim.into = n
		}
	}
	job.GitInfo.Protected = new(c.RefProtected == "true")
	if said, err := vaultauth.DecodeIDToken(value); err == nil && said.Issuer != "" {
		job.GitInfo.RepoURL = said.Issuer + "/doctor.git"
	}
	job.Variables = gitlab.Variables{{Key: variable, Value: value.Reveal()}}
	return nil
}

// IDToken tells what is wrong with the id_token, as far as podlane can tell.
func (t *Tryout) IDToken() error { return t.tokenErr }

// Facts are what the stages know of the job.
func (t *Tryout) Facts() Facts {
	if c, _ := t.stage.credentials(); c != nil {
		return c.facts
	}
	return responseFacts(t.stage.Job)
}

// VaultHealth asks Vault how it is.
func (t *Tryout) VaultHealth(ctx context.Context) (vaultauth.Health, error) {
	c, err := t.stage.credentials()
	if c == nil {
		return vaultauth.Health{}, err
	}
	return c.client.Health(ctx)
}

// Fill replaces a role's placeholders.
func (t *Tryout) Fill(role settings.VaultRole) (settings.VaultRole, error) {
	return filledRole(role, t.Facts())
}

// Login logs in with a JWT role whose placeholders are filled.
func (t *Tryout) Login(ctx context.Context, authRole string) (vaultauth.TokenInfo, error) {
	c, err := t.stage.credentials()
	if err != nil {
		return vaultauth.TokenInfo{}, err
	}
	return c.session(authRole).Login(ctx)
}

// Can asks what the token of a JWT role may do: see vaultauth.Session.Can.
func (t *Tryout) Can(ctx context.Context, authRole string, paths ...string) (map[string][]string, error) {
	c, err := t.stage.credentials()
	if err != nil {
		return nil, err
	}
	return c.session(authRole).Can(ctx, paths...)
}

// Cluster gets access to the cluster, as prepare does. The token is empty if
// access does not come from Vault.
func (t *Tryout) Cluster(ctx context.Context) (*pod.Client, vaultauth.KubeToken, error) {
	client, err := t.stage.connect()
	if err == nil {
		err = t.stage.haveToken(ctx)
	}
	if err != nil || t.stage.tokens == nil {
		return client, vaultauth.KubeToken{}, err
	}
	return client, t.stage.tokens.current, nil
}

// Namespaces are those that such a job's pod may be in, its own first: that of
// the other scope comes second if it is another, unless each has an account of
// its own.
func (t *Tryout) Namespaces() ([]string, error) {
	own, err := pod.Namespace(t.stage.Job, t.stage.Settings)
	if v := &t.stage.Settings.Vault; err != nil || v.ForKubernetes() && v.Kubernetes.Namespace == "" {
		return []string{own}, err
	}
	other := *t.stage.Job
	other.GitInfo.Protected = new(!*other.GitInfo.Protected)
	others, err := pod.Namespace(&other, t.stage.Settings)
	if err != nil || others == own {
		return []string{own}, err
	}
	return []string{own, others}, nil
}

// Bucket gets credentials for caches, as a cache stage does, and opens the
// bucket with them; close it. The time is when they end.
func (t *Tryout) Bucket(ctx context.Context, role settings.VaultRole) (*store.Store, time.Time, error) {
	var found store.Credentials
	source := t.stage.cacheSource(role)
	if source != nil {
		var err error
		if found, err = source(ctx); err != nil {
			return nil, time.Time{}, err
		}
		source = store.Fixed(found)
	}
	bucket, err := t.stage.openBucket(ctx, source)
	return bucket, found.Expires, err
}

// CacheDir is where caches of a project in a scope lie: what their names begin
// with.
func (t *Tryout) CacheDir(role settings.VaultRole, project string, scope key.Scope) (string, error) {
	facts, err := t.stage.cacheFacts(role)
	if err != nil {
		return "", err
	}
	id, err := strconv.ParseInt(project, 10, 64)
	if err != nil {
		return "", err
	}
	space, err := key.NewSpace(t.stage.Settings.Cache.Prefix, key.Instance(facts.Instance), id)
	return space.Dir(scope), err
}

// NotForThisJob is the reason why a grant is not tried.
type NotForThisJob struct{ Reason error }

func (e *NotForThisJob) Error() string { return e.Reason.Error() }

// Grant gets what a grant gives, and tells which JWT role it took and when it
// ends.
func (t *Tryout) Grant(ctx context.Context, grant settings.Grant) (authRole string, ends time.Time, err error) {
	facts := t.Facts()
	if err := mayHave(grant, facts); err != nil {
		return "", time.Time{}, &NotForThisJob{err}
	}
	filled, err := filledGrant(grant, facts)
	if err != nil {
		return "", time.Time{}, &NotForThisJob{err}
	}
	if _, err := t.Login(ctx, filled.AuthRole); err != nil {
		return filled.AuthRole, time.Time{}, err
	}
	got, _, err := t.stage.grantedBy(ctx, filled)
	return filled.AuthRole, got.expires, err
}

// GiveBack revokes everything that Vault has given, and tells whether anything
// was asked for.
func (t *Tryout) GiveBack(ctx context.Context) (bool, error) {
	c, _ := t.stage.credentials()
	if c == nil || len(c.sessions) == 0 {
		return false, nil
	}
	return true, c.revoke(ctx)
}
