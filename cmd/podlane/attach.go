package main

import "github.com/spf13/cobra"

func (a *app) attachCommand(open openOperator) *cobra.Command {
	return &cobra.Command{
		Use:   "attach JOB",
		Short: "Follow a running job's output",
		Long: `Writes what a job's stages have printed so far and goes on until the job is over.
JOB is the job's number, the address of its page, or the name of its pod. The job
does not notice. Unlike the job log, the output is not masked.

Reads:
  --config   the settings: where the cluster and the namespace are
Writes:
  stdout     the stages' output, in order, byte for byte
Exits with 0 when the job is over, 2 if it cannot be found.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := open()
			if err != nil {
				return err
			}
			return o.Attach(cmd.Context(), args[0])
		},
	}
}
