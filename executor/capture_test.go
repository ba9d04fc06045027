package executor

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCaptureLeavesNoSecret(t *testing.T) {
	const (
		token   = "glcbt-64_abcdef"
		quoted  = "it's $a \"secret\"\\ line\nsecond line of it!"
		private = "not-public-value"
	)
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "captured")
	response := map[string]any{
		"id": 7, "token": token, "job_info": map[string]any{"project_id": 1},
		"git_info":    map[string]any{"repo_url": "https://gitlab-ci-token:" + token + "@gitlab.example.com/a/b.git"},
		"credentials": []any{map[string]any{"password": "registry-password"}},
		"variables": []any{
			map[string]any{"key": "CI_JOB_ID", "value": "7", "public": true},
			map[string]any{"key": "CI_COMMIT_AUTHOR", "value": "Sidney", "public": true},
			map[string]any{"key": "PLAIN", "value": "plain to see", "public": true},
			map[string]any{"key": "PRIVATE_THING", "value": private},
			map[string]any{"key": "QUOTED", "value": quoted, "public": true, "masked": true},
			map[string]any{"key": "DEPLOY_TOKEN", "value": "public-by-mistake", "public": true},
			map[string]any{"key": "SHORT", "value": "abc"},
			// Of an address only the password is a secret.
			map[string]any{"key": "CI_REPOSITORY_URL", "value": "https://gitlab-ci-token:" + token + "@gitlab.example.com/a/b.git"},
		},
	}
	text, err := json.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	ansi := `it\'s $a "secret"\\ line\nsecond line of it\!`
	script := "export QUOTED=$'" + ansi + "'\necho " + base64.StdEncoding.EncodeToString([]byte(private)) + "\nexport SHORT=$'abc'\necho abcdefg\ncurl -H token:" + token + "\n"
	for name, content := range map[string]string{
		"response.json": string(text), "script.sh": script, scriptsFile: "build_script\t" + filepath.Join(dir, "script.sh") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	captured, err := Capture(dir, out)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(captured.Placeholders, " "); got != "REDACTED_CREDENTIAL_0 REDACTED_DEPLOY_TOKEN REDACTED_JOB_TOKEN REDACTED_PRIVATE_THING REDACTED_QUOTED REDACTED_SHORT" {
		t.Errorf("placeholders %s", got)
	}
	clean, err := os.ReadFile(filepath.Join(out, capturedResponse))
	if err != nil {
		t.Fatal(err)
	}
	cleanScript, err := os.ReadFile(filepath.Join(out, capturedStages, "build_script.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{token, quoted, ansi, private, "public-by-mistake", "registry-password", base64.StdEncoding.EncodeToString([]byte(private)), `"abc"`, "'abc'"} {
		if strings.Contains(string(clean)+string(cleanScript), secret) {
			t.Errorf("%q was captured", secret)
		}
	}
	want := "export QUOTED=$'REDACTED_QUOTED'\necho REDACTED_PRIVATE_THING\nexport SHORT=$'REDACTED_SHORT'\necho abcdefg\ncurl -H token:REDACTED_JOB_TOKEN\n"
	if string(cleanScript) != want {
		t.Errorf("the script is\n%s\nwant\n%s", cleanScript, want)
	}
	if !strings.Contains(string(clean), "plain to see") || !strings.Contains(string(clean), "gitlab-ci-token:REDACTED_JOB_TOKEN@") {
		t.Errorf("the response is %s", clean)
	}

	// Whoever replays fills in what it takes.
	if err := os.WriteFile(filepath.Join(out, capturedSecrets), []byte("JOB_TOKEN=mine\nJOB=another\nPRIVATE_THING=with \"quotes\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	replay, err := OpenReplay(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := replay.Job.Variables.Get("PRIVATE_THING"); got != `with "quotes"` {
		t.Errorf("the variable is %s", got)
	}
	if replay.Job.GitInfo.RepoURL != "https://gitlab-ci-token:mine@gitlab.example.com/a/b.git" || !strings.HasPrefix(replay.Job.Instance(), "replay-") {
		t.Errorf("the job is %+v", replay.Job)
	}
	if _, script, err := replay.Script("build_script"); err != nil || !strings.Contains(string(script), "curl -H token:mine") {
		t.Errorf("%v: %s", err, script)
	}
	if _, _, err := replay.Script("get_sources"); err == nil || err.Error() != "no script of stage get_sources was captured: found build_script" {
		t.Error(err)
	}
}

func TestFindJobDir(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "custom-executor123")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "response.json"), []byte(`{"id": 12}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := FindJobDir(tmp, 12); err != nil || got != dir {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := FindJobDir(tmp, 13); err == nil {
		t.Error("found a job that is not there")
	}
}
