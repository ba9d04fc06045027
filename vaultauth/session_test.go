package vaultauth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/internal/redact"
)

func TestKubeTokenServesManyStages(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	first := j.kube(j.stage())
	if first.Namespace != "jobs" || first.ServiceAccount != "ci" || first.Token.IsZero() {
		t.Errorf("got %+v", first)
	}
	if want := j.clock.now().Add(20 * time.Minute); !first.Expires.Equal(want) {
		t.Errorf("it ends at %s, want %s", first.Expires, want)
	}
	j.clock.pass(10 * time.Minute)
	if second := j.kube(j.stage()); !second.Token.Equal(first.Token) {
		t.Error("the second stage got another token")
	}
	if got := j.wire.requests(); !slices.Equal(got, []string{login, creds}) {
		t.Errorf("asked for %v", got)
	}
	// Most of its life is over: a new one, by the same Vault token.
	j.clock.pass(6 * time.Minute)
	third := j.kube(j.stage())
	if third.Token.Equal(first.Token) {
		t.Error("the third stage got the old token")
	}
	if got := j.wire.requests(); !slices.Equal(got, []string{login, creds, creds}) {
		t.Errorf("asked for %v", got)
	}
	// Refused by the cluster: a new one whatever its life.
	r := kubeRequest
	r.Renew = true
	fourth, err := j.stage().KubeToken(t.Context(), r)
	if err != nil || fourth.Token.Equal(third.Token) {
		t.Errorf("after a refusal: the same token, error %v", err)
	}
}

// Where the engine made the service account, it goes when the Vault token does.
func TestKubeTokenIsRefreshedNoLaterThanTheVaultToken(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.ttl = time.Minute
	j := newJob(t, w, nil)
	k := j.kube(j.stage())
	if life := k.Refresh.Sub(j.clock.now()); life > 46*time.Second || life < 38*time.Second {
		t.Errorf("refreshed after %s, want about 0.7 of a minute", life)
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		// The Vault token lives for an hour, the id_token for idLife.
		idLife  time.Duration
		pass    time.Duration // after a first stage
		ended   string        // what Vault refuses then
		want    []string      // what the second stage asks for
		kind    Kind
		message []string
	}{
		{name: "token in the store", idLife: 3 * time.Hour, pass: 30 * time.Minute, want: []string{creds}},
		{name: "login", idLife: 3 * time.Hour, pass: 50 * time.Minute, want: []string{login, creds}},
		{name: "renewal", idLife: 45 * time.Minute, pass: 50 * time.Minute, want: []string{renew, creds}},
		{name: "login refused", idLife: 3 * time.Hour, pass: 50 * time.Minute, ended: login, want: []string{login, renew, creds}},
		{
			name: "renewal refused", idLife: 45 * time.Minute, pass: 50 * time.Minute, ended: renew, want: []string{renew}, kind: Expired,
			message: []string{"the id_token ended at 2026-11-21 12:45:00 UTC", "the Vault token was revoked; it would have ended at 2026-11-21 13:00:00 UTC"},
		},
		{name: "last seconds of the id_token", idLife: time.Hour + 10*time.Second, pass: time.Hour, want: []string{login, creds}},
		{
			name: "everything has ended", idLife: 45 * time.Minute, pass: 61 * time.Minute, want: nil, kind: Expired,
			message: []string{"log in to vault with role ci", "the id_token ended at 2026-11-21 12:45:00 UTC", "the Vault token ended at 2026-11-21 13:00:00 UTC", "token_max_ttl"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), nil)
			j.id = jwt(t, map[string]any{"exp": j.clock.at.Add(tt.idLife).Unix()})
			j.kube(j.stage())
			j.clock.pass(tt.pass)
			j.wire.breaking(func(path string, _ int) fault {
				if path == tt.ended {
					return fault{status: 403, body: `{"errors":["permission denied"]}`}
				}
				return fault{}
			})
			_, err := j.stage().KubeToken(t.Context(), kubeRequest)
			if diff := cmp.Diff(tt.want, j.wire.requests()[2:], cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			checkError(t, err, tt.kind, tt.message...)
		})
	}
}

// checkError checks for no error where kind is zero.
func checkError(t *testing.T, err error, kind Kind, parts ...string) {
	t.Helper()
	if kind == Unknown {
		if err != nil {
			t.Errorf("unexpected error: %v", err)
		}
		return
	}
	wantError(t, err, kind, parts...)
}

func wantError(t *testing.T, err error, kind Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one of kind %s", kind)
	}
	if got := KindOf(err); got != kind {
		t.Errorf("kind %s, want %s: %v", got, kind, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\t") {
		t.Errorf("more than a line: %q", err)
	}
}

func TestWithoutAnIDToken(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.id = redact.Secret{}
	_, err := j.stage().Login(t.Context())
	checkError(t, err, Misconfigured, "the job has no id_token", "id_tokens in .gitlab-ci.yml")
	j.id = redact.New("not a token at all")
	_, err = j.stage().Login(t.Context())
	checkError(t, err, Misconfigured, "expected the 3 of a JWT")
	if got := j.wire.requests(); len(got) > 0 {
		t.Errorf("asked for %v", got)
	}
}

// A token in the store may have been revoked since.
func TestRevokedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.kube(j.stage())
	j.wire.mu.Lock()
	clear(j.wire.tokens)
	j.wire.tokens["hvs.token-number-1"] = false
	j.wire.mu.Unlock()
	if _, err := j.stage().S3(t.Context(), "aws", "cache", 0); err != nil {
		t.Fatal(err)
	}
	if got, want := j.wire.requests()[2:], []string{"aws/sts/cache", login, "aws/sts/cache"}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

func TestPolicyDenialIsFinal(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.wire.breaking(func(path string, _ int) fault {
		if path == creds {
			return fault{status: 403, body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}
		}
		return fault{}
	})
	_, err := j.stage().KubeToken(t.Context(), kubeRequest)
	checkError(t, err, Denied, "get a kubernetes token from vault, role ci of kubernetes: permission denied (status 403)", "policies")
	if got := j.wire.requests(); !slices.Equal(got, []string{login, creds}) {
		t.Errorf("asked for %v", got)
	}
}

func TestUnsuitableTokens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		extra map[string]any
		want  string
		asked []string
	}{
		{"batch", map[string]any{"token_type": "batch", "accessor": ""}, `token_type="service"`, []string{login}},
		{"limited uses", map[string]any{"num_uses": 2}, "token_num_uses=0", []string{login, revoke}},
		{"second factor", map[string]any{"client_token": "", "mfa_requirement": map[string]any{"mfa_request_id": "1"}}, "second factor", []string{login}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			w.extra = tt.extra
			j := newJob(t, w, nil)
			_, err := j.stage().Login(t.Context())
			checkError(t, err, Misconfigured, "log in to vault with role ci", tt.want)
			if got := w.requests(); !slices.Equal(got, tt.asked) {
				t.Errorf("asked for %v, want %v", got, tt.asked)
			}
		})
	}
}

func TestS3(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer string
		want         string // session token
		life         time.Duration
		err          string
	}{
		{name: "vault", answer: `{"lease_duration":900,"data":{"access_key":"A","secret_key":"long enough","session_token":"new","security_token":"old"}}`, want: "new", life: 15 * time.Minute},
		{name: "older vault and openbao", answer: `{"lease_duration":900,"data":{"access_key":"A","secret_key":"long enough","security_token":"old"}}`, want: "old", life: 15 * time.Minute},
		{name: "no lease", answer: `{"lease_duration":0,"data":{"access_key":"A","secret_key":"long enough","session_token":"new","ttl":1200}}`, want: "new", life: 20 * time.Minute},
		{name: "lasting user", answer: `{"lease_duration":2764800,"data":{"access_key":"A","secret_key":"long enough","security_token":null}}`, err: "credential_type=assumed_role"},
		{name: "other engine", answer: `{"data":{"password":"x"}}`, err: "is aws an AWS engine?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), nil)
			j.wire.breaking(func(path string, _ int) fault {
				if path == "aws/sts/cache" {
					return fault{status: 200, body: tt.answer}
				}
				return fault{}
			})
			got, err := j.stage().S3(t.Context(), "aws", "cache", 15*time.Minute)
			if tt.err != "" {
				checkError(t, err, Misconfigured, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.SessionToken.Reveal() != tt.want || got.Expires.Sub(got.Issued) != tt.life {
				t.Errorf("got session token %q for %s, want %q for %s", got.SessionToken.Reveal(), got.Expires.Sub(got.Issued), tt.want, tt.life)
			}
		})
	}
}

func TestKV(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	s := j.stage()
	reveal := func(secrets map[string]redact.Secret) map[string]string {
		out := map[string]string{}
		for name, s := range secrets {
			out[name] = s.Reveal()
		}
		return out
	}
	one, err := s.KV(t.Context(), "kv", "plain", false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"user": "gitlab", "password": "correct horse", "port": "5432"}, reveal(one)); diff != "" {
		t.Errorf("version 1 (-want +got):\n%s", diff)
	}
	two, err := s.KV(t.Context(), "secret", "plain", true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"password": "battery staple"}, reveal(two)); diff != "" {
		t.Errorf("version 2 (-want +got):\n%s", diff)
	}
	_, err = s.KV(t.Context(), "kv", "plain", true)
	checkError(t, err, Misconfigured, "status 404")
	_, err = s.KV(t.Context(), "secret", "data/plain", false)
	if err != nil {
		t.Errorf("a path of several elements: %v", err)
	}
	_, err = s.KV(t.Context(), "kv", "../sys/seal", false)
	checkError(t, err, Misconfigured, "not a path in Vault")
}

func TestEverySecretIsRedacted(t *testing.T) {
	t.Parallel()
	set := new(redact.Set)
	j := newJob(t, newWire(t), func(c *Config) { c.Redact = set })
	s := j.stage()
	k := j.kube(s)
	s3, err := s.S3(t.Context(), "aws", "cache", 0)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := s.KV(t.Context(), "kv", "plain", false)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]redact.Secret{
		"id_token": j.id, "vault token": redact.New("hvs.token-number-1"), "kube token": k.Token,
		"secret key": s3.SecretKey, "session token": s3.SessionToken, "kv": kv["password"],
	} {
		if got := set.String(secret.Reveal()); got != redact.Mark {
			t.Errorf("%s is not redacted: %s", name, got)
		}
	}
	// What a later stage finds in the store as well.
	later := new(redact.Set)
	client, err := New(Config{Address: j.wire.URL, Redact: later}, nil)
	if err != nil {
		t.Fatal(err)
	}
	j.client = client
	j.kube(j.stage())
	for _, secret := range []string{"hvs.token-number-1", k.Token.Reveal()} {
		if got := later.String(secret); got != redact.Mark {
			t.Errorf("from the store: not redacted: %s", got)
		}
	}
}

func TestErrorsDoNotQuoteSecrets(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.wire.breaking(func(string, int) fault {
		return fault{status: 400, body: `{"errors":["odd token ` + j.id.Reveal() + `"]}`}
	})
	_, err := j.stage().Login(t.Context())
	wantError(t, err, Unknown, "odd token "+redact.Mark)
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.id = jwt(t, map[string]any{"exp": j.clock.at.Add(55 * time.Minute).Unix()})
	s := j.stage()
	j.kube(s)
	// A second token, because the first has not enough life left.
	j.clock.pass(50 * time.Minute)
	j.kube(j.stage())
	j.clock.pass(6 * time.Minute) // the id_token has ended

	if err := j.client.RevokeAll(t.Context(), j.store(), j.clock.now()); err != nil {
		t.Fatal(err)
	}
	if got := j.wire.live(); got != 0 {
		t.Errorf("%d leases are left", got)
	}
	if got := j.wire.count(revoke); got != 2 {
		t.Errorf("revoked %d tokens, want 2", got)
	}
	// Once more, with nothing to do.
	if err := j.client.RevokeAll(t.Context(), j.store(), j.clock.now()); err != nil {
		t.Error(err)
	}
	if got := j.wire.count(revoke); got != 2 {
		t.Errorf("asked %d times, want no more than the 2", got)
	}
}

func TestRevokeOfASession(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	s := j.stage()
	j.kube(s)
	if err := s.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := j.wire.live(); got != 0 {
		t.Errorf("%d leases are left", got)
	}
	if err := s.Revoke(t.Context()); err != nil || j.wire.count(revoke) != 1 {
		t.Errorf("a second time: error %v, %d requests", err, j.wire.count(revoke))
	}
	// It may be used again: by a new login.
	j.kube(s)
	if got := j.wire.count(login); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

// What was revoked by someone else is no error.
func TestRevokeOfWhatIsGone(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.kube(j.stage())
	j.wire.mu.Lock()
	j.wire.tokens["hvs.token-number-1"] = false
	j.wire.mu.Unlock()
	if err := j.client.RevokeAll(t.Context(), j.store(), j.clock.now()); err != nil {
		t.Error(err)
	}
}

func TestRevokeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), func(c *Config) { c.RetryBudget = time.Hour })
	j.kube(j.stage())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	j.wire.breaking(func(_ string, n int) fault {
		if n == 3 { // each token has been refused by then, also where a busy machine has logged in twice
			cancel()
		}
		return fault{status: 503, body: `{"errors":["Vault is sealed"]}`}
	})
	err := j.client.RevokeAll(ctx, j.store(), j.clock.now())
	checkError(t, err, Unavailable, "vault is sealed", "not waited for any longer")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not wrap the context's error", err)
	}
}

func TestManyRequestsOfOneSessionAtOnce(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	s := j.stage()
	errs := make(chan error)
	for range 20 {
		go func() {
			_, err := s.KubeToken(t.Context(), kubeRequest)
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := j.wire.requests(); !slices.Equal(got, []string{login, creds}) {
		t.Errorf("asked for %v", got)
	}
}

// A person's own token is used as it is, whatever comes.
func TestOwnToken(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.wire.tokens["hvs.of-a-person"] = true
	person := j.client.OwnToken(redact.New("hvs.of-a-person"))
	if c, err := person.S3(t.Context(), "aws", "admin", 0); err != nil || c.SecretKey.IsZero() {
		t.Errorf("got %v, %v", c, err)
	}
	if err := person.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := j.client.OwnToken(redact.New("hvs.of-nobody")).S3(t.Context(), "aws", "admin", 0)
	checkError(t, err, Denied, "get S3 credentials from vault, role admin of aws: permission denied", "your token's policies", "vault login")
	if got, want := j.wire.requests(), []string{"aws/sts/admin", "aws/sts/admin"}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

func TestCan(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.wire.breaking(func(path string, _ int) fault {
		if path == "sys/capabilities-self" {
			return fault{status: 200, body: `{"data":{"capabilities":["deny"],"a/b":["read","update"],"c":["deny"]}}`}
		}
		return fault{}
	})
	got, err := j.stage().Can(t.Context(), "a/b", "c")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{"a/b": {"read", "update"}, "c": {"deny"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
