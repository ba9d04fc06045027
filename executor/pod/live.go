package pod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// aliveTimeout bounds the question whether somebody works in a pod.
const aliveTimeout = 10 * time.Second

// refuseAlive is a *Failure if a stage is followed in a pod at this moment: its
// job is alive, in the hands of another process of the runner's, and a second
// pod for it would run it twice. That holds for a pod in its grace period, too.
// A pod that does not answer is nobody's.
func (c *Client) refuseAlive(ctx context.Context, there *corev1.Pod) error {
	if Lost(there) != nil || there.Spec.NodeName == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	for _, container := range []string{BuildContainer, HelperContainer} {
		for _, stage := range c.followed(ctx, there, container) {
			return &Failure{Reason: "job is alive", Detail: fmt.Sprintf(
				"stage %s of this job runs in pod %s, and another process follows it; hint: podlane attach %s shows it, podlane cleanup ends it",
				stage, there.Name, there.Labels[LabelJob])}
		}
	}
	return nil
}

// followed names the stages in a container that a session follows.
func (c *Client) followed(ctx context.Context, p *corev1.Pod, container string) []string {
	var status struct {
		Stages []struct {
			ID       string `json:"id"`
			Followed bool   `json:"followed"`
		} `json:"stages"`
	}
	for _, program := range agentPrograms(container) {
		if c.Ask(ctx, p.Name, container, []string{program, "status"}, &status) == nil {
			break
		}
	}
	var stages []string
	for _, s := range status.Stages {
		if s.Followed {
			stages = append(stages, s.ID)
		}
	}
	return stages
}

// agentPrograms are where podlane-helper may be in a pod that other settings
// have made.
func agentPrograms(container string) []string {
	if container == HelperContainer {
		return []string{agentInImage, AgentPath}
	}
	return []string{AgentPath}
}
