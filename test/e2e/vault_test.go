package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/vaultserver"
)

// newVaultBed starts a bed on the stack's Vault, or on another, whose podlane has
// no credential of its own. Flags are vault-bootstrap's.
func newVaultBed(t *testing.T, own *vaultserver.Server, settings bed.Settings, flags ...string) *bed.Bed {
	t.Helper()
	needsStack(t)
	b, err := startWith(t.Context(), settings, nil, func(o *bed.Options) { o.OwnVault, o.VaultFlags = own, flags })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(scanFiles(context.WithoutCancel(t.Context()), b), b.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// requests are the paths that podlane has asked for with this bed's roles, in
// Vault's own audit log.
func requests(t *testing.T, b *bed.Bed) []string {
	t.Helper()
	f, err := os.Open(b.Vault.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var paths []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var entry struct {
			Type string
			Auth struct {
				DisplayName string `json:"display_name"`
			}
			Request struct{ Path string }
		}
		if json.Unmarshal(lines.Bytes(), &entry) != nil || entry.Type != "response" {
			continue
		}
		path := entry.Request.Path
		mounts := b.Vault.Mounts
		if path == "auth/"+mounts.JWT+"/login" || strings.HasPrefix(entry.Auth.DisplayName, mounts.JWT+"-") {
			paths = append(paths, strings.NewReplacer(mounts.JWT, "jwt", mounts.Kubernetes, "kubernetes", mounts.AWS, "aws", mounts.KV, "kv").Replace(path))
		}
	}
	return paths
}

// asked waits until podlane has asked Vault for exactly that: the last request of
// a job comes after its end.
func asked(t *testing.T, b *bed.Bed, want ...string) {
	t.Helper()
	var got []string
	eventually(t, func() bool {
		got = requests(t, b)
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests to vault (-want +got):\n%s", diff)
	}
}

// eventually waits for something that will happen in any case.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("waited for a minute")
			return
		}
	}
}

// The whole of a plain job, with nothing on the runner's host that opens
// anything: three requests to Vault.
func TestVaultPlainJob(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, nil)
	o := runOn(t, b, gitlabsim.JobSpec{
		Script: []string{
			"cat README",
			"echo id-token-is $VAULT_ID_TOKEN | base64 -w0; echo",
			"env | grep -c PODLANE_SEAL_KEY || true",
		},
		AfterScript: []string{"echo after"},
	})
	o.succeeded(t, "hello from the checkout", "after", "\n0\n")
	asked(t, b, "auth/jwt/login", "kubernetes/creds/podlane", "auth/token/revoke-self")
}

// What Vault or podlane refuses is told before a pod is started, and names the
// claim. Nothing of it is tried again.
func TestVaultRefuses(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, bed.Settings{
		"[grants]#protected": {
			"name": `"protected"`, "kind": `"kv"`, "auth_role": `"podlane-grant-protected"`, "mount": `"kv-@BED@"`,
			"path": `"prod"`, "field": `"password"`, "variable": `"PASSWORD"`,
		},
		"[grants]#other": {
			"name": `"other"`, "kind": `"kv"`, "auth_role": `"podlane-grant-own"`, "mount": `"kv-@BED@"`,
			"path": `"ci/999999/db"`, "field": `"password"`, "variable": `"PASSWORD"`,
		},
		"[grants]#production": {
			"name": `"production"`, "kind": `"aws"`, "auth_role": `"a"`, "mount": `"m"`, "role": `"r"`, "environments": `["production"]`, "protected": "true",
		},
	}, "--grant", "name=protected,kind=kv,path=prod,claim.ref_protected=true", "--grant", "name=own,kind=kv,path=ci/{project_id}/db")
	write(t, b, "prod", "password", "not-for-everybody")
	write(t, b, "ci/999999/db", "password", "another-projects")

	p := project(t, b, nil)
	if _, err := p.CommitTo(t.Context(), gitlabsim.CommitSpec{Branch: "feature", Files: map[string]string{"x": "y\n"}}); err != nil {
		t.Fatal(err)
	}
	asking := func(grant string) []gitlabsim.Variable {
		return []gitlabsim.Variable{{Key: "PODLANE_GRANTS", Value: grant}}
	}
	foreign, err := b.GitLab.SignToken(map[string]any{"job_id": "1000000", "project_id": "1", "aud": bed.Audience, "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		spec gitlabsim.JobSpec
		want string
	}{
		{
			"wrong audience",
			gitlabsim.JobSpec{IDTokens: map[string]gitlabsim.IDToken{"VAULT_ID_TOKEN": {Aud: []string{"https://elsewhere"}}}},
			`log in to vault with role podlane: the claim aud is "https://elsewhere", expected one of bound_audiences of the role`,
		},
		{"no id_token", gitlabsim.JobSpec{IDTokens: map[string]gitlabsim.IDToken{}}, "the job has no VAULT_ID_TOKEN; hint: id_tokens:"},
		{
			"another job's token",
			gitlabsim.JobSpec{IDTokens: map[string]gitlabsim.IDToken{}, Variables: []gitlabsim.Variable{{Key: "VAULT_ID_TOKEN", Value: foreign}}},
			`VAULT_ID_TOKEN is another job's: found the claim job_id "1000000"`,
		},
		{"unknown grant", gitlabsim.JobSpec{Variables: asking("everything")}, `PODLANE_GRANTS asks for "everything", which the settings of podlane do not have`},
		{
			"a condition of the settings",
			gitlabsim.JobSpec{Variables: asking("production"), Environment: &gitlabsim.Environment{Name: "review/1"}},
			`the grant production is not for this job: the claim ref_protected is "false", expected true`,
		},
		{"a claim that Vault binds", gitlabsim.JobSpec{Variables: asking("protected")}, `the grant protected: log in to vault with role podlane-grant-protected: the claim ref_protected is "false", expected`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.spec.Project, tt.spec.Ref, tt.spec.Script = p, "feature", []string{"echo started"}
			o := runOn(t, b, tt.spec)
			o.failed(t, 1, tt.want)
			o.doesNotLog(t, "starting pod")
		})
	}
	// Which path a policy allows, Vault says when it is asked.
	t.Run("another project's path", func(t *testing.T) {
		t.Parallel()
		o := runOn(t, b, gitlabsim.JobSpec{Project: p, Variables: asking("other"), Script: []string{"echo started"}})
		o.failed(t, 1, "the grant other: read the secret ci/999999/db", "permission denied")
		o.doesNotLog(t, "\nstarted")
	})
	t.Run("variables do not lead elsewhere", func(t *testing.T) {
		t.Parallel()
		// All the names that would have a say if they had one.
		var vars []gitlabsim.Variable
		for _, key := range []string{
			"VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_ROLE", "VAULT_CACERT", "CUSTOM_ENV_VAULT_ADDR", "BAO_ADDR", "KUBECONFIG", "KUBERNETES_SERVICE_HOST",
			"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "PODLANE_CONFIG", "PODLANE_SEAL_KEY", "JOB_RESPONSE_FILE", "TMPDIR_", "AWS_ACCESS_KEY_ID",
		} {
			vars = append(vars, gitlabsim.Variable{Key: key, Value: "http://127.0.0.1:9/elsewhere"})
		}
		o := runOn(t, b, gitlabsim.JobSpec{
			// GitLab's own token comes first; the author's is the script's.
			Variables: append(vars, gitlabsim.Variable{Key: "VAULT_ID_TOKEN", Value: "mine"}, gitlabsim.Variable{Key: "GIT_STRATEGY", Value: "none"}),
			Script:    []string{"unset HTTP_PROXY HTTPS_PROXY ALL_PROXY; echo token is $VAULT_ID_TOKEN"},
		})
		o.succeeded(t, "token is mine")
	})
	t.Run("the job itself, from its pod", func(t *testing.T) {
		t.Parallel()
		o := runOn(t, b, gitlabsim.JobSpec{Script: []string{vaultScript(b), "login podlane; login podlane-cache-write-unprotected"}})
		o.succeeded(t, "\npodlane: 403\n", "\npodlane-cache-write-unprotected: 403\n")
	})
}

// vaultScript are functions with which a job talks to Vault itself, with its own
// id_token. They print the status of each answer, and no secret.
func vaultScript(b *bed.Bed) string {
	return fmt.Sprintf(`ask() { curl -sS -o /tmp/answer -w "$1: %%{http_code}\n" -H @/tmp/header -d @- %[1]s/v1/$2; }
login() { : > /tmp/header; printf '{"role":"%%s","jwt":"%%s"}' $1 "$VAULT_ID_TOKEN" | ask $1 auth/%[2]s/login
  sed -n 's/.*"client_token":"\([^"]*\)".*/X-Vault-Token: \1/p' /tmp/answer > /tmp/header; }
s3() { echo '{}' | ask $1 %[3]s/sts/$1; }`, b.Vault.Address, b.Vault.Mounts.JWT, b.Vault.Mounts.AWS)
}

// A job of an unprotected ref gets no role to write protected caches: neither
// from a podlane that was told to take one, nor in its script, from an address
// that Vault does not mind.
func TestVaultCacheRolesInAJob(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, bed.Settings{"vault.cache_write": {
		"auth_role": `"podlane-cache-write-protected"`, "role": `"podlane-cache-write-{project_id}-protected"`,
	}}, "--runner-cidr", "0.0.0.0/0")
	p, other := project(t, b, nil), project(t, b, nil)
	cache := func(p *gitlabsim.Project, kind string) string { return fmt.Sprintf("podlane-cache-%s-%d-", kind, p.ID) }
	o := runOn(t, b, gitlabsim.JobSpec{
		Pipeline: onRef(t, b, p, "feature"),
		Cache:    []gitlabsim.Cache{{Key: "deps", Paths: []string{"deps"}}},
		Script: []string{
			"echo poison > deps", vaultScript(b),
			`login podlane-cache-write-protected; grep -o 'claim .* does not match' /tmp/answer`,
			"login podlane-cache-write-unprotected",
			"s3 " + cache(p, "write") + "unprotected",
			"s3 " + cache(p, "write") + "protected",
			"s3 " + cache(other, "write") + "unprotected",
			"login podlane-cache-read",
			"s3 " + cache(p, "read") + "unprotected",
			"s3 " + cache(other, "read") + "unprotected",
		},
	})
	o.succeeded(t,
		"\npodlane-cache-write-protected: 400\nclaim \\\"ref_protected\\\" does not match",
		"\npodlane-cache-write-unprotected: 200\n",
		"\n"+cache(p, "write")+"unprotected: 200\n",
		"\n"+cache(p, "write")+"protected: 403\n",
		"\n"+cache(other, "write")+"unprotected: 403\n",
		"\n"+cache(p, "read")+"unprotected: 200\n",
		"\n"+cache(other, "read")+"unprotected: 403\n",
		"cache deps: error: ", `log in to vault with role podlane-cache-write-protected: the claim ref_protected is "false", expected`, "it is not saved",
	)
	if objects, err := b.S3.Objects(t.Context(), b.S3.Prefix); err != nil || len(objects) > 0 {
		t.Errorf("the job has written %v, %v", objects, err)
	}
}

// What a job with a cache asks Vault for: two credentials for S3, each made
// right before use, by roles of their own.
func TestVaultRequests(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, nil)
	p := project(t, b, nil)
	o := runOn(t, b, gitlabsim.JobSpec{
		Project: p, Script: []string{"echo x > deps"}, Cache: []gitlabsim.Cache{{Key: "deps", Paths: []string{"deps"}}},
	})
	o.succeeded(t, "cache deps: miss", "cache deps: saved: 1 file")
	id := strconv.FormatInt(p.ID, 10)
	asked(t, b, "auth/jwt/login", "kubernetes/creds/podlane",
		"auth/jwt/login", "aws/sts/podlane-cache-read-"+id+"-protected",
		"auth/jwt/login", "aws/sts/podlane-cache-write-"+id+"-protected",
		"auth/token/revoke-self", "auth/token/revoke-self", "auth/token/revoke-self")
}

// write puts a secret with one field into the bed's KV engine.
func write(t *testing.T, b *bed.Bed, path, field, value string) {
	t.Helper()
	secrets.Know(value)
	// A KV engine of version 2 is not there the moment it is mounted.
	var err error
	eventually(t, func() bool {
		err = b.Vault.StoreSecret(t.Context(), path, map[string]string{field: value})
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
