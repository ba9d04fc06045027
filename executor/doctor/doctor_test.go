package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/executor"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/vaultauth"
)

func TestString(t *testing.T) {
	for want, r := range map[string]Result{
		"✓ vault: here":                          {Name: "vault", Status: OK, Found: "here"},
		"! vault: old\n  hint: renew":            {Name: "vault", Status: Warning, Found: "old", Hint: "renew"},
		"✗ vault: gone\n  hint: look":            {Name: "vault", Status: Failed, Found: "gone", Hint: "look"},
		"! vault: not tried: no id_token":        {Name: "vault", Status: NotTried, Found: "no id_token"},
		"✗ vault: two lines\n  hint: ✓ no third": {Name: "vault", Status: Failed, Found: "two\nlines", Hint: "✓ no\nthird"},
	} {
		if r.String() != want {
			t.Errorf("got %q, want %q", r, want)
		}
	}
}

// A check that fails stops those that need it, and no others.
func TestRound(t *testing.T) {
	always := func(f finding) func(context.Context) finding { return func(context.Context) finding { return f } }
	never := func(context.Context) finding {
		t.Error("a check was made without what it needs")
		return finding{}
	}
	interrupted, stop := context.WithCancel(t.Context())
	stop()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		checks []check
		want   string
		failed bool
	}{
		{
			"all is well", t.Context(),
			[]check{{"a", nil, always(fine("1"))}, {"b", []string{"a"}, always(fine("2"))}},
			"✓ a: 1\n✓ b: 2\n", false,
		},
		{
			"what needs what has failed", t.Context(),
			[]check{{"a", nil, always(fail("", "1"))}, {"b", []string{"a"}, never}, {"c", []string{"b"}, never}, {"d", nil, always(fine("4"))}},
			"✗ a: 1\n! b: not tried: a has failed\n! c: not tried: a has failed\n✓ d: 4\n", true,
		},
		{
			"what was not given", t.Context(),
			[]check{{"a", nil, always(notTried("give one", "no token"))}, {"b", []string{"a"}, never}},
			"! a: not tried: no token\n  hint: give one\n! b: not tried: no token\n", false,
		},
		{
			"a warning stops nobody", t.Context(),
			[]check{{"a", nil, always(warn("", "1"))}, {"b", []string{"a"}, always(fine("2"))}},
			"! a: 1\n✓ b: 2\n", false,
		},
		{
			"needs of another kind of installation", t.Context(),
			[]check{{"b", []string{"nothing like it"}, always(fine("2"))}},
			"✓ b: 2\n", false,
		},
		{"not worth a line", t.Context(), []check{{"a", nil, always(finding{})}, {"b", []string{"a"}, always(fine("2"))}}, "✓ b: 2\n", false},
		{"interrupted", interrupted, []check{{"a", nil, never}}, "! a: not tried: interrupted\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said strings.Builder
			r := &round{missing: map[string]string{}, say: func(r Result) { fmt.Fprintln(&said, r) }}
			for _, c := range tt.checks {
				r.do(tt.ctx, c)
			}
			if diff := cmp.Diff(tt.want, said.String()); diff != "" || r.failed != tt.failed {
				t.Errorf("failed is %v (-want +got):\n%s", r.failed, diff)
			}
		})
	}
}

func TestSkew(t *testing.T) {
	asked := time.Date(2026, 1, 1, 12, 0, 0, 500e6, time.UTC)
	answered := asked.Add(3 * time.Second)
	at := func(d time.Duration) reading {
		return reading{theirs: asked.Add(d).Truncate(time.Second), asked: asked, answered: answered}
	}
	for _, tt := range []struct {
		at     time.Duration
		status Status
	}{
		{0, OK},
		{3 * time.Second, OK}, // a slow answer is no skew
		{12 * time.Second, OK},
		{14 * time.Second, Warning},
		{-20 * time.Second, Warning},
		{65 * time.Second, Failed},
		{-65 * time.Second, Failed},
	} {
		if f := at(tt.at).judge(); f.status != tt.status {
			t.Errorf("%s: %+v, want %s", tt.at, f, tt.status)
		}
	}
	if got := at(3 * time.Second).skew(); got != 0 {
		t.Errorf("a slow answer makes a skew of %s", got)
	}
	if f := (reading{asked: asked, answered: answered}).judge(); f.status != Warning {
		t.Errorf("no date: %+v", f)
	}
}

func TestVerdicts(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	state := func(left time.Duration) *tls.ConnectionState {
		return &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{NotAfter: now.Add(left)}}}
	}
	const day = 24 * time.Hour
	https := "https://vault"
	cache := func(days int) *settings.Cache { return &settings.Cache{ExpireDays: days} }
	for name, tt := range map[string]struct {
		got    finding
		status Status
		text   string
	}{
		"active":             {judgeHealth(https, vaultauth.Health{Version: "1.21.0", Initialized: true}), OK, "1.21.0 at https://vault, unsealed and active"},
		"standby":            {judgeHealth(https, vaultauth.Health{Initialized: true, Standby: true}), OK, "standby"},
		"sealed":             {judgeHealth(https, vaultauth.Health{Initialized: true, Sealed: true}), Failed, "is sealed"},
		"new":                {judgeHealth(https, vaultauth.Health{}), Failed, "not initialised"},
		"tls":                {judgeTLS(https, state(100*day), now), OK, "TLS 1.3, the certificate ends at 2026-04-11"},
		"tls that ends":      {judgeTLS(https, state(day), now), Warning, "the certificate ends at 2026-01-02"},
		"no tls":             {judgeTLS("http://vault", nil, now), Warning, "in the clear"},
		"tls that failed":    {judgeTLS(https, nil, now), NotTried, ""},
		"id_token":           {judgeIDToken(vaultauth.IDToken{ProjectID: "7", RefProtected: true, Expires: now.Add(day)}, now), OK, "of project 7, a protected ref"},
		"old id_token":       {judgeIDToken(vaultauth.IDToken{ProjectID: "7", Expires: now}, now), Failed, "an unprotected ref"},
		"root":               {judgeLogin("ci", vaultauth.TokenInfo{Policies: []string{"root"}}, now), Failed, "role ci gives the policy root"},
		"login":              {judgeLogin("ci", vaultauth.TokenInfo{Policies: []string{"a", "b"}, Expires: now.Add(time.Minute)}, now), OK, "as ci for 1m0s, policies a, b"},
		"rights":             {judgeRights(nil), OK, "all"},
		"rights missing":     {judgeRights([]pod.Lack{{Right: pod.Right{Resource: "pods/exec", Where: "x"}, Verb: "get"}, {Right: pod.Right{Group: "policy", Resource: "y", Where: "x"}, Verb: "create"}}), Failed, "missing: get pods/exec, create y.policy"},
		"templates":          {judgeTemplates("ci", nil, 2), OK, "all 2 in namespace ci"},
		"a template":         {judgeTemplates("ci", []pod.TemplateProblem{{Name: "big", Err: errors.New("too big")}}, 2), Failed, "template big: too big"},
		"expiry":             {judgeExpiry(14, cache(14)), OK, "after 14 days"},
		"no expiry":          {judgeExpiry(0, cache(14)), Warning, "no lifecycle rule"},
		"another expiry":     {judgeExpiry(7, cache(14)), Warning, "after 7 days, and cache.expire_days is 14"},
		"none, as is wanted": {judgeExpiry(0, cache(0)), OK, "never"},
		"an error's hint":    {failed(fmt.Errorf("x: %w", &vaultauth.Error{Op: "log in", Detail: "no", Hint: "look"}), "other"), Failed, "x: log in: no"},
		"another's hint":     {failed(errors.New("no y; hint: make one"), "other"), Failed, "no y"},
	} {
		if tt.got.status != tt.status || !strings.Contains(tt.got.found, tt.text) {
			t.Errorf("%s: got %+v, want %s with %q", name, tt.got, tt.status, tt.text)
		}
		if strings.HasSuffix(name, "hint") && tt.got.hint == "other" {
			t.Errorf("%s is lost: %+v", name, tt.got)
		}
	}
}

// What a login must not be allowed: never what it is for.
func TestLimits(t *testing.T) {
	s := settings.Default()
	s.Vault.Address, s.Cache.Bucket = "https://vault", "b"
	s.Vault.CacheWrite.Mount, s.Vault.CacheRead.Mount = "aws", "aws"
	unprotected := executor.Facts{ProjectID: "7", Scope: executor.ScopeUnprotected}
	protected := executor.Facts{ProjectID: "7", Scope: executor.ScopeProtected}
	const read, write = "aws/sts/podlane-cache-read-", "aws/sts/podlane-cache-write-"
	for _, tt := range []struct {
		use       string
		facts     executor.Facts
		never     []string
		may       []string
		unlimited func(*settings.Settings)
	}{
		{useRead, unprotected, []string{write + "7-unprotected", write + "7-protected", write + nobody + "-unprotected", read + nobody + "-unprotected"}, []string{read + "7-unprotected"}, nil},
		{useWrite, unprotected, []string{write + "7-protected", write + nobody + "-unprotected"}, []string{write + "7-unprotected"}, nil},
		{useWrite, protected, []string{write + nobody + "-protected"}, []string{write + "7-protected", write + "7-unprotected"}, nil},
		{useKubernetes, protected, []string{"sys/policies/acl/podlane-doctor", write + "7-protected"}, []string{read + "7-protected"}, nil},
		// One role for all: Vault's path can't tell scopes apart.
		{useWrite, unprotected, []string{"sys/policies/acl/podlane-doctor"}, []string{"aws/sts/all"}, func(s *settings.Settings) { s.Vault.CacheWrite.Role = "all" }},
	} {
		s := s
		if tt.unlimited != nil {
			tt.unlimited(&s)
		}
		never := forbidden(tt.use, &s, tt.facts)
		for _, path := range tt.never {
			if never[path] == "" {
				t.Errorf("%s of %s: %s is not forbidden", tt.use, tt.facts.Scope, path)
			}
		}
		for _, path := range tt.may {
			if never[path] != "" {
				t.Errorf("%s of %s: %s is forbidden: %s", tt.use, tt.facts.Scope, path, never[path])
			}
		}
	}
	never := map[string]string{"a": "do a", "b": "do b", "c": "do c"}
	if f := judgeLimits(never, map[string][]string{"a": {"deny"}, "b": {"read", "update"}}); f.status != Failed || f.found != "it may also do b (b: read, update)" {
		t.Errorf("got %+v", f)
	}
	if f := judgeLimits(never, map[string][]string{"a": {"deny"}}); f.status != OK {
		t.Errorf("got %+v", f)
	}
}
