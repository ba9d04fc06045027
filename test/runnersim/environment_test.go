package runnersim_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/runnersim"
)

// environment is what the driver saw in a stage.
func (b *bed) environment(t *testing.T, stage string) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, kv := range strings.Split(b.read(t, "env-"+stage), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

func TestEnvironment(t *testing.T) {
	b := newBed(t)
	b.cfg.Environ = append(b.cfg.Environ, "VAULT_ADDR=http://vault", "FROM_CONFIG=overwritten", "TMPDIR=/nowhere")
	b.cfg.Environment = []string{"FLEET=blue"}
	job := newJob("true")
	job["image"] = map[string]any{"name": "registry/$NAME:1", "entrypoint": []string{""}}
	job["services"] = []map[string]any{
		{
			"name": "postgres:$VERSION", "alias": "db,database", "command": []string{"postgres"},
			"variables": []map[string]any{variable("PGDATA", "/data/$VERSION")},
		},
		{"name": "redis"},
	}
	addVariables(
		job,
		variable("NAME", "go"), variable("VERSION", "16"), variable("CHAIN", "$NAME-$VERSION-$$-$NONE"),
		map[string]any{"key": "RAW", "value": "$NAME", "raw": true},
		map[string]any{"key": "KUBECONFIG", "value": "content $NAME\n", "file": true},
		variable("WHERE", "$KUBECONFIG"),
		variable("CI_SERVER", "no"), variable("CI_RUNNER_VERSION", "0"), variable("FF_SCRIPT_SECTIONS", "true"),
		variable("TWICE", "first"), variable("TWICE", "second"),
	)
	b.runOne(t, job)

	env := b.environment(t, "build_script")
	project := filepath.Join(b.dir, "builds/group/shop")
	want := map[string]string{
		"VAULT_ADDR":                       "http://vault",
		"FROM_CONFIG":                      "yes",
		"BUILD_FAILURE_EXIT_CODE":          "1",
		"SYSTEM_FAILURE_EXIT_CODE":         "2",
		"BUILD_EXIT_CODE_FILE":             env["TMPDIR"] + "/build_exit_code",
		"JOB_RESPONSE_FILE":                env["TMPDIR"] + "/response.json",
		"CUSTOM_ENV_CHAIN":                 "go-16-$-",
		"CUSTOM_ENV_RAW":                   "$NAME",
		"CUSTOM_ENV_KUBECONFIG":            "content go\n",
		"CUSTOM_ENV_WHERE":                 project + ".tmp/KUBECONFIG",
		"CUSTOM_ENV_TWICE":                 "second",
		"CUSTOM_ENV_FLEET":                 "blue",
		"CUSTOM_ENV_CI_SERVER":             "no",
		"CUSTOM_ENV_CI_RUNNER_VERSION":     "19.3.0",
		"CUSTOM_ENV_CI_RUNNER_SHORT_TOKEN": "abcdefghi",
		"CUSTOM_ENV_CI_PROJECT_DIR":        project,
		"CUSTOM_ENV_CI_BUILDS_DIR":         filepath.Join(b.dir, "builds"),
		"CUSTOM_ENV_CI_JOB_STATUS":         "running",
		"CUSTOM_ENV_CI_JOB_TIMEOUT":        "3600",
		"CUSTOM_ENV_CI_SHARED_ENVIRONMENT": "true",
		"CUSTOM_ENV_CI_CONCURRENT_ID":      "0",
		"CUSTOM_ENV_CI_JOB_IMAGE":          "registry/go:1",
		"CUSTOM_ENV_FF_SCRIPT_SECTIONS":    "true",
		"CUSTOM_ENV_FF_USE_FASTZIP":        "false",
		"CUSTOM_ENV_CI_JOB_SERVICES": `[{"name":"postgres:16","alias":"db","entrypoint":null,"command":["postgres"],"variables":{"PGDATA":"/data/16"}},` +
			`{"name":"redis","alias":"","entrypoint":null,"command":null}]`,
	}
	got := map[string]string{}
	for k := range want {
		got[k] = env[k]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if filepath.Dir(env["TMPDIR"]) != b.cfg.TempDir || env["PWD"] != env["TMPDIR"] {
		t.Errorf("TMPDIR = %s, PWD = %s, want a folder of its own in %s", env["TMPDIR"], env["PWD"], b.cfg.TempDir)
	}

	config := b.environment(t, "config")
	if config["FROM_CONFIG"] != "overwritten" || config["CUSTOM_ENV_CI_PROJECT_DIR"] != "" || config["CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR"] != ".tmp" {
		t.Errorf("config saw job_env or folders before it named them: %v", config)
	}
	if cleanup := b.environment(t, "cleanup"); cleanup["CUSTOM_ENV_CI_JOB_STATUS"] != "success" {
		t.Errorf("cleanup's CI_JOB_STATUS = %s, want success", cleanup["CUSTOM_ENV_CI_JOB_STATUS"])
	}
}

func TestResponseFile(t *testing.T) {
	b := newBed(t)
	job := newJob("true")
	job["image"] = map[string]any{"name": "alpine", "executor_opts": map[string]any{"kubernetes": map[string]any{"user": 1000}}}
	job["unknown"] = "dropped"
	var mode os.FileMode
	b.cfg.Hooks.Before = func(c *runnersim.Call) error {
		if info, err := os.Stat(filepath.Join(c.Dir, "response.json")); err == nil {
			mode = info.Mode()
		}
		return nil
	}
	b.runOne(t, job)
	if mode != 0o600 {
		t.Errorf("mode = %v, want 0600", mode)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(b.read(t, "response.json")), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"allow_git_fetch", "artifacts", "cache", "credentials", "dependencies", "features", "git_info", "id", "image",
		"inputs", "job_info", "policy_options", "runner_info", "services", "steps", "suspend_options", "token", "variables",
	}
	var keys []string
	for k := range got {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	image := map[string]any{"name": "alpine", "executor_opts": map[string]any{
		"docker":     map[string]any{"platform": "", "user": ""},
		"kubernetes": map[string]any{"user": "1000"},
	}}
	if diff := cmp.Diff(image, got["image"]); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{}, got["inputs"]); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
}

func TestSharedBuildsDir(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-config", `echo '{"builds_dir": "'"$DRIVER_DIR"'/b", "cache_dir": "/c", "builds_dir_is_shared": true}'; exit 0`)
	b.runOne(t, newJob("true"))
	want := filepath.Join(b.dir, "b/abcdefghi/0/group/shop")
	if got := b.environment(t, "build_script")["CUSTOM_ENV_CI_PROJECT_DIR"]; got != want {
		t.Errorf("CI_PROJECT_DIR = %s, want %s", got, want)
	}
}

// TestAttemptsAreApart looks at what a second attempt of prepare gets.
func TestAttemptsAreApart(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-prepare", `rm "$DRIVER_DIR/fail-prepare"; exit 2`)
	dirs := map[int]string{}
	b.cfg.Hooks.After = func(c *runnersim.Call) {
		if d, ok := dirs[c.Attempt]; ok && d != c.Dir {
			t.Errorf("attempt %d works in %s and %s", c.Attempt, d, c.Dir)
		}
		dirs[c.Attempt] = c.Dir
	}
	b.runOne(t, newJob("true"))
	if len(dirs) != 2 || dirs[1] == dirs[2] {
		t.Errorf("TMPDIRs of the attempts: %v", dirs)
	}
}

func TestMasking(t *testing.T) {
	b := newBed(t)
	job := newJob(`printf 'hunter'; sleep 0.05; printf '2-secret end\n'`, `echo "$PASSWORD $BOTH" >&2`, "echo 'https://s3/?X-Amz-Signature=abcd'")
	addVariables(
		job,
		map[string]any{"key": "PASSWORD", "value": "hunter2-secret", "masked": true},
		map[string]any{"key": "BOTH", "value": "x-$PASSWORD", "masked": true},
	)
	log, _ := b.runOne(t, job)
	if strings.Contains(log, "hunter2-secret") || strings.Contains(log, "abcd'") {
		t.Errorf("the log shows a secret:\n%s", readable(log))
	}
	for _, want := range []string{"[MASKED] end\n", "\n[MASKED] [MASKED]\n", "X-Amz-Signature=[MASKED]\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, readable(log))
		}
	}
}

func TestBytesSurvive(t *testing.T) {
	b := newBed(t)
	b.write(t, "fail-build_script", `printf 'a\000\377\r\n%s no newline' "$(head -c 100000 /dev/zero | tr '\0' x)"; exit 0`)
	log, _ := b.runOne(t, newJob("true"))
	if want := "a\x00\xff\r\n" + strings.Repeat("x", 100000) + " no newline"; !strings.Contains(log, want) {
		t.Error("the driver's output did not arrive as it was")
	}
}

func TestSeveralJobs(t *testing.T) {
	b := newBed(t)
	b.cfg.Concurrent = 3
	const jobs = 6
	var mu sync.Mutex
	running, most := 0, 0
	slots := map[string]bool{}
	b.cfg.Hooks = runnersim.Hooks{
		Before: func(c *runnersim.Call) error {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range c.Env {
				if v, ok := strings.CutPrefix(e, "CUSTOM_ENV_CI_CONCURRENT_ID="); ok {
					slots[v] = true
				}
			}
			return nil
		},
		JobReceived: func(int64) {
			mu.Lock()
			defer mu.Unlock()
			running++
			most = max(most, running)
		},
		JobFinished: func(runnersim.Result) {
			mu.Lock()
			defer mu.Unlock()
			running--
		},
	}
	for id := range int64(jobs) {
		b.add(id+1, newJob("sleep 0.1"))
	}
	b.start(t)
	for range jobs {
		<-b.finished
	}
	b.stop(t)
	if most != 3 {
		t.Errorf("%d jobs ran at once, want 3", most)
	}
	if diff := cmp.Diff(map[string]bool{"0": true, "1": true, "2": true}, slots); diff != "" {
		t.Errorf("CI_CONCURRENT_ID (-want +got):\n%s", diff)
	}
}

func TestJobRequest(t *testing.T) {
	b := newBed(t)
	b.start(t)
	for range 2 {
		<-b.asked
	}
	b.stop(t)
	first, second := b.requests[0], b.requests[1]
	info := first["info"].(map[string]any)
	features := info["features"].(map[string]any)
	if first["token"] != b.cfg.Token || info["executor"] != "custom" || features["cancel_gracefully"] != true || features["image"] == true {
		t.Errorf("request = %v", first)
	}
	if second["last_update"] != "abc" {
		t.Errorf("last_update = %v, want what GitLab said before", second["last_update"])
	}
}
