package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"podlane/executor"
	"podlane/executor/pod"
	"podlane/executor/settings"
)

func (a *app) gcCommand(open openOperator) *cobra.Command {
	var gc executor.GC
	var asJSON, uploads bool
	cmd := &cobra.Command{
		Use:   "gc [JOB...]",
		Short: "Find, and delete, what jobs have left on the cluster",
		Long: `Lists pods and secrets whose job is over although cleanup never came, and deletes
them with --yes. A pod is over when podlane's containers in it have ended, which
they do by themselves after job.idle_timeout without a stage, or when it is older
than its job's timeout allows. What belongs to a live job is never touched.
JOB, a number, a page or a pod, limits that to some jobs.
With --uploads it looks in the bucket of the caches too, for uploads that were
never finished, with credentials of the caller's own: see podlane cache.

Reads:
  --config   the settings: where the cluster, the namespace and the bucket are
Writes:
  stdout     a line for each thing found
  the cluster and the bucket, with --yes only
Exits with 0, also if something was found; 2 if it could not look or delete.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if uploads && len(args) > 0 {
				return errors.New("--uploads goes without JOB: an upload does not tell its job")
			}
			if gc.Grace < 0 {
				return fmt.Errorf("--grace is %s: what a live job has is nobody's to delete", gc.Grace)
			}
			gc.Jobs = args
			o, err := open()
			if err != nil {
				return err
			}
			found, err := o.CollectGarbage(cmd.Context(), gc)
			if uploads {
				more, uploadsErr := a.collectUploads(cmd.Context(), gc)
				found, err = append(found, more...), errors.Join(err, uploadsErr)
			}
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
	cmd.Flags().BoolVar(&uploads, "uploads", false, "look for unfinished uploads of caches too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// collectUploads finds uploads of caches that no job can be at any more: none
// takes longer than cache.timeout.
func (a *app) collectUploads(ctx context.Context, gc executor.GC) ([]executor.Collected, error) {
	s, err := settings.Load(a.config)
	if err != nil {
		return nil, err
	}
	admin, err := a.bucket(ctx)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	now := time.Now()
	uploads, err := admin.Uploads(ctx, now.Add(-s.Cache.Timeout.D()-gc.Grace))
	errs := []error{err}
	var all []executor.Collected
	for _, u := range uploads {
		c := executor.Collected{Leftover: pod.Leftover{
			Kind: "upload", Name: u.Object, Project: strconv.FormatInt(u.Project, 10), Age: now.Sub(u.Begun), Why: "was never finished",
		}}
		c.AgeSeconds = int64(c.Age.Seconds())
		if gc.Delete {
			err := admin.Abort(ctx, u)
			c.Deleted = err == nil
			errs = append(errs, err)
		}
		all = append(all, c)
	}
	return all, errors.Join(errs...)
}
