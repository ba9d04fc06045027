package main

import (
	"fmt"

	"podlane/internal/version"
)

// gitlabRunner answers for GitLab's binary in helper images that lack it.
func (p *program) gitlabRunner(args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintf(p.stdout, "podlane-helper %s in the place of gitlab-runner\n", version.String())
		return 0
	}
	fmt.Fprintln(p.stderr, "podlane-helper: error: artifacts are not supported yet")
	return 1
}
