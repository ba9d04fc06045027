package podagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ServicePorts are the ports on which a service must answer.
type ServicePorts struct {
	Name  string
	Ports []int
}

// ParseServicePorts parses "name=port,port".
func ParseServicePorts(s string) (ServicePorts, error) {
	at := strings.LastIndex(s, "=")
	if at < 1 {
		return ServicePorts{}, fmt.Errorf("service %q: expected NAME=PORT[,PORT]", s)
	}
	out := ServicePorts{Name: s[:at]}
	for _, p := range strings.Split(s[at+1:], ",") {
		port, err := strconv.Atoi(p)
		if err != nil || port < 1 || port > 65535 {
			return ServicePorts{}, fmt.Errorf("service %q: %q is not a port", s, p)
		}
		out.Ports = append(out.Ports, port)
	}
	return out, nil
}

// ReadyEvent is a line of Ready's output.
type ReadyEvent struct {
	// Event is "service" for a port that answers, "ready" when all do,
	// "timeout" when one does not, and "not-ready" when one of podlane's own
	// containers, named by Name, is not up: its image is being pulled, say.
	Event   string  `json:"event"`
	Name    string  `json:"name,omitempty"`
	Port    int     `json:"port,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// ErrNotReady is returned by Ready after its timeout.
var ErrNotReady = errors.New("not ready in time")

// Ready returns when both containers of ours work and all services answer on
// their ports, or with ErrNotReady. What happens is written to w as JSON lines.
func Ready(ctx context.Context, l Layout, services []ServicePorts, timeout time.Duration, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	touch(l.alive())
	out := &readyWriter{enc: json.NewEncoder(w)}
	for _, container := range []struct{ name, file string }{{RoleBuild, l.buildUser()}, {RoleHelper, l.helperReady()}} {
		if waitForFile(ctx, container.file) != nil {
			out.write(ReadyEvent{Event: "not-ready", Name: container.name})
			return fmt.Errorf("%w: the %s container is not up", ErrNotReady, container.name)
		}
	}
	var wg sync.WaitGroup
	began := time.Now()
	for _, service := range services {
		for _, port := range service.Ports {
			wg.Go(func() {
				if !dial(ctx, port) {
					out.fail(ReadyEvent{Event: "timeout", Name: service.Name, Port: port})
					return
				}
				out.write(ReadyEvent{Event: "service", Name: service.Name, Port: port, Seconds: time.Since(began).Seconds()})
			})
		}
	}
	wg.Wait()
	if out.failed != nil {
		out.write(*out.failed)
		return ErrNotReady
	}
	out.write(ReadyEvent{Event: "ready"})
	return nil
}

type readyWriter struct {
	mu     sync.Mutex
	enc    *json.Encoder
	failed *ReadyEvent
}

func (o *readyWriter) write(e ReadyEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.enc.Encode(e)
}

func (o *readyWriter) fail(e ReadyEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed == nil {
		o.failed = &e
	}
}

// waitForFile looks at first every 5 ms, since it comes within a few of those
// if its container runs, and in the end every 250 ms.
func waitForFile(ctx context.Context, file string) error {
	for delay := 5 * time.Millisecond; ; delay = min(delay*3/2, 250*time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// dial tries a port of the pod until it answers: at first every 20 ms, in the
// end once a second.
func dial(ctx context.Context, port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for delay := 20 * time.Millisecond; ; delay = min(delay*3/2, time.Second) {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
			return true
		}
		if pause(ctx, delay) != nil {
			return false
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
