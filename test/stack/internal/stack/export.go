package stack

import (
	"context"
	"errors"
	"fmt"
	"os"

	"podlane/internal/image"
)

// WriteImages writes all images of the tests into one OCI archive, for the
// nodes of another cluster. It needs no stack that runs.
func (m *Manager) WriteImages(ctx context.Context, file string) error {
	if os.Geteuid() != 0 {
		return errors.New("making images needs root: debootstrap makes their file systems")
	}
	unlock, err := m.lock(ctx, "images")
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.installPackages(ctx); err != nil {
		return err
	}
	if err := errors.Join(m.buildPrograms(ctx), m.buildHelper(ctx)); err != nil {
		return err
	}
	big, err := m.bigLayers(ctx)
	if err != nil {
		return err
	}
	list, err := images(ctx, big, m.binDir())
	if err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(image.Write(f, list), f.Close())
}
