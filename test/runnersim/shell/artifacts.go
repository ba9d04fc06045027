package shell

import (
	"strconv"

	"podlane/test/runnersim/spec"
)

func (s *script) downloadArtifacts() error {
	var from []spec.Dependency
	for _, d := range s.Job.Dependencies {
		if d.ArtifactsFile.Filename != "" {
			from = append(from, d)
		}
	}
	if len(from) == 0 {
		return ErrSkip
	}
	s.inProject()
	s.guard("Artifacts downloading", func() {
		for _, d := range from {
			s.notice("Downloading artifacts for %s (%d)...", d.Name, d.ID)
			s.command(Runner, "artifacts-downloader",
				"--url", s.ServerURL, "--token", d.Token, "--id", strconv.FormatInt(d.ID, 10))
		}
	})
	s.chown(s.CacheDir, s.RootDir)
	return nil
}

func (s *script) uploadArtifacts(success bool) error {
	var uploads [][]string
	for _, a := range s.Job.Artifacts {
		paths := s.artifactPaths(a)
		if spec.Applies(a.When, success) && len(paths) > 0 {
			uploads = append(uploads, append(s.uploadArgs(), append(paths, artifactOptions(a)...)...))
		}
	}
	if len(uploads) == 0 {
		return ErrSkip
	}
	s.inProject()
	for _, args := range uploads {
		s.guard("Uploading artifacts", func() {
			s.notice("Uploading artifacts...")
			s.command(Runner, args...)
		})
	}
	return nil
}

// uploadArgs holds the runner's default timeouts (gitlab-runner
// common/consts.go, DefaultArtifactUploadTimeout and its neighbour).
func (s *script) uploadArgs() []string {
	return []string{
		"artifacts-uploader",
		"--url", s.ServerURL, "--token", s.Job.Token, "--id", strconv.FormatInt(s.Job.ID, 10),
		"--timeout", "1h0m0s", "--response-header-timeout", "10m0s",
	}
}

func (s *script) artifactPaths(a spec.Artifact) []string {
	args := pathArgs(a.Paths, false)
	for _, p := range a.Exclude {
		args = append(args, "--exclude", p)
	}
	if a.Untracked {
		args = append(args, "--untracked")
	}
	return args
}

func artifactOptions(a spec.Artifact) []string {
	var args []string
	for _, o := range [][2]string{
		{"--name", a.Name},
		{"--expire-in", a.ExpireIn},
		{"--artifact-format", a.Format},
		{"--artifact-type", a.Type},
	} {
		if o[1] != "" {
			args = append(args, o[0], o[1])
		}
	}
	return args
}
