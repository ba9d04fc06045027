package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"podlane/test/stack/internal/build"
	"podlane/test/stack/stackenv"
)

// ownerFile says which folder a number's machine-wide things (ports, bridge,
// sockets) belong to.
func ownerFile(s stackenv.Stack) string { return filepath.Join(s.RunDir, "owner") }

// lockLimit is far beyond what one command takes: a first up 12 minutes on
// 2 cores.
const lockLimit = 30 * time.Minute

// lock keeps two commands for one number apart, from whichever checkout. It
// waits for the one that came first.
func (m *Manager) lock(ctx context.Context, command string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockLimit, fmt.Errorf("it has not ended after %s", lockLimit))
	defer cancel()
	return build.Lock(ctx, m.Stack.RunDir+".lock", command+" in "+m.Stack.Root, func(holder string) {
		m.say("waiting for %s to end", holder)
	})
}

// owner returns the folder that number s.Number belongs to; s.Dir if it is free.
func owner(s stackenv.Stack) (string, error) {
	text, err := os.ReadFile(ownerFile(s))
	if errors.Is(err, fs.ErrNotExist) {
		return s.Dir, nil
	}
	if err != nil {
		return "", fmt.Errorf("find out whose stack %d is: %w", s.Number, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// checkOwner refuses to touch a stack that runs for another checkout. Remains
// of a checkout that is gone, or of a stack that doesn't run, are anybody's.
func checkOwner(s stackenv.Stack, owner string, runs bool) error {
	if owner == s.Dir || !runs || !checkoutExists(owner) {
		return nil
	}
	return fmt.Errorf("stack %d belongs to %s: take it down there, or choose another number in PODLANE_STACK", s.Number, owner)
}

// checkoutExists doesn't look for the stack's folder itself: what is mounted in
// it outlives the attempt to remove the checkout.
func checkoutExists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "..", "..", "go.mod"))
	return err == nil
}

// takeOwnership makes s the owner.
func takeOwnership(s stackenv.Stack) error {
	for _, dir := range []string{s.Dir, s.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return writeIfChanged(ownerFile(s), 0o644, []byte(s.Dir+"\n"))
}
