package vaultauth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRetried(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		fault
		notice string
	}{
		{"412 of a standby that lags behind", fault{status: 412, body: `{"errors":["required index state not present"]}`}, "required index state"},
		{"429 of a quota", fault{status: 429, body: `{"errors":["request path \"auth/jwt/login\": rate limit quota exceeded"]}`}, "rate limit quota exceeded (status 429)"},
		{"500", fault{status: 500, body: `{"errors":["internal error"]}`}, "internal error"},
		{"502 of what is behind Vault", fault{status: 502, body: `{"errors":["STS: throttled"]}`}, "STS: throttled"},
		{"503 sealed", fault{status: 503, body: `{"errors":["Vault is sealed"]}`}, "vault is sealed"},
		{"503 of a load balancer", fault{status: 503, body: "<html>no backend</html>"}, "service unavailable (status 503)"},
		{"473 standby", fault{status: 473, body: ``}, "status 473"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), nil)
			j.wire.breaking(func(_ string, n int) fault {
				if n == 0 {
					return tt.fault
				}
				return fault{}
			})
			j.kube(j.stage())
			if got, want := j.wire.requests(), []string{login, login, creds, creds}; !slices.Equal(got, want) {
				t.Errorf("asked for %v, want %v", got, want)
			}
			if j.wire.live() != 1 {
				t.Errorf("%d leases, want 1", j.wire.live())
			}
			if len(*j.said) != 2 || !strings.Contains((*j.said)[0], tt.notice) || !strings.HasSuffix((*j.said)[0], "trying again for up to 1m0s") {
				t.Errorf("said %q, want a line for each of two waits, with %q", *j.said, tt.notice)
			}
		})
	}
}

func TestNotRetried(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		kind   Kind
		claim  string
		say    []string
	}{
		{400, `error validating token: invalid expiration time (exp) claim: token is expired`, Expired, "exp", []string{"token is expired"}},
		{400, `error validating token: invalid not before (nbf) claim: token not yet valid`, Misconfigured, "nbf", []string{"clocks"}},
		{400, `error validating token: invalid issued at (iat) claim: token issued in the future`, Misconfigured, "iat", []string{"clocks"}},
		{400, `error validating token: invalid issuer (iss) claim`, Misconfigured, "iss", []string{"bound_issuer"}},
		{400, `error validating token: invalid subject (sub) claim`, Denied, "sub", []string{"the claim sub is missing, expected bound_subject of the role"}},
		{400, `error validating token: invalid audience (aud) claim: audience claim does not match any expected audience`, Denied, "aud", []string{`the claim aud is ["elsewhere"], expected one of bound_audiences of the role (aud under id_tokens`}},
		{400, `audience claim found in JWT but no audiences bound to the role`, Misconfigured, "aud", []string{"set bound_audiences"}},
		{400, `error validating claims: claim \"ref_protected\" does not match any associated bound claim values`, Denied, "ref_protected", []string{`the claim ref_protected is "false", expected a value that bound_claims of the role allow (the role ci is not for this job)`}},
		{400, `error validating claims: claim \"runner_id\" does not match any associated bound claim values`, Denied, "runner_id", []string{`the claim runner_id is 7, expected`}},
		{400, `error validating claims: claim \"deployment_tier\" is missing`, Denied, "deployment_tier", []string{"the claim deployment_tier is missing, expected a value"}},
		{400, `claim \"user_x\" not found in token`, Misconfigured, "user_x", []string{"user_claim"}},
		{400, `error validating token: error verifying token signature: no known key successfully validated the token signature`, Misconfigured, "", []string{"another GitLab"}},
		{400, `error validating token: invalid algorithm (alg) header parameter: token signed with unexpected algorithm`, Misconfigured, "", []string{"algorithm"}},
		{400, `role \"nope\" could not be found`, Misconfigured, "", []string{"podlane.toml"}},
		{400, `role 'nobody' does not exist`, Misconfigured, "", []string{"podlane.toml"}},
		{400, `error converting claim 'runner_id' to string from unknown type json.Number`, Misconfigured, "runner_id", nil},
		{400, `missing role`, Misconfigured, "", nil},
		{400, `role with oidc role_type is not allowed`, Misconfigured, "", []string{`role_type="jwt"`}},
		{400, `could not load configuration`, Misconfigured, "", nil},
		{400, `error configuring token validator: unsupported config type`, Misconfigured, "", nil},
		{400, `something new`, Unknown, "", []string{"something new (status 400)"}},
		{403, `permission denied`, Misconfigured, "", []string{"token_bound_cidrs"}},
		{404, `no handler for route \"auth/jwt/login\". route entry not found.`, Misconfigured, "", []string{"vault.auth_mount"}},
		{405, `unsupported operation`, Misconfigured, "", nil},
	} {
		t.Run(tt.body, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), nil)
			j.id = jwt(t, map[string]any{"exp": j.clock.at.Add(time.Hour).Unix(), "aud": []string{"elsewhere"}, "ref_protected": "false", "runner_id": 7})
			j.wire.breaking(func(string, int) fault { return fault{status: tt.status, body: `{"errors":["` + tt.body + `"]}`} })
			_, err := j.stage().Login(t.Context())
			wantError(t, err, tt.kind, append(tt.say, "log in to vault with role ci: ")...)
			if e := new(Error); errors.As(err, &e) && e.Claim != tt.claim {
				t.Errorf("claim %q, want %q", e.Claim, tt.claim)
			}
			if got := j.wire.requests(); !slices.Equal(got, []string{login}) {
				t.Errorf("asked for %v, want it once", got)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	t.Run("is waited for", func(t *testing.T) {
		t.Parallel()
		j := newJob(t, newWire(t), nil)
		j.wire.breaking(func(_ string, n int) fault {
			if n == 0 {
				return fault{status: 429, header: http.Header{"Retry-After": {"2"}}}
			}
			return fault{}
		})
		if _, err := j.stage().Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := j.wire.when[1].Sub(j.wire.when[0]); waited < 2*time.Second {
			t.Errorf("asked again after %s, want at least 2 s", waited)
		}
	})
	t.Run("is not waited for beyond the budget", func(t *testing.T) {
		t.Parallel()
		j := newJob(t, newWire(t), nil)
		j.wire.breaking(func(string, int) fault { return fault{status: 429, header: http.Header{"Retry-After": {"3600"}}} })
		_, err := j.stage().Login(t.Context())
		checkError(t, err, Unavailable, "too many requests", "quota")
		if got := j.wire.count(login); got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	sealed := func(string, int) fault { return fault{status: 503, body: `{"errors":["Vault is sealed"]}`} }
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		j := newJob(t, newWire(t), func(c *Config) { c.RetryBudget = 0 })
		j.wire.breaking(sealed)
		_, err := j.stage().Login(t.Context())
		checkError(t, err, Unavailable, "vault is sealed")
		if got := j.wire.count(login); got != 1 || len(*j.said) != 0 {
			t.Errorf("asked %d times and said %q, want once and nothing", got, *j.said)
		}
	})
	t.Run("used up", func(t *testing.T) {
		t.Parallel()
		j := newJob(t, newWire(t), func(c *Config) { c.RetryBudget = 2 * time.Second })
		j.wire.breaking(sealed)
		_, err := j.stage().Login(t.Context())
		checkError(t, err, Unavailable, "vault is sealed")
		if len(*j.said) > 1 {
			t.Errorf("said %q, want a line at most", *j.said)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		w := newWire(t)
		j := newJob(t, w, func(c *Config) { c.RetryBudget = time.Second })
		w.Close()
		_, err := j.stage().Login(t.Context())
		checkError(t, err, Unavailable, "connection refused")
		if strings.Contains(err.Error(), "/v1/") {
			t.Errorf("%q tells the URL", err)
		}
	})
}

// Vault has acted and its answer is lost: what it made is revoked before it is
// asked again.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, lose := range []string{"reset", "hang", "cut", "html", "huge"} {
		t.Run(lose, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), func(c *Config) {
				if lose == "hang" {
					c.Timeout = 3 * time.Second
				}
			})
			j.wire.breaking(func(path string, n int) fault {
				if path == creds && n == 0 {
					return fault{lose: lose}
				}
				return fault{}
			})
			k := j.kube(j.stage())
			if k.Token.IsZero() {
				t.Error("no token")
			}
			// However often a busy machine made it try: one lease.
			if got := j.wire.live(); got != 1 || j.wire.count(revoke) == 0 {
				t.Errorf("%d leases, want 1; asked for %v", got, j.wire.requests())
			}
		})
	}
	for _, tt := range []struct {
		name string
		fault
	}{
		{"504 of a proxy that gave up", fault{status: 504, body: "<html></html>"}},
		{"502 of a proxy", fault{status: 502, body: "<html></html>"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, newWire(t), nil)
			j.wire.breaking(func(path string, n int) fault {
				if path == creds && n == 0 {
					return tt.fault
				}
				return fault{}
			})
			j.kube(j.stage())
			if got, want := j.wire.requests(), []string{login, creds, revoke, login, creds}; !slices.Equal(got, want) {
				t.Errorf("asked for %v, want %v", got, want)
			}
		})
	}
}

// Without an id_token there is no second token, and so no second request.
func TestLostAnswerAfterTheIDTokenEnded(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.id = jwt(t, map[string]any{"exp": j.clock.at.Add(20 * time.Minute).Unix()})
	j.kube(j.stage())
	j.clock.pass(25 * time.Minute)
	j.wire.breaking(func(path string, _ int) fault {
		if path == creds {
			return fault{lose: "reset"}
		}
		return fault{}
	})
	_, err := j.stage().KubeToken(t.Context(), kubeRequest)
	checkError(t, err, Unavailable, "might make a second lease", "the id_token has ended at 2026-11-21 12:20:00 UTC")
	if got, want := j.wire.requests(), []string{login, creds, creds}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

func TestLostLoginsAndRenewalsAreRepeated(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), nil)
	j.id = jwt(t, map[string]any{"exp": j.clock.at.Add(20 * time.Minute).Unix()})
	j.wire.breaking(func(path string, n int) fault {
		if (path == login || path == renew) && n == 0 {
			return fault{lose: "reset"}
		}
		return fault{}
	})
	j.kube(j.stage())
	j.clock.pass(50 * time.Minute)
	j.kube(j.stage())
	if got, want := j.wire.requests(), []string{login, login, creds, renew, renew, creds}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}

// While Vault is away, a token that still lives will do.
func TestOldKubeTokenWhileVaultIsAway(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), func(c *Config) { c.Timeout, c.RetryBudget = time.Second, time.Hour })
	s := j.stage()
	j.wire.breaking(nil)
	first, err := s.KubeToken(t.Context(), kubeRequest)
	for err != nil { // on a machine so busy that a second was too short
		if t.Context().Err() != nil || KindOf(err) != Unavailable {
			t.Fatal(err)
		}
		first, err = s.KubeToken(t.Context(), kubeRequest)
	}
	j.clock.pass(16 * time.Minute)
	j.wire.breaking(func(string, int) fault { return fault{status: 503, body: `{"errors":["Vault is sealed"]}`} })
	got := j.kube(s)
	if !got.Token.Equal(first.Token) {
		t.Error("got another token")
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		j := newJob(t, newWire(t), nil)
		j.wire.breaking(func(path string, _ int) fault {
			return fault{status: status, header: http.Header{"Location": {other.URL + "/v1/" + path}}}
		})
		_, err := j.stage().Login(t.Context())
		checkError(t, err, Misconfigured, "redirect", "vault.address")
		if got := j.wire.count(login); got != 1 {
			t.Errorf("status %d: asked %d times, want once", status, got)
		}
	}
	if followed.Load() {
		t.Error("followed")
	}
}
