package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
)

func addProject(t *testing.T) *gitlabsim.Project {
	t.Helper()
	p, err := shared.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/" + strings.ToLower(t.Name()) + strconv.Itoa(time.Now().Nanosecond())})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// claims are those of a job's id_token that the roles look at.
func claims(p *gitlabsim.Project, protected bool) map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": shared.GitLab.URL(), "aud": bed.Audience, "sub": "project_path:" + p.Path,
		"iat": now, "nbf": now - 5, "exp": now + 3600,
		"project_id": strconv.FormatInt(p.ID, 10), "ref_protected": strconv.FormatBool(protected), "runner_id": 1,
	}
}

// login logs in as a job would.
func login(t *testing.T, role string, claims map[string]any) (vaultserver.Client, error) {
	t.Helper()
	token, err := shared.GitLab.SignToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	return shared.Vault.Login(t.Context(), shared.Vault.Mounts.JWT, role, token)
}

func mustLogin(t *testing.T, role string, claims map[string]any) vaultserver.Client {
	t.Helper()
	c, err := login(t, role, claims)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused checks that Vault, and not chance, said no.
func refused(t *testing.T, what string, err error, status int, text string) {
	t.Helper()
	if vaultserver.Status(err) != status || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want status %d with %q", what, err, status, text)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	p := addProject(t)
	for _, role := range []string{"podlane", "podlane-cache-read", "podlane-cache-write-protected"} {
		mustLogin(t, role, claims(p, true))
	}
	mustLogin(t, "podlane-cache-write-unprotected", claims(p, false))
	with := func(key string, value any) map[string]any {
		c := claims(p, false)
		c[key] = value
		return c
	}
	_, err := login(t, "podlane-cache-write-protected", claims(p, false))
	refused(t, "protected, from an unprotected ref", err, 400, `claim "ref_protected" does not match`)
	_, err = login(t, "podlane-cache-write-unprotected", claims(p, true))
	refused(t, "unprotected, from a protected ref", err, 400, `claim "ref_protected" does not match`)
	_, err = login(t, "podlane", with("aud", "https://other.example.com"))
	refused(t, "another audience", err, 400, "audience")
	_, err = login(t, "podlane", with("iss", "https://gitlab.com"))
	refused(t, "another issuer", err, 400, "issuer")
	_, err = login(t, "podlane", with("exp", time.Now().Add(-time.Hour).Unix()))
	refused(t, "an expired token", err, 400, "expired")
}

// A login from anywhere but the runners' hosts is refused: the id_token is in
// the job's hands as well.
func TestLoginFromElsewhere(t *testing.T) {
	t.Parallel()
	b, err := bed.Start(t.Context(), bed.Options{Root: ".", Environ: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var role struct{ Data map[string]any }
	if err := b.Vault.API(t.Context(), http.MethodGet, "auth/"+b.Vault.Mounts.JWT+"/role/podlane", nil, &role); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(role.Data["token_bound_cidrs"]); !strings.Contains(got, b.Stack.BridgeIP) {
		t.Errorf("bound to %s", got)
	}
	role.Data["token_bound_cidrs"] = []string{"192.0.2.0/24"}
	if err := b.Vault.API(t.Context(), http.MethodPost, "auth/"+b.Vault.Mounts.JWT+"/role/podlane", role.Data, nil); err != nil {
		t.Fatal(err)
	}
	p, err := b.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "a/b"})
	if err != nil {
		t.Fatal(err)
	}
	c := claims(p, true)
	c["iss"] = b.GitLab.URL()
	token, err := b.GitLab.SignToken(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Vault.Login(t.Context(), b.Vault.Mounts.JWT, "podlane", token)
	refused(t, "from elsewhere", err, 403, "permission denied")
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	c := mustLogin(t, "podlane", claims(addProject(t), false))
	creds := func(role, namespace string) (string, error) {
		var answer struct {
			Data struct {
				Token   string `json:"service_account_token"`
				Account string `json:"service_account_name"`
			}
			LeaseDuration int `json:"lease_duration"`
		}
		err := c.API(t.Context(), http.MethodPost, shared.Vault.Mounts.Kubernetes+"/creds/"+role, map[string]string{"kubernetes_namespace": namespace}, &answer)
		if err == nil && (answer.Data.Token == "" || answer.LeaseDuration > 20*60) {
			err = fmt.Errorf("token of %s for %d s", answer.Data.Account, answer.LeaseDuration)
		}
		return answer.Data.Account, err
	}
	if account, err := creds("podlane", stackenv.Namespace); account != "podlane" || err != nil {
		t.Errorf("got %q, %v", account, err)
	}
	_, err := creds("podlane", "kube-system")
	refused(t, "another namespace", err, 400, "not present in role's allowed_kubernetes_namespaces")
	_, err = creds("another", stackenv.Namespace)
	refused(t, "another role", err, 403, "permission denied")
	// Nor do the accounts have rights beyond their own.
	for _, account := range []string{stackenv.Namespace + ":podlane", "podlane-vault:vault"} {
		for _, what := range [][2]string{{"get", "secrets"}, {"list", "secrets"}, {"create", "pods"}, {"create", "namespaces"}} {
			may, err := shared.Kube.May(t.Context(), "system:serviceaccount:"+account, what[0], what[1])
			if may || err != nil {
				t.Errorf("%s may %s %s everywhere: %v, %v", account, what[0], what[1], may, err)
			}
		}
		for _, what := range []string{"get", "list"} {
			if may, err := shared.Kube.MayIn(t.Context(), stackenv.Namespace, "system:serviceaccount:"+account, what, "secrets"); may || err != nil {
				t.Errorf("%s may %s secrets beside the jobs: %v, %v", account, what, may, err)
			}
		}
	}
	may, err := shared.Kube.MayIn(t.Context(), stackenv.Namespace, "system:serviceaccount:podlane-vault:vault", "create", "pods")
	if may || err != nil {
		t.Errorf("Vault may start pods: %v, %v", may, err)
	}
	may, err = shared.Kube.MayIn(t.Context(), stackenv.Namespace, "system:serviceaccount:"+stackenv.Namespace+":podlane", "create", "pods")
	if !may || err != nil {
		t.Errorf("podlane may start pods: %v, %v: the above proves nothing", may, err)
	}
}

// credentials asks for those of a role of the AWS engine.
func credentials(ctx context.Context, c vaultserver.Client, role string) (aws.Credentials, error) {
	var answer struct {
		Data struct {
			AccessKey    string `json:"access_key"`
			SecretKey    string `json:"secret_key"`
			SessionToken string `json:"session_token"`
		}
	}
	err := c.API(ctx, http.MethodPost, shared.Vault.Mounts.AWS+"/sts/"+role, map[string]string{}, &answer)
	return aws.Credentials{AccessKeyID: answer.Data.AccessKey, SecretAccessKey: answer.Data.SecretKey, SessionToken: answer.Data.SessionToken}, err
}

// can tries what S3 credentials allow in a folder: each letter of the answer is
// a thing that worked.
func can(t *testing.T, c *s3.Client, folder string) string {
	t.Helper()
	ctx, bucket := t.Context(), aws.String(stackenv.S3Bucket)
	existing := folder + "existing"
	if err := shared.S3.Put(ctx, existing, []byte("content")); err != nil {
		t.Fatal(err)
	}
	allowed := ""
	try := func(letter string, err error) {
		var refusal smithy.APIError
		switch {
		case err == nil:
			allowed += letter
		case !errors.As(err, &refusal) || refusal.ErrorCode() != "AccessDenied":
			t.Errorf("%s in %s: %v", letter, folder, err)
		}
	}
	_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Prefix: aws.String(folder)})
	try("l", err)
	answer, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &existing})
	if err == nil {
		answer.Body.Close()
	}
	try("r", err)
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String(folder + "new"), Body: strings.NewReader("x")})
	try("w", err)
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &existing, Body: strings.NewReader("x")})
	try("o", err)
	upload, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String(folder + "parts")})
	try("m", err)
	if err == nil {
		_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: aws.String(folder + "parts"), UploadId: upload.UploadId})
		try("a", err)
	}
	_, err = c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &existing})
	try("d", err)
	return allowed
}

// What each role for caches can do, and in whose caches.
func TestCacheRoles(t *testing.T) {
	t.Parallel()
	mine, others := addProject(t), addProject(t)
	const read, write, nothing = "lr", "lrwoma", ""
	for _, tt := range []struct {
		authRole, role         string
		protectedRef           bool
		protected, unprotected string
	}{
		{"podlane-cache-read", "podlane-cache-read-%d-protected", true, read, nothing},
		{"podlane-cache-read", "podlane-cache-read-%d-unprotected", false, read, read},
		{"podlane-cache-write-protected", "podlane-cache-write-%d-protected", true, write, nothing},
		{"podlane-cache-write-unprotected", "podlane-cache-write-%d-unprotected", false, nothing, write},
	} {
		t.Run(fmt.Sprintf(tt.role, 0), func(t *testing.T) {
			t.Parallel()
			vault := mustLogin(t, tt.authRole, claims(mine, tt.protectedRef))
			found, err := credentials(t.Context(), vault, fmt.Sprintf(tt.role, mine.ID))
			if err != nil {
				t.Fatal(err)
			}
			client := shared.S3.ClientWith(found)
			dir := func(project int64, scope string) string {
				return fmt.Sprintf("%s%d/%s/%s/", shared.S3.Prefix, project, scope, strings.ReplaceAll(t.Name(), "/", "-"))
			}
			for folder, want := range map[string]string{
				dir(mine.ID, "protected"):     tt.protected,
				dir(mine.ID, "unprotected"):   tt.unprotected,
				dir(others.ID, "protected"):   nothing,
				dir(others.ID, "unprotected"): nothing,
				shared.S3.Prefix + "0/":       nothing,
			} {
				if got := can(t, client, folder); got != want {
					t.Errorf("%s: can %q, want %q", folder, got, want)
				}
			}
			// Not another's role, and not another of one's own.
			for _, role := range []string{
				fmt.Sprintf(tt.role, others.ID),
				strings.Replace(fmt.Sprintf(tt.role, mine.ID), "read", "write", 1) + "x",
				"podlane-cache-admin",
				fmt.Sprintf("podlane-cache-write-%d-%s", mine.ID, map[bool]string{true: "unprotected", false: "protected"}[tt.protectedRef]),
			} {
				_, err := credentials(t.Context(), vault, role)
				refused(t, role, err, 403, "permission denied")
			}
		})
	}
}

// People see and remove all caches, and write none.
func TestCacheAdminRole(t *testing.T) {
	t.Parallel()
	token, err := shared.Vault.PersonsToken(t.Context(), "-cache-admin")
	if err != nil {
		t.Fatal(err)
	}
	found, err := credentials(t.Context(), vaultserver.Client{Address: shared.Vault.Address, Token: token}, "podlane-cache-admin")
	if err != nil {
		t.Fatal(err)
	}
	client := shared.S3.ClientWith(found)
	if got := can(t, client, shared.S3.Prefix+"7/protected/"+t.Name()+"/"); got != "lrd" {
		t.Errorf("in a cache: can %q, want lrd", got)
	}
	if got := can(t, client, "elsewhere/"+t.Name()+"/"); got != "" {
		t.Errorf("beside the caches: can %q", got)
	}
}

// Two logins of one project at once, of a protected and an unprotected ref, do
// not lend each other rights: they share an entity in Vault.
func TestConcurrentLoginsOfAProject(t *testing.T) {
	t.Parallel()
	p := addProject(t)
	protected := mustLogin(t, "podlane-cache-write-protected", claims(p, true))
	unprotected := mustLogin(t, "podlane-cache-write-unprotected", claims(p, false))
	for _, tt := range []struct {
		client vaultserver.Client
		scope  string
		ok     bool
	}{{protected, "protected", true}, {unprotected, "protected", false}, {unprotected, "unprotected", true}, {protected, "unprotected", false}} {
		_, err := credentials(t.Context(), tt.client, fmt.Sprintf("podlane-cache-write-%d-%s", p.ID, tt.scope))
		if tt.ok && err != nil {
			t.Error(err)
		}
		if !tt.ok {
			refused(t, tt.scope, err, 403, "permission denied")
		}
	}
}

func TestGrants(t *testing.T) {
	t.Parallel()
	mine, others := addProject(t), addProject(t)
	policy := filepath.Join(t.TempDir(), "policy.json")
	text := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::` + stackenv.S3Bucket + `/shared \"quoted\"/*"}]}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	claim := fmt.Sprintf(",claim.project_id=%d,claim.ref_protected=true", mine.ID)
	for range 2 {
		if err := shared.Vault.Bootstrap(t.Context(),
			"--grant", "name=db,kind=kv,path=ci/{project_id}/db"+claim,
			"--grant", "name=review,kind=kubeconfig,account=podlane,namespaces="+stackenv.Namespace+"+other,ttl=15m"+claim,
			"--grant", "name=files,kind=aws,policy-file="+policy+claim,
		); err != nil {
			t.Fatal(err)
		}
	}
	// A mount of KV version 2 upgrades itself for a moment after it is made.
	deadline := time.Now().Add(time.Minute)
	for _, p := range []*gitlabsim.Project{mine, others} {
		for {
			err := shared.Vault.StoreSecret(t.Context(), fmt.Sprintf("ci/%d/db", p.ID), map[string]string{"password": "of " + p.Path})
			if err == nil {
				break
			}
			if !strings.Contains(err.Error(), "Upgrading") || time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for _, name := range []string{"db", "review", "files"} {
		_, err := login(t, "podlane-grant-"+name, claims(mine, false))
		refused(t, name+" for an unprotected ref", err, 400, `claim "ref_protected" does not match`)
		_, err = login(t, "podlane-grant-"+name, claims(others, true))
		refused(t, name+" for another project", err, 400, `claim "project_id" does not match`)
	}
	ctx, db := t.Context(), mustLogin(t, "podlane-grant-db", claims(mine, true))
	secret := func(p *gitlabsim.Project) (string, error) {
		var answer struct {
			Data struct{ Data struct{ Password string } }
		}
		err := db.API(ctx, http.MethodGet, fmt.Sprintf("%s/data/ci/%d/db", shared.Vault.Mounts.KV, p.ID), nil, &answer)
		return answer.Data.Data.Password, err
	}
	if got, err := secret(mine); got != "of "+mine.Path || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := secret(others)
	refused(t, "another project's secret", err, 403, "permission denied")
	review := mustLogin(t, "podlane-grant-review", claims(mine, true))
	if err := review.API(ctx, http.MethodPost, shared.Vault.Mounts.Kubernetes+"/creds/podlane-grant-review", map[string]string{"kubernetes_namespace": stackenv.Namespace}, nil); err != nil {
		t.Error(err)
	}
	if _, err := credentials(ctx, mustLogin(t, "podlane-grant-files", claims(mine, true)), "podlane-grant-files"); err != nil {
		t.Error(err)
	}
}

// state is all that the script writes and Vault shows.
func state(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	m := shared.Vault.Mounts
	read := func(path string) {
		var answer struct{ Data map[string]any }
		if err := shared.Vault.API(t.Context(), http.MethodGet, path, nil, &answer); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(answer.Data, func(key string, _ any) bool { return key == "modified" || key == "version" })
		all[path] = fmt.Sprint(answer.Data)
	}
	for _, name := range []string{"podlane", "podlane-cache-read", "podlane-cache-write-protected", "podlane-cache-write-unprotected"} {
		read("auth/" + m.JWT + "/role/" + name)
	}
	for _, path := range []string{"sys/auth/" + m.JWT, "sys/mounts/" + m.AWS, "auth/" + m.JWT + "/config", m.Kubernetes + "/config", m.Kubernetes + "/roles/podlane", m.AWS + "/config/root"} {
		read(path)
	}
	return all
}

func TestVaultBootstrapTwice(t *testing.T) {
	t.Parallel()
	before := state(t)
	s := shared.Stack
	for range 2 {
		if err := shared.Vault.Bootstrap(t.Context(),
			"--kube-namespace", stackenv.Namespace, "--kube-host", s.APIServerURL(), "--kube-ca-file", s.KubeCAFile, "--kube-token-file", s.VaultKubeTokenFile,
			"--bucket", stackenv.S3Bucket, "--region", stackenv.S3Region, "--aws-key-file", s.S3VaultKeyFile, "--sts-endpoint", s.STSAddress); err != nil {
			t.Fatal(err)
		}
	}
	after := state(t)
	for path, want := range before {
		if after[path] != want {
			t.Errorf("%s was\n%s\nand is\n%s", path, want, after[path])
		}
	}
}

func script(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(shared.Root(), "scripts", name)}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return stdout.String() + stderr.String(), err
}

func TestRemoveProject(t *testing.T) {
	t.Parallel()
	p := addProject(t)
	v := shared.Vault
	number := strconv.FormatInt(p.ID, 10)
	for range 2 {
		if out, err := script(t, "vault-bootstrap", "--address", v.Address, "--token-file", v.RootTokenFile, "--aws-mount", v.Mounts.AWS, "--remove-project", number); err != nil {
			t.Fatal(out)
		}
	}
	_, err := credentials(t.Context(), mustLogin(t, "podlane-cache-read", claims(p, true)), "podlane-cache-read-"+number+"-protected")
	refused(t, "a role that is gone", err, 400, "")
}

func TestVaultBootstrapRefuses(t *testing.T) {
	t.Parallel()
	v := shared.Vault
	wrongType := []string{"--gitlab", shared.GitLab.URL(), "--auth-mount", v.Mounts.JWT, "--kubernetes-mount", v.Mounts.AWS, "--kube-namespace", "x"}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--nonsense", "x"}, "--nonsense: there is no such option"},
		{[]string{"--project", "group/app"}, "project group/app: expected the project's number"},
		{[]string{"--project", "7"}, "--project: needs --instance as well"},
		{[]string{"--kube-namespace", "x"}, "--kube-namespace: needs --gitlab as well"},
		{[]string{"--bucket=x", "y"}, "write the value as a word of its own: --bucket x"},
		{[]string{"--gitlab", shared.GitLab.URL(), "--kube-ca-file", "/nowhere"}, "/nowhere: cannot be read"},
		{[]string{"--gitlab", shared.GitLab.URL(), "--bound-claim", "runner_id=x"}, "runner_id is a number"},
		{[]string{"--gitlab", shared.GitLab.URL(), "--auth-mount", v.Mounts.JWT, "--grant", "name=x,colour=red"}, `"colour=red" is no word of a grant`},
		{wrongType, "is mounted already, as aws: expected kubernetes"},
	} {
		args := append([]string{"--address", v.Address, "--token-file", v.RootTokenFile}, tt.args...)
		out, err := script(t, "vault-bootstrap", args...)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %v, %s, want %q", tt.args, err, out, tt.want)
		}
	}
}

// Printed commands contain no secret, and name every path that is written.
func TestPrint(t *testing.T) {
	t.Parallel()
	s := shared.Stack
	out, err := script(t, "vault-bootstrap", "--print", "--address", "http://vault.example.com:8200", "--gitlab", "https://gitlab.example.com",
		"--kube-namespace", "ci", "--kube-token-file", s.VaultKubeTokenFile, "--bucket", "b", "--aws-key-file", s.S3VaultKeyFile, "--instance", "gitlab.example.com", "--project", "7")
	if err != nil {
		t.Fatal(out)
	}
	for _, want := range []string{"vault auth enable -path=jwt jwt\n", "vault write auth/jwt/role/podlane-cache-read ", "vault policy write podlane-cache-write-protected ", "vault write aws/roles/podlane-cache-write-7-unprotected ", "/b84e2e8d/7/"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, file := range []string{s.VaultKubeTokenFile, s.S3VaultPasswordFile} {
		secret, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, string(secret)) {
			t.Errorf("it prints what is in %s", file)
		}
	}
}
