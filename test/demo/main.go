// Command demo shows podlane at work: it runs the pipeline of
// examples/monorepo, as GitLab would run it for a merge request, on the running
// test bed, and prints the logs of the jobs as they come.
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
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

// limit bounds the whole demo; its pipeline takes less than a minute.
const limit = 15 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not all jobs succeeded")

func run(ctx context.Context, environ []string, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	options := bed.Options{Root: ".", Environ: environ, Concurrent: 6}
	bed.Review(&options)
	b, err := bed.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	pipe, plan, err := prepare(ctx, b)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "GitLab is at %s; the pipeline of %s has %d jobs\n\n", b.GitLab.URL(), pipe.Project.Path, len(plan.Jobs))
	first, err := follow(ctx, b, pipe, plan, &printer{out: out, width: widest(plan)})
	if err != nil {
		return err
	}
	if err := summarise(out, first, nil); err != nil {
		return err
	}

	// The same once more: what is cached need not be made again.
	fmt.Fprintf(out, "\nthe same pipeline again; of the logs, what they say about caches:\n\n")
	again, err := b.GitLab.NewPipeline(ctx, pipe.PipelineSpec)
	if err != nil {
		return err
	}
	second, err := follow(ctx, b, again, plan, &printer{out: out, width: widest(plan), only: aboutCaches})
	if err != nil {
		return err
	}
	return summarise(out, second, &first)
}

// aboutCaches picks the lines of a log that tell what became of a cache.
func aboutCaches(text string) bool { return strings.HasPrefix(text, "cache ") }

// follow runs a pipeline and prints the logs of its jobs as they come.
func follow(ctx context.Context, b *bed.Bed, pipe *gitlabsim.Pipeline, plan *pipeline.Plan, printer *printer) (pipeline.Report, error) {
	var logs sync.WaitGroup
	report, err := pipeline.Run(ctx, b.GitLab, pipe, plan, pipeline.Options{
		Enqueued: func(job *gitlabsim.Job, planned pipeline.PlannedJob) {
			logs.Go(func() {
				w := &jobWriter{printer: printer, job: planned.Name}
				_ = job.Follow(ctx, w)
				w.flush()
			})
		},
	})
	logs.Wait()
	return report, err
}

// prepare puts the example into a project and plans its pipeline for a merge
// request.
func prepare(ctx context.Context, b *bed.Bed) (*gitlabsim.Pipeline, *pipeline.Plan, error) {
	variables, err := b.ReviewVariables(ctx)
	if err != nil {
		return nil, nil, err
	}
	project, err := b.AddProject(ctx, gitlabsim.ProjectSpec{Path: "examples/monorepo", Variables: variables})
	if err != nil {
		return nil, nil, err
	}
	return pipeline.MergeRequest(ctx, project, b.GitLab, filepath.Join(b.Root(), "examples", "monorepo"))
}

func widest(plan *pipeline.Plan) int {
	width := 0
	for _, job := range plan.Jobs {
		width = max(width, len(job.Name))
	}
	return width
}

// summarise prints the table, beside the run before if there was one, and the
// last line.
func summarise(out io.Writer, report pipeline.Report, before *pipeline.Report) error {
	ran, succeeded := 0, 0
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	heading := "JOB\tPOD\tWAITED\tRAN\tRESULT"
	if before != nil {
		heading += "\tRAN BEFORE"
	}
	fmt.Fprintln(w, heading)
	for _, row := range report.Rows {
		if row.Job == nil {
			fmt.Fprintf(w, "%s\t\t\t\t%s\n", row.Name, row.State)
			continue
		}
		ran++
		if row.State == string(gitlabsim.Success) {
			succeeded++
		}
		fmt.Fprintf(w, "%s\t%s\t%.1fs\t%.1fs\t%s", row.Name, podOf(row.Job), row.Waited().Seconds(), row.Ran().Seconds(), row.State)
		if before != nil {
			fmt.Fprintf(w, "\t%.1fs", before.Row(row.Name).Ran().Seconds())
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nthe longest path took %.1fs\ndemo: %d jobs, %d succeeded\n", report.Wall.Seconds(), ran, succeeded)
	if !report.Succeeded() || ran == 0 {
		return errFailed
	}
	return nil
}

// podOf finds the pod's name where everybody else would: in the log.
func podOf(job *gitlabsim.Job) string {
	trace, err := job.Trace()
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(trace), "starting pod ")
	name, _, _ := strings.Cut(rest, " ")
	return name
}
