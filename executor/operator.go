package executor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/podagent"
)

// Operator does what people ask for who have no job at hand: it looks at the
// cluster with podlane's own access.
type Operator struct {
	Settings *settings.Settings
	// Namespaces are the ones to look at; none means those of the settings.
	Namespaces []string
	// Log gets remarks, Output what was asked for.
	Log    *joblog.Log
	Output io.Writer
}

// connect returns a client whose lists go over all namespaces with jobs.
func (o *Operator) connect() (*pod.Client, error) {
	client, err := pod.Connect(o.Settings, nil, o.Log)
	if err == nil {
		return client.Across(pod.PlacesOf(o.Settings, o.Namespaces)), nil
	}
	if o.Settings.Vault.ForKubernetes() {
		err = fmt.Errorf("%w; hint: jobs get their access from Vault, which gives people none: name a kubeconfig of yours with --kubeconfig", err)
	}
	return nil, err
}

// askTimeout bounds a question to one container.
const askTimeout = 10 * time.Second

// containerStatus asks podlane-helper in a container what runs there.
func containerStatus(ctx context.Context, client *pod.Client, s *settings.Settings, name, container string) (podagent.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var status podagent.Status
	err := client.Ask(ctx, name, container, pod.AgentCommand(container, s, "status"), &status)
	return status, err
}

// stageName is the runner's name of a stage: see stageID.
func stageName(id string) string {
	if i := strings.LastIndex(id, "-"); i > 0 {
		return id[:i]
	}
	return id
}
