package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
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
		if err := b.Close(); err != nil {
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
			"invalid audience (aud) claim",
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
			`the grant production is not for this job: the claim `,
		},
		{"a claim that Vault binds", gitlabsim.JobSpec{Variables: asking("protected")}, `claim "ref_protected" does not match`},
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

// A job that outlives the tokens it began with: all that Vault gives lives for
// seconds, and in the middle everything is revoked.
func TestVaultTokensThatEnd(t *testing.T) {
	t.Parallel()
	needsStack(t)
	short := shorten(t, shared.Stack.VaultAddress, 8)
	b := newVaultBed(t, nil, bed.Settings{"vault": {"address": quoted(short)}}, "--token-ttl", "5s", "--token-max-ttl", "10s")
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"for i in $(seq 25); do echo line $i; sleep 1; done", "exit 7"}})
	if err := job.WaitOutput(t.Context(), "line 5\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.Vault.API(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/"+b.Vault.Mounts.JWT+"/login", nil, nil); err != nil {
		t.Fatal(err)
	}
	o := finish(t, job)
	o.failed(t, 7, "line 25")
	o.doesNotLog(t, "warning")
	logins, tokens := 0, 0
	for _, path := range requests(t, b) {
		switch path {
		case "auth/jwt/login":
			logins++
		case "kubernetes/creds/podlane":
			tokens++
		}
	}
	if logins < 2 || tokens < 3 {
		t.Errorf("%d logins and %d tokens for the cluster: nothing has ended under way, the test proves nothing", logins, tokens)
	}
}

// shorten is a way to Vault on which tokens for the cluster seem to live for
// some seconds: Kubernetes gives none for less than ten minutes.
func shorten(t *testing.T, address string, seconds int) string {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			if !strings.Contains(resp.Request.URL.Path, "/creds/") || resp.StatusCode != http.StatusOK {
				return nil
			}
			var answer map[string]any
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
				return err
			}
			resp.Body.Close()
			answer["lease_duration"] = seconds
			text, err := json.Marshal(answer)
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
			return err
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// GitLab changes its signing key without notice: Vault fetches the new one.
func TestVaultAfterARotationOfKeys(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, nil)
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo one"}}).succeeded(t)
	if err := b.GitLab.RotateKeys(false); err != nil {
		t.Fatal(err)
	}
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo two"}}).succeeded(t)
}

// A Vault that is sealed, or not there: before a job, in the middle of one for a
// while, and in the middle of one for good.
func TestVaultThatIsAway(t *testing.T) {
	t.Parallel()
	needsStack(t)
	own, err := vaultserver.New(t.Context(), shared.Stack, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	b := newVaultBed(t, own, bed.Settings{"vault": {"retry_budget": quoted("2s")}})
	p := project(t, b, nil)
	ctx := t.Context()
	t.Cleanup(func() {
		// The bed takes its things out of Vault in the end.
		if err := errors.Join(own.Stop(), own.Start(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	})

	if err := own.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	sealed := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{"echo started"}})
	sealed.systemFailed(t, "vault is sealed")
	sealed.doesNotLog(t, "starting pod")
	if err := own.Unseal(ctx); err != nil {
		t.Fatal(err)
	}

	// Away while the script runs, and back before the job ends.
	script := []string{"echo it has begun", "sleep 20", "echo it has ended"}
	job := enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: script, AfterScript: []string{"echo after it"}})
	if err := job.WaitOutput(ctx, "\nit has begun"); err != nil {
		t.Fatal(err)
	}
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := job.WaitOutput(ctx, "\nit has ended"); err != nil {
		t.Fatal(err)
	}
	if err := own.Start(ctx); err != nil {
		t.Fatal(err)
	}
	finish(t, job).succeeded(t, "after it")

	// Away for good: the job has what it needs, and its pod is deleted.
	job = enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: []string{"echo it has begun", "sleep 3", "echo it has ended"}})
	if err := job.WaitOutput(ctx, "\nit has begun"); err != nil {
		t.Fatal(err)
	}
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	finish(t, job).succeeded(t, "it has ended")
	gone := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{"echo started"}})
	gone.systemFailed(t, "log in to vault with role", "connection refused")
}
