// Package stack brings a one-node Kubernetes cluster up and down on this
// machine.
package stack

import (
	"fmt"
	"io"
	"path/filepath"

	"podlane/internal/image"
	"podlane/test/stack/stackenv"
)

// Manager brings one stack up and down.
type Manager struct {
	Stack stackenv.Stack
	// Cache is a folder that all checkouts share: built servers and layers.
	Cache string
	// Log gets a line for each step.
	Log io.Writer
}

func (m *Manager) say(format string, args ...any) {
	fmt.Fprintf(m.Log, "stack %d: %s\n", m.Stack.Number, fmt.Sprintf(format, args...))
}

func (m *Manager) containerd() image.Containerd {
	return image.Containerd{Socket: m.Stack.ContainerdSocket}
}

// binDir has the checkout's own programs.
func (m *Manager) binDir() string { return filepath.Join(m.Stack.Dir, "bin") }

// known are the parts for whoever wants to find or end them: where their
// programs lie doesn't matter for that.
func (m *Manager) known() []part { return parts(m.Stack, programs{}) }

func running(list []part) bool {
	for _, p := range list {
		if p.Pid() != 0 {
			return true
		}
	}
	return false
}
