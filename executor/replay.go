package executor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/internal/redact"
)

// Replay is a captured folder, ready to be run again.
type Replay struct {
	dir string
	// secrets are values by placeholder.
	secrets map[string]string
	Job     *gitlab.Job
}

var placeholder = regexp.MustCompile(placeholderPrefix + `\w+`)

// fill puts values in the place of placeholders that have one.
func (r *Replay) fill(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		if value, known := r.secrets[name]; known {
			return value
		}
		return name
	})
}

// unfilled warns of placeholders that a script runs with.
func (s *Stage) unfilled(stage string, script []byte) {
	names := placeholder.FindAllString(string(script), -1)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > 0 {
		s.Log.Warnf("the script of %s has placeholders without a value: %s", stage, strings.Join(names, " "))
	}
}

// OpenReplay reads a folder that Capture has written. Where it has a file named
// secrets with lines NAME=VALUE, the values take the place of REDACTED_NAME.
//
// The job becomes another one of a GitLab instance of its own, so that its pod
// is never that of the job which was captured.
func OpenReplay(dir string) (*Replay, error) {
	r := &Replay{dir: dir, secrets: map[string]string{}}
	given, err := os.ReadFile(filepath.Join(dir, capturedSecrets))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the secrets: %w", err)
	}
	for line := range strings.Lines(string(given)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok {
			r.secrets[placeholderPrefix+strings.TrimPrefix(name, placeholderPrefix)] = value
		}
	}
	response, err := os.ReadFile(filepath.Join(dir, capturedResponse))
	if err != nil {
		return nil, fmt.Errorf("read the captured job: %w", err)
	}
	var captured any
	if err := json.Unmarshal(response, &captured); err != nil {
		return nil, fmt.Errorf("job response %s: not a job in JSON: %w", filepath.Join(dir, capturedResponse), err)
	}
	filled, err := json.Marshal(rewrite(captured, r.fill, func(map[string]any) {}))
	if err != nil {
		return nil, fmt.Errorf("fill the captured job: %w", err)
	}
	job, err := gitlab.ParseJob(bytes.NewReader(filled))
	if err != nil {
		return nil, fmt.Errorf("job response %s: %w", filepath.Join(dir, capturedResponse), err)
	}
	id := make([]byte, 6)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	job.JobInfo.InstanceUUID = "replay-" + hex.EncodeToString(id)
	r.Job = job
	return r, nil
}

// Script is a captured stage's.
func (r *Replay) Script(stage string) (path string, script []byte, err error) {
	path = filepath.Join(r.dir, capturedStages, filepath.Base(stage)+".sh")
	text, err := os.ReadFile(path)
	if err != nil {
		var have []string
		files, _ := filepath.Glob(filepath.Join(r.dir, capturedStages, "*.sh"))
		for _, f := range files {
			have = append(have, strings.TrimSuffix(filepath.Base(f), ".sh"))
		}
		return "", nil, fmt.Errorf("no script of stage %s was captured: found %s", stage, strings.Join(have, ", "))
	}
	return path, []byte(r.fill(string(text))), nil
}

// Replay runs stages of a captured job in a pod of their own, one after the
// other until one fails. With keep the pod stays: it ends after job.idle_timeout.
func (s *Stage) Replay(ctx context.Context, r *Replay, stages []string, keep bool) (err error) {
	for _, value := range r.secrets {
		s.Secrets.Add(redact.New(value))
	}
	if _, err := s.credentials(); err != nil {
		return fmt.Errorf("access to the cluster comes from Vault and the job's id_token, which is not captured: %w; hint: --kubeconfig", err)
	}
	type call struct {
		stage, path string
		script      []byte
	}
	var calls []call
	for _, stage := range stages {
		path, script, err := r.Script(stage)
		if err != nil {
			return err
		}
		calls = append(calls, call{stage, path, script})
	}
	defer func() {
		if keep {
			s.Log.Linef("the pod stays: podlane shell %s opens a shell in it", pod.Name(s.Job))
			return
		}
		err = errors.Join(err, s.Cleanup(context.WithoutCancel(ctx)))
	}()
	if err := s.Prepare(ctx); err != nil {
		return err
	}
	for _, c := range calls {
		s.Log.Linef("stage %s", c.stage)
		s.unfilled(c.stage, c.script)
		if err := s.Run(ctx, c.stage, c.path, c.script); err != nil {
			return err
		}
	}
	return nil
}
