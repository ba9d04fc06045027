// Package board remembers which version of a service was deployed when.
package board

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Deployment is the newest one of a service.
type Deployment struct {
	Service string    `json:"service" toml:"service"`
	Version string    `json:"version" toml:"version"`
	At      time.Time `json:"at" toml:"at"`
}

// Board holds the newest deployment of each service. It may be used
// concurrently.
type Board struct {
	mu     sync.Mutex
	newest map[string]Deployment
}

// New returns an empty board.
func New() *Board { return &Board{newest: map[string]Deployment{}} }

// Record notes a deployment. One that is older than what the board has changes
// nothing.
func (b *Board) Record(service, version string, at time.Time) error {
	if service == "" || version == "" {
		return fmt.Errorf("deployment of %q in version %q: both are needed", service, version)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at.After(b.newest[service].At) {
		b.newest[service] = Deployment{Service: service, Version: version, At: at.UTC()}
	}
	return nil
}

// Deployments are those on the board, by name of service.
func (b *Board) Deployments() []Deployment {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Deployment, 0, len(b.newest))
	for _, d := range b.newest {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Deployment) int { return strings.Compare(a.Service, b.Service) })
	return list
}
