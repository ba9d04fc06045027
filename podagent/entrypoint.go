package podagent

import (
	"os"
	"path/filepath"
	"strings"
)

// environ holds the environment that an image's entrypoint has made for process
// 1: a stage's own process comes from the container runtime and lacks it.
func (l Layout) environ() string { return filepath.Join(l.State, "environ") }

// keepEnv writes process 1's environment down. Its values can hold any byte but
// zero.
func (l Layout) keepEnv(environ []string) error {
	return writeWhole(l.environ(), strings.NewReader(strings.Join(environ, "\x00")), 0o600)
}

// keptEnv returns what process 1 has written down, or else the given one.
func (l Layout) keptEnv(otherwise []string) []string {
	text, err := os.ReadFile(l.environ())
	if err != nil || len(text) == 0 {
		return otherwise
	}
	return strings.Split(string(text), "\x00")
}
