package main

import (
	"github.com/spf13/cobra"

	"podlane/executor"
	"podlane/executor/settings"
	"podlane/internal/joblog"
)

// operatorCommands are for people on call. They work with the settings and with
// podlane's own access to the cluster, or with a kubeconfig of one's own.
func (a *app) operatorCommands() []*cobra.Command {
	var kubeconfig string
	var namespaces []string
	operator := func() (*executor.Operator, error) {
		s, err := settings.Load(a.config)
		if err != nil {
			return nil, err
		}
		if kubeconfig != "" {
			s.Kubernetes.Kubeconfig, s.Kubernetes.Context = kubeconfig, ""
		}
		return &executor.Operator{Settings: &s, Namespaces: namespaces, Log: joblog.New(a.stderr), Output: a.stdout}, nil
	}
	commands := []*cobra.Command{a.gcCommand(operator), a.topCommand(operator), a.attachCommand(operator), a.shellCommand(operator)}
	for _, c := range commands {
		c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "a kubeconfig `file` in place of kubernetes.kubeconfig in the settings")
		c.Flags().StringSliceVar(&namespaces, "namespace", nil, "look in this `namespace` only, not in all that kubernetes.namespace in the settings can stand for; several: once each")
	}
	return commands
}

type openOperator func() (*executor.Operator, error)
