package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"podlane/executor/pod"
)

func (a *app) shellCommand(open openOperator) *cobra.Command {
	return &cobra.Command{
		Use:   "shell JOB [-- COMMAND ARG...]",
		Short: "Open a shell in a running job's build container",
		Long: `JOB is the job's number, the address of its page, or the name of its pod. The
shell starts in the project's folder. The job's variables are not set in it: they
live in the job's own scripts only. With a COMMAND that runs instead.

Reads:
  --config       the settings: where the cluster and the namespace are
  stdin          what you type; a terminal if it is one
Exits with the shell's own exit code, 2 if the job cannot be found.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := open()
			if err != nil {
				return err
			}
			var terminal *pod.Terminal
			if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) && len(args) == 1 {
				before, err := term.MakeRaw(fd)
				if err != nil {
					return fmt.Errorf("set up the terminal: %w", err)
				}
				defer func() { _ = term.Restore(fd, before) }()
				ctx, stop := context.WithCancel(cmd.Context())
				defer stop()
				terminal = &pod.Terminal{In: os.Stdin, Out: a.stdout, Sizes: windowSizes(ctx, fd)}
			}
			err = o.Shell(cmd.Context(), args[0], args[1:], os.Stdin, terminal)
			var exit *pod.ExitError
			if errors.As(err, &exit) {
				return &ownExit{exit.Code}
			}
			return err
		},
	}
}

// ownExit is an exit code of which nothing more is to be reported: that of a
// person's own command in a shell, say.
type ownExit struct{ code int }

func (e *ownExit) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// windowSizes sends the terminal's size now and whenever it changes.
func windowSizes(ctx context.Context, fd int) <-chan [2]uint16 {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	sizes := make(chan [2]uint16, 1)
	go func() {
		defer close(sizes)
		defer signal.Stop(changed)
		for {
			if width, height, err := term.GetSize(fd); err == nil {
				select {
				case sizes <- [2]uint16{uint16(width), uint16(height)}:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes
}
