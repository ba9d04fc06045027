package vaultauth

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/internal/redact"
	"podlane/test/stack/stackenv"
	"podlane/vaultauth"
)

// What is done to the one Vault comes first: tests in parallel wait for it.

func TestSealedVault(t *testing.T) {
	s := session(t, "ci", nil)
	if _, err := s.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := shared.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	impatient := client(t, func(c *vaultauth.Config) { c.RetryBudget = 0 })
	_, err := vaultauth.Open(vaultauth.Options{Client: impatient, Role: "ci", IDToken: idToken(t, shared.key, nil)}).Login(t.Context())
	wants(t, err, vaultauth.Unavailable, "log in to vault with role ci: vault is sealed")
	h, err := impatient.Health(t.Context())
	if err != nil || !h.Sealed {
		t.Errorf("health is %+v, %v, want it sealed", h, err)
	}
	// It comes back while a job waits for it.
	unsealed := make(chan error, 1)
	go func() { unsealed <- shared.vault.Unseal(context.WithoutCancel(t.Context())) }()
	if _, err := s.KubeToken(t.Context(), kubeRequest); err != nil {
		t.Error(err)
	}
	if err := <-unsealed; err != nil {
		t.Fatal(err)
	}
}

func TestVaultThatIsAwayForAWhile(t *testing.T) {
	if err := shared.vault.Stop(); err != nil {
		t.Fatal(err)
	}
	impatient := client(t, func(c *vaultauth.Config) { c.RetryBudget = 0 })
	_, err := vaultauth.Open(vaultauth.Options{Client: impatient, Role: "ci", IDToken: idToken(t, shared.key, nil)}).Login(t.Context())
	wants(t, err, vaultauth.Unavailable, "connection refused")
	back := make(chan error, 1)
	go func() { back <- shared.vault.Start(context.WithoutCancel(t.Context())) }()
	if _, err := session(t, "ci", nil).Login(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour).Unix()
	for _, tt := range []struct {
		name   string
		role   string
		claims object
		key    *rsa.PrivateKey
		mount  string
		kind   vaultauth.Kind // zero: it works
		claim  string
		words  []string
	}{
		{name: "unprotected", role: "ci"},
		{name: "protected", role: "protected", claims: object{"ref_protected": "true"}},
		{name: "claim does not match", role: "protected", kind: vaultauth.Denied, claim: "ref_protected", words: []string{`the claim ref_protected is "false", expected`, "bound_claims"}},
		{name: "claim is missing", role: "protected", claims: object{"ref_protected": nil}, kind: vaultauth.Denied, claim: "ref_protected"},
		{name: "wrong audience", role: "ci", claims: object{"aud": "elsewhere"}, kind: vaultauth.Denied, claim: "aud", words: []string{"bound_audiences"}},
		// Our own clock says nothing against it, since exp is left out of what we see.
		{name: "not yet valid", role: "ci", claims: object{"nbf": time.Now().Add(time.Hour).Unix()}, kind: vaultauth.Misconfigured, claim: "nbf"},
		{name: "no project", role: "ci", claims: object{"project_id": nil}, kind: vaultauth.Misconfigured, claim: "project_id"},
		{name: "signed by a stranger", role: "ci", key: stranger, kind: vaultauth.Misconfigured, words: []string{"another GitLab"}},
		{name: "no such role", role: "nobody", kind: vaultauth.Misconfigured, words: []string{"nobody", "podlane.toml"}},
		{name: "no such mount", role: "ci", mount: "jwt-of-nobody", kind: vaultauth.Misconfigured, words: []string{"permission denied"}},
		{name: "from another host", role: "elsewhere", kind: vaultauth.Misconfigured, words: []string{"token_bound_cidrs"}},
		{name: "batch tokens", role: "batch", kind: vaultauth.Misconfigured, words: []string{`token_type="service"`}},
		{name: "limited uses", role: "uses", kind: vaultauth.Misconfigured, words: []string{"token_num_uses"}},
		{name: "ended", role: "ci", claims: object{"iat": hourAgo, "nbf": hourAgo, "exp": hourAgo + 60}, kind: vaultauth.Expired, words: []string{"the id_token ended at"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key := shared.key
			if tt.key != nil {
				key = tt.key
			}
			c := client(t, func(c *vaultauth.Config) { c.AuthMount = tt.mount })
			info, err := vaultauth.Open(vaultauth.Options{Client: c, Role: tt.role, IDToken: idToken(t, key, tt.claims)}).Login(t.Context())
			if tt.kind == vaultauth.Unknown {
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(info.Policies, "ci") || info.Accessor == "" || time.Until(info.Expires) > 20*time.Minute {
					t.Errorf("got %+v", info)
				}
				return
			}
			wants(t, err, tt.kind, tt.words...)
			if e := new(vaultauth.Error); errors.As(err, &e) && e.Claim != tt.claim {
				t.Errorf("claim %q, want %q: %v", e.Claim, tt.claim, err)
			}
		})
	}
}

// Vault itself finds that a token has ended, where our clock is behind.
func TestExpiredByVaultsClock(t *testing.T) {
	t.Parallel()
	hourAgo := time.Now().Add(-time.Hour)
	s := vaultauth.Open(vaultauth.Options{
		Client: client(t, nil), Role: "ci", Now: func() time.Time { return hourAgo },
		IDToken: idToken(t, shared.key, object{"iat": hourAgo.Unix() - 60, "nbf": hourAgo.Unix() - 60, "exp": hourAgo.Unix() + 600}),
	})
	_, err := s.Login(t.Context())
	wants(t, err, vaultauth.Expired, "token is expired")
}

var kubeRequest = vaultauth.KubeRequest{Mount: "kubernetes", Role: "jobs", Namespace: stackenv.Namespace, TTL: 20 * time.Minute}

func TestKubeToken(t *testing.T) {
	t.Parallel()
	s := session(t, "ci", nil)
	k, err := s.KubeToken(t.Context(), kubeRequest)
	if err != nil {
		t.Fatal(err)
	}
	if k.ServiceAccount != stackenv.ServiceAccount || k.Namespace != stackenv.Namespace {
		t.Errorf("it is %s's in %s", k.ServiceAccount, k.Namespace)
	}
	if life := k.Expires.Sub(k.Issued); life < 19*time.Minute || life > 20*time.Minute {
		t.Errorf("it lives for %s, want 20 minutes", life)
	}
	if got := askCluster(t, k.Token, "/api/v1/namespaces/"+stackenv.Namespace+"/pods?limit=1"); got != http.StatusOK {
		t.Errorf("list pods in its namespace: status %d, want 200", got)
	}
	if got := askCluster(t, k.Token, "/api/v1/namespaces/kube-system/pods?limit=1"); got != http.StatusForbidden {
		t.Errorf("list pods in another namespace: status %d, want 403", got)
	}
	other := kubeRequest
	other.Namespace = "kube-system"
	_, err = s.KubeToken(t.Context(), other)
	wants(t, err, vaultauth.Denied, "allowed_kubernetes_namespaces")
	other = kubeRequest
	other.Role = "nobody"
	_, err = s.KubeToken(t.Context(), other)
	wants(t, err, vaultauth.Misconfigured, "nobody")
	_, err = session(t, "norights", nil).KubeToken(t.Context(), kubeRequest)
	wants(t, err, vaultauth.Denied, "permission denied", "policies")
}

// askCluster returns the status of a GET with a service account's token.
func askCluster(t *testing.T, token redact.Secret, path string) int {
	t.Helper()
	ca, err := os.ReadFile(shared.stack.KubeCAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, shared.stack.APIServerURL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := session(t, "ci", nil)
	c, err := s.S3(t.Context(), "aws", "cache", 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if life := c.Expires.Sub(c.Issued); life < 14*time.Minute || life > 16*time.Minute {
		t.Errorf("it lives for %s, want 15 minutes", life)
	}
	limited := shared.s3(c.AccessKey, c.SecretKey.Reveal(), c.SessionToken.Reveal())
	if _, err := limited.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), MaxKeys: aws.Int32(1)}); err != nil {
		t.Errorf("list the bucket: %v", err)
	}
	if _, err := limited.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(bucket), Key: aws.String("not-allowed"), Body: strings.NewReader("x"),
	}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("write, which the role's policy does not allow: %v, want AccessDenied", err)
	}
	_, err = s.S3(t.Context(), "aws", "nobody", 0)
	wants(t, err, vaultauth.Misconfigured)
}

func TestKV(t *testing.T) {
	t.Parallel()
	s := session(t, "ci", nil)
	one, err := s.KV(t.Context(), "kv", "deploy", false)
	if err != nil {
		t.Fatal(err)
	}
	if one["password"].Reveal() != "correct horse" || one["port"].Reveal() != "22" {
		t.Error("version 1: not what was written")
	}
	two, err := s.KV(t.Context(), "secret", "deploy", true)
	if err != nil {
		t.Fatal(err)
	}
	if two["password"].Reveal() != "battery staple" || two["list"].Reveal() != "[1,2]" {
		t.Error("version 2: not what was written")
	}
	for mount, version2 := range map[string]bool{"kv": false, "secret": true} {
		_, err := s.KV(t.Context(), mount, "no/such/secret", version2)
		wants(t, err, vaultauth.Misconfigured, "no/such/secret", "status 404")
	}
}

// The id_token has ended and the token is past its refresh: it is renewed.
func TestRenewal(t *testing.T) {
	t.Parallel()
	st, c := store(t), client(t, nil)
	first, err := vaultauth.Open(vaultauth.Options{Client: c, Role: "ci", IDToken: idToken(t, shared.key, nil), Store: st}).Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(16 * time.Minute) }
	ended := idToken(t, shared.key, object{"exp": time.Now().Unix()})
	second, err := vaultauth.Open(vaultauth.Options{Client: c, Role: "ci", IDToken: ended, Store: st, Now: later}).Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second.Accessor != first.Accessor || !second.Expires.After(first.Expires) {
		t.Errorf("first %+v, then %+v: want the same token with a later end", first, second)
	}
}

// With its token_max_ttl behind it, nothing keeps a token alive.
func TestTokenMaxTTL(t *testing.T) {
	t.Parallel()
	st, c := store(t), client(t, nil)
	info, err := vaultauth.Open(vaultauth.Options{Client: c, Role: "brief", IDToken: idToken(t, shared.key, nil), Store: st}).Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	awaitGone(t, info.Accessor)
	ended := idToken(t, shared.key, object{"exp": time.Now().Add(-time.Second).Unix()})
	_, err = vaultauth.Open(vaultauth.Options{Client: c, Role: "brief", IDToken: ended, Store: st}).KubeToken(t.Context(), kubeRequest)
	wants(t, err, vaultauth.Expired, "the id_token ended at", "the Vault token ended at", "token_max_ttl")
	// With an id_token that lives, it is a matter of another login.
	if _, err = vaultauth.Open(vaultauth.Options{Client: c, Role: "brief", IDToken: idToken(t, shared.key, nil), Store: st}).Login(t.Context()); err != nil {
		t.Error(err)
	}
}

// awaitGone waits until Vault knows no token with an accessor.
func awaitGone(t *testing.T, accessor string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if err := shared.vault.API(ctx, http.MethodPost, "auth/token/lookup-accessor", object{"accessor": accessor}, nil); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the token is still there after a minute")
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	st, c := store(t), client(t, nil)
	var accessors []string
	for _, role := range []string{"ci", "norights"} {
		s := vaultauth.Open(vaultauth.Options{Client: c, Role: role, IDToken: idToken(t, shared.key, nil), Store: st})
		info, err := s.Login(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		accessors = append(accessors, info.Accessor)
	}
	// Cleanup knows neither roles nor a living id_token, only the store.
	if err := c.RevokeAll(t.Context(), st, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, accessor := range accessors {
		awaitGone(t, accessor)
	}
	if err := c.RevokeAll(t.Context(), st, time.Now()); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestTokenRevokedByAnAdministrator(t *testing.T) {
	t.Parallel()
	s := vaultauth.Open(vaultauth.Options{Client: client(t, nil), Role: "ci", IDToken: idToken(t, shared.key, nil), Store: store(t)})
	info, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.do(t.Context(), step{"auth/token/revoke-accessor", object{"accessor": info.Accessor}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.KubeToken(t.Context(), kubeRequest); err != nil {
		t.Errorf("not replaced by another login: %v", err)
	}
}

// The issuer signs with a new key: logins fail until Vault knows it.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	next, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mount := "rotating-" + rand.Text()
	if err := shared.do(
		t.Context(),
		step{"sys/auth/" + mount, object{"type": "jwt"}},
		step{"auth/" + mount + "/config", object{"jwt_validation_pubkeys": []string{publicPEM(shared.key)}}},
		step{"auth/" + mount + "/role/ci", object{"role_type": "jwt", "user_claim": "project_id", "bound_audiences": []string{"vault"}, "token_ttl": "5m"}},
	); err != nil {
		t.Fatal(err)
	}
	login := func() error {
		c := client(t, func(c *vaultauth.Config) { c.AuthMount = mount })
		_, err := vaultauth.Open(vaultauth.Options{Client: c, Role: "ci", IDToken: idToken(t, next, nil)}).Login(t.Context())
		return err
	}
	wants(t, login(), vaultauth.Misconfigured, "another GitLab")
	keys := []string{publicPEM(shared.key), publicPEM(next)}
	if err := shared.do(t.Context(), step{"auth/" + mount + "/config", object{"jwt_validation_pubkeys": keys}}); err != nil {
		t.Fatal(err)
	}
	if err := login(); err != nil {
		t.Error(err)
	}
}

func TestHealthAndCapabilities(t *testing.T) {
	t.Parallel()
	h, err := client(t, nil).Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Version == "" || !h.Initialized || h.Sealed || h.Standby || time.Since(h.Time).Abs() > time.Minute {
		t.Errorf("health is %+v", h)
	}
	can, err := session(t, "ci", nil).Can(t.Context(), "aws/sts/cache", "kv/deploy", "sys/seal")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"aws/sts/cache": "update", "kv/deploy": "read", "sys/seal": "deny"} {
		if !slices.Equal(can[path], []string{want}) {
			t.Errorf("%s: %v, want %s", path, can[path], want)
		}
	}
}
