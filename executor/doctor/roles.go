package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"podlane/executor"
	"podlane/executor/settings"
	"podlane/vaultauth"
)

const (
	useKubernetes = "vault.kubernetes"
	useRead       = "vault.cache_read"
	useWrite      = "vault.cache_write"
)

// nobody is a project that there is not.
const nobody = "2147483647"

// roles logs in with each JWT role that podlane uses itself.
func (e *examination) roles() []check {
	v := &e.s.Vault
	if !v.Enabled() {
		return nil
	}
	uses := []struct {
		name string
		role settings.VaultRole
	}{{useKubernetes, v.Kubernetes}}
	if e.s.Cache.Enabled() {
		uses = append(uses, uses[0], uses[0])
		uses[1].name, uses[1].role = useRead, v.CacheRead
		uses[2].name, uses[2].role = useWrite, v.CacheWrite
	}
	var checks []check
	for _, use := range uses {
		if use.role.Role == "" {
			continue
		}
		checks = append(checks,
			check{name: "login for " + use.name, needs: []string{nameVault, nameIDToken}, run: func(ctx context.Context) finding { return e.logIn(ctx, use.role) }},
			check{name: "limits of " + use.name, needs: []string{"login for " + use.name}, run: func(ctx context.Context) finding {
				role, err := e.try.Fill(use.role)
				if err != nil {
					return failed(err, "")
				}
				return e.limits(ctx, use.name, role.AuthRole)
			}},
		)
	}
	return checks
}

func (e *examination) logIn(ctx context.Context, role settings.VaultRole) finding {
	role, err := e.try.Fill(role)
	if err != nil {
		return failed(err, "")
	}
	token, err := e.try.Login(ctx, role.AuthRole)
	if err != nil {
		return failed(err, "see docs/vault-setup.md")
	}
	return judgeLogin(role.AuthRole, token, time.Now())
}

func judgeLogin(role string, t vaultauth.TokenInfo, now time.Time) finding {
	if slices.Contains(t.Policies, "root") {
		return fail("take root out of its token_policies", "role %s gives the policy root", role)
	}
	return fine("as %s for %s, policies %s", role, t.Expires.Sub(now).Round(time.Second), strings.Join(t.Policies, ", "))
}

// limits finds out whether a login may do what it must not: policies that are
// too loose let one job take what is another's.
func (e *examination) limits(ctx context.Context, use, authRole string) finding {
	never := forbidden(use, e.s, e.try.Facts())
	can, err := e.try.Can(ctx, authRole, slices.Sorted(maps.Keys(never))...)
	if err != nil {
		found, _ := explain(err)
		return warn("add the policy default to its token_policies, or one that allows sys/capabilities-self", "cannot tell: %s", found)
	}
	return judgeLimits(never, can)
}

// forbidden are paths that a login for some use must not have, and what could be
// done with them.
func forbidden(use string, s *settings.Settings, facts executor.Facts) map[string]string {
	v := &s.Vault
	never := map[string]string{
		"sys/policies/acl/podlane-doctor":              "write policies",
		"auth/" + v.AuthMount + "/role/podlane-doctor": "write roles of " + v.AuthMount,
		"sys/auth/podlane-doctor":                      "mount auth methods",
	}
	if !s.Cache.Enabled() {
		return never
	}
	own := facts.Placeholders()
	with := func(name, value string) map[string]string {
		other := maps.Clone(own)
		other[name] = value
		return other
	}
	protected, another := with("scope", executor.ScopeProtected), with("project_id", nobody)
	add := func(role settings.VaultRole, facts map[string]string, what string) {
		for _, path := range awsPaths(role, facts) {
			never[path] = what
		}
	}
	add(v.CacheWrite, protected, "write caches of protected refs")
	if use != useWrite {
		add(v.CacheWrite, own, "write caches")
	}
	add(v.CacheRead, another, "read another project's caches")
	add(v.CacheWrite, another, "write another project's caches")
	// What the use is for, it may, whatever else the same path stands for.
	if use == useWrite {
		remove(never, awsPaths(v.CacheWrite, own))
	}
	if use == useRead {
		remove(never, awsPaths(v.CacheRead, own))
	}
	return never
}

// awsPaths are where a role of the AWS engine gives credentials.
func awsPaths(role settings.VaultRole, facts map[string]string) []string {
	if role.Role == "" {
		return nil
	}
	mount, err := settings.Fill(role.Mount, facts)
	if err != nil {
		return nil
	}
	name, err := settings.Fill(role.Role, facts)
	if err != nil {
		return nil
	}
	return []string{mount + "/sts/" + name, mount + "/creds/" + name}
}

func remove(from map[string]string, paths []string) {
	for _, path := range paths {
		delete(from, path)
	}
}

func judgeLimits(never map[string]string, can map[string][]string) finding {
	var loose []string
	for _, path := range slices.Sorted(maps.Keys(never)) {
		if words := can[path]; slices.ContainsFunc(words, func(word string) bool { return word != "deny" && word != "list" }) {
			loose = append(loose, fmt.Sprintf("%s (%s: %s)", never[path], path, strings.Join(words, ", ")))
		}
	}
	if len(loose) > 0 {
		return fail("take that out of its policies: scripts/vault-bootstrap has narrow ones", "it may also %s", strings.Join(loose, "; "))
	}
	return fine("none of %d things that it must not do", len(never))
}

// grants tries what jobs may ask for, as far as this id_token's job may.
func (e *examination) grants() []check {
	var checks []check
	for _, g := range e.s.Grants {
		name := "grant " + g.Name
		authRole := ""
		checks = append(checks,
			check{name: name, needs: []string{nameVault, nameIDToken}, run: func(ctx context.Context) finding {
				role, ends, err := e.try.Grant(ctx, g)
				authRole = role
				var not *executor.NotForThisJob
				switch {
				case errors.As(err, &not):
					found, _ := explain(err)
					return notTried("try with the id_token of a job that may have it", "%s", found)
				case err != nil:
					return failed(err, "see docs/grants.md and docs/vault-setup.md")
				case g.Kind == settings.GrantKV:
					return fine("gives %s of a secret, with role %s", g.Field, role)
				}
				return fine("gives %s until %s, with role %s", g.Kind, clock(ends), role)
			}},
			check{name: "limits of " + name, needs: []string{name}, run: func(ctx context.Context) finding { return e.limits(ctx, name, authRole) }},
		)
	}
	return checks
}
