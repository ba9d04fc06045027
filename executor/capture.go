package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// scriptsFile lists, a line each, the scripts that the runner has sent in a
// job's folder: the stage's name, a tab, the script's path.
const scriptsFile = "podlane-scripts"

// noteScript remembers for Capture which script belongs to which stage.
func (s *Stage) noteScript(stage, path string) {
	if s.Observer.Dir == "" {
		return
	}
	f, err := os.OpenFile(filepath.Join(s.Observer.Dir, scriptsFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s\t%s\n", stage, path)
}

// Names in a captured folder.
const (
	capturedResponse = "response.json"
	capturedStages   = "stages"
	// capturedSecrets is written by whoever replays: NAME=VALUE lines.
	capturedSecrets = "secrets"
)

// Captured says what Capture has written.
type Captured struct {
	Dir    string
	Stages []string
	// Placeholders stand where secrets were.
	Placeholders []string
}

// Capture copies what a job's stages need from its folder on the runner's host,
// or from a job response alone, into a new folder, with a placeholder for each
// secret. It is for Replay.
func Capture(from, to string) (*Captured, error) {
	response := from
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		response = filepath.Join(from, "response.json")
	}
	text, err := os.ReadFile(response)
	if err != nil {
		return nil, fmt.Errorf("read the job response: %w", err)
	}
	var job map[string]any
	if err := json.Unmarshal(text, &job); err != nil {
		return nil, fmt.Errorf("job response %s: not a job in JSON: %w", response, err)
	}
	secrets := findSecrets(job)
	out := &Captured{Dir: to, Placeholders: secrets.names()}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder: %w; hint: name one that is not there", err)
	}
	if err := os.Mkdir(filepath.Join(to, capturedStages), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	clean, err := json.MarshalIndent(secrets.clean(job), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the job response: %w", err)
	}
	if err := os.WriteFile(filepath.Join(to, capturedResponse), clean, 0o600); err != nil {
		return nil, fmt.Errorf("write the job response: %w", err)
	}
	scripts, err := capturedScripts(filepath.Dir(response), job)
	if err != nil {
		return nil, err
	}
	for _, s := range scripts {
		file := filepath.Join(to, capturedStages, s.stage+".sh")
		if err := os.WriteFile(file, []byte(secrets.cleanText(s.text)), 0o600); err != nil {
			return nil, fmt.Errorf("write the script of %s: %w", s.stage, err)
		}
		out.Stages = append(out.Stages, s.stage)
	}
	return out, nil
}

type capturedScript struct{ stage, text string }

// capturedScripts are those that the runner has sent so far, or, where only the
// response is left, plain ones of the job's own steps.
func capturedScripts(dir string, job map[string]any) ([]capturedScript, error) {
	index, err := os.ReadFile(filepath.Join(dir, scriptsFile))
	if errors.Is(err, os.ErrNotExist) {
		return plainScripts(job), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of scripts: %w", err)
	}
	var scripts []capturedScript
	for line := range strings.Lines(string(index)) {
		stage, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || filepath.Base(stage) != stage || stage == "" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the script of %s: %w", stage, err)
		}
		scripts = append(scripts, capturedScript{stage, string(text)})
	}
	return scripts, nil
}

// plainScripts makes scripts of a response's steps: the job's variables, its
// lines, and none of what the runner adds.
func plainScripts(job map[string]any) []capturedScript {
	var head strings.Builder
	head.WriteString("set -e\n")
	for _, v := range objects(job["variables"]) {
		key, value := str(v["key"]), str(v["value"])
		if isName(key) {
			fmt.Fprintf(&head, "export %s=%s\n", key, quote(value))
		}
	}
	var scripts []capturedScript
	for _, step := range objects(job["steps"]) {
		stage := "step_" + str(step["name"])
		switch str(step["name"]) {
		case "script":
			stage = "build_script"
		case "after_script":
			stage = "after_script"
		}
		if filepath.Base(stage) != stage {
			continue
		}
		body := head.String()
		lines, _ := step["script"].([]any)
		for _, line := range lines {
			body += str(line) + "\n"
		}
		scripts = append(scripts, capturedScript{stage, body})
	}
	return scripts
}

func isName(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// objects returns the objects of a JSON list.
func objects(v any) []map[string]any {
	list, _ := v.([]any)
	var out []map[string]any
	for _, item := range list {
		if object, ok := item.(map[string]any); ok {
			out = append(out, object)
		}
	}
	return out
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

// FindJobDir finds the folder of a running job on the runner's host below tmp,
// the runner's folder for temporary files.
func FindJobDir(tmp string, job int64) (string, error) {
	responses, err := filepath.Glob(filepath.Join(tmp, "custom-executor*", "response.json"))
	if err != nil {
		return "", err
	}
	newest, at := "", time.Time{}
	for _, file := range responses {
		data, err := os.ReadFile(file)
		var found struct {
			ID int64 `json:"id"`
		}
		if err != nil || json.Unmarshal(data, &found) != nil || found.ID != job {
			continue
		}
		if info, err := os.Stat(file); err == nil && info.ModTime().After(at) {
			newest, at = filepath.Dir(file), info.ModTime()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("no job %d among the %d that run here, in %s/custom-executor*; hint: name the job's folder, TMPDIR of its stages", job, len(responses), tmp)
	}
	return newest, nil
}
