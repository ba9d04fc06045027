package main

import (
	"time"

	"github.com/spf13/cobra"

	"podlane/executor"
)

func (a *app) topCommand(open openOperator) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "List the jobs that have a pod, and what each does",
		Long: `Lists every job with a pod, the oldest first. A stage in brackets has ended: the
job is between two stages. CACHE is what became of the job's caches so far.

Reads:
  --config   the settings: where the cluster and the namespace are
Writes:
  stdout     a line for each job
Exits with 0, or 2 if the cluster does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := open()
			if err != nil {
				return err
			}
			jobs, err := o.Top(cmd.Context())
			if err != nil {
				return err
			}
			return show(a.stdout, asJSON, jobs, []string{"JOB", "PROJECT", "NAME", "STATE", "STAGE", "AGE", "CACHE", "NODE", "POD"}, func(j executor.TopJob) []string {
				stage := j.Stage
				if stage != "" && !j.Busy {
					stage = "(" + stage + ")"
				}
				return []string{j.Job, j.Project, j.Name, j.State, stage, age(time.Since(j.Created)), j.Cache, j.Node, j.Pod}
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
