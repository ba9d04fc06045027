package bed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// barrierLimit is how long Reached waits: no job that goes on at all takes so
// long to get anywhere.
const barrierLimit = 3 * time.Minute

// Barrier is a point in a job's script at which it waits until the test says go.
// With barriers a test forces the order of things, whatever the machine's speed.
type Barrier struct {
	// Command is a line for the script: it tells the test that the script is
	// there, and ends when the test opens the barrier. It needs curl or wget.
	Command string

	reached, opened func()
	isReached       <-chan struct{}
	isOpen          <-chan struct{}
}

// Reached waits until the script is at the barrier.
func (b *Barrier) Reached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	select {
	case <-b.isReached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the script has not come to the barrier %q: %w", b.Command, ctx.Err())
	}
}

// Open lets the script go on, and all that come later. It may be called again.
func (b *Barrier) Open() { b.opened() }

// Barrier makes a barrier for a script that runs on this bed. It holds until it
// is opened, or the bed ends.
func (b *Bed) Barrier() *Barrier { return b.gate.add() }

// gate serves the barriers of a bed to its pods.
type gate struct {
	address string
	http    http.Server

	mu       sync.Mutex
	barriers []*Barrier
}

// openGate listens on a free port of an address that pods can reach.
func openGate(ctx context.Context, address string) (*gate, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("serve barriers: %w", err)
	}
	g := &gate{address: listener.Addr().String()}
	g.http.Handler, g.http.ReadHeaderTimeout = g, time.Minute
	go func() { _ = g.http.Serve(listener) }()
	return g, nil
}

func (g *gate) add() *Barrier {
	g.mu.Lock()
	defer g.mu.Unlock()
	url := fmt.Sprintf("http://%s/%d", g.address, len(g.barriers))
	reached, open := make(chan struct{}), make(chan struct{})
	b := &Barrier{
		Command: "if command -v curl >/dev/null; then curl -fsS " + url + "; else wget -q -O - " + url + "; fi",
		reached: sync.OnceFunc(func() { close(reached) }), isReached: reached,
		opened: sync.OnceFunc(func() { close(open) }), isOpen: open,
	}
	g.barriers = append(g.barriers, b)
	return b
}

func (g *gate) find(path string) (*Barrier, error) {
	i, err := strconv.Atoi(strings.TrimPrefix(path, "/"))
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil || i < 0 || i >= len(g.barriers) {
		return nil, errors.New("no such barrier")
	}
	return g.barriers[i], nil
}

// ServeHTTP answers a script at a barrier when it may go on.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := g.find(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	b.reached()
	select {
	case <-b.isOpen:
	case <-r.Context().Done():
	}
}

func (g *gate) close() error { return g.http.Close() }
