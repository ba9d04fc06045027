package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// probePause lies between two tries to reach a pod that has a node. The
// kubelet's "Started" event triggers a try as well and mostly comes first;
// this is for events that are late or lost. A try costs 5 ms of CPU time on
// either side; with a pause of 30 ms pods were ready no earlier.
const probePause = 250 * time.Millisecond

// probeQuick bounds how long we try like that. After it, an image is being
// pulled, and the event is enough.
const probeQuick = 5 * time.Second

// probeUntilReady runs podlane-helper in the helper container each time it is
// poked, until it has answered. What the status says is up to a second old;
// a container that answers is a container that runs. The helper is asked, and
// waits in the pod for its sibling's sign of life, because it is started first:
// the 50 ms that an exec takes pass while the build container starts.
func (w *starter) probeUntilReady(ctx context.Context, probe <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-probe:
		}
		done, err := w.tryReady(ctx)
		if done {
			return err
		}
	}
}

// readyEvent is a line of podlane-helper's "ready" command.
type readyEvent struct {
	Event   string  `json:"event"`
	Name    string  `json:"name"`
	Port    int     `json:"port"`
	Seconds float64 `json:"seconds"`
}

// tryReady asks podlane-helper to wait for its own readiness and for the
// services. It is done when podlane-helper has said how that ended.
func (w *starter) tryReady(ctx context.Context) (done bool, err error) {
	timeout := w.settings.Job.ServiceTimeout.D()
	argv := AgentCommand(HelperContainer, w.settings, ReadyArgs(w.services, timeout)...)
	stdout := lines(func(line []byte) {
		var e readyEvent
		if json.Unmarshal(line, &e) != nil {
			return
		}
		switch e.Event {
		case "service":
			w.client.log.Linef("service %s answers on port %d", e.Name, e.Port)
		case "ready":
			done = true
		case "timeout":
			done = true
			err = &Failure{Reason: "service failed", Detail: fmt.Sprintf("%s did not answer on port %d within %s", e.Name, e.Port, timeout)}
		}
	})
	execErr := w.client.Exec(ctx, w.pod.Name, HelperContainer, argv, Streams{Stdout: stdout, Stderr: io.Discard})
	if !done && isDenial(execErr) {
		// It may have been said just before the API server was ready.
		w.denied++
		if w.denied == 1 {
			return false, nil
		}
		return true, &Failure{Reason: "forbidden", Detail: execErr.Error(), Err: execErr}
	}
	// A try that ended without an answer is no error: the container isn't
	// there yet.
	return done, err
}

// lines returns a writer that calls each for every complete line.
func lines(each func([]byte)) *lineWriter { return &lineWriter{each: each} }

type lineWriter struct {
	each func([]byte)
	rest []byte
}

// Write implements io.Writer.
func (l *lineWriter) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.each(line)
		l.rest = rest
	}
}
