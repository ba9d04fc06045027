package pod

import (
	"bytes"
	"context"
	"encoding/json"
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

// askTries is how often a program is asked whose answer was lost.
const askTries = 3

// Ask runs a program in a container and decodes the JSON that it answers with.
//
// Of a program that ends at once the output may be lost between API server and
// node, though its good end is not: a closed connection can win over data that is
// there (github.com/moby/spdystream, stream.go, Read). Then it is asked again.
func (c *Client) Ask(ctx context.Context, pod, container string, argv []string, answer any) (err error) {
	for range askTries {
		var out bytes.Buffer
		if err := c.Exec(ctx, pod, container, argv, Streams{Stdout: &out, Stderr: io.Discard}); err != nil {
			return fmt.Errorf("ask container %s of pod %s: %w", container, pod, err)
		}
		if err = json.Unmarshal(out.Bytes(), answer); err == nil {
			return nil
		}
	}
	return fmt.Errorf("ask container %s of pod %s: the answer is not JSON: %w", container, pod, err)
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
