package executor

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/podagent"
)

// grantsAsked finds what the job asks for in the settings. An error is the job
// author's.
func grantsAsked(job *gitlab.Job, s *settings.Settings) ([]settings.Grant, error) {
	var grants []settings.Grant
	sets := map[string]string{}
	for _, name := range job.Grants() {
		g, ok := s.Grant(name)
		if !ok {
			return nil, fmt.Errorf("PODLANE_GRANTS asks for %q, which the settings of podlane do not have; hint: %s", name, knownGrants(s))
		}
		if other, taken := sets[g.Variable]; taken && g.Variable != "" {
			return nil, fmt.Errorf("PODLANE_GRANTS asks for %s and %s, which both set %s: a job can have one of them", other, name, g.Variable)
		}
		sets[g.Variable] = name
		grants = append(grants, g)
	}
	return grants, nil
}

func knownGrants(s *settings.Settings) string {
	if len(s.Grants) == 0 {
		return "this runner has no grants"
	}
	var names []string
	for _, g := range s.Grants {
		names = append(names, g.Name)
	}
	return "it has " + strings.Join(names, ", ")
}

// mayHave tells whether a job fulfils a grant's conditions, and if not, which
// claim of its id_token is at odds with which condition.
func mayHave(g settings.Grant, f Facts) error {
	deny := func(claim, found, expected string) error {
		return fmt.Errorf("the grant %s is not for this job: the claim %s is %q, expected %s", g.Name, claim, found, expected)
	}
	if len(g.Projects) > 0 && !slices.ContainsFunc(g.Projects, func(id int64) bool { return strconv.FormatInt(id, 10) == f.ProjectID }) {
		return deny("project_id", f.ProjectID, "one of the projects that it is for")
	}
	if g.Protected && f.Scope != ScopeProtected {
		return deny("ref_protected", "false", "true")
	}
	if len(g.Environments) > 0 && !slices.ContainsFunc(g.Environments, func(glob string) bool { return doublestar.MatchUnvalidated(glob, f.Environment) }) {
		return deny("environment", f.Environment, "one that matches "+strings.Join(g.Environments, " or "))
	}
	if len(g.PipelineSources) > 0 && !slices.Contains(g.PipelineSources, f.PipelineSource) {
		return deny("pipeline_source", f.PipelineSource, strings.Join(g.PipelineSources, " or "))
	}
	return nil
}

// filledGrant replaces the placeholders in all that a grant names.
func filledGrant(g settings.Grant, f Facts) (settings.Grant, error) {
	facts := f.Placeholders()
	for _, field := range []*string{&g.AuthRole, &g.Mount, &g.Role, &g.Namespace, &g.WorkNamespace, &g.Path} {
		value, err := settings.Fill(*field, facts)
		if err != nil {
			return g, fmt.Errorf("the grant %s: %w", g.Name, err)
		}
		*field = value
	}
	if g.WorkNamespace == "" {
		g.WorkNamespace = g.Namespace
	}
	return g, nil
}

// granted is a credential that Vault has given for a grant.
type granted struct {
	grant settings.Grant
	// cluster and token are a kubeconfig's, value is a KV secret's.
	cluster      pod.Cluster
	token, value redact.Secret
	// accessKey and the two others are AWS's.
	accessKey, secretKey, sessionToken redact.Secret
	expires                            time.Time
}

// delivery packs credentials for the pod. A kubeconfig names a file with the
// token, and the AWS SDKs ask podlane-helper, so that programs that have been
// started with an older credential find the newer one.
func delivery(all []granted) (podagent.Delivery, error) {
	d := podagent.Delivery{Files: map[string]string{}, Env: map[string]string{}}
	dir := podagent.GrantsDir()
	var kubeconfigs, profiles []string
	for _, c := range all {
		g := c.grant
		switch g.Kind {
		case settings.GrantKubeconfig:
			text, err := kubeconfig(g, c.cluster, path.Join(dir, g.Name, "token"))
			if err != nil {
				return d, err
			}
			d.Files[path.Join(g.Name, "token")] = c.token.Reveal()
			d.Files[path.Join(g.Name, "kubeconfig")] = text
			kubeconfigs = append(kubeconfigs, path.Join(dir, g.Name, "kubeconfig"))
		case settings.GrantAWS:
			text, err := processCredentials(c)
			if err != nil {
				return d, err
			}
			d.Files[podagent.AWSCredentials(g.Name)] = text
			if profiles == nil {
				profiles = append(profiles, awsProfile("default", g))
			}
			profiles = append(profiles, awsProfile("profile "+g.Name, g))
		case settings.GrantKV:
			d.Env[g.Variable] = c.value.Reveal()
			if g.File {
				d.Files[path.Join(g.Name, g.Field)] = c.value.Reveal()
				d.Env[g.Variable] = path.Join(dir, g.Name, g.Field)
			}
		}
	}
	if kubeconfigs != nil {
		d.Env["KUBECONFIG"] = strings.Join(kubeconfigs, ":")
	}
	if profiles != nil {
		d.Files["aws/config"], d.Files["aws/credentials"] = strings.Join(profiles, "\n"), ""
		d.Env["AWS_CONFIG_FILE"], d.Env["AWS_SHARED_CREDENTIALS_FILE"] = path.Join(dir, "aws/config"), path.Join(dir, "aws/credentials")
	}
	return d, nil
}

// kubeconfig is written in JSON, which is YAML as well, so that small scripts
// can read it too. Clients read the token's file anew every minute.
func kubeconfig(g settings.Grant, cluster pod.Cluster, tokenFile string) (string, error) {
	named := func(key string, value map[string]string) []any {
		return []any{map[string]any{"name": g.Name, key: value}}
	}
	where := map[string]string{"server": cluster.Server}
	if len(cluster.CA) > 0 {
		where["certificate-authority-data"] = base64.StdEncoding.EncodeToString(cluster.CA)
	}
	text, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": g.Name,
		"clusters": named("cluster", where),
		"users":    named("user", map[string]string{"tokenFile": tokenFile}),
		"contexts": named("context", map[string]string{"cluster": g.Name, "user": g.Name, "namespace": g.WorkNamespace}),
	}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig of the grant %s: %w", g.Name, err)
	}
	return string(text) + "\n", nil
}

func processCredentials(c granted) (string, error) {
	text, err := json.Marshal(map[string]any{
		"Version": 1, "AccessKeyId": c.accessKey.Reveal(), "SecretAccessKey": c.secretKey.Reveal(), "SessionToken": c.sessionToken.Reveal(),
		"Expiration": c.expires.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return "", fmt.Errorf("write the AWS credentials of the grant %s: %w", c.grant.Name, err)
	}
	return string(text), nil
}

func awsProfile(section string, g settings.Grant) string {
	text := fmt.Sprintf("[%s]\ncredential_process = %s aws-credentials %s\n", section, pod.AgentPath, g.Name)
	if g.Region != "" {
		text += "region = " + g.Region + "\n"
	}
	return text
}
