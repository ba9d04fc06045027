package pod

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"
)

// Terminal is a person's.
type Terminal struct {
	In  io.Reader
	Out io.Writer
	// Sizes gets the window's width and height now and after each change; it is
	// closed when there will be no more.
	Sizes <-chan [2]uint16
}

// ExecTerminal is Exec with a terminal in the container, whose two outputs are
// one.
func (c *Client) ExecTerminal(ctx context.Context, pod, container string, argv []string, t Terminal) error {
	executor, err := c.executor(pod, &corev1.PodExecOptions{Container: container, Command: argv, Stdin: true, Stdout: true, TTY: true})
	if err != nil {
		return err
	}
	return exitError(executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: t.In, Stdout: t.Out, Tty: true, TerminalSizeQueue: sizes(t.Sizes)}))
}

type sizes <-chan [2]uint16

// Next implements remotecommand.TerminalSizeQueue.
func (s sizes) Next() *remotecommand.TerminalSize {
	size, open := <-s
	if !open {
		return nil
	}
	return &remotecommand.TerminalSize{Width: size[0], Height: size[1]}
}
