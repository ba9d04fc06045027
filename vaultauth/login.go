package vaultauth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"podlane/internal/redact"
)

// token is a Vault token and what Vault said about it.
type token struct {
	Secret    redact.Secret
	Accessor  string
	Policies  []string
	Renewable bool
	lifetime
}

// lifetime is when something was issued, when it ends, and when a new one
// should be sought.
type lifetime struct {
	Issued, Refresh, Expires time.Time
}

// endless stands for credentials that do not end, which no policy should allow.
const endless = 24 * time.Hour

// newLifetime starts at issued, which is best taken before the request: then it
// ends no later than Vault thinks. The refresh is due when about 0.7 of it are
// over, give or take a twentieth, so that a thousand jobs that began together
// do not come back together.
func newLifetime(issued time.Time, life time.Duration) lifetime {
	if life <= 0 {
		life = endless
	}
	share := 0.65 + 0.1*rand.Float64() //nolint:gosec // spreads load, guards nothing
	return lifetime{
		Issued:  issued,
		Refresh: issued.Add(time.Duration(float64(life) * share)),
		Expires: issued.Add(life),
	}
}

// fresh tells whether there is no need yet to seek another.
func (l lifetime) fresh(now time.Time) bool { return now.Before(l.Refresh) }

// alive tells whether it still works.
func (l lifetime) alive(now time.Time) bool { return now.Before(l.Expires) }

// login trades an id_token for a Vault token.
//
// An answer that is lost leaves behind a token that nobody knows, without
// leases, which ends by its TTL: a second login is harmless.
func (c *Client) login(ctx context.Context, role string, idToken redact.Secret, now func() time.Time) (*token, error) {
	op := fmt.Sprintf("log in to vault with role %s", role)
	issued := now()
	c.redact.Add(idToken)
	ans, err := c.do(ctx, request{
		op: op, path: "auth/" + c.config.AuthMount + "/login",
		body: map[string]any{"role": role, "jwt": idToken.Reveal()},
	})
	if err != nil {
		return nil, explainLogin(err, role, idToken)
	}
	t, e := c.tokenOf(ans, issued)
	if e == nil {
		return t, nil
	}
	e.Op = op
	if t != nil { // of no use to us, so not to be left to others
		_ = c.revoke(ctx, t.Secret)
	}
	return nil, e
}

// explainLogin adds what only a login knows: nothing but the address has been
// judged when Vault forbids one, and Vault's words about a claim lack its value.
func explainLogin(err error, role string, idToken redact.Secret) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Status == http.StatusForbidden:
		e.Kind = Misconfigured
		e.Hint = "vault.auth_mount may be wrong, or token_bound_cidrs of the role not include this host"
	case e.Status == http.StatusNotFound:
		e.Hint = "no JWT auth method is mounted there: check vault.auth_mount and vault.namespace"
	case e.Kind == Denied && e.Claim != "":
		found := "missing"
		if value := claimOf(idToken, e.Claim); value != "" {
			found = value
		}
		expected := "a value that bound_claims of the role allow"
		switch e.Claim {
		case "aud":
			expected = "one of bound_audiences of the role"
		case "sub":
			expected = "bound_subject of the role"
		}
		e.Detail = fmt.Sprintf("the claim %s is %s, expected %s", e.Claim, found, expected)
		if e.Claim != "aud" {
			e.Hint = fmt.Sprintf("the role %s is not for this job", role)
		}
	}
	return err
}

// tokenOf reads the answer to a login or a renewal. Beside an error, it returns
// a token that should be revoked.
func (c *Client) tokenOf(ans *answer, issued time.Time) (*token, *Error) {
	auth := ans.Auth
	if auth == nil || auth.ClientToken == "" {
		e := misconfigured("", "the answer has no token in it")
		if auth != nil && len(auth.MFA) > 0 && string(auth.MFA) != "null" {
			e.Detail, e.Hint = "vault asks for a second factor", "login MFA can't be used by jobs"
		}
		return nil, e
	}
	t := &token{
		Secret:    redact.New(auth.ClientToken),
		Accessor:  auth.Accessor,
		Policies:  auth.Policies,
		Renewable: auth.Renewable,
		lifetime:  newLifetime(issued, time.Duration(auth.LeaseDuration)*time.Second),
	}
	c.redact.Add(t.Secret)
	switch {
	case auth.TokenType == "batch", strings.HasPrefix(auth.ClientToken, "hvb."):
		e := misconfigured("", "the role issues batch tokens, which can't be renewed or revoked")
		e.Hint = `set token_type="service" on the role`
		return nil, e
	case auth.NumUses > 0:
		e := misconfigured("", "the role issues tokens for %d uses, with the last of which all leases are revoked", auth.NumUses)
		e.Hint = "set token_num_uses=0 on the role"
		return t, e
	}
	return t, nil
}

// renew makes a token live longer, as long as its role's token_max_ttl allows.
func (c *Client) renew(ctx context.Context, t *token, role string, now func() time.Time) (*token, error) {
	issued := now()
	op := fmt.Sprintf("renew the vault token of role %s", role)
	ans, err := c.do(ctx, request{op: op, token: t.Secret, path: "auth/token/renew-self", body: map[string]any{}})
	if err != nil {
		return nil, err
	}
	renewed, e := c.tokenOf(ans, issued)
	if e != nil {
		e.Op = op
		return nil, e
	}
	return renewed, nil
}

// revoke ends a token and every lease that was made with it. One that has ended
// already is no error.
func (c *Client) revoke(ctx context.Context, t redact.Secret) error {
	_, err := c.do(ctx, request{op: "revoke a vault token", token: t, path: "auth/token/revoke-self", body: map[string]any{}})
	if KindOf(err) == Denied {
		return nil
	}
	return err
}
