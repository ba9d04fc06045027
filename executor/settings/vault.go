package settings

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Vault says where credentials come from. Without an address there is no Vault:
// the cluster is reached with a kubeconfig or as the pod that podlane runs in,
// and S3 with the default chain of the AWS SDK.
type Vault struct {
	// Address is Vault's URL; empty means none.
	Address string `toml:"address"`
	// Namespace is for Vault Enterprise and OpenBao.
	Namespace string `toml:"namespace"`
	// CAFile holds the certificates that Vault's is checked against; empty
	// means the system's.
	CAFile string `toml:"ca_file"`
	// CertFile and KeyFile are the client certificate that a proxy in front of
	// Vault may ask for.
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
	// ServerName is the name in Vault's certificate where it is not the
	// address's host.
	ServerName string `toml:"server_name"`
	// AuthMount is where the JWT auth method is mounted.
	AuthMount string `toml:"auth_mount"`
	// IDToken is the variable under which jobs declare their id_token.
	IDToken string `toml:"id_token"`
	// RequestTimeout bounds one try of one request.
	RequestTimeout Duration `toml:"request_timeout"`
	// RetryBudget is how long a stage goes on trying while Vault can't be
	// reached or is sealed.
	RetryBudget Duration `toml:"retry_budget"`

	// Kubernetes is for podlane's own access to the cluster.
	Kubernetes VaultRole `toml:"kubernetes"`
	// CacheRead and CacheWrite are for podlane's own access to the cache.
	CacheRead  VaultRole `toml:"cache_read"`
	CacheWrite VaultRole `toml:"cache_write"`
	// CacheAdmin is for people who look after caches, with a Vault token of
	// their own: it has no auth_role, and no placeholders.
	CacheAdmin VaultRole `toml:"cache_admin"`
}

// VaultRole is one use of Vault: which role to log in with, and what to ask
// which engine for. Names may hold {placeholders}: see Placeholders.
type VaultRole struct {
	// AuthRole is the JWT role.
	AuthRole string `toml:"auth_role"`
	// Mount is where the secrets engine is mounted.
	Mount string `toml:"mount"`
	// Role is the engine's role; empty means that Vault is not used for this.
	Role string   `toml:"role"`
	TTL  Duration `toml:"ttl"`
	// Namespace is, for access to the cluster alone, where the service account
	// lives: what the engine is asked for. Empty means the job's own namespace.
	Namespace string `toml:"namespace"`
}

// Placeholders are what names of roles, paths and namespaces may hold in
// braces. All are facts that no job can set: fields of the job response and,
// once Vault has accepted it, signed claims of the id_token.
var Placeholders = map[string]string{
	"project_id":   "the project's number",
	"namespace_id": "the number of the group that the project is in",
	"pipeline_id":  "the pipeline's number",
	"job_id":       "the job's number",
	"scope":        "protected or unprotected, as the ref is",
	"environment":  "the environment's name as a DNS label: review/7 becomes review-7-, and eight characters that tell it apart",
}

func defaultVault() Vault {
	return Vault{ //nolint:gosec // names, not credentials
		AuthMount:      "jwt",
		IDToken:        "VAULT_ID_TOKEN",
		RequestTimeout: Duration(10 * time.Second),
		RetryBudget:    Duration(time.Minute),
		Kubernetes:     VaultRole{AuthRole: "podlane", Mount: "kubernetes", Role: "podlane", TTL: Duration(20 * time.Minute)},
		CacheRead:      VaultRole{AuthRole: "podlane-cache-read", Mount: "aws", Role: "podlane-cache-read-{project_id}-{scope}", TTL: Duration(20 * time.Minute)},
		CacheWrite:     VaultRole{AuthRole: "podlane-cache-write-{scope}", Mount: "aws", Role: "podlane-cache-write-{project_id}-{scope}", TTL: Duration(20 * time.Minute)},
		CacheAdmin:     VaultRole{Mount: "aws", Role: "podlane-cache-admin", TTL: Duration(20 * time.Minute)},
	}
}

// Enabled tells whether there is a Vault.
func (v *Vault) Enabled() bool { return v.Address != "" }

// ForKubernetes tells whether access to the cluster comes from Vault.
func (v *Vault) ForKubernetes() bool { return v.Enabled() && v.Kubernetes.Role != "" }

var (
	placeholder  = regexp.MustCompile(`\{([^{}]*)\}`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	vaultPath    = regexp.MustCompile(`^[A-Za-z0-9_.{}-]+(/[A-Za-z0-9_.{}-]+)*$`)
)

func (v *Vault) check(c checker) {
	if v.Address != "" {
		u, err := url.Parse(v.Address)
		ok := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == ""
		c.must(ok, "vault.address", v.Address, `a URL such as "https://vault.example.com:8200"`)
	}
	c.must((v.CertFile == "") == (v.KeyFile == ""), "vault.key_file", v.KeyFile, "both vault.cert_file and vault.key_file, or neither")
	c.must(vaultPath.MatchString(v.AuthMount), "vault.auth_mount", v.AuthMount, "the path of an auth method, without auth/")
	c.must(variableName.MatchString(v.IDToken), "vault.id_token", v.IDToken, "the name of a variable")
	c.between("vault.request_timeout", v.RequestTimeout, time.Second, 5*time.Minute)
	c.between("vault.retry_budget", v.RetryBudget, 0, 24*time.Hour)
	for _, use := range []struct {
		key string
		VaultRole
	}{{"vault.kubernetes", v.Kubernetes}, {"vault.cache_read", v.CacheRead}, {"vault.cache_write", v.CacheWrite}, {"vault.cache_admin", v.CacheAdmin}} {
		if use.Role == "" {
			continue
		}
		if use.key == "vault.cache_admin" {
			c.must(use.AuthRole == "", use.key+".auth_role", use.AuthRole, "nothing: people log in themselves")
			c.must(!placeholder.MatchString(use.Mount+use.Role), use.key+".role", use.Role, "no placeholders: there is no job that could fill them")
		} else {
			c.pattern(use.key+".auth_role", use.AuthRole)
		}
		c.pattern(use.key+".mount", use.Mount)
		c.pattern(use.key+".role", use.Role)
		c.between(use.key+".ttl", use.TTL, 10*time.Second, 24*time.Hour)
		if use.Namespace != "" && use.key == "vault.kubernetes" {
			c.pattern(use.key+".namespace", use.Namespace)
			continue
		}
		c.must(use.Namespace == "", use.key+".namespace", use.Namespace, "nothing: this key is for vault.kubernetes alone")
	}
}

// pattern checks the name of something in Vault and its placeholders.
func (c checker) pattern(key, value string) {
	c.must(vaultPath.MatchString(value), key, value, `a name or path in Vault, without a "/" at its ends`)
	for _, m := range placeholder.FindAllStringSubmatch(value, -1) {
		_, known := Placeholders[m[1]]
		c.must(known, key, value, "one of the placeholders "+placeholderNames())
	}
}

func placeholderNames() string {
	names := slices.Sorted(maps.Keys(Placeholders))
	for i, name := range names {
		names[i] = "{" + name + "}"
	}
	return strings.Join(names, ", ")
}

// Fill replaces the placeholders of a pattern. A fact that is not known, or that
// could lead elsewhere than one element of a path, is an error.
func Fill(pattern string, facts map[string]string) (string, error) {
	var err error
	filled := placeholder.ReplaceAllStringFunc(pattern, func(name string) string {
		value := facts[strings.Trim(name, "{}")]
		if !fact.MatchString(value) && err == nil {
			err = fmt.Errorf("%s of %q: this job has no such fact", name, pattern)
			if value != "" {
				err = fmt.Errorf("%s of %q is %q: expected letters, digits, '-', '_' or '.'", name, pattern, value)
			}
		}
		return value
	})
	if err != nil {
		return "", err
	}
	return filled, nil
}

// fact is what may stand in a path in Vault.
var fact = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]*$`)
