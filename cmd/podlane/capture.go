package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"podlane/executor"
)

func (a *app) captureCommand() *cobra.Command {
	var tmp string
	cmd := &cobra.Command{
		Use:   "capture JOB OUT",
		Short: "Copy a running job's folder without its secrets, for replay",
		Long: `JOB is the number of a job that runs on this host, its folder (TMPDIR of its
stages), or a file with a job response. OUT is a new folder. Secrets become
placeholders, REDACTED_NAME: variables that are masked, not public, files or named
like secrets, passwords, tokens. Look through the scripts before you pass them on:
what a job's author has written into them is still there.

Reads:
  JOB        job response and scripts
Writes:
  OUT        response.json, stages/STAGE.sh
  stdout     the stages and the placeholders
Exits with 0, or 2 if something is missing.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			from := args[0]
			if id, err := strconv.ParseInt(from, 10, 64); err == nil {
				if from, err = executor.FindJobDir(tmp, id); err != nil {
					return err
				}
			}
			captured, err := executor.Capture(from, args[1])
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "stages: %s\nplaceholders: %s\n", strings.Join(captured.Stages, " "), strings.Join(captured.Placeholders, " "))
			return nil
		},
	}
	cmd.Flags().StringVar(&tmp, "tmp", os.TempDir(), "the runner's `folder` for temporary files")
	return cmd
}
