package stack

import (
	"context"
	"fmt"

	"podlane/test/stack/internal/build"
)

// Program returns the path of a server that a stack doesn't run, for tests that
// run it themselves. What isn't built yet takes minutes.
func (m *Manager) Program(ctx context.Context, name string) (string, error) {
	if name != build.Versitygw.Name {
		return "", fmt.Errorf("no program is called %s, expected %s", name, build.Versitygw.Name)
	}
	return build.Builder{Root: m.Stack.Root, Cache: m.Cache, Say: m.say}.Server(ctx, build.Versitygw)
}
