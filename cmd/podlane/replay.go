package main

import (
	"github.com/spf13/cobra"

	"podlane/executor"
	"podlane/executor/settings"
	"podlane/internal/joblog"
)

func (a *app) replayCommand() *cobra.Command {
	var dir, kubeconfig string
	var keep bool
	cmd := &cobra.Command{
		Use:   "replay --job-dir DIR STAGE...",
		Short: "Run stages of a captured job again, in a pod of their own",
		Long: `Starts a pod as prepare does, runs the stages in it one after the other, and
deletes it. DIR is what podlane capture has written; a file named secrets in it,
with lines NAME=VALUE, fills placeholders. The pod is never that of the job itself.

Reads:
  DIR/response.json, DIR/stages/STAGE.sh, DIR/secrets
  --config         the settings
Writes:
  the cluster      a pod, deleted at the end without --keep
  stdout           what a job log would show
` + exitHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, stages []string) error {
			s, err := settings.Load(a.config)
			if err != nil {
				return err
			}
			if kubeconfig != "" {
				// One's own access, in place of what the job's id_token is worth.
				s.Kubernetes.Kubeconfig, s.Kubernetes.Context, s.Vault.Address = kubeconfig, "", ""
			}
			replay, err := executor.OpenReplay(dir)
			if err != nil {
				return err
			}
			stage := &executor.Stage{Job: replay.Job, Settings: &s, Attempt: "replay", Log: joblog.New(a.log), Output: a.stdout, Secrets: a.secrets}
			return stage.Replay(cmd.Context(), replay, stages, keep)
		},
	}
	cmd.Flags().StringVar(&dir, "job-dir", "", "the captured `folder`")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "a kubeconfig `file` in place of the settings' access")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the pod")
	_ = cmd.MarkFlagRequired("job-dir")
	return cmd
}
