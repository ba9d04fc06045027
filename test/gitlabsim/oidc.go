package gitlabsim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// keyring signs ID tokens with its first key and publishes all of them.
type keyring struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
}

func newKeyring() (*keyring, error) {
	k := &keyring{}
	return k, k.rotate(false)
}

func (k *keyring) rotate(keepOld bool) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !keepOld {
		k.keys = nil
	}
	k.keys = append([]*rsa.PrivateKey{key}, k.keys...)
	return nil
}

func (k *keyring) published() []*rsa.PrivateKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*rsa.PrivateKey(nil), k.keys...)
}

// RotateKeys makes a new key for ID tokens. Tokens signed with an old one stay
// valid if the old ones are kept in the published set.
func (s *Server) RotateKeys(keepOld bool) error { return s.keys.rotate(keepOld) }

// discovery is /.well-known/openid-configuration, as far as those who verify ID
// tokens read it.
func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{
		"issuer":                                s.url,
		"authorization_endpoint":                s.url + "/oauth/authorize",
		"token_endpoint":                        s.url + "/oauth/token",
		"userinfo_endpoint":                     s.url + "/oauth/userinfo",
		"jwks_uri":                              s.url + "/oauth/discovery/keys",
		"scopes_supported":                      []string{"openid"},
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"claim_types_supported":                 []string{"normal"},
		"claims_supported":                      []string{"iss", "sub", "aud", "exp", "iat"},
	})
}

// jwks is /oauth/discovery/keys.
func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) {
	keys := []map[string]string{}
	for _, key := range s.keys.published() {
		keys = append(keys, map[string]string{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID(&key.PublicKey),
			"n": encodeInt(key.N), "e": encodeInt(big.NewInt(int64(key.E))),
		})
	}
	reply(w, http.StatusOK, map[string]any{"keys": keys})
}

// keyID is the key's thumbprint of RFC 7638.
func keyID(key *rsa.PublicKey) string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"e":"%s","kty":"RSA","n":"%s"}`,
		encodeInt(big.NewInt(int64(key.E))), encodeInt(key.N)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func encodeInt(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }

// SignToken signs claims as an ID token, for tests that need one no job would
// get: expired, or of another project.
func (s *Server) SignToken(claims map[string]any) (string, error) {
	key := s.keys.published()[0]
	header, err := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": keyID(&key.PublicKey)})
	if err != nil {
		return "", fmt.Errorf("encode token header: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// Claims of a job's ID token, as GitLab mints them when a runner takes the job
// (lib/gitlab/ci/jwt.rb, lib/gitlab/ci/jwt_v2.rb,
// lib/json_web_token/user_project_token_claims.rb). It lives as long as the job
// may run.
func (j *Job) Claims(aud []string, now time.Time) map[string]any {
	p, project := j.Pipeline, j.Pipeline.Project
	claims := map[string]any{
		"jti": randomUUID(), "iss": j.server.url, "iat": now.Unix(), "nbf": now.Unix() - 5,
		"exp": now.Unix() + int64(j.spec.Timeout.Seconds()),
		"sub": fmt.Sprintf("project_path:%s:ref_type:%s:ref:%s", project.Path, p.refType(), p.sourceRef()),

		"user_id": strconv.Itoa(userID), "user_login": userLogin, "user_email": userEmail,
		"user_access_level": "maintainer",
		"pipeline_id":       strconv.FormatInt(p.ID, 10), "pipeline_source": p.Source,
		"job_id": strconv.FormatInt(j.ID, 10),
		"ref":    p.sourceRef(), "ref_type": p.refType(), "ref_path": p.sourceRefPath(),
		"ref_protected": strconv.FormatBool(p.Protected),
		"runner_id":     j.Result().RunnerID, "runner_environment": "self-hosted",
		"sha": p.SHA, "project_visibility": "private",
		"ci_config_ref_uri": fmt.Sprintf("%s/%s//.gitlab-ci.yml@%s", j.server.host(), project.Path, p.sourceRefPath()),
		"ci_config_sha":     p.SHA,
	}
	for _, prefix := range []string{"", "job_"} {
		claims[prefix+"project_id"] = strconv.FormatInt(project.ID, 10)
		claims[prefix+"project_path"] = project.Path
		claims[prefix+"namespace_id"] = strconv.FormatInt(project.NamespaceID, 10)
		claims[prefix+"namespace_path"] = project.namespace()
	}
	claims["aud"] = any(aud)
	if len(aud) == 1 {
		claims["aud"] = aud[0]
	}
	maps.Copy(claims, j.environmentClaims())
	return claims
}

func (j *Job) environmentClaims() map[string]any {
	env := j.spec.Environment
	if env == nil {
		return nil
	}
	return map[string]any{
		"environment": env.Name, "environment_protected": "false",
		"deployment_tier": env.tier(), "environment_action": env.action(),
	}
}

// sourceRefPath is a full ref, and the source branch's for a merge request.
func (p *Pipeline) sourceRefPath() string {
	if p.MergeRequest != nil {
		return "refs/heads/" + p.MergeRequest.SourceBranch
	}
	return p.fullRef()
}

// idTokens are ordinary masked variables
// (GitLab app/models/ci/build.rb, id_tokens_variables).
func (j *Job) idTokens(now time.Time) ([]Variable, error) {
	var list []Variable
	for _, name := range sortedNames(j.spec.IDTokens) {
		wanted := j.spec.IDTokens[name]
		claims := j.Claims(wanted.Aud, now)
		if wanted.Lifetime > 0 {
			claims["exp"] = now.Unix() + int64(wanted.Lifetime.Seconds())
		}
		token, err := j.server.SignToken(claims)
		if err != nil {
			return nil, err
		}
		list = append(list, Variable{Key: name, Value: token, Masked: true})
	}
	return list, nil
}
