package vaultauth

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"podlane/internal/redact"
)

// S3Credential is what AWS STS hands out. It can't be revoked: a short TTL is
// all that limits it.
type S3Credential struct {
	AccessKey    string
	SecretKey    redact.Secret
	SessionToken redact.Secret
	Issued       time.Time
	Expires      time.Time
}

// S3 gets a credential from Vault's AWS engine, a new one with each call. STS
// gives at least 15 minutes; a zero ttl leaves it to the role.
func (s *Session) S3(ctx context.Context, mount, role string, ttl time.Duration) (S3Credential, error) {
	if err := s.lock(ctx); err != nil {
		return S3Credential{}, err
	}
	defer s.unlock()
	op := fmt.Sprintf("get S3 credentials from vault, role %s of %s", role, mount)
	body := map[string]any{}
	if ttl > 0 {
		body["ttl"] = seconds(ttl)
	}
	issued := s.now()
	ans, err := s.with(ctx, request{op: op, path: mount + "/sts/" + role, body: body, leases: true})
	if err != nil {
		return S3Credential{}, err
	}
	// security_token is what session_token was called before Vault 1.16; OpenBao
	// sends the one or the other. The lease's duration is 0 in Vault 1.13.0.
	var data struct {
		AccessKey     string `json:"access_key"`
		SecretKey     string `json:"secret_key"`
		SessionToken  string `json:"session_token"`
		SecurityToken string `json:"security_token"`
		TTL           int64  `json:"ttl"`
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil || data.AccessKey == "" || data.SecretKey == "" {
		return S3Credential{}, misconfigured(op, "the answer has no access_key and secret_key: is %s an AWS engine?", mount)
	}
	session := data.SessionToken
	if session == "" {
		session = data.SecurityToken
	}
	life := ans.LeaseDuration
	if life == 0 {
		life = data.TTL
	}
	c := S3Credential{
		AccessKey: data.AccessKey, SecretKey: redact.New(data.SecretKey), SessionToken: redact.New(session),
		Issued: issued, Expires: newLifetime(issued, time.Duration(life)*time.Second).Expires,
	}
	s.client.redact.Add(c.SecretKey, c.SessionToken)
	if session == "" {
		e := misconfigured(op, "the answer has no session_token: the role makes lasting users")
		e.Hint = "set credential_type=assumed_role on it"
		return S3Credential{}, e
	}
	return c, nil
}
