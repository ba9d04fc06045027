package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
)

// doctor calls podlane doctor on a bed.
type doctor struct {
	bed     *bed.Bed
	project *gitlabsim.Project
	// change edits the bed's settings: tables by name.
	change func(settings map[string]map[string]any)
	// claims are laid over a good id_token's; noToken leaves it out.
	claims  map[string]any
	noToken bool
	env     []string
}

// token is one that a job of the project could have.
func (d doctor) token(t *testing.T) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": d.bed.GitLab.URL(), "aud": bed.Audience, "sub": "doctor", "jti": randomHex(), "iat": now, "nbf": now - 5, "exp": now + 3600,
		"job_id": "7", "pipeline_id": "8", "project_id": strconv.FormatInt(d.project.ID, 10), "namespace_id": "1", "ref_protected": "false",
	}
	maps.Copy(claims, d.claims)
	token, err := d.bed.GitLab.SignToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	secrets.Know(token)
	return token
}

// run returns what the doctor wrote and its exit code.
func (d doctor) run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var settings map[string]any
	if _, err := toml.DecodeFile(d.bed.Config, &settings); err != nil {
		t.Fatal(err)
	}
	if d.change != nil {
		tables := map[string]map[string]any{}
		for _, name := range []string{"kubernetes", "vault", "vault.kubernetes", "vault.cache_read", "vault.cache_write", "cache"} {
			table := settings
			for part := range strings.SplitSeq(name, ".") {
				table = table[part].(map[string]any)
			}
			tables[name] = table
		}
		d.change(tables)
		if tables["vault"]["address"] == "" {
			delete(settings, "grants") // they come from Vault
		}
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(settings); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "podlane.toml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"doctor", "--config", file, "--instance", d.bed.GitLab.InstanceID()}, args...)
	cmd := exec.CommandContext(t.Context(), d.bed.Podlane, args...)
	cmd.Env = append(os.Environ(), d.env...)
	if !d.noToken {
		cmd.Args = append(cmd.Args, "--id-token-file", "-")
		cmd.Stdin = strings.NewReader(d.token(t) + "\n")
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	secrets.Text("doctor", t.Name(), string(out))
	return string(out), cmd.ProcessState.ExitCode()
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, bed.Settings{"[grants]#db": {
		"name": `"db"`, "kind": `"kv"`, "auth_role": `"podlane-grant-db"`, "mount": `"kv-@BED@"`, "path": `"db"`, "field": `"password"`, "variable": `"PASSWORD"`,
	}, "[grants]#release": {
		"name": `"release"`, "kind": `"aws"`, "auth_role": `"a"`, "mount": `"m"`, "role": `"r"`, "protected": "true",
	}}, "--grant", "name=db,kind=kv,path=db")
	write(t, b, "db", "password", "the-password-of-the-doctor")
	p := project(t, b, nil)
	weak := weakKubeconfig(t, b)
	looseRole(t, b)
	const loginFailed = "✗ login for vault.kubernetes: log in to vault with role "
	// byHand is how it works without Vault.
	byHand := func(s map[string]map[string]any) {
		s["vault"]["address"] = ""
		s["kubernetes"]["kubeconfig"] = b.Stack.ProductKubeconfig
	}
	root := []string{"AWS_ACCESS_KEY_ID=" + b.S3.AccessKey, "AWS_SECRET_ACCESS_KEY=" + b.S3.SecretKey, "AWS_EC2_METADATA_DISABLED=true"}
	tests := []struct {
		name string
		doctor
		code int
		want []string
		not  []string
	}{
		{
			name: "all is well", want: []string{
				"✓ vault: ", ", unsealed and active\n", "! tls of vault: none: ", "✓ clock of vault: ", "✓ kubernetes: v1.", "✓ clock of kubernetes: ",
				"✓ id_token: of project ", "✓ login for vault.kubernetes: as podlane for ", "✓ limits of vault.kubernetes: none of ",
				"✓ login for vault.cache_read: ", "✓ limits of vault.cache_read: ", "✓ login for vault.cache_write: as podlane-cache-write-unprotected ", "✓ limits of vault.cache_write: ",
				"✓ access to kubernetes: as podlane-ci/podlane until ", "✓ rights in namespace podlane-ci: all ", "✓ pod templates: ",
				"✓ bucket: ", "✓ clock of s3: ", "✓ writing caches: ", "✓ conditional writes: ", "✓ limits of reading caches: none of 1 ", "✓ limits of writing caches: none of 2 ",
				"✓ grant db: gives password of a secret, with role podlane-grant-db\n", "✓ limits of grant db: ", `! grant release: not tried: the grant release is not for this job: the claim ref_protected`,
				"✓ tidying up the bucket: ", "✓ giving back to vault: ",
			}, not: []string{"✗"},
		},
		{
			name: "protected", doctor: doctor{claims: map[string]any{"ref_protected": "true"}},
			want: []string{"as podlane-cache-write-protected ", "✓ writing caches: ", "✓ limits of writing caches: none of 1 ", "/protected/"}, not: []string{"✗ login", "✗ limits of v", "✗ w", "✗ b"}, code: 1, // its role for the grant release is not there
		},
		{
			name: "no id_token", doctor: doctor{noToken: true},
			want: []string{"✓ vault: ", "! id_token: not tried: no id_token was given\n  hint: --id-token-file FILE", "! bucket: not tried: no id_token was given"}, not: []string{"✗", "giving back"},
		},
		{
			name: "wrong audience", doctor: doctor{claims: map[string]any{"aud": "https://elsewhere"}}, code: 1,
			want: []string{loginFailed, `the claim aud is "https://elsewhere"`, "! bucket: not tried: login for vault.cache_read has failed"},
		},
		{
			name: "expired", doctor: doctor{claims: map[string]any{"iat": 1_000_000_000, "nbf": 1_000_000_000, "exp": 1_000_000_060}}, code: 1,
			want: []string{"✗ id_token: of project ", ": it ended at 2001-09-09 ", "! login for vault.kubernetes: not tried: id_token has failed"},
		},
		{
			name: "no vault there", doctor: doctor{change: func(s map[string]map[string]any) { s["vault"]["address"] = "http://127.0.0.1:1" }}, code: 1,
			want: []string{"✗ vault: ask vault how it is: dial tcp 127.0.0.1:1: connect: connection refused\n  hint: ", "! bucket: not tried: vault has failed", "✓ kubernetes: v1."},
		},
		{
			name: "wrong authority", doctor: doctor{change: func(s map[string]map[string]any) { s["vault"]["address"] = tlsProxy(t, b.Vault.Address) }}, code: 1,
			want: []string{"✗ vault: ", "certificate signed by unknown authority", "  hint: vault.ca_file must hold the authority"},
		},
		{
			name: "no such role", doctor: doctor{change: func(s map[string]map[string]any) { s["vault.kubernetes"]["auth_role"] = "nobody" }}, code: 1,
			want: []string{loginFailed + "nobody", `role "nobody" could not be found`, "! access to kubernetes: not tried: login for vault.kubernetes has failed", "✓ writing caches: "},
		},
		{
			name: "a policy that lacks something", doctor: doctor{change: func(s map[string]map[string]any) { s["vault.kubernetes"]["role"] = "another" }}, code: 1,
			want: []string{"✓ login for vault.kubernetes: ", "✗ access to kubernetes: get a token for kubernetes: ", "permission denied", "! pod templates: not tried: access to kubernetes has failed"},
		},
		{
			name: "a policy that is too loose", doctor: doctor{change: func(s map[string]map[string]any) { s["vault.cache_read"]["auth_role"] = "loose" }}, code: 1,
			want: []string{"✗ limits of vault.cache_read: it may also ", "write caches of protected refs (aws", "write another project's caches (aws"},
		},
		{
			name: "reading credentials that can write", code: 1,
			doctor: doctor{change: func(s map[string]map[string]any) {
				s["vault.cache_read"]["auth_role"], s["vault.cache_read"]["role"] = "podlane-cache-write-{scope}", "podlane-cache-write-{project_id}-{scope}"
			}},
			want: []string{"✗ limits of reading caches: these credentials may also write caches in ", "✓ tidying up the bucket"},
		},
		{
			name: "no such bucket", code: 1,
			doctor: doctor{env: root, noToken: true, change: func(s map[string]map[string]any) {
				byHand(s)
				s["cache"]["bucket"] = "nothing-here"
			}},
			want: []string{"✗ bucket: ", "  hint: there is no bucket nothing-here at ", "! writing caches: not tried: bucket has failed"},
		},
		{
			name: "another prefix than the roles'", doctor: doctor{change: func(s map[string]map[string]any) { s["cache"]["prefix"] = "elsewhere" }}, code: 1,
			want: []string{"✗ bucket: list elsewhere/", "access denied", "  hint: cache.bucket, cache.prefix and --instance must be those"},
		},
		{
			name: "without vault", doctor: doctor{env: root, noToken: true, change: byHand},
			want: []string{"✓ vault: not in the settings: the cluster is reached with the kubeconfig ", "✓ access to kubernetes: with the kubeconfig ", "✓ writing caches: ", "✓ conditional writes: "},
			not:  []string{"✗", "not tried"},
		},
		{
			name: "no conditional writes, and a clock that is wrong", code: 1,
			doctor: doctor{env: root, noToken: true, change: func(s map[string]map[string]any) {
				byHand(s)
				s["cache"]["endpoint"] = oldS3(t, b.S3)
			}},
			want: []string{"! conditional writes: not known to the S3 server, or lost on the way\n  hint: ", "✗ clock of s3: ", " behind ours", "compare both machines' clocks", "✓ writing caches: "},
		},
		{
			name: "rights that are missing", code: 1,
			doctor: doctor{noToken: true, change: func(s map[string]map[string]any) {
				byHand(s)
				s["kubernetes"]["kubeconfig"], s["cache"]["bucket"] = weak, ""
			}},
			want: []string{"✗ rights in namespace podlane-ci: missing: watch pods, create pods/exec, get pods/exec, ", "  hint: apply deploy/rbac.yaml\n", "✓ caches: off"},
		},
		{
			name: "templates that the API server refuses", code: 1,
			doctor: doctor{noToken: true, change: func(s map[string]map[string]any) {
				byHand(s)
				s["kubernetes"]["pod_template"], s["cache"]["bucket"] = "spec:\n  priorityClassName: nothing-like-it\n", ""
			}},
			want: []string{"✗ pod templates: ", "nothing-like-it", "✓ rights in namespace podlane-ci: "},
		},
		{
			name: "an administrator", doctor: doctor{noToken: true, change: func(s map[string]map[string]any) {
				byHand(s)
				s["kubernetes"]["kubeconfig"], s["cache"]["bucket"] = b.AdminKubeconfig(), ""
			}},
			want: []string{"! access to kubernetes: with the kubeconfig ", "which may do everything on this cluster"}, not: []string{"✗"},
		},
	}
	t.Run("cases", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				tt.bed, tt.project = b, p
				out, code := tt.run(t)
				if code != tt.code {
					t.Errorf("it ends with %d, want %d", code, tt.code)
				}
				for _, want := range tt.want {
					if !strings.Contains(out, want) {
						t.Errorf("it does not say %q", want)
					}
				}
				for _, not := range tt.not {
					if strings.Contains(out, not) {
						t.Errorf("it says %q", not)
					}
				}
				if t.Failed() {
					t.Log(out)
				}
			})
		}
		t.Run("json", func(t *testing.T) {
			t.Parallel()
			out, code := doctor{bed: b, project: p}.run(t, "-o", "json")
			var report struct {
				OK      bool
				Podlane string
				Checks  []struct{ Name, Status, Found, Hint string }
			}
			decoder := json.NewDecoder(strings.NewReader(out))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&report); err != nil || code != 0 || !report.OK || report.Podlane == "" || len(report.Checks) < 20 {
				t.Fatalf("%d %v: %s", code, err, out)
			}
			for _, c := range report.Checks {
				if c.Name == "" || c.Found == "" || c.Status != "ok" && c.Status != "warning" && c.Status != "not_tried" {
					t.Errorf("a check is %+v", c)
				}
			}
		})
	})

	// Nothing of all that is left.
	for _, lease := range []string{"auth/" + b.Vault.Mounts.JWT + "/login", b.Vault.Mounts.Kubernetes + "/creds/podlane"} {
		eventually(t, func() bool {
			err := b.Vault.API(t.Context(), "LIST", "sys/leases/lookup/"+lease, nil, nil)
			return vaultserver.Status(err) == http.StatusNotFound
		})
	}
	left, err := b.S3.Objects(t.Context(), b.S3.Prefix)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the bucket: %v, %v", left, err)
	}
}

// looseRole makes a JWT role that may use every role of the AWS engine.
func looseRole(t *testing.T, b *bed.Bed) {
	t.Helper()
	policy := "podlane-" + strings.TrimPrefix(b.Vault.Mounts.JWT, "jwt-") + "-loose"
	mounts := b.Vault.Mounts
	err := errors.Join(
		b.Vault.API(t.Context(), http.MethodPost, "sys/policies/acl/"+policy, map[string]string{"policy": `path "` + mounts.AWS + `/sts/*" { capabilities = ["read", "update"] }`}, nil),
		b.Vault.API(t.Context(), http.MethodPost, "auth/"+mounts.JWT+"/role/loose", map[string]any{
			"role_type": "jwt", "user_claim": "project_id", "bound_audiences": bed.Audience, "token_policies": []string{policy}, "token_type": "service", "token_ttl": "20m",
		}, nil),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// weakKubeconfig is that of an account that may do little of what podlane needs.
func weakKubeconfig(t *testing.T, b *bed.Bed) string {
	t.Helper()
	name := "doctor-" + randomHex()
	err := b.Kube.Apply(t.Context(), fmt.Appendf(nil, `apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: %[1]s, namespace: %[2]s}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [create, get, list, delete]}
  - {apiGroups: [""], resources: [secrets, events], verbs: [create, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: %[1]s, namespace: %[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: %[2]s}]
`, name, stackenv.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	token, err := b.Kube.AccountToken(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	secrets.Know(token)
	// The API server learns of a role a moment after it was made.
	eventually(t, func() bool { return b.Kube.MayList(t.Context(), token) })
	file := filepath.Join(t.TempDir(), "weak.kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","clusters":[{"name":"x","cluster":{"server":%q,"certificate-authority":%q}}],
"users":[{"name":"x","user":{"token":%q}}],"contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}]}`, b.Stack.APIServerURL(), b.Stack.KubeCAFile, token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func proxyFor(t *testing.T, address string, change func(*httputil.ReverseProxy)) http.Handler {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	// The host that the client has signed stays.
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
	}}
	change(proxy)
	return proxy
}

// tlsProxy speaks TLS with a certificate that nobody knows.
func tlsProxy(t *testing.T, address string) string {
	t.Helper()
	server := httptest.NewUnstartedServer(proxyFor(t, address, func(*httputil.ReverseProxy) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// oldS3 is an S3 server that does not know conditional writes, and whose clock is
// an hour late.
func oldS3(t *testing.T, s3 *bed.S3) string {
	t.Helper()
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	server := httptest.NewServer(proxyFor(t, s3.Endpoint, func(p *httputil.ReverseProxy) {
		rewrite := p.Rewrite
		p.Rewrite = func(r *httputil.ProxyRequest) {
			rewrite(r)
			r.Out.Header.Del("If-None-Match")
			// The header was part of the signature.
			err := signer.SignHTTP(r.Out.Context(), aws.Credentials{AccessKeyID: s3.AccessKey, SecretAccessKey: s3.SecretKey},
				r.Out, r.Out.Header.Get("X-Amz-Content-Sha256"), "s3", s3.Region, time.Now())
			if err != nil {
				t.Error(err)
			}
		}
		p.ModifyResponse = func(answer *http.Response) error {
			answer.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			return nil
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}
