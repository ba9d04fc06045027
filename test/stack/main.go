// Command stack brings a one-node Kubernetes cluster, a Vault and an S3 server up
// on this machine, for tests and the demo: built from source, without a container
// registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"podlane/test/stack/internal/stack"
	"podlane/test/stack/stackenv"
)

// limit is far beyond a first start, which takes 12 minutes on 2 cores: whoever
// waits for it has met something that hangs.
const limit = 45 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, limit)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	cancel()
	stop()
	os.Exit(code)
}

// errUnhealthy is status's answer, not a failure to be told.
var errUnhealthy = errors.New("not all parts are up")

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	m, err := manager(getenv, stderr)
	if err == nil {
		cmd := commands(m) //nolint:contextcheck // cobra hands the context on
		cmd.SetArgs(args)
		cmd.SetOut(stdout)
		cmd.SetErr(stderr)
		err = cmd.ExecuteContext(ctx)
	}
	if err == nil {
		return 0
	}
	if !errors.Is(err, errUnhealthy) {
		fmt.Fprintf(stderr, "stack: error: %v\n", err)
	}
	return 1
}

func manager(getenv func(string) string, log io.Writer) (*stack.Manager, error) {
	number, err := stackenv.ParseNumber(getenv("PODLANE_STACK"))
	if err != nil {
		return nil, err
	}
	root, err := stackenv.FindRoot(".")
	if err != nil {
		return nil, err
	}
	plan, err := stackenv.New(root, number)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir(getenv)
	if err != nil {
		return nil, err
	}
	return &stack.Manager{Stack: plan, Cache: cache, Log: log}, nil
}

// cacheDir is PODLANE_CACHE, or the user's cache folder.
func cacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("PODLANE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "podlane"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache", "podlane"), nil
	}
	return "", errors.New("there is no folder for caches: set PODLANE_CACHE or HOME")
}

const longHelp = `A stack is a one-node Kubernetes cluster on this machine: etcd, API server,
controller manager, scheduler, kubelet and containerd, with the images that
tests need and a small registry; beside it a Vault, and MinIO as S3 and STS.
It takes root and a Debian machine; missing packages are installed. A first
start builds all that, about 12 minutes on 2 cores; after that it takes seconds.

Environment:
  PODLANE_STACK   number of the stack, 0 to 49, default 0. Stacks of different
                  numbers run side by side.
  PODLANE_CACHE   folder of what is built once and shared by all checkouts,
                  default $XDG_CACHE_HOME/podlane or ~/.cache/podlane

Exits with 0 on success, else 1.`

func commands(m *stack.Manager) *cobra.Command {
	root := &cobra.Command{
		Use: "stack", Short: "A Kubernetes cluster on this machine, for tests", Long: longHelp,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(
		program(m),
		&cobra.Command{
			Use: "up", Short: "Start the stack, or complete and update it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return m.Up(cmd.Context()) },
		},
		down(m),
		&cobra.Command{
			Use: "status", Short: "Show a line for each part; exit with 1 if one is down", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ok, err := m.Status(cmd.Context(), cmd.OutOrStdout())
				if err == nil && !ok {
					err = errUnhealthy
				}
				return err
			},
		},
		&cobra.Command{
			Use: "env", Short: "Print the stack's variables for a shell: eval \"$(go run ./test/stack env)\"", Args: cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) {
				for _, v := range m.Stack.Variables() {
					fmt.Fprintf(cmd.OutOrStdout(), "export %s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
				}
			},
		},
		&cobra.Command{
			Use: "restart PART", Short: "Kill one part and start it again, as a crash would", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return m.Restart(cmd.Context(), args[0]) },
		},
		&cobra.Command{
			Use: "images FILE", Short: "Write the tests' images into an OCI archive, for another cluster's nodes", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return m.WriteImages(cmd.Context(), args[0]) },
		},
	)
	return root
}

func down(m *stack.Manager) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the stack and remove the cluster; images and logs stay", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return m.Down(cmd.Context(), purge) },
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the stack's whole folder, images and logs too")
	return cmd
}
