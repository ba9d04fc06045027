package build

import (
	"context"
	"os"
	"path/filepath"
)

// Programs builds packages of the checkout at root into folder dir, a program
// each, named as its package's folder. Go itself knows what is up to date.
func Programs(ctx context.Context, root, dir string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return goBuild(ctx, root, dir+string(filepath.Separator), "-s -w", packages...)
}
