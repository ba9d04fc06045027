package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// Kinds of grants.
const (
	GrantKubeconfig = "kubeconfig"
	GrantAWS        = "aws"
	GrantKV         = "kv"
)

// Grant is a credential that jobs may ask for, for their own use, with the
// variable PODLANE_GRANTS. Conditions that are left out let every job through;
// Vault's own role is a second fence.
type Grant struct {
	Name string `toml:"name"`
	// Kind is kubeconfig, aws or kv.
	Kind string `toml:"kind"`

	// Projects are the numbers of the projects that get it.
	Projects []int64 `toml:"projects"`
	// Protected asks for a protected ref.
	Protected bool `toml:"protected"`
	// Environments are globs, one of which the job's environment must match.
	Environments []string `toml:"environments"`
	// PipelineSources are the values of CI_PIPELINE_SOURCE that get it.
	PipelineSources []string `toml:"pipeline_sources"`

	// AuthRole is the JWT role, Mount the secrets engine's, Role the engine's.
	// They and what follows may hold placeholders.
	AuthRole string   `toml:"auth_role"`
	Mount    string   `toml:"mount"`
	Role     string   `toml:"role"`
	TTL      Duration `toml:"ttl"`

	// Namespace is where the service account of a kubeconfig lives: what Vault
	// is asked for.
	Namespace string `toml:"namespace"`
	// WorkNamespace is the one that the kubeconfig names; empty means Namespace.
	WorkNamespace string `toml:"work_namespace"`
	// Server and CAFile are the kubeconfig's; empty means podlane's own cluster.
	Server string `toml:"server"`
	CAFile string `toml:"ca_file"`

	// Region is for kind aws.
	Region string `toml:"region"`

	// Path, Field and KVVersion say which secret of kind kv, and Variable what
	// the job finds it under: the value itself, or a file with it.
	Path      string `toml:"path"`
	Field     string `toml:"field"`
	KVVersion int    `toml:"kv_version"`
	Variable  string `toml:"variable"`
	File      bool   `toml:"file"`
}

func (g *Grant) setDefaults() {
	g.TTL = Duration(20 * time.Minute)
	g.KVVersion = 2
}

// Grant finds a grant by its name.
func (s *Settings) Grant(name string) (Grant, bool) {
	for _, g := range s.Grants {
		if g.Name == name {
			return g, true
		}
	}
	return Grant{}, false
}

func (s *Settings) checkGrants(c checker) {
	seen := map[string]bool{}
	for i, g := range s.Grants {
		at := fmt.Sprintf("grants[%d].", i+1)
		c.must(dnsLabel.MatchString(g.Name), at+"name", g.Name, "a name of lower-case letters, digits and '-'")
		c.must(!seen[g.Name], at+"name", g.Name, "a name that no other grant has")
		seen[g.Name] = true
		c.must(s.Vault.Enabled(), at+"name", g.Name, "vault.address to be set: grants come from Vault")
		c.oneOf(at+"kind", g.Kind, GrantKubeconfig, GrantAWS, GrantKV)
		for _, glob := range g.Environments {
			c.must(doublestar.ValidatePattern(glob), at+"environments", glob, `globs such as "review/*"`)
		}
		c.pattern(at+"auth_role", g.AuthRole)
		c.pattern(at+"mount", g.Mount)
		c.between(at+"ttl", g.TTL, 10*time.Second, 24*time.Hour)
		g.checkKind(c, at)
	}
}

// grantKeys are the keys that mean something to one kind only.
func (g *Grant) checkKind(c checker, at string) {
	given := map[string]string{
		"role": g.Role, "namespace": g.Namespace, "work_namespace": g.WorkNamespace, "server": g.Server, "ca_file": g.CAFile,
		"region": g.Region, "path": g.Path, "field": g.Field, "variable": g.Variable, "file": strings.TrimPrefix(strconv.FormatBool(g.File), "false"),
	}
	kinds := map[string][]string{
		GrantKubeconfig: {"role", "namespace", "work_namespace", "server", "ca_file"},
		GrantAWS:        {"role", "region"},
		GrantKV:         {"path", "field", "variable", "file"},
	}
	for _, key := range []string{"role", "namespace", "work_namespace", "server", "ca_file", "region", "path", "field", "variable", "file"} {
		mine := slices.Contains(kinds[g.Kind], key)
		c.must(mine || given[key] == "", at+key, given[key], "nothing: this key means nothing to kind "+g.Kind)
	}
	switch g.Kind {
	case GrantKubeconfig:
		c.pattern(at+"role", g.Role)
		c.pattern(at+"namespace", g.Namespace)
		if g.WorkNamespace != "" {
			c.pattern(at+"work_namespace", g.WorkNamespace)
		}
	case GrantAWS:
		c.pattern(at+"role", g.Role)
	case GrantKV:
		c.pattern(at+"path", g.Path)
		c.must(g.Field != "", at+"field", g.Field, "the name of one of the secret's fields")
		c.must(variableName.MatchString(g.Variable), at+"variable", g.Variable, "the name of a variable")
		c.oneOf(at+"kv_version", strconv.Itoa(g.KVVersion), "1", "2")
	}
}
