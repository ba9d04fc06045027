package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"podlane/internal/artifacts"
	"podlane/internal/version"
)

// gitlabRunner answers for GitLab's binary in helper images that lack it: the
// runner's scripts ask for its version, then for artifacts.
func (p *program) gitlabRunner(args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintf(p.stdout, "podlane-helper %s in the place of gitlab-runner\n", version.String())
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return artifacts.Config{Env: p.environ}.Main(ctx, args, p.stdout, p.stderr)
}
