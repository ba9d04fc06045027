package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"podlane/executor"
)

func (a *app) gcCommand(open openOperator) *cobra.Command {
	var gc executor.GC
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gc [JOB...]",
		Short: "Find, and delete, what jobs have left on the cluster",
		Long: `Lists pods and secrets whose job is over although cleanup never came, and deletes
them with --yes. A pod is over when podlane's containers in it have ended, which
they do by themselves after job.idle_timeout without a stage, or when it is older
than its job's timeout allows. What belongs to a live job is never touched.
JOB, a number, a page or a pod, limits that to some jobs.

Reads:
  --config   the settings: where the cluster and the namespace are
Writes:
  stdout     a line for each thing found
  the cluster, with --yes only
Exits with 0, also if something was found; 2 if it could not look or delete.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			gc.Jobs = args
			o, err := open()
			if err != nil {
				return err
			}
			found, err := o.CollectGarbage(cmd.Context(), gc)
			if showErr := show(a.stdout, asJSON, found, []string{"KIND", "NAME", "JOB", "PROJECT", "AGE", "WHY", "DONE"}, func(c executor.Collected) []string {
				done := "kept: add --yes to delete"
				switch {
				case c.Deleted:
					done = "deleted"
				case gc.Delete:
					done = "kept: it has changed"
				}
				return []string{c.Kind, c.Name, c.Job, c.Project, age(c.Age), c.Why, done}
			}); showErr != nil {
				return fmt.Errorf("write what was found: %w", showErr)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&gc.Delete, "yes", false, "delete what is found")
	cmd.Flags().DurationVar(&gc.Grace, "grace", 10*time.Minute, "how long a job must have been over")
	cmd.Flags().BoolVar(&gc.Namespaces, "namespaces", false, "look for namespaces of single jobs too: needs rights on namespaces")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
