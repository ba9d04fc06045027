package vaultauth

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"podlane/internal/redact"
)

// KubeRequest asks Vault's Kubernetes engine for a service account token.
type KubeRequest struct {
	// Mount is the engine's, Role the engine's role.
	Mount, Role string
	// Namespace is the service account's; empty if the role has exactly one.
	Namespace string
	// TTL is at least ten minutes on a real cluster; zero leaves it to the role.
	TTL time.Duration
	// Renew is set when the token at hand was refused: another one is asked for
	// whatever life the old one has left.
	Renew bool
}

// KubeToken is a service account's token.
type KubeToken struct {
	Token          redact.Secret
	Namespace      string
	ServiceAccount string
	Issued         time.Time
	// Refresh is when to ask for the next one, at about 0.7 of the token's life,
	// or of the Vault token's if that is shorter: where the engine made the
	// service account, it goes when the Vault token does.
	Refresh time.Time
	Expires time.Time
}

// spare is how much life a credential needs to be used when no newer one can be
// had.
const spare = time.Minute

// KubeToken returns a token with life left, from the store or from Vault. While
// Vault can't be reached, one that is past its refresh but still lives is
// returned after two tries' time rather than the whole retry budget's.
func (s *Session) KubeToken(ctx context.Context, r KubeRequest) (KubeToken, error) {
	if err := s.lock(ctx); err != nil {
		return KubeToken{}, err
	}
	defer s.unlock()
	s.load()
	key := r.Mount + " " + r.Role + " " + r.Namespace
	have, ok := s.state.Kube[key]
	usable := ok && !r.Renew && s.now().Add(spare).Before(have.Expires)
	if usable && s.now().Before(have.Refresh) {
		return have, nil
	}
	asking := ctx
	if usable {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, 2*s.client.config.Timeout)
		defer cancel()
	}
	next, err := s.askKube(asking, r)
	if err != nil {
		if usable && KindOf(err) == Unavailable && ctx.Err() == nil {
			return have, nil
		}
		return KubeToken{}, err
	}
	if s.state.Kube == nil {
		s.state.Kube = map[string]KubeToken{}
	}
	s.state.Kube[key] = next
	s.save()
	return next, nil
}

func (s *Session) askKube(ctx context.Context, r KubeRequest) (KubeToken, error) {
	op := fmt.Sprintf("get a kubernetes token from vault, role %s of %s", r.Role, r.Mount)
	body := map[string]any{}
	if r.Namespace != "" {
		body["kubernetes_namespace"] = r.Namespace
	}
	if r.TTL > 0 {
		body["ttl"] = seconds(r.TTL)
	}
	issued := s.now()
	ans, err := s.with(ctx, request{op: op, path: r.Mount + "/creds/" + r.Role, body: body, leases: true})
	if err != nil {
		return KubeToken{}, err
	}
	var data struct {
		Account   string `json:"service_account_name"`
		Namespace string `json:"service_account_namespace"`
		Token     string `json:"service_account_token"`
	}
	if err := json.Unmarshal(ans.Data, &data); err != nil || data.Token == "" {
		return KubeToken{}, misconfigured(op, "the answer has no service_account_token: is %s a Kubernetes engine?", r.Mount)
	}
	token := redact.New(data.Token)
	s.client.redact.Add(token)
	life := time.Duration(ans.LeaseDuration) * time.Second
	if claims, err := DecodeIDToken(token); err == nil && !claims.Expires.IsZero() && !claims.IssuedAt.IsZero() {
		// By the token's own measure, without regard to how clocks differ.
		if own := claims.Expires.Sub(claims.IssuedAt); life <= 0 || own < life {
			life = own
		}
	}
	l := newLifetime(issued, life)
	if t := s.state.Token; t != nil && t.Refresh.Before(l.Refresh) {
		l.Refresh = t.Refresh
	}
	return KubeToken{
		Token: token, Namespace: data.Namespace, ServiceAccount: data.Account,
		Issued: l.Issued, Refresh: l.Refresh, Expires: l.Expires,
	}, nil
}

// seconds is how Vault takes durations without loss.
func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d.Seconds())) }
