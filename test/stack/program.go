package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"podlane/test/stack/internal/stack"
)

func program(m *stack.Manager) *cobra.Command {
	return &cobra.Command{
		Use: "program NAME", Short: "Print the path of a server that is started without the stack: minio, versitygw", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := m.Program(cmd.Context(), args[0])
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
}
