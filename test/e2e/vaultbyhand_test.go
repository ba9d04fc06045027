package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// attempt is a folder as the runner makes one, for a job whose id_token lives as
// long as a test wants.
type attempt struct {
	bed *bed.Bed
	dir string
	id  int64
	env []string
}

func (a *attempt) respond(t *testing.T, tokenLife time.Duration) {
	t.Helper()
	now := time.Now()
	token, err := a.bed.GitLab.SignToken(map[string]any{
		"iss": a.bed.GitLab.URL(), "aud": bed.Audience, "sub": "test", "jti": randomHex(),
		"iat": now.Add(-time.Hour).Unix(), "nbf": now.Add(-time.Hour).Unix(), "exp": now.Add(tokenLife).Unix(),
		"job_id": strconv.FormatInt(a.id, 10), "project_id": "9", "namespace_id": "1", "ref_protected": "false",
	})
	if err != nil {
		t.Fatal(err)
	}
	response, err := json.Marshal(map[string]any{
		"id":          a.id,
		"job_info":    map[string]any{"project_id": 9, "name": "by hand"},
		"git_info":    map[string]any{"repo_url": "http://gitlab.example.com/by/hand" + strconv.FormatInt(a.id, 10) + ".git"},
		"runner_info": map[string]any{"timeout": 300},
		"image":       map[string]any{"name": stackenv.ImageJob},
		"variables":   []any{map[string]any{"key": "VAULT_ID_TOKEN", "value": token, "masked": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
}

// call runs a stage and returns what it wrote and its exit code.
func (a *attempt) call(t *testing.T, stage string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), a.bed.Podlane, stage)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), append(a.env, "PODLANE_CONFIG="+a.bed.Config, "TMPDIR="+a.dir, "JOB_RESPONSE_FILE="+filepath.Join(a.dir, "response.json"))...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// An id_token that has ended is the system's failure before a pod starts. In
// cleanup what earlier stages have left does: the pod is deleted, and the Vault
// token revoked.
func TestVaultIDTokenThatEnded(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, nil)
	a := &attempt{bed: b, dir: t.TempDir(), id: time.Now().UnixNano() % 1e9}
	a.respond(t, -time.Hour)
	out, code := a.call(t, "prepare")
	if code != 2 || !strings.Contains(out, "the id_token ended at ") {
		t.Errorf("prepare ends with %d, want 2: %s", code, out)
	}

	a.respond(t, time.Hour)
	config, code := a.call(t, "config")
	var answer struct {
		JobEnv map[string]string `json:"job_env"`
	}
	if err := json.Unmarshal([]byte(config), &answer); err != nil || code != 0 {
		t.Fatalf("config: %d %v: %s", code, err, config)
	}
	for key, value := range answer.JobEnv {
		a.env = append(a.env, key+"="+value)
	}
	if out, code := a.call(t, "prepare"); code != 0 {
		t.Fatalf("prepare: %s", out)
	}
	a.respond(t, -time.Hour)
	if out, code := a.call(t, "cleanup"); code != 0 || !strings.Contains(out, "deleted pod") {
		t.Errorf("cleanup ends with %d: %s", code, out)
	}
	asked(t, b, "auth/jwt/login", "kubernetes/creds/podlane", "auth/token/revoke-self")
	if err := nothingLeft(t.Context(), "http://gitlab.example.com/by/hand"+strconv.FormatInt(a.id, 10)+"/-/jobs/"+strconv.FormatInt(a.id, 10)); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(a.dir, "vault*"))
	if err != nil || len(left) > 0 {
		t.Errorf("cleanup has left %v, %v", left, err)
	}
}

// People look after caches with a Vault token of their own.
func TestCachesOfAPersonWithVault(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b := shared
	p := project(t, b, nil)
	run(t, gitlabsim.JobSpec{
		Project: p, Script: []string{"echo x > deps"}, Cache: []gitlabsim.Cache{{Key: "deps", Paths: []string{"deps"}}},
	}).succeeded(t, "cache deps: saved")
	token := func(policies ...string) string {
		t.Helper()
		token, err := b.Vault.PersonsToken(t.Context(), policies...)
		if err != nil {
			t.Fatal(err)
		}
		secrets.Know(token)
		return token
	}
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(token("-cache-admin")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(env []string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), b.Podlane, args...)
		cmd.Env = append(env, "PODLANE_CONFIG="+b.Config, "PATH="+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		secrets.Text("output of podlane", args[0], string(out))
		return string(out), err
	}
	mine := "--project=" + strconv.FormatInt(p.ID, 10)
	for name, env := range map[string][]string{
		"VAULT_TOKEN":    {"VAULT_TOKEN=" + token("-cache-admin"), "VAULT_ADDR=http://127.0.0.1:9", "HOME=/nowhere"},
		"~/.vault-token": {"HOME=" + home},
	} {
		if out, err := call(env, "cache", "ls", mine); err != nil || !strings.Contains(out, "deps") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	if out, err := call([]string{"VAULT_TOKEN=" + token()}, "cache", "ls", mine); err == nil || !strings.Contains(out, "your token's policies do not allow it") {
		t.Errorf("without the policy: %v: %s", err, out)
	}
	// Who has chosen AWS credentials is taken at their word.
	if out, err := call([]string{"HOME=" + home, "AWS_ACCESS_KEY_ID=nobody", "AWS_SECRET_ACCESS_KEY=nothing"}, "cache", "ls", mine); err == nil || !strings.Contains(out, "InvalidAccessKeyId") {
		t.Errorf("with AWS credentials: %v: %s", err, out)
	}
	if out, err := call([]string{"HOME=" + home}, "gc", "--uploads", "--kubeconfig", b.AdminKubeconfig()); err != nil {
		t.Errorf("gc --uploads: %v: %s", err, out)
	}
	if out, err := call([]string{"HOME=" + home}, "cache", "rm", "deps", mine, "--yes"); err != nil {
		t.Errorf("rm: %v: %s", err, out)
	}
	if objects, err := b.S3.Objects(t.Context(), b.S3.Prefix+strconv.FormatInt(p.ID, 10)+"/"); err != nil || len(objects) > 0 {
		t.Errorf("rm has left %v, %v", objects, err)
	}
}
