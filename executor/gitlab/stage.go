package gitlab

import "strings"

// Kind says who runs a stage, and where.
type Kind int

const (
	// KindUnknown is a stage that this version has never heard of.
	KindUnknown Kind = iota
	// KindHelper stages run the runner's own script in the helper container:
	// git, artifacts, housekeeping.
	KindHelper
	// KindBuild stages run the job's script in the build container.
	KindBuild
	// KindRestoreCache is ours: the runner's script is not run.
	KindRestoreCache
	// KindArchiveCache is ours too.
	KindArchiveCache
)

// StageArchiveOnFailure saves the caches of a job that has failed.
const StageArchiveOnFailure = "archive_cache_on_failure"

// stages lists what the runner sends to run_exec (gitlab-runner
// common/build.go:72). Names that start with "step_" are the job's own steps;
// "build_script" is the old name that the custom executor still gets for
// "step_script" (executors/custom/custom.go:335).
var stages = map[string]Kind{
	"prepare_script":              KindHelper,
	"get_sources":                 KindHelper,
	"clear_worktree":              KindHelper,
	"restore_cache":               KindRestoreCache,
	"download_artifacts":          KindHelper,
	"build_script":                KindBuild,
	"after_script":                KindBuild,
	"archive_cache":               KindArchiveCache,
	StageArchiveOnFailure:         KindArchiveCache,
	"upload_artifacts_on_success": KindHelper,
	"upload_artifacts_on_failure": KindHelper,
	"cleanup_file_variables":      KindHelper,
}

// StageKind tells how a stage is run.
func StageKind(stage string) Kind {
	if kind, ok := stages[stage]; ok {
		return kind
	}
	if strings.HasPrefix(stage, "step_") {
		return KindBuild
	}
	return KindUnknown
}

// IsJobScript tells whether a stage is the job's own script: before_script and
// script of its YAML.
func IsJobScript(stage string) bool { return stage == "build_script" || stage == "step_script" }
