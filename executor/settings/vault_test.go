package settings

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const aVault = "[vault]\naddress = \"https://vault:8200\"\n"

func TestParseReportsWrongVaultAndGrants(t *testing.T) {
	grant := aVault + "[[grants]]\nname = \"g\"\nauth_role = \"a\"\nmount = \"m\"\n"
	tests := []struct{ name, text, want string }{
		{"address", "[vault]\naddress = \"vault:8200\"", `f:2: vault.address: found "vault:8200", expected a URL`},
		{"password in address", "[vault]\naddress = \"https://me:secret@vault\"", `f:2: vault.address: found "https://me:secret@vault", expected a URL`},
		{"half a certificate", "[vault]\ncert_file = \"c.pem\"", `f: vault.key_file: found "", expected both vault.cert_file and vault.key_file`},
		{"mount", "[vault]\nauth_mount = \"/jwt\"", `f:2: vault.auth_mount: found "/jwt", expected the path of an auth method`},
		{"variable", "[vault]\nid_token = \"MY-TOKEN\"", `f:2: vault.id_token: found "MY-TOKEN", expected the name of a variable`},
		{"placeholder", "[vault.kubernetes]\nrole = \"x-{user}\"", `f:2: vault.kubernetes.role: found "x-{user}", expected one of the placeholders {environment}, {job_id}`},
		{"namespace's placeholder", "[vault.kubernetes]\nnamespace = \"ci-{user}\"", `f:2: vault.kubernetes.namespace: found "ci-{user}", expected one of the placeholders`},
		{"namespace of a cache", "[vault.cache_read]\nnamespace = \"ci\"", `f:2: vault.cache_read.namespace: found "ci", expected nothing: this key is for vault.kubernetes alone`},
		{"login of people", "[vault.cache_admin]\nauth_role = \"r\"", `f:2: vault.cache_admin.auth_role: found "r", expected nothing: people log in themselves`},
		{"jobs of people", "[vault.cache_admin]\nrole = \"r-{scope}\"", `f:2: vault.cache_admin.role: found "r-{scope}", expected no placeholders`},
		{"ttl", "[vault.cache_read]\nttl = \"1s\"", `f:2: vault.cache_read.ttl: found "1s", expected a duration from 10s to 24h0m0s`},
		{"http API server", "[kubernetes]\nserver = \"http://k8s\"", `f:2: kubernetes.server: found "http://k8s", expected a URL such as "https://`},
		{"grants without Vault", "[[grants]]\nname = \"g\"\nkind = \"aws\"\nrole = \"r\"\nauth_role = \"a\"\nmount = \"m\"", `f:2: grants[1].name: found "g", expected vault.address to be set`},
		{"grant as a table", "[grants]\nname = \"g\"", `f:1: grants: found a table, expected a list of tables: [[grants]]`},
		{"kind", grant + "kind = \"ssh\"", `f:7: grants[1].kind: found "ssh", expected one of kubeconfig, aws, kv`},
		{"another kind's key", grant + "kind = \"aws\"\nrole = \"r\"\nnamespace = \"n\"", `f:9: grants[1].namespace: found "n", expected nothing: this key means nothing to kind aws`},
		{"no field", grant + "kind = \"kv\"\npath = \"p\"\nvariable = \"V\"", `f: grants[1].field: found "", expected the name of one of the secret's fields`},
		{"glob", grant + "kind = \"aws\"\nrole = \"r\"\nenvironments = [\"review/[\"]", `f:9: grants[1].environments: found "review/[", expected globs`},
		{"twice", grant + "kind = \"aws\"\nrole = \"r\"\n" + strings.TrimPrefix(grant, aVault) + "kind = \"aws\"\nrole = \"r\"", `f:10: grants[2].name: found "g", expected a name that no other grant has`},
		{"unknown key", grant + "colour = \"red\"", `f:7: grants[1].colour: found a key that does not exist`},
		{"projects", grant + "projects = [\"42\"]", `f:7: grants[1].projects: found a list, expected a list of whole numbers`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", tt.text)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want a message that starts with %s", err, tt.want)
			}
		})
	}
}

func TestParseGrant(t *testing.T) {
	s, err := Parse("f", aVault+`
[[grants]]
name = "db"
kind = "kv"
projects = [7, 42]
protected = true
environments = ["production"]
pipeline_sources = ["push"]
auth_role = "podlane-db"
mount = "secret"
path = "ci/{project_id}/db"
field = "password"
variable = "DB_PASSWORD"
file = true
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Grant{
		Name: "db", Kind: GrantKV, Projects: []int64{7, 42}, Protected: true, Environments: []string{"production"}, PipelineSources: []string{"push"},
		AuthRole: "podlane-db", Mount: "secret", Path: "ci/{project_id}/db", Field: "password", KVVersion: 2, Variable: "DB_PASSWORD", File: true,
		TTL: Duration(20 * time.Minute),
	}
	got, ok := s.Grant("db")
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
	if _, ok := s.Grant("other"); ok {
		t.Error("there is a grant that nobody wrote")
	}
}

func TestFill(t *testing.T) {
	facts := map[string]string{"project_id": "7", "scope": "protected", "up": "..", "deep": "a/b"}
	tests := []struct{ pattern, want, err string }{
		{pattern: "plain", want: "plain"},
		{pattern: "cache-{project_id}-{scope}", want: "cache-7-protected"},
		{pattern: "x-{environment}", err: `{environment} of "x-{environment}": this job has no such fact`},
		{pattern: "{up}/x", err: `{up} of "{up}/x" is "..": expected letters, digits`},
		{pattern: "{deep}", err: `{deep} of "{deep}" is "a/b": expected letters, digits`},
	}
	for _, tt := range tests {
		got, err := Fill(tt.pattern, facts)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%q becomes %q, %v; want %q, %s", tt.pattern, got, err, tt.want, tt.err)
		}
	}
}
