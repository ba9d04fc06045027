package stackenv

// Images that every stack's node has. They are in no registry: a pod names
// them with imagePullPolicy IfNotPresent or Never.
const (
	// ImagePause is the sandbox of every pod.
	ImagePause = "localhost/pause:1"
	// ImageHelper is the helper image as it is shipped: internal/helperimage.
	ImageHelper = "localhost/podlane/helper:dev"
	// ImageHelperGitLab is a Debian with GitLab's own layout: the artifact
	// commands are at /usr/bin/gitlab-runner-helper.
	ImageHelperGitLab = "localhost/podlane/helper-gitlab:dev"
	// ImageHelperBare has git, but nothing of ours.
	ImageHelperBare = "localhost/podlane/helper-bare:dev"
	// ImageJob is a small Debian with bash, git, curl and make.
	ImageJob = "localhost/podlane/job:dev"
	// ImageJobBusybox has busybox only: sh, no bash.
	ImageJobBusybox = "localhost/podlane/job-busybox:dev"
	// ImageJobNonroot runs as 1000:1000 and has an entrypoint that fails.
	ImageJobNonroot = "localhost/podlane/job-nonroot:dev"
	// ImageJobKaniko has its shell at /busybox/sh and no /bin.
	ImageJobKaniko = "localhost/podlane/job-kaniko:dev"
	// ImageJobNoShell has one static program and no shell.
	ImageJobNoShell = "localhost/podlane/job-noshell:dev"
	// ImageService stands in for a database: see test/images/service.
	ImageService = "localhost/podlane/service:dev"
	// ImageGo is ImageJob with Go and Node.js, for the example's jobs.
	ImageGo = "localhost/podlane/go:dev"
)
