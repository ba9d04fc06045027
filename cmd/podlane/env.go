package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gitlab.com/gitlab-org/gitlab-runner/executors/custom/api"

	"podlane/executor"
	"podlane/executor/gitlab"
	"podlane/internal/redact"
	"podlane/internal/trace"
)

// defaultConfig is where the settings are unless --config or PODLANE_CONFIG
// says otherwise.
const defaultConfig = "/etc/podlane/podlane.toml"

// environment is all that podlane reads from its environment.
type environment struct {
	config            string
	jobResponseFile   string
	buildExitCodeFile string
	buildFailure      int
	systemFailure     int
	// sealKey opens what earlier stages of the attempt have left.
	sealKey redact.Secret
	// runnerVariables are those that start with CUSTOM_ENV_. Whoever writes a
	// job controls them: they are for what that person decides anyway, the keys
	// and paths of caches.
	runnerVariables gitlab.Variables
	// otlp is OpenTelemetry's share of the environment.
	otlp trace.Environment
	// person is for commands that people call, and for no stage.
	person person
}

// person is what the environment says about whoever calls podlane by hand.
type person struct {
	token redact.Secret
	home  string
	// aws is set if they have chosen AWS credentials.
	aws bool
}

// vaultToken is the person's: VAULT_TOKEN, or what `vault login` has left. There
// is none for who has chosen AWS credentials, or never logged in.
func (p person) vaultToken() (redact.Secret, error) {
	switch {
	case p.aws:
		return redact.Secret{}, nil
	case !p.token.IsZero() || p.home == "":
		return p.token, nil
	}
	text, err := os.ReadFile(filepath.Join(p.home, ".vault-token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return redact.Secret{}, fmt.Errorf("read your Vault token: %w", err)
	}
	return redact.New(strings.TrimSpace(string(text))), nil
}

func readEnvironment(environ []string) environment {
	env := environment{config: defaultConfig, buildFailure: 1, systemFailure: 2, otlp: trace.Environment{}}
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		if trace.IsStandard(key) {
			env.otlp[key] = value
		}
		if name, ok := strings.CutPrefix(key, "CUSTOM_ENV_"); ok {
			env.runnerVariables = append(env.runnerVariables, gitlab.Variable{Key: name, Value: value})
			continue
		}
		switch key {
		case "VAULT_TOKEN":
			env.person.token = redact.New(value)
		case "HOME":
			env.person.home = value
		case "AWS_ACCESS_KEY_ID", "AWS_PROFILE":
			env.person.aws = env.person.aws || value != ""
		case "PODLANE_CONFIG":
			env.config = value
		case api.JobResponseFileVariable:
			env.jobResponseFile = value
		case api.BuildCodeFileVariable:
			env.buildExitCodeFile = value
		case executor.SealKeyVariable:
			env.sealKey = redact.New(value)
		case api.BuildFailureExitCodeVariable:
			env.buildFailure = exitCode(value, env.buildFailure)
		case api.SystemFailureExitCodeVariable:
			env.systemFailure = exitCode(value, env.systemFailure)
		}
	}
	return env
}

func exitCode(value string, fallback int) int {
	if code, err := strconv.Atoi(value); err == nil && code > 0 && code < 256 {
		return code
	}
	return fallback
}

// forgetVault takes what the libraries would read on their own out of the
// process's environment: where Vault is and who we are to it stands in the
// settings, and nowhere else.
func forgetVault(environ []string) {
	for _, entry := range environ {
		key, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(key, "VAULT_") || strings.HasPrefix(key, "BAO_") {
			_ = os.Unsetenv(key)
		}
	}
}
