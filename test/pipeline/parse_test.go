package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

func parse(t *testing.T, text string) *pipeline.Config {
	t.Helper()
	config, err := pipeline.Parse(".gitlab-ci.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestParseEveryKeyword(t *testing.T) {
	config := parse(t, `
stages: [build, test]
variables:
  A: one
  B: {value: "2", description: what B is, expand: false}
default:
  image: golang
  before_script: [echo default]
  tags: [linux]
.base:
  variables: {X: base, Y: base}
  cache: &cache
    key: {files: [go.sum], prefix: go}
    paths: [.cache]
    policy: pull
    fallback_keys: [go-]
  script: &lines
    - echo one
    - echo two
job:
  extends: .base
  stage: test
  image: {name: alpine, entrypoint: [""], pull_policy: if-not-present}
  services:
    - postgres:16
    - {name: redis, alias: cache, command: [redis-server], variables: {P: 1}}
  variables: {X: own}
  script:
    - *lines
    - echo three
  after_script: echo after
  needs: [{job: other, artifacts: false}, {job: maybe, optional: true}]
  dependencies: []
  rules:
    - if: $CI
      changes: [a/**]
      when: manual
      allow_failure: true
      variables: {R: r}
  artifacts: {name: n, paths: [out], exclude: [out/x], when: always, expire_in: 1 day, untracked: true}
  environment: {name: review/$X, url: https://x, on_stop: other, auto_stop_in: 3 days, action: start}
  id_tokens: {TOKEN: {aud: https://vault}}
  timeout: 1h 30m
  interruptible: true
  retry: {max: 2, when: runner_system_failure}
other:
  stage: build
  script: [echo]
  <<: {tags: [merged], timeout: 90 seconds}
  cache:
    <<: *cache
    policy: push
`)
	job, other := config.Jobs[0], config.Jobs[1]
	want := pipeline.Job{
		Name: "job", Stage: "test", When: "on_success",
		Image: gitlabsim.Image{Name: "alpine", Entrypoint: []string{""}, PullPolicy: []string{"if-not-present"}},
		Services: []gitlabsim.Image{
			{Name: "postgres:16"},
			{Name: "redis", Alias: "cache", Command: []string{"redis-server"}, Variables: []gitlabsim.Variable{{Key: "P", Value: "1", Public: true}}},
		},
		Variables:    []gitlabsim.Variable{{Key: "X", Value: "own", Public: true}, {Key: "Y", Value: "base", Public: true}},
		BeforeScript: []string{"echo default"},
		Script:       []string{"echo one", "echo two", "echo three"},
		AfterScript:  []string{"echo after"},
		Needs:        []pipeline.Need{{Job: "other"}, {Job: "maybe", Artifacts: true, Optional: true}},
		Dependencies: []string{},
		Artifacts: &gitlabsim.Artifact{
			Name: "n", Paths: []string{"out"}, Exclude: []string{"out/x"}, When: "always", ExpireIn: "1 day", Untracked: true,
		},
		Cache: []pipeline.Cache{{
			Files: []string{"go.sum"}, Prefix: "go",
			Cache: gitlabsim.Cache{Paths: []string{".cache"}, Policy: "pull", FallbackKeys: []string{"go-"}},
		}},
		Environment: &pipeline.Environment{Name: "review/$X", URL: "https://x", OnStop: "other", AutoStopIn: "3 days", Action: "start"},
		IDTokens:    map[string]gitlabsim.IDToken{"TOKEN": {Aud: []string{"https://vault"}}},
		Timeout:     90 * time.Minute, Tags: []string{"linux"}, Interruptible: true,
		Retry: pipeline.Retry{Max: 2, When: []string{"runner_system_failure"}},
		Rules: []pipeline.Rule{{
			Changes: []string{"a/**"}, When: "manual", AllowFailure: new(true),
			Variables: []gitlabsim.Variable{{Key: "R", Value: "r", Public: true}},
		}},
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().String() == ".line" || p.Last().String() == ".If"
	}, cmp.Ignore())
	if diff := cmp.Diff(want, job, ignore); diff != "" {
		t.Errorf("job (-want +got):\n%s", diff)
	}
	if job.Rules[0].If.String() != "$CI" {
		t.Errorf("if is %q", job.Rules[0].If)
	}
	if other.Timeout != 90*time.Second || !cmp.Equal(other.Tags, []string{"merged"}) {
		t.Errorf("merged keys: timeout %s, tags %q", other.Timeout, other.Tags)
	}
	if c := other.Cache[0]; c.Policy != "push" || c.Prefix != "go" {
		t.Errorf("merged cache: %+v", c)
	}
	wantVariables := []gitlabsim.Variable{{Key: "A", Value: "one", Public: true}, {Key: "B", Value: "2", Public: true, Raw: true}}
	if diff := cmp.Diff(wantVariables, config.Variables); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
}

func TestParseReportsAllMistakes(t *testing.T) {
	_, err := pipeline.Parse("ci.yml", []byte(`include: other.yml
one:
  script: [true]
  retry: 5
  image: {nam: x}
two:
  stage: nowhere
  parallel: 3
  script: echo
  rules:
    - if: $A = "x"
three:
  extends: .none
four: {extends: four, script: x}
five:
  when: sometimes
  timeout: soon
  cache: {key: {files: [a, b, c]}}
six: text
`))
	if err == nil {
		t.Fatal("no error")
	}
	want := strings.TrimSpace(`
ci.yml:1: include is not supported
ci.yml:3: found true, which is a truth value, expected a string
ci.yml:5: image: unknown keyword "nam", expected one of entrypoint, name, pull_policy
ci.yml:5: image: name is missing
ci.yml:4: retry: found "5", expected 0 to 2
`)
	got := err.Error()
	for line := range strings.SplitSeq(want, "\n") {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%q is missing", line)
		}
	}
	for _, part := range []string{
		`ci.yml:8: job two: unknown keyword "parallel", expected one of after_script, allow_failure,`,
		`ci.yml:6: job two: stage "nowhere" is none of the stages .pre, build, test, deploy, .post`,
		`ci.yml:11: if: "$A = \"x\"" isn't understood from "= \"x\"" on`,
		`ci.yml:13: three extends .none, which there isn't`,
		`ci.yml:14: four extends itself`,
		`ci.yml:15: job five: script is missing`,
		`ci.yml:16: found "sometimes", expected one of on_success, on_failure, always, manual, never`,
		`ci.yml:17: found "soon", expected a duration such as 1h 30m`,
		`ci.yml:18: cache key: found 3 files, expected 1 to 2`,
		`ci.yml:19: six: found "text", expected a job with its keywords`,
	} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is missing", part)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestDefaultsAreReplacedWhole(t *testing.T) {
	config := parse(t, `
image: {name: golang, entrypoint: [""]}
cache: {key: k, paths: [p], policy: pull}
job: {script: x, image: {name: alpine}, cache: {key: own}}
`)
	if job := config.Jobs[0]; job.Image.Entrypoint != nil || job.Cache[0].Policy != "" {
		t.Errorf("inherited parts of a default: %+v", job)
	}
}

func TestExpressions(t *testing.T) {
	variables := map[string]string{
		"A": "one", "EMPTY": "", "BRANCH": "feature/x", "PATTERN": "/^feature/", "UPPER": "ONE", "MAIN": "main",
	}
	tests := []struct {
		text string
		want bool
	}{
		{`$A`, true},
		{`$NONE`, false},
		{`$EMPTY`, false},
		{`$A == "one"`, true},
		{`$A == 'two'`, false},
		{`$A != "two"`, true},
		{`"one" == $A`, true},
		{`${A} == $A`, true},
		{`$NONE == null`, true},
		{`$EMPTY == null`, false},
		{`$EMPTY == ""`, true},
		{`$A != null`, true},
		{`$BRANCH =~ /^feature\//`, true},
		{`$BRANCH =~ $PATTERN`, true},
		{`$BRANCH !~ /main/`, true},
		{`$NONE =~ /x/`, false},
		{`$NONE !~ /x/`, true},
		{`$UPPER =~ /one/`, false},
		{`$UPPER =~ /one/i`, true},
		{`$A =~ "one"`, false},
		{`$A && $NONE`, false},
		{`$A || $NONE`, true},
		{`$NONE && $A || $A`, true},
		{`$NONE && ($A || $A)`, false},
		{`($A == "x" || $MAIN == "main") && $BRANCH =~ /x$/`, true},
	}
	for _, tt := range tests {
		e, err := pipeline.ParseExpression(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		got := e.True(func(name string) *string {
			if v, ok := variables[name]; ok {
				return &v
			}
			return nil
		})
		if got != tt.want {
			t.Errorf("%s is %t, want %t", tt.text, got, tt.want)
		}
	}
	for _, text := range []string{"", "$A ==", "&& $A", "($A", "$A $A", "$A == ==", "$A > 1"} {
		if _, err := pipeline.ParseExpression(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
