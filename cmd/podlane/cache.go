package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"podlane/cacheclient/key"
	"podlane/executor"
	"podlane/executor/cacheadmin"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/version"
)

// cacheCommand is for people; they bring credentials of their own.
func (a *app) cacheCommand() *cobra.Command {
	c := &cacheCommands{app: a}
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look at caches, fetch and remove them",
		Long: `Works on the bucket that the settings name, with credentials of the caller's own:
AWS_ACCESS_KEY_ID or AWS_PROFILE; else, where the settings have a Vault, those
that it gives for VAULT_TOKEN or the token in ~/.vault-token; else what the AWS
SDK finds. See docs/cache-admin.md.`,
	}
	cmd.PersistentFlags().BoolVar(&c.json, "json", false, "write JSON")
	cmd.PersistentFlags().Int64Var(&c.filter.Project, "project", 0, "only caches of the project with that `id`")
	cmd.PersistentFlags().StringVar(&c.scope, "scope", "", `only caches of that scope: "protected" or "unprotected"`)
	cmd.AddCommand(c.ls(), c.inspect(), c.get(), c.rm(), c.stats(), c.prune())
	return cmd
}

// cacheCommands hold the flags that they share.
type cacheCommands struct {
	*app
	json   bool
	scope  string
	filter cacheadmin.Filter
}

func (c *cacheCommands) open(ctx context.Context) (*cacheadmin.Admin, error) {
	switch scope := key.Scope(c.scope); scope {
	case "", key.Protected, key.Unprotected:
		c.filter.Scope = scope
	default:
		return nil, fmt.Errorf("--scope is %q, expected %q or %q", c.scope, key.Protected, key.Unprotected)
	}
	return c.bucket(ctx)
}

// bucket opens the bucket with the caller's own credentials.
func (a *app) bucket(ctx context.Context) (*cacheadmin.Admin, error) {
	s, err := settings.Load(a.config)
	if err != nil {
		return nil, err
	}
	token, err := a.env.person.vaultToken()
	if err != nil {
		return nil, err
	}
	source, err := executor.PersonsSource(&s, token, a.secrets, joblog.New(a.stderr).Warnf)
	if err != nil {
		return nil, err
	}
	return cacheadmin.Open(ctx, s.Cache, source, "podlane/"+version.String(), http.ProxyFromEnvironment)
}

// with runs a command on the bucket.
func (c *cacheCommands) with(do func(ctx context.Context, admin *cacheadmin.Admin, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		admin, err := c.open(cmd.Context())
		if err != nil {
			return err
		}
		defer admin.Close()
		return do(cmd.Context(), admin, args)
	}
}

func (c *cacheCommands) show(entries []cacheadmin.Entry) error {
	now := time.Now()
	return show(c.stdout, c.json, entries, []string{"KEY", "PROJECT", "SCOPE", "SIZE", "AGE", "PATHS", "OBJECT"}, func(e cacheadmin.Entry) []string {
		return []string{e.Key, strconv.FormatInt(e.Project, 10), string(e.Scope), joblog.Size(e.Size), age(now.Sub(e.Modified)), string(e.PathsID), e.Object}
	})
}

func (c *cacheCommands) ls() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [KEY]",
		Short: "List caches, the youngest first",
		Long: `Lists caches, the youngest first: all, or those with that key. A key that ends in
"*" stands for all keys that start like that. AGE counts from when the cache was
written or last refreshed, as the bucket's lifecycle does.`,
		Args: cobra.MaximumNArgs(1),
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, args []string) error {
			c.filter.Key = strings.Join(args, "")
			entries, err := admin.List(ctx, c.filter)
			if err != nil {
				return err
			}
			return c.show(entries)
		}),
	}
}

func (c *cacheCommands) inspect() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "inspect KEY|OBJECT",
		Short: "Show where a cache comes from and what is in it, without fetching it",
		Args:  cobra.ExactArgs(1),
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, args []string) error {
			e, err := admin.One(ctx, args[0], c.filter)
			if err != nil {
				return err
			}
			d, err := admin.Inspect(ctx, e, files)
			if err != nil {
				return err
			}
			return c.showDetails(d, files)
		}),
	}
	cmd.Flags().BoolVar(&files, "files", false, "list what is in it")
	return cmd
}

func (c *cacheCommands) showDetails(d cacheadmin.Details, files bool) error {
	if c.json {
		return showJSON(c.stdout, d)
	}
	now := time.Now()
	date := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return fmt.Sprintf("%s, %s ago", t.UTC().Format(time.RFC3339), age(now.Sub(t)))
	}
	rows := [][2]string{
		{"key", d.Key},
		{"object", d.Object},
		{"paths", d.Paths},
		{"scope", fmt.Sprintf("%s, project %d", d.Scope, d.Project)},
		{"size", fmt.Sprintf("%s, unpacked %s in %d files", joblog.Size(d.Size), joblog.Size(d.Unpacked), d.Files)},
		{"created", date(d.Created)},
		{"refreshed", date(d.Refreshed)},
		{"job", strings.TrimSpace(fmt.Sprintf("%d %s", d.Job, d.JobName))},
		{"ref", strings.TrimSpace(d.Ref + " " + d.Sha)},
		{"digest", d.Digest},
	}
	for _, file := range d.Lockfiles.Paths() {
		rows = append(rows, [2]string{"lockfile", file + " " + d.Lockfiles[file]})
	}
	if err := show(c.stdout, false, rows, []string{"FACT", "VALUE"}, func(row [2]string) []string { return row[:] }); err != nil || !files {
		return err
	}
	fmt.Fprintln(c.stdout)
	return show(c.stdout, false, d.Content, []string{"MODE", "SIZE", "PATH"}, func(f cacheadmin.File) []string {
		name := f.Path
		if f.Link != "" {
			name += " -> " + f.Link
		}
		return []string{f.Mode, strconv.FormatInt(f.Size, 10), name}
	})
}

func (c *cacheCommands) get() *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY|OBJECT FILE",
		Short: "Fetch a cache as a file that `tar --zstd -xf FILE` unpacks",
		Args:  cobra.ExactArgs(2),
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, args []string) error {
			e, err := admin.One(ctx, args[0], c.filter)
			if err != nil {
				return err
			}
			// Nothing is overwritten by mistake, and no half a file is left.
			f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			bar := c.progress(e.Size)
			err = admin.Get(ctx, e, f, bar.set)
			bar.end()
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(args[1]))
			}
			return nil
		}),
	}
}

func (c *cacheCommands) rm() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rm KEY|OBJECT...",
		Short: "Find caches by their keys, and remove them with --yes",
		Args:  cobra.MinimumNArgs(1),
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, args []string) error {
			var entries []cacheadmin.Entry
			for _, name := range args {
				e, err := admin.One(ctx, name, c.filter)
				if err != nil {
					return err
				}
				entries = append(entries, e)
			}
			return c.remove(ctx, admin, entries, yes)
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "remove what is found")
	return cmd
}

// remove removes entries, or only shows them.
func (c *cacheCommands) remove(ctx context.Context, admin *cacheadmin.Admin, entries []cacheadmin.Entry, yes bool) error {
	if !yes {
		if len(entries) > 0 {
			fmt.Fprintln(c.stderr, "nothing is removed without --yes")
		}
		return c.show(entries)
	}
	gone, err := admin.Remove(ctx, entries)
	return errors.Join(c.show(gone), err)
}

func (c *cacheCommands) stats() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show how much each project has in its scopes",
		Args:  cobra.NoArgs,
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, _ []string) error {
			entries, err := admin.List(ctx, c.filter)
			if err != nil {
				return err
			}
			now := time.Now()
			return show(c.stdout, c.json, cacheadmin.Totals(entries), []string{"PROJECT", "SCOPE", "INSTANCE", "CACHES", "SIZE", "NEWEST", "OLDEST"}, func(t cacheadmin.Total) []string {
				return []string{
					strconv.FormatInt(t.Project, 10), string(t.Scope), t.Instance, strconv.Itoa(t.Entries), joblog.Size(t.Size),
					age(now.Sub(t.Newest)), age(now.Sub(t.Oldest)),
				}
			})
		}),
	}
}

func (c *cacheCommands) prune() *cobra.Command {
	var (
		yes   bool
		older time.Duration
	)
	cmd := &cobra.Command{
		Use:   "prune --older-than AGE [KEY]",
		Short: "Find old caches, and remove them with --yes",
		Long: `Finds caches that nobody has written or refreshed for a time, and removes them
with --yes. A bucket's lifecycle does that by itself: this is for buckets without
one and for spells of tidiness.`,
		Args: cobra.MaximumNArgs(1),
		RunE: c.with(func(ctx context.Context, admin *cacheadmin.Admin, args []string) error {
			if older <= 0 {
				return fmt.Errorf("--older-than is %v, expected a time such as 336h", older)
			}
			c.filter.Key, c.filter.Before = strings.Join(args, ""), time.Now().Add(-older)
			entries, err := admin.List(ctx, c.filter)
			if err != nil {
				return err
			}
			return c.remove(ctx, admin, entries, yes)
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "remove what is found")
	cmd.Flags().DurationVar(&older, "older-than", 0, "the age from which a cache is old: 336h are two weeks")
	_ = cmd.MarkFlagRequired("older-than")
	return cmd
}

// bar draws how far a transfer is where somebody watches.
type bar struct {
	out   *os.File // nil if nobody does
	total int64
	last  time.Time
}

func (c *cacheCommands) progress(total int64) *bar {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return &bar{out: os.Stderr, total: total}
	}
	return &bar{}
}

const (
	barWidth = 30
	barPause = 100 * time.Millisecond
)

func (b *bar) set(done int64) {
	if b.out == nil || b.total == 0 || (time.Since(b.last) < barPause && done < b.total) {
		return
	}
	b.last = time.Now()
	full := int(done * barWidth / b.total)
	fmt.Fprintf(b.out, "\r[%s%s] %s of %s\x1b[K", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), joblog.Size(done), joblog.Size(b.total))
}

func (b *bar) end() {
	if b.out != nil {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
