package gitlabsim

import (
	"crypto/sha256"
	"math/big"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The user who starts every pipeline.
const (
	userID    = 1
	userLogin = "sidney"
	userName  = "Sidney Jones"
	userEmail = "sidney@example.com"
)

// serverVersion that CI_SERVER_VERSION tells.
const serverVersion = "19.3.0"

// variableList collects variables in GitLab's order.
type variableList []Variable

func (l *variableList) public(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		*l = append(*l, Variable{Key: pairs[i], Value: pairs[i+1], Public: true})
	}
}

func (l *variableList) secret(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		*l = append(*l, Variable{Key: pairs[i], Value: pairs[i+1], Masked: true})
	}
}

// variables of a job, later ones winning over earlier ones
// (GitLab app/models/ci/build.rb, variables, and lib/gitlab/ci/variables/builder.rb).
func (j *Job) variables(runner *Runner, now time.Time) ([]Variable, error) {
	tokens, err := j.idTokens(now)
	if err != nil {
		return nil, err
	}
	var l variableList
	j.addPersisted(&l, now)
	l = append(l, tokens...)
	j.addPredefined(&l)
	j.server.addInstance(&l)
	j.Pipeline.Project.addTo(&l)
	j.Pipeline.addTo(&l)
	l.public(
		"CI_RUNNER_ID", strconv.FormatInt(runner.ID, 10), "CI_RUNNER_DESCRIPTION", runner.Description,
		"CI_RUNNER_TAGS", tagList(runner.Tags))
	l = append(l, j.spec.Variables...)
	l.public(
		"GITLAB_USER_ID", strconv.Itoa(userID), "GITLAB_USER_EMAIL", userEmail,
		"GITLAB_USER_LOGIN", userLogin, "GITLAB_USER_NAME", userName)
	l = append(l, j.Pipeline.Project.Variables...)
	if j.Pipeline.Protected {
		l = append(l, j.Pipeline.Project.ProtectedVariables...)
	}
	return append(l, j.Pipeline.Variables...), nil
}

func (j *Job) addPersisted(l *variableList, now time.Time) {
	p := j.Pipeline
	pipeline, job := strconv.FormatInt(p.ID, 10), strconv.FormatInt(j.ID, 10)
	l.public(
		"CI_PIPELINE_ID", pipeline, "CI_PIPELINE_URL", p.Project.URL()+"/-/pipelines/"+pipeline,
		"CI_JOB_ID", job, "CI_JOB_URL", j.URL())
	l.secret("CI_JOB_TOKEN", j.Token)
	l.public("CI_JOB_STARTED_AT", now.UTC().Format(time.RFC3339), "CI_REGISTRY_USER", "gitlab-ci-token")
	l.secret("CI_REGISTRY_PASSWORD", j.Token)
	*l = append(*l, Variable{Key: "CI_REPOSITORY_URL", Value: j.repoURL()})
}

func (j *Job) addPredefined(l *variableList) {
	l.public(
		"CI_JOB_NAME", j.spec.Name, "CI_JOB_NAME_SLUG", slug(j.spec.Name),
		"CI_JOB_GROUP_NAME", j.spec.Name, "CI_JOB_STAGE", j.spec.Stage)
	if j.spec.Manual {
		l.public("CI_JOB_MANUAL", "true")
	}
	l.public("CI_NODE_TOTAL", "1")
	if env := j.spec.Environment; env != nil {
		l.public(
			"CI_ENVIRONMENT_NAME", env.Name, "CI_ENVIRONMENT_SLUG", environmentSlug(env.Name),
			"CI_ENVIRONMENT_ACTION", env.action(), "CI_ENVIRONMENT_TIER", env.tier())
		if env.URL != "" {
			l.public("CI_ENVIRONMENT_URL", env.URL)
		}
	}
}

func (e *Environment) action() string {
	if e.Action == "" {
		return "start"
	}
	return e.Action
}

// tier is guessed from the name, as GitLab does
// (app/models/environment.rb, guess_tier).
func (e *Environment) tier() string {
	switch name := strings.ToLower(e.Name); {
	case e.Tier != "":
		return e.Tier
	case strings.Contains(name, "prod") || strings.Contains(name, "live"):
		return "production"
	case strings.Contains(name, "stag"):
		return "staging"
	case strings.Contains(name, "test"):
		return "testing"
	case strings.Contains(name, "dev") || strings.Contains(name, "review"):
		return "development"
	default:
		return "other"
	}
}

func (s *Server) addInstance(l *variableList) {
	host, port, _ := strings.Cut(s.host(), ":")
	l.public(
		"CI", "true", "GITLAB_CI", "true",
		"CI_SERVER_FQDN", s.host(), "CI_SERVER_URL", s.url, "CI_SERVER_HOST", host,
		"CI_SERVER_PORT", port, "CI_SERVER_PROTOCOL", "http", "CI_SERVER_NAME", "GitLab",
		"CI_SERVER_VERSION", serverVersion, "CI_SERVER_VERSION_MAJOR", "19",
		"CI_SERVER_VERSION_MINOR", "3", "CI_SERVER_VERSION_PATCH", "0", "CI_SERVER_REVISION", "a1b2c3d4e5f")
}

func (p *Project) addTo(l *variableList) {
	namespace := p.namespace()
	root, _, _ := strings.Cut(namespace, "/")
	l.public(
		"GITLAB_FEATURES", "", "CI_PROJECT_ID", strconv.FormatInt(p.ID, 10),
		"CI_PROJECT_NAME", p.name(), "CI_PROJECT_TITLE", p.name(), "CI_PROJECT_DESCRIPTION", "",
		"CI_PROJECT_PATH", p.Path, "CI_PROJECT_PATH_SLUG", slug(p.Path),
		"CI_PROJECT_NAMESPACE", namespace, "CI_PROJECT_NAMESPACE_SLUG", slug(namespace),
		"CI_PROJECT_NAMESPACE_ID", strconv.FormatInt(p.NamespaceID, 10),
		"CI_PROJECT_ROOT_NAMESPACE", root, "CI_PROJECT_URL", p.URL(),
		"CI_PROJECT_VISIBILITY", "private", "CI_PROJECT_REPOSITORY_LANGUAGES", "",
		"CI_PROJECT_CLASSIFICATION_LABEL", "", "CI_DEFAULT_BRANCH", p.DefaultBranch,
		"CI_CONFIG_PATH", ".gitlab-ci.yml",
		"CI_API_V4_URL", p.server.url+"/api/v4", "CI_API_GRAPHQL_URL", p.server.url+"/api/graphql")
}

func (p *Pipeline) addTo(l *variableList) {
	l.public(
		"CI_PIPELINE_IID", strconv.FormatInt(p.ID, 10), "CI_PIPELINE_SOURCE", p.Source,
		"CI_PIPELINE_CREATED_AT", p.Created.UTC().Format(time.RFC3339),
		"CI_COMMIT_SHA", p.SHA, "CI_COMMIT_SHORT_SHA", p.SHA[:8], "CI_COMMIT_BEFORE_SHA", p.commit.before,
		"CI_COMMIT_REF_NAME", p.sourceRef(), "CI_COMMIT_REF_SLUG", slug(p.sourceRef()))
	if p.MergeRequest == nil && !p.Tag {
		l.public("CI_COMMIT_BRANCH", p.Ref)
	}
	l.public(
		"CI_COMMIT_MESSAGE", p.commit.message, "CI_COMMIT_MESSAGE_IS_TRUNCATED", "false",
		"CI_COMMIT_TITLE", p.commit.title, "CI_COMMIT_DESCRIPTION", p.commit.description,
		"CI_COMMIT_REF_PROTECTED", strconv.FormatBool(p.Protected),
		"CI_COMMIT_TIMESTAMP", p.commit.timestamp, "CI_COMMIT_AUTHOR", p.commit.author)
	if p.Tag {
		l.public("CI_COMMIT_TAG", p.Ref, "CI_COMMIT_TAG_MESSAGE", "")
	}
	if mr := p.MergeRequest; mr != nil {
		mr.addTo(l, p.Project)
	}
}

func (m *MergeRequest) addTo(l *variableList, p *Project) {
	project := strconv.FormatInt(p.ID, 10)
	l.public(
		"CI_MERGE_REQUEST_EVENT_TYPE", "detached",
		"CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", "", "CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "",
		"CI_MERGE_REQUEST_DIFF_ID", strconv.FormatInt(m.ID, 10), "CI_MERGE_REQUEST_DIFF_BASE_SHA", m.TargetSHA,
		"CI_MERGE_REQUEST_ID", strconv.FormatInt(m.ID, 10), "CI_MERGE_REQUEST_IID", strconv.FormatInt(m.IID, 10),
		"CI_MERGE_REQUEST_REF_PATH", m.Ref(), "CI_MERGE_REQUEST_PROJECT_ID", project,
		"CI_MERGE_REQUEST_PROJECT_PATH", p.Path, "CI_MERGE_REQUEST_PROJECT_URL", p.URL(),
		"CI_MERGE_REQUEST_TARGET_BRANCH_NAME", m.TargetBranch,
		"CI_MERGE_REQUEST_TARGET_BRANCH_PROTECTED", strconv.FormatBool(p.Protected(m.TargetBranch)),
		"CI_MERGE_REQUEST_TITLE", m.Title, "CI_MERGE_REQUEST_DRAFT", "false",
		"CI_MERGE_REQUEST_SOURCE_PROJECT_ID", project, "CI_MERGE_REQUEST_SOURCE_PROJECT_PATH", p.Path,
		"CI_MERGE_REQUEST_SOURCE_PROJECT_URL", p.URL(), "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", m.SourceBranch,
		"CI_MERGE_REQUEST_SOURCE_BRANCH_PROTECTED", strconv.FormatBool(p.Protected(m.SourceBranch)))
}

// PredefinedVariables are those that GitLab knows of a pipeline before any job
// runs: what rules and environment names may refer to. Later ones win.
func (p *Pipeline) PredefinedVariables() []Variable {
	var l variableList
	p.Project.server.addInstance(&l)
	p.Project.addTo(&l)
	p.addTo(&l)
	l = append(l, p.Project.Variables...)
	if p.Protected {
		l = append(l, p.Project.ProtectedVariables...)
	}
	return append(l, p.PipelineSpec.Variables...)
}

func (p *Project) namespace() string { return path.Dir(p.Path) }

func (p *Project) name() string { return path.Base(p.Path) }

var notInSlug = regexp.MustCompile(`[^a-z0-9]`)

// slug is GitLab's lib/gitlab/utils.rb, slugify: fit for a DNS name.
func slug(text string) string {
	s := notInSlug.ReplaceAllString(strings.ToLower(text), "-")
	return strings.Trim(s[:min(len(s), 63)], "-")
}

var dashes = regexp.MustCompile(`-+`)

// environmentSlug is GitLab's lib/gitlab/slug/environment.rb: at most 24
// characters that fit a DNS name, with a suffix where the name had to change.
func environmentSlug(name string) string {
	s := notInSlug.ReplaceAllString(strings.ToLower(name), "-")
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		s = "env-" + s
	}
	s = dashes.ReplaceAllString(s, "-")
	if len(s) <= 24 && s == name {
		return strings.TrimSuffix(s, "-")
	}
	sum := sha256.Sum256([]byte(name))
	suffix := new(big.Int).SetBytes(sum[:]).Text(36)
	return strings.TrimSuffix(s[:min(len(s), 17)], "-") + "-" + suffix[len(suffix)-6:]
}

// tagList is written as Ruby prints a list of strings.
func tagList(tags []string) string {
	quoted := make([]string, len(tags))
	for i, tag := range tags {
		quoted[i] = strconv.Quote(tag)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
