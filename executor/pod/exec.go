package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// Streams are the standard streams of a program in a pod.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a program in a container until it ends or the stream breaks. An
// *ExitError says that the program itself ended with a code other than 0.
//
// The end of the stream says nothing about what the program has done: a caller
// who must know asks the program to write it down.
//
// Nothing is written to the streams once Exec has returned.
func (c *Client) Exec(ctx context.Context, pod, container string, argv []string, streams Streams) error {
	executor, err := c.executor(pod, &corev1.PodExecOptions{
		Container: container,
		Command:   argv,
		Stdin:     streams.Stdin != nil,
		Stdout:    streams.Stdout != nil,
		Stderr:    streams.Stderr != nil,
	})
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdin: streams.Stdin}
	if streams.Stdout != nil {
		stdout := &open{w: streams.Stdout}
		defer stdout.close()
		options.Stdout = stdout
	}
	if streams.Stderr != nil {
		stderr := &open{w: streams.Stderr}
		defer stderr.close()
		options.Stderr = stderr
	}
	err = executor.StreamWithContext(ctx, options)
	if isDenial(err) && !c.ready(ctx) {
		return &startingError{err}
	}
	return exitError(err)
}

// open passes on what is written until it is closed. client-go returns as soon
// as a context ends and leaves behind the goroutines that copy
// (tools/remotecommand/websocket.go, StreamWithContext): a write under way
// would go on beside the next exec's, and its bytes would come twice.
type open struct {
	mu sync.Mutex
	w  io.Writer // nil once closed
}

// Write implements io.Writer.
func (o *open) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w == nil {
		return 0, io.ErrClosedPipe
	}
	return o.w.Write(p)
}

// close waits for a write under way: whoever reads decides how long it takes.
func (o *open) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w = nil
}

// executor is one exec, not begun.
func (c *Client) executor(pod string, options *corev1.PodExecOptions) (remotecommand.Executor, error) {
	url := c.rest.Post().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("exec").VersionedParams(options, c.params).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", url.String())
	if err != nil {
		return nil, fmt.Errorf("set up exec: %w", err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", url)
	if err != nil {
		return nil, fmt.Errorf("set up exec: %w", err)
	}
	// SPDY is for API servers before 1.30 and for proxies that know no WebSocket.
	executor, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, fmt.Errorf("set up exec: %w", err)
	}
	return executor, nil
}

func exitError(err error) error {
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		return &ExitError{Code: exit.Code}
	}
	return err
}

// ExitError says that a program in the pod ended with a code other than 0.
type ExitError struct{ Code int }

// Error names the code.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// IsExecRefusal tells a program that could not be started, or that ended in an
// error of its own, from a stream that broke.
func IsExecRefusal(err error) bool {
	if err == nil {
		return false
	}
	var exit *ExitError
	return errors.As(err, &exit) || strings.Contains(err.Error(), "OCI runtime exec failed") || isDenial(err)
}
