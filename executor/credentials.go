package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/internal/version"
	"podlane/vaultauth"
)

// revokeLimit bounds the revocation of what Vault has issued: the runner counts
// cleanup's time as the job's, and everything ends by itself as well.
const revokeLimit = 10 * time.Second

// credentials trade the job's id_token for what a stage needs. They are safe for
// concurrent use.
type credentials struct {
	settings *settings.Settings
	token    idToken
	facts    Facts
	client   *vaultauth.Client
	// store carries tokens from stage to stage; nil without a key, in a stage
	// that was called by hand, say.
	store *vaultauth.Store

	mu       sync.Mutex
	sessions map[string]*vaultauth.Session // by JWT role
}

// credentials returns the job's access to Vault, the same one each time, or nil
// if there is no Vault. An error of the id_token is the job author's; without
// one, what earlier stages have left may still do.
func (s *Stage) credentials() (*credentials, error) {
	s.credsOnce.Do(func() { s.creds, s.credsErr = s.openCredentials() })
	return s.creds, s.credsErr
}

func (s *Stage) openCredentials() (*credentials, error) {
	v := &s.Settings.Vault
	if !v.Enabled() {
		return nil, nil
	}
	c := &credentials{settings: s.Settings, facts: responseFacts(s.Job), sessions: map[string]*vaultauth.Session{}}
	var err error
	if c.client, err = vaultClient(v, s.Secrets, s.Log.Warnf); err != nil {
		return nil, err
	}
	if !s.SealKey.IsZero() && s.StateDir != "" {
		if c.store, err = vaultauth.NewStore(s.StateDir, s.SealKey, sealIdentity(s.Job, s.Attempt), s.Log.Warnf); err != nil {
			return nil, err
		}
	}
	token, err := findIDToken(s.Job, v.IDToken)
	if err == nil {
		c.token, c.facts = token, signedFacts(s.Job, token.claims)
	} else {
		err = jobError(err)
	}
	return c, err
}

func vaultClient(v *settings.Vault, secrets *redact.Set, warnf func(string, ...any)) (*vaultauth.Client, error) {
	return vaultauth.New(vaultauth.Config{
		Address: v.Address, Namespace: v.Namespace,
		CAFile: v.CAFile, CertFile: v.CertFile, KeyFile: v.KeyFile, ServerName: v.ServerName,
		AuthMount: v.AuthMount, Timeout: v.RequestTimeout.D(), RetryBudget: v.RetryBudget.D(),
		UserAgent: "podlane/" + version.String(), Redact: secrets,
	}, warnf)
}

// sealIdentity binds what stages leave for each other to one attempt at one job.
func sealIdentity(job *gitlab.Job, attempt string) string {
	return strings.Join([]string{job.Instance(), strconv.FormatInt(job.JobInfo.ProjectID, 10), strconv.FormatInt(job.ID, 10), attempt}, "\x00")
}

// Facts are what is known of the job without believing its author. Those of an
// id_token count once Vault has accepted it: use them to ask Vault for
// something, or after Vault has given something. An error is the job author's.
func (s *Stage) Facts() (Facts, error) {
	c, err := s.credentials()
	if c == nil {
		return responseFacts(s.Job), err
	}
	return c.facts, err
}

// session returns the one Vault token of a JWT role.
func (c *credentials) session(authRole string) *vaultauth.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.sessions[authRole]; ok {
		return s
	}
	s := vaultauth.Open(vaultauth.Options{Client: c.client, Role: authRole, IDToken: c.token.value, Store: c.store})
	c.sessions[authRole] = s
	return s
}

// use fills a role's placeholders and opens its session.
func (c *credentials) use(role settings.VaultRole) (settings.VaultRole, *vaultauth.Session, error) {
	role, err := filledRole(role, c.facts)
	if err != nil {
		return role, nil, err
	}
	return role, c.session(role.AuthRole), nil
}

func filledRole(role settings.VaultRole, f Facts) (settings.VaultRole, error) {
	facts := f.Placeholders()
	for _, field := range []*string{&role.AuthRole, &role.Mount, &role.Role, &role.Namespace} {
		value, err := settings.Fill(*field, facts)
		if err != nil {
			return role, err
		}
		*field = value
	}
	return role, nil
}

// kubeTokens is podlane's own access to the cluster, for a job in a namespace.
func (c *credentials) kubeTokens(namespace string, warnf func(string, ...any), seen *Observation) *kubeTokens {
	return newKubeTokens(func(ctx context.Context, anew bool) (vaultauth.KubeToken, error) {
		began := time.Now()
		defer func() {
			// What an earlier stage has left is at hand at once.
			if took := time.Since(began); took > atHand {
				seen.PhaseTook(phaseLogin, began, took)
			}
		}()
		role, session, err := c.use(c.settings.Vault.Kubernetes)
		if err != nil {
			return vaultauth.KubeToken{}, err
		}
		return session.KubeToken(ctx, vaultauth.KubeRequest{
			Mount: role.Mount, Role: role.Role, Namespace: cmp.Or(role.Namespace, namespace), TTL: role.TTL.D(), Renew: anew,
		})
	}, warnf)
}

// atHand is longer than it takes to read a token from disk.
const atHand = time.Millisecond

// CacheCredential gets a credential for the cache from Vault, a new one with each
// call: for settings.Vault.CacheRead or CacheWrite. There must be a Vault.
func (s *Stage) CacheCredential(ctx context.Context, role settings.VaultRole) (vaultauth.S3Credential, error) {
	creds, err := s.credentials()
	if err != nil {
		return vaultauth.S3Credential{}, err
	}
	role, session, err := creds.use(role)
	if err != nil {
		return vaultauth.S3Credential{}, err
	}
	return session.S3(ctx, role.Mount, role.Role, role.TTL.D())
}

// revoke ends all Vault tokens of the job, and what was made with them.
func (c *credentials) revoke(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	if c.store != nil {
		return c.client.RevokeAll(ctx, c.store, time.Now())
	}
	return c.revokeSessions(ctx)
}

func (c *credentials) revokeSessions(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, session := range c.sessions {
		errs = append(errs, session.Revoke(ctx))
	}
	return errors.Join(errs...)
}

// release ends what a stage has got and cannot leave to the next one.
func (s *Stage) release(ctx context.Context) {
	if s.creds == nil || s.creds.store != nil {
		return
	}
	if err := s.creds.revoke(ctx); err != nil {
		s.Log.Warnf("%v", err)
	}
}

// checkAccess finds out, asking nobody, what will be refused in any case: a job
// without an id_token, or one that asks for what it will not get. Errors are
// the job author's.
func (s *Stage) checkAccess() ([]settings.Grant, error) {
	facts, err := s.Facts()
	if err != nil {
		return nil, err
	}
	asked, err := grantsAsked(s.Job, s.Settings)
	if err != nil {
		return nil, jobError(err)
	}
	for i, g := range asked {
		if err := mayHave(g, facts); err != nil {
			return nil, jobError(err)
		}
		if asked[i], err = filledGrant(g, facts); err != nil {
			return nil, jobError(err)
		}
	}
	return asked, nil
}

// logIn makes sure, before anything else is done, that Vault gives what the job
// will need. What Vault denies is the job author's to mend: the claims are the
// job's.
func (s *Stage) logIn(ctx context.Context, grants []settings.Grant) error {
	if err := s.haveToken(ctx); err != nil {
		return deniedClaim(err)
	}
	for _, g := range grants {
		if _, err := s.creds.session(g.AuthRole).Login(ctx); err != nil {
			return fmt.Errorf("the grant %s: %w", g.Name, denied(err))
		}
	}
	return nil
}

// haveToken gets a token for the cluster, if access comes from Vault.
func (s *Stage) haveToken(ctx context.Context) error {
	if s.tokens == nil {
		return nil
	}
	_, err := s.tokens.Token(ctx)
	return err
}

// deniedClaim makes a refusal that is due to a claim of the id_token a build
// failure. Other refusals are about podlane's own roles and policies.
func deniedClaim(err error) error {
	var e *vaultauth.Error
	if errors.As(err, &e) && e.Kind == vaultauth.Denied && e.Claim != "" {
		return jobError(err)
	}
	return err
}

// denied makes every refusal a build failure: this job is not to have the grant
// that it asks for.
func denied(err error) error {
	if vaultauth.KindOf(err) == vaultauth.Denied {
		return jobError(err)
	}
	return err
}

// secretsOf are what of a job response must not be seen in a log, whoever
// prints it: the job's token, and everything that looks like an id_token.
func secretsOf(job *gitlab.Job) []redact.Secret {
	secrets := []redact.Secret{redact.New(job.Token)}
	for _, v := range job.Variables {
		if strings.HasPrefix(v.Value, "eyJ") && strings.Count(v.Value, ".") == 2 {
			secrets = append(secrets, redact.New(v.Value))
		}
	}
	return secrets
}
