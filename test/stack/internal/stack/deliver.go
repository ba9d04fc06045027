package stack

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"podlane/internal/image"
	"podlane/test/stack/stackenv"
)

func randomPassword() string { return rand.Text() }

// deliverImages gives the node its images and the registry its two.
func (m *Manager) deliverImages(ctx context.Context, big layers, registry part) error {
	list, err := images(ctx, big, m.binDir())
	if err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	imported, err := m.containerd().Import(ctx, list)
	if err != nil {
		return err
	}
	if len(imported) > 0 {
		m.say("imported %s", strings.Join(imported, " "))
	}
	err = await(ctx, "registry", startLimit, []part{registry}, func(ctx context.Context) error {
		return getOK(ctx, "http://"+m.Stack.RegistryAddress+"/v2/")
	})
	if err != nil {
		return err
	}
	return m.fillRegistry(ctx, list)
}

func (m *Manager) fillRegistry(ctx context.Context, list []image.Image) error {
	password, err := os.ReadFile(m.Stack.RegistryPasswordFile)
	if err != nil {
		return err
	}
	registry := image.Registry{Address: m.Stack.RegistryAddress, User: stackenv.RegistryUser, Password: string(password)}
	at := slices.IndexFunc(list, func(i image.Image) bool { return i.Name == stackenv.ImageJobBusybox })
	for _, repository := range []string{"public/job-busybox", "private/job-busybox"} {
		if err := registry.Push(ctx, list[at], repository, "1"); err != nil {
			return err
		}
	}
	return nil
}

func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return nil
}
