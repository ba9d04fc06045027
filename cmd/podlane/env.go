package main

import (
	"strconv"
	"strings"

	"gitlab.com/gitlab-org/gitlab-runner/executors/custom/api"

	"podlane/internal/trace"
)

// defaultConfig is where the settings are unless --config or PODLANE_CONFIG
// says otherwise.
const defaultConfig = "/etc/podlane/podlane.toml"

// environment is all that podlane reads from its environment. Variables that
// start with CUSTOM_ENV_ are not among it: whoever writes a job controls them.
type environment struct {
	config            string
	jobResponseFile   string
	buildExitCodeFile string
	buildFailure      int
	systemFailure     int
	// otlp is OpenTelemetry's share of the environment.
	otlp trace.Environment
}

func readEnvironment(environ []string) environment {
	env := environment{config: defaultConfig, buildFailure: 1, systemFailure: 2, otlp: trace.Environment{}}
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		if trace.IsStandard(key) {
			env.otlp[key] = value
		}
		switch key {
		case "PODLANE_CONFIG":
			env.config = value
		case api.JobResponseFileVariable:
			env.jobResponseFile = value
		case api.BuildCodeFileVariable:
			env.buildExitCodeFile = value
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
