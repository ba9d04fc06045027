package stack

import (
	"context"
	"fmt"
	"strings"

	"podlane/test/stack/internal/build"
)

// Program returns the path of a server, for tests and benchmarks that run it
// themselves, without a stack. What isn't built yet takes minutes.
func (m *Manager) Program(ctx context.Context, name string) (string, error) {
	var names []string
	for _, server := range append([]build.Server{build.Versitygw}, build.Servers...) {
		if server.Name == name {
			return build.Builder{Root: m.Stack.Root, Cache: m.Cache, Say: m.say}.Server(ctx, server)
		}
		names = append(names, server.Name)
	}
	return "", fmt.Errorf("no program is called %s, expected one of %s", name, strings.Join(names, ", "))
}
