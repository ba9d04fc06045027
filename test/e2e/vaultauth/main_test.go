// Package vaultauth tests podlane/vaultauth against a real Vault, which it
// starts for itself beside the test stack's, with the stack's cluster and S3
// behind it.
package vaultauth

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"podlane/internal/redact"
	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
	"podlane/vaultauth"
)

// fixture is what all tests share.
type fixture struct {
	stack stackenv.Stack
	vault *vaultserver.Server
	key   *rsa.PrivateKey
}

var shared fixture

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv("PODLANE_E2E_CLUSTER") != "" {
		fmt.Fprintln(os.Stderr, "this cluster is not the test stack: there is no Vault to test against")
		return 0
	}
	dir, err := os.MkdirTemp("", "podlane-vault")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := shared.start(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "start a Vault; is the test stack up (make up)?", err)
		return 1
	}
	code := m.Run()
	if err := shared.vault.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (f *fixture) start(ctx context.Context, dir string) error {
	root, err := stackenv.FindRoot(".")
	if err != nil {
		return err
	}
	number, err := stackenv.ParseNumber(os.Getenv("PODLANE_STACK"))
	if err != nil {
		return err
	}
	if f.stack, err = stackenv.New(root, number); err != nil {
		return err
	}
	if f.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	if f.vault, err = vaultserver.New(ctx, f.stack, dir); err != nil {
		return err
	}
	if err := f.setUp(ctx); err != nil {
		return errors.Join(err, f.vault.Close())
	}
	return nil
}

// object is a body in JSON.
type object map[string]any

// setUp makes mounts, roles and policies.
func (f *fixture) setUp(ctx context.Context) error {
	files := map[string]string{}
	for _, file := range []string{f.stack.S3RootPasswordFile, f.stack.KubeCAFile, f.stack.VaultKubeTokenFile, f.stack.S3VaultPasswordFile} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		files[file] = string(data)
	}
	_, err := f.s3(stackenv.S3RootUser, files[f.stack.S3RootPasswordFile], "").CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
	var exists *types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &exists) {
		return err
	}
	var steps []step
	add := func(path string, body object) { steps = append(steps, step{path, body}) }

	add("sys/auth/jwt", object{"type": "jwt"})
	add("auth/jwt/config", object{"jwt_validation_pubkeys": []string{publicPEM(f.key)}})
	add("sys/mounts/kubernetes", object{"type": "kubernetes"})
	add("kubernetes/config", object{
		"kubernetes_host": f.stack.APIServerURL(), "kubernetes_ca_cert": files[f.stack.KubeCAFile],
		"service_account_jwt": files[f.stack.VaultKubeTokenFile], "disable_local_ca_jwt": true,
	})
	add("kubernetes/roles/jobs", object{
		"service_account_name": stackenv.ServiceAccount, "allowed_kubernetes_namespaces": []string{stackenv.Namespace}, "token_max_ttl": "1h",
	})
	add("sys/mounts/aws", object{"type": "aws"})
	add("aws/config/root", object{
		"access_key": stackenv.S3VaultUser, "secret_key": files[f.stack.S3VaultPasswordFile], "region": stackenv.S3Region,
		"sts_endpoint": f.stack.STSAddress, "iam_endpoint": f.stack.STSAddress,
	})
	add("aws/roles/cache", object{
		"credential_type": "assumed_role", "role_arns": "arn:aws:iam::000000000000:role/cache",
		"policy_document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::` + bucket + `"]}]}`,
	})
	add("sys/mounts/kv", object{"type": "kv"})
	add("sys/mounts/secret", object{"type": "kv", "options": object{"version": "2"}})
	add("kv/deploy", object{"password": "correct horse", "port": 22})
	add("sys/policies/acl/ci", object{"policy": `
		path "kubernetes/creds/*" { capabilities = ["update"] }
		path "aws/sts/*" { capabilities = ["update"] }
		path "kv/*" { capabilities = ["read"] }
		path "secret/data/*" { capabilities = ["read"] }`})
	role := func(name string, more object) {
		body := object{
			"role_type": "jwt", "user_claim": "project_id", "bound_audiences": []string{"vault"}, "token_policies": []string{"ci"},
			"token_ttl": "20m", "token_max_ttl": "1h", "token_type": "service", "token_no_default_policy": false,
		}
		for key, value := range more {
			body[key] = value
		}
		add("auth/jwt/role/"+name, body)
	}
	role("ci", nil)
	role("protected", object{"bound_claims": object{"ref_protected": "true"}})
	role("elsewhere", object{"token_bound_cidrs": []string{"192.0.2.0/24"}})
	role("norights", object{"token_policies": []string{}})
	role("brief", object{"token_ttl": "2s", "token_max_ttl": "2s"})
	role("batch", object{"token_type": "batch"})
	role("uses", object{"token_num_uses": 3})
	if err := f.do(ctx, steps...); err != nil {
		return err
	}
	// A KV engine of version 2 upgrades itself in the background at first.
	write := step{"secret/data/deploy", object{"data": object{"password": "battery staple", "list": []int{1, 2}}}}
	for {
		err := f.do(ctx, write)
		if err == nil || !strings.Contains(err.Error(), "pgrading") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// bucket is these tests' own.
const bucket = "podlane-vaultauth-tests"

// s3 is a client with a credential.
func (f *fixture) s3(accessKey, secretKey, sessionToken string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(f.stack.S3Address), Region: stackenv.S3Region, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: sessionToken}, nil
		}),
	})
}

// step is something to write to Vault.
type step struct {
	path string
	body object
}

func (f *fixture) do(ctx context.Context, steps ...step) error {
	for _, s := range steps {
		if err := f.vault.API(ctx, "POST", s.path, s.body, nil); err != nil {
			return err
		}
	}
	return nil
}

func publicPEM(key *rsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		panic(err) // an RSA key can always be written
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// idToken signs a token as GitLab does, of a job on an unprotected ref that has
// an hour left. Changes with the value nil take a claim away.
func idToken(t *testing.T, key *rsa.PrivateKey, changes object) redact.Secret {
	t.Helper()
	now := time.Now()
	claims := object{
		"iss": "https://gitlab.test", "aud": "vault", "sub": "project_path:group/p:ref_type:branch:ref:x", "project_id": "42",
		"ref_protected": "false", "iat": now.Unix(), "nbf": now.Unix() - 5, "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	part := func(v object) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	text := part(object{"alg": "RS256", "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return redact.New(text + "." + base64.RawURLEncoding.EncodeToString(signature))
}

// client has patience enough for a busy machine.
func client(t *testing.T, change func(*vaultauth.Config)) *vaultauth.Client {
	t.Helper()
	config := vaultauth.Config{Address: shared.vault.Address, Timeout: 30 * time.Second, RetryBudget: 2 * time.Minute}
	if change != nil {
		change(&config)
	}
	c, err := vaultauth.New(config, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// store is one in a folder of its own.
func store(t *testing.T) *vaultauth.Store {
	t.Helper()
	s, err := vaultauth.NewStore(t.TempDir(), vaultauth.NewKey(), t.Name(), t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func session(t *testing.T, role string, claims object) *vaultauth.Session {
	t.Helper()
	return vaultauth.Open(vaultauth.Options{Client: client(t, nil), Role: role, IDToken: idToken(t, shared.key, claims)})
}

// wants checks an error's kind and words.
func wants(t *testing.T, err error, kind vaultauth.Kind, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one of kind %s", kind)
	}
	if got := vaultauth.KindOf(err); got != kind {
		t.Errorf("kind %s, want %s: %v", got, kind, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}
